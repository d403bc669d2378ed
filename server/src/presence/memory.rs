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

/// Presence in memory. Entries leave with their connection; nothing expires, since the node that would have to refresh
/// them is this one, and so a refresh has nothing to do. Everything takes effect in the call itself; all futures are
/// ready at once.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Add { channel: usize, client: u128, user: &'static str },
        Refresh { channel: usize, client: u128, user: &'static str },
        Remove { channel: usize, client: u128 },
    }

    const CHANNELS: [&str; 2] = ["a", "b"];

    fn step() -> impl Strategy<Value = Step> {
        let place = || (0..CHANNELS.len(), 0..6_u128);
        let user = || prop::sample::select(vec!["", "alice", "bob"]);
        prop_oneof![
            4 => (place(), user()).prop_map(|((channel, client), user)| Step::Add { channel, client, user }),
            1 => (place(), user()).prop_map(|((channel, client), user)| Step::Refresh { channel, client, user }),
            3 => place().prop_map(|(channel, client)| Step::Remove { channel, client }),
        ]
    }

    fn info(client: u128, user: &str) -> ClientInfo {
        let client = ClientId(Uuid::from_u128(client)).to_string();
        ClientInfo { user: user.into(), client, ..ClientInfo::default() }
    }

    fn done<T>(call: BoxFuture<'static, Result<T, BrokerError>>) -> T {
        call.now_or_never().expect("memory does not wait").unwrap()
    }

    proptest! {
        #[test]
        fn kept_counts_are_what_counting_would_give(steps in prop::collection::vec(step(), 0..100)) {
            let store = MemoryPresence::default();
            let mut model: [BTreeMap<String, ClientInfo>; 2] = Default::default();
            for step in steps {
                match step {
                    Step::Add { channel, client, user } => {
                        // A client may even change its user.
                        let info = info(client, user);
                        model[channel].insert(info.client.clone(), info.clone());
                        done(store.add(&CHANNELS[channel].into(), ClientId(Uuid::from_u128(client)), info));
                    }
                    Step::Refresh { channel, client, user } => {
                        let entries = vec![(ClientId(Uuid::from_u128(client)), info(client, user))];
                        done(store.refresh(&CHANNELS[channel].into(), entries));
                    }
                    Step::Remove { channel, client } => {
                        model[channel].remove(&info(client, "").client);
                        done(store.remove(&CHANNELS[channel].into(), ClientId(Uuid::from_u128(client)), "whoever"));
                    }
                }
                for (channel, model) in CHANNELS.iter().zip(&model) {
                    let channel = ChannelName::from(*channel);
                    let users: std::collections::BTreeSet<_> = model.values().map(|info| &info.user).collect();
                    let counted = PresenceStats { clients: model.len() as u32, users: users.len() as u32 };
                    prop_assert_eq!(done(store.stats(&channel)), counted);
                    prop_assert_eq!(&done(store.list(&channel)), model);
                }
                prop_assert_eq!(store.len(), model.iter().filter(|channel| !channel.is_empty()).count());
            }
        }
    }
}
