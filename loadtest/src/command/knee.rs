//! `loadtest knee`: the highest rate, or the most subscribers, with which a server holds the thresholds.

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::RunOptions;
use super::run::{self, run_once};
use crate::interrupt::Interrupt;
use crate::metrics::Metrics;
use crate::report::{Exit, Measured, Table, Verdict};
use crate::threshold::shown;
use crate::view::ViewKind;

/// Options of `loadtest knee`.
#[derive(Clone, Debug, Args)]
#[group(id = "KneeOptions")]
pub struct Options {
    /// The load that is varied.
    #[command(flatten)]
    pub load: run::Options,
    /// What is varied
    #[arg(long, value_enum, default_value = "rate")]
    vary: Vary,
    /// Where to begin: it must hold
    #[arg(long, default_value_t = 10.0, value_name = "N")]
    from: f64,
    /// Where to end
    #[arg(long, default_value_t = 10_000.0, value_name = "N")]
    to: f64,
    /// Most runs
    #[arg(long, default_value_t = 12, value_name = "N")]
    steps: u32,
    /// How close is close enough
    #[arg(long, default_value_t = 5.0, value_name = "PERCENT")]
    precision: f64,
}

impl Options {
    /// The options every command has.
    pub fn run(&self) -> &RunOptions {
        self.load.run()
    }
}

/// What is varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Vary {
    /// Publications per second.
    Rate,
    /// Subscribers.
    Subscribers,
}

/// What `loadtest knee` found.
#[derive(Debug, Serialize)]
pub struct KneeResult {
    vary: Vary,
    /// The highest value that held.
    knee: Option<f64>,
    /// The lowest value that did not, if any.
    broke_at: Option<f64>,
    /// Every run, in order.
    points: Vec<Point>,
}

/// One run of the search.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    value: f64,
    outcome: Exit,
    reasons: Vec<String>,
    metrics: Metrics,
}

/// Halves the distance between what holds and what does not until they are close enough, and tells the next value to try.
/// The distance is one of factors: between 10 and 1,000, the middle is 100.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Search {
    from: f64,
    to: f64,
    factor: f64,
    holds: Option<f64>,
    breaks: Option<f64>,
}

impl Search {
    fn next(&self) -> Option<f64> {
        match (self.holds, self.breaks) {
            (None, None) => Some(self.from),
            (None, Some(_)) => None,
            (Some(holds), None) => (holds < self.to).then_some(self.to),
            (Some(holds), Some(breaks)) => {
                let middle = (holds * breaks).sqrt().round();
                (breaks / holds > self.factor && middle > holds && middle < breaks).then_some(middle)
            }
        }
    }

    fn tried(&mut self, value: f64, held: bool) {
        if held {
            self.holds = Some(value);
        } else {
            self.breaks = Some(value);
        }
    }
}

/// Searches.
///
/// # Errors
///
/// Whatever kept it from measuring even once.
pub fn execute(options: &Options, seed: u64, interrupt: &Interrupt) -> anyhow::Result<(KneeResult, Verdict)> {
    let Options { vary, from, to, steps, precision, .. } = *options;
    ensure!(
        from >= 1.0 && to > from && to <= 1e7,
        "--from must be at least 1 and below --to, which is at most 10,000,000"
    );
    ensure!(precision > 0.0 && precision.is_finite(), "--precision must be above 0");
    ensure!(options.load.phases.is_empty(), "the search varies one steady load: the scenario may have no phases");
    let mut search = Search { from, to, factor: 1.0 + precision / 100.0, holds: None, breaks: None };
    let mut points: Vec<Point> = Vec::new();
    while let Some(value) = search.next().filter(|_| points.len() < steps as usize && !interrupt.is_raised()) {
        let mut load = options.load.clone();
        load.view = ViewKind::None;
        match vary {
            Vary::Rate => load.rate = value,
            Vary::Subscribers => load.subscribers = value as u32,
        }
        let prepared = load.prepare()?;
        let its_seed = seed.wrapping_add(points.len() as u64);
        let point = match run_once(&load, &prepared, its_seed, interrupt) {
            Ok((_, verdict)) if verdict.interrupted => break,
            Ok((result, verdict)) => {
                let reasons = verdict.failures.iter().chain(&verdict.generator_limits).cloned().collect();
                Point { value, outcome: verdict.exit(), reasons, metrics: result.metrics }
            }
            // Later on, a set-up that fails is a server that does not hold so many.
            Err(error) if points.is_empty() => return Err(error.context(format!("the first run, at {value}"))),
            Err(error) => {
                let reasons = vec![format!("{error:#}")];
                Point { value, outcome: Exit::SetUpFailed, reasons, metrics: Metrics::new() }
            }
        };
        eprintln!("{}", line(&point));
        search.tried(value, point.outcome == Exit::Passed);
        points.push(point);
    }
    ensure!(!points.is_empty(), "interrupted before the first run was measured");
    let result = KneeResult { vary, knee: search.holds, broke_at: search.breaks, points };
    let verdict = judge(&result, to, interrupt.is_raised());
    Ok((result, verdict))
}

