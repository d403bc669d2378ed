//! The receiving side: a few threads that hold all subscribers and check everything that arrives.
//!
//! Each thread is a current-thread runtime with one local task per connection. What a connection costs while idle is its
//! task, its socket's registration and a `Subscriber` of some hundred bytes; there is no buffer per connection, all
//! read into the one of their thread. A message costs one `recv`, a look at the frame header and at the message, and
//! one comparison with what it should be.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::audit::{Arrival, Fault, FaultKind, Findings, StreamAudit, StreamLedger};
use crate::clock::nanoseconds;
use crate::connect::open_websocket;
use crate::fleet::{Fleet, Speech};
use crate::interrupt::Interrupt;
use crate::latency::LatencyHistogram;
use crate::payload::Alteration;
use crate::target::centrifuge::{self, CONNECT_ID, Command, Message};
use crate::websocket::{self, FrameReader, Incoming, Kind};

/// What a thread reads at once. Connections keep nothing of it unless a frame is incomplete.
const READ_BUFFER_BYTES: usize = 64 << 10;

/// How often a receiving thread measures its own delay.
const TICK: Duration = Duration::from_millis(20);

/// Every so many ticks it hands over its latencies: adding histograms costs some 20 microseconds.
const TICKS_PER_HAND_OVER: u32 = 10;

/// Timers of the runtime fire at whole milliseconds, up to this late: not a delay of the thread.
const TIMER_GRANULARITY: Duration = Duration::from_millis(1);

