//! What the server counts, and the only list of metric names.
//!
//! Names, types and labels are those of the reference server, which dashboards rely on; what it does not count begins with
//! `starling_`. The text is the classic Prometheus format, written here: the maintained client library knows the OpenMetrics
//! format only, which puts `_total` behind every counter and so renames them all.
//!
//! Labels are small closed sets. Those that the reference fills only in its commercial edition are present and empty.

mod exposition;
mod histogram;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;

use self::{
    exposition::{Exposition, Kind},
    histogram::Histogram,
};
use crate::{
    api::{Face, Failure, Meter, Method},
    channels::ChannelTable,
    error::{ClientError, Disconnect, Unsubscribed},
    listen::upgrade::Admission,
    session::{Answer, Input, protocol::Request},
    worker::Users,
};

/// Commands of clients by the label `method`, in the order of [`CommandKind`].
const COMMANDS: [&str; 12] = [
    "pong",
    "connect",
    "subscribe",
    "unsubscribe",
    "publish",
    "presence",
    "presence_stats",
    "history",
    "rpc",
    "send",
    "refresh",
    "sub_refresh",
];

/// Which command a client sent; index into the label's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum CommandKind {
    Pong,
    Connect,
    Subscribe,
    Unsubscribe,
    Publish,
    Presence,
    PresenceStats,
    History,
    Rpc,
    Send,
    Refresh,
    SubRefresh,
}

impl CommandKind {
    /// The command that an input is, or is the consequence of.
    pub fn of(input: &Input) -> Option<Self> {
        match input {
            Input::Command(command) => Some(match &command.request {
                Request::Pong => Self::Pong,
                Request::Connect(_) => Self::Connect,
                Request::Subscribe(_) => Self::Subscribe,
                Request::Unsubscribe { .. } => Self::Unsubscribe,
                Request::Publish { .. } => Self::Publish,
                Request::Presence { .. } => Self::Presence,
                Request::PresenceStats { .. } => Self::PresenceStats,
                Request::History(_) => Self::History,
                Request::Rpc { .. } => Self::Rpc,
                Request::Send => Self::Send,
                Request::Refresh { .. } => Self::Refresh,
                Request::SubRefresh { .. } => Self::SubRefresh,
            }),
            Input::Answer(_, Answer::Entered(_)) => Some(Self::Connect),
            Input::Answer(_, Answer::Joined(_)) => Some(Self::Subscribe),
            Input::Answer(_, Answer::Published { .. }) => Some(Self::Publish),
            Input::Answer(_, Answer::History { .. }) => Some(Self::History),
            Input::Answer(_, Answer::Presence(_)) => Some(Self::Presence),
            Input::Answer(_, Answer::PresenceStats(_)) => Some(Self::PresenceStats),
            Input::Malformed => None,
            Input::FramePong => None,
            Input::Deadline => None,
            Input::Disconnect(_) => None,
            Input::Unsubscribe(..) => None,
            Input::Subscribe(_) => None,
            Input::Refresh(_) => None,
            Input::Insufficient(_) => None,
        }
    }
}

/// Error codes of replies with a counter of their own.
const REPLY_CODES: std::ops::RangeInclusive<u32> = 100..=113;

/// Disconnect codes with a counter of their own, in two runs; all others share the last.
const DISCONNECT_CODES: [std::ops::RangeInclusive<u32>; 2] = [3000..=3031, 3500..=3531];

const REPLY_SLOTS: usize = 14;
const DISCONNECT_SLOTS: usize = 65;

