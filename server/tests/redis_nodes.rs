//! Two nodes of one cluster over a real Redis: they know each other, act for each other and answer each other.

mod redis_support;

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use prost::Message as _;
use redis_support::{Call, RedisServer, TestNode, soon, until};
use starling_proto::{api, control as wire};
use starling_server::{
    auth::{ChannelClaims, Overrides, UnixSeconds},
    broker::StreamPosition,
    error::{Disconnect, Unsubscribed},
    node::{SurveyError, Target},
    session::{ServerRefresh, ServerSubscription},
};

fn target(user: &str) -> Target {
    Target { user: user.into(), client: None, session: None }
}

fn subscription(channel: &str, expire_at: Option<UnixSeconds>) -> ServerSubscription {
    let namespaces = redis_support::namespaces();
    let rules = namespaces.resolve(channel).unwrap();
    let overrides = Overrides { join_leave: Some(true), force_recovery: Some(true), ..Overrides::default() };
    let claims = ChannelClaims { info: Bytes::from_static(b"1"), data: Bytes::from_static(b"2"), overrides };
    ServerSubscription {
        channel: channel.into(),
        granted: rules.granted_by_server(Some(&claims), expire_at),
        recover_since: Some(StreamPosition { epoch: "e".into(), offset: 3 }),
        history: rules.history(),
    }
}

/// Says something to all nodes as a foreign one.
async fn say(redis: &RedisServer, channel: &str, command: &wire::Command) {
    let mut connection = redis.connection().await;
    redis::cmd("PUBLISH").arg(channel).arg(command.encode_to_vec()).exec_async(&mut connection).await.unwrap();
}

