//! Publications between nodes over a real Redis, and what becomes of them when it is away.

mod redis_support;

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use redis_support::{Peer, RedisServer, SOON, soon, until};
use serde_json::Value;
use starling_server::broker::{
    Broker, BrokerError, Publication, PublishOptions,
    redis::{Access, Settings, Tls, TlsMaterial, hashing},
};

fn vectors(name: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/redis").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn case<'a>(vectors: &'a Value, name: &str) -> &'a Value {
    vectors["cases"].as_array().unwrap().iter().find(|case| case["name"] == name).unwrap()
}

fn base64(value: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn publications_of_either_node_reach_both_in_one_order() {
    let redis = RedisServer::start().await;
    let (mut a, mut b) = (Peer::start(redis.settings()), Peer::start(redis.settings()));
    a.join("news").await;
    b.join("news").await;
    let publish = async |peer: &Peer, name: &str| {
        for count in 0..300 {
            peer.publish("news", &format!("{name}{count}")).await.unwrap();
        }
    };
    tokio::join!(publish(&a, "a"), publish(&b, "b"));
    let (mut at_a, mut at_b) = (Vec::new(), Vec::new());
    for _ in 0..600 {
        at_a.push(a.received().await.1);
        at_b.push(b.received().await.1);
    }
    assert_eq!(at_a, at_b);
    for name in ["a", "b"] {
        let of_one: Vec<_> = at_a.iter().filter(|data| data.starts_with(name)).cloned().collect();
        assert_eq!(of_one, (0..300).map(|count| format!("{name}{count}")).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn publications_are_announced_as_a_centrifugo_announces_them() {
    let redis = RedisServer::start().await;
    let prefixed = Settings::new(&[redis.address()], "my:app", &Access::default()).unwrap();
    let runs = [("publish.json", redis.settings(), "*client.*"), ("prefix.json", prefixed, "my:app.client.*")];
    for (file, settings, pattern) in runs {
        let vectors = vectors(file);
        let peer = Peer::start(settings).up().await;
        for name in ["plain", "plain_text_beyond_ascii", "plain_binary", "plain_tags", "history_skip"] {
            let Some(case) = vectors["cases"].as_array().unwrap().iter().find(|case| case["name"] == name) else {
                continue;
            };
            let mut messages = redis.messages(pattern).await;
            let announced = &case["announced"][0];
            let recorded = &announced["publication"];
            let publication = Publication {
                data: recorded["data"]
                    .as_str()
                    .map_or_else(|| base64(&recorded["data"]["base64"]), |t| t.into())
                    .into(),
                tags: recorded
                    .get("tags")
                    .map_or_else(BTreeMap::new, |tags| serde_json::from_value(tags.clone()).unwrap()),
                time: recorded["time"].as_i64(),
                ..Publication::default()
            };
            let channel = case["call"]["params"]["channel"].as_str().unwrap();
            peer.broker.publish(&channel.into(), publication, PublishOptions::default()).await.unwrap();
            let (channel, payload) = soon("the announcement", messages.recv()).await.unwrap();
            assert_eq!(channel, announced["channel"].as_str().unwrap(), "{name}");
            assert_eq!(payload, base64(&announced["base64"]), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_publishes_once_with_the_recorded_effects() {
    let redis = RedisServer::start().await;
    let vectors = vectors("publish.json");
    let mut peer = Peer::start(redis.settings()).up().await;
    peer.join("news").await;
    let publish = async |data: &'static str, key: &str| {
        let publication = Publication { data: data.into(), ..Publication::default() };
        let options = PublishOptions { idempotency_key: Some(key.into()), ..PublishOptions::default() };
        peer.broker.publish(&"news".into(), publication, options).await.unwrap().position
    };
    // Loads the script: the recording begins when the server knows it.
    assert_eq!(publish("0", "k0").await, None);
    for name in ["plain_idempotent", "plain_idempotent_repeat"] {
        let mut monitor = redis.monitor().await;
        assert_eq!(publish("1", "k1").await, None);
        let (_, call) = monitor.next(&["EVALSHA"]).await;
        let recorded = &case(&vectors, name)["commands"][0];
        assert_eq!(call[3], recorded["keys"][0].as_str().unwrap());
        assert_eq!(call[5..], ["centrifugo.client.news", "publish", "300"]);
        for effect in case(&vectors, name)["effects"].as_array().unwrap() {
            let kind = effect[0].as_str().unwrap();
            let (_, ours) = monitor.next(&["HMGET", "PUBLISH", "HSET", "EXPIRE"]).await;
            assert_eq!(ours[0].to_uppercase(), kind);
            let words = if kind == "PUBLISH" { 2 } else { ours.len() };
            for (word, recorded) in ours[..words].iter().zip(effect.as_array().unwrap()).skip(1) {
                assert_eq!(word, recorded.as_str().unwrap());
            }
        }
    }
    assert_eq!(publish("2", "k2").await, None);
    let mut delivered = Vec::new();
    for _ in 0..3 {
        delivered.push(peer.received().await.1);
    }
    assert_eq!(delivered, ["0", "1", "2"]);
    let remembered: BTreeMap<String, String> = redis::cmd("HGETALL")
        .arg("centrifugo.result.news.k1")
        .query_async(&mut redis.connection().await)
        .await
        .unwrap();
    assert_eq!(remembered, BTreeMap::from([("e".to_owned(), String::new())]));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_centrifugo_announces_is_delivered_or_passed_over() {
    let redis = RedisServer::start().await;
    let mut peer = Peer::start(redis.settings());
    let mut publisher = redis.connection().await;
    let vectors = vectors("payloads.json");
    for case in vectors["cases"].as_array().unwrap() {
        let name = case["channel"].as_str().unwrap();
        peer.join(name.strip_prefix("centrifugo.client.").unwrap()).await;
        redis::cmd("PUBLISH").arg(name).arg(base64(&case["base64"])).exec_async(&mut publisher).await.unwrap();
        if !matches!(case["form"].as_str(), Some("join" | "leave")) {
            let (channel, publication) = peer.publication().await;
            assert_eq!(format!("centrifugo.client.{channel}"), name);
            assert_eq!(publication.time, case["publication"]["time"].as_i64());
            assert_eq!(publication.position.map(|position| position.offset), case["offset"].as_u64());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_cannot_be_read_or_taken_are_counted_and_dropped() {
    let redis = RedisServer::start().await;
    let mut peer = Peer::start(redis.settings()).up().await;
    peer.join("news").await;
    for malformed in ["__x__", "probe", "__p1:1"] {
        redis.command(&["PUBLISH", "centrifugo.client.news", malformed]).await;
    }
    for probed in ["centrifugo.shard.0", "centrifugo.x.probe"] {
        redis.command(&["PUBLISH", probed, "probe"]).await;
    }
    peer.publish("news", "good").await.unwrap();
    assert_eq!(peer.received().await.1, "good");
    assert_eq!(peer.broker.counters().malformed(), 3);
    peer.subscribers.full.store(true, Ordering::SeqCst);
    peer.publish("news", "lost").await.unwrap();
    until("a drop", SOON, async || peer.broker.counters().dropped() == 1).await;
    peer.subscribers.full.store(false, Ordering::SeqCst);
    peer.publish("news", "good again").await.unwrap();
    assert_eq!(peer.received().await.1, "good again");
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribing_is_done_when_redis_has_confirmed_it() {
    let redis = RedisServer::start().await;
    let mut peer = Peer::start(redis.settings());
    for count in 0..50 {
        let channel = format!("c{count}");
        peer.join(&channel).await;
        let name = format!("centrifugo.client.{channel}");
        let receivers: u64 =
            redis::cmd("PUBLISH").arg(&name).arg("\"\u{1}x").query_async(&mut redis.connection().await).await.unwrap();
        assert_eq!(receivers, 1);
        assert_eq!(peer.received().await, (channel, "x".into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribe_and_unsubscribe_reach_redis_as_rarely_as_recorded() {
    let redis = RedisServer::start().await;
    let peer = Peer::start(redis.settings()).up().await;
    let mut monitor = redis.monitor().await;
    let kinds = ["SUBSCRIBE", "UNSUBSCRIBE"];
    let command = |kind: &str, channel: &str| vec![kind.to_owned(), format!("centrifugo.client.{channel}")];
    peer.join("news").await;
    peer.join("news").await;
    peer.join("quick").await;
    peer.leave("quick");
    peer.join("quick").await;
    peer.join("kept").await;
    peer.leave("kept");
    peer.want("kept");
    redis.command(&["ECHO", "now"]).await;
    let mut subscribes = Vec::new();
    let left = loop {
        let (at, words) = monitor.next(&["SUBSCRIBE", "UNSUBSCRIBE", "ECHO"]).await;
        if words[0] == "ECHO" {
            break at;
        }
        subscribes.push(words);
    };
    assert_eq!(subscribes, ["news", "quick", "kept"].map(|channel| command("SUBSCRIBE", channel)));
    peer.leave("news");
    // The first command since is for the channel that was left, after the pause: the others are kept.
    let (at, words) = monitor.next(&kinds).await;
    assert_eq!(words, command("UNSUBSCRIBE", "news"));
    assert!(at - left >= 1.0, "{at} {left}");
    peer.join("end").await;
    assert_eq!(monitor.next(&kinds).await.1, command("SUBSCRIBE", "end"));
    let subscribed = redis.channels().await;
    for kept in ["quick", "kept", "end"] {
        assert!(subscribed.contains(&format!("centrifugo.client.{kept}")), "{kept}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn delivery_comes_back_after_redis_was_killed_and_restarted() {
    let mut redis = RedisServer::start().await;
    let (a, mut b) = (Peer::start(redis.settings()).up().await, Peer::start(redis.settings()).up().await);
    b.join("news").await;
    b.join("more").await;
    for _ in 0..2 {
        redis.kill().await;
        until("notice", SOON, async || a.broker.status().is_err() && b.broker.status().is_err()).await;
        assert_eq!(soon("a failure", a.publish("news", "lost")).await, Err(BrokerError::Unavailable));
        redis.restart().await;
        a.reaches(&mut b, "news").await;
        a.reaches(&mut b, "more").await;
        until("health", SOON, async || a.broker.status().is_ok() && b.broker.status().is_ok()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_at_the_start_everything_fails_in_time_and_then_works() {
    let mut redis = RedisServer::absent();
    let settings = Settings { io_timeout: Duration::from_millis(300), ..redis.settings() };
    let mut peer = Peer::start(settings);
    peer.want("news");
    assert_eq!(soon("a failure", peer.broker.subscribe(&"news".into())).await, Err(BrokerError::Unavailable));
    assert_eq!(soon("a failure", peer.publish("news", "lost")).await, Err(BrokerError::Unavailable));
    let status = peer.broker.status().unwrap_err();
    assert!(status.contains(&redis.port.to_string()) && status.contains("refused"), "{status}");
    redis.restart().await;
    until("health", SOON, async || peer.broker.status().is_ok()).await;
    // Nobody had to ask again: the channel is wanted.
    let publisher = Peer::start(redis.settings());
    publisher.reaches(&mut peer, "news").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_that_wait_while_redis_comes_are_served() {
    let mut redis = RedisServer::absent();
    let settings = Settings { io_timeout: SOON, ..redis.settings() };
    let peer = Peer::start(settings);
    until("a first attempt", SOON, async || peer.broker.status().unwrap_err().contains("refused")).await;
    let waiting = peer.broker.subscribe(&"news".into());
    redis.restart().await;
    assert_eq!(soon("subscribe", waiting).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_is_noticed_and_delivery_comes_back_when_it_thaws() {
    let redis = RedisServer::start().await;
    let settings = || Settings { io_timeout: Duration::from_secs(1), ..redis.settings() };
    let (a, mut b) = (Peer::start(settings()).up().await, Peer::start(settings()).up().await);
    b.join("news").await;
    redis.freeze();
    assert_eq!(soon("a failure", a.publish("news", "frozen")).await, Err(BrokerError::Unavailable));
    until("notice", SOON, async || a.broker.status().is_err() && b.broker.status().is_err()).await;
    redis.thaw();
    a.reaches(&mut b, "news").await;
    until("health", SOON, async || a.broker.status().is_ok() && b.broker.status().is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_connection_is_made_again_with_all_its_channels() {
    let redis = RedisServer::start().await;
    for force_resp2 in [false, true] {
        let access = Access { force_resp2, ..Access::default() };
        let settings = Settings::new(&[redis.address()], "centrifugo", &access).unwrap();
        let (a, mut b) = (Peer::start(redis.settings()).up().await, Peer::start(settings).up().await);
        let channels: Vec<_> = (0..1500).map(|count| format!("c{count}")).collect();
        channels.iter().for_each(|channel| b.want(channel));
        let subscribing = channels.iter().map(|channel| b.broker.subscribe(&channel.as_str().into()));
        for answer in soon("1500 channels", futures_util::future::join_all(subscribing)).await {
            answer.unwrap();
        }
        let names: Vec<_> = channels.iter().map(|channel| format!("centrifugo.client.{channel}")).collect();
        let all = async || redis.subscribers(&names).await.values().filter(|count| **count == 1).count() == names.len();
        assert!(all().await);
        assert!(b.subscribers.interrupted.lock().is_empty());
        redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        until("all channels", SOON, all).await;
        // Each is said to have been interrupted, so that what it missed can be read.
        until("the report", SOON, async || b.subscribers.interrupted.lock().len() == channels.len()).await;
        for channel in ["c0", "c777", "c1499"] {
            a.reaches(&mut b, channel).await;
        }
        // Those of the next round are counted alone.
        drop((a, b));
        until("the end", SOON, async || redis.channels().await.is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_subscribed_in_name_only_is_made_again() {
    let redis = RedisServer::start().await;
    let proxy = redis_support::Proxy::start(redis.port).await;
    let settings = Settings::new(&[proxy.address()], "centrifugo", &Access::default()).unwrap();
    let settings = Settings { quiet_limit: Duration::from_millis(100), ..settings };
    let (a, mut b) = (Peer::start(redis.settings()).up().await, Peer::start(settings).up().await);
    b.join("news").await;
    a.publish("news", "heard").await.unwrap();
    assert_eq!(b.received().await.1, "heard");
    // Pings are answered and probes accepted, but no message comes through on this connection any more.
    proxy.hold_back_messages();
    until("notice", SOON, async || b.broker.status().is_err_and(|why| why.contains("nothing arrives"))).await;
    a.reaches(&mut b, "news").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_command_connection_costs_at_most_the_publications_under_way() {
    let redis = RedisServer::start().await;
    let mut peer = Peer::start(redis.settings()).up().await;
    peer.join("news").await;
    redis.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    until("publishing", SOON, async || peer.publish("news", "through").await.is_ok()).await;
    assert_eq!(peer.received().await.1, "through");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_redis_refuses_does_not_hold_up_the_others() {
    let redis = RedisServer::start().await;
    let rules = ["resetchannels", "&centrifugo.shard.0", "&centrifugo.x.probe", "&centrifugo.client.ok*"];
    redis.command(&[&["ACL", "SETUSER", "limited", "on", ">pw", "~*", "+@all"], rules.as_slice()].concat()).await;
    let access = Access { user: Some("limited".into()), password: Some("pw".into()), ..Access::default() };
    let mut peer = Peer::start(Settings::new(&[redis.address()], "centrifugo", &access).unwrap());
    for channel in ["ok1", "forbidden", "ok2"] {
        peer.want(channel);
    }
    let asked = ["ok1", "forbidden", "ok2"].map(|channel| peer.broker.subscribe(&channel.into()));
    let answers = soon("answers", futures_util::future::join_all(asked)).await;
    assert_eq!(answers, [Ok(()), Err(BrokerError::Unavailable), Ok(())]);
    let publisher = Peer::start(redis.settings());
    publisher.publish("ok2", "x").await.unwrap();
    assert_eq!(peer.received().await, ("ok2".into(), "x".into()));
    // It is asked for again for as long as it is wanted.
    redis.command(&["ACL", "SETUSER", "limited", "&centrifugo.client.forbidden"]).await;
    publisher.reaches(&mut peer, "forbidden").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_and_names_are_given_and_a_wrong_password_is_in_the_health() {
    let redis = RedisServer::start_with(&["--requirepass", "secret"]).await;
    let peer = |password: &str| {
        let access =
            Access { password: Some(password.into()), client_name: Some("starling-test".into()), ..Access::default() };
        Peer::start(Settings::new(&[redis.address()], "centrifugo", &access).unwrap())
    };
    let wrong = peer("guess");
    until("a refusal", SOON, async || wrong.broker.status().unwrap_err().to_lowercase().contains("password")).await;
    let right = peer("secret").up().await;
    right.publish("news", "x").await.unwrap();
    let address = format!("redis://:secret@127.0.0.1:{}", redis.port);
    let mut connection = redis::Client::open(address).unwrap().get_multiplexed_async_connection().await.unwrap();
    let list: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut connection).await.unwrap();
    assert_eq!(list.matches("name=starling-test").count(), 2, "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_servers_share_the_channels_by_the_recorded_rule() {
    let servers = [RedisServer::start().await, RedisServer::start().await, RedisServer::start().await];
    let addresses = servers.each_ref().map(RedisServer::address);
    let settings = || Settings::new(&addresses, "centrifugo", &Access::default()).unwrap();
    let (a, mut b) = (Peer::start(settings()).up().await, Peer::start(settings()).up().await);
    for recorded in vectors("sharding.json")["channels"].as_array().unwrap().iter().take(40) {
        let channel = recorded["channel"].as_str().unwrap();
        b.join(channel).await;
        let place = hashing::consistent_index(channel, 3);
        assert_eq!(Value::from(place), recorded["shard_of_3"]);
        assert!(servers[place].channels().await.contains(&format!("centrifugo.client.{channel}")));
        a.publish(channel, "x").await.unwrap();
        assert_eq!(b.received().await, (channel.to_owned(), "x".into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_checks_the_server_unless_told_not_to() {
    let certificate = rcgen::generate_simple_self_signed(vec!["redis.test".to_owned()]).unwrap();
    let files = tempfile::TempDir::new().unwrap();
    let (chain, key) = (files.path().join("chain.pem"), files.path().join("key.pem"));
    std::fs::write(&chain, certificate.cert.pem()).unwrap();
    std::fs::write(&key, certificate.signing_key.serialize_pem()).unwrap();
    let (chain, key) = (chain.to_str().unwrap(), key.to_str().unwrap());
    let free = RedisServer::absent();
    let tls_port = free.port.to_string();
    let tls = ["--tls-port", &tls_port, "--tls-cert-file", chain, "--tls-key-file", key, "--tls-auth-clients", "no"];
    let _redis = RedisServer::start_with(&tls).await;
    let peer = |material: TlsMaterial| {
        let access = Access { tls: Some(Tls::new(&material).unwrap()), ..Access::default() };
        Peer::start(Settings::new(&[format!("rediss://127.0.0.1:{tls_port}")], "centrifugo", &access).unwrap())
    };
    let ca = || Some(certificate.cert.pem().into_bytes());
    let name = || Some("redis.test".to_owned());
    let mut named = peer(TlsMaterial { server_ca: ca(), server_name: name(), ..TlsMaterial::default() }).up().await;
    named.join("news").await;
    let unchecked = peer(TlsMaterial { insecure_skip_verify: true, ..TlsMaterial::default() }).up().await;
    unchecked.publish("news", "x").await.unwrap();
    assert_eq!(named.received().await.1, "x");
    for wrong in [
        TlsMaterial { server_ca: ca(), ..TlsMaterial::default() },
        TlsMaterial { server_name: name(), ..TlsMaterial::default() },
    ] {
        let refused = peer(wrong);
        until("a refusal", SOON, async || refused.broker.status().unwrap_err().contains("certificate")).await;
    }
}
