//! What every presence store promises, and what those promise in which entries expire.

mod redis_support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use redis_support::{Peer, RedisServer, SOON, soon, until};
use starling_server::{
    broker::{
        BrokerError, ClientInfo,
        redis::{Access, Settings, hashing},
    },
    names::{ChannelName, ClientId},
    presence::{
        Presence, PresenceStats,
        memory::MemoryPresence,
        redis::{PresenceOptions, RedisPresence},
    },
};
use tokio::runtime::Handle;
use uuid::Uuid;

const TTL: u64 = 60;

/// A store as two nodes see it. Where entries expire, time passes only when a test says so.
struct Deployment {
    nodes: [Arc<dyn Presence>; 2],
    clock: Arc<AtomicU64>,
    expires: bool,
    servers: Vec<RedisServer>,
}

impl Deployment {
    async fn memory() -> Self {
        let store: Arc<dyn Presence> = Arc::new(MemoryPresence::default());
        Self { nodes: [Arc::clone(&store), store], clock: Arc::default(), expires: false, servers: Vec::new() }
    }

    async fn one_redis() -> Self {
        Self::of_redis(1, false, false).await
    }

    async fn redis_with_user_mapping() -> Self {
        Self::of_redis(1, true, false).await
    }

    async fn two_redis_with_resp2() -> Self {
        Self::of_redis(2, false, true).await
    }

    async fn of_redis(count: usize, user_mapping: bool, force_resp2: bool) -> Self {
        let mut servers = Vec::new();
        for _ in 0..count {
            servers.push(RedisServer::start().await);
        }
        let addresses: Vec<_> = servers.iter().map(RedisServer::address).collect();
        let settings = Settings::new(&addresses, "centrifugo", &Access { force_resp2, ..Access::default() }).unwrap();
        let clock = Arc::new(AtomicU64::new(1_700_000_000));
        let options = PresenceOptions { ttl: Duration::from_secs(TTL), user_mapping };
        let node = || {
            let clock = Arc::clone(&clock);
            let store = RedisPresence::start(settings.clone(), options, &Handle::current());
            Arc::new(store.with_clock(move || clock.load(Ordering::SeqCst))) as Arc<dyn Presence>
        };
        Self { nodes: [node(), node()], clock, expires: true, servers }
    }

    fn pass(&self, seconds: u64) {
        assert!(self.expires);
        self.clock.fetch_add(seconds, Ordering::SeqCst);
    }

    async fn add(&self, node: usize, channel: &str, info: &ClientInfo) {
        soon("add", self.nodes[node].add(&channel.into(), id(info), info.clone())).await.unwrap();
    }

    async fn refresh(&self, node: usize, channel: &str, infos: &[ClientInfo]) {
        let entries = infos.iter().map(|info| (id(info), info.clone())).collect();
        soon("refresh", self.nodes[node].refresh(&channel.into(), entries)).await.unwrap();
    }

    async fn remove(&self, node: usize, channel: &str, info: &ClientInfo) {
        soon("remove", self.nodes[node].remove(&channel.into(), id(info), &info.user)).await.unwrap();
    }

    async fn list(&self, node: usize, channel: &str) -> BTreeMap<String, ClientInfo> {
        soon("list", self.nodes[node].list(&channel.into())).await.unwrap()
    }

    /// Clients and users.
    async fn stats(&self, node: usize, channel: &str) -> (u32, u32) {
        let PresenceStats { clients, users } = soon("stats", self.nodes[node].stats(&channel.into())).await.unwrap();
        (clients, users)
    }

    /// Names of all keys of all servers.
    async fn keys(&self) -> Vec<Vec<String>> {
        let mut keys = Vec::new();
        for server in &self.servers {
            keys.push(redis::cmd("KEYS").arg("*").query_async(&mut server.connection().await).await.unwrap());
        }
        keys
    }
}

/// A new client of a user.
fn client(user: &str) -> ClientInfo {
    client_of(user, ClientId::random())
}

