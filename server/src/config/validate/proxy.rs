//! Rules of proxies, and of names.

use super::Checker;
use super::channel::NAME_RULE;
use crate::config::place::Place;
use crate::config::tree::{Config, Proxy, TransformDisconnect};

pub(super) fn check(config: &Config, checker: &mut Checker<'_>) {
    for (place, event) in
        [("client.proxy.connect", &config.client.proxy.connect), ("client.proxy.refresh", &config.client.proxy.refresh)]
    {
        if event.enabled {
            usable(&event.proxy, &Place::from(place), checker);
        }
    }
    named(config, checker);
    rpc(config, checker);
    consumers(config, checker);
    transforms(config, checker);
}

/// Names of namespaces and proxies.
pub(super) fn usable_name(name: &str) -> bool {
    name.len() >= 2 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn named(config: &Config, checker: &mut Checker<'_>) {
    let list = Place::from("proxies");
    let mut names: Vec<&str> = Vec::new();
    for (index, proxy) in config.proxies.iter().enumerate() {
        let name = proxy.name.as_str();
        let place = list.item(index, (!name.is_empty()).then_some(name));
        if !usable_name(name) {
            checker.refuse(place.key("name"), NAME_RULE);
        } else if name == "default" {
            checker.refuse(place.key("name"), "must not be \"default\": that is the proxy of the section itself");
        } else if names.contains(&name) {
            checker.refuse(place.key("name"), "is the name of another proxy already");
        }
        names.push(name);
        usable(&proxy.proxy, &place, checker);
    }
}

fn rpc(config: &Config, checker: &mut Checker<'_>) {
    let default = || (Place::from("rpc.proxy"), &config.rpc.proxy);
    let place = Place::from("rpc.without_namespace");
    let options = &config.rpc.without_namespace;
    let enabled = (place.key("proxy_enabled"), options.proxy_enabled);
    refers(config, enabled, (place.key("proxy_name"), &options.proxy_name), default(), checker);
    let list = Place::from("rpc.namespaces");
    let mut names: Vec<&str> = Vec::new();
    for (index, namespace) in config.rpc.namespaces.iter().enumerate() {
        let name = namespace.name.as_str();
        let place = list.item(index, (!name.is_empty()).then_some(name));
        if !usable_name(name) {
            checker.refuse(place.key("name"), NAME_RULE);
        } else if names.contains(&name) {
            checker.refuse(place.key("name"), "is the name of another namespace already");
        }
        names.push(name);
        let options = &namespace.options;
        let enabled = (place.key("proxy_enabled"), options.proxy_enabled);
        refers(config, enabled, (place.key("proxy_name"), &options.proxy_name), default(), checker);
    }
}

fn consumers(config: &Config, checker: &mut Checker<'_>) {
    let list = Place::from("consumers");
    let mut names: Vec<&str> = Vec::new();
    for (index, consumer) in config.consumers.iter().enumerate() {
        let name = consumer.name.as_str();
        let place = list.item(index, (!name.is_empty()).then_some(name));
        if name.len() < 2 || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            checker.refuse(place.key("name"), "must be two or more letters, digits or underscores");
        } else if names.contains(&name) {
            checker.refuse(place.key("name"), "is the name of another consumer already");
        }
        names.push(name);
        if consumer.kind.is_none() {
            checker.refuse(place.key("type"), "must be set");
        }
    }
}

/// An option that names a proxy must name one that is there and, if it is used, usable.
pub(super) fn refers(
    config: &Config,
    (_, enabled): (Place, bool),
    (place, name): (Place, &str),
    (default_place, default): (Place, &Proxy),
    checker: &mut Checker<'_>,
) {
    if name == "default" || name.is_empty() {
        if enabled {
            usable(default, &default_place, checker);
        }
    } else if !config.proxies.iter().any(|proxy| proxy.name == name) {
        checker.refuse(place, format!("names the proxy \"{name}\", which is not in `proxies`"));
    }
}

fn usable(proxy: &Proxy, place: &Place, checker: &mut Checker<'_>) {
    if proxy.endpoint.is_none() {
        checker.refuse(place.key("endpoint"), "must be set");
    }
    let list = place.key("http").key("status_to_code_transforms");
    for (index, transform) in proxy.http.status_to_code_transforms.iter().enumerate() {
        let place = list.item(index, None);
        if transform.status_code == 0 {
            checker.refuse(place.key("status_code"), "must be set");
        }
        match (transform.to_error.code, transform.to_disconnect.code) {
            (0, 0) => checker.refuse(place.clone(), "needs the code of `to_error` or of `to_disconnect`"),
            (0, _) | (_, 0) => {}
            (_, _) => checker.refuse(place.clone(), "takes `to_error` or `to_disconnect`, not both"),
        }
        sendable(&transform.to_error.message, place.key("to_error").key("message"), checker);
        sendable(&transform.to_disconnect.reason, place.key("to_disconnect").key("reason"), checker);
    }
}

/// What a close frame can carry: RFC 6455 leaves 123 bytes.
fn sendable(text: &str, place: Place, checker: &mut Checker<'_>) {
    if !text.is_ascii() || text.len() > 123 {
        checker.refuse(place, "takes up to 123 ASCII characters");
    }
}

fn transforms(config: &Config, checker: &mut Checker<'_>) {
    let list = Place::from("client.connect_code_to_unidirectional_disconnect.transforms");
    for (index, transform) in config.client.connect_code_to_unidirectional_disconnect.transforms.iter().enumerate() {
        let place = list.item(index, None);
        let TransformDisconnect { code, reason } = &transform.to;
        if transform.code == 0 {
            checker.refuse(place.key("code"), "must be set");
        }
        if *code == 0 {
            checker.refuse(place.key("to").key("code"), "must be set");
        }
        sendable(reason, place.key("to").key("reason"), checker);
    }
    for (section, transforms) in [
        ("uni_sse", &config.uni_sse.connect_code_to_http_response.transforms),
        ("uni_http_stream", &config.uni_http_stream.connect_code_to_http_response.transforms),
    ] {
        let list = Place::from(section).key("connect_code_to_http_response").key("transforms");
        for (index, transform) in transforms.iter().enumerate() {
            let place = list.item(index, None);
            if transform.code == 0 {
                checker.refuse(place.key("code"), "must be set");
            }
            if transform.to.status_code == 0 {
                checker.refuse(place.key("to").key("status_code"), "must be set");
            }
        }
    }
}
