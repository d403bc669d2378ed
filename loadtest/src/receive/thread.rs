//! One receiving thread: its connections, from their opening to their end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};

use super::Shared;
use super::disruption::{Disrupted, RETRY, Scissors, count_reason};
use super::subscriber::{Checks, Stage, Subscriber};
use crate::audit::{Findings, StreamAudit};
use crate::clock::nanoseconds;
use crate::connect::open_websocket;
use crate::fleet::{Fleet, Role};
use crate::latency::LatencyHistogram;
use crate::target::centrifuge::{CONNECT_ID, Command, Message};
use crate::websocket::{self, Incoming, Kind};

/// What a thread reads at once. Connections keep nothing of it unless a frame is incomplete.
const READ_BUFFER_BYTES: usize = 64 << 10;

/// How often a receiving thread measures its own delay.
const TICK: Duration = Duration::from_millis(20);

/// Every so many ticks it hands over its latencies: adding histograms costs some 20 microseconds.
const TICKS_PER_HAND_OVER: u32 = 10;

/// Timers of the runtime fire at whole milliseconds, up to this late: not a delay of the thread.
const TIMER_GRANULARITY: Duration = Duration::from_millis(1);

/// Holds this thread's share of the fleet until `stopped`, blocking.
pub(super) fn run(
    runtime: Runtime,
    shared: Arc<Shared>,
    fleet: Arc<Fleet>,
    thread: usize,
    stopped: watch::Receiver<bool>,
) -> ThreadOutcome {
    let local = tokio::task::LocalSet::new();
    let state = Rc::new(RefCell::new(ThreadState::new(shared, fleet, thread)));
    local.block_on(&runtime, receive(state.clone(), stopped));
    // Ends the tasks, which hold the other references to the state.
    drop((local, runtime));
    let state = Rc::into_inner(state).expect("the tasks are gone");
    state.into_inner().finish()
}

#[derive(Debug)]
struct ThreadState {
    shared: Arc<Shared>,
    fleet: Arc<Fleet>,
    buffer: Box<[u8]>,
    subscribers: Vec<Subscriber>,
    checks: Checks,
    loop_delay: LatencyHistogram,
    ended: BTreeMap<String, u64>,
    /// Present in runs that cut connections.
    scissors: Option<Box<Scissors>>,
}

/// How the drive of a connection ended.
#[derive(Debug)]
enum Ending {
    /// The peer, or an error, with the reason in words.
    Over(String),
    /// We cut it, and stay away for so long.
    Cut(Duration),
    /// It is subscribed and from now on misbehaves.
    Misbehaves(Role),
}

/// What a thread leaves behind.
#[derive(Debug)]
pub(super) struct ThreadOutcome {
    pub(super) audits: Vec<(u32, Box<[StreamAudit]>)>,
    pub(super) findings: Findings,
    pub(super) foreign: u64,
    pub(super) latency: LatencyHistogram,
    pub(super) phases: Vec<LatencyHistogram>,
    pub(super) disrupted: Disrupted,
    pub(super) loop_delay: LatencyHistogram,
    pub(super) ended: BTreeMap<String, u64>,
}

