//! The deadlines of a machine: at most one per [`Timer`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::{SubscriptionId, Ticket};

/// What is due when a deadline passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The next attempt to connect begins.
    Attempt,
    /// Opening the transport took too long.
    Opening,
    /// The reply to the connect command is late.
    Greeting,
    /// The server's ping is late.
    Ping,
    /// The connection's token should be renewed.
    Refresh,
    /// The token source is late with the connection's token.
    Token,
    /// The reply to a command of the machine's own is late.
    Command(u32),
    /// A call of the application has waited long enough.
    Call(Ticket),
    /// A subscription tries again.
    Resubscribe(SubscriptionId),
    /// A subscription's token should be renewed.
    SubscriptionRefresh(SubscriptionId),
    /// The token source is late with a subscription's token.
    SubscriptionToken(SubscriptionId),
}

impl Timer {
    /// Whether it waits for something from the server. While the application does not let the driver read, these stand
    /// still: the server must not be blamed for what nobody reads.
    fn waits_for_server(self) -> bool {
        match self {
            Self::Greeting | Self::Ping | Self::Command(_) => true,
            Self::Attempt
            | Self::Opening
            | Self::Refresh
            | Self::Token
            | Self::Call(_)
            | Self::Resubscribe(_)
            | Self::SubscriptionRefresh(_)
            | Self::SubscriptionToken(_) => false,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeSet<(Instant, Timer)>,
    at: BTreeMap<Timer, Instant>,
    /// While reading is paused: the timers that stand still, with the time they have left.
    held: Option<BTreeMap<Timer, Duration>>,
}

impl Timers {
    /// Sets a timer, in place of the one that may be set.
    pub(super) fn set(&mut self, timer: Timer, after: Duration, now: Instant) {
        self.clear(timer);
        match &mut self.held {
            Some(held) if timer.waits_for_server() => {
                held.insert(timer, after);
            }
            Some(_) | None => self.insert(timer, now + after),
        }
    }

    pub(super) fn clear(&mut self, timer: Timer) {
        if let Some(held) = &mut self.held {
            held.remove(&timer);
        }
        if let Some(at) = self.at.remove(&timer) {
            self.due.remove(&(at, timer));
        }
    }

    pub(super) fn clear_all(&mut self) {
        self.due.clear();
        self.at.clear();
        if let Some(held) = &mut self.held {
            held.clear();
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Removes and returns the earliest timer that is due, if one is.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let (at, timer) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.due.pop_first();
        self.at.remove(&timer);
        Some(timer)
    }

    /// Stops the timers that wait for the server.
    pub(super) fn pause(&mut self, now: Instant) {
        if self.held.is_some() {
            return;
        }
        let waiting: Vec<(Timer, Instant)> =
            self.at.iter().filter(|(timer, _)| timer.waits_for_server()).map(|(timer, at)| (*timer, *at)).collect();
        for (timer, _) in &waiting {
            self.clear(*timer);
        }
        self.held = Some(waiting.into_iter().map(|(timer, at)| (timer, at.saturating_duration_since(now))).collect());
    }

    /// Lets them go on with the time that they had left.
    pub(super) fn resume(&mut self, now: Instant) {
        for (timer, left) in self.held.take().unwrap_or_default() {
            self.insert(timer, now + left);
        }
    }

    fn insert(&mut self, timer: Timer, at: Instant) {
        self.at.insert(timer, at);
        self.due.insert((at, timer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn setting_a_timer_again_replaces_it() {
        let now = Instant::now();
        let mut timers = Timers::default();
        timers.set(Timer::Ping, SECOND, now);
        timers.set(Timer::Ping, 3 * SECOND, now);
        assert_eq!(timers.next(), Some(now + 3 * SECOND));
        assert_eq!(timers.pop_due(now + 2 * SECOND), None);
        assert_eq!(timers.pop_due(now + 3 * SECOND), Some(Timer::Ping));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn only_timers_that_wait_for_the_server_stand_still_during_a_pause() {
        let now = Instant::now();
        let mut timers = Timers::default();
        timers.set(Timer::Ping, 4 * SECOND, now);
        timers.set(Timer::Refresh, 10 * SECOND, now);
        timers.pause(now + SECOND);
        timers.set(Timer::Command(7), 5 * SECOND, now + 2 * SECOND);
        assert_eq!(timers.next(), Some(now + 10 * SECOND));

        let resumed = now + 100 * SECOND;
        timers.resume(resumed);
        assert_eq!(timers.pop_due(resumed), Some(Timer::Refresh));
        assert_eq!(timers.pop_due(resumed), None);
        assert_eq!(timers.pop_due(resumed + 3 * SECOND), Some(Timer::Ping));
        assert_eq!(timers.pop_due(resumed + 5 * SECOND), Some(Timer::Command(7)));
    }
}
