//! Bytes to commands, replies and pushes to bytes, and WebSocket frames.
//!
//! | room | what it knows |
//! |---|---|
//! | [`json`], [`protobuf`] | one encoding each: a command from bytes, a reply or push into bytes |
//! | [`websocket`] | frames: messages from bytes, frames into bytes |
//! | [`handshake`], [`deflate`] | how a WebSocket connection begins, and its compression |
//! | this file | how several of them share one message, and the choice between the two encodings |
//!
//! Nothing here knows of connections or sockets. A message is what one WebSocket message, one HTTP body or one
//! `data` of an emulation request carries: any number of commands one way, any number of replies and pushes the other.

use std::{borrow::Cow, fmt};

use crate::{
    broker::Publication,
    names::ChannelName,
    session::protocol::{Command, ConnectRequest, Protocol, Push, Reply},
};

pub mod deflate;
pub mod handshake;
pub mod json;
pub mod protobuf;
pub mod websocket;

/// A message of a client that is not what the protocol allows; the connection ends with
/// [`BAD_REQUEST`](crate::error::Disconnect::BAD_REQUEST).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(Cow<'static, str>);

impl Malformed {
    fn new(reason: &'static str) -> Self {
        Self(Cow::Borrowed(reason))
    }
}

/// What is wrong, for the log. Never holds anything that the client wrote.
impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

/// A payload that is not JSON would have to be embedded in JSON; the connection ends with
/// [`INAPPROPRIATE_PROTOCOL`](crate::error::Disconnect::INAPPROPRIATE_PROTOCOL). Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPayload;

impl fmt::Display for InvalidPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("payload is not JSON")
    }
}

impl std::error::Error for InvalidPayload {}

/// The commands of one message, decoded one at a time in order.
///
/// The reader may stop after any command, keep a copy of [`rest`](Self::rest) if that is not empty, and go on with
/// `Commands::new(protocol, &rest)` later: it yields what this one would have yielded.
///
/// Client protocol: a message without any command is malformed. In JSON, commands are separated by exactly one newline
/// and one more may follow the last; a blank line is malformed after the commands before it were carried out; what
/// follows a complete value on its line is dropped. In Protobuf each command is preceded by its length as a varint.
///
/// After a [`Malformed`] there is nothing more.
#[derive(Clone, Debug)]
pub struct Commands<'a> {
    protocol: Protocol,
    rest: &'a [u8],
    /// Whether the next step ends the message if nothing is left. At its start an empty message is malformed.
    begun: bool,
}

impl<'a> Commands<'a> {
    /// Reads one whole message, or what [`rest`](Self::rest) gave.
    pub fn new(protocol: Protocol, message: &'a [u8]) -> Self {
        Self { protocol, rest: message, begun: false }
    }

    /// What no command was decoded from yet. Empty once all is read, and after a failure.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl Iterator for Commands<'_> {
    type Item = Result<Command, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() && self.begun {
            return None;
        }
        self.begun = true;
        let command = match self.protocol {
            Protocol::Json => json::next_command(&mut self.rest),
            Protocol::Protobuf => protobuf::next_command(&mut self.rest),
        };
        if command.is_err() {
            self.rest = &[];
        }
        Some(command)
    }
}

/// The commands of one message; see [`Commands`].
pub fn commands(protocol: Protocol, message: &[u8]) -> Commands<'_> {
    Commands::new(protocol, message)
}

/// Reads the bare connect request with which unidirectional transports begin: no command around it, and in Protobuf
/// no length before it. JSON `null` is the empty request.
pub fn connect_request(protocol: Protocol, message: &[u8]) -> Result<ConnectRequest, Malformed> {
    match protocol {
        Protocol::Json => json::connect_request(message),
        Protocol::Protobuf => protobuf::connect_request(message),
    }
}

/// Appends one reply, in Protobuf with its length before it. On failure nothing is appended.
pub fn reply(protocol: Protocol, id: u32, reply: &Reply, out: &mut Vec<u8>) -> Result<(), InvalidPayload> {
    match protocol {
        Protocol::Json => json::reply(id, reply, out),
        Protocol::Protobuf => {
            protobuf::reply(id, reply, out);
            Ok(())
        }
    }
}

/// Appends one push in the form for bidirectional transports, a reply without id. On failure nothing is appended.
pub fn push(protocol: Protocol, push: &Push, out: &mut Vec<u8>) -> Result<(), InvalidPayload> {
    match protocol {
        Protocol::Json => json::push(push, out),
        Protocol::Protobuf => {
            protobuf::push(push, out);
            Ok(())
        }
    }
}

/// Appends one push in the form for unidirectional transports, without a reply around it.
pub fn bare_push(protocol: Protocol, push: &Push, out: &mut Vec<u8>) -> Result<(), InvalidPayload> {
    match protocol {
        Protocol::Json => json::bare_push(push, out),
        Protocol::Protobuf => {
            protobuf::bare_push(push, out);
            Ok(())
        }
    }
}

/// Same as [`push`] with a [`Push::Publication`], without building one. This is the message of the delivery path.
pub fn publication_push(
    protocol: Protocol,
    channel: &ChannelName,
    publication: &Publication,
    out: &mut Vec<u8>,
) -> Result<(), InvalidPayload> {
    match protocol {
        Protocol::Json => json::publication_push(channel, publication, out),
        Protocol::Protobuf => {
            protobuf::publication_push(channel, publication, out);
            Ok(())
        }
    }
}

/// The empty reply, with which the server asks for a [`Pong`](crate::session::protocol::Request::Pong); bidirectional
/// and unidirectional transports alike.
pub fn ping(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Json => b"{}",
        Protocol::Protobuf => &[0],
    }
}

/// Puts several replies and pushes into one message: JSON joined by newlines, Protobuf each behind its length.
///
/// Writes behind what `out` held when the batch was begun.
#[derive(Debug)]
pub struct Batch<'a> {
    protocol: Protocol,
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Batch<'a> {
    /// Begins a message at the end of `out`.
    pub fn new(protocol: Protocol, out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        Self { protocol, out, start }
    }

    /// Whether nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.out.len() == self.start
    }

    /// Adds a reply.
    pub fn reply(&mut self, id: u32, body: &Reply) -> Result<(), InvalidPayload> {
        self.add(|protocol, out| reply(protocol, id, body, out))
    }

    /// Adds a push in the form for bidirectional transports.
    pub fn push(&mut self, body: &Push) -> Result<(), InvalidPayload> {
        self.add(|protocol, out| push(protocol, body, out))
    }

    /// Adds a push in the form for unidirectional transports.
    pub fn bare_push(&mut self, body: &Push) -> Result<(), InvalidPayload> {
        self.add(|protocol, out| bare_push(protocol, body, out))
    }

    /// Adds a ping.
    pub fn ping(&mut self) {
        self.encoded(ping(self.protocol));
    }

    /// Adds a reply or push that was encoded before.
    pub fn encoded(&mut self, message: &[u8]) {
        self.separate();
        self.out.extend_from_slice(message);
    }

    fn add(
        &mut self,
        write: impl FnOnce(Protocol, &mut Vec<u8>) -> Result<(), InvalidPayload>,
    ) -> Result<(), InvalidPayload> {
        let before = self.out.len();
        self.separate();
        write(self.protocol, self.out).inspect_err(|_| self.out.truncate(before))
    }

    fn separate(&mut self) {
        if self.protocol == Protocol::Json && !self.is_empty() {
            self.out.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests;
