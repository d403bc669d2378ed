//! Who is in a channel now.

pub mod memory;
pub mod redis;

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;

use crate::{
    broker::{BrokerError, ClientInfo},
    names::{ChannelName, ClientId},
};

/// How many are in a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PresenceStats {
    /// Connections.
    pub clients: u32,
    /// Distinct users; all anonymous ones count as one.
    pub users: u32,
}

/// Keeps who is in which channel, for all nodes.
///
/// Promises:
/// - Entries belong to the node that added them and expire when it does not refresh them ([`Presence::refresh`]), so
///   that a dead node's clients are gone after the time to live.
/// - Adding is idempotent; removing what is not there is no error.
/// - No order between different clients of a channel. Calls for one client take effect in the order in which their
///   futures are first polled; where the store's server was away meanwhile they may change places, and what then stays
///   behind is over after the time to live.
/// - No method blocks; futures end within the store's own time limit; dropping one does not undo its effect.
pub trait Presence: Send + Sync {
    /// Adds a client, or replaces its info.
    fn add(
        &self,
        channel: &ChannelName,
        client: ClientId,
        info: ClientInfo,
    ) -> BoxFuture<'static, Result<(), BrokerError>>;

    /// Renews all of this node's entries of one channel, each client once. An entry that was over or that the store has
    /// lost is there again; so is one that is removed meanwhile, until its time to live is over. A store in memory,
    /// which loses nothing, has nothing to do.
    fn refresh(
        &self,
        channel: &ChannelName,
        entries: Vec<(ClientId, ClientInfo)>,
    ) -> BoxFuture<'static, Result<(), BrokerError>>;

    /// Removes a client.
    fn remove(
        &self,
        channel: &ChannelName,
        client: ClientId,
        user: &str,
    ) -> BoxFuture<'static, Result<(), BrokerError>>;

    /// Everyone in a channel, by client id.
    fn list(&self, channel: &ChannelName) -> BoxFuture<'static, Result<BTreeMap<String, ClientInfo>, BrokerError>>;

    /// How many are in a channel; counted without listing them where the store can.
    fn stats(&self, channel: &ChannelName) -> BoxFuture<'static, Result<PresenceStats, BrokerError>>;
}
