//! Which channels one PUB/SUB connection is to receive, and which it does receive. Pure: time is an argument.
//!
//! ```text
//!            subscribe            taken for SUBSCRIBE          confirmed
//!  (absent) ----------> Pending -----------------------> Sent ----------> Live
//!      ^                  ^  ^---------- disconnected ----'-----------------'
//!      '--- a second after unsubscribe, when it is not wanted any more ------- (Pending without waiters, or Live)
//! ```
//!
//! The pause before a channel is given up absorbs page reloads and reconnect storms. A subscriber that comes back within it
//! is served at once.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::{broker::BrokerError, names::ChannelName};

/// How long a channel stays subscribed after its last subscriber left.
pub(super) const LEAVE_AFTER: Duration = Duration::from_secs(1);

/// The channels of one connection. Its size is that of the node's set of channels.
#[derive(Default)]
pub(super) struct ChannelList {
    entries: HashMap<ChannelName, Entry>,
    /// Whether there is a connection; without one nothing is queued for it, so that an outage costs no memory.
    connected: bool,
    /// To be subscribed, oldest first; may hold names that do not need it any more.
    to_subscribe: VecDeque<ChannelName>,
    to_unsubscribe: Vec<ChannelName>,
    /// When to look at a channel that its last subscriber left: at most one element for each entry.
    leaves: VecDeque<(Instant, ChannelName)>,
}

struct Entry {
    state: State,
    /// Set while nobody has subscribed since an unsubscribe.
    leave_at: Option<Instant>,
    /// Whether `leaves` holds this channel.
    queued: bool,
    /// It was received on an earlier connection: publications may have been missed since.
    interrupted: bool,
}

enum State {
    Pending(Waiters),
    Sent(Waiters),
    Live,
}

type Waiters = Vec<oneshot::Sender<Result<(), BrokerError>>>;

/// What a subscriber has to wait for.
pub(super) enum Subscribed {
    /// Nothing: the channel is received.
    Live,
    /// The answer of Redis.
    Wait(oneshot::Receiver<Result<(), BrokerError>>),
}

impl ChannelList {
    /// Wants a channel.
    pub(super) fn subscribe(&mut self, channel: &ChannelName) -> Subscribed {
        if let Some(entry) = self.entries.get_mut(channel) {
            entry.leave_at = None;
            let (State::Pending(waiters) | State::Sent(waiters)) = &mut entry.state else { return Subscribed::Live };
            // Those that gave up waiting must not pile up while Redis is away. Not looked for each time: there may be many.
            if waiters.len().is_power_of_two() {
                waiters.retain(|waiter| !waiter.is_closed());
            }
            let (sender, receiver) = oneshot::channel();
            waiters.push(sender);
            return Subscribed::Wait(receiver);
        }
        let (sender, receiver) = oneshot::channel();
        let entry = Entry { state: State::Pending(vec![sender]), leave_at: None, queued: false, interrupted: false };
        self.entries.insert(channel.clone(), entry);
        if self.connected {
            self.to_subscribe.push_back(channel.clone());
        }
        Subscribed::Wait(receiver)
    }

    /// The last subscriber of a channel left, or gave up waiting.
    pub(super) fn unsubscribe(&mut self, channel: &ChannelName, now: Instant) {
        let Some(entry) = self.entries.get_mut(channel) else { return };
        let at = now + LEAVE_AFTER;
        entry.leave_at = Some(at);
        if !entry.queued {
            entry.queued = true;
            self.leaves.push_back((at, channel.clone()));
        }
    }

    /// When [`due`](Self::due) has to be called next.
    pub(super) fn next_leave(&self) -> Option<Instant> {
        self.leaves.front().map(|(at, _)| *at)
    }

