//! Subscriptions: from the wish to live publications, and back to that after every interruption.
//!
//! ```text
//!            connected                    reply
//!  offline ────────────> (asking token) -> sent ──> live
//!     ^                        ^            │         │ unsubscribe push >= 2500
//!     │                        └── waiting <┴─────────┤ (at once, when it was live for long)
//!     │                      (temporary error)        │
//!     └────────── connection lost (from anywhere) ────┘
//!
//!  any ──> ended: unsubscribe called, other error, unsubscribe push < 2500, client disconnected
//! ```
//!
//! The position (epoch and offset together) moves with each publication that is delivered. It is sent back to the server
//! when the last reply said that the subscription is recoverable, or when the application gave it.

use std::time::{Duration, Instant};

use rand::RngExt;
use starling_proto::client::{
    self, Command, Push, Reply, SubRefreshRequest, SubscribeRequest, SubscribeResult, UnsubscribeRequest,
};

use super::connection::{State, before_expiry};
use super::payloads::Payloads;
use super::{InFlight, Machine, Options, Output, Subscribe, SubscriptionId, Timer, TokenFor, refused, worth_repeating};
use crate::codes::{self, connecting, server, subscribing, unsubscribed};
use crate::publication::present;
use crate::{
    ClientInfo, Delta, Error, Publication, Recovery, StreamPosition, Subscribed, SubscriptionEvent, TokenError,
};

#[derive(Debug)]
pub(super) struct Subscription {
    wish: Subscribe,
    state: Place,
    resume: Resume,
    payloads: Payloads,
    /// Whether the position may be used: the last reply said "recoverable", or the application gave it.
    may_recover: bool,
    /// Whether it was live before, so that a new start may have missed something.
    was_live: bool,
    /// Failures in a row.
    failures: u32,
    /// Whether a question for a token is open.
    token_asked: bool,
}

/// Where a subscription is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// There is no connection.
    Offline,
    /// It needs a token first.
    AskingToken,
    /// For the next attempt.
    Waiting,
    /// The subscribe command is sent; whether it asked to recover.
    Sent { recover: bool },
    /// Publications arrive.
    Live { since: Instant },
}

/// Where in the stream it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Resume {
    /// Wherever the server begins.
    Anywhere,
    After(StreamPosition),
    /// The server declared the position void. It must answer that it cannot recover, so that the application knows.
    Invalidated,
}

impl Subscription {
    fn new(mut wish: Subscribe, options: &Options) -> Self {
        let resume = wish.since.take().map_or(Resume::Anywhere, Resume::After);
        Self {
            may_recover: resume != Resume::Anywhere,
            wish,
            state: Place::Offline,
            resume,
            payloads: Payloads::new(options.protocol, options.max_payload_bytes),
            was_live: false,
            failures: 0,
            token_asked: false,
        }
    }

    pub(super) fn channel(&self) -> &str {
        &self.wish.channel
    }

    pub(super) fn is_offline(&self) -> bool {
        self.state == Place::Offline
    }

    fn request(&self) -> SubscribeRequest {
        let (recover, position) = match &self.resume {
            Resume::After(position) if self.may_recover => (true, position.clone()),
            // An epoch that no stream has, as the official SDKs send it.
            Resume::Invalidated => (true, StreamPosition { epoch: "_".to_owned(), offset: 0 }),
            Resume::After(_) | Resume::Anywhere => (false, StreamPosition { epoch: String::new(), offset: 0 }),
        };
        SubscribeRequest {
            channel: self.wish.channel.clone(),
            token: self.wish.token.clone().unwrap_or_default(),
            recover,
            epoch: position.epoch,
            offset: position.offset,
            data: self.wish.data.clone().unwrap_or_default(),
            positioned: self.wish.positioned,
            recoverable: self.wish.recoverable,
            join_leave: self.wish.join_leave,
            delta: self.wish.delta.map(Delta::as_str).unwrap_or_default().to_owned(),
            ..SubscribeRequest::default()
        }
    }

