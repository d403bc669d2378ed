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
//!
//! Positions are kept once for all members: the channel's own position is that of the newest publication that came. Only who
//! is not level with it yet has a position of its own: *holders*, whose history is still being read (the ring keeps what
//! comes meanwhile), and *waiters*, whose history reaches further than what has come.

use std::{collections::VecDeque, sync::Arc};

use hashbrown::HashMap;
use slab::Slab;
use smallvec::SmallVec;

use crate::{
    broker::StreamPosition,
    channels::{Encoded, Variant},
    clock::Moment,
    filter::Filter,
    names::ChannelName,
};

/// Number of a local channel, used again after its end.
pub(super) type Key = u32;

/// On what terms a member takes frames; members of equal terms form a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) variant: Variant,
    /// Whether publications are sent in the delta encoding.
    pub(super) delta: Delta,
    /// Joins and leaves are sent, too.
    pub(super) joins: bool,
    /// Publications that do not pass it are held back.
    pub(super) filter: Option<Arc<Filter>>,
}

/// Use of the delta encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delta {
    /// None.
    Off,
    /// Wrapped as it asks for, but whole: without positions nobody knows what a patch would rest on.
    Whole,
    /// Patches where there is something to make them of.
    Patches,
}

/// A subscriber that everything published from here on is delivered to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    /// The connection.
    pub(super) slot: u32,
    /// Sequence of the last frame it was sent. Wraps.
    pub(super) sent: u32,
    /// Nothing was sent yet: the first publication must be whole, since there is nothing to make a difference to.
    pub(super) fresh: bool,
}

/// Subscribers that take the same frames.
pub(super) struct Group {
    pub(super) terms: Terms,
    pub(super) members: Vec<Member>,
    /// Members before this one have been served by the pass that is under way; 0 without a pass.
    pub(super) cursor: usize,
}

/// A subscription whose history is being read.
struct Holder {
    slot: u32,
    /// The ring keeps everything behind this sequence; `None` when it had to let go.
    since: Option<u32>,
}

/// A subscription whose history reaches further than what has come.
struct Waiter {
    slot: u32,
    terms: Terms,
    position: StreamPosition,
    fresh: bool,
}

/// Where a member is: needed to find it again without a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) group: u32,
    pub(super) index: u32,
}

/// What became of a subscription that was to go live.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Live {
    /// It is a member, and gets all that it misses with the next pass.
    Member(Place),
    /// It becomes one when what has come is level with its position.
    Waiting,
    /// Something between its position and what has come is not here any more: the history must be read again.
    Hole,
}

/// What became of a frame.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Appended {
    /// Something before it did not come: those who count on positions must be told.
    pub(super) gap: bool,
    /// Waiters that are members now.
    pub(super) arrived: SmallVec<[(u32, Place); 2]>,
    /// Waiters that missed something.
    pub(super) lost: SmallVec<[u32; 2]>,
}

pub(super) struct LocalChannel {
    pub(super) name: ChannelName,
    pub(super) groups: SmallVec<[Group; 1]>,
    holders: Vec<Holder>,
    waiters: Vec<Waiter>,
    ring: VecDeque<Arc<Encoded>>,
    /// Sequence of the newest frame of the ring, or of the last that was in it. Wraps.
    head: u32,
    /// Sequence up to which the pass under way serves at least; set when it starts.
    pass_head: u32,
    /// Position of the newest publication that came; `None` before the first with a position.
    position: Option<StreamPosition>,
    /// Whether the channel is in the queue of channels with unsent frames.
    pub(super) queued: bool,
    /// What came while a gap is repaired from history, in order; `None` while none is.
    pub(super) parked: Option<Vec<Arc<Encoded>>>,
    /// When something came last.
    pub(super) moved_at: Moment,
    /// The stream's position is being read for a comparison.
    pub(super) checking: bool,
    /// The last comparison found a difference that may be on its way.
    pub(super) suspicious: bool,
}

impl LocalChannel {
    fn new(name: ChannelName) -> Self {
        Self {
            name,
            groups: SmallVec::new(),
            holders: Vec::new(),
            waiters: Vec::new(),
            ring: VecDeque::new(),
            head: 0,
            pass_head: 0,
            position: None,
            queued: false,
            parked: None,
            moved_at: Moment::default(),
            checking: false,
            suspicious: false,
        }
    }

    /// Takes a place that is not live yet. The ring keeps what comes from now on.
    pub(super) fn hold(&mut self, slot: u32) {
        self.holders.push(Holder { slot, since: Some(self.head) });
    }

    /// Gives up a place that is not a member's.
    pub(super) fn release(&mut self, slot: u32) {
        if let Some(index) = self.holders.iter().position(|holder| holder.slot == slot) {
            self.holders.swap_remove(index);
        } else if let Some(index) = self.waiters.iter().position(|waiter| waiter.slot == slot) {
            self.waiters.swap_remove(index);
        } else {
            debug_assert!(false, "every release follows a hold");
        }
    }

