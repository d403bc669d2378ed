//! A baseline: an earlier report that a run must not fall behind by more than is tolerated.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};

use crate::metrics::Metrics;
use crate::threshold::shown;

/// Figures of which more is worse and which are the server's doing.
const WATCHED: [&str; 6] =
    ["p50_deliver", "p99_deliver", "p99_answer", "rss_per_conn", "server_cpu_per_message", "set_up"];

/// Times that differ by less are equal: half a millisecond is what a busy scheduler does to any process.
const NOISE_NS: f64 = 500_000.0;

/// The figures of an earlier run.
#[derive(Clone, Debug)]
pub struct Baseline {
    metrics: Metrics,
    drift: f64,
}

impl Baseline {
    /// Reads the JSON report of an earlier run; `drift_percent` more is tolerated.
    ///
    /// # Errors
    ///
    /// When the file is not the report of a run.
    pub fn read(path: &Path, drift_percent: f64) -> anyhow::Result<Self> {
        ensure!(drift_percent.is_finite() && drift_percent >= 0.0, "--drift must be 0 or more percent");
        let metrics = metrics_of(path).with_context(|| format!("baseline {}", path.display()))?;
        Ok(Baseline { metrics, drift: drift_percent / 100.0 })
    }

    /// What is compared: name, and `Err` with the reason where the run is worse than tolerated.
    pub fn check(&self, now: &Metrics) -> Vec<(String, Result<(), String>)> {
        let both = WATCHED.iter().filter_map(|&name| Some((name, *self.metrics.get(name)?, *now.get(name)?)));
        both.map(|(name, before, now)| {
            let bound = before * (1.0 + self.drift);
            let is_time = crate::metrics::unit_of(name) == Some(crate::metrics::Unit::Time);
            // Processor time per message is an average over a whole run: its noise is far smaller.
            let noise = if is_time && name != "server_cpu_per_message" { NOISE_NS } else { 0.0 };
            let held = now <= bound || now - before <= noise;
            let reason = || {
                let percent = (now / before.max(f64::MIN_POSITIVE) - 1.0) * 100.0;
                let (before, now) = (shown(name, before), shown(name, now));
                format!("{name} was {before} in the baseline and is {now}: {percent:.0} % worse")
            };
            (format!("{name} against the baseline"), if held { Ok(()) } else { Err(reason()) })
        })
        .collect()
    }
}

/// The figures in a JSON report.
///
/// # Errors
///
/// When the file cannot be read or is not the report of a run.
pub fn metrics_of(path: &Path) -> anyhow::Result<Metrics> {
    #[derive(serde::Deserialize)]
    struct Report {
        measured: Option<Measured>,
    }
    #[derive(serde::Deserialize)]
    struct Measured {
        metrics: Metrics,
    }
    let text = fs::read_to_string(path).context("reading it")?;
    let report: Report = serde_json::from_str(&text).context("it is not the JSON report of `loadtest run`")?;
    Ok(report.measured.context("it is the report of a run that did not come to measuring")?.metrics)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(before: f64, now: f64, name: &str) -> usize {
        let baseline = Baseline { metrics: Metrics::from([(name.to_owned(), before)]), drift: 0.1 };
        let checks = baseline.check(&Metrics::from([(name.to_owned(), now)]));
        checks.iter().filter(|(_, held)| held.is_err()).count()
    }

    #[test]
    fn more_than_the_tolerated_drift_fails_and_noise_does_not() {
        assert_eq!(failures(100e6, 109e6, "p99_deliver"), 0);
        assert_eq!(failures(100e6, 111e6, "p99_deliver"), 1);
        assert_eq!(failures(1e5, 4e5, "p99_deliver"), 0, "0.3 ms is noise");
        assert_eq!(failures(2_000.0, 2_300.0, "rss_per_conn"), 1);
        assert_eq!(failures(2_000.0, 1_000.0, "rss_per_conn"), 0);
        assert_eq!(failures(5_000.0, 6_000.0, "server_cpu_per_message"), 1);
    }
}
