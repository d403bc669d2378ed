//! Moving publications between nodes, and what is moved.

pub mod memory;
pub mod redis;

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::names::ChannelName;

/// One datum published to a channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Publication {
    /// Payload, byte for byte as published.
    pub data: Bytes,
    /// The publishing client; absent when a backend published.
    pub info: Option<ClientInfo>,
    /// Application's marks, for filters.
    pub tags: BTreeMap<String, String>,
    /// Place in the channel's stream; absent without history.
    pub position: Option<StreamPosition>,
    /// Publisher's clock, Unix milliseconds. Never used for ordering.
    pub time: Option<i64>,
}

/// Who a connection is, as others see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientInfo {
    /// User id; empty for anonymous.
    pub user: String,
    /// Client id.
    pub client: String,
    /// What the connection token says about the user.
    pub conn_info: Bytes,
    /// What the subscription token says about the user in this channel.
    pub chan_info: Bytes,
}

/// Identity of one life of a stream. It changes when the stream is lost or cleared.
pub type Epoch = Arc<str>;

/// A place in a stream: epoch and offset, always together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamPosition {
    /// The stream's life.
    pub epoch: Epoch,
    /// Publications count from 1; 0 is the place before the first.
    pub offset: u64,
}

/// What a publisher asks beside delivering.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PublishOptions {
    /// A repeated key within five minutes publishes nothing and answers the first result.
    pub idempotency_key: Option<String>,
}

/// Why the broker did not do what was asked. The log has the details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerError {
    /// The broker's server cannot be reached now. Try again later; a publication may or may not have happened.
    Unavailable,
    /// Delivery workers are behind by more than their bound.
    Overloaded,
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unavailable => "broker unavailable",
            Self::Overloaded => "delivery overloaded",
        })
    }
}

impl std::error::Error for BrokerError {}

/// Moves publications to every node that has subscribers of their channel.
///
/// Promises:
/// - *Order*: publications of one channel reach [`BrokerEvents`] in the order in which the broker accepted them.
/// - *Duplicates*: at most once across nodes. Without history a publication may be lost while the broker is away.
/// - *Blocking*: no method blocks a thread. The futures may be polled on any runtime thread, are ready at once where
///   nothing has to be waited for, and end within the broker's own time limit. Dropping one does not undo its effect.
pub trait Broker: Send + Sync {
    /// Makes this node receive the channel's publications; ready when it does.
    ///
    /// Repeating it is harmless and, once the channel is received, ready at once. After a lost connection the broker
    /// subscribes again by itself to every channel that was not given up.
    fn subscribe(&self, channel: &ChannelName) -> BoxFuture<'static, Result<(), BrokerError>>;

    /// Says that the last local subscriber left. The broker waits at least a second, asks [`BrokerEvents::wanted`]
    /// again, and then stops receiving the channel.
    fn unsubscribe(&self, channel: &ChannelName);

    /// Publishes; ready when the broker has accepted it. Local subscribers receive it through [`BrokerEvents`] like
    /// those of every other node. The position is absent without history.
    fn publish(
        &self,
        channel: &ChannelName,
        publication: Publication,
        options: PublishOptions,
    ) -> BoxFuture<'static, Result<Option<StreamPosition>, BrokerError>>;

    /// Whether the broker's server can be reached, for health and readiness; `Err` says why not.
    fn status(&self) -> Result<(), String>;
}

/// What a broker reports to its node.
pub trait BrokerEvents: Send + Sync {
    /// A publication of a channel. Called in stream order per channel; must not block.
    fn publication(&self, channel: &ChannelName, publication: Publication) -> Result<(), BrokerError>;

    /// Whether the channel still has local subscribers.
    fn wanted(&self, channel: &ChannelName) -> bool;
}
