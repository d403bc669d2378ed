//! The client against a scripted server on a real socket.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt;
use starling_client::{
    Client, ClientConfig, ConnectionEvent, ConnectionState, Error, Limits, Protocol, Recovery, StreamPosition,
    SubscribeOptions, Subscribed, SubscriptionEvent, TokenError, TokenSource, codes,
};
use starling_proto::client::{
    self, ConnectResult, Publication, PublishResult, Reply, RpcResult, SubscribeResult, UnsubscribeResult,
};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn a_client_connects_subscribes_publishes_and_receives_over_both_protocols() {
    for protocol in [Protocol::Json, Protocol::Protobuf] {
        let peer = Peer::listen(protocol).await;
        let (client, mut connection) = connected(&peer).await;
        assert!(matches!(client.state(), ConnectionState::Connected(connected) if connected.client == "c1"));

        let mut news = client.subscribe("news", SubscribeOptions::default()).await.unwrap();
        connection.accept_subscribe(positioned("e", 0)).await;
        let expected = Subscribed {
            recovery: Recovery::First,
            position: Some(StreamPosition { epoch: "e".to_owned(), offset: 0 }),
            recoverable: true,
            positioned: true,
            data: None,
        };
        assert_eq!(within(news.next()).await, Some(SubscriptionEvent::Subscribed(expected)));

        let publishing = tokio::spawn({
            let client = client.clone();
            async move { client.publish("news", "1").await }
        });
        let command = connection.command().await;
        assert_eq!(command.publish.unwrap().data, "1");
        connection
            .replies([
                pushed("news", publication(1)),
                Reply { id: command.id, publish: Some(PublishResult {}), ..Reply::default() },
                Reply::default(),
            ])
            .await;
        assert_eq!(next_offset(&mut news).await, 1);
        assert_eq!(news.position(), Some(&StreamPosition { epoch: "e".to_owned(), offset: 1 }));
        within(publishing).await.unwrap().unwrap();
        assert_eq!(connection.command().await, client::Command::default(), "the pong");

        news.unsubscribe().await;
        let command = connection.command().await;
        assert_eq!(command.unsubscribe.unwrap().channel, "news");
        connection.reply(Reply { id: command.id, unsubscribe: Some(UnsubscribeResult {}), ..Reply::default() }).await;
        assert!(matches!(
            within(news.next()).await,
            Some(SubscriptionEvent::Unsubscribed { code: codes::unsubscribed::UNSUBSCRIBE_CALLED, .. })
        ));
        assert_eq!(within(news.next()).await, None);

        let (_, code) = tokio::join!(within(client.disconnect()), connection.closed());
        assert_eq!(code, Some(1000));
    }
}

