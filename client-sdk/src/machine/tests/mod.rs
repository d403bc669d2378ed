//! Scripts: inputs in, exact outputs out, on a clock that the script moves.

mod calls;
mod connection;
mod delta;
mod hostile;
mod recovery;
mod subscription;

use std::time::{Duration, Instant};

use bytes::Bytes;
use starling_proto::client::{
    self, Command, ConnectResult, Publication as WirePublication, Push, Reply, SubscribeResult, Unsubscribe,
    UnsubscribeResult,
};

use super::{Input, Machine, Options, Output, Subscribe, SubscriptionId, Ticket, TokenFor};
use crate::codes;
use crate::{
    Connected, ConnectionEvent, Delta, Error, HistoryQuery, Protocol, Publication, Recovery, Request, Response,
    StreamPosition, Subscribed, SubscriptionEvent, Timing, TokenError,
};

const SECOND: Duration = Duration::from_secs(1);
const NEWS: SubscriptionId = SubscriptionId(1);
const CHAT: SubscriptionId = SubscriptionId(2);

/// A machine, its clock, and the id of the last command that it sent.
struct Script {
    machine: Machine,
    now: Instant,
    last_id: u32,
}

impl Script {
    fn new() -> Self {
        Self::with(options())
    }

    fn with(options: Options) -> Self {
        Self { machine: Machine::new(options), now: Instant::now(), last_id: 0 }
    }

    /// A script whose machine is connected; the server pings every 25 s and wants pongs.
    fn connected() -> Self {
        let mut script = Self::new();
        script.connect();
        script
    }

    fn connect(&mut self) {
        self.input(Input::Connect);
        self.open_and_greet();
    }

    fn open_and_greet(&mut self) -> Vec<Output> {
        self.input(Input::Opened);
        let id = self.last_id;
        self.reply(Reply { id, connect: Some(greeting()), ..Reply::default() })
    }

    /// Lets the waiting time of a reconnect pass and connects again.
    fn reconnect(&mut self) -> Vec<Output> {
        assert_eq!(self.next(), [Output::Open]);
        self.open_and_greet()
    }

    /// Moves the clock to the next deadline.
    fn next(&mut self) -> Vec<Output> {
        let deadline = self.machine.next_deadline().expect("something is awaited");
        self.pass(deadline - self.now)
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        self.machine.handle(input, self.now);
        let outputs: Vec<Output> = std::iter::from_fn(|| self.machine.poll_output()).collect();
        for output in &outputs {
            if let Output::Send(command) = output
                && command.id != 0
            {
                self.last_id = command.id;
            }
        }
        outputs
    }

    fn reply(&mut self, reply: Reply) -> Vec<Output> {
        self.input(Input::Received(Box::new(reply)))
    }

    fn push(&mut self, channel: &str, push: Push) -> Vec<Output> {
        let push = Push { channel: channel.to_owned(), ..push };
        self.reply(Reply { push: Some(push), ..Reply::default() })
    }

