//! Simple calls: one request, one response.

use std::collections::BTreeMap;

use bytes::Bytes;
use starling_proto::client::{
    Command, HistoryRequest, PresenceRequest, PresenceStatsRequest, PublishRequest, Reply, RpcRequest,
};

use crate::{ClientInfo, Error, Publication, StreamPosition};

/// A call to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Publishes to a channel.
    Publish {
        /// Where.
        channel: String,
        /// What; JSON on a JSON connection.
        data: Bytes,
    },
    /// Reads from the history of a channel.
    History {
        /// Of which channel.
        channel: String,
        /// Which part.
        query: HistoryQuery,
    },
    /// Asks who is subscribed to a channel.
    Presence {
        /// Which channel.
        channel: String,
    },
    /// Asks how many are subscribed to a channel.
    PresenceStats {
        /// Which channel.
        channel: String,
    },
    /// Calls a method of the application behind the server.
    Rpc {
        /// Which method; may be empty.
        method: String,
        /// Its argument; JSON on a JSON connection. Empty for none.
        data: Bytes,
    },
}

/// Which part of a channel's history to read.
///
/// The default asks for no publications, only for the current position.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistoryQuery {
    /// How many publications at most.
    pub limit: HistoryLimit,
    /// Start after this place (before it, when `reverse`); without it at the oldest kept (the newest, when `reverse`).
    pub since: Option<StreamPosition>,
    /// From newer to older.
    pub reverse: bool,
}

/// How many publications a history call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HistoryLimit {
    /// None: only the position of the stream.
    #[default]
    PositionOnly,
    /// At most this many. The server has its own maximum, too.
    AtMost(u32),
    /// As many as the server gives in one answer.
    ServerMaximum,
}

/// Publications of a channel's history and the end of its stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// In the order that was asked for.
    pub publications: Vec<Publication>,
    /// The current end of the stream, however little was read.
    pub position: Option<StreamPosition>,
}

/// How many are subscribed to a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PresenceStats {
    /// Connections.
    pub clients: u32,
    /// Different users; all anonymous ones count as one.
    pub users: u32,
}

/// The answer to a [`Request`]; each kind answers the request of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// The publication was accepted.
    Publish,
    /// The part of the history.
    History(History),
    /// Who is subscribed, by client id.
    Presence(BTreeMap<String, ClientInfo>),
    /// How many are subscribed.
    PresenceStats(PresenceStats),
    /// What the method returned; may be empty.
    Rpc(Bytes),
}

/// Which kind of response a sent request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestKind {
    Publish,
    History,
    Presence,
    PresenceStats,
    Rpc,
}

impl Request {
    pub(crate) fn kind(&self) -> RequestKind {
        match self {
            Self::Publish { .. } => RequestKind::Publish,
            Self::History { .. } => RequestKind::History,
            Self::Presence { .. } => RequestKind::Presence,
            Self::PresenceStats { .. } => RequestKind::PresenceStats,
            Self::Rpc { .. } => RequestKind::Rpc,
        }
    }

    pub(crate) fn into_command(self, id: u32) -> Command {
        let mut command = Command { id, ..Command::default() };
        match self {
            Self::Publish { channel, data } => {
                command.publish = Some(PublishRequest { channel, data, ..PublishRequest::default() });
            }
            Self::History { channel, query } => {
                let HistoryQuery { limit, since, reverse } = query;
                command.history = Some(HistoryRequest {
                    channel,
                    limit: limit.to_wire(),
                    since: since.map(|StreamPosition { epoch, offset }| starling_proto::client::StreamPosition {
                        offset,
                        epoch,
                    }),
                    reverse,
                });
            }
            Self::Presence { channel } => command.presence = Some(PresenceRequest { channel }),
            Self::PresenceStats { channel } => command.presence_stats = Some(PresenceStatsRequest { channel }),
            Self::Rpc { method, data } => command.rpc = Some(RpcRequest { data, method }),
        }
        command
    }
}

impl HistoryLimit {
    /// The wire writes "none" as 0 and "as many as allowed" as -1.
    fn to_wire(self) -> i32 {
        match self {
            Self::PositionOnly => 0,
            Self::AtMost(count) => i32::try_from(count).unwrap_or(i32::MAX),
            Self::ServerMaximum => -1,
        }
    }
}

impl RequestKind {
    /// Takes the body that answers this kind of request out of a reply without error.
    pub(crate) fn response(self, reply: Reply) -> Result<Response, Error> {
        match self {
            Self::Publish => reply.publish.map(|_| Response::Publish),
            Self::History => reply.history.map(|result| {
                Response::History(History {
                    publications: result.publications.into_iter().map(Publication::from).collect(),
                    position: StreamPosition::from_wire(result.epoch, result.offset),
                })
            }),
            Self::Presence => reply.presence.map(|result| {
                Response::Presence(
                    result.presence.into_iter().map(|(client, info)| (client, ClientInfo::from(info))).collect(),
                )
            }),
            Self::PresenceStats => reply.presence_stats.map(|result| {
                Response::PresenceStats(PresenceStats { clients: result.num_clients, users: result.num_users })
            }),
            Self::Rpc => reply.rpc.map(|result| Response::Rpc(result.data)),
        }
        .ok_or(Error::BadReply("the reply has no body for this command"))
    }
}
