//! The channel table: every channel with local subscribers, and which workers hold them.
//!
//! The table is a sharded map in a private wrapper. Its methods take closures' worth of work at most: no guard leaves this
//! room, none is held across an `.await`, and no method calls back into the table. What happens under a channel's
//! lock is what must be ordered per channel: encoding a publication once per wire variant, and pushing one reference
//! to the inbox of each worker in the channel's mask. So every worker sees a channel's publications in the same order.

mod encoded;
mod mask;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use dashmap::{DashMap, mapref::entry::Entry};

pub(crate) use self::encoded::patch;
pub use self::encoded::{Encoded, Shape, Tools, Variant};
use self::mask::WorkerMask;
use crate::{
    broker::{BrokerError, BrokerEvents, ClientInfo, Publication},
    names::ChannelName,
    session::protocol::Protocol,
    worker::inbox::{Inbox, Message},
};

/// One channel with local subscribers.
struct Channel {
    /// Workers with at least one subscription, joining ones included.
    workers: WorkerMask,
    /// Subscriptions by protocol: which variants are worth encoding at once.
    json: u32,
    protobuf: u32,
}

impl Channel {
    fn count(&mut self, protocol: Protocol) -> &mut u32 {
        match protocol {
            Protocol::Json => &mut self.json,
            Protocol::Protobuf => &mut self.protobuf,
        }
    }
}

/// What became of a channel when a subscription left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Others on this node still hold it.
    Held,
    /// It was the last: the broker may stop sending the channel.
    Empty,
}

/// Node-wide map of channels with local subscribers.
pub struct ChannelTable {
    channels: DashMap<ChannelName, Channel>,
    inboxes: Vec<Arc<Inbox>>,
}

impl ChannelTable {
    /// An empty table over the workers' inboxes; a worker's number is its index.
    pub fn new(inboxes: Vec<Arc<Inbox>>) -> Self {
        Self { channels: DashMap::new(), inboxes }
    }

    /// Adds a subscription of a connection of `worker`. From here on the worker's inbox receives every publication of the
    /// channel.
    pub fn join(&self, channel: &ChannelName, worker: usize, protocol: Protocol) {
        let mut entry = self.channels.entry(channel.clone()).or_insert_with(|| Channel {
            workers: WorkerMask::default(),
            json: 0,
            protobuf: 0,
        });
        entry.workers.insert(worker);
        *entry.count(protocol) += 1;
    }

    /// Removes a subscription. `worker_done` says that the worker has no other subscription to this channel.
    pub fn leave(&self, channel: &ChannelName, worker: usize, protocol: Protocol, worker_done: bool) -> Left {
        let Entry::Occupied(mut occupied) = self.channels.entry(channel.clone()) else {
            debug_assert!(false, "a subscription leaves a channel that the table does not hold");
            return Left::Empty;
        };
        let entry = occupied.get_mut();
        if worker_done {
            entry.workers.remove(worker);
        }
        let count = entry.count(protocol);
        *count = count.saturating_sub(1);
        if entry.json == 0 && entry.protobuf == 0 {
            occupied.remove();
            Left::Empty
        } else {
            Left::Held
        }
    }

    /// Gives what happened in a channel to every worker with subscribers of it, or to none.
    ///
    /// Nothing happens without local subscribers. At the bound of one of the inboxes the answer is
    /// [`BrokerError::Overloaded`] and no worker gets it.
    fn deliver(&self, channel: &ChannelName, encoded: impl FnOnce() -> Encoded) -> Result<(), BrokerError> {
        // Exclusive, though nothing in the entry changes: two publications must not overtake each other on their way to
        // different workers.
        let Some(entry) = self.channels.get_mut(channel) else { return Ok(()) };
        if entry.workers.iter().any(|worker| self.inboxes[worker].is_full()) {
            return Err(BrokerError::Overloaded);
        }
        let encoded = encoded();
        if entry.json > 0 {
            encoded.plain(Protocol::Json);
        }
        if entry.protobuf > 0 {
            encoded.plain(Protocol::Protobuf);
        }
        let encoded = Arc::new(encoded);
        for worker in entry.workers.iter() {
            self.inboxes[worker].push(Message::Deliver(encoded.clone()));
        }
        Ok(())
    }

