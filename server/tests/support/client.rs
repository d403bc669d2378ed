//! A WebSocket client that says what it is told to, right or wrong, and shows all that comes back.

use std::{collections::VecDeque, net::Ipv4Addr};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use serde_json::{Value, json};
use socket2::SockRef;
use starling_proto::client as pb;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpSocket,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message, client::IntoClientRequest, handshake::client::Response},
};

use super::{soon, tls::Trust};

/// Encoding of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Json,
    Protobuf,
}

trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for S {}

/// What a client sees.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A reply, with the code of its error.
    Reply { id: u32, error: Option<u32> },
    /// A push of a publication.
    Publication { channel: String, data: Bytes },
    /// A push that ends a subscription.
    Unsubscribed { channel: String, code: u32 },
    /// A ping of the client protocol that was not answered, because the client is [`mute`](Client::mute).
    Ping,
    /// A WebSocket ping.
    FramePing,
    /// The server's Close frame.
    Closed { code: Option<u16>, reason: String },
    /// The connection ended without one.
    Lost,
}

impl Event {
    pub fn closed(code: u16, reason: &str) -> Self {
        Self::Closed { code: Some(code), reason: reason.to_owned() }
    }
}

/// A connection to be.
#[derive(Clone)]
pub struct Dial {
    port: u16,
    protocol: Protocol,
    receive_buffer: Option<u32>,
    tls: Option<Trust>,
    token: Option<String>,
}

impl Dial {
    pub fn new(port: u16) -> Self {
        Self { port, protocol: Protocol::Json, receive_buffer: None, tls: None, token: None }
    }

    pub fn protocol(self, protocol: Protocol) -> Self {
        Self { protocol, ..self }
    }

    pub fn protobuf(self) -> Self {
        self.protocol(Protocol::Protobuf)
    }

    /// How much the kernel takes for a client that does not read, about.
    pub fn receive_buffer(self, bytes: u32) -> Self {
        Self { receive_buffer: Some(bytes), ..self }
    }

    pub fn tls(self, trust: &Trust) -> Self {
        Self { tls: Some(trust.clone()), ..self }
    }

    /// Connects as this user.
    pub fn user(self, user: &str) -> Self {
        Self { token: Some(super::token(user)), ..self }
    }

    /// A WebSocket connection without an accepted `connect`.
    pub async fn open(&self) -> Client {
        soon("a WebSocket handshake", self.handshake()).await.expect("a WebSocket connection")
    }

    /// The same, if the server lets it in.
    pub async fn handshake(&self) -> tungstenite::Result<Client> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let socket = socket.connect((Ipv4Addr::LOCALHOST, self.port).into()).await?;
        socket.set_nodelay(true)?;
        let raw = SockRef::from(&socket).try_clone()?;
        let socket: Box<dyn Socket> = match &self.tls {
            None => Box::new(socket),
            Some(trust) => Box::new(trust.handshake(socket).await?),
        };
        let scheme = if self.tls.is_some() { "wss" } else { "ws" };
        let mut request = format!("{scheme}://localhost:{}/connection/websocket", self.port).into_client_request()?;
        if self.protocol == Protocol::Protobuf {
            let name = http::HeaderValue::from_static("centrifuge-protobuf");
            request.headers_mut().insert("sec-websocket-protocol", name);
        }
        let (stream, _): (_, Response) = client_async(request, socket).await?;
        Ok(Client { stream, raw, protocol: self.protocol, last_id: 0, seen: VecDeque::new(), mute: false })
    }

    /// A client whose `connect` was accepted.
    pub async fn connect(&self) -> Client {
        let mut client = self.open().await;
        let id = client.send_connect(self.token.as_deref().unwrap_or_default()).await;
        assert_eq!(client.reply(id).await, None, "connect");
        client
    }
}

/// One connection.
pub struct Client {
    stream: WebSocketStream<Box<dyn Socket>>,
    raw: socket2::Socket,
    protocol: Protocol,
    last_id: u32,
    seen: VecDeque<Event>,
    /// Leaves pings unanswered.
    pub mute: bool,
}

