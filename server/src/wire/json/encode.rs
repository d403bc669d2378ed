//! Replies and pushes to JSON.

use std::{collections::BTreeMap, str};

use serde::de::IgnoredAny;

use crate::{
    broker::{ClientInfo, Form, Publication, StreamPosition},
    error::ClientError,
    names::ChannelName,
    session::protocol::{ConnectResult, Expiry, Push, Reply, SubscribeResult},
    wire::InvalidPayload,
};

/// Appends one reply. On failure nothing is appended.
pub fn reply(id: u32, reply: &Reply, out: &mut Vec<u8>) -> Result<(), InvalidPayload> {
    object(out, |message| {
        if id != 0 {
            message.number("id", id.into());
        }
        match reply {
            Reply::Error(error) => message.object("error", |body| client_error(*error, body)),
            Reply::Connect(result) => message.object("connect", |body| connect_result(result, body)),
            Reply::Subscribe(result) => message.object("subscribe", |body| subscribe_result(result, body)),
            Reply::Unsubscribe => message.object("unsubscribe", |_| Ok(())),
            Reply::Publish => message.object("publish", |_| Ok(())),
            Reply::Presence(clients) => message.object("presence", |body| presence(clients, body)),
            Reply::PresenceStats { clients, users } => message.object("presence_stats", |body| {
                body.number("num_clients", (*clients).into());
                body.number("num_users", (*users).into());
                Ok(())
            }),
            Reply::History { publications, top } => message.object("history", |body| {
                body.list("publications", publications, publication)?;
                body.text("epoch", &top.epoch);
                body.number("offset", top.offset);
                Ok(())
            }),
            Reply::Rpc(data) => message.object("rpc", |body| body.payload("data", data)),
            Reply::Refresh(expires) => message.object("refresh", |body| expiry(*expires, body)),
            Reply::SubRefresh(expires) => message.object("sub_refresh", |body| expiry(*expires, body)),
        }
    })
}

/// Appends one push within a reply. On failure nothing is appended.
pub fn push(push: &Push, out: &mut Vec<u8>) -> Result<(), InvalidPayload> {
    object(out, |message| message.object("push", |body| push_body(push, body)))
}

/// Appends one push alone. On failure nothing is appended.
pub fn bare_push(push: &Push, out: &mut Vec<u8>) -> Result<(), InvalidPayload> {
    object(out, |message| push_body(push, message))
}

/// Appends a publication push within a reply. On failure nothing is appended.
pub fn publication_push(channel: &ChannelName, datum: &Publication, out: &mut Vec<u8>) -> Result<(), InvalidPayload> {
    object(out, |message| {
        message.object("push", |body| {
            body.text("channel", channel.as_str());
            body.object("pub", |body| publication(datum, body))
        })
    })
}

fn push_body(push: &Push, message: &mut Object<'_>) -> Result<(), InvalidPayload> {
    match push {
        Push::Publication { channel, publication: datum } => {
            message.text("channel", channel.as_str());
            message.object("pub", |body| publication(datum, body))
        }
        Push::Join { channel, info } => {
            message.text("channel", channel.as_str());
            message.object("join", |body| body.object("info", |body| client_info(info, body)))
        }
        Push::Leave { channel, info } => {
            message.text("channel", channel.as_str());
            message.object("leave", |body| body.object("info", |body| client_info(info, body)))
        }
        Push::Unsubscribe { channel, cause } => {
            message.text_if("channel", channel.as_str());
            message.object("unsubscribe", |body| {
                body.number_if("code", cause.code.into());
                body.text_if("reason", &cause.reason);
                Ok(())
            })
        }
        Push::Subscribe { channel, result } => {
            message.text("channel", channel.as_str());
            message.object("subscribe", |body| {
                body.flag("recoverable", result.recoverable);
                position(result.position.as_ref(), body);
                body.flag("positioned", result.positioned);
                body.payload("data", &result.data)
            })
        }
        Push::Connect(result) => message.object("connect", |body| connect_result(result, body)),
        Push::Disconnect(cause) => message.object("disconnect", |body| {
            body.number_if("code", cause.code.into());
            body.text_if("reason", &cause.reason);
            Ok(())
        }),
        Push::Refresh(expires) => message.object("refresh", |body| expiry(*expires, body)),
    }
}

fn client_error(error: ClientError, body: &mut Object<'_>) -> Result<(), InvalidPayload> {
    body.number("code", error.code().into());
    body.text("message", error.message());
    body.flag("temporary", error.temporary());
    Ok(())
}

fn connect_result(result: &ConnectResult, body: &mut Object<'_>) -> Result<(), InvalidPayload> {
    body.text_if("client", &result.client);
    body.text_if("version", result.version);
    expiry(result.expiry, body)?;
    body.payload("data", &result.data)?;
    if !result.subs.is_empty() {
        body.object("subs", |subs| {
            result.subs.iter().try_for_each(|(channel, sub)| subs.object(channel, |body| subscribe_result(sub, body)))
        })?;
    }
    body.number_if("ping", result.ping.into());
    body.flag("pong", result.pong);
    body.text_if("session", &result.session);
    body.text_if("node", &result.node);
    if let Some(time) = result.time {
        body.signed("time", time);
    }
    Ok(())
}

