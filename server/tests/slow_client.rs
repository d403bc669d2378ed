//! Clients that do not take what they are sent: they are disconnected, nobody else notices, and nothing of them stays.

mod support;

use serde_json::{Value, json};
use support::{
    Client, Event, Protocol, Server, soon,
    tls::{Pair, Trust},
    until,
};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

const BOUND: usize = 100_000;

/// Bytes of one publication, about; what the kernel takes for a deaf client is many of them.
const SIZE: usize = 10_000;

/// A server whose clients may be this much behind, and as long as they like.
async fn patient(bound: usize) -> Server {
    Server::start(json!({
        "client": { "queue_max_size": bound },
        "websocket": { "write_timeout": "10m" },
    }))
    .await
}

/// A client that does not read from now on.
async fn deaf(server: &Server, protocol: Protocol) -> Client {
    let mut client = server.dial().protocol(protocol).receive_buffer(4096).connect().await;
    client.subscribe("news").await;
    client
}

fn numbered(number: u64, size: usize) -> Value {
    json!({ "number": number, "filler": "x".repeat(size) })
}

fn number(data: &[u8]) -> u64 {
    serde_json::from_slice::<Value>(data).unwrap()["number"].as_u64().unwrap()
}

/// Publishes numbered publications until something holds; answers how many.
async fn publish_until(server: &Server, size: usize, holds: impl AsyncFn() -> bool) -> u64 {
    let mut count = 0;
    until("an effect of publications", async || {
        for _ in 0..(10 * SIZE / size).max(1) {
            server.publish("news", numbered(count, size)).await;
            count += 1;
        }
        holds().await
    })
    .await;
    count
}

async fn disconnects(server: &Server, code: u16) -> f64 {
    server.metrics().await.sum(&format!("centrifugo_client_num_server_disconnects{{code=\"{code}\"}}"))
}

/// A client that reads all the time: the numbers it got up to the text "end", and itself.
fn reader(mut client: Client) -> JoinHandle<(Vec<u64>, Client)> {
    tokio::spawn(async move {
        let mut numbers = Vec::new();
        loop {
            match client.publication().await.1 {
                data if data == "\"end\"" => return (numbers, client),
                data => numbers.push(number(&data)),
            }
        }
    })
}

async fn readers(server: &Server) -> Vec<JoinHandle<(Vec<u64>, Client)>> {
    let mut readers = Vec::new();
    for protocol in [Protocol::Json, Protocol::Protobuf, Protocol::Json] {
        let mut client = server.dial().protocol(protocol).connect().await;
        client.subscribe("news").await;
        readers.push(reader(client));
    }
    readers
}

/// Ends the readers; fails unless each got all `count` publications in order.
async fn got_everything(server: &Server, readers: Vec<JoinHandle<(Vec<u64>, Client)>>, count: u64) {
    server.publish("news", json!("end")).await;
    for reader in readers {
        let (numbers, client) = soon("the end of a reader", reader).await.unwrap();
        assert_eq!(numbers, (0..count).collect::<Vec<_>>());
        client.close().await;
    }
}

/// Fails unless nothing of any client stays.
async fn nothing_is_left(server: &Server) {
    until("the end of all clients", async || server.metrics().await.sum("starling_connections") == 0.0).await;
    assert_eq!(server.metrics().await.left_over(), []);
}

