//! A node that writes down what it is told, and servers for its API on free ports.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;

use crate::{
    api::{Api, Face, Failure, Meter, Method, grpc::GrpcFace, http::HttpFace},
    broker::{
        Broker, BrokerError, ClientInfo, History, HistoryOptions, HistoryQuery, Publication, PublishOptions, Published,
        StreamPosition,
    },
    config::{self, DataFormat, GrpcApi, HttpApi, SubscriptionType},
    error::{Disconnect, Unsubscribed},
    names::{ChannelName, ClientId, NodeId},
    namespace::Namespaces,
    node::{Counts, Local, Node, Target},
    presence::{Presence, PresenceStats},
    session::{ServerRefresh, ServerSubscription},
};

/// What reached the node.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    Published { channel: String, data: Bytes, tags: Vec<(String, String)>, idempotency_key: Option<String> },
    Disconnected { target: Target, cause: Disconnect, keep: Vec<String> },
    Unsubscribed { target: Target, channel: Option<String>, cause: Unsubscribed },
    Subscribed { target: Target, subscription: ServerSubscription },
    Refreshed { target: Target, refresh: ServerRefresh },
    HistoryRead { query: HistoryQuery, size: u32 },
    HistoryRemoved { channel: String },
}

/// Broker, presence and workers in one. Channels of the namespaces `hist` and `away` have history and presence. Those of
/// `away` and `busy` fail, and those of `stuck` are never answered.
#[derive(Default)]
pub(super) struct FakeNode {
    told: Mutex<Vec<Told>>,
    failures: Mutex<Vec<(Face, Method, Failure)>>,
    commands: Mutex<Vec<(Face, Method)>>,
    deaf: bool,
}

impl FakeNode {
    /// Writes nothing down and answers publishes at once, for measurements.
    pub(super) fn deaf() -> Self {
        Self { deaf: true, ..Self::default() }
    }

    /// What reached the node since the last look.
    pub(super) fn told(&self) -> Vec<Told> {
        std::mem::take(&mut *self.told.lock())
    }

    pub(super) fn failures(&self) -> Vec<(Face, Method, Failure)> {
        std::mem::take(&mut *self.failures.lock())
    }

    pub(super) fn commands(&self) -> Vec<(Face, Method)> {
        std::mem::take(&mut *self.commands.lock())
    }

    /// The API of this node.
    pub(super) fn api(self: &Arc<Self>) -> Arc<Api> {
        let node = Node::new(
            NodeId::random(),
            "test_8000".to_owned(),
            "0.0.0",
            Instant::now(),
            Arc::clone(self) as Arc<dyn Local>,
            Arc::clone(self) as Arc<dyn Broker>,
            Arc::clone(self) as Arc<dyn Presence>,
        );
        let rules = Arc::new(ArcSwap::from_pointee(namespaces()));
        Arc::new(Api::new(Arc::new(node), rules, Arc::clone(self) as Arc<dyn Meter>))
    }

    fn note(&self, told: impl FnOnce() -> Told) {
        if !self.deaf {
            self.told.lock().push(told());
        }
    }
}

