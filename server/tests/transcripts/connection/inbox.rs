//! What a connection receives, in one queue: messages in their recorded form, pings, and at last how it ended.

use std::sync::Arc;

use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender},
    time::{Instant, timeout_at},
};

use super::outgoing::Outgoing;
use crate::{
    delta::Tracker,
    json::{Json, Object},
    message::{self, Schema, parse_json, show_payload},
};

/// One thing that came.
pub(crate) enum Heard {
    Message(Json),
    /// An empty message.
    Ping,
    /// A WebSocket ping or pong frame.
    ControlFrame(Json),
    Ended(Json),
}

/// The filling end, owned by the task that reads the connection.
pub(crate) struct Inbox {
    pub(super) heard: UnboundedSender<Heard>,
    pub(super) schema: Arc<Schema>,
    /// The Protobuf message that one message of this connection is.
    pub(super) message_type: String,
    /// Whether a ping is answered at once when the connect reply asks for it.
    pub(super) answers_pings: bool,
    pub(super) trackers: Vec<Tracker>,
    pub(super) outgoing: Arc<Outgoing>,
}

impl Inbox {
    pub(super) async fn json(&mut self, text: &str) {
        match parse_json(text) {
            Ok(value) => self.message(value).await,
            Err(_) => self.anomaly(format!("not JSON: {text}")),
        }
    }

    pub(super) async fn protobuf(&mut self, bytes: &[u8]) {
        match self.schema.decode(&self.message_type, bytes) {
            Ok(value) => self.message(value).await,
            Err(e) => self.anomaly(format!("not a message: {e:#}")),
        }
    }

    /// Messages of one piece of a stream; what is left in `bytes` is the beginning of another one.
    pub(super) async fn delimited(&mut self, bytes: &mut Vec<u8>) -> usize {
        let messages = message::take_delimited(bytes);
        for message in &messages {
            self.protobuf(message).await;
        }
        messages.len()
    }

    async fn message(&mut self, mut value: Json) {
        if value == Json::Object(Object::default()) {
            self.tell(Heard::Ping);
            if self.answers_pings && self.outgoing.connect.wants_pongs() {
                // That the connection is gone will be read from it.
                let _ = self.outgoing.pong().await;
            }
            return;
        }
        if let Some(object) = value.as_object_mut() {
            if let Some(connect) = object.get("connect").and_then(Json::as_object) {
                self.outgoing.connect.set(connect.clone());
            }
            for tracker in &mut self.trackers {
                tracker.message(object);
            }
        }
        self.tell(Heard::Message(value));
    }

    /// Something that fits no message.
    pub(super) fn anomaly(&self, text: String) {
        self.tell(Heard::Message(Json::object([("$anomaly", Json::Text(text))])));
    }

    pub(super) fn control_frame(&self, name: &str, payload: &[u8]) {
        let shown = if payload.is_empty() { Json::text("") } else { show_payload(payload) };
        self.tell(Heard::ControlFrame(Json::object([(name, shown)])));
    }

    pub(super) fn ended(&self, how: Json) {
        self.tell(Heard::Ended(how));
    }

    fn tell(&self, heard: Heard) {
        // Nobody listens any more when the run is over.
        let _ = self.heard.send(heard);
    }
}

/// Which things count as messages, and how many are wanted (all without a number).
#[derive(Clone, Copy, Default)]
pub(crate) struct Wanted {
    pub(crate) messages: Option<usize>,
    pub(crate) pings: bool,
    pub(crate) control_frames: bool,
}

/// The taking end, with how the connection ended if that was taken.
pub(crate) struct Queue {
    pub(super) heard: UnboundedReceiver<Heard>,
    pub(crate) closed: Option<Json>,
}

impl Queue {
    /// Messages until as many came, the time is over, or the connection ended. What has come already is taken even when
    /// the time is over.
    pub(crate) async fn take(&mut self, wanted: Wanted, deadline: Instant) -> Vec<Json> {
        let mut taken = Vec::new();
        while self.closed.is_none() && wanted.messages.is_none_or(|count| taken.len() < count) {
            let heard = match self.heard.try_recv() {
                Ok(heard) => heard,
                Err(_) => match timeout_at(deadline, self.heard.recv()).await {
                    Ok(Some(heard)) => heard,
                    Ok(None) | Err(_) => break,
                },
            };
            match heard {
                Heard::Message(message) => taken.push(message),
                Heard::Ping if wanted.pings => taken.push(Json::object([])),
                Heard::ControlFrame(frame) if wanted.control_frames => taken.push(frame),
                Heard::Ping | Heard::ControlFrame(_) => {}
                Heard::Ended(how) => self.closed = Some(how),
            }
        }
        taken
    }
}