    /// Whether the channel has local subscribers.
    pub fn contains(&self, channel: &ChannelName) -> bool {
        self.channels.contains_key(channel)
    }

    /// Number of channels with local subscribers.
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    /// Whether no channel has local subscribers.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// Number of subscribers of each channel whose name `matches`. Takes one shard's lock after the other.
    pub fn subscribers(&self, matches: &dyn Fn(&str) -> bool) -> BTreeMap<String, u32> {
        self.channels
            .iter()
            .filter(|entry| matches(entry.key().as_str()))
            .map(|entry| (entry.key().to_string(), entry.json + entry.protobuf))
            .collect()
    }
}

impl BrokerEvents for ChannelTable {
    fn publication(
        &self,
        channel: &ChannelName,
        publication: Publication,
        previous: Option<Bytes>,
    ) -> Result<(), BrokerError> {
        self.deliver(channel, || Encoded::publication(channel.clone(), publication, previous))
    }

    fn joined(&self, channel: &ChannelName, info: ClientInfo) -> Result<(), BrokerError> {
        self.deliver(channel, || Encoded::join(channel.clone(), info))
    }

    fn left(&self, channel: &ChannelName, info: ClientInfo) -> Result<(), BrokerError> {
        self.deliver(channel, || Encoded::leave(channel.clone(), info))
    }

    fn interrupted(&self, channels: &[ChannelName]) {
        // Each worker looks for those that it has; a list is shared, not copied.
        let channels: Arc<[ChannelName]> = channels.into();
        for inbox in &self.inboxes {
            inbox.push(Message::Interrupted(channels.clone()));
        }
    }

    fn wanted(&self, channel: &ChannelName) -> bool {
        self.contains(channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(workers: usize) -> (ChannelTable, Vec<Arc<Inbox>>) {
        let inboxes: Vec<_> = (0..workers).map(|_| Arc::new(Inbox::new())).collect();
        (ChannelTable::new(inboxes.clone()), inboxes)
    }

    fn drain(inbox: &Inbox) -> usize {
        let mut messages = Vec::new();
        inbox.take(&mut messages);
        messages.len()
    }

    #[test]
    fn a_publication_goes_once_to_each_worker_with_subscribers() {
        let (table, inboxes) = table(3);
        let news = ChannelName::from("news");
        table.join(&news, 0, Protocol::Json);
        table.join(&news, 0, Protocol::Protobuf);
        table.join(&news, 2, Protocol::Json);
        table.publication(&news, Publication::default(), None).expect("there is room");
        table.publication(&ChannelName::from("other"), Publication::default(), None).expect("nobody is no error");
        assert_eq!(inboxes.iter().map(|inbox| drain(inbox)).collect::<Vec<_>>(), [1, 0, 1]);
    }

    #[test]
    fn a_channel_ends_with_its_last_subscription() {
        let (table, inboxes) = table(2);
        let news = ChannelName::from("news");
        table.join(&news, 0, Protocol::Json);
        table.join(&news, 1, Protocol::Json);
        assert_eq!(table.leave(&news, 0, Protocol::Json, true), Left::Held);
        table.publication(&news, Publication::default(), None).expect("there is room");
        assert_eq!(inboxes.iter().map(|inbox| drain(inbox)).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(table.leave(&news, 1, Protocol::Json, true), Left::Empty);
        assert!(table.is_empty());
    }

    #[test]
    fn at_the_bound_of_one_worker_no_worker_gets_the_publication() {
        let (table, inboxes) = table(2);
        let news = ChannelName::from("news");
        table.join(&news, 0, Protocol::Json);
        table.join(&news, 1, Protocol::Json);
        while !inboxes[0].is_full() {
            inboxes[0].push(Message::Drain);
        }
        assert_eq!(table.publication(&news, Publication::default(), None), Err(BrokerError::Overloaded));
        assert_eq!(drain(&inboxes[1]), 0);
    }
}
