//! Presence of a node that is alone.

use std::collections::BTreeMap;

use dashmap::{DashMap, mapref::entry::Entry};
use futures_util::future::{self, BoxFuture, FutureExt};
use hashbrown::HashMap;

use super::{Presence, PresenceStats};
use crate::{
    broker::{BrokerError, ClientInfo},
    names::{ChannelName, ClientId},
};

/// Presence in memory. Entries leave with their connection; nothing expires, since the node that would have to refresh them
/// is this one. All futures are ready at once.
///
/// A private wrapper around a sharded map: no guard leaves it.
#[derive(Default)]
pub struct MemoryPresence {
    channels: DashMap<ChannelName, Channel>,
}

#[derive(Default)]
struct Channel {
    clients: HashMap<ClientId, ClientInfo>,
    /// Connections of each user, so that users need not be counted by a walk.
    users: HashMap<String, u32>,
}

impl Channel {
    fn put(&mut self, client: ClientId, info: ClientInfo) {
        *self.users.entry_ref(info.user.as_str()).or_insert(0) += 1;
        if let Some(before) = self.clients.insert(client, info) {
            self.forget_user(&before.user);
        }
    }

    fn take(&mut self, client: ClientId) {
        if let Some(info) = self.clients.remove(&client) {
            self.forget_user(&info.user);
        }
    }

    fn forget_user(&mut self, user: &str) {
        if let Some(count) = self.users.get_mut(user) {
            *count -= 1;
            if *count == 0 {
                self.users.remove(user);
            }
        }
    }
}

impl MemoryPresence {
    /// Channels with somebody in them, for a gauge.
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    /// Whether nobody is anywhere.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }
}

impl Presence for MemoryPresence {
    fn add(
        &self,
        channel: &ChannelName,
        client: ClientId,
        info: ClientInfo,
    ) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.channels.entry(channel.clone()).or_default().put(client, info);
        future::ready(Ok(())).boxed()
    }

    fn refresh(
        &self,
        _channel: &ChannelName,
        _entries: Vec<(ClientId, ClientInfo)>,
    ) -> BoxFuture<'static, Result<(), BrokerError>> {
        future::ready(Ok(())).boxed()
    }

    fn remove(
        &self,
        channel: &ChannelName,
        client: ClientId,
        _user: &str,
    ) -> BoxFuture<'static, Result<(), BrokerError>> {
        if let Entry::Occupied(mut entry) = self.channels.entry(channel.clone()) {
            entry.get_mut().take(client);
            if entry.get().clients.is_empty() {
                entry.remove();
            }
        }
        future::ready(Ok(())).boxed()
    }

    fn list(&self, channel: &ChannelName) -> BoxFuture<'static, Result<BTreeMap<String, ClientInfo>, BrokerError>> {
        let list = self
            .channels
            .get(channel)
            .map(|channel| channel.clients.iter().map(|(client, info)| (client.to_string(), info.clone())).collect());
        future::ready(Ok(list.unwrap_or_default())).boxed()
    }

    fn stats(&self, channel: &ChannelName) -> BoxFuture<'static, Result<PresenceStats, BrokerError>> {
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let stats = self
            .channels
            .get(channel)
            .map(|channel| PresenceStats { clients: count(channel.clients.len()), users: count(channel.users.len()) });
        future::ready(Ok(stats.unwrap_or_default())).boxed()
    }
}
