//! Clients come, do things, and leave in every way there is: nothing of them stays in any map or count.

mod support;

use serde_json::json;
use support::{Client, Dial, Event, Protocol, Server, tls::Pair, tls::Trust, until};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_tungstenite::tungstenite::Message;

/// Waits until no gauge counts anything; fails with the names of those that still do.
async fn nothing_is_left(server: &Server) {
    let mut left = String::new();
    let empty = async {
        until("the end of all clients", async || {
            let metrics = server.metrics().await;
            left = format!("{:?}", metrics.left_over());
            metrics.left_over().is_empty()
        })
        .await;
    };
    assert!(tokio::time::timeout(support::SOON / 2, empty).await.is_ok(), "left over: {left}");
}

/// A client that has done what clients do.
async fn busy(dial: &Dial, number: usize) -> Client {
    let mut client = dial.clone().user(&format!("user-{}", number % 7)).connect().await;
    let own = format!("own-{number}");
    for channel in ["shared", &own, "short"] {
        client.subscribe(channel).await;
    }
    client.unsubscribe("short").await;
    client.publish(&own, b"1").await;
    client
}

async fn wave(dial: &Dial, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for number in 0..count {
        let dial = if number % 2 == 0 { dial.clone() } else { dial.clone().protobuf() };
        clients.push(busy(&dial, number).await);
    }
    clients
}

#[tokio::test]
async fn waves_of_clients_leave_nothing_however_they_go() {
    let server = Server::start(json!({})).await;
    for _ in 0..3 {
        let clients = wave(&server.dial(), 40).await;
        server.counts("starling_connections", 40.0).await;
        server.counts("centrifugo_node_num_clients", 40.0).await;
        server.counts("centrifugo_node_num_users", 7.0).await;
        server.counts("centrifugo_node_num_channels", 41.0).await;
        server.counts("centrifugo_node_num_subscriptions", 80.0).await;
        for (number, client) in clients.into_iter().enumerate() {
            match number % 4 {
                0 => client.close().await,
                1 => client.reset(),
                2 => drop(client),
                _ => {
                    client.shut_down_writing();
                    drop(client);
                }
            }
        }
        nothing_is_left(&server).await;
    }
}

#[tokio::test]
async fn who_is_disconnected_by_the_server_leaves_nothing() {
    let server = Server::start(json!({})).await;
    let mut clients = wave(&server.dial(), 14).await;
    for user in 0..7 {
        server.api("disconnect", json!({ "user": format!("user-{user}") })).await;
    }
    for client in &mut clients {
        assert_eq!(client.end().await, Event::closed(3503, "force disconnect"));
    }
    // Nobody has answered the Close frames yet: only the connections themselves are left.
    let metrics = server.metrics().await;
    assert_eq!(metrics.sum("starling_map_entries"), 0.0);
    assert_eq!(metrics.sum("centrifugo_node_num_subscriptions"), 0.0);
    for client in clients {
        client.close().await;
    }
    nothing_is_left(&server).await;
}

