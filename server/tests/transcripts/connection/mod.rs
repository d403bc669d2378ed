//! Client connections of every kind behind one queue.
//!
//! A connection is read by a task of its own from the moment it is open, also while other steps are played.

pub(crate) mod grpc;
pub(crate) mod inbox;
mod outgoing;
mod stream;
mod websocket;

use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::{
    sync::mpsc::{self, UnboundedSender},
    task::JoinHandle,
};
use tonic::{Request, Status};

use self::{
    inbox::{Heard, Inbox, Queue},
    outgoing::{ConnectMessage, Outgoing, Route},
    websocket::{Event, Messages, Upgrade, handshake},
};
use crate::{
    delta::Tracker,
    http1::{Headers, headers_of, target},
    json::{Json, Object},
    message::{PUSH, REPLY, Schema, UNI_SERVICE},
    scenario::{Close, Open, Query, Send, Transport},
    server::Listeners,
    socket::Socket,
};

pub(crate) struct Connection {
    pub(crate) name: String,
    pub(crate) queue: Queue,
    /// Whether a `close` step was played.
    pub(crate) left: bool,
    connect: Arc<ConnectMessage>,
    /// Nothing after the connection was cut off.
    outgoing: Option<Arc<Outgoing>>,
    socket: Option<Socket>,
    reader: Option<JoinHandle<()>>,
}

/// A connection that is being opened.
struct Opening<'a> {
    args: &'a Open,
    port: u16,
    schema: Arc<Schema>,
    heard: UnboundedSender<Heard>,
}

/// What came of it: the record of the step, and the parts of the connection.
struct Opened {
    recorded: Object,
    outgoing: Arc<Outgoing>,
    socket: Option<Socket>,
    reader: Option<JoinHandle<()>>,
}

impl Connection {
    /// Opens a connection; gives what is recorded besides.
    pub(crate) async fn open(args: &Open, listeners: &Listeners, schema: Arc<Schema>) -> Result<(Self, Object)> {
        let (heard, queue) = mpsc::unbounded_channel();
        let port = match args.kind {
            Transport::UniGrpc => listeners.uni_grpc().context("uni_grpc is not enabled")?,
            _ => listeners.http(),
        };
        let opening = Opening { args, port, schema, heard };
        let opened = match args.kind {
            Transport::Websocket | Transport::UniWebsocket => opening.websocket().await?,
            Transport::HttpStream | Transport::Sse | Transport::UniHttpStream | Transport::UniSse => {
                opening.stream().await?
            }
            Transport::UniGrpc => opening.grpc()?,
        };
        let connection = Self {
            name: args.client.clone(),
            queue: Queue { heard: queue, closed: None },
            left: false,
            connect: opened.outgoing.connect.clone(),
            outgoing: Some(opened.outgoing),
            socket: opened.socket,
            reader: opened.reader,
        };
        Ok((connection, opened.recorded))
    }

    pub(crate) async fn send(&self, step: &Send) -> Result<Option<Object>> {
        self.outgoing.as_ref().context("this connection was cut off")?.send(step).await
    }

    /// A text member of the connect message of the server; empty if there is none.
    pub(crate) fn connect_member(&self, name: &str) -> String {
        self.connect.member(name)
    }

    /// Sends a Close frame and goes on reading, or cuts the connection off.
    pub(crate) async fn leave(&mut self, step: &Close) {
        self.left = true;
        match &self.outgoing {
            Some(outgoing) if !step.abort && matches!(outgoing.route, Route::WebSocket(_)) => {
                outgoing.close_frame(&[&step.code.to_be_bytes(), step.reason.as_bytes()].concat()).await;
            }
            Some(_) | None => self.cut().await,
        }
    }

    async fn cut(&mut self) {
        if let Some(socket) = self.socket.take() {
            socket.reset_on_drop();
        }
        if let Some(reader) = self.reader.take() {
            reader.abort();
            // Its end of the connection must be gone, too.
            let _ = reader.await;
        }
        // So must the end that sends.
        self.outgoing = None;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

impl Opening<'_> {
    fn is_protobuf(&self) -> bool {
        self.args.kind == Transport::UniGrpc || self.args.protocol.as_deref() == Some("protobuf")
    }

    fn path(&self) -> String {
        let default = || format!("/connection/{}", self.args.kind.name());
        self.args.path.clone().unwrap_or_else(default)
    }

    fn headers(&self) -> Headers {
        let mut headers = headers_of(&self.args.headers);
        headers.extend(self.args.origin.iter().map(|origin| ("Origin".to_owned(), origin.clone())));
        headers
    }

    fn outgoing(&self, route: Route) -> Arc<Outgoing> {
        let (protobuf, schema) = (self.is_protobuf(), self.schema.clone());
        Arc::new(Outgoing { route, protobuf, schema, connect: Default::default() })
    }

    fn inbox(&self, message_type: &str, outgoing: Arc<Outgoing>) -> Inbox {
        let channels = self.args.delta.names().iter().cloned();
        Inbox {
            heard: self.heard.clone(),
            schema: self.schema.clone(),
            message_type: message_type.to_owned(),
            answers_pings: self.args.auto_pong && !self.args.kind.is_unidirectional(),
            trackers: channels.map(|channel| Tracker::new(channel, !self.is_protobuf())).collect(),
            outgoing,
        }
    }

    fn message_type(&self) -> &'static str {
        if self.args.kind.is_unidirectional() { PUSH } else { REPLY }
    }