    /// Channels whose pause is over. Whether each is wanted must be asked without a lock on this list, then told to
    /// [`leave`](Self::leave); a `subscribe` in between is noticed there.
    pub(super) fn due(&mut self, now: Instant) -> Vec<ChannelName> {
        let mut due = Vec::new();
        while self.leaves.front().is_some_and(|(at, _)| *at <= now) {
            let (_, channel) = self.leaves.pop_front().expect("looked at above");
            let Some(entry) = self.entries.get_mut(&channel) else { continue };
            match entry.leave_at {
                // Somebody subscribed since.
                None => entry.queued = false,
                // It was left, wanted and left again: its pause begins with the last time.
                Some(at) if at > now => self.leaves.push_back((at, channel)),
                Some(_) => {
                    entry.queued = false;
                    due.push(channel);
                }
            }
        }
        due
    }

    /// Gives up a channel that was due, unless it is wanted or was subscribed meanwhile.
    pub(super) fn leave(&mut self, channel: &ChannelName, wanted: bool, now: Instant) {
        let Some(entry) = self.entries.get_mut(channel) else { return };
        if entry.leave_at.is_none() {
            return;
        }
        if wanted {
            entry.leave_at = None;
            return;
        }
        match &entry.state {
            State::Live => {
                self.entries.remove(channel);
                self.to_unsubscribe.push(channel.clone());
            }
            State::Pending(waiters) if waiters.iter().all(oneshot::Sender::is_closed) => {
                self.entries.remove(channel);
            }
            // Somebody waits for it, or Redis has been asked: look again later.
            State::Pending(_) | State::Sent(_) => self.unsubscribe(channel, now),
        }
    }

    /// Channels to give up, to be sent before anything that [`take_subscribes`](Self::take_subscribes) then gives.
    pub(super) fn take_unsubscribes(&mut self) -> Vec<ChannelName> {
        std::mem::take(&mut self.to_unsubscribe)
    }

    /// Up to `most` channels to subscribe now.
    pub(super) fn take_subscribes(&mut self, most: usize) -> Vec<ChannelName> {
        let mut taken = Vec::new();
        while taken.len() < most {
            let Some(channel) = self.to_subscribe.pop_front() else { break };
            let Some(entry) = self.entries.get_mut(&channel) else { continue };
            if let State::Pending(waiters) = &mut entry.state {
                entry.state = State::Sent(std::mem::take(waiters));
                taken.push(channel);
            }
        }
        taken
    }

    /// Redis has confirmed: waiting subscribers may go on. Answers which of the channels were received before and then not.
    pub(super) fn confirm(&mut self, channels: &[ChannelName]) -> Vec<ChannelName> {
        let mut interrupted = Vec::new();
        for channel in channels {
            let Some(entry) = self.entries.get_mut(channel) else { continue };
            if let State::Sent(waiters) = &mut entry.state {
                for waiter in std::mem::take(waiters) {
                    // A subscriber that gave up waiting has left by itself.
                    let _ = waiter.send(Ok(()));
                }
                entry.state = State::Live;
                if std::mem::take(&mut entry.interrupted) {
                    interrupted.push(channel.clone());
                }
            }
        }
        interrupted
    }

    /// Redis has refused one channel: those that wait fail. It is asked for again at the next [`retry`](Self::retry),
    /// unless it turns out that nobody wants it.
    pub(super) fn refuse(&mut self, channel: &ChannelName, now: Instant) {
        let Some(entry) = self.entries.get_mut(channel) else { return };
        if let State::Sent(waiters) = &mut entry.state {
            for waiter in std::mem::take(waiters) {
                let _ = waiter.send(Err(BrokerError::Unavailable));
            }
            entry.state = State::Pending(Vec::new());
            self.unsubscribe(channel, now);
        }
    }

    /// Asks again for channels that were refused.
    pub(super) fn retry(&mut self, channels: Vec<ChannelName>) {
        self.to_subscribe.extend(channels);
    }

    /// There is a new connection: everything is to be subscribed on it.
    pub(super) fn connected(&mut self) {
        self.connected = true;
        self.to_subscribe = self.entries.keys().cloned().collect();
    }

