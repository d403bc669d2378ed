//! Real Redis servers for tests, and nodes without clients that use them.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use starling_server::{
    broker::{
        Broker, BrokerError, BrokerEvents, ClientInfo, Publication, PublishOptions, Published,
        redis::{Access, RedisBroker, Settings},
    },
    config::{self, RecoveryMode},
    error::{Disconnect, Unsubscribed},
    names::{ChannelName, NodeId},
    namespace::Namespaces,
    node::{Counts, Local, Node, Target, cluster},
    presence::memory::MemoryPresence,
    session::{ServerRefresh, ServerSubscription},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    runtime::Handle,
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Bound of everything that should happen soon. Nothing is concluded from how long it took.
pub const SOON: Duration = Duration::from_secs(30);

/// How long delivery may take to come back once Redis is back: the promise of the broker.
pub const RECOVERY: Duration = Duration::from_secs(10);

/// Waits for a future that is expected to end.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.unwrap_or_else(|_| panic!("{what}: not in {SOON:?}"))
}

/// Waits until a condition holds that nobody announces.
pub async fn until(what: &str, bound: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        while !holds().await {
            look.tick().await;
        }
    };
    timeout(bound, wait).await.unwrap_or_else(|_| panic!("{what}: not in {bound:?}"));
}

// === impl RedisServer ===

/// A redis-server process on a port of its own, without persistence.
pub struct RedisServer {
    pub port: u16,
    dir: TempDir,
    args: Vec<String>,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts a server and waits until it accepts connections.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with more arguments.
    pub async fn start_with(args: &[&str]) -> Self {
        // Another process may take a port between our look and the start.
        for _ in 0..5 {
            let mut server = Self::absent_with(args);
            if server.try_restart().await {
                return server;
            }
        }
        panic!("no free port for redis-server");
    }

    /// A port on which no server runs yet.
    pub fn absent() -> Self {
        Self::absent_with(&[])
    }

    fn absent_with(args: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self { port, dir: TempDir::new().unwrap(), args, child: None }
    }

    /// Starts the server, on the port it had.
    pub async fn restart(&mut self) {
        assert!(self.try_restart().await, "redis-server did not start on port {}", self.port);
    }

    async fn try_restart(&mut self) -> bool {
        assert!(self.child.is_none());
        let mut child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(self.dir.path())
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("redis-server must be installed: ./test installs it");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while let Some(line) = soon("start of redis-server", lines.next_line()).await.unwrap() {
            if line.contains("Ready to accept connections") {
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                self.child = Some(child);
                return true;
            }
        }
        false
    }

    /// Ends the server as a crash would.
    pub async fn kill(&mut self) {
        self.child.take().unwrap().kill().await.unwrap();
    }

    /// Stops the process without ending it: connections stay open, nothing is answered.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a frozen process go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().unwrap().id().unwrap();
        kill_process(Pid::from_raw(id.try_into().unwrap()).unwrap(), signal).unwrap();
    }

    pub fn address(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn settings(&self) -> Settings {
        Settings::new(&[self.address()], "centrifugo", &Access::default()).unwrap()
    }

    pub fn client(&self) -> redis::Client {
        redis::Client::open(self.address()).unwrap()
    }

    /// A connection of the test itself.
    pub async fn connection(&self) -> redis::aio::MultiplexedConnection {
        self.client().get_multiplexed_async_connection().await.unwrap()
    }

    /// Runs a command whose answer does not matter.
    pub async fn command(&self, words: &[&str]) {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.exec_async(&mut self.connection().await).await.unwrap();
    }

    /// Number of connections that are subscribed to each of these PUB/SUB channels.
    pub async fn subscribers(&self, channels: &[String]) -> BTreeMap<String, u64> {
        let mut command = redis::cmd("PUBSUB");
        command.arg("NUMSUB").arg(channels);
        command.query_async(&mut self.connection().await).await.unwrap()
    }

    /// Names of all PUB/SUB channels that somebody is subscribed to.
    pub async fn channels(&self) -> BTreeSet<String> {
        redis::cmd("PUBSUB").arg("CHANNELS").query_async(&mut self.connection().await).await.unwrap()
    }

    /// Every command the server gets from now on, as MONITOR writes them.
    pub async fn monitor(&self) -> Monitor {
        let stream = self.client().get_async_monitor().await.unwrap();
        let mut lines = stream.into_on_message::<String>();
        let (sender, received) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            use futures_util::StreamExt;
            while let Some(line) = lines.next().await {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Monitor(received)
    }

    /// Every message on PUB/SUB channels of a pattern, from now on: channel and bytes.
    pub async fn messages(&self, pattern: &str) -> mpsc::UnboundedReceiver<(String, Vec<u8>)> {
        let mut subscribed = self.client().get_async_pubsub().await.unwrap();
        subscribed.psubscribe(pattern).await.unwrap();
        let (sender, received) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            use futures_util::StreamExt;
            let mut messages = subscribed.into_on_message();
            while let Some(message) = messages.next().await {
                if sender.send((message.get_channel_name().to_owned(), message.get_payload_bytes().to_vec())).is_err() {
                    return;
                }
            }
        });
        received
    }
}

