//! One worker's channels: who is subscribed here, and what they have not been sent yet.
//!
//! ```text
//!   ring:    [ f5 f6 f7 ]        head = 7
//!   members:  a(7) b(7) | c(5) d(4)
//!                       ^ cursor of the pass: a and b have everything, c and d are next
//! ```
//!
//! Every member has seen everything up to its `sent`. A pass walks the members once and sends each all it misses; what is
//! published meanwhile goes to the ring, reaches the members behind the cursor in the same write, and the others in
//! the next pass.

use std::{collections::VecDeque, sync::Arc};

use hashbrown::HashMap;
use slab::Slab;

use crate::{
    channels::{Encoded, Variant},
    names::ChannelName,
};

/// Number of a local channel, used again after its end.
pub(super) type Key = u32;

/// A subscriber that everything published from here on is delivered to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    /// The connection.
    pub(super) slot: u32,
    /// Sequence of the last frame it was sent. Wraps.
    pub(super) sent: u32,
}

/// Subscribers that take the same frames.
#[derive(Default)]
pub(super) struct Group {
    pub(super) members: Vec<Member>,
    /// Members before this one have been served by the pass that is under way; 0 without a pass.
    pub(super) cursor: usize,
}

pub(super) struct LocalChannel {
    pub(super) name: ChannelName,
    pub(super) groups: [Group; Variant::ALL.len()],
    /// Subscriptions that hold a place but are not live yet.
    joining: u32,
    ring: VecDeque<Arc<Encoded>>,
    /// Sequence of the newest frame of the ring, or of the last that was in it. Wraps.
    head: u32,
    /// Sequence up to which the pass under way serves at least; set when it starts.
    pass_head: u32,
    /// Whether the channel is in the queue of channels with unsent frames.
    pub(super) queued: bool,
}

/// Where a member is: needed to find it again without a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) variant: Variant,
    pub(super) index: usize,
}

impl LocalChannel {
    fn new(name: ChannelName) -> Self {
        Self {
            name,
            groups: Default::default(),
            joining: 0,
            ring: VecDeque::new(),
            head: 0,
            pass_head: 0,
            queued: false,
        }
    }

    /// Takes a place that is not live yet.
    pub(super) fn hold(&mut self) {
        self.joining += 1;
    }

    /// Gives a held place up.
    pub(super) fn release(&mut self) {
        debug_assert!(self.joining > 0, "every release follows a hold");
        self.joining = self.joining.saturating_sub(1);
    }

    /// Turns a held place into a member that gets everything from now on.
    pub(super) fn go_live(&mut self, slot: u32, variant: Variant) -> Place {
        self.release();
        let group = &mut self.groups[variant.index()];
        group.members.push(Member { slot, sent: self.head });
        Place { variant, index: group.members.len() - 1 }
    }

    /// Removes the member at `place`. `moved` is told of each member that has another index now.
    pub(super) fn remove(&mut self, place: Place, mut moved: impl FnMut(u32, usize)) {
        let group = &mut self.groups[place.variant.index()];
        let mut index = place.index;
        if index < group.cursor {
            // The hole must not be filled by a member that the pass under way has not served: that one would be passed
            // over. So the last served member fills it, and the hole is at the cursor.
            group.cursor -= 1;
            if index != group.cursor {
                group.members[index] = group.members[group.cursor];
                moved(group.members[index].slot, index);
                index = group.cursor;
            }
        }
        group.members.swap_remove(index);
        if let Some(member) = group.members.get(index) {
            moved(member.slot, index);
        }
    }

    /// Whether nobody here needs the channel.
    pub(super) fn is_unused(&self) -> bool {
        self.joining == 0 && self.groups.iter().all(|group| group.members.is_empty())
    }

    /// Adds a frame for the members. Without members it is dropped at once: nobody who joins later may get it.
    pub(super) fn append(&mut self, encoded: Arc<Encoded>) {
        if self.groups.iter().any(|group| !group.members.is_empty()) {
            self.head = self.head.wrapping_add(1);
            self.ring.push_back(encoded);
        }
    }

    /// Frames in the ring.
    pub(super) fn unsent(&self) -> usize {
        self.ring.len()
    }

    /// Frames that `member` has not been sent, oldest first.
    pub(super) fn missing(&self, member: Member) -> impl ExactSizeIterator<Item = &Arc<Encoded>> + Clone {
        let behind = self.head.wrapping_sub(member.sent) as usize;
        debug_assert!(behind <= self.ring.len(), "the ring holds what any member misses");
        self.ring.range(self.ring.len().saturating_sub(behind)..)
    }

    /// Sequence of the newest frame.
    pub(super) fn head(&self) -> u32 {
        self.head
    }

    /// Starts a pass unless one is under way.
    pub(super) fn begin_pass(&mut self) {
        if self.groups.iter().all(|group| group.cursor == 0) {
            self.pass_head = self.head;
        }
    }