impl Client {
    // --- commands

    fn next_id(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }

    async fn command(&mut self, name: &str, body: Value, command: pb::Command) -> u32 {
        let id = self.next_id();
        let message = match self.protocol {
            Protocol::Json => Message::text(json!({ "id": id, name: body }).to_string()),
            Protocol::Protobuf => Message::binary(pb::Command { id, ..command }.encode_length_delimited_to_vec()),
        };
        self.send(message).await;
        id
    }

    pub async fn send_connect(&mut self, token: &str) -> u32 {
        let connect = pb::ConnectRequest { token: token.into(), ..Default::default() };
        let command = pb::Command { connect: Some(connect), ..Default::default() };
        self.command("connect", json!({ "token": token }), command).await
    }

    pub async fn send_subscribe(&mut self, channel: &str) -> u32 {
        let subscribe = pb::SubscribeRequest { channel: channel.into(), ..Default::default() };
        let command = pb::Command { subscribe: Some(subscribe), ..Default::default() };
        self.command("subscribe", json!({ "channel": channel }), command).await
    }

    pub async fn send_unsubscribe(&mut self, channel: &str) -> u32 {
        let unsubscribe = pb::UnsubscribeRequest { channel: channel.into() };
        let command = pb::Command { unsubscribe: Some(unsubscribe), ..Default::default() };
        self.command("unsubscribe", json!({ "channel": channel }), command).await
    }

    pub async fn send_publish(&mut self, channel: &str, data: &[u8]) -> u32 {
        let publish = pb::PublishRequest { channel: channel.into(), data: data.to_vec().into(), ..Default::default() };
        let command = pb::Command { publish: Some(publish), ..Default::default() };
        let json: Value = serde_json::from_slice(data).unwrap_or_default();
        self.command("publish", json!({ "channel": channel, "data": json }), command).await
    }

    /// Subscribes, and waits for the reply.
    pub async fn subscribe(&mut self, channel: &str) {
        let id = self.send_subscribe(channel).await;
        assert_eq!(self.reply(id).await, None, "subscribe to {channel}");
    }

    pub async fn unsubscribe(&mut self, channel: &str) {
        let id = self.send_unsubscribe(channel).await;
        assert_eq!(self.reply(id).await, None, "unsubscribe from {channel}");
    }

    /// Publishes, and waits for the reply.
    pub async fn publish(&mut self, channel: &str, data: &[u8]) {
        let id = self.send_publish(channel, data).await;
        assert_eq!(self.reply(id).await, None, "publish to {channel}");
    }

    /// Sends a message as it is.
    pub async fn send(&mut self, message: Message) {
        self.try_send(message).await.expect("the connection takes a message");
    }

    /// Sends a message that may come too late.
    pub async fn try_send(&mut self, message: Message) -> tungstenite::Result<()> {
        soon("sending", self.stream.send(message)).await
    }

