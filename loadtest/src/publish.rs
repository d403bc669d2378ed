//! The publisher: lanes on sockets, driven by one thread.
//!
//! The thread waits in `ppoll`, whose timeout is in nanoseconds: the timers of the asynchronous runtime are a millisecond
//! wide, and in an open loop that millisecond would be added to every latency.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::audit::StreamLedger;
use crate::clock::{RunClock, nanoseconds};
use crate::latency::LatencyHistogram;
use crate::payload::{PayloadFormat, Stamp};
use crate::process::own_thread_time;
use crate::schedule::{Schedule, streams_per_channel};
use crate::target::Endpoint;
use crate::target::centrifuge::Encoding;
use crate::target::grpc::GrpcWire;
use crate::target::http::HttpWire;
use crate::target::lane::{Answer, Via, WebSocketWire, Wire};

/// Publications of one WebSocket lane without an answer: the server answers in order, so order is kept however many.
const WEBSOCKET_IN_FLIGHT: usize = 256;

/// How long publications may go without an answer at the end before they count as unanswered.
const ANSWER_GRACE: Duration = Duration::from_secs(5);

/// Longest wait without looking at the stop flag.
const LONGEST_WAIT_NS: u64 = 50_000_000;

/// How to reach the server for publishing.
#[derive(Clone, Debug)]
pub struct PublishTarget {
    /// Which protocol.
    pub via: Via,
    /// Where.
    pub endpoint: Endpoint,
    /// API key of HTTP and gRPC; empty for none.
    pub key: String,
    /// Token of a WebSocket publisher; empty for anonymous.
    pub token: String,
    /// Encoding of a WebSocket publisher.
    pub encoding: Encoding,
}

/// One connection that publishes.
#[derive(Debug)]
pub struct Lane {
    socket: TcpStream,
    wire: Wire,
    broken: Option<String>,
}

impl Lane {
    /// Connects and completes any handshake, blocking.
    ///
    /// # Errors
    ///
    /// Says which step failed.
    pub fn open(target: &PublishTarget, timeout: Duration) -> anyhow::Result<Self> {
        let address = target.endpoint.address;
        let socket = TcpStream::connect_timeout(&address, timeout)
            .with_context(|| format!("connecting a publisher to {address}"))?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let wire = match target.via {
            Via::Http => Wire::Http(HttpWire::new(&target.endpoint, &target.key)),
            Via::Grpc => Wire::Grpc(GrpcWire::new(&target.endpoint, &target.key)),
            Via::Websocket => {
                Wire::WebSocket(WebSocketWire::new(&target.endpoint, target.encoding, target.token.clone()))
            }
        };
        let mut lane = Lane { socket, wire, broken: None };
        lane.drive_until(timeout, &mut Vec::new(), |lane, _| lane.wire.ready()).context("publisher's handshake")?;
        Ok(lane)
    }

    /// Publishes once and waits for the answer, blocking.
    ///
    /// # Errors
    ///
    /// The server's refusal, a broken connection, or no answer within `timeout`.
    pub fn publish_and_wait(&mut self, channel: &str, data: &[u8], timeout: Duration) -> anyhow::Result<()> {
        self.wire.publish(0, channel, data);
        let mut answers = Vec::new();
        self.drive_until(timeout, &mut answers, |_, answers| !answers.is_empty())?;
        match answers.pop() {
            Some(Answer { outcome: Err(reason), .. }) => bail!("the server refused a publication: {reason}"),
            Some(Answer { outcome: Ok(()), .. }) | None => Ok(()),
        }
    }

    /// Answers what the server asks meanwhile, such as pings; does not block.
    ///
    /// # Errors
    ///
    /// When the connection is broken.
    pub fn keep_alive(&mut self) -> anyhow::Result<()> {
        self.exchange(true, &mut [0; 4 << 10], &mut Vec::new());
        self.broken.as_ref().map_or(Ok(()), |reason| bail!("{reason}"))
    }