    /// A subscription that lived long enough starts a new series of failures.
    fn forgive(&mut self, stable_after: Duration, now: Instant) {
        if let Place::Live { since } = self.state
            && now.saturating_duration_since(since) >= stable_after
        {
            self.failures = 0;
        }
    }

    fn invalidate(&mut self) {
        if self.wish.has_token_source {
            self.wish.token = None;
        }
        if self.may_recover && self.resume != Resume::Anywhere {
            self.resume = Resume::Invalidated;
        }
    }

    /// Takes the server's answer over and returns what to tell the application.
    fn accepted(
        &mut self,
        result: SubscribeResult,
        recover: bool,
        now: Instant,
    ) -> (Subscribed, Vec<client::Publication>) {
        let recovery = if result.recovered {
            Recovery::Complete
        } else if recover || result.was_recovering || self.was_live {
            Recovery::Incomplete
        } else {
            Recovery::First
        };
        let position = StreamPosition::from_wire(result.epoch, result.offset);
        self.resume = position.clone().map_or(Resume::Anywhere, Resume::After);
        self.payloads.subscribed(result.delta, result.recovered);
        self.may_recover = result.recoverable;
        self.was_live = true;
        self.state = Place::Live { since: now };
        let subscribed = Subscribed {
            recovery,
            position,
            recoverable: result.recoverable,
            positioned: result.positioned,
            data: present(result.data),
        };
        (subscribed, result.publications)
    }

    /// Moves the position. A publication whose payload cannot be restored is not delivered, so that the position stays
    /// before it.
    fn deliver(&mut self, mut wire: client::Publication) -> Result<SubscriptionEvent, String> {
        self.payloads.restore(&mut wire)?;
        let publication = Publication::from(wire);
        if let (Resume::After(position), Some(offset)) = (&mut self.resume, publication.offset) {
            position.offset = offset;
        }
        Ok(SubscriptionEvent::Publication(publication))
    }
}

// === subscribing ===

impl Machine {
    pub(super) fn subscribe(&mut self, id: SubscriptionId, wish: Subscribe, now: Instant) {
        if let State::Disconnected { code, reason } = &self.state {
            let reason = client_closed(*code, reason);
            return self.tell(id, SubscriptionEvent::Unsubscribed { code: unsubscribed::CLIENT_CLOSED, reason });
        }
        if self.channels.contains_key(&wish.channel) {
            let (code, reason) = (server::ALREADY_SUBSCRIBED, "already subscribed".to_owned());
            return self.tell(id, SubscriptionEvent::Unsubscribed { code, reason });
        }
        self.channels.insert(wish.channel.clone(), id);
        self.subscriptions.insert(id, Subscription::new(wish, &self.options));
        self.try_subscribe(id, now);
    }

    pub(super) fn subscribe_all(&mut self, now: Instant) {
        let ids: Vec<SubscriptionId> = self.subscriptions.keys().copied().collect();
        for id in ids {
            self.try_subscribe(id, now);
        }
    }

    pub(super) fn try_subscribe(&mut self, id: SubscriptionId, now: Instant) {
        if !matches!(self.state, State::Connected(_)) {
            return;
        }
        let Some(subscription) = self.subscriptions.get_mut(&id) else { return };
        if subscription.wish.token.is_none() && subscription.wish.has_token_source {
            subscription.state = Place::AskingToken;
            return self.ask_subscription_token(id, now);
        }
        let request = subscription.request();
        subscription.state = Place::Sent { recover: request.recover };
        self.send_command(InFlight::Subscribe(id), Command { subscribe: Some(request), ..Command::default() }, now);
    }

