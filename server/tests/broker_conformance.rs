//! What every broker promises, and what those promise that several nodes share.

mod redis_support;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use redis_support::{RedisServer, SOON, soon, until};
use starling_server::{
    broker::{
        Broker, BrokerError, BrokerEvents, ClientInfo, History, HistoryOptions, HistoryQuery, Limit, Publication,
        PublishOptions, Published, StreamPosition, Suppressed, Version,
        memory::MemoryBroker,
        redis::{Access, RedisBroker, Settings},
    },
    clock::Moment,
    names::ChannelName,
};
use tokio::{
    runtime::Handle,
    sync::{Mutex, mpsc},
};

/// Time that passes when a test says so is given in these; in Redis it passes by itself.
const TTL: Duration = Duration::from_secs(1);

const OPTIONS: HistoryOptions =
    HistoryOptions { size: 5, ttl: Duration::from_secs(300), meta_ttl: Duration::from_secs(3600) };

const ALL: HistoryQuery = HistoryQuery { since: None, limit: Limit::All, reverse: false };

/// A broker as two nodes see it; with memory both are the same.
struct Deployment {
    nodes: [Node; 2],
    /// Milliseconds; `None` where time passes by itself.
    clock: Option<Arc<AtomicU64>>,
    _servers: Vec<RedisServer>,
}

struct Node {
    broker: Arc<dyn Broker>,
    told: Arc<Mutex<mpsc::UnboundedReceiver<Told>>>,
}

/// What a node's subscribers were told.
#[derive(Clone, Debug, PartialEq)]
enum Told {
    Publication(ChannelName, Publication, Option<Bytes>),
    Joined(ChannelName, ClientInfo),
    Left(ChannelName, ClientInfo),
}

struct Subscribers(mpsc::UnboundedSender<Told>);

impl BrokerEvents for Subscribers {
    fn publication(
        &self,
        channel: &ChannelName,
        publication: Publication,
        previous: Option<Bytes>,
    ) -> Result<(), BrokerError> {
        if &publication.data[..] == b"refused" {
            return Err(BrokerError::Overloaded);
        }
        self.tell(Told::Publication(channel.clone(), publication, previous))
    }

    fn joined(&self, channel: &ChannelName, info: ClientInfo) -> Result<(), BrokerError> {
        self.tell(Told::Joined(channel.clone(), info))
    }

    fn left(&self, channel: &ChannelName, info: ClientInfo) -> Result<(), BrokerError> {
        self.tell(Told::Left(channel.clone(), info))
    }

    fn interrupted(&self, _: &[ChannelName]) {}

    fn wanted(&self, _: &ChannelName) -> bool {
        true
    }
}

impl Subscribers {
    fn tell(&self, told: Told) -> Result<(), BrokerError> {
        // A test that has seen enough does not listen any more.
        let _ = self.0.send(told);
        Ok(())
    }
}

impl Deployment {
    async fn memory() -> Self {
        let clock = Arc::new(AtomicU64::new(0));
        let now = Arc::clone(&clock);
        let (sender, told) = mpsc::unbounded_channel();
        let broker = MemoryBroker::with_time(Arc::new(Subscribers(sender)), move || Moment(now.load(Ordering::SeqCst)));
        let (broker, told): (Arc<dyn Broker>, _) = (Arc::new(broker), Arc::new(Mutex::new(told)));
        let node = || Node { broker: Arc::clone(&broker), told: Arc::clone(&told) };
        Self { nodes: [node(), node()], clock: Some(clock), _servers: Vec::new() }
    }

    async fn one_redis() -> Self {
        Self::of_redis(1, false).await
    }

    async fn two_redis_with_resp2() -> Self {
        Self::of_redis(2, true).await
    }

    async fn of_redis(count: usize, force_resp2: bool) -> Self {
        let mut servers = Vec::new();
        for _ in 0..count {
            servers.push(RedisServer::start().await);
        }
        let addresses: Vec<_> = servers.iter().map(RedisServer::address).collect();
        let nodes = [(), ()].map(|()| {
            let access = Access { force_resp2, ..Access::default() };
            let settings = Settings::new(&addresses, "centrifugo", &access).unwrap();
            let (sender, told) = mpsc::unbounded_channel();
            let broker = RedisBroker::start(settings, Arc::new(Subscribers(sender)), &Handle::current());
            Node { broker: Arc::new(broker), told: Arc::new(Mutex::new(told)) }
        });
        for node in &nodes {
            until("connected", SOON, async || node.broker.status().is_ok()).await;
        }
        Self { nodes, clock: None, _servers: servers }
    }

