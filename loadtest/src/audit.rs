//! The exact audit: what each subscriber should have got, and what it got.
//!
//! For every subscriber, channel and stream the audit keeps the next sequence number expected and the numbers skipped so
//! far. Whatever arrives is then one of: the next one, a jump (the skipped ones become missing), a missing one that comes
//! late (*reordered*), or one seen before (*duplicated*). At the end the publisher's [`StreamLedger`] says what was really
//! accepted by the server; what is still missing of that is *lost*. Nothing is sampled and nothing is estimated.

use std::collections::BTreeMap;

use serde::Serialize;

/// Detailed faults kept for the report; the counts go on beyond it.
pub const FAULTS_KEPT: usize = 50;

/// One finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Published and accepted, never delivered to this subscriber.
    Lost,
    /// Delivered more than once to this subscriber.
    Duplicated,
    /// Delivered after a later message of the same stream.
    Reordered,
    /// Delivered with other bytes than were published, or unreadable.
    Altered,
    /// Delivered to a subscriber of another channel.
    Misrouted,
    /// Delivered although the server had answered the publish with an error, or never published.
    Unexpected,
}

impl FaultKind {
    /// Every kind, in the order of reports.
    pub const ALL: [FaultKind; 6] = [
        FaultKind::Lost,
        FaultKind::Duplicated,
        FaultKind::Reordered,
        FaultKind::Altered,
        FaultKind::Misrouted,
        FaultKind::Unexpected,
    ];

    /// The word for it in reports.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::Lost => "lost",
            FaultKind::Duplicated => "duplicated",
            FaultKind::Reordered => "reordered",
            FaultKind::Altered => "altered",
            FaultKind::Misrouted => "misrouted",
            FaultKind::Unexpected => "unexpected",
        }
    }
}

/// One fault with its place. `stream` and `seq` are absent where the message could not tell them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// What went wrong.
    pub kind: FaultKind,
    /// Index of the subscriber.
    pub subscriber: u32,
    /// Index of the channel.
    pub channel: u32,
    /// Stream within the channel.
    pub stream: Option<u16>,
    /// Sequence number within the stream.
    pub seq: Option<u64>,
}

/// Counts per kind, and the first [`FAULTS_KEPT`] faults in full.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    counts: BTreeMap<FaultKind, u64>,
    /// The first faults found.
    pub first: Vec<Fault>,
}

impl Findings {
    /// Notes one fault.
    pub fn note(&mut self, fault: Fault) {
        *self.counts.entry(fault.kind).or_default() += 1;
        if self.first.len() < FAULTS_KEPT {
            self.first.push(fault);
        }
    }

    /// How many of one kind.
    pub fn count(&self, kind: FaultKind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or(0)
    }

    /// How many of all kinds.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Adds what another part of the audit found.
    pub fn merge(&mut self, other: Findings) {
        let Findings { counts, first } = other;
        for (kind, count) in counts {
            *self.counts.entry(kind).or_default() += count;
        }
        let room = FAULTS_KEPT.saturating_sub(self.first.len());
        self.first.extend(first.into_iter().take(room));
    }
}

/// What the publisher knows of one stream at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamLedger {
    /// How many were sent: sequence numbers `0..sent`.
    pub sent: u64,
    /// Answered with an error: must not arrive. Ascending.
    pub refused: Vec<u64>,
    /// Without an answer (connection lost, time over): may arrive, need not. Ascending.
    pub unanswered: Vec<u64>,
}

impl StreamLedger {
    /// How many every subscriber must have got.
    pub fn accepted(&self) -> u64 {
        self.sent - self.refused.len() as u64 - self.unanswered.len() as u64
    }
}

/// What a delivery was, in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// New and not before its time.
    InOrder,
    /// New, but a later one came first.
    Reordered,
    /// Seen before.
    Duplicated,
}

/// The record of one subscriber in one stream: 16 bytes while nothing is missing.
#[derive(Clone, Debug, Default)]
pub struct StreamAudit {
    next: u64,
    missing: Option<Box<Missing>>,
}

#[derive(Clone, Debug, Default)]
struct Missing {
    /// Skipped sequence numbers: start to end (exclusive) of each gap.
    gaps: BTreeMap<u64, u64>,
    /// Times in which the subscriber was not there, in order.
    absences: Vec<Absence>,
}