impl Broker for FakeNode {
    fn subscribe(&self, _: &ChannelName) -> BoxFuture<'static, Result<(), BrokerError>> {
        async { Ok(()) }.boxed()
    }

    fn unsubscribe(&self, _: &ChannelName) {}

    fn publish(
        &self,
        channel: &ChannelName,
        publication: Publication,
        options: PublishOptions,
    ) -> BoxFuture<'static, Result<Published, BrokerError>> {
        let answer = match channel.as_str().split_once(':') {
            Some(("hist", _)) => {
                let position = Some(StreamPosition { epoch: "xyz".into(), offset: 7 });
                Ok(Published { position, suppressed: None })
            }
            Some(("away", _)) => Err(BrokerError::Unavailable),
            Some(("busy", _)) => Err(BrokerError::Overloaded),
            Some(("stuck", _)) => return std::future::pending().boxed(),
            _ => Ok(Published::default()),
        };
        self.note(|| Told::Published {
            channel: channel.to_string(),
            data: publication.data,
            tags: publication.tags.into_iter().collect(),
            idempotency_key: options.idempotency_key,
        });
        if self.deaf {
            return std::future::ready(answer).boxed();
        }
        // As far as order matters, a broker may well take its time.
        async move {
            tokio::task::yield_now().await;
            answer
        }
        .boxed()
    }

    fn join(&self, _: &ChannelName, _: ClientInfo) -> BoxFuture<'static, Result<(), BrokerError>> {
        async { Ok(()) }.boxed()
    }

    fn leave(&self, _: &ChannelName, _: ClientInfo) -> BoxFuture<'static, Result<(), BrokerError>> {
        async { Ok(()) }.boxed()
    }

    fn history(
        &self,
        channel: &ChannelName,
        query: HistoryQuery,
        options: HistoryOptions,
    ) -> BoxFuture<'static, Result<History, BrokerError>> {
        self.note(|| Told::HistoryRead { query, size: options.size });
        let answer = if_there(channel).map(|()| {
            let at = |offset| Some(StreamPosition { epoch: "xyz".into(), offset });
            let from_client = Publication {
                data: Bytes::from_static(b"{ \"n\": 6 }"),
                info: Some(somebody()),
                tags: BTreeMap::from([("t".to_owned(), "x".to_owned())]),
                position: at(6),
                ..Publication::default()
            };
            let plain = Publication { data: Bytes::from_static(b"7"), position: at(7), ..Publication::default() };
            History { publications: vec![from_client, plain], top: StreamPosition { epoch: "xyz".into(), offset: 7 } }
        });
        async { answer }.boxed()
    }

    fn remove_history(&self, channel: &ChannelName) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.note(|| Told::HistoryRemoved { channel: channel.to_string() });
        let answer = if_there(channel);
        async move { answer }.boxed()
    }

    fn status(&self) -> Result<(), String> {
        Ok(())
    }
}

impl Presence for FakeNode {
    fn add(&self, _: &ChannelName, _: ClientId, _: ClientInfo) -> BoxFuture<'static, Result<(), BrokerError>> {
        async { Ok(()) }.boxed()
    }

    fn refresh(&self, _: &ChannelName, _: Vec<(ClientId, ClientInfo)>) -> BoxFuture<'static, Result<(), BrokerError>> {
        async { Ok(()) }.boxed()
    }

    fn remove(&self, _: &ChannelName, _: ClientId, _: &str) -> BoxFuture<'static, Result<(), BrokerError>> {
        async { Ok(()) }.boxed()
    }

    fn list(&self, channel: &ChannelName) -> BoxFuture<'static, Result<BTreeMap<String, ClientInfo>, BrokerError>> {
        let answer = if_there(channel).map(|()| BTreeMap::from([(somebody().client, somebody())]));
        async { answer }.boxed()
    }

    fn stats(&self, channel: &ChannelName) -> BoxFuture<'static, Result<PresenceStats, BrokerError>> {
        let answer = if_there(channel).map(|()| PresenceStats { clients: 3, users: 2 });
        async move { answer }.boxed()
    }
}

fn if_there(channel: &ChannelName) -> Result<(), BrokerError> {
    match channel.as_str().starts_with("away:") {
        true => Err(BrokerError::Unavailable),
        false => Ok(()),
    }
}

fn somebody() -> ClientInfo {
    ClientInfo {
        user: "u".to_owned(),
        client: "c1".to_owned(),
        conn_info: Bytes::from_static(b"{ }"),
        chan_info: Bytes::new(),
    }
}

impl Local for FakeNode {
    fn subscribe(&self, target: &Target, subscription: &Arc<ServerSubscription>) {
        let subscription = ServerSubscription::clone(subscription);
        self.note(|| Told::Subscribed { target: target.clone(), subscription });
    }

