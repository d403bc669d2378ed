//! Repair: what the bus did not bring is read from history, once per channel, and delivered in order. Clients are told that they
//! missed something only when history does not reach back any more.
//!
//! ```text
//!   live ──gap, bus back, failed check──▶ repairing ──read, nothing missing any more──▶ live
//!                                          │  ▲ what comes is parked
//!                                          └──┴─ history does not reach ─▶ live, and clients told
//! ```
//!
//! Positions of quiet channels are checked on a timer: a stream's top that is ahead of what came, or of another epoch, is a
//! gap like any other, unless the next check finds that it came meanwhile.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::time::sleep;
use tracing::{debug, info};

use super::{
    Worker,
    inbox::{ConnectionRef, Message},
    local::Key,
};
use crate::{
    broker::{BrokerError, History, HistoryOptions, HistoryQuery, Limit, StreamPosition},
    channels::Encoded,
    clock::Moment,
    limits,
    names::{ChannelName, ClientId},
};

/// How often a read is tried while the broker is away, and the pause between.
const TRIES: u32 = 240;
const PAUSE: Duration = Duration::from_millis(250);

/// What was read for a repair or a check.
pub struct Read {
    pub(super) channel: ChannelName,
    /// The channel's position when the read began.
    pub(super) since: StreamPosition,
    pub(super) result: Result<History, BrokerError>,
    /// The read only compares positions.
    pub(super) check: bool,
}

impl Worker {
    /// Whether the publication leaves a gap that history may fill; then it is parked until it has.
    pub(super) fn park(&mut self, key: Key, encoded: &Arc<Encoded>) -> bool {
        let channel = self.channels.get_mut(key);
        if let Some(parked) = &mut channel.parked {
            if parked.len() < limits::RING {
                parked.push(encoded.clone());
            }
            // Beyond the bound the rest is a gap that the next repair fills.
            return true;
        }
        if !encoded.position().is_some_and(|position| channel.is_gap(position)) {
            return false;
        }
        if !self.repair(key) {
            return false;
        }
        self.channels.get_mut(key).parked.get_or_insert_default().push(encoded.clone());
        true
    }

    /// Begins to read what is missing. Answers whether there is anything to read from.
    pub(super) fn repair(&mut self, key: Key) -> bool {
        let channel = self.channels.get(key);
        let (name, Some(since)) = (channel.name.clone(), channel.position().cloned()) else { return false };
        let Some(options) = self.history_of(&name) else { return false };
        let channel = self.channels.get_mut(key);
        if channel.parked.is_none() {
            channel.parked = Some(Vec::new());
            debug!(channel = %name, offset = since.offset, "repairing a gap from history");
            self.read_history(name, since, options, false);
        }
        true
    }

    /// Takes what was read.
    pub(super) fn repaired(&mut self, read: Read) {
        let Read { channel: name, since, result, check } = read;
        let Some(key) = self.channels.key(&name) else { return };
        if check {
            return self.checked(key, &since, result);
        }
        let parked = self.channels.get_mut(key).parked.take().unwrap_or_default();
        if let Ok(History { publications, top }) = result {
            let reaches = since.epoch == top.epoch
                && match publications.first().and_then(|first| first.position.as_ref()) {
                    Some(first) => first.offset == since.offset + 1,
                    None => top.offset == since.offset,
                };
            if !reaches {
                info!(channel = %name, "publications were missed that history does not have any more; clients are told");
                self.all_insufficient(key);
                if self.is_open(&name, key) {
                    self.channels.get_mut(key).set_position(top);
                }
            } else {
                for publication in publications {
                    if self.is_open(&name, key) {
                        self.append(key, Arc::new(Encoded::publication(name.clone(), publication, None)));
                    }
                }
            }
        } else {
            self.all_insufficient(key);
        }
        for encoded in parked {
            if self.is_open(&name, key) {
                self.append(key, encoded);
            }
        }
    }

    fn checked(&mut self, key: Key, since: &StreamPosition, result: Result<History, BrokerError>) {
        // A broker that is away says nothing; it will say when it is back.
        let Ok(History { top, .. }) = result else { return };
        let channel = self.channels.get_mut(key);
        channel.checking = false;
        if channel.position() != Some(since) || top == *since {
            channel.suspicious = false;
            return;
        }
        if !channel.suspicious {
            // It may be on its way: only if nothing has come by the next check, it is missing.
            channel.suspicious = true;
            return;
        }
        channel.suspicious = false;
        self.repair(key);
    }

    /// Compares the positions of channels that have been quiet, and renews presence.
    pub(super) fn periodic(&mut self, now: Moment) {
        if now < self.periodic_at {
            return;
        }
        self.periodic_at = now + self.settings.presence_update_interval;
        let delay = self.settings.position_check_delay;
        let keys: Vec<Key> = self.channels.keys().collect();
        for key in keys {
            let channel = self.channels.get(key);
            let due = channel.suspicious || channel.moved_at + delay <= now;
            if due && !channel.checking && channel.parked.is_none() && channel.position().is_some() {
                self.check(key);
            }
            if self.shared.presence_expires {
                self.refresh_presence(key);
            }
        }
    }

    fn check(&mut self, key: Key) {
        let channel = self.channels.get(key);
        let (name, Some(since)) = (channel.name.clone(), channel.position().cloned()) else { return };
        let Some(options) = self.history_of(&name) else { return };
        self.channels.get_mut(key).checking = true;
        self.read_history(name, since, options, true);
    }

    /// The bus of this channel was away: what it did not bring is read at once.
    pub(super) fn interrupted(&mut self, channel: &ChannelName) {
        if let Some(key) = self.channels.key(channel) {
            self.repair(key);
        }
    }