    /// The connection is gone. Subscribers that wait go on waiting.
    pub(super) fn disconnected(&mut self) {
        self.connected = false;
        self.to_unsubscribe = Vec::new();
        self.to_subscribe = VecDeque::new();
        for entry in self.entries.values_mut() {
            entry.state = match std::mem::replace(&mut entry.state, State::Live) {
                State::Live => {
                    entry.interrupted = true;
                    State::Pending(Vec::new())
                }
                State::Pending(waiters) | State::Sent(waiters) => State::Pending(waiters),
            };
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(channels: &[ChannelName]) -> Vec<&str> {
        channels.iter().map(ChannelName::as_str).collect()
    }

    fn waiting(subscribed: Subscribed) -> oneshot::Receiver<Result<(), BrokerError>> {
        match subscribed {
            Subscribed::Wait(receiver) => receiver,
            Subscribed::Live => panic!("nothing to wait for"),
        }
    }

    fn connected() -> ChannelList {
        let mut list = ChannelList::default();
        list.connected();
        list
    }

    fn live(list: &mut ChannelList, channel: &str) {
        let mut waiter = waiting(list.subscribe(&channel.into()));
        let taken = list.take_subscribes(1);
        list.confirm(&taken);
        assert_eq!(waiter.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn the_first_subscriber_waits_for_the_answer_and_the_second_for_nothing() {
        let mut list = connected();
        let mut first = waiting(list.subscribe(&"news".into()));
        let taken = list.take_subscribes(512);
        assert_eq!(names(&taken), ["news"]);
        let mut meanwhile = waiting(list.subscribe(&"news".into()));
        assert!(list.take_subscribes(512).is_empty());
        assert!(first.try_recv().is_err());
        list.confirm(&taken);
        assert_eq!(first.try_recv(), Ok(Ok(())));
        assert_eq!(meanwhile.try_recv(), Ok(Ok(())));
        assert!(matches!(list.subscribe(&"news".into()), Subscribed::Live));
    }

    #[test]
    fn a_channel_is_given_up_a_second_after_its_last_subscriber() {
        let mut list = connected();
        let start = Instant::now();
        live(&mut list, "news");
        list.unsubscribe(&"news".into(), start);
        assert_eq!(list.next_leave(), Some(start + LEAVE_AFTER));
        assert!(list.due(start + LEAVE_AFTER - Duration::from_millis(1)).is_empty());
        let due = list.due(start + LEAVE_AFTER);
        assert_eq!(names(&due), ["news"]);
        list.leave(&due[0], false, start + LEAVE_AFTER);
        assert_eq!(names(&list.take_unsubscribes()), ["news"]);
        assert_eq!(list.len(), 0);
    }

    #[test]
    fn who_comes_back_within_the_pause_keeps_the_channel() {
        let mut list = connected();
        let start = Instant::now();
        live(&mut list, "news");
        list.unsubscribe(&"news".into(), start);
        assert!(matches!(list.subscribe(&"news".into()), Subscribed::Live));
        assert!(list.due(start + LEAVE_AFTER).is_empty());
        assert_eq!(list.next_leave(), None);
        // And who comes while the question is asked keeps it, too.
        list.unsubscribe(&"news".into(), start);
        let due = list.due(start + LEAVE_AFTER);
        assert!(matches!(list.subscribe(&"news".into()), Subscribed::Live));
        list.leave(&due[0], false, start + LEAVE_AFTER);
        assert!(list.take_unsubscribes().is_empty());
    }

    #[test]
    fn the_pause_begins_again_when_the_channel_is_left_again() {
        let mut list = connected();
        let start = Instant::now();
        live(&mut list, "news");
        list.unsubscribe(&"news".into(), start);
        list.subscribe(&"news".into());
        list.unsubscribe(&"news".into(), start + LEAVE_AFTER / 2);
        assert!(list.due(start + LEAVE_AFTER).is_empty());
        assert_eq!(list.due(start + LEAVE_AFTER * 3 / 2).len(), 1);
    }

    #[test]
    fn a_channel_that_is_wanted_is_kept() {
        let mut list = connected();
        let start = Instant::now();
        live(&mut list, "news");
        list.unsubscribe(&"news".into(), start);
        let due = list.due(start + LEAVE_AFTER);
        list.leave(&due[0], true, start + LEAVE_AFTER);
        assert!(matches!(list.subscribe(&"news".into()), Subscribed::Live));
    }

    #[test]
    fn after_a_lost_connection_everything_is_subscribed_again_and_waiters_still_wait() {
        let mut list = connected();
        live(&mut list, "a");
        let mut waiter = waiting(list.subscribe(&"b".into()));
        list.take_subscribes(512);
        list.disconnected();
        assert!(list.take_subscribes(512).is_empty());
        list.connected();
        let mut again = list.take_subscribes(512);
        again.sort();
        assert_eq!(names(&again), ["a", "b"]);
        list.confirm(&again);
        assert_eq!(waiter.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn a_channel_nobody_waits_for_any_more_is_forgotten_while_redis_is_away() {
        let mut list = ChannelList::default();
        let start = Instant::now();
        let waiter = waiting(list.subscribe(&"news".into()));
        list.unsubscribe(&"news".into(), start);
        let due = list.due(start + LEAVE_AFTER);
        list.leave(&due[0], false, start + LEAVE_AFTER);
        assert_eq!(list.len(), 1, "somebody waits");
        drop(waiter);
        let due = list.due(start + 2 * LEAVE_AFTER);
        list.leave(&due[0], false, start + 2 * LEAVE_AFTER);
        assert_eq!(list.len(), 0);
        list.connected();
        assert!(list.take_subscribes(512).is_empty());
    }

    #[test]
    fn a_refused_channel_fails_its_waiters_and_is_asked_for_again() {
        let mut list = connected();
        let start = Instant::now();
        let mut waiter = waiting(list.subscribe(&"news".into()));
        let taken = list.take_subscribes(512);
        list.refuse(&taken[0], start);
        assert_eq!(waiter.try_recv(), Ok(Err(BrokerError::Unavailable)));
        list.retry(taken);
        assert_eq!(names(&list.take_subscribes(512)), ["news"]);
    }

    proptest! {
        /// Against a model of what Redis would hold: whatever happens in whatever order, in the end exactly the channels that
        /// have a subscriber are subscribed, and nothing is left of the others.
        #[test]
        fn in_the_end_exactly_what_is_wanted_is_received(steps in prop::collection::vec((0..6_u8, 0..3_usize), 0..60)) {
            let channels = ["a", "b", "c"].map(ChannelName::from);
            let mut list = connected();
            let mut now = Instant::now();
            let mut wanted = [false; 3];
            let mut redis = std::collections::BTreeSet::new();
            let exchange = |list: &mut ChannelList, redis: &mut std::collections::BTreeSet<ChannelName>| {
                for channel in list.take_unsubscribes() {
                    redis.remove(&channel);
                }
                let taken = list.take_subscribes(2);
                redis.extend(taken.iter().cloned());
                list.confirm(&taken);
            };
            let leave = |list: &mut ChannelList, now: Instant, wanted: &[bool; 3]| {
                for channel in list.due(now) {
                    let place = channels.iter().position(|c| *c == channel).unwrap();
                    list.leave(&channel, wanted[place], now);
                }
            };
            for (step, place) in steps {
                match step {
                    0 | 1 => { wanted[place] = true; list.subscribe(&channels[place]); }
                    2 => { wanted[place] = false; list.unsubscribe(&channels[place], now); }
                    3 => exchange(&mut list, &mut redis),
                    4 => { now += LEAVE_AFTER * 2 / 3; leave(&mut list, now, &wanted); }
                    _ => {
                        redis.clear();
                        if list.connected { list.disconnected() } else { list.connected() }
                    }
                }
            }
            if !list.connected {
                list.connected();
            }
            for _ in 0..6 {
                now += LEAVE_AFTER;
                leave(&mut list, now, &wanted);
                exchange(&mut list, &mut redis);
            }
            for place in 0..3 {
                prop_assert_eq!(redis.contains(&channels[place]), wanted[place]);
            }
            prop_assert_eq!(list.len(), wanted.iter().filter(|wanted| **wanted).count());
        }
    }
}
