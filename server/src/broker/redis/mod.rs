//! The broker over Redis: publications of one node reach the subscribers of all, in Centrifugo's own format.
//!
//! The way of a publication: [`Broker::publish`] encodes it ([`payload`]) and sends PUBLISH over the command connection of
//! the server that holds the channel ([`hashing`]), or, with history, a script ([`scripts`]) that gives it its offset, adds it
//! to the stream and announces it in one step; Redis sends it to every node that is subscribed to the channel's name
//! ([`keys`]); the task that reads such a node's PUB/SUB connection decodes it and hands it to [`BrokerEvents`] at once.
//! Local subscribers of the publishing node get it in the same way. So a channel has one order for everybody: that of Redis.
//!
//! Connections to each server: one for commands, one PUB/SUB connection for messages, and, with a control plane, one for
//! control messages, so that a flood of publications cannot delay those. Each is kept by a task that never gives up.
//!
//! Bounds: publications that the workers do not take ([`BrokerError::Overloaded`]) are dropped and counted, and so are
//! messages that cannot be read. A publication without history that is published while a node has no connection to Redis
//! does not reach the subscribers of that node.

mod bus;
mod channel_list;
mod channel_servers;
mod commands;
mod complaint;
mod connect;
mod control;
pub mod hashing;
mod health;
pub mod keys;
pub mod payload;
mod publisher;
mod quiet;
mod scripts;
mod settings;
mod tls;
#[cfg(test)]
mod vectors;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use tokio::runtime::Handle;

use self::{
    bus::{Bus, BusPlan, Listener},
    health::Health,
    keys::Keys,
    payload::{BusMessage, Marks},
    publisher::Publisher,
    scripts::Append,
};
pub(crate) use self::{channel_servers::ChannelServers, commands::Commands};
pub use self::{
    control::RedisControl,
    settings::{Access, Server, Settings, SettingsError},
    tls::{Tls, TlsMaterial},
};
use super::{
    Broker, BrokerError, BrokerEvents, ClientInfo, History, HistoryOptions, HistoryQuery, Publication, PublishOptions,
    Published,
};
use crate::names::ChannelName;

/// Payload that tells a node only that its connection works. Known by its channel, since users may publish the same bytes.
const PROBE: &[u8] = b"probe";

/// The broker over one Redis server, or over several by client-side sharding.
pub struct RedisBroker {
    keys: Keys,
    shards: Vec<Shard>,
    counters: Arc<Counters>,
    settings: Arc<Settings>,
}

/// One server and our connections to it.
struct Shard {
    server: Server,
    commands: Arc<Commands>,
    publisher: Arc<Publisher>,
    bus: Bus,
    health: Health,
}

/// Messages that came from Redis and went no further.
#[derive(Default)]
pub struct Counters {
    malformed: AtomicU64,
    dropped: AtomicU64,
}

impl Counters {
    /// Messages that could not be read.
    pub fn malformed(&self) -> u64 {
        self.malformed.load(Ordering::Relaxed)
    }

    /// Publications and control messages that were dropped because their receiver was behind by more than its bound.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl RedisBroker {
    /// Starts to connect, on `runtime`; ready for use at once, whether or not Redis can be reached. The connections and
    /// their tasks end when the broker is dropped.
    pub fn start(settings: Settings, events: Arc<dyn BrokerEvents>, runtime: &Handle) -> Self {
        let settings = Arc::new(settings);
        let keys = Keys::new(&settings.prefix);
        let counters = Arc::new(Counters::default());
        let shards = settings.servers.iter().map(|server| {
            let health = Health::new(server.to_string());
            let commands = Arc::new(Commands::start(server.clone(), Arc::clone(&settings), &health, runtime));
            let plan = message_plan(&keys, &events, &counters);
            let bus = Bus::start(plan, server.clone(), Arc::clone(&settings), Arc::clone(&commands), &health, runtime);
            let publisher = Arc::new(Publisher::new(Arc::clone(&commands), settings.io_timeout, runtime));
            Shard { server: server.clone(), commands, publisher, bus, health }
        });
        Self { shards: shards.collect(), keys, counters, settings: Arc::clone(&settings) }
    }

    /// Counts of messages that were not delivered.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Sends a message to all nodes that receive the channel, and keeps nothing.
    fn announce(&self, channel: &ChannelName, message: Vec<u8>) -> BoxFuture<'static, Result<(), BrokerError>> {
        let commands = Arc::clone(&self.shard(channel).commands);
        let message_channel = self.keys.messages(channel);
        async move { commands.run(|connection| bus::publish(connection, message_channel, message)).await }.boxed()
    }

    fn shard(&self, channel: &ChannelName) -> &Shard {
        &self.shards[hashing::consistent_index(channel.as_str(), self.shards.len())]
    }
}