    async fn websocket(self) -> Result<Opened> {
        let mut headers = self.headers();
        let has_query = match &self.args.query {
            None => false,
            Some(Query::Text(text)) => !text.is_empty(),
            Some(Query::Form(form)) => !form.is_empty(),
        };
        let asks_for_protobuf = self.is_protobuf() && !has_query && !self.args.kind.is_unidirectional();
        let default = if asks_for_protobuf { vec!["centrifuge-protobuf".to_owned()] } else { Vec::new() };
        let subprotocols = self.args.subprotocols.clone().unwrap_or(default);
        if !subprotocols.is_empty() {
            headers.push(("Sec-WebSocket-Protocol".to_owned(), subprotocols.join(", ")));
        }
        let nulls = self.args.headers.iter().filter(|(_, value)| **value == Json::Null);
        let left_out: Vec<_> = nulls.map(|(name, _)| name.to_owned()).collect();

        let target = target(&self.path(), self.args.query.as_ref());
        let Upgrade { response, opened } = handshake(self.port, &target, headers, &left_out).await?;
        let mut recorded = Object::default();
        recorded.insert("status", Json::int(response.status));
        let Some((messages, socket)) = opened else {
            recorded.insert("body", response.shown_body());
            return Ok(Opened { recorded, outgoing: self.outgoing(Route::Nowhere), socket: None, reader: None });
        };
        let shown = response.shown_headers(None);
        if !shown.is_empty() {
            recorded.insert("headers", Json::Object(shown));
        }
        let outgoing = self.outgoing(Route::WebSocket(socket.clone()));
        let inbox = self.inbox(self.message_type(), outgoing.clone());
        let reader = tokio::spawn(read_websocket(messages, inbox, self.is_protobuf()));
        Ok(Opened { recorded, outgoing, socket: Some(socket), reader: Some(reader) })
    }

    fn grpc(self) -> Result<Opened> {
        let method = self.schema.method(UNI_SERVICE, "Consume")?;
        let (request_type, push) = method.context("the stream's method")?;
        let connect = self.args.connect.clone().unwrap_or(Json::object([]));
        let message = self.schema.encode(&request_type, &connect)?;
        let (port, request) = (self.port, grpc::request(message, &self.args.headers)?);
        let outgoing = self.outgoing(Route::Nowhere);
        let inbox = self.inbox(&push, outgoing.clone());
        let reader = tokio::spawn(read_grpc(port, request, inbox));
        let recorded = Object::from_iter([("status".to_owned(), Json::text("stream"))]);
        Ok(Opened { recorded, outgoing, socket: None, reader: Some(reader) })
    }
}

async fn read_websocket(mut messages: Messages, mut inbox: Inbox, protobuf: bool) {
    loop {
        match messages.next().await {
            Event::Text(data) if !protobuf => {
                for line in String::from_utf8_lossy(&data).split('\n') {
                    inbox.json(line).await;
                }
            }
            Event::Binary(mut data) if protobuf => {
                let count = inbox.delimited(&mut data).await;
                if count == 0 || !data.is_empty() {
                    inbox.anomaly(format!("a binary message with {} stray bytes", data.len()));
                }
            }
            Event::Text(_) => inbox.anomaly("a text message on this connection".to_owned()),
            Event::Binary(_) => inbox.anomaly("a binary message on this connection".to_owned()),
            Event::Reserved(opcode) => inbox.anomaly(format!("a message of opcode {opcode}")),
            Event::Ping(payload) => {
                inbox.control_frame("$frame_ping", &payload);
                inbox.outgoing.pong_frame(&payload).await;
            }
            Event::Pong(payload) => inbox.control_frame("$frame_pong", &payload),
            Event::Closed(code, reason) => {
                // 1005 stands for a Close frame without a code; an answer after our own Close frame does no harm.
                let payload = if code == 1005 { Vec::new() } else { code.to_be_bytes().to_vec() };
                inbox.outgoing.close_frame(&payload).await;
                return inbox.ended(Json::object([("code", Json::int(code)), ("reason", Json::Text(reason))]));
            }
            Event::Lost => return inbox.ended(Json::object([("no_close_frame", Json::Bool(true))])),
        }
    }
}

/// Makes the call, too: a server may answer it together with the first message.
async fn read_grpc(port: u16, request: Request<Bytes>, mut inbox: Inbox) {
    let status = match grpc::Stream::open(port, &format!("/{UNI_SERVICE}/Consume"), request).await {
        Ok(mut stream) => loop {
            match stream.next().await {
                Ok(message) => inbox.protobuf(&message).await,
                Err(status) => break status,
            }
        },
        Err(e) => Status::unavailable(format!("{e:#}")),
    };
    let (code, details) = (Json::Text(grpc::code_name(&status)), Json::text(status.message()));
    inbox.ended(Json::object([("grpc_status", code), ("details", details)]));
}
