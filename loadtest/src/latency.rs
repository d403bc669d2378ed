//! Latency histograms: nanoseconds in, a summary out.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// A histogram of durations from 1 µs to 1 hour at three significant digits; what is outside counts at the edge.
#[derive(Clone, Debug)]
pub struct LatencyHistogram {
    values: Histogram<u64>,
}

/// What reports say of a histogram. All values in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LatencySummary {
    /// Number of values.
    pub count: u64,
    /// Arithmetic mean.
    pub mean_ns: f64,
    /// Smallest value.
    pub min_ns: u64,
    /// Median.
    pub p50_ns: u64,
    /// 90 of 100 are not above.
    pub p90_ns: u64,
    /// 99 of 100 are not above.
    pub p99_ns: u64,
    /// 999 of 1,000 are not above.
    pub p999_ns: u64,
    /// 9,999 of 10,000 are not above.
    pub p9999_ns: u64,
    /// Largest value.
    pub max_ns: u64,
}

impl LatencyHistogram {
    /// An empty histogram.
    pub fn new() -> Self {
        let values = Histogram::new_with_bounds(1_000, 3_600_000_000_000, 3).expect("the bounds are sound");
        LatencyHistogram { values }
    }

    /// Counts one duration.
    pub fn record(&mut self, nanoseconds: u64) {
        self.values.saturating_record(nanoseconds);
    }

    /// Adds all values of another histogram, without loss.
    pub fn merge(&mut self, other: &LatencyHistogram) {
        self.values.add(&other.values).expect("all histograms have the same bounds");
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.values.len()
    }

    /// Forgets all values and keeps the memory.
    pub fn clear(&mut self) {
        // `clear` of the library keeps the largest value.
        self.values.reset();
    }

    /// Points of the percentile curve, at most 49: percentile (0 to 100) and nanoseconds, closer together towards 100,
    /// as far as there are enough values to tell.
    pub fn curve(&self) -> Vec<(f64, u64)> {
        let count = self.values.len() as f64;
        // Eight steps per nine; the last point is the largest value.
        let told = |above: &f64| above * count >= 1.0;
        let steps = (0..48).map(|step| 10f64.powf(-f64::from(step) / 8.0)).take_while(told);
        let point = |above: f64| ((1.0 - above) * 100.0, self.values.value_at_quantile(1.0 - above));
        let last = (count > 0.0).then(|| (100.0, self.values.max()));
        steps.map(point).chain(last).collect()
    }

    /// The figures for reports.
    pub fn summary(&self) -> LatencySummary {
        if self.values.is_empty() {
            return LatencySummary::default();
        }
        let at = |quantile| self.values.value_at_quantile(quantile);
        LatencySummary {
            count: self.values.len(),
            mean_ns: self.values.mean(),
            min_ns: self.values.min(),
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            p9999_ns: at(0.9999),
            max_ns: self.values.max(),
        }
    }
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        LatencyHistogram::new()
    }
}

impl fmt::Display for LatencySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return write!(f, "no values");
        }
        let [p50, p90, p99, p999, p9999, max] =
            [self.p50_ns, self.p90_ns, self.p99_ns, self.p999_ns, self.p9999_ns, self.max_ns].map(readable);
        write!(f, "p50 {p50}  p90 {p90}  p99 {p99}  p99.9 {p999}  p99.99 {p9999}  max {max}")
    }
}

/// A duration in nanoseconds with three digits and a unit.
pub fn readable(nanoseconds: u64) -> String {
    let duration = Duration::from_nanos(nanoseconds);
    match nanoseconds {
        0..1_000_000 => format!("{:.0} µs", duration.as_secs_f64() * 1e6),
        1_000_000..10_000_000 => format!("{:.2} ms", duration.as_secs_f64() * 1e3),
        10_000_000..1_000_000_000 => format!("{:.0} ms", duration.as_secs_f64() * 1e3),
        _ => format!("{:.2} s", duration.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_histograms_say_the_same_as_one() {
        let (mut one, mut two, mut all) = (LatencyHistogram::new(), LatencyHistogram::new(), LatencyHistogram::new());
        for value in 1..=1_000u64 {
            if value % 3 == 0 { &mut one } else { &mut two }.record(value * 1_000_000);
            all.record(value * 1_000_000);
        }
        one.merge(&two);
        assert_eq!(one.summary(), all.summary());
        let p99 = all.summary().p99_ns;
        assert!((989_000_000..992_000_000).contains(&p99), "{p99}");
    }

    #[test]
    fn a_curve_rises_to_the_largest_value_and_has_no_more_points_than_values_tell() {
        let mut values = LatencyHistogram::new();
        assert_eq!(values.curve(), []);
        (1..=100).for_each(|value| values.record(value * 1_000_000));
        let curve = values.curve();
        assert!(curve.is_sorted_by_key(|&(_, value)| value) && curve.len() == 18, "{curve:?}");
        assert_eq!(curve.last().map(|&(percentile, _)| percentile), Some(100.0));
    }

    #[test]
    fn a_cleared_histogram_has_forgotten_its_largest_value() {
        let mut values = LatencyHistogram::new();
        values.record(5_000_000_000);
        values.clear();
        values.record(1_000_000);
        let mut all = LatencyHistogram::new();
        all.merge(&values);
        assert!(all.summary().max_ns < 1_100_000 && values.summary().max_ns < 1_100_000);
    }

    #[test]
    fn an_empty_histogram_says_so() {
        assert_eq!(LatencyHistogram::new().summary().to_string(), "no values");
    }
}
