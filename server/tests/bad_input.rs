//! Whatever comes in by any port has a clear answer, ends nothing but its own connection, and leaves the server well.

mod support;

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::Method;
use prost::Message as _;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use starling_proto::{api, client as pb};
use support::{API_KEY, Client, Event, Protocol, Server, http::Call, soon, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;
use tonic::{Code, Request, transport::Channel};

/// The answer to a wrong message.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// The connection is closed with this code.
    Closed(u16),
    /// The command with id 7 fails with this code, and the connection lives on.
    Error(u32),
    /// The command with id 7 succeeds.
    Success,
}

use Answer::{Closed, Error, Success};

/// Sends a message on a connection of its own, looks at what comes of it, and at the server.
async fn check(server: &mut Server, name: &str, mut client: Client, message: Message, answer: Answer) {
    eprintln!("{name}");
    client.send(message).await;
    match answer {
        Closed(code) => match client.end().await {
            Event::Closed { code: closed, .. } => assert_eq!(closed, Some(code), "{name}"),
            other => panic!("{name}: {other:?}"),
        },
        Error(code) => assert_eq!(client.reply(7).await, Some(code), "{name}"),
        Success => assert_eq!(client.reply(7).await, None, "{name}"),
    }
    if let Error(_) | Success = answer {
        client.subscribe("still-served").await;
    }
    client.close().await;
    server.is_well().await;
}

