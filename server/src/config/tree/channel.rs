//! Channel rules and namespaces.

use std::time::Duration;

use super::Proxy;
use crate::config::environment::Environment;
use crate::config::options::{options, words};
use crate::config::raw::Raw;
use crate::config::setting::{Refusal, Take, single};
use crate::config::shape::Written;

options! {
    /// `channel`: channel rules and namespaces.
    pub struct Channel {
        /// Default proxies of channel events.
        proxy: ChannelProxy,
        /// Options of channels without a namespace.
        without_namespace: ChannelOptions,
        /// Namespaces.
        namespaces: Vec<Namespace>,
        /// How long the position of a channel outlives its last publication, where the namespace does not say.
        history_meta_ttl: Duration = Duration::from_secs(720 * 3600) => whole_seconds,
        /// Form of publication data, where the namespace does not say; absent means any.
        publication_data_format: Option<DataFormat>,
        /// Longest channel name, in bytes.
        max_length: usize = 255 => zero_is_default,
        /// Start of channels that need a subscription token.
        private_prefix: String = "$".into(),
        /// What separates the namespace from the rest of a channel.
        namespace_boundary: String = ":".into(),
        /// What separates the users that may subscribe from the rest of a channel.
        user_boundary: String = "#".into(),
        /// What separates those users.
        user_separator: String = ",".into(),
    }

    /// `channel.proxy`: default proxies of channel events.
    pub struct ChannelProxy {
        /// Asked when a client subscribes.
        subscribe: Proxy,
        /// Asked when a client publishes.
        publish: Proxy,
        /// Asked when a subscription is about to expire.
        sub_refresh: Proxy,
        /// Opens a stream of publications per subscription.
        subscribe_stream: Proxy,
        /// Asked when a client writes to a map.
        map_publish: Proxy,
        /// Asked when a client removes from a map.
        map_remove: Proxy,
        /// Asked for new data of shared polling.
        shared_poll_refresh: Proxy,
    }

    /// One entry of `channel.namespaces`.
    pub struct Namespace {
        /// Name: what stands before the boundary in a channel.
        name: String,
        /// Options of its channels.
        options as "": ChannelOptions,
    }

    /// Options of the channels of one namespace, or of those without one.
    pub struct ChannelOptions {
        /// Keeps who is subscribed.
        presence: bool,
        /// Sends join and leave messages to those who ask for them.
        join_leave: bool,
        /// Sends join and leave messages to everybody.
        force_push_join_leave: bool,
        /// Prefix of the channel that keeps the clients of a channel as a map.
        map_clients_presence_channel_prefix: Option<String>,
        /// Prefix of the channel that keeps the users of a channel as a map.
        map_users_presence_channel_prefix: Option<String>,
        /// How many publications are kept; absent means none. Goes with `history_ttl`.
        history_size: Option<u32>,
        /// How long publications are kept, in whole seconds. Goes with `history_size`.
        history_ttl: Option<Duration> => whole_seconds,
        /// How long the position of a channel outlives its last publication, in whole seconds.
        history_meta_ttl: Option<Duration> => whole_seconds,
        /// Every subscription has a position that is checked.
        force_positioning: bool,
        /// A subscription may ask for a position that is checked.
        allow_positioning: bool,
        /// Every subscription recovers what it missed. Needs history.
        force_recovery: bool,
        /// A subscription may ask to recover what it missed.
        allow_recovery: bool,
        /// What recovery brings back.
        force_recovery_mode: RecoveryMode = RecoveryMode::Stream,
        /// The first subscribe gets the latest publication too. Needs `force_recovery` in cache mode.
        auto_cache_recover: bool,
        /// Kinds of differences that a subscription may ask for.
        allowed_delta_types: Vec<DeltaType>,
        /// A subscription may filter publications by their tags.
        allow_tags_filter: bool,
        /// Publications are sent as differences unless the publisher says otherwise.
        delta_publish: bool,
        /// Anonymous clients may subscribe too. Goes with `allow_subscribe_for_client`.
        allow_subscribe_for_anonymous: bool,
        /// Clients may subscribe.
        allow_subscribe_for_client: bool,
        /// Anonymous clients may publish too.
        allow_publish_for_anonymous: bool,
        /// Subscribers may publish.
        allow_publish_for_subscriber: bool,
        /// Clients may publish.
        allow_publish_for_client: bool,
        /// Anonymous clients may read presence too.
        allow_presence_for_anonymous: bool,
        /// Subscribers may read presence.
        allow_presence_for_subscriber: bool,
        /// Clients may read presence.
        allow_presence_for_client: bool,
        /// Anonymous clients may read history too.
        allow_history_for_anonymous: bool,
        /// Subscribers may read history.
        allow_history_for_subscriber: bool,
        /// Clients may read history.
        allow_history_for_client: bool,
        /// The users named in a channel may subscribe to it.
        allow_user_limited_channels: bool,
        /// Pattern that the rest of a channel must match; absent means any ASCII.
        channel_regex: Option<String>,
        /// Form of publication data; absent means that of `channel`.
        publication_data_format: Option<DataFormat>,
        /// Asks the backend when a client subscribes.
        subscribe_proxy_enabled: bool,
        /// Name of the proxy for that.
        subscribe_proxy_name: String = "default".into(),
        /// Asks the backend when a client publishes.
        publish_proxy_enabled: bool,
        /// Name of the proxy for that.
        publish_proxy_name: String = "default".into(),
        /// Asks the backend when a subscription is about to expire.
        sub_refresh_proxy_enabled: bool,
        /// Name of the proxy for that.
        sub_refresh_proxy_name: String = "default".into(),
        /// Opens a stream at the backend per subscription.
        subscribe_stream_proxy_enabled: bool,
        /// Name of the proxy for that.
        subscribe_stream_proxy_name: String = "default".into(),
        /// Publications of the client go up that stream.
        subscribe_stream_proxy_bidirectional: bool,
        /// What subscriptions of the namespace are.
        subscription_type: SubscriptionType = SubscriptionType::Stream,
        /// What only concerns maps.
        map: MapOptions,
        /// What only concerns shared polling.
        shared_poll: SharedPollOptions,
    }

    /// `….map` of a namespace.
    pub struct MapOptions {
        /// What is kept.
        mode: Option<MapMode>,
        /// How long a key lives.
        key_ttl: Option<Duration>,
        /// How many changes are kept; absent means 100.
        stream_size: Option<u32>,
        /// How long changes are kept; absent means a minute.
        stream_ttl: Option<Duration>,
        /// How long the position outlives the last change; absent means derived.
        meta_ttl: Option<Duration>,
        /// Removes the key of a client that unsubscribes.
        remove_client_on_unsubscribe: bool,
        /// What key a client writes to; absent means any.
        client_key: Option<MapClientKey>,
        /// Clients may write.
        allow_publish_for_client: bool,
        /// Subscribers may write.
        allow_publish_for_subscriber: bool,
        /// Anonymous clients may write too.
        allow_publish_for_anonymous: bool,
        /// Clients may remove.
        allow_remove_for_client: bool,
        /// Subscribers may remove.
        allow_remove_for_subscriber: bool,
        /// Anonymous clients may remove too.
        allow_remove_for_anonymous: bool,
        /// Asks the backend when a client writes.
        publish_proxy_enabled: bool,
        /// Name of the proxy for that.
        publish_proxy_name: String = "default".into(),
        /// Asks the backend when a client removes.
        remove_proxy_enabled: bool,
        /// Name of the proxy for that.
        remove_proxy_name: String = "default".into(),
        /// Size of a page where the client does not say; absent means 100.
        default_page_size: Option<u32>,
        /// Smallest page; absent means 100.
        min_page_size: Option<u32>,
        /// Largest page; absent means 1000.
        max_page_size: Option<u32>,
        /// Most changes while going live; absent means the largest page.
        live_transition_max_publication_limit: Option<u32>,
        /// How long catching up may take; absent means 5 s.
        subscribe_catch_up_timeout: Option<Duration>,
    }

    /// `….shared_poll` of a namespace.
    pub struct SharedPollOptions {
        /// Name of the proxy; absent means `default`.
        proxy_name: Option<String>,
        /// How often the backend is asked; absent means 10 s.
        refresh_interval: Option<Duration>,
        /// How many keys are asked for at once; absent means 1000.
        refresh_batch_size: Option<u32>,
        /// Most keys of one connection; absent means 5000.
        max_keys_per_connection: Option<u32>,
        /// Whether data has versions.
        mode: SharedPollMode = SharedPollMode::Versionless,
        /// How long a channel is polled after its last subscriber; absent means 1 s.
        channel_shutdown_delay: Option<Duration>,
        /// How much longer an expired key is followed; absent means 25 s.
        track_expired_extra_delay: Option<Duration>,
        /// The server API may publish. Needs versions.
        publish_enabled: bool,
    }
}

