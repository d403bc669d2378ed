//! The open loop: publications leave when they are due, whatever became of earlier ones.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{ANSWER_GRACE, LONGEST_WAIT_NS, Lane, PublishProgress, count_reason, wait};
use crate::audit::StreamLedger;
use crate::clock::RunClock;
use crate::latency::LatencyHistogram;
use crate::payload::{PayloadFormat, Stamp};
use crate::process::own_thread_time;
use crate::schedule::{Place, Schedule, streams_per_channel};
use crate::target::lane::{Answer, Wire};

/// Publications of one WebSocket lane without an answer: the server answers in order, so order is kept however many.
const WEBSOCKET_IN_FLIGHT: usize = 256;

/// What a publisher did.
#[derive(Debug)]
pub struct Published {
    /// One ledger per stream: index `channel * streams + stream`.
    pub ledgers: Vec<StreamLedger>,
    /// Streams per channel.
    pub streams: u16,
    /// Publications due that were never sent, because their lane broke or the run was stopped while they waited.
    pub unsent: u64,
    /// Reasons of refusals, with counts.
    pub refusals: BTreeMap<String, u64>,
    /// Why lanes broke.
    pub broken: Vec<String>,
    /// From due to the moment the publisher's own loop turned to it: the generator's own lateness.
    pub own_lag: LatencyHistogram,
    /// From due to sent: own lateness plus waiting for earlier publications of the same lane.
    pub sending: LatencyHistogram,
    /// From due to the server's answer.
    pub answering: LatencyHistogram,
    /// Processor time of the thread.
    pub cpu: Duration,
    /// Wall time of the thread.
    pub wall: Duration,
}

/// Everything an open-loop publisher needs.
#[derive(Debug)]
pub struct OpenLoop {
    /// Open lanes; as many as the schedule has.
    pub lanes: Vec<Lane>,
    /// What is due when.
    pub schedule: Schedule,
    /// Names by channel index.
    pub channels: Arc<[String]>,
    /// Writes payloads.
    pub format: Arc<PayloadFormat>,
    /// The run's clock.
    pub clock: RunClock,
    /// Seen from outside.
    pub progress: Arc<PublishProgress>,
}

impl OpenLoop {
    /// Publishes the schedule, blocking; ends when all is answered, or a grace of 5 s after the last was sent.
    ///
    /// # Errors
    ///
    /// Only when the kernel refuses to wait; broken lanes are part of the result.
    pub fn run(self) -> io::Result<Published> {
        let started = Instant::now();
        let cpu_before = own_thread_time();
        let mut publisher = Publisher::new(self);
        let mut readable = vec![false; publisher.plan.lanes.len()];
        let mut buffer = vec![0; 64 << 10];
        let mut give_up = None;
        loop {
            let stopped = publisher.plan.progress.stop.load(Ordering::Relaxed);
            publisher.take_due(stopped);
            for (lane, &readable) in readable.iter().enumerate() {
                publisher.drive(lane, readable, &mut buffer);
            }
            publisher.take_answers();
            if publisher.all_sent(stopped) {
                let give_up = *give_up.get_or_insert_with(|| Instant::now() + ANSWER_GRACE);
                if publisher.all_answered() || Instant::now() > give_up {
                    break;
                }
            }
            let wait_ns = publisher.until_next_due(stopped).min(LONGEST_WAIT_NS);
            readable = wait(&mut publisher.plan.lanes, wait_ns)?;
        }
        let mut published = publisher.finish();
        published.cpu = own_thread_time().saturating_sub(cpu_before);
        published.wall = started.elapsed();
        Ok(published)
    }
}

/// The work of an open loop under way.
struct Publisher {
    plan: OpenLoop,
    published: Published,
    /// The first publication that is not yet due.
    next: u64,
    /// Due and not yet sent, per lane; bounded by the number of publications of the run, 8 bytes each.
    due: Vec<VecDeque<u64>>,
    /// Sent and not yet answered.
    waiting: HashSet<u64>,
    answers: Vec<Answer>,
    payload: Vec<u8>,
}

impl Publisher {
    fn new(plan: OpenLoop) -> Self {
        let streams = streams_per_channel(plan.channels.len() as u32, plan.lanes.len() as u32);
        let published = Published {
            ledgers: vec![StreamLedger::default(); plan.channels.len() * usize::from(streams)],
            streams,
            unsent: 0,
            refusals: BTreeMap::new(),
            broken: Vec::new(),
            own_lag: LatencyHistogram::new(),
            sending: LatencyHistogram::new(),
            answering: LatencyHistogram::new(),
            cpu: Duration::ZERO,
            wall: Duration::ZERO,
        };
        let due = vec![VecDeque::new(); plan.lanes.len()];
        Publisher { plan, published, next: 0, due, waiting: HashSet::new(), answers: Vec::new(), payload: Vec::new() }
    }

