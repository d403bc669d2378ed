//! Presence on a real Redis against what a real Centrifugo did there, effect by effect and key by key.

mod redis_support;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use prost::Message;
use redis::aio::MultiplexedConnection;
use redis_support::{Monitor, RedisServer, soon};
use serde_json::{Value, json};
use starling_proto::client as wire;
use starling_server::{
    broker::{
        ClientInfo,
        redis::{Access, Settings},
    },
    names::{ChannelName, ClientId},
    presence::{
        Presence, PresenceStats,
        redis::{PresenceOptions, RedisPresence},
    },
};
use tokio::runtime::Handle;

#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_case_has_the_recorded_effects() {
    let vectors = vectors("presence.json");
    for (cases, user_mapping) in [("cases", false), ("cases_with_user_mapping", true)] {
        let options = PresenceOptions { ttl: Duration::from_secs(60), user_mapping };
        let replay = Replay::start("centrifugo", options).await;
        let cases = vectors[cases].as_array().unwrap();
        assert!(cases.len() >= 8);
        for case in cases {
            replay.case(case).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_prefix_and_another_time_to_live_have_the_recorded_effects() {
    let vectors = vectors("prefix.json");
    let options = PresenceOptions { ttl: Duration::from_secs(90), user_mapping: false };
    let replay = Replay::start("my:app", options).await;
    let case = vectors["cases"].as_array().unwrap().iter().find(|case| case["name"] == "presence").unwrap();
    replay.case(case).await;
}

/// What a Centrifugo left in its keys is read as it was meant.
#[tokio::test(flavor = "multi_thread")]
async fn recorded_keys_are_read() {
    let vectors = vectors("presence.json");
    for (cases, user_mapping) in [("cases", false), ("cases_with_user_mapping", true)] {
        let options = PresenceOptions { ttl: Duration::from_secs(60), user_mapping };
        let replay = Replay::start("centrifugo", options).await;
        let case = |name: &str| vectors[cases].as_array().unwrap().iter().find(|case| case["name"] == name).unwrap();
        let mut connection = replay.redis.connection().await;
        for (key, recorded) in case("add_third")["keys_after"].as_object().unwrap() {
            write(&mut connection, key, recorded).await;
        }
        let channel = ChannelName::from("pres:c");
        replay.clock.store(at(case("presence")), Ordering::SeqCst);
        assert_eq!(soon("list", replay.store.list(&channel)).await.unwrap(), listed(&case("presence")["reply"]));
        let stats = soon("stats", replay.store.stats(&channel)).await.unwrap();
        assert_eq!(stats, PresenceStats { clients: 3, users: 2 });
        // A minute later nobody is there.
        replay.clock.fetch_add(68, Ordering::SeqCst);
        assert_eq!(soon("list", replay.store.list(&channel)).await.unwrap(), BTreeMap::new());
        let left: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
        assert_eq!(left, [""; 0]);
    }
}

/// Our store on a Redis of its own, at the time of the recording.
struct Replay {
    redis: RedisServer,
    store: RedisPresence,
    clock: Arc<AtomicU64>,
    ttl: u64,
}

impl Replay {
    async fn start(prefix: &str, options: PresenceOptions) -> Self {
        let redis = RedisServer::start().await;
        let settings = Settings::new(&[redis.address()], prefix, &Access::default()).unwrap();
        let clock = Arc::new(AtomicU64::new(0));
        let now = Arc::clone(&clock);
        let store =
            RedisPresence::start(settings, options, &Handle::current()).with_clock(move || now.load(Ordering::SeqCst));
        Self { redis, store, clock, ttl: options.ttl.as_secs() }
    }

    /// Does what was done in a case, and compares what it did in Redis, what it answered and what it left.
    async fn case(&self, case: &Value) {
        let name = case["name"].as_str().unwrap();
        self.clock.store(at(case), Ordering::SeqCst);
        let channel = ChannelName::from("pres:c");
        let args = &script_call(case)["args"];
        if name == "update" {
            // It was recorded without what made the entry.
            soon("add", self.add(args)).await;
        }
        let mut monitor = self.redis.monitor().await;
        match name {
            "presence" if case.get("call").is_some() => {
                let list = soon("list", self.store.list(&channel)).await.unwrap();
                assert_eq!(list, listed(&case["reply"]));
            }
            "presence_stats" => {
                let stats = soon("stats", self.store.stats(&channel)).await.unwrap();
                let stats = json!({"num_clients": stats.clients, "num_users": stats.users});
                assert_eq!(stats, case["reply"]["result"]);
            }
            "remove_first" | "remove_second" => {
                let client = ClientId(args[0].as_str().unwrap().parse().unwrap());
                soon("remove", self.store.remove(&channel, client, args[1].as_str().unwrap())).await.unwrap();
            }
            _ => soon("add", self.add(args)).await,
        }
        let effects = self.effects(&mut monitor).await;
        if let Some(recorded) = case.get("effects") {
            assert_eq!(effects, self.expected(name, recorded), "{name}");
        } else {
            assert_eq!(name, "update", "only this one was recorded without effects");
            let kinds: Vec<_> = effects.iter().map(|words| &*words[0]).collect();
            // As a MONITOR beside a Centrifugo 6.9.1 showed them.
            let (begin, end): (&[_], &[_]) = match args[5].as_str().unwrap() {
                "1" => (&["HEXISTS"], &["EXPIRE", "ZADD", "EXPIRE"]),
                _ => (&[], &[]),
            };
            assert_eq!(kinds, [begin, &["HSET", "EXPIRE", "ZADD", "EXPIRE"], end].concat());
        }
        if let Some(recorded) = case.get("keys_after") {
            self.keys(name, recorded.as_object().unwrap()).await;
        }
    }

    /// Adds the client that recorded arguments name.
    async fn add(&self, args: &Value) {
        let client = ClientId(args[2].as_str().unwrap().parse().unwrap());
        let info = info(&args[3]["base64"]);
        assert_eq!(info.user, args[4].as_str().unwrap());
        self.store.add(&"pres:c".into(), client, info).await.unwrap();
    }

    /// Commands that touched data since the monitor began, in order. Infos are compared in the keys instead.
    async fn effects(&self, monitor: &mut Monitor) -> Vec<Vec<String>> {
        self.redis.command(&["ECHO", "end"]).await;
        let mut effects = Vec::new();
        let kinds = [
            "HSET",
            "HGET",
            "HDEL",
            "HEXISTS",
            "HINCRBY",
            "HLEN",
            "HGETALL",
            "HVALS",
            "ZADD",
            "ZREM",
            "ZRANGEBYSCORE",
            "ZREMRANGEBYSCORE",
            "EXPIRE",
            "DEL",
            "ECHO",
        ];
        loop {
            let (_, mut words) = monitor.next(&kinds).await;
            words[0] = words[0].to_uppercase();
            match &*words[0] {
                "ECHO" => return effects,
                "HSET" => words.truncate(3),
                _ => {}
            }
            effects.push(words);
        }
    }

    /// Recorded effects, less the infos, and with our cheaper read for counting.
    fn expected(&self, name: &str, recorded: &Value) -> Vec<Vec<String>> {
        let effects = recorded.as_array().unwrap().iter().map(|effect| {
            let words = effect.as_array().unwrap().iter();
            let mut words: Vec<_> = words.filter_map(|word| word.as_str().map(str::to_owned)).collect();
            if words[0] == "HSET" {
                words.truncate(3);
            }
            if words[0] == "HGETALL" && name == "presence_stats" {
                words[0] = "HVALS".into();
            }
            words
        });
        effects.collect()
    }

    /// All keys of the server, with type, content, and a time to live.
    async fn keys(&self, name: &str, recorded: &serde_json::Map<String, Value>) {
        let mut connection = self.redis.connection().await;
        let keys: BTreeSet<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
        let channel = "pres:c";
        let of_channel = recorded.iter().filter(|(key, _)| key.ends_with(&format!(".{channel}")));
        let of_presence: BTreeMap<_, _> = of_channel.filter(|(key, _)| key.contains(".presence.")).collect();
        assert_eq!(keys.iter().collect::<Vec<_>>(), of_presence.keys().copied().collect::<Vec<_>>(), "{name}");
        for (key, recorded) in of_presence {
            let kind: String = redis::cmd("TYPE").arg(key).query_async(&mut connection).await.unwrap();
            assert_eq!(kind, recorded["type"].as_str().unwrap(), "{name}: {key}");
            let ttl: u64 = redis::cmd("TTL").arg(key).query_async(&mut connection).await.unwrap();
            assert!(ttl > 0 && ttl <= self.ttl, "{name}: {key} lives for {ttl} s");
            assert_eq!(content(&mut connection, key, &kind).await, parsed(&recorded["value"]), "{name}: {key}");
        }
    }
}

fn vectors(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/redis").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The script call of a case.
fn script_call(case: &Value) -> &Value {
    case["commands"].as_array().unwrap().iter().find(|command| command["command"] == "EVALSHA").unwrap()
}

/// When it was made, Unix seconds.
fn at(case: &Value) -> u64 {
    script_call(case)["at"].as_u64().unwrap()
}

fn info(base64: &Value) -> ClientInfo {
    let bytes = BASE64_STANDARD.decode(base64.as_str().unwrap()).unwrap();
    let wire::ClientInfo { user, client, conn_info, chan_info } = wire::ClientInfo::decode(&*bytes).unwrap();
    ClientInfo { user, client, conn_info, chan_info }
}

/// What a recorded reply to `presence` says.
fn listed(reply: &Value) -> BTreeMap<String, ClientInfo> {
    let entries = reply["result"]["presence"].as_object().unwrap().iter().map(|(client, info)| {
        let json = |value: Option<&Value>| value.map(Value::to_string).unwrap_or_default().into();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (conn_info, chan_info) = (json(info.get("conn_info")), json(info.get("chan_info")));
        let info = ClientInfo { user: text(&info["user"]), client: text(&info["client"]), conn_info, chan_info };
        (client.clone(), info)
    });
    entries.collect()
}

/// Fields or members of a key, with their values or scores.
async fn content(connection: &mut MultiplexedConnection, key: &str, kind: &str) -> BTreeMap<String, Vec<u8>> {
    let mut read = match kind {
        "hash" => redis::cmd("HGETALL"),
        _ => redis::cmd("ZRANGE"),
    };
    read.arg(key);
    if kind == "zset" {
        read.arg(0).arg(-1).arg("WITHSCORES");
    }
    read.query_async(connection).await.unwrap()
}

/// The same as recorded.
fn parsed(value: &Value) -> BTreeMap<String, Vec<u8>> {
    let bytes = |value: &Value| match value {
        Value::String(text) => text.clone().into_bytes(),
        Value::Number(score) => score.to_string().into_bytes(),
        other => BASE64_STANDARD.decode(other["base64"].as_str().unwrap()).unwrap(),
    };
    value.as_object().unwrap().iter().map(|(name, value)| (name.clone(), bytes(value))).collect()
}

/// Puts a recorded key into Redis.
async fn write(connection: &mut MultiplexedConnection, key: &str, recorded: &Value) {
    for (name, value) in parsed(&recorded["value"]) {
        let mut put = match recorded["type"].as_str().unwrap() {
            "hash" => redis::cmd("HSET"),
            _ => redis::cmd("ZADD"),
        };
        match recorded["type"].as_str().unwrap() {
            "hash" => put.arg(key).arg(name).arg(value),
            _ => put.arg(key).arg(value).arg(name),
        };
        put.exec_async(connection).await.unwrap();
    }
}
