//! `loadtest compare`: two reports side by side, with the spread of their repeats.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::fanout::Spread;
use crate::html;
use crate::metrics::Metrics;
use crate::report::{Table, write};
use crate::threshold::shown;

/// Options of `loadtest compare`.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// JSON report of a run
    a: PathBuf,
    /// JSON report of another run
    b: PathBuf,
    /// Writes both as one HTML file with plots as well
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// One of the reports.
struct Side {
    name: String,
    report: Value,
    repeats: Vec<Metrics>,
}

#[derive(Deserialize)]
struct Known {
    measured: Option<KnownMeasured>,
}

#[derive(Deserialize)]
struct KnownMeasured {
    repeats: Vec<Metrics>,
}

/// Reads both and puts them side by side.
///
/// # Errors
///
/// When a file is not the report of a run, or the HTML file cannot be written.
pub fn text(options: &Options) -> anyhow::Result<String> {
    let (a, b) = (read(&options.a)?, read(&options.b)?);
    let mut table = Table::default();
    table.heading(&format!("A = {}   B = {}", a.name, b.name));
    for note in differences(&a.report, &b.report) {
        table.row("note", note);
    }
    table.heading("median (least to most of the repeats)");
    for name in a.repeats.iter().chain(&b.repeats).flat_map(Metrics::keys).collect::<std::collections::BTreeSet<_>>() {
        let spread = |side: &Side| Spread::of(side.repeats.iter().filter_map(|metrics| metrics.get(name).copied()));
        if let (Some(a), Some(b)) = (spread(&a), spread(&b))
            && (a.median != 0.0 || b.median != 0.0)
        {
            table.row(name, row(name, a, b));
        }
    }
    if let Some(path) = &options.html {
        write(path, &html::page(&[(a.name, a.report), (b.name, b.report)]))?;
    }
    Ok(table.text())
}

fn read(path: &Path) -> anyhow::Result<Side> {
    let what = || format!("{}: it is not the JSON report of `loadtest run`", path.display());
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let known: Known = serde_json::from_str(&text).with_context(what)?;
    let repeats = known.measured.with_context(what)?.repeats;
    Ok(Side { name: path.display().to_string(), report: serde_json::from_str(&text).with_context(what)?, repeats })
}

/// Where two runs differ in what they were, not in what came out.
fn differences(a: &Value, b: &Value) -> Vec<String> {
    const SAME: [&str; 9] = [
        "/provenance/kernel",
        "/provenance/processors",
        "/provenance/version",
        "/measured/subscribers",
        "/measured/channels",
        "/measured/subscriptions_each",
        "/measured/publishers",
        "/measured/payload_bytes",
        "/measured/via",
    ];
    let differ = SAME.iter().filter(|path| a.pointer(path) != b.pointer(path));
    let shown = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
    let note = |path: &&str| {
        let word = path.rsplit('/').next().unwrap_or_default();
        format!("{word} differs: {} and {}", shown(a.pointer(path)), shown(b.pointer(path)))
    };
    differ.map(note).collect()
}

fn row(name: &str, a: Spread, b: Spread) -> String {
    let text = |spread: Spread| {
        let Spread { median, least, most } = spread;
        if least == most {
            return shown(name, median);
        }
        format!("{} ({} to {})", shown(name, median), shown(name, least), shown(name, most))
    };
    let change =
        if a.median == 0.0 { "new".to_owned() } else { format!("{:+.0} %", (b.median / a.median - 1.0) * 100.0) };
    // Two runs say more than chance when no repeat of one lies among those of the other.
    let apart = a.most < b.least || b.most < a.least;
    let word = if apart { "" } else { "  within the spread" };
    format!("A {:<34} B {:<34} {change:>8}{word}", text(a), text(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_within_the_spread_is_called_so() {
        let spread = |least, median, most| Spread { median, least, most };
        let clear = row("p99_deliver", spread(1e6, 1.1e6, 1.2e6), spread(2e6, 2.2e6, 2.4e6));
        assert!(clear.contains("+100 %") && !clear.contains("within"), "{clear}");
        let unclear = row("p99_deliver", spread(1e6, 1.1e6, 2.1e6), spread(2e6, 2.2e6, 2.4e6));
        assert!(unclear.contains("within the spread"), "{unclear}");
    }
}