fn client_of(user: &str, client: ClientId) -> ClientInfo {
    ClientInfo {
        user: user.into(),
        client: client.to_string(),
        conn_info: Bytes::from_static(b"{\"name\":\"n\"}"),
        chan_info: Bytes::new(),
    }
}

fn id(info: &ClientInfo) -> ClientId {
    ClientId(info.client.parse().unwrap())
}

fn by_client<'a>(infos: impl IntoIterator<Item = &'a ClientInfo>) -> BTreeMap<String, ClientInfo> {
    infos.into_iter().map(|info| (info.client.clone(), info.clone())).collect()
}

/// Makes a module with one test for each of these behaviours, for a kind of deployment.
macro_rules! conformance {
    ($($deployment:ident: $behaviours:ident;)*) => {
        $(mod $deployment { super::$behaviours!($deployment); })*
    };
}

macro_rules! tests {
    ($deployment:ident: $($behaviour:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $behaviour() {
                super::$behaviour(super::Deployment::$deployment().await).await;
            }
        )*
    };
}
use tests;

macro_rules! every_store {
    ($deployment:ident) => {
        super::tests! { $deployment:
            an_empty_channel_has_nobody,
            adding_again_counts_once_and_replaces_the_info,
            removing_who_is_not_there_changes_nothing,
            users_are_counted_once_and_anonymous_ones_together,
            nodes_see_each_other,
            channels_have_nothing_in_common,
            infos_come_back_byte_for_byte,
            ten_thousand_clients_are_listed_and_counted,
            a_random_walk_agrees_with_a_model,
        }
    };
}
use every_store;

macro_rules! stores_that_expire {
    ($deployment:ident) => {
        super::every_store!($deployment);
        super::tests! { $deployment:
            a_dead_nodes_entries_are_over_after_the_time_to_live,
            a_user_of_a_dead_node_leaves_with_its_last_client_elsewhere,
            thousands_of_entries_are_dropped_at_once,
            a_refresh_restores_what_the_store_has_lost,
            a_refresh_of_many_is_few_calls,
            keys_of_an_abandoned_channel_go_by_themselves,
            a_channel_lives_on_the_server_that_its_name_says,
            what_others_wrote_and_cannot_be_read_is_left_out,
            a_store_that_is_away_says_so_and_comes_back,
        }
    };
}
use stores_that_expire;

conformance! {
    memory: every_store;
    one_redis: stores_that_expire;
    redis_with_user_mapping: stores_that_expire;
    two_redis_with_resp2: stores_that_expire;
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_beside_a_broker_needs_no_connections_of_its_own() {
    let redis = RedisServer::start().await;
    let peer = Peer::start(redis.settings()).up().await;
    let mut connection = redis.connection().await;
    let mut connections = async || {
        let list: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut connection).await.unwrap();
        list.lines().count()
    };
    let before = connections().await;
    let store = RedisPresence::beside(&peer.broker, PresenceOptions::default());
    let info = client("alice");
    let channel = ChannelName::from("c");
    store.add(&channel, id(&info), info.clone()).await.unwrap();
    assert_eq!(store.list(&channel).await.unwrap(), by_client([&info]));
    assert_eq!(store.status(), Ok(()));
    assert_eq!(connections().await, before);
}

// === every store ===

async fn an_empty_channel_has_nobody(all: Deployment) {
    assert_eq!(all.list(0, "c").await, BTreeMap::new());
    assert_eq!(all.stats(0, "c").await, (0, 0));
    all.refresh(0, "c", &[]).await;
    assert_eq!(all.stats(0, "c").await, (0, 0));
}

