//! Reports: a text table for people, JSON for programs, an exit code for scripts.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde::Serialize;

use crate::command::RunOptions;
use crate::process::kernel_release;
use crate::{html, junit};

/// Version of the JSON form; it changes when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

/// How a command ended, and the exit code that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// Everything was as it should be: 0.
    Passed = 0,
    /// The audit found a fault or a threshold was missed: 1.
    Failed = 1,
    /// The generator was the bottleneck, so the figures say nothing of the server: 2.
    GeneratorLimited = 2,
    /// It did not come to measuring: 3.
    SetUpFailed = 3,
}

/// The judgement on a run, with its reasons in words.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    /// Everything that was demanded of the run, in order.
    pub checks: Vec<Check>,
    /// Faults and missed thresholds.
    pub failures: Vec<String>,
    /// Why the generator was the bottleneck.
    pub generator_limits: Vec<String>,
    /// What a reader should know and what changes nothing.
    pub notes: Vec<String>,
    /// Why it did not come to measuring.
    pub set_up_failure: Option<String>,
    /// The user ended the run early.
    pub interrupted: bool,
}

/// One demand.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What was demanded.
    pub name: String,
    /// Why it was not held; absent when it was.
    pub failure: Option<String>,
}

impl Verdict {
    /// Notes that something was demanded, and whether it was held.
    pub fn demand(&mut self, name: impl Into<String>, held: Result<(), String>) {
        let failure = held.err();
        self.failures.extend(failure.clone());
        self.checks.push(Check { name: name.into(), failure });
    }

    /// Adds the verdict on a repeat of the run.
    pub fn merge(&mut self, other: Verdict) {
        let Verdict { checks, failures, generator_limits, notes, set_up_failure, interrupted } = other;
        self.checks.extend(checks);
        self.failures.extend(failures);
        self.generator_limits.extend(generator_limits);
        let new = notes.into_iter().filter(|note| !self.notes.contains(note));
        self.notes.extend(new.collect::<Vec<_>>());
        self.set_up_failure = self.set_up_failure.take().or(set_up_failure);
        self.interrupted |= interrupted;
    }

    /// The exit code: a set-up failure says all; a fault is a fact even when the generator was slow.
    pub fn exit(&self) -> Exit {
        if self.set_up_failure.is_some() {
            Exit::SetUpFailed
        } else if !self.failures.is_empty() {
            Exit::Failed
        } else if !self.generator_limits.is_empty() {
            Exit::GeneratorLimited
        } else {
            Exit::Passed
        }
    }
}

/// Where a report comes from.
#[derive(Clone, Debug, Serialize)]
pub struct Provenance {
    /// Version of the load tester.
    pub version: &'static str,
    /// The command line, keys and secrets masked.
    pub command_line: Vec<String>,
    /// Kernel release.
    pub kernel: String,
    /// Processors this process may use.
    pub processors: usize,
    /// Keys and values of the scenario, keys and secrets masked.
    pub scenario: Vec<String>,
    /// Seed of everything random.
    pub seed: u64,
    /// Unix seconds when the command began.
    pub started_unix: u64,
}

impl Provenance {
    /// Provenance of a command that begins now.
    pub fn new(command_line: impl IntoIterator<Item = String>, scenario: Vec<String>, seed: u64) -> Self {
        Provenance {
            version: env!("CARGO_PKG_VERSION"),
            command_line: masked(command_line),
            kernel: kernel_release(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            scenario,
            seed,
            started_unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        }
    }
}

const SECRET: [&str; 3] = ["--api-key", "--token", "--token-secret"];

/// `shown` (`OPTION=VALUE`), its value replaced when the option `long` holds a secret.
pub fn mask_value(long: &str, shown: &str) -> String {
    let secret = SECRET.iter().any(|secret| secret.strip_prefix("--") == Some(long));
    if secret { format!("{long}=***") } else { shown.to_owned() }
}

/// Replaces the values of options that hold secrets.
fn masked(command_line: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut hide_next = false;
    let mask = |argument: String| {
        if std::mem::take(&mut hide_next) {
            return "***".to_owned();
        }
        hide_next = SECRET.contains(&argument.as_str());
        match argument.split_once('=') {
            Some((option, _)) if SECRET.contains(&option) => format!("{option}=***"),
            _ => argument,
        }
    };
    command_line.into_iter().map(mask).collect()
}

/// The lines of a text report.
#[derive(Clone, Debug, Default)]
pub struct Table {
    lines: Vec<Line>,
}

#[derive(Clone, Debug)]
enum Line {
    Heading(String),
    Row(String, String),
}

impl Table {
    /// Adds a heading.
    pub fn heading(&mut self, text: &str) {
        self.lines.push(Line::Heading(text.to_owned()));
    }

