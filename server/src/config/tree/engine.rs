//! Engine, brokers, presence, and the connections they use.

use std::collections::BTreeMap;
use std::time::Duration;

use super::TlsOptions;
use crate::config::options::{options, words};
use crate::config::values::Secret;

options! {
    /// `engine`: what keeps history and carries publications between nodes.
    pub struct Engine {
        /// Which engine.
        kind as "type": EngineKind = EngineKind::Memory,
        /// The Redis engine.
        redis: EngineRedis,
    }

    /// `engine.redis`
    pub struct EngineRedis {
        /// Where Redis is.
        connection as "": RedisOptions,
        /// Keeps history in lists instead of streams.
        history_use_lists: bool,
        /// How long a presence entry lives without being renewed.
        presence_ttl: Duration = Duration::from_secs(60) => zero_is_default,
        /// Uses expiry of single hash fields for presence.
        presence_hash_field_ttl: bool,
        /// Keeps a second presence index by user.
        presence_user_mapping: bool,
    }

    /// Where Redis is and how it is spoken to. Shared by everything that uses Redis.
    pub struct RedisOptions {
        /// Prefix of every key and channel.
        prefix: String = "centrifugo".into(),
        /// Addresses: `host:port` or a URL; several mean client-side sharding.
        address: Vec<String> = vec!["redis://127.0.0.1:6379".into()],
        /// Longest time to establish a connection.
        connect_timeout: Duration = Duration::from_secs(1) => zero_is_default,
        /// Longest time for one command.
        io_timeout: Duration = Duration::from_secs(4) => zero_is_default,
        /// Number of the database.
        db: u32,
        /// User name.
        user: Option<String>,
        /// Password.
        password: Option<Secret>,
        /// Name that the connection gives itself.
        client_name: Option<String>,
        /// Speaks RESP2 even if the server knows RESP3.
        force_resp2: bool,
        /// Seed nodes of a Redis Cluster; one entry is one shard, its nodes separated by commas.
        cluster_address: Vec<String>,
        /// TLS towards Redis.
        tls: TlsOptions,
        /// Addresses of Sentinels.
        sentinel_address: Vec<String>,
        /// User name at the Sentinels.
        sentinel_user: Option<String>,
        /// Password at the Sentinels.
        sentinel_password: Option<Secret>,
        /// Name of the master that the Sentinels watch.
        sentinel_master_name: Option<String>,
        /// Name that a connection to a Sentinel gives itself.
        sentinel_client_name: Option<String>,
        /// TLS towards the Sentinels.
        sentinel_tls: TlsOptions,
        /// Reads from replicas.
        replica_client: RedisReplicaClient,
    }

    /// `….redis.replica_client`
    pub struct RedisReplicaClient {
        /// Turns it on.
        enabled: bool,
    }

    /// `broker`: a broker of its own instead of the engine's half.
    pub struct Broker {
        /// Turns it on.
        enabled: bool,
        /// Which broker.
        kind as "type": BrokerKind = BrokerKind::Memory,
        /// The Redis broker.
        redis: BrokerRedis,
        /// The NATS broker.
        nats: Nats,
        /// The PostgreSQL broker.
        postgres: BrokerPostgres,
    }

    /// `broker.redis`
    pub struct BrokerRedis {
        /// Where Redis is.
        connection as "": RedisOptions,
        /// Keeps history in lists instead of streams.
        history_use_lists: bool,
    }

    /// `broker.nats`
    pub struct Nats {
        /// Prefix of every subject.
        prefix: String = "centrifugo".into(),
        /// Address of NATS.
        url: String = "nats://localhost:4222".into(),
        /// Longest time to establish a connection.
        dial_timeout: Duration = Duration::from_secs(1) => zero_is_default,
        /// Longest time for one write.
        write_timeout: Duration = Duration::from_secs(1) => zero_is_default,
        /// TLS towards NATS.
        tls: TlsOptions,
        /// Lets clients subscribe to wildcard channels.
        allow_wildcards: bool,
        /// Uses channels as subjects as they are.
        raw_mode: NatsRawMode,
    }

    /// `broker.nats.raw_mode`
    pub struct NatsRawMode {
        /// Turns it on.
        enabled: bool,
        /// Replacements in a channel that make it a subject.
        channel_replacements: BTreeMap<String, String>,
        /// Prefix of every subject.
        prefix: Option<String>,
    }

    /// `broker.postgres`
    pub struct BrokerPostgres {
        /// Where PostgreSQL is.
        dsn: Option<Secret>,
        /// TLS towards PostgreSQL.
        tls: TlsOptions,
        /// Size of the connection pool.
        pool_size: u32 = 16,
        /// Number of shards.
        num_shards: u32 = 8,
        /// How often old rows are removed.
        cleanup_interval: Duration = Duration::from_secs(60),
        /// How long results of idempotent publishes are kept.
        idempotent_result_ttl: Duration = Duration::from_secs(300),
        /// Keeps data in binary columns.
        binary_data: bool,
        /// How long streams are kept.
        stream_retention: Duration = Duration::from_secs(86_400),
        /// Uses LISTEN and NOTIFY.
        use_notify: bool,
        /// Where to LISTEN, if not at `dsn`.
        notify_dsn: Option<Secret>,
        /// Prefix of the tables.
        table_prefix: String = "cf".into(),
        /// Does not create the tables.
        skip_schema_init: bool,
        /// The outbox.
        outbox: PostgresOutbox,
        /// How many days ahead partitions are made.
        partition_lookahead_days: u32 = 2,
        /// How many days partitions are kept.
        partition_retention_days: u32 = 7,
    }

    /// `….postgres.outbox`
    pub struct PostgresOutbox {
        /// How often the outbox is looked at.
        poll_interval: Duration = Duration::from_millis(100),
        /// How many rows are taken at once.
        batch_size: u32 = 1000,
    }

    /// `presence_manager`: a presence manager of its own instead of the engine's half.
    pub struct PresenceManager {
        /// Turns it on.
        enabled: bool,
        /// Which presence manager.
        kind as "type": EngineKind = EngineKind::Memory,
        /// The Redis presence manager.
        redis: PresenceRedis,
    }

    /// `presence_manager.redis`
    pub struct PresenceRedis {
        /// Where Redis is.
        connection as "": RedisOptions,
        /// How long a presence entry lives without being renewed.
        presence_ttl: Duration = Duration::from_secs(60) => zero_is_default,
        /// Uses expiry of single hash fields for presence.
        presence_hash_field_ttl: bool,
        /// Keeps a second presence index by user.
        presence_user_mapping: bool,
    }

    /// `map_broker`: the broker of map subscriptions.
    pub struct MapBroker {
        /// Which broker.
        kind as "type": MapBrokerKind = MapBrokerKind::Memory,
        /// The Redis map broker.
        redis: MapBrokerRedis,
        /// The PostgreSQL map broker.
        postgres: MapBrokerPostgres,
    }

    /// `map_broker.redis`
    pub struct MapBrokerRedis {
        /// Where Redis is.
        connection as "": RedisOptions,
        /// How often expired keys are removed.
        cleanup_interval: Duration = Duration::from_secs(1),
        /// How many keys are removed at once.
        cleanup_batch_size: u32 = 100,
        /// How long results of idempotent publishes are kept.
        idempotent_result_ttl: Duration = Duration::from_secs(300),
        /// Does not publish to other nodes.
        skip_pub_sub: bool,
    }

    /// `map_broker.postgres`
    pub struct MapBrokerPostgres {
        /// What it shares with the PostgreSQL broker.
        shared as "": BrokerPostgres,
        /// How often expired keys are looked for.
        ttl_check_interval: Duration = Duration::from_secs(1),
    }

    /// `controller`: carries control messages between nodes instead of the broker.
    pub struct Controller {
        /// Turns it on.
        enabled: bool,
        /// Which controller.
        kind as "type": Option<ControllerKind>,
        /// The PostgreSQL controller.
        postgres: ControllerPostgres,
    }

    /// `controller.postgres`
    pub struct ControllerPostgres {
        /// Where PostgreSQL is.
        dsn: Option<Secret>,
        /// TLS towards PostgreSQL.
        tls: TlsOptions,
        /// Size of the connection pool.
        pool_size: u32 = 8,
        /// Number of shards.
        num_shards: u32 = 1,
        /// Prefix of the tables.
        table_prefix: String = "cf".into(),
        /// How often messages are looked for.
        poll_interval: Duration = Duration::from_millis(50),
        /// Uses LISTEN and NOTIFY.
        use_notify: bool,
        /// Where to LISTEN, if not at `dsn`.
        notify_dsn: Option<Secret>,
        /// How many days partitions are kept.
        partition_retention_days: u32 = 1,
        /// How many days ahead partitions are made.
        partition_lookahead_days: u32 = 2,
        /// How often old partitions are removed.
        partition_cleanup_interval: Duration = Duration::from_secs(60),
        /// How many rows are taken at once.
        batch_size: u32 = 1000,
        /// Does not create the tables.
        skip_schema_init: bool,
    }

    /// `shared_poll`: shared polling.
    pub struct SharedPoll {
        /// Key that signs what clients poll for.
        hmac_secret_key: Option<Secret>,
        /// The key before this one, while it is being replaced.
        hmac_previous_secret_key: Option<Secret>,
        /// Until when the previous key counts, in Unix seconds; absent means without end.
        hmac_previous_secret_key_valid_until: Option<u64>,
        /// How many refreshes may run at once; absent means no limit.
        concurrency_limit: Option<u32>,
    }
}

words! {
    /// Where an engine or a presence manager keeps its data.
    pub enum EngineKind {
        /// In the memory of this process.
        Memory = "memory",
        /// In Redis.
        Redis = "redis",
    }

    /// Where a broker keeps its data.
    pub enum BrokerKind {
        /// In the memory of this process.
        Memory = "memory",
        /// In Redis.
        Redis = "redis",
        /// NATS, which keeps none.
        Nats = "nats",
        /// In PostgreSQL.
        Postgres = "postgres",
    }

    /// Where a map broker keeps its data.
    pub enum MapBrokerKind {
        /// In the memory of this process.
        Memory = "memory",
        /// In Redis.
        Redis = "redis",
        /// In PostgreSQL.
        Postgres = "postgres",
    }

    /// What carries control messages.
    pub enum ControllerKind {
        /// PostgreSQL.
        Postgres = "postgres",
    }
}
