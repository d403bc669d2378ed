//! Bytes of every command, reply and push, in both encodings.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use starling_proto::client as pb;

use super::*;
use crate::{
    broker::{ClientInfo, StreamPosition},
    error::{ClientError, Disconnect, Unsubscribed},
    session::protocol::{ConnectResult, Expiry, HistoryRequest, Request, SubscribeRequest, SubscribeResult},
};

// ---- commands

fn command(id: u32, request: Request) -> Command {
    Command { id, request }
}

fn payload(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// Every command as JSON, as Protobuf and as it is within the server.
fn command_table() -> Vec<(&'static str, pb::Command, Command)> {
    let subs_entry = || SubscribeRequest { recover: true, offset: 5, epoch: "kXbQ".into(), ..Default::default() };
    vec![
        ("{}", pb::Command::default(), command(0, Request::Pong)),
        (
            r#"{"id":1,"connect":{}}"#,
            pb::Command { id: 1, connect: Some(Default::default()), ..Default::default() },
            command(1, Request::Connect(Box::default())),
        ),
        (
            r#"{"id":1,"connect":{"token":"t","data":{"a": 1},"subs":{"news":{"recover":true,"epoch":"kXbQ","offset":5}},
                "name":"js","version":"5.7.1","headers":{"x-a":"b"},"flag":1,"dict":"d"}}"#,
            pb::Command {
                id: 1,
                connect: Some(pb::ConnectRequest {
                    token: "t".into(),
                    data: payload(r#"{"a": 1}"#),
                    subs: BTreeMap::from([(
                        "news".into(),
                        pb::SubscribeRequest { recover: true, offset: 5, epoch: "kXbQ".into(), ..Default::default() },
                    )]),
                    name: "js".into(),
                    version: "5.7.1".into(),
                    headers: BTreeMap::from([("x-a".into(), "b".into())]),
                    flag: 1,
                    dict: "d".into(),
                    ..Default::default()
                }),
                ..Default::default()
            },
            command(
                1,
                Request::Connect(Box::new(ConnectRequest {
                    token: "t".into(),
                    data: payload(r#"{"a": 1}"#),
                    subs: BTreeMap::from([("news".into(), subs_entry())]),
                    name: "js".into(),
                    version: "5.7.1".into(),
                    headers: BTreeMap::from([("x-a".into(), "b".into())]),
                })),
            ),
        ),
        (
            r#"{"id":3,"subscribe":{"channel":"news","token":"t","recover":true,"epoch":"kXbQ","offset":5,"data":"d",
                "positioned":true,"recoverable":true,"join_leave":true,"delta":"fossil","flag":1,"type":2,
                "tf":{"op":"and","nodes":[{"key":"k","cmp":"in","vals":["a","b"]},{"key":"k","cmp":"eq","val":"v"}]}}}"#,
            pb::Command {
                id: 3,
                subscribe: Some(pb::SubscribeRequest {
                    channel: "news".into(),
                    token: "t".into(),
                    recover: true,
                    epoch: "kXbQ".into(),
                    offset: 5,
                    data: payload(r#""d""#),
                    positioned: true,
                    recoverable: true,
                    join_leave: true,
                    delta: "fossil".into(),
                    tf: Some(filter()),
                    flag: 1,
                    r#type: 2,
                    ..Default::default()
                }),
                ..Default::default()
            },
            command(
                3,
                Request::Subscribe(Box::new(SubscribeRequest {
                    channel: "news".into(),
                    token: "t".into(),
                    recover: true,
                    offset: 5,
                    epoch: "kXbQ".into(),
                    data: payload(r#""d""#),
                    positioned: true,
                    recoverable: true,
                    join_leave: true,
                    delta: "fossil".into(),
                    tags_filter: Some(Box::new(filter())),
                    flag: 1,
                    kind: 2,
                })),
            ),
        ),
        (
            r#"{"id":4,"unsubscribe":{"channel":"c"}}"#,
            pb::Command {
                id: 4,
                unsubscribe: Some(pb::UnsubscribeRequest { channel: "c".into() }),
                ..Default::default()
            },
            command(4, Request::Unsubscribe { channel: "c".into() }),
        ),
        (
            r#"{"id":5,"publish":{"channel":"c","data":[1]}}"#,
            pb::Command {
                id: 5,
                publish: Some(pb::PublishRequest { channel: "c".into(), data: payload("[1]"), ..Default::default() }),
                ..Default::default()
            },
            command(5, Request::Publish { channel: "c".into(), data: payload("[1]") }),
        ),
        (
            r#"{"id":6,"presence":{"channel":"c"}}"#,
            pb::Command { id: 6, presence: Some(pb::PresenceRequest { channel: "c".into() }), ..Default::default() },
            command(6, Request::Presence { channel: "c".into() }),
        ),
        (
            r#"{"id":7,"presence_stats":{"channel":"c"}}"#,
            pb::Command {
                id: 7,
                presence_stats: Some(pb::PresenceStatsRequest { channel: "c".into() }),
                ..Default::default()
            },
            command(7, Request::PresenceStats { channel: "c".into() }),
        ),
        (
            r#"{"id":8,"history":{"channel":"c","limit":-1,"since":{"offset":3,"epoch":"e"},"reverse":true}}"#,
            pb::Command {
                id: 8,
                history: Some(pb::HistoryRequest {
                    channel: "c".into(),
                    limit: -1,
                    since: Some(pb::StreamPosition { offset: 3, epoch: "e".into() }),
                    reverse: true,
                }),
                ..Default::default()
            },
            command(
                8,
                Request::History(Box::new(HistoryRequest {
                    channel: "c".into(),
                    limit: -1,
                    since: Some((3, "e".into())),
                    reverse: true,
                })),
            ),
        ),
        (
            r#"{"id":9,"rpc":{"method":"m","data":null}}"#,
            pb::Command {
                id: 9,
                rpc: Some(pb::RpcRequest { method: "m".into(), data: payload("null") }),
                ..Default::default()
            },
            command(9, Request::Rpc { method: "m".into(), data: payload("null") }),
        ),
        (
            r#"{"send":{"data":{}}}"#,
            pb::Command { send: Some(pb::SendRequest { data: payload("{}") }), ..Default::default() },
            command(0, Request::Send),
        ),
        (
            r#"{"id":10,"refresh":{"token":"t"}}"#,
            pb::Command { id: 10, refresh: Some(pb::RefreshRequest { token: "t".into() }), ..Default::default() },
            command(10, Request::Refresh { token: "t".into() }),
        ),
        (
            r#"{"id":11,"sub_refresh":{"channel":"c","token":"t"}}"#,
            pb::Command {
                id: 11,
                sub_refresh: Some(pb::SubRefreshRequest {
                    channel: "c".into(),
                    token: "t".into(),
                    ..Default::default()
                }),
                ..Default::default()
            },
            command(11, Request::SubRefresh { channel: "c".into(), token: "t".into() }),
        ),
    ]
}

fn filter() -> pb::FilterNode {
    let leaf = |cmp: &str, val: &str, vals: &[&str]| pb::FilterNode {
        key: "k".into(),
        cmp: cmp.into(),
        val: val.into(),
        vals: vals.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    let nodes = vec![leaf("in", "", &["a", "b"]), leaf("eq", "v", &[])];
    pb::FilterNode { op: "and".into(), nodes, ..Default::default() }
}

fn all(protocol: Protocol, message: &[u8]) -> Vec<Option<Command>> {
    commands(protocol, message).map(Result::ok).collect()
}

fn json(text: &str) -> Vec<Option<Command>> {
    all(Protocol::Json, text.as_bytes())
}

fn one_json(text: &str) -> Option<Command> {
    let mut commands = json(text);
    assert_eq!(commands.len(), 1, "{text}");
    commands.remove(0)
}

#[test]
fn every_command_means_the_same_in_both_encodings() {
    for (text, message, expected) in command_table() {
        let text = text.replace('\n', " ");
        assert_eq!(json(&text), [Some(expected.clone())], "{text}");
        assert_eq!(all(Protocol::Protobuf, &message.encode_length_delimited_to_vec()), [Some(expected)], "{message:?}");
    }
}

#[test]
fn several_commands_in_one_message_come_in_order() {
    let (mut text, mut bytes, mut expected) = (String::new(), Vec::new(), Vec::new());
    for (line, message, command) in command_table() {
        text.push_str(&line.replace('\n', " "));
        text.push('\n');
        message.encode_length_delimited(&mut bytes).unwrap();
        expected.push(Some(command));
    }
    assert_eq!(json(&text), expected, "one newline may follow the last command");
    assert_eq!(json(text.trim_end()), expected);
    assert_eq!(all(Protocol::Protobuf, &bytes), expected);
}

#[test]
fn reading_can_stop_after_any_command_and_go_on_with_the_rest() {
    let text = b"{\"id\":1,\"connect\":{}}\n{}\n{\"id\":2,\"presence\":{}}\n\n{}".as_slice();
    let bytes = [&[4, 8, 1, 34, 0][..], &[0], &[4, 8, 2, 66, 0], &[9, 9]].concat();
    for (protocol, message) in [(Protocol::Json, text), (Protocol::Protobuf, &bytes)] {
        let expected = all(protocol, message);
        assert_eq!(expected.len(), 4, "{protocol:?}");
        for stop in 1..=expected.len() {
            let mut first = commands(protocol, message);
            let mut seen: Vec<_> = first.by_ref().take(stop).map(Result::ok).collect();
            let rest = first.rest().to_vec();
            if !rest.is_empty() {
                seen.extend(all(protocol, &rest));
            }
            assert_eq!(seen, expected, "{protocol:?} stopped after {stop}");
        }
    }
}

#[test]
fn a_message_without_a_command_is_malformed() {
    for text in ["", "\n", " ", "null", "[]", "12", "\"\"", "{", "}"] {
        assert_eq!(json(text), [None], "{text:?}");
    }
    for bytes in [&[][..], &[0x7f, 8, 2], &[4, 255, 255, 255, 255], b"{\"id\":1,\"connect\":{}}", &[128], &[255; 11]] {
        assert_eq!(all(Protocol::Protobuf, bytes), [None], "{bytes:?}");
    }
}

#[test]
fn commands_before_a_blank_or_malformed_line_are_carried_out_and_none_after_it() {
    let good = Some(command(2, Request::Unsubscribe { channel: "c".into() }));
    let line = r#"{"id":2,"unsubscribe":{"channel":"c"}}"#;
    assert_eq!(json(&format!("{line}\n\n{line}")), [good.clone(), None]);
    assert_eq!(json(&format!("{line}\n\n")), [good.clone(), None]);
    assert_eq!(json(&format!("{line}\n{{\"id\":3\n{line}")), [good, None]);
}

#[test]
fn what_follows_a_complete_value_on_its_line_is_dropped() {
    for text in [r#"{"id":2,"presence":{}}{"id":3,"presence":{}}"#, "{\"id\":2,\"presence\":{}} junk\r\n"] {
        assert_eq!(json(text), [Some(command(2, Request::Presence { channel: String::new() }))]);
    }
}

#[test]
fn an_id_is_any_unsigned_32_bit_number_and_nothing_else() {
    assert_eq!(one_json(r#"{"id":4294967295,"presence":{}}"#).unwrap().id, u32::MAX);
    for id in ["-1", "4294967296", "1.0", "1e0", "\"1\"", "[]", "99999999999999999999999"] {
        assert_eq!(one_json(&format!(r#"{{"id":{id},"presence":{{}}}}"#)), None, "{id}");
    }
}

#[test]
fn a_command_without_an_id_is_a_pong_unless_it_sends() {
    for text in ["{}", r#"{"id":0}"#, r#"{"id":null,"subscribe":{"channel":"c"}}"#, r#"{"unknown":1}"#] {
        assert_eq!(one_json(text), Some(command(0, Request::Pong)), "{text}");
    }
    assert_eq!(one_json(r#"{"send":{}}"#), Some(command(0, Request::Send)));
    let unasked = pb::Command { subscribe: Some(Default::default()), ..Default::default() };
    let unasked = unasked.encode_length_delimited_to_vec();
    assert_eq!(all(Protocol::Protobuf, &unasked), [Some(command(0, Request::Pong))]);
}

#[test]
fn a_command_with_an_id_needs_a_body_that_is_known() {
    for text in [r#"{"id":2}"#, r#"{"id":2,"dance":{}}"#, r#"{"id":2,"ping":{}}"#, r#"{"id":2,"rpc":null}"#] {
        assert_eq!(one_json(text), None, "{text}");
    }
    let ping = pb::Command { id: 2, ping: Some(pb::PingRequest {}), ..Default::default() };
    assert_eq!(all(Protocol::Protobuf, &ping.encode_length_delimited_to_vec()), [None]);
}

#[test]
fn of_several_bodies_the_first_of_the_fixed_order_counts() {
    let order = [
        "connect",
        "subscribe",
        "unsubscribe",
        "publish",
        "presence",
        "presence_stats",
        "history",
        "rpc",
        "send",
        "refresh",
        "sub_refresh",
    ];
    for first in 0..order.len() {
        let only = one_json(&format!(r#"{{"id":1,"{}":{{}}}}"#, order[first])).unwrap();
        let mut text = r#"{"id":1"#.to_owned();
        for name in order[first..].iter().rev() {
            text.push_str(&format!(r#","{name}":{{}}"#));
        }
        assert_eq!(one_json(&(text + "}")), Some(only), "{}", order[first]);
    }
}

#[test]
fn null_and_unknown_members_are_absent() {
    let text = r#"{"id":2,"extra":[1,{"a":2}],"connect":null,"subscribe":{"channel":"c","more":true,"token":null,
        "recover":null,"offset":null,"tf":null}}"#
        .replace('\n', "");
    let expected = SubscribeRequest { channel: "c".into(), ..Default::default() };
    assert_eq!(one_json(&text), Some(command(2, Request::Subscribe(Box::new(expected)))));

    let text = r#"{"id":1,"connect":{"data":null,"subs":{"c":null},"headers":{"h":null}}}"#;
    let expected = ConnectRequest {
        data: payload("null"),
        subs: BTreeMap::from([("c".into(), SubscribeRequest::default())]),
        headers: BTreeMap::from([("h".into(), String::new())]),
        ..Default::default()
    };
    assert_eq!(one_json(text), Some(command(1, Request::Connect(Box::new(expected)))));

    let unknown = [0x0d, 8, 2, 0x2a, 3, 10, 1, b'c', 0x92, 6, 3, b'z', b'z', b'z'];
    let expected = SubscribeRequest { channel: "c".into(), ..Default::default() };
    assert_eq!(all(Protocol::Protobuf, &unknown), [Some(command(2, Request::Subscribe(Box::new(expected))))]);
}

#[test]
fn member_names_come_in_any_letter_case_and_the_last_of_a_name_counts() {
    let expected = Some(command(3, Request::Unsubscribe { channel: "b".into() }));
    assert_eq!(one_json(r#"{"ID":3,"Unsubscribe":{"chanNEL":"b"}}"#), expected);
    assert_eq!(one_json(r#"{"id":2,"id":3,"unsubscribe":{"channel":"a","channel":"b","channel":null}}"#), expected);
    assert_eq!(
        one_json(r#"{"unsubscribe":{"channel":"a"},"id":3,"unsubscribe":{"channel":"b"},"unsubscribe":null}"#),
        expected
    );
}

#[test]
fn values_of_another_type_are_malformed() {
    for text in [
        "[2]",
        r#"[2,null,null,["c"]]"#,
        r#"{"id":2,"unsubscribe":["c"]}"#,
        r#"{"id":2,"unsubscribe":"c"}"#,
        r#"{"id":2,"unsubscribe":{"channel":5}}"#,
        r#"{"id":2,"history":{"channel":"c","limit":99999999999}}"#,
        r#"{"id":2,"subscribe":{"offset":-1}}"#,
        r#"{"id":2,"subscribe":{"recover":1}}"#,
        r#"{"id":2,"publish":{"channel":"c","data":{"a":}}}"#,
        r#"{"id":2,"publish":{"channel":"c","data":01}}"#,
        "{\"id\":2,\"publish\":{\"channel\":\"c\",\"data\":\"a\tb\"}}",
        r#"{"id":2,"unsubscribe":{"channel":"c"},}"#,
        "\u{feff}{\"id\":2,\"unsubscribe\":{\"channel\":\"c\"}}",
    ] {
        assert_eq!(one_json(text), None, "{text}");
    }
}

#[test]
fn a_json_payload_keeps_its_bytes() {
    for data in [
        "{ \"z\": 1.0,  \"a\":1e3,\"u\":\"\\u00e9\\/<b>&\" }",
        "{\"n\": 123456789012345678901234567890}",
        "{\"a\":1,\"a\":2}",
        "null",
        "\"åß漢字🦀\u{2028}\\u0000\"",
        "[1, [2]]",
    ] {
        let text = format!(r#"{{"id":3,"publish":{{"channel":"c","data": {data} }}}}"#);
        let expected = Request::Publish { channel: "c".into(), data: Bytes::copy_from_slice(data.as_bytes()) };
        assert_eq!(one_json(&text), Some(command(3, expected)));
    }
}

#[test]
fn escapes_are_decoded_in_texts_and_member_names() {
    let text = "{\"\\u0069d\":2,\"un\\u0073ubscribe\":{\"channel\":\"\\u0061\\/b<c>\\\"\"}}";
    assert_eq!(one_json(text), Some(command(2, Request::Unsubscribe { channel: "a/b<c>\"".into() })));
}

#[test]
fn bytes_that_are_not_utf8_become_replacement_characters() {
    let message = b"{\"id\":2,\"unsubscribe\":{\"channel\":\"\xff\"}}";
    let expected = Request::Unsubscribe { channel: "\u{fffd}".into() };
    assert_eq!(all(Protocol::Json, message), [Some(command(2, expected))]);
}

#[test]
fn deep_nesting_is_taken_in_payloads_and_refused_in_filters() {
    let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    let published = one_json(&format!(r#"{{"id":1,"publish":{{"data":{deep}}},"unknown":{deep}}}"#));
    assert!(matches!(published.unwrap().request, Request::Publish { data, .. } if data.len() == deep.len()));

    let filter = format!("{}{{}}{}", r#"{"nodes":["#.repeat(200), "]}".repeat(200));
    assert_eq!(one_json(&format!(r#"{{"id":1,"subscribe":{{"channel":"c","tf":{filter}}}}}"#)), None);

    let mut node = pb::FilterNode::default();
    for _ in 0..200 {
        node = pb::FilterNode { nodes: vec![node], ..Default::default() };
    }
    let subscribe = Some(pb::SubscribeRequest { tf: Some(node), ..Default::default() });
    let nested = pb::Command { id: 1, subscribe, ..Default::default() }.encode_length_delimited_to_vec();
    assert_eq!(all(Protocol::Protobuf, &nested), [None]);
}

#[test]
fn what_is_wrong_is_told_without_quoting_the_client() {
    let failed = commands(Protocol::Json, br#"{"id":"secret"}"#).next().unwrap().unwrap_err();
    assert_eq!(failed.to_string(), "unexpected JSON value at column 14");
}

#[test]
fn a_bare_connect_request_opens_unidirectional_transports() {
    let expected = ConnectRequest { token: "t".into(), ..Default::default() };
    assert_eq!(connect_request(Protocol::Json, br#"{"token":"t"}"#), Ok(expected.clone()));
    assert_eq!(connect_request(Protocol::Json, b"null"), Ok(ConnectRequest::default()));
    assert!(connect_request(Protocol::Json, b"").is_err());
    let bytes = pb::ConnectRequest { token: "t".into(), ..Default::default() }.encode_to_vec();
    assert_eq!(connect_request(Protocol::Protobuf, &bytes), Ok(expected));
}

// ---- replies and pushes

fn position(epoch: &str, offset: u64) -> StreamPosition {
    StreamPosition { epoch: Arc::from(epoch), offset }
}

fn publication(data: &'static str, offset: u64) -> Publication {
    Publication { data: payload(data), position: Some(position("kXbQ", offset)), ..Default::default() }
}

fn pb_publication(data: &'static str, offset: u64) -> pb::Publication {
    pb::Publication { data: payload(data), offset, ..Default::default() }
}

fn info() -> ClientInfo {
    ClientInfo { user: "42".into(), client: "c-1".into(), conn_info: payload("{\"n\": 1}"), ..Default::default() }
}

fn pb_info() -> pb::ClientInfo {
    pb::ClientInfo { user: "42".into(), client: "c-1".into(), conn_info: payload("{\"n\": 1}"), ..Default::default() }
}

/// Every reply as it is within the server, as JSON and as Protobuf.
fn reply_table() -> Vec<(u32, Reply, &'static str, pb::Reply)> {
    let recovered = SubscribeResult {
        recoverable: true,
        positioned: true,
        position: Some(position("kXbQ", 7)),
        publications: vec![publication("{\"a\":6}", 6), publication("{\"a\":7}", 7)],
        recovered: true,
        was_recovering: true,
        ..Default::default()
    };
    let pb_recovered = pb::SubscribeResult {
        recoverable: true,
        epoch: "kXbQ".into(),
        publications: vec![pb_publication("{\"a\":6}", 6), pb_publication("{\"a\":7}", 7)],
        recovered: true,
        offset: 7,
        positioned: true,
        was_recovering: true,
        ..Default::default()
    };
    let expiring =
        SubscribeResult { expiry: Expiry(Some(60)), data: payload("\"d\""), delta: true, ..Default::default() };
    let pb_expiring =
        pb::SubscribeResult { expires: true, ttl: 60, data: payload("\"d\""), delta: true, ..Default::default() };
    let message = |id| pb::Reply { id, ..Default::default() };
    vec![
        (
            4,
            Reply::Error(ClientError::PermissionDenied),
            r#"{"id":4,"error":{"code":103,"message":"permission denied"}}"#,
            pb::Reply {
                error: Some(pb::Error { code: 103, message: "permission denied".into(), temporary: false }),
                ..message(4)
            },
        ),
        (
            4,
            Reply::Error(ClientError::Internal),
            r#"{"id":4,"error":{"code":100,"message":"internal server error","temporary":true}}"#,
            pb::Reply {
                error: Some(pb::Error { code: 100, message: "internal server error".into(), temporary: true }),
                ..message(4)
            },
        ),
        (
            1,
            Reply::Connect(Box::new(ConnectResult {
                client: "c-1".into(),
                version: "0.1.0",
                ping: 25,
                pong: true,
                ..Default::default()
            })),
            r#"{"id":1,"connect":{"client":"c-1","version":"0.1.0","ping":25,"pong":true}}"#,
            pb::Reply {
                connect: Some(pb::ConnectResult {
                    client: "c-1".into(),
                    version: "0.1.0".into(),
                    ping: 25,
                    pong: true,
                    ..Default::default()
                }),
                ..message(1)
            },
        ),
        (
            1,
            Reply::Connect(Box::new(ConnectResult {
                client: "c-1".into(),
                version: "0.1.0",
                expiry: Expiry(Some(3600)),
                data: payload("[]"),
                subs: BTreeMap::from([("a\"b".into(), expiring.clone()), ("z".into(), SubscribeResult::default())]),
                ping: 0,
                pong: false,
                session: "s".into(),
                node: "n".into(),
                time: Some(1_700_000_000_000),
            })),
            "{\"id\":1,\"connect\":{\"client\":\"c-1\",\"version\":\"0.1.0\",\"expires\":true,\"ttl\":3600,\"data\":[],\
             \"subs\":{\"a\\\"b\":{\"expires\":true,\"ttl\":60,\"data\":\"d\",\"delta\":true},\"z\":{}},\
             \"session\":\"s\",\"node\":\"n\",\"time\":1700000000000}}",
            pb::Reply {
                connect: Some(pb::ConnectResult {
                    client: "c-1".into(),
                    version: "0.1.0".into(),
                    expires: true,
                    ttl: 3600,
                    data: payload("[]"),
                    subs: BTreeMap::from([("a\"b".into(), pb_expiring.clone()), ("z".into(), Default::default())]),
                    session: "s".into(),
                    node: "n".into(),
                    time: 1_700_000_000_000,
                    ..Default::default()
                }),
                ..message(1)
            },
        ),
        (
            2,
            Reply::Subscribe(Box::default()),
            r#"{"id":2,"subscribe":{}}"#,
            pb::Reply { subscribe: Some(Default::default()), ..message(2) },
        ),
        (
            2,
            Reply::Subscribe(Box::new(SubscribeResult {
                recoverable: true,
                positioned: true,
                position: Some(position("kXbQzWpr", 0)),
                ..Default::default()
            })),
            r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"kXbQzWpr","positioned":true}}"#,
            pb::Reply {
                subscribe: Some(pb::SubscribeResult {
                    recoverable: true,
                    epoch: "kXbQzWpr".into(),
                    positioned: true,
                    ..Default::default()
                }),
                ..message(2)
            },
        ),
        (
            3,
            Reply::Subscribe(Box::new(recovered)),
            "{\"id\":3,\"subscribe\":{\"recoverable\":true,\"epoch\":\"kXbQ\",\
             \"publications\":[{\"data\":{\"a\":6},\"offset\":6},{\"data\":{\"a\":7},\"offset\":7}],\
             \"recovered\":true,\"offset\":7,\"positioned\":true,\"was_recovering\":true}}",
            pb::Reply { subscribe: Some(pb_recovered), ..message(3) },
        ),
        (
            3,
            Reply::Subscribe(Box::new(expiring)),
            r#"{"id":3,"subscribe":{"expires":true,"ttl":60,"data":"d","delta":true}}"#,
            pb::Reply { subscribe: Some(pb_expiring), ..message(3) },
        ),
        (
            4_294_967_295,
            Reply::Unsubscribe,
            r#"{"id":4294967295,"unsubscribe":{}}"#,
            pb::Reply { unsubscribe: Some(pb::UnsubscribeResult {}), ..message(u32::MAX) },
        ),
        (
            6,
            Reply::Publish,
            r#"{"id":6,"publish":{}}"#,
            pb::Reply { publish: Some(pb::PublishResult {}), ..message(6) },
        ),
        (
            7,
            Reply::Presence(BTreeMap::new()),
            r#"{"id":7,"presence":{"presence":{}}}"#,
            pb::Reply { presence: Some(Default::default()), ..message(7) },
        ),
        (
            7,
            Reply::Presence(BTreeMap::from([("c-1".into(), info()), ("c-2".into(), ClientInfo::default())])),
            "{\"id\":7,\"presence\":{\"presence\":{\"c-1\":{\"user\":\"42\",\"client\":\"c-1\",\"conn_info\":{\"n\": 1}},\
             \"c-2\":{\"user\":\"\",\"client\":\"\"}}}}",
            pb::Reply {
                presence: Some(pb::PresenceResult {
                    presence: BTreeMap::from([("c-1".into(), pb_info()), ("c-2".into(), Default::default())]),
                }),
                ..message(7)
            },
        ),
        (
            8,
            Reply::PresenceStats { clients: 0, users: 0 },
            r#"{"id":8,"presence_stats":{"num_clients":0,"num_users":0}}"#,
            pb::Reply { presence_stats: Some(Default::default()), ..message(8) },
        ),
        (
            9,
            Reply::History { publications: vec![], top: position("", 0) },
            r#"{"id":9,"history":{"publications":[],"epoch":"","offset":0}}"#,
            pb::Reply { history: Some(Default::default()), ..message(9) },
        ),
        (
            9,
            Reply::History { publications: vec![publication("1", 1), publication("2", 2)], top: position("kXbQ", 2) },
            "{\"id\":9,\"history\":{\"publications\":[{\"data\":1,\"offset\":1,\"epoch\":\"kXbQ\"},\
             {\"data\":2,\"offset\":2}],\"epoch\":\"kXbQ\",\"offset\":2}}",
            pb::Reply {
                history: Some(pb::HistoryResult {
                    publications: vec![
                        pb::Publication { epoch: "kXbQ".into(), ..pb_publication("1", 1) },
                        pb_publication("2", 2),
                    ],
                    epoch: "kXbQ".into(),
                    offset: 2,
                }),
                ..message(9)
            },
        ),
        (
            10,
            Reply::Rpc(payload("{}")),
            r#"{"id":10,"rpc":{"data":{}}}"#,
            pb::Reply { rpc: Some(pb::RpcResult { data: payload("{}") }), ..message(10) },
        ),
        (
            10,
            Reply::Rpc(Bytes::new()),
            r#"{"id":10,"rpc":{}}"#,
            pb::Reply { rpc: Some(Default::default()), ..message(10) },
        ),
        (
            11,
            Reply::Refresh(Expiry(Some(60))),
            r#"{"id":11,"refresh":{"expires":true,"ttl":60}}"#,
            pb::Reply {
                refresh: Some(pb::RefreshResult { expires: true, ttl: 60, ..Default::default() }),
                ..message(11)
            },
        ),
        (
            12,
            Reply::SubRefresh(Expiry(None)),
            r#"{"id":12,"sub_refresh":{}}"#,
            pb::Reply { sub_refresh: Some(Default::default()), ..message(12) },
        ),
    ]
}

/// Every push as it is within the server, as JSON of the bare push and as Protobuf.
fn push_table() -> Vec<(Push, &'static str, pb::Push)> {
    let channel = || ChannelName::from("news");
    let message = || pb::Push { channel: "news".into(), ..Default::default() };
    vec![
        (
            Push::Publication { channel: channel(), publication: publication("{\"a\":8}", 8) },
            r#"{"channel":"news","pub":{"data":{"a":8},"offset":8}}"#,
            pb::Push { r#pub: Some(pb_publication("{\"a\":8}", 8)), ..message() },
        ),
        (
            Push::Publication {
                channel: channel(),
                publication: Publication {
                    data: payload("{}"),
                    info: Some(info()),
                    tags: BTreeMap::from([("k\n".into(), "v".into()), ("l".into(), String::new())]),
                    position: Some(position("kXbQ", 1)),
                    time: Some(5),
                    ..Publication::default()
                },
            },
            "{\"channel\":\"news\",\"pub\":{\"data\":{},\
             \"info\":{\"user\":\"42\",\"client\":\"c-1\",\"conn_info\":{\"n\": 1}},\"offset\":1,\
             \"tags\":{\"k\\n\":\"v\",\"l\":\"\"},\"epoch\":\"kXbQ\"}}",
            pb::Push {
                r#pub: Some(pb::Publication {
                    data: payload("{}"),
                    info: Some(pb_info()),
                    offset: 1,
                    tags: BTreeMap::from([("k\n".into(), "v".into()), ("l".into(), String::new())]),
                    epoch: "kXbQ".into(),
                    ..Default::default()
                }),
                ..message()
            },
        ),
        (
            Push::Publication { channel: channel(), publication: Publication::default() },
            r#"{"channel":"news","pub":{}}"#,
            pb::Push { r#pub: Some(Default::default()), ..message() },
        ),
        (
            Push::Join { channel: channel(), info: ClientInfo::default() },
            r#"{"channel":"news","join":{"info":{"user":"","client":""}}}"#,
            pb::Push { join: Some(pb::Join { info: Some(Default::default()) }), ..message() },
        ),
        (
            Push::Leave { channel: channel(), info: info() },
            r#"{"channel":"news","leave":{"info":{"user":"42","client":"c-1","conn_info":{"n": 1}}}}"#,
            pb::Push { leave: Some(pb::Leave { info: Some(pb_info()) }), ..message() },
        ),
        (
            Push::Unsubscribe { channel: channel(), cause: Unsubscribed::INSUFFICIENT_STATE },
            r#"{"channel":"news","unsubscribe":{"code":2500,"reason":"insufficient state"}}"#,
            pb::Push {
                unsubscribe: Some(pb::Unsubscribe { code: 2500, reason: "insufficient state".into() }),
                ..message()
            },
        ),
        (
            Push::Subscribe {
                channel: channel(),
                result: Box::new(SubscribeResult {
                    recoverable: true,
                    positioned: true,
                    position: Some(position("kXbQ", 9)),
                    data: payload("0"),
                    recovered: true,
                    ..Default::default()
                }),
            },
            r#"{"channel":"news","subscribe":{"recoverable":true,"epoch":"kXbQ","offset":9,"positioned":true,"data":0}}"#,
            pb::Push {
                subscribe: Some(pb::Subscribe {
                    recoverable: true,
                    epoch: "kXbQ".into(),
                    offset: 9,
                    positioned: true,
                    data: payload("0"),
                }),
                ..message()
            },
        ),
        (
            Push::Connect(Box::new(ConnectResult {
                client: "c-1".into(),
                version: "0.1.0",
                ping: 25,
                session: "s".into(),
                ..Default::default()
            })),
            r#"{"connect":{"client":"c-1","version":"0.1.0","ping":25,"session":"s"}}"#,
            pb::Push {
                connect: Some(pb::Connect {
                    client: "c-1".into(),
                    version: "0.1.0".into(),
                    ping: 25,
                    session: "s".into(),
                    ..Default::default()
                }),
                ..Default::default()
            },
        ),
        (
            Push::Disconnect(Disconnect::SHUTDOWN),
            r#"{"disconnect":{"code":3001,"reason":"shutdown"}}"#,
            pb::Push {
                disconnect: Some(pb::Disconnect { code: 3001, reason: "shutdown".into(), reconnect: false }),
                ..Default::default()
            },
        ),
        (
            Push::Refresh(Expiry(Some(10))),
            r#"{"refresh":{"expires":true,"ttl":10}}"#,
            pb::Push { refresh: Some(pb::Refresh { expires: true, ttl: 10 }), ..Default::default() },
        ),
    ]
}

fn written(write: impl FnOnce(&mut Vec<u8>) -> Result<(), InvalidPayload>) -> Vec<u8> {
    let mut out = b"before".to_vec();
    write(&mut out).unwrap();
    assert_eq!(&out[..6], b"before");
    out.split_off(6)
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn every_reply_has_the_bytes_of_the_reference_server() {
    for (id, body, json, message) in reply_table() {
        assert_eq!(text(written(|out| reply(Protocol::Json, id, &body, out))), json);
        let bytes = written(|out| reply(Protocol::Protobuf, id, &body, out));
        assert_eq!(bytes, message.encode_length_delimited_to_vec(), "{json}");
    }
}

#[test]
fn every_push_has_the_bytes_of_the_reference_server() {
    for (body, json, message) in push_table() {
        assert_eq!(text(written(|out| bare_push(Protocol::Json, &body, out))), json);
        assert_eq!(text(written(|out| push(Protocol::Json, &body, out))), format!("{{\"push\":{json}}}"));

        let bare = written(|out| bare_push(Protocol::Protobuf, &body, out));
        assert_eq!(bare, message.encode_length_delimited_to_vec(), "{json}");
        let wrapped = pb::Reply { push: Some(message), ..Default::default() }.encode_length_delimited_to_vec();
        assert_eq!(written(|out| push(Protocol::Protobuf, &body, out)), wrapped, "{json}");

        if let Push::Publication { channel, publication } = &body {
            for protocol in [Protocol::Json, Protocol::Protobuf] {
                let fast = written(|out| publication_push(protocol, channel, publication, out));
                assert_eq!(fast, written(|out| push(protocol, &body, out)), "{json}");
            }
        }
    }
}

#[test]
fn a_payload_loses_its_newlines_in_json_only() {
    let publication = Publication { data: payload("{\n \"a\": 1,\n \"b\": \"x\\ny\"\n}"), ..Default::default() };
    let body = Push::Publication { channel: "c".into(), publication: publication.clone() };
    assert_eq!(
        text(written(|out| push(Protocol::Json, &body, out))),
        "{\"push\":{\"channel\":\"c\",\"pub\":{\"data\":{ \"a\": 1, \"b\": \"x\\ny\"}}}}"
    );
    let bytes = written(|out| push(Protocol::Protobuf, &body, out));
    let sent = pb::Reply::decode_length_delimited(&*bytes).unwrap().push.unwrap().r#pub.unwrap();
    assert_eq!(sent.data, publication.data);
}

#[test]
fn a_payload_that_is_not_json_is_refused_and_leaves_nothing_behind() {
    for data in [&b"\x00\xff\xfe"[..], b"{oops", b"1 2", b"\n", b" ", b"\"\xff\"", b"{} {}", b"nul", b"\"\t\""] {
        let data = Bytes::copy_from_slice(data);
        let publication = Publication { data: data.clone(), ..Default::default() };
        let body = Push::Publication { channel: "c".into(), publication };
        let mut out = Vec::new();
        let mut batch = Batch::new(Protocol::Json, &mut out);
        batch.ping();
        assert_eq!(batch.push(&body), Err(InvalidPayload), "{data:?}");
        assert_eq!(batch.reply(1, &Reply::Rpc(data)), Err(InvalidPayload));
        batch.ping();
        assert_eq!(out, b"{}\n{}");

        out.clear();
        assert_eq!(push(Protocol::Protobuf, &body, &mut out), Ok(()));
    }
}

#[test]
fn a_deeply_nested_payload_is_embedded() {
    let deep = Bytes::from(format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)));
    assert_eq!(written(|out| reply(Protocol::Json, 1, &Reply::Rpc(deep.clone()), out)).len(), deep.len() + 24);
}

#[test]
fn a_batch_joins_json_by_newlines_and_protobuf_by_lengths() {
    for (protocol, expected) in [
        (
            Protocol::Json,
            &b"head{\"id\":1,\"publish\":{}}\n{\"push\":{\"refresh\":{}}}\n{\"refresh\":{}}\n{}\n{\"id\":2}"[..],
        ),
        (Protocol::Protobuf, b"head\x04\x08\x01\x42\x00\x04\x22\x02\x62\x00\x02\x62\x00\x00{\"id\":2}"),
    ] {
        let mut out = b"head".to_vec();
        let mut batch = Batch::new(protocol, &mut out);
        assert!(batch.is_empty());
        batch.reply(1, &Reply::Publish).unwrap();
        batch.push(&Push::Refresh(Expiry(None))).unwrap();
        batch.bare_push(&Push::Refresh(Expiry(None))).unwrap();
        batch.ping();
        batch.encoded(b"{\"id\":2}");
        assert!(!batch.is_empty());
        assert_eq!(out, expected, "{}", String::from_utf8_lossy(&out));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic_to_the_end(message in proptest::collection::vec(any::<u8>(), 0..300)) {
        for protocol in [Protocol::Json, Protocol::Protobuf] {
            let mut commands = commands(protocol, &message);
            let mut left = message.len();
            while let Some(command) = commands.next() {
                prop_assert!(commands.rest().len() < left || message.is_empty());
                left = commands.rest().len();
                prop_assert!(command.is_ok() || left == 0);
            }
            prop_assert!(commands.rest().is_empty());
            let _ = connect_request(protocol, &message);
        }
    }

    #[test]
    fn bent_commands_are_read_without_panic(
        which in 0..13usize, at in 0..400usize, byte in any::<u8>(), cut in 0..400usize,
    ) {
        let (text, message, _) = command_table().swap_remove(which);
        for (protocol, mut bytes) in [
            (Protocol::Json, text.replace('\n', " ").into_bytes()),
            (Protocol::Protobuf, message.encode_length_delimited_to_vec()),
        ] {
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes.truncate(bytes.len().saturating_sub(cut % 8));
            commands(protocol, &bytes).for_each(drop);
        }
    }

    #[test]
    fn a_json_payload_is_embedded_exactly_when_it_is_json_on_one_line(
        data in "[\\[\\]{}\",:0-9a \\\\tru\n\u{e9}]{1,12}",
    ) {
        let joined = data.replace('\n', "");
        let valid = serde_json::from_str::<serde_json::Value>(&joined).is_ok();
        let mut out = Vec::new();
        let result = reply(Protocol::Json, 1, &Reply::Rpc(Bytes::from(data)), &mut out);
        prop_assert_eq!(result.is_ok(), valid);
        if valid {
            prop_assert_eq!(String::from_utf8(out).unwrap(), format!("{{\"id\":1,\"rpc\":{{\"data\":{joined}}}}}"));
        } else {
            prop_assert!(out.is_empty());
        }
    }
}
