//! Recovery: what a client missed, or the honest answer that it cannot be told.
//!
//! Client protocol, stream mode: history is read from the client's offset on. Recovered means that the epoch is the client's
//! (an empty one is not compared) and that the publications reach from the offset after the client's to the top without a
//! gap; with none, that the client is at the top. Otherwise the client gets no publications, only the new position.
//!
//! Cache mode: the newest publication is all that counts, and a client that has it already does not get it again.

use crate::{
    broker::{History, HistoryQuery, Limit, Publication, StreamPosition},
    config::RecoveryMode,
};

/// What a client has, by its own account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claimed {
    /// Offset of its last publication; 0 for none.
    pub(super) offset: u64,
    /// Epoch of its position; empty is any.
    pub(super) epoch: String,
}

/// How a recovery ended.
#[derive(Debug, PartialEq)]
pub(super) struct Recovered {
    /// Nothing is missing.
    pub(super) complete: bool,
    /// What the client gets, in order.
    pub(super) publications: Vec<Publication>,
}

/// How far back a publication is looked for that passes a filter, in cache mode. Client protocol.
const LOOK_BACK: u32 = 300;

/// What to read for a recovery. `limit` is `client.recovery_max_publication_limit`.
pub(super) fn query(mode: RecoveryMode, claimed: &Claimed, limit: Option<u32>, filtered: bool) -> HistoryQuery {
    match mode {
        RecoveryMode::Stream => {
            HistoryQuery { since: Some(claimed.offset), limit: limit.map_or(Limit::All, Limit::AtMost), reverse: false }
        }
        RecoveryMode::Cache => {
            HistoryQuery { since: None, limit: Limit::AtMost(if filtered { LOOK_BACK } else { 1 }), reverse: true }
        }
    }
}

/// What to read where only the position counts.
pub(super) fn position_query() -> HistoryQuery {
    HistoryQuery { since: None, limit: Limit::PositionOnly, reverse: false }
}

/// Compares what was read with what the client has. Publications that do not pass are left out; gaps that they leave are none.
pub(super) fn recover(
    mode: RecoveryMode,
    claimed: &Claimed,
    history: History,
    passes: impl Fn(&Publication) -> bool,
) -> Recovered {
    let History { publications, top } = history;
    match mode {
        RecoveryMode::Stream => {
            let mut recovered = stream(claimed, publications, &top);
            recovered.publications.retain(passes);
            recovered
        }
        RecoveryMode::Cache => cache(claimed, publications, &top, passes),
    }
}

fn stream(claimed: &Claimed, publications: Vec<Publication>, top: &StreamPosition) -> Recovered {
    let same_epoch = claimed.epoch.is_empty() || *claimed.epoch == *top.epoch;
    let whole = match (publications.first().and_then(offset), publications.last().and_then(offset)) {
        (Some(first), Some(last)) => first == claimed.offset + 1 && last == top.offset,
        (None, _) | (_, None) => top.offset == claimed.offset,
    };
    let complete = same_epoch && whole;
    Recovered { complete, publications: if complete { publications } else { Vec::new() } }
}

/// `publications` are newest first.
fn cache(
    claimed: &Claimed,
    publications: Vec<Publication>,
    top: &StreamPosition,
    passes: impl Fn(&Publication) -> bool,
) -> Recovered {
    let current = claimed.offset > 0 && claimed.offset == top.offset && *claimed.epoch == *top.epoch;
    let stored = publications.first().and_then(offset) == Some(top.offset) && top.offset > 0;
    let newest = publications.into_iter().find(passes).filter(|_| stored && !current);
    Recovered { complete: current || stored, publications: newest.into_iter().collect() }
}

fn offset(publication: &Publication) -> Option<u64> {
    publication.position.as_ref().map(|position| position.offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(offsets: std::ops::RangeInclusive<u64>, top: u64) -> History {
        let at = |offset| StreamPosition { epoch: "e".into(), offset };
        let publications =
            offsets.map(|offset| Publication { position: Some(at(offset)), ..Publication::default() }).collect();
        History { publications, top: at(top) }
    }

    fn claimed(offset: u64, epoch: &str) -> Claimed {
        Claimed { offset, epoch: epoch.into() }
    }

    #[test]
    #[allow(clippy::reversed_empty_ranges)]
    fn stream_recovery_is_complete_only_without_a_gap_at_either_end() {
        let cases = [
            // what the client has, what history gave, complete
            (claimed(3, "e"), history(4..=6, 6), true),
            (claimed(3, ""), history(4..=6, 6), true),
            (claimed(3, "f"), history(4..=6, 6), false),
            (claimed(2, "e"), history(4..=6, 6), false),
            (claimed(3, "e"), history(4..=6, 9), false),
            (claimed(6, "e"), history(1..=0, 6), true),
            (claimed(5, "e"), history(1..=0, 6), false),
            (claimed(9, "e"), history(1..=0, 6), false),
            (claimed(0, ""), history(1..=0, 0), true),
            (claimed(0, "_"), history(1..=0, 0), false),
        ];
        for (claimed, history, complete) in cases {
            let publications = if complete { history.publications.len() } else { 0 };
            let recovered = recover(RecoveryMode::Stream, &claimed, history.clone(), |_| true);
            assert_eq!(
                (recovered.complete, recovered.publications.len()),
                (complete, publications),
                "{claimed:?} {history:?}"
            );
        }
    }

    #[test]
    #[allow(clippy::reversed_empty_ranges)]
    fn cache_recovery_gives_the_newest_to_who_has_it_not() {
        let cases = [
            (claimed(0, ""), history(6..=6, 6), true, 1),
            (claimed(3, "f"), history(6..=6, 6), true, 1),
            (claimed(6, "e"), history(6..=6, 6), true, 0),
            (claimed(6, "e"), history(1..=0, 6), true, 0),
            (claimed(5, "e"), history(1..=0, 6), false, 0),
            (claimed(0, ""), history(1..=0, 0), false, 0),
        ];
        for (claimed, history, complete, publications) in cases {
            let recovered = recover(RecoveryMode::Cache, &claimed, history, |_| true);
            assert_eq!((recovered.complete, recovered.publications.len()), (complete, publications), "{claimed:?}");
        }
    }
}
