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
    Ask, Context, Output, Phase, Session, Ticket, error,
    protocol::{Push, Reply, SubscribeRequest, SubscribeResult},
};
use crate::{
    auth::{Failure, UnixSeconds},
    broker::BrokerError,
    clock::Moment,
    error::{ClientError, Disconnect, Unsubscribed},
    names::ChannelName,
    namespace::{Granted, Permit, Subject, TokenVerdict},
};

/// One client's interest in one channel.
pub(super) struct Subscription {
    pub(super) channel: ChannelName,
    state: State,
}

enum State {
    Joining(Box<Joining>),
    /// Live; most subscriptions have no details.
    Live(Option<Box<Details>>),
}

struct Joining {
    ticket: Ticket,
    granted: Granted,
    /// What came while the answer was awaited.
    then: Option<Then>,
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
        let channel = ChannelName::from(request.channel);
        let ticket = self.ask(id, Ask::Join { channel: channel.clone() }, out);
        let state = State::Joining(Box::new(Joining { ticket, granted, then: None }));
        self.subscriptions.push(Subscription { channel, state });
    }

    /// The node receives the channel, or cannot.
    pub(super) fn joined(
        &mut self,
        ticket: Ticket,
        result: Result<(), BrokerError>,
        context: &Context<'_>,
        out: &mut Vec<Output>,
    ) {
        let found =
            self.subscriptions.iter_mut().enumerate().find_map(|(index, subscription)| match &mut subscription.state {
                State::Joining(joining) if joining.ticket == ticket => Some((index, joining)),
                State::Joining(_) | State::Live(_) => None,
            });
        let Some((index, joining)) = found else { return };
        if let Err(cause) = result {
            let channel = self.subscriptions.swap_remove(index).channel;
            warn!(%channel, %cause, "subscribe failed");
            out.push(Output::Leave(channel));
            // Temporary: the SDK subscribes again with a growing delay, while its other subscriptions live on.
            return error(ticket.command, ClientError::Internal, out);
        }
        let Granted { info, data, expire_at, client_side_refresh, .. } = joining.granted.clone();
        let then = joining.then.take();
        let expiry = context.expiry(expire_at.filter(|_| client_side_refresh));
        let result = SubscribeResult { expiry, data, ..SubscribeResult::default() };
        let subscription = &mut self.subscriptions[index];
        subscription.state = State::Live(details(info, expire_at, context));
        out.push(Output::Reply(ticket.command, Reply::Subscribe(Box::new(result))));
        out.push(Output::GoLive(subscription.channel.clone()));
        match then {
            None => {}
            Some(Then::Reply(id)) => {
                self.forget(index, out);
                out.push(Output::Reply(id, Reply::Unsubscribe));
            }
            Some(Then::Push(cause)) => {
                let channel = self.forget(index, out);
                out.push(Output::Push(Push::Unsubscribe { channel, cause }));
            }
        }
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
            let channel = self.forget(index, out);
            out.push(Output::Push(Push::Unsubscribe { channel, cause: Unsubscribed::EXPIRED }));
        }
    }

    fn forget(&mut self, index: usize, out: &mut Vec<Output>) -> ChannelName {
        let channel = self.subscriptions.swap_remove(index).channel;
        out.push(Output::Leave(channel.clone()));
        channel
    }
}

fn details(info: Bytes, expire_at: Option<UnixSeconds>, context: &Context<'_>) -> Option<Box<Details>> {
    let plain = info.is_empty() && expire_at.is_none();
    (!plain).then(|| Box::new(Details { info, expires: expire_at.map(|at| context.moment_of(at)) }))
}
