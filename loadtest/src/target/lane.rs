//! A lane: one connection that publishes, whichever protocol it speaks, without its socket.
//!
//! The driver owns the socket and does three things: it moves [`Wire::output`] to the socket, it hands what arrives to
//! [`Wire::handle`], and it publishes while there is [`Wire::room`].

use std::collections::HashMap;

use super::Endpoint;
use super::centrifuge::{CONNECT_ID, Command, Message};
use super::grpc::GrpcWire;
use super::http::HttpWire;
use super::speech::Speech;
use crate::websocket::{self, FrameReader, Handshake, Incoming};

/// How publications reach the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// `POST /api/publish`.
    Http,
    /// `CentrifugoApi.Publish`, unary.
    Grpc,
    /// The `publish` command of a client connection.
    Websocket,
}

/// The server's word on one publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The number the publication was given to [`Wire::publish`] with.
    pub ticket: u64,
    /// `Err` holds the server's reason in words.
    pub outcome: Result<(), String>,
}

/// The protocol half of a lane.
#[derive(Debug)]
pub enum Wire {
    /// HTTP API.
    Http(HttpWire),
    /// gRPC API.
    Grpc(GrpcWire),
    /// Client connection.
    WebSocket(WebSocketWire),
}

impl Wire {
    /// True when publications may be sent; false while a handshake is under way.
    pub fn ready(&self) -> bool {
        match self {
            Wire::Http(_) | Wire::Grpc(_) => true,
            Wire::WebSocket(wire) => wire.stage == Stage::Ready,
        }
    }

    /// How many more publications the protocol lets be in flight now.
    pub fn room(&self) -> usize {
        match self {
            Wire::Http(_) => usize::MAX,
            Wire::Grpc(wire) => wire.room(),
            Wire::WebSocket(wire) if wire.stage == Stage::Ready => usize::MAX,
            Wire::WebSocket(_) => 0,
        }
    }

    /// How many publications wait for their answer.
    pub fn in_flight(&self) -> usize {
        match self {
            Wire::Http(wire) => wire.in_flight(),
            Wire::Grpc(wire) => wire.in_flight(),
            Wire::WebSocket(wire) => wire.waiting.len() + wire.unanswerable.len(),
        }
    }

    /// Queues one publication for sending. `data` is JSON without newlines.
    pub fn publish(&mut self, ticket: u64, channel: &str, data: &[u8]) {
        match self {
            Wire::Http(wire) => wire.publish(ticket, channel, data),
            Wire::Grpc(wire) => wire.publish(ticket, channel, data),
            Wire::WebSocket(wire) => wire.publish(ticket, channel, data),
        }
    }

    /// Bytes to send; the driver removes what it has sent.
    pub fn output(&mut self) -> &mut Vec<u8> {
        match self {
            Wire::Http(wire) => wire.output(),
            Wire::Grpc(wire) => wire.output(),
            Wire::WebSocket(wire) => &mut wire.output,
        }
    }

    /// Everything queued has been handed to the socket: publications that are never answered count as accepted.
    pub fn sent(&mut self, answers: &mut Vec<Answer>) {
        if let Wire::WebSocket(wire) = self {
            let accepted = wire.unanswerable.drain(..).map(|ticket| Answer { ticket, outcome: Ok(()) });
            answers.extend(accepted);
        }
    }

    /// Takes received bytes; appends the answers they complete.
    ///
    /// # Errors
    ///
    /// In words, when the peer broke the protocol or closed: nothing more can be done with this connection.
    pub fn handle(&mut self, bytes: &[u8], answers: &mut Vec<Answer>) -> Result<(), String> {
        match self {
            Wire::Http(wire) => wire.handle(bytes, answers),
            Wire::Grpc(wire) => wire.handle(bytes, answers),
            Wire::WebSocket(wire) => wire.handle(bytes, answers),
        }
    }
}

/// A client connection that only publishes.
#[derive(Debug)]
pub struct WebSocketWire {
    stage: Stage,
    handshake: Handshake,
    head: Vec<u8>,
    speech: Speech,
    token: String,
    frames: FrameReader,
    output: Vec<u8>,
    command: Vec<u8>,
    last_id: u32,
    waiting: HashMap<u32, u64>,
    /// Publications that nobody answers and that have not been sent completely.
    unanswerable: Vec<u64>,
    pongs: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Upgrading,
    Connecting,
    Ready,
}

