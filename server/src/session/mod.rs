//! The protocol state of one connection, as a pure machine: inputs go in, outputs come out.
//!
//! A session never awaits, reads no clock and touches no socket. What it needs from outside (a place in a channel, a
//! publication accepted) it asks for with [`Output::Ask`] and hears of later as [`Input::Answer`] with the same ticket.
//!
//! # Driving contract
//!
//! 1. Call [`Session::handle`] with one input. Outputs are appended to the vector given to it: a session holds no queue
//!    of its own, since a million of them would hold a million empty ones.
//! 2. Carry all outputs out, in order, before the next input.
//! 3. Give no further [`Input::Command`] while [`Session::is_busy`]: replies keep the order of commands because commands
//!    wait, not because replies are sorted. Other inputs may come at any time.
//! 4. Call `handle` with [`Input::Deadline`] when [`Session::next_deadline`] is reached.
//! 5. After [`Output::Close`] or [`Output::Refuse`] nothing but `Answer`s of earlier questions may come; they are ignored.
//!
//! # States of a connection
//!
//! ```text
//!            connect accepted            Entered
//!   Fresh ───────────────────▶ Entering ─────────▶ Open ───┐
//!     │  stale, not a connect     │ limit                  │ disconnect
//!     ├──────────────▶ Closed ◀───┴────────────────────────┘
//!     └─ connect refused with an error reply ─▶ Closed, the rest of the input is dropped
//! ```
//!
//! States of a subscription are drawn in `session/subscribe.rs`.

mod connect;
mod keepalive;
pub mod protocol;
mod publish;
mod query;
mod recovery;
mod server_side;
mod subscribe;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt::Display, sync::Arc};

use bytes::Bytes;
use smallvec::SmallVec;

use self::{
    connect::{Entering, Fresh, Identity},
    keepalive::Keepalive,
    protocol::{Command, Expiry, Protocol, Push, Reply, Request},
    subscribe::Subscription,
};
use crate::{
    auth::{Failure, UnixSeconds},
    broker::{
        BrokerError, ClientInfo, History, HistoryOptions, HistoryQuery, Publication, PublishOptions, Published,
        StreamPosition,
    },
    clock::Moment,
    error::{ClientError, Disconnect, Unsubscribed},
    filter::Filter,
    limits,
    names::{ChannelName, ClientId, UserId},
    namespace::Granted,
    presence::PresenceStats,
    settings::Settings,
};

/// Names a question of a session; its answer bears the same ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Counts the questions of the session.
    pub number: u32,
    /// Id of the command that led to the question.
    pub command: u32,
}

/// What can happen to a session.
#[derive(Debug)]
pub enum Input {
    /// The next command of the client.
    Command(Command),
    /// Bytes that are no command.
    Malformed,
    /// A WebSocket pong frame.
    FramePong,
    /// The answer to an earlier question.
    Answer(Ticket, Answer),
    /// The deadline is reached.
    Deadline,
    /// The node ends the connection.
    Disconnect(Disconnect),
    /// The node ends a subscription; without a channel the client is only told.
    Unsubscribe(Option<ChannelName>, Unsubscribed),
    /// The server API adds a subscription.
    Subscribe(Arc<ServerSubscription>),
    /// The server API changes the expiry.
    Refresh(Arc<ServerRefresh>),
    /// Publications of the channel were missed.
    Insufficient(ChannelName),
}

/// A subscription that the server API makes.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerSubscription {
    /// To which channel.
    pub channel: ChannelName,
    /// What it has.
    pub granted: Granted,
    /// Publications behind this position are sent first.
    pub recover_since: Option<StreamPosition>,
    /// Histories of the channel, when it has one.
    pub history: Option<HistoryOptions>,
}

/// A new expiry that the server API gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerRefresh {
    /// It has expired: the connection ends.
    pub expired: bool,
    /// Unix time of the expiry; `None` for never.
    pub expire_at: Option<UnixSeconds>,
    /// What others are shown about the user from now on; `None` leaves it.
    pub info: Option<Bytes>,
}

/// What a session wants done.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Write the reply to the command with this id.
    Reply(u32, Reply),
    /// Write a push.
    Push(Push),
    /// Write the protocol's ping.
    Ping,
    /// Write a WebSocket ping frame.
    FramePing,
    /// Find out; the answer comes back as [`Input::Answer`].
    Ask(Ticket, Ask),
    /// From here on deliver the channel's publications to this connection. Follows the subscribe reply.
    GoLive(GoLive),
    /// The subscription is gone: deliver nothing more, give up the place in the channel.
    Leave(Departure),
    /// Tell the channel that the subscriber joined.
    Announce(ChannelName, ClientInfo),
    /// End all other connections of this user.
    Displace(UserId),
    /// Log why something was refused: the rule, the value seen, and the option that would allow it.
    Refused(String),
    /// End the connection.
    Close(Disconnect),
    /// Drop all further input, and end the connection without a Close frame a little later.
    Refuse,
}

