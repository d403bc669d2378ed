//! Streams in a real Redis: the recorded calls of a Centrifugo replayed, and what it never had to be recorded for.

mod redis_support;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use redis_support::{Monitor, Peer, RedisServer, soon};
use serde_json::{Value, json};
use starling_server::broker::{
    Broker, ClientInfo, HistoryOptions, HistoryQuery, Limit, Publication, PublishOptions, Published, Suppressed,
    Version,
};
use tokio::sync::mpsc::UnboundedReceiver;

const OPTIONS: HistoryOptions =
    HistoryOptions { size: 10, ttl: Duration::from_secs(300), meta_ttl: Duration::from_secs(3600) };
const ALL: HistoryQuery = HistoryQuery { since: None, limit: Limit::All, reverse: false };

// === Recorded calls ===

fn vectors(name: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/redis").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Bytes of a recorded value: text, or base64 of what is no text.
fn bytes(value: &Value) -> Vec<u8> {
    match value.get("base64") {
        Some(base64) => BASE64_STANDARD.decode(base64.as_str().unwrap()).unwrap(),
        None => value.as_str().unwrap().into(),
    }
}

/// One broker on one server, watched from all sides.
struct Replay {
    redis: RedisServer,
    peer: Peer,
    monitor: Monitor,
    messages: UnboundedReceiver<(String, Vec<u8>)>,
    namespaces: Value,
    /// Our epochs by the recorded ones.
    epochs: BTreeMap<String, String>,
}

/// What a recorded script did, and plain commands that matter.
const EFFECTS: [&str; 12] =
    ["HGET", "HSET", "HMGET", "HINCRBY", "EXPIRE", "DEL", "XADD", "XRANGE", "XREVRANGE", "PUBLISH", "EVALSHA", "ECHO"];

impl Replay {
    async fn start(vectors: &Value) -> Self {
        let redis = RedisServer::start().await;
        let peer = Peer::start(redis.settings()).up().await;
        let replay = Self {
            monitor: redis.monitor().await,
            messages: redis.messages("*client.*").await,
            redis,
            peer,
            namespaces: vectors["namespaces"].clone(),
            epochs: BTreeMap::new(),
        };
        // Makes Redis know the scripts: recordings begin when it does.
        for key in [None, Some("key".to_owned())] {
            let history = key.is_none().then_some(OPTIONS);
            let options = PublishOptions { history, idempotency_key: key, ..PublishOptions::default() };
            replay.peer.broker.publish(&"warm".into(), Publication::default(), options).await.unwrap();
        }
        replay.peer.broker.history(&"warm".into(), ALL, OPTIONS).await.unwrap();
        replay.redis.command(&["FLUSHALL"]).await;
        replay
    }

    fn history(&self, channel: &str) -> Option<HistoryOptions> {
        let name = channel.split_once(':')?.0;
        let namespace = self.namespaces.as_array().unwrap().iter().find(|namespace| namespace["name"] == name)?;
        let seconds = |option: &str| {
            let text = namespace.get(option)?.as_str().unwrap().strip_suffix('s').unwrap();
            Some(Duration::from_secs(text.parse().unwrap()))
        };
        Some(HistoryOptions {
            size: u32::try_from(namespace["history_size"].as_u64()?).unwrap(),
            ttl: seconds("history_ttl")?,
            meta_ttl: seconds("history_meta_ttl").unwrap_or(Duration::from_secs(720 * 3600)),
        })
    }

    fn delta_publish(&self, channel: &str) -> bool {
        channel.starts_with("dl:")
    }

    /// Bytes with our epochs replaced by the recorded ones, which are as long.
    fn translate(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for (recorded, ours) in &self.epochs {
            for at in 0..bytes.len().saturating_sub(7) {
                if &bytes[at..at + 8] == ours.as_bytes() {
                    bytes[at..at + 8].copy_from_slice(recorded.as_bytes());
                }
            }
        }
        bytes
    }

    /// Commands since the last mark, and messages.
    async fn seen(&mut self) -> (Vec<Vec<String>>, BTreeSet<(String, Vec<u8>)>) {
        self.redis.command(&["ECHO", "mark"]).await;
        self.redis.command(&["PUBLISH", "x.client.mark", "mark"]).await;
        let mut commands = Vec::new();
        loop {
            let (_, words) = self.monitor.next(&EFFECTS).await;
            if words[0].eq_ignore_ascii_case("ECHO") {
                break;
            }
            if !words[1].contains(".x.probe") && words[1] != "x.client.mark" {
                commands.push(words);
            }
        }
        let mut messages = BTreeSet::new();
        loop {
            let (channel, payload) = soon("a message", self.messages.recv()).await.unwrap();
            if channel == "x.client.mark" {
                return (commands, messages);
            }
            messages.insert((channel, payload));
        }
    }

    /// All keys as they were recorded: type, time to live, value.
    async fn keys(&self) -> BTreeMap<String, Value> {
        let mut connection = self.redis.connection().await;
        let mut keys = BTreeMap::new();
        let names: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
        for name in names {
            let kind: String = redis::cmd("TYPE").arg(&name).query_async(&mut connection).await.unwrap();
            let ttl: i64 = redis::cmd("TTL").arg(&name).query_async(&mut connection).await.unwrap();
            let value = match kind.as_str() {
                "hash" => {
                    let hash: BTreeMap<String, Vec<u8>> =
                        redis::cmd("HGETALL").arg(&name).query_async(&mut connection).await.unwrap();
                    let text = |bytes: Vec<u8>| String::from_utf8(self.translate(&bytes)).unwrap();
                    json!(hash.into_iter().map(|(field, value)| (field, text(value))).collect::<BTreeMap<_, _>>())
                }
                "stream" => {
                    let entries: Vec<(String, BTreeMap<String, Vec<u8>>)> =
                        redis::cmd("XRANGE").arg(&name).arg("-").arg("+").query_async(&mut connection).await.unwrap();
                    let entry = |(id, fields): (String, BTreeMap<String, Vec<u8>>)| {
                        let field =
                            |(name, value): (String, Vec<u8>)| (name, json!({"base64": BASE64_STANDARD.encode(value)}));
                        json!({"id": id, "fields": fields.into_iter().map(field).collect::<BTreeMap<_, _>>()})
                    };
                    json!(entries.into_iter().map(entry).collect::<Vec<_>>())
                }
                other => panic!("{name} is a {other}"),
            };
            keys.insert(name, json!({"type": kind, "ttl": ttl, "value": value}));
        }
        keys
    }

    async fn compare_keys(&self, name: &str, recorded: &Value) {
        let Some(recorded) = recorded.as_object() else { return };
        let ours = self.keys().await;
        let names = |keys: Vec<&String>| keys.into_iter().cloned().collect::<Vec<_>>();
        assert_eq!(names(ours.keys().collect()), names(recorded.keys().collect()), "{name}");
        for (key, recorded) in recorded {
            let ours = &ours[key];
            assert_eq!(ours["type"], recorded["type"], "{name} {key}");
            assert_eq!(ours["value"], recorded["value"], "{name} {key}");
            // Not how fast we are, but what was set.
            let (ttl, recorded) = (ours["ttl"].as_i64().unwrap(), recorded["ttl"].as_i64().unwrap());
            assert!((recorded - 50..=recorded + 3).contains(&ttl), "{name} {key} {ttl}");
        }
    }

    /// Compares what Redis did, up to payloads and texts of scripts.
    fn compare_effects(&self, name: &str, ours: &[Vec<String>], case: &Value) {
        let recorded = |member: &str| case.get(member).and_then(Value::as_array).cloned().unwrap_or_default();
        let calls: Vec<_> = recorded("commands").into_iter().filter(|call| call["command"] == "EVALSHA").collect();
        let ours_calls: Vec<_> = ours.iter().filter(|words| words[0] == "EVALSHA").collect();
        assert_eq!(ours_calls.len(), calls.len(), "{name} {ours:?}");
        for (ours, recorded) in ours_calls.into_iter().zip(&calls) {
            let keys: Vec<_> = recorded["keys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
            assert_eq!(ours[3..3 + keys.len()], keys, "{name}");
        }
        let mut effects = recorded("effects");
        for plain in recorded("commands").iter().filter(|call| call["command"] == "PUBLISH" || call["command"] == "DEL")
        {
            let mut words = vec![plain["command"].clone()];
            words.extend(plain["args"].as_array().unwrap().iter().cloned());
            effects.push(words.into());
        }
        let mut ours: Vec<_> = ours.iter().filter(|words| words[0] != "EVALSHA").cloned().collect();
        if name == "broadcast" {
            // Channels are served in parallel.
            effects.sort_by_key(|effect| effect[1] == "centrifugo.client.news");
            ours.sort_by_key(|words| words[1] == "centrifugo.client.news");
        }
        assert_eq!(ours.len(), effects.len(), "{name} {ours:?} {effects:?}");
        for (ours, recorded) in ours.iter().zip(&effects) {
            let recorded = recorded.as_array().unwrap();
            assert_eq!(ours[0].to_uppercase(), recorded[0].as_str().unwrap(), "{name}");
            for (word, recorded) in ours.iter().zip(recorded).skip(1) {
                // Bytes are compared where they arrive; MONITOR writes them, and text beyond ASCII, in its own way.
                if let Some(recorded) = recorded.as_str().filter(|text| text.is_ascii()) {
                    let word = String::from_utf8(self.translate(word.as_bytes())).unwrap();
                    assert_eq!(word, recorded, "{name} {ours:?}");
                }
            }
        }
    }

    async fn publish(&mut self, case: &Value, channel: &str) -> Published {
        let params = case["call"].get("params").or_else(|| case["call"]["client_command"].get("publish")).unwrap();
        let announced = case["announced"].as_array().and_then(|all| {
            all.iter().find(|message| message["channel"] == format!("centrifugo.client.{channel}").as_str())
        });
        let publication = match announced.map(|message| &message["publication"]) {
            Some(recorded) => Publication {
                data: bytes(&recorded["data"]).into(),
                info: recorded.get("info").map(|info| ClientInfo {
                    user: info["user"].as_str().unwrap().into(),
                    client: info["client"].as_str().unwrap().into(),
                    conn_info: info.get("conn_info").map(bytes).unwrap_or_default().into(),
                    chan_info: info.get("chan_info").map(bytes).unwrap_or_default().into(),
                }),
                tags: recorded
                    .get("tags")
                    .map(|tags| serde_json::from_value(tags.clone()).unwrap())
                    .unwrap_or_default(),
                time: recorded["time"].as_i64(),
                ..Publication::default()
            },
            None => Publication { data: "not to be seen".into(), ..Publication::default() },
        };
        let flag = |name: &str| params[name].as_bool().unwrap_or(false);
        let options = PublishOptions {
            history: if flag("skip_history") { None } else { self.history(channel) },
            idempotency_key: params["idempotency_key"].as_str().map(str::to_owned),
            delta: flag("delta") || self.delta_publish(channel),
            version: params["version"].as_u64().map(|number| Version {
                number,
                epoch: params["version_epoch"].as_str().unwrap_or_default().to_owned(),
            }),
        };
        soon("an answer", self.peer.broker.publish(&channel.into(), publication, options)).await.unwrap()
    }

    fn learn(&mut self, recorded: &Value, published: &Published) {
        match recorded["epoch"].as_str() {
            None => assert_eq!(published.position, None),
            Some(epoch) => {
                let position = published.position.as_ref().expect("a position");
                assert_eq!(Value::from(position.offset), recorded["offset"]);
                let known = self.epochs.entry(epoch.to_owned()).or_insert_with(|| position.epoch.to_string());
                assert_eq!(**known, *position.epoch);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn publications_do_what_was_recorded() {
    let vectors = vectors("publish.json");
    let mut replay = Replay::start(&vectors).await;
    for case in vectors["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let effects = case.get("effects").and_then(Value::as_array).cloned().unwrap_or_default();
        if effects
            .iter()
            .any(|effect| effect[0] == "HSET" && effect[2] == "e" && effect[1].as_str().unwrap().contains("meta"))
        {
            // A group of cases begins.
            replay.redis.command(&["FLUSHALL"]).await;
        }
        replay.seen().await;
        if let Some(channels) = case["call"]["params"]["channels"].as_array() {
            for (channel, response) in channels.iter().zip(case["reply"]["result"]["responses"].as_array().unwrap()) {
                let published = replay.publish(case, channel.as_str().unwrap()).await;
                replay.learn(&response["result"], &published);
            }
        } else {
            let params = case["call"].get("params").or_else(|| case["call"]["client_command"].get("publish")).unwrap();
            let published = replay.publish(case, params["channel"].as_str().unwrap()).await;
            match case["reply"].get("result") {
                Some(result) => replay.learn(result, &published),
                // Clients are not told the position: it is in the announcement.
                None => replay.learn(&case["announced"][0], &published),
            }
            let suppressed = match name {
                "plain_idempotent_repeat" | "idempotent_repeat" => Some(Suppressed::Idempotency),
                "version_suppressed" | "version_lower_without_epoch" | "version_suppressed_idempotent" => {
                    Some(Suppressed::Version)
                }
                _ => None,
            };
            assert_eq!(published.suppressed, suppressed, "{name}");
        }
        let (commands, messages) = replay.seen().await;
        let messages: BTreeSet<_> =
            messages.into_iter().map(|(channel, payload)| (channel, replay.translate(&payload))).collect();
        let announced = case["announced"].as_array().cloned().unwrap_or_default();
        let announced: BTreeSet<_> =
            announced.iter().map(|message| (message["channel"].as_str().unwrap().to_owned(), bytes(message))).collect();
        assert_eq!(messages, announced, "{name}");
        replay.compare_effects(name, &commands, case);
        replay.compare_keys(name, &case["keys_after"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_and_removals_do_what_was_recorded() {
    let vectors = vectors("history.json");
    let mut replay = Replay::start(&vectors).await;
    // What the recording began with, and what it published between its cases.
    for (channel, count) in [("rec:c", 3), ("cache:c", 1)] {
        for number in 1..=count {
            let publication = Publication { data: format!("{{\"n\": {number}}}").into(), ..Publication::default() };
            let options = PublishOptions { history: replay.history(channel), ..PublishOptions::default() };
            replay.peer.broker.publish(&channel.into(), publication, options).await.unwrap();
        }
    }
    let query = |since: Option<u64>, limit: i64, reverse: bool| HistoryQuery {
        since,
        limit: match limit {
            0 => Limit::PositionOnly,
            ..0 => Limit::All,
            1.. => Limit::AtMost(limit.try_into().unwrap()),
        },
        reverse,
    };
    for case in vectors["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        replay.seen().await;
        let params = &case["call"]["params"];
        let (channel, query) = match name {
            // Refused before it comes to Redis.
            "reverse_since_zero" => continue,
            "client_recovers" => ("rec:c", query(Some(1), 300, false)),
            "client_positioned" | "position_check" => ("pos:c", query(None, 0, false)),
            "client_recovers_cache" => ("cache:c", query(None, 1, true)),
            "remove" => {
                replay.peer.broker.remove_history(&"rec:c".into()).await.unwrap();
                let (commands, _) = replay.seen().await;
                replay.compare_effects(name, &commands, case);
                assert!(!replay.keys().await.contains_key("centrifugo.stream.rec:c"));
                continue;
            }
            "publish_after_remove" => {
                let published = replay.publish(case, "rec:c").await;
                replay.learn(&case["reply"]["result"], &published);
                let (commands, _) = replay.seen().await;
                replay.compare_effects(name, &commands, case);
                continue;
            }
            _ => {
                let (since, limit) = (params["since"]["offset"].as_u64(), params["limit"].as_i64().unwrap_or(0));
                let reverse = params["reverse"].as_bool().unwrap_or(false);
                (params["channel"].as_str().unwrap(), query(since, limit, reverse))
            }
        };
        let options = replay.history(channel).unwrap();
        let history = replay.peer.broker.history(&channel.into(), query, options).await.unwrap();
        if let Some(result) = case["reply"].get("result") {
            let published = Published { position: Some(history.top.clone()), suppressed: None };
            replay.learn(result, &published);
            let publications = result["publications"].as_array().unwrap();
            assert_eq!(history.publications.len(), publications.len(), "{name}");
            for (ours, recorded) in history.publications.iter().zip(publications) {
                let position = ours.position.as_ref().unwrap();
                assert_eq!(
                    (&position.epoch, Value::from(position.offset)),
                    (&history.top.epoch, recorded["offset"].clone())
                );
                assert_eq!(serde_json::from_slice::<Value>(&ours.data).unwrap(), recorded["data"], "{name}");
            }
        } else if let Some(epoch) = case["reply"]["subscribe"]["epoch"].as_str() {
            replay.epochs.insert(epoch.to_owned(), history.top.epoch.to_string());
        }
        if name != "position_check" {
            let (commands, _) = replay.seen().await;
            replay.compare_effects(name, &commands, case);
        }
    }
}

// === What was never recorded ===

async fn publish(peer: &Peer, channel: &str, data: &str) -> Published {
    let publication = Publication { data: data.to_owned().into(), ..Publication::default() };
    let options = PublishOptions { history: Some(OPTIONS), delta: true, ..PublishOptions::default() };
    soon("an answer", peer.broker.publish(&channel.into(), publication, options)).await.unwrap()
}

async fn read(peer: &Peer, channel: &str) -> (String, u64, Vec<String>) {
    let history = soon("history", peer.broker.history(&channel.into(), ALL, OPTIONS)).await.unwrap();
    let data = history.publications.into_iter().map(|publication| String::from_utf8(publication.data.into()).unwrap());
    (history.top.epoch.to_string(), history.top.offset, data.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_meta_key_lost_writes_begins_a_new_life() {
    let redis = RedisServer::start().await;
    let mut peer = Peer::start(redis.settings()).up().await;
    peer.join("news").await;
    let mut before = Published::default();
    for data in ["a", "b", "c"] {
        before = publish(&peer, "news", data).await;
    }
    redis.command(&["HSET", "centrifugo.stream.meta.news", "s", "1"]).await;
    let after = publish(&peer, "news", "d").await.position.unwrap();
    assert_ne!(after.epoch, before.position.unwrap().epoch);
    assert_eq!(after.offset, 1);
    assert_eq!(read(&peer, "news").await, (after.epoch.to_string(), 1, vec!["d".to_owned()]));
    assert_eq!(publish(&peer, "news", "e").await.position.unwrap().offset, 2);
    let mut announced = Vec::new();
    for _ in 0..5 {
        let position = peer.publication().await.1.position.unwrap();
        announced.push((position.offset, position.epoch == after.epoch));
    }
    assert_eq!(announced, [(1, false), (2, false), (3, false), (1, true), (2, true)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_a_life_whose_meta_key_is_gone_are_not_shown_and_then_dropped() {
    let redis = RedisServer::start().await;
    let peer = Peer::start(redis.settings()).up().await;
    let before = publish(&peer, "news", "a").await.position.unwrap();
    redis.command(&["DEL", "centrifugo.stream.meta.news"]).await;
    let (epoch, top, data) = read(&peer, "news").await;
    assert_ne!(*epoch, *before.epoch);
    assert_eq!((top, data), (0, vec![]));
    let after = publish(&peer, "news", "b").await.position.unwrap();
    assert_eq!((after.offset, &*after.epoch), (1, &*epoch));
    assert_eq!(read(&peer, "news").await, (epoch, 1, vec!["b".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_cannot_be_read_counts_as_dropped_with_all_before_it() {
    let redis = RedisServer::start().await;
    let peer = Peer::start(redis.settings()).up().await;
    for data in ["a", "b"] {
        publish(&peer, "news", data).await;
    }
    redis.command(&["HSET", "centrifugo.stream.meta.news", "s", "3"]).await;
    redis.command(&["XADD", "centrifugo.stream.news", "3", "d", "no publication"]).await;
    publish(&peer, "news", "d").await;
    let (_, top, data) = read(&peer, "news").await;
    assert_eq!((top, data), (4, vec!["d".to_owned()]));
    let reverse = HistoryQuery { reverse: true, ..ALL };
    let history = peer.broker.history(&"news".into(), reverse, OPTIONS).await.unwrap();
    assert_eq!(history.publications.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_redis_refuses_does_not_take_others_of_its_call_with_it() {
    let redis = RedisServer::start().await;
    let peer = Peer::start(redis.settings()).up().await;
    redis.command(&["SET", "centrifugo.stream.bad", "no stream"]).await;
    redis.command(&["HSET", "centrifugo.stream.meta.bad", "e", "life", "s", "7"]).await;
    // A first one is under way while the others gather for the next call.
    let calls = (0..40).map(|number| {
        let channel = if number % 4 == 1 { "bad" } else { "good" };
        let options = PublishOptions { history: Some(OPTIONS), ..PublishOptions::default() };
        peer.broker.publish(&channel.into(), Publication::default(), options)
    });
    let answers = soon("answers", futures_util::future::join_all(calls.collect::<Vec<_>>())).await;
    let offsets: Vec<_> = answers.iter().flatten().map(|answer| answer.position.as_ref().unwrap().offset).collect();
    assert_eq!(offsets, (1..=30).collect::<Vec<_>>());
    assert!(answers.iter().skip(1).step_by(4).all(Result::is_err));
}

#[tokio::test(flavor = "multi_thread")]
async fn publications_that_come_together_share_calls_and_keep_their_order() {
    let redis = RedisServer::start().await;
    let mut peer = Peer::start(redis.settings()).up().await;
    peer.join("news").await;
    publish(&peer, "news", "first").await;
    let mut monitor = redis.monitor().await;
    let calls: Vec<_> = (0..500)
        .map(|number: u32| {
            let publication = Publication { data: number.to_string().into(), ..Publication::default() };
            let options = PublishOptions { history: Some(OPTIONS), ..PublishOptions::default() };
            peer.broker.publish(&"news".into(), publication, options)
        })
        .collect();
    // Even one that nobody polls is published.
    drop(calls);
    for number in 0..=500_u64 {
        let publication = peer.publication().await.1;
        assert_eq!(publication.position.unwrap().offset, number + 1);
        let data = if number == 0 { "first".to_owned() } else { (number - 1).to_string() };
        assert_eq!(publication.data, data);
    }
    redis.command(&["ECHO", "end"]).await;
    let mut scripts = 0;
    while monitor.next(&["EVALSHA", "ECHO"]).await.1[0] == "EVALSHA" {
        scripts += 1;
    }
    assert!(scripts < 250, "{scripts} calls for 500 publications");
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_beyond_what_a_double_holds_are_told_apart() {
    let redis = RedisServer::start().await;
    let peer = Peer::start(redis.settings()).up().await;
    let mut suppressed = Vec::new();
    for number in [(1 << 53) + 1, (1 << 53) + 2, (1 << 53) + 2, 9, u64::MAX, u64::MAX - 1] {
        let version = Some(Version { number, epoch: "x".into() });
        let options = PublishOptions { history: Some(OPTIONS), version, ..PublishOptions::default() };
        let published = peer.broker.publish(&"news".into(), Publication::default(), options).await.unwrap();
        suppressed.push(published.suppressed.is_some());
    }
    assert_eq!(suppressed, [false, false, true, true, false, true]);
}

/// How much of Redis's processor a publication costs, sent in calls of one and of many. Prints; run it alone:
/// `cargo test --release --test redis_streams -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn calls_of_many_publications_cost_less_than_calls_of_one() {
    const COUNT: usize = 64_000;
    let redis = RedisServer::start().await;
    let mut connection = redis.connection().await;
    let text = include_str!("../src/broker/redis/lua/publish.lua");
    let sha: String = redis::cmd("SCRIPT").arg("LOAD").arg(text).query_async(&mut connection).await.unwrap();
    let payload = [b'x'; 128];
    for channels in [1, 8, 32, 1000] {
        let mut costs = Vec::new();
        for size in [1, 16, 64] {
            redis.command(&["FLUSHALL"]).await;
            let before = processor_seconds(&redis).await;
            for round in 0..COUNT / 64 {
                let mut pipeline = redis::pipe();
                for call in 0..64 / size {
                    let names = (0..size).map(|item| (round * 64 + call * size + item) % channels);
                    let mut runs: BTreeMap<usize, usize> = BTreeMap::new();
                    names.for_each(|name| *runs.entry(name).or_default() += 1);
                    let command = pipeline.cmd("EVALSHA").arg(&sha).arg(runs.len() * 3);
                    for name in runs.keys() {
                        command.arg(format!("p.stream.{name}")).arg(format!("p.stream.meta.{name}"));
                        command.arg(format!("p.result.{name}."));
                    }
                    command.arg("publish");
                    for (name, count) in &runs {
                        command.arg(*count).arg(100).arg(300).arg(format!("p.client.{name}")).arg(3600);
                        command.arg("AbCdEfGh").arg("").arg("0").arg("");
                        (0..*count).for_each(|_| {
                            command.arg("").arg(&payload);
                        });
                    }
                }
                pipeline.exec_async(&mut connection).await.unwrap();
            }
            let cost = (processor_seconds(&redis).await - before) * 1e6 / COUNT as f64;
            eprintln!("{channels} channels, {size} in a call: {cost:.2} µs each");
            costs.push(cost);
        }
        eprintln!("{channels} channels: {:.2} times as many for the same", costs[0] / costs[2]);
    }
}

async fn processor_seconds(redis: &RedisServer) -> f64 {
    let info: String = redis::cmd("INFO").arg("cpu").query_async(&mut redis.connection().await).await.unwrap();
    let value = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok()).unwrap();
    value("used_cpu_user_main_thread:") + value("used_cpu_sys_main_thread:")
}
