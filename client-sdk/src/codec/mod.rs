//! Bytes of frames to messages and back, for both protocols.
//!
//! A frame is the payload of one WebSocket message and holds one message or more. The functions of [`Protocol`] add
//! messages to a frame one by one and take a whole frame apart; both directions are here, so that a scripted server can
//! use the same code.
//!
//! ```text
//! JSON (text frame)         message "\n" message "\n" message
//! Protobuf (binary frame)   length message length message ...       length: varint
//! ```
//!
//! The messages are those of [`starling_proto::client`], with the wire's way of saying "absent" (zero, empty).

mod json;
mod protobuf;

use std::fmt;

use bytes::{Bytes, BytesMut};
use starling_proto::client::{Command, Reply};

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// Text; payloads must be JSON.
    #[default]
    Json,
    /// Binary; payloads are any bytes.
    Protobuf,
}

impl Protocol {
    /// Appends a command to a frame.
    ///
    /// # Errors
    ///
    /// JSON only: a payload is not JSON. The frame is unchanged.
    pub fn encode_command(self, command: Command, frame: &mut BytesMut) -> Result<(), EncodeError> {
        match self {
            Self::Json => json::encode_command(command, frame),
            Self::Protobuf => protobuf::encode(&command, frame),
        }
    }

    /// Appends a reply to a frame. For servers.
    ///
    /// # Errors
    ///
    /// As [`encode_command`](Self::encode_command).
    pub fn encode_reply(self, reply: Reply, frame: &mut BytesMut) -> Result<(), EncodeError> {
        match self {
            Self::Json => json::encode_reply(reply, frame),
            Self::Protobuf => protobuf::encode(&reply, frame),
        }
    }

    /// Takes the replies of a frame apart, in order.
    ///
    /// # Errors
    ///
    /// The frame holds no message, or one that is malformed: then nothing of it is returned, because the peer does not
    /// speak the protocol.
    pub fn decode_replies(self, frame: Bytes) -> Result<Vec<Reply>, DecodeError> {
        match self {
            Self::Json => json::decode_replies(&frame),
            Self::Protobuf => protobuf::decode(frame),
        }
    }

    /// Takes the commands of a frame apart, in order. For servers; stricter than a server has to be.
    ///
    /// # Errors
    ///
    /// As [`decode_replies`](Self::decode_replies).
    pub fn decode_commands(self, frame: Bytes) -> Result<Vec<Command>, DecodeError> {
        match self {
            Self::Json => json::decode_commands(&frame),
            Self::Protobuf => protobuf::decode(frame),
        }
    }

    /// Checks that a payload can travel. An empty one always can: it stands for "none".
    ///
    /// # Errors
    ///
    /// JSON only: the payload is not JSON.
    pub fn check_payload(self, payload: &[u8]) -> Result<(), EncodeError> {
        match self {
            Self::Json if !payload.is_empty() => json::check_payload(payload),
            Self::Json | Self::Protobuf => Ok(()),
        }
    }
}

/// A message could not be written, because of a payload that is not JSON; in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeError(String);

/// A frame could not be read; in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError(String);

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EncodeError {}
impl std::error::Error for DecodeError {}

#[cfg(test)]
mod tests;