fn subscribe_result(result: &SubscribeResult, body: &mut Object<'_>) -> Result<(), InvalidPayload> {
    expiry(result.expiry, body)?;
    body.flag("recoverable", result.recoverable);
    if let Some(position) = &result.position {
        body.text_if("epoch", &position.epoch);
    }
    if !result.publications.is_empty() {
        body.list("publications", &result.publications, publication)?;
    }
    body.flag("recovered", result.recovered);
    if let Some(position) = &result.position {
        body.number_if("offset", position.offset);
    }
    body.flag("positioned", result.positioned);
    body.payload("data", &result.data)?;
    body.flag("was_recovering", result.was_recovering);
    body.flag("delta", result.delta);
    Ok(())
}

fn presence(clients: &BTreeMap<String, ClientInfo>, body: &mut Object<'_>) -> Result<(), InvalidPayload> {
    body.object("presence", |entries| {
        clients.iter().try_for_each(|(client, info)| entries.object(client, |body| client_info(info, body)))
    })
}

fn publication(publication: &Publication, body: &mut Object<'_>) -> Result<(), InvalidPayload> {
    match publication.form {
        Form::Plain => body.payload("data", &publication.data)?,
        Form::Whole => body.text("data", utf8(&publication.data)?),
        Form::Patch => body.text("data", utf8(&publication.data)?),
    }
    if let Some(info) = &publication.info {
        body.object("info", |body| client_info(info, body))?;
    }
    if let Some(position) = &publication.position {
        body.number_if("offset", position.offset);
    }
    if !publication.tags.is_empty() {
        body.object("tags", |tags| {
            publication.tags.iter().for_each(|(name, value)| tags.text(name, value));
            Ok(())
        })?;
    }
    if publication.form == Form::Patch {
        body.flag("delta", true);
    }
    // Only the first publication of a stream tells its epoch: a client that subscribed before it learns it there. Client
    // protocol: not in the delta encoding.
    if let Some(position) = &publication.position
        && position.offset == 1
        && publication.form == Form::Plain
    {
        body.text_if("epoch", &position.epoch);
    }
    Ok(())
}

fn utf8(payload: &[u8]) -> Result<&str, InvalidPayload> {
    str::from_utf8(payload).map_err(|_| InvalidPayload)
}

fn client_info(info: &ClientInfo, body: &mut Object<'_>) -> Result<(), InvalidPayload> {
    body.text("user", &info.user);
    body.text("client", &info.client);
    body.payload("conn_info", &info.conn_info)?;
    body.payload("chan_info", &info.chan_info)
}

fn position(position: Option<&StreamPosition>, body: &mut Object<'_>) {
    if let Some(position) = position {
        body.text_if("epoch", &position.epoch);
        body.number_if("offset", position.offset);
    }
}

fn expiry(expiry: Expiry, body: &mut Object<'_>) -> Result<(), InvalidPayload> {
    if let Some(ttl) = expiry.0 {
        body.flag("expires", true);
        body.number_if("ttl", ttl.into());
    }
    Ok(())
}

/// Writes one top-level object; takes it back if a payload in it cannot be written.
fn object(
    out: &mut Vec<u8>,
    members: impl FnOnce(&mut Object<'_>) -> Result<(), InvalidPayload>,
) -> Result<(), InvalidPayload> {
    let start = out.len();
    out.push(b'{');
    let result = members(&mut Object { out, first: true });
    if result.is_ok() {
        out.push(b'}');
    } else {
        out.truncate(start);
    }
    result
}

/// Members of one JSON object, written in order.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl Object<'_> {
    fn name(&mut self, name: &str) {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        string(name, self.out);
        self.out.push(b':');
    }

    fn object(
        &mut self,
        name: &str,
        members: impl FnOnce(&mut Object<'_>) -> Result<(), InvalidPayload>,
    ) -> Result<(), InvalidPayload> {
        self.name(name);
        object(self.out, members)
    }

    fn list<T>(
        &mut self,
        name: &str,
        elements: &[T],
        members: impl Fn(&T, &mut Object<'_>) -> Result<(), InvalidPayload>,
    ) -> Result<(), InvalidPayload> {
        self.name(name);
        self.out.push(b'[');
        for (index, element) in elements.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            object(self.out, |body| members(element, body))?;
        }
        self.out.push(b']');
        Ok(())
    }

    fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        string(value, self.out);
    }

    /// Leaves an empty text out, like all `_if`.
    fn text_if(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.text(name, value);
        }
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        display(value, self.out);
    }

    fn number_if(&mut self, name: &str, value: u64) {
        if value != 0 {
            self.number(name, value);
        }
    }

    fn signed(&mut self, name: &str, value: i64) {
        self.name(name);
        display(value, self.out);
    }

    /// False is left out.
    fn flag(&mut self, name: &str, value: bool) {
        if value {
            self.name(name);
            self.out.extend_from_slice(b"true");
        }
    }

    /// Embeds a payload as it is, without its newlines, which separate messages. An empty one is left out.
    ///
    /// What is written is checked, not what was given: so does the reference server, for which a string broken by a
    /// newline is a string without it. The check needs no stack however deep the payload is nested.
    fn payload(&mut self, name: &str, payload: &[u8]) -> Result<(), InvalidPayload> {
        if payload.is_empty() {
            return Ok(());
        }
        self.name(name);
        let start = self.out.len();
        for line in payload.split(|byte| *byte == b'\n') {
            self.out.extend_from_slice(line);
        }
        let text = str::from_utf8(&self.out[start..]).map_err(|_| InvalidPayload)?;
        serde_json::from_str::<IgnoredAny>(text).map(|_| ()).map_err(|_| InvalidPayload)
    }
}

fn string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a text always serializes into memory");
}

fn display(number: impl serde::Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(out, &number).expect("a number always serializes into memory");
}
