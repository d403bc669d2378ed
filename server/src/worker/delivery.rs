//! Delivery passes: a walk over a channel's members that sends each all it misses with one write.
//!
//! Idle, a lone publication leaves at once. Under load, what is published during a pass reaches the members behind its cursor
//! together: fewer writes, more throughput, and no timer anywhere.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use smallvec::SmallVec;

use super::{
    Worker,
    connection::Stage,
    inbox::ConnectionRef,
    local::{Appended, Delta, Key, Member, Place, Terms},
};
use crate::{
    channels::{Encoded, Shape},
    error::Disconnect,
    limits,
    names::ChannelName,
};

impl Worker {
    /// Takes what happened in a channel for its members.
    pub(super) fn take(&mut self, encoded: Arc<Encoded>) {
        let Some(key) = self.channels.key(encoded.channel()) else { return };
        if !self.park(key, &encoded) {
            self.append(key, encoded);
        }
    }

    /// Puts a frame into the channel's ring.
    pub(super) fn append(&mut self, key: Key, encoded: Arc<Encoded>) {
        if self.channels.get(key).unsent() >= limits::RING {
            // The bound of the ring: nothing new until somebody has got the oldest.
            while self.pass(key, usize::MAX).1 {}
            self.channels.get_mut(key).let_go();
        }
        let now = self.now();
        let channel = self.channels.get_mut(key);
        channel.moved_at = now;
        let Appended { gap, arrived, lost } = channel.append(encoded);
        self.schedule(key);
        for (slot, place) in arrived {
            self.place(slot, key, place);
        }
        for slot in lost {
            self.insufficient(slot, key);
        }
        // The last of the lost may have closed the channel.
        if gap && self.channels.contains(key) {
            self.all_insufficient(key);
        }
    }

    /// Puts a channel with unsent frames into the queue.
    pub(super) fn schedule(&mut self, key: Key) {
        let channel = self.channels.get_mut(key);
        if channel.has_work() && !channel.queued {
            channel.queued = true;
            self.jobs.push_back(key);
        }
    }

