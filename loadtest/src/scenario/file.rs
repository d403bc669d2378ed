//! Reading a scenario file against the options of a command.

use std::any::TypeId;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::nearest;
use crate::command::{Sizes, parse_duration};
use crate::report::mask_value;

/// What a file says, ready to be added to a command line.
#[derive(Clone, Debug, Default)]
pub struct Scenario {
    /// Arguments for everything the command line did not say itself.
    pub arguments: Vec<String>,
    /// Phases, in order.
    pub phases: Vec<PhaseKeys>,
    /// Every key with its value, secrets masked, for provenance.
    pub settings: Vec<String>,
}

/// One `[[phase]]`. What it does not say is as in the options of the run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PhaseKeys {
    /// Name in reports.
    pub name: Option<String>,
    /// How long it lasts.
    pub duration: Option<Duration>,
    /// Publications per second at the beginning and at the end.
    pub rate: Option<(f64, f64)>,
    /// Connections cut per second.
    pub churn: Option<f64>,
    /// Share of connections cut at the beginning.
    pub cut: Option<f64>,
    /// How long they stay away.
    pub offline: Option<Duration>,
}

const PHASE_KEYS: [&str; 6] = ["name", "duration", "rate", "churn", "cut", "offline"];

/// Reads `text`, the scenario `name`, for `command`, whose own arguments `given` come first.
///
/// # Errors
///
/// Every mistake with its line: no TOML, unknown keys with the nearest valid one, wrong types, impossible values.
pub fn read(name: &str, text: &str, command: &clap::Command, given: &ArgMatches) -> anyhow::Result<Scenario> {
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        anyhow!("{name}:{line}: {}", error.message())
    })?;
    let mut scenario = Scenario::default();
    let mut mistakes = String::new();
    for (key, value) in table.get_ref() {
        let line = line_of(text, key.span().start);
        let word: &str = key.get_ref();
        let taken = if word == "phase" {
            match phases(text, value) {
                Ok(phases) => {
                    scenario.phases = phases;
                    Ok(())
                }
                Err(wrong) => {
                    for (line, reason) in wrong {
                        let _ = writeln!(mistakes, "{name}:{line}: {reason}");
                    }
                    continue;
                }
            }
        } else {
            take(&mut scenario, command, given, word, value.get_ref())
        };
        if let Err(reason) = taken {
            let _ = writeln!(mistakes, "{name}:{line}: {reason}");
        }
    }
    match mistakes.trim_end() {
        "" => Ok(scenario),
        mistakes => bail!("{mistakes}"),
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|&byte| byte == b'\n').count() + 1
}

// === options ===

/// Keys a file may have: every long option that takes part in the run.
fn keys(command: &clap::Command) -> impl Iterator<Item = (String, &Arg)> {
    let options = command.get_arguments().filter(|option| option.get_long().is_some_and(|long| long != "help"));
    options.map(|option| (option.get_long().unwrap_or_default().replace('-', "_"), option))
}

fn take(
    scenario: &mut Scenario,
    command: &clap::Command,
    given: &ArgMatches,
    word: &str,
    value: &DeValue<'_>,
) -> Result<(), String> {
    let Some((_, option)) = keys(command).find(|(key, _)| key == word) else {
        let known: Vec<String> = keys(command).map(|(key, _)| key).chain(["phase".to_owned()]).collect();
        let meant = nearest(word, known.iter().map(String::as_str));
        let hint = meant.map_or(String::new(), |meant| format!(", did you mean `{meant}`?"));
        return Err(format!("unknown key `{word}`{hint}"));
    };
    let long = option.get_long().unwrap_or_default();
    let arguments =
        arguments(option, long, value).map_err(|wanted| format!("`{word}` wants {wanted}, not {}", kind_of(value)))?;
    // The option alone, so that a wrong value is told by its own line.
    let alone = [command.get_name().to_owned()].into_iter().chain(arguments.iter().cloned());
    if let Err(error) = command.clone().try_get_matches_from(alone) {
        let text = error.to_string();
        let reason = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        return Err(format!("`{word}`: {reason}"));
    }
    for argument in &arguments {
        let shown = argument.strip_prefix("--").unwrap_or(argument);
        scenario.settings.push(mask_value(long, shown));
    }
    if given.value_source(option.get_id().as_str()) != Some(ValueSource::CommandLine) {
        scenario.arguments.extend(arguments);
    }
    Ok(())
}