async fn receive(state: Rc<RefCell<ThreadState>>, mut stopped: watch::Receiver<bool>) {
    let (count, permits) = {
        let state = state.borrow();
        (state.subscribers.len(), state.fleet.connect_concurrency.div_ceil(state.fleet.threads).max(1))
    };
    let permits = Arc::new(Semaphore::new(permits));
    tokio::task::spawn_local(tick(state.clone()));
    let pace = {
        let fleet = &state.borrow().fleet;
        fleet.connects_per_second.map(|rate| fleet.threads as f64 / rate)
    };
    let starter = async {
        let began = tokio::time::Instant::now();
        for slot in 0..count {
            if let Some(pace) = pace {
                tokio::time::sleep_until(began + Duration::from_secs_f64(pace * slot as f64)).await;
            }
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
        state.cut_due();
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
    let (mut stream, rest) = match Box::pin(open(&fleet, index)).await {
        Ok(opened) => opened,
        Err(error) => return state.borrow().shared.fail(format!("subscriber {index}: {error:#}")),
    };
    drop(fleet);
    let begun = state.borrow_mut().begin(slot, &rest);
    drop(rest);
    if let Err(reason) = begun {
        return state.borrow_mut().end(slot, reason);
    }
    loop {
        let ending = std::future::poll_fn(|context| state.borrow_mut().drive(slot, &mut stream, context)).await;
        let away = match ending {
            Ending::Cut(offline) => {
                state.borrow_mut().leave(slot, offline);
                offline
            }
            Ending::Over(reason) if state.borrow().is_away(slot) => {
                state.borrow_mut().refused(slot, reason);
                RETRY
            }
            Ending::Over(reason) => return state.borrow_mut().end(slot, reason),
            Ending::Misbehaves(role) => return Box::pin(misbehave(state, slot, stream, role)).await,
        };
        stream = Box::pin(come_back(&state, slot, stream, away)).await;
    }
}

async fn open(fleet: &Fleet, index: u32) -> anyhow::Result<(TcpStream, Vec<u8>)> {
    match tokio::time::timeout(fleet.connect_timeout, open_websocket(fleet, index)).await {
        Ok(opened) => opened,
        Err(_) => anyhow::bail!("no handshake within {:?}", fleet.connect_timeout),
    }
}

/// Closes the old connection and opens a new one after `away`, again and again until it is there.
async fn come_back(state: &Rc<RefCell<ThreadState>>, slot: usize, old: TcpStream, away: Duration) -> TcpStream {
    drop(old);
    let (fleet, index) = {
        let state = state.borrow();
        (state.fleet.clone(), state.subscribers[slot].index)
    };
    let mut wait = away;
    loop {
        tokio::time::sleep(wait).await;
        let begun = match open(&fleet, index).await {
            Ok((stream, rest)) => state.borrow_mut().begin(slot, &rest).map(|()| stream),
            Err(error) => Err(format!("{error:#}")),
        };
        match begun {
            Ok(stream) => return stream,
            Err(reason) => state.borrow_mut().refused(slot, reason),
        }
        wait = RETRY;
    }
}

/// A client that reads too slowly, or neither reads nor answers any more, until the server ends it.
async fn misbehave(state: Rc<RefCell<ThreadState>>, slot: usize, mut stream: TcpStream, role: Role) {
    const TURN: Duration = Duration::from_millis(100);
    let per_turn = (state.borrow().fleet.slow_bytes_per_second / 10).clamp(1, READ_BUFFER_BYTES as u64) as usize;
    let began = tokio::time::Instant::now();
    let reason = loop {
        tokio::time::sleep(TURN).await;
        if role == Role::SlowReader {
            match state.borrow_mut().read_a_little(slot, &mut stream, per_turn) {
                Ok(()) => continue,
                Err(reason) => break reason,
            }
        }
        // What has arrived stays unread; only the end is looked for.
        match stream.ready(Interest::READABLE).await {
            Ok(ready) if ready.is_read_closed() => break "closed by the server".to_owned(),
            Ok(_) => {}
            Err(error) => break format!("failed: {error}"),
        }
    };
    let disrupted = &mut state.borrow_mut().checks.disrupted;
    disrupted.misbehaved_for.record(nanoseconds(began.elapsed()));
    let reasons =
        if role == Role::SlowReader { &mut disrupted.slow_readers_ended } else { &mut disrupted.half_open_ended };
    count_reason(reasons, reason);
}

impl ThreadState {
    fn new(shared: Arc<Shared>, fleet: Arc<Fleet>, thread: usize) -> Self {
        let mine = (thread as u32..fleet.subscribers).step_by(fleet.threads);
        let subscribers: Vec<Subscriber> = mine.map(|index| Subscriber::new(index, &fleet)).collect();
        let scissors = || Box::new(Scissors::new(subscribers.len(), fleet.seed ^ thread as u64));
        ThreadState {
            scissors: fleet.cuts.then(scissors),
            subscribers,
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
        if self.fleet.speech.introduces_itself() {
            subscriber.stage = Stage::Connecting;
            let token = self.fleet.tokens.token(&format!("loadtest-{}", subscriber.index));
            let token = token.map_err(|error| format!("{error:#}"))?;
            subscriber.send(&self.fleet, CONNECT_ID, Command::Connect { token: &token });
        } else {
            // Nobody confirms anything: from here on everything is owed.
            let now_ns = self.fleet.clock.now_ns();
            (0..self.fleet.subscriptions as usize)
                .for_each(|place| subscriber.subscription_returned(&self.fleet, place, now_ns, false));
            subscriber.go_live(&self.shared);
        }
        if received.len() > self.buffer.len() {
            return Err("too much at once after the handshake".to_owned());
        }
        self.buffer[..received.len()].copy_from_slice(received);
        self.handle(slot, received.len())
    }

    /// Sends and receives until the socket has no more; ready with the reason when the connection is over.
    fn drive(&mut self, slot: usize, stream: &mut TcpStream, context: &mut Context<'_>) -> Poll<Ending> {
        if let Some(scissors) = &mut self.scissors {
            let mine = &mut scissors.slots[slot];
            if let Some(offline) = mine.cut.take_if(|_| self.subscribers[slot].stage == Stage::Live) {
                return Poll::Ready(Ending::Cut(offline));
            }
            mine.waker = Some(context.waker().clone());
        }
        loop {
            let Subscriber { audited, stage, index, .. } = self.subscribers[slot];
            if !audited && stage == Stage::Live {
                return Poll::Ready(Ending::Misbehaves(self.fleet.role(index)));
            }
            let output = &mut self.subscribers[slot].output;
            while !output.is_empty() {
                match Pin::new(&mut *stream).poll_write(context, output) {
                    Poll::Ready(Ok(sent)) if sent == output.len() => *output = Vec::new(),
                    Poll::Ready(Ok(sent)) => drop(output.drain(..sent)),
                    Poll::Ready(Err(error)) => return Poll::Ready(Ending::Over(format!("write failed: {error}"))),
                    Poll::Pending => break,
                }
            }
            let mut buffer = ReadBuf::new(&mut self.buffer);
            let read = ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer));
            let length = buffer.filled().len();
            match read {
                Ok(()) if length == 0 => {
                    return Poll::Ready(Ending::Over("closed without a Close frame".to_owned()));
                }
                Ok(()) => {}
                Err(error) => return Poll::Ready(Ending::Over(format!("read failed: {error}"))),
            }
            if let Err(reason) = self.handle(slot, length) {
                return Poll::Ready(Ending::Over(reason));
            }
        }
    }

    /// One turn of a slow reader; an error is the end of its connection.
    fn read_a_little(&mut self, slot: usize, stream: &mut TcpStream, most: usize) -> Result<(), String> {
        let length = match stream.try_read(&mut self.buffer[..most]) {
            Ok(0) => return Err("closed without a Close frame".to_owned()),
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(format!("read failed: {error}")),
        };
        self.handle(slot, length)?;
        let output = &mut self.subscribers[slot].output;
        // Pongs are small: what does not fit is given up with the connection.
        let sent = if output.is_empty() { Ok(0) } else { stream.try_write(output) };
        output.clear();
        sent.map(drop).map_err(|error| format!("write failed: {error}"))
    }

    // === cut connections ===

    fn cut_due(&mut self) {
        let (Some(scissors), Some(plan)) = (&mut self.scissors, self.shared.plan.get()) else {
            if let Some(plan) = self.shared.plan.get() {
                self.checks.begin_phases(plan);
            }
            return;
        };
        self.checks.begin_phases(plan);
        let now_ns = self.fleet.clock.now_ns();
        let share = self.subscribers.len() as f64 / f64::from(self.fleet.subscribers.max(1));
        scissors.cut_due(now_ns, plan.at(now_ns), share);
    }

    fn is_away(&self, slot: usize) -> bool {
        self.scissors.as_ref().is_some_and(|scissors| scissors.slots[slot].returns_ns != 0)
    }

    fn leave(&mut self, slot: usize, offline: Duration) {
        self.subscribers[slot].leave();
        self.shared.subscribed.fetch_sub(1, Ordering::SeqCst);
        self.checks.disrupted.cuts += 1;
        let returns_ns = self.fleet.clock.now_ns() + nanoseconds(offline);
        if let Some(scissors) = &mut self.scissors {
            scissors.slots[slot].returns_ns = returns_ns;
        }
    }

    fn refused(&mut self, slot: usize, reason: String) {
        self.subscribers[slot].start_over();
        count_reason(&mut self.checks.disrupted.refusals, reason);
    }

    /// A client that was away is back if its subscriptions are all confirmed.
    fn note_return(&mut self, slot: usize) {
        let Some(scissors) = &mut self.scissors else { return };
        let mine = &mut scissors.slots[slot];
        if mine.returns_ns != 0 && self.subscribers[slot].stage == Stage::Live {
            let wanted = std::mem::take(&mut mine.returns_ns);
            self.checks.disrupted.returned += 1;
            self.checks.disrupted.return_time.record(self.fleet.clock.now_ns().saturating_sub(wanted));
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
                let bytes = |beginning: &[u8]| fleet.format.expected_bytes(beginning);
                fleet.speech.read(frame, bytes, |message| {
                    let handled = match message {
                        Message::Publication { channel, data, offset } => {
                            // Where there are no channels, all is one.
                            let channel = if channel.is_empty() { fleet.channels.name(0) } else { &channel };
                            checks.publication(fleet, subscriber, channel, data, offset, now_ns);
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
        self.note_return(slot);
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
        count_reason(&mut self.ended, reason);
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
        let ThreadState { subscribers, checks, loop_delay, ended, shared: _, fleet: _, buffer: _, scissors: _ } = self;
        let Checks { findings, foreign, latency, phases, disrupted, .. } = checks;
        let audited = subscribers.into_iter().filter(|subscriber| subscriber.audited);
        let audits = audited.map(|subscriber| (subscriber.index, subscriber.audits)).collect();
        ThreadOutcome { audits, findings, foreign, latency, phases, disrupted, loop_delay, ended }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::FaultKind;

    use crate::payload::{PayloadFormat, Stamp};
    use crate::target::centrifuge::{Encoding, write_publication};
    use crate::target::speech::Speech;
    use crate::websocket::write_frame;

    const STAMP: Stamp = Stamp { channel: 1, stream: 0, seq: 0, due_ns: 0 };

    /// A thread whose one subscriber is live on channel 1 of three.
    fn live_on_channel_1() -> ThreadState {
        let mut fleet = crate::fleet::tests::fleet(2, 1, 3);
        fleet.speech = Speech::Silence(Encoding::Json);
        fleet.threads = 2;
        let mut state = ThreadState::new(Arc::new(Shared::default()), Arc::new(fleet), 1);
        assert_eq!(state.subscribers.len(), 1);
        state.begin(0, &[]).expect("nothing to go wrong");
        state
    }

    fn deliver(state: &mut ThreadState, channel: &str, format: &PayloadFormat, stamp: Stamp) {
        let (mut payload, mut message, mut frame) = (Vec::new(), Vec::new(), Vec::new());
        format.write(stamp, &mut payload);
        write_publication(&mut message, Encoding::Json, channel, &payload);
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
        deliver(&mut state, "t-1", &PayloadFormat::new(77, &[128], 0.0, 1), STAMP);
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
