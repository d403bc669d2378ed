//! WebSocket frames of a server, RFC 6455, without any input or output.
//!
//! [`Reader`] takes what was read from a socket and gives messages; the functions of this room write frames. The reader
//! of an idle connection is one pointer: whole frames are unmasked and handed out where they lie in the buffer that all
//! connections of a thread read into, and only what is incomplete is copied aside. A frame from server to client is
//! not masked, so a [`shared_frame`] is encoded once and written to every subscriber.

use std::borrow::Cow;

mod mask;
mod reader;
mod writer;

pub use mask::unmask;
pub use reader::{Reader, Rules};
pub use writer::{
    OpenFrame, close_frame, deflated_frame, frame, ping_frame, pong_frame, shared_deflated_frame, shared_frame,
};

/// Type of a data message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Opcode 1.
    Text,
    /// Opcode 2.
    Binary,
}

/// Something that the peer sent, complete.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'b> {
    /// A message, put together from its fragments.
    Message {
        /// What the peer called it. The reference server does not look at it.
        kind: Kind,
        /// Whether `payload` must be inflated, see [`Inflater`](crate::wire::deflate::Inflater). The text of such a
        /// message was not checked.
        deflated: bool,
        /// At most [`Rules::message_size_limit`] bytes.
        payload: Cow<'b, [u8]>,
    },
    /// Must be answered by a [`pong_frame`] of the same payload, at most 125 bytes.
    Ping(Cow<'b, [u8]>),
    /// An answer to a ping, or unasked. Nothing is due.
    Pong,
    /// The peer closes; the code is one that a peer may send. A [`close_frame`] of the same code and without a reason
    /// is due, unless one was sent already. Nothing that follows counts.
    Close {
        /// Absent when the frame had no body.
        code: Option<u16>,
        /// Text beside the code.
        reason: String,
    },
}

/// Why a connection must be failed: the Close frame that is due. The reader must not be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Code of the Close frame.
    pub code: u16,
    /// Text beside it, may be empty.
    pub reason: &'static str,
}

impl Violation {
    /// A message is longer than allowed. The reference server gives no reason.
    pub const TOO_LARGE: Self = Self { code: 1009, reason: "" };
    /// A text is not UTF-8.
    pub const NOT_UTF8: Self = Self { code: 1007, reason: "text is not UTF-8" };
    /// A compressed message cannot be inflated.
    pub const NOT_DEFLATED: Self = Self { code: 1007, reason: "message is not deflated" };

    const fn protocol(reason: &'static str) -> Self {
        Self { code: 1002, reason }
    }
}

#[cfg(test)]
mod tests;
