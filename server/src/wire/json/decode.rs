//! Commands from JSON.
//!
//! Client protocol: unknown members are ignored, `null` means absent (but is a payload where a payload may stand), and
//! of several bodies the first of a fixed order counts. Integers must be integers within the range of their field. Bytes
//! that are not UTF-8 become U+FFFD, because clients of the reference server get away with them.

use std::{borrow::Cow, collections::BTreeMap, str};

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::{error::Category, value::RawValue};
use starling_proto::client::FilterNode;

use crate::{
    session::protocol::{self, Command, Request},
    wire::Malformed,
};

/// Decodes the command of the first line and moves behind that line.
///
/// Costs one copy of each text and payload: the input is a buffer that others use next. Nesting within payloads and
/// unknown members needs no stack, nesting within a tags filter is bounded by the parser's limit of 128.
pub fn next_command(rest: &mut &[u8]) -> Result<Command, Malformed> {
    let (line, next) = match rest.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&rest[..end], &rest[end + 1..]),
        None => (*rest, &[][..]),
    };
    *rest = next;
    envelope(&utf8(line))
}

/// Decodes a connect request that stands alone. What follows it is dropped, like behind a command.
pub fn connect_request(message: &[u8]) -> Result<protocol::ConnectRequest, Malformed> {
    Ok(first_value::<Option<ConnectRequest>>(&utf8(message))?.unwrap_or_default().into())
}

fn envelope(line: &str) -> Result<Command, Malformed> {
    let envelope: Envelope<'_> = first_value(line)?;
    let id = envelope.id.unwrap_or(0);
    Ok(Command { id, request: envelope.request(id)? })
}

fn utf8(bytes: &[u8]) -> Cow<'_, str> {
    match str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

fn first_value<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Malformed> {
    // The parser's own words may quote the input, a token perhaps: only the kind and the place are told.
    T::deserialize(&mut serde_json::Deserializer::from_str(text)).map_err(|error| {
        let kind = match error.classify() {
            Category::Eof => "incomplete JSON",
            Category::Data => "unexpected JSON value",
            Category::Syntax | Category::Io => "invalid JSON",
        };
        Malformed(format!("{kind} at column {}", error.column()).into())
    })
}

#[derive(Deserialize)]
struct Envelope<'a> {
    id: Option<u32>,
    connect: Option<Box<ConnectRequest>>,
    subscribe: Option<Box<SubscribeRequest>>,
    unsubscribe: Option<ChannelOnly>,
    #[serde(borrow)]
    publish: Option<PublishRequest<'a>>,
    presence: Option<ChannelOnly>,
    presence_stats: Option<ChannelOnly>,
    history: Option<Box<HistoryRequest>>,
    #[serde(borrow)]
    rpc: Option<RpcRequest<'a>>,
    send: Option<SendRequest>,
    refresh: Option<RefreshRequest>,
    sub_refresh: Option<SubRefreshRequest>,
}

impl Envelope<'_> {
    fn request(self, id: u32) -> Result<Request, Malformed> {
        if id == 0 && self.send.is_none() {
            return Ok(Request::Pong);
        }
        Ok(if let Some(body) = self.connect {
            Request::Connect(Box::new((*body).into()))
        } else if let Some(body) = self.subscribe {
            Request::Subscribe(Box::new((*body).into()))
        } else if let Some(body) = self.unsubscribe {
            Request::Unsubscribe { channel: body.channel.unwrap_or_default() }
        } else if let Some(body) = self.publish {
            Request::Publish { channel: body.channel.unwrap_or_default(), data: payload(body.data) }
        } else if let Some(body) = self.presence {
            Request::Presence { channel: body.channel.unwrap_or_default() }
        } else if let Some(body) = self.presence_stats {
            Request::PresenceStats { channel: body.channel.unwrap_or_default() }
        } else if let Some(body) = self.history {
            Request::History(Box::new((*body).into()))
        } else if let Some(body) = self.rpc {
            Request::Rpc { method: body.method.unwrap_or_default(), data: payload(body.data) }
        } else if self.send.is_some() {
            Request::Send
        } else if let Some(body) = self.refresh {
            Request::Refresh { token: body.token.unwrap_or_default() }
        } else if let Some(body) = self.sub_refresh {
            Request::SubRefresh { channel: body.channel.unwrap_or_default(), token: body.token.unwrap_or_default() }
        } else {
            return Err(Malformed::new("command without a body"));
        })
    }
}