    /// Adds a line.
    pub fn row(&mut self, label: &str, value: impl ToString) {
        self.lines.push(Line::Row(label.to_owned(), value.to_string()));
    }
}

impl Table {
    /// The lines as text, labels aligned.
    pub fn text(&self) -> String {
        let labels = self.lines.iter().map(|line| match line {
            Line::Heading(_) => 0,
            Line::Row(label, _) => label.chars().count(),
        });
        let width = labels.max().unwrap_or(0) + 2;
        let mut text = String::new();
        for line in &self.lines {
            let line = match line {
                Line::Heading(heading) => heading.clone(),
                Line::Row(label, value) => format!("  {label:width$}{value}"),
            };
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// What a command measured.
pub trait Measured: Serialize {
    /// Adds its lines to a text report.
    fn describe(&self, table: &mut Table);
}

/// A finished command.
#[derive(Debug, Serialize)]
pub struct Report<M> {
    schema: u32,
    command: &'static str,
    exit: Exit,
    verdict: Verdict,
    provenance: Provenance,
    /// Absent when it did not come to measuring.
    measured: Option<M>,
}

impl<M: Measured> Report<M> {
    /// A report of `command`; `measured` is an error when the set-up failed.
    pub fn new(command: &'static str, provenance: Provenance, outcome: anyhow::Result<(M, Verdict)>) -> Self {
        let (measured, verdict) = match outcome {
            Ok((measured, verdict)) => (Some(measured), verdict),
            Err(error) => {
                let failure = format!("{error:#}");
                (None, Verdict { set_up_failure: Some(failure), ..Verdict::default() })
            }
        };
        Report { schema: SCHEMA, command, exit: verdict.exit(), verdict, provenance, measured }
    }

    /// Prints the text form and writes the other ones; returns the exit code.
    ///
    /// # Errors
    ///
    /// When a file cannot be written; the text is printed all the same.
    pub fn publish(&self, options: &RunOptions) -> anyhow::Result<Exit> {
        print!("{}", self.text());
        if let Some(path) = &options.json {
            let text = serde_json::to_string_pretty(self).context("writing the JSON report")?;
            write(path, &(text + "\n"))?;
        }
        if let Some(path) = &options.html {
            let report = serde_json::to_value(self).context("writing the HTML report")?;
            write(path, &html::page(&[(String::new(), report)]))?;
        }
        if let Some(path) = &options.junit {
            write(path, &junit::document(self.command, &self.verdict))?;
        }
        Ok(self.exit)
    }

    fn text(&self) -> String {
        let mut table = Table::default();
        if let Some(measured) = &self.measured {
            measured.describe(&mut table);
        }
        let Provenance { version, command_line, kernel, processors, seed, scenario, started_unix: _ } =
            &self.provenance;
        table.heading("provenance");
        table.row("command", command_line.join(" "));
        if !scenario.is_empty() {
            table.row("scenario", scenario.join(", "));
        }
        table.row("version, kernel", format!("{version}, Linux {kernel}, {processors} processors, seed {seed}"));
        format!("loadtest {}\n{}{}", self.command, table.text(), self.verdict_text())
    }

    fn verdict_text(&self) -> String {
        let word = match self.exit {
            Exit::Passed => "PASSED",
            Exit::Failed => "FAILED",
            Exit::GeneratorLimited => {
                "INVALID: the generator was the bottleneck, the figures say nothing of the server"
            }
            Exit::SetUpFailed => "NOT RUN: the set-up failed",
        };
        let Verdict { failures, generator_limits, notes, set_up_failure, interrupted, checks: _ } = &self.verdict;
        let mut text = format!("verdict: {word} (exit code {})\n", self.exit as u8);
        let reasons = set_up_failure.iter().chain(failures).chain(generator_limits);
        reasons.for_each(|reason| text.push_str(&format!("  - {reason}\n")));
        notes.iter().for_each(|note| text.push_str(&format!("  note: {note}\n")));
        if *interrupted {
            text.push_str("  note: interrupted, this is what was measured until then\n");
        }
        text
    }
}

/// Writes a report.
///
/// # Errors
///
/// With the path.
pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_outweighs_a_slow_generator_and_a_failed_set_up_outweighs_all() {
        let mut verdict = Verdict::default();
        assert_eq!(verdict.exit(), Exit::Passed);
        verdict.generator_limits.push("slow".to_owned());
        assert_eq!(verdict.exit(), Exit::GeneratorLimited);
        verdict.failures.push("lost".to_owned());
        assert_eq!(verdict.exit(), Exit::Failed);
        verdict.set_up_failure = Some("absent".to_owned());
        assert_eq!(verdict.exit(), Exit::SetUpFailed);
    }

    #[test]
    fn secrets_of_the_command_line_are_masked() {
        let line = ["loadtest", "run", "--api-key", "k1", "--token-secret=k2", "--rate", "5"].map(str::to_owned);
        assert_eq!(masked(line), ["loadtest", "run", "--api-key", "***", "--token-secret=***", "--rate", "5"]);
    }
}
