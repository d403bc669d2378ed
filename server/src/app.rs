//! The composition root: configuration in, running server out, and one handle that drains it.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    thread::JoinHandle,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::HeaderName;
use tokio::{net::TcpListener, runtime::Handle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    api::{Api, grpc::GrpcFace, http::HttpFace},
    auth::ConfigProblem,
    broker::{
        Broker,
        memory::MemoryBroker,
        redis::{self, RedisBroker},
    },
    channels::ChannelTable,
    clock::Clock,
    config::{Config, EngineKind, TlsOptions},
    listen::{
        Listener, Service, bind,
        routes::{External, Health, Internal, Routes},
        tls::Certificates,
        upgrade::{Admission, WebSocketEndpoint},
    },
    metrics::{Metrics, WorkerCounters},
    names::NodeId,
    namespace::Namespaces,
    node::{Local, Node, cluster},
    settings::Settings,
    worker::{Shared, Users, Workers, inbox::Inbox},
};

/// Version as clients and other nodes are told.
pub const VERSION: &str = concat!("Starling ", env!("CARGO_PKG_VERSION"));

/// Why the server did not start.
#[derive(Debug)]
pub enum StartError {
    /// A value of the configuration cannot be used.
    Config(ConfigProblem),
    /// A port cannot be bound, or a thread not started.
    Io(io::Error),
}