    pub(super) fn subscribe_replied(
        &mut self,
        id: SubscriptionId,
        outcome: Result<Reply, client::Error>,
        now: Instant,
    ) {
        // It may have ended since; then the server also got an unsubscribe command.
        let Some(subscription) = self.subscriptions.get_mut(&id) else { return };
        let Place::Sent { recover } = subscription.state else { return };
        let result = match outcome {
            Ok(reply) => reply.subscribe,
            Err(error) => return self.subscribe_refused(id, error, now),
        };
        let Some(result) = result else { return self.bad_protocol("the reply to subscribe has no subscribe body") };
        let (expires, ttl) = (result.expires, result.ttl);
        let (subscribed, publications) = subscription.accepted(result, recover, now);
        self.outputs.push_back(Output::Subscription(id, SubscriptionEvent::Subscribed(subscribed)));
        for publication in publications {
            match subscription.deliver(publication) {
                Ok(event) => self.outputs.push_back(Output::Subscription(id, event)),
                Err(why) => return self.lose_connection(connecting::BAD_PATCH, &why, now),
            }
        }
        self.schedule_subscription_refresh(id, expires, ttl, now);
    }

    fn subscribe_refused(&mut self, id: SubscriptionId, error: client::Error, now: Instant) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else { return };
        if error.code == server::TOKEN_EXPIRED {
            if !subscription.wish.has_token_source {
                let reason = "token expired, and there is no token source";
                return self.end_subscription(id, unsubscribed::UNAUTHORIZED, reason);
            }
            subscription.wish.token = None;
        } else if !worth_repeating(&error) {
            return self.end_subscription(id, error.code, &error.message);
        }
        self.subscribe_later(id, refused(error), now);
    }

    fn subscribe_later(&mut self, id: SubscriptionId, error: Error, now: Instant) {
        self.wait_to_subscribe(id, now);
        self.tell(id, SubscriptionEvent::Error(error));
    }

    fn wait_to_subscribe(&mut self, id: SubscriptionId, now: Instant) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else { return };
        let delay = self.options.timing.resubscribe.delay(subscription.failures, &mut self.rng);
        subscription.failures = subscription.failures.saturating_add(1);
        subscription.state = Place::Waiting;
        self.timers.set(Timer::Resubscribe(id), delay, now);
    }
}

// === live ===

impl Machine {
    pub(super) fn channel_pushed(&mut self, push: Push, now: Instant) {
        // An unknown channel is one that was just left, or one that the server subscribed the client to by itself.
        // Those server-side subscriptions are not offered to applications yet.
        let Some(&id) = self.channels.get(&push.channel) else { return };
        let Some(subscription) = self.subscriptions.get_mut(&id) else { return };
        if let Some(unsubscribe) = push.unsubscribe {
            return self.unsubscribe_pushed(id, unsubscribe, now);
        }
        // Before the reply to subscribe, pushes can only belong to an earlier subscription to the same channel.
        if !matches!(subscription.state, Place::Live { .. }) {
            return;
        }
        let event = if let Some(publication) = push.r#pub {
            match subscription.deliver(publication) {
                Ok(event) => event,
                Err(why) => return self.lose_connection(connecting::BAD_PATCH, &why, now),
            }
        } else if let Some(info) = push.join.and_then(|join| join.info) {
            SubscriptionEvent::Join(ClientInfo::from(info))
        } else if let Some(info) = push.leave.and_then(|leave| leave.info) {
            SubscriptionEvent::Leave(ClientInfo::from(info))
        } else {
            return;
        };
        self.tell(id, event);
    }

    fn unsubscribe_pushed(&mut self, id: SubscriptionId, unsubscribe: client::Unsubscribe, now: Instant) {
        let client::Unsubscribe { code, reason } = unsubscribe;
        if codes::ends_subscription(code) {
            return self.end_subscription(id, code, &reason);
        }
        let stable_after = self.options.timing.stable_after;
        let Some(subscription) = self.subscriptions.get_mut(&id) else { return };
        // When it is not live, another attempt is under way already.
        if !matches!(subscription.state, Place::Live { .. }) {
            return;
        }
        subscription.forgive(stable_after, now);
        match code {
            server::SUBSCRIPTION_EXPIRED if subscription.wish.has_token_source => subscription.wish.token = None,
            server::SUBSCRIPTION_STATE_INVALIDATED => subscription.invalidate(),
            _ => {}
        }
        let at_once = subscription.failures == 0;
        if at_once {
            subscription.failures = 1;
        }
        self.timers.clear(Timer::SubscriptionRefresh(id));
        self.tell(id, SubscriptionEvent::Subscribing { code, reason });
        if at_once {
            self.try_subscribe(id, now);
        } else {
            self.wait_to_subscribe(id, now);
        }
    }

    /// The connection is gone.
    pub(super) fn suspend_subscriptions(&mut self, now: Instant) {
        for (&id, subscription) in &mut self.subscriptions {
            subscription.forgive(self.options.timing.stable_after, now);
            if matches!(subscription.state, Place::Live { .. }) {
                self.outputs.push_back(Output::Subscription(
                    id,
                    SubscriptionEvent::Subscribing {
                        code: subscribing::TRANSPORT_CLOSED,
                        reason: "transport closed".to_owned(),
                    },
                ));
            }
            subscription.state = Place::Offline;
            self.timers.clear(Timer::Resubscribe(id));
            self.timers.clear(Timer::SubscriptionRefresh(id));
        }
    }

    /// The server declared all tokens and positions void.
    pub(super) fn invalidate_subscriptions(&mut self) {
        self.subscriptions.values_mut().for_each(Subscription::invalidate);
    }
}

