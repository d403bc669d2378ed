//! Connections that are cut on purpose and come back, and clients that misbehave on purpose.

use std::collections::BTreeMap;
use std::task::Waker;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::latency::LatencyHistogram;
use crate::phase::Disruption;

/// How long who was refused waits before it tries again.
pub(super) const RETRY: Duration = Duration::from_millis(100);

/// What came of the disruption of a run.
#[derive(Debug, Default)]
pub struct Disrupted {
    /// Connections cut.
    pub cuts: u64,
    /// Cut connections whose subscriptions were all confirmed again.
    pub returned: u64,
    /// From the moment a client wanted to come back until its subscriptions were confirmed.
    pub return_time: LatencyHistogram,
    /// Failed attempts to come back, by reason.
    pub refusals: BTreeMap<String, u64>,
    /// Messages that came with the answer to a subscription.
    pub recovered: u64,
    /// From due to received of these.
    pub recovered_age: LatencyHistogram,
    /// Subscriptions for which the server said that it cannot recover what was missed.
    pub unrecovered: u64,
    /// Slow readers whose connection the server ended, by reason.
    pub slow_readers_ended: BTreeMap<String, u64>,
    /// Half-open connections that the server ended, by reason.
    pub half_open_ended: BTreeMap<String, u64>,
    /// How long slow readers and half-open connections lived that the server ended, from their subscription.
    pub misbehaved_for: LatencyHistogram,
}

impl Disrupted {
    /// Adds what happened on another thread.
    pub(super) fn merge(&mut self, other: Disrupted) {
        let Disrupted { cuts, returned, return_time, refusals, recovered, recovered_age, unrecovered, .. } = &other;
        self.cuts += cuts;
        self.returned += returned;
        self.return_time.merge(return_time);
        self.recovered += recovered;
        self.recovered_age.merge(recovered_age);
        self.unrecovered += unrecovered;
        self.misbehaved_for.merge(&other.misbehaved_for);
        add(&mut self.refusals, refusals);
        add(&mut self.slow_readers_ended, &other.slow_readers_ended);
        add(&mut self.half_open_ended, &other.half_open_ended);
    }
}

fn add(reasons: &mut BTreeMap<String, u64>, more: &BTreeMap<String, u64>) {
    more.iter().for_each(|(reason, count)| *reasons.entry(reason.clone()).or_default() += count);
}

/// Counts a reason; different texts beyond 20 are counted together.
pub(super) fn count_reason(reasons: &mut BTreeMap<String, u64>, reason: String) {
    let reason = if reasons.len() < 20 || reasons.contains_key(&reason) { reason } else { "other".to_owned() };
    *reasons.entry(reason).or_default() += 1;
}

/// Decides which connections of a thread are cut, and wakes them.
#[derive(Debug)]
pub(super) struct Scissors {
    pub(super) slots: Vec<Slot>,
    random: StdRng,
    /// Cuts that churn owes: the fraction that is not yet a whole one.
    owed: f64,
    /// The phase that has begun, by index.
    phase: Option<usize>,
    last_ns: u64,
}

/// What is known of one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    /// Wakes the task that holds the connection.
    pub(super) waker: Option<Waker>,
    /// The connection is to be cut, and to stay away for so long.
    pub(super) cut: Option<Duration>,
    /// When a client that is away wants to be back, Unix nanoseconds; 0 while it is not away.
    pub(super) returns_ns: u64,
}

impl Scissors {
    pub(super) fn new(slots: usize, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Scissors { slots: vec![Slot::default(); slots], random, owed: 0.0, phase: None, last_ns: 0 }
    }

    /// Cuts what is due between the last call and `now_ns`. `phase` is the present one, if any; `share` is the part of
    /// the run's connections that this thread holds.
    pub(super) fn cut_due(&mut self, now_ns: u64, phase: Option<(usize, Disruption)>, share: f64) {
        let since = now_ns.saturating_sub(std::mem::replace(&mut self.last_ns, now_ns));
        let Some((index, Disruption { churn_per_second, cut_share, offline })) = phase else { return };
        if self.phase != Some(index) {
            self.phase = Some(index);
            self.owed = 0.0;
            if cut_share > 0.0 {
                for slot in 0..self.slots.len() {
                    if self.random.random_bool(cut_share.min(1.0)) {
                        self.cut(slot, offline);
                    }
                }
            }
            return;
        }
        self.owed += churn_per_second * share * (since as f64 / 1e9);
        while self.owed >= 1.0 && !self.slots.is_empty() {
            self.owed -= 1.0;
            let slot = self.random.random_range(0..self.slots.len());
            self.cut(slot, offline);
        }
    }

    fn cut(&mut self, slot: usize, offline: Duration) {
        let slot = &mut self.slots[slot];
        // Who is away or about to be cut cannot be cut again.
        if slot.returns_ns == 0 && slot.cut.is_none() {
            slot.cut = Some(offline);
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn cut(scissors: &Scissors) -> usize {
        scissors.slots.iter().filter(|slot| slot.cut.is_some()).count()
    }

    #[test]
    fn a_storm_cuts_its_share_once_at_the_beginning_of_its_phase() {
        let mut scissors = Scissors::new(1_000, 3);
        let storm = Disruption { cut_share: 0.5, ..Disruption::default() };
        scissors.cut_due(SECOND, None, 1.0);
        assert_eq!(cut(&scissors), 0);
        scissors.cut_due(2 * SECOND, Some((0, storm)), 1.0);
        let after_storm = cut(&scissors);
        assert!((400..600).contains(&after_storm), "{after_storm}");
        scissors.cut_due(3 * SECOND, Some((0, storm)), 1.0);
        assert_eq!(cut(&scissors), after_storm);
    }

    #[test]
    fn churn_cuts_at_its_rate_however_fine_the_time_is_cut() {
        let mut scissors = Scissors::new(100_000, 3);
        let churn = Disruption { churn_per_second: 30.0, ..Disruption::default() };
        for tick in 0..=500 {
            scissors.cut_due(tick * SECOND / 50, Some((0, churn)), 0.5);
        }
        assert!((148..=150).contains(&cut(&scissors)), "{}", cut(&scissors));
    }

    #[test]
    fn nobody_is_cut_twice() {
        let mut scissors = Scissors::new(3, 3);
        let churn = Disruption { churn_per_second: 1_000.0, ..Disruption::default() };
        scissors.slots[0].returns_ns = 7;
        scissors.cut_due(0, Some((0, churn)), 1.0);
        scissors.cut_due(SECOND, Some((0, churn)), 1.0);
        assert_eq!(cut(&scissors), 2);
    }
}
