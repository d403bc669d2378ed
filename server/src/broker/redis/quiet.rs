//! Finding a connection that is subscribed in name only. Pure: time is an argument.
//!
//! A ping proves that the connection lives, not that publications come through it. When nothing has come for a while, a
//! probe is published on a channel that the connection is subscribed to. A probe that Redis accepted and that does not
//! come back means that the connection is deaf and has to be made anew.

use std::time::{Duration, Instant};

/// What to do about silence.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    Probe,
    /// The connection is deaf.
    Rebuild,
}

/// Follows one connection after the other.
pub(super) struct Quiet {
    /// How long nothing may come before a probe, and how long a probe may take to come back.
    limit: Duration,
    heard: Instant,
    /// When the probe was accepted that has not come back yet.
    probed: Option<Instant>,
    /// Doubles with every deaf connection in a row, so that a set-up that can never work is not torn down every few seconds.
    patience: u32,
}

impl Quiet {
    const MOST_PATIENCE: u32 = 8;

    pub(super) fn new(limit: Duration, now: Instant) -> Self {
        Self { limit, heard: now, probed: None, patience: 1 }
    }

    /// A new connection is subscribed.
    pub(super) fn connected(&mut self, now: Instant) {
        self.heard = now;
        self.probed = None;
    }

    /// Something came on this connection, last at `at`.
    pub(super) fn heard(&mut self, at: Instant) {
        if at > self.heard {
            self.heard = at;
            self.probed = None;
            self.patience = 1;
        }
    }

    /// Redis accepted a probe.
    pub(super) fn probe_accepted(&mut self, now: Instant) {
        self.probed.get_or_insert(now);
    }

    pub(super) fn check(&mut self, now: Instant) -> Step {
        match self.probed {
            Some(probed) if now.duration_since(probed) >= self.limit * self.patience => {
                self.patience = (self.patience * 2).min(Self::MOST_PATIENCE);
                Step::Rebuild
            }
            None if now.duration_since(self.heard) >= self.limit => Step::Probe,
            Some(_) | None => Step::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_secs(10);

    #[test]
    fn a_quiet_connection_is_probed_and_one_that_loses_the_probe_is_deaf() {
        let start = Instant::now();
        let mut quiet = Quiet::new(QUIET, start);
        assert_eq!(quiet.check(start + QUIET / 2), Step::Nothing);
        assert_eq!(quiet.check(start + QUIET), Step::Probe);
        // Not accepted: tried again, and nothing is concluded.
        assert_eq!(quiet.check(start + 5 * QUIET), Step::Probe);
        quiet.probe_accepted(start + 5 * QUIET);
        assert_eq!(quiet.check(start + 5 * QUIET), Step::Nothing);
        assert_eq!(quiet.check(start + 6 * QUIET), Step::Rebuild);
    }

    #[test]
    fn whatever_comes_ends_the_suspicion() {
        let start = Instant::now();
        let mut quiet = Quiet::new(QUIET, start);
        quiet.probe_accepted(start + QUIET);
        quiet.heard(start + QUIET + Duration::from_millis(1));
        assert_eq!(quiet.check(start + 2 * QUIET), Step::Nothing);
        assert_eq!(quiet.check(start + 2 * QUIET + Duration::from_millis(1)), Step::Probe);
    }

    #[test]
    fn deaf_connections_in_a_row_are_given_longer_and_longer() {
        let mut now = Instant::now();
        let mut quiet = Quiet::new(QUIET, now);
        for patience in [1, 2, 4, 8, 8] {
            quiet.connected(now);
            now += QUIET;
            assert_eq!(quiet.check(now), Step::Probe);
            quiet.probe_accepted(now);
            now += QUIET * patience - Duration::from_millis(1);
            assert_eq!(quiet.check(now), Step::Nothing);
            now += Duration::from_millis(1);
            assert_eq!(quiet.check(now), Step::Rebuild);
        }
    }
}
