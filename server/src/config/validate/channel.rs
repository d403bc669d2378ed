//! Rules of channels and namespaces.

use super::Checker;
use super::proxy::usable_name;
use crate::config::duration;
use crate::config::place::Place;
use crate::config::tree::{ChannelOptions, Config, MapMode, RecoveryMode, SharedPollMode, SubscriptionType};

pub(super) fn check(config: &Config, checker: &mut Checker<'_>) {
    let channel = &config.channel;
    for (option, value) in [
        ("channel.namespace_boundary", &channel.namespace_boundary),
        ("channel.user_boundary", &channel.user_boundary),
        ("channel.user_separator", &channel.user_separator),
        ("rpc.namespace_boundary", &config.rpc.namespace_boundary),
    ] {
        // Stricter than Centrifugo: an empty separator is found before the first character of every name.
        if value.is_empty() {
            checker.refuse(option, "must not be empty");
        }
    }
    options(&channel.without_namespace, config, &Place::from("channel.without_namespace"), checker);
    let list = Place::from("channel.namespaces");
    let mut names: Vec<&str> = Vec::new();
    for (index, namespace) in channel.namespaces.iter().enumerate() {
        let name = namespace.name.as_str();
        let place = list.item(index, (!name.is_empty()).then_some(name));
        if !usable_name(name) {
            checker.refuse(place.key("name"), NAME_RULE);
        } else if names.contains(&name) {
            checker.refuse(place.key("name"), "is the name of another namespace already");
        }
        names.push(name);
        options(&namespace.options, config, &place, checker);
    }
    personal_channel(config, checker);
}

pub(super) const NAME_RULE: &str = "must be two or more letters, digits, dashes, underscores or dots";

fn options(options: &ChannelOptions, config: &Config, place: &Place, checker: &mut Checker<'_>) {
    history(options, config, place, checker);
    checker.pattern(place.key("channel_regex"), options.channel_regex.as_deref());
    proxies(options, config, place, checker);
    match options.subscription_type {
        SubscriptionType::Stream => {}
        SubscriptionType::Map | SubscriptionType::MapClients | SubscriptionType::MapUsers => {
            map(options, place, checker);
        }
        SubscriptionType::SharedPoll => {
            if config.shared_poll.hmac_secret_key.is_none() {
                checker.refuse("shared_poll.hmac_secret_key", "must be set for namespaces of the type \"shared_poll\"");
            }
            if options.shared_poll.publish_enabled && options.shared_poll.mode != SharedPollMode::Versioned {
                let reason = "needs `shared_poll.mode` to be \"versioned\"";
                checker.refuse(place.key("shared_poll").key("publish_enabled"), reason);
            }
        }
    }
}

fn history(options: &ChannelOptions, config: &Config, place: &Place, checker: &mut Checker<'_>) {
    match (options.history_size, options.history_ttl) {
        (Some(_), None) => checker.refuse(place.key("history_size"), "needs `history_ttl` too"),
        (None, Some(_)) => checker.refuse(place.key("history_ttl"), "needs `history_size` too"),
        (Some(_), Some(_)) | (None, None) => {}
    }
    let meta_ttl = options.history_meta_ttl.unwrap_or(config.channel.history_meta_ttl);
    if let Some(ttl) = options.history_ttl
        && ttl > meta_ttl
    {
        let of = if options.history_meta_ttl.is_some() { "`history_meta_ttl`" } else { "`channel.history_meta_ttl`" };
        let reason = format!(
            "is {}, but must not be longer than {of}, which is {}",
            duration::format(ttl),
            duration::format(meta_ttl)
        );
        checker.refuse(place.key("history_ttl"), reason);
    }
    if options.force_recovery && (options.history_size.is_none() || options.history_ttl.is_none()) {
        checker.refuse(place.key("force_recovery"), "needs history: set `history_size` and `history_ttl`");
    }
    if options.auto_cache_recover && !(options.force_recovery && options.force_recovery_mode == RecoveryMode::Cache) {
        let reason = "needs `force_recovery` and `force_recovery_mode` \"cache\"";
        checker.refuse(place.key("auto_cache_recover"), reason);
    }
}

fn proxies(options: &ChannelOptions, config: &Config, place: &Place, checker: &mut Checker<'_>) {
    let proxy = &config.channel.proxy;
    for (option, enabled, name, default) in [
        (
            "subscribe_proxy",
            options.subscribe_proxy_enabled,
            &options.subscribe_proxy_name,
            ("subscribe", &proxy.subscribe),
        ),
        ("publish_proxy", options.publish_proxy_enabled, &options.publish_proxy_name, ("publish", &proxy.publish)),
        (
            "sub_refresh_proxy",
            options.sub_refresh_proxy_enabled,
            &options.sub_refresh_proxy_name,
            ("sub_refresh", &proxy.sub_refresh),
        ),
        (
            "subscribe_stream_proxy",
            options.subscribe_stream_proxy_enabled,
            &options.subscribe_stream_proxy_name,
            ("subscribe_stream", &proxy.subscribe_stream),
        ),
    ] {
        super::proxy::refers(
            config,
            (place.key(&format!("{option}_enabled")), enabled),
            (place.key(&format!("{option}_name")), name),
            (Place::from("channel.proxy").key(default.0), default.1),
            checker,
        );
    }
    let others = options.subscribe_proxy_enabled || options.publish_proxy_enabled || options.sub_refresh_proxy_enabled;
    if options.subscribe_stream_proxy_enabled && others {
        let reason = "does not go together with the subscribe, publish and sub_refresh proxies";
        checker.refuse(place.key("subscribe_stream_proxy_enabled"), reason);
    }
}

fn map(options: &ChannelOptions, place: &Place, checker: &mut Checker<'_>) {
    let map = &options.map;
    let place = place.key("map");
    match (map.mode, map.key_ttl) {
        (None, _) => checker.refuse(place.key("mode"), "must be set for namespaces of a map type"),
        (Some(MapMode::Persistent), _) if options.subscription_type != SubscriptionType::Map => {
            checker.refuse(place.key("mode"), "cannot be \"persistent\" for maps of clients or users");
        }
        (Some(MapMode::Persistent), Some(_)) => {
            checker.refuse(place.key("key_ttl"), "does not go together with the mode \"persistent\"");
        }
        (Some(MapMode::Ephemeral | MapMode::Recoverable), None) => {
            checker.refuse(place.key("key_ttl"), "must be set unless the mode is \"persistent\"");
        }
        (Some(MapMode::Persistent), None) | (Some(MapMode::Ephemeral | MapMode::Recoverable), Some(_)) => {}
    }
}

fn personal_channel(config: &Config, checker: &mut Checker<'_>) {
    let personal = &config.client.subscribe_to_user_personal_channel;
    if !personal.enabled {
        return;
    }
    let place = Place::from("client.subscribe_to_user_personal_channel");
    let options = match &personal.personal_channel_namespace {
        None => Some(&config.channel.without_namespace),
        Some(name) => config.channel.namespaces.iter().find(|known| known.name == *name).map(|known| &known.options),
    };
    match options {
        None => checker.refuse(place.key("personal_channel_namespace"), "names no namespace"),
        Some(options) if personal.single_connection && !options.presence => {
            checker.refuse(place.key("single_connection"), "needs `presence` in the namespace of the personal channel");
        }
        Some(_) => {}
    }
}