// === tokens ===

impl Machine {
    fn ask_subscription_token(&mut self, id: SubscriptionId, now: Instant) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else { return };
        if !std::mem::replace(&mut subscription.token_asked, true) {
            self.timers.set(Timer::SubscriptionToken(id), self.options.timing.token_timeout, now);
            self.outputs.push_back(Output::AskToken(TokenFor::Subscription(id)));
        }
    }

    pub(super) fn subscription_token(&mut self, id: SubscriptionId, answer: Result<String, TokenError>, now: Instant) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else { return };
        if !std::mem::replace(&mut subscription.token_asked, false) {
            return;
        }
        self.timers.clear(Timer::SubscriptionToken(id));
        let state = subscription.state;
        match answer {
            Ok(token) if !token.is_empty() => {
                subscription.wish.token = Some(token);
                match state {
                    Place::AskingToken => self.try_subscribe(id, now),
                    Place::Live { .. } => self.send_subscription_refresh(id, now),
                    // The next attempt uses it.
                    Place::Offline | Place::Waiting | Place::Sent { .. } => {}
                }
            }
            Ok(_) | Err(TokenError::Unauthorized) => {
                self.leave(id, unsubscribed::UNAUTHORIZED, "unauthorized", now);
            }
            Err(TokenError::Temporary(why)) => match state {
                Place::AskingToken => self.subscribe_later(id, Error::Token(why), now),
                Place::Live { .. } => self.subscription_refresh_failed(id, Error::Token(why), now),
                Place::Offline | Place::Waiting | Place::Sent { .. } => {}
            },
        }
    }

    fn schedule_subscription_refresh(&mut self, id: SubscriptionId, expires: bool, ttl_seconds: u32, now: Instant) {
        let has_source = self.subscriptions.get(&id).is_some_and(|subscription| subscription.wish.has_token_source);
        if expires && has_source {
            let after = before_expiry(ttl_seconds, self.rng.random());
            self.timers.set(Timer::SubscriptionRefresh(id), after, now);
        } else {
            self.timers.clear(Timer::SubscriptionRefresh(id));
        }
    }

    pub(super) fn refresh_subscription(&mut self, id: SubscriptionId, now: Instant) {
        self.ask_subscription_token(id, now);
    }

    fn send_subscription_refresh(&mut self, id: SubscriptionId, now: Instant) {
        let Some(subscription) = self.subscriptions.get(&id) else { return };
        let request = SubRefreshRequest {
            channel: subscription.wish.channel.clone(),
            token: subscription.wish.token.clone().unwrap_or_default(),
            ..SubRefreshRequest::default()
        };
        self.send_command(
            InFlight::SubscriptionRefresh(id),
            Command { sub_refresh: Some(request), ..Command::default() },
            now,
        );
    }

    pub(super) fn subscription_refresh_replied(
        &mut self,
        id: SubscriptionId,
        outcome: Result<Reply, client::Error>,
        now: Instant,
    ) {
        match outcome {
            Ok(Reply { sub_refresh: Some(result), .. }) => {
                self.schedule_subscription_refresh(id, result.expires, result.ttl, now);
            }
            Ok(_) => self.bad_protocol("the reply to sub_refresh has no sub_refresh body"),
            Err(error) if worth_repeating(&error) || error.code == server::TOKEN_EXPIRED => {
                self.subscription_refresh_failed(id, refused(error), now);
            }
            Err(error) => self.leave(id, error.code, &error.message, now),
        }
    }

    pub(super) fn subscription_refresh_failed(&mut self, id: SubscriptionId, error: Error, now: Instant) {
        let live = |subscription: &Subscription| matches!(subscription.state, Place::Live { .. });
        if self.subscriptions.get(&id).is_some_and(live) {
            let retry_in = self.refresh_retry_delay();
            self.timers.set(Timer::SubscriptionRefresh(id), retry_in, now);
            self.tell(id, SubscriptionEvent::Error(error));
        }
    }
}