    /// Hands what has become due to its lanes; once stopped, gives up what was not sent.
    fn take_due(&mut self, stopped: bool) {
        if stopped {
            self.published.unsent += self.due.iter_mut().map(|due| std::mem::take(due).len() as u64).sum::<u64>();
            return;
        }
        let now = self.plan.clock.now_ns();
        while self.next < self.plan.schedule.total() && self.plan.schedule.due_ns(self.next) <= now {
            self.published.own_lag.record(now - self.plan.schedule.due_ns(self.next));
            self.due[self.plan.schedule.place(self.next).lane as usize].push_back(self.next);
            self.next += 1;
        }
    }

    /// Receives on one lane, publishes what is due there as far as its protocol allows, and sends.
    fn drive(&mut self, index: usize, readable: bool, buffer: &mut [u8]) {
        self.plan.lanes[index].exchange(readable, buffer, &mut self.answers);
        if self.plan.lanes[index].broken.is_some() {
            self.published.unsent += std::mem::take(&mut self.due[index]).len() as u64;
            return;
        }
        let now = self.plan.clock.now_ns();
        let lane = &mut self.plan.lanes[index];
        let limit = if matches!(lane.wire, Wire::WebSocket(_)) { WEBSOCKET_IN_FLIGHT } else { 1 };
        while lane.wire.in_flight() < limit && lane.wire.room() > 0 {
            let Some(k) = self.due[index].pop_front() else { break };
            let Place { channel, stream, seq, lane: _ } = self.plan.schedule.place(k);
            let due_ns = self.plan.schedule.due_ns(k);
            self.payload.clear();
            self.plan.format.write(Stamp { channel, stream, seq, due_ns }, &mut self.payload);
            lane.wire.publish(k, &self.plan.channels[channel as usize], &self.payload);
            self.published.ledger(channel, stream).sent = seq + 1;
            self.published.sending.record(now.saturating_sub(due_ns));
            self.plan.progress.sent.fetch_add(1, Ordering::Relaxed);
            self.waiting.insert(k);
        }
        lane.exchange(false, buffer, &mut self.answers);
    }

    fn take_answers(&mut self) {
        let now = self.plan.clock.now_ns();
        for Answer { ticket, outcome } in self.answers.drain(..) {
            self.waiting.remove(&ticket);
            self.published.answering.record(now.saturating_sub(self.plan.schedule.due_ns(ticket)));
            let Err(reason) = outcome else {
                self.plan.progress.accepted.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            self.plan.progress.refused.fetch_add(1, Ordering::Relaxed);
            count_reason(&mut self.published.refusals, reason);
            let Place { channel, stream, seq, lane: _ } = self.plan.schedule.place(ticket);
            self.published.ledger(channel, stream).refused.push(seq);
        }
    }

    fn all_sent(&self, stopped: bool) -> bool {
        let all_taken = self.next == self.plan.schedule.total() && self.due.iter().all(VecDeque::is_empty);
        stopped || all_taken || self.plan.lanes.iter().all(|lane| lane.broken.is_some())
    }

    fn all_answered(&self) -> bool {
        self.plan.lanes.iter().all(|lane| lane.broken.is_some() || lane.wire.in_flight() == 0)
    }

    fn until_next_due(&self, stopped: bool) -> u64 {
        if stopped || self.next == self.plan.schedule.total() {
            return LONGEST_WAIT_NS;
        }
        self.plan.schedule.due_ns(self.next).saturating_sub(self.plan.clock.now_ns())
    }

    fn finish(self) -> Published {
        let Publisher { plan, mut published, waiting, .. } = self;
        for k in waiting {
            let Place { channel, stream, seq, lane: _ } = plan.schedule.place(k);
            published.ledger(channel, stream).unanswered.push(seq);
        }
        for ledger in &mut published.ledgers {
            ledger.refused.sort_unstable();
            ledger.unanswered.sort_unstable();
        }
        published.broken = plan.lanes.into_iter().filter_map(|lane| lane.broken).collect();
        published
    }
}

impl Published {
    fn ledger(&mut self, channel: u32, stream: u16) -> &mut StreamLedger {
        &mut self.ledgers[channel as usize * usize::from(self.streams) + usize::from(stream)]
    }
}