/// Commands that a server got.
pub struct Monitor(mpsc::UnboundedReceiver<String>);

impl Monitor {
    /// The next command of one of these kinds: when it came, and its words.
    pub async fn next(&mut self, kinds: &[&str]) -> (f64, Vec<String>) {
        loop {
            let line = soon("a command", self.0.recv()).await.expect("MONITOR goes on");
            let (at, rest) = line.split_once(' ').unwrap();
            let words = rest.split_once("] ").map_or("", |(_, words)| words);
            // Words of these tests hold no quotes, and bytes beyond ASCII are not compared.
            let words = words.strip_prefix('"').and_then(|words| words.strip_suffix('"')).unwrap_or_default();
            let words: Vec<_> = words.split("\" \"").map(str::to_owned).collect();
            if kinds.iter().any(|kind| words[0].eq_ignore_ascii_case(kind)) {
                return (at.parse().unwrap(), words);
            }
        }
    }
}

// === impl Proxy ===

/// Stands between a broker and a server, and can keep messages from the connections that are open.
pub struct Proxy {
    port: u16,
    generation: Arc<AtomicUsize>,
}

impl Proxy {
    pub async fn start(server: u16) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let generation = Arc::new(AtomicUsize::new(0));
        let now = generation.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(Self::forward(client, server, now.clone()));
            }
        });
        Self { port, generation }
    }

    pub fn address(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// From now on no message passes on the connections that are open now.
    pub fn hold_back_messages(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    async fn forward(client: TcpStream, server: u16, generation: Arc<AtomicUsize>) {
        let born = generation.load(Ordering::SeqCst);
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = TcpStream::connect(("127.0.0.1", server)).await.unwrap().into_split();
        let asking = async { tokio::io::copy(&mut from_client, &mut to_server).await };
        let answering = async {
            let mut bytes = vec![0; 65536];
            loop {
                let count = from_server.read(&mut bytes).await?;
                // A server with little to do sends each message by itself.
                let message = bytes[..count].starts_with(b">3\r\n$7\r\nmessage");
                if count == 0 {
                    return std::io::Result::Ok(());
                }
                if !message || generation.load(Ordering::SeqCst) == born {
                    to_client.write_all(&bytes[..count]).await?;
                }
            }
        };
        tokio::select! {
            _ = asking => {}
            _ = answering => {}
        }
    }
}

// === impl Subscribers ===

/// The local subscribers of a node, as its broker sees them.
pub struct Subscribers {
    received: mpsc::UnboundedSender<(ChannelName, Publication)>,
    wanted: Mutex<BTreeSet<ChannelName>>,
    /// Channels that were received, then not, and now are again.
    pub interrupted: Mutex<BTreeSet<ChannelName>>,
    pub full: AtomicBool,
}

impl BrokerEvents for Subscribers {
    fn publication(
        &self,
        channel: &ChannelName,
        publication: Publication,
        _previous: Option<Bytes>,
    ) -> Result<(), BrokerError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(BrokerError::Overloaded);
        }
        self.received.send((channel.clone(), publication)).unwrap();
        Ok(())
    }

    fn joined(&self, _channel: &ChannelName, _info: ClientInfo) -> Result<(), BrokerError> {
        Ok(())
    }

    fn left(&self, _channel: &ChannelName, _info: ClientInfo) -> Result<(), BrokerError> {
        Ok(())
    }

    fn interrupted(&self, channels: &[ChannelName]) {
        self.interrupted.lock().extend(channels.iter().cloned());
    }

    fn wanted(&self, channel: &ChannelName) -> bool {
        self.wanted.lock().contains(channel)
    }
}

