//! The task that gives a [`Machine`] its sockets, its clock and its application.
//!
//! One task owns everything of one client: the machine, the socket, the questions to token sources, and the queues to
//! the readers of subscriptions. Handles ([`Client`](crate::Client), [`Subscription`]) send it orders through a bounded
//! queue; it ends when the machine is disconnected and the last event is handed over.

mod dial;
mod feeds;
mod questions;
mod socket;

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use starling_proto::client::{Command, Reply};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracing::{debug, error};

use crate::machine::{Input, Machine, Options, Output, Subscribe, SubscriptionId, Ticket, TokenFor};
use crate::request::{Request, Response};
use crate::subscription::Subscription;
use crate::{
    ClientConfig, ConnectionEvent, ConnectionState, Error, Protocol, SubscribeOptions, SubscriptionEvent, TokenError,
    TokenSource,
};
pub(crate) use dial::Dialer;
use feeds::Feeds;
use questions::Questions;
use socket::{Socket, SocketEvent};

/// Orders that wait for the task. At the bound, handles wait.
pub(crate) const ORDERS: usize = 64;

/// Commands share a frame up to this many bytes: well below the 64 KiB that servers take by default.
const FRAME_BYTES: usize = 16 << 10;

/// What handles want.
pub(crate) enum Order {
    Subscribe {
        channel: String,
        options: SubscribeOptions,
        /// For the new handle.
        orders: mpsc::Sender<Order>,
        answer: oneshot::Sender<Result<Subscription, Error>>,
    },
    Unsubscribe(SubscriptionId),
    Call(Request, oneshot::Sender<Result<Response, Error>>),
    ReconnectNow,
    Disconnect,
}

pub(crate) struct Driver {
    machine: Machine,
    dialer: Arc<Dialer>,
    protocol: Protocol,
    token_source: Option<TokenSource>,
    subscription_events: usize,

    /// `None` when all handles are gone.
    orders: Option<mpsc::Receiver<Order>>,
    state: watch::Sender<ConnectionState>,
    events: broadcast::Sender<ConnectionEvent>,

    link: Link,
    /// Of the frame that was read last, those that are not handled yet.
    replies: VecDeque<Reply>,
    /// The frame that is being filled.
    frame: BytesMut,
    calls: BTreeMap<Ticket, oneshot::Sender<Result<Response, Error>>>,
    feeds: Feeds,
    reading_paused: bool,
    token_sources: BTreeMap<SubscriptionId, TokenSource>,
    questions: Questions,
    last_subscription: u64,
    last_ticket: u64,
}

/// The transport.
enum Link {
    Down,
    Dialing(Pin<Box<dyn Future<Output = Result<Box<Socket>, String>> + Send>>),
    Up(Box<Socket>),
}

enum LinkEvent {
    Dialed(Result<Box<Socket>, String>),
    Socket(SocketEvent),
}

/// What made the task wake up.
enum Turn {
    Order(Option<Order>),
    Link(LinkEvent),
    Token(TokenFor, Result<String, TokenError>),
    HandedOver,
    Deadline,
}

impl Driver {
    pub(crate) fn new(
        config: ClientConfig,
        dialer: Dialer,
        orders: mpsc::Receiver<Order>,
        state: watch::Sender<ConnectionState>,
        events: broadcast::Sender<ConnectionEvent>,
    ) -> Self {
        let ClientConfig {
            url: _,
            protocol,
            token,
            token_source,
            name,
            version,
            data,
            headers: _,
            tls: _,
            timing,
            limits,
        } = config;
        let options = Options {
            token,
            has_token_source: token_source.is_some(),
            name,
            version,
            data,
            protocol,
            timing,
            max_calls: limits.calls,
            max_payload_bytes: limits.message_bytes,
            seed: rand::random(),
        };
        Self {
            machine: Machine::new(options),
            dialer: Arc::new(dialer),
            protocol,
            token_source,
            subscription_events: limits.subscription_events.max(1),
            orders: Some(orders),
            state,
            events,
            link: Link::Down,
            replies: VecDeque::new(),
            frame: BytesMut::new(),
            calls: BTreeMap::new(),
            feeds: Feeds::default(),
            reading_paused: false,
            token_sources: BTreeMap::new(),
            questions: Questions::default(),
            last_subscription: 0,
            last_ticket: 0,
        }
    }

