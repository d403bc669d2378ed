//! The only way into a worker: other threads put messages here, the worker takes all of them at once.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{adopt::Adopted, repair::Read};
use crate::{
    channels::Encoded,
    error::{Disconnect, Unsubscribed},
    limits,
    names::ChannelName,
    node::Target,
    session::{Answer, ServerRefresh, ServerSubscription, Ticket},
    settings::Settings,
};

/// Something for a worker to do.
pub enum Message {
    /// Something that happened in a channel that the worker has subscribers of.
    Deliver(Arc<Encoded>),
    /// The answer to what a session asked.
    Answer {
        /// The connection that asked; ignored when it is gone.
        connection: ConnectionRef,
        /// Which question.
        ticket: Ticket,
        /// What came of it.
        answer: Answer,
    },
    /// What was read of a channel's history to repair a gap, or to look for one.
    Repaired(Box<Read>),
    /// The bus of these channels was away.
    Interrupted(Arc<[ChannelName]>),
    /// A connection whose handshake is done.
    Adopt(Box<Adopted>),
    /// Disconnect connections of a user.
    Disconnect {
        /// Whose.
        target: Arc<Target>,
        /// Why.
        cause: Disconnect,
        /// Clients to leave alone.
        keep: Arc<[String]>,
    },
    /// Subscribe connections of a user.
    Subscribe {
        /// Whose.
        target: Arc<Target>,
        /// To what, and how.
        subscription: Arc<ServerSubscription>,
    },
    /// Change the expiry of a user's connections.
    Refresh {
        /// Whose.
        target: Arc<Target>,
        /// To what.
        refresh: Arc<ServerRefresh>,
    },
    /// End a subscription of a user's connections.
    Unsubscribe {
        /// Whose.
        target: Arc<Target>,
        /// Which; `None` only tells the clients.
        channel: Option<ChannelName>,
        /// Why.
        cause: Unsubscribed,
    },
    /// The configuration was read again.
    Settings(Arc<Settings>),
    /// Close all connections in paced batches and end.
    Drain,
}

impl Message {
    fn bytes(&self) -> usize {
        match self {
            Self::Deliver(encoded) => encoded.size(),
            _ => 64,
        }
    }
}

/// A connection of one worker: a slot, and which life of the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionRef {
    /// Index into the worker's connections.
    pub slot: u32,
    /// Counts the connections that have used the slot.
    pub generation: u32,
}

/// Queue of one worker.
///
/// Bound: [`limits::INBOX_MESSAGES`] messages or [`limits::INBOX_BYTES`] bytes of publications. At the bound publishers
/// are told "overloaded" and the bus drops; answers and control messages are always taken, since each of them ends
/// something that was begun within another bound.
///
/// At most one wake-up per idle period: only the message that finds the queue empty notifies.
pub struct Inbox {
    messages: Mutex<Vec<Message>>,
    queued: AtomicUsize,
    bytes: AtomicUsize,
    filled: Notify,
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Inbox {
    /// An empty inbox.
    pub fn new() -> Self {
        Self {
            messages: Mutex::new(Vec::new()),
            queued: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            filled: Notify::new(),
        }
    }

    /// Whether publications must wait or be refused.
    pub fn is_full(&self) -> bool {
        self.queued.load(Ordering::Relaxed) >= limits::INBOX_MESSAGES
            || self.bytes.load(Ordering::Relaxed) >= limits::INBOX_BYTES
    }

    /// Messages waiting, for a gauge.
    pub fn len(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a message. Never blocks for longer than another push or take.
    pub fn push(&self, message: Message) {
        self.push_all([message]);
    }

    /// Adds messages at once: the owner finds all of them or none.
    pub fn push_all(&self, more: impl IntoIterator<Item = Message>) {
        let begins = {
            let mut messages = self.messages.lock();
            let before = messages.len();
            messages.extend(more);
            let bytes = messages[before..].iter().map(Message::bytes).sum();
            // Counted under the lock, so that no reader sees a message taken before it was counted.
            self.queued.store(messages.len(), Ordering::Relaxed);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            before == 0 && !messages.is_empty()
        };
        if begins {
            self.filled.notify_one();
        }
    }

    /// Moves all messages to `into`, which must be empty: the two vectors change places, so neither is allocated again.
    pub fn take(&self, into: &mut Vec<Message>) {
        debug_assert!(into.is_empty());
        let mut messages = self.messages.lock();
        std::mem::swap(&mut *messages, into);
        self.queued.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
    }

    /// Waits until a message finds the queue empty. For the owner only; may return once too often, never too seldom.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }
}