#[tokio::test]
async fn wrong_json_commands_have_their_documented_codes() {
    let mut server = Server::start(json!({})).await;
    let long = "x".repeat(256);
    let nested =
        |depth| format!(r#"{{"id":7,"publish":{{"channel":"a","data":{}{}}}}}"#, "[".repeat(depth), "]".repeat(depth));
    let table: &[(&str, &str, Answer)] = &[
        ("no JSON", "hello", Closed(3501)),
        ("JSON cut short", r#"{"id":7,"subscribe":{"channel":"#, Closed(3501)),
        ("an empty message", "", Closed(3501)),
        ("only a newline", "\n", Closed(3501)),
        (
            "a blank line between commands",
            "{\"id\":6,\"unsubscribe\":{\"channel\":\"a\"}}\n\n{\"id\":7,\"send\":{}}",
            Closed(3501),
        ),
        ("a number", "7", Closed(3501)),
        ("a list", "[]", Closed(3501)),
        ("a text", r#""connect""#, Closed(3501)),
        ("a command without a body", r#"{"id":7}"#, Closed(3501)),
        ("an unknown command", r#"{"id":7,"fly":{}}"#, Closed(3501)),
        ("a body of the wrong type", r#"{"id":7,"subscribe":7}"#, Closed(3501)),
        ("a channel of the wrong type", r#"{"id":7,"subscribe":{"channel":7}}"#, Closed(3501)),
        ("a second connect", r#"{"id":7,"connect":{}}"#, Closed(3501)),
        ("a pong that nobody asked for", "{}", Closed(3501)),
        ("an id of 0", r#"{"id":0,"subscribe":{"channel":"a"}}"#, Closed(3501)),
        ("no id", r#"{"subscribe":{"channel":"a"}}"#, Closed(3501)),
        ("an id out of range", r#"{"id":4294967296,"subscribe":{"channel":"a"}}"#, Closed(3501)),
        ("a negative id", r#"{"id":-1,"subscribe":{"channel":"a"}}"#, Closed(3501)),
        ("an id with a fraction", r#"{"id":7.5,"subscribe":{"channel":"a"}}"#, Closed(3501)),
        ("an id beyond all numbers", r#"{"id":1e999,"subscribe":{"channel":"a"}}"#, Closed(3501)),
        ("an id that is a text", r#"{"id":"7","subscribe":{"channel":"a"}}"#, Closed(3501)),
        ("a message without a handler", r#"{"send":{"data":{}}}"#, Closed(3508)),
        ("no channel to subscribe to", r#"{"id":7,"subscribe":{}}"#, Closed(3501)),
        ("no channel to unsubscribe from", r#"{"id":7,"unsubscribe":{}}"#, Closed(3501)),
        ("no channel to publish to", r#"{"id":7,"publish":{"data":{}}}"#, Closed(3501)),
        ("no channel to ask about", r#"{"id":7,"presence":{}}"#, Closed(3501)),
        ("no channel to read", r#"{"id":7,"history":{}}"#, Closed(3501)),
        ("no token to refresh with", r#"{"id":7,"refresh":{}}"#, Closed(3501)),
        ("an unknown delta", r#"{"id":7,"subscribe":{"channel":"a","delta":"vast"}}"#, Closed(3501)),
        ("a channel too long", &format!(r#"{{"id":7,"subscribe":{{"channel":"{long}"}}}}"#), Error(107)),
        ("a channel that is not ASCII", r#"{"id":7,"subscribe":{"channel":"ä"}}"#, Error(107)),
        ("an unknown namespace", r#"{"id":7,"subscribe":{"channel":"none:a"}}"#, Error(102)),
        ("a private channel without a token", r#"{"id":7,"subscribe":{"channel":"$a"}}"#, Error(103)),
        ("an invalid subscription token", r#"{"id":7,"subscribe":{"channel":"a","token":"no"}}"#, Error(103)),
        ("nothing to publish", r#"{"id":7,"publish":{"channel":"a"}}"#, Error(107)),
        ("presence that is not kept", r#"{"id":7,"presence":{"channel":"a"}}"#, Error(108)),
        ("a method that nobody has", r#"{"id":7,"rpc":{"method":"fly","data":{}}}"#, Error(108)),
        ("a token that is none", r#"{"id":7,"refresh":{"token":"no"}}"#, Closed(3500)),
        ("what follows a value on its line", r#"{"id":7,"unsubscribe":{"channel":"a"}} and more"#, Success),
        ("unknown members", r#"{"id":7,"unsubscribe":{"channel":"a","why":[1]},"x":{}}"#, Success),
        ("deep nesting in a payload", &nested(20_000), Success),
        ("deep nesting in a filter", &nested_filter(20_000), Closed(3501)),
    ];
    for (name, message, answer) in table {
        let client = server.dial().connect().await;
        check(&mut server, name, client, Message::text(*message), *answer).await;
    }
}

fn nested_filter(depth: usize) -> String {
    let (open, close) = (r#"{"op":"and","nodes":["#, "]}");
    let (open, close) = (open.repeat(depth.min(1_500)), close.repeat(depth.min(1_500)));
    format!(r#"{{"id":7,"subscribe":{{"channel":"a","tf":{open}{close}}}}}"#)
}

#[tokio::test]
async fn the_type_of_a_frame_does_not_decide_what_is_in_it() {
    let mut server = Server::start(json!({})).await;
    let command = r#"{"id":7,"subscribe":{"channel":"a"}}"#;
    for (name, protocol, message, answer) in [
        ("JSON in a binary frame", Protocol::Json, Message::binary(command), Success),
        ("bytes in a binary frame", Protocol::Json, Message::binary(vec![1, 2, 3]), Closed(3501)),
        ("JSON on a Protobuf connection", Protocol::Protobuf, Message::binary(command), Closed(3501)),
        ("text on a Protobuf connection", Protocol::Protobuf, Message::text(command), Closed(3501)),
    ] {
        let client = server.dial().protocol(protocol).connect().await;
        check(&mut server, name, client, message, answer).await;
    }
}

#[tokio::test]
async fn wrong_protobuf_commands_have_their_documented_codes() {
    let mut server = Server::start(json!({})).await;
    let subscribe = |channel: &str| pb::SubscribeRequest { channel: channel.into(), ..Default::default() };
    let command = |id, subscribe| pb::Command { id, subscribe: Some(subscribe), ..Default::default() };
    let good = command(7, subscribe("a")).encode_length_delimited_to_vec();
    let table: &[(&str, Vec<u8>, Answer)] = &[
        ("an empty message", vec![], Closed(3501)),
        ("a length cut short", vec![0x80], Closed(3501)),
        ("a length that never ends", vec![0xff; 12], Closed(3501)),
        (
            "a length beyond all memory",
            [&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f][..], &good].concat(),
            Closed(3501),
        ),
        ("a command shorter than its length", good[..good.len() - 1].to_vec(), Closed(3501)),
        ("a command and half of another", [&good[..], &good[..5]].concat(), Closed(3501)),
        ("a pong that nobody asked for", vec![0], Closed(3501)),
        (
            "a command without a body",
            pb::Command { id: 7, ..Default::default() }.encode_length_delimited_to_vec(),
            Closed(3501),
        ),
        // Field 200 with one byte: a command of a later time.
        ("an unknown command", vec![6, 8, 7, 0xc2, 0x0c, 1, 0], Closed(3501)),
        ("a field of the wrong type", vec![4, 8, 7, 0x28, 1], Closed(3501)),
        ("a body that is not what it should be", vec![6, 8, 7, 0x2a, 2, 0xff, 0xff], Closed(3501)),
        ("no id", command(0, subscribe("a")).encode_length_delimited_to_vec(), Closed(3501)),
        ("no channel", command(7, subscribe("")).encode_length_delimited_to_vec(), Closed(3501)),
        ("a channel too long", command(7, subscribe(&"x".repeat(256))).encode_length_delimited_to_vec(), Error(107)),
        ("an unknown namespace", command(7, subscribe("none:a")).encode_length_delimited_to_vec(), Error(102)),
        ("a command of no fault", good.clone(), Success),
    ];
    for (name, message, answer) in table {
        let client = server.dial().protobuf().connect().await;
        check(&mut server, name, client, Message::binary(message.clone()), *answer).await;
    }
}

#[tokio::test]
async fn before_connect_nothing_else_is_taken() {
    let mut server = Server::start(json!({})).await;
    for (name, message, answer) in [
        ("subscribe first", r#"{"id":7,"subscribe":{"channel":"a"}}"#, Closed(3501)),
        ("publish first", r#"{"id":7,"publish":{"channel":"a","data":{}}}"#, Closed(3501)),
        ("a pong first", "{}", Closed(3501)),
        ("connect without an id", r#"{"connect":{}}"#, Closed(3501)),
        ("a token that is none", r#"{"id":7,"connect":{"token":"no"}}"#, Closed(3500)),
    ] {
        let client = server.dial().open().await;
        check(&mut server, name, client, Message::text(message), answer).await;
    }
    let mut client = server.dial().protobuf().open().await;
    client.send_subscribe("a").await;
    assert_eq!(client.event().await, Event::closed(3501, "bad request"));
    client.close().await;
}

/// A masked frame of a client; the mask is zero, which is one of the masks that RFC 6455 allows.
fn frame(first: u8, length: u64, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match length {
        0..126 => frame.push(0x80 | length as u8),
        126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

#[tokio::test]
async fn wrong_frames_have_the_codes_of_rfc_6455() {
    let mut server = Server::start(json!({})).await;
    let part = vec![b' '; 40_000];
    let parts = [frame(0x01, 40_000, &part), frame(0x80, 40_000, &part)].concat();
    let table: &[(&str, Vec<u8>, u16)] = &[
        ("a frame without a mask", vec![0x81, 2, b'{', b'}'], 1002),
        ("a reserved bit", frame(0xc1, 2, b"{}"), 1002),
        ("a reserved opcode", frame(0x83, 2, b"{}"), 1002),
        ("a reserved control opcode", frame(0x8b, 0, b""), 1002),
        ("a ping too long", frame(0x89, 126, &[0; 126]), 1002),
        ("a ping in fragments", frame(0x09, 0, b""), 1002),
        ("a continuation of nothing", frame(0x80, 2, b"{}"), 1002),
        ("a message within another", [frame(0x01, 1, b"{"), frame(0x81, 2, b"{}")].concat(), 1002),
        ("a length with its highest bit", frame(0x81, 1 << 63, b""), 1002),
        ("a close code that nobody may send", frame(0x88, 2, &1005_u16.to_be_bytes()), 1002),
        ("a message over the limit", frame(0x81, 65_537, &[b' '; 100]), 1009),
        ("a length beyond all memory", frame(0x81, 1 << 62, b""), 1009),
        ("fragments over the limit together", parts, 1009),
    ];
    for (name, bytes, code) in table {
        eprintln!("{name}");
        let mut client = server.dial().connect().await;
        client.send_raw(bytes).await;
        match client.end().await {
            Event::Closed { code: closed, .. } => assert_eq!(closed, Some(*code), "{name}"),
            other => panic!("{name}: {other:?}"),
        }
        client.close().await;
        server.is_well().await;
    }
}

#[tokio::test]
async fn a_message_of_exactly_the_limit_is_taken() {
    let mut server = Server::start(json!({})).await;
    let command = r#"{"id":7,"unsubscribe":{"channel":"a"}}"#;
    let filled = format!("{command}{}", " ".repeat(65_536 - command.len()));
    let client = server.dial().connect().await;
    check(&mut server, "the limit", client, Message::text(filled), Success).await;
}

// === HTTP ===

#[tokio::test]
async fn wrong_calls_of_the_http_api_have_their_documented_answers() {
    let mut server = Server::start(json!({})).await;
    let good = r#"{"channel":"a","data":{}}"#;
    let call = |path: &str, body: &str| Call::post(server.port, path, body.to_owned());
    let with_key = |path: &str, body: &str| call(path, body).key();
    let publish = |body: &str| with_key("/api/publish", body);
    let body_error = |code: u32| json!({ "error": { "code": code } });
    let table: Vec<(&str, Call, u16, Value)> = vec![
        ("no key", call("/api/publish", good), 401, Value::Null),
        ("a wrong key", call("/api/publish", good).header("x-api-key", "wrong"), 401, Value::Null),
        ("a wrong key elsewhere", call("/api/publish", good).header("authorization", "apikey wrong"), 401, Value::Null),
        ("no key and a wrong body", call("/api/publish", "{"), 401, Value::Null),
        ("GET", Call::get(server.port, "/api/publish").key(), 405, Value::Null),
        ("PUT", Call::new(Method::PUT, server.port, "/api/publish", good).key(), 405, Value::Null),
        ("DELETE", Call::new(Method::DELETE, server.port, "/api/publish", good).key(), 405, Value::Null),
        ("an unknown method", with_key("/api/fly", good), 404, Value::Null),
        ("a method in other letters", with_key("/api/Publish", good), 404, Value::Null),
        ("a wrong content type", publish(good).header("content-type", "text/html"), 200, json!({ "result": {} })),
        ("no JSON", publish("hello"), 400, Value::Null),
        ("JSON cut short", publish(r#"{"channel":"a","data":"#), 400, Value::Null),
        ("a list", publish("[]"), 400, Value::Null),
        ("a channel of the wrong type", publish(r#"{"channel":7,"data":{}}"#), 400, Value::Null),
        ("no body", publish(""), 400, Value::Null),
        ("no channel", publish(r#"{"data":{}}"#), 200, body_error(107)),
        ("no data", publish(r#"{"channel":"a"}"#), 200, body_error(107)),
        ("invalid base64", publish(r#"{"channel":"a","b64data":"***"}"#), 200, body_error(107)),
        ("base64 cut short", publish(r#"{"channel":"a","b64data":"YWJ"}"#), 200, body_error(107)),
        ("an unknown namespace", publish(r#"{"channel":"none:a","data":{}}"#), 200, body_error(102)),
        (
            "an error by the transport",
            publish(r#"{"data":{}}"#).header("x-centrifugo-error-mode", "transport"),
            400,
            json!({ "code": 107 }),
        ),
        ("no channels", with_key("/api/broadcast", r#"{"channels":[],"data":{}}"#), 200, body_error(107)),
        ("no user to disconnect from a channel", with_key("/api/unsubscribe", r#"{"channel":7}"#), 400, Value::Null),
        ("a pattern that is none", with_key("/api/channels", r#"{"pattern":"["}"#), 200, body_error(100)),
        ("a path of nobody", call("/nothing", ""), 404, Value::Null),
        ("a WebSocket that is none", Call::get(server.port, "/connection/websocket"), 400, Value::Null),
        ("a WebSocket by POST", call("/connection/websocket", ""), 400, Value::Null),
    ];
    for (name, call, status, expected) in table {
        let response = call.send().await;
        assert_eq!(response.status, status, "{name}: {}", response.text());
        if expected != Value::Null {
            let answer = response.json();
            assert!(includes(&answer, &expected), "{name}: {answer} is not {expected}");
        }
        server.is_well().await;
    }
}

/// Whether `all` has everything that `part` has.
fn includes(all: &Value, part: &Value) -> bool {
    match (all, part) {
        (Value::Object(all), Value::Object(part)) => {
            part.iter().all(|(name, value)| all.get(name).is_some_and(|all| includes(all, value)))
        }
        (all, part) => all == part,
    }
}

/// Writes a request as it is; answers the status, if there is one.
async fn raw_status(address: SocketAddr, request: &[u8]) -> Option<u16> {
    let mut socket = TcpStream::connect(address).await.unwrap();
    // The server may have had enough before all of it is written.
    let _ = soon("writing a request", socket.write_all(request)).await;
    let mut answer = [0; 12];
    soon("a response", socket.read_exact(&mut answer)).await.ok()?;
    std::str::from_utf8(&answer[9..]).ok()?.parse().ok()
}

#[tokio::test]
async fn requests_that_are_too_large_or_no_http_are_refused() {
    let mut server = Server::start(json!({})).await;
    let address = server.address();
    let head = |length: u64| {
        format!("POST /api/publish HTTP/1.1\r\nhost: a\r\nx-api-key: {API_KEY}\r\ncontent-length: {length}\r\n\r\n")
    };
    let limit = 32 * 1024 * 1024;
    assert_eq!(raw_status(address, head(limit + 1).as_bytes()).await, Some(413));
    assert_eq!(raw_status(address, head(u64::MAX / 2).as_bytes()).await, Some(413));
    // The end of the connection is the answer to what is no HTTP: while answers to pipelined requests wait for each other
    // (`pipeline_flush`), the HTTP library's own 400 and 431 do not leave.
    for no_http in [
        &b"GET / HTTP/1.1\r\nbroken header\r\n\r\n"[..],
        b"GET / HTTP/9.1\r\nhost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        format!("GET /health HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(200_000)).as_bytes(),
    ] {
        assert!(matches!(raw_status(address, no_http).await, None | Some(400 | 431)));
    }
    server.is_well().await;

    // A body without an announced length, which ends when the server has had enough.
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head =
        format!("POST /api/publish HTTP/1.1\r\nhost: a\r\nx-api-key: {API_KEY}\r\ntransfer-encoding: chunked\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    let chunk = [b"100000\r\n", &vec![b' '; 0x10_0000][..], b"\r\n"].concat();
    let (mut reading, mut writing) = socket.into_split();
    let endless = async {
        let mut sent = 0;
        while writing.write_all(&chunk).await.is_ok() {
            sent += 1;
            assert!(sent < 200, "the server reads on");
        }
    };
    let answer = async {
        let mut answer = [0; 12];
        reading.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 413");
    };
    soon("a refusal", async {
        tokio::select! { () = answer => {}, () = endless => {} }
    })
    .await;
    server.is_well().await;
}

#[tokio::test]
async fn who_connects_and_never_asks_is_let_go() {
    let mut server = Server::start(json!({ "grpc_api": { "enabled": true } })).await;
    let grpc_address = SocketAddr::new(server.address().ip(), server.grpc_port);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [&preface[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    let table: [(SocketAddr, &[u8]); 6] = [
        (server.address(), b""),
        (server.address(), b"P"),
        (server.address(), &preface[..10]),
        (server.address(), &settings),
        (server.address(), b"GET /health HTTP/1.1\r\n"),
        (grpc_address, b""),
    ];
    let waits = table.map(|(address, bytes)| async move {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        // The end, by whatever way it is said.
        let _ = soon("the end of a silent connection", socket.read_to_end(&mut Vec::new())).await;
    });
    futures_util::future::join_all(waits).await;
    server.is_well().await;
}

#[tokio::test]
async fn an_origin_that_is_not_allowed_is_refused_and_the_log_names_it_and_the_option() {
    let mut server = Server::start(json!({ "client": { "allowed_origins": ["https://good.example"] } })).await;
    let handshake = |origin: &str| {
        Call::get(server.port, "/connection/websocket")
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", &BASE64_STANDARD.encode([7; 16]))
            .header("origin", origin)
    };
    assert_eq!(handshake("https://evil.example").send().await.status, 403);
    assert_eq!(handshake("https://good.example").send().await.status, 101);
    server.says("https://evil.example").await;
    let line = server.log().lines().find(|line| line.contains("https://evil.example")).unwrap().to_owned();
    assert!(line.contains("client.allowed_origins"), "{line}");
    server.is_well().await;
}

// === gRPC ===

type GrpcClient = api::centrifugo_api_client::CentrifugoApiClient<Channel>;

async fn grpc(server: &Server) -> GrpcClient {
    let endpoint = Channel::from_shared(format!("http://127.0.0.1:{}", server.grpc_port)).unwrap();
    GrpcClient::new(soon("a gRPC connection", endpoint.connect()).await.unwrap())
}

fn with_key<T>(message: T, key: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("apikey {key}").parse().unwrap());
    request
}

#[tokio::test]
async fn wrong_calls_of_the_grpc_api_have_their_documented_answers() {
    let mut server = Server::start(json!({ "grpc_api": { "enabled": true } })).await;
    let mut client = grpc(&server).await;
    let good = || api::PublishRequest { channel: "a".into(), data: "{}".into(), ..Default::default() };
    assert_eq!(client.publish(good()).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(client.publish(with_key(good(), "wrong")).await.unwrap_err().code(), Code::Unauthenticated);
    server.is_well().await;

    for (name, request, code) in [
        ("no channel", api::PublishRequest { channel: String::new(), ..good() }, 107),
        ("no data", api::PublishRequest { data: Default::default(), ..good() }, 107),
        ("invalid base64", api::PublishRequest { b64data: "***".into(), ..good() }, 107),
        ("an unknown namespace", api::PublishRequest { channel: "none:a".into(), ..good() }, 102),
    ] {
        let answer = client.publish(with_key(request, API_KEY)).await.unwrap().into_inner();
        assert_eq!(answer.error.map(|error| error.code), Some(code), "{name}");
        server.is_well().await;
    }

    let large = api::PublishRequest { data: vec![b' '; 5 * 1024 * 1024].into(), ..good() };
    assert_eq!(client.publish(with_key(large, API_KEY)).await.unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!(client.publish(with_key(good(), API_KEY)).await.unwrap().into_inner().error, None);
    server.is_well().await;
}

// === sweeps ===

/// How many blobs a sweep sends; each costs a connection.
const BLOBS: usize = 1_500;

/// Bytes that may mean something: random ones, or a right message with some of its bytes changed, cut, or repeated.
fn blob(random: &mut StdRng, right: &[&[u8]]) -> Vec<u8> {
    let mut bytes = right[random.random_range(0..right.len())].to_vec();
    match random.random_range(0..4) {
        0 => {
            let length = random.random_range(0..300);
            bytes = vec![0; length];
            random.fill_bytes(&mut bytes);
        }
        1 => bytes.truncate(random.random_range(0..=bytes.len())),
        2 => {
            for _ in 0..random.random_range(1..6) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
        }
        _ => {
            let at = random.random_range(0..bytes.len());
            let piece = bytes[at..].to_vec();
            bytes.extend(piece);
        }
    }
    bytes
}

/// The seed of a sweep, which a failure prints; `SWEEP_SEED` repeats one.
fn seed() -> u64 {
    #[allow(clippy::disallowed_methods, reason = "a test is told its seed, the server is not")]
    let given = std::env::var("SWEEP_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    eprintln!("SWEEP_SEED={seed}");
    seed
}

fn right_commands(protocol: Protocol) -> Vec<Vec<u8>> {
    let subscribe = pb::SubscribeRequest { channel: "a".into(), data: "{}".into(), ..Default::default() };
    let publish = pb::PublishRequest { channel: "a".into(), data: "{}".into(), ..Default::default() };
    let history = pb::HistoryRequest { channel: "a".into(), limit: 5, ..Default::default() };
    match protocol {
        Protocol::Json => vec![
            br#"{"id":2,"subscribe":{"channel":"a","data":{},"offset":7,"epoch":"x","recover":true}}"#.into(),
            br#"{"id":3,"publish":{"channel":"a","data":{"x":[1,2.5e3,null,"\u00e4"]}}}"#.into(),
            br#"{"id":4,"history":{"channel":"a","limit":5,"since":{"offset":1,"epoch":"y"}}}"#.into(),
            b"{\"id\":5,\"unsubscribe\":{\"channel\":\"a\"}}\n{\"id\":6,\"rpc\":{\"method\":\"m\"}}".into(),
        ],
        Protocol::Protobuf => [
            pb::Command { id: 2, subscribe: Some(subscribe), ..Default::default() },
            pb::Command { id: 3, publish: Some(publish), ..Default::default() },
            pb::Command { id: 4, history: Some(history), ..Default::default() },
        ]
        .iter()
        .map(pb::Command::encode_length_delimited_to_vec)
        .collect(),
    }
}

/// Reads on until the server is done with what it got: it closed, or it answered a WebSocket ping.
async fn settle(client: &mut Client) {
    if client.try_send(Message::Ping(Default::default())).await.is_ok() {
        client.pong_or_end().await;
    }
}

#[tokio::test]
async fn no_message_of_a_client_harms_the_server() {
    let mut server = Server::start(json!({})).await;
    let mut random = StdRng::seed_from_u64(seed());
    for protocol in [Protocol::Json, Protocol::Protobuf] {
        let right = right_commands(protocol);
        let right: Vec<_> = right.iter().map(Vec::as_slice).collect();
        for _ in 0..BLOBS / 2 {
            let mut client = server.dial().protocol(protocol).connect().await;
            let _ = client.try_send(Message::binary(blob(&mut random, &right))).await;
            settle(&mut client).await;
        }
        server.is_well().await;
    }
    until("the end of all clients", async || server.metrics().await.left_over().is_empty()).await;
}

#[tokio::test]
async fn no_bytes_behind_a_handshake_harm_the_server() {
    let mut server = Server::start(json!({ "websocket": { "compression": true } })).await;
    let mut random = StdRng::seed_from_u64(seed());
    let right = [
        frame(0x81, 36, br#"{"id":2,"subscribe":{"channel":"a"}}"#),
        frame(0x01, 30_000, &vec![b' '; 30_000]),
        frame(0x89, 4, b"ping"),
        frame(0x88, 2, &1000_u16.to_be_bytes()),
        frame(0xc1, 9, &[0xaa, 0x56, 0xca, 0x4c, 0x51, 0xb2, 0x32, 0xac, 0x05]),
    ];
    let right: Vec<_> = right.iter().map(Vec::as_slice).collect();
    for _ in 0..BLOBS {
        let mut client = server.dial().open().await;
        client.send_raw(&blob(&mut random, &right)).await;
        client.reset();
    }
    server.is_well().await;
    until("the end of all clients", async || server.metrics().await.left_over().is_empty()).await;
}

/// Writes bytes to a port and reads whatever comes, for a moment: a server may rightly wait for more.
async fn throw(address: SocketAddr, bytes: &[u8]) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let _ = soon("writing", socket.write_all(bytes)).await;
    // An end of what we send lets the server know that nothing more comes.
    let _ = socket.shutdown().await;
    let _ = timeout(Duration::from_secs(20), socket.read_to_end(&mut Vec::new())).await;
}

#[tokio::test]
async fn no_bytes_on_the_http_and_grpc_ports_harm_the_server() {
    let mut server = Server::start(json!({ "grpc_api": { "enabled": true } })).await;
    let grpc_address = SocketAddr::new(server.address().ip(), server.grpc_port);
    let mut random = StdRng::seed_from_u64(seed());
    let body = r#"{"channel":"a","data":{"x":1},"tags":{"a":"b"},"b64data":"e30="}"#;
    let post = format!(
        "POST /api/publish HTTP/1.1\r\nhost: a\r\nx-api-key: {API_KEY}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let websocket = "GET /connection/websocket HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                     sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    // The preface of HTTP/2, its settings, and the beginning of a request.
    let http2 = [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &[0, 0, 0, 4, 0, 0, 0, 0, 0],
        &[0, 0, 5, 1, 4, 0, 0, 0, 1, 0x83, 0x86, 0x84, 0x41, 0],
    ]
    .concat();
    let right = [post.as_bytes(), websocket.as_bytes(), &http2];
    for round in 0..BLOBS / 50 {
        let blobs: BTreeSet<_> = (0..50).map(|_| blob(&mut random, &right)).collect();
        let throws = blobs.iter().enumerate().map(|(number, bytes)| {
            throw(if (number + round) % 2 == 0 { server.address() } else { grpc_address }, bytes)
        });
        futures_util::future::join_all(throws).await;
    }
    server.is_well().await;
}

#[tokio::test]
async fn no_body_of_a_call_harms_the_server() {
    let mut server = Server::start(json!({})).await;
    let mut random = StdRng::seed_from_u64(seed());
    let right: [&[u8]; 4] = [
        br#"{"channel":"a","data":{"x":1},"tags":{"a":"b"},"b64data":"e30="}"#,
        br#"{"channels":["a","b"],"data":[1,2,{"x":"\ud83d\ude00"}],"skip_history":true}"#,
        br#"{"commands":[{"publish":{"channel":"a","data":1}},{"info":{}}],"parallel":true}"#,
        br#"{"method":"publish","params":{"channel":"a","data":1}} {"method":9,"id":4}"#,
    ];
    let paths = ["/api/publish", "/api/broadcast", "/api/batch", "/api", "/api/channels", "/api/disconnect"];
    for _ in 0..BLOBS {
        let path = paths[random.random_range(0..paths.len())];
        let response = Call::post(server.port, path, blob(&mut random, &right)).key().send().await;
        assert!(matches!(response.status, 200 | 400), "{}: {}", response.status, response.text());
    }
    server.is_well().await;
}
