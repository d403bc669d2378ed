//! Moving publications between nodes, and what is moved.

mod epoch;
pub mod memory;
pub mod redis;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

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

/// How much of a channel's stream is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryOptions {
    /// Publications; at least 1.
    pub size: u32,
    /// Time since the last publication, after which the publications are dropped; the position stays. Whole seconds.
    pub ttl: Duration,
    /// Time since the last use, after which the stream itself is forgotten and the next one has a new epoch.
    pub meta_ttl: Duration,
}

/// What a publisher asks beside delivering.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PublishOptions {
    /// Keeps the publication in the channel's stream and gives it a position. `None` for channels without history, and
    /// for publications that skip it.
    pub history: Option<HistoryOptions>,
    /// A repeated key within five minutes publishes nothing and answers the first result.
    pub idempotency_key: Option<String>,
    /// Passes the stream's previous publication on with this one, so that nodes can make deltas. Means nothing without history.
    pub delta: bool,
    /// Publishes only if the version is greater than that of the last publication with a version of the same version epoch
    /// (an empty version epoch is that of any). Means nothing without history.
    pub version: Option<Version>,
}

/// An application's own count of the states it publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// At least 1.
    pub number: u64,
    /// A new one starts the comparison anew; may be empty.
    pub epoch: String,
}

/// What became of a publication.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Published {
    /// Its position; for one that was suppressed, that of the first with the same key, or the top of the stream. Absent
    /// without history.
    pub position: Option<StreamPosition>,
    /// Why nothing was published, and nothing had to be.
    pub suppressed: Option<Suppressed>,
}

/// Why a publication had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suppressed {
    /// Its idempotency key was used before.
    Idempotency,
    /// Its version is not greater than the last.
    Version,
}

/// What to read of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Exclusive start: the offset after which to read, or, in reverse, before which. `None` for the stream's beginning, or,
    /// in reverse, its end. An offset that was dropped already starts at the oldest that is kept; in reverse it gives nothing.
    pub since: Option<u64>,
    /// How many publications at most.
    pub limit: Limit,
    /// Newest first.
    pub reverse: bool,
}

/// A number of publications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// None: the position is what is asked for.
    PositionOnly,
    /// At most this many; at least 1.
    AtMost(u32),
    /// All that are kept.
    All,
}

/// Part of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// In the order asked for; each has its position.
    pub publications: Vec<Publication>,
    /// Top of the stream at the moment of reading: the position of its last publication, kept or not. Offset 0 before the
    /// first.
    pub top: StreamPosition,
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

/// Moves publications to every node that has subscribers of their channel, and keeps the tail of their streams.
///
/// Promises:
/// - *Order*: publications of one channel reach [`BrokerEvents`] in the order in which the broker accepted them, which is the
///   order of their offsets.
/// - *Atomicity*: a publication with history gets its offset, enters the stream and is announced in one step.
/// - *Duplicates*: at most once across nodes. Without history a publication may be lost while the broker is away; with it,
///   the offsets show the gap and [`history`](Self::history) fills it.
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
    /// those of every other node.
    fn publish(
        &self,
        channel: &ChannelName,
        publication: Publication,
        options: PublishOptions,
    ) -> BoxFuture<'static, Result<Published, BrokerError>>;

    /// Tells all subscribers of the channel that somebody joined. Not kept; no order with publications.
    fn join(&self, channel: &ChannelName, info: ClientInfo) -> BoxFuture<'static, Result<(), BrokerError>>;

    /// Tells all subscribers of the channel that somebody left. Likewise.
    fn leave(&self, channel: &ChannelName, info: ClientInfo) -> BoxFuture<'static, Result<(), BrokerError>>;

    /// Reads a stream. The first read of a channel begins its stream, at offset 0 with a fresh epoch.
    fn history(
        &self,
        channel: &ChannelName,
        query: HistoryQuery,
        options: HistoryOptions,
    ) -> BoxFuture<'static, Result<History, BrokerError>>;

    /// Drops the kept publications. The stream's position stays, so that clients with an old one cannot recover by mistake.
    fn remove_history(&self, channel: &ChannelName) -> BoxFuture<'static, Result<(), BrokerError>>;

    /// Whether the broker's server can be reached, for health and readiness; `Err` says why not.
    fn status(&self) -> Result<(), String>;
}

/// What a broker reports to its node.
pub trait BrokerEvents: Send + Sync {
    /// A publication of a channel, and the payload of the one before it in the stream where that was asked for and there is
    /// one. Called in stream order per channel; must not block.
    fn publication(
        &self,
        channel: &ChannelName,
        publication: Publication,
        previous: Option<Bytes>,
    ) -> Result<(), BrokerError>;

    /// Somebody joined a channel.
    fn joined(&self, channel: &ChannelName, info: ClientInfo) -> Result<(), BrokerError>;

    /// Somebody left a channel.
    fn left(&self, channel: &ChannelName, info: ClientInfo) -> Result<(), BrokerError>;

    /// Publications of these channels may have been missed: their bus was away, and is back.
    fn interrupted(&self, channels: &[ChannelName]);

    /// Whether the channel still has local subscribers.
    fn wanted(&self, channel: &ChannelName) -> bool;
}
