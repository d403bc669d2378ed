//! From the machine to the subscriptions' readers, in order, through queues of bounded length.
//!
//! The queue of a subscription holds [`Limits::subscription_events`](crate::Limits::subscription_events). When it is
//! full, its events, and whatever comes after them for anyone, wait here, and the driver stops reading the connection:
//! what waits is then at most what one reply brought, and a little that comes from timers and calls. The server notices
//! that its client takes nothing, and in the end disconnects it.

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::SubscriptionEvent;
use crate::machine::SubscriptionId;

/// Waiting events from which on failed attempts are no longer told. They alone can come while nothing is read, one every
/// few seconds.
const WAITING_EVENTS: usize = 1024;

#[derive(Default)]
pub(super) struct Feeds {
    open: BTreeMap<SubscriptionId, mpsc::Sender<SubscriptionEvent>>,
    waiting: VecDeque<(SubscriptionId, SubscriptionEvent)>,
    /// Subscriptions whose readers are gone.
    abandoned: Vec<SubscriptionId>,
}

impl Feeds {
    pub(super) fn open(&mut self, id: SubscriptionId, events: mpsc::Sender<SubscriptionEvent>) {
        self.open.insert(id, events);
    }

    pub(super) fn is_blocked(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes an event, for a reader that may be slow.
    pub(super) fn deliver(&mut self, id: SubscriptionId, event: SubscriptionEvent) {
        if self.waiting.len() >= WAITING_EVENTS && matches!(event, SubscriptionEvent::Error(_)) {
            return;
        }
        self.waiting.push_back((id, event));
        // When something waited before this, its reader is known to be full.
        if self.waiting.len() == 1 {
            self.hand_over_waiting();
        }
    }

    /// Waits until the reader that everything waits for takes an event, or is gone. For ever, when nothing waits.
    /// Cancel safe.
    pub(super) async fn hand_over(&mut self) {
        let Some((id, _)) = self.waiting.front() else { return std::future::pending().await };
        if let Some(events) = self.open.get(id) {
            // An error means that the reader is gone, which is found out below.
            let _ = events.reserve().await;
        }
        self.hand_over_waiting();
    }

    /// Returns a subscription whose reader is gone, once each.
    pub(super) fn next_abandoned(&mut self) -> Option<SubscriptionId> {
        self.abandoned.pop()
    }

    /// Returns the subscriptions whose readers are gone, noticed or not.
    pub(super) fn find_abandoned(&mut self) {
        let gone: Vec<SubscriptionId> =
            self.open.iter().filter(|(_, events)| events.is_closed()).map(|(id, _)| *id).collect();
        for id in gone {
            self.abandon(id);
        }
    }

    fn hand_over_waiting(&mut self) {
        while let Some((id, event)) = self.waiting.pop_front() {
            let Some(events) = self.open.get(&id) else { continue };
            let last = matches!(event, SubscriptionEvent::Unsubscribed { .. });
            match events.try_send(event) {
                Ok(()) if last => {
                    self.open.remove(&id);
                }
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.waiting.push_front((id, event));
                    return;
                }
                Err(TrySendError::Closed(_)) => self.abandon(id),
            }
        }
    }

    fn abandon(&mut self, id: SubscriptionId) {
        self.open.remove(&id);
        self.abandoned.push(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Publication;

    const NEWS: SubscriptionId = SubscriptionId(1);
    const CHAT: SubscriptionId = SubscriptionId(2);

    fn event(offset: u64) -> SubscriptionEvent {
        SubscriptionEvent::Publication(Publication { offset: Some(offset), ..Publication::default() })
    }

    fn end() -> SubscriptionEvent {
        SubscriptionEvent::Unsubscribed { code: 0, reason: String::new() }
    }

    #[tokio::test]
    async fn events_wait_in_order_while_a_reader_is_full_and_its_last_one_ends_the_stream() {
        let mut feeds = Feeds::default();
        let (sender, mut news) = mpsc::channel(1);
        feeds.open(NEWS, sender);
        for offset in 1..=3 {
            feeds.deliver(NEWS, event(offset));
        }
        feeds.deliver(NEWS, end());
        assert!(feeds.is_blocked());
        for expected in [event(1), event(2), event(3), end()] {
            assert_eq!(news.recv().await, Some(expected));
            if feeds.is_blocked() {
                feeds.hand_over().await;
            }
        }
        assert!(!feeds.is_blocked());
        assert_eq!(news.recv().await, None);
        assert_eq!(feeds.next_abandoned(), None);
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_frees_the_others() {
        let mut feeds = Feeds::default();
        let (sender, news) = mpsc::channel(1);
        feeds.open(NEWS, sender);
        let (sender, mut chat) = mpsc::channel(1);
        feeds.open(CHAT, sender);
        feeds.deliver(NEWS, event(1));
        feeds.deliver(NEWS, event(2));
        feeds.deliver(CHAT, event(3));
        assert!(chat.try_recv().is_err(), "it waits behind the full reader");
        drop(news);
        feeds.hand_over().await;
        assert!(!feeds.is_blocked());
        assert_eq!(chat.try_recv(), Ok(event(3)));
        assert_eq!(feeds.next_abandoned(), Some(NEWS));
        assert_eq!(feeds.next_abandoned(), None);
    }

    #[tokio::test]
    async fn failed_attempts_do_not_pile_up_behind_a_reader_that_never_reads() {
        let mut feeds = Feeds::default();
        let (sender, _news) = mpsc::channel(1);
        feeds.open(NEWS, sender);
        for _ in 0..2 * WAITING_EVENTS {
            feeds.deliver(NEWS, SubscriptionEvent::Error(crate::Error::Timeout));
        }
        assert_eq!(feeds.waiting.len(), WAITING_EVENTS);
        feeds.deliver(NEWS, end());
        assert_eq!(feeds.waiting.back(), Some(&(NEWS, end())), "what matters is kept");
    }
}