#[derive(Deserialize, Default)]
struct ConnectRequest {
    token: Option<String>,
    #[serde(default, deserialize_with = "present")]
    data: Option<Box<RawValue>>,
    subs: Option<BTreeMap<String, Option<SubscribeRequest>>>,
    name: Option<String>,
    version: Option<String>,
    headers: Option<BTreeMap<String, Option<String>>>,
}

impl From<ConnectRequest> for protocol::ConnectRequest {
    fn from(body: ConnectRequest) -> Self {
        let subs = body.subs.unwrap_or_default().into_iter();
        let headers = body.headers.unwrap_or_default().into_iter();
        Self {
            token: body.token.unwrap_or_default(),
            data: payload(body.data.as_deref()),
            subs: subs.map(|(channel, sub)| (channel, sub.unwrap_or_default().into())).collect(),
            name: body.name.unwrap_or_default(),
            version: body.version.unwrap_or_default(),
            headers: headers.map(|(name, value)| (name, value.unwrap_or_default())).collect(),
        }
    }
}

#[derive(Deserialize, Default)]
struct SubscribeRequest {
    channel: Option<String>,
    token: Option<String>,
    recover: Option<bool>,
    epoch: Option<String>,
    offset: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    data: Option<Box<RawValue>>,
    positioned: Option<bool>,
    recoverable: Option<bool>,
    join_leave: Option<bool>,
    delta: Option<String>,
    tf: Option<Box<Filter>>,
    flag: Option<i64>,
    #[serde(rename = "type")]
    kind: Option<i32>,
}

impl From<SubscribeRequest> for protocol::SubscribeRequest {
    fn from(body: SubscribeRequest) -> Self {
        Self {
            channel: body.channel.unwrap_or_default(),
            token: body.token.unwrap_or_default(),
            recover: body.recover.unwrap_or_default(),
            offset: body.offset.unwrap_or_default(),
            epoch: body.epoch.unwrap_or_default(),
            data: payload(body.data.as_deref()),
            positioned: body.positioned.unwrap_or_default(),
            recoverable: body.recoverable.unwrap_or_default(),
            join_leave: body.join_leave.unwrap_or_default(),
            delta: body.delta.unwrap_or_default(),
            tags_filter: body.tf.map(|filter| Box::new((*filter).into())),
            flag: body.flag.unwrap_or_default(),
            kind: body.kind.unwrap_or_default(),
        }
    }
}

/// A tags filter. Recursive, but never deeper than the parser allows.
#[derive(Deserialize, Default)]
struct Filter {
    op: Option<String>,
    key: Option<String>,
    cmp: Option<String>,
    val: Option<String>,
    vals: Option<Vec<Option<String>>>,
    nodes: Option<Vec<Option<Filter>>>,
}

impl From<Filter> for FilterNode {
    fn from(filter: Filter) -> Self {
        Self {
            op: filter.op.unwrap_or_default(),
            key: filter.key.unwrap_or_default(),
            cmp: filter.cmp.unwrap_or_default(),
            val: filter.val.unwrap_or_default(),
            vals: filter.vals.unwrap_or_default().into_iter().map(Option::unwrap_or_default).collect(),
            nodes: filter.nodes.unwrap_or_default().into_iter().map(|node| node.unwrap_or_default().into()).collect(),
        }
    }
}

#[derive(Deserialize)]
struct ChannelOnly {
    channel: Option<String>,
}

#[derive(Deserialize)]
struct PublishRequest<'a> {
    channel: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct HistoryRequest {
    channel: Option<String>,
    limit: Option<i32>,
    since: Option<Since>,
    reverse: Option<bool>,
}

#[derive(Deserialize)]
struct Since {
    offset: Option<u64>,
    epoch: Option<String>,
}

impl From<HistoryRequest> for protocol::HistoryRequest {
    fn from(body: HistoryRequest) -> Self {
        Self {
            channel: body.channel.unwrap_or_default(),
            limit: body.limit.unwrap_or_default(),
            since: body.since.map(|since| (since.offset.unwrap_or_default(), since.epoch.unwrap_or_default())),
            reverse: body.reverse.unwrap_or_default(),
        }
    }
}

#[derive(Deserialize)]
struct RpcRequest<'a> {
    method: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct SendRequest {}

#[derive(Deserialize)]
struct RefreshRequest {
    token: Option<String>,
}

#[derive(Deserialize)]
struct SubRefreshRequest {
    channel: Option<String>,
    token: Option<String>,
}

/// Reads a member that is there, `null` included.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

fn payload(raw: Option<&RawValue>) -> Bytes {
    raw.map_or_else(Bytes::new, |raw| Bytes::copy_from_slice(raw.get().as_bytes()))
}
