//! Presence for all nodes over Redis, in Centrifugo's own format: both kinds of nodes see each other's clients.
//!
//! A channel has a hash from client id to info (Protobuf `ClientInfo`) and a sorted set from client id to the Unix
//! second at which the entry is over. With the user mapping it has two more, from user id to the number of its clients
//! and to the latest of their ends, which make statistics cheap; all nodes of a deployment must agree on it. Every
//! write lets the keys live for the time to live, so an abandoned channel goes by itself.
//!
//! | call | effects, in order |
//! |---|---|
//! | add, refresh | hash, sorted set, then those of the users: one script (`put.lua`) for up to 500 clients |
//! | remove | likewise (`remove.lua`) |
//! | list | ends that are past, then the whole hash: two plain reads in one round trip |
//! | stats | the same with only the infos; with the mapping a script (`sweep.lua`) has both numbers |
//!
//! Entries whose time is over are dropped by whoever looks at the channel next, before it looks (`sweep.lua`). Reads
//! are no scripts since a script makes Redis copy the answer twice: for 10,000 entries it was measured at 10 ms of its
//! only thread to read the hash in a script, 4.9 ms to read it plainly, 2.6 ms for the infos alone, and 7.2 ms to count
//! users there.
//!
//! Times are whole seconds of the clocks of the nodes, which must agree to well under the time to live.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, LazyLock},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use prost::Message;
use redis::{FromRedisValue, RedisResult, Script, ScriptInvocation, Value, aio::MultiplexedConnection};
use starling_proto::client as wire;
use tokio::runtime::Handle;

use super::{Presence, PresenceStats};
use crate::{
    broker::{
        BrokerError, ClientInfo,
        redis::{ChannelServers, Commands, RedisBroker, Settings, keys::PresenceKeys, payload},
    },
    clock,
    names::{ChannelName, ClientId},
};

/// Entries of one script call, and bytes of their infos after which no more are taken: Redis does nothing else
/// meanwhile.
const PART_ENTRIES: usize = 500;
const PART_BYTES: usize = 256 * 1024;

static PUT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/put.lua")));
static REMOVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/remove.lua")));
static SWEEP: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/sweep.lua")));

/// What the nodes of a deployment must agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresenceOptions {
    /// How long an entry lives without being refreshed. Rounded up to whole seconds, at least one: a time that rounds
    /// to zero would delete the keys.
    pub ttl: Duration,
    /// Keeps the users of a channel beside its clients, so that statistics read two numbers instead of all entries. It
    /// costs Redis about 60 % more for an add and up to twice the memory.
    ///
    /// A client must then keep its user, as one connection does.
    pub user_mapping: bool,
}

impl Default for PresenceOptions {
    /// 60 s, without user mapping.
    fn default() -> Self {
        Self { ttl: Duration::from_secs(60), user_mapping: false }
    }
}

impl PresenceOptions {
    fn ttl_s(&self) -> u64 {
        let more = u64::from(self.ttl.subsec_nanos() > 0);
        self.ttl.as_secs().saturating_add(more).max(1)
    }
}

/// Presence over one Redis server, or over several by client-side sharding.
///
/// - Every failure is [`BrokerError::Unavailable`]; the entry may then be there or not.
/// - A call takes at most the `io_timeout` of settings; a refresh at most that for each of its scripts.
pub struct RedisPresence {
    servers: ChannelServers,
    ttl_s: u64,
    user_mapping: bool,
    clock: Clock,
}

/// Unix time in seconds.
type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

impl RedisPresence {
    /// Starts to connect, on `runtime`, for presence that does not live where the broker's streams do; ready for use at
    /// once. Connections and their tasks end when it is dropped.
    pub fn start(settings: Settings, options: PresenceOptions, runtime: &Handle) -> Self {
        Self::over(ChannelServers::start(settings, runtime), options)
    }

    /// Presence on the servers of a broker, over its connections.
    pub fn beside(broker: &RedisBroker, options: PresenceOptions) -> Self {
        Self::over(broker.channel_servers(), options)
    }

    fn over(servers: ChannelServers, options: PresenceOptions) -> Self {
        let ttl_s = options.ttl_s();
        Self { servers, ttl_s, user_mapping: options.user_mapping, clock: Arc::new(unix_s) }
    }

    /// Takes the time (Unix seconds) from `clock` instead of the system.
    pub fn with_clock(self, clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// Whether all servers can be reached, for health; `Err` says why not.
    pub fn status(&self) -> Result<(), String> {
        self.servers.status()
    }

    fn of(&self, channel: &ChannelName) -> OfChannel {
        OfChannel {
            commands: Arc::clone(self.servers.commands(channel)),
            keys: self.servers.keys().presence(channel),
            ttl_s: self.ttl_s,
            user_mapping: self.user_mapping,
            clock: Arc::clone(&self.clock),
        }
    }
}

fn unix_s() -> u64 {
    u64::try_from(clock::unix_ms() / 1000).unwrap_or(0)
}

impl Presence for RedisPresence {
    fn add(
        &self,
        channel: &ChannelName,
        client: ClientId,
        info: ClientInfo,
    ) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.refresh(channel, vec![(client, info)])
    }

    fn refresh(
        &self,
        channel: &ChannelName,
        entries: Vec<(ClientId, ClientInfo)>,
    ) -> BoxFuture<'static, Result<(), BrokerError>> {
        let channel = self.of(channel);
        async move { channel.put(entries).await }.boxed()
    }

    fn remove(
        &self,
        channel: &ChannelName,
        client: ClientId,
        user: &str,
    ) -> BoxFuture<'static, Result<(), BrokerError>> {
        let (channel, user) = (self.of(channel), user.to_owned());
        async move { channel.remove(client, &user).await }.boxed()
    }

    fn list(&self, channel: &ChannelName) -> BoxFuture<'static, Result<BTreeMap<String, ClientInfo>, BrokerError>> {
        let channel = self.of(channel);
        async move { channel.list().await }.boxed()
    }

    fn stats(&self, channel: &ChannelName) -> BoxFuture<'static, Result<PresenceStats, BrokerError>> {
        let channel = self.of(channel);
        async move {
            match channel.user_mapping {
                true => channel.kept_stats().await,
                false => channel.counted_stats().await,
            }
        }
        .boxed()
    }
}

