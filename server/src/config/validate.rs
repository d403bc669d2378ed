//! Rules that go beyond the type of a single option: values that do not go together, names that mean nothing, patterns
//! and keys that are none. The rules are those of Centrifugo; where ours are stricter, the comment says why.

mod channel;
mod listen;
mod proxy;
mod token;

use regex::Regex;

use crate::auth::{Authenticator, ConfigProblem};
use crate::namespace::Namespaces;

use super::given::Given;
use super::place::Place;
use super::problem::Problem;
use super::tree::{Client, Config, EngineKind, RedisOptions};

/// Everything that is wrong with a configuration whose values have the right types.
pub(super) fn validate(config: &Config, given: &Given) -> Vec<Problem> {
    let mut checker = Checker { given, problems: Vec::new() };
    listen::check(config, &mut checker);
    client(&config.client, &mut checker);
    token::check(&config.client, &mut checker);
    channel::check(config, &mut checker);
    proxy::check(config, &mut checker);
    if config.engine.kind == EngineKind::Redis {
        redis(&config.engine.redis.connection, &Place::from("engine.redis"), &mut checker);
    }
    if checker.problems.is_empty() {
        rooms(config, &mut checker);
    }
    checker.problems
}

/// The rooms that use the options have the last word. They only say the first thing that they cannot use.
fn rooms(config: &Config, checker: &mut Checker<'_>) {
    let auth = Authenticator::new(&config.client).map(drop);
    let namespaces = Namespaces::new(&config.channel, &config.client).map(drop);
    for ConfigProblem { option, problem } in [auth.err(), namespaces.err()].into_iter().flatten() {
        checker.refuse(option.as_str(), problem);
    }
}

/// Collects problems and knows where values came from.
struct Checker<'a> {
    given: &'a Given,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    /// Something is wrong with the option at a place. The sentence goes on after the name of the option.
    fn refuse(&mut self, place: impl Into<Place>, reason: impl AsRef<str>) {
        let place = place.into();
        let origin = self.given.nearest(&place).map(|given| given.origin.at(&place)).unwrap_or_default();
        let text = format!("`{place}` {}", reason.as_ref());
        self.problems.push(Problem { place: Some(place), origin, text });
    }

    /// A regular expression must compile.
    fn pattern(&mut self, place: impl Into<Place>, pattern: Option<&str>) {
        if let Some(Err(error)) = pattern.map(Regex::new) {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or("syntax error").trim_start_matches("error: ");
            self.refuse(place, format!("is no regular expression: {reason}"));
        }
    }
}

fn client(client: &Client, checker: &mut Checker<'_>) {
    for pattern in &client.allowed_origins {
        if let Err(error) = globset::Glob::new(&pattern.to_lowercase()) {
            checker.refuse(
                "client.allowed_origins",
                format!("has a pattern that is none, \"{pattern}\": {}", error.kind()),
            );
        }
    }
    if let (Some(interval), Some(timeout)) = (client.ping_interval, client.pong_timeout)
        && timeout >= interval
    {
        let reason = format!(
            "is {}, but must be shorter than `client.ping_interval`, which is {}",
            super::duration::format(timeout),
            super::duration::format(interval)
        );
        checker.refuse("client.pong_timeout", reason);
    }
    // The wire tells the interval in whole seconds; less than one would tell clients that there are no pings.
    if client.ping_interval.is_some_and(|interval| interval.as_secs() == 0) {
        checker.refuse("client.ping_interval", "must be at least 1s, or negative to turn pings off");
    }
    if let Some(header) = &client.user_id_http_header
        && http::HeaderName::try_from(header).is_err()
    {
        checker.refuse("client.user_id_http_header", "is no name of a header");
    }
}

/// Addresses of Redis that can be reached in the way that is supported.
fn redis(options: &RedisOptions, place: &Place, checker: &mut Checker<'_>) {
    let at = place.key("address");
    match options.address.as_slice() {
        // Refused by name elsewhere.
        _ if !options.cluster_address.is_empty() || !options.sentinel_address.is_empty() => {}
        [] => checker.refuse(at, "is empty: the Redis engine needs an address"),
        [address] => {
            if let Err(reason) = redis_address(address) {
                checker.refuse(at, reason);
            }
        }
        [_, _, ..] => {
            checker.refuse(at, "takes one address for now: sharding over several is not supported yet");
        }
    }
}

fn redis_address(address: &str) -> Result<(), String> {
    let authority = match address.split_once("://") {
        None => address,
        Some(("redis" | "rediss", rest)) => {
            let rest = rest.split(['/', '?']).next().unwrap_or(rest);
            rest.rsplit_once('@').map_or(rest, |(_, host)| host)
        }
        Some(("redis+sentinel" | "redis+cluster" | "rediss+sentinel" | "rediss+cluster", _)) => {
            return Err("names Sentinel or Redis Cluster, which are not supported yet".into());
        }
        Some((scheme, _)) => {
            return Err(format!("has the scheme {scheme}, but takes host:port, redis:// or rediss://"));
        }
    };
    let with_port = address.split_once("://").is_none();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        Some(_) | None => (authority, None),
    };
    match port {
        _ if host.is_empty() => Err("names no host".into()),
        Some(port) if port.parse::<u16>().is_err() => Err("has a port that is none".into()),
        None if with_port => Err("names no port: write host:port".into()),
        Some(_) | None => Ok(()),
    }
}
