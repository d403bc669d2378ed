//! The command connections for what else lives in Redis by channel, beside the streams of the broker.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::{RedisBroker, commands::Commands, hashing, health::Health, keys::Keys, settings::Settings};
use crate::names::ChannelName;

/// A command connection to each server, and the rule that says which of them holds a channel.
pub(crate) struct ChannelServers {
    keys: Keys,
    /// In the order of settings, which is part of the format. Never empty.
    servers: Vec<(Arc<Commands>, Health)>,
}

impl ChannelServers {
    /// Connections of its own, for a deployment that keeps this elsewhere than its streams. They end when it is
    /// dropped.
    pub(crate) fn start(settings: Settings, runtime: &Handle) -> Self {
        let settings = Arc::new(settings);
        let servers = settings.servers.iter().map(|server| {
            let health = Health::new(server.to_string());
            let commands = Commands::start(server.clone(), Arc::clone(&settings), &health, runtime);
            (Arc::new(commands), health)
        });
        Self { keys: Keys::new(&settings.prefix), servers: servers.collect() }
    }

    /// The connection to the server that holds the channel.
    pub(crate) fn commands(&self, channel: &ChannelName) -> &Arc<Commands> {
        &self.servers[hashing::consistent_index(channel.as_str(), self.servers.len())].0
    }

    /// Makes the names of keys on these servers.
    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Whether all servers can be reached; `Err` names one that cannot, and why.
    pub(crate) fn status(&self) -> Result<(), String> {
        self.servers.iter().try_for_each(|(_, health)| health.status())
    }
}

impl RedisBroker {
    /// The broker's own connections, shared.
    pub(crate) fn channel_servers(&self) -> ChannelServers {
        let servers = self.shards.iter().map(|shard| (Arc::clone(&shard.commands), shard.health.clone()));
        ChannelServers { keys: self.keys.clone(), servers: servers.collect() }
    }
}
