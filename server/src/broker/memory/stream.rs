//! One channel's stream. Pure: time is an argument.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

use bytes::Bytes;

use crate::{
    broker::{ClientInfo, Epoch, HistoryOptions, HistoryQuery, Limit, Publication, StreamPosition, Version, epoch},
    clock::Moment,
};

/// Epoch, top offset, and the last publications.
///
/// The kept publications are a ring without holes that ends at the top: the offset of the first is `top + 1 - length`, so
/// that an offset is an index.
pub(super) struct Stream {
    epoch: Epoch,
    /// Offset of the last publication, kept or not; 0 before the first.
    top: u64,
    kept: VecDeque<Kept>,
    /// Of the last publication, if it had one.
    version: Option<Version>,
    /// When the publications are dropped, unless another comes.
    drop_at: Moment,
    /// When the stream is forgotten, unless it is used; `None` for never.
    forget_at: Option<Moment>,
}

/// A publication without its position: 56 bytes and what they refer to.
pub(super) struct Kept {
    data: Bytes,
    time: Option<i64>,
    more: Option<Box<More>>,
}

/// What most publications of backends do not have.
struct More {
    info: Option<ClientInfo>,
    tags: BTreeMap<String, String>,
}

impl Stream {
    /// A new life.
    pub(super) fn new() -> Self {
        Self {
            epoch: epoch::random().into(),
            top: 0,
            kept: VecDeque::new(),
            version: None,
            drop_at: Moment(0),
            forget_at: None,
        }
    }

    /// Does what the time has brought. Answers whether the stream is to be forgotten.
    pub(super) fn expire(&mut self, now: Moment) -> bool {
        if self.drop_at <= now {
            // Together with the ring's memory.
            self.kept = VecDeque::new();
        }
        self.forget_at.is_some_and(|at| at <= now)
    }

    /// The stream was used: its time to be forgotten begins anew. Without a time to live it never ends.
    pub(super) fn used(&mut self, options: &HistoryOptions, now: Moment) {
        self.forget_at = (!options.meta_ttl.is_zero()).then(|| now + options.meta_ttl);
    }

    /// Position of the last publication.
    pub(super) fn position(&self) -> StreamPosition {
        StreamPosition { epoch: self.epoch.clone(), offset: self.top }
    }

    /// Position of the next publication.
    pub(super) fn next_position(&self) -> StreamPosition {
        StreamPosition { epoch: self.epoch.clone(), offset: self.top + 1 }
    }

    /// Payload of the last publication, if it is kept.
    pub(super) fn last_payload(&self) -> Option<Bytes> {
        self.kept.back().map(|kept| kept.data.clone())
    }

    /// Whether a publication with this version is to be passed over. A version without an epoch is compared with any.
    pub(super) fn is_outdated(&self, version: &Version) -> bool {
        self.version.as_ref().is_some_and(|last| {
            (version.epoch.is_empty() || version.epoch == last.epoch) && version.number <= last.number
        })
    }

    /// Takes the publication of [`next_position`](Self::next_position). One without a version makes the stream forget the
    /// last version, as Centrifugo's memory engine does and its Redis engine does not.
    pub(super) fn append(&mut self, kept: Kept, version: Option<Version>, options: &HistoryOptions, now: Moment) {
        self.top += 1;
        self.version = version;
        self.drop_at = now + options.ttl;
        let size = usize::try_from(options.size).unwrap_or(usize::MAX);
        while self.kept.len() >= size.max(1) {
            self.kept.pop_front();
        }
        self.kept.push_back(kept);
    }

    /// Drops the kept publications; offsets go on.
    pub(super) fn clear(&mut self) {
        self.kept = VecDeque::new();
    }

    /// The publications that are asked for.
    pub(super) fn read(&self, query: &HistoryQuery) -> Vec<Publication> {
        let limit = match query.limit {
            Limit::PositionOnly => return Vec::new(),
            Limit::AtMost(limit) => u64::from(limit),
            Limit::All => u64::MAX,
        };
        let asked = self.asked(query);
        let count = limit.min(asked.end.saturating_sub(asked.start));
        if query.reverse {
            (asked.end - count..asked.end).rev().map(|offset| self.publication(offset)).collect()
        } else {
            (asked.start..asked.start + count).map(|offset| self.publication(offset)).collect()
        }
    }

    /// Offsets on the asked side of `since`, all of them kept.
    fn asked(&self, query: &HistoryQuery) -> Range<u64> {
        let kept = self.first()..self.top + 1;
        match (query.since, query.reverse) {
            (None, _) => kept,
            (Some(since), false) => since.saturating_add(1).clamp(kept.start, kept.end)..kept.end,
            (Some(since), true) => kept.start..since.clamp(kept.start, kept.end),
        }
    }

    fn first(&self) -> u64 {
        self.top + 1 - self.kept.len() as u64
    }

    fn publication(&self, offset: u64) -> Publication {
        let index = usize::try_from(offset - self.first()).expect("an index of the ring");
        let Kept { data, time, more } = &self.kept[index];
        let (info, tags) = match more {
            Some(more) => (more.info.clone(), more.tags.clone()),
            None => (None, BTreeMap::new()),
        };
        let position = Some(StreamPosition { epoch: self.epoch.clone(), offset });
        Publication { data: data.clone(), info, tags, position, time: *time }
    }