    /// Turns a held place into a member that gets everything behind `position`, or, without one, everything from now on. Who
    /// is not `fresh` has the publication at its position, so that patches can rest on it.
    /// After [`Live::Hole`] the place is still held.
    pub(super) fn go_live(&mut self, slot: u32, terms: Terms, position: Option<StreamPosition>, fresh: bool) -> Live {
        let Some(position) = position else {
            self.release(slot);
            return Live::Member(self.join(slot, terms, self.head, fresh));
        };
        let ours = self.position.as_ref().filter(|ours| ours.epoch == position.epoch).map(|ours| ours.offset);
        match ours {
            Some(ours) if ours >= position.offset => {
                let Some(sent) = self.sequence_of(position.offset, ours, slot) else { return Live::Hole };
                self.release(slot);
                Live::Member(self.join(slot, terms, sent, fresh))
            }
            Some(_) => self.wait(slot, terms, position, fresh),
            None if self.position.is_none() && self.groups.iter().all(|group| group.members.is_empty()) => {
                // Nobody is here who would miss what is on its way up to there.
                self.position = Some(position);
                self.release(slot);
                Live::Member(self.join(slot, terms, self.head, fresh))
            }
            None => self.wait(slot, terms, position, fresh),
        }
    }

    fn wait(&mut self, slot: u32, terms: Terms, position: StreamPosition, fresh: bool) -> Live {
        self.release(slot);
        self.waiters.push(Waiter { slot, terms, position, fresh });
        Live::Waiting
    }

    /// Sequence of the frame up to which a subscription at `offset` has everything; `None` when the ring does not reach back.
    fn sequence_of(&self, offset: u64, ours: u64, slot: u32) -> Option<u32> {
        if offset == ours {
            return Some(self.head);
        }
        let since = self.holders.iter().find(|holder| holder.slot == slot)?.since?;
        let held = (self.head.wrapping_sub(since) as usize).min(self.ring.len());
        let mut first_behind = None;
        for (back, encoded) in self.ring.iter().rev().take(held).enumerate() {
            match encoded.position() {
                Some(position) if position.offset > offset => first_behind = Some((back, position.offset)),
                Some(_) => break,
                None => {}
            }
        }
        let (back, found) = first_behind?;
        let back = u32::try_from(back).expect("the ring is bounded");
        (found == offset + 1).then(|| self.head.wrapping_sub(back + 1))
    }

    fn join(&mut self, slot: u32, terms: Terms, sent: u32, fresh: bool) -> Place {
        let group = match self.groups.iter().position(|group| group.terms == terms) {
            Some(group) => group,
            None => {
                // A group that is empty has no places: its number can be used for other terms.
                let empty = self.groups.iter().position(|group| group.members.is_empty());
                let new = Group { terms, members: Vec::new(), cursor: 0 };
                match empty {
                    Some(group) => {
                        self.groups[group] = new;
                        group
                    }
                    None => {
                        self.groups.push(new);
                        self.groups.len() - 1
                    }
                }
            }
        };
        let members = &mut self.groups[group].members;
        members.push(Member { slot, sent, fresh });
        let number = |index: usize| u32::try_from(index).expect("fewer members than 2^32 fit in memory");
        Place { group: number(group), index: number(members.len() - 1) }
    }

    /// Removes the member at `place`. `moved` is told of each member that has another index now.
    pub(super) fn remove(&mut self, place: Place, mut moved: impl FnMut(u32, u32)) {
        let group = &mut self.groups[place.group as usize];
        let mut index = place.index as usize;
        let number = |index: usize| u32::try_from(index).expect("fewer members than 2^32 fit in memory");
        if index < group.cursor {
            // The hole must not be filled by a member that the pass under way has not served: that one would be passed
            // over. So the last served member fills it, and the hole is at the cursor.
            group.cursor -= 1;
            if index != group.cursor {
                group.members[index] = group.members[group.cursor];
                moved(group.members[index].slot, number(index));
                index = group.cursor;
            }
        }
        group.members.swap_remove(index);
        if let Some(member) = group.members.get(index) {
            moved(member.slot, number(index));
        }
    }

    /// Whether nobody here needs the channel.
    pub(super) fn is_unused(&self) -> bool {
        self.holders.is_empty() && self.waiters.is_empty() && self.has_no_members()
    }

    fn has_no_members(&self) -> bool {
        self.groups.iter().all(|group| group.members.is_empty())
    }

