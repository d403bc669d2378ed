//! The publisher: lanes on sockets, driven by one thread.
//!
//! The thread waits in `ppoll`, whose timeout is in nanoseconds: the timers of the asynchronous runtime are a millisecond
//! wide, and in an open loop that millisecond would be added to every latency.

mod closed_loop;
mod open_loop;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub use self::closed_loop::{ClosedLoopResult, run_closed_loop};
pub use self::open_loop::{OpenLoop, Published};
use crate::clock::nanoseconds;
use crate::target::Endpoint;
use crate::target::grpc::GrpcWire;
use crate::target::http::HttpWire;
use crate::target::lane::{Answer, Via, WebSocketWire, Wire};
use crate::target::speech::Speech;

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
    /// What a WebSocket publisher speaks.
    pub speech: Speech,
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
                Wire::WebSocket(WebSocketWire::new(&target.endpoint, target.speech, target.token.clone()))
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
        if result.is_ok() && self.wire.output().is_empty() {
            self.wire.sent(answers);
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

/// Counts a reason; different texts beyond 20 are counted together, so that a hostile server cannot fill memory.
fn count_reason(reasons: &mut BTreeMap<String, u64>, reason: String) {
    let reason = if reasons.len() < 20 || reasons.contains_key(&reason) { reason } else { "other".to_owned() };
    *reasons.entry(reason).or_default() += 1;
}
