//! The broker over Redis: publications of one node reach the subscribers of all, in Centrifugo's own format.
//!
//! The way of a publication: [`Broker::publish`] encodes it ([`payload`]) and sends PUBLISH over the command connection of
//! the server that holds the channel ([`hashing`]); Redis sends it to every node that is subscribed to the channel's name
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
mod quiet;
mod settings;
mod tls;
#[cfg(test)]
mod vectors;

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use redis::Script;
use tokio::runtime::Handle;

use self::{
    bus::{Bus, BusPlan, Listener},
    health::Health,
    keys::Keys,
    payload::BusMessage,
};
pub(crate) use self::{channel_servers::ChannelServers, commands::Commands};
pub use self::{
    control::RedisControl,
    settings::{Access, Server, Settings, SettingsError},
    tls::{Tls, TlsMaterial},
};
use super::{
    Broker, BrokerError, BrokerEvents, ClientInfo, History, HistoryOptions, HistoryQuery, Publication, PublishOptions,
    Published, StreamPosition,
};
use crate::names::ChannelName;

/// How long Redis remembers an idempotency key.
const RESULT_TTL_S: u32 = 300;

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
            Shard { server: server.clone(), commands, bus, health }
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
        let commands = Arc::clone(&self.shard(channel).commands);
        let message_channel = self.keys.messages(channel);
        let payload = payload::encode(publication, unix_ms());
        let PublishOptions { idempotency_key, .. } = options;
        match idempotency_key {
            None => async move {
                commands.run(|connection| bus::publish(connection, message_channel, payload)).await?;
                Ok(Published::default())
            }
            .boxed(),
            Some(key) => {
                let result = self.keys.result(channel, &key);
                async move {
                    commands
                        .run(|mut connection| async move {
                            let mut call = PUBLISH_ONCE.prepare_invoke();
                            call.key(result).arg(payload).arg(message_channel).arg("publish").arg(RESULT_TTL_S);
                            call.invoke_async::<()>(&mut connection).await
                        })
                        .await?;
                    Ok(Published::default())
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
        _channel: &ChannelName,
        _query: HistoryQuery,
        _options: HistoryOptions,
    ) -> BoxFuture<'static, Result<History, BrokerError>> {
        let top = StreamPosition { epoch: "none".into(), offset: 0 };
        async { Ok(History { publications: Vec::new(), top }) }.boxed()
    }

    fn remove_history(&self, _channel: &ChannelName) -> BoxFuture<'static, Result<(), BrokerError>> {
        async { Ok(()) }.boxed()
    }

    fn status(&self) -> Result<(), String> {
        self.shards.iter().try_for_each(|shard| shard.health.status())
    }
}

/// Publishes unless the result of an earlier publication with the same idempotency key is remembered; then remembers it.
///
/// Keys: result. Arguments: payload, message channel, `publish` or `spublish`, seconds to remember. The result is a hash
/// whose field `e` is the epoch, empty without history; `s` would be the offset.
static PUBLISH_ONCE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local seen = redis.call('HMGET', KEYS[1], 'e', 's')
        if seen[1] then
            return 0
        end
        redis.call(ARGV[3], ARGV[2], ARGV[1])
        redis.call('HSET', KEYS[1], 'e', '')
        redis.call('EXPIRE', KEYS[1], ARGV[4])
        return 1
        ",
    )
});

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
