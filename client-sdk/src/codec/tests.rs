use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use starling_proto::client::*;

use super::Protocol;

const PROTOCOLS: [Protocol; 2] = [Protocol::Json, Protocol::Protobuf];

#[test]
fn every_field_of_every_command_survives_both_protocols() {
    for protocol in PROTOCOLS {
        let mut frame = BytesMut::new();
        for command in commands() {
            protocol.encode_command(command, &mut frame).unwrap();
        }
        assert_eq!(protocol.decode_commands(frame.freeze()).unwrap(), commands(), "{protocol:?}");
    }
}

#[test]
fn every_field_of_every_reply_survives_both_protocols() {
    for protocol in PROTOCOLS {
        let mut frame = BytesMut::new();
        for reply in replies() {
            protocol.encode_reply(reply, &mut frame).unwrap();
        }
        assert_eq!(protocol.decode_replies(frame.freeze()).unwrap(), replies(), "{protocol:?}");
    }
}

#[test]
fn json_commands_look_as_the_protocol_describes_them() {
    let connect = ConnectRequest { token: "t".to_owned(), name: "js".to_owned(), ..ConnectRequest::default() };
    let subscribe = SubscribeRequest {
        channel: "news".to_owned(),
        recover: true,
        epoch: "kXbQzWpr".to_owned(),
        offset: 5,
        flag: 1,
        ..SubscribeRequest::default()
    };
    let publish = PublishRequest {
        channel: "news".to_owned(),
        data: Bytes::from_static(b"{ \"a\":\n1 }"),
        ..PublishRequest::default()
    };
    let history = HistoryRequest { channel: "news".to_owned(), limit: -1, ..HistoryRequest::default() };
    let commands = [
        Command { id: 1, connect: Some(connect), ..Command::default() },
        Command { id: 2, subscribe: Some(subscribe), ..Command::default() },
        Command { id: 3, publish: Some(publish), ..Command::default() },
        Command { id: 4, history: Some(history), ..Command::default() },
        Command::default(),
    ];
    let mut frame = BytesMut::new();
    for command in commands {
        Protocol::Json.encode_command(command, &mut frame).unwrap();
    }
    let expected = [
        r#"{"id":1,"connect":{"token":"t","name":"js"}}"#,
        r#"{"id":2,"subscribe":{"channel":"news","recover":true,"epoch":"kXbQzWpr","offset":5,"flag":1}}"#,
        // A line end inside a payload would end the message.
        r#"{"id":3,"publish":{"channel":"news","data":{ "a": 1 }}}"#,
        r#"{"id":4,"history":{"channel":"news","limit":-1}}"#,
        "{}",
    ];
    assert_eq!(std::str::from_utf8(&frame).unwrap(), expected.join("\n"));
}