async fn adding_again_counts_once_and_replaces_the_info(all: Deployment) {
    let mut info = client("alice");
    all.add(0, "c", &info).await;
    all.add(0, "c", &info).await;
    assert_eq!(all.stats(0, "c").await, (1, 1));
    info.chan_info = Bytes::from_static(b"{\"seat\":2}");
    all.add(0, "c", &info).await;
    assert_eq!(all.stats(0, "c").await, (1, 1));
    assert_eq!(all.list(0, "c").await, by_client([&info]));
    all.remove(0, "c", &info).await;
    assert_eq!(all.stats(0, "c").await, (0, 0));
}

async fn removing_who_is_not_there_changes_nothing(all: Deployment) {
    let (there, absent) = (client("alice"), client("alice"));
    all.remove(0, "c", &absent).await;
    all.add(0, "c", &there).await;
    all.remove(0, "c", &absent).await;
    all.remove(0, "other", &there).await;
    assert_eq!(all.list(0, "c").await, by_client([&there]));
    assert_eq!(all.stats(0, "c").await, (1, 1));
    all.remove(0, "c", &there).await;
    all.remove(0, "c", &there).await;
    assert_eq!(all.stats(0, "c").await, (0, 0));
    assert!(all.keys().await.iter().all(Vec::is_empty));
}

async fn users_are_counted_once_and_anonymous_ones_together(all: Deployment) {
    let clients = ["alice", "bob", "", "alice", ""].map(client);
    let mut counts = Vec::new();
    for info in &clients {
        all.add(0, "c", info).await;
        counts.push(all.stats(0, "c").await);
    }
    assert_eq!(counts, [(1, 1), (2, 2), (3, 3), (4, 3), (5, 3)]);
    counts.clear();
    for info in &clients {
        all.remove(0, "c", info).await;
        counts.push(all.stats(0, "c").await);
    }
    assert_eq!(counts, [(4, 3), (3, 2), (2, 2), (1, 1), (0, 0)]);
}

async fn nodes_see_each_other(all: Deployment) {
    let (a, b) = (client("alice"), client("alice"));
    all.add(0, "c", &a).await;
    all.add(1, "c", &b).await;
    for node in [0, 1] {
        assert_eq!(all.list(node, "c").await, by_client([&a, &b]));
        assert_eq!(all.stats(node, "c").await, (2, 1));
    }
    all.remove(1, "c", &b).await;
    assert_eq!(all.list(0, "c").await, by_client([&a]));
    assert_eq!(all.stats(0, "c").await, (1, 1));
}

async fn channels_have_nothing_in_common(all: Deployment) {
    let names = ["c", "ns:c", "ns:c.d", "#42", "канал", "user.c", "c.user", "$x{y}", "a b"];
    let clients: Vec<_> = names.iter().map(|name| client(name)).collect();
    for (name, info) in names.iter().zip(&clients) {
        all.add(0, name, info).await;
    }
    for (name, info) in names.iter().zip(&clients) {
        assert_eq!(all.list(1, name).await, by_client([info]), "{name}");
        assert_eq!(all.stats(1, name).await, (1, 1), "{name}");
    }
}

async fn infos_come_back_byte_for_byte(all: Deployment) {
    let long = "п".repeat(20_000);
    let infos = [
        ClientInfo { conn_info: Bytes::new(), ..client("") },
        ClientInfo { conn_info: (0..=255).collect(), chan_info: Bytes::from_static(&[0, 0]), ..client("\n\"\0") },
        client(&long),
    ];
    for info in &infos {
        all.add(0, "c", info).await;
    }
    assert_eq!(all.list(1, "c").await, by_client(&infos));
    assert_eq!(all.stats(1, "c").await, (3, 3));
}

async fn ten_thousand_clients_are_listed_and_counted(all: Deployment) {
    let clients: Vec<_> = (0..10_000).map(|count| client(&format!("user{}", count / 4))).collect();
    add_all(&all, "c", &clients).await;
    assert_eq!(all.list(1, "c").await, by_client(&clients));
    for _ in 0..20 {
        assert_eq!(all.stats(1, "c").await, (10_000, 2500));
    }
    for info in &clients[..4] {
        all.remove(0, "c", info).await;
    }
    assert_eq!(all.stats(1, "c").await, (9996, 2499));
}

