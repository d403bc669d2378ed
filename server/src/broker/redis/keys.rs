//! Names of keys and channels in Redis, as Centrifugo nodes name them.
//!
//! All begin with the prefix of the deployment (`redis.prefix`). These are the names on one server, on several with
//! client-side sharding, and behind Sentinel; Redis Cluster needs braces in some of them.

use std::sync::Arc;

use crate::names::{ChannelName, NodeId};

/// Makes names from a prefix. A clone is a reference count.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: Arc<str>,
}

impl Keys {
    /// Names that begin with `prefix`.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    /// PUB/SUB channel with the publications, joins and leaves of a channel.
    pub fn messages(&self, channel: &ChannelName) -> String {
        format!("{}.client.{channel}", self.prefix)
    }

    /// The channel whose messages travel on this PUB/SUB channel; `None` for any other PUB/SUB channel.
    pub fn channel<'a>(&self, messages: &'a str) -> Option<&'a str> {
        messages.strip_prefix(&*self.prefix)?.strip_prefix(".client.")
    }

    /// PUB/SUB channel that nodes of all kinds listen to on their message connection. Later versions of Centrifugo publish
    /// their probes on it.
    pub fn shard(&self) -> String {
        format!("{}.shard.0", self.prefix)
    }

    /// PUB/SUB channel of our own probes. An extension of ours: Centrifugo 6.9.1 logs an error for each probe on
    /// [`shard`](Self::shard).
    pub fn probe(&self) -> String {
        format!("{}.x.probe", self.prefix)
    }

    /// Stream with the history of a channel.
    pub fn stream(&self, channel: &ChannelName) -> String {
        format!("{}.stream.{channel}", self.prefix)
    }

    /// Hash with the epoch (`e`), top offset (`s`) and last version (`v`, `ve`) of a channel's stream.
    pub fn meta(&self, channel: &ChannelName) -> String {
        format!("{}.stream.meta.{channel}", self.prefix)
    }

    /// Hash that remembers the result of a publication with an idempotency key. Can collide (channel `a` with key `b.c`,
    /// channel `a.b` with key `c`), in the same way on every node.
    pub fn result(&self, channel: &ChannelName, idempotency_key: &str) -> String {
        format!("{}.result.{channel}.{idempotency_key}", self.prefix)
    }

    /// The keys of a channel's presence.
    pub fn presence(&self, channel: &ChannelName) -> PresenceKeys {
        let key = |kind| format!("{}.presence.{kind}.{channel}", self.prefix);
        PresenceKeys {
            expire: key("expire"),
            data: key("data"),
            user_expire: key("user.expire"),
            user_clients: key("user.clients"),
        }
    }

    /// PUB/SUB channel of control messages to every node.
    pub fn control(&self) -> String {
        format!("{}.control", self.prefix)
    }

    /// PUB/SUB channel of control messages to one node.
    pub fn node(&self, node: &NodeId) -> String {
        format!("{}.node.{node}", self.prefix)
    }
}

/// The keys of a channel's presence. Scripts take them in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceKeys {
    /// Sorted set: client by Unix time of expiry.
    pub expire: String,
    /// Hash: client to its info.
    pub data: String,
    /// Sorted set: user by Unix time of expiry. Only with the user mapping.
    pub user_expire: String,
    /// Hash: user to the number of its clients. Only with the user mapping.
    pub user_clients: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::redis::vectors;

    #[test]
    fn names_are_those_that_were_recorded() {
        let vectors = vectors::file("keys.json");
        let keys = Keys::new("centrifugo");
        let news = ChannelName::from("news");
        let ours = [
            ("message channel", keys.messages(&news)),
            ("history stream", keys.stream(&ChannelName::from("hist:c"))),
            ("history meta", keys.meta(&ChannelName::from("hist:c"))),
            ("idempotent result with history", keys.result(&ChannelName::from("hist:c"), "key.1")),
            ("idempotent result without history", keys.result(&news, "k1")),
            ("control, to all nodes", keys.control()),
            ("control, to one node (its uid follows)", keys.node(&NodeId("".into()))),
            ("PUB/SUB service channel", keys.shard()),
            ("presence: client id to info", keys.presence(&"pres:c".into()).data),
            ("presence: client id by expiry", keys.presence(&"pres:c".into()).expire),
            ("presence: user id by expiry", keys.presence(&"pres:c".into()).user_expire),
            ("presence: user id to number of clients", keys.presence(&"pres:c".into()).user_clients),
        ];
        for (purpose, name) in ours {
            let recorded = vectors["names"].as_array().unwrap().iter().find(|n| n["purpose"] == purpose).unwrap();
            assert_eq!(recorded["one_server"], name, "{purpose}");
        }
    }

    #[test]
    fn another_prefix_may_hold_a_colon() {
        let recorded = vectors::file("keys.json")["with_prefix_my:app"].clone();
        let recorded: Vec<_> = recorded.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        let keys = Keys::new("my:app");
        assert!(recorded.contains(&&*keys.messages(&"hist:c".into())));
        assert!(recorded.contains(&&*keys.result(&"hist:c".into(), "k")));
        assert!(recorded.contains(&&*keys.presence(&"pres:c".into()).data));
        assert!(recorded.contains(&&*keys.presence(&"pres:c".into()).expire));
    }

    #[test]
    fn a_channel_is_found_again_in_its_name_and_in_no_other() {
        let keys = Keys::new("p");
        for channel in ["news", "a.b", ".", "канал", "client.x", "{x}"] {
            assert_eq!(keys.channel(&keys.messages(&channel.into())), Some(channel));
        }
        for other in ["p.control", "p.shard.0", "q.client.news", "p.clientx", "", "p"] {
            assert_eq!(keys.channel(other), None, "{other}");
        }
    }
}
