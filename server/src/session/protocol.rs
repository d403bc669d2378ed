//! What a session and its client say to each other, without any encoding: commands in, replies and pushes out.
//!
//! The codecs in [`crate::wire`] turn these into bytes and back. Wire sentinels stop there: an absent offset is `None`
//! here and 0 there. Payloads are [`Bytes`]; a clone of one is a reference count. An empty payload is an absent one.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    broker::{ClientInfo, Publication, StreamPosition},
    error::{ClientError, Disconnect, Unsubscribed},
    names::ChannelName,
    wire::websocket::Kind,
};

/// Encoding of a connection, chosen when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Text frames of newline-separated JSON objects.
    Json,
    /// Binary frames of length-delimited Protobuf messages.
    Protobuf,
}

impl Protocol {
    /// Type of the WebSocket messages that carry it.
    pub fn kind(self) -> Kind {
        match self {
            Self::Json => Kind::Text,
            Self::Protobuf => Kind::Binary,
        }
    }
}

/// One command of a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// Chosen by the client and echoed by the reply; neither unique nor growing. 0 for [`Request::Send`] and
    /// [`Request::Pong`], and where a client broke the rule.
    pub id: u32,
    /// What is asked.
    pub request: Request,
}

/// Body of a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// The empty command: answers a ping.
    Pong,
    /// Must be the first command of a connection.
    Connect(Box<ConnectRequest>),
    /// Asks for a subscription.
    Subscribe(Box<SubscribeRequest>),
    /// Ends a subscription.
    Unsubscribe {
        /// Channel of the subscription.
        channel: String,
    },
    /// Publishes to a channel.
    Publish {
        /// Target.
        channel: String,
        /// Payload; empty when absent.
        data: Bytes,
    },
    /// Asks who is in a channel.
    Presence {
        /// Channel asked about.
        channel: String,
    },
    /// Asks how many are in a channel.
    PresenceStats {
        /// Channel asked about.
        channel: String,
    },
    /// Reads a channel's history.
    History(Box<HistoryRequest>),
    /// Calls a method of the backend.
    Rpc {
        /// Name of the method.
        method: String,
        /// Payload.
        data: Bytes,
    },
    /// A message without a reply; nobody handles it.
    Send,
    /// A new connection token.
    Refresh {
        /// JSON Web Token.
        token: String,
    },
    /// A new subscription token.
    SubRefresh {
        /// Channel of the subscription.
        channel: String,
        /// JSON Web Token.
        token: String,
    },
}

/// Body of `connect`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectRequest {
    /// JSON Web Token; empty when there is none.
    pub token: String,
    /// Data for the backend.
    pub data: Bytes,
    /// Positions of server-side subscriptions to recover, by channel.
    pub subs: BTreeMap<String, SubscribeRequest>,
    /// Name of the client program.
    pub name: String,
    /// Version of the client program.
    pub version: String,
    /// Emulated HTTP headers, for proxies that ask for them.
    pub headers: BTreeMap<String, String>,
}

/// Body of `subscribe`, and what a client asks of one server-side subscription in `connect`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubscribeRequest {
    /// Channel to subscribe to; empty within `connect`, where the map key names it.
    pub channel: String,
    /// Subscription token; empty when there is none.
    pub token: String,
    /// Whether to recover from `position`.
    pub recover: bool,
    /// Offset of the last publication the client has, 0 for none yet.
    pub offset: u64,
    /// Epoch of the client's position; empty is a wildcard.
    pub epoch: String,
    /// Data for the backend.
    pub data: Bytes,
    /// Asks for position checks.
    pub positioned: bool,
    /// Asks for recovery.
    pub recoverable: bool,
    /// Asks for join and leave pushes.
    pub join_leave: bool,
    /// Asks for a delta encoding; empty for none.
    pub delta: String,
    /// Asks for a filter by tags.
    pub tags_filter: Option<Box<starling_proto::client::FilterNode>>,
    /// Bits: 1 offers compact channel ids, 2 refuses an unrecovered subscription.
    pub flag: i64,
    /// Kind of subscription: 0 stream, 1 to 3 map, 4 shared poll.
    pub kind: i32,
}

