//! `connect` and `refresh`: who the client is, and for how long.

use bytes::Bytes;

use super::{
    Ask, Context, Open, Opening, Output, Phase, Session, error,
    keepalive::{Announced, Keepalive},
    protocol::{ConnectRequest, ConnectResult, Reply},
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

/// `connect` is accepted, unless the user has too many connections.
pub(super) struct Entering {
    id: u32,
    frame_pings: bool,
    identity: Identity,
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
    fn new(
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
        let channels: Box<[String]> = accepted.channels.into_keys().collect();
        if !channels.is_empty() {
            out.push(Output::Refused(format!(
                "the token subscribes the client to {} channels: server-side subscriptions are not supported yet",
                channels.len()
            )));
        }
        let user = accepted.user.clone();
        let identity = Identity::new(accepted.user, accepted.info, accepted.expire_at, channels, context);
        let limit = context.settings.user_connection_limit.filter(|_| !user.is_anonymous());
        let (frame_pings, stale_at) = (fresh.opening.frame_pings, fresh.stale_at);
        self.phase = Phase::Entering(Box::new(Entering { id, frame_pings, identity, stale_at }));
        self.ask(id, Ask::Enter { user, limit }, out);
    }

    /// The answer to whether the user may have one more connection.
    pub(super) fn entered(&mut self, allowed: bool, context: &Context<'_>, out: &mut Vec<Output>) {
        let phase = std::mem::replace(&mut self.phase, Phase::Closed { user: None });
        let Phase::Entering(entering) = phase else {
            self.phase = phase;
            return;
        };
        let Entering { id, frame_pings, identity, stale_at: _ } = *entering;
        if !allowed {
            out.push(Output::Refused(format!(
                "refused by the rule \"a user has few enough connections\": user {:?}; see option \
                 client.user_connection_limit",
                identity.user.as_str()
            )));
            out.push(Output::Close(Disconnect::CONNECTION_LIMIT));
            return;
        }
        let keepalive = Keepalive::new(frame_pings, context);
        let Announced { ping_s, pong } = keepalive.announced(context);
        let result = ConnectResult {
            client: self.client.to_string(),
            version: context.settings.version,
            expiry: context.expiry(identity.expire_at()),
            ping: ping_s,
            pong,
            time: context.settings.include_server_time.then_some(context.unix_ms),
            ..ConnectResult::default()
        };
        self.phase = Phase::Open(Open { identity, keepalive });
        out.push(Output::Reply(id, Reply::Connect(Box::new(result))));
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
        self.phase = Phase::Closed { user: None };
        error(id, cause, out);
        out.push(Output::Refuse);
    }
}