    fn drive_until(
        &mut self,
        timeout: Duration,
        answers: &mut Vec<Answer>,
        done: impl Fn(&Lane, &[Answer]) -> bool,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + timeout;
        let mut buffer = [0; 16 << 10];
        loop {
            self.exchange(true, &mut buffer, answers);
            if let Some(reason) = &self.broken {
                bail!("{reason}");
            }
            if done(self, answers) {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("no answer from {} within {timeout:?}", self.socket.peer_addr()?);
            }
            wait(std::slice::from_mut(self), nanoseconds(left))?;
        }
    }

    /// Sends what is queued and, when the socket is readable, takes what has arrived.
    fn exchange(&mut self, readable: bool, buffer: &mut [u8], answers: &mut Vec<Answer>) {
        if self.broken.is_some() {
            return;
        }
        let mut result = self.send();
        if readable && result.is_ok() {
            result = self.receive(buffer, answers).and_then(|()| self.send());
        }
        self.broken = result.err();
    }

    fn send(&mut self) -> Result<(), String> {
        while !self.wire.output().is_empty() {
            match self.socket.write(self.wire.output()) {
                Ok(sent) => drop(self.wire.output().drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(format!("publisher's connection failed: {error}")),
            }
        }
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8], answers: &mut Vec<Answer>) -> Result<(), String> {
        loop {
            match self.socket.read(buffer) {
                Ok(0) => return Err("the server closed a publisher's connection".to_owned()),
                Ok(length) => {
                    self.wire.handle(&buffer[..length], answers)?;
                    if length < buffer.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(format!("publisher's connection failed: {error}")),
            }
        }
    }
}

/// Waits until a lane can go on or the time is over; says for each lane whether it is readable.
fn wait(lanes: &mut [Lane], nanoseconds: u64) -> io::Result<Vec<bool>> {
    let mut readable = vec![false; lanes.len()];
    let mut places = Vec::with_capacity(lanes.len());
    let mut polled = Vec::with_capacity(lanes.len());
    // A broken lane stays out: the kernel reports its end again and again.
    for (place, lane) in lanes.iter_mut().enumerate().filter(|(_, lane)| lane.broken.is_none()) {
        let sending = if lane.wire.output().is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        places.push(place);
        polled.push(PollFd::new(&lane.socket, PollFlags::IN | sending));
    }
    let timeout =
        Timespec { tv_sec: (nanoseconds / 1_000_000_000) as i64, tv_nsec: (nanoseconds % 1_000_000_000) as _ };
    match poll(&mut polled, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    for (place, fd) in places.into_iter().zip(&polled) {
        readable[place] = fd.revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
    }
    Ok(readable)
}

/// Seen and set from outside while a publisher runs.
#[derive(Debug, Default)]
pub struct PublishProgress {
    /// Set to stop publishing what is not yet due; what was sent is still answered.
    pub stop: AtomicBool,
    /// Publications sent.
    pub sent: AtomicU64,
    /// Publications the server accepted.
    pub accepted: AtomicU64,
    /// Publications the server refused.
    pub refused: AtomicU64,
}

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
    pub fn run(mut self) -> io::Result<Published> {
        let started = Instant::now();
        let cpu_before = own_thread_time();
        let streams = streams_per_channel(self.channels.len() as u32, self.lanes.len() as u32);
        let mut published = Published {
            ledgers: vec![StreamLedger::default(); self.channels.len() * usize::from(streams)],
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
        // Due and not yet sent, per lane; bounded by the number of publications of the run, 8 bytes each.
        let mut due: Vec<VecDeque<u64>> = vec![VecDeque::new(); self.lanes.len()];
        let mut waiting: HashSet<u64> = HashSet::new();
        let mut readable = vec![false; self.lanes.len()];
        let mut buffer = vec![0; 64 << 10];
        let mut answers = Vec::new();
        let mut next = 0;
        let mut give_up = None;
        loop {
            let now = self.clock.now_ns();
            let stopped = self.progress.stop.load(Ordering::Relaxed);
            if stopped {
                due.iter_mut().for_each(|lane| published.unsent += std::mem::take(lane).len() as u64);
            }
            while !stopped && next < self.schedule.total() && self.schedule.due_ns(next) <= now {
                published.own_lag.record(now - self.schedule.due_ns(next));
                due[self.schedule.place(next).lane as usize].push_back(next);
                next += 1;
            }
            for (index, lane) in self.lanes.iter_mut().enumerate() {
                lane.exchange(readable[index], &mut buffer, &mut answers);
                if lane.broken.is_some() {
                    published.unsent += std::mem::take(&mut due[index]).len() as u64;
                    continue;
                }
                let limit = if matches!(lane.wire, Wire::WebSocket(_)) { WEBSOCKET_IN_FLIGHT } else { 1 };
                while lane.wire.in_flight() < limit && lane.wire.room() > 0 {
                    let Some(k) = due[index].pop_front() else { break };
                    let place = self.schedule.place(k);
                    let stamp = Stamp {
                        channel: place.channel,
                        stream: place.stream,
                        seq: place.seq,
                        due_ns: self.schedule.due_ns(k),
                    };
                    let mut payload = Vec::with_capacity(self.format.bytes());
                    self.format.write(stamp, &mut payload);
                    lane.wire.publish(k, &self.channels[place.channel as usize], &payload);
                    published.ledgers[published_index(place.channel, place.stream, streams)].sent = place.seq + 1;
                    published.sending.record(now.saturating_sub(stamp.due_ns));
                    self.progress.sent.fetch_add(1, Ordering::Relaxed);
                    waiting.insert(k);
                }
                lane.exchange(false, &mut buffer, &mut answers);
            }
            let answered = self.clock.now_ns();
            for Answer { ticket, outcome } in answers.drain(..) {
                waiting.remove(&ticket);
                published.answering.record(answered.saturating_sub(self.schedule.due_ns(ticket)));
                let Err(reason) = outcome else {
                    self.progress.accepted.fetch_add(1, Ordering::Relaxed);
                    continue;
                };
                self.progress.refused.fetch_add(1, Ordering::Relaxed);
                count_reason(&mut published.refusals, reason);
                let place = self.schedule.place(ticket);
                published.ledgers[published_index(place.channel, place.stream, streams)].refused.push(place.seq);
            }
            let all_broken = self.lanes.iter().all(|lane| lane.broken.is_some());
            let all_sent = stopped || all_broken || next == self.schedule.total() && due.iter().all(VecDeque::is_empty);
            if all_sent {
                let give_up = *give_up.get_or_insert_with(|| Instant::now() + ANSWER_GRACE);
                let silent = self.lanes.iter().all(|lane| lane.broken.is_some() || lane.wire.in_flight() == 0);
                if silent || Instant::now() > give_up {
                    break;
                }
            }
            let until_due = match next < self.schedule.total() && !stopped {
                true => self.schedule.due_ns(next).saturating_sub(self.clock.now_ns()),
                false => LONGEST_WAIT_NS,
            };
            readable = wait(&mut self.lanes, until_due.min(LONGEST_WAIT_NS))?;
        }
        for k in waiting {
            let place = self.schedule.place(k);
            published.ledgers[published_index(place.channel, place.stream, streams)].unanswered.push(place.seq);
        }
        for ledger in &mut published.ledgers {
            ledger.refused.sort_unstable();
            ledger.unanswered.sort_unstable();
        }
        published.broken = self.lanes.into_iter().filter_map(|lane| lane.broken).collect();
        published.cpu = own_thread_time().saturating_sub(cpu_before);
        published.wall = started.elapsed();
        Ok(published)
    }
}

fn published_index(channel: u32, stream: u16, streams: u16) -> usize {
    channel as usize * usize::from(streams) + usize::from(stream)
}

/// What a closed-loop publisher did.
#[derive(Debug)]
pub struct ClosedLoopResult {
    /// Publications the server accepted within the time.
    pub accepted: u64,
    /// Reasons of refusals, with counts.
    pub refusals: BTreeMap<String, u64>,
    /// Why lanes broke.
    pub broken: Vec<String>,
    /// From sent to answered.
    pub answering: LatencyHistogram,
    /// Processor time of the thread.
    pub cpu: Duration,
    /// Wall time from the first publication to the last answer.
    pub wall: Duration,
}

/// Keeps `in_flight` publications under way over all lanes until `duration` is over or `progress.stop` is set, blocking.
///
/// # Errors
///
/// Only when the kernel refuses to wait; broken lanes are part of the result.
pub fn run_closed_loop(
    mut lanes: Vec<Lane>,
    in_flight: usize,
    duration: Duration,
    channels: &[String],
    format: &PayloadFormat,
    progress: &PublishProgress,
) -> io::Result<ClosedLoopResult> {
    let started = Instant::now();
    let clock = RunClock::start();
    let cpu_before = own_thread_time();
    let count = lanes.len();
    let mut result = ClosedLoopResult {
        accepted: 0,
        refusals: BTreeMap::new(),
        broken: Vec::new(),
        answering: LatencyHistogram::new(),
        cpu: Duration::ZERO,
        wall: Duration::ZERO,
    };
    let mut readable = vec![false; count];
    let mut buffer = vec![0; 64 << 10];
    let mut payload = Vec::with_capacity(format.bytes());
    let mut answers = Vec::new();
    let mut seq = 0;
    loop {
        let now = clock.now_ns();
        let over = started.elapsed() >= duration || progress.stop.load(Ordering::Relaxed);
        for (index, lane) in lanes.iter_mut().enumerate() {
            lane.exchange(readable[index], &mut buffer, &mut answers);
            // The share of this lane: the remainder goes to the first ones.
            let share = in_flight / count + usize::from(index < in_flight % count);
            while !over && lane.broken.is_none() && lane.wire.in_flight() < share && lane.wire.room() > 0 {
                let channel = (seq % channels.len() as u64) as usize;
                payload.clear();
                format.write(Stamp { channel: channel as u32, stream: 0, seq, due_ns: now }, &mut payload);
                // The ticket is the time of sending: a closed loop needs to know nothing else of a publication.
                lane.wire.publish(now, &channels[channel], &payload);
                seq += 1;
            }
            lane.exchange(false, &mut buffer, &mut answers);
        }
        let answered = clock.now_ns();
        for Answer { ticket, outcome } in answers.drain(..) {
            result.answering.record(answered.saturating_sub(ticket));
            match outcome {
                Ok(()) => {
                    result.accepted += 1;
                    progress.accepted.fetch_add(1, Ordering::Relaxed);
                }
                Err(reason) => count_reason(&mut result.refusals, reason),
            }
        }
        let silent = lanes.iter().all(|lane| lane.broken.is_some() || lane.wire.in_flight() == 0);
        if silent && (over || lanes.iter().all(|lane| lane.broken.is_some())) {
            break;
        }
        if started.elapsed() >= duration + ANSWER_GRACE {
            result.broken.push(format!("answers still missing {ANSWER_GRACE:?} after the end"));
            break;
        }
        readable = wait(&mut lanes, LONGEST_WAIT_NS)?;
    }
    result.broken.extend(lanes.into_iter().filter_map(|lane| lane.broken));
    result.cpu = own_thread_time().saturating_sub(cpu_before);
    result.wall = started.elapsed();
    Ok(result)
}

/// Counts a reason; different texts beyond 20 are counted together, so that a hostile server cannot fill memory.
fn count_reason(reasons: &mut BTreeMap<String, u64>, reason: String) {
    let reason = if reasons.len() < 20 || reasons.contains_key(&reason) { reason } else { "other".to_owned() };
    *reasons.entry(reason).or_default() += 1;
}
