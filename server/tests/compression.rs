//! Compressed frames from the built server: to whom they go, and that they hold what was sent.

mod support;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::json;
use starling_server::wire::deflate::Inflater;
use support::{Server, soon};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

/// The first byte and the payload of the next frame.
async fn frame(socket: &mut BufReader<TcpStream>) -> (u8, Vec<u8>) {
    soon("a frame", async {
        let mut head = [0; 2];
        socket.read_exact(&mut head).await.unwrap();
        let length = match head[1] {
            126 => socket.read_u16().await.unwrap().into(),
            127 => socket.read_u64().await.unwrap(),
            short => short.into(),
        };
        let mut payload = vec![0; length.try_into().unwrap()];
        socket.read_exact(&mut payload).await.unwrap();
        (head[0], payload)
    })
    .await
}

fn inflated(payload: &[u8]) -> String {
    let mut out = Vec::new();
    Inflater::new().inflate(payload, 1_000_000, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// A client that offers these extensions, subscribed to "news". Answers the extensions agreed upon, too.
async fn subscriber(server: &Server, offer: &str) -> (BufReader<TcpStream>, Option<String>) {
    let mut socket = BufReader::new(TcpStream::connect(server.address()).await.unwrap());
    let request = format!(
        "GET /connection/websocket HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: {}\r\nsec-websocket-extensions: {offer}\r\n\r\n",
        BASE64_STANDARD.encode([7; 16])
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("a response", socket.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let agreed = head.lines().find_map(|line| line.strip_prefix("sec-websocket-extensions: ")).map(str::to_owned);
    let commands = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"news\"}}";
    // A mask of zeros leaves the payload as it is.
    let mut masked = vec![0x81, 0x80 | u8::try_from(commands.len()).unwrap(), 0, 0, 0, 0];
    masked.extend(commands.as_bytes());
    socket.write_all(&masked).await.unwrap();
    let mut replies = String::new();
    while !replies.contains(r#""subscribe""#) {
        let (first, payload) = frame(&mut socket).await;
        replies += &if first == 0xc1 { inflated(&payload) } else { String::from_utf8(payload).unwrap() };
    }
    (socket, agreed)
}

#[tokio::test]
async fn publications_are_compressed_for_who_agreed_to_it_and_whole_for_everyone() {
    let server = Server::start(json!({ "websocket": { "compression": true } })).await;
    let (mut plain, none) = subscriber(&server, "x-other").await;
    let (mut compressed, agreed) = subscriber(&server, "permessage-deflate").await;
    let (mut small, agreed_small) = subscriber(&server, "permessage-deflate; server_max_window_bits=9").await;
    assert_eq!(none, None);
    assert!(agreed.is_some_and(|agreed| agreed.starts_with("permessage-deflate")));
    assert!(agreed_small.is_some_and(|agreed| agreed.contains("server_max_window_bits=9")));

    // Repeats itself only from farther away than the small window reaches.
    let text: String = (0..2_000).map(|number| format!("{number} ")).collect();
    server.publish("news", json!([text, text])).await;
    let (first, payload) = frame(&mut plain).await;
    assert_eq!(first, 0x81);
    let (first, small_payload) = frame(&mut small).await;
    assert_eq!(first, 0x81, "a shared frame needs the largest window");
    assert!(small_payload == payload);
    let (first, compressed_payload) = frame(&mut compressed).await;
    assert_eq!(first, 0xc1);
    assert!(compressed_payload.len() < payload.len());
    assert!(inflated(&compressed_payload).as_bytes() == payload);
}