impl Broker for RedisBroker {
    fn subscribe(&self, channel: &ChannelName) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.shard(channel).bus.subscribe(channel)
    }

    fn unsubscribe(&self, channel: &ChannelName) {
        self.shard(channel).bus.unsubscribe(channel);
    }

    fn publish(
        &self,
        channel: &ChannelName,
        publication: Publication,
        options: PublishOptions,
    ) -> BoxFuture<'static, Result<Published, BrokerError>> {
        let PublishOptions { history, idempotency_key, delta, version } = options;
        let shard = self.shard(channel);
        let message_channel = self.keys.messages(channel);
        let marks =
            Marks { delta: delta && history.is_none(), version: version.as_ref().map(|version| version.number) };
        let payload = payload::encode(publication, marks, unix_ms());
        if let Some(history) = history {
            return shard.publisher.publish(Append {
                stream: self.keys.stream(channel),
                meta: self.keys.meta(channel),
                result: self.keys.result(channel, idempotency_key.as_deref().unwrap_or_default()),
                message_channel,
                payload,
                history,
                idempotent: idempotency_key.is_some(),
                delta,
                version,
            });
        }
        let commands = Arc::clone(&shard.commands);
        match idempotency_key {
            None => async move {
                commands.run(|connection| bus::publish(connection, message_channel, payload)).await?;
                Ok(Published::default())
            }
            .boxed(),
            Some(key) => {
                let result = self.keys.result(channel, &key);
                async move {
                    commands.run(|connection| scripts::publish_once(connection, result, message_channel, payload)).await
                }
                .boxed()
            }
        }
    }

    fn join(&self, channel: &ChannelName, info: ClientInfo) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.announce(channel, payload::encode_join(info))
    }

    fn leave(&self, channel: &ChannelName, info: ClientInfo) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.announce(channel, payload::encode_leave(info))
    }

    fn history(
        &self,
        channel: &ChannelName,
        query: HistoryQuery,
        options: HistoryOptions,
    ) -> BoxFuture<'static, Result<History, BrokerError>> {
        let commands = Arc::clone(&self.shard(channel).commands);
        let (stream, meta) = (self.keys.stream(channel), self.keys.meta(channel));
        async move { commands.run(|connection| scripts::history(connection, stream, meta, query, options)).await }
            .boxed()
    }

    fn remove_history(&self, channel: &ChannelName) -> BoxFuture<'static, Result<(), BrokerError>> {
        let commands = Arc::clone(&self.shard(channel).commands);
        let stream = self.keys.stream(channel);
        async move {
            commands
                .run(|mut connection| async move {
                    connection.send_packed_command(redis::cmd("DEL").arg(stream)).await?.extract_error()
                })
                .await?;
            Ok(())
        }
        .boxed()
    }

    fn status(&self) -> Result<(), String> {
        self.shards.iter().try_for_each(|shard| shard.health.status())
    }
}

/// Messages of all channels that this node wants of one server.
fn message_plan(keys: &Keys, events: &Arc<dyn BrokerEvents>, counters: &Arc<Counters>) -> BusPlan {
    BusPlan {
        name: "messages",
        fixed: vec![keys.shard(), keys.probe()],
        probe: (keys.probe(), Bytes::from_static(PROBE)),
        listener: Box::new(Receiver { keys: keys.clone(), events: Arc::clone(events), counters: Arc::clone(counters) }),
    }
}

/// From the bytes of a message channel to [`BrokerEvents`].
struct Receiver {
    keys: Keys,
    events: Arc<dyn BrokerEvents>,
    counters: Arc<Counters>,
}

impl Listener for Receiver {
    fn wire_name(&self, channel: &ChannelName) -> String {
        self.keys.messages(channel)
    }

    fn receive(&self, channel: &[u8], payload: Bytes) {
        // The other channels of this connection are those for probes.
        let Some(channel) = std::str::from_utf8(channel).ok().and_then(|channel| self.keys.channel(channel)) else {
            return;
        };
        let name = ChannelName::from(channel);
        let taken = match payload::decode(payload) {
            Ok(BusMessage::Publication { publication, previous }) => {
                self.events.publication(&name, publication, previous.and_then(payload::payload))
            }
            Ok(BusMessage::Join(info)) => self.events.joined(&name, info),
            Ok(BusMessage::Leave(info)) => self.events.left(&name, info),
            Err(malformed) => {
                self.counters.malformed.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(channel, %malformed, "dropped a message that cannot be read");
                return;
            }
        };
        if taken.is_err() {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn wanted(&self, channel: &ChannelName) -> bool {
        self.events.wanted(channel)
    }

    fn interrupted(&self, channels: &[ChannelName]) {
        self.events.interrupted(channels);
    }

    fn connected(&self) {}
}

fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
