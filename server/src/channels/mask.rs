//! Which workers hold subscribers of a channel, a bit each.

use smallvec::SmallVec;

/// Set of worker numbers. Up to 64 workers need no allocation.
#[derive(Debug, Default)]
pub(super) struct WorkerMask(SmallVec<[u64; 1]>);

impl WorkerMask {
    pub(super) fn insert(&mut self, worker: usize) {
        let word = worker / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (worker % 64);
    }

    pub(super) fn remove(&mut self, worker: usize) {
        if let Some(word) = self.0.get_mut(worker / 64) {
            *word &= !(1 << (worker % 64));
        }
    }

    /// The workers in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(index, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                if rest == 0 {
                    return None;
                }
                let bit = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                Some(index * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_workers_beyond_the_first_word() {
        let mut mask = WorkerMask::default();
        for worker in [130, 0, 63, 64] {
            mask.insert(worker);
        }
        mask.remove(63);
        mask.remove(500);
        assert_eq!(mask.iter().collect::<Vec<_>>(), [0, 64, 130]);
    }
}
