//! What the broker keeps of all channels: a sharded map that only runs closures, and a list of what comes due.
//!
//! Time is looked at in two places: whoever touches a record first does to it what time has brought, so that nothing
//! expired is ever seen; and [`Records::sweep`] frees the memory of what nobody touches. For that each record has at most one
//! element in the list per [`Due`]. When one comes up too early, since the record was used meanwhile, it is put back.

use std::{cmp::Reverse, collections::BinaryHeap};

use dashmap::DashMap;
use parking_lot::Mutex;

use super::{results::Results, stream::Stream};
use crate::{clock::Moment, names::ChannelName};

/// What is kept of one channel.
#[derive(Default)]
pub(super) struct Record {
    pub(super) stream: Option<Stream>,
    pub(super) results: Results,
    /// By [`Due`]: whether the list has an element of this record.
    listed: [bool; Due::ALL.len()],
}

/// Why a record has to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Publications,
    Stream,
    Results,
}

impl Due {
    const ALL: [Self; 3] = [Self::Publications, Self::Stream, Self::Results];
}

impl Record {
    fn expire(&mut self, now: Moment) {
        if self.stream.as_mut().is_some_and(|stream| stream.expire(now)) {
            self.stream = None;
        }
        self.results.expire(now);
    }

    fn due(&self, what: Due) -> Option<Moment> {
        match what {
            Due::Publications => self.stream.as_ref()?.drop_at(),
            Due::Stream => self.stream.as_ref()?.forget_at(),
            Due::Results => self.results.next_expiry(),
        }
    }

    /// Whether nothing is kept and the list does not know the record: an element never outlives its record.
    fn is_done(&self) -> bool {
        self.stream.is_none() && self.results.next_expiry().is_none() && self.listed == [false; Due::ALL.len()]
    }
}

/// The records of all channels that have a stream or results.
///
/// The lock of a record's shard is held while a closure runs. Lock order: this one, then that of the channel table (which
/// delivery takes) or that of the list; never the reverse.
#[derive(Default)]
pub(super) struct Records {
    records: DashMap<ChannelName, Record>,
    list: Mutex<BinaryHeap<Reverse<(Moment, Due, ChannelName)>>>,
}

impl Records {
    /// Runs `work` on a channel's record, new if there was none. Nobody else sees the record meanwhile.
    pub(super) fn with<T>(&self, channel: &ChannelName, now: Moment, work: impl FnOnce(&mut Record) -> T) -> T {
        let mut record = match self.records.get_mut(channel) {
            Some(record) => record,
            None => self.records.entry(channel.clone()).or_default(),
        };
        record.expire(now);
        let answer = work(&mut record);
        self.list_due(channel, &mut record);
        let done = record.is_done();
        drop(record);
        if done {
            self.records.remove_if(channel, |_, record| record.is_done());
        }
        answer
    }

    /// Frees what has expired by `now`.
    pub(super) fn sweep(&self, now: Moment) {
        while let Some((what, channel)) = self.take_due(now) {
            // The shard stays locked between looking and removing: a record that is used again is not lost.
            self.records.remove_if_mut(&channel, |channel, record| {
                record.listed[what as usize] = false;
                record.expire(now);
                self.list_due(channel, record);
                record.is_done()
            });
        }
    }

    fn take_due(&self, now: Moment) -> Option<(Due, ChannelName)> {
        let mut list = self.list.lock();
        if list.peek().is_none_or(|Reverse((at, _, _))| *at > now) {
            return None;
        }
        list.pop().map(|Reverse((_, what, channel))| (what, channel))
    }

    fn list_due(&self, channel: &ChannelName, record: &mut Record) {
        for what in Due::ALL {
            if !record.listed[what as usize]
                && let Some(at) = record.due(what)
            {
                record.listed[what as usize] = true;
                self.list.lock().push(Reverse((at, what, channel.clone())));
            }
        }
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.records.len(), self.list.lock().len())
    }
}
