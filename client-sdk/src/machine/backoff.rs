//! How long to wait before trying again.

use std::time::Duration;

use rand::{Rng, RngExt};

/// Exponential backoff with full jitter.
///
/// After `failures` failures the delay is `min` plus a random part of `min * 2^failures`, never more than `max`. Random
/// over the whole width, so that clients that lost the same server do not come back in step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The least delay.
    pub min: Duration,
    /// The greatest delay.
    pub max: Duration,
}

impl Backoff {
    pub(super) fn delay(self, failures: u32, rng: &mut impl Rng) -> Duration {
        let width = self.min.saturating_mul(1 << failures.min(31)).min(self.max);
        (self.min + width.mul_f64(rng.random())).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const BACKOFF: Backoff = Backoff { min: Duration::from_millis(200), max: Duration::from_secs(20) };

    #[test]
    fn delays_lie_between_minimum_and_maximum_and_their_range_doubles() {
        let mut rng = StdRng::seed_from_u64(1);
        for failures in [0, 1, 2, 5, 6, 7, 40, u32::MAX] {
            let width = BACKOFF.min.saturating_mul(1 << failures.min(20)).min(BACKOFF.max);
            let delays: Vec<Duration> = (0..200).map(|_| BACKOFF.delay(failures, &mut rng)).collect();
            assert!(delays.iter().all(|delay| *delay >= BACKOFF.min && *delay <= BACKOFF.max));
            assert!(delays.iter().all(|delay| *delay <= BACKOFF.min + width));
            // Full jitter: both ends of the range are visited.
            assert!(delays.iter().any(|delay| *delay < BACKOFF.min + width / 4), "failures {failures}");
            assert!(delays.iter().any(|delay| *delay > BACKOFF.min.max(width / 2)), "failures {failures}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_delays() {
        let delays = |seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            (0..8).map(|failures| BACKOFF.delay(failures, &mut rng)).collect::<Vec<_>>()
        };
        assert_eq!(delays(7), delays(7));
        assert_ne!(delays(7), delays(8));
    }
}
