//! What a session wants done: replies into one write, questions to the node, places in channels.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use smallvec::SmallVec;
use tracing::{debug, info};

use super::{
    Task, Worker,
    connection::{Membership, Written},
    inbox::{ConnectionRef, Message},
    local::{Delta, Live, Place, Terms},
};
use crate::{
    broker::BrokerError,
    channels::Left,
    error::Disconnect,
    limits,
    metrics::CommandKind,
    names::{ChannelName, UserId},
    node::Target,
    session::{
        Answer, Ask, Departure, GoLive, Input, Output, Ticket,
        protocol::{Protocol, Push, Reply},
    },
    wire::{
        self,
        websocket::{self, OpenFrame},
    },
};

impl Worker {
    /// Gives the session an input and carries out all that comes of it. Replies are gathered; [`Self::write_replies`]
    /// writes them.
    pub(super) fn drive(&mut self, at: ConnectionRef, input: Input) {
        let mut outputs = std::mem::take(&mut self.outputs);
        let settings = self.settings.clone();
        // A connect with server-side subscriptions asks for all their places at once.
        let mut next = SmallVec::<[Input; 2]>::from_iter([input]);
        while !next.is_empty() {
            let input = next.remove(0);
            if let Some(kind) = CommandKind::of(&input) {
                self.command_kind = kind;
            }
            let context = self.context(&settings);
            let Some(connection) = self.connection(at) else { break };
            connection.session.handle(input, &context, &mut outputs);
            for output in outputs.drain(..) {
                if let Some(answer) = self.perform(at, output) {
                    next.push(answer);
                }
            }
        }
        self.outputs = outputs;
    }

    /// Carries out one output. A question that is answered at once gives the session's next input.
    fn perform(&mut self, at: ConnectionRef, output: Output) -> Option<Input> {
        match output {
            Output::Reply(id, reply) => {
                if let Reply::Error(error) = &reply {
                    self.shared.counters[self.number].reply_error(self.command_kind, *error);
                }
                self.gather(at, |protocol, out| wire::reply(protocol, id, &reply, out));
            }
            Output::Push(push) => {
                if let Push::Unsubscribe { cause, .. } = &push {
                    self.shared.counters[self.number].unsubscribe(cause);
                }
                self.gather(at, |protocol, out| wire::push(protocol, &push, out));
            }
            Output::Ping => self.gather(at, |protocol, out| {
                out.extend_from_slice(wire::ping(protocol));
                Ok(())
            }),
            Output::FramePing => {
                self.write_replies(at);
                let mut frame = Vec::new();
                websocket::ping_frame(&[], &mut frame);
                self.write(at, &frame);
            }
            Output::Ask(ticket, ask) => return self.ask(at, ticket, ask),
            Output::GoLive(go_live) => return self.go_live(at, go_live),
            Output::Leave(departure) => self.leave(at, departure),
            Output::Announce(channel, info) => self.start(self.shared.broker.join(&channel, info)),
            Output::Displace(user) => self.displace(at, user),
            Output::Refused(why) => self.log_refusal(at, &why),
            Output::Close(cause) => self.end(at, cause),
            Output::Refuse => self.refuse(at),
        }
        None
    }

    fn ask(&mut self, at: ConnectionRef, ticket: Ticket, ask: Ask) -> Option<Input> {
        match ask {
            Ask::Enter { user, limit } => {
                let allowed = self.shared.users.enter(&user, limit);
                if allowed {
                    self.entered(at, &user);
                }
                Some(Input::Answer(ticket, Answer::Entered(allowed)))
            }
            Ask::Join(join) => {
                self.hold(at, &join.channel);
                self.answered(at, ticket, self.shared.clone().join(*join).map(Answer::Joined).boxed())
            }
            Ask::Publish { channel, publication, options } => {
                let published = self.shared.broker.publish(&channel, *publication, options);
                let answer = published.map(|result| Answer::Published { channel, result }).boxed();
                // Through the inbox also when it is ready, behind the publication itself: the publisher gets its own copy
                // before the reply.
                let answer = self.answer_of(at, ticket, answer)?;
                let message = Message::Answer { connection: at, ticket, answer };
                self.shared.inboxes[self.number].push(message);
                None
            }
            Ask::History { channel, query, options, epoch } => {
                let read = self.shared.broker.history(&channel, query, options);
                self.answered(at, ticket, read.map(|result| Answer::History { epoch, result }).boxed())
            }
            Ask::Presence { channel } => {
                self.answered(at, ticket, self.shared.presence.list(&channel).map(Answer::Presence).boxed())
            }
            Ask::PresenceStats { channel } => {
                self.answered(at, ticket, self.shared.presence.stats(&channel).map(Answer::PresenceStats).boxed())
            }
        }
    }