/// What one worker counts. Written by its worker only, so that counting costs no traffic between cores; read by whoever
/// asks for metrics.
#[derive(Debug)]
pub struct WorkerCounters {
    /// Connections held, those without an accepted `connect` included. Also the worker's load.
    pub connections: AtomicU32,
    /// Connections with an accepted `connect`.
    pub clients: AtomicU32,
    /// Subscriptions.
    pub subscriptions: AtomicU32,
    /// Connections ever accepted by a `connect`.
    pub accepted: AtomicU64,
    /// Publications delivered, one per subscriber.
    pub deliveries: AtomicU64,
    /// Bytes of deliveries, frame headers included.
    pub delivered_bytes: AtomicU64,
    /// Other messages written: replies, pushes, pings.
    pub replies: AtomicU64,
    /// Their bytes.
    pub reply_bytes: AtomicU64,
    /// Messages received.
    pub received: AtomicU64,
    /// Bytes of messages received, frame headers not included.
    pub received_bytes: AtomicU64,
    /// Bytes that wait for clients who do not take them.
    pub backlog_bytes: AtomicU64,
    /// Subscriptions ended by the server with code 2000, with another.
    unsubscribes: [AtomicU64; 4],
    commands: [AtomicU64; COMMANDS.len()],
    reply_errors: [[AtomicU64; REPLY_SLOTS]; COMMANDS.len()],
    disconnects: [AtomicU64; DISCONNECT_SLOTS],
    closes: [AtomicU64; DISCONNECT_SLOTS],
}

/// Unsubscribe codes with a counter of their own; all others share the last.
const UNSUBSCRIBE_CODES: [u32; 3] = [2000, 2500, 2501];

impl Default for WorkerCounters {
    fn default() -> Self {
        Self {
            connections: AtomicU32::new(0),
            clients: AtomicU32::new(0),
            subscriptions: AtomicU32::new(0),
            accepted: AtomicU64::new(0),
            deliveries: AtomicU64::new(0),
            delivered_bytes: AtomicU64::new(0),
            replies: AtomicU64::new(0),
            reply_bytes: AtomicU64::new(0),
            received: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            backlog_bytes: AtomicU64::new(0),
            unsubscribes: [const { AtomicU64::new(0) }; 4],
            commands: [const { AtomicU64::new(0) }; COMMANDS.len()],
            reply_errors: [const { [const { AtomicU64::new(0) }; REPLY_SLOTS] }; COMMANDS.len()],
            disconnects: [const { AtomicU64::new(0) }; DISCONNECT_SLOTS],
            closes: [const { AtomicU64::new(0) }; DISCONNECT_SLOTS],
        }
    }
}