    fn refresh(&self, target: &Target, refresh: &Arc<ServerRefresh>) {
        self.note(|| Told::Refreshed { target: target.clone(), refresh: ServerRefresh::clone(refresh) });
    }

    fn disconnect(&self, target: &Target, cause: &Disconnect, keep: &[String]) {
        self.note(|| Told::Disconnected { target: target.clone(), cause: cause.clone(), keep: keep.to_vec() });
    }

    fn unsubscribe(&self, target: &Target, channel: Option<&ChannelName>, cause: &Unsubscribed) {
        self.note(|| Told::Unsubscribed {
            target: target.clone(),
            channel: channel.map(ToString::to_string),
            cause: cause.clone(),
        });
    }

    fn channels(&self, matches: &dyn Fn(&str) -> bool) -> BTreeMap<String, u32> {
        let all = [("one", 2), ("ns:two", 1)];
        all.into_iter().filter(|(name, _)| matches(name)).map(|(name, count)| (name.to_owned(), count)).collect()
    }

    fn counts(&self) -> Counts {
        Counts { clients: 3, users: 2, channels: 2, subscriptions: 4 }
    }
}

impl Meter for FakeNode {
    fn command(&self, face: Face, method: Method, _: Duration) {
        if !self.deaf {
            self.commands.lock().push((face, method));
        }
    }

    fn failure(&self, face: Face, method: Method, failure: Failure) {
        self.failures.lock().push((face, method, failure));
    }
}

/// Namespaces named after what they are; `ghost` and others are not defined.
fn namespaces() -> Namespaces {
    let namespace = |name: &str, options| config::Namespace { name: name.to_owned(), options };
    let plain = config::ChannelOptions::default;
    let with_format = |format| config::ChannelOptions { publication_data_format: Some(format), ..plain() };
    let map = config::ChannelOptions { subscription_type: SubscriptionType::Map, ..plain() };
    let kept = || config::ChannelOptions {
        history_size: Some(10),
        history_ttl: Some(Duration::from_secs(60)),
        presence: true,
        ..plain()
    };
    let mut all: Vec<_> = ["busy", "stuck"].map(|name| namespace(name, plain())).into();
    all.extend(["hist", "away"].map(|name| namespace(name, kept())));
    all.push(namespace("json", with_format(DataFormat::Json)));
    all.push(namespace("object", with_format(DataFormat::JsonObject)));
    all.push(namespace("binary", with_format(DataFormat::Binary)));
    all.push(namespace("map", map));
    let channel = config::Channel { namespaces: all, ..config::Channel::default() };
    Namespaces::new(&channel, &config::Client::default()).expect("the namespaces are right")
}

/// Serves the HTTP face; ends with the test's runtime.
pub(super) async fn serve_http(node: &Arc<FakeNode>, options: &HttpApi) -> SocketAddr {
    let face = Arc::new(HttpFace::new(node.api(), options));
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.expect("a listener on loopback accepts");
            socket.set_nodelay(true).expect("a fresh socket takes options");
            let face = Arc::clone(&face);
            let service = service_fn(move |request| {
                let face = Arc::clone(&face);
                async move { Ok::<_, Infallible>(face.handle(request).await) }
            });
            tokio::spawn(http1::Builder::new().pipeline_flush(true).serve_connection(TokioIo::new(socket), service));
        }
    });
    address
}

/// Serves the gRPC face; ends with the test's runtime.
pub(super) async fn serve_grpc(node: &Arc<FakeNode>, options: &GrpcApi) -> SocketAddr {
    let face = Arc::new(GrpcFace::new(node.api(), options));
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.expect("a listener on loopback accepts");
            socket.set_nodelay(true).expect("a fresh socket takes options");
            tokio::spawn(Arc::clone(&face).serve(TokioIo::new(socket), std::future::pending()));
        }
    });
    address
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound listener has an address");
    (listener, address)
}
