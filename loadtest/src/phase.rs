//! Phases: what a run does for how long, one after the other.

use std::time::Duration;

use serde::Serialize;

/// One stretch of a run with a load and a disruption of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// Name in reports.
    pub name: String,
    /// How long it lasts.
    pub duration: Duration,
    /// Publications per second at its beginning.
    pub rate: f64,
    /// Publications per second at its end; in between the rate changes evenly.
    pub rate_at_end: f64,
    /// What happens to connections meanwhile.
    pub disruption: Disruption,
}

/// What is done to connections of subscribers on purpose. Who is cut closes its socket without a word, as a client that
/// loses its network does, and comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Disruption {
    /// Connections cut per second, drawn by lot.
    pub churn_per_second: f64,
    /// Share of all connections (0 to 1) that is cut at the beginning of the phase, all at once.
    pub cut_share: f64,
    /// How long who was cut stays away; they all come back at their time, however many they are.
    #[serde(serialize_with = "as_seconds")]
    pub offline: Duration,
}

fn as_seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

impl Disruption {
    /// True when connections are cut at all.
    pub fn cuts(&self) -> bool {
        self.churn_per_second > 0.0 || self.cut_share > 0.0
    }
}

impl Phase {
    /// How many publications it has.
    pub fn publications(&self) -> u64 {
        ((self.rate + self.rate_at_end) / 2.0 * self.duration.as_secs_f64()).round() as u64
    }

    /// When publication `k` of this phase is due, seconds after its beginning.
    ///
    /// By then the rate's integral `rate·t + slope·t²/2` has reached `k`; this is the root of that, written so that a
    /// rate of nothing at the beginning divides nothing by nothing nowhere but at `k` = 0.
    pub fn due_seconds(&self, k: u64) -> f64 {
        if k == 0 {
            return 0.0;
        }
        let slope = (self.rate_at_end - self.rate) / self.duration.as_secs_f64();
        let k = k as f64;
        2.0 * k / (self.rate + (self.rate * self.rate + 2.0 * slope * k).max(0.0).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(rate: f64, rate_at_end: f64) -> Phase {
        let (name, duration) = (String::new(), Duration::from_secs(10));
        Phase { name, duration, rate, rate_at_end, disruption: Disruption::default() }
    }

    #[test]
    fn an_even_rate_is_due_evenly() {
        let phase = phase(100.0, 100.0);
        assert_eq!(phase.publications(), 1_000);
        assert_eq!(phase.due_seconds(250), 2.5);
    }

    #[test]
    fn a_ramp_is_dense_at_its_fast_end_and_fits_into_its_time() {
        for (from, to) in [(0.0, 200.0), (200.0, 0.0), (50.0, 150.0)] {
            let phase = phase(from, to);
            assert_eq!(phase.publications(), 1_000);
            let due: Vec<f64> = (0..1_000).map(|k| phase.due_seconds(k)).collect();
            assert!(due.is_sorted(), "{from} {to}");
            assert!((9.0..=10.0).contains(&due[999]), "{from} {to}: {}", due[999]);
        }
        // A quarter of the publications of a ramp from nothing come in the first half of its time.
        assert!((phase(0.0, 200.0).due_seconds(250) - 5.0).abs() < 1e-9);
    }
}
