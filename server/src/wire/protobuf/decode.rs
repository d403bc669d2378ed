//! Commands from Protobuf.

use prost::{Message, encoding::decode_varint};
use starling_proto::client as pb;

use crate::{
    session::protocol::{self, Command, Request},
    wire::Malformed,
};

/// Decodes the first command and moves behind it.
///
/// Costs one copy of each text and payload: the input is a buffer that others use next. Unknown fields are skipped.
/// Nesting is bounded by the decoder's limit of 100.
pub fn next_command(rest: &mut &[u8]) -> Result<Command, Malformed> {
    let length = decode_varint(rest).map_err(|_| Malformed::new("no length before a command"))?;
    let (bytes, next) = usize::try_from(length)
        .ok()
        .and_then(|length| rest.split_at_checked(length))
        .ok_or(Malformed::new("message shorter than the length before a command"))?;
    *rest = next;
    let command = pb::Command::decode(bytes).map_err(|_| Malformed::new("invalid Protobuf command"))?;
    Ok(Command { id: command.id, request: request(command)? })
}

/// Decodes a connect request that stands alone, without a length before it.
pub fn connect_request(message: &[u8]) -> Result<protocol::ConnectRequest, Malformed> {
    let body = pb::ConnectRequest::decode(message).map_err(|_| Malformed::new("invalid Protobuf connect request"))?;
    Ok(connect(body))
}

fn request(command: pb::Command) -> Result<Request, Malformed> {
    if command.id == 0 && command.send.is_none() {
        return Ok(Request::Pong);
    }
    Ok(if let Some(body) = command.connect {
        Request::Connect(Box::new(connect(body)))
    } else if let Some(body) = command.subscribe {
        Request::Subscribe(Box::new(subscribe(body)))
    } else if let Some(body) = command.unsubscribe {
        Request::Unsubscribe { channel: body.channel }
    } else if let Some(body) = command.publish {
        Request::Publish { channel: body.channel, data: body.data }
    } else if let Some(body) = command.presence {
        Request::Presence { channel: body.channel }
    } else if let Some(body) = command.presence_stats {
        Request::PresenceStats { channel: body.channel }
    } else if let Some(body) = command.history {
        Request::History(Box::new(protocol::HistoryRequest {
            channel: body.channel,
            limit: body.limit,
            since: body.since.map(|since| (since.offset, since.epoch)),
            reverse: body.reverse,
        }))
    } else if let Some(body) = command.rpc {
        Request::Rpc { method: body.method, data: body.data }
    } else if command.send.is_some() {
        Request::Send
    } else if let Some(body) = command.refresh {
        Request::Refresh { token: body.token }
    } else if let Some(body) = command.sub_refresh {
        Request::SubRefresh { channel: body.channel, token: body.token }
    } else {
        return Err(Malformed::new("command without a body"));
    })
}

fn connect(body: pb::ConnectRequest) -> protocol::ConnectRequest {
    protocol::ConnectRequest {
        token: body.token,
        data: body.data,
        subs: body.subs.into_iter().map(|(channel, sub)| (channel, subscribe(sub))).collect(),
        name: body.name,
        version: body.version,
        headers: body.headers,
    }
}

fn subscribe(body: pb::SubscribeRequest) -> protocol::SubscribeRequest {
    protocol::SubscribeRequest {
        channel: body.channel,
        token: body.token,
        recover: body.recover,
        offset: body.offset,
        epoch: body.epoch,
        data: body.data,
        positioned: body.positioned,
        recoverable: body.recoverable,
        join_leave: body.join_leave,
        delta: body.delta,
        tags_filter: body.tf.map(Box::new),
        flag: body.flag,
        kind: body.r#type,
    }
}
