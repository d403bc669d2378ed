//! Publications from the inbox of a worker to all its subscribers, who take everything at once.
//!
//! An iteration begins with the push into the inbox and ends when the last subscriber has the last publication: the wake-up of the
//! worker's thread is part of it, encoding and a kernel that sends are not.
#![allow(missing_docs)]

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use starling_server::{
    broker::{Publication, memory::MemoryBroker},
    channels::ChannelTable,
    clock::Clock,
    config::Config,
    metrics::WorkerCounters,
    names::ChannelName,
    session::{Opening, protocol::Protocol},
    settings::Settings,
    wire::websocket,
    worker::{Adopted, Carrier, Shared, Users, Workers, inbox::Inbox},
};
use tokio::runtime::Runtime;

const CHANNEL: &str = "chat";

/// One worker and its subscribers.
struct Rig {
    inbox: Arc<Inbox>,
    /// Another table, from whose inbox encoded publications are taken.
    encoder: ChannelTable,
    encoded: Arc<Inbox>,
    counters: Arc<WorkerCounters>,
    channel: ChannelName,
    subscribers: u64,
    workers: Workers,
    threads: Vec<std::thread::JoinHandle<()>>,
    _services: Runtime,
}

impl Rig {
    fn new(subscribers: u32) -> Self {
        let services = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        // Without pings, which would be deliveries of another kind.
        let options = r#"{"client":{"insecure":true,"ping_interval":"-1s","pong_timeout":"-2s"}}"#;
        let config = Config::from_json(options).expect("a configuration");
        let settings = Arc::new(Settings::new(&config, "bench").expect("settings"));
        let (inbox, encoded) = (Arc::new(Inbox::new()), Arc::new(Inbox::new()));
        let channel = ChannelName::from(CHANNEL);
        let encoder = ChannelTable::new(vec![encoded.clone()]);
        encoder.join(&channel, 0, Protocol::Json);
        let counters = Arc::new(WorkerCounters::default());
        let table = Arc::new(ChannelTable::new(vec![inbox.clone()]));
        let shared = Shared {
            clock: Clock::start(),
            inboxes: vec![inbox.clone()],
            counters: vec![counters.clone()],
            table: table.clone(),
            users: Arc::new(Users::default()),
            broker: Arc::new(MemoryBroker::new(table)),
            services: services.handle().clone(),
        };
        let (workers, threads) = Workers::start(Arc::new(shared), &settings).expect("a thread");
        for _ in 0..subscribers {
            workers.adopt(subscriber());
        }
        let subscribed = subscribers;
        let subscribers = subscribers.into();
        let rig =
            Self { inbox, encoder, encoded, counters, channel, subscribers, workers, threads, _services: services };
        wait(|| rig.counters.subscriptions.load(Ordering::Relaxed) == subscribed);
        rig
    }

    /// Time until all subscribers have `queued` publications that were published at once.
    fn round(&self, publication: &Publication, queued: u64) -> Duration {
        let target = self.counters.deliveries.load(Ordering::Relaxed) + queued * self.subscribers;
        for _ in 0..queued {
            self.encoder.deliver(&self.channel, publication.clone()).expect("the inbox is empty");
        }
        let mut messages = Vec::new();
        self.encoded.take(&mut messages);
        let start = Instant::now();
        self.inbox.push_all(messages);
        wait(|| self.counters.deliveries.load(Ordering::Relaxed) >= target);
        start.elapsed()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.workers.drain();
        for thread in self.threads.drain(..) {
            thread.join().expect("the worker has not panicked");
        }
    }
}

/// Waits for the worker, which has a core of its own.
fn wait(holds: impl Fn() -> bool) {
    while !holds() {
        std::thread::yield_now();
    }
}

/// A connection that connects, subscribes, and takes everything.
fn subscriber() -> Adopted {
    let commands = format!("{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"{CHANNEL}\"}}}}");
    let mut first_bytes = Vec::new();
    websocket::frame(websocket::Kind::Text, commands.as_bytes(), &mut first_bytes);
    // A frame of a client is masked; with a mask of zeros the payload stays as it is.
    first_bytes[1] |= 0x80;
    first_bytes.splice(2..2, [0; 4]);
    Adopted {
        carrier: Carrier::Sink,
        first_bytes,
        protocol: Protocol::Json,
        deflate: None,
        opening: Opening::default(),
    }
}

fn delivery_pass(criterion: &mut Criterion) {
    let publication = Publication {
        data: Bytes::from_static(br#"{"text":"a message of some hundred bytes"}"#),
        ..Default::default()
    };
    let mut group = criterion.benchmark_group("delivery pass");
    for subscribers in [100, 1_000, 10_000] {
        let rig = Rig::new(subscribers);
        for queued in [1, 16] {
            group.throughput(Throughput::Elements(queued * u64::from(subscribers)));
            group.bench_function(BenchmarkId::new(format!("queued: {queued}"), subscribers), |bencher| {
                bencher.iter_custom(|rounds| (0..rounds).map(|_| rig.round(&publication, queued)).sum());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, delivery_pass);
criterion_main!(benches);
