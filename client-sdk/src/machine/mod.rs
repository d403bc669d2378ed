//! The client's protocol state, without input and output.
//!
//! A [`Machine`] opens no sockets, reads no clock and never waits. A driver feeds it with inputs and the time, and
//! performs its outputs. [`Client`](crate::Client) is such a driver; tests are others, with scripted peers and a virtual
//! clock.
//!
//! # How to drive it
//!
//! 1. Call [`handle`](Machine::handle) with one input.
//! 2. Take outputs with [`poll_output`](Machine::poll_output) until there are none, and perform them in this order.
//! 3. When [`next_deadline`](Machine::next_deadline) passes, the next input is [`Input::Tick`].
//!
//! There is one transport at a time. [`Output::Open`] asks for it; the driver answers [`Input::Opened`], or
//! [`Input::Closed`] when it cannot be opened. After [`Output::Close`] the driver says nothing more about that transport
//! (an attempt to open it ends, too). After [`Input::Closed`] the machine does not ask to close it.
//!
//! # States
//!
//! ```text
//!                    ┌──────── attempt failed: wait (backoff) ───────┐
//!                    v                                               │
//!  disconnected ──> connecting: waiting -> asking token -> opening -> greeting ──> connected
//!       ^            │ ^                                                             │  │
//!       │            │ └── transport closed, reconnect code, no ping, ... ───────────┘  │
//!       └────────────┴── disconnect called, terminal code, unauthorized, bad protocol ───┘
//! ```
//!
//! Disconnected is final: all calls are answered and all subscriptions end. (The official SDKs let an application
//! connect the same object again. Here it makes a new client, and may give each subscription the position that it
//! reached.)

mod backoff;
mod calls;
mod connection;
mod payloads;
mod subscription;
mod timers;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use starling_proto::client::{Command, Push, Reply};

use crate::codes;
use crate::request::{Request, RequestKind, Response};
use crate::{ConnectionEvent, Delta, Error, Protocol, StreamPosition, SubscriptionEvent, Timing, TokenError};

pub use backoff::Backoff;
use connection::State;
use subscription::Subscription;
use timers::{Timer, Timers};

/// Names a subscription of one machine; chosen by the driver, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub u64);

/// Names a call of one machine; chosen by the driver, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Whose token is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenFor {
    /// The connection's.
    Connection,
    /// The one of a subscription.
    Subscription(SubscriptionId),
}

/// What a machine must know from the start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Token for the first connection.
    pub token: Option<String>,
    /// Whether [`Output::AskToken`] for the connection can be answered.
    pub has_token_source: bool,
    /// Name of the client program.
    pub name: String,
    /// Version of the client program.
    pub version: String,
    /// Payload of the connect command.
    pub data: Option<Bytes>,
    /// How payloads travel.
    pub protocol: Protocol,
    /// How long to wait for what.
    pub timing: Timing,
    /// Calls that may wait for replies or for the connection.
    pub max_calls: usize,
    /// Bytes of a payload that is restored from a patch.
    pub max_payload_bytes: usize,
    /// Seed of the random parts of delays.
    pub seed: u64,
}

/// What one subscription of a machine asks for. As [`SubscribeOptions`](crate::SubscribeOptions), where the fields are
/// explained.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Subscribe {
    pub channel: String,
    pub token: Option<String>,
    pub has_token_source: bool,
    pub data: Option<Bytes>,
    pub positioned: bool,
    pub recoverable: bool,
    pub join_leave: bool,
    pub delta: Option<Delta>,
    pub since: Option<StreamPosition>,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// The application wants to be connected. Only the first one counts.
    Connect,
    /// The application wants to be disconnected for good.
    Disconnect,
    /// The application knows that now is a good time to try: a waiting machine stops waiting.
    ReconnectNow,
    /// The application subscribes.
    Subscribe(SubscriptionId, Subscribe),
    /// The application ends a subscription.
    Unsubscribe(SubscriptionId),
    /// The application calls the server.
    Call(Ticket, Request),
    /// The transport is open.
    Opened,
    /// The transport ended, or could not be opened.
    Closed {
        /// WebSocket close code, or that of a disconnect; `None` when there was none.
        code: Option<u32>,
        /// Text for people.
        reason: String,
    },
    /// The transport brought a frame that is not of the protocol; why, in words.
    Malformed(String),
    /// The transport brought a reply or a push.
    Received(Box<Reply>),
    /// The answer to [`Output::AskToken`]. An empty token means unauthorized, as with the official SDKs.
    Token(TokenFor, Result<String, TokenError>),
    /// The driver reads nothing more, because the application does not take what is there.
    ReadingPaused,
    /// The driver reads again.
    ReadingResumed,
    /// A deadline may have passed.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Open a transport.
    Open,
    /// Send a command. Commands that come in a row may share a frame.
    Send(Box<Command>),
    /// Close the transport, or stop opening it.
    Close,
    /// Ask the application for a token, in place of a question for the same that may be open.
    AskToken(TokenFor),
    /// The answer to a call of the application.
    Answer(Ticket, Result<Response, Error>),
    /// Tell the application about the connection.
    Connection(ConnectionEvent),
    /// Tell the application about a subscription.
    Subscription(SubscriptionId, SubscriptionEvent),
}