    /// Ends a pass that has served every member: forgets what all of them have. Answers whether another is needed.
    pub(super) fn end_pass(&mut self) -> bool {
        for group in &mut self.groups {
            group.cursor = 0;
        }
        let newer = self.head.wrapping_sub(self.pass_head) as usize;
        let had_by_all = self.ring.len().saturating_sub(newer);
        self.ring.drain(..had_by_all);
        if self.ring.is_empty() && self.ring.capacity() > 64 {
            // A burst is over; its memory must not stay with a quiet channel.
            self.ring = VecDeque::new();
        }
        !self.ring.is_empty()
    }
}

/// The channels of one worker.
#[derive(Default)]
pub(super) struct LocalChannels {
    keys: HashMap<ChannelName, Key>,
    channels: Slab<LocalChannel>,
}

impl LocalChannels {
    /// Key of a channel that somebody here subscribes to.
    pub(super) fn key(&self, name: &ChannelName) -> Option<Key> {
        self.keys.get(name).copied()
    }

    /// Key of a channel, which begins if nobody here subscribed to it.
    pub(super) fn open(&mut self, name: &ChannelName) -> Key {
        let channels = &mut self.channels;
        *self.keys.entry(name.clone()).or_insert_with(|| {
            u32::try_from(channels.insert(LocalChannel::new(name.clone())))
                .expect("fewer channels than 2^32 fit in memory")
        })
    }

    /// The channel of a key that was given out and not closed.
    pub(super) fn get(&self, key: Key) -> &LocalChannel {
        &self.channels[key as usize]
    }

    /// Likewise.
    pub(super) fn get_mut(&mut self, key: Key) -> &mut LocalChannel {
        &mut self.channels[key as usize]
    }

    /// Whether the key names a channel now. Only for keys that may have been closed meanwhile.
    pub(super) fn contains(&self, key: Key) -> bool {
        self.channels.contains(key as usize)
    }

    /// Ends a channel that nobody here needs.
    pub(super) fn close(&mut self, key: Key) {
        let channel = self.channels.remove(key as usize);
        self.keys.remove(&channel.name);
        if self.keys.is_empty() {
            // After a storm of channels is over, so is their memory.
            self.keys.shrink_to_fit();
            self.channels.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{broker::Publication, session::protocol::Protocol};

    const JSON: Variant = Variant { protocol: Protocol::Json, deflate: false };

    fn frame() -> Arc<Encoded> {
        Arc::new(Encoded::new("c".into(), Publication::default()))
    }

    fn serve(channel: &mut LocalChannel, budget: usize, seen: &mut [u32]) -> bool {
        channel.begin_pass();
        for _ in 0..budget {
            let cursor = channel.groups[0].cursor;
            let Some(member) = channel.groups[0].members.get(cursor).copied() else { break };
            seen[member.slot as usize] += u32::try_from(channel.missing(member).len()).expect("small");
            let head = channel.head();
            channel.groups[0].members[cursor].sent = head;
            channel.groups[0].cursor += 1;
        }
        channel.groups[0].cursor < channel.groups[0].members.len() || channel.end_pass()
    }

    #[test]
    fn a_frame_without_members_is_not_kept_for_later_ones() {
        let mut channel = LocalChannel::new("c".into());
        channel.append(frame());
        assert_eq!(channel.unsent(), 0);
    }

    proptest! {
        /// Whatever happens in the middle of passes, every member that stays gets each frame since it came exactly once.
        #[test]
        fn members_get_every_frame_once(steps in prop::collection::vec((0..4_u8, any::<prop::sample::Index>()), 1..200)) {
            let mut channel = LocalChannel::new("c".into());
            let mut places: Vec<Option<Place>> = Vec::new();
            let (mut seen, mut due) = (Vec::new(), Vec::new());
            for (step, pick) in steps {
                match step {
                    0 => {
                        channel.hold();
                        let slot = u32::try_from(places.len()).expect("small");
                        places.push(Some(channel.go_live(slot, JSON)));
                        seen.push(0);
                        due.push(0);
                    }
                    1 => {
                        channel.append(frame());
                        for (slot, place) in places.iter().enumerate() {
                            due[slot] += u32::from(place.is_some());
                        }
                    }
                    2 if !places.is_empty() => {
                        let slot = pick.index(places.len());
                        if let Some(place) = places[slot].take() {
                            channel.remove(place, |moved, index| {
                                places[moved as usize].as_mut().expect("members have a place").index = index;
                            });
                            due[slot] = u32::MAX;
                        }
                    }
                    _ => {
                        serve(&mut channel, pick.index(5), &mut seen);
                    }
                }
            }
            while serve(&mut channel, 3, &mut seen) {}
            for slot in 0..places.len() {
                prop_assert!(due[slot] == u32::MAX || due[slot] == seen[slot], "slot {slot}: {} of {}", seen[slot], due[slot]);
            }
            prop_assert_eq!(channel.unsent(), 0);
        }
    }
}