words! {
    /// What recovery brings back.
    pub enum RecoveryMode {
        /// Every publication that was missed.
        Stream = "stream" | "",
        /// Only the latest.
        Cache = "cache",
    }

    /// A kind of difference between publications.
    pub enum DeltaType {
        /// The Fossil format.
        Fossil = "fossil",
    }

    /// Form of publication data.
    pub enum DataFormat {
        /// Any JSON.
        Json = "json",
        /// A JSON object.
        JsonObject = "json_object",
        /// Any bytes, none too.
        Binary = "binary",
    }

    /// What subscriptions of a namespace are.
    pub enum SubscriptionType {
        /// A stream of publications.
        Stream = "stream" | "",
        /// A map of keys.
        Map = "map",
        /// A map of the clients of another channel.
        MapClients = "map_clients",
        /// A map of the users of another channel.
        MapUsers = "map_users",
        /// Shared polling.
        SharedPoll = "shared_poll",
    }

    /// What a map keeps.
    pub enum MapMode {
        /// Nothing after the last change.
        Ephemeral = "ephemeral",
        /// Changes, for those who come back.
        Recoverable = "recoverable",
        /// Everything, without end.
        Persistent = "persistent",
    }

    /// What key a client writes to in a map.
    pub enum MapClientKey {
        /// Its client id.
        ClientId = "client_id",
        /// Its user id.
        UserId = "user_id",
    }

    /// Whether polled data has versions.
    pub enum SharedPollMode {
        /// It has none.
        Versionless = "versionless" | "",
        /// It has.
        Versioned = "versioned",
    }
}

impl Take for Vec<DeltaType> {
    const WRITTEN: Written = Written::List;
    const SECRET: bool = false;

    fn takes() -> String {
        format!("a list of {}", DeltaType::takes())
    }

    fn take(raw: &Raw, environment: &Environment) -> Result<Self, Refusal> {
        let words = Vec::<String>::take(raw, environment)?;
        words.into_iter().map(|word| DeltaType::take(&Raw::Text(word), environment)).collect()
    }

    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn value(&self) -> serde_json::Value {
        self.iter().map(|kind| kind.as_str()).collect()
    }
}

single!(Vec<DeltaType>);