    /// An answer that is there already is the session's next input: nothing had to be waited for.
    fn answered(&self, at: ConnectionRef, ticket: Ticket, answer: BoxFuture<'static, Answer>) -> Option<Input> {
        self.answer_of(at, ticket, answer).map(|answer| Input::Answer(ticket, answer))
    }

    fn log_refusal(&self, at: ConnectionRef, why: &str) {
        let Some(connection) = self.connections.get(at.slot as usize) else { return };
        info!(client = %connection.session.client(), "{why}");
    }

    /// The answer, if it is there already; otherwise it comes through the inbox.
    fn answer_of(&self, at: ConnectionRef, ticket: Ticket, mut answer: BoxFuture<'static, Answer>) -> Option<Answer> {
        if let Some(answer) = (&mut answer).now_or_never() {
            return Some(answer);
        }
        let inbox = self.shared.inboxes[self.number].clone();
        self.shared.services.spawn(async move {
            let answer = answer.await;
            inbox.push(Message::Answer { connection: at, ticket, answer });
        });
        None
    }

    /// Begins something whose end nobody waits for. What is begun in order reaches the broker in order.
    pub(super) fn start(&self, mut begun: BoxFuture<'static, Result<(), BrokerError>>) {
        let failed = |cause: BrokerError| debug!(%cause, "the broker did not take what nobody waits for");
        match (&mut begun).now_or_never() {
            Some(Ok(())) => {}
            Some(Err(cause)) => failed(cause),
            None => {
                self.shared.services.spawn(async move { begun.await.map_err(failed) });
            }
        }
    }

    /// Takes a place in the channel: from here on its publications come to the inbox, and the ring keeps them.
    fn hold(&mut self, at: ConnectionRef, channel: &ChannelName) {
        let number = self.number;
        let shared = self.shared.clone();
        let Some(connection) = self.connections.get_mut(at.slot as usize) else { return };
        let key = self.channels.open(channel);
        self.channels.get_mut(key).hold(at.slot);
        shared.table.join(channel, number, connection.session.protocol());
        connection.memberships.push(Membership { channel: key, place: None });
        shared.counters[number].subscriptions.fetch_add(1, Ordering::Relaxed);
    }

    fn go_live(&mut self, at: ConnectionRef, go_live: GoLive) -> Option<Input> {
        let GoLive { channel, position, delta, has_base, joins, filter } = go_live;
        let key = self.channels.key(&channel)?;
        let variant = self.connections.get(at.slot as usize)?.variant();
        let delta = match (delta, &position) {
            (false, _) => Delta::Off,
            (true, None) => Delta::Whole,
            (true, Some(_)) => Delta::Patches,
        };
        let terms = Terms { variant, delta, joins, filter };
        match self.channels.get_mut(key).go_live(at.slot, terms, position, !has_base) {
            Live::Member(place) => {
                self.place(at.slot, key, place);
                self.schedule(key);
                None
            }
            Live::Waiting => None,
            // More came while history was read than the ring could keep: the client reads again, from its position.
            Live::Hole => Some(Input::Insufficient(channel)),
        }
    }

    fn leave(&mut self, at: ConnectionRef, departure: Departure) {
        // What was published before the subscription ended is part of it.
        self.catch_up(at, &departure.channel);
        if let Some(key) = self.channels.key(&departure.channel)
            && let Some(connection) = self.connections.get_mut(at.slot as usize)
            && let Some(found) = connection.memberships.iter().position(|membership| membership.channel == key)
        {
            let membership = connection.memberships.swap_remove(found);
            self.give_up(at, membership);
        }
        self.depart(at, departure);
    }

    /// Tells others that a subscriber is gone.
    pub(super) fn depart(&mut self, at: ConnectionRef, departure: Departure) {
        let Departure { channel, presence, leave } = departure;
        let Some(connection) = self.connections.get(at.slot as usize) else { return };
        let client = connection.session.client();
        if let Some(user) = presence {
            self.start(self.shared.presence.remove(&channel, client, user.as_str()));
        }
        if let Some(info) = leave {
            self.start(self.shared.broker.leave(&channel, info));
        }
    }

    fn displace(&mut self, at: ConnectionRef, user: UserId) {
        let Some(connection) = self.connections.get(at.slot as usize) else { return };
        let keep = connection.session.client().to_string();
        (self.shared.displace)(Target { user, client: None, session: None }, keep);
    }

    /// Removes a membership that the connection no longer lists.
    pub(super) fn give_up(&mut self, at: ConnectionRef, membership: Membership) {
        let Some(connection) = self.connections.get(at.slot as usize) else { return };
        let protocol = connection.session.protocol();
        let connections = &mut self.connections;
        let channel = self.channels.get_mut(membership.channel);
        match membership.place {
            None => channel.release(at.slot),
            Some(place) => channel.remove(place, |slot, index| {
                let moved = connections.get_mut(slot as usize).and_then(|connection| {
                    connection.memberships.iter_mut().find(|other| other.channel == membership.channel)
                });
                if let Some(moved) = moved {
                    moved.place = Some(Place { index, ..place });
                }
            }),
        }
        let unused = channel.is_unused();
        let name = channel.name.clone();
        if unused {
            self.channels.close(membership.channel);
        }
        self.shared.counters[self.number].subscriptions.fetch_sub(1, Ordering::Relaxed);
        match self.shared.table.leave(&name, self.number, protocol, unused) {
            Left::Held => {}
            Left::Empty => self.shared.broker.unsubscribe(&name),
        }
    }