    /// Runs until the machine is disconnected and all events are handed over.
    pub(crate) async fn run(mut self) {
        self.input(Input::Connect);
        loop {
            self.handle_replies();
            if self.is_disconnected() && !self.feeds.is_blocked() {
                return;
            }
            match self.turn().await {
                Turn::Order(Some(order)) => self.order(order),
                Turn::Order(None) => {
                    self.orders = None;
                    self.input(Input::Disconnect);
                }
                Turn::Link(LinkEvent::Dialed(result)) => self.dialed(result),
                Turn::Link(LinkEvent::Socket(event)) => self.socket_event(event),
                Turn::Token(purpose, answer) => self.input(Input::Token(purpose, answer)),
                Turn::HandedOver => self.unsubscribe_abandoned(),
                Turn::Deadline => self.input(Input::Tick),
            }
        }
    }

    /// Waits for whatever comes first. Each branch loses nothing when another one wins.
    async fn turn(&mut self) -> Turn {
        let deadline = self.machine.next_deadline().map(tokio::time::Instant::from_std);
        // A reader is behind: nothing more is read until it has caught up.
        let read = !self.feeds.is_blocked();
        // A server that takes nothing gets no more commands.
        let take_orders = !matches!(&self.link, Link::Up(socket) if socket.is_full());
        tokio::select! {
            order = next_order(&mut self.orders), if take_orders => Turn::Order(order),
            event = self.link.next(read) => Turn::Link(event),
            (purpose, answer) = self.questions.next() => Turn::Token(purpose, answer),
            () = self.feeds.hand_over() => Turn::HandedOver,
            () = sleep_until(deadline) => Turn::Deadline,
        }
    }

    fn is_disconnected(&self) -> bool {
        matches!(*self.state.borrow(), ConnectionState::Disconnected { .. })
    }

    /// Handles what was read, as long as the readers keep up. Tells the machine when that changes.
    fn handle_replies(&mut self) {
        while !self.feeds.is_blocked()
            && let Some(reply) = self.replies.pop_front()
        {
            self.input(Input::Received(Box::new(reply)));
        }
        let blocked = self.feeds.is_blocked();
        if blocked != self.reading_paused {
            self.reading_paused = blocked;
            self.input(if blocked { Input::ReadingPaused } else { Input::ReadingResumed });
        }
    }

    fn order(&mut self, order: Order) {
        match order {
            Order::Subscribe { channel, options, orders, answer } => self.subscribe(channel, options, orders, answer),
            Order::Unsubscribe(id) => self.input(Input::Unsubscribe(id)),
            Order::Call(request, answer) => {
                self.last_ticket += 1;
                let ticket = Ticket(self.last_ticket);
                self.calls.insert(ticket, answer);
                self.input(Input::Call(ticket, request));
            }
            Order::ReconnectNow => self.input(Input::ReconnectNow),
            Order::Disconnect => self.input(Input::Disconnect),
        }
    }

    fn subscribe(
        &mut self,
        channel: String,
        options: SubscribeOptions,
        orders: mpsc::Sender<Order>,
        answer: oneshot::Sender<Result<Subscription, Error>>,
    ) {
        if self.machine.has_channel(&channel) {
            // The old subscription may be gone without anyone having noticed.
            self.feeds.find_abandoned();
            self.unsubscribe_abandoned();
        }
        let refusal = if let ConnectionState::Disconnected { code, reason } = &*self.state.borrow() {
            Some(Error::Disconnected { code: *code, reason: reason.clone() })
        } else if self.machine.has_channel(&channel) {
            Some(Error::AlreadySubscribed)
        } else {
            None
        };
        if let Some(error) = refusal {
            // Whoever asked may not wait any more.
            let _ = answer.send(Err(error));
            return;
        }
        self.last_subscription += 1;
        let id = SubscriptionId(self.last_subscription);
        let (sender, receiver) = mpsc::channel(self.subscription_events);
        self.feeds.open(id, sender);
        let SubscribeOptions { token, token_source, data, positioned, recoverable, join_leave, delta, since } = options;
        let wish = Subscribe {
            channel: channel.clone(),
            token,
            has_token_source: token_source.is_some(),
            data,
            positioned,
            recoverable,
            join_leave,
            delta,
            since: since.clone(),
        };
        if let Some(source) = token_source {
            self.token_sources.insert(id, source);
        }
        self.input(Input::Subscribe(id, wish));
        // When nobody waits any more, the handle is dropped here and orders to unsubscribe.
        let _ = answer.send(Ok(Subscription::new(id, channel, since, receiver, orders)));
    }

    fn dialed(&mut self, result: Result<Box<Socket>, String>) {
        match result {
            Ok(socket) => {
                self.link = Link::Up(socket);
                self.input(Input::Opened);
            }
            Err(reason) => {
                self.link = Link::Down;
                self.input(Input::Closed { code: None, reason });
            }
        }
    }