    fn publication(&mut self, channel: &str, offset: u64) -> Vec<Output> {
        self.push(channel, Push { r#pub: Some(wire_publication(offset)), ..Push::default() })
    }

    fn unsubscribe_push(&mut self, channel: &str, code: u32) -> Vec<Output> {
        let unsubscribe = Unsubscribe { code, reason: "why".to_owned() };
        self.push(channel, Push { unsubscribe: Some(unsubscribe), ..Push::default() })
    }

    fn error(&mut self, id: u32, code: u32, temporary: bool) -> Vec<Output> {
        let error = client::Error { code, message: "no".to_owned(), temporary };
        self.reply(Reply { id, error: Some(error), ..Reply::default() })
    }

    fn closed(&mut self, code: Option<u32>) -> Vec<Output> {
        self.input(Input::Closed { code, reason: "gone".to_owned() })
    }

    /// Moves the clock, with a tick at every deadline on the way. Returns what that made happen.
    fn pass(&mut self, duration: Duration) -> Vec<Output> {
        let end = self.now + duration;
        let mut outputs = Vec::new();
        while let Some(deadline) = self.machine.next_deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            outputs.extend(self.input(Input::Tick));
        }
        self.now = end;
        outputs
    }

    /// Subscribes to a channel that the server positions at `offset` of `epoch`.
    fn subscribe(&mut self, id: SubscriptionId, channel: &str, epoch: &str, offset: u64) -> Vec<Output> {
        self.input(Input::Subscribe(id, wish(channel)));
        let id = self.last_id;
        self.reply(Reply { id, subscribe: Some(positioned(epoch, offset)), ..Reply::default() })
    }
}

fn options() -> Options {
    Options {
        token: None,
        has_token_source: false,
        name: "test".to_owned(),
        version: "1".to_owned(),
        data: None,
        protocol: Protocol::Json,
        timing: Timing::default(),
        max_calls: 3,
        max_payload_bytes: 1000,
        seed: 42,
    }
}

fn greeting() -> ConnectResult {
    ConnectResult { client: "c1".to_owned(), ping: 25, pong: true, ..ConnectResult::default() }
}

fn wish(channel: &str) -> Subscribe {
    Subscribe { channel: channel.to_owned(), ..Subscribe::default() }
}

/// The reply to a subscribe command for a recoverable channel.
fn positioned(epoch: &str, offset: u64) -> SubscribeResult {
    SubscribeResult {
        recoverable: true,
        positioned: true,
        epoch: epoch.to_owned(),
        offset,
        ..SubscribeResult::default()
    }
}

/// The publication at an offset; its data is the offset.
fn wire_publication(offset: u64) -> WirePublication {
    WirePublication { data: Bytes::from(offset.to_string()), offset, ..WirePublication::default() }
}

fn delivered(id: SubscriptionId, offset: u64) -> Output {
    let publication = Publication {
        data: Bytes::from(offset.to_string()),
        offset: (offset > 0).then_some(offset),
        ..Publication::default()
    };
    Output::Subscription(id, SubscriptionEvent::Publication(publication))
}

fn position(epoch: &str, offset: u64) -> StreamPosition {
    StreamPosition { epoch: epoch.to_owned(), offset }
}

fn subscribed(id: SubscriptionId, recovery: Recovery, position: StreamPosition) -> Output {
    let subscribed = Subscribed { recovery, position: Some(position), recoverable: true, positioned: true, data: None };
    Output::Subscription(id, SubscriptionEvent::Subscribed(subscribed))
}

fn unsubscribed(id: SubscriptionId, code: u32, reason: &str) -> Output {
    Output::Subscription(id, SubscriptionEvent::Unsubscribed { code, reason: reason.to_owned() })
}

fn interrupted(id: SubscriptionId) -> Output {
    let event = SubscriptionEvent::Subscribing {
        code: codes::subscribing::TRANSPORT_CLOSED,
        reason: "transport closed".to_owned(),
    };
    Output::Subscription(id, event)
}

fn disconnected(code: u32, reason: &str) -> Output {
    Output::Connection(ConnectionEvent::Disconnected { code, reason: reason.to_owned() })
}

fn refusal(code: u32, temporary: bool) -> Error {
    Error::Refused { code, message: "no".to_owned(), temporary }
}

/// The only command among the outputs.
fn only_command(outputs: &[Output]) -> &Command {
    let mut commands = outputs.iter().filter_map(|output| match output {
        Output::Send(command) => Some(command),
        _ => None,
    });
    let command = commands.next().unwrap_or_else(|| panic!("no command in {outputs:?}"));
    assert!(commands.next().is_none(), "more than one command in {outputs:?}");
    command
}

/// Takes the delay out of the one event that announces it.
fn retry_in(outputs: &[Output]) -> Duration {
    let mut delays = outputs.iter().filter_map(|output| match output {
        Output::Connection(
            ConnectionEvent::Connecting { retry_in, .. } | ConnectionEvent::Retrying { retry_in, .. },
        ) => Some(*retry_in),
        _ => None,
    });
    let delay = delays.next().unwrap_or_else(|| panic!("no delay in {outputs:?}"));
    assert!(delays.next().is_none(), "more than one delay in {outputs:?}");
    delay
}