impl From<ConfigProblem> for StartError {
    fn from(problem: ConfigProblem) -> Self {
        Self::Config(problem)
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config(problem) => problem.fmt(f),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

/// What `starling dev` adds to a server.
#[derive(Default)]
pub struct Extras {
    /// The demo page, in place of the root page.
    pub demo: Option<Bytes>,
}

/// A running server. [`drain`](Self::drain) ends it; dropped without, its listeners end and its threads with the process.
pub struct Running {
    /// Where clients connect.
    pub external: SocketAddr,
    /// Where backends and operators connect; the same as `external` unless configured otherwise.
    pub internal: SocketAddr,
    /// Where the gRPC API listens, when it is on.
    pub grpc: Option<SocketAddr>,
    workers: Arc<Workers>,
    node: Arc<Node>,
    /// In force for the server API.
    namespaces: Arc<ArcSwap<Namespaces>>,
    threads: Vec<JoinHandle<()>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Running {
    /// Builds all rooms and starts serving. Ports are bound first, so that a taken one is found before anything else starts.
    ///
    /// Must be called within the service runtime.
    pub async fn start(config: &Config, extras: Extras) -> Result<Self, StartError> {
        let settings = Arc::new(Settings::new(config, VERSION)?);
        let ports = Ports::bind(config).await?;
        let external = ports.external.local_addr()?;
        let internal = ports.internal.as_ref().map_or(Ok(external), TcpListener::local_addr)?;
        let grpc = ports.grpc.as_ref().map(TcpListener::local_addr).transpose()?;

        let clock = Clock::start();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let inboxes: Vec<_> = (0..count).map(|_| Arc::new(Inbox::new())).collect();
        let counters: Vec<_> = (0..count).map(|_| Arc::new(WorkerCounters::default())).collect();
        let table = Arc::new(ChannelTable::new(inboxes.clone()));
        let users = Arc::new(Users::default());
        let id = NodeId::random();
        let (broker, control): (Arc<dyn Broker>, _) = match config.engine.kind {
            EngineKind::Memory => (Arc::new(MemoryBroker::start(table.clone(), clock, &Handle::current())), None),
            EngineKind::Redis => {
                let settings = redis::Settings::try_from(&config.engine.redis.connection)
                    .map_err(|error| ConfigProblem { option: "engine.redis".into(), problem: error.to_string() })?;
                let broker = RedisBroker::start(settings, table.clone(), &Handle::current());
                let control = broker.control(&id, &Handle::current());
                (Arc::new(broker), Some(control))
            }
        };
        let shared = Arc::new(Shared {
            clock,
            inboxes,
            counters: counters.clone(),
            table: table.clone(),
            users: users.clone(),
            broker: broker.clone(),
            services: Handle::current(),
        });
        let (workers, threads) = Workers::start(shared, &settings)?;
        let workers = Arc::new(workers);
        let name = config.node.name.clone().unwrap_or_else(|| default_node_name(external.port()));
        let local: Arc<dyn Local> = workers.clone();
        let node = Node::new(id, name, VERSION, clock.started(), local, broker.clone());
        let node = match control {
            None => Arc::new(node),
            Some((control, events)) => {
                let node = Arc::new(node.in_cluster(Arc::new(control)));
                tasks.spawn(cluster::run(node.clone(), events, stop.clone()));
                node
            }
        };
        let admission = Arc::new(Admission::new(&config.client, clock)?);
        let nodes = node.clone();
        let nodes = Box::new(move || nodes.known_nodes());
        let metrics = Arc::new(Metrics::new(counters, table, users, admission.clone(), nodes, VERSION));
        let namespaces = Arc::new(ArcSwap::new(settings.namespaces.clone()));
        let api = Arc::new(Api::new(node.clone(), namespaces.clone(), metrics.clone()));

        let broker_name = match config.engine.kind {
            EngineKind::Memory => "memory",
            EngineKind::Redis => "redis",
        };
        let health = Health { broker, broker_name };
        let external_routes = external_routes(config, &workers, &admission)?;
        let internal_routes = internal_routes(config, &api, health, &metrics);
        let listen = |socket, tls, service| {
            let listener = Listener { socket, tls, service };
            tasks.spawn(listener.serve(stop.clone(), tasks.clone()));
        };
        let serve = |socket, tls, routes: Routes| listen(socket, tls, Service::Http(Arc::new(routes)));
        if let Some(socket) = ports.grpc {
            let tls = tls(&config.grpc_api.tls, "grpc_api.tls", &stop, &tasks)?;
            listen(socket, tls, Service::Grpc(Arc::new(GrpcFace::new(api, &config.grpc_api))));
        }
        let tls = tls(&config.http_server.tls, "http_server.tls", &stop, &tasks)?;
        let routes = Routes { demo: extras.demo, external: Some(external_routes), internal: None, version: VERSION };
        match ports.internal {
            None => serve(ports.external, tls, Routes { internal: Some(internal_routes), ..routes }),
            Some(socket) => {
                serve(ports.external, tls.clone(), routes);
                let routes = Routes { internal: Some(internal_routes), version: VERSION, ..Routes::default() };
                let tls = if config.http_server.internal_tls.enabled {
                    self::tls(&config.http_server.internal_tls, "http_server.internal_tls", &stop, &tasks)?
                } else {
                    tls.filter(|_| !config.http_server.tls_external)
                };
                serve(socket, tls, routes);
            }
        }
        info!(%external, %internal, workers = count, engine = broker_name, version = VERSION, "serving");
        Ok(Self { external, internal, grpc, workers, node, namespaces, threads, stop, tasks })
    }

    /// Puts a configuration in force that was read again: tokens, channel rules and limits of connections. Ports, engines and
    /// endpoints stay as they were until a restart.
    ///
    /// # Errors
    ///
    /// A value that cannot be used; then everything stays as it was.
    pub fn reload(&self, config: &Config) -> Result<(), ConfigProblem> {
        let settings = Arc::new(Settings::new(config, VERSION)?);
        self.workers.apply(&settings);
        self.namespaces.store(settings.namespaces.clone());
        Ok(())
    }

    /// The node, for tests.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Stops accepting, closes clients with the reconnect code in paced batches, and ends everything that runs.
    ///
    /// Takes as long as the clients take; the caller sets the limit. Dropping the future leaves the drain going on.
    pub async fn drain(self) {
        self.stop.cancel();
        self.workers.drain();
        self.tasks.close();
        let threads = self.threads;
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().map(JoinHandle::join).filter(Result::is_err).count()
        });
        match joined.await {
            Ok(0) => {}
            Ok(panicked) => warn!(panicked, "workers ended by a panic"),
            Err(error) => warn!(%error, "waiting for the workers failed"),
        }
        self.tasks.wait().await;
    }
}

struct Ports {
    external: TcpListener,
    internal: Option<TcpListener>,
    grpc: Option<TcpListener>,
}

impl Ports {
    async fn bind(config: &Config) -> Result<Self, StartError> {
        let http = &config.http_server;
        let external = address(http.address.as_deref(), http.port, "http_server.address")?;
        let internal_address = http.internal_address.as_deref().or(http.address.as_deref());
        let internal_port = http.internal_port.unwrap_or(http.port);
        let internal = address(internal_address, internal_port, "http_server.internal_address")?;
        let grpc = &config.grpc_api;
        let grpc = match grpc.enabled {
            false => None,
            true => Some(bind(address(grpc.address.as_deref(), grpc.port, "grpc_api.address")?).await?),
        };
        let internal = if internal == external { None } else { Some(bind(internal).await?) };
        Ok(Self { external: bind(external).await?, internal, grpc })
    }
}

/// No address means all interfaces of both families.
fn address(host: Option<&str>, port: u16, option: &'static str) -> Result<SocketAddr, ConfigProblem> {
    let ip = match host {
        None | Some("") => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        Some("localhost") => IpAddr::from([127, 0, 0, 1]),
        Some(text) => text
            .trim_matches(['[', ']'])
            .parse()
            .map_err(|_| ConfigProblem { option: option.into(), problem: format!("{text:?} is not an IP address") })?,
    };
    Ok(SocketAddr::new(ip, port))
}

fn external_routes(
    config: &Config,
    workers: &Arc<Workers>,
    admission: &Arc<Admission>,
) -> Result<External, ConfigProblem> {
    let user_header = match &config.client.user_id_http_header {
        None => None,
        Some(name) => Some(HeaderName::from_bytes(name.as_bytes()).map_err(|_| ConfigProblem {
            option: "client.user_id_http_header".into(),
            problem: format!("{name:?} is no name of a header"),
        })?),
    };
    let websocket = (!config.websocket.disabled).then(|| {
        let endpoint = WebSocketEndpoint {
            workers: workers.clone(),
            admission: admission.clone(),
            compression: config.websocket.compression,
            user_header,
        };
        (config.websocket.handler_prefix.clone(), endpoint)
    });
    let init = config.init.enabled.then(|| (config.init.handler_prefix.clone(), admission.clone()));
    Ok(External { websocket, init })
}

fn internal_routes(config: &Config, api: &Arc<Api>, health: Health, metrics: &Arc<Metrics>) -> Internal {
    let prometheus = &config.prometheus;
    Internal {
        api: (!config.http_api.disabled).then(|| HttpFace::new(api.clone(), &config.http_api)),
        health: config.health.enabled.then(|| (config.health.handler_prefix.clone(), health)),
        metrics: prometheus.enabled.then(|| (prometheus.handler_prefix.clone(), metrics.clone())),
    }
}

/// Loads a listener's certificates, and watches their files.
fn tls(
    options: &TlsOptions,
    option: &'static str,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<Option<Arc<Certificates>>, ConfigProblem> {
    if !options.enabled {
        return Ok(None);
    }
    let certificates = Arc::new(Certificates::load(options, option)?);
    tasks.spawn(certificates.clone().watch(stop.clone()));
    Ok(Some(certificates))
}

/// As the reference: host name and port.
fn default_node_name(port: u16) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}_{port}")
}
