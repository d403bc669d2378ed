//! The application's handle of a subscription.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio::sync::mpsc;

use crate::driver::Order;
use crate::machine::SubscriptionId;
use crate::{StreamPosition, SubscriptionEvent};

/// One subscription: a stream of [`SubscriptionEvent`]s that ends after
/// [`Unsubscribed`](SubscriptionEvent::Unsubscribed).
///
/// Interruptions are repaired by the client and told in the stream; what was missed is delivered, or the stream says
/// that it may be missing. See [`SubscriptionEvent`] for the order of events.
///
/// Read it steadily. When [`Limits::subscription_events`](crate::Limits::subscription_events) events are unread, the
/// client stops reading the connection, for all subscriptions and calls. For the same reason do not wait for a call in
/// the task that is the only reader of a busy subscription: the reply may stand behind publications that this task has
/// to take first; the call would end with [`Error::Timeout`](crate::Error::Timeout).
///
/// Dropping it unsubscribes. It keeps the client alive: the connection ends when the last
/// [`Client`](crate::Client) and the last subscription are gone.
pub struct Subscription {
    id: SubscriptionId,
    channel: String,
    position: Option<StreamPosition>,
    events: mpsc::Receiver<SubscriptionEvent>,
    orders: mpsc::Sender<Order>,
}

impl Subscription {
    pub(crate) fn new(
        id: SubscriptionId,
        channel: String,
        position: Option<StreamPosition>,
        events: mpsc::Receiver<SubscriptionEvent>,
        orders: mpsc::Sender<Order>,
    ) -> Self {
        Self { id, channel, position, events, orders }
    }

    /// Returns the channel.
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// Returns the position after the last event that was taken from the stream: what
    /// [`SubscribeOptions::since`](crate::SubscribeOptions::since) of a later subscription, or of another client, needs to go
    /// on exactly here. `None` while there is none, or when the server keeps none.
    pub fn position(&self) -> Option<&StreamPosition> {
        self.position.as_ref()
    }

    /// Waits for the next event; `None` after the end.
    ///
    /// Cancel safe: no event is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<SubscriptionEvent> {
        let event = self.events.recv().await?;
        self.advance(&event);
        Some(event)
    }

    /// Ends the subscription. The stream still gives what is unread, then
    /// [`Unsubscribed`](SubscriptionEvent::Unsubscribed), then ends.
    ///
    /// Returns when the client has taken the wish. When the future is dropped earlier, nothing may happen.
    pub async fn unsubscribe(&self) {
        // An error means that the client is disconnected: then the subscription has ended already.
        let _ = self.orders.send(Order::Unsubscribe(self.id)).await;
    }

    fn advance(&mut self, event: &SubscriptionEvent) {
        match event {
            SubscriptionEvent::Subscribed(subscribed) => self.position = subscribed.position.clone(),
            SubscriptionEvent::Publication(publication) => {
                if let (Some(position), Some(offset)) = (&mut self.position, publication.offset) {
                    position.offset = offset;
                }
            }
            SubscriptionEvent::Subscribing { .. }
            | SubscriptionEvent::Join(_)
            | SubscriptionEvent::Leave(_)
            | SubscriptionEvent::Error(_)
            | SubscriptionEvent::Unsubscribed { .. } => {}
        }
    }
}

impl Stream for Subscription {
    type Item = SubscriptionEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<SubscriptionEvent>> {
        let event = std::task::ready!(self.events.poll_recv(context));
        if let Some(event) = &event {
            self.advance(event);
        }
        Poll::Ready(event)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // When the queue of orders is full, the client finds out at the next event.
        let _ = self.orders.try_send(Order::Unsubscribe(self.id));
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("channel", &self.channel).field("position", &self.position).finish()
    }
}