    fn read_history(&self, channel: ChannelName, since: StreamPosition, options: HistoryOptions, check: bool) {
        let (broker, inbox) = (self.shared.broker.clone(), self.shared.inboxes[self.number].clone());
        let query = HistoryQuery {
            since: Some(since.offset),
            limit: if check { Limit::PositionOnly } else { Limit::All },
            reverse: false,
        };
        let mut first = broker.history(&channel, query, options);
        if let Some(result) = (&mut first).now_or_never() {
            // The memory engine: nothing to wait for, and nothing to repeat.
            return inbox.push(Message::Repaired(Box::new(Read { channel, since, result, check })));
        }
        self.shared.services.spawn(async move {
            let mut result = first.await;
            for _ in 0..TRIES {
                if result.is_ok() || check {
                    break;
                }
                sleep(PAUSE).await;
                result = broker.history(&channel, query, options).await;
            }
            inbox.push(Message::Repaired(Box::new(Read { channel, since, result, check })));
        });
    }

    /// What a channel keeps; `None` without history.
    fn history_of(&self, channel: &ChannelName) -> Option<HistoryOptions> {
        self.settings.namespaces.resolve(channel.as_str())?.history()
    }

    fn refresh_presence(&mut self, key: Key) {
        let channel = self.channels.get(key);
        let name = &channel.name;
        let entries: Vec<_> = channel
            .slots()
            .filter_map(|slot| {
                let session = &self.connections.get(slot as usize)?.session;
                Some((session.client(), session.presence_in(name)?))
            })
            .collect::<Vec<(ClientId, _)>>();
        if !entries.is_empty() {
            self.start(self.shared.presence.refresh(name, entries));
        }
    }

    /// Whether the channel still has this key: telling the last one that something was missed may close it.
    fn is_open(&self, name: &ChannelName, key: Key) -> bool {
        self.channels.key(name) == Some(key)
    }

    /// Everybody with a place in the channel is asked; sessions know whose subscription counts on positions.
    pub(super) fn all_insufficient(&mut self, key: Key) {
        let name = self.channels.get(key).name.clone();
        let slots: Vec<u32> = self.channels.get(key).slots().collect();
        for slot in slots {
            if !self.is_open(&name, key) {
                return;
            }
            self.insufficient(slot, key);
        }
    }

    /// Tells a session that its subscription may have missed something.
    pub(super) fn insufficient(&mut self, slot: u32, key: Key) {
        let Some(connection) = self.connections.get(slot as usize) else { return };
        let at = ConnectionRef { slot, generation: connection.generation };
        let channel = self.channels.get(key).name.clone();
        self.catch_up(at, &channel);
        self.drive(at, crate::session::Input::Insufficient(channel));
        self.write_replies(at);
        self.reschedule(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        broker::memory::MemoryBroker,
        channels::ChannelTable,
        clock::Clock,
        config::Config,
        presence::memory::MemoryPresence,
        session::{Opening, protocol::Protocol},
        settings::Settings,
        wire::websocket,
        worker::{Adopted, Carrier, Shared, Users, inbox::Inbox},
    };

    const CHANNEL: &str = "chat";

    fn worker() -> Worker {
        let options = r#"{
            "client": {"insecure": true},
            "channel": {"without_namespace": {"history_size": 10, "history_ttl": "60s", "force_positioning": true}}
        }"#;
        let config = Config::from_json(options).unwrap();
        let settings = Arc::new(Settings::new(&config, "test").unwrap());
        let inbox = Arc::new(Inbox::new());
        let table = Arc::new(ChannelTable::new(vec![inbox.clone()]));
        let (clock, services) = (Clock::start(), tokio::runtime::Handle::current());
        let shared = Shared {
            clock,
            inboxes: vec![inbox],
            counters: vec![Arc::default()],
            table: table.clone(),
            users: Arc::new(Users::default()),
            broker: Arc::new(MemoryBroker::start(table, clock, &services)),
            presence: Arc::new(MemoryPresence::default()),
            presence_expires: false,
            displace: Box::new(|_, _| {}),
            services,
        };
        Worker::new(0, Arc::new(shared), settings)
    }

    /// A connection that has subscribed.
    fn subscriber() -> Adopted {
        let commands =
            format!("{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"{CHANNEL}\"}}}}");
        let mut first_bytes = Vec::new();
        websocket::frame(websocket::Kind::Text, commands.as_bytes(), &mut first_bytes);
        // A frame of a client is masked; with a mask of zeros the payload stays as it is.
        first_bytes[1] |= 0x80;
        first_bytes.splice(2..2, [0; 4]);
        let (protocol, opening) = (Protocol::Json, Opening::default());
        Adopted { carrier: Carrier::Sink, first_bytes, protocol, deflate: None, opening }
    }

    #[tokio::test]
    async fn the_last_one_told_of_a_loss_takes_the_channel_along() {
        let mut worker = worker();
        worker.message(Message::Adopt(Box::new(subscriber())));
        let name = ChannelName::from(CHANNEL);
        let key = worker.channels.key(&name).expect("the subscription has begun");
        let since = worker.channels.get(key).position().expect("a channel with history has a position").clone();

        let top = StreamPosition { epoch: "another".into(), offset: since.offset };
        let result = Ok(History { publications: Vec::new(), top });
        worker.message(Message::Repaired(Box::new(Read { channel: name.clone(), since, result, check: false })));

        assert_eq!(worker.channels.key(&name), None);
        assert!(worker.shared.table.is_empty());
    }
}
