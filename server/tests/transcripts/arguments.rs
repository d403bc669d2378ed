//! What stands behind `--` on the command line.

use std::{env, num::NonZeroU32};

use anyhow::{Context, Result, bail, ensure};
use globset::{Glob, GlobSet, GlobSetBuilder};

/// Options of the standard test harness that mean nothing here: `cargo test -- OPTION` gives them to every test binary.
const IGNORED: [&str; 9] = [
    "--nocapture",
    "--no-capture",
    "--show-output",
    "--exact",
    "--include-ignored",
    "-q",
    "--quiet",
    "--report-time",
    "--ensure-time",
];

/// The same with a value.
const IGNORED_WITH_VALUE: [&str; 5] = ["--test-threads", "--color", "--format", "--skip", "-Z"];

pub(crate) struct Arguments {
    wanted: Option<GlobSet>,
    pub(crate) list: bool,
    pub(crate) verbose: bool,
    pub(crate) write_waiting: bool,
    /// Whether the lists of exceptions count; not when another server is played.
    pub(crate) lists: bool,
    /// Scenarios that are played at once.
    pub(crate) jobs: u32,
}

impl Arguments {
    pub(crate) fn parse() -> Result<Self> {
        let (mut globs, mut any) = (GlobSetBuilder::new(), false);
        let mut parsed =
            Self { wanted: None, list: false, verbose: false, write_waiting: false, lists: true, jobs: jobs()? };
        let mut words = env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--list" => parsed.list = true,
                "--verbose" | "-v" => parsed.verbose = true,
                "--no-lists" => parsed.lists = false,
                "--write-waiting" => parsed.write_waiting = true,
                option if IGNORED.contains(&option) => {}
                option if IGNORED_WITH_VALUE.contains(&option) => drop(words.next()),
                option if IGNORED_WITH_VALUE.iter().any(|name| option.starts_with(&format!("{name}="))) => {}
                option if option.starts_with('-') => {
                    bail!(
                        "no option {option}; there are --list, --verbose, --no-lists, --write-waiting, and names or globs"
                    )
                }
                name => {
                    globs.add(Glob::new(name).with_context(|| name.to_owned())?);
                    any = true;
                }
            }
        }
        ensure!(parsed.lists || !parsed.write_waiting, "--write-waiting needs the list that --no-lists ignores");
        parsed.wanted = any.then(|| globs.build()).transpose()?;
        Ok(parsed)
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.wanted.as_ref().is_none_or(|globs| globs.is_match(name))
    }
}

fn jobs() -> Result<u32> {
    let Some(text) = env::var_os("STARLING_TRANSCRIPT_JOBS") else { return Ok(8) };
    let jobs: NonZeroU32 = text.to_string_lossy().parse().context("STARLING_TRANSCRIPT_JOBS")?;
    Ok(jobs.get())
}