/// Reads what a client was sent before it was cut off; fails if it is not the first publications in order.
async fn read_to_the_end(client: &mut Client) -> Event {
    let mut expected = 0;
    loop {
        match client.event().await {
            Event::Publication { data, .. } => {
                assert_eq!(number(&data), expected);
                expected += 1;
            }
            event @ (Event::Closed { .. } | Event::Lost) => return event,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn who_reads_nothing_is_disconnected_as_slow_and_others_get_everything_in_order() {
    for protocol in [Protocol::Json, Protocol::Protobuf] {
        let server = patient(BOUND).await;
        let readers = readers(&server).await;
        let mut deaf = deaf(&server, protocol).await;
        let count = publish_until(&server, SIZE, async || disconnects(&server, 3008).await == 1.0).await;
        assert_eq!(read_to_the_end(&mut deaf).await, Event::closed(3008, "slow"));
        deaf.close().await;
        got_everything(&server, readers, count).await;
        nothing_is_left(&server).await;
    }
}

#[tokio::test]
async fn a_slow_client_over_tls_is_sent_whole_records_and_the_code() {
    let pair = Pair::new();
    let folder = tempfile::TempDir::new().unwrap();
    pair.write(folder.path());
    let internal_port = support::free_port();
    let tls = json!({
        "enabled": true,
        "cert_pem": folder.path().join("cert.pem"),
        "key_pem": folder.path().join("key.pem"),
    });
    let config = json!({
        "client": { "queue_max_size": BOUND },
        "websocket": { "write_timeout": "10m" },
        "http_server": { "internal_port": internal_port, "tls": tls, "tls_external": true },
    });
    let server = Server::start_in(folder, config).await.with_internal_port(internal_port);
    let mut deaf = server.dial().tls(&Trust::in_any_of(&[&pair])).receive_buffer(4096).connect().await;
    deaf.subscribe("news").await;
    publish_until(&server, SIZE, async || disconnects(&server, 3008).await == 1.0).await;
    assert_eq!(read_to_the_end(&mut deaf).await, Event::closed(3008, "slow"));
    deaf.close().await;
    nothing_is_left(&server).await;
}

#[tokio::test]
async fn the_backlog_of_a_slow_client_stays_within_its_bound() {
    let server = patient(BOUND).await;
    let _deaf = deaf(&server, Protocol::Json).await;
    let most = std::cell::Cell::new(0.0_f64);
    publish_until(&server, SIZE, async || {
        let metrics = server.metrics().await;
        most.set(most.get().max(metrics.sum("starling_backlog_bytes")));
        metrics.sum("centrifugo_client_num_server_disconnects{code=\"3008\"}") == 1.0
    })
    .await;
    assert!((1.0..=BOUND as f64).contains(&most.get()), "{}", most.get());
}

#[tokio::test]
async fn many_deaf_clients_do_not_hold_up_one_that_reads() {
    let server = patient(BOUND).await;
    let readers = readers(&server).await;
    let mut all = Vec::new();
    for _ in 0..20 {
        all.push(deaf(&server, Protocol::Json).await);
    }
    let count = publish_until(&server, SIZE, async || disconnects(&server, 3008).await == 20.0).await;
    drop(all);
    got_everything(&server, readers, count).await;
    nothing_is_left(&server).await;
}

#[tokio::test]
async fn who_takes_nothing_for_the_write_timeout_is_cut_off() {
    let config = json!({ "client": { "queue_max_size": 1_000_000_000 }, "websocket": { "write_timeout": "1s" } });
    let server = Server::start(config).await;
    let readers = readers(&server).await;
    let mut deaf = deaf(&server, Protocol::Json).await;
    let backlog = async || server.metrics().await.sum("starling_backlog_bytes") > 0.0;
    let count = publish_until(&server, SIZE, backlog).await;
    until("the write timeout", async || disconnects(&server, 3009).await == 1.0).await;
    // Its socket takes nothing, so there is no way to say why.
    assert_eq!(read_to_the_end(&mut deaf).await, Event::Lost);
    got_everything(&server, readers, count).await;
    nothing_is_left(&server).await;
}

#[tokio::test]
async fn who_reads_slowly_but_reads_is_kept() {
    let config = json!({ "client": { "queue_max_size": 100_000_000 } });
    let server = Server::start(config).await;
    let mut slow = deaf(&server, Protocol::Json).await;
    let backlog = async || server.metrics().await.sum("starling_backlog_bytes") > 0.0;
    let count = publish_until(&server, SIZE, backlog).await;
    for expected in 0..count {
        assert_eq!(number(&slow.publication().await.1), expected);
    }
    server.counts("starling_backlog_bytes", 0.0).await;
    assert_eq!(disconnects(&server, 3008).await + disconnects(&server, 3009).await, 0.0);
    slow.close().await;
    nothing_is_left(&server).await;
}

#[tokio::test]
async fn a_publication_larger_than_the_bound_reaches_who_reads() {
    let server = patient(BOUND).await;
    let mut readers = Vec::new();
    for protocol in [Protocol::Json, Protocol::Protobuf] {
        readers.push(deaf(&server, protocol).await);
    }
    for sent in 0..3 {
        server.publish("news", numbered(sent, 8_000_000)).await;
        for reader in &mut readers {
            assert_eq!(number(&reader.publication().await.1), sent);
        }
    }
    for reader in readers {
        reader.close().await;
    }
    nothing_is_left(&server).await;
}

#[tokio::test]
async fn who_is_cut_off_within_a_large_publication_still_sees_it_whole_and_the_code() {
    let server = patient(BOUND).await;
    let mut deaf = deaf(&server, Protocol::Json).await;
    let slow = async || disconnects(&server, 3008).await == 1.0;
    publish_until(&server, 8_000_000, slow).await;
    assert_eq!(read_to_the_end(&mut deaf).await, Event::closed(3008, "slow"));
    deaf.close().await;
    nothing_is_left(&server).await;
}

#[tokio::test]
async fn who_asks_and_does_not_listen_to_the_replies_is_slow_too() {
    let server = patient(BOUND).await;
    let mut deaf = deaf(&server, Protocol::Json).await;
    let batch = (1..=1_000).map(|id| format!(r#"{{"id":{id},"unsubscribe":{{"channel":"none"}}}}"#));
    let batch = batch.collect::<Vec<_>>().join("\n");
    until("a slow client", async || {
        // It fails when the server has had enough.
        let _ = deaf.try_send(Message::text(batch.clone())).await;
        disconnects(&server, 3008).await == 1.0
    })
    .await;
    assert_eq!(deaf.end().await, Event::closed(3008, "slow"));
    deaf.close().await;
    nothing_is_left(&server).await;
}