    /// Adds a reply or push to the message under way.
    fn gather(
        &mut self,
        at: ConnectionRef,
        encode: impl FnOnce(Protocol, &mut Vec<u8>) -> Result<(), wire::InvalidPayload>,
    ) {
        let Some(connection) = self.connections.get(at.slot as usize) else { return };
        let protocol = connection.session.protocol();
        self.shared.counters[self.number].replies.fetch_add(1, Ordering::Relaxed);
        let replies = &mut self.replies;
        let frame = self.reply_frame.get_or_insert_with(|| OpenFrame::begin(replies));
        let before = replies.len();
        if protocol == Protocol::Json && !frame.payload(replies).is_empty() {
            replies.push(b'\n');
        }
        if encode(protocol, replies).is_err() {
            replies.truncate(before);
            self.doomed.push((at, Disconnect::INAPPROPRIATE_PROTOCOL));
        }
    }

    /// Writes the gathered replies, all in one frame.
    pub(super) fn write_replies(&mut self, at: ConnectionRef) {
        let Some(frame) = self.reply_frame.take() else { return };
        let mut replies = std::mem::take(&mut self.replies);
        let min_size = self.settings.deflate_min_size;
        if let Some(connection) = self.connection(at)
            && !frame.payload(&replies).is_empty()
        {
            let kind = connection.session.protocol().kind();
            let deflate = connection.deflate;
            let bytes = frame.payload(&replies).len() as u64;
            self.shared.counters[self.number].reply_bytes.fetch_add(bytes, Ordering::Relaxed);
            match deflate {
                Some(params) if frame.payload(&replies).len() >= min_size => {
                    let (mut deflated, mut whole) = (Vec::new(), Vec::new());
                    self.tools.deflater.deflate(params, frame.payload(&replies), &mut deflated);
                    websocket::deflated_frame(kind, &deflated, &mut whole);
                    self.write(at, &whole);
                }
                Some(_) | None => {
                    frame.finish(kind, &mut replies);
                    self.write(at, &replies);
                }
            }
        }
        replies.clear();
        if replies.capacity() > limits::READ_SCRATCH {
            replies = Vec::new();
        }
        self.replies = replies;
    }

    /// Writes bytes that are whole frames, behind what the client has not taken yet.
    pub(super) fn write(&mut self, at: ConnectionRef, frames: &[u8]) {
        self.write_kept(at, frames, |from| Bytes::copy_from_slice(&frames[from..]));
    }

    /// Likewise; what does not fit is kept as `keep(from)` says.
    pub(super) fn write_kept(&mut self, at: ConnectionRef, frames: &[u8], keep: impl FnOnce(usize) -> Bytes) {
        self.write_within(self.settings.backlog_bytes, at, frames, keep);
    }

    /// Writes a Close frame, which follows what waits however much that is.
    pub(super) fn write_close(&mut self, at: ConnectionRef, frame: &[u8]) {
        self.write_within(usize::MAX, at, frame, |from| Bytes::copy_from_slice(&frame[from..]));
    }

    fn write_within(&mut self, limit: usize, at: ConnectionRef, frames: &[u8], keep: impl FnOnce(usize) -> Bytes) {
        let now = self.now();
        let Some(connection) = self.connection(at) else { return };
        let before = connection.backlog_bytes();
        let written = connection.write(frames, keep, limit, now);
        let after = connection.backlog_bytes();
        if before != after {
            self.count_backlog(before, after);
        }
        match written {
            Ok(Written::All | Written::Queued) => {}
            Ok(Written::Blocked) => {
                let Some(connection) = self.connection(at) else { return };
                let outlet = connection.outlet.clone();
                self.tasks.push(Task::Flush(at, outlet));
                self.reschedule(at);
            }
            Err(cause) => self.doomed.push((at, cause)),
        }
    }

    /// Writes more of a backlog. Answers whether nobody has to wait for the socket any more.
    pub(super) fn flush(&mut self, at: ConnectionRef) -> bool {
        let now = self.now();
        let Some(connection) = self.connection(at) else { return true };
        let before = connection.backlog_bytes();
        let flushed = connection.flush(now);
        let after = connection.backlog_bytes();
        self.count_backlog(before, after);
        match flushed {
            Ok(done) => done,
            Err(_) => {
                self.lost(at);
                true
            }
        }
    }
}