    /// Both nodes get the channel from now on.
    async fn subscribe(&self, channel: &str) {
        for node in &self.nodes {
            soon("subscribe", node.broker.subscribe(&channel.into())).await.unwrap();
        }
    }

    /// Lets at least this time pass until `holds`: where time passes by itself, not sooner than it does.
    async fn after(&self, time: Duration, holds: impl AsyncFnMut() -> bool) {
        if let Some(clock) = &self.clock {
            clock.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
        }
        until("the end of its time", SOON, holds).await;
    }
}

impl Node {
    async fn publish(&self, channel: &str, data: &str, options: PublishOptions) -> Published {
        let publication = Publication { data: data.to_owned().into(), ..Publication::default() };
        soon("publish", self.broker.publish(&channel.into(), publication, options)).await.unwrap()
    }

    /// With the options of this suite.
    async fn append(&self, channel: &str, data: &str) -> StreamPosition {
        self.publish(channel, data, with_history()).await.position.expect("a position")
    }

    async fn read(&self, channel: &str, query: HistoryQuery, options: HistoryOptions) -> History {
        soon("history", self.broker.history(&channel.into(), query, options)).await.unwrap()
    }

    async fn offsets(&self, channel: &str, query: HistoryQuery) -> Vec<u64> {
        let history = self.read(channel, query, OPTIONS).await;
        let offset = |publication: Publication| {
            let position = publication.position.expect("kept publications have positions");
            assert_eq!(position.epoch, history.top.epoch);
            position.offset
        };
        history.publications.into_iter().map(offset).collect()
    }

    async fn told(&self) -> Told {
        soon("an event", async { self.told.lock().await.recv().await }).await.expect("the broker lives")
    }

    /// The next publication: payload, offset, payload before it.
    async fn publication(&self) -> (String, Option<u64>, Option<String>) {
        let Told::Publication(_, publication, previous) = self.told().await else { panic!("a publication") };
        let text = |bytes: Bytes| String::from_utf8(bytes.into()).unwrap();
        (text(publication.data), publication.position.map(|position| position.offset), previous.map(text))
    }
}

fn with_history() -> PublishOptions {
    PublishOptions { history: Some(OPTIONS), ..PublishOptions::default() }
}

fn query(since: Option<u64>, limit: Limit, reverse: bool) -> HistoryQuery {
    HistoryQuery { since, limit, reverse }
}

macro_rules! for_every_broker {
    ($($name:ident)*) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(super::Deployment::memory().await).await; })*
        }
        mod one_redis {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(super::Deployment::one_redis().await).await; })*
        }
        mod two_redis_with_resp2 {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(super::Deployment::two_redis_with_resp2().await).await; })*
        }
    };
}

for_every_broker! {
    offsets_count_from_one_in_one_epoch_for_all_nodes
    a_publication_arrives_with_all_it_has
    history_keeps_as_many_as_asked
    reads_begin_and_end_where_asked
    a_first_read_begins_a_stream
    publications_go_after_their_time_and_the_position_stays
    a_stream_that_nobody_uses_is_forgotten
    a_key_publishes_once
    a_key_publishes_once_without_history
    versions_that_are_not_greater_are_passed_over
    what_skips_history_has_no_position_and_moves_none
    removing_history_keeps_the_top
    publishers_at_the_same_time_get_offsets_of_their_own_and_subscribers_see_them_in_order
    a_delta_comes_with_the_publication_before
    publications_made_at_once_keep_their_order_whatever_they_ask
    joins_and_leaves_reach_every_node
    channels_do_not_share_streams_or_keys
}

