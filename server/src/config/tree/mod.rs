//! The tree of options, one file per group of sections.

mod api;
mod channel;
mod client;
mod consumers;
mod engine;
mod listen;
mod observe;
mod proxy;
mod transport;

pub use api::*;
pub use channel::*;
pub use client::*;
pub use consumers::*;
pub use engine::*;
pub use listen::*;
pub use observe::*;
pub use proxy::*;
pub use transport::*;

use super::options::options;
use super::setting::Item;

options! {
    /// Every option there is. The fields are the top level of a configuration file.
    pub struct Config {
        /// Listeners of clients and of the internal endpoints.
        http_server: HttpServer,
        /// Log level and target.
        log: Log,
        /// The engine: what keeps history and carries publications between nodes.
        engine: Engine,
        /// A broker of its own instead of the engine's half.
        broker: Broker,
        /// A presence manager of its own instead of the engine's half.
        presence_manager: PresenceManager,
        /// The broker of map subscriptions.
        map_broker: MapBroker,
        /// Carries control messages between nodes instead of the broker.
        controller: Controller,
        /// Shared polling.
        shared_poll: SharedPoll,
        /// What connections may do: tokens, origins, limits, intervals.
        client: Client,
        /// Channel rules and namespaces.
        channel: Channel,
        /// Remote procedure calls of clients.
        rpc: Rpc,
        /// Named proxies, for namespaces to refer to.
        proxies: Vec<NamedProxy>,
        /// The server API over HTTP.
        http_api: HttpApi,
        /// The server API over gRPC.
        grpc_api: GrpcApi,
        /// API commands taken from outside queues.
        consumers: Vec<Consumer>,
        /// The WebSocket transport.
        websocket: WebSocket,
        /// The SSE transport, made bidirectional by emulation.
        sse: Sse,
        /// The HTTP streaming transport, made bidirectional by emulation.
        http_stream: HttpStream,
        /// The WebTransport transport.
        webtransport: WebTransport,
        /// The unidirectional SSE transport.
        uni_sse: UniSse,
        /// The unidirectional HTTP streaming transport.
        uni_http_stream: UniHttpStream,
        /// The unidirectional WebSocket transport.
        uni_websocket: UniWebSocket,
        /// The unidirectional gRPC transport.
        uni_grpc: UniGrpc,
        /// The way up for SSE and HTTP streaming.
        emulation: Emulation,
        /// The admin interface.
        admin: Admin,
        /// The Prometheus endpoint.
        prometheus: Prometheus,
        /// The health endpoint.
        health: Health,
        /// The Swagger page of the HTTP API.
        swagger: Swagger,
        /// Endpoints for profiling.
        debug: Debug,
        /// The endpoint that prepares a connection.
        init: Init,
        /// Tracing of the server API and the consumers.
        opentelemetry: Opentelemetry,
        /// Metrics pushed to Graphite.
        graphite: Graphite,
        /// The anonymous usage report of the other server. This one sends none.
        usage_stats: UsageStats,
        /// This node.
        node: Node,
        /// Graceful shutdown.
        shutdown: Shutdown,
        /// File to write the process id to while running.
        pid_file: Option<std::path::PathBuf>,
        /// Lets options through that are in the code but not announced.
        enable_unreleased_features: bool,
    }
}

impl Item for Namespace {}
impl Item for NamedProxy {}
impl Item for RpcNamespace {}
impl Item for Consumer {}
impl Item for StatusTransform {}
impl Item for ConnectCodeToDisconnectTransform {}
impl Item for ConnectCodeToHttpTransform {}