/// A time in which a subscriber was cut off on purpose: what it missed then is not lost.
///
/// It begins at the first message that had not arrived when the connection was closed, and ends when the server had
/// confirmed the new subscription: a message that was due later was also sent later, so the server owes it.
#[derive(Clone, Copy, Debug)]
struct Absence {
    from_seq: u64,
    until_ns: u64,
}

impl StreamAudit {
    /// Records the arrival of `seq` and says what it was.
    pub fn arrived(&mut self, seq: u64) -> Arrival {
        if seq == self.next {
            self.next += 1;
            return Arrival::InOrder;
        }
        if seq > self.next {
            self.missing.get_or_insert_default().gaps.insert(self.next, seq);
            self.next = seq + 1;
            return Arrival::InOrder;
        }
        if self.take_missing(seq) { Arrival::Reordered } else { Arrival::Duplicated }
    }

    /// The connection was cut on purpose: from here on, nothing is owed until [`StreamAudit::returned`].
    pub fn left(&mut self) {
        let absence = Absence { from_seq: self.next, until_ns: u64::MAX };
        self.missing.get_or_insert_default().absences.push(absence);
    }

    /// The subscriber is back since `now_ns`. With `complete`, the server said that it sends everything missed meanwhile,
    /// and is held to it.
    pub fn returned(&mut self, now_ns: u64, complete: bool) {
        let Some(missing) = &mut self.missing else { return };
        let open = missing.absences.last_mut().filter(|absence| absence.until_ns == u64::MAX);
        if let Some(absence) = open {
            absence.until_ns = if complete { 0 } else { now_ns };
        }
    }

    /// Compares with what was published; `visit` gets each fault's kind and sequence number. `due_ns` says when a message
    /// of this stream was due, and is asked only about what was missed by a subscriber that was away. Returns how many
    /// messages were missed that way.
    pub fn finish(
        &self,
        ledger: &StreamLedger,
        due_ns: impl Fn(u64) -> u64,
        mut visit: impl FnMut(FaultKind, u64),
    ) -> u64 {
        let mut away = 0;
        let absences = self.missing.as_deref().map_or(&[][..], |missing| &missing.absences);
        let was_away = |seq| absences.iter().any(|absence| absence.from_seq <= seq && due_ns(seq) < absence.until_ns);
        let gaps = self.missing.iter().flat_map(|missing| &missing.gaps);
        let skipped = gaps.map(|(&start, &end)| start..end);
        let excused = |seq| ledger.refused.binary_search(&seq).is_ok() || ledger.unanswered.binary_search(&seq).is_ok();
        for gap in skipped.chain(std::iter::once(self.next..ledger.sent)) {
            for seq in gap.start..gap.end.min(ledger.sent) {
                if excused(seq) {
                    continue;
                }
                if was_away(seq) {
                    away += 1;
                } else {
                    visit(FaultKind::Lost, seq);
                }
            }
        }
        for &seq in &ledger.refused {
            if self.has(seq) {
                visit(FaultKind::Unexpected, seq);
            }
        }
        for seq in ledger.sent..self.next {
            if self.has(seq) {
                visit(FaultKind::Unexpected, seq);
            }
        }
        away
    }

    fn has(&self, seq: u64) -> bool {
        let in_gap = |missing: &Missing| missing.gaps.range(..=seq).next_back().is_some_and(|(_, &end)| seq < end);
        seq < self.next && !self.missing.as_deref().is_some_and(in_gap)
    }

