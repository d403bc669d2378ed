//! A run second by second: progress lines for people who wait, the same numbers in the report.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::latency::{LatencySummary, readable};
use crate::publish::PublishProgress;
use crate::receive::Pool;

/// One second of the timeline.
#[derive(Debug, Serialize)]
pub(super) struct Second {
    at_seconds: f64,
    published: u64,
    delivered: u64,
    latency: LatencySummary,
}

/// Progress lines, once a second, and what they said.
pub(super) struct Timeline {
    started: Instant,
    next: Duration,
    before: (u64, u64),
    pub(super) seconds: Vec<Second>,
}

impl Timeline {
    pub(super) fn new(started: Instant) -> Self {
        Timeline { started, next: Duration::from_secs(1), before: (0, 0), seconds: Vec::new() }
    }

    pub(super) fn tick(&mut self, pool: &Pool, progress: &PublishProgress, last: bool) {
        let elapsed = self.started.elapsed();
        if elapsed < self.next && !last {
            return;
        }
        self.next = elapsed.max(self.next) + Duration::from_secs(1);
        let status = pool.status();
        let published = progress.sent.load(Ordering::Relaxed);
        let second = Second {
            at_seconds: elapsed.as_secs_f64(),
            published: published - self.before.0,
            delivered: status.delivered - self.before.1,
            latency: pool.take_interval().summary(),
        };
        let Second { latency: LatencySummary { p50_ns, p99_ns, max_ns, .. }, .. } = &second;
        eprintln!(
            "{:6.1} s  published {:>8}  delivered {:>9}  p50 {:>8}  p99 {:>8}  max {:>8}  faults {}  ended {}",
            second.at_seconds,
            second.published,
            second.delivered,
            readable(*p50_ns),
            readable(*p99_ns),
            readable(*max_ns),
            status.faults,
            status.ended
        );
        self.before = (published, status.delivered);
        self.seconds.push(second);
    }
}
