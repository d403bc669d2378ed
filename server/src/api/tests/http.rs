use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};

use super::fakes::{FakeNode, Told, serve_http};
use crate::{
    api::{Face, Failure, Method, http::MAX_BODY_BYTES},
    auth::UnixSeconds,
    broker::{HistoryQuery, Limit, StreamPosition},
    config::{ErrorMode, HttpApi, Secret},
    error::{ApiError, Disconnect, Unsubscribed},
    node::Target,
    session::{ServerRefresh, ServerSubscription},
};

#[tokio::test]
async fn publish_hands_the_payload_over_as_written() {
    let backend = Backend::start().await;
    let body = r#"{"channel":"c", "data": { "b" : 1.50, "a":[ 1e2 ] ,"html":"<&>"}, "tags":{"t":"1"}, "idempotency_key":"k" }"#;
    assert_eq!(backend.post("/api/publish", body).await, (200, json!({"result": {}})));
    let told = Told::Published {
        channel: "c".to_owned(),
        data: Bytes::from_static(br#"{ "b" : 1.50, "a":[ 1e2 ] ,"html":"<&>"}"#),
        tags: vec![("t".to_owned(), "1".to_owned())],
        idempotency_key: Some("k".to_owned()),
    };
    assert_eq!(backend.node.told(), [told]);
    assert_eq!(backend.node.commands(), [(Face::Http, Method::Publish)]);
}

#[tokio::test]
async fn publish_answers_the_position_in_a_channel_with_history() {
    let backend = Backend::start().await;
    let answer = backend.post("/api/publish", r#"{"channel":"hist:c","data":null}"#).await;
    assert_eq!(answer, (200, json!({"result": {"offset": 7, "epoch": "xyz"}})));
    assert!(matches!(&backend.node.told()[..], [Told::Published { data, .. }] if data == "null"));
}

#[tokio::test]
async fn each_refusal_of_a_publish_has_its_code() {
    let backend = Backend::start().await;
    let refusals = [
        (r#"{"data":{}}"#, 107),
        (r#"{"channel":"","data":{}}"#, 107),
        (r#"{"channel":"c"}"#, 107),
        (r#"{"channel":"c","b64data":""}"#, 107),
        (r#"{"channel":"c","b64data":"?"}"#, 107),
        (r#"{"channel":"ghost:c","b64data":"?"}"#, 107),
        ("null", 107),
        (r#"{"channel":"ghost:c","data":1}"#, 102),
        (r#"{"channel":"map:c","data":1}"#, 107),
        (r#"{"channel":"json:c","b64data":"/w=="}"#, 107),
        (r#"{"channel":"object:c","data":5}"#, 107),
    ];
    for (body, code) in refusals {
        let (status, answer) = backend.post("/api/publish", body).await;
        assert_eq!((status, &answer["error"]["code"]), (200, &json!(code)), "{body}");
        assert_eq!(answer.as_object().map(|members| members.len()), Some(1), "{body}");
    }
    assert_eq!(backend.node.told(), []);
    assert_eq!(backend.node.failures().len(), refusals.len());
    for accepted in [
        r#"{"channel":"c","b64data":"/w=="}"#,
        r#"{"channel":"json:c","data":5}"#,
        r#"{"channel":"object:c","data": {}}"#,
        r#"{"channel":"binary:c"}"#,
        r#"{"channel":"binary:c","b64data":"/w=="}"#,
    ] {
        assert_eq!(backend.post("/api/publish", accepted).await, (200, json!({"result": {}})), "{accepted}");
    }
}

#[tokio::test]
async fn a_broker_that_is_away_or_behind_is_an_error_of_the_call() {
    let backend = Backend::start().await;
    let away = backend.post("/api/publish", r#"{"channel":"away:c","data":1}"#).await;
    assert_eq!(away, (200, json!({"error": {"code": 100, "message": "internal server error"}})));
    let busy = backend.post("/api/publish", r#"{"channel":"busy:c","data":1}"#).await;
    assert_eq!(busy.1["error"]["code"], 111);
    let expected = [ApiError::Internal, ApiError::Overloaded];
    assert_eq!(backend.node.failures(), expected.map(|error| (Face::Http, Method::Publish, Failure::Api(error))));
}

#[tokio::test]
async fn broadcast_answers_in_the_order_of_the_channels() {
    let backend = Backend::start().await;
    let body = r#"{"channels":["plain","hist:a","ghost:b","","away:c","object:d"],"data":1}"#;
    let (_, answer) = backend.post("/api/broadcast", body).await;
    let codes: Vec<_> = answer["result"]["responses"]
        .as_array()
        .expect("responses are a list")
        .iter()
        .map(|response| (response["result"]["offset"].as_u64(), response["error"]["code"].as_u64()))
        .collect();
    let expected =
        [(None, None), (Some(7), None), (None, Some(102)), (None, Some(107)), (None, Some(100)), (None, Some(107))];
    assert_eq!(codes, expected);
    let published = backend.node.told().into_iter().map(|told| match told {
        Told::Published { channel, .. } => channel,
        other => panic!("{other:?}"),
    });
    assert_eq!(published.collect::<Vec<_>>(), ["plain", "hist:a", "away:c"]);

    for whole_call in [r#"{"data":1}"#, r#"{"channels":[],"data":1}"#, r#"{"channels":["a"],"b64data":"!"}"#] {
        assert_eq!(backend.post("/api/broadcast", whole_call).await.1["error"]["code"], 107, "{whole_call}");
    }
    let without_data = backend.post("/api/broadcast", r#"{"channels":["a"]}"#).await.1;
    assert_eq!(without_data["result"]["responses"][0]["error"]["code"], 107);
}

#[tokio::test]
async fn a_broadcast_to_very_many_channels_keeps_their_order() {
    let backend = Backend::start().await;
    let channels: Vec<_> = (0..3000).map(|n| if n % 3 == 0 { format!("hist:{n}") } else { format!("c{n}") }).collect();
    let (_, answer) = backend.post("/api/broadcast", &json!({"channels": channels, "data": 1}).to_string()).await;
    let responses = answer["result"]["responses"].as_array().expect("responses are a list");
    assert_eq!(responses.len(), channels.len());
    assert!(responses.iter().enumerate().all(|(n, response)| response["result"]["offset"].is_u64() == (n % 3 == 0)));
}

#[tokio::test]
async fn disconnect_and_unsubscribe_tell_the_node_whom_and_why() {
    let backend = Backend::start().await;
    let body = r#"{"user":"42","client":"c1","whitelist":["c2"],"disconnect":{"code":4321,"reason":"go away"}}"#;
    assert_eq!(backend.post("/api/disconnect", body).await, (200, json!({"result": {}})));
    assert_eq!(backend.post("/api/disconnect", "{}").await, (200, json!({"result": {}})));
    assert_eq!(backend.post("/api/unsubscribe", r#"{"user":"42","channel":"c","session":"s"}"#).await.0, 200);
    assert_eq!(backend.post("/api/unsubscribe", r#"{"user":"42"}"#).await, (200, json!({"result": {}})));
    let target = |user: &str, client: Option<&str>, session: Option<&str>| Target {
        user: user.into(),
        client: client.map(str::to_owned),
        session: session.map(str::to_owned),
    };
    let expected = [
        Told::Disconnected {
            target: target("42", Some("c1"), None),
            cause: Disconnect { code: 4321, reason: "go away".into() },
            keep: vec!["c2".to_owned()],
        },
        Told::Disconnected { target: target("", None, None), cause: Disconnect::FORCE_DISCONNECT, keep: vec![] },
        Told::Unsubscribed {
            target: target("42", None, Some("s")),
            channel: Some("c".to_owned()),
            cause: Unsubscribed::SERVER,
        },
        Told::Unsubscribed { target: target("42", None, None), channel: None, cause: Unsubscribed::SERVER },
    ];
    assert_eq!(backend.node.told(), expected);
}

#[tokio::test]
async fn a_selection_that_is_not_supported_is_refused_and_hits_nobody() {
    let backend = Backend::start().await;
    for (method, body) in [
        ("disconnect", r#"{"all_users":true}"#),
        ("disconnect", r#"{"user":"42","label_filter":{"op":"eq"}}"#),
        ("unsubscribe", r#"{"channel":"c","all_users":true}"#),
        ("subscribe", r#"{"channel":"c","label_filter":{}}"#),
        ("refresh", r#"{"all_users":true}"#),
    ] {
        assert_eq!(backend.post(&format!("/api/{method}"), body).await.1["error"]["code"], 108, "{method} {body}");
    }
    assert_eq!(
        backend.post("/api/disconnect", r#"{"user":"42","disconnect":{"code":1000}}"#).await.1["error"]["code"],
        107
    );
    assert_eq!(backend.post("/api/unsubscribe", r#"{"user":"42","channel":"ghost:c"}"#).await.1["error"]["code"], 102);
    assert_eq!(backend.node.told(), []);
}

#[tokio::test]
async fn channels_and_info_describe_the_node() {
    let backend = Backend::start().await;
    let all = json!({"result": {"channels": {"one": {"num_clients": 2}, "ns:two": {"num_clients": 1}}}});
    assert_eq!(backend.post("/api/channels", "{}").await, (200, all));
    let some = json!({"result": {"channels": {"ns:two": {"num_clients": 1}}}});
    assert_eq!(backend.post("/api/channels", r#"{"pattern":"ns:*"}"#).await, (200, some));
    assert_eq!(backend.post("/api/channels", r#"{"pattern":"[one"}"#).await.1["error"]["code"], 100);
    let (_, info) = backend.post("/api/info", "{}").await;
    let node = &info["result"]["nodes"][0];
    assert_eq!((&node["name"], &node["version"], &node["num_subs"]), (&json!("test_8000"), &json!("0.0.0"), &json!(4)));
    assert_eq!(node.get("uptime"), None, "a new node has no uptime member");
}

#[tokio::test]
async fn methods_of_features_that_are_off_check_their_parameters_first() {
    let backend = Backend::start().await;
    for method in ["presence", "presence_stats", "history", "history_remove"] {
        for (body, code) in [("{}", 107), (r#"{"channel":"ghost:c"}"#, 102), (r#"{"channel":"c"}"#, 108)] {
            assert_eq!(backend.post(&format!("/api/{method}"), body).await.1["error"]["code"], code, "{method} {body}");
        }
    }
    assert_eq!(backend.post("/api/rpc", "{}").await.1["error"]["code"], 107);
    assert_eq!(backend.post("/api/rpc", r#"{"method":"x","params":{"a":1}}"#).await.1["error"]["code"], 104);
    for body in [r#"{"channel":"c","b64info":"!"}"#, r#"{"channel":"c","b64data":"!"}"#, r#"{"user":"u"}"#] {
        assert_eq!(backend.post("/api/subscribe", body).await.1["error"]["code"], 107, "{body}");
    }
    for method in [
        "map_publish",
        "map_remove",
        "map_read_state",
        "map_read_stream",
        "map_stats",
        "map_clear",
        "shared_poll_publish",
    ] {
        let path = format!("/api/{method}");
        assert_eq!(backend.post(&path, r#"{"channel":"c","key":"k","version":1}"#).await.1["error"]["code"], 107);
        assert_eq!(backend.post(&path, r#"{"channel":"ghost:c","key":"k","version":1}"#).await.1["error"]["code"], 102);
    }
}

#[tokio::test]
async fn history_is_read_as_asked_and_answered_with_its_position() {
    let backend = Backend::start().await;
    let whole = json!({"result": {
        "publications": [
            {"data": {"n": 6}, "info": {"user": "u", "client": "c1", "conn_info": {}}, "offset": 6, "tags": {"t": "x"}},
            {"data": 7, "offset": 7},
        ],
        "epoch": "xyz",
        "offset": 7,
    }});
    for (members, since, limit, reverse) in [
        ("", None, Limit::PositionOnly, false),
        (r#","limit":-7"#, None, Limit::All, false),
        (r#","limit":3,"reverse":true"#, None, Limit::AtMost(3), true),
        (r#","limit":3,"since":{"offset":0}"#, Some(0), Limit::AtMost(3), false),
        (r#","since":{"offset":5,"epoch":"xyz"}"#, Some(5), Limit::PositionOnly, false),
        (r#","reverse":true,"since":{"offset":5,"epoch":"xyz"}"#, Some(5), Limit::PositionOnly, true),
    ] {
        let body = format!(r#"{{"channel":"hist:c"{members}}}"#);
        assert_eq!(backend.post("/api/history", &body).await, (200, whole.clone()), "{body}");
        let query = HistoryQuery { since, limit, reverse };
        assert_eq!(backend.node.told(), [Told::HistoryRead { query, size: 10 }], "{body}");
    }
    let body = r#"{"channel":"hist:c"}"#;
    assert_eq!(backend.post("/api/history_remove", body).await, (200, json!({"result": {}})));
    assert_eq!(backend.node.told(), [Told::HistoryRemoved { channel: "hist:c".to_owned() }]);
}

#[tokio::test]
async fn a_position_that_history_cannot_serve_is_an_error() {
    let backend = Backend::start().await;
    for (members, code) in [
        (r#""since":{"offset":5,"epoch":"old"}"#, 112),
        (r#""limit":5,"since":{"offset":0,"epoch":"old"}"#, 112),
        (r#""limit":5,"reverse":true,"since":{"offset":0}"#, 100),
        (r#""reverse":true,"since":{"epoch":"old"}"#, 100),
    ] {
        let body = format!(r#"{{"channel":"hist:c",{members}}}"#);
        assert_eq!(backend.post("/api/history", &body).await.1["error"]["code"], code, "{body}");
    }
}

#[tokio::test]
async fn presence_is_listed_and_counted() {
    let backend = Backend::start().await;
    let list = json!({"result": {"presence": {"c1": {"user": "u", "client": "c1", "conn_info": {}}}}});
    assert_eq!(backend.post("/api/presence", r#"{"channel":"hist:c"}"#).await, (200, list));
    let stats = json!({"result": {"num_clients": 3, "num_users": 2}});
    assert_eq!(backend.post("/api/presence_stats", r#"{"channel":"hist:c"}"#).await, (200, stats));
}

#[tokio::test]
async fn a_store_that_is_away_is_an_internal_error() {
    let backend = Backend::start().await;
    for method in ["history", "history_remove", "presence", "presence_stats"] {
        let answer = backend.post(&format!("/api/{method}"), r#"{"channel":"away:c"}"#).await;
        assert_eq!(answer.1["error"]["code"], 100, "{method}");
    }
}

#[tokio::test]
async fn subscribe_tells_the_node_whom_to_what() {
    let backend = Backend::start().await;
    let body = r#"{"user":"42","client":"c1","session":"s1","channel":"hist:c","expire_at":4000000000,
        "info":{"a": 1},"data":2,"b64data":"eyJiIjoxfQ==","recover_since":{"offset":3,"epoch":"e"},
        "override":{"presence":{"value":false},"force_recovery":{"value":true},"join_leave":{"value":true},"force_positioning":{}}}"#;
    assert_eq!(backend.post("/api/subscribe", body).await, (200, json!({"result": {}})));
    let [Told::Subscribed { target, subscription }] = &backend.node.told()[..] else { panic!("nobody was subscribed") };
    assert_eq!(*target, Target { user: "42".into(), client: Some("c1".to_owned()), session: Some("s1".to_owned()) });
    let ServerSubscription { channel, granted, recover_since, history } = subscription;
    assert_eq!((channel.as_str(), history.map(|history| history.size)), ("hist:c", Some(10)));
    assert_eq!((&granted.info[..], &granted.data[..]), (&b"{\"a\": 1}"[..], &b"{\"b\":1}"[..]));
    assert_eq!((granted.presence, granted.join_leave, granted.push_join_leave), (false, true, false));
    assert_eq!((granted.recoverable, granted.positioned), (true, true));
    assert_eq!(granted.expire_at, Some(UnixSeconds(4_000_000_000)));
    assert_eq!(*recover_since, Some(StreamPosition { epoch: "e".into(), offset: 3 }));

    for body in [r#"{"channel":"hist:c"}"#, r#"{"channel":"hist:c","expire_at":-1,"override":{"presence":null}}"#] {
        assert_eq!(backend.post("/api/subscribe", body).await.0, 200);
        let [Told::Subscribed { target, subscription }] = &backend.node.told()[..] else { panic!("{body}") };
        assert_eq!(*target, Target { user: "".into(), client: None, session: None });
        let granted = &subscription.granted;
        // As the namespace has it.
        assert_eq!((granted.presence, granted.recoverable, granted.expire_at), (true, false, None));
        assert_eq!((&granted.info[..], &subscription.recover_since), (&b""[..], &None));
    }
}

#[tokio::test]
async fn a_subscription_that_has_expired_is_refused() {
    let backend = Backend::start().await;
    let answer = backend.post("/api/subscribe", r#"{"user":"42","channel":"c","expire_at":5}"#).await;
    assert_eq!(answer.1["error"]["code"], 107);
    assert_eq!(backend.node.told(), []);
}

#[tokio::test]
async fn refresh_tells_the_node_whom_and_until_when() {
    let backend = Backend::start().await;
    let whole = r#"{"user":"42","client":"c1","session":"s1","expired":true,"expire_at":5,"info":{"a": 1}}"#;
    for body in [whole, r#"{"user":"42","expire_at":-5}"#] {
        assert_eq!(backend.post("/api/refresh", body).await, (200, json!({"result": {}})));
    }
    let info = Some(Bytes::from_static(b"{\"a\": 1}"));
    let expected = [
        Told::Refreshed {
            target: Target { user: "42".into(), client: Some("c1".to_owned()), session: Some("s1".to_owned()) },
            refresh: ServerRefresh { expired: true, expire_at: Some(UnixSeconds(5)), info },
        },
        Told::Refreshed {
            target: Target { user: "42".into(), client: None, session: None },
            refresh: ServerRefresh::default(),
        },
    ];
    assert_eq!(backend.node.told(), expected);
}

#[tokio::test]
async fn batch_answers_one_reply_per_command_in_order() {
    let backend = Backend::start().await;
    let commands = r#"[{"publish":{"channel":"hist:c","data":{"n":1}}},{"publish":{"channel":"ghost:c","data":1}},null,{},
        {"dance":{}},{"broadcast":{"channels":["a","b"],"data":1}},{"presence":{"channel":"c"}},
        {"unsubscribe":{"user":"u","channel":"c"}},{"disconnect":{"user":"u"}},{"channels":{}},{"rpc":{"method":"x"}},
        {"subscribe":{"user":"u","channel":"c"}},{"refresh":{"user":"u"}},{"presence_stats":{"channel":"hist:c"}},
        {"history":{"channel":"hist:c","since":{"epoch":"old"}}},{"history_remove":{"channel":"hist:c"}}]"#;
    let error = |code: u32, message: &str| json!({"error": {"code": code, "message": message}});
    let expected = json!({"replies": [
        {"publish": {"offset": 7, "epoch": "xyz"}}, error(102, "unknown channel"), error(107, "bad request"),
        error(104, "not found"), error(104, "not found"), {"broadcast": {"responses": [{"result": {}}, {"result": {}}]}},
        error(108, "not available"), {"unsubscribe": {}}, {"disconnect": {}},
        {"channels": {"channels": {"one": {"num_clients": 2}, "ns:two": {"num_clients": 1}}}}, error(104, "not found"),
        {"subscribe": {}}, {"refresh": {}}, {"presence_stats": {"num_clients": 3, "num_users": 2}},
        error(112, "unrecoverable position"), {"history_remove": {}},
    ]});
    for parallel in [false, true] {
        let body = format!(r#"{{"commands":{commands},"parallel":{parallel}}}"#);
        assert_eq!(backend.post("/api/batch", &body).await, (200, expected.clone()));
    }
    let counted: Vec<_> = backend.node.commands().into_iter().map(|(_, method)| method).take(3).collect();
    assert_eq!(counted, [Method::Publish, Method::Publish, Method::Broadcast]);
    for empty in ["{}", r#"{"commands":[]}"#, r#"{"commands":null}"#] {
        assert_eq!(backend.post("/api/batch", empty).await, (200, json!({})));
    }
}

#[tokio::test]
async fn malformed_bodies_are_400_with_a_text() {
    let backend = Backend::start().await;
    for body in ["", r#"{"channel":"c""#, "[]", "\"text\"", r#"{"channel":5}"#, r#"{"channel":"c","data":{}} {}"#] {
        let request = backend.request("POST", "/api/publish");
        assert_eq!(backend.send(request, body).await, (400, "Bad Request\n".to_owned()), "{body}");
    }
    assert_eq!(backend.node.failures(), [(Face::Http, Method::Publish, Failure::Unmarshal); 6]);
}

#[tokio::test]
async fn path_method_and_key_are_judged_in_this_order() {
    let backend = Backend::with(HttpApi { key: Some(Secret::new("very-secret")), ..HttpApi::default() }).await;
    let send = async |method, path, key: &str, body| {
        let request = backend.request(method, path).header("x-api-key", key);
        backend.send(request, body).await
    };
    let not_found = (404, "404 page not found\n".to_owned());
    for path in ["/api/dance", "/api/connections", "/api/publish/", "/api/", "/api/Publish", "/API/publish", "/"] {
        assert_eq!(send("GET", path, "", "").await, not_found, "{path}");
    }
    assert_eq!(send("GET", "/api/info", "", "").await, (405, String::new()));
    assert_eq!(send("PUT", "/api", "very-secret", "{}").await, (405, String::new()));
    assert_eq!(send("POST", "/api/info", "wrong", "not json").await, (401, String::new()));
    assert_eq!(send("POST", "/api", "wrong", "not json").await, (401, String::new()));
    assert_eq!(send("POST", "/api/info", "very-secret", "not json").await.0, 400);
    assert_eq!(send("POST", "/api/info?api_key=very-secret", "wrong", "{}").await.0, 200);
}

#[tokio::test]
async fn without_a_key_configured_every_call_is_refused() {
    let backend = Backend::with(HttpApi::default()).await;
    for key in ["", "any"] {
        let request = backend.request("POST", "/api/info").header("x-api-key", key);
        assert_eq!(backend.send(request, "{}").await, (401, String::new()));
    }
}

#[tokio::test]
async fn transport_error_mode_turns_errors_into_statuses() {
    let backend = Backend::start().await;
    let publish = async |mode, body| {
        let request = backend.request("POST", "/api/publish").header("x-centrifugo-error-mode", mode);
        let (status, text) = backend.send(request, body).await;
        (status, serde_json::from_str::<Value>(&text).expect("the answer is JSON"))
    };
    let unknown = r#"{"channel":"ghost:c","data":1}"#;
    assert_eq!(publish("transport", unknown).await, (404, json!({"code": 102, "message": "unknown channel"})));
    assert_eq!(publish("Transport", unknown).await.0, 200);
    assert_eq!(publish("transport", r#"{"channel":"c","data":1}"#).await, (200, json!({"result": {}})));

    let options = HttpApi { insecure: true, error_mode: ErrorMode::Transport, ..HttpApi::default() };
    let backend = Backend::with(options).await;
    assert_eq!(backend.post("/api/channels", r#"{"pattern":"[a"}"#).await.0, 500);
    assert_eq!(backend.post("/api/broadcast", r#"{"channels":[]}"#).await.0, 400);
    assert_eq!(backend.post("/api/broadcast", r#"{"channels":["ghost:c"],"data":1}"#).await.0, 200);
    assert_eq!(backend.post("/api/batch", r#"{"commands":[{"rpc":{}}]}"#).await.0, 200);
    let old = backend.post("/api", r#"{"method":"publish"}"#).await;
    assert_eq!(old, (200, json!({"error": {"code": 107, "message": "bad request"}})));
}

#[tokio::test]
async fn the_old_form_answers_line_by_line() {
    let backend = Backend::start().await;
    let send = async |body: &str| backend.send(backend.request("POST", "/api"), body).await;
    let two = "{\"method\":\"publish\",\"params\":{\"channel\":\"hist:c\",\"data\":1}}\n{\"id\":2,\"method\":\"presence\",\"params\":{\"channel\":\"c\"}}";
    let lines = "{\"result\":{\"offset\":7,\"epoch\":\"xyz\"}}\n{\"id\":2,\"error\":{\"code\":108,\"message\":\"not available\"}}";
    assert_eq!(send(two).await, (200, lines.to_owned()));
    assert_eq!(send(&two.replace('\n', "")).await, (200, lines.to_owned()));
    let not_found = r#"{"error":{"code":104,"message":"not found"}}"#;
    let bad_request = r#"{"error":{"code":107,"message":"bad request"}}"#;
    for (body, answer) in [
        (r#"{"method":"PUBLISH","params":{"channel":"c","data":1}}"#, r#"{"result":{}}"#),
        (r#"{"params":{"channel":"c","data":1}}"#, r#"{"result":{}}"#),
        (r#"{"method":1,"params":{"channels":["c"],"data":1}}"#, r#"{"result":{"responses":[{"result":{}}]}}"#),
        (r#"{"method":13,"params":{}}"#, not_found),
        (r#"{"method":"connections","params":{}}"#, not_found),
        (r#"{"method":"refresh","params":{}}"#, r#"{"result":{}}"#),
        (r#"{"method":7,"params":{"channel":"hist:c"}}"#, r#"{"result":{}}"#),
        (
            r#"{"method":"presence","params":{"channel":"hist:c"}}"#,
            r#"{"result":{"presence":{"c1":{"user":"u","client":"c1","conn_info":{}}}}}"#,
        ),
        (r#"{"method":"publish","params":5}"#, bad_request),
        (r#"{"method":"publish"}"#, bad_request),
        (r#"{"method":"channels"}"#, bad_request),
        ("{}", bad_request),
        (" \n", ""),
    ] {
        assert_eq!(send(body).await, (200, answer.to_owned()), "{body}");
    }
    assert_eq!(send(r#"{"method":"info"}"#).await.0, 200);
}

#[tokio::test]
async fn a_malformed_command_of_the_old_form_spoils_the_answer_but_not_what_came_before() {
    let backend = Backend::start().await;
    for body in ["", "nonsense", r#"{"method":"dance"}"#, r#"{"method":"batch","params":{}}"#] {
        let request = backend.request("POST", "/api");
        assert_eq!(backend.send(request, body).await, (400, "Bad Request\n".to_owned()), "{body}");
    }
    assert_eq!(backend.node.told(), []);
    let body = "{\"params\":{\"channel\":\"c\",\"data\":1}}\nnonsense";
    assert_eq!(backend.send(backend.request("POST", "/api"), body).await.0, 400);
    assert_eq!(backend.node.told().len(), 1);
}

#[tokio::test]
async fn the_prefix_moves_all_paths() {
    let at = async |prefix: &str| {
        Backend::with(HttpApi { insecure: true, handler_prefix: prefix.to_owned(), ..HttpApi::default() }).await
    };
    let backend = at("/server/api/").await;
    let old = r#"{"method":"info","params":{}}"#;
    assert_eq!(backend.post("/server/api/info", "{}").await.0, 200);
    assert_eq!(backend.post("/server/api", old).await.0, 200);
    assert_eq!(backend.send(backend.request("POST", "/api/info"), "{}").await.0, 404);
    let backend = at("/").await;
    assert_eq!(backend.post("/info", "{}").await.0, 200);
    assert_eq!(backend.post("/", old).await.0, 200);
}

#[tokio::test]
async fn bodies_are_taken_up_to_the_limit() {
    let backend = Backend::start().await;
    let big = format!(r#"{{"channel":"c","data":"{}"}}"#, "x".repeat(3_000_000));
    assert_eq!(backend.post("/api/publish", &big).await, (200, json!({"result": {}})));
    assert!(matches!(&backend.node.told()[..], [Told::Published { data, .. }] if data.len() == 3_000_002));
    // A length over the limit is refused before the body is sent.
    let mut socket = tokio::net::TcpStream::connect(backend.address).await.expect("the server accepts");
    let head = format!("POST /api/publish HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", MAX_BODY_BYTES + 1);
    tokio::io::AsyncWriteExt::write_all(&mut socket, head.as_bytes()).await.expect("the server reads");
    let mut answer = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut socket, &mut answer).await.expect("the server answers");
    assert_eq!(&answer, b"HTTP/1.1 413");
    assert_eq!(backend.node.failures(), [(Face::Http, Method::Publish, Failure::ReadBody)]);
}

/// A server, and a client that calls it as a backend would.
struct Backend {
    node: Arc<FakeNode>,
    address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Backend {
    async fn start() -> Self {
        Self::with(HttpApi { insecure: true, ..HttpApi::default() }).await
    }

    async fn with(options: HttpApi) -> Self {
        let node = Arc::new(FakeNode::default());
        let address = serve_http(&node, &options).await;
        Self { node, address, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    fn request(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(format!("http://{}{path}", self.address))
    }

    async fn send(&self, request: http::request::Builder, body: &str) -> (u16, String) {
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).expect("a well-formed request");
        let response = self.client.request(request).await.expect("the server answers");
        let expected = match response.status() {
            StatusCode::OK => Some("application/json"),
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::UNAUTHORIZED => None,
            _ if response.headers().get("content-type").is_some_and(|kind| kind == "application/json") => {
                Some("application/json")
            }
            _ => Some("text/plain; charset=utf-8"),
        };
        let kind = response.headers().get("content-type").map(|kind| kind.to_str().expect("a text").to_owned());
        assert_eq!(kind.as_deref(), expected);
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("the answer arrives").to_bytes();
        (status, String::from_utf8(body.into()).expect("the answer is text"))
    }

    /// Posts a body and reads the answer as JSON.
    async fn post(&self, path: &str, body: &str) -> (u16, Value) {
        let (status, text) = self.send(self.request("POST", path), body).await;
        (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path} {body} answered {status} {text}")))
    }
}
