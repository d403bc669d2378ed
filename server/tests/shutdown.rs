//! SIGTERM: nobody new is let in, clients are told to reconnect elsewhere, the process ends with 0 whatever they do.

mod support;

use serde_json::json;
use support::{Client, Event, Protocol, Server, http::Call, soon, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const GONE: (u16, &str) = (3001, "shutdown");

fn gone() -> Event {
    Event::closed(GONE.0, GONE.1)
}

#[tokio::test]
async fn clients_are_told_to_reconnect_and_the_process_ends_with_0() {
    let mut server = Server::start(json!({})).await;
    let mut clients = Vec::new();
    for protocol in [Protocol::Json, Protocol::Protobuf] {
        // With and without a subscription, and without even a connect.
        let mut subscribed = server.dial().protocol(protocol).connect().await;
        subscribed.subscribe("news").await;
        clients.extend([subscribed, server.dial().protocol(protocol).connect().await]);
        clients.push(server.dial().protocol(protocol).open().await);
    }
    server.counts("starling_connections", 6.0).await;
    server.terminate();
    for client in &mut clients {
        assert_eq!(client.event().await, gone());
    }
    for client in clients {
        client.close().await;
    }
    assert_eq!(server.ended().await, Some(0));
}

#[tokio::test]
async fn more_clients_than_fit_a_batch_are_all_told() {
    let mut server = Server::start(json!({})).await;
    let mut clients = Vec::new();
    // More than two batches of 256 on each of two workers.
    for _ in 0..1_100 {
        clients.push(server.dial().connect().await);
    }
    server.terminate();
    for mut client in clients {
        assert_eq!(client.event().await, gone());
        client.close().await;
    }
    assert_eq!(server.ended().await, Some(0));
}

#[tokio::test]
async fn what_was_published_before_is_delivered_before_the_close_frame() {
    let mut server = Server::start(json!({})).await;
    let mut client = server.dial().connect().await;
    client.subscribe("news").await;
    for number in 0..100 {
        server.publish("news", json!(number)).await;
    }
    server.terminate();
    for number in 0..100 {
        assert_eq!(client.publication().await.1, number.to_string());
    }
    assert_eq!(client.event().await, gone());
    client.close().await;
    assert_eq!(server.ended().await, Some(0));
}

/// Connected and silent: its Close frame never comes.
async fn silent(server: &Server) -> Client {
    server.dial().connect().await
}

#[tokio::test]
async fn nobody_is_let_in_while_the_last_clients_are_waited_for() {
    let mut server = Server::start(json!({})).await;
    let silent = silent(&server).await;
    let mut told = server.dial().connect().await;
    server.terminate();
    assert_eq!(told.event().await, gone());
    // The silent client keeps the process for as long as a Close frame is waited for.
    until("an end of accepting", async || server.dial().handshake().await.is_err()).await;
    assert!(TcpStream::connect(server.address()).await.is_err(), "the port is closed");
    assert_eq!(server.ended().await, Some(0));
    drop(silent);
}

#[tokio::test]
async fn a_client_that_never_answers_the_close_frame_does_not_keep_the_process() {
    let mut server = Server::start(json!({})).await;
    let mut silent = silent(&server).await;
    server.terminate();
    assert_eq!(server.ended().await, Some(0));
    assert_eq!(silent.event().await, gone());
}

#[tokio::test]
async fn a_client_that_reads_nothing_does_not_keep_the_process() {
    let mut server = Server::start(json!({ "websocket": { "write_timeout": "10m" } })).await;
    let mut deaf = server.dial().receive_buffer(4096).connect().await;
    deaf.subscribe("news").await;
    let large = "x".repeat(100_000);
    until("a backlog", async || {
        server.publish("news", json!(large)).await;
        server.metrics().await.sum("starling_backlog_bytes") > 0.0
    })
    .await;
    server.terminate();
    assert_eq!(server.ended().await, Some(0));
}

#[tokio::test]
async fn connections_that_never_send_a_request_do_not_keep_the_process() {
    let mut server = Server::start(json!({})).await;
    let mut idle = TcpStream::connect(server.address()).await.unwrap();
    let mut kept_alive = TcpStream::connect(server.address()).await.unwrap();
    kept_alive.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    soon("an answer", kept_alive.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let mut half = TcpStream::connect(server.address()).await.unwrap();
    half.write_all(b"GET /health HTTP/1.1\r\n").await.unwrap();
    server.terminate();
    assert_eq!(server.ended().await, Some(0));
    for mut socket in [&mut idle, &mut kept_alive, &mut half] {
        // The end, by whatever way it is said.
        let _ = soon("the end", (&mut socket).read_to_end(&mut Vec::new())).await;
    }
}

#[tokio::test]
async fn a_request_under_way_is_answered() {
    let mut server = Server::start(json!({})).await;
    let silent = silent(&server).await;
    let body = json!({ "channel": "news", "data": "late" }).to_string();
    let mut request = TcpStream::connect(server.address()).await.unwrap();
    let head = format!(
        "POST /api/publish HTTP/1.1\r\nhost: localhost\r\nx-api-key: {}\r\ncontent-length: {}\r\n\r\n",
        support::API_KEY,
        body.len()
    );
    request.write_all(head.as_bytes()).await.unwrap();
    request.write_all(&body.as_bytes()[..5]).await.unwrap();
    // The server works on it when it has answered another request that came later.
    assert_eq!(Call::get(server.port, "/health").send().await.status, 200);
    server.terminate();
    until("an end of accepting", async || TcpStream::connect(server.address()).await.is_err()).await;
    request.write_all(&body.as_bytes()[5..]).await.unwrap();
    let mut answer = Vec::new();
    soon("an answer", request.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(server.ended().await, Some(0));
    drop(silent);
}

#[tokio::test]
async fn a_second_signal_cuts_the_rest_at_once() {
    let (mut patient, mut cut) = (Server::start(json!({})).await, Server::start(json!({})).await);
    let waited_for = [silent(&patient).await, silent(&cut).await];
    for server in [&patient, &cut] {
        server.terminate();
        server.says("draining").await;
    }
    cut.terminate();
    // Both have a client whose Close frame would be waited for.
    tokio::select! {
        biased;
        code = cut.ended() => assert_eq!(code, Some(1), "not everyone was waited for"),
        code = patient.ended() => panic!("{code:?}: the other was to be cut"),
    }
    assert_eq!(patient.ended().await, Some(0));
    drop(waited_for);
}

#[tokio::test]
async fn a_drain_that_takes_longer_than_allowed_is_cut() {
    let mut patient = Server::start(json!({})).await;
    let mut cut = Server::start(json!({ "shutdown": { "timeout": "100ms" } })).await;
    let waited_for = [silent(&patient).await, silent(&cut).await];
    patient.terminate();
    cut.terminate();
    tokio::select! {
        biased;
        code = cut.ended() => assert_eq!(code, Some(1), "not everyone was waited for"),
        code = patient.ended() => panic!("{code:?}: the other was to be cut"),
    }
    assert_eq!(patient.ended().await, Some(0));
    drop(waited_for);
}
