//! Replies and pushes to Protobuf.

use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};
use starling_proto::client as pb;

use crate::{
    broker::{ClientInfo, Form, Publication},
    error::ClientError,
    names::ChannelName,
    session::protocol::{ConnectResult, Expiry, Push, Reply, SubscribeResult},
};

/// Appends one reply behind its length.
pub fn reply(id: u32, reply: &Reply, out: &mut Vec<u8>) {
    let mut message = pb::Reply { id, ..Default::default() };
    match reply {
        Reply::Error(error) => message.error = Some(client_error(*error)),
        Reply::Connect(result) => message.connect = Some(connect_result(result)),
        Reply::Subscribe(result) => message.subscribe = Some(subscribe_result(result)),
        Reply::Unsubscribe => message.unsubscribe = Some(pb::UnsubscribeResult {}),
        Reply::Publish => message.publish = Some(pb::PublishResult {}),
        Reply::Presence(clients) => {
            let presence = clients.iter().map(|(client, info)| (client.clone(), client_info(info))).collect();
            message.presence = Some(pb::PresenceResult { presence });
        }
        Reply::PresenceStats { clients, users } => {
            message.presence_stats = Some(pb::PresenceStatsResult { num_clients: *clients, num_users: *users });
        }
        Reply::History { publications, top } => {
            message.history = Some(pb::HistoryResult {
                publications: publications.iter().map(publication).collect(),
                epoch: top.epoch.to_string(),
                offset: top.offset,
            });
        }
        Reply::Rpc(data) => message.rpc = Some(pb::RpcResult { data: data.clone() }),
        Reply::Refresh(expiry) => {
            let (expires, ttl) = ttl(*expiry);
            message.refresh = Some(pb::RefreshResult { expires, ttl, ..Default::default() });
        }
        Reply::SubRefresh(expiry) => {
            let (expires, ttl) = ttl(*expiry);
            message.sub_refresh = Some(pb::SubRefreshResult { expires, ttl, ..Default::default() });
        }
    }
    delimited(&message, out);
}

/// Appends one push within a reply behind its length.
pub fn push(push: &Push, out: &mut Vec<u8>) {
    match push {
        Push::Publication { channel, publication } => publication_push(channel, publication, out),
        _ => delimited(&pb::Reply { push: Some(push_body(push)), ..Default::default() }, out),
    }
}

/// Appends one push alone behind its length.
pub fn bare_push(push: &Push, out: &mut Vec<u8>) {
    delimited(&push_body(push), out);
}

/// Appends a publication push within a reply behind its length.
///
/// Three lengths and two field keys by hand around the publication, so that the channel is not copied twice.
pub fn publication_push(channel: &ChannelName, datum: &Publication, out: &mut Vec<u8>) {
    const REPLY_PUSH: u32 = 4;
    const PUSH_CHANNEL: u32 = 2;
    const PUSH_PUB: u32 = 4;

    let channel = channel.as_str().as_bytes();
    let body = publication(datum);
    let body_length = body.encoded_len();
    let channel_field = if channel.is_empty() { 0 } else { field_len(PUSH_CHANNEL, channel.len()) };
    let push_length = channel_field + field_len(PUSH_PUB, body_length);
    let message_length = field_len(REPLY_PUSH, push_length);

    out.reserve(message_length + encoded_len_varint(message_length as u64));
    encode_varint(message_length as u64, out);
    field_start(REPLY_PUSH, push_length, out);
    if !channel.is_empty() {
        field_start(PUSH_CHANNEL, channel.len(), out);
        out.extend_from_slice(channel);
    }
    field_start(PUSH_PUB, body_length, out);
    body.encode_raw(out);
}

fn field_len(number: u32, length: usize) -> usize {
    key_len(number) + encoded_len_varint(length as u64) + length
}

