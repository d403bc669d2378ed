//! The scenarios that come with the program.

/// A ready scenario.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// What it is called on the command line.
    pub name: &'static str,
    /// The file.
    pub text: &'static str,
}

impl Preset {
    /// What it is for: the first line of its comment.
    pub fn about(&self) -> &'static str {
        self.text.lines().next().unwrap_or_default().trim_start_matches("# ")
    }
}

macro_rules! presets {
    ($($name:literal),* $(,)?) => {
        /// All of them, from the simplest on.
        pub const PRESETS: &[Preset] =
            &[$(Preset { name: $name, text: include_str!(concat!("../../presets/", $name, ".toml")) }),*];
    };
}

presets!(
    "smoke",
    "fan-out",
    "ramp",
    "channels",
    "channels-zipf",
    "huge-channel",
    "payload-sizes",
    "publish-http",
    "publish-grpc",
    "churn",
    "reconnect-storm",
    "recovery",
    "slow-readers",
    "half-open",
);

#[cfg(test)]
mod tests {
    use clap::Args;

    use super::*;
    use crate::command::run;
    use crate::scenario::read;
    use crate::threshold::Threshold;

    #[test]
    fn every_preset_is_a_sound_scenario_that_says_what_it_is_for() {
        let command = run::Options::augment_args(clap::Command::new("run"));
        for preset in PRESETS {
            let given = command.clone().try_get_matches_from(["run"]).expect("nothing given");
            let scenario = read(preset.name, preset.text, &command, &given).expect(preset.name);
            let line = ["run".to_owned()].into_iter().chain(scenario.arguments);
            let matches = command.clone().try_get_matches_from(line).expect(preset.name);
            let phases: Vec<_> = scenario.phases.iter().filter_map(|phase| phase.name.as_deref()).collect();
            for threshold in matches.get_many::<String>("threshold").into_iter().flatten() {
                Threshold::parse(threshold, &phases).expect(threshold);
            }
            assert!(preset.text.starts_with("# "), "{}", preset.name);
            assert!(preset.about().len() > 20, "{}", preset.name);
        }
    }
}