    /// Writes bytes as they are, whatever they mean.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        use tokio::io::AsyncWriteExt;
        let socket = self.stream.get_mut();
        // The server may have had enough before all of it is written.
        let _ = soon("writing", async {
            socket.write_all(bytes).await?;
            socket.flush().await
        })
        .await;
    }

    // --- events

    /// The next event. Pings are answered unless the client is mute.
    pub async fn event(&mut self) -> Event {
        soon("an event", self.next()).await
    }

    async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.seen.pop_front() {
                return event;
            }
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => self.json(text.as_str()),
                Some(Ok(Message::Binary(bytes))) => self.protobuf(bytes),
                Some(Ok(Message::Ping(_))) => self.seen.push_back(Event::FramePing),
                Some(Ok(Message::Close(frame))) => {
                    let code = frame.as_ref().map(|frame| frame.code.into());
                    let reason = frame.map(|frame| frame.reason.as_str().to_owned()).unwrap_or_default();
                    return Event::Closed { code, reason };
                }
                Some(Ok(Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(_)) | None => return Event::Lost,
            }
            if !self.mute {
                self.answer_pings().await;
            }
        }
    }

    async fn answer_pings(&mut self) {
        while let Some(at) = self.seen.iter().position(|event| *event == Event::Ping) {
            self.seen.remove(at);
            let pong = match self.protocol {
                Protocol::Json => Message::text("{}"),
                Protocol::Protobuf => Message::binary(vec![0]),
            };
            // It fails when the server closed meanwhile, which the next event tells.
            let _ = self.stream.send(pong).await;
        }
    }

    fn json(&mut self, text: &str) {
        for line in text.split('\n') {
            let value: Value = serde_json::from_str(line).expect("the server writes JSON");
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
            if let Some(id) = number(&value["id"]) {
                self.seen.push_back(Event::Reply { id, error: number(&value["error"]["code"]) });
                continue;
            }
            let push = &value["push"];
            let channel = text(&push["channel"]);
            self.seen.push_back(if push["pub"].is_object() {
                Event::Publication { channel, data: push["pub"]["data"].to_string().into() }
            } else if push["unsubscribe"].is_object() {
                Event::Unsubscribed { channel, code: number(&push["unsubscribe"]["code"]).unwrap_or_default() }
            } else {
                assert_eq!(line, "{}", "a push that no test asks for");
                Event::Ping
            });
        }
    }

    fn protobuf(&mut self, mut bytes: Bytes) {
        while !bytes.is_empty() {
            let reply = pb::Reply::decode_length_delimited(&mut bytes).expect("the server writes Protobuf");
            if reply.id != 0 {
                self.seen.push_back(Event::Reply { id: reply.id, error: reply.error.map(|error| error.code) });
                continue;
            }
            let Some(pb::Push { channel, r#pub: publication, unsubscribe, .. }) = reply.push else {
                self.seen.push_back(Event::Ping);
                continue;
            };
            self.seen.push_back(match (publication, unsubscribe) {
                (Some(publication), _) => Event::Publication { channel, data: publication.data },
                (None, Some(unsubscribe)) => Event::Unsubscribed { channel, code: unsubscribe.code },
                (None, None) => panic!("a push that no test asks for"),
            });
        }
    }

    /// Reads on, whatever comes, to a WebSocket pong or the end of the connection.
    pub async fn pong_or_end(&mut self) {
        soon("a pong", async {
            while let Some(Ok(message)) = self.stream.next().await {
                if message.is_pong() {
                    return;
                }
            }
        })
        .await;
    }

    /// Waits for the reply to a command; answers the code of its error. What comes before it is seen later.
    pub async fn reply(&mut self, to: u32) -> Option<u32> {
        let mut before = VecDeque::new();
        loop {
            match self.event().await {
                Event::Reply { id, error } if id == to => {
                    before.append(&mut self.seen);
                    self.seen = before;
                    return error;
                }
                event @ (Event::Closed { .. } | Event::Lost) => panic!("{event:?} instead of reply {to}"),
                other => before.push_back(other),
            }
        }
    }

    /// The next event, which is a publication.
    pub async fn publication(&mut self) -> (String, Bytes) {
        match self.event().await {
            Event::Publication { channel, data } => (channel, data),
            other => panic!("{other:?} instead of a publication"),
        }
    }

    /// Reads on, whatever comes, to the end of the connection: its Close frame, or [`Event::Lost`].
    pub async fn end(&mut self) -> Event {
        loop {
            if let event @ (Event::Closed { .. } | Event::Lost) = self.event().await {
                return event;
            }
        }
    }

    // --- ways to leave

    /// The closing handshake.
    pub async fn close(mut self) {
        soon("closing", async {
            // It fails when the server closed first.
            let _ = self.stream.close(None).await;
            while let Some(Ok(_)) = self.stream.next().await {}
        })
        .await;
    }

    /// Ends the TCP connection with a reset.
    pub fn reset(self) {
        // `tokio`'s socket and `raw` are one; the reset goes out when the last of them is dropped.
        self.raw.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }

    /// Says the end of what it will send, and goes on existing.
    pub fn shut_down_writing(&self) {
        self.raw.shutdown(std::net::Shutdown::Write).unwrap();
    }
}