    /// When the kept publications expire; `None` when there are none.
    pub(super) fn drop_at(&self) -> Option<Moment> {
        (!self.kept.is_empty()).then_some(self.drop_at)
    }

    /// When the stream is forgotten; `None` for never.
    pub(super) fn forget_at(&self) -> Option<Moment> {
        self.forget_at
    }
}

impl From<&Publication> for Kept {
    /// Copies the payload: it may be a slice of a large buffer (a batch of an hour ago), which it would keep alive.
    fn from(publication: &Publication) -> Self {
        let Publication { data, info, tags, position: _, time } = publication;
        let more =
            (info.is_some() || !tags.is_empty()).then(|| Box::new(More { info: info.clone(), tags: tags.clone() }));
        Self { data: Bytes::copy_from_slice(data), time: *time, more }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const OPTIONS: HistoryOptions =
        HistoryOptions { size: 4, ttl: Duration::from_secs(10), meta_ttl: Duration::from_secs(100) };

    fn publish(stream: &mut Stream, data: &str, now: u64) {
        let publication = Publication { data: data.to_owned().into(), ..Publication::default() };
        stream.used(&OPTIONS, Moment(now));
        stream.append(Kept::from(&publication), None, &OPTIONS, Moment(now));
    }

    fn offsets(stream: &Stream, since: Option<u64>, limit: Limit, reverse: bool) -> Vec<u64> {
        let read = stream.read(&HistoryQuery { since, limit, reverse });
        read.iter().map(|publication| publication.position.as_ref().unwrap().offset).collect()
    }

    #[test]
    fn epochs_are_eight_letters_and_new_in_each_life() {
        let (one, other) = (Stream::new(), Stream::new());
        assert!(one.epoch.len() == 8 && one.epoch.chars().all(|letter| letter.is_ascii_alphabetic()));
        assert_ne!(one.epoch, other.epoch);
    }

    #[test]
    fn publications_go_with_their_time_to_live_and_the_stream_with_its_own() {
        let mut stream = Stream::new();
        publish(&mut stream, "a", 0);
        publish(&mut stream, "b", 5_000);
        assert!(!stream.expire(Moment(14_999)));
        assert_eq!(offsets(&stream, None, Limit::All, false), [1, 2]);
        assert!(!stream.expire(Moment(15_000)));
        assert!(offsets(&stream, None, Limit::All, false).is_empty());
        assert_eq!((stream.position().offset, stream.drop_at()), (2, None));
        stream.used(&OPTIONS, Moment(20_000));
        assert!(!stream.expire(Moment(119_999)));
        assert!(stream.expire(Moment(120_000)));
        stream.used(&HistoryOptions { meta_ttl: Duration::ZERO, ..OPTIONS }, Moment(120_000));
        assert!(!stream.expire(Moment(u64::MAX)));
    }

    #[test]
    fn versions_are_compared_within_their_epoch_and_those_without_one_with_any() {
        let version = |number, epoch: &str| Version { number, epoch: epoch.to_owned() };
        let mut stream = Stream::new();
        assert!(!stream.is_outdated(&version(1, "")));
        let kept = || Kept::from(&Publication::default());
        stream.append(kept(), Some(version(5, "x")), &OPTIONS, Moment(0));
        for (number, epoch, outdated) in
            [(5, "x", true), (6, "x", false), (5, "", true), (6, "", false), (1, "y", false)]
        {
            assert_eq!(stream.is_outdated(&version(number, epoch)), outdated, "{number} {epoch}");
        }
        stream.append(kept(), None, &OPTIONS, Moment(0));
        assert!(!stream.is_outdated(&version(1, "x")));
    }

    #[test]
    fn a_kept_publication_does_not_keep_the_buffer_it_came_in() {
        let buffer = Bytes::from(vec![b'x'; 4096]);
        let publication = Publication { data: buffer.slice(..2), ..Publication::default() };
        let kept = Kept::from(&publication);
        drop(publication);
        assert_eq!(kept.data, "xx");
        assert!(buffer.is_unique());
    }

    proptest! {
        /// Against a plain list of all publications.
        #[test]
        fn reads_are_those_of_a_list(
            count in 0_u64..12,
            cleared_after in proptest::option::of(0_u64..12),
            since in proptest::option::of(prop_oneof![0_u64..16, Just(u64::MAX)]),
            limit in prop_oneof![Just(Limit::PositionOnly), Just(Limit::All), (1_u32..8).prop_map(Limit::AtMost)],
            reverse: bool,
        ) {
            let mut stream = Stream::new();
            let mut list = Vec::new();
            for offset in 1..=count {
                publish(&mut stream, &offset.to_string(), 0);
                list.push(offset);
                if list.len() > 4 {
                    list.remove(0);
                }
                if cleared_after == Some(offset) {
                    stream.clear();
                    list.clear();
                }
            }
            if reverse {
                list.reverse();
            }
            let beyond = |offset: &u64| since.is_none_or(|since| if reverse { *offset < since } else { *offset > since });
            let most = match limit {
                Limit::PositionOnly => 0,
                Limit::AtMost(most) => most as usize,
                Limit::All => usize::MAX,
            };
            let expected: Vec<_> = list.into_iter().filter(beyond).take(most).collect();
            prop_assert_eq!(offsets(&stream, since, limit, reverse), expected);
            for publication in stream.read(&HistoryQuery { since, limit, reverse }) {
                prop_assert_eq!(publication.data, publication.position.unwrap().offset.to_string());
            }
        }
    }
}
