//! Timers of one worker: a wheel of slots, 8 bytes an entry.
//!
//! An entry says only "look at this connection then". Whoever is looked at too early, because its deadline moved, is
//! put back at its real deadline; a deadline further away than the wheel reaches is looked at once a turn.

use super::inbox::ConnectionRef;
use crate::clock::Moment;

/// Length of a slot: the precision of every deadline.
pub(super) const TICK_MS: u64 = 50;
const SLOTS: u64 = 1024;

pub(super) struct Wheel {
    slots: Vec<Vec<ConnectionRef>>,
    /// Ticks that have been fired.
    fired: u64,
    entries: usize,
}

impl Wheel {
    pub(super) fn new(now: Moment) -> Self {
        Self { slots: (0..SLOTS).map(|_| Vec::new()).collect(), fired: now.0 / TICK_MS, entries: 0 }
    }

    /// Puts an entry at `at`, or as far ahead as the wheel reaches. Answers when it will be fired.
    pub(super) fn insert(&mut self, connection: ConnectionRef, at: Moment) -> Moment {
        let tick = at.0.div_ceil(TICK_MS).clamp(self.fired + 1, self.fired + SLOTS - 1);
        self.slots[(tick % SLOTS) as usize].push(connection);
        self.entries += 1;
        Moment(tick * TICK_MS)
    }

    /// When to call [`fire`](Self::fire) next; `None` while there are no entries.
    pub(super) fn next(&self) -> Option<Moment> {
        (self.entries > 0).then_some(Moment((self.fired + 1) * TICK_MS))
    }

    /// Moves all entries due by `now` to `due`.
    pub(super) fn fire(&mut self, now: Moment, due: &mut Vec<ConnectionRef>) {
        let until = now.0 / TICK_MS;
        if self.entries == 0 || until >= self.fired + SLOTS {
            // Nothing there, or asleep for longer than a turn: every entry there is is due.
            for slot in &mut self.slots {
                due.append(slot);
            }
            self.fired = until;
        }
        while self.fired < until {
            self.fired += 1;
            let slot = &mut self.slots[(self.fired % SLOTS) as usize];
            due.append(slot);
            if slot.capacity() > 64 {
                // A reconnect storm fills one slot; its memory must not stay there.
                *slot = Vec::new();
            }
        }
        self.entries -= due.len().min(self.entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(slot: u32) -> ConnectionRef {
        ConnectionRef { slot, generation: 0 }
    }

    fn fire(wheel: &mut Wheel, ms: u64) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.fire(Moment(ms), &mut due);
        due.into_iter().map(|connection| connection.slot).collect()
    }

    #[test]
    fn fires_when_the_deadline_has_passed_and_not_before() {
        let mut wheel = Wheel::new(Moment(0));
        wheel.insert(connection(1), Moment(120));
        wheel.insert(connection(2), Moment(500));
        assert_eq!(fire(&mut wheel, 119), [] as [u32; 0]);
        assert_eq!(fire(&mut wheel, 150), [1]);
        assert_eq!(fire(&mut wheel, 499), [] as [u32; 0]);
        assert_eq!(fire(&mut wheel, 500), [2]);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn a_far_deadline_is_looked_at_within_a_turn() {
        let mut wheel = Wheel::new(Moment(0));
        let at = wheel.insert(connection(1), Moment(1_000_000));
        assert!(at < Moment(SLOTS * TICK_MS));
        assert_eq!(fire(&mut wheel, at.0), [1]);
    }

    #[test]
    fn a_worker_that_slept_long_finds_everything_due() {
        let mut wheel = Wheel::new(Moment(0));
        for slot in 0..2_000 {
            wheel.insert(connection(slot), Moment(u64::from(slot) * 20));
        }
        assert_eq!(fire(&mut wheel, 10_000_000).len(), 2_000);
        wheel.insert(connection(7), Moment(10_000_010));
        assert_eq!(fire(&mut wheel, 10_000_100), [7]);
    }
}
