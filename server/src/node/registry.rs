//! The other nodes of the cluster, by what they last told about themselves. Pure: time is an argument.
//!
//! A node announces itself every [`ANNOUNCE_EVERY`]. One that has been silent for [`SILENT_AFTER`] is dropped at the next
//! sweep, so a node that died is gone after 7 to 16 s; one that stops says so and is gone at once. The times are those of
//! Centrifugo nodes, which drop us by the same rule.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::NodeInfo;
use crate::names::NodeId;

/// Time between announcements of a node.
pub const ANNOUNCE_EVERY: Duration = Duration::from_secs(3);
/// How old the last announcement of a node may be.
pub const SILENT_AFTER: Duration = Duration::from_secs(7);
/// Time between sweeps.
pub const SWEEP_EVERY: Duration = Duration::from_secs(9);

/// More nodes than this are not remembered: whoever can write to the bus must not fill our memory.
const MOST_NODES: usize = 4096;

/// What is known of the other nodes.
#[derive(Debug, Default)]
pub struct Registry {
    nodes: BTreeMap<NodeId, Entry>,
}

#[derive(Debug)]
struct Entry {
    info: NodeInfo,
    seen: Instant,
}

/// Whether an announcement was the first of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is: the node wants to know us, too.
    First,
    /// It is not.
    Again,
    /// There are too many nodes; this one is not remembered.
    Refused,
}

impl Registry {
    /// Takes an announcement.
    pub fn announced(&mut self, mut info: NodeInfo, now: Instant) -> Seen {
        let id = NodeId(info.uid.as_str().into());
        if let Some(entry) = self.nodes.get_mut(&id) {
            // Metrics come along once a minute and stay valid until the next ones.
            info.metrics = info.metrics.or_else(|| entry.info.metrics.take());
            *entry = Entry { info, seen: now };
            return Seen::Again;
        }
        if self.nodes.len() >= MOST_NODES {
            return Seen::Refused;
        }
        self.nodes.insert(id, Entry { info, seen: now });
        Seen::First
    }

    /// A node said that it stops.
    pub fn stopped(&mut self, node: &NodeId) {
        self.nodes.remove(node);
    }

    /// Drops nodes that have been silent too long; answers them.
    pub fn sweep(&mut self, now: Instant) -> Vec<NodeId> {
        let silent = |entry: &Entry| now.duration_since(entry.seen) > SILENT_AFTER;
        let dropped = self.nodes.iter().filter(|(_, entry)| silent(entry)).map(|(id, _)| id.clone()).collect();
        self.nodes.retain(|_, entry| !silent(entry));
        dropped
    }

    /// What each node last told, in the order of their ids.
    pub fn infos(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values().map(|entry| &entry.info)
    }

    /// Ids of all other nodes.
    pub fn ids(&self) -> BTreeSet<NodeId> {
        self.nodes.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(uid: &str) -> NodeInfo {
        NodeInfo { uid: uid.into(), ..NodeInfo::default() }
    }

    #[test]
    fn only_the_first_announcement_is_the_first() {
        let mut registry = Registry::default();
        let now = Instant::now();
        assert_eq!(registry.announced(node("a"), now), Seen::First);
        assert_eq!(registry.announced(NodeInfo { uptime_s: 3, ..node("a") }, now), Seen::Again);
        assert_eq!(registry.infos().map(|info| info.uptime_s).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn a_node_that_stops_is_gone_at_once_and_new_when_it_comes_back() {
        let mut registry = Registry::default();
        let now = Instant::now();
        registry.announced(node("a"), now);
        registry.stopped(&NodeId("a".into()));
        registry.stopped(&NodeId("unknown".into()));
        assert!(registry.ids().is_empty());
        assert_eq!(registry.announced(node("a"), now), Seen::First);
    }

    #[test]
    fn a_node_is_dropped_when_it_has_been_silent_for_more_than_seven_seconds() {
        let mut registry = Registry::default();
        let start = Instant::now();
        registry.announced(node("dead"), start);
        registry.announced(node("alive"), start);
        assert!(registry.sweep(start + SILENT_AFTER).is_empty());
        registry.announced(node("alive"), start + SWEEP_EVERY);
        assert_eq!(registry.sweep(start + SWEEP_EVERY), [NodeId("dead".into())]);
        assert_eq!(registry.ids(), BTreeSet::from([NodeId("alive".into())]));
    }

    #[test]
    fn metrics_stay_until_newer_ones_come() {
        let mut registry = Registry::default();
        let now = Instant::now();
        let metrics = Some((60.0, BTreeMap::from([("a".to_owned(), 1.0)])));
        registry.announced(NodeInfo { metrics: metrics.clone(), ..node("a") }, now);
        registry.announced(node("a"), now);
        assert_eq!(registry.infos().next().unwrap().metrics, metrics);
    }

    #[test]
    fn there_is_an_end_to_new_nodes() {
        let mut registry = Registry::default();
        let now = Instant::now();
        for count in 0..MOST_NODES {
            assert_eq!(registry.announced(node(&count.to_string()), now), Seen::First);
        }
        assert_eq!(registry.announced(node("more"), now), Seen::Refused);
        assert_eq!(registry.announced(node("0"), now), Seen::Again);
    }
}
