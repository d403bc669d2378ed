//! What a client tells the application without being asked.

use std::time::Duration;

use bytes::Bytes;

use crate::{ClientInfo, Error, Publication, StreamPosition};

/// A change of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionEvent {
    /// The client begins to connect: at the start, and each time when a connection ended that it replaces by itself.
    Connecting {
        /// A code of [`codes::connecting`](crate::codes::connecting) or of the server.
        code: u32,
        /// Text for people.
        reason: String,
        /// How long it waits before the first attempt.
        retry_in: Duration,
    },
    /// An attempt to connect failed, or a connection's token could not be renewed. Another attempt follows.
    Retrying {
        /// Why.
        error: Error,
        /// How long the client waits before it tries again.
        retry_in: Duration,
    },
    /// The server accepted the connection.
    Connected(Connected),
    /// The last event: the client is disconnected and stays so.
    Disconnected {
        /// A code of [`codes::disconnected`](crate::codes::disconnected), of a connect error, or of the server.
        code: u32,
        /// Text for people.
        reason: String,
    },
    /// The reader was too slow: this many of the oldest unread events were dropped. Only the reader makes this event.
    Missed {
        /// Number of events.
        count: u64,
    },
}

/// The state of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionState {
    /// There is none; the client makes one, as often as it takes.
    Connecting,
    /// The server accepted it.
    Connected(Connected),
    /// For good.
    Disconnected {
        /// As in [`ConnectionEvent::Disconnected`].
        code: u32,
        /// Text for people.
        reason: String,
    },
}

/// What the server said when it accepted the connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Connected {
    /// Client id: new with each connection.
    pub client: String,
    /// Name and version of the server.
    pub version: String,
    /// Data of the application behind the server.
    pub data: Option<Bytes>,
}

/// What happens to one subscription, in order.
///
/// ```text
/// (Error)* Subscribed (Publication | Join | Leave)* [Subscribing (Error)* Subscribed ...] Unsubscribed
/// ```
///
/// Publications that were missed while the connection was down come directly after [`Subscribed`](Self::Subscribed) and
/// before live ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscriptionEvent {
    /// The subscription is interrupted; the client restores it by itself.
    Subscribing {
        /// A code of [`codes::subscribing`](crate::codes::subscribing), or of the server's unsubscribe push.
        code: u32,
        /// Text for people.
        reason: String,
    },
    /// The server accepted the subscription: from here on publications arrive.
    Subscribed(Subscribed),
    /// A publication.
    Publication(Publication),
    /// A client subscribed to the channel. Only with [`SubscribeOptions::join_leave`](crate::SubscribeOptions), or when
    /// the server decides so.
    Join(ClientInfo),
    /// A client's subscription to the channel ended.
    Leave(ClientInfo),
    /// An attempt to subscribe, or to renew the subscription's token, failed. Another attempt follows.
    Error(Error),
    /// The last event: the subscription ended and is not restored. The stream ends after it.
    Unsubscribed {
        /// A code of [`codes::unsubscribed`](crate::codes::unsubscribed), of a subscribe error, or of the server.
        code: u32,
        /// Text for people.
        reason: String,
    },
}

/// What the server said when it accepted a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribed {
    /// Whether publications may have been missed.
    pub recovery: Recovery,
    /// Place in the stream where this subscription goes on: what follows comes after it. `None` when the server does
    /// not keep positions for it.
    pub position: Option<StreamPosition>,
    /// Whether the server can bring what is missed during an interruption.
    pub recoverable: bool,
    /// Whether the server watches over gaps in the stream.
    pub positioned: bool,
    /// Data of the application behind the server.
    pub data: Option<Bytes>,
}

/// Whether a subscription that goes on missed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// It begins here; there was nothing to recover.
    First,
    /// Nothing was missed: what was published meanwhile follows. (In a channel that holds a single latest value: the
    /// latest value follows, or the subscriber has it already.)
    Complete,
    /// Publications may have been missed, because the server no longer has them all or keeps none for this channel. Load
    /// the state again from its source; publications go on from [`Subscribed::position`].
    Incomplete,
}