    /// Adds a frame for the members, and for those who may become members and miss it.
    ///
    /// Positions, by the client protocol: the next offset goes through, one that came already is skipped, a jump or a
    /// changed epoch is a gap.
    pub(super) fn append(&mut self, encoded: Arc<Encoded>) -> Appended {
        let mut appended = Appended::default();
        if let Some(position) = encoded.position() {
            if let Some(ours) = &self.position {
                let same = ours.epoch == position.epoch;
                if same && position.offset <= ours.offset {
                    return appended;
                }
                appended.gap = !same || position.offset > ours.offset + 1;
            }
            self.position = Some(position.clone());
        }
        if !self.is_unused() {
            self.head = self.head.wrapping_add(1);
            self.ring.push_back(encoded.clone());
        }
        if let Some(position) = encoded.position()
            && !self.waiters.is_empty()
        {
            self.settle_waiters(position, &mut appended);
        }
        appended
    }

    fn settle_waiters(&mut self, position: &StreamPosition, appended: &mut Appended) {
        let mut still = Vec::new();
        for waiter in std::mem::take(&mut self.waiters) {
            if waiter.position.epoch != position.epoch || position.offset < waiter.position.offset {
                still.push(waiter);
            } else if position.offset <= waiter.position.offset + 1 {
                let has_it = position.offset == waiter.position.offset;
                let sent = if has_it { self.head } else { self.head.wrapping_sub(1) };
                appended.arrived.push((waiter.slot, self.join(waiter.slot, waiter.terms, sent, waiter.fresh)));
            } else {
                appended.lost.push(waiter.slot);
                still.push(waiter);
            }
        }
        self.waiters = still;
    }

    /// Position of the newest publication that came.
    pub(super) fn position(&self) -> Option<&StreamPosition> {
        self.position.as_ref()
    }

    /// Goes on from another position, after those who count on positions were told.
    pub(super) fn set_position(&mut self, position: StreamPosition) {
        self.position = Some(position);
    }

    /// Whether a publication at `position` would leave a gap.
    pub(super) fn is_gap(&self, position: &StreamPosition) -> bool {
        self.position.as_ref().is_some_and(|ours| ours.epoch != position.epoch || position.offset > ours.offset + 1)
    }

    /// Frames in the ring.
    pub(super) fn unsent(&self) -> usize {
        self.ring.len()
    }

