//! The receiving side: a few threads that hold all subscribers and check everything that arrives.
//!
//! Each thread is a current-thread runtime with one local task per connection. What a connection costs while idle is its
//! task, its socket's registration and a `Subscriber` of some hundred bytes; there is no buffer per connection, all
//! read into the one of their thread. A message costs one `recv`, a look at the frame header and at the message, and
//! one comparison with what it should be.

mod disruption;
mod subscriber;
mod thread;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

pub use self::disruption::Disrupted;
use self::thread::ThreadOutcome;
use crate::audit::{Fault, Findings, StreamAudit, StreamLedger};
use crate::fleet::Fleet;
use crate::interrupt::Interrupt;
use crate::latency::LatencyHistogram;
use crate::phase::Disruption;

/// The subscribers of one fleet and the threads that hold them.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    fleet: Arc<Fleet>,
    threads: Vec<JoinHandle<ThreadOutcome>>,
    stop: watch::Sender<bool>,
}

/// What can be seen of a pool while it works.
#[derive(Debug, Default)]
struct Shared {
    subscribed: AtomicU64,
    delivered: AtomicU64,
    faults: AtomicU64,
    ended: AtomicU64,
    milestone: AtomicU64,
    measuring: AtomicBool,
    plan: OnceLock<RunPlan>,
    changed: Condvar,
    notes: Mutex<Notes>,
}

/// When what happens: the phases of a run, from beginning to end in Unix nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct RunPlan {
    /// Time and disruption of each phase, in order.
    pub phases: Vec<(Range<u64>, Disruption)>,
}

impl RunPlan {
    /// The phase at a moment, by index.
    fn at(&self, now_ns: u64) -> Option<(usize, Disruption)> {
        let index = self.phases.iter().position(|(time, _)| time.contains(&now_ns))?;
        Some((index, self.phases[index].1))
    }
}

#[derive(Debug, Default)]
struct Notes {
    /// The first reason why a subscriber could not be set up.
    failure: Option<String>,
    /// Latencies since they were last asked for.
    interval: LatencyHistogram,
}

/// Numbers of a pool at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolStatus {
    /// Subscribers whose subscriptions were all answered, without those that are away.
    pub subscribed: u64,
    /// Deliveries of new publications.
    pub delivered: u64,
    /// Faults found so far; losses are found at the end only.
    pub faults: u64,
    /// Connections that ended without our asking.
    pub ended: u64,
}

/// Everything the receiving side found.
#[derive(Debug)]
pub struct Received {
    /// The audit.
    pub findings: Findings,
    /// Deliveries of new publications.
    pub delivered: u64,
    /// Messages of other runs on our channels.
    pub foreign: u64,
    /// From due to received.
    pub latency: LatencyHistogram,
    /// The same by phase; empty when there was only one.
    pub phases: Vec<LatencyHistogram>,
    /// What came of cut connections and of clients that misbehave.
    pub disrupted: Disrupted,
    /// Messages that subscribers missed because they were away.
    pub missed_while_away: u64,
    /// How late the receiving threads' own timers ran: the generator's delay.
    pub loop_delay: LatencyHistogram,
    /// Connections that ended without our asking, by reason.
    pub ended: BTreeMap<String, u64>,
}