#[tokio::test]
async fn a_broken_connection_is_replaced_and_what_was_missed_comes_before_what_is_new() {
    let peer = Peer::listen(Protocol::Json).await;
    let (client, mut connection) = connected(&peer).await;
    let mut events = client.events();
    let mut news = client.subscribe("news", SubscribeOptions::default()).await.unwrap();
    connection.accept_subscribe(positioned("e", 3)).await;
    connection.reply(pushed("news", publication(4))).await;
    within(news.next()).await;
    assert_eq!(next_offset(&mut news).await, 4);

    // Twice: by a code of the server, and by a connection that just ends.
    connection.close(3001, "shutdown").await;
    let mut connection = peer.greet().await;
    let mut recovered = SubscribeResult { recovered: true, was_recovering: true, ..positioned("e", 4) };
    recovered.publications = vec![publication(5), publication(6)];
    let request = connection.accept_subscribe(recovered).await;
    assert_eq!((request.recover, request.epoch.as_str(), request.offset), (true, "e", 4));
    connection.reply(pushed("news", publication(7))).await;
    let subscribing = within(news.next()).await;
    assert!(matches!(subscribing, Some(SubscriptionEvent::Subscribing { .. })), "{subscribing:?}");
    let subscribed = within(news.next()).await;
    let Some(SubscriptionEvent::Subscribed(Subscribed { recovery: Recovery::Complete, .. })) = subscribed else {
        panic!("{subscribed:?}")
    };
    assert_eq!([next_offset(&mut news).await, next_offset(&mut news).await, next_offset(&mut news).await], [5, 6, 7]);

    drop(connection);
    let mut connection = peer.greet().await;
    let request = connection.accept_subscribe(SubscribeResult { was_recovering: true, ..positioned("f", 1) }).await;
    assert_eq!((request.recover, request.epoch.as_str(), request.offset), (true, "e", 7));
    within(news.next()).await;
    let subscribed = within(news.next()).await;
    let Some(SubscriptionEvent::Subscribed(Subscribed { recovery: Recovery::Incomplete, .. })) = subscribed else {
        panic!("{subscribed:?}")
    };
    assert_eq!(news.position(), Some(&StreamPosition { epoch: "f".to_owned(), offset: 1 }));

    let mut told = Vec::new();
    for _ in 0..6 {
        told.push(match next_change(&mut events).await.unwrap() {
            ConnectionEvent::Connecting { code, .. } => format!("connecting {code}"),
            ConnectionEvent::Connected(_) => "connected".to_owned(),
            other => format!("{other:?}"),
        });
    }
    let expected = ["connecting 0", "connected", "connecting 3001", "connected", "connecting 1", "connected"];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_terminal_code_ends_subscriptions_calls_and_the_client() {
    let peer = Peer::listen(Protocol::Json).await;
    let (client, mut connection) = connected(&peer).await;
    let mut events = client.events();
    let mut news = client.subscribe("news", SubscribeOptions::default()).await.unwrap();
    connection.accept_subscribe(positioned("e", 0)).await;
    within(news.next()).await;
    let calling = tokio::spawn({
        let client = client.clone();
        async move { client.rpc("method", "").await }
    });
    assert!(connection.command().await.rpc.is_some());
    connection.close(3503, "force disconnect").await;

    let error = Error::Disconnected { code: 3503, reason: "force disconnect".to_owned() };
    assert_eq!(within(calling).await.unwrap(), Err(error.clone()));
    let ended = within(news.next()).await;
    assert!(
        matches!(&ended, Some(SubscriptionEvent::Unsubscribed { code: codes::unsubscribed::CLIENT_CLOSED, .. })),
        "{ended:?}"
    );
    assert_eq!(within(news.next()).await, None);
    assert_eq!(within(client.ready()).await, Err(error.clone()));
    assert_eq!(within(client.publish("news", "1")).await, Err(error.clone()));
    assert_eq!(within(client.subscribe("news", SubscribeOptions::default())).await.unwrap_err(), error);
    let last = last_event(&mut events).await;
    assert!(matches!(&last, Some(ConnectionEvent::Disconnected { code: 3503, .. })), "{last:?}");
    within(client.disconnect()).await;
    within(client.reconnect_now()).await;
}

#[tokio::test]
async fn an_expired_token_is_replaced_by_one_of_the_source() {
    let peer = Peer::listen(Protocol::Json).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let source = TokenSource::new({
        let asked = asked.clone();
        move || {
            let asked = asked.clone();
            async move { Ok(format!("new-{}", asked.fetch_add(1, Ordering::SeqCst))) }
        }
    });
    let config = ClientConfig { token: Some("old".to_owned()), token_source: Some(source), ..peer.config() };
    let client = Client::connect(config).unwrap();
    let mut connection = peer.accept().await;
    let command = connection.command().await;
    assert_eq!(command.connect.unwrap().token, "old");
    let error = client::Error { code: 109, message: "token expired".to_owned(), temporary: false };
    connection.reply(Reply { id: command.id, error: Some(error), ..Reply::default() }).await;

    let mut connection = peer.accept().await;
    let command = connection.command().await;
    assert_eq!(command.connect.unwrap().token, "new-0");
    connection.accept_connect(command.id).await;
    within(client.ready()).await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_token_source_that_refuses_disconnects_for_good() {
    let peer = Peer::listen(Protocol::Json).await;
    let source = TokenSource::new(|| async { Err(TokenError::Unauthorized) });
    let client = Client::connect(ClientConfig { token_source: Some(source), ..peer.config() }).unwrap();
    let error = within(client.ready()).await.unwrap_err();
    assert_eq!(error.code(), Some(codes::disconnected::UNAUTHORIZED));
}

#[tokio::test]
async fn a_reader_that_does_not_read_slows_the_server_and_loses_nothing() {
    const PUBLICATIONS: u64 = 12_000;
    // Room for what the kernel holds on both sides of a loopback connection.
    const KERNEL_BYTES: usize = 16 << 20;
    let payload = Bytes::from(vec![b'x'; 8 << 10]);
    assert!(payload.len() * PUBLICATIONS as usize > 4 * KERNEL_BYTES, "or nothing would be shown");

    let peer = Peer::listen(Protocol::Protobuf).await;
    let limits = Limits { subscription_events: 2, ..Limits::default() };
    let client = Client::connect(ClientConfig { limits, ..peer.config() }).unwrap();
    let mut connection = peer.greet().await;
    let mut news = client.subscribe("news", SubscribeOptions::default()).await.unwrap();
    connection.accept_subscribe(positioned("e", 0)).await;

    let sent = Arc::new(AtomicU64::new(0));
    let sending = tokio::spawn({
        let (sent, payload) = (sent.clone(), payload.clone());
        async move {
            for offset in 1..=PUBLICATIONS {
                let publication = Publication { data: payload.clone(), ..publication(offset) };
                connection.reply(pushed("news", publication)).await;
                sent.store(offset, Ordering::SeqCst);
            }
            connection
        }
    });
    within(news.next()).await;
    for offset in 1..=PUBLICATIONS {
        assert_eq!(next_offset(&mut news).await, offset);
        let ahead = sent.load(Ordering::SeqCst).saturating_sub(offset) as usize * payload.len();
        assert!(ahead < KERNEL_BYTES, "the client holds {ahead} bytes");
    }
    within(sending).await.unwrap();
}

#[tokio::test]
async fn a_blocked_reader_does_not_keep_the_client_from_disconnecting_and_gets_its_events_later() {
    let peer = Peer::listen(Protocol::Json).await;
    let limits = Limits { subscription_events: 1, ..Limits::default() };
    let client = Client::connect(ClientConfig { limits, ..peer.config() }).unwrap();
    let mut connection = peer.greet().await;
    let mut news = client.subscribe("news", SubscribeOptions::default()).await.unwrap();
    let subscribe = connection.command().await.id;
    let subscribed = Reply { id: subscribe, subscribe: Some(positioned("e", 0)), ..Reply::default() };
    connection.replies([subscribed, pushed("news", publication(1)), pushed("news", publication(2))]).await;
    // All came in one frame, so after the first event the second is in the queue and the third waits.
    assert!(matches!(within(news.next()).await, Some(SubscriptionEvent::Subscribed(_))));
    within(client.disconnect()).await;
    assert_eq!(connection.closed().await, Some(1000));
    drop(client);
    assert_eq!(next_offset(&mut news).await, 1);
    let mut rest = Vec::new();
    while let Some(event) = within(news.next()).await {
        rest.push(event);
    }
    assert!(matches!(rest.last(), Some(SubscriptionEvent::Unsubscribed { .. })), "{rest:?}");
}

#[tokio::test]
async fn dropping_a_subscription_unsubscribes_and_the_channel_can_be_had_again() {
    let peer = Peer::listen(Protocol::Json).await;
    let (client, mut connection) = connected(&peer).await;
    let news = client.subscribe("news", SubscribeOptions::default()).await.unwrap();
    connection.accept_subscribe(positioned("e", 0)).await;
    assert_eq!(client.subscribe("news", SubscribeOptions::default()).await.unwrap_err(), Error::AlreadySubscribed);
    drop(news);
    let mut again = client.subscribe("news", SubscribeOptions::default()).await.unwrap();
    let command = connection.command().await;
    assert_eq!(command.unsubscribe.unwrap().channel, "news");
    connection.reply(Reply { id: command.id, unsubscribe: Some(UnsubscribeResult {}), ..Reply::default() }).await;
    connection.accept_subscribe(positioned("e", 5)).await;
    assert!(matches!(within(again.next()).await, Some(SubscriptionEvent::Subscribed(_))));
}

#[tokio::test]
async fn the_connection_lives_as_long_as_the_last_handle() {
    let peer = Peer::listen(Protocol::Json).await;
    let (client, mut connection) = connected(&peer).await;
    let mut news = client.subscribe("news", SubscribeOptions::default()).await.unwrap();
    drop(client);
    connection.accept_subscribe(positioned("e", 0)).await;
    connection.reply(pushed("news", publication(1))).await;
    within(news.next()).await;
    assert_eq!(next_offset(&mut news).await, 1);
    drop(news);
    assert_eq!(connection.closed().await, Some(1000));
}

#[tokio::test]
async fn calls_that_are_made_together_share_frames_of_bounded_size() {
    let peer = Peer::listen(Protocol::Json).await;
    let client = Client::connect(peer.config()).unwrap();
    let mut connection = peer.accept().await;
    let payload = format!("\"{}\"", "x".repeat(1000));
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let (client, payload) = (client.clone(), payload.clone());
            tokio::spawn(async move { client.publish("news", payload).await })
        })
        .collect();
    // They wait for the connection, and are sent when it is there.
    let connect = connection.command().await;
    connection.accept_connect(connect.id).await;
    let (mut frames, mut commands) = (0, 0);
    while commands < calls.len() {
        let frame = connection.frame().await.unwrap();
        assert!(frame.len() <= 16 << 10, "{}", frame.len());
        frames += 1;
        for command in Protocol::Json.decode_commands(frame).unwrap() {
            commands += 1;
            connection.reply(Reply { id: command.id, publish: Some(PublishResult {}), ..Reply::default() }).await;
        }
    }
    assert!(frames >= 4);
    for call in calls {
        within(call).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_refused_call_and_a_payload_that_is_not_json_leave_the_connection_alone() {
    let peer = Peer::listen(Protocol::Json).await;
    let (client, mut connection) = connected(&peer).await;
    assert!(matches!(client.publish("news", "{").await, Err(Error::InvalidPayload(_))));
    let options = SubscribeOptions { data: Some(Bytes::from_static(b"x")), ..SubscribeOptions::default() };
    assert!(matches!(client.subscribe("news", options).await, Err(Error::InvalidPayload(_))));
    let (called, ()) = tokio::join!(client.rpc("m", "1"), async {
        let id = connection.command().await.id;
        let error = client::Error { code: 108, message: "not available".to_owned(), temporary: false };
        connection.reply(Reply { id, error: Some(error), ..Reply::default() }).await;
    });
    let refused = Error::Refused { code: 108, message: "not available".to_owned(), temporary: false };
    assert_eq!(called, Err(refused));
    let (called, ()) = tokio::join!(client.rpc("m", "1"), async {
        let id = connection.command().await.id;
        let rpc = Some(RpcResult { data: Bytes::from_static(b"2") });
        connection.reply(Reply { id, rpc, ..Reply::default() }).await;
    });
    assert_eq!(called.unwrap(), "2");
}

#[tokio::test]
async fn what_is_not_of_the_protocol_disconnects_for_good() {
    let frames = [
        (Protocol::Json, Message::text("not json")),
        (Protocol::Json, Message::text("")),
        (Protocol::Json, Message::binary(b"{}".as_slice())),
        (Protocol::Protobuf, Message::binary(vec![0x80])),
        (Protocol::Protobuf, Message::text("{}")),
    ];
    for (protocol, frame) in frames {
        let peer = Peer::listen(protocol).await;
        let (client, mut connection) = connected(&peer).await;
        let mut events = client.events();
        connection.websocket.send(frame).await.unwrap();
        let last = last_event(&mut events).await;
        assert!(
            matches!(&last, Some(ConnectionEvent::Disconnected { code: codes::disconnected::BAD_PROTOCOL, .. })),
            "{last:?}"
        );
    }
}

#[tokio::test]
async fn a_message_over_the_limit_disconnects_for_good() {
    let peer = Peer::listen(Protocol::Json).await;
    let limits = Limits { message_bytes: 1000, ..Limits::default() };
    let client = Client::connect(ClientConfig { limits, ..peer.config() }).unwrap();
    let mut connection = peer.greet().await;
    let publication = Publication { data: Bytes::from("1".repeat(1000)), ..publication(1) };
    connection.reply(pushed("news", publication)).await;
    let mut events = client.events();
    let last = last_event(&mut events).await;
    assert!(
        matches!(&last, Some(ConnectionEvent::Disconnected { code: codes::disconnected::MESSAGE_SIZE_LIMIT, .. })),
        "{last:?}"
    );
}

#[tokio::test]
async fn a_refused_upgrade_is_told_with_status_and_text_and_tried_again() {
    let peer = Peer::listen(Protocol::Json).await;
    let client = Client::connect(peer.config()).unwrap();
    let mut events = client.events();
    let (mut stream, _) = peer.listener.accept().await.unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(within(stream.read_u8()).await.unwrap());
    }
    stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 21\r\n\r\norigin not allowed\nx\n").await.unwrap();
    drop(stream);
    within(events.next()).await;
    let Some(ConnectionEvent::Retrying { error: Error::Transport(why), .. }) = within(events.next()).await else {
        panic!("not told")
    };
    assert_eq!(why, "the server refused the upgrade: HTTP 403 Forbidden: origin not allowed");
    let _connection = peer.greet().await;
    within(client.ready()).await.unwrap();
}

#[tokio::test]
async fn headers_and_the_protocol_are_announced_in_the_upgrade() {
    let peer = Peer::listen(Protocol::Protobuf).await;
    let headers = vec![("Origin".to_owned(), "https://a.example".to_owned())];
    let _client = Client::connect(ClientConfig { headers, ..peer.config() }).unwrap();
    let connection = peer.greet().await;
    assert_eq!(connection.headers["origin"], "https://a.example");
    assert_eq!(connection.headers["sec-websocket-protocol"], "centrifuge-protobuf");

    let peer = Peer::listen(Protocol::Json).await;
    let _client = Client::connect(peer.config()).unwrap();
    assert_eq!(peer.greet().await.headers.get("sec-websocket-protocol"), None);
}

#[tokio::test]
async fn configurations_that_cannot_work_are_refused_at_once() {
    let invalid = |config: ClientConfig| match Client::connect(config) {
        Err(Error::InvalidConfig(why)) => why,
        other => panic!("{other:?}"),
    };
    for url in ["", "localhost:8000", "http://localhost/", "ws://", "ws:///path", "ws://a b/"] {
        invalid(ClientConfig::new(url));
    }
    assert!(invalid(ClientConfig::new("wss://localhost/")).contains("tls"));
    let headers = vec![("bad name".to_owned(), "x".to_owned())];
    invalid(ClientConfig { headers, ..ClientConfig::new("ws://localhost/") });
    let data = Some(Bytes::from_static(b"{"));
    assert!(matches!(
        Client::connect(ClientConfig { data, ..ClientConfig::new("ws://localhost/") }),
        Err(Error::InvalidPayload(_))
    ));
}

#[tokio::test]
async fn a_server_that_falls_silent_is_left_for_another_connection() {
    let peer = Peer::listen(Protocol::Json).await;
    let mut config = peer.config();
    config.timing.max_server_ping_delay = Duration::ZERO;
    let client = Client::connect(config).unwrap();
    let mut events = client.events();
    let mut silent = peer.accept().await;
    let id = silent.command().await.id;
    let connect = Some(ConnectResult { ping: 1, pong: true, ..ConnectResult::default() });
    silent.reply(Reply { id, connect, ..Reply::default() }).await;
    assert!(matches!(next_change(&mut events).await, Some(ConnectionEvent::Connecting { code: 0, .. })));
    assert!(matches!(next_change(&mut events).await, Some(ConnectionEvent::Connected(_))));
    let lost = next_change(&mut events).await;
    assert!(matches!(&lost, Some(ConnectionEvent::Connecting { code: codes::connecting::NO_PING, .. })), "{lost:?}");
    assert_eq!(silent.closed().await, Some(1000));
    peer.greet().await;
}

#[tokio::test]
async fn a_reader_of_events_that_is_too_slow_is_told_how_many_it_missed() {
    let peer = Peer::listen(Protocol::Json).await;
    let limits = Limits { connection_events: 2, ..Limits::default() };
    let client = Client::connect(ClientConfig { limits, ..peer.config() }).unwrap();
    let mut events = client.events();
    for _ in 0..3 {
        peer.greet().await.close(3001, "shutdown").await;
    }
    let connection = peer.greet().await;
    connection.close(3500, "invalid token").await;
    let mut told = Vec::new();
    // It ends only when the client is disconnected, so by then everything has been told.
    within(async {
        let _ = client.ready().await;
        while !matches!(client.state(), ConnectionState::Disconnected { .. }) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    while let Some(event) = within(events.next()).await {
        told.push(event);
    }
    assert!(matches!(told[0], ConnectionEvent::Missed { count } if count >= 6), "{told:?}");
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(matches!(told[2], ConnectionEvent::Disconnected { code: 3500, .. }), "{told:?}");
}

#[tokio::test]
async fn calls_end_in_time_when_the_server_does_not_answer() {
    let peer = Peer::listen(Protocol::Json).await;
    let mut config = peer.config();
    config.timing.command_timeout = Duration::from_millis(20);
    let client = Client::connect(config).unwrap();
    assert_eq!(within(client.publish("news", "1")).await, Err(Error::Timeout), "no connection");
    let connection = peer.greet().await;
    let error = within(client.publish("news", "1")).await.unwrap_err();
    assert!(matches!(error, Error::Timeout | Error::ConnectionLost), "{error:?}");
    drop(connection);
}