#[tokio::test]
async fn who_is_unsubscribed_by_the_server_holds_no_channel() {
    let server = Server::start(json!({})).await;
    let mut client = busy(&server.dial(), 1).await;
    for channel in ["shared", "own-1"] {
        server.api("unsubscribe", json!({ "user": "user-1", "channel": channel })).await;
    }
    let mut ended = Vec::new();
    while ended.len() < 2 {
        match client.event().await {
            Event::Unsubscribed { channel, code: 2000 } => ended.push(channel),
            Event::Publication { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ended, ["shared", "own-1"]);
    server.counts("centrifugo_node_num_subscriptions", 0.0).await;
    server.counts("centrifugo_node_num_channels", 0.0).await;
    client.close().await;
    nothing_is_left(&server).await;
}

#[tokio::test]
async fn clients_that_fall_silent_are_found_by_pings_and_leave_nothing() {
    let server = Server::start(json!({ "client": { "ping_interval": "1s", "pong_timeout": "900ms" } })).await;
    let mut clients = wave(&server.dial(), 6).await;
    for client in &mut clients {
        client.mute = true;
    }
    // Half of them go on reading, the other half do not even see the Close frame.
    for client in clients.iter_mut().skip(3) {
        assert_eq!(client.end().await, Event::closed(3012, "no pong"));
    }
    nothing_is_left(&server).await;
    drop(clients);
}

#[tokio::test]
async fn connections_that_never_become_clients_leave_nothing() {
    let server = Server::start(json!({ "client": { "stale_close_delay": "1s" } })).await;
    let mut stale = server.dial().open().await;
    let mut refused = server.dial().open().await;
    let expired = {
        let key = jsonwebtoken::EncodingKey::from_secret(support::TOKEN_KEY.as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &json!({ "sub": "a", "exp": 1_000_000 }), &key).unwrap()
    };
    let id = refused.send_connect(&expired).await;
    assert_eq!(refused.reply(id).await, Some(109));
    let mut broken = server.dial().open().await;
    broken.send(Message::text("no command")).await;
    assert_eq!(broken.end().await, Event::closed(3501, "bad request"));
    let mut half = TcpStream::connect(server.address()).await.unwrap();
    half.write_all(b"GET /connection/websocket HTTP/1.1\r\nupgrade: websocket\r\n").await.unwrap();
    assert_eq!(stale.end().await, Event::closed(3502, "stale"));
    assert_eq!(refused.end().await, Event::Lost);
    drop((stale, broken));
    nothing_is_left(&server).await;
}

#[tokio::test]
async fn messages_that_never_end_leave_nothing() {
    let server = Server::start(json!({})).await;
    let mut clients = wave(&server.dial(), 8).await;
    for client in &mut clients {
        // A frame of 60,000 bytes begins, and 1,000 of them come.
        client.send_raw(&[0x81, 0xfe, 0xea, 0x60, 0, 0, 0, 0]).await;
        client.send_raw(&[b' '; 1_000]).await;
    }
    for client in clients {
        client.reset();
    }
    nothing_is_left(&server).await;
}

#[tokio::test]
async fn clients_over_tls_leave_nothing() {
    let pair = Pair::new();
    let folder = tempfile::TempDir::new().unwrap();
    pair.write(folder.path());
    let internal_port = support::free_port();
    let tls = json!({
        "enabled": true,
        "cert_pem": folder.path().join("cert.pem"),
        "key_pem": folder.path().join("key.pem"),
    });
    let config = json!({ "http_server": { "internal_port": internal_port, "tls": tls, "tls_external": true } });
    let server = Server::start_in(folder, config).await.with_internal_port(internal_port);
    let dial = server.dial().tls(&Trust::in_any_of(&[&pair]));
    for (number, client) in wave(&dial, 12).await.into_iter().enumerate() {
        match number % 3 {
            0 => client.close().await,
            1 => client.reset(),
            _ => drop(client),
        }
    }
    nothing_is_left(&server).await;
}

#[tokio::test]
async fn clients_that_leave_while_much_is_published_to_them_leave_nothing() {
    let server = Server::start(json!({})).await;
    let publishing = async {
        for number in 0..600 {
            server.publish("shared", json!({ "number": number, "filler": "x".repeat(2_000) })).await;
        }
    };
    let coming_and_going = async {
        for round in 0..6 {
            for (number, client) in wave(&server.dial(), 10).await.into_iter().enumerate() {
                match (number + round) % 3 {
                    0 => client.close().await,
                    1 => client.reset(),
                    _ => drop(client),
                }
            }
        }
    };
    tokio::join!(publishing, coming_and_going);
    nothing_is_left(&server).await;
    let mut client = server.dial().protocol(Protocol::Json).connect().await;
    client.subscribe("shared").await;
    server.publish("shared", json!("still served")).await;
    assert_eq!(client.publication().await.1, "\"still served\"");
    client.close().await;
    nothing_is_left(&server).await;
}