#[test]
fn json_replies_of_a_real_server_are_understood() {
    let frame = concat!(
        r#"{"id":1,"connect":{"client":"c1","version":"6.9.1 OSS","ping":25,"pong":true}}"#,
        "\n",
        r#"{"id":3,"subscribe":{"recoverable":true,"epoch":"kX","publications":[{"data":{"a":6},"offset":6}],"#,
        r#""recovered":true,"offset":5,"positioned":true,"was_recovering":true,"not_known_yet":{"x":[1]}}}"#,
        "\n{}\n",
        r#"{"id":4,"error":{"code":100,"message":"internal server error","temporary":true}}"#,
        "\n",
        r#"{"push":{"channel":"news","pub":{"data":null,"info":null,"offset":18446744073709551615}}}"#,
        "\n",
        r#"{"id":5,"unsubscribe":{},"error":null}"#,
        "\n",
    );
    let replies = Protocol::Json.decode_replies(Bytes::from_static(frame.as_bytes())).unwrap();
    assert_eq!(replies.len(), 6);
    assert_eq!(replies[0].connect.as_ref().unwrap().ping, 25);
    let subscribe = replies[1].subscribe.as_ref().unwrap();
    assert_eq!(subscribe.publications[0].data.as_ref(), br#"{"a":6}"#);
    assert!(subscribe.recovered && subscribe.recoverable && subscribe.was_recovering);
    assert_eq!(replies[2], Reply::default());
    assert!(replies[3].error.as_ref().unwrap().temporary);
    // In a payload null is a value; elsewhere it is the absence of one.
    let publication = replies[4].push.as_ref().unwrap().r#pub.as_ref().unwrap();
    assert_eq!((publication.data.as_ref(), publication.offset), (b"null".as_slice(), u64::MAX));
    assert_eq!(publication.info, None);
    assert_eq!((replies[5].error.clone(), replies[5].unsubscribe), (None, Some(UnsubscribeResult {})));
}

#[test]
fn json_results_always_carry_the_fields_that_readers_rely_on() {
    let mut frame = BytesMut::new();
    let info = ClientInfo { conn_info: Bytes::from_static(b"1"), ..ClientInfo::default() };
    let replies = [
        Reply { id: 1, presence: Some(PresenceResult::default()), ..Reply::default() },
        Reply { id: 2, presence_stats: Some(PresenceStatsResult::default()), ..Reply::default() },
        Reply { id: 3, history: Some(HistoryResult::default()), ..Reply::default() },
        Reply { id: 4, publish: Some(PublishResult {}), ..Reply::default() },
        Reply {
            push: Some(Push { channel: "c".to_owned(), join: Some(Join { info: Some(info) }), ..Push::default() }),
            ..Reply::default()
        },
    ];
    for reply in replies {
        Protocol::Json.encode_reply(reply, &mut frame).unwrap();
    }
    let expected = [
        r#"{"id":1,"presence":{"presence":{}}}"#,
        r#"{"id":2,"presence_stats":{"num_clients":0,"num_users":0}}"#,
        r#"{"id":3,"history":{"publications":[],"epoch":"","offset":0}}"#,
        r#"{"id":4,"publish":{}}"#,
        r#"{"push":{"channel":"c","join":{"info":{"user":"","client":"","conn_info":1}}}}"#,
    ];
    assert_eq!(std::str::from_utf8(&frame).unwrap(), expected.join("\n"));
}

#[test]
fn protobuf_empty_results_and_pings_are_one_byte_each() {
    let mut frame = BytesMut::new();
    Protocol::Protobuf.encode_command(Command::default(), &mut frame).unwrap();
    assert_eq!(frame.as_ref(), [0]);
    let reply = Reply { id: 3, publish: Some(PublishResult {}), ..Reply::default() };
    Protocol::Protobuf.encode_reply(reply, &mut frame).unwrap();
    // Ping; then: length 4, id 3, field 8 present with length 0.
    assert_eq!(frame.as_ref(), [0, 4, 0x08, 3, 0x42, 0]);
}

#[test]
fn a_payload_that_is_not_json_is_refused_on_json_and_leaves_the_frame_as_it_was() {
    let rpc = |data: &'static [u8]| Command {
        id: 1,
        rpc: Some(RpcRequest { data: Bytes::from_static(data), method: String::new() }),
        ..Command::default()
    };
    for payload in [b"{".as_slice(), b"\xff", b"1 2", b" ", b"nul", b"\"a\nb\""] {
        let mut frame = BytesMut::from("{}");
        Protocol::Json.encode_command(rpc(payload), &mut frame).unwrap_err();
        assert_eq!(frame.as_ref(), b"{}");
        Protocol::Json.check_payload(payload).unwrap_err();
        Protocol::Protobuf.encode_command(rpc(payload), &mut frame).unwrap();
        Protocol::Protobuf.check_payload(payload).unwrap();
    }
    Protocol::Json.check_payload(b"").unwrap();
    Protocol::Json.check_payload(b" {\"a\": [1, null]}\n").unwrap();
}

#[test]
fn broken_frames_are_errors() {
    for frame in ["", "\n", "x", "{}x", "{}\n\n{}", "[]", "null", r#"{"id":-1}"#, r#"{"id":4294967296}"#, "{\"id\":1"] {
        Protocol::Json.decode_replies(Bytes::from_static(frame.as_bytes())).unwrap_err();
    }
    let frames: [&[u8]; 5] = [&[], &[1], &[0x80], &[0xff; 12], &[2, 0x08]];
    for frame in frames {
        Protocol::Protobuf.decode_replies(Bytes::from_static(frame)).unwrap_err();
    }
}

#[test]
fn every_truncated_frame_is_an_error_or_a_prefix_of_the_messages() {
    for protocol in PROTOCOLS {
        let mut frame = BytesMut::new();
        for reply in replies() {
            protocol.encode_reply(reply, &mut frame).unwrap();
        }
        let frame = frame.freeze();
        for length in 0..frame.len() {
            if let Ok(messages) = protocol.decode_replies(frame.slice(..length)) {
                assert_eq!(messages[..], replies()[..messages.len()], "{protocol:?} cut to {length}");
            }
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoders_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for protocol in PROTOCOLS {
            let _ = protocol.decode_replies(Bytes::from(bytes.clone()));
            let _ = protocol.decode_commands(Bytes::from(bytes.clone()));
        }
    }

    #[test]
    fn no_damage_to_a_frame_makes_the_decoders_panic(
        place in any::<prop::sample::Index>(),
        damage in prop::collection::vec(any::<u8>(), 0..8),
        cut in 0_usize..8,
    ) {
        for protocol in PROTOCOLS {
            let mut frame = BytesMut::new();
            for reply in replies() {
                protocol.encode_reply(reply, &mut frame).unwrap();
            }
            let mut bytes = frame.to_vec();
            let at = place.index(bytes.len());
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, damage.iter().copied());
            let _ = protocol.decode_replies(Bytes::from(bytes));
        }
    }

    #[test]
    fn any_payload_survives_protobuf_and_any_json_payload_survives_json(data in ".{0,40}", number in any::<i64>()) {
        let json = serde_json::json!({ "text": data, "n": number }).to_string();
        let publication = |payload: &str| Reply {
            push: Some(Push {
                channel: "c".to_owned(),
                r#pub: Some(Publication { data: Bytes::from(payload.to_owned()), ..Publication::default() }),
                ..Push::default()
            }),
            ..Reply::default()
        };
        for (protocol, payload) in [(Protocol::Json, json.as_str()), (Protocol::Protobuf, data.as_str())] {
            let mut frame = BytesMut::new();
            protocol.encode_reply(publication(payload), &mut frame).unwrap();
            prop_assert_eq!(protocol.decode_replies(frame.freeze()).unwrap(), vec![publication(payload)]);
        }
    }
}

