//! What became of publications with idempotency keys, for five minutes. Pure: time is an argument.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::{broker::StreamPosition, clock::Moment};

/// How long a key is remembered.
pub(super) const REMEMBER: Duration = Duration::from_secs(300);

/// Results of one channel by key. Their number is that of the keys of five minutes; there is no other bound, since
/// forgetting one earlier would break the promise to its publisher.
#[derive(Default)]
pub(super) struct Results {
    by_key: HashMap<Arc<str>, Option<StreamPosition>>,
    /// All live equally long, so that the oldest is the first to go.
    in_order: VecDeque<(Moment, Arc<str>)>,
}

impl Results {
    /// Position of the first publication with this key: the inner `None` when it had none.
    pub(super) fn get(&self, key: &str) -> Option<Option<StreamPosition>> {
        self.by_key.get(key).cloned()
    }

    /// Remembers the first publication with a key.
    pub(super) fn remember(&mut self, key: &str, position: Option<StreamPosition>, now: Moment) {
        let key: Arc<str> = key.into();
        self.by_key.insert(Arc::clone(&key), position);
        self.in_order.push_back((now + REMEMBER, key));
    }

    /// Forgets what is old enough.
    pub(super) fn expire(&mut self, now: Moment) {
        while self.in_order.front().is_some_and(|(at, _)| *at <= now) {
            let (_, key) = self.in_order.pop_front().expect("looked at above");
            self.by_key.remove(&key);
        }
        if self.in_order.is_empty() {
            *self = Self::default();
        }
    }

    /// When the oldest is forgotten; `None` when there is none.
    pub(super) fn next_expiry(&self) -> Option<Moment> {
        self.in_order.front().map(|(at, _)| *at)
    }
}
