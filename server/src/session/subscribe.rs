//! `subscribe`, `unsubscribe`, `sub_refresh`: the life of one client's interest in one channel.
//!
//! ```text
//!   subscribe          Joined                   unsubscribe, by either side; expiry
//!  ───────────▶ Joining ──────▶ Live ────────────────────────────────────────────▶ gone
//!                  │ failed                 (an unsubscribe while Joining waits for the answer)
//!                  └────────▶ gone
//! ```
//!
//! The reply is written when the subscription goes live: no publication of the channel precedes it, none follows the
//! reply to `unsubscribe`.

use bytes::Bytes;
use tracing::warn;

use super::{
    Ask, Context, Departure, GoLive, Join, Output, Phase, Session, Ticket, error,
    protocol::{Push, Reply, SubscribeRequest, SubscribeResult},
    recovery::{self, Claimed},
    server_side::Planned,
};
use crate::{
    auth::{Failure, UnixSeconds},
    broker::{BrokerError, ClientInfo, History, Publication, StreamPosition},
    channels::patch,
    clock::Moment,
    delta,
    error::{ClientError, Disconnect, Unsubscribed},
    names::ChannelName,
    namespace::{Granted, Permit, Subject, TokenVerdict},
};

/// One client's interest in one channel.
pub(super) struct Subscription {
    pub(super) channel: ChannelName,
    has: Has,
    state: State,
}

/// What a subscription has, beside what only some have.
#[derive(Clone, Copy)]
struct Has {
    positioned: bool,
    presence: bool,
    /// Its coming and going is told to the channel.
    join_leave: bool,
    /// Made by the server: it cannot be lost without the connection.
    server_side: bool,
}

enum State {
    Joining(Box<Joining>),
    /// Live; most subscriptions have no details.
    Live(Option<Box<Details>>),
}

struct Joining {
    ticket: Ticket,
    granted: Granted,
    /// The client wants to recover from here.
    claimed: Option<Claimed>,
    /// It would rather have an error than be unrecovered.
    or_nothing: bool,
    purpose: Purpose,
    /// What came while the answer was awaited.
    then: Option<Then>,
}

/// Who a subscription is made for, and so who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A `subscribe` command: its reply.
    Command,
    /// A `connect` command: part of its reply.
    Connect,
    /// The server API: a push.
    Server,
}

/// A join that succeeded.
struct Settled {
    /// Id of the command that asked for it.
    command: u32,
    granted: Granted,
    purpose: Purpose,
    then: Option<Then>,
    result: SubscribeResult,
    /// Behind it everything is delivered.
    position: Option<StreamPosition>,
}

enum Then {
    Reply(u32),
    Push(Unsubscribed),
}

struct Details {
    /// What others in the channel are shown about the subscriber; empty for nothing.
    info: Bytes,
    /// When it expires, on the node's clock.
    expires: Option<Moment>,
}

/// Bit of `flag` in a subscribe request: an error rather than an unrecovered subscription.
const FLAG_RECOVER_OR_NOTHING: i64 = 2;

impl Subscription {
    pub(super) fn is_live(&self) -> bool {
        matches!(self.state, State::Live(_))
    }

    pub(super) fn info(&self) -> Bytes {
        match &self.state {
            State::Live(Some(details)) => details.info.clone(),
            State::Live(None) | State::Joining(_) => Bytes::new(),
        }
    }

    pub(super) fn expires_at(&self) -> Option<Moment> {
        match &self.state {
            State::Live(Some(details)) => details.expires,
            State::Live(None) | State::Joining(_) => None,
        }
    }
}

impl Session {
    pub(super) fn subscription(&self, channel: &str) -> Option<&Subscription> {
        self.subscriptions.iter().find(|subscription| subscription.channel.as_str() == channel)
    }

    fn position(&self, channel: &str) -> Option<usize> {
        self.subscriptions.iter().position(|subscription| subscription.channel.as_str() == channel)
    }