impl WebSocketWire {
    /// Begins the handshake; an empty `token` connects anonymously.
    pub fn new(endpoint: &Endpoint, speech: Speech, token: String) -> Self {
        let handshake = Handshake::new();
        WebSocketWire {
            stage: Stage::Upgrading,
            output: handshake.request(&endpoint.host, &endpoint.path, speech.subprotocol()),
            handshake,
            head: Vec::new(),
            speech,
            token,
            frames: FrameReader::default(),
            command: Vec::new(),
            last_id: CONNECT_ID,
            waiting: HashMap::new(),
            unanswerable: Vec::new(),
            pongs: false,
        }
    }

    fn publish(&mut self, ticket: u64, channel: &str, data: &[u8]) {
        if !self.speech.answers_publications() {
            self.unanswerable.push(ticket);
            return self.send(0, Command::Publish { channel, data });
        }
        self.last_id = self.last_id.checked_add(1).unwrap_or(CONNECT_ID + 1);
        self.waiting.insert(self.last_id, ticket);
        self.send(self.last_id, Command::Publish { channel, data });
    }

    fn send(&mut self, id: u32, command: Command<'_>) {
        self.command.clear();
        self.speech.write(&mut self.command, id, command);
        websocket::write_frame(&mut self.output, self.speech.frame_kind(), &self.command, Some(rand::random()));
    }

    fn handle(&mut self, bytes: &[u8], answers: &mut Vec<Answer>) -> Result<(), String> {
        if self.stage != Stage::Upgrading {
            return self.handle_frames(bytes, answers);
        }
        self.head.extend_from_slice(bytes);
        let Some(end) = self.handshake.response(&self.head).map_err(|violation| violation.to_string())? else {
            return Ok(());
        };
        let rest = self.head.split_off(end);
        if self.speech.introduces_itself() {
            self.stage = Stage::Connecting;
            let token = std::mem::take(&mut self.token);
            self.send(CONNECT_ID, Command::Connect { token: &token });
        } else {
            self.stage = Stage::Ready;
        }
        self.handle_frames(&rest, answers)
    }

    fn handle_frames(&mut self, bytes: &[u8], answers: &mut Vec<Answer>) -> Result<(), String> {
        let mut replies = Vec::new();
        let mut pongs = Vec::new();
        let mut closed = None;
        let speech = self.speech;
        let read = self.frames.read(bytes, |incoming| match incoming {
            Incoming::Message(frame) => speech.read(
                frame,
                |_| 0,
                |message| match message {
                    Message::Answer { id, wants_pong, error } => replies.push((id, wants_pong, error)),
                    Message::Ping => replies.push((0, false, None)),
                    Message::Unreadable => closed = Some("unreadable message".to_owned()),
                    Message::Publication { .. }
                    | Message::Subscribed { .. }
                    | Message::Unsubscribed { .. }
                    | Message::Other => {}
                },
            ),
            Incoming::Ping(payload) => pongs.push(payload.to_vec()),
            Incoming::Close(code, reason) => closed = Some(format!("closed by the server: {code:?} {reason}")),
        });
        read.map_err(|violation| violation.to_string())?;
        for payload in pongs {
            websocket::write_frame(&mut self.output, websocket::Kind::Pong, &payload, Some(rand::random()));
        }
        for (id, wants_pong, error) in replies {
            match (id, error) {
                (0, _) if self.pongs => self.send(0, Command::Pong),
                (0, _) => {}
                (CONNECT_ID, Some((code, text))) => return Err(format!("connect refused: error {code}, {text}")),
                (CONNECT_ID, None) => {
                    self.pongs = wants_pong;
                    self.stage = Stage::Ready;
                }
                (id, error) => {
                    let Some(ticket) = self.waiting.remove(&id) else { continue };
                    let outcome = error.map_or(Ok(()), |(code, text)| Err(format!("error {code}, {text}")));
                    answers.push(Answer { ticket, outcome });
                }
            }
        }
        closed.map_or(Ok(()), Err)
    }
}
