//! Scenarios: the options of a command in a commented TOML file, and what only a file can say: phases.
//!
//! Every option of the command line is a key of the file (`--publish-via grpc` is `publish_via = "grpc"`), so there is one
//! list of options with one description each. An option that is also on the command line has the value given there. A
//! file that has a mistake is refused as a whole, with every mistake by its line.

mod file;
mod nearest;
mod presets;

use std::fs;

use anyhow::{Context, bail};

pub use self::file::{PhaseKeys, Scenario, read};
pub use self::nearest::nearest;
pub use self::presets::{PRESETS, Preset};

/// Finds a scenario by the word on the command line: a preset's name, else a file. Returns a name for messages and the
/// text.
///
/// # Errors
///
/// When it is neither, with the nearest preset.
pub fn find(word: &str) -> anyhow::Result<(String, String)> {
    if let Some(preset) = PRESETS.iter().find(|preset| preset.name == word) {
        return Ok((format!("preset {word}"), preset.text.to_owned()));
    }
    if word.contains(['/', '.']) {
        let text = fs::read_to_string(word).with_context(|| format!("scenario file {word}"))?;
        return Ok((word.to_owned(), text));
    }
    match fs::read_to_string(word) {
        Ok(text) => Ok((word.to_owned(), text)),
        Err(_) => {
            let meant = nearest(word, PRESETS.iter().map(|preset| preset.name));
            let hint = meant.map_or(String::new(), |meant| format!(", did you mean `{meant}`?"));
            bail!("`{word}` is neither a file nor a preset{hint} (`loadtest presets` lists them)")
        }
    }
}