    pub(super) fn subscribe(
        &mut self,
        id: u32,
        request: SubscribeRequest,
        context: &Context<'_>,
        out: &mut Vec<Output>,
    ) {
        let settings = context.settings;
        if let Err(refusal) = settings.namespaces.check_request(&request) {
            return self.refused(id, refusal, out);
        }
        if self.subscription(&request.channel).is_some() {
            return error(id, ClientError::AlreadySubscribed, out);
        }
        if self.subscriptions.len() >= settings.channel_limit as usize {
            out.push(Output::Refused(format!(
                "refused by the rule \"a connection has few enough channels\": {}; see option client.channel_limit",
                self.subscriptions.len()
            )));
            return error(id, ClientError::LimitExceeded, out);
        }
        let Phase::Open(open) = &self.phase else { return };
        let user = open.identity.user.clone();
        let who = Subject { user: &user, client: self.client, subscribed: false };
        let checked =
            (!request.token.is_empty()).then(|| settings.auth.subscription_token(&request.token, context.unix_s()));
        let verdict = checked.as_ref().map_or(TokenVerdict::Absent, TokenVerdict::from);
        let granted = match settings.namespaces.may_subscribe(who, &request, verdict, context.unix_s()) {
            Ok(Permit::Granted(granted)) => granted,
            Ok(Permit::AskBackend(_)) => return error(id, ClientError::NotAvailable, out),
            Err(refusal) => return self.refused(id, refusal, out),
        };
        let history = settings.namespaces.resolve(&request.channel).and_then(|rules| rules.history());
        let claimed = request.recover.then_some(Claimed { offset: request.offset, epoch: request.epoch });
        let planned = Planned { channel: ChannelName::from(request.channel), granted, history, claimed };
        self.join(id, planned, Purpose::Command, context, out);
        if request.flag & FLAG_RECOVER_OR_NOTHING != 0
            && let Some(State::Joining(joining)) = self.subscriptions.last_mut().map(|last| &mut last.state)
        {
            joining.or_nothing = true;
        }
    }

    /// Takes a place in a channel.
    pub(super) fn join(
        &mut self,
        id: u32,
        planned: Planned,
        purpose: Purpose,
        context: &Context<'_>,
        out: &mut Vec<Output>,
    ) {
        let Planned { channel, granted, history, claimed } = planned;
        // Without recovery a position that the client claims means nothing, though its wish is echoed.
        let claimed = match granted.auto_cache_recover {
            true => Some(claimed.unwrap_or_default()),
            false => claimed,
        };
        let query = match &claimed {
            Some(claimed) if granted.recoverable => {
                let filtered = granted.filter.is_some();
                recovery::query(granted.recovery_mode, claimed, context.settings.recovery_limit, filtered)
            }
            Some(_) | None => recovery::position_query(),
        };
        let history = history.filter(|_| granted.positioned).map(|options| (query, options));
        let has = Has {
            positioned: history.is_some(),
            presence: granted.presence,
            join_leave: granted.join_leave,
            server_side: purpose != Purpose::Command,
        };
        let presence = granted.presence.then(|| (self.client, self.client_info(granted.info.clone())));
        let ask = Join { channel: channel.clone(), presence, history };
        let ticket = self.ask(id, Ask::Join(Box::new(ask)), out);
        let joining = Joining { ticket, granted, claimed, or_nothing: false, purpose, then: None };
        self.subscriptions.push(Subscription { channel, has, state: State::Joining(Box::new(joining)) });
    }

    /// The place is taken, or cannot be.
    pub(super) fn joined(
        &mut self,
        ticket: Ticket,
        result: Result<Option<History>, BrokerError>,
        context: &Context<'_>,
        out: &mut Vec<Output>,
    ) {
        let found = self.subscriptions.iter().position(|subscription| match &subscription.state {
            State::Joining(joining) => joining.ticket == ticket,
            State::Live(_) => false,
        });
        let Some(index) = found else { return };
        let state = std::mem::replace(&mut self.subscriptions[index].state, State::Live(None));
        let State::Joining(joining) = state else { return };
        let Joining { granted, claimed, or_nothing, purpose, then, .. } = *joining;
        let failed = match result {
            Ok(history) => {
                let (result, position) = subscribe_result(&granted, claimed.as_ref(), history, context);
                if !or_nothing || result.recovered || !result.was_recovering {
                    let settled = Settled { command: ticket.command, granted, purpose, then, result, position };
                    return self.live(index, settled, context, out);
                }
                ClientError::UnrecoverablePosition
            }
            Err(cause) => {
                warn!(channel = %self.subscriptions[index].channel, %cause, "subscribe failed");
                // Temporary: the SDK subscribes again with a growing delay, while its other subscriptions live on.
                ClientError::Internal
            }
        };
        self.forget(index, out);
        match purpose {
            Purpose::Command => error(ticket.command, failed, out),
            Purpose::Connect => self.connect_failed(failed, out),
            Purpose::Server => {}
        }
    }