async fn add_all(all: &Deployment, channel: &str, infos: &[ClientInfo]) {
    let adds = infos.iter().map(|info| all.nodes[0].add(&channel.into(), id(info), info.clone()));
    let adds = stream::iter(adds.collect::<Vec<_>>()).buffer_unordered(100);
    soon("adding", adds.try_for_each(|()| async { Ok(()) })).await.unwrap();
}

/// Each of two nodes adds, replaces, removes and refreshes its clients, time passes, and after each step one node says
/// what the model says.
async fn a_random_walk_agrees_with_a_model(all: Deployment) {
    for seed in 0..4 {
        let mut random = StdRng::seed_from_u64(seed);
        let channel = format!("walk{seed}");
        let users = ["", "alice", "bob", "carol"];
        // Clients of each node, whether they are in the channel, and the model: info and end of each entry.
        let clients: [Vec<ClientInfo>; 2] =
            [0, 1].map(|node| (0..8_u64).map(|n| walker(users[n as usize % 4], seed, node, n)).collect());
        let mut present = [[false; 8]; 2];
        let mut model: BTreeMap<String, (ClientInfo, u64)> = BTreeMap::new();
        for step in 0..250 {
            let node = random.random_range(0..2);
            let n = random.random_range(0..8);
            let now = all.clock.load(Ordering::SeqCst);
            match random.random_range(0..10) {
                0..4 => {
                    let mut info = clients[node][n].clone();
                    info.chan_info = format!("{step}").into();
                    all.add(node, &channel, &info).await;
                    present[node][n] = true;
                    model.insert(info.client.clone(), (info, now + TTL));
                }
                4..6 => {
                    all.remove(node, &channel, &clients[node][n]).await;
                    present[node][n] = false;
                    model.remove(&clients[node][n].client);
                }
                6..8 => {
                    let mut infos = Vec::new();
                    for (info, _) in clients[node].iter().zip(present[node]).filter(|(_, present)| *present) {
                        // What expired comes back as it is refreshed, in stores in which anything expires.
                        let info = model.get(&info.client).map_or(info, |(info, _)| info).clone();
                        infos.push(info.clone());
                        model.insert(info.client.clone(), (info, now + TTL));
                    }
                    all.refresh(node, &channel, &infos).await;
                }
                _ if all.expires => all.pass(random.random_range(1..40)),
                _ => {}
            }
            if all.expires {
                let now = all.clock.load(Ordering::SeqCst);
                model.retain(|_, (_, end)| *end > now);
            }
            let reader = random.random_range(0..2);
            match random.random_range(0..4) {
                0 => {
                    let expected = by_client(model.values().map(|(info, _)| info));
                    assert_eq!(all.list(reader, &channel).await, expected, "seed {seed}, step {step}");
                }
                1..3 => {
                    let users: std::collections::BTreeSet<_> = model.values().map(|(info, _)| &info.user).collect();
                    let expected = (model.len() as u32, users.len() as u32);
                    assert_eq!(all.stats(reader, &channel).await, expected, "seed {seed}, step {step}");
                }
                // Nobody looks, and nothing is swept.
                _ => {}
            }
        }
    }
}

/// A client whose id says whose it is, so that failures repeat.
fn walker(user: &str, seed: u64, node: u64, n: u64) -> ClientInfo {
    client_of(user, ClientId(Uuid::from_u64_pair(seed << 8 | node, n)))
}

// === stores that expire ===

