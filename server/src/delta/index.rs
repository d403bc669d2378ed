//! Where in the base a run of bytes occurs.

/// Bytes that are looked up at once.
pub(super) const WINDOW: usize = 8;

/// Blocks begin this many bytes apart, or farther in a large base. So every run of `WINDOW + STRIDE - 1` bytes is found.
const STRIDE: usize = 4;

/// Bound of the number of blocks, and so of memory: 20 bytes for each at most.
const MAX_BLOCKS: usize = 1 << 14;

/// A hash table over blocks of the base. Forgotten and filled again for each pair; its memory stays.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// For each hash the last block that has it, counted from 1; 0 for none.
    heads: Vec<u32>,
    /// For each block, the one before with the same hash.
    before: Vec<u32>,
    stride: usize,
    shift: u32,
}

impl Index {
    pub(super) fn forget(&mut self) {
        self.before.clear();
    }

    /// Fills the table, unless it was filled since it was forgotten.
    pub(super) fn learn(&mut self, base: &[u8]) {
        if !self.before.is_empty() || base.len() < WINDOW {
            return;
        }
        self.stride = base.len().div_ceil(MAX_BLOCKS).max(STRIDE);
        let blocks = (base.len() - WINDOW) / self.stride + 1;
        // Two to four times as many hashes as blocks, so that most words that occur once are alone with theirs.
        let bits = blocks.ilog2() + 2;
        self.shift = u64::BITS - bits;
        self.heads.clear();
        self.heads.resize(1 << bits, 0);
        for (block, word) in (1_u32..).zip(base.array_windows::<WINDOW>().step_by(self.stride)) {
            let head = &mut self.heads[hash(*word, self.shift)];
            self.before.push(std::mem::replace(head, block));
        }
    }

    #[cfg(test)]
    pub(super) fn is_forgotten(&self) -> bool {
        self.before.is_empty()
    }

    #[cfg(test)]
    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<u32>() * (self.heads.capacity() + self.before.capacity())
    }

    /// Whether exactly one block may begin with this word.
    pub(super) fn has_once(&self, word: [u8; WINDOW]) -> bool {
        let mut places = self.places(word);
        places.next().is_some() && places.next().is_none()
    }

    /// Offsets of blocks that may begin with this word, the last one first.
    pub(super) fn places(&self, word: [u8; WINDOW]) -> impl Iterator<Item = usize> {
        let block = |number: u32| (number as usize).checked_sub(1);
        let first = if self.before.is_empty() { None } else { block(self.heads[hash(word, self.shift)]) };
        let blocks = std::iter::successors(first, move |&found| block(self.before[found]));
        blocks.map(|block| block * self.stride)
    }
}

/// The upper bits of a product with an odd constant (that of the golden ratio) depend on all bits of the word.
fn hash(word: [u8; WINDOW], shift: u32) -> usize {
    (u64::from_le_bytes(word).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> shift) as usize
}
