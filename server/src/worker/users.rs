//! Which connections belong to whom: on this worker by slot, on the node as a count.

use std::sync::{Arc, atomic::Ordering};

use dashmap::{DashMap, mapref::entry::Entry};
use tracing::debug;

use super::{Worker, inbox::ConnectionRef};
use crate::{
    error::{Disconnect, Unsubscribed},
    names::{ChannelName, UserId},
    node::Target,
    session::{Input, ServerRefresh, ServerSubscription},
};

/// Number of connections of each user of this node.
///
/// A private wrapper around a sharded map: no guard leaves it.
#[derive(Default)]
pub struct Users {
    connections: DashMap<UserId, u32>,
}

impl Users {
    /// Counts one more connection of the user, unless that would pass `limit`.
    pub fn enter(&self, user: &UserId, limit: Option<u32>) -> bool {
        let mut count = self.connections.entry(user.clone()).or_insert(0);
        if limit.is_some_and(|limit| *count >= limit) {
            return false;
        }
        *count += 1;
        true
    }

    /// Counts one connection less.
    pub fn leave(&self, user: &UserId) {
        if let Entry::Occupied(mut entry) = self.connections.entry(user.clone()) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }

    /// Number of distinct users; all anonymous ones count as one.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether no user is connected.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }
}

impl Worker {
    /// The connection's `connect` was accepted.
    pub(super) fn entered(&mut self, at: ConnectionRef, user: &UserId) {
        let counters = &self.shared.counters[self.number];
        counters.clients.fetch_add(1, Ordering::Relaxed);
        counters.accepted.fetch_add(1, Ordering::Relaxed);
        if !user.is_anonymous() {
            self.users.entry(user.clone()).or_default().push(at.slot);
        }
    }

    /// The connection of a user ends.
    pub(super) fn left(&mut self, at: ConnectionRef, user: &UserId) {
        self.shared.counters[self.number].clients.fetch_sub(1, Ordering::Relaxed);
        self.shared.users.leave(user);
        if let Some(slots) = self.users.get_mut(user) {
            slots.retain(|slot| *slot != at.slot);
            if slots.is_empty() {
                self.users.remove(user);
                if self.users.is_empty() {
                    self.users.shrink_to_fit();
                }
            }
        }
    }

    fn connections_of(&self, target: &Target) -> Vec<ConnectionRef> {
        let slots: Vec<u32> = if target.user.is_anonymous() {
            let anonymous = self.connections.iter().filter(|(_, c)| c.session.user() == Some(&target.user));
            anonymous.map(|(slot, _)| u32::try_from(slot).expect("fewer than 2^32 descriptors")).collect()
        } else {
            self.users.get(&target.user).map(|slots| slots.to_vec()).unwrap_or_default()
        };
        let wanted = slots.into_iter().filter_map(|slot| {
            let connection = self.connections.get(slot as usize)?;
            let client = connection.session.client().to_string();
            let named = target.client.as_ref().is_none_or(|wanted| *wanted == client);
            // Bidirectional WebSocket connections have no session id to be addressed by.
            let session = target.session.is_none();
            (named && session).then_some(ConnectionRef { slot, generation: connection.generation })
        });
        wanted.collect()
    }

    pub(super) fn disconnect_users(&mut self, target: &Target, cause: &Disconnect, keep: &[String]) {
        let connections = self.connections_of(target);
        debug!(user = %target.user, connections = connections.len(), code = cause.code, "disconnect asked for");
        for at in connections {
            let Some(connection) = self.connection(at) else { continue };
            if !keep.contains(&connection.session.client().to_string()) {
                self.end(at, cause.clone());
            }
        }
    }

    pub(super) fn unsubscribe_users(&mut self, target: &Target, channel: Option<&ChannelName>, cause: &Unsubscribed) {
        self.drive_users(target, || Input::Unsubscribe(channel.cloned(), cause.clone()));
    }

    pub(super) fn subscribe_users(&mut self, target: &Target, subscription: &Arc<ServerSubscription>) {
        self.drive_users(target, || Input::Subscribe(subscription.clone()));
    }

    pub(super) fn refresh_users(&mut self, target: &Target, refresh: &Arc<ServerRefresh>) {
        self.drive_users(target, || Input::Refresh(refresh.clone()));
    }

    fn drive_users(&mut self, target: &Target, input: impl Fn() -> Input) {
        for at in self.connections_of(target) {
            self.drive(at, input());
            self.write_replies(at);
            self.reschedule(at);
        }
    }
}