async fn a_dead_nodes_entries_are_over_after_the_time_to_live(all: Deployment) {
    let dead: Vec<_> = (0..20).map(|count| client(&format!("dead{count}"))).collect();
    let alive: Vec<_> = (0..20).map(|count| client(&format!("alive{count}"))).collect();
    all.refresh(0, "c", &dead).await;
    all.refresh(1, "c", &alive).await;
    all.refresh(0, "only-dead", &dead).await;
    for _ in 0..2 {
        all.pass(TTL / 2 - 1);
        all.refresh(1, "c", &alive).await;
        assert_eq!(all.stats(1, "c").await, (40, 40));
        assert_eq!(all.list(1, "c").await, by_client(dead.iter().chain(&alive)));
    }
    all.pass(2);
    assert_eq!(all.stats(1, "c").await, (20, 20));
    assert_eq!(all.list(1, "c").await, by_client(&alive));
    assert_eq!(all.list(1, "only-dead").await, BTreeMap::new());
    assert_eq!(all.stats(1, "only-dead").await, (0, 0));
    // The node was only frozen.
    all.refresh(0, "c", &dead).await;
    assert_eq!(all.stats(1, "c").await, (40, 40));
}

async fn a_user_of_a_dead_node_leaves_with_its_last_client_elsewhere(all: Deployment) {
    let (dead, alive) = (client("alice"), client("alice"));
    for look_with_list in [true, false] {
        all.add(0, "c", &dead).await;
        all.pass(TTL - 1);
        all.add(1, "c", &alive).await;
        all.pass(1);
        match look_with_list {
            true => assert_eq!(all.list(1, "c").await, by_client([&alive])),
            false => assert_eq!(all.stats(1, "c").await, (1, 1)),
        }
        all.remove(1, "c", &alive).await;
        assert_eq!(all.stats(1, "c").await, (0, 0));
    }
}

async fn thousands_of_entries_are_dropped_at_once(all: Deployment) {
    let clients: Vec<_> = (0..9000).map(|count| client(&format!("user{}", count % 8500))).collect();
    for channel in ["listed", "counted"] {
        add_all(&all, channel, &clients).await;
    }
    let last = client("last");
    all.pass(1);
    all.add(1, "listed", &last).await;
    all.add(1, "counted", &last).await;
    assert_eq!(all.stats(1, "counted").await, (9001, 8501));
    all.pass(TTL - 1);
    assert_eq!(all.list(1, "listed").await, by_client([&last]));
    assert_eq!(all.stats(1, "counted").await, (1, 1));
    all.pass(1);
    assert_eq!(all.stats(1, "counted").await, (0, 0));
    assert_eq!(all.list(1, "listed").await, BTreeMap::new());
    assert!(all.keys().await.iter().all(Vec::is_empty));
}

async fn a_refresh_restores_what_the_store_has_lost(all: Deployment) {
    let clients = ["alice", "alice", "bob"].map(client);
    all.refresh(0, "c", &clients).await;
    for server in &all.servers {
        // The scripts are gone, too.
        server.command(&["FLUSHALL"]).await;
        server.command(&["SCRIPT", "FLUSH"]).await;
    }
    assert_eq!(all.stats(0, "c").await, (0, 0));
    all.refresh(0, "c", &clients).await;
    assert_eq!(all.list(1, "c").await, by_client(&clients));
    assert_eq!(all.stats(1, "c").await, (3, 2));
}

async fn a_refresh_of_many_is_few_calls(all: Deployment) {
    let small: Vec<_> = (0..1201).map(|_| client("alice")).collect();
    let large: Vec<_> = (0..5).map(|_| ClientInfo { conn_info: vec![b'x'; 200_000].into(), ..client("bob") }).collect();
    all.add(0, "c", &small[0]).await;
    let calls = async |infos| {
        let server = &all.servers[hashing::consistent_index("c", all.servers.len())];
        server.command(&["CONFIG", "RESETSTAT"]).await;
        all.refresh(0, "c", infos).await;
        let stats: String =
            redis::cmd("INFO").arg("commandstats").query_async(&mut server.connection().await).await.unwrap();
        let calls = stats.split_once("cmdstat_evalsha:calls=").unwrap().1;
        calls.split_once(',').unwrap().0.parse::<u32>().unwrap()
    };
    assert_eq!(calls(&small).await, 3);
    assert_eq!(calls(&large).await, 3, "the bytes of a call are bounded, too");
    assert_eq!(all.stats(1, "c").await, (1206, 2));
}

