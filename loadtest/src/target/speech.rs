//! What is spoken on a subscriber's or publisher's WebSocket: one vocabulary of commands and messages for every protocol.

use std::borrow::Cow;

use super::centrifuge::{self, CONNECT_ID, Command, Encoding, Message};
use super::socket_io;

/// A protocol on a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// The client protocol: connect, then subscribe.
    Centrifuge(Encoding),
    /// Socket.IO (Engine.IO 4, WebSocket only), with the events of [`socket_io`].
    SocketIo,
    /// No protocol: every message is a payload, and the server sends it to everybody.
    Plain,
    /// Nothing: the reference server sends publications of the client protocol to whoever completed the handshake.
    Silence(Encoding),
}

impl Speech {
    /// The subprotocol to offer in the WebSocket handshake.
    pub fn subprotocol(self) -> Option<&'static str> {
        match self {
            Speech::Centrifuge(encoding) | Speech::Silence(encoding) => encoding.subprotocol(),
            Speech::SocketIo | Speech::Plain => None,
        }
    }

    /// The WebSocket message kind of commands.
    pub fn frame_kind(self) -> crate::websocket::Kind {
        match self {
            Speech::Centrifuge(encoding) | Speech::Silence(encoding) => encoding.frame_kind(),
            Speech::SocketIo | Speech::Plain => crate::websocket::Kind::Text,
        }
    }

    /// True when a client says who it is and what it wants before anything comes.
    pub fn introduces_itself(self) -> bool {
        match self {
            Speech::Centrifuge(_) | Speech::SocketIo => true,
            Speech::Plain | Speech::Silence(_) => false,
        }
    }

    /// True when a publication is answered; else it counts as accepted once it is sent.
    pub fn answers_publications(self) -> bool {
        self != Speech::Plain
    }

    /// True when several commands may share a frame.
    pub fn packs_commands(self) -> bool {
        matches!(self, Speech::Centrifuge(_))
    }

    /// Appends a command to a frame under construction.
    pub fn write(self, out: &mut Vec<u8>, id: u32, command: Command<'_>) {
        match self {
            Speech::Centrifuge(encoding) | Speech::Silence(encoding) => {
                centrifuge::write_command(out, encoding, id, command);
            }
            Speech::SocketIo => socket_io::write_packet(out, id, command),
            Speech::Plain => {
                if let Command::Publish { data, .. } = command {
                    out.extend_from_slice(data);
                }
            }
        }
    }

    /// Reads all messages of one frame. `payload_bytes` tells the expected length of published data by its beginning. A
    /// protocol without channels gives publications an empty channel name.
    pub fn read<'a>(
        self,
        frame: &'a [u8],
        payload_bytes: impl Fn(&[u8]) -> usize + Copy,
        mut visit: impl FnMut(Message<'a>),
    ) {
        match self {
            Speech::Centrifuge(encoding) | Speech::Silence(encoding) => {
                centrifuge::read_frame(encoding, frame, payload_bytes, visit);
            }
            Speech::SocketIo => visit(socket_io::read_packet(frame, payload_bytes)),
            // Servers without a protocol like to greet; only what looks like a payload is one.
            Speech::Plain if frame.starts_with(b"{\"r\":\"") => {
                visit(Message::Publication { channel: Cow::Borrowed(""), data: frame, offset: None });
            }
            Speech::Plain => visit(Message::Other),
        }
    }
}

/// The answer to the first command of a connection, for protocols whose own answer carries no id.
pub(super) fn connected(wants_pong: bool) -> Message<'static> {
    Message::Answer { id: CONNECT_ID, wants_pong, error: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_server_may_greet_and_everything_that_looks_like_a_payload_is_one() {
        let read = |frame: &'static [u8]| {
            let mut messages = Vec::new();
            Speech::Plain.read(frame, |_| 0, |message| messages.push(message));
            messages
        };
        assert_eq!(read(b"welcome"), [Message::Other]);
        let data = b"{\"r\":\"x\"}";
        assert_eq!(read(data), [Message::Publication { channel: Cow::Borrowed(""), data, offset: None }]);
    }
}
