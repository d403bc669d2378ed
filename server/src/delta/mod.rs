//! Differences between one publication's payload and the one before, in the Fossil format.
//!
//! The format is described where it is read, in [`starling_client::delta`]. An [`Encoder`] finds what two payloads have
//! in common in three steps, each cheaper than the next one:
//!
//! 1. the same beginning and the same end;
//! 2. in between, after a difference, bytes at the same distance as the last copy (a number of the same length changed);
//! 3. an index over blocks of the base, made when the first two leave something over (something was inserted, removed or
//!    moved).
//!
//! Most payloads differ from the one before in a few values, so that most patches are made by comparing alone.

mod index;

use std::ops::Range;

pub use starling_client::delta::{PatchError, apply};

use index::{Index, WINDOW};

/// How far behind a difference step 2 looks, in bytes.
const NEAR: usize = 32;

/// A copy of this many bytes is good enough to look for no better one.
const LONG: usize = 128;

/// How far behind the first copy that it knows of step 3 looks for a better one, in bytes.
const LOOK_AHEAD: usize = 48;

/// How many places in the base with the same hash step 3 looks at. It bounds the time for a base that repeats itself, and
/// for one that somebody made for the purpose.
const MAX_PLACES: usize = 16;

/// Makes patches. Keeps its memory between calls: at most 320 KiB, and only as much as the largest base needed.
#[derive(Debug, Default)]
pub struct Encoder {
    index: Index,
}

impl Encoder {
    /// Writes the patch that makes `target` of `base` into `out`, in place of what `out` held.
    ///
    /// Returns `false`, and leaves `out` empty, when it is not worth while: the patch would not be shorter than the
    /// target (in bytes as they are, also when both travel as JSON strings; so compares the reference), or one of the two
    /// is 4 GiB or more. Then the target is sent whole.
    ///
    /// With `text`, the patch of a target that is UTF-8 is UTF-8, because inserts begin and end between characters; it
    /// can travel in a JSON string. (The reference cuts between bytes, and its patches are damaged on the way.) Such a
    /// patch may go to everyone. For a target that is not UTF-8 the answer is `false`.
    ///
    /// The time grows with the sum of both lengths, whatever they hold.
    pub fn encode(&mut self, base: &[u8], target: &[u8], text: bool, out: &mut Vec<u8>) -> bool {
        out.clear();
        let fits = |bytes: &[u8]| u32::try_from(bytes.len()).is_ok();
        let is_shorter = fits(base)
            && fits(target)
            && (!text || std::str::from_utf8(target).is_ok())
            && Pair { base, target, text }.encode(&mut self.index, out);
        if !is_shorter {
            out.clear();
        }
        is_shorter
    }
}

/// The two payloads.
#[derive(Clone, Copy)]
struct Pair<'a> {
    base: &'a [u8],
    target: &'a [u8],
    text: bool,
}

/// A part of the target that the base has, too.
#[derive(Clone, Copy, Debug, Default)]
struct Shared {
    base_at: usize,
    target_at: usize,
    length: usize,
}

impl Shared {
    fn target_end(&self) -> usize {
        self.target_at + self.length
    }

    /// Bytes of the operation that copies it.
    fn cost(&self) -> usize {
        digits(self.length) + digits(self.base_at) + 2
    }
}