    fn live(&mut self, index: usize, settled: Settled, context: &Context<'_>, out: &mut Vec<Output>) {
        let Settled { command, granted, purpose, then, result, position } = settled;
        let subscription = &mut self.subscriptions[index];
        subscription.state = State::Live(details(granted.info.clone(), granted.expire_at, context));
        let channel = subscription.channel.clone();
        let delta = result.delta;
        let (joins, filter) = (granted.push_join_leave, granted.filter.clone());
        let has_base = !result.publications.is_empty();
        let go_live = GoLive { channel: channel.clone(), position, delta, has_base, joins, filter };
        let mut live = vec![Output::GoLive(go_live)];
        if granted.join_leave {
            live.push(Output::Announce(channel.clone(), self.client_info(granted.info)));
        }
        match purpose {
            Purpose::Command => {
                out.push(Output::Reply(command, Reply::Subscribe(Box::new(result))));
                out.extend(live);
            }
            Purpose::Connect => self.connected_part(channel.as_str(), result, live, context, out),
            Purpose::Server => {
                let missed = result.publications.clone();
                out.push(Output::Push(Push::Subscribe { channel: channel.clone(), result: Box::new(result) }));
                // The push cannot carry them; the reference takes them for delivered, ours sends them behind it.
                for publication in missed {
                    out.push(Output::Push(Push::Publication { channel: channel.clone(), publication }));
                }
                out.extend(live);
            }
        }
        match then {
            None => {}
            Some(Then::Reply(id)) => {
                self.forget_channel(channel.as_str(), out);
                out.push(Output::Reply(id, Reply::Unsubscribe));
            }
            Some(Then::Push(cause)) => {
                self.forget_channel(channel.as_str(), out);
                out.push(Output::Push(Push::Unsubscribe { channel, cause }));
            }
        }
    }

    /// Publications were missed that history does not have any more: who counts on positions is told.
    pub(super) fn insufficient(&mut self, channel: &ChannelName, out: &mut Vec<Output>) {
        let Some(index) = self.position(channel.as_str()) else { return };
        let subscription = &self.subscriptions[index];
        if !subscription.has.positioned || !subscription.is_live() {
            return;
        }
        if subscription.has.server_side {
            return self.close(Disconnect::INSUFFICIENT_STATE, out);
        }
        let channel = self.forget(index, out);
        out.push(Output::Push(Push::Unsubscribe { channel, cause: Unsubscribed::INSUFFICIENT_STATE }));
    }

    pub(super) fn unsubscribe(&mut self, id: u32, channel: &str, out: &mut Vec<Output>) {
        if channel.is_empty() {
            return self.close(Disconnect::BAD_REQUEST, out);
        }
        if let Some(index) = self.position(channel) {
            if let State::Joining(joining) = &mut self.subscriptions[index].state {
                joining.then = Some(Then::Reply(id));
                return;
            }
            self.forget(index, out);
        }
        // Not subscribed is no error: the client gets what it asked for.
        out.push(Output::Reply(id, Reply::Unsubscribe));
    }

    /// The server API ends a subscription. The reference tells the client also when there is none, or none is named.
    pub(super) fn unsubscribe_by_server(
        &mut self,
        channel: Option<ChannelName>,
        cause: Unsubscribed,
        out: &mut Vec<Output>,
    ) {
        let Phase::Open(_) = &self.phase else { return };
        let channel = channel.unwrap_or_else(|| ChannelName::from(""));
        if let Some(index) = self.position(channel.as_str()) {
            if let State::Joining(joining) = &mut self.subscriptions[index].state {
                joining.then = Some(Then::Push(cause));
                return;
            }
            self.forget(index, out);
        }
        out.push(Output::Push(Push::Unsubscribe { channel, cause }));
    }

    pub(super) fn sub_refresh(
        &mut self,
        id: u32,
        channel: &str,
        token: &str,
        context: &Context<'_>,
        out: &mut Vec<Output>,
    ) {
        if channel.is_empty() {
            return self.close(Disconnect::BAD_REQUEST, out);
        }
        let Some(index) = self.position(channel).filter(|index| self.subscriptions[*index].is_live()) else {
            return error(id, ClientError::PermissionDenied, out);
        };
        let Phase::Open(open) = &self.phase else { return };
        let user = &open.identity.user;
        let claims = match context.settings.auth.sub_refresh(token, channel, user, self.client, context.unix_s()) {
            Ok(claims) => claims,
            Err(refusal) => {
                out.push(Output::Refused(refusal.to_string()));
                return match Failure::from(&refusal) {
                    Failure::Error(cause) => error(id, cause, out),
                    Failure::Disconnect(cause) => self.close(cause, out),
                };
            }
        };
        let expiry = context.expiry(claims.expire_at);
        self.subscriptions[index].state = State::Live(details(claims.subscription.info, claims.expire_at, context));
        out.push(Output::Reply(id, Reply::SubRefresh(expiry)));
    }

