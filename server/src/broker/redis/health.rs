//! Whether a Redis server can be reached: one view of all our connections to it, for `status` and for the log.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;

/// State of the connections to one server. A clone is a reference count.
#[derive(Clone)]
pub(super) struct Health {
    server: Arc<str>,
    links: Arc<Mutex<Links>>,
}

struct Links {
    /// Name of each connection, and why it is away; `None` when it is up.
    away: Vec<(&'static str, Option<String>)>,
    /// What the log said last.
    said: Said,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    Nothing,
    Away,
    Reached,
}

/// How one connection reports. Dropping it takes the connection out of the view.
pub(super) struct LinkHealth {
    health: Health,
    name: &'static str,
}

impl Health {
    pub(super) fn new(server: String) -> Self {
        Self { server: server.into(), links: Arc::new(Mutex::new(Links { away: Vec::new(), said: Said::Nothing })) }
    }

    /// Adds a connection, away until it says otherwise. Names must differ.
    pub(super) fn link(&self, name: &'static str) -> LinkHealth {
        self.links.lock().away.push((name, Some("not connected yet".to_owned())));
        LinkHealth { health: self.clone(), name }
    }

    /// `Err` names the server, a connection that is away, and why.
    pub(super) fn status(&self) -> Result<(), String> {
        let links = self.links.lock();
        match links.away.iter().find_map(|(name, away)| away.as_ref().map(|why| (name, why))) {
            None => Ok(()),
            Some((name, why)) => Err(format!("redis {}: {name}: {why}", self.server)),
        }
    }
}

impl LinkHealth {
    pub(super) fn up(&self) {
        self.set(None);
    }

    pub(super) fn away(&self, why: &impl fmt::Display) {
        self.set(Some(why.to_string()));
    }

    /// The log has one line when the first connection goes and one when the last is back, not one per attempt.
    fn set(&self, why: Option<String>) {
        let server = &*self.health.server;
        let mut links = self.health.links.lock();
        if let Some(entry) = links.away.iter_mut().find(|(name, _)| *name == self.name) {
            entry.1.clone_from(&why);
        }
        match why {
            Some(why) if links.said != Said::Away => {
                links.said = Said::Away;
                tracing::warn!(server, connection = self.name, why, "Redis is away; trying again until it is back");
            }
            Some(why) => tracing::debug!(server, connection = self.name, why, "Redis is still away"),
            None if links.away.iter().all(|(_, away)| away.is_none()) && links.said != Said::Reached => {
                links.said = Said::Reached;
                tracing::info!(server, "connected to Redis");
            }
            None => {}
        }
    }
}

impl Drop for LinkHealth {
    fn drop(&mut self) {
        self.health.links.lock().away.retain(|(name, _)| *name != self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_connections_must_be_up() {
        let health = Health::new("h:1".into());
        let (commands, bus) = (health.link("commands"), health.link("bus"));
        assert_eq!(health.status(), Err("redis h:1: commands: not connected yet".into()));
        commands.up();
        assert_eq!(health.status(), Err("redis h:1: bus: not connected yet".into()));
        bus.up();
        assert_eq!(health.status(), Ok(()));
        bus.away(&"refused");
        assert_eq!(health.status(), Err("redis h:1: bus: refused".into()));
        drop(bus);
        assert_eq!(health.status(), Ok(()));
    }
}