// === ends ===

impl Machine {
    pub(super) fn unsubscribe(&mut self, id: SubscriptionId, now: Instant) {
        self.leave(id, unsubscribed::UNSUBSCRIBE_CALLED, "unsubscribe called", now);
    }

    /// Ends a subscription and tells the server, if that may know of it.
    fn leave(&mut self, id: SubscriptionId, code: u32, reason: &str, now: Instant) {
        let Some(subscription) = self.subscriptions.get(&id) else { return };
        if matches!(subscription.state, Place::Sent { .. } | Place::Live { .. }) {
            let unsubscribe = Some(UnsubscribeRequest { channel: subscription.wish.channel.clone() });
            self.send_command(InFlight::Unsubscribe, Command { unsubscribe, ..Command::default() }, now);
        }
        self.end_subscription(id, code, reason);
    }

    pub(super) fn unsubscribe_replied(&mut self, outcome: Result<Reply, client::Error>, now: Instant) {
        if let Err(error) = outcome {
            // What the server still sends for the channel is unknown; a new connection makes it known.
            self.lose_connection(connecting::UNSUBSCRIBE_ERROR, &error.message, now);
        }
    }

    /// The client is disconnected for good.
    pub(super) fn end_subscriptions(&mut self) {
        let State::Disconnected { code, reason } = &self.state else { return };
        let reason = client_closed(*code, reason);
        while let Some((id, _)) = self.subscriptions.first_key_value() {
            self.end_subscription(*id, unsubscribed::CLIENT_CLOSED, &reason);
        }
    }

    fn end_subscription(&mut self, id: SubscriptionId, code: u32, reason: &str) {
        let Some(subscription) = self.subscriptions.remove(&id) else { return };
        self.channels.remove(&subscription.wish.channel);
        self.timers.clear(Timer::Resubscribe(id));
        self.timers.clear(Timer::SubscriptionRefresh(id));
        self.timers.clear(Timer::SubscriptionToken(id));
        self.tell(id, SubscriptionEvent::Unsubscribed { code, reason: reason.to_owned() });
    }

    fn tell(&mut self, id: SubscriptionId, event: SubscriptionEvent) {
        self.outputs.push_back(Output::Subscription(id, event));
    }
}

fn client_closed(code: u32, reason: &str) -> String {
    format!("client disconnected: {reason} (code {code})")
}