fn field_start(number: u32, length: usize, out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

fn push_body(push: &Push) -> pb::Push {
    let mut message = pb::Push::default();
    match push {
        Push::Publication { channel, publication: datum } => {
            message.channel = channel.to_string();
            message.r#pub = Some(publication(datum));
        }
        Push::Join { channel, info } => {
            message.channel = channel.to_string();
            message.join = Some(pb::Join { info: Some(client_info(info)) });
        }
        Push::Leave { channel, info } => {
            message.channel = channel.to_string();
            message.leave = Some(pb::Leave { info: Some(client_info(info)) });
        }
        Push::Unsubscribe { channel, cause } => {
            message.channel = channel.to_string();
            message.unsubscribe = Some(pb::Unsubscribe { code: cause.code, reason: cause.reason.to_string() });
        }
        Push::Subscribe { channel, result } => {
            let result = subscribe_result(result);
            message.channel = channel.to_string();
            message.subscribe = Some(pb::Subscribe {
                recoverable: result.recoverable,
                epoch: result.epoch,
                offset: result.offset,
                positioned: result.positioned,
                data: result.data,
            });
        }
        Push::Connect(result) => {
            let result = connect_result(result);
            message.connect = Some(pb::Connect {
                client: result.client,
                version: result.version,
                data: result.data,
                subs: result.subs,
                expires: result.expires,
                ttl: result.ttl,
                ping: result.ping,
                pong: result.pong,
                session: result.session,
                node: result.node,
                time: result.time,
            });
        }
        Push::Disconnect(cause) => {
            let (code, reason) = (cause.code, cause.reason.to_string());
            message.disconnect = Some(pb::Disconnect { code, reason, reconnect: false });
        }
        Push::Refresh(expiry) => {
            let (expires, ttl) = ttl(*expiry);
            message.refresh = Some(pb::Refresh { expires, ttl });
        }
    }
    message
}

fn client_error(error: ClientError) -> pb::Error {
    pb::Error { code: error.code(), message: error.message().into(), temporary: error.temporary() }
}

fn connect_result(result: &ConnectResult) -> pb::ConnectResult {
    let (expires, ttl) = ttl(result.expiry);
    pb::ConnectResult {
        client: result.client.clone(),
        version: result.version.into(),
        expires,
        ttl,
        data: result.data.clone(),
        subs: result.subs.iter().map(|(channel, sub)| (channel.clone(), subscribe_result(sub))).collect(),
        ping: result.ping,
        pong: result.pong,
        session: result.session.clone(),
        node: result.node.clone(),
        time: result.time.unwrap_or(0),
        ..Default::default()
    }
}

fn subscribe_result(result: &SubscribeResult) -> pb::SubscribeResult {
    let (expires, ttl) = ttl(result.expiry);
    let (epoch, offset) = match &result.position {
        Some(position) => (position.epoch.to_string(), position.offset),
        None => Default::default(),
    };
    pb::SubscribeResult {
        expires,
        ttl,
        recoverable: result.recoverable,
        epoch,
        publications: result.publications.iter().map(publication).collect(),
        recovered: result.recovered,
        offset,
        positioned: result.positioned,
        data: result.data.clone(),
        was_recovering: result.was_recovering,
        delta: result.delta,
        ..Default::default()
    }
}

fn publication(publication: &Publication) -> pb::Publication {
    let position = publication.position.as_ref();
    pb::Publication {
        data: publication.data.clone(),
        info: publication.info.as_ref().map(client_info),
        offset: position.map_or(0, |position| position.offset),
        tags: publication.tags.clone(),
        delta: publication.form == Form::Patch,
        // Only the first publication of a stream tells its epoch: a client that subscribed before it learns it there.
        epoch: position.filter(|position| position.offset == 1).map_or_else(String::new, |at| at.epoch.to_string()),
        ..Default::default()
    }
}

fn client_info(info: &ClientInfo) -> pb::ClientInfo {
    pb::ClientInfo {
        user: info.user.clone(),
        client: info.client.clone(),
        conn_info: info.conn_info.clone(),
        chan_info: info.chan_info.clone(),
    }
}

fn ttl(expiry: Expiry) -> (bool, u32) {
    (expiry.0.is_some(), expiry.0.unwrap_or(0))
}

fn delimited(message: &impl Message, out: &mut Vec<u8>) {
    message.encode_length_delimited(out).expect("a vector grows as needed");
}