/// A broker and what it delivers.
pub struct Peer {
    pub broker: Arc<RedisBroker>,
    pub subscribers: Arc<Subscribers>,
    received: mpsc::UnboundedReceiver<(ChannelName, Publication)>,
}

impl Peer {
    pub fn start(settings: Settings) -> Self {
        let (sender, received) = mpsc::unbounded_channel();
        let subscribers = Arc::new(Subscribers {
            received: sender,
            wanted: Mutex::default(),
            interrupted: Mutex::default(),
            full: Default::default(),
        });
        let events: Arc<dyn BrokerEvents> = subscribers.clone();
        let broker = Arc::new(RedisBroker::start(settings, events, &Handle::current()));
        Self { broker, subscribers, received }
    }

    /// Waits until all connections are up.
    pub async fn up(self) -> Self {
        until("connected", SOON, async || self.broker.status().is_ok()).await;
        self
    }

    /// A first subscriber comes.
    pub async fn join(&self, channel: &str) {
        self.want(channel);
        soon("subscribe", self.broker.subscribe(&channel.into())).await.unwrap();
    }

    pub fn want(&self, channel: &str) {
        self.subscribers.wanted.lock().insert(channel.into());
    }

    /// The last subscriber leaves.
    pub fn leave(&self, channel: &str) {
        self.subscribers.wanted.lock().remove(channel);
        self.broker.unsubscribe(&channel.into());
    }

    pub async fn publish(&self, channel: &str, data: &str) -> Result<(), BrokerError> {
        let publication = Publication { data: data.to_owned().into(), ..Publication::default() };
        let published = self.broker.publish(&channel.into(), publication, PublishOptions::default()).await?;
        assert_eq!(published, Published::default());
        Ok(())
    }

    /// The next publication: channel and payload.
    pub async fn received(&mut self) -> (String, String) {
        let (channel, publication) = self.publication().await;
        (channel.to_string(), String::from_utf8(publication.data.into()).unwrap())
    }

    pub async fn publication(&mut self) -> (ChannelName, Publication) {
        soon("a publication", self.received.recv()).await.unwrap()
    }

    /// Publishes again and again until `receiver` gets one of them, and takes all it got: delivery is back.
    pub async fn reaches(&self, receiver: &mut Self, channel: &str) {
        let start = Instant::now();
        until("delivery", RECOVERY, async || {
            // Failures are what is to end.
            let _ = self.publish(channel, "again").await;
            timeout(Duration::from_millis(50), receiver.received.recv()).await.is_ok()
        })
        .await;
        eprintln!("delivery on {channel} is back after {:?}", start.elapsed());
        // The last one published marks the end of what may still be under way.
        until("end of delivery", SOON, async || {
            let _ = self.publish(channel, "last").await;
            let end = async { while receiver.received().await.1 != "last" {} };
            timeout(Duration::from_secs(1), end).await.is_ok()
        })
        .await;
        while receiver.received.try_recv().is_ok() {}
    }
}

// === impl TestNode ===

/// What a node was told to do to its own connections.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    Disconnect(Target, Disconnect, Vec<String>),
    Unsubscribe(Target, Option<ChannelName>, Unsubscribed),
    Subscribe(Target, ServerSubscription),
    Refresh(Target, ServerRefresh),
}

/// Connections that only take notes.
pub struct Notes {
    calls: mpsc::UnboundedSender<Call>,
    channels: BTreeMap<String, u32>,
}