/// Body of `history`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistoryRequest {
    /// Channel to read.
    pub channel: String,
    /// 0: position only; negative: as many as allowed.
    pub limit: i32,
    /// Exclusive start. The epoch may be empty.
    pub since: Option<(u64, String)>,
    /// Newest first.
    pub reverse: bool,
}

/// Answer to a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The command failed.
    Error(ClientError),
    /// The connection is open.
    Connect(Box<ConnectResult>),
    /// The subscription is live.
    Subscribe(Box<SubscribeResult>),
    /// The subscription is gone.
    Unsubscribe,
    /// The publication was accepted.
    Publish,
    /// Who is in the channel, by client id.
    Presence(BTreeMap<String, ClientInfo>),
    /// How many are in the channel.
    PresenceStats {
        /// Connections.
        clients: u32,
        /// Distinct users; all anonymous ones count as one.
        users: u32,
    },
    /// Part of a stream and its top.
    History {
        /// In the order asked for.
        publications: Vec<Publication>,
        /// Top of the stream.
        top: StreamPosition,
    },
    /// Answer of the method.
    Rpc(Bytes),
    /// The new expiry of the connection.
    Refresh(Expiry),
    /// The new expiry of the subscription.
    SubRefresh(Expiry),
}

/// When something expires, told to the client in whole seconds from now; `None` for never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expiry(pub Option<u32>);

/// Body of the reply to `connect`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectResult {
    /// Id of this connection.
    pub client: String,
    /// Version of the server.
    pub version: &'static str,
    /// Expiry that the client itself must refresh.
    pub expiry: Expiry,
    /// Data from the backend.
    pub data: Bytes,
    /// Server-side subscriptions.
    pub subs: BTreeMap<String, SubscribeResult>,
    /// Whole seconds between pings; 0 for none.
    pub ping: u32,
    /// Whether pings must be answered.
    pub pong: bool,
    /// Session, told to emulated and unidirectional clients only.
    pub session: String,
    /// Node, told to emulated clients only.
    pub node: String,
    /// Server time in Unix milliseconds, when configured.
    pub time: Option<i64>,
}

/// Body of the reply to `subscribe`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubscribeResult {
    /// Expiry that the client itself must refresh.
    pub expiry: Expiry,
    /// The client may recover this subscription.
    pub recoverable: bool,
    /// Positions are checked.
    pub positioned: bool,
    /// Where the client stands now; present when positioned.
    pub position: Option<StreamPosition>,
    /// Missed publications, in order.
    pub publications: Vec<Publication>,
    /// Nothing was missed.
    pub recovered: bool,
    /// The client had asked for recovery.
    pub was_recovering: bool,
    /// Delta encoding is on.
    pub delta: bool,
    /// Data from the token, backend or server API.
    pub data: Bytes,
}

/// Something the server sends unasked.
#[derive(Clone, Debug, PartialEq)]
pub enum Push {
    /// A publication.
    Publication {
        /// Where it was published.
        channel: ChannelName,
        /// The datum.
        publication: Publication,
    },
    /// Somebody subscribed.
    Join {
        /// Where.
        channel: ChannelName,
        /// Who.
        info: ClientInfo,
    },
    /// Somebody left.
    Leave {
        /// Where.
        channel: ChannelName,
        /// Who.
        info: ClientInfo,
    },
    /// The server ended a subscription.
    Unsubscribe {
        /// Which; empty when the server API named none.
        channel: ChannelName,
        /// Why.
        cause: Unsubscribed,
    },
    /// The server added a subscription.
    Subscribe {
        /// Which.
        channel: ChannelName,
        /// Its state; only positions and data are told.
        result: Box<SubscribeResult>,
    },
    /// First message on a unidirectional transport.
    Connect(Box<ConnectResult>),
    /// Last message on every transport but the bidirectional WebSocket.
    Disconnect(Disconnect),
    /// The server changed the connection's expiry.
    Refresh(Expiry),
}