/// The arguments that say the same as a key; an error says what kind of value the option takes.
fn arguments(option: &Arg, long: &str, value: &DeValue<'_>) -> Result<Vec<String>, &'static str> {
    let of = |text: String| format!("--{long}={text}");
    if matches!(option.get_action(), ArgAction::SetTrue) {
        let DeValue::Boolean(on) = value else { return Err("true or false") };
        return Ok(if *on { vec![format!("--{long}")] } else { Vec::new() });
    }
    let parser = option.get_value_parser().type_id();
    let numbers = [TypeId::of::<u32>(), TypeId::of::<u64>(), TypeId::of::<usize>()];
    if numbers.iter().any(|number| parser == *number) {
        return whole(value).map(|number| vec![of(number)]).ok_or("a whole number");
    }
    if parser == TypeId::of::<f64>() {
        return number(value).map(|number| vec![of(number.to_string())]).ok_or("a number");
    }
    if parser == TypeId::of::<Sizes>() {
        let several = match value {
            DeValue::Array(values) => values.iter().map(|value| whole(value.get_ref())).collect(),
            one => whole(one).map(|one| vec![one]),
        };
        return several.map(|sizes| vec![of(sizes.join(","))]).ok_or("a whole number of bytes, or several in brackets");
    }
    match (value, option.get_action()) {
        (DeValue::String(text), _) => Ok(vec![of(text.to_string())]),
        (DeValue::Array(values), ArgAction::Append) => {
            let texts = values.iter().map(|value| value.get_ref().as_str().map(|text| of(text.to_owned())));
            texts.collect::<Option<_>>().ok_or("texts in brackets")
        }
        (_, ArgAction::Append) => Err("a text, or several in brackets"),
        (_, _) if parser == TypeId::of::<Duration>() => Err("a text such as \"10s\" or \"250ms\""),
        (_, _) => Err("a text"),
    }
}

fn whole(value: &DeValue<'_>) -> Option<String> {
    let DeValue::Integer(number) = value else { return None };
    i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number.to_string())
}

fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(number) => number.as_str().parse().ok(),
        other => whole(other)?.parse().ok(),
    }
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

// === phases ===

type Mistakes = Vec<(usize, String)>;

fn phases(text: &str, value: &Spanned<DeValue<'_>>) -> Result<Vec<PhaseKeys>, Mistakes> {
    let wrong = || vec![(line_of(text, value.span().start), "phases are written `[[phase]]`".to_owned())];
    let DeValue::Array(tables) = value.get_ref() else { return Err(wrong()) };
    let (mut phases, mut mistakes) = (Vec::new(), Vec::new());
    for table in tables.iter() {
        let DeValue::Table(table) = table.get_ref() else { return Err(wrong()) };
        let mut phase = PhaseKeys::default();
        for (key, value) in table {
            if let Err(reason) = phase.take(key.get_ref(), value.get_ref()) {
                mistakes.push((line_of(text, key.span().start), reason));
            }
        }
        phases.push(phase);
    }
    if mistakes.is_empty() { Ok(phases) } else { Err(mistakes) }
}

