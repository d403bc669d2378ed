//! Starling, a real-time messaging server: browsers and apps hold WebSocket connections and subscribe to channels, backend
//! services publish over gRPC and HTTP, Redis carries publications between nodes.
//!
//! This page is the map. Every room's own page says what it promises.
//!
//! # Threads
//!
//! | what | runs on | owns |
//! |---|---|---|
//! | [`worker`]s, one per core | a thread each, a current-thread runtime with local tasks | its connections, their [`session`]s, its local channels, timers, scratch buffers; no locks inside |
//! | services | a multi-thread runtime | [`listen`]ing and handshakes, the server [`api`], [`broker`] connections, the control plane of [`node`] |
//! | [`channels::ChannelTable`] | no thread: a sharded map behind closures | which workers have subscribers of a channel, and the order of what they are given |
//!
//! Nothing reaches into a worker; others put messages into its [`worker::inbox::Inbox`]. What is hard about concurrency is in two
//! places: that inbox and the channel table.
//!
//! # The way of one publication
//!
//! ```text
//! client:  socket ─▶ worker ─▶ wire ─▶ session ─┐
//! backend: HTTP or gRPC ─▶ api ─▶ node ─────────┴▶ broker ─▶ channel table ─▶ inboxes ─▶ workers ─▶ sockets
//! ```
//!
//! 1. **Bytes to a command.** `worker/input.rs` reads the socket into a buffer that all connections of the thread share;
//!    [`wire::websocket::Reader`] unmasks a frame where it lies; [`wire::commands`] decodes one [`session::protocol::Command`] at a
//!    time.
//! 2. **A command to a question.** [`session::Session::handle`], which is pure, asks [`namespace::Namespaces::may_publish`] and
//!    emits [`session::Output::Ask`] with [`session::Ask::Publish`]. A backend's publication comes here by
//!    [`api::http`] or [`api::grpc`], [`api::Api::publish`], and [`node::Node::publish`].
//! 3. **To the broker.** `worker/perform.rs` hands it to [`broker::Broker::publish`]. [`broker::memory::MemoryBroker`] gives it a
//!    place in its stream and passes it on under the channel's lock; [`broker::redis::RedisBroker`] sends it to Redis,
//!    whose bus brings it to every node that has subscribers, this one included.
//! 4. **To the workers.** [`broker::BrokerEvents::publication`] is the channel table: under the channel's lock it makes a
//!    [`channels::Encoded`], which holds one shared frame per wire variant, and pushes one reference into the inbox of each
//!    worker in the channel's mask. At most one wake-up per worker.
//! 5. **To the members.** `worker/repair.rs` looks whether the publication before it came; a gap is filled from history first.
//!    `worker/local.rs` appends it to the channel's ring; `worker/delivery.rs` walks the members in passes and sends each all
//!    it misses with one write.
//! 6. **To the socket.** `worker/connection.rs` writes the shared bytes by way of `worker/outlet.rs`; what the socket does not take
//!    waits in a backlog that is counted in bytes, and a client that lets it grow beyond its bound is disconnected as slow.
//! 7. **The reply.** The broker's answer comes through the worker's inbox, behind the publication, so that a publisher that is
//!    subscribed sees its own publication before its reply.
//!
//! # Rooms
//!
//! [`app`] puts everything together; [`cli`] and [`config`] are the way in for operators; [`error`] is the only table of codes,
//! [`limits`] of bounds without an option, [`metrics`] of names; [`settings`] is the configuration as sessions need it.

pub mod api;
pub mod app;
pub mod auth;
pub mod broker;
pub mod channels;
pub mod cli;
pub mod clock;
pub mod config;
pub mod delta;
pub mod dev;
pub mod error;
pub mod filter;
pub mod limits;
pub mod listen;
pub mod metrics;
pub mod names;
pub mod namespace;
pub mod node;
pub mod presence;
pub mod session;
pub mod settings;
pub mod wire;
pub mod worker;