/// A subscription that goes live.
#[derive(Clone, Debug, PartialEq)]
pub struct GoLive {
    /// Of which channel.
    pub channel: ChannelName,
    /// What the client has: it gets everything behind it. `None` without positions: it gets everything from now on.
    pub position: Option<StreamPosition>,
    /// Publications are sent in the delta encoding.
    pub delta: bool,
    /// The client was just given the publication at its position: patches can rest on it.
    pub has_base: bool,
    /// Joins and leaves are sent, too.
    pub joins: bool,
    /// Publications that do not pass it are held back.
    pub filter: Option<Arc<Filter>>,
}

/// A subscription that is gone.
#[derive(Clone, Debug, PartialEq)]
pub struct Departure {
    /// Of which channel.
    pub channel: ChannelName,
    /// User whose presence ends, if the subscription had presence.
    pub presence: Option<UserId>,
    /// Told to the channel, if the subscription's coming was.
    pub leave: Option<ClientInfo>,
}

/// A question of a session.
#[derive(Debug, PartialEq)]
pub enum Ask {
    /// May this user have one more connection on this node? If so, count it.
    Enter {
        /// Who enters.
        user: UserId,
        /// `client.user_connection_limit`, when set and the user is not anonymous.
        limit: Option<u32>,
    },
    /// Take a place in the channel.
    Join(Box<Join>),
    /// Publish.
    Publish {
        /// Where.
        channel: ChannelName,
        /// What.
        publication: Box<Publication>,
        /// How.
        options: PublishOptions,
    },
    /// Read history.
    History {
        /// Of which channel.
        channel: ChannelName,
        /// Which part.
        query: HistoryQuery,
        /// What the channel keeps.
        options: HistoryOptions,
        /// The epoch that the client's position is of, if it says so; comes back with the answer.
        epoch: Option<String>,
    },
    /// List who is in a channel.
    Presence {
        /// Which channel.
        channel: ChannelName,
    },
    /// Count who is in a channel.
    PresenceStats {
        /// Which channel.
        channel: ChannelName,
    },
}

/// A place in a channel: receive its publications, then enter its presence, then read its history, in this order, so that
/// between history and what comes nothing can be missed.
#[derive(Debug, PartialEq)]
pub struct Join {
    /// Which channel.
    pub channel: ChannelName,
    /// As whom to be seen in presence; `None` without it.
    pub presence: Option<(ClientId, ClientInfo)>,
    /// What to read of the history; `None` without positions.
    pub history: Option<(HistoryQuery, HistoryOptions)>,
}

/// Answer to an [`Ask`].
#[derive(Debug)]
pub enum Answer {
    /// Whether the user may enter.
    Entered(bool),
    /// The place is taken, with the history that was asked for.
    Joined(Result<Option<History>, BrokerError>),
    /// Whether the publication was accepted.
    Published {
        /// Where it was published: the publisher's own copy is delivered before its reply.
        channel: ChannelName,
        /// What became of it.
        result: Result<Published, BrokerError>,
    },
    /// Part of a history.
    History {
        /// As in the question.
        epoch: Option<String>,
        /// What was read.
        result: Result<History, BrokerError>,
    },
    /// Who is in the channel.
    Presence(Result<BTreeMap<String, ClientInfo>, BrokerError>),
    /// How many are in the channel.
    PresenceStats(Result<PresenceStats, BrokerError>),
}

/// What a session may look at while it handles an input.
pub struct Context<'a> {
    /// The present moment.
    pub now: Moment,
    /// The present time in Unix milliseconds, for tokens.
    pub unix_ms: i64,
    /// A fresh random number, for jitter.
    pub random: u32,
    /// The configuration in force.
    pub settings: &'a Settings,
}

impl Context<'_> {
    fn unix_s(&self) -> UnixSeconds {
        UnixSeconds(self.unix_ms.div_euclid(1000))
    }

    /// The moment of a Unix time.
    fn moment_of(&self, at: UnixSeconds) -> Moment {
        let ahead_ms = at.0.saturating_mul(1000).saturating_sub(self.unix_ms);
        Moment(self.now.0.saturating_add_signed(ahead_ms))
    }

    /// What a client is told of a time of expiry: whole seconds from now, at most a year.
    fn expiry(&self, at: Option<UnixSeconds>) -> Expiry {
        Expiry(at.map(|at| u32::try_from(at.0 - self.unix_s().0).unwrap_or(0).min(limits::LONGEST_TTL_S)))
    }
}

/// Protocol state of one connection.
pub struct Session {
    client: ClientId,
    protocol: Protocol,
    phase: Phase,
    subscriptions: SmallVec<[Subscription; 1]>,
    /// Questions not answered yet that stand for a command.
    open_asks: u16,
    last_ticket: u32,
}

