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