async fn offsets_count_from_one_in_one_epoch_for_all_nodes(deployment: Deployment) {
    let [a, b] = &deployment.nodes;
    let mut positions = Vec::new();
    for count in 0..10 {
        positions.push(if count % 2 == 0 { a } else { b }.append("news", "x").await);
    }
    assert_eq!(positions.iter().map(|position| position.offset).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    let epoch = positions[0].epoch.clone();
    assert!(!epoch.is_empty() && *epoch != *"_");
    assert!(positions.iter().all(|position| position.epoch == epoch));
    let top = b.read("news", query(None, Limit::PositionOnly, false), OPTIONS).await.top;
    assert_eq!(top, StreamPosition { epoch, offset: 10 });
}

async fn a_publication_arrives_with_all_it_has(deployment: Deployment) {
    let [a, b] = &deployment.nodes;
    deployment.subscribe("news").await;
    let info = ClientInfo {
        user: "u".into(),
        client: "c".into(),
        conn_info: "{}".into(),
        chan_info: Bytes::from_static(b"\xff"),
    };
    let publication = Publication {
        data: Bytes::from_static(b"\0__p1:\xff"),
        info: Some(info),
        tags: [("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())].into(),
        time: Some(1_700_000_000_000),
        ..Publication::default()
    };
    let published = a.broker.publish(&"news".into(), publication.clone(), with_history()).await.unwrap();
    let expected = Publication { position: published.position, ..publication };
    assert_eq!(b.told().await, Told::Publication("news".into(), expected.clone(), None));
    assert_eq!(b.read("news", ALL, OPTIONS).await.publications, [expected]);
}

async fn history_keeps_as_many_as_asked(deployment: Deployment) {
    let [a, b] = &deployment.nodes;
    for size in [5, 5, 5, 5, 5, 5, 5, 2] {
        let options = PublishOptions { history: Some(HistoryOptions { size, ..OPTIONS }), ..PublishOptions::default() };
        a.publish("news", "x", options).await;
    }
    assert_eq!(b.offsets("news", ALL).await, [7, 8]);
    for _ in 0..9 {
        a.append("news", "x").await;
    }
    assert_eq!(b.offsets("news", ALL).await, [13, 14, 15, 16, 17]);
}

async fn reads_begin_and_end_where_asked(deployment: Deployment) {
    let [a, b] = &deployment.nodes;
    // Kept are 4 to 8.
    for count in 1..=8 {
        a.append("news", &count.to_string()).await;
    }
    let table: [(HistoryQuery, &[u64]); 20] = [
        (query(None, Limit::PositionOnly, false), &[]),
        (query(None, Limit::PositionOnly, true), &[]),
        (query(Some(6), Limit::PositionOnly, false), &[]),
        (query(None, Limit::All, false), &[4, 5, 6, 7, 8]),
        (query(None, Limit::All, true), &[8, 7, 6, 5, 4]),
        (query(None, Limit::AtMost(2), false), &[4, 5]),
        (query(None, Limit::AtMost(2), true), &[8, 7]),
        (query(None, Limit::AtMost(100), false), &[4, 5, 6, 7, 8]),
        (query(Some(6), Limit::All, false), &[7, 8]),
        (query(Some(6), Limit::AtMost(1), false), &[7]),
        (query(Some(6), Limit::All, true), &[5, 4]),
        (query(Some(6), Limit::AtMost(1), true), &[5]),
        (query(Some(0), Limit::AtMost(2), false), &[4, 5]),
        (query(Some(2), Limit::AtMost(2), false), &[4, 5]),
        (query(Some(8), Limit::All, false), &[]),
        (query(Some(100), Limit::All, false), &[]),
        (query(Some(u64::MAX), Limit::All, false), &[]),
        (query(Some(4), Limit::All, true), &[]),
        (query(Some(1), Limit::All, true), &[]),
        (query(Some(9), Limit::AtMost(2), true), &[8, 7]),
    ];
    for (query, expected) in table {
        assert_eq!(b.offsets("news", query).await, expected, "{query:?}");
    }
    let newest = b.read("news", query(None, Limit::AtMost(1), true), OPTIONS).await;
    assert_eq!((&newest.publications[0].data[..], newest.top.offset), (&b"8"[..], 8));
}

async fn a_first_read_begins_a_stream(deployment: Deployment) {
    let [a, b] = &deployment.nodes;
    let first = a.read("news", query(None, Limit::PositionOnly, false), OPTIONS).await;
    assert_eq!((first.top.offset, first.publications.len()), (0, 0));
    assert_eq!(b.read("news", ALL, OPTIONS).await, first);
    assert_eq!(b.append("news", "x").await, StreamPosition { offset: 1, ..first.top });
}

async fn publications_go_after_their_time_and_the_position_stays(deployment: Deployment) {
    let [a, b] = &deployment.nodes;
    let short = HistoryOptions { ttl: TTL, ..OPTIONS };
    let publish = || a.publish("news", "x", PublishOptions { history: Some(short), ..PublishOptions::default() });
    publish().await;
    let before = publish().await.position.unwrap();
    let read = async || b.read("news", ALL, short).await;
    deployment.after(TTL, async || read().await.publications.is_empty()).await;
    assert_eq!(read().await.top, before);
    let after = publish().await.position.unwrap();
    assert_eq!(after, StreamPosition { offset: 3, ..before });
    let history = read().await;
    assert_eq!(history.top, after);
    assert_eq!(history.publications.len(), 1);
}

async fn a_stream_that_nobody_uses_is_forgotten(deployment: Deployment) {
    let [a, b] = &deployment.nodes;
    let short = HistoryOptions { ttl: TTL, meta_ttl: TTL, ..OPTIONS };
    let options = PublishOptions { history: Some(short), ..PublishOptions::default() };
    let before = a.publish("news", "x", options.clone()).await.position.unwrap();
    if deployment.clock.is_none() {
        // Looking would be a use: the pause is what is tested here.
        tokio::time::sleep(TTL * 2).await;
    }
    deployment.after(TTL, async || true).await;
    let history = b.read("news", ALL, short).await;
    assert_ne!(history.top.epoch, before.epoch);
    assert_eq!((history.top.offset, history.publications.len()), (0, 0));
    assert_eq!(a.publish("news", "x", options).await.position.unwrap(), StreamPosition { offset: 1, ..history.top });
}

async fn a_key_publishes_once(deployment: Deployment) {
    let [a, b] = &deployment.nodes;
    deployment.subscribe("news").await;
    let keyed = |key: &str| PublishOptions { idempotency_key: Some(key.into()), ..with_history() };
    let first = a.publish("news", "1", keyed("k")).await;
    assert_eq!((first.position.as_ref().unwrap().offset, first.suppressed), (1, None));
    a.publish("news", "2", keyed("")).await;
    let repeated = b.publish("news", "never", keyed("k")).await;
    assert_eq!(repeated, Published { suppressed: Some(Suppressed::Idempotency), ..first.clone() });
    // Still after the history is gone.
    a.broker.remove_history(&"news".into()).await.unwrap();
    assert_eq!(b.publish("news", "never", keyed("k")).await, repeated);
    b.publish("news", "3", keyed("other")).await;
    let mut delivered = Vec::new();
    for _ in 0..3 {
        delivered.push(b.publication().await);
    }
    assert_eq!(delivered, [1, 2, 3].map(|number| (number.to_string(), Some(number), None)));
    // One key, many at once.
    let many = (0..20).map(|_| a.publish("news", "4", keyed("storm")));
    let answers = join_all(many).await;
    assert!(answers.iter().all(|answer| answer.position.as_ref().unwrap().offset == 4));
    assert_eq!(answers.iter().filter(|answer| answer.suppressed.is_none()).count(), 1);
    if deployment.clock.is_some() {
        deployment.after(Duration::from_secs(300), async || true).await;
        assert_eq!(a.publish("news", "5", keyed("k")).await.suppressed, None);
    }
}

async fn a_key_publishes_once_without_history(deployment: Deployment) {
    let [a, b] = &deployment.nodes;
    deployment.subscribe("news").await;
    let keyed = |key: &str| PublishOptions { idempotency_key: Some(key.into()), ..PublishOptions::default() };
    assert_eq!(a.publish("news", "1", keyed("k")).await, Published::default());
    let suppressed = Published { position: None, suppressed: Some(Suppressed::Idempotency) };
    assert_eq!(b.publish("news", "never", keyed("k")).await, suppressed);
    // Whether or not it keeps history now.
    let with_history = PublishOptions { history: Some(OPTIONS), ..keyed("k") };
    assert_eq!(b.publish("news", "never", with_history).await, suppressed);
    b.publish("news", "2", keyed("other")).await;
    assert_eq!(b.publication().await, ("1".to_owned(), None, None));
    assert_eq!(b.publication().await, ("2".to_owned(), None, None));
}

async fn versions_that_are_not_greater_are_passed_over(deployment: Deployment) {
    let [a, b] = &deployment.nodes;
    deployment.subscribe("news").await;
    let table = [
        (5, "x", true),
        (5, "x", false),
        (4, "x", false),
        (6, "x", true),
        (6, "", false),
        (1, "y", true),
        (10, "y", true),
        (9, "y", false),
        (11, "", true),
        (11, "z", true),
    ];
    let mut offset = 0;
    for (number, epoch, taken) in table {
        let version = Some(Version { number, epoch: epoch.into() });
        let published = a.publish("news", "x", PublishOptions { version, ..with_history() }).await;
        offset += u64::from(taken);
        assert_eq!(published.suppressed, (!taken).then_some(Suppressed::Version), "{number} {epoch}");
        assert_eq!(published.position.unwrap().offset, offset, "{number} {epoch}");
    }
    for expected in 1..=offset {
        assert_eq!(b.publication().await.1, Some(expected));
    }
    // A suppressed publication leaves no result: its key is free.
    let keyed = |number| {
        let version = Some(Version { number, epoch: "z".into() });
        PublishOptions { version, idempotency_key: Some("k".into()), ..with_history() }
    };
    assert_eq!(a.publish("news", "x", keyed(11)).await.suppressed, Some(Suppressed::Version));
    assert_eq!(a.publish("news", "x", keyed(12)).await.suppressed, None);
    // Without history versions mean nothing.
    let version = Some(Version { number: 1, epoch: "z".into() });
    let without = PublishOptions { version, ..PublishOptions::default() };
    assert_eq!(a.publish("news", "x", without).await, Published::default());
}

async fn what_skips_history_has_no_position_and_moves_none(deployment: Deployment) {
    let [a, b] = &deployment.nodes;
    deployment.subscribe("news").await;
    a.append("news", "1").await;
    assert_eq!(a.publish("news", "skipped", PublishOptions::default()).await, Published::default());
    a.append("news", "2").await;
    let mut delivered = BTreeSet::new();
    for _ in 0..3 {
        let (data, offset, _) = b.publication().await;
        delivered.insert((data, offset));
    }
    let expected = [("1", Some(1)), ("2", Some(2)), ("skipped", None)];
    assert_eq!(delivered, expected.map(|(data, offset)| (data.to_owned(), offset)).into());
    assert_eq!(b.offsets("news", ALL).await, [1, 2]);
}

async fn removing_history_keeps_the_top(deployment: Deployment) {
    let [a, b] = &deployment.nodes;
    a.append("news", "1").await;
    let before = a.append("news", "2").await;
    for _ in 0..2 {
        soon("remove", b.broker.remove_history(&"news".into())).await.unwrap();
        let history = a.read("news", ALL, OPTIONS).await;
        assert_eq!(history, History { publications: Vec::new(), top: before.clone() });
    }
    assert_eq!(a.append("news", "3").await, StreamPosition { offset: 3, ..before });
    assert_eq!(b.offsets("news", query(Some(1), Limit::All, false)).await, [3]);
    soon("remove", b.broker.remove_history(&"nothing".into())).await.unwrap();
}

async fn publishers_at_the_same_time_get_offsets_of_their_own_and_subscribers_see_them_in_order(
    deployment: Deployment,
) {
    let [a, b] = &deployment.nodes;
    const EACH: u64 = 200;
    deployment.subscribe("news").await;
    let publishers = (0..8).map(|number| {
        let broker = Arc::clone(if number % 2 == 0 { &a.broker } else { &b.broker });
        tokio::spawn(async move {
            let mut offsets = Vec::new();
            for count in 0..EACH {
                let publication = Publication { data: format!("{number} {count}").into(), ..Publication::default() };
                let published = broker.publish(&"news".into(), publication, with_history()).await.unwrap();
                offsets.push(published.position.unwrap().offset);
            }
            offsets
        })
    });
    let mut all = BTreeSet::new();
    for offsets in soon("publishers", join_all(publishers.collect::<Vec<_>>())).await {
        let offsets = offsets.unwrap();
        assert!(offsets.is_sorted());
        all.extend(offsets);
    }
    assert!(all.into_iter().eq(1..=8 * EACH));
    let nodes = if deployment.clock.is_some() { &deployment.nodes[..1] } else { &deployment.nodes[..] };
    let mut seen = Vec::new();
    for node in nodes {
        let mut datas = Vec::new();
        for expected in 1..=8 * EACH {
            let (data, offset, _) = node.publication().await;
            assert_eq!(offset, Some(expected));
            datas.push(data);
        }
        seen.push(datas);
    }
    assert!(seen.iter().all(|datas| *datas == seen[0]));
}

async fn a_delta_comes_with_the_publication_before(deployment: Deployment) {
    let [a, b] = &deployment.nodes;
    deployment.subscribe("news").await;
    let delta = || PublishOptions { delta: true, ..with_history() };
    a.publish("news", "1", delta()).await;
    a.publish("news", "2", delta()).await;
    a.append("news", "3").await;
    a.publish("news", "4", delta()).await;
    a.broker.remove_history(&"news".into()).await.unwrap();
    a.publish("news", "5", delta()).await;
    // It means nothing without history.
    a.publish("news", "6", PublishOptions { delta: true, ..PublishOptions::default() }).await;
    let expected = [
        ("1", Some(1), None),
        ("2", Some(2), Some("1")),
        ("3", Some(3), None),
        ("4", Some(4), Some("3")),
        ("5", Some(5), None),
        ("6", None, None),
    ];
    for (data, offset, previous) in expected {
        assert_eq!(b.publication().await, (data.to_owned(), offset, previous.map(str::to_owned)));
    }
}

async fn publications_made_at_once_keep_their_order_whatever_they_ask(deployment: Deployment) {
    let [a, b] = &deployment.nodes;
    deployment.subscribe("news").await;
    let options = |number: u64| PublishOptions {
        history: Some(HistoryOptions { size: if number.is_multiple_of(7) { 3 } else { 5 }, ..OPTIONS }),
        idempotency_key: number.is_multiple_of(11).then(|| format!("k{number}")),
        delta: !number.is_multiple_of(3),
        version: number.is_multiple_of(13).then(|| Version { number, epoch: String::new() }),
    };
    let publications = (1..=100_u64).flat_map(|number| {
        let publication = Publication { data: number.to_string().into(), ..Publication::default() };
        let other = a.broker.publish(&"other".into(), publication.clone(), with_history());
        [a.broker.publish(&"news".into(), publication, options(number)), other]
    });
    let answers = soon("answers", join_all(publications.collect::<Vec<_>>())).await;
    let offsets: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().position.unwrap().offset).collect();
    assert!(offsets.into_iter().eq((1..=100).flat_map(|number| [number, number])));
    let mut expected = 1;
    while expected <= 100 {
        let Told::Publication(channel, publication, previous) = b.told().await else { panic!("a publication") };
        if channel == "news".into() {
            assert_eq!(publication.data, expected.to_string());
            assert_eq!(publication.position.unwrap().offset, expected);
            let before = (!expected.is_multiple_of(3) && expected > 1).then(|| Bytes::from((expected - 1).to_string()));
            assert_eq!(previous, before);
            expected += 1;
        }
    }
    assert_eq!(b.offsets("news", ALL).await, [96, 97, 98, 99, 100]);
}

async fn joins_and_leaves_reach_every_node(deployment: Deployment) {
    let [a, b] = &deployment.nodes;
    deployment.subscribe("news").await;
    let info = ClientInfo { user: "u".into(), client: "c".into(), conn_info: "1".into(), chan_info: Bytes::new() };
    soon("join", a.broker.join(&"news".into(), info.clone())).await.unwrap();
    assert_eq!(b.told().await, Told::Joined("news".into(), info.clone()));
    soon("leave", a.broker.leave(&"news".into(), info.clone())).await.unwrap();
    assert_eq!(b.told().await, Told::Left("news".into(), info));
    assert_eq!(a.read("news", ALL, OPTIONS).await.top.offset, 0);
}

async fn channels_do_not_share_streams_or_keys(deployment: Deployment) {
    let [a, b] = &deployment.nodes;
    let channels: Vec<_> = (0..40).map(|number| format!("c{number}")).collect();
    for channel in &channels {
        let options = PublishOptions { idempotency_key: Some("k".into()), ..with_history() };
        let published = a.publish(channel, channel, options).await;
        assert_eq!((published.position.unwrap().offset, published.suppressed), (1, None));
    }
    let mut epochs = BTreeSet::new();
    for channel in &channels {
        let history = b.read(channel, ALL, OPTIONS).await;
        assert_eq!(history.publications[0].data, *channel);
        epochs.insert(history.top.epoch);
    }
    assert_eq!(epochs.len(), channels.len());
}

// === What only a broker alone promises ===

#[tokio::test]
async fn what_the_workers_do_not_take_has_not_happened() {
    let deployment = Deployment::memory().await;
    let [node, _] = &deployment.nodes;
    let before = node.append("news", "1").await;
    let refused = Publication { data: "refused".into(), ..Publication::default() };
    let options = PublishOptions { idempotency_key: Some("k".into()), ..with_history() };
    let answer = node.broker.publish(&"news".into(), refused, options.clone()).await;
    assert_eq!(answer, Err(BrokerError::Overloaded));
    assert_eq!(node.read("news", ALL, OPTIONS).await.top, before);
    assert_eq!(node.publish("news", "2", options).await.position.unwrap(), StreamPosition { offset: 2, ..before });
}
