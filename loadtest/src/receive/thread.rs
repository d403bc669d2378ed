//! One receiving thread: its connections, from their opening to their end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};

use super::Shared;
use super::subscriber::{Checks, Stage, Subscriber};
use crate::audit::{Findings, StreamAudit};
use crate::clock::nanoseconds;
use crate::connect::open_websocket;
use crate::fleet::{Fleet, Speech};
use crate::latency::LatencyHistogram;
use crate::target::centrifuge::{self, CONNECT_ID, Command, Message};
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
}

/// What a thread leaves behind.
#[derive(Debug)]
pub(super) struct ThreadOutcome {
    pub(super) audits: Vec<(u32, Box<[StreamAudit]>)>,
    pub(super) findings: Findings,
    pub(super) foreign: u64,
    pub(super) latency: LatencyHistogram,
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
        let mine = (thread as u32..fleet.subscribers).step_by(fleet.threads);
        let subscribers = mine.map(|index| Subscriber::new(index, audits));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::FaultKind;

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