/// Presence of one channel, for one call.
struct OfChannel {
    commands: Arc<Commands>,
    keys: PresenceKeys,
    ttl_s: u64,
    user_mapping: bool,
    clock: Clock,
}

impl OfChannel {
    async fn put(&self, entries: Vec<(ClientId, ClientInfo)>) -> Result<(), BrokerError> {
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            let mut call = self.call(&PUT);
            call.arg(self.ttl_s).arg((self.clock)().saturating_add(self.ttl_s)).arg(u8::from(self.user_mapping));
            let (mut count, mut bytes) = (0, 0);
            while count < PART_ENTRIES
                && bytes < PART_BYTES
                && let Some((client, info)) = entries.next()
            {
                let user = info.user.clone();
                let info = payload::encode_info(info).encode_to_vec();
                count += 1;
                bytes += info.len();
                call.arg(client.to_string()).arg(info).arg(user);
            }
            self.commands.run(|mut connection| async move { call.invoke_async::<()>(&mut connection).await }).await?;
        }
        Ok(())
    }

    async fn remove(&self, client: ClientId, user: &str) -> Result<(), BrokerError> {
        let mut call = self.call(&REMOVE);
        call.arg(client.to_string()).arg(user).arg(u8::from(self.user_mapping));
        self.commands.run(|mut connection| async move { call.invoke_async::<()>(&mut connection).await }).await
    }

    async fn list(&self) -> Result<BTreeMap<String, ClientInfo>, BrokerError> {
        let entries: Vec<(Vec<u8>, Vec<u8>)> = self.read("HGETALL").await?;
        let count = entries.len();
        let list: BTreeMap<_, _> = entries
            .into_iter()
            .filter_map(|(client, info)| {
                let info = wire::ClientInfo::decode(bytes::Bytes::from(info)).ok()?;
                Some((String::from_utf8(client).ok()?, payload::decode_info(info)))
            })
            .collect();
        self.complain_of_unreadable(count - list.len());
        Ok(list)
    }

    /// Counts from the infos of all clients.
    async fn counted_stats(&self) -> Result<PresenceStats, BrokerError> {
        let infos: Vec<Vec<u8>> = self.read("HVALS").await?;
        let mut users = HashSet::new();
        let readable = infos.iter().filter_map(|info| OnlyUser::decode(&**info).ok());
        let clients = readable.map(|info| users.insert(info.user)).count();
        self.complain_of_unreadable(infos.len() - clients);
        Ok(PresenceStats { clients: saturated(clients), users: saturated(users.len()) })
    }

    /// Asks for the counts that are kept.
    async fn kept_stats(&self) -> Result<PresenceStats, BrokerError> {
        let sweep = self.sweep();
        let (clients, users) =
            self.commands.run(|mut connection| async move { sweep.invoke_async(&mut connection).await }).await?;
        Ok(PresenceStats { clients, users })
    }

    /// Answer of a command that reads the infos, after those are dropped whose time is over.
    async fn read<T: FromRedisValue>(&self, command: &str) -> Result<T, BrokerError> {
        let mut read = redis::cmd(command);
        read.arg(&self.keys.data);
        let mut look = redis::pipe();
        look.cmd("ZRANGEBYSCORE").arg(&self.keys.expire).arg(0).arg((self.clock)()).add_command(read.clone());
        let sweep = self.sweep();
        let work = async |mut connection: MultiplexedConnection| -> RedisResult<T> {
            let (over, answer): (Vec<Value>, T) = look.query_async(&mut connection).await?;
            if over.is_empty() {
                return Ok(answer);
            }
            sweep.invoke_async::<()>(&mut connection).await?;
            read.query_async(&mut connection).await
        };
        self.commands.run(work).await
    }

    fn sweep(&self) -> ScriptInvocation<'static> {
        let mut call = self.call(&SWEEP);
        call.arg((self.clock)()).arg(u8::from(self.user_mapping));
        call
    }

    fn call(&self, script: &'static Script) -> ScriptInvocation<'static> {
        let PresenceKeys { expire, data, user_expire, user_clients } = &self.keys;
        let mut call = script.prepare_invoke();
        call.key(expire).key(data).key(user_expire).key(user_clients);
        call
    }

    /// Other nodes write infos, too; one of theirs that cannot be read is left out.
    fn complain_of_unreadable(&self, count: usize) {
        if count > 0 {
            tracing::debug!(key = self.keys.data, count, "left out presence entries that cannot be read");
        }
    }
}

/// A `ClientInfo` of which only the user is of interest.
#[derive(Clone, PartialEq, Message)]
struct OnlyUser {
    #[prost(string, tag = "1")]
    user: String,
}

fn saturated(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_live_are_rounded_up_to_whole_seconds() {
        let cases = [(0, 1), (1, 1), (999, 1), (1000, 1), (1001, 2), (60_000, 60)];
        for (ttl_ms, seconds) in cases {
            let options = PresenceOptions { ttl: Duration::from_millis(ttl_ms), user_mapping: false };
            assert_eq!(options.ttl_s(), seconds, "{ttl_ms} ms");
        }
        assert_eq!(PresenceOptions { ttl: Duration::MAX, user_mapping: false }.ttl_s(), u64::MAX);
    }
}