    fn socket_event(&mut self, event: SocketEvent) {
        match event {
            SocketEvent::Frame(frame) => match self.protocol.decode_replies(frame) {
                Ok(replies) => self.replies.extend(replies),
                Err(error) => self.input(Input::Malformed(error.to_string())),
            },
            SocketEvent::WrongFrame => self.input(Input::Malformed("a frame of the other protocol's type".to_owned())),
            SocketEvent::Drained => {}
            SocketEvent::Closed { code, reason } => {
                self.hang_up();
                self.input(Input::Closed { code, reason });
            }
        }
    }

    /// Gives the machine an input, does what it says, and sends what it wrote.
    fn input(&mut self, input: Input) {
        self.machine.handle(input, now());
        self.perform_outputs();
        self.unsubscribe_abandoned();
    }

    fn unsubscribe_abandoned(&mut self) {
        while let Some(id) = self.feeds.next_abandoned() {
            self.machine.handle(Input::Unsubscribe(id), now());
            self.perform_outputs();
        }
    }

    fn perform_outputs(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Open => self.link = Link::Dialing(Box::pin(self.dialer.clone().dial())),
                Output::Send(command) => self.write(*command),
                Output::Close => {
                    self.finish_frame();
                    self.hang_up();
                }
                Output::AskToken(purpose) => self.ask_token(purpose),
                Output::Answer(ticket, answer) => {
                    if let Some(waiting) = self.calls.remove(&ticket) {
                        // Whoever asked may not wait any more.
                        let _ = waiting.send(answer);
                    }
                }
                Output::Connection(event) => self.tell_connection(event),
                Output::Subscription(id, event) => self.tell_subscription(id, event),
            }
        }
        self.finish_frame();
    }

    /// Adds a command to the frame, after sending the frame when it would become too big.
    fn write(&mut self, command: Command) {
        let before = self.frame.len();
        if let Err(error) = self.protocol.encode_command(command, &mut self.frame) {
            // Payloads are checked where the application gives them.
            error!(%error, "a command could not be written");
            return;
        }
        if before > 0 && self.frame.len() > FRAME_BYTES {
            let mut next = self.frame.split_off(before);
            if self.protocol == Protocol::Json {
                // The line end that separated it from the command before.
                next.advance(1);
            }
            self.finish_frame();
            self.frame = next;
        }
    }

    fn finish_frame(&mut self) {
        if self.frame.is_empty() {
            return;
        }
        let frame: Bytes = self.frame.split().freeze();
        if let Link::Up(socket) = &mut self.link {
            socket.queue(frame);
        }
    }

    fn hang_up(&mut self) {
        self.replies.clear();
        if let Link::Up(socket) = std::mem::replace(&mut self.link, Link::Down) {
            socket.finish();
        }
    }

    fn ask_token(&mut self, purpose: TokenFor) {
        let source = match purpose {
            TokenFor::Connection => self.token_source.as_ref(),
            TokenFor::Subscription(id) => self.token_sources.get(&id),
        };
        let source = source.expect("the machine asks only where it was told of a source");
        self.questions.ask(purpose, source.ask());
    }

    fn tell_connection(&mut self, event: ConnectionEvent) {
        debug!(?event, "connection");
        match &event {
            ConnectionEvent::Connecting { .. } => {
                self.state.send_replace(ConnectionState::Connecting);
            }
            ConnectionEvent::Connected(connected) => {
                self.state.send_replace(ConnectionState::Connected(connected.clone()));
            }
            ConnectionEvent::Disconnected { code, reason } => {
                self.questions.forget_all();
                self.state.send_replace(ConnectionState::Disconnected { code: *code, reason: reason.clone() });
            }
            ConnectionEvent::Retrying { .. } | ConnectionEvent::Missed { .. } => {}
        }
        // Nobody has to listen.
        let _ = self.events.send(event);
    }

    fn tell_subscription(&mut self, id: SubscriptionId, event: SubscriptionEvent) {
        if let SubscriptionEvent::Unsubscribed { .. } = event {
            self.token_sources.remove(&id);
            self.questions.forget(TokenFor::Subscription(id));
        }
        self.feeds.deliver(id, event);
    }
}

impl Link {
    async fn next(&mut self, read: bool) -> LinkEvent {
        match self {
            Self::Down => std::future::pending().await,
            Self::Dialing(dialing) => LinkEvent::Dialed(dialing.await),
            Self::Up(socket) => LinkEvent::Socket(socket.next(read).await),
        }
    }
}

async fn next_order(orders: &mut Option<mpsc::Receiver<Order>>) -> Option<Order> {
    match orders {
        Some(orders) => orders.recv().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The runtime's clock, which tests can pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
