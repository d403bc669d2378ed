//! `connect` and `refresh`: who the client is, and for how long.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    Ask, Context, Open, Opening, Output, Phase, Session, error,
    keepalive::{Announced, Keepalive},
    protocol::{ConnectRequest, ConnectResult, Reply, SubscribeResult},
    server_side::Planned,
    subscribe::Purpose,
};
use crate::{
    auth::{Failure, UnixSeconds},
    clock::Moment,
    error::{ClientError, Disconnect},
    names::UserId,
};

/// State before an accepted `connect`.
pub(super) struct Fresh {
    pub(super) opening: Opening,
    pub(super) stale_at: Moment,
}

/// `connect` is accepted as far as the session can tell: the user may have too many connections, and server-side
/// subscriptions are still being made.
pub(super) struct Entering {
    id: u32,
    frame_pings: bool,
    pub(super) identity: Identity,
    /// Whether the user's connections count this one.
    pub(super) entered: bool,
    planned: Vec<Planned>,
    /// Whether others of the user's connections have to go.
    displaces: bool,
    /// Subscriptions whose place is still awaited.
    pub(super) awaited: usize,
    pub(super) results: BTreeMap<String, SubscribeResult>,
    /// What follows the reply.
    pub(super) live: Vec<Output>,
    pub(super) stale_at: Moment,
}

/// Who an accepted client is. Only an accepted `connect` makes one.
pub(super) struct Identity {
    pub(super) user: UserId,
    /// What most connections have none of.
    details: Option<Box<Details>>,
}

struct Details {
    /// What others are shown about the user; empty for nothing.
    info: Bytes,
    expire_at: Option<UnixSeconds>,
    /// `expire_at` on the node's clock.
    expires: Option<Moment>,
    /// Server-side channels of the token, sorted.
    channels: Box<[String]>,
}

impl Identity {
    pub(super) fn new(
        user: UserId,
        info: Bytes,
        expire_at: Option<UnixSeconds>,
        channels: Box<[String]>,
        context: &Context<'_>,
    ) -> Self {
        let plain = info.is_empty() && expire_at.is_none() && channels.is_empty();
        let expires = expire_at.map(|at| context.moment_of(at));
        Self { user, details: (!plain).then(|| Box::new(Details { info, expire_at, expires, channels })) }
    }

    pub(super) fn info(&self) -> Bytes {
        self.details.as_ref().map(|details| details.info.clone()).unwrap_or_default()
    }

    pub(super) fn expires_at(&self) -> Option<Moment> {
        self.details.as_ref().and_then(|details| details.expires)
    }

    /// Server-side channels of the token, sorted.
    pub(super) fn channels(&self) -> Box<[String]> {
        self.details.as_ref().map(|details| details.channels.clone()).unwrap_or_default()
    }

    fn expire_at(&self) -> Option<UnixSeconds> {
        self.details.as_ref().and_then(|details| details.expire_at)
    }
}

impl Session {
    /// Client protocol: the first command. A token decides if there is one; then the user header; then whether
    /// anonymous clients are let in. An error reply leaves a connection that is good for nothing.
    pub(super) fn connect(&mut self, id: u32, request: ConnectRequest, context: &Context<'_>, out: &mut Vec<Output>) {
        let Phase::Fresh(fresh) = &self.phase else { return };
        let header_user = fresh.opening.user_header.as_deref();
        let accepted = match context.settings.auth.connect(&request, header_user, context.unix_s()) {
            Ok(accepted) => accepted,
            Err(refusal) => {
                out.push(Output::Refused(refusal.to_string()));
                return match Failure::from(&refusal) {
                    Failure::Error(cause) => self.refuse(id, cause, out),
                    Failure::Disconnect(cause) => self.close(cause, out),
                };
            }
        };
        let planned = match self.plan_subscriptions(&accepted.user, &accepted.channels, &request, context) {
            Ok(planned) => planned,
            Err(Failure::Error(cause)) => return self.refuse(id, cause, out),
            Err(Failure::Disconnect(cause)) => return self.close(cause, out),
        };
        let user = accepted.user.clone();
        let channels = accepted.channels.into_keys().collect();
        let identity = Identity::new(accepted.user, accepted.info, accepted.expire_at, channels, context);
        let limit = context.settings.user_connection_limit.filter(|_| !user.is_anonymous());
        self.phase = Phase::Entering(Box::new(Entering {
            id,
            frame_pings: fresh.opening.frame_pings,
            identity,
            entered: false,
            planned,
            displaces: context.settings.single_connection && !user.is_anonymous(),
            awaited: 0,
            results: BTreeMap::new(),
            live: Vec::new(),
            stale_at: fresh.stale_at,
        }));
        self.ask(id, Ask::Enter { user, limit }, out);
    }