fn announcement(uid: &str) -> wire::Command {
    let node = wire::Node { uid: uid.into(), name: "foreign".into(), num_clients: 7, ..Default::default() };
    wire::Command { uid: uid.into(), node: Some(node), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_know_each_other_until_one_stops() {
    let redis = RedisServer::start().await;
    let a = TestNode::start(redis.settings(), "a", &[("news", 1)]);
    a.meets(&["a"]).await;
    let b = TestNode::start(redis.settings(), "b", &[("news", 1), ("chat", 1)]);
    a.meets(&["a", "b"]).await;
    b.meets(&["a", "b"]).await;
    let infos = a.node.info().await;
    assert_eq!((&*infos[0].uid, &*infos[1].uid, &*infos[1].name), ("a", "b", "name-of-b"));
    assert_eq!((infos[0].counts.channels, infos[1].counts.channels), (1, 2));
    assert_eq!(infos[1].version, "0.0.0 TEST");
    b.stop().await;
    a.meets(&["a"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_subscribes_before_it_announces_itself() {
    let redis = RedisServer::start().await;
    let mut monitor = redis.monitor().await;
    let _node = TestNode::start(redis.settings(), "a", &[]);
    let mut seen = Vec::new();
    while seen.last().is_none_or(|words: &Vec<String>| words[0] != "PUBLISH") {
        seen.push(monitor.next(&["SUBSCRIBE", "PUBLISH"]).await.1);
    }
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    assert!(seen.contains(&words(&["SUBSCRIBE", "centrifugo.control", "centrifugo.node.a"])), "{seen:?}");
    assert_eq!(seen.last().unwrap()[1], "centrifugo.control");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_about_users_reach_every_node_once() {
    let redis = RedisServer::start().await;
    let mut a = TestNode::start(redis.settings(), "a", &[]);
    let mut b = TestNode::start(redis.settings(), "b", &[]);
    a.meets(&["a", "b"]).await;
    b.meets(&["a", "b"]).await;
    let narrow = Target { user: "42".into(), client: Some("c1".into()), session: Some("s1".into()) };
    let far = UnixSeconds(4_000_000_000);
    let custom = Disconnect { code: 4000, reason: "bye".into() };
    let calls = [
        Call::Subscribe(narrow.clone(), subscription("kept:news", Some(far))),
        Call::Subscribe(target(""), subscription("chat", None)),
        Call::Refresh(
            narrow.clone(),
            ServerRefresh { expired: true, expire_at: Some(far), info: Some(Bytes::from_static(b"1")) },
        ),
        Call::Refresh(target("42"), ServerRefresh::default()),
        Call::Disconnect(target("42"), Disconnect::FORCE_DISCONNECT, vec![]),
        Call::Disconnect(target(""), Disconnect::FORCE_DISCONNECT, vec![]),
        Call::Disconnect(narrow.clone(), custom, vec!["c2".into(), "c3".into()]),
        Call::Unsubscribe(target("42"), Some("news".into()), Unsubscribed::SERVER),
        Call::Unsubscribe(narrow, None, Unsubscribed::SERVER),
    ];
    for call in &calls {
        match call {
            Call::Subscribe(target, subscription) => a.node.subscribe(target, subscription.clone()).await.unwrap(),
            Call::Refresh(target, refresh) => a.node.refresh(target, refresh.clone()).await.unwrap(),
            Call::Disconnect(target, cause, keep) => a.node.disconnect(target, cause, keep).await.unwrap(),
            Call::Unsubscribe(target, channel, cause) => {
                a.node.unsubscribe(target, channel.as_ref(), cause).await.unwrap();
            }
        }
    }
    for call in &calls {
        assert_eq!(a.call().await, *call);
        assert_eq!(b.call().await, *call);
    }
    // What a said came back to a before this: it did not act twice.
    b.node.disconnect(&target("last"), &Disconnect::SHUTDOWN, &[]).await.unwrap();
    assert_eq!(a.call().await, Call::Disconnect(target("last"), Disconnect::SHUTDOWN, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_that_cannot_be_made_here_are_not() {
    let redis = RedisServer::start().await;
    let mut a = TestNode::start(redis.settings(), "a", &[]);
    a.meets(&["a"]).await;
    until("a listener", redis_support::SOON, async || redis.channels().await.contains("centrifugo.control")).await;
    let ask = |channel: &str, expire_at| wire::Command {
        uid: "foreign".into(),
        subscribe: Some(wire::Subscribe { channel: channel.into(), expire_at, ..Default::default() }),
        ..Default::default()
    };
    for command in [ask("ghost:c", 0), ask("chat", 5), ask("", 0), ask("kept:c", 0)] {
        say(&redis, "centrifugo.control", &command).await;
    }
    let call = a.call().await;
    let Call::Subscribe(target, subscription) = call else { panic!("{call:?}") };
    assert!(target.user.is_anonymous());
    assert_eq!(subscription.channel.as_str(), "kept:c");
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_are_summed_over_the_nodes() {
    let redis = RedisServer::start().await;
    let a = TestNode::start(redis.settings(), "a", &[("news", 2), ("only:a", 1)]);
    let b = TestNode::start(redis.settings(), "b", &[("news", 3), ("only:b", 1)]);
    a.meets(&["a", "b"]).await;
    b.meets(&["a", "b"]).await;
    let all = BTreeMap::from([("news".to_owned(), 5), ("only:a".to_owned(), 1), ("only:b".to_owned(), 1)]);
    assert_eq!(a.node.channels(None).await, Ok(all.clone()));
    assert_eq!(b.node.channels(Some("")).await, Ok(all));
    let some = BTreeMap::from([("only:a".to_owned(), 1), ("only:b".to_owned(), 1)]);
    assert_eq!(b.node.channels(Some("only:*")).await, Ok(some));
    assert_eq!(a.node.channels(Some("[one")).await, Err(SurveyError::BadPattern));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_does_not_keep_the_answers_of_the_others() {
    let redis = RedisServer::start().await;
    let a = TestNode::start(redis.settings(), "a", &[("news", 2)]);
    let b = TestNode::start(redis.settings(), "b", &[("news", 3)]);
    a.meets(&["a", "b"]).await;
    b.meets(&["a", "b"]).await;
    say(&redis, "centrifugo.control", &announcement("silent")).await;
    until("acquaintance", redis_support::SOON, async || a.knows().await.contains("silent")).await;
    let channels = soon("a partial answer", a.node.channels(None)).await;
    assert_eq!(channels, Ok(BTreeMap::from([("news".to_owned(), 5)])));
    let silent = a.node.info().await.into_iter().find(|info| info.uid == "silent").unwrap();
    assert_eq!((&*silent.name, silent.counts.clients), ("foreign", 7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_node_is_greeted_and_its_questions_are_answered() {
    let redis = RedisServer::start().await;
    let a = TestNode::start(redis.settings(), "a", &[("news", 2)]);
    let mut received = redis.messages("centrifugo.node.foreign").await;
    a.meets(&["a"]).await;
    // Until a listens, nobody answers.
    until("a listener", redis_support::SOON, async || redis.channels().await.contains("centrifugo.node.a")).await;
    say(&redis, "centrifugo.control", &announcement("foreign")).await;
    let mut next = async || {
        let (_, message) = soon("an answer", received.recv()).await.unwrap();
        wire::Command::decode(Bytes::from(message)).unwrap()
    };
    let greeting = next().await;
    assert_eq!((&*greeting.uid, &*greeting.node.unwrap().name), ("a", "name-of-a"));
    let ask = |id: u64, op: &str, data: Vec<u8>| wire::Command {
        uid: "foreign".into(),
        survey_request: Some(wire::SurveyRequest { id, op: op.into(), data: data.into() }),
        ..Default::default()
    };
    // Parts that a node does not know, and bytes that are no message, change nothing.
    say(&redis, "centrifugo.control", &wire::Command { uid: "foreign".into(), ..Default::default() }).await;
    redis.command(&["PUBLISH", "centrifugo.control", "\u{7f}"]).await;
    say(&redis, "centrifugo.control", &ask(7, "channels", Vec::new())).await;
    let answer = next().await.survey_response.unwrap();
    let channels = api::ChannelsResult::decode(answer.data).unwrap().channels;
    assert_eq!((answer.id, answer.code, channels["news"].num_clients), (7, 0, 2));
    let pattern = api::ChannelsRequest { pattern: "[one".into() }.encode_to_vec();
    for (op, data, code) in [("channels", pattern, 2), ("unheard_of", Vec::new(), 3)] {
        say(&redis, "centrifugo.node.a", &ask(8, op, data)).await;
        assert_eq!(next().await.survey_response.unwrap().code, code, "{op}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_centrifugo_tells_all_nodes_is_done() {
    let redis = RedisServer::start().await;
    let mut a = TestNode::start(redis.settings(), "a", &[]);
    until("a listener", redis_support::SOON, async || redis.channels().await.contains("centrifugo.node.a")).await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/redis/control.json");
    let vectors: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for case in vectors["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        if !["disconnect", "unsubscribe", "subscribe", "refresh"].iter().any(|method| name.starts_with(method)) {
            continue;
        }
        let bytes = BASE64_STANDARD.decode(case["messages"][0]["base64"].as_str().unwrap()).unwrap();
        let mut connection = redis.connection().await;
        redis::cmd("PUBLISH").arg("centrifugo.control").arg(bytes).exec_async(&mut connection).await.unwrap();
        let params = &case["call"]["params"];
        let target = match a.call().await {
            Call::Subscribe(target, subscription) => {
                assert_eq!(subscription.channel.as_str(), params["channel"].as_str().unwrap(), "{name}");
                target
            }
            Call::Disconnect(target, ..) | Call::Unsubscribe(target, ..) | Call::Refresh(target, _) => target,
        };
        assert_eq!(target.user.as_str(), params["user"].as_str().unwrap_or_default(), "{name}");
        assert_eq!(target.client.as_deref(), params["client"].as_str(), "{name}");
        assert_eq!(target.session.as_deref(), params["session"].as_str(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_find_each_other_again_after_redis_was_away() {
    let mut redis = RedisServer::start().await;
    let mut a = TestNode::start(redis.settings(), "a", &[("news", 2)]);
    let b = TestNode::start(redis.settings(), "b", &[("news", 3)]);
    a.meets(&["a", "b"]).await;
    redis.kill().await;
    until("a failure", redis_support::SOON, async || {
        b.node.disconnect(&target("42"), &Disconnect::FORCE_DISCONNECT, &[]).await.is_err()
    })
    .await;
    // What cannot be asked is answered from here.
    let own = BTreeMap::from([("news".to_owned(), 2)]);
    assert_eq!(soon("an answer", a.node.channels(None)).await, Ok(own));
    while a.calls.try_recv().is_ok() {}
    redis.restart().await;
    until("the control plane", redis_support::RECOVERY, async || {
        let told = b.node.disconnect(&target("again"), &Disconnect::FORCE_DISCONNECT, &[]).await.is_ok();
        told && a.calls.try_recv().is_ok()
    })
    .await;
    let both = BTreeMap::from([("news".to_owned(), 5)]);
    until("both", redis_support::SOON, async || a.node.channels(None).await == Ok(both.clone())).await;
}