impl Local for Notes {
    fn disconnect(&self, target: &Target, cause: &Disconnect, keep: &[String]) {
        self.calls.send(Call::Disconnect(target.clone(), cause.clone(), keep.to_vec())).unwrap();
    }

    fn unsubscribe(&self, target: &Target, channel: Option<&ChannelName>, cause: &Unsubscribed) {
        self.calls.send(Call::Unsubscribe(target.clone(), channel.cloned(), cause.clone())).unwrap();
    }

    fn subscribe(&self, target: &Target, subscription: &Arc<ServerSubscription>) {
        self.calls.send(Call::Subscribe(target.clone(), ServerSubscription::clone(subscription))).unwrap();
    }

    fn refresh(&self, target: &Target, refresh: &Arc<ServerRefresh>) {
        self.calls.send(Call::Refresh(target.clone(), ServerRefresh::clone(refresh))).unwrap();
    }

    fn channels(&self, matches: &dyn Fn(&str) -> bool) -> BTreeMap<String, u32> {
        self.channels.iter().filter(|(name, _)| matches(name)).map(|(name, count)| (name.clone(), *count)).collect()
    }

    fn counts(&self) -> Counts {
        Counts { channels: self.channels.len().try_into().unwrap(), ..Counts::default() }
    }
}

/// Rules of the channels of a [`TestNode`]: those of the namespace `kept` have history, and cache recovery. `rec` and `pres`
/// are those of the recorded control messages.
pub fn namespaces() -> Namespaces {
    let options = config::ChannelOptions {
        history_size: Some(10),
        history_ttl: Some(Duration::from_secs(60)),
        force_recovery_mode: RecoveryMode::Cache,
        ..Default::default()
    };
    let namespaces = vec![
        config::Namespace { name: "kept".into(), options },
        config::Namespace { name: "rec".into(), options: Default::default() },
        config::Namespace { name: "pres".into(), options: Default::default() },
    ];
    let channel = config::Channel { namespaces, ..Default::default() };
    Namespaces::new(&channel, &config::Client::default()).unwrap()
}

/// A node of a cluster.
pub struct TestNode {
    pub node: Arc<Node>,
    pub calls: mpsc::UnboundedReceiver<Call>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    // Only the broker's life matters here.
    _peer: Peer,
}

impl TestNode {
    pub fn start(settings: Settings, uid: &str, channels: &[(&str, u32)]) -> Self {
        let id = NodeId(uid.into());
        let peer = Peer::start(settings);
        let (control, events) = peer.broker.control(&id, &Handle::current());
        let (sender, calls) = mpsc::unbounded_channel();
        let channels = channels.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let local = Arc::new(Notes { calls: sender, channels });
        let broker: Arc<dyn Broker> = peer.broker.clone();
        let presence = Arc::new(MemoryPresence::default());
        let node = Node::new(id, format!("name-of-{uid}"), "0.0.0 TEST", Instant::now(), local, broker, presence);
        let node = Arc::new(node.in_cluster(Arc::new(control), Arc::new(ArcSwap::from_pointee(namespaces()))));
        let stop = CancellationToken::new();
        let task = tokio::spawn(cluster::run(node.clone(), events, stop.clone()));
        Self { node, calls, stop, task, _peer: peer }
    }

    /// Uids of the nodes that this one knows, itself included.
    pub async fn knows(&self) -> BTreeSet<String> {
        self.node.info().await.into_iter().map(|info| info.uid).collect()
    }

    /// Waits until it knows exactly these.
    pub async fn meets(&self, uids: &[&str]) {
        let uids: BTreeSet<_> = uids.iter().map(|uid| (*uid).to_owned()).collect();
        until("acquaintance", SOON, async || self.knows().await == uids).await;
    }

    pub async fn call(&mut self) -> Call {
        soon("a call", self.calls.recv()).await.unwrap()
    }

    /// Stops it as a clean shutdown does.
    pub async fn stop(self) {
        self.stop.cancel();
        soon("end of the cluster task", self.task).await.unwrap();
    }
}
