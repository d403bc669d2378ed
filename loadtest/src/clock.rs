//! Time of a run: one monotonic clock whose readings are Unix nanoseconds.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A monotonic clock anchored once at the wall clock.
///
/// Readings are nanoseconds since the Unix epoch, so that a stamp made by one process means something to another, but
/// they never step when the wall clock is corrected during the run. Copies share the anchor.
#[derive(Clone, Copy, Debug)]
pub struct RunClock {
    anchor: Instant,
    anchor_unix_ns: u64,
}

impl RunClock {
    /// Anchors a clock at the present moment.
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        RunClock { anchor: Instant::now(), anchor_unix_ns: nanoseconds(since_epoch) }
    }

    /// Unix nanoseconds now.
    pub fn now_ns(&self) -> u64 {
        self.anchor_unix_ns + nanoseconds(self.anchor.elapsed())
    }
}

/// Whole nanoseconds of a duration, saturating (584 years).
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