    /// Ends subscriptions whose token was not refreshed in time.
    pub(super) fn expire_subscriptions(&mut self, context: &Context<'_>, out: &mut Vec<Output>) {
        let overdue = |subscription: &Subscription| {
            subscription.expires_at().is_some_and(|at| at + context.settings.expired_sub_close_delay <= context.now)
        };
        while let Some(index) = self.subscriptions.iter().position(overdue) {
            if self.subscriptions[index].has.server_side {
                return self.close(Disconnect::SUBSCRIPTION_EXPIRED, out);
            }
            let channel = self.forget(index, out);
            out.push(Output::Push(Push::Unsubscribe { channel, cause: Unsubscribed::EXPIRED }));
        }
    }

    /// Ends all subscriptions of a session that is closed. Their places are the driver's business by now; what is left is
    /// who must be told.
    pub fn departures(&mut self) -> Vec<Departure> {
        let subscriptions = std::mem::take(&mut self.subscriptions);
        subscriptions.into_iter().map(|subscription| self.departure(subscription)).collect()
    }

    /// How the client is seen in a channel's presence, if it is.
    pub fn presence_in(&self, channel: &ChannelName) -> Option<ClientInfo> {
        let subscription = self.subscription(channel.as_str())?;
        let seen = subscription.has.presence && subscription.is_live();
        seen.then(|| self.client_info(subscription.info()))
    }

    fn forget_channel(&mut self, channel: &str, out: &mut Vec<Output>) {
        if let Some(index) = self.position(channel) {
            self.forget(index, out);
        }
    }

    fn forget(&mut self, index: usize, out: &mut Vec<Output>) -> ChannelName {
        let subscription = self.subscriptions.swap_remove(index);
        let channel = subscription.channel.clone();
        out.push(Output::Leave(self.departure(subscription)));
        channel
    }

    fn departure(&self, subscription: Subscription) -> Departure {
        let announced = subscription.has.join_leave && subscription.is_live();
        Departure {
            presence: self.user().filter(|_| subscription.has.presence).cloned(),
            leave: announced.then(|| self.client_info(subscription.info())),
            channel: subscription.channel,
        }
    }
}

/// The reply to a subscription, and the position behind which everything is delivered.
fn subscribe_result(
    granted: &Granted,
    claimed: Option<&Claimed>,
    history: Option<History>,
    context: &Context<'_>,
) -> (SubscribeResult, Option<StreamPosition>) {
    let mut result = SubscribeResult {
        expiry: context.expiry(granted.expire_at.filter(|_| granted.client_side_refresh)),
        data: granted.data.clone(),
        was_recovering: claimed.is_some(),
        delta: granted.delta.is_some(),
        ..SubscribeResult::default()
    };
    let Some(history) = history else { return (result, None) };
    let top = history.top.clone();
    result.positioned = granted.positioned;
    result.recoverable = granted.recoverable;
    result.position = Some(top.clone());
    if let Some(claimed) = claimed.filter(|_| granted.recoverable) {
        let passes =
            |publication: &Publication| granted.filter.as_ref().is_none_or(|filter| filter.matches(&publication.tags));
        let recovered = recovery::recover(granted.recovery_mode, claimed, history, passes);
        result.recovered = recovered.complete;
        result.publications = recovered.publications;
        if recovered.complete {
            // Client protocol: the publications carry the client's position on, from where it was.
            result.position = Some(StreamPosition { epoch: top.epoch.clone(), offset: claimed.offset });
        }
    }
    if result.delta {
        result.publications = as_patches(&result.publications);
    }
    (result, Some(top))
}

/// Recovered publications in the delta encoding: the first whole, each other a patch to the one before.
fn as_patches(publications: &[Publication]) -> Vec<Publication> {
    let mut encoder = delta::Encoder::default();
    let before = std::iter::once(None).chain(publications.iter().map(Some));
    let patched = publications
        .iter()
        .zip(before)
        .map(|(publication, before)| patch(publication, before.map(|before| &before.data), &mut encoder));
    patched.collect()
}

fn details(info: Bytes, expire_at: Option<UnixSeconds>, context: &Context<'_>) -> Option<Box<Details>> {
    let plain = info.is_empty() && expire_at.is_none();
    (!plain).then(|| Box::new(Details { info, expires: expire_at.map(|at| context.moment_of(at)) }))
}