fn judge(result: &KneeResult, to: f64, interrupted: bool) -> Verdict {
    let mut verdict = Verdict { interrupted, ..Verdict::default() };
    let first_break = result.points.iter().find(|point| Some(point.value) == result.broke_at);
    match (result.knee, first_break) {
        // The generator gave up first, so the server's knee is somewhere above.
        (_, Some(point)) if point.outcome == Exit::GeneratorLimited => {
            let reason = point.reasons.join("; ");
            verdict.generator_limits.push(format!("at {} the generator was the bottleneck: {reason}", point.value));
        }
        (None, Some(point)) => verdict.demand(
            format!("{} holds", point.value),
            Err(format!("not even {} held: {}", point.value, point.reasons.join("; "))),
        ),
        (Some(_), None) => {
            verdict.notes.push(format!("the search ended without a break, at most {to} was to be tried"));
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
    verdict
}

fn line(point: &Point) -> String {
    let Point { value, outcome, reasons, metrics } = point;
    let figure = |name: &str| metrics.get(name).map_or("-".to_owned(), |value| shown(name, *value));
    let word = match outcome {
        Exit::Passed => "holds".to_owned(),
        Exit::GeneratorLimited => format!("generator: {}", reasons.join("; ")),
        Exit::Failed | Exit::SetUpFailed => format!("breaks: {}", reasons.join("; ")),
    };
    let (p99, rate) = (figure("p99_deliver"), figure("deliver_rate"));
    format!("{value:>9}  {rate:>9} deliveries/s  p99 {p99:>8}  {word}")
}

impl Measured for KneeResult {
    fn describe(&self, table: &mut Table) {
        let unit = match self.vary {
            Vary::Rate => "publications per second",
            Vary::Subscribers => "subscribers",
        };
        table.heading("search");
        self.points.iter().for_each(|point| table.row("", line(point).trim_start()));
        table.heading("knee");
        match self.knee.context("nothing") {
            Ok(knee) => table.row("holds", format!("{knee} {unit}")),
            Err(_) => table.row("holds", "nothing that was tried"),
        }
        if let Some(broke_at) = self.broke_at {
            table.row("breaks", format!("{broke_at} {unit}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(knee: f64) -> (Search, u32) {
        let mut search = Search { from: 10.0, to: 10_000.0, factor: 1.05, holds: None, breaks: None };
        let mut steps = 0;
        while let Some(value) = search.next() {
            search.tried(value, value <= knee);
            steps += 1;
        }
        (search, steps)
    }

    #[test]
    fn the_knee_is_found_between_two_close_values_in_few_steps() {
        for knee in [11.0, 137.0, 2_500.0, 9_990.0] {
            let (search, steps) = found(knee);
            let (holds, breaks) = (search.holds.expect("something holds"), search.breaks.expect("something breaks"));
            assert!(holds <= knee && knee < breaks, "{search:?}");
            assert!(breaks / holds <= 1.11 && steps <= 12, "{search:?} after {steps}");
        }
    }

    #[test]
    fn a_search_ends_at_once_where_nothing_or_everything_holds() {
        assert_eq!((found(5.0).0.holds, found(5.0).1), (None, 1));
        assert_eq!((found(1e6).0.holds, found(1e6).1), (Some(10_000.0), 2));
    }
}