/// The state of one client. See the [module](self) for how to drive it.
#[derive(Debug)]
pub struct Machine {
    options: Options,
    state: State,
    token: connection::Token,
    /// Failed attempts to connect in a row.
    failures: u32,
    /// Whether a transport was asked for and not closed yet.
    transport: bool,
    last_command: u32,
    in_flight: BTreeMap<u32, InFlight>,
    calls: BTreeMap<Ticket, calls::Call>,
    subscriptions: BTreeMap<SubscriptionId, Subscription>,
    channels: BTreeMap<String, SubscriptionId>,
    timers: Timers,
    rng: StdRng,
    outputs: VecDeque<Output>,
}

/// What a reply answers.
#[derive(Debug)]
enum InFlight {
    Connect,
    Refresh,
    Subscribe(SubscriptionId),
    Unsubscribe,
    SubscriptionRefresh(SubscriptionId),
    Call(Ticket, RequestKind),
}

impl Machine {
    /// Makes a machine that is disconnected until [`Input::Connect`].
    pub fn new(options: Options) -> Self {
        Self {
            state: State::Idle,
            token: connection::Token::new(options.token.clone()),
            failures: 0,
            transport: false,
            last_command: 0,
            in_flight: BTreeMap::new(),
            calls: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            channels: BTreeMap::new(),
            timers: Timers::default(),
            rng: StdRng::seed_from_u64(options.seed),
            outputs: VecDeque::new(),
            options,
        }
    }

    /// Takes one input. `now` never goes back.
    pub fn handle(&mut self, input: Input, now: Instant) {
        debug_assert!(self.outputs.is_empty(), "take all outputs before the next input");
        match input {
            Input::Connect => self.connect(now),
            Input::Disconnect => self.disconnect(codes::disconnected::DISCONNECT_CALLED, "disconnect called"),
            Input::ReconnectNow => self.reconnect_now(now),
            Input::Subscribe(id, subscribe) => self.subscribe(id, subscribe, now),
            Input::Unsubscribe(id) => self.unsubscribe(id, now),
            Input::Call(ticket, request) => self.call(ticket, request, now),
            Input::Opened => self.opened(now),
            Input::Closed { code, reason } => self.closed(code, reason, now),
            Input::Malformed(why) => self.bad_protocol(&why),
            Input::Received(reply) => self.received(*reply, now),
            Input::Token(TokenFor::Connection, answer) => self.connection_token(answer, now),
            Input::Token(TokenFor::Subscription(id), answer) => self.subscription_token(id, answer, now),
            Input::ReadingPaused => self.timers.pause(now),
            Input::ReadingResumed => self.timers.resume(now),
            Input::Tick => self.tick(now),
        }
        self.check_invariants();
    }

    /// Returns the next thing to do; `None` when all is done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns when the next [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Returns whether the machine has a subscription to the channel.
    pub fn has_channel(&self, channel: &str) -> bool {
        self.channels.contains_key(channel)
    }