// === messages with every field set; no `..default()`, so that a new field must be added here ===

fn json(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn filter() -> FilterNode {
    let leaf = FilterNode {
        op: String::new(),
        key: "k".to_owned(),
        cmp: "in".to_owned(),
        val: "v".to_owned(),
        vals: vec!["a".to_owned(), "ü\"\\\n".to_owned()],
        nodes: Vec::new(),
    };
    FilterNode { op: "not".to_owned(), nodes: vec![leaf.clone(), leaf.clone()], ..leaf }
}

fn subscribe_request() -> SubscribeRequest {
    SubscribeRequest {
        channel: "news".to_owned(),
        token: "token".to_owned(),
        recover: true,
        epoch: "epoch".to_owned(),
        offset: u64::MAX,
        data: json(r#"{"a":[1,2.5e3,"\u00e9"]}"#),
        positioned: true,
        recoverable: true,
        join_leave: true,
        delta: "fossil".to_owned(),
        tf: Some(filter()),
        flag: i64::MIN,
        r#type: 1,
        phase: 2,
        cursor: "cursor".to_owned(),
        limit: -7,
        asc: true,
    }
}

fn commands() -> Vec<Command> {
    let none = Command::default;
    let connect = ConnectRequest {
        token: "token".to_owned(),
        data: json("null"),
        subs: BTreeMap::from([("a".to_owned(), subscribe_request()), ("b".to_owned(), SubscribeRequest::default())]),
        name: "name".to_owned(),
        version: "version".to_owned(),
        headers: BTreeMap::from([("X-A".to_owned(), "1".to_owned())]),
        flag: 1,
        dict: "dict".to_owned(),
        profile: "profile".to_owned(),
    };
    let publish = PublishRequest {
        channel: "news".to_owned(),
        data: json("[1, 2]"),
        r#type: 1,
        key: "key".to_owned(),
        removed: true,
    };
    let history = HistoryRequest {
        channel: "news".to_owned(),
        limit: -1,
        since: Some(StreamPosition { offset: 3, epoch: "e".to_owned() }),
        reverse: true,
    };
    let sub_refresh = SubRefreshRequest {
        channel: "news".to_owned(),
        token: "token".to_owned(),
        r#type: 2,
        track: vec![TrackBatch {
            signature: "s".to_owned(),
            items: vec![KeyedItem { key: "k".to_owned(), version: 9 }],
        }],
        untrack: vec!["u".to_owned()],
    };
    let channel = || "news".to_owned();
    vec![
        Command { id: 1, connect: Some(connect), ..none() },
        Command { id: u32::MAX, subscribe: Some(subscribe_request()), ..none() },
        Command { id: 3, unsubscribe: Some(UnsubscribeRequest { channel: channel() }), ..none() },
        Command { id: 4, publish: Some(publish), ..none() },
        Command { id: 5, presence: Some(PresenceRequest { channel: channel() }), ..none() },
        Command { id: 6, presence_stats: Some(PresenceStatsRequest { channel: channel() }), ..none() },
        Command { id: 7, history: Some(history), ..none() },
        Command { id: 8, ping: Some(PingRequest {}), ..none() },
        Command { id: 9, send: Some(SendRequest { data: json("true") }), ..none() },
        Command { id: 10, rpc: Some(RpcRequest { data: json("1"), method: "m".to_owned() }), ..none() },
        Command { id: 11, refresh: Some(RefreshRequest { token: "t".to_owned() }), ..none() },
        Command { id: 12, sub_refresh: Some(sub_refresh), ..none() },
        Command::default(),
    ]
}

fn client_info() -> ClientInfo {
    ClientInfo {
        user: "42".to_owned(),
        client: "c1".to_owned(),
        conn_info: json(r#"{"name":"Ann"}"#),
        chan_info: json(r#""role""#),
    }
}

fn publication() -> Publication {
    Publication {
        data: json(r#"{"a":"<&>"}"#),
        info: Some(client_info()),
        offset: 7,
        tags: BTreeMap::from([("t".to_owned(), "v".to_owned())]),
        delta: true,
        time: -5,
        channel: "news:1".to_owned(),
        key: "k".to_owned(),
        removed: true,
        score: i64::MIN,
        epoch: "e".to_owned(),
        prev_data: json("0"),
        version: 12,
    }
}

fn subscribe_result() -> SubscribeResult {
    SubscribeResult {
        expires: true,
        ttl: 60,
        recoverable: true,
        epoch: "e".to_owned(),
        publications: vec![publication(), Publication::default()],
        recovered: true,
        offset: 5,
        positioned: true,
        data: json("{}"),
        was_recovering: true,
        delta: true,
        id: 4,
        r#type: 1,
        phase: 2,
        cursor: "c".to_owned(),
        state: vec![publication()],
        publish_debounce: 50,
    }
}

fn replies() -> Vec<Reply> {
    let none = Reply::default;
    let push = |id| Push { id, channel: "news".to_owned(), ..Push::default() };
    let pushed = |push| Reply { push: Some(push), ..none() };
    let connect = ConnectResult {
        client: "c1".to_owned(),
        version: "1 OSS".to_owned(),
        expires: true,
        ttl: 3600,
        data: json("[]"),
        subs: BTreeMap::from([("a".to_owned(), subscribe_result()), ("b".to_owned(), SubscribeResult::default())]),
        ping: 25,
        pong: true,
        session: "s".to_owned(),
        node: "n".to_owned(),
        time: 1_700_000_000_000,
        flag: 1,
        dict: Some(Dictionary { id: "d".to_owned(), data: json("1"), data_b64: "AA==".to_owned() }),
    };
    let connect_push = Connect {
        client: "c1".to_owned(),
        version: "1 OSS".to_owned(),
        data: json("[]"),
        subs: BTreeMap::from([("a".to_owned(), subscribe_result())]),
        expires: true,
        ttl: 3600,
        ping: 25,
        pong: true,
        session: "s".to_owned(),
        node: "n".to_owned(),
        time: 5,
    };
    let subscribe_push =
        Subscribe { recoverable: true, epoch: "e".to_owned(), offset: 3, positioned: true, data: json("1") };
    let refresh = RefreshResult { client: "c".to_owned(), version: "v".to_owned(), expires: true, ttl: 5 };
    let history = HistoryResult { publications: vec![publication()], epoch: "e".to_owned(), offset: 7 };
    let presence = PresenceResult { presence: BTreeMap::from([("c1".to_owned(), client_info())]) };
    vec![
        Reply { id: 1, error: Some(Error { code: 100, message: "m".to_owned(), temporary: true }), ..none() },
        pushed(Push { r#pub: Some(publication()), ..push(5) }),
        pushed(Push { join: Some(Join { info: Some(client_info()) }), ..push(-5) }),
        pushed(Push { leave: Some(Leave { info: Some(client_info()) }), ..push(0) }),
        pushed(Push { unsubscribe: Some(Unsubscribe { code: 2500, reason: "r".to_owned() }), ..push(0) }),
        pushed(Push { message: Some(Message { data: json("1") }), ..push(0) }),
        pushed(Push { subscribe: Some(subscribe_push), ..push(0) }),
        pushed(Push { connect: Some(connect_push), ..push(0) }),
        pushed(Push {
            disconnect: Some(Disconnect { code: 3001, reason: "shutdown".to_owned(), reconnect: true }),
            ..push(0)
        }),
        pushed(Push { refresh: Some(Refresh { expires: true, ttl: 9 }), ..push(0) }),
        Reply { id: 2, connect: Some(connect), ..none() },
        Reply { id: 3, subscribe: Some(subscribe_result()), ..none() },
        Reply { id: 4, unsubscribe: Some(UnsubscribeResult {}), ..none() },
        Reply { id: 5, publish: Some(PublishResult {}), ..none() },
        Reply { id: 6, presence: Some(presence), ..none() },
        Reply { id: 7, presence_stats: Some(PresenceStatsResult { num_clients: 2, num_users: 1 }), ..none() },
        Reply { id: 8, history: Some(history), ..none() },
        Reply { id: 9, ping: Some(PingResult {}), ..none() },
        Reply { id: 10, rpc: Some(RpcResult { data: json("1") }), ..none() },
        Reply { id: 11, refresh: Some(refresh), ..none() },
        Reply {
            id: 12,
            sub_refresh: Some(SubRefreshResult { expires: true, ttl: 5, items: vec![publication()] }),
            ..none()
        },
        Reply::default(),
    ]
}