impl Pool {
    /// Starts the threads; they begin to connect at once.
    ///
    /// # Errors
    ///
    /// When a thread or a runtime cannot be made.
    pub fn start(fleet: Fleet) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let fleet = Arc::new(fleet);
        let (stop, stopped) = watch::channel(false);
        let mut threads = Vec::new();
        for thread in 0..fleet.threads {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
            let (shared, fleet, stopped) = (shared.clone(), fleet.clone(), stopped.clone());
            let work = move || thread::run(runtime, shared, fleet, thread, stopped);
            threads.push(std::thread::Builder::new().name(format!("receive-{thread}")).spawn(work)?);
        }
        Ok(Pool { shared, fleet, threads, stop })
    }

    /// The numbers now.
    pub fn status(&self) -> PoolStatus {
        let read = |number: &AtomicU64| number.load(Ordering::SeqCst);
        let Shared { subscribed, delivered, faults, ended, .. } = &*self.shared;
        PoolStatus {
            subscribed: read(subscribed),
            delivered: read(delivered),
            faults: read(faults),
            ended: read(ended),
        }
    }

    /// From now on the threads' own delay counts: opening thousands of connections delays them and is no matter.
    /// Connections are cut as `plan` says.
    pub fn begin_measuring(&self, plan: RunPlan) {
        self.shared.plan.get_or_init(|| plan);
        self.shared.measuring.store(true, Ordering::Relaxed);
    }

    /// Latencies recorded since the last call.
    pub fn take_interval(&self) -> LatencyHistogram {
        std::mem::take(&mut self.shared.notes().interval)
    }

    /// Waits until all subscribers are subscribed, calling `progress` about once a second.
    ///
    /// # Errors
    ///
    /// In words, as soon as one subscriber fails, is ended by the server, after `timeout`, or on interrupt.
    pub fn wait_subscribed(
        &self,
        timeout: Duration,
        interrupt: &Interrupt,
        mut progress: impl FnMut(PoolStatus),
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + timeout;
        let mut next_line = Instant::now() + Duration::from_secs(1);
        loop {
            let status = self.status();
            if let Some(failure) = &self.shared.notes().failure {
                anyhow::bail!("{failure}");
            }
            if status.subscribed == u64::from(self.fleet.subscribers) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let (subscribed, wanted) = (status.subscribed, self.fleet.subscribers);
                anyhow::bail!("after {timeout:?} only {subscribed} of {wanted} subscribers are subscribed");
            }
            if interrupt.wait(Duration::from_millis(10)) {
                anyhow::bail!("interrupted while subscribing");
            }
            if Instant::now() > next_line {
                progress(status);
                next_line += Duration::from_secs(1);
            }
        }
    }

    /// Waits until `count` deliveries have come since the start; false when the time was over first.
    pub fn wait_delivered(&self, count: u64, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        self.shared.milestone.store(count, Ordering::SeqCst);
        let mut notes = self.shared.notes();
        while self.shared.delivered.load(Ordering::SeqCst) < count {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            notes = self.shared.changed.wait_timeout(notes, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Closes all connections and completes the audit against what was published (index `channel * streams + stream`).
    /// `due_ns` says when a message was due by that index and its sequence number; only a run that cuts connections asks.
    pub fn finish(self, ledgers: &[StreamLedger], due_ns: impl Fn(usize, u64) -> u64) -> Received {
        // Threads that have already ended do not mind.
        self.stop.send_replace(true);
        let mut received = Received {
            findings: Findings::default(),
            delivered: self.status().delivered,
            foreign: 0,
            latency: LatencyHistogram::new(),
            phases: Vec::new(),
            disrupted: Disrupted::default(),
            missed_while_away: 0,
            loop_delay: LatencyHistogram::new(),
            ended: BTreeMap::new(),
        };
        for thread in self.threads {
            let outcome = thread.join().expect("receiving threads do not panic");
            let ThreadOutcome { audits, findings, foreign, latency, phases, disrupted, loop_delay, ended } = outcome;
            if received.phases.len() < phases.len() {
                received.phases.resize_with(phases.len(), LatencyHistogram::new);
            }
            received.phases.iter_mut().zip(&phases).for_each(|(all, one)| all.merge(one));
            received.disrupted.merge(disrupted);
            received.findings.merge(findings);
            received.foreign += foreign;
            received.latency.merge(&latency);
            received.loop_delay.merge(&loop_delay);
            ended.into_iter().for_each(|(reason, count)| *received.ended.entry(reason).or_default() += count);
            for (subscriber, audits) in audits {
                let findings = &mut received.findings;
                let missed = finish_subscriber(&self.fleet, subscriber, &audits, ledgers, &due_ns, findings);
                received.missed_while_away += missed;
            }
        }
        received
    }
}

fn finish_subscriber(
    fleet: &Fleet,
    subscriber: u32,
    audits: &[StreamAudit],
    ledgers: &[StreamLedger],
    due_ns: impl Fn(usize, u64) -> u64,
    findings: &mut Findings,
) -> u64 {
    let mut missed = 0;
    let streams = usize::from(fleet.streams);
    for (channel, audits) in fleet.channels_of(subscriber).zip(audits.chunks(streams)) {
        let first = channel as usize * streams;
        for (stream, (audit, ledger)) in audits.iter().zip(ledgers.iter().skip(first)).enumerate() {
            missed += audit.finish(
                ledger,
                |seq| due_ns(first + stream, seq),
                |kind, seq| {
                    findings.note(Fault { kind, subscriber, channel, stream: Some(stream as u16), seq: Some(seq) });
                },
            );
        }
    }
    missed
}

impl Shared {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, reason: String) {
        self.notes().failure.get_or_insert(reason);
    }

    fn count_delivered(&self, count: u64) {
        let before = self.delivered.fetch_add(count, Ordering::SeqCst);
        let milestone = self.milestone.load(Ordering::SeqCst);
        if before < milestone && milestone <= before + count {
            // The lock makes sure that a waiter is either before its look at the number or already waiting.
            drop(self.notes());
            self.changed.notify_all();
        }
    }
}