    fn tick(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Attempt => self.attempt(now),
                Timer::Opening => self.opening_timed_out(now),
                Timer::Greeting => self.greeting_timed_out(now),
                Timer::Ping => self.ping_missing(now),
                Timer::Refresh => self.refresh(now),
                Timer::Token => self.connection_token(Err(TokenError::Temporary("no token in time".to_owned())), now),
                Timer::Command(id) => self.command_timed_out(id, now),
                Timer::Call(ticket) => self.call_timed_out(ticket),
                Timer::Resubscribe(id) => self.try_subscribe(id, now),
                Timer::SubscriptionRefresh(id) => self.refresh_subscription(id, now),
                Timer::SubscriptionToken(id) => {
                    self.subscription_token(id, Err(TokenError::Temporary("no token in time".to_owned())), now);
                }
            }
        }
    }

    fn received(&mut self, reply: Reply, now: Instant) {
        // Only a greeted or connected transport is read; anything else is late.
        if !matches!(self.state, State::Greeting | State::Connected(_)) {
            return;
        }
        if reply.id != 0 {
            return self.replied(reply, now);
        }
        match (reply.push, reply.error) {
            (Some(push), _) => self.pushed(push, now),
            (None, None) => self.pinged(now),
            // An error without id answers nothing that was asked.
            (None, Some(_)) => {}
        }
    }

    fn replied(&mut self, mut reply: Reply, now: Instant) {
        // A command that timed out meanwhile has left this map; its late reply is of no use.
        let Some(what) = self.in_flight.remove(&reply.id) else { return };
        self.timers.clear(Timer::Command(reply.id));
        let outcome = match reply.error.take() {
            Some(error) => Err(error),
            None => Ok(reply),
        };
        match what {
            InFlight::Connect => self.connect_replied(outcome, now),
            InFlight::Refresh => self.refresh_replied(outcome, now),
            InFlight::Subscribe(id) => self.subscribe_replied(id, outcome, now),
            InFlight::Unsubscribe => self.unsubscribe_replied(outcome, now),
            InFlight::SubscriptionRefresh(id) => self.subscription_refresh_replied(id, outcome, now),
            InFlight::Call(ticket, kind) => self.call_replied(ticket, kind, outcome),
        }
    }

    fn pushed(&mut self, push: Push, now: Instant) {
        // A push before the connect reply is a defect of the server; the official SDKs ignore it, too.
        if !matches!(self.state, State::Connected(_)) {
            return;
        }
        if let Some(disconnect) = push.disconnect {
            self.disconnect_pushed(disconnect, now);
        } else if let Some(refresh) = push.refresh {
            self.refresh_pushed(refresh, now);
        } else {
            self.channel_pushed(push, now);
        }
    }

    fn command_timed_out(&mut self, id: u32, now: Instant) {
        match self.in_flight.remove(&id) {
            Some(InFlight::Subscribe(_)) => {
                self.lose_connection(codes::connecting::SUBSCRIBE_TIMEOUT, "subscribe timeout", now);
            }
            Some(InFlight::Unsubscribe) => {
                self.lose_connection(codes::connecting::UNSUBSCRIBE_ERROR, "unsubscribe timeout", now);
            }
            Some(InFlight::Refresh) => self.refresh_failed(Error::Timeout, now),
            Some(InFlight::SubscriptionRefresh(id)) => self.subscription_refresh_failed(id, Error::Timeout, now),
            // These have timers of their own.
            Some(InFlight::Connect | InFlight::Call(..)) | None => {}
        }
    }

    /// Sends a command of the machine's own and waits for its reply.
    fn send_command(&mut self, what: InFlight, command: Command, now: Instant) {
        let id = self.send(what, command);
        self.timers.set(Timer::Command(id), self.options.timing.command_timeout, now);
    }

    /// Sends a command and returns the id that it got.
    fn send(&mut self, what: InFlight, mut command: Command) -> u32 {
        // Ids start again after four billion commands; one that still waits then is skipped, and 0 means "no id".
        loop {
            self.last_command = self.last_command.wrapping_add(1);
            if self.last_command != 0 && !self.in_flight.contains_key(&self.last_command) {
                break;
            }
        }
        command.id = self.last_command;
        self.in_flight.insert(command.id, what);
        let id = command.id;
        self.outputs.push_back(Output::Send(Box::new(command)));
        id
    }

    fn check_invariants(&self) {
        if cfg!(debug_assertions) {
            let connected = matches!(self.state, State::Connected(_));
            assert!(connected || matches!(self.state, State::Greeting) || self.in_flight.is_empty());
            assert_eq!(self.subscriptions.len(), self.channels.len());
            for (channel, id) in &self.channels {
                assert_eq!(self.subscriptions.get(id).map(Subscription::channel), Some(channel.as_str()));
            }
            assert!(connected || self.subscriptions.values().all(Subscription::is_offline));
            if matches!(self.state, State::Disconnected { .. }) {
                assert!(self.subscriptions.is_empty() && self.calls.is_empty() && self.timers.next().is_none());
            }
        }
    }
}

/// Turns an error of the wire into ours.
fn refused(error: starling_proto::client::Error) -> Error {
    Error::Refused { code: error.code, message: error.message, temporary: error.temporary }
}

/// Whether the machine repeats a connect, subscribe or refresh command that got this error: the protocol marks errors as
/// temporary, and codes below 100 are the SDKs' own.
fn worth_repeating(error: &starling_proto::client::Error) -> bool {
    error.temporary || error.code < 100
}

#[cfg(test)]
mod tests;