    /// The answer to whether the user may have one more connection: then the server-side subscriptions are made, all at once.
    pub(super) fn entered(&mut self, allowed: bool, context: &Context<'_>, out: &mut Vec<Output>) {
        let Phase::Entering(entering) = &mut self.phase else { return };
        if !allowed {
            out.push(Output::Refused(format!(
                "refused by the rule \"a user has few enough connections\": user {:?}; see option \
                 client.user_connection_limit",
                entering.identity.user.as_str()
            )));
            return self.close(Disconnect::CONNECTION_LIMIT, out);
        }
        entering.entered = true;
        let id = entering.id;
        let planned = std::mem::take(&mut entering.planned);
        entering.awaited = planned.len();
        if planned.is_empty() {
            return self.open(context, out);
        }
        for planned in planned {
            self.join(id, planned, Purpose::Connect, context, out);
        }
    }

    /// One of the connection's server-side subscriptions is made; with the last of them the connection is open.
    pub(super) fn connected_part(
        &mut self,
        channel: &str,
        result: SubscribeResult,
        live: Vec<Output>,
        context: &Context<'_>,
        out: &mut Vec<Output>,
    ) {
        let Phase::Entering(entering) = &mut self.phase else { return };
        entering.results.insert(channel.to_owned(), result);
        entering.live.extend(live);
        entering.awaited -= 1;
        if entering.awaited == 0 {
            self.open(context, out);
        }
    }

    /// One of the connection's server-side subscriptions cannot be made, so neither can the connection.
    pub(super) fn connect_failed(&mut self, cause: ClientError, out: &mut Vec<Output>) {
        let Phase::Entering(entering) = &self.phase else { return };
        self.refuse(entering.id, cause, out);
    }

    fn open(&mut self, context: &Context<'_>, out: &mut Vec<Output>) {
        let phase = std::mem::replace(&mut self.phase, Phase::Closed { identity: None });
        let Phase::Entering(entering) = phase else {
            self.phase = phase;
            return;
        };
        let Entering { id, frame_pings, identity, displaces, results, live, .. } = *entering;
        let keepalive = Keepalive::new(frame_pings, context);
        let Announced { ping_s, pong } = keepalive.announced(context);
        let result = ConnectResult {
            client: self.client.to_string(),
            version: context.settings.version,
            expiry: context.expiry(identity.expire_at()),
            subs: results,
            ping: ping_s,
            pong,
            time: context.settings.include_server_time.then_some(context.unix_ms),
            ..ConnectResult::default()
        };
        let user = identity.user.clone();
        self.phase = Phase::Open(Open { identity, keepalive });
        out.push(Output::Reply(id, Reply::Connect(Box::new(result))));
        out.extend(live);
        if displaces {
            out.push(Output::Displace(user));
        }
    }

    /// Client protocol: a new token of the same user moves the expiry.
    pub(super) fn refresh(&mut self, id: u32, token: &str, context: &Context<'_>, out: &mut Vec<Output>) {
        let Phase::Open(open) = &self.phase else { return };
        if token.is_empty() {
            return self.close(Disconnect::BAD_REQUEST, out);
        }
        let Identity { user, details } = &open.identity;
        let channels = details.iter().flat_map(|details| details.channels.iter().map(String::as_str));
        let claims = match context.settings.auth.refresh(token, user, channels, context.unix_s()) {
            Ok(claims) => claims,
            Err(refusal) => {
                out.push(Output::Refused(refusal.to_string()));
                return match Failure::from(&refusal) {
                    Failure::Error(cause) => error(id, cause, out),
                    Failure::Disconnect(cause) => self.close(cause, out),
                };
            }
        };
        // Also without an expiry: a token that never expires ends the old one's.
        let channels = claims.channels.into_keys().collect();
        let identity = Identity::new(claims.user, claims.info, claims.expire_at, channels, context);
        let expiry = context.expiry(identity.expire_at());
        if let Phase::Open(open) = &mut self.phase {
            open.identity = identity;
        }
        out.push(Output::Reply(id, Reply::Refresh(expiry)));
    }

    fn refuse(&mut self, id: u32, cause: ClientError, out: &mut Vec<Output>) {
        self.shut();
        error(id, cause, out);
        out.push(Output::Refuse);
    }
}
