//! Options of Centrifugo that this server does not support yet. Set to something other than off they refuse the start,
//! by name: an option that is taken and ignored is worse than one that is missing.

use std::collections::BTreeMap;

use super::given::Given;
use super::load::list;
use super::place::Place;
use super::problem::Problem;
use super::setting::Setting;
use super::tree::{Config, EngineKind, Namespace};

/// Not supported yet. An entry is an option, a section (all options in it) or a list (any item). Where a whole section
/// has a switch, only the switch is listed: the rest of a section that is off means nothing.
const UNSUPPORTED: &[&str] = &[
    "http_server.tls_autocert.enabled",
    "http_server.http3.enabled",
    "http_server.h2c_external",
    "broker.enabled",
    "presence_manager.enabled",
    "map_broker.type",
    "controller.enabled",
    "shared_poll",
    "client.proxy.connect.enabled",
    "client.proxy.refresh.enabled",
    "client.token.jwks_public_endpoint",
    "client.subscription_token.jwks_public_endpoint",
    "client.connect_code_to_unidirectional_disconnect.enabled",
    "rpc.without_namespace.proxy_enabled",
    "rpc.namespaces",
    "rpc.ping.enabled",
    "proxies",
    "grpc_api.reflection",
    "consumers",
    "sse.enabled",
    "http_stream.enabled",
    "webtransport.enabled",
    "uni_sse.enabled",
    "uni_http_stream.enabled",
    "uni_websocket.enabled",
    "uni_grpc.enabled",
    "admin.enabled",
    "prometheus.instrument_http_handlers",
    "prometheus.recovered_publications_histogram",
    "prometheus.native_histograms",
    "swagger.enabled",
    "debug.enabled",
    "opentelemetry.enabled",
    "graphite.enabled",
];

/// Not supported yet, where the engine is Redis.
const UNSUPPORTED_REDIS: &[&str] = &[
    "engine.redis.cluster_address",
    "engine.redis.sentinel_address",
    "engine.redis.sentinel_master_name",
    "engine.redis.replica_client.enabled",
];

/// Not supported yet, in `channel.without_namespace` and in every namespace.
const UNSUPPORTED_CHANNEL: &[&str] = &[
    "map_clients_presence_channel_prefix",
    "map_users_presence_channel_prefix",
    "subscribe_proxy_enabled",
    "publish_proxy_enabled",
    "sub_refresh_proxy_enabled",
    "subscribe_stream_proxy_enabled",
    "subscription_type",
    "map",
    "shared_poll",
];

/// The next to come: history, recovery, presence. As [`UNSUPPORTED`].
const NEXT: &[&str] = &[];

/// As [`NEXT`], where the engine is Redis.
const NEXT_REDIS: &[&str] = &["engine.redis.history_use_lists", "engine.redis.presence_hash_field_ttl"];

/// As [`NEXT`], in `channel.without_namespace` and in every namespace.
const NEXT_CHANNEL: &[&str] = &[];

/// One problem for each option that is set and not supported yet.
pub(super) fn refuse(config: &Config, given: &Given) -> Vec<Problem> {
    let usual = defaults();
    let entries = entries(config.engine.kind == EngineKind::Redis);
    let mut refused: Vec<Place> = Vec::new();
    for shown in list(config) {
        let pattern = shown.place.pattern();
        if usual.get(&pattern) == Some(&shown.value) {
            continue;
        }
        let inside = |entry: &&String| {
            pattern.strip_prefix(entry.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let Some(entry) = entries.iter().find(inside) else { continue };
        let place = shortened(&shown.place, entry);
        if !refused.contains(&place) {
            refused.push(place);
        }
    }
    let problem = |place: Place| {
        let origin = given.nearest(&place).map(|given| given.origin.at(&place)).unwrap_or_default();
        let text = format!("`{place}` is a Centrifugo option that Starling does not support yet");
        Problem { place: Some(place), origin, text }
    };
    refused.into_iter().map(problem).collect()
}

/// The entries of all lists, as patterns.
pub(super) fn entries(redis: bool) -> Vec<String> {
    let everywhere = UNSUPPORTED.iter().chain(NEXT).map(|&entry| entry.to_owned());
    let of_redis = UNSUPPORTED_REDIS.iter().chain(NEXT_REDIS).filter(|_| redis).map(|&entry| entry.to_owned());
    let of_channels = ["channel.without_namespace", "channel.namespaces[]"].into_iter().flat_map(|section| {
        UNSUPPORTED_CHANNEL.iter().chain(NEXT_CHANNEL).map(move |option| format!("{section}.{option}"))
    });
    everywhere.chain(of_redis).chain(of_channels).collect()
}

/// The beginning of a place that is the entry: a whole list or section is refused once.
fn shortened(place: &Place, entry: &str) -> Place {
    let mut short = Place::default();
    for step in place.steps() {
        short.push(step.clone());
        if short.pattern() == entry {
            break;
        }
    }
    short
}

/// The default of every option, also of those of a namespace, by pattern.
fn defaults() -> BTreeMap<String, serde_json::Value> {
    let mut defaults = list(&Config::default());
    Namespace::default().show(&Place::from("channel.namespaces[0]"), &mut defaults);
    defaults.into_iter().map(|shown| (shown.place.pattern(), shown.value)).collect()
}