    /// Notes where a connection's subscription is among the members.
    pub(super) fn place(&mut self, slot: u32, key: Key, place: Place) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        if let Some(membership) = connection.memberships.iter_mut().find(|membership| membership.channel == key) {
            membership.place = Some(place);
        }
    }

    /// Delivers up to `budget` times. Answers whether something is left to deliver.
    pub(super) fn deliver(&mut self, mut budget: usize) -> bool {
        while budget > 0 {
            let Some(key) = self.jobs.pop_front() else { return false };
            if !self.channels.contains(key) {
                continue;
            }
            self.channels.get_mut(key).queued = false;
            let (used, more) = self.pass(key, budget);
            if more {
                // Behind the others: small channels do not wait for a large one.
                self.channels.get_mut(key).queued = true;
                self.jobs.push_back(key);
            }
            budget = budget.saturating_sub(used.max(1));
        }
        !self.jobs.is_empty()
    }

    /// Goes on with the pass over a channel's members. Answers how many were served, and whether more is to be done.
    fn pass(&mut self, key: Key, budget: usize) -> (usize, bool) {
        let mut served = 0;
        let mut delivered = 0;
        let mut bytes = 0;
        self.channels.get_mut(key).begin_pass();
        for group in 0..self.channels.get(key).groups.len() {
            let mut run = Run::default();
            loop {
                let channel = self.channels.get_mut(key);
                let cursor = channel.groups[group].cursor;
                let Some(member) = channel.groups[group].members.get(cursor).copied() else { break };
                if served >= budget {
                    self.count_delivered(delivered, bytes);
                    return (served, true);
                }
                self.prepare(key, group, member, &mut run);
                let channel = self.channels.get_mut(key);
                let head = channel.head();
                let served_group = &mut channel.groups[group];
                let fresh = member.fresh && !run.shows_publication;
                served_group.members[cursor] = Member { sent: head, fresh, ..member };
                served_group.cursor += 1;
                served += 1;
                if run.count > 0 {
                    delivered += run.count;
                    bytes += self.send(member.slot, &run);
                }
            }
        }
        self.count_delivered(delivered, bytes);
        (served, self.channels.get_mut(key).end_pass())
    }

    /// Makes `run` hold what the member misses; members in the same position share it.
    fn prepare(&mut self, key: Key, group: usize, member: Member, run: &mut Run) {
        let channel = self.channels.get(key);
        let span = Span { from: member.sent, to: channel.head(), fresh: member.fresh };
        if run.span == Some(span) {
            return;
        }
        *run = Run { span: Some(span), frames: std::mem::take(&mut run.frames), ..Run::default() };
        run.frames.clear();
        let Terms { variant, delta, joins, ref filter } = channel.groups[group].terms;
        for encoded in channel.missing(member) {
            if (encoded.is_presence() && !joins) || !encoded.passes(filter.as_deref()) {
                continue;
            }
            let shape = match (delta, member.fresh && !run.shows_publication) {
                (Delta::Off, _) => Shape::Plain,
                (Delta::Whole, _) => Shape::Whole,
                (Delta::Patches, true) => Shape::Whole,
                (Delta::Patches, false) => Shape::Patch,
            };
            run.count += 1;
            run.shows_publication |= !encoded.is_presence();
            match encoded.frame(variant, shape, &mut self.tools) {
                Some(frame) => run.frames.push(frame.clone()),
                None => run.invalid = true,
            }
        }
        self.joined.clear();
        run.joined = run.frames.len() > 1 && run.frames.iter().map(Bytes::len).sum::<usize>() <= limits::JOINED_WRITE;
        if run.joined {
            for frame in &run.frames {
                self.joined.extend_from_slice(frame);
            }
        }
    }

    /// Writes what was prepared to one member. Answers the number of bytes.
    fn send(&mut self, slot: u32, run: &Run) -> u64 {
        let Some(connection) = self.connections.get(slot as usize) else { return 0 };
        let at = ConnectionRef { slot, generation: connection.generation };
        if connection.stage != Stage::Open {
            return 0;
        }
        if run.invalid {
            self.doomed.push((at, Disconnect::INAPPROPRIATE_PROTOCOL));
            return 0;
        }
        if run.joined {
            let joined = std::mem::take(&mut self.joined);
            self.write(at, &joined);
            let written = joined.len() as u64;
            self.joined = joined;
            return written;
        }
        let mut written = 0;
        for frame in &run.frames {
            self.write_kept(at, frame, |from| frame.slice(from..));
            written += frame.len() as u64;
        }
        written
    }

    /// Sends one member what it misses of a channel, ahead of the pass.
    pub(super) fn catch_up(&mut self, at: ConnectionRef, channel: &ChannelName) {
        if let Some(key) = self.channels.key(channel) {
            self.catch_up_with(at, key);
        }
    }

    /// Sends a connection what it misses of all its channels: what came before its end belongs to it.
    pub(super) fn catch_up_with_all(&mut self, at: ConnectionRef) {
        let Some(connection) = self.connection(at) else { return };
        let keys: SmallVec<[Key; 4]> = connection.memberships.iter().map(|membership| membership.channel).collect();
        for key in keys {
            self.catch_up_with(at, key);
        }
    }

    fn catch_up_with(&mut self, at: ConnectionRef, key: Key) {
        if self.channels.get(key).unsent() == 0 {
            return;
        }
        let Some(connection) = self.connection(at) else { return };
        let membership = connection.memberships.iter().find(|membership| membership.channel == key);
        let Some(place) = membership.and_then(|membership| membership.place) else { return };
        let (group, index) = (place.group as usize, place.index as usize);
        let local = self.channels.get_mut(key);
        let head = local.head();
        let member = local.groups[group].members[index];
        if member.sent == head {
            return;
        }
        let mut run = Run::default();
        self.prepare(key, group, member, &mut run);
        let fresh = member.fresh && !run.shows_publication;
        self.channels.get_mut(key).groups[group].members[index] = Member { sent: head, fresh, ..member };
        if run.count > 0 {
            let bytes = self.send(at.slot, &run);
            self.count_delivered(run.count, bytes);
        }
    }

    fn count_delivered(&self, delivered: usize, bytes: u64) {
        let counters = &self.shared.counters[self.number];
        counters.deliveries.fetch_add(delivered as u64, Ordering::Relaxed);
        counters.delivered_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What members in the same position are sent.
#[derive(Default)]
struct Run {
    span: Option<Span>,
    /// Number of pushes.
    count: usize,
    frames: Vec<Bytes>,
    /// The worker's scratch holds all frames joined.
    joined: bool,
    /// One of the payloads cannot travel in this variant.
    invalid: bool,
    /// There is a publication among them.
    shows_publication: bool,
}

/// From which sequence to which, and whether the first publication must be whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    from: u32,
    to: u32,
    fresh: bool,
}