enum Phase {
    /// No accepted connect yet.
    Fresh(Box<Fresh>),
    /// Connect is accepted as far as the session can tell.
    Entering(Box<Entering>),
    /// The client may command.
    Open(Open),
    /// Nothing more comes or goes.
    Closed {
        /// Who the client was, if it had got that far.
        identity: Option<Identity>,
    },
}

struct Open {
    identity: Identity,
    keepalive: Keepalive,
}

/// How the connection was opened: facts that only the handshake knows.
#[derive(Clone, Debug, Default)]
pub struct Opening {
    /// Value of the header that `client.user_id_http_header` names.
    pub user_header: Option<String>,
    /// The client asked for WebSocket pings instead of the protocol's.
    pub frame_pings: bool,
}

impl Session {
    /// State of a connection whose handshake is done. It must `connect` within `client.stale_close_delay`.
    pub fn new(client: ClientId, protocol: Protocol, opening: Opening, context: &Context<'_>) -> Self {
        let fresh = Fresh { opening, stale_at: context.now + context.settings.stale_close_delay };
        Self {
            client,
            protocol,
            phase: Phase::Fresh(Box::new(fresh)),
            subscriptions: SmallVec::new(),
            open_asks: 0,
            last_ticket: 0,
        }
    }

    /// Id of the connection.
    pub fn client(&self) -> ClientId {
        self.client
    }

    /// Encoding of the connection.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Who the client is, or was when the session was closed; `None` until `connect` is accepted.
    pub fn user(&self) -> Option<&UserId> {
        match &self.phase {
            Phase::Open(open) => Some(&open.identity.user),
            Phase::Entering(entering) if entering.entered => Some(&entering.identity.user),
            Phase::Closed { identity } => identity.as_ref().map(|identity| &identity.user),
            Phase::Fresh(_) | Phase::Entering(_) => None,
        }
    }

    /// Channels that the session holds a place in, or is about to.
    pub fn channels(&self) -> impl Iterator<Item = &ChannelName> {
        self.subscriptions.iter().map(|subscription| &subscription.channel)
    }

    /// Whether the next command must wait for an answer.
    pub fn is_busy(&self, settings: &Settings) -> bool {
        u32::from(self.open_asks) >= settings.concurrency.max(1)
    }

    /// When [`Input::Deadline`] is due; `None` once the session is closed, or where nothing ever comes due.
    pub fn next_deadline(&self, settings: &Settings) -> Option<Moment> {
        match &self.phase {
            Phase::Fresh(fresh) => Some(fresh.stale_at),
            Phase::Entering(entering) => Some(entering.stale_at),
            Phase::Open(open) => {
                let expiry = open.identity.expires_at().map(|at| at + settings.expired_close_delay);
                let subscriptions = self.subscriptions.iter().filter_map(Subscription::expires_at).min();
                let subscriptions = subscriptions.map(|at| at + settings.expired_sub_close_delay);
                [open.keepalive.next_deadline(), expiry, subscriptions].into_iter().flatten().min()
            }
            Phase::Closed { .. } => None,
        }
    }

    /// Takes one input and appends what is to be done about it to `out`. See the module's driving contract.
    pub fn handle(&mut self, input: Input, context: &Context<'_>, out: &mut Vec<Output>) {
        match input {
            Input::Command(command) => self.command(command, context, out),
            Input::Malformed => self.close(Disconnect::BAD_REQUEST, out),
            Input::FramePong => self.frame_pong(),
            Input::Answer(ticket, answer) => self.answer(ticket, answer, context, out),
            Input::Deadline => self.deadline(context, out),
            Input::Disconnect(cause) => self.close(cause, out),
            Input::Unsubscribe(channel, cause) => self.unsubscribe_by_server(channel, cause, out),
            Input::Subscribe(subscription) => self.subscribe_by_server(&subscription, context, out),
            Input::Refresh(refresh) => self.refresh_by_server(&refresh, context, out),
            Input::Insufficient(channel) => self.insufficient(&channel, out),
        }
    }