    /// Lets go of what is kept for holders, because the ring is at its bound.
    pub(super) fn let_go(&mut self) {
        for holder in &mut self.holders {
            holder.since = None;
        }
        self.end_pass();
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

    /// Whether some member misses something.
    pub(super) fn has_work(&self) -> bool {
        !self.ring.is_empty() && !self.has_no_members()
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
        let newer = if self.has_no_members() { 0 } else { self.head.wrapping_sub(self.pass_head) as usize };
        let held = self.holders.iter().filter_map(|holder| holder.since);
        let held = held.map(|since| self.head.wrapping_sub(since) as usize).max().unwrap_or(0);
        let had_by_all = self.ring.len().saturating_sub(newer.max(held));
        self.ring.drain(..had_by_all);
        if self.ring.is_empty() && self.ring.capacity() > 64 {
            // A burst is over; its memory must not stay with a quiet channel.
            self.ring = VecDeque::new();
        }
        newer > 0
    }

    /// Every connection that has a place here, whatever its kind.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        let members = self.groups.iter().flat_map(|group| group.members.iter().map(|member| member.slot));
        let others = self.holders.iter().map(|holder| holder.slot);
        members.chain(others).chain(self.waiters.iter().map(|waiter| waiter.slot))
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

    /// Keys of all channels.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        self.keys.values().copied()
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

    fn terms() -> Terms {
        Terms {
            variant: Variant { protocol: Protocol::Json, deflate: false },
            delta: Delta::Off,
            joins: false,
            filter: None,
        }
    }

    fn frame(position: Option<StreamPosition>) -> Arc<Encoded> {
        let publication = Publication { position, ..Publication::default() };
        Arc::new(Encoded::publication("c".into(), publication, None))
    }

    fn at(offset: u64) -> Option<StreamPosition> {
        Some(StreamPosition { epoch: "e".into(), offset })
    }

    /// Serves up to `budget` members; adds what they get to `seen`.
    fn serve(channel: &mut LocalChannel, budget: usize, mut seen: impl FnMut(u32, Option<u64>)) -> bool {
        channel.begin_pass();
        let mut left = budget;
        for group in 0..channel.groups.len() {
            loop {
                let cursor = channel.groups[group].cursor;
                let Some(member) = channel.groups[group].members.get(cursor).copied() else { break };
                if left == 0 {
                    return true;
                }
                left -= 1;
                for encoded in channel.missing(member) {
                    seen(member.slot, encoded.position().map(|position| position.offset));
                }
                let head = channel.head();
                channel.groups[group].members[cursor].sent = head;
                channel.groups[group].cursor += 1;
            }
        }
        channel.end_pass()
    }

    fn drain(channel: &mut LocalChannel) -> Vec<(u32, Option<u64>)> {
        let mut seen = Vec::new();
        while serve(channel, usize::MAX, |slot, offset| seen.push((slot, offset))) {}
        seen
    }

    #[test]
    fn a_frame_that_nobody_needs_is_not_kept_for_later_members() {
        let mut channel = LocalChannel::new("c".into());
        channel.append(frame(None));
        assert_eq!(channel.unsent(), 0);
    }

    #[test]
    fn what_comes_while_history_is_read_follows_it_without_a_gap_or_a_repetition() {
        let mut channel = LocalChannel::new("c".into());
        channel.hold(1);
        for offset in 4..=7 {
            channel.append(frame(at(offset)));
        }
        // The history that was read reaches to 5.
        assert!(matches!(channel.go_live(1, terms(), at(5), true), Live::Member(_)));
        assert_eq!(drain(&mut channel), [(1, Some(6)), (1, Some(7))]);
    }

    #[test]
    fn a_history_ahead_of_what_has_come_makes_a_waiter() {
        let mut channel = LocalChannel::new("c".into());
        channel.hold(1);
        channel.append(frame(at(3)));
        assert_eq!(channel.go_live(1, terms(), at(5), true), Live::Waiting);
        assert_eq!(channel.append(frame(at(4))), Appended::default());
        let appended = channel.append(frame(at(5)));
        assert_eq!(appended.arrived.len(), 1);
        channel.append(frame(at(6)));
        assert_eq!(drain(&mut channel), [(1, Some(6))]);
    }

    #[test]
    fn a_waiter_that_misses_something_is_lost_and_nobody_else() {
        let mut channel = LocalChannel::new("c".into());
        channel.hold(1);
        channel.append(frame(at(3)));
        assert_eq!(channel.go_live(1, terms(), at(5), true), Live::Waiting);
        let appended = channel.append(frame(at(7)));
        assert!(appended.gap);
        assert_eq!(appended.lost.as_slice(), [1]);
    }

    #[test]
    fn the_first_subscriber_of_a_quiet_channel_is_level_at_once() {
        let mut channel = LocalChannel::new("c".into());
        channel.hold(1);
        assert!(matches!(channel.go_live(1, terms(), at(5), true), Live::Member(_)));
        // Was on its way when the history was read.
        channel.append(frame(at(5)));
        channel.append(frame(at(6)));
        assert_eq!(drain(&mut channel), [(1, Some(6))]);
    }

    #[test]
    fn a_jump_and_a_new_epoch_are_gaps_and_a_repetition_is_none() {
        let mut channel = LocalChannel::new("c".into());
        channel.append(frame(at(1)));
        assert!(!channel.append(frame(at(2))).gap);
        assert!(!channel.append(frame(at(2))).gap);
        assert!(channel.append(frame(at(4))).gap);
        let other = Some(StreamPosition { epoch: "f".into(), offset: 5 });
        assert!(channel.append(frame(other)).gap);
    }

    #[test]
    fn at_its_bound_the_ring_lets_go_and_the_holder_is_told() {
        let mut channel = LocalChannel::new("c".into());
        channel.hold(1);
        for offset in 1..=4 {
            channel.append(frame(at(offset)));
        }
        channel.let_go();
        assert_eq!(channel.go_live(1, terms(), at(2), true), Live::Hole);
    }

    proptest! {
        /// Whatever happens in the middle of passes, every member that stays gets each frame since it came exactly once.
        #[test]
        fn members_get_every_frame_once(steps in prop::collection::vec((0..4_u8, any::<prop::sample::Index>()), 1..200)) {
            let mut channel = LocalChannel::new("c".into());
            let mut places: Vec<Option<Place>> = Vec::new();
            let (mut seen, mut due) = (Vec::<u32>::new(), Vec::new());
            for (step, pick) in steps {
                match step {
                    0 => {
                        let slot = u32::try_from(places.len()).expect("small");
                        channel.hold(slot);
                        let terms = Terms { joins: pick.index(2) == 0, ..terms() };
                        let Live::Member(place) = channel.go_live(slot, terms, None, true) else { panic!("without a position") };
                        places.push(Some(place));
                        seen.push(0);
                        due.push(0);
                    }
                    1 => {
                        channel.append(frame(None));
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
                        serve(&mut channel, pick.index(5), |slot, _| seen[slot as usize] += 1);
                    }
                }
            }
            while serve(&mut channel, 3, |slot, _| seen[slot as usize] += 1) {}
            for slot in 0..places.len() {
                prop_assert!(due[slot] == u32::MAX || due[slot] == seen[slot], "slot {slot}: {} of {}", seen[slot], due[slot]);
            }
            prop_assert!(!channel.has_work() || channel.has_no_members());
        }
    }
}