async fn keys_of_an_abandoned_channel_go_by_themselves(all: Deployment) {
    let addresses: Vec<_> = all.servers.iter().map(RedisServer::address).collect();
    let settings = Settings::new(&addresses, "p", &Access::default()).unwrap();
    let options = PresenceOptions { ttl: Duration::from_millis(300), user_mapping: true };
    let store = RedisPresence::start(settings, options, &Handle::current());
    let info = client("alice");
    store.add(&"c".into(), id(&info), info).await.unwrap();
    until("end of the keys", SOON, async || all.keys().await.iter().all(Vec::is_empty)).await;
}

async fn a_channel_lives_on_the_server_that_its_name_says(all: Deployment) {
    let channels: Vec<_> = (0..20).map(|count| format!("channel{count}")).collect();
    for channel in &channels {
        all.add(0, channel, &client("alice")).await;
    }
    for (place, keys) in all.keys().await.iter().enumerate() {
        let holds = |channel: &String| keys.contains(&format!("centrifugo.presence.data.{channel}"));
        let held: Vec<_> = channels.iter().filter(|channel| holds(channel)).collect();
        let count = all.servers.len();
        let own: Vec<_> = channels.iter().filter(|name| hashing::consistent_index(name, count) == place).collect();
        assert_eq!(held, own);
    }
}

async fn what_others_wrote_and_cannot_be_read_is_left_out(all: Deployment) {
    let info = client("alice");
    all.add(0, "c", &info).await;
    let server = &all.servers[hashing::consistent_index("c", all.servers.len())];
    let data = "centrifugo.presence.data.c";
    server.command(&["HSET", data, "no-protobuf", "\u{7f}\u{7f}"]).await;
    assert_eq!(all.list(0, "c").await, by_client([&info]));
    // With kept counts nobody has looked into the infos.
    let (_, users) = all.stats(0, "c").await;
    assert_eq!(users, 1);
    // A key of another kind is a failure of the store, and no panic.
    server.command(&["SET", data, "x"]).await;
    assert_eq!(soon("list", all.nodes[0].list(&"c".into())).await, Err(BrokerError::Unavailable));
    assert_eq!(soon("stats", all.nodes[0].stats(&"c".into())).await, Err(BrokerError::Unavailable));
    let failed = all.nodes[0].add(&"c".into(), id(&info), info);
    assert_eq!(soon("add", failed).await, Err(BrokerError::Unavailable));
}

async fn a_store_that_is_away_says_so_and_comes_back(mut all: Deployment) {
    let info = client("alice");
    let channel = ChannelName::from("c");
    all.add(0, "c", &info).await;
    let place = hashing::consistent_index("c", all.servers.len());
    all.servers[place].kill().await;
    let node = Arc::clone(&all.nodes[0]);
    assert_eq!(soon("add", node.add(&channel, id(&info), info.clone())).await, Err(BrokerError::Unavailable));
    let refresh = node.refresh(&channel, vec![(id(&info), info.clone())]);
    assert_eq!(soon("refresh", refresh).await, Err(BrokerError::Unavailable));
    assert_eq!(soon("remove", node.remove(&channel, id(&info), "alice")).await, Err(BrokerError::Unavailable));
    assert_eq!(soon("list", node.list(&channel)).await, Err(BrokerError::Unavailable));
    assert_eq!(soon("stats", node.stats(&channel)).await, Err(BrokerError::Unavailable));
    all.servers[place].restart().await;
    until("return", SOON, async || node.refresh(&channel, vec![(id(&info), info.clone())]).await.is_ok()).await;
    assert_eq!(all.list(0, "c").await, by_client([&info]));
    assert_eq!(all.stats(0, "c").await, (1, 1));
}