    /// One line per command, each to the file that knows it.
    fn command(&mut self, Command { id, request }: Command, context: &Context<'_>, out: &mut Vec<Output>) {
        match (&self.phase, &request) {
            (Phase::Closed { .. }, _) => return,
            (Phase::Open(_), Request::Connect(_)) => return self.close(Disconnect::BAD_REQUEST, out),
            (Phase::Open(_), _) => {}
            (Phase::Fresh(_), Request::Connect(_)) => {}
            (Phase::Fresh(_) | Phase::Entering(_), _) => return self.close(Disconnect::BAD_REQUEST, out),
        }
        if id == 0 && !matches!(request, Request::Pong | Request::Send) {
            return self.close(Disconnect::BAD_REQUEST, out);
        }
        match request {
            Request::Pong => self.pong(out),
            Request::Connect(request) => self.connect(id, *request, context, out),
            Request::Subscribe(request) => self.subscribe(id, *request, context, out),
            Request::Unsubscribe { channel } => self.unsubscribe(id, &channel, out),
            Request::Publish { channel, data } => self.publish(id, channel, data, context, out),
            Request::Presence { channel } => self.presence(id, &channel, context, out),
            Request::PresenceStats { channel } => self.presence_stats(id, &channel, context, out),
            Request::History(request) => self.history(id, &request, context, out),
            Request::Rpc { method: _, data: _ } => self.rpc(id, out),
            Request::Send => self.close(Disconnect::NOT_AVAILABLE, out),
            Request::Refresh { token } => self.refresh(id, &token, context, out),
            Request::SubRefresh { channel, token } => self.sub_refresh(id, &channel, &token, context, out),
        }
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer, context: &Context<'_>, out: &mut Vec<Output>) {
        if matches!(self.phase, Phase::Closed { .. }) {
            return;
        }
        self.open_asks = self.open_asks.saturating_sub(1);
        match answer {
            Answer::Entered(allowed) => self.entered(allowed, context, out),
            Answer::Joined(result) => self.joined(ticket, result, context, out),
            Answer::Published { channel: _, result } => Self::published(ticket, result, out),
            Answer::History { epoch, result } => Self::history_read(ticket, epoch.as_deref(), result, out),
            Answer::Presence(result) => Self::presence_listed(ticket, result, out),
            Answer::PresenceStats(result) => Self::presence_counted(ticket, result, out),
        }
    }

    fn deadline(&mut self, context: &Context<'_>, out: &mut Vec<Output>) {
        match &self.phase {
            Phase::Fresh(fresh) if fresh.stale_at <= context.now => self.close(Disconnect::STALE, out),
            Phase::Entering(entering) if entering.stale_at <= context.now => self.close(Disconnect::STALE, out),
            Phase::Open(open) => {
                let expiry = open.identity.expires_at().map(|at| at + context.settings.expired_close_delay);
                if expiry.is_some_and(|at| at <= context.now) {
                    return self.close(Disconnect::EXPIRED, out);
                }
                self.expire_subscriptions(context, out);
                self.keep_alive(context, out);
            }
            Phase::Fresh(_) | Phase::Entering(_) | Phase::Closed { .. } => {}
        }
    }

    /// Ends everything. The driver removes the connection from every channel and map; no `Leave` is said for each.
    fn close(&mut self, cause: Disconnect, out: &mut Vec<Output>) {
        if !matches!(self.phase, Phase::Closed { .. }) {
            self.shut();
            out.push(Output::Close(cause));
        }
    }

    /// Takes no more input. Who the client was is kept for those it leaves behind.
    fn shut(&mut self) {
        let identity = match std::mem::replace(&mut self.phase, Phase::Closed { identity: None }) {
            Phase::Open(open) => Some(open.identity),
            Phase::Entering(entering) => entering.entered.then_some(entering.identity),
            Phase::Closed { identity } => identity,
            Phase::Fresh(_) => None,
        };
        self.phase = Phase::Closed { identity };
    }

    /// How the client is seen by others, in a channel about which its token says `chan_info`.
    fn client_info(&self, chan_info: Bytes) -> ClientInfo {
        let identity = match &self.phase {
            Phase::Open(open) => Some(&open.identity),
            Phase::Entering(entering) => Some(&entering.identity),
            Phase::Closed { identity } => identity.as_ref(),
            Phase::Fresh(_) => None,
        };
        ClientInfo {
            user: identity.map(|identity| identity.user.as_str().to_owned()).unwrap_or_default(),
            client: self.client.to_string(),
            conn_info: identity.map(Identity::info).unwrap_or_default(),
            chan_info,
        }
    }

    fn ask(&mut self, command: u32, ask: Ask, out: &mut Vec<Output>) -> Ticket {
        self.last_ticket = self.last_ticket.wrapping_add(1);
        let ticket = Ticket { number: self.last_ticket, command };
        self.open_asks += 1;
        out.push(Output::Ask(ticket, ask));
        ticket
    }

    /// Answers a refused command as the refusal says, and logs why.
    fn refused<R: Into<Failure> + Display>(&mut self, id: u32, refusal: R, out: &mut Vec<Output>) {
        out.push(Output::Refused(refusal.to_string()));
        match refusal.into() {
            Failure::Error(cause) => error(id, cause, out),
            Failure::Disconnect(cause) => self.close(cause, out),
        }
    }
}

fn error(id: u32, error: ClientError, out: &mut Vec<Output>) {
    out.push(Output::Reply(id, Reply::Error(error)));
}
