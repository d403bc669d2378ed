//! What a client sends on an open connection: WebSocket frames, or posts to the emulation endpoint.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};

use super::websocket::{BINARY, CLOSE, Frame, PONG, TEXT};
use crate::{
    http1::exchange,
    json::{Json, Object},
    message::{COMMAND, EMULATION_REQUEST, Schema, delimited, varint},
    scenario::{RawFrame, Send},
    socket::Socket,
};

pub(crate) struct Outgoing {
    pub(super) route: Route,
    pub(super) protobuf: bool,
    pub(super) schema: Arc<Schema>,
    pub(super) connect: Arc<ConnectMessage>,
}

/// The connect message of the server, once it came.
#[derive(Default)]
pub(super) struct ConnectMessage(Mutex<Object>);

impl ConnectMessage {
    pub(super) fn set(&self, message: Object) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = message;
    }

    /// Whether the server waits for pongs.
    pub(super) fn wants_pongs(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get("pong") == Some(&Json::Bool(true))
    }

    /// A text member; empty if there is none.
    pub(super) fn member(&self, name: &str) -> String {
        let message = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        message.get(name).and_then(Json::as_str).unwrap_or_default().to_owned()
    }
}

pub(super) enum Route {
    WebSocket(Socket),
    Emulation {
        port: u16,
        path: String,
    },
    /// Unidirectional, or refused.
    Nowhere,
}

impl Outgoing {
    /// What is recorded of a `send` step.
    pub(crate) async fn send(&self, step: &Send) -> Result<Option<Object>> {
        if step.pong {
            self.pong().await?;
            return Ok(None);
        }
        if let Some(frame) = &step.frame {
            return self.frame(frame).await;
        }
        if let Some(text) = &step.text {
            return self.data(text.as_bytes(), self.protobuf).await;
        }
        if let Some(digits) = &step.binary_hex {
            return self.data(&hex(digits)?, true).await;
        }
        let commands = step.commands.as_ref().context("nothing to send")?;
        if self.protobuf {
            let encoded = commands.iter().map(|command| Ok(delimited(&self.schema.encode(COMMAND, command)?)));
            return self.data(&encoded.collect::<Result<Vec<_>>>()?.concat(), true).await;
        }
        let lines: Vec<_> = commands.iter().map(Json::compact).collect();
        self.data(lines.join("\n").as_bytes(), false).await
    }

    /// Records nothing on any kind of connection.
    pub(super) async fn pong(&self) -> Result<()> {
        self.data(if self.protobuf { &[0] } else { b"{}" }, self.protobuf).await?;
        Ok(())
    }

    pub(super) async fn pong_frame(&self, payload: &[u8]) {
        self.write(&Frame::new(PONG, payload)).await;
    }

    /// Sends a Close frame with this payload.
    pub(super) async fn close_frame(&self, payload: &[u8]) {
        self.write(&Frame::new(CLOSE, payload)).await;
    }

    async fn data(&self, data: &[u8], binary: bool) -> Result<Option<Object>> {
        match &self.route {
            Route::WebSocket(_) => {
                self.write(&Frame::new(if binary { BINARY } else { TEXT }, data)).await;
                Ok(None)
            }
            Route::Emulation { port, path } => self.emulate(*port, path, data).await.map(Some),
            Route::Nowhere => bail!("nothing can be sent on this connection"),
        }
    }

    async fn frame(&self, frame: &RawFrame) -> Result<Option<Object>> {
        let payload = match &frame.hex {
            Some(digits) => hex(digits)?,
            None => frame.text.clone().into_bytes(),
        };
        let (opcode, fin, mask, rsv) = (frame.opcode, frame.fin, frame.mask, frame.rsv);
        self.write(&Frame { opcode, payload: &payload, fin, mask, rsv }).await;
        Ok(None)
    }

    /// A connection that is gone shows in what is read from it, so writing to one is no error.
    async fn write(&self, frame: &Frame<'_>) {
        if let Route::WebSocket(socket) = &self.route {
            let _ = socket.write(&frame.encode()).await;
        }
    }

    async fn emulate(&self, port: u16, path: &str, data: &[u8]) -> Result<Object> {
        let address = Json::object([
            ("session", Json::Text(self.connect.member("session"))),
            ("node", Json::Text(self.connect.member("node"))),
        ]);
        let (kind, body) = if self.protobuf {
            // The data is field 3; as JSON it would have to be a payload.
            let head = self.schema.encode(EMULATION_REQUEST, &address)?;
            ("application/octet-stream", [&head, &[0x1a][..], &varint(data.len()), data].concat())
        } else {
            let mut request = address;
            let text = String::from_utf8_lossy(data);
            request.as_object_mut().context("an object")?.insert("data", Json::text(text));
            ("application/json", request.compact().into_bytes())
        };
        let headers = vec![("Content-Type".to_owned(), kind.to_owned())];
        let response = exchange(port, "POST", path, headers, Some(&body)).await?;
        let mut recorded = Object::default();
        recorded.insert("status", Json::int(response.status));
        if !response.body.is_empty() {
            recorded.insert("body", response.shown_body());
        }
        Ok(recorded)
    }
}

fn hex(digits: &str) -> Result<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair)?, 16).context("hexadecimal digits")).collect()
}