impl WorkerCounters {
    /// Counts a command.
    pub fn command(&self, kind: CommandKind) {
        self.commands[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an error reply to a command.
    pub fn reply_error(&self, kind: CommandKind, error: ClientError) {
        let slot = (error.code().clamp(*REPLY_CODES.start(), *REPLY_CODES.end()) - REPLY_CODES.start()) as usize;
        self.reply_errors[kind as usize][slot].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a disconnect by the server.
    pub fn disconnect(&self, cause: &Disconnect) {
        self.disconnects[disconnect_slot(cause.code)].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a Close frame.
    pub fn close_frame(&self, cause: &Disconnect) {
        self.closes[disconnect_slot(cause.code)].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a subscription ended by the server.
    pub fn unsubscribe(&self, cause: &Unsubscribed) {
        let slot = UNSUBSCRIBE_CODES.iter().position(|code| *code == cause.code).unwrap_or(UNSUBSCRIBE_CODES.len());
        self.unsubscribes[slot].fetch_add(1, Ordering::Relaxed);
    }
}

fn disconnect_slot(code: u32) -> usize {
    let mut before = 0;
    for run in DISCONNECT_CODES {
        if run.contains(&code) {
            return before + (code - run.start()) as usize;
        }
        before += run.count();
    }
    DISCONNECT_SLOTS - 1
}

/// Label of a slot: its code, or `other`.
fn disconnect_label(slot: usize) -> String {
    DISCONNECT_CODES.into_iter().flatten().nth(slot).map_or_else(|| "other".to_owned(), |code| code.to_string())
}

/// Everything that is counted.
pub struct Metrics {
    workers: Vec<Arc<WorkerCounters>>,
    table: Arc<ChannelTable>,
    users: Arc<Users>,
    admission: Arc<Admission>,
    nodes: Box<dyn Fn() -> usize + Send + Sync>,
    version: &'static str,
    api_durations: DashMap<(Face, Method), Histogram>,
    api_errors: DashMap<(Face, Method, Failure), u64>,
}

impl Metrics {
    /// Metrics of one node. `nodes` tells the size of the cluster as the node sees it.
    pub fn new(
        workers: Vec<Arc<WorkerCounters>>,
        table: Arc<ChannelTable>,
        users: Arc<Users>,
        admission: Arc<Admission>,
        nodes: Box<dyn Fn() -> usize + Send + Sync>,
        version: &'static str,
    ) -> Self {
        Self {
            workers,
            table,
            users,
            admission,
            nodes,
            version,
            api_durations: DashMap::new(),
            api_errors: DashMap::new(),
        }
    }

    fn sum(&self, of: impl Fn(&WorkerCounters) -> u64) -> u64 {
        self.workers.iter().map(|worker| of(worker)).sum()
    }

    fn total(&self, of: impl Fn(&WorkerCounters) -> &AtomicU64) -> u64 {
        self.sum(|worker| of(worker).load(Ordering::Relaxed))
    }

    fn gauge(&self, of: impl Fn(&WorkerCounters) -> &AtomicU32) -> u64 {
        self.sum(|worker| u64::from(of(worker).load(Ordering::Relaxed)))
    }

    /// The text of the Prometheus endpoint.
    pub fn encode(&self) -> String {
        let mut out = Exposition::default();
        self.node(&mut out);
        self.clients(&mut out);
        self.transport(&mut out);
        self.api(&mut out);
        self.own(&mut out);
        out.finish()
    }

    fn node(&self, out: &mut Exposition) {
        let one = |out: &mut Exposition, name, help, value| out.family(name, help, Kind::Gauge).sample(&[], value);
        one(out, "centrifugo_node_num_clients", "Number of connections.", self.gauge(|w| &w.clients));
        one(out, "centrifugo_node_num_users", "Number of distinct users.", self.users.len() as u64);
        let subscriptions = self.gauge(|w| &w.subscriptions);
        one(out, "centrifugo_node_num_subscriptions", "Number of subscriptions.", subscriptions);
        one(out, "centrifugo_node_num_channels", "Number of channels with subscribers.", self.table.len() as u64);
        one(out, "centrifugo_node_num_nodes", "Number of nodes in the cluster.", (self.nodes)() as u64);
        out.family("centrifugo_node_build", "Version of the server.", Kind::Gauge)
            .sample(&[("version", self.version)], 1);
        out.family(
            "centrifugo_node_client_connection_limit",
            "Connections refused by client.connection_limit.",
            Kind::Counter,
        )
        .sample(&[], self.admission.limited.load(Ordering::Relaxed));
    }

    fn clients(&self, out: &mut Exposition) {
        let labels = [
            ("accept_protocol", ""),
            ("client_name", "unnamed"),
            ("client_version", "unversioned"),
            ("transport", "websocket"),
        ];
        out.family("centrifugo_client_connections_accepted", "Connections accepted.", Kind::Counter)
            .sample(&labels, self.total(|w| &w.accepted));
        out.family("centrifugo_client_connections_inflight", "Connections.", Kind::Gauge)
            .sample(&labels, self.gauge(|w| &w.clients));
        out.family("centrifugo_client_subscriptions_inflight", "Subscriptions.", Kind::Gauge)
            .sample(&[("channel_namespace", ""), ("client_name", "unnamed")], self.gauge(|w| &w.subscriptions));

        let mut errors = out.family("centrifugo_client_num_reply_errors", "Error replies to commands.", Kind::Counter);
        for (command, method) in COMMANDS.into_iter().enumerate() {
            for (slot, code) in REPLY_CODES.enumerate() {
                let labels = [("channel_namespace", ""), ("code", &*code.to_string()), ("method", method)];
                errors.sample_unless_zero(&labels, self.total(|w| &w.reply_errors[command][slot]));
            }
        }
        let mut unsubscribes = out.family(
            "centrifugo_client_num_server_unsubscribes",
            "Subscriptions ended by the server.",
            Kind::Counter,
        );
        for (slot, code) in ["2000", "2500", "2501", "other"].into_iter().enumerate() {
            let labels = [("channel_namespace", ""), ("code", code)];
            unsubscribes.sample_unless_zero(&labels, self.total(|w| &w.unsubscribes[slot]));
        }
        let mut disconnects =
            out.family("centrifugo_client_num_server_disconnects", "Disconnects by the server.", Kind::Counter);
        for slot in 0..DISCONNECT_SLOTS {
            let value = self.total(|w| &w.disconnects[slot]);
            disconnects.sample_unless_zero(&[("code", &disconnect_label(slot))], value);
        }
    }

    fn transport(&self, out: &mut Exposition) {
        let websocket =
            |frame_type| [("channel_namespace", ""), ("frame_type", frame_type), ("transport", "websocket")];
        let mut sent = out.family("centrifugo_transport_messages_sent", "Messages sent to clients.", Kind::Counter);
        sent.sample(&websocket("push_publication"), self.total(|w| &w.deliveries));
        sent.sample(&websocket("reply"), self.total(|w| &w.replies));
        let mut sizes = out.family("centrifugo_transport_messages_sent_size", "Bytes sent to clients.", Kind::Counter);
        sizes.sample(&websocket("push_publication"), self.total(|w| &w.delivered_bytes));
        sizes.sample(&websocket("reply"), self.total(|w| &w.reply_bytes));
        let mut received =
            out.family("centrifugo_transport_messages_received", "Commands received from clients.", Kind::Counter);
        for (command, method) in COMMANDS.into_iter().enumerate() {
            received.sample_unless_zero(&websocket(method), self.total(|w| &w.commands[command]));
        }
        out.family("centrifugo_transport_messages_received_size", "Bytes received from clients.", Kind::Counter)
            .sample(&websocket("command"), self.total(|w| &w.received_bytes));
        let mut closes =
            out.family("centrifugo_transport_outgoing_close_count", "Close frames sent to clients.", Kind::Counter);
        for slot in 0..DISCONNECT_SLOTS {
            let labels = [("code", &*disconnect_label(slot)), ("transport", "websocket")];
            closes.sample_unless_zero(&labels, self.total(|w| &w.closes[slot]));
        }
    }

    fn api(&self, out: &mut Exposition) {
        let mut durations = out.family(
            "centrifugo_api_command_duration_seconds_histogram",
            "Duration of server API commands.",
            Kind::Histogram,
        );
        for entry in self.api_durations.iter() {
            let (face, method) = *entry.key();
            durations.histogram(&[("method", method.name()), ("protocol", face.label())], entry.value());
        }
        let mut errors =
            out.family("centrifugo_api_command_errors_total", "Errors of server API commands.", Kind::Counter);
        for entry in self.api_errors.iter() {
            let (face, method, failure) = *entry.key();
            let labels = [("error", failure.label()), ("method", method.name()), ("protocol", face.label())];
            errors.sample(&labels, *entry.value());
        }
    }

    /// What the reference does not count.
    fn own(&self, out: &mut Exposition) {
        out.family("starling_connections", "Connections held, those before connect included.", Kind::Gauge)
            .sample(&[], self.gauge(|w| &w.connections));
        out.family("starling_backlog_bytes", "Bytes that clients have not taken yet.", Kind::Gauge)
            .sample(&[], self.total(|w| &w.backlog_bytes));
        // One gauge per internal map: all are zero when no client is left.
        let mut entries = out.family("starling_map_entries", "Entries of an internal map.", Kind::Gauge);
        entries.sample(&[("map", "channels")], self.table.len() as u64);
        entries.sample(&[("map", "users")], self.users.len() as u64);
    }
}

impl Meter for Metrics {
    fn command(&self, face: Face, method: Method, took: Duration) {
        if let Some(histogram) = self.api_durations.get(&(face, method)) {
            return histogram.observe(took);
        }
        self.api_durations.entry((face, method)).or_default().observe(took);
    }

    fn failure(&self, face: Face, method: Method, failure: Failure) {
        *self.api_errors.entry((face, method, failure)).or_insert(0) += 1;
    }
}
