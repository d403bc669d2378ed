//! Publications with history on their way to one server, gathered into few calls.
//!
//! A lone publication is sent at once. Those that come while a call is under way wait for its end and then leave together, in the
//! order in which they came: under load a call serves many, and nobody waits for company. That costs Redis a quarter of as many
//! calls when the publications are of one channel, a half with 32 channels, and two thirds when each is of another one.
//!
//! Bounds: at most [`BATCH`] publications in a call, since Redis serves nobody else meanwhile; at most [`WAITING`] and
//! [`WAITING_BYTES`] waiting, beyond which publishing answers "overloaded"; and nobody waits longer than the time limit of
//! settings. After that, or when the call failed, a publication may or may not have happened.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::oneshot, time::timeout};

use super::{
    commands::Commands,
    complaint::Complaint,
    scripts::{self, Append},
};
use crate::broker::{BrokerError, Published};

/// Most publications in one call: a quarter of a millisecond of Redis for one channel, one for as many channels.
const BATCH: usize = 64;

/// Bounds of what waits for the call under way: about a second of work.
const WAITING: usize = 65_536;
const WAITING_BYTES: usize = 64 * 1024 * 1024;

/// The publications of one server.
pub(super) struct Publisher {
    commands: Arc<Commands>,
    queue: Mutex<Queue>,
    limit: Duration,
    runtime: Handle,
    complaint: Mutex<Complaint>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// Whether a task sends what waits.
    sending: bool,
}

struct Waiting {
    append: Append,
    answer: oneshot::Sender<Result<Published, BrokerError>>,
}

impl Publisher {
    /// Sends over `commands`; nobody waits longer than `limit`.
    pub(super) fn new(commands: Arc<Commands>, limit: Duration, runtime: &Handle) -> Self {
        let complaint = Mutex::new(Complaint::default());
        Self { commands, queue: Mutex::default(), limit, runtime: runtime.clone(), complaint }
    }

    /// Publishes; its place in the order is that of the call, whether or not the future is polled.
    pub(super) fn publish(self: &Arc<Self>, append: Append) -> BoxFuture<'static, Result<Published, BrokerError>> {
        let (answer, answered) = oneshot::channel();
        {
            let mut queue = self.queue.lock();
            if queue.waiting.len() >= WAITING || queue.bytes >= WAITING_BYTES {
                return std::future::ready(Err(BrokerError::Overloaded)).boxed();
            }
            queue.bytes += append.payload.len();
            queue.waiting.push_back(Waiting { append, answer });
            if !queue.sending {
                queue.sending = true;
                self.runtime.spawn(Arc::clone(self).send());
            }
        }
        let limit = self.limit;
        async move {
            match timeout(limit, answered).await {
                Ok(Ok(answer)) => answer,
                // The runtime has ended, or Redis takes too long.
                Ok(Err(_)) | Err(_) => Err(BrokerError::Unavailable),
            }
        }
        .boxed()
    }

    /// Sends until nothing waits.
    async fn send(self: Arc<Self>) {
        while let Some(batch) = self.next_batch() {
            let (appends, answers): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|Waiting { append, answer }| (append, answer)).unzip();
            let published =
                self.commands.run(|connection| async { scripts::publish(connection, &appends).await }).await;
            match published {
                Ok(published) => {
                    for (answer, published) in answers.into_iter().zip(published) {
                        // Who gave up waiting has its answer.
                        let _ = answer.send(published.map_err(|error| self.complain(&error)));
                    }
                }
                Err(error) => {
                    for answer in answers {
                        let _ = answer.send(Err(error));
                    }
                }
            }
        }
    }

    fn next_batch(&self) -> Option<Vec<Waiting>> {
        let mut queue = self.queue.lock();
        if queue.waiting.is_empty() {
            queue.sending = false;
            return None;
        }
        let count = queue.waiting.len().min(BATCH);
        let batch: Vec<_> = queue.waiting.drain(..count).collect();
        queue.bytes -= batch.iter().map(|waiting| waiting.append.payload.len()).sum::<usize>();
        Some(batch)
    }

    fn complain(&self, error: &str) -> BrokerError {
        if let Some(unsaid) = self.complaint.lock().due(Instant::now()) {
            tracing::error!(%error, unsaid, "Redis refused a publication");
        }
        BrokerError::Unavailable
    }
}