    /// Removes `seq` from the gaps; false when it was in none.
    fn take_missing(&mut self, seq: u64) -> bool {
        let Some(missing) = &mut self.missing else { return false };
        let gaps = &mut missing.gaps;
        let Some((&start, &end)) = gaps.range(..=seq).next_back() else { return false };
        if seq >= end {
            return false;
        }
        gaps.remove(&start);
        if start < seq {
            gaps.insert(start, seq);
        }
        if seq + 1 < end {
            gaps.insert(seq + 1, end);
        }
        if gaps.is_empty() && missing.absences.is_empty() {
            self.missing = None;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(arrivals: &[u64], ledger: StreamLedger) -> (Vec<Arrival>, Vec<(FaultKind, u64)>) {
        let mut audit = StreamAudit::default();
        let kinds = arrivals.iter().map(|&seq| audit.arrived(seq)).collect();
        let mut faults = Vec::new();
        audit.finish(&ledger, |seq| seq, |kind, seq| faults.push((kind, seq)));
        (kinds, faults)
    }

    fn sent(count: u64) -> StreamLedger {
        StreamLedger { sent: count, ..StreamLedger::default() }
    }

    use Arrival::*;

    #[test]
    fn a_clean_stream_has_no_faults() {
        assert_eq!(outcome(&[0, 1, 2], sent(3)), (vec![InOrder; 3], vec![]));
    }

    #[test]
    fn losses_at_the_start_in_the_middle_and_at_the_end_are_each_named() {
        let lost = [0, 3, 4, 6].map(|seq| (FaultKind::Lost, seq)).to_vec();
        assert_eq!(outcome(&[1, 2, 5], sent(7)).1, lost);
    }

    #[test]
    fn a_subscriber_that_got_nothing_lost_everything() {
        assert_eq!(outcome(&[], sent(3)).1.len(), 3);
    }

    #[test]
    fn a_repeat_is_a_duplicate_and_not_a_loss() {
        assert_eq!(outcome(&[0, 1, 1, 0, 2], sent(3)).0, [InOrder, InOrder, Duplicated, Duplicated, InOrder]);
    }

    #[test]
    fn a_late_one_is_reordered_once_and_then_a_duplicate() {
        let (kinds, faults) = outcome(&[0, 4, 2, 2, 1, 3], sent(5));
        assert_eq!(kinds, [InOrder, InOrder, Reordered, Duplicated, Reordered, Reordered]);
        assert_eq!(faults, []);
    }

    /// Message `seq` is due at `seq`: 0 and 1 arrive, the subscriber leaves, is back at time 5, and gets `then`.
    fn absent_until_5(complete: bool, then: &[u64]) -> (u64, Vec<(FaultKind, u64)>) {
        let mut audit = StreamAudit::default();
        audit.arrived(0);
        audit.arrived(1);
        audit.left();
        audit.returned(5, complete);
        for &seq in then {
            audit.arrived(seq);
        }
        let mut faults = Vec::new();
        let away = audit.finish(&sent(8), |seq| seq, |kind, seq| faults.push((kind, seq)));
        (away, faults)
    }

    #[test]
    fn what_was_due_while_a_subscriber_was_away_is_not_lost_and_what_was_due_later_is() {
        assert_eq!(absent_until_5(false, &[5, 6, 7]), (3, vec![]));
        assert_eq!(absent_until_5(false, &[4, 5, 6, 7]), (2, vec![]));
        assert_eq!(absent_until_5(false, &[6, 7]), (3, vec![(FaultKind::Lost, 5)]));
        assert_eq!(absent_until_5(false, &[]).1.len(), 3);
    }

    #[test]
    fn a_server_that_says_it_recovered_everything_is_held_to_it() {
        assert_eq!(absent_until_5(true, &[2, 3, 4, 5, 6, 7]), (0, vec![]));
        assert_eq!(absent_until_5(true, &[2, 4, 5, 6, 7]), (0, vec![(FaultKind::Lost, 3)]));
    }

    #[test]
    fn one_loss_in_a_hundred_thousand_is_found() {
        let mut arrivals: Vec<u64> = (0..100_000).collect();
        arrivals.remove(54_321);
        assert_eq!(outcome(&arrivals, sent(100_000)).1, [(FaultKind::Lost, 54_321)]);
    }

    #[test]
    fn a_refused_publication_must_not_arrive_and_an_unanswered_one_may() {
        let ledger = StreamLedger { sent: 6, refused: vec![1, 2], unanswered: vec![3, 4] };
        assert_eq!(ledger.accepted(), 2);
        assert_eq!(outcome(&[0, 2, 4, 5], ledger).1, [(FaultKind::Unexpected, 2)]);
    }

    #[test]
    fn a_publication_that_nobody_sent_is_unexpected() {
        assert_eq!(outcome(&[0, 1, 2], sent(2)).1, [(FaultKind::Unexpected, 2)]);
    }

    #[test]
    fn counts_go_on_when_details_are_full() {
        let mut findings = Findings::default();
        for seq in 0..200 {
            findings.note(Fault { kind: FaultKind::Lost, subscriber: 0, channel: 0, stream: Some(0), seq: Some(seq) });
        }
        assert_eq!((findings.total(), findings.first.len()), (200, FAULTS_KEPT));
    }
}
