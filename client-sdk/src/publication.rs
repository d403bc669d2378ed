//! What subscribers receive: publications, who made them, and places in a channel's stream.

use std::collections::BTreeMap;

use bytes::Bytes;
use starling_proto::client;

/// One datum published to a channel.
///
/// Over Protobuf, `data` and the infos are slices of the frame that brought them, not copies: keeping one keeps the
/// whole frame. Copy what is kept for long.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Publication {
    /// The payload. Valid JSON on a JSON connection, any bytes otherwise.
    pub data: Bytes,
    /// Place in the channel's stream, from 1. `None` in channels without history.
    pub offset: Option<u64>,
    /// Who published it. Only publications made by clients have it.
    pub info: Option<ClientInfo>,
    /// Tags that the publisher attached.
    pub tags: BTreeMap<String, String>,
}

/// One connection of one user, as others may see it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientInfo {
    /// User id; empty for anonymous users.
    pub user: String,
    /// Client id: unique per connection.
    pub client: String,
    /// Information attached to the connection.
    pub conn_info: Option<Bytes>,
    /// Information attached to the connection in this channel.
    pub chan_info: Option<Bytes>,
}

/// A place in one life of a channel's stream.
///
/// Epoch and offset belong together: an offset means nothing under another epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPosition {
    /// Identity of this life of the stream; opaque.
    pub epoch: String,
    /// Offset of the last publication before this place; 0 is the place before the first one.
    pub offset: u64,
}

impl StreamPosition {
    /// Turns the wire's pair into a position; an empty epoch means there is none.
    pub(crate) fn from_wire(epoch: String, offset: u64) -> Option<Self> {
        (!epoch.is_empty()).then_some(Self { epoch, offset })
    }
}

impl From<client::Publication> for Publication {
    fn from(wire: client::Publication) -> Self {
        Self {
            data: wire.data,
            offset: (wire.offset > 0).then_some(wire.offset),
            info: wire.info.map(ClientInfo::from),
            tags: wire.tags,
        }
    }
}

impl From<client::ClientInfo> for ClientInfo {
    fn from(wire: client::ClientInfo) -> Self {
        let client::ClientInfo { user, client, conn_info, chan_info } = wire;
        Self { user, client, conn_info: present(conn_info), chan_info: present(chan_info) }
    }
}

/// The wire writes "no payload" as an empty one.
pub(crate) fn present(payload: Bytes) -> Option<Bytes> {
    (!payload.is_empty()).then_some(payload)
}