impl Pair<'_> {
    /// Returns whether the patch is shorter than the target.
    fn encode(self, index: &mut Index, out: &mut Vec<u8>) -> bool {
        let Self { base, target, .. } = self;
        let start = self.common_start();
        let end = self.common_end(start.target_end());
        let mut middle = start.target_end()..target.len() - end.length;

        write_number(target.len(), out);
        out.push(b'\n');
        write_copy(start, out);
        let mut last = start;
        index.forget();
        while let Some(copy) = self.next_copy(index, last, middle.clone()) {
            write_insert(&target[middle.start..copy.target_at], out);
            write_copy(copy, out);
            middle.start = copy.target_end();
            last = copy;
            if out.len() >= target.len() {
                return false;
            }
        }
        if out.len() + middle.len() >= target.len() {
            return false;
        }
        write_insert(&target[middle], out);
        write_copy(end, out);
        write_number(starling_client::delta::checksum(target) as usize, out);
        out.push(b';');
        debug_assert_eq!(apply(base, out, target.len()).as_deref(), Ok(target));
        out.len() < target.len()
    }

    fn common_start(self) -> Shared {
        let length = same_at_start(self.base, self.target);
        let copy = self.between_characters(Shared { base_at: 0, target_at: 0, length });
        if copy.length > copy.cost() { copy } else { Shared::default() }
    }

    /// What both have at the end, in the target not before `from`.
    fn common_end(self, from: usize) -> Shared {
        let length = same_at_end(self.base, &self.target[from..]);
        let (base_at, target_at) = (self.base.len() - length, self.target.len() - length);
        let copy = self.between_characters(Shared { base_at, target_at, length });
        if copy.length > copy.cost() { copy } else { Shared::default() }
    }

    /// What to copy next in a part of the target.
    fn next_copy(self, index: &mut Index, last: Shared, part: Range<usize>) -> Option<Shared> {
        let near = self.at_same_distance(last, part.clone());
        if near.is_some_and(|near| near.length >= LONG) { near } else { self.indexed(index, part, near) }
    }

    /// The first copy in a part of the target that is as far from its place in the base as the last copy was.
    fn at_same_distance(self, last: Shared, part: Range<usize>) -> Option<Shared> {
        let base_start = last.base_at + (part.start - last.target_at);
        let base = self.base.get(base_start..)?;
        let target = &self.target[part.clone()];
        let (base_words, target_words) = (base.array_windows::<WINDOW>(), target.array_windows::<WINDOW>());
        let words = base_words.zip(target_words).take(NEAR).enumerate();
        words.filter(|(_, (base, target))| base == target).find_map(|(skipped, _)| {
            let length = same_at_start(&base[skipped..], &target[skipped..]);
            self.worth_while(Shared { base_at: base_start + skipped, target_at: part.start + skipped, length })
        })
    }

    /// The first copy in a part of the target that the index knows, or a better one shortly behind, or the one that is
    /// known already.
    ///
    /// It pays to look farther: rows of a table look alike, and only the words that tell them apart lead to the very row
    /// that moved. Those are words that the base has once.
    fn indexed(self, index: &mut Index, part: Range<usize>, known: Option<Shared>) -> Option<Shared> {
        let Self { base, target, .. } = self;
        if part.len() < WINDOW {
            return known;
        }
        index.learn(base);
        let gain = |copy: Shared| (copy.length + part.start).saturating_sub(copy.target_at);
        let mut best = known;
        let mut stop = known.map_or(part.end, |known| known.target_end().min(part.start + LOOK_AHEAD));
        for (at, word) in (part.start..).zip(target[part.clone()].array_windows::<WINDOW>()) {
            if at >= stop {
                break;
            }
            if best.is_some() && !index.has_once(*word) {
                continue;
            }
            for base_at in index.places(*word).take(MAX_PLACES) {
                let is_known = best.is_some_and(|best| base_at + best.target_at == at + best.base_at);
                if is_known || !base[base_at..].starts_with(word) {
                    continue;
                }
                let forward = same_at_start(&base[base_at..], &target[at..part.end]);
                let back = same_at_end(&base[..base_at], &target[part.start..at]);
                let found = Shared { base_at: base_at - back, target_at: at - back, length: back + forward };
                let Some(found) = self.worth_while(found) else { continue };
                if found.length >= LONG {
                    return Some(found);
                }
                if best.is_none_or(|best| gain(found) > gain(best)) {
                    stop = stop.min(at + LOOK_AHEAD);
                    best = Some(found);
                }
            }
        }
        best
    }

    /// The copy, cut to whole characters, if it saves bytes although an insert is split for it.
    fn worth_while(self, copy: Shared) -> Option<Shared> {
        let copy = self.between_characters(copy);
        (copy.length > copy.cost() + 2).then_some(copy)
    }

    /// Cuts what a copy has of characters at its ends, since inserts must not have the other part of them.
    fn between_characters(self, mut copy: Shared) -> Shared {
        if !self.text {
            return copy;
        }
        let is_inside_character = |at: usize| self.target.get(at).is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000);
        while copy.length > 0 && is_inside_character(copy.target_end()) {
            copy.length -= 1;
        }
        while copy.length > 0 && is_inside_character(copy.target_at) {
            (copy.base_at, copy.target_at, copy.length) = (copy.base_at + 1, copy.target_at + 1, copy.length - 1);
        }
        copy
    }
}

// === comparing ===

/// How many bytes both begin with.
fn same_at_start(left: &[u8], right: &[u8]) -> usize {
    let (left_chunks, _) = left.as_chunks::<16>();
    let (right_chunks, _) = right.as_chunks::<16>();
    let same = 16 * left_chunks.iter().zip(right_chunks).take_while(|(left, right)| left == right).count();
    same + left[same..].iter().zip(&right[same..]).take_while(|(left, right)| left == right).count()
}

/// How many bytes both end with.
fn same_at_end(left: &[u8], right: &[u8]) -> usize {
    let (_, left_chunks) = left.as_rchunks::<16>();
    let (_, right_chunks) = right.as_rchunks::<16>();
    let chunks = left_chunks.iter().rev().zip(right_chunks.iter().rev());
    let same = 16 * chunks.take_while(|(left, right)| left == right).count();
    let bytes = left[..left.len() - same].iter().rev().zip(right[..right.len() - same].iter().rev());
    same + bytes.take_while(|(left, right)| left == right).count()
}

// === writing ===

fn write_copy(copy: Shared, out: &mut Vec<u8>) {
    if copy.length > 0 {
        write_number(copy.length, out);
        out.push(b'@');
        write_number(copy.base_at, out);
        out.push(b',');
    }
}

fn write_insert(bytes: &[u8], out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        write_number(bytes.len(), out);
        out.push(b':');
        out.extend_from_slice(bytes);
    }
}

fn write_number(number: usize, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";
    for place in (0..digits(number)).rev() {
        out.push(DIGITS[number >> (6 * place) & 63]);
    }
}

/// Number of digits of a number.
fn digits(number: usize) -> usize {
    let bits = (usize::BITS - number.leading_zeros()).max(1);
    bits.div_ceil(6) as usize
}

#[cfg(test)]
mod tests;