impl PhaseKeys {
    fn take(&mut self, key: &str, value: &DeValue<'_>) -> Result<(), String> {
        let wants = |what: &str| format!("`{key}` of a phase wants {what}, not {}", kind_of(value));
        let positive = || number(value).filter(|number| number.is_finite() && *number >= 0.0);
        let duration = || {
            let text = value.as_str().ok_or_else(|| wants("a text such as \"10s\""))?;
            parse_duration(text).map_err(|reason| format!("`{key}` of a phase: {reason}"))
        };
        match key {
            "name" => {
                let name = value.as_str().filter(|name| !name.is_empty() && !name.contains('@'));
                self.name = Some(name.ok_or_else(|| wants("a text without @"))?.to_owned());
            }
            "duration" => self.duration = Some(duration()?).filter(|duration| !duration.is_zero()),
            "offline" => self.offline = Some(duration()?),
            "rate" => {
                let ends: Option<Vec<f64>> = match value {
                    DeValue::Array(ends) => ends.iter().map(|end| number(end.get_ref())).collect(),
                    one => number(one).map(|one| vec![one, one]),
                };
                let ends = ends.filter(|ends| ends.iter().all(|rate| (0.0..=1e7).contains(rate)));
                let Some([from, to]) = ends.as_deref() else {
                    return Err(wants("publications per second, or [first, last], each from 0 to 10,000,000"));
                };
                self.rate = Some((*from, *to));
            }
            "churn" => self.churn = Some(positive().ok_or_else(|| wants("connections per second"))?),
            "cut" => {
                let share = positive().filter(|share| *share <= 1.0);
                self.cut = Some(share.ok_or_else(|| wants("a share from 0 to 1"))?);
            }
            unknown => {
                let hint = nearest(unknown, PHASE_KEYS);
                let hint = hint.map_or(String::new(), |meant| format!(", did you mean `{meant}`?"));
                return Err(format!("unknown key `{unknown}` of a phase{hint}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;
    use crate::command::run;

    fn command() -> clap::Command {
        run::Options::augment_args(clap::Command::new("run"))
    }

    fn read_with(arguments: &[&str], text: &str) -> anyhow::Result<(run::Options, Scenario)> {
        let line: Vec<String> = ["run"].iter().chain(arguments).map(|&word| word.to_owned()).collect();
        let given = command().try_get_matches_from(&line).expect("sound arguments");
        let scenario = read("file.toml", text, &command(), &given)?;
        let all = command().try_get_matches_from(line.iter().chain(&scenario.arguments)).expect("each was checked");
        Ok((run::Options::from_arg_matches(&all).expect("matched"), scenario))
    }

    #[test]
    fn every_option_of_the_command_line_is_a_key_and_the_command_line_wins() {
        let text = "rate = 50\nsubscribers = 7 # few\npublish_via = 'grpc'\npayload = [128, 1024]\nrecover = true\n";
        let (options, _) = read_with(&["--subscribers", "9"], text).expect("sound");
        let shown = format!("{options:?}");
        for part in ["rate: 50.0", "subscribers: 9", "publish_via: Grpc", "[128, 1024]", "recover: true"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    }

    #[test]
    fn a_mistake_is_told_by_its_line_with_what_was_meant() {
        let text = "rate = 50\nsubscriberz = 7\nduration = 10\nrecover = 'yes'\npublish_via = 'pigeon'\n\n[[phase]]\nrat = 1\n";
        let told = format!("{:#}", read_with(&[], text).expect_err("five mistakes"));
        let expected = [
            "file.toml:2: unknown key `subscriberz`, did you mean `subscribers`?",
            "file.toml:3: `duration` wants a text such as \"10s\" or \"250ms\", not a whole number",
            "file.toml:4: `recover` wants true or false, not a text",
            "file.toml:5: `publish_via`: invalid value 'pigeon' for '--publish-via <PUBLISH_VIA>'",
            "file.toml:8: unknown key `rat` of a phase, did you mean `rate`?",
        ];
        for line in expected {
            assert!(told.contains(line), "{line}\nin\n{told}");
        }
        assert_eq!(told.lines().count(), expected.len(), "{told}");
    }

    #[test]
    fn what_is_no_toml_is_told_by_its_line() {
        let told = format!("{:#}", read_with(&[], "rate = 50\nrate =\n").expect_err("no value"));
        assert!(told.starts_with("file.toml:2: "), "{told}");
    }

    #[test]
    fn phases_are_read_in_order_with_what_they_say() {
        let text = "[[phase]]\nname = 'calm'\nrate = 10\nduration = '2s'\n[[phase]]\nrate = [10, 100]\ncut = 0.5\n";
        let (_, scenario) = read_with(&[], text).expect("sound");
        let calm = &scenario.phases[0];
        assert_eq!((calm.name.as_deref(), calm.rate), (Some("calm"), Some((10.0, 10.0))));
        assert_eq!((scenario.phases[1].rate, scenario.phases[1].cut), (Some((10.0, 100.0)), Some(0.5)));
    }

    #[test]
    fn impossible_values_of_a_phase_are_refused() {
        for wrong in ["rate = -1", "rate = [1, 2, 3]", "cut = 1.5", "churn = 'x'", "duration = 'soon'", "name = 'a@b'"]
        {
            assert!(read_with(&[], &format!("[[phase]]\n{wrong}\n")).is_err(), "{wrong}");
        }
        assert!(read_with(&[], "phase = 3").is_err());
    }
}