/// Subscribe commands are packed into frames of about this size, well under the 65,536 bytes servers allow.
const COMMAND_FRAME_BYTES: usize = 16 << 10;

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
    changed: Condvar,
    notes: Mutex<Notes>,
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
    /// Subscribers whose subscriptions were all answered.
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
            let work = move || {
                let local = tokio::task::LocalSet::new();
                let state = Rc::new(RefCell::new(ThreadState::new(shared, fleet, thread)));
                local.block_on(&runtime, receive(state.clone(), stopped));
                // Ends the tasks, which hold the other references to the state.
                drop((local, runtime));
                let state = Rc::into_inner(state).expect("the tasks are gone");
                state.into_inner().finish()
            };
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
    pub fn begin_measuring(&self) {
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
    pub fn finish(self, ledgers: &[StreamLedger]) -> Received {
        // Threads that have already ended do not mind.
        self.stop.send_replace(true);
        let mut received = Received {
            findings: Findings::default(),
            delivered: self.status().delivered,
            foreign: 0,
            latency: LatencyHistogram::new(),
            loop_delay: LatencyHistogram::new(),
            ended: BTreeMap::new(),
        };
        for thread in self.threads {
            let outcome = thread.join().expect("receiving threads do not panic");
            let ThreadOutcome { audits, findings, foreign, latency, loop_delay, ended } = outcome;
            received.findings.merge(findings);
            received.foreign += foreign;
            received.latency.merge(&latency);
            received.loop_delay.merge(&loop_delay);
            ended.into_iter().for_each(|(reason, count)| *received.ended.entry(reason).or_default() += count);
            for (subscriber, audits) in audits {
                finish_subscriber(&self.fleet, subscriber, &audits, ledgers, &mut received.findings);
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
    findings: &mut Findings,
) {
    let streams = usize::from(fleet.streams);
    for (channel, audits) in fleet.channels_of(subscriber).zip(audits.chunks(streams)) {
        let ledgers = ledgers.iter().skip(channel as usize * streams);
        for (stream, (audit, ledger)) in audits.iter().zip(ledgers).enumerate() {
            audit.finish(ledger, |kind, seq| {
                findings.note(Fault { kind, subscriber, channel, stream: Some(stream as u16), seq: Some(seq) });
            });
        }
    }
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

// === one thread ===

#[derive(Debug)]
struct ThreadState {
    shared: Arc<Shared>,
    fleet: Arc<Fleet>,
    buffer: Box<[u8]>,
    subscribers: Vec<Subscriber>,
    checks: Checks,
    loop_delay: LatencyHistogram,
    ended: BTreeMap<String, u64>,
}

/// What the thread has found in messages.
#[derive(Debug, Default)]
struct Checks {
    findings: Findings,
    foreign: u64,
    latency: LatencyHistogram,
    interval: LatencyHistogram,
    /// New deliveries within the present read.
    fresh: u64,
    faults: u64,
}

#[derive(Debug)]
struct Subscriber {
    index: u32,
    stage: Stage,
    pongs: bool,
    frames: FrameReader,
    /// Bytes to send; empty and without memory but for moments.
    output: Vec<u8>,
    audits: Box<[StreamAudit]>,
    /// Held while the connection is being set up, which bounds how many are.
    permit: Option<OwnedSemaphorePermit>,
}

/// ```text
/// Opening -> Connecting -> Subscribing -> Live      Centrifuge
/// Opening ------------------------------> Live      silence
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// TCP and WebSocket handshake.
    Opening,
    /// `connect` is unanswered.
    Connecting,
    /// So many `subscribe` commands are unanswered.
    Subscribing(u32),
    /// Publications come.
    Live,
}

#[derive(Debug)]
struct ThreadOutcome {
    audits: Vec<(u32, Box<[StreamAudit]>)>,
    findings: Findings,
    foreign: u64,
    latency: LatencyHistogram,
    loop_delay: LatencyHistogram,
    ended: BTreeMap<String, u64>,
}

async fn receive(state: Rc<RefCell<ThreadState>>, mut stopped: watch::Receiver<bool>) {
    let (count, permits) = {
        let state = state.borrow();
        (state.subscribers.len(), state.fleet.connect_concurrency.div_ceil(state.fleet.threads).max(1))
    };
    let permits = Arc::new(Semaphore::new(permits));
    tokio::task::spawn_local(tick(state.clone()));
    let starter = async {
        for slot in 0..count {
            let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
            state.borrow_mut().subscribers[slot].permit = Some(permit);
            tokio::task::spawn_local(hold(state.clone(), slot));
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = starter => {}
        // An error means that the pool is gone, which is an end as well.
        _ = stopped.wait_for(|&stopped| stopped) => {}
    }
}

/// Measures how late this thread runs, and hands over latencies for progress lines.
async fn tick(state: Rc<RefCell<ThreadState>>) {
    let mut due = tokio::time::Instant::now();
    for ticks in 1u32.. {
        due += TICK;
        tokio::time::sleep_until(due).await;
        let now = tokio::time::Instant::now();
        let mut state = state.borrow_mut();
        if state.shared.measuring.load(Ordering::Relaxed) {
            state.loop_delay.record(nanoseconds((now - due).saturating_sub(TIMER_GRANULARITY)));
        }
        due = now;
        if ticks.is_multiple_of(TICKS_PER_HAND_OVER) {
            state.hand_over();
        }
    }
}

/// One connection from its opening to its end.
async fn hold(state: Rc<RefCell<ThreadState>>, slot: usize) {
    let (fleet, index) = {
        let state = state.borrow();
        (state.fleet.clone(), state.subscribers[slot].index)
    };
    // Boxed, so that the memory of opening is not part of every idle connection.
    let opening = Box::pin(async {
        let opening = open_websocket(&fleet.endpoint, fleet.encoding.subprotocol(), index);
        match tokio::time::timeout(fleet.connect_timeout, opening).await {
            Ok(opened) => opened,
            Err(_) => anyhow::bail!("no handshake within {:?}", fleet.connect_timeout),
        }
    });
    let (mut stream, rest) = match opening.await {
        Ok(opened) => opened,
        Err(error) => return state.borrow().shared.fail(format!("subscriber {index}: {error:#}")),
    };
    drop(fleet);
    let begun = state.borrow_mut().begin(slot, &rest);
    drop(rest);
    let reason = match begun {
        Ok(()) => std::future::poll_fn(|context| state.borrow_mut().drive(slot, &mut stream, context)).await,
        Err(reason) => reason,
    };
    state.borrow_mut().end(slot, reason);
}

impl ThreadState {
    fn new(shared: Arc<Shared>, fleet: Arc<Fleet>, thread: usize) -> Self {
        let audits = fleet.subscriptions as usize * usize::from(fleet.streams);
        let subscribers = (thread as u32..fleet.subscribers).step_by(fleet.threads).map(|index| Subscriber {
            index,
            stage: Stage::Opening,
            pongs: false,
            frames: FrameReader::default(),
            output: Vec::new(),
            audits: vec![StreamAudit::default(); audits].into_boxed_slice(),
            permit: None,
        });
        ThreadState {
            subscribers: subscribers.collect(),
            buffer: vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
            shared,
            fleet,
            checks: Checks::default(),
            loop_delay: LatencyHistogram::new(),
            ended: BTreeMap::new(),
        }
    }

    /// The WebSocket is open; `received` came with the server's handshake.
    fn begin(&mut self, slot: usize, received: &[u8]) -> Result<(), String> {
        let subscriber = &mut self.subscribers[slot];
        match self.fleet.speech {
            Speech::Silence => subscriber.go_live(&self.shared),
            Speech::Centrifuge => {
                subscriber.stage = Stage::Connecting;
                let token = self.fleet.tokens.token(&format!("loadtest-{}", subscriber.index));
                let token = token.map_err(|error| format!("{error:#}"))?;
                subscriber.send(&self.fleet, |command, encoding| {
                    centrifuge::write_command(command, encoding, CONNECT_ID, Command::Connect { token: &token });
                });
            }
        }
        if received.len() > self.buffer.len() {
            return Err("too much at once after the handshake".to_owned());
        }
        self.buffer[..received.len()].copy_from_slice(received);
        self.handle(slot, received.len())
    }

    /// Sends and receives until the socket has no more; ready with the reason when the connection is over.
    fn drive(&mut self, slot: usize, stream: &mut TcpStream, context: &mut Context<'_>) -> Poll<String> {
        loop {
            let output = &mut self.subscribers[slot].output;
            while !output.is_empty() {
                match Pin::new(&mut *stream).poll_write(context, output) {
                    Poll::Ready(Ok(sent)) if sent == output.len() => *output = Vec::new(),
                    Poll::Ready(Ok(sent)) => drop(output.drain(..sent)),
                    Poll::Ready(Err(error)) => return Poll::Ready(format!("write failed: {error}")),
                    Poll::Pending => break,
                }
            }
            let mut buffer = ReadBuf::new(&mut self.buffer);
            let read = ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer));
            let length = buffer.filled().len();
            match read {
                Ok(()) if length == 0 => return Poll::Ready("closed without a Close frame".to_owned()),
                Ok(()) => {}
                Err(error) => return Poll::Ready(format!("read failed: {error}")),
            }
            if let Err(reason) = self.handle(slot, length) {
                return Poll::Ready(reason);
            }
        }
    }

    /// Handles the first `length` bytes of the buffer.
    fn handle(&mut self, slot: usize, length: usize) -> Result<(), String> {
        let ThreadState { shared, fleet, buffer, subscribers, checks, .. } = self;
        let subscriber = &mut subscribers[slot];
        let now_ns = fleet.clock.now_ns();
        let mut frames = std::mem::take(&mut subscriber.frames);
        let mut over = None;
        let read = frames.read(&buffer[..length], |incoming| match incoming {
            Incoming::Message(frame) => {
                centrifuge::read_frame(fleet.encoding, frame, fleet.format.bytes(), |message| {
                    let handled = match message {
                        Message::Publication { channel, data } => {
                            checks.publication(fleet, subscriber, &channel, data, now_ns);
                            Ok(())
                        }
                        other => subscriber.handle(fleet, shared, checks, other),
                    };
                    if let Err(reason) = handled {
                        over.get_or_insert(reason);
                    }
                });
            }
            Incoming::Ping(payload) => {
                websocket::write_frame(&mut subscriber.output, Kind::Pong, payload, Some(rand::random()));
            }
            Incoming::Close(code, reason) => {
                let code = code.map_or("no code".to_owned(), |code| code.to_string());
                over.get_or_insert(format!("closed by the server: {code} {reason}"));
            }
        });
        subscriber.frames = frames;
        let fresh = std::mem::take(&mut checks.fresh);
        if fresh > 0 {
            shared.count_delivered(fresh);
        }
        let faults = std::mem::take(&mut checks.faults);
        if faults > 0 {
            shared.faults.fetch_add(faults, Ordering::SeqCst);
        }
        read.map_err(|violation| violation.to_string())?;
        over.map_or(Ok(()), Err)
    }

    fn end(&mut self, slot: usize, reason: String) {
        let subscriber = &mut self.subscribers[slot];
        subscriber.permit = None;
        subscriber.output = Vec::new();
        if subscriber.stage != Stage::Live {
            self.shared.fail(format!("subscriber {}: {reason}", subscriber.index));
        }
        let reason = if self.ended.len() < 20 { reason } else { "other".to_owned() };
        *self.ended.entry(reason).or_default() += 1;
        self.shared.ended.fetch_add(1, Ordering::SeqCst);
    }

    fn hand_over(&mut self) {
        let interval = &mut self.checks.interval;
        if interval.count() > 0 {
            self.shared.notes().interval.merge(interval);
            self.checks.latency.merge(interval);
            interval.clear();
        }
    }

    fn finish(mut self) -> ThreadOutcome {
        self.hand_over();
        let ThreadState { subscribers, checks, loop_delay, ended, shared: _, fleet: _, buffer: _ } = self;
        let Checks { findings, foreign, latency, interval: _, fresh: _, faults: _ } = checks;
        let audits = subscribers.into_iter().map(|subscriber| (subscriber.index, subscriber.audits)).collect();
        ThreadOutcome { audits, findings, foreign, latency, loop_delay, ended }
    }
}

// === one subscriber ===

impl Subscriber {
    fn send(&mut self, fleet: &Fleet, write: impl FnOnce(&mut Vec<u8>, centrifuge::Encoding)) {
        let mut command = Vec::new();
        write(&mut command, fleet.encoding);
        websocket::write_frame(&mut self.output, fleet.encoding.frame_kind(), &command, Some(rand::random()));
    }

    fn go_live(&mut self, shared: &Shared) {
        self.stage = Stage::Live;
        self.permit = None;
        shared.subscribed.fetch_add(1, Ordering::SeqCst);
    }

    /// Handles everything but publications.
    fn handle(
        &mut self,
        fleet: &Fleet,
        shared: &Shared,
        checks: &mut Checks,
        message: Message<'_>,
    ) -> Result<(), String> {
        match (message, self.stage) {
            (Message::Ping, _) => {
                if self.pongs {
                    self.send(fleet, |command, encoding| {
                        centrifuge::write_command(command, encoding, 0, Command::Pong);
                    });
                }
                Ok(())
            }
            (Message::Answer { id, error: Some((code, text)), .. }, _) => {
                let what = if id == CONNECT_ID { "connect" } else { "subscribe" };
                Err(format!("the server refused {what}: error {code}, {text}"))
            }
            (Message::Answer { id: CONNECT_ID, wants_pong, .. }, Stage::Connecting) => {
                self.pongs = wants_pong;
                self.stage = Stage::Subscribing(fleet.subscriptions);
                self.subscribe(fleet);
                Ok(())
            }
            (Message::Answer { .. }, Stage::Subscribing(1)) => {
                self.go_live(shared);
                Ok(())
            }
            (Message::Answer { .. }, Stage::Subscribing(unanswered)) => {
                self.stage = Stage::Subscribing(unanswered - 1);
                Ok(())
            }
            (Message::Answer { id, .. }, _) => Err(format!("an answer to command {id}, which was not sent")),
            (Message::Unsubscribed { channel, code }, _) => {
                Err(format!("unsubscribed from {channel} with code {code}"))
            }
            (Message::Unreadable, Stage::Live) => {
                checks.fault(self, FaultKind::Altered, fleet.first_channel(self.index), None);
                Ok(())
            }
            (Message::Unreadable, _) => Err("the server sent what is not its protocol".to_owned()),
            (Message::Publication { .. } | Message::Other, _) => Ok(()),
        }
    }

    fn subscribe(&mut self, fleet: &Fleet) {
        let mut frame = Vec::new();
        for (id, channel) in (CONNECT_ID + 1..).zip(fleet.channels_of(self.index)) {
            let channel = fleet.channels.name(channel);
            centrifuge::write_command(&mut frame, fleet.encoding, id, Command::Subscribe { channel });
            if frame.len() > COMMAND_FRAME_BYTES {
                self.send(fleet, |command, _| *command = std::mem::take(&mut frame));
            }
        }
        if !frame.is_empty() {
            self.send(fleet, |command, _| *command = frame);
        }
    }
}

impl Checks {
    fn publication(&mut self, fleet: &Fleet, subscriber: &mut Subscriber, channel: &str, data: &[u8], now_ns: u64) {
        let told = fleet.channels.index(channel);
        let stamp = match fleet.format.check(data) {
            Ok(stamp) => stamp,
            Err(Alteration::Padding(stamp)) => {
                self.fault(subscriber, FaultKind::Altered, stamp.channel, Some((stamp.stream, stamp.seq)));
                stamp
            }
            Err(Alteration::Stamp) => {
                let channel = told.unwrap_or_else(|| fleet.first_channel(subscriber.index));
                return self.fault(subscriber, FaultKind::Altered, channel, None);
            }
            Err(Alteration::ForeignRun) => return self.foreign += 1,
        };
        let place = told.filter(|&told| told == stamp.channel && stamp.stream < fleet.streams);
        let Some(place) = place.and_then(|channel| fleet.place_of(subscriber.index, channel)) else {
            return self.fault(subscriber, FaultKind::Misrouted, stamp.channel, Some((stamp.stream, stamp.seq)));
        };
        let audit = &mut subscriber.audits[place * usize::from(fleet.streams) + usize::from(stamp.stream)];
        let kind = match audit.arrived(stamp.seq) {
            Arrival::InOrder => None,
            Arrival::Reordered => Some(FaultKind::Reordered),
            Arrival::Duplicated => Some(FaultKind::Duplicated),
        };
        if kind != Some(FaultKind::Duplicated) {
            self.fresh += 1;
            self.interval.record(now_ns.saturating_sub(stamp.due_ns));
        }
        if let Some(kind) = kind {
            self.fault(subscriber, kind, stamp.channel, Some((stamp.stream, stamp.seq)));
        }
    }

    fn fault(&mut self, subscriber: &Subscriber, kind: FaultKind, channel: u32, place: Option<(u16, u64)>) {
        self.faults += 1;
        let (stream, seq) = place.unzip();
        self.findings.note(Fault { kind, subscriber: subscriber.index, channel, stream, seq });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::payload::{PayloadFormat, Stamp};
    use crate::websocket::write_frame;

    const STAMP: Stamp = Stamp { channel: 1, stream: 0, seq: 0, due_ns: 0 };

    /// A thread whose one subscriber is live on channel 1 of three.
    fn live_on_channel_1() -> ThreadState {
        let mut fleet = crate::fleet::tests::fleet(2, 1, 3);
        fleet.speech = Speech::Silence;
        fleet.threads = 2;
        let mut state = ThreadState::new(Arc::new(Shared::default()), Arc::new(fleet), 1);
        assert_eq!(state.subscribers.len(), 1);
        state.begin(0, &[]).expect("nothing to go wrong");
        state
    }

    fn deliver(state: &mut ThreadState, channel: &str, format: &PayloadFormat, stamp: Stamp) {
        let (mut payload, mut message, mut frame) = (Vec::new(), Vec::new(), Vec::new());
        format.write(stamp, &mut payload);
        centrifuge::write_publication(&mut message, state.fleet.encoding, channel, &payload);
        write_frame(&mut frame, Kind::Text, &message, None);
        state.buffer[..frame.len()].copy_from_slice(&frame);
        state.handle(0, frame.len()).expect("the connection goes on");
    }

    #[test]
    fn a_message_is_delivered_once_and_then_a_duplicate() {
        let mut state = live_on_channel_1();
        let format = state.fleet.format.clone();
        deliver(&mut state, "t-1", &format, STAMP);
        deliver(&mut state, "t-1", &format, STAMP);
        assert_eq!(state.checks.findings.count(FaultKind::Duplicated), 1);
        assert_eq!(state.shared.delivered.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_message_of_another_channel_is_misrouted_whatever_name_it_comes_under() {
        let mut state = live_on_channel_1();
        let format = state.fleet.format.clone();
        deliver(&mut state, "t-2", &format, Stamp { channel: 2, ..STAMP });
        deliver(&mut state, "t-1", &format, Stamp { channel: 2, ..STAMP });
        deliver(&mut state, "stranger", &format, STAMP);
        assert_eq!(state.checks.findings.count(FaultKind::Misrouted), 3);
        assert_eq!(state.shared.delivered.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_message_of_another_run_is_no_fault() {
        let mut state = live_on_channel_1();
        deliver(&mut state, "t-1", &PayloadFormat::new(77, 128, 1), STAMP);
        assert_eq!((state.checks.foreign, state.checks.findings.total()), (1, 0));
    }

    #[test]
    fn a_message_that_cannot_be_read_is_altered_and_a_closed_connection_says_why() {
        let mut state = live_on_channel_1();
        let mut frame = Vec::new();
        write_frame(&mut frame, Kind::Text, b"{\"push\":", None);
        write_frame(&mut frame, Kind::Close, b"\x0b\xc0slow", None);
        state.buffer[..frame.len()].copy_from_slice(&frame);
        assert_eq!(state.handle(0, frame.len()), Err("closed by the server: 3008 slow".to_owned()));
        assert_eq!(state.checks.findings.count(FaultKind::Altered), 1);
    }

    #[test]
    fn an_idle_connection_holds_little_memory_of_its_own() {
        let shared = Arc::new(Shared::default());
        let fleet = Arc::new(crate::fleet::tests::fleet(1, 1, 1));
        let state = Rc::new(RefCell::new(ThreadState::new(shared, fleet, 0)));
        let task = size_of_val(&hold(state, 0));
        let subscriber = size_of::<Subscriber>() + size_of::<StreamAudit>();
        // The runtime adds about 128 bytes for the task and 256 for the socket's registration.
        assert!(task + subscriber < 320, "task {task}, subscriber {subscriber}");
    }
}
