//! A scripted server: it listens on a free port, and each connection does what its test says.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use starling_client::{
    Backoff, Client, ClientConfig, ConnectionEvent, Events, Protocol, Subscription, SubscriptionEvent, Timing,
};
use starling_proto::client::{Command, ConnectResult, Publication, Push, Reply, SubscribeRequest, SubscribeResult};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderMap;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

pub struct Peer {
    pub listener: TcpListener,
    protocol: Protocol,
}

/// One connection of the scripted server.
pub struct Connection<S = TcpStream> {
    pub websocket: WebSocketStream<S>,
    pub headers: HeaderMap,
    protocol: Protocol,
    commands: VecDeque<Command>,
}

impl Peer {
    pub async fn listen(protocol: Protocol) -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), protocol }
    }

    pub fn url(&self) -> String {
        format!("ws://{}/connection/websocket?a=b", self.listener.local_addr().unwrap())
    }

    /// A configuration that connects here and does not wait long between attempts.
    pub fn config(&self) -> ClientConfig {
        let quick = Backoff { min: Duration::from_millis(1), max: Duration::from_millis(5) };
        ClientConfig {
            protocol: self.protocol,
            timing: Timing { reconnect: quick, resubscribe: quick, ..Timing::default() },
            ..ClientConfig::new(self.url())
        }
    }

    pub async fn accept(&self) -> Connection {
        let (stream, _) = within(self.listener.accept()).await.unwrap();
        self.upgrade(stream).await
    }

    pub async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Connection<S> {
        let mut headers = HeaderMap::new();
        #[allow(clippy::result_large_err, reason = "the library's signature")]
        let callback = |request: &Request, mut response: Response| {
            headers = request.headers().clone();
            if let Some(protocol) = headers.get("sec-websocket-protocol") {
                response.headers_mut().insert("sec-websocket-protocol", protocol.clone());
            }
            Ok(response)
        };
        let websocket = within(tokio_tungstenite::accept_hdr_async(stream, callback)).await.unwrap();
        Connection { websocket, headers, protocol: self.protocol, commands: VecDeque::new() }
    }

    /// Accepts a connection and the connect command on it.
    pub async fn greet(&self) -> Connection {
        let mut connection = self.accept().await;
        let connect = connection.command().await;
        assert!(connect.connect.is_some(), "{connect:?}");
        connection.accept_connect(connect.id).await;
        connection
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// The next command; pongs count, too.
    pub async fn command(&mut self) -> Command {
        while self.commands.is_empty() {
            let frame = self.frame().await.expect("the client closed instead of sending a command");
            self.commands.extend(self.protocol.decode_commands(frame).unwrap());
        }
        self.commands.pop_front().unwrap()
    }

    /// The next frame; `None` when the client closes.
    pub async fn frame(&mut self) -> Option<Bytes> {
        match within(self.websocket.next()).await {
            Some(Ok(Message::Text(text))) if self.protocol == Protocol::Json => Some(text.into()),
            Some(Ok(Message::Binary(bytes))) if self.protocol == Protocol::Protobuf => Some(bytes),
            Some(Ok(Message::Close(_)) | Err(_)) | None => None,
            other => panic!("{other:?}"),
        }
    }

    pub async fn reply(&mut self, reply: Reply) {
        self.replies([reply]).await;
    }

    /// Sends replies in one frame.
    pub async fn replies(&mut self, replies: impl IntoIterator<Item = Reply>) {
        let mut frame = BytesMut::new();
        for reply in replies {
            self.protocol.encode_reply(reply, &mut frame).unwrap();
        }
        let message = match self.protocol {
            Protocol::Json => Message::Text(Utf8Bytes::try_from(frame.freeze()).unwrap()),
            Protocol::Protobuf => Message::Binary(frame.freeze()),
        };
        self.websocket.send(message).await.unwrap();
    }

    pub async fn accept_connect(&mut self, id: u32) {
        let connect = ConnectResult {
            client: "c1".to_owned(),
            version: "scripted".to_owned(),
            ping: 25,
            pong: true,
            ..ConnectResult::default()
        };
        self.reply(Reply { id, connect: Some(connect), ..Reply::default() }).await;
    }

    /// Takes a subscribe command and accepts it with this answer. Returns what was asked for.
    pub async fn accept_subscribe(&mut self, result: SubscribeResult) -> SubscribeRequest {
        let command = self.command().await;
        let request = command.subscribe.unwrap_or_else(|| panic!("not a subscribe command"));
        self.reply(Reply { id: command.id, subscribe: Some(result), ..Reply::default() }).await;
        request
    }

    pub async fn close(mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        self.websocket.close(Some(frame)).await.unwrap();
        while within(self.websocket.next()).await.is_some_and(|message| message.is_ok()) {}
    }

    /// Waits for the close frame of the client and returns its code.
    pub async fn closed(&mut self) -> Option<u16> {
        loop {
            match within(self.websocket.next()).await {
                Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// The answer for a recoverable channel.
pub fn positioned(epoch: &str, offset: u64) -> SubscribeResult {
    SubscribeResult {
        recoverable: true,
        positioned: true,
        epoch: epoch.to_owned(),
        offset,
        ..SubscribeResult::default()
    }
}

/// The publication at this offset; its data is the offset.
pub fn publication(offset: u64) -> Publication {
    Publication { data: Bytes::from(offset.to_string()), offset, ..Publication::default() }
}

pub fn pushed(channel: &str, publication: Publication) -> Reply {
    let push = Push { channel: channel.to_owned(), r#pub: Some(publication), ..Push::default() };
    Reply { push: Some(push), ..Reply::default() }
}

/// The offset of the next event, which must be a publication.
pub async fn next_offset(subscription: &mut Subscription) -> u64 {
    match within(subscription.next()).await {
        Some(SubscriptionEvent::Publication(publication)) => publication.offset.expect("an offset"),
        other => panic!("not a publication: {other:?}"),
    }
}

/// The next event that is not about another attempt.
pub async fn next_change(events: &mut Events) -> Option<ConnectionEvent> {
    loop {
        match within(events.next()).await {
            Some(ConnectionEvent::Retrying { .. }) => {}
            event => return event,
        }
    }
}

/// Waits until the client is disconnected and returns what it said last.
pub async fn last_event(events: &mut Events) -> Option<ConnectionEvent> {
    within(async {
        let mut last = None;
        while let Some(event) = events.next().await {
            last = Some(event);
        }
        last
    })
    .await
}

pub async fn connected(peer: &Peer) -> (Client, Connection) {
    let client = Client::connect(peer.config()).unwrap();
    let connection = peer.greet().await;
    within(client.ready()).await.unwrap();
    (client, connection)
}

/// Turns a hanging test into a failing one.
pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("nothing happened for a minute")
}
