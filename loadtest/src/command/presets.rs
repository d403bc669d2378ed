//! `loadtest presets`: the scenarios that come with the program.

use anyhow::Context;
use clap::Args;

use crate::scenario::{self, PRESETS, Preset};

/// Options of `loadtest presets`.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Prints this preset as a file to begin with
    #[arg(value_name = "PRESET")]
    name: Option<String>,
}

/// The list, or one of them.
///
/// # Errors
///
/// When there is no such preset, with the nearest one.
pub fn text(options: &Options) -> anyhow::Result<String> {
    let Some(name) = &options.name else {
        let width = PRESETS.iter().map(|preset| preset.name.len()).max().unwrap_or(0);
        let lines = PRESETS.iter().map(|preset| format!("{:width$}  {}\n", preset.name, preset.about()));
        return Ok(lines.collect::<String>()
            + "\nRun one:     loadtest run smoke --url ws://127.0.0.1:8000\nChange one:  loadtest presets smoke > mine.toml\n");
    };
    let known = || PRESETS.iter().map(|preset| preset.name);
    let found = PRESETS.iter().find(|preset| preset.name == name);
    let hint = || scenario::nearest(name, known()).map_or(String::new(), |meant| format!(", did you mean `{meant}`?"));
    let Preset { text, .. } = found.with_context(|| format!("there is no preset `{name}`{}", hint()))?;
    Ok((*text).to_owned())
}
