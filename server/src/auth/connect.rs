//! Who a connection is: what its token says, or what no token means.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use bytes::Bytes;

use super::{Authenticator, ChannelClaims, ConnectionClaims, Failure, SubscriptionClaims, TokenRefusal, UnixSeconds};
use crate::{
    error::{ClientError, Disconnect},
    names::{ClientId, UserId},
    session::protocol::ConnectRequest,
};

/// Who a connection is, once it is let in.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// Its user; empty for anonymous.
    pub user: UserId,
    /// What others are shown about it; empty for nothing.
    pub info: Bytes,
    /// What only the application backend is shown about it; empty for nothing.
    pub meta: Bytes,
    /// When it expires unless it is refreshed by the client; `None` for never. Later than the moment of the decision.
    pub expire_at: Option<UnixSeconds>,
    /// Channels that the server subscribes it to. Their namespaces are not looked up here.
    pub channels: BTreeMap<String, ChannelClaims>,
    /// Where all this is from.
    pub source: IdentitySource,
}

/// Where an identity is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentitySource {
    /// A connection token.
    Token,
    /// The header of `client.user_id_http_header`, set by a gateway in front.
    Header,
    /// Nothing: anonymous connections are allowed.
    Anonymous,
}

/// Why somebody may not connect. `Display` is one line for a log, with the option that would allow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectRefusal {
    /// There is neither a token nor anything in its place.
    NoCredentials,
    /// The token is not accepted.
    Token(TokenRefusal),
    /// The token has no user, and such tokens are not allowed.
    AnonymousToken,
    /// The token is right, but says that the connection has expired already.
    Expired,
}

/// Why a new connection token does not refresh a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefreshRefusal {
    /// The token is not accepted.
    Token(TokenRefusal),
    /// The token is for another user.
    OtherUser,
    /// The token is right, but says that the connection has expired already.
    Expired,
    /// The token lists other server-side channels than the connection has: a new connection picks them up.
    OtherChannels,
}

/// Why a new subscription token does not refresh a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubRefreshRefusal {
    /// There is none.
    NoToken,
    /// The token is not accepted.
    Token(TokenRefusal),
    /// The token is for another channel, user or connection.
    Mismatch,
    /// The token is right, but says that the subscription has expired already.
    Expired,
}

impl Authenticator {
    /// Decides who a connection is.
    ///
    /// `header_user` is the value of the header that `client.user_id_http_header` names, from the request that opened
    /// the connection, never from headers inside the command.
    ///
    /// | token | header | means |
    /// |---|---|---|
    /// | given | - | the token decides alone |
    /// | none | given | the header's user |
    /// | none | none or empty | anonymous where that is allowed, else refused |
    ///
    /// The reference takes a client for anonymous where that is allowed, header or not; a gateway that names the user
    /// is meant to be believed. Anonymous connections are allowed by `client.allow_anonymous_connect_without_token` and
    /// by `client.insecure`, which also makes connections not expire; tokens are checked as ever.
    ///
    /// The connect proxy, which would be asked where there is no token, has its place before the header; nothing asks
    /// it yet.
    pub fn connect(
        &self,
        request: &ConnectRequest,
        header_user: Option<&str>,
        now: UnixSeconds,
    ) -> Result<Identity, ConnectRefusal> {
        if !request.token.is_empty() {
            let claims = self.connection_token(&request.token, now).map_err(ConnectRefusal::Token)?;
            return self.identity_of(claims, now);
        }
        let header_user = header_user.filter(|user| self.header_counts && !user.is_empty());
        match header_user {
            Some(user) => Ok(Identity::without_token(user, IdentitySource::Header)),
            None if self.anonymous_connects || self.insecure => {
                Ok(Identity::without_token("", IdentitySource::Anonymous))
            }
            None => Err(ConnectRefusal::NoCredentials),
        }
    }

    /// Whom an accepted token lets in.
    pub(super) fn identity_of(&self, claims: ConnectionClaims, now: UnixSeconds) -> Result<Identity, ConnectRefusal> {
        let ConnectionClaims { user, info, meta, expire_at, channels } = claims;
        if user.is_anonymous() && !self.anonymous_tokens {
            return Err(ConnectRefusal::AnonymousToken);
        }
        let expire_at = expire_at.filter(|_| !self.insecure);
        if expire_at.is_some_and(|end| end <= now) {
            return Err(ConnectRefusal::Expired);
        }
        Ok(Identity { user, info, meta, expire_at, channels, source: IdentitySource::Token })
    }

    /// Decides whether a token refreshes a connection of this user that has these server-side channels from its token,
    /// and gives what is new: info, meta and expiry.
    pub fn refresh<'a>(
        &self,
        token: &str,
        user: &UserId,
        channels: impl IntoIterator<Item = &'a str>,
        now: UnixSeconds,
    ) -> Result<ConnectionClaims, RefreshRefusal> {
        let claims = self.connection_token(token, now).map_err(RefreshRefusal::Token)?;
        if claims.user != *user {
            return Err(RefreshRefusal::OtherUser);
        }
        let claims = ConnectionClaims { expire_at: claims.expire_at.filter(|_| !self.insecure), ..claims };
        if claims.expire_at.is_some_and(|end| end <= now) {
            return Err(RefreshRefusal::Expired);
        }
        let present: BTreeSet<&str> = channels.into_iter().collect();
        if !claims.channels.keys().map(String::as_str).eq(present) {
            return Err(RefreshRefusal::OtherChannels);
        }
        Ok(claims)
    }

    /// Decides whether a token refreshes a subscription. That the connection has it, and refreshes it itself, is the
    /// caller's question.
    pub fn sub_refresh(
        &self,
        token: &str,
        channel: &str,
        user: &UserId,
        client: ClientId,
        now: UnixSeconds,
    ) -> Result<SubscriptionClaims, SubRefreshRefusal> {
        if token.is_empty() {
            return Err(SubRefreshRefusal::NoToken);
        }
        let claims = self.subscription_token(token, now).map_err(SubRefreshRefusal::Token)?;
        if claims.mismatch(channel, user, client).is_some() {
            return Err(SubRefreshRefusal::Mismatch);
        }
        if claims.expire_at.is_some_and(|end| end <= now) {
            return Err(SubRefreshRefusal::Expired);
        }
        Ok(claims)
    }
}

impl Identity {
    fn without_token(user: &str, source: IdentitySource) -> Self {
        let (info, meta) = (Bytes::new(), Bytes::new());
        Self { user: user.into(), info, meta, expire_at: None, channels: BTreeMap::new(), source }
    }
}

// === refusals on the wire ===

impl From<&ConnectRefusal> for Failure {
    fn from(refusal: &ConnectRefusal) -> Self {
        match refusal {
            ConnectRefusal::NoCredentials => Self::Disconnect(Disconnect::BAD_REQUEST),
            ConnectRefusal::Token(TokenRefusal::Expired(_)) => Self::Error(ClientError::TokenExpired),
            ConnectRefusal::Token(TokenRefusal::Invalid(_)) => Self::Disconnect(Disconnect::INVALID_TOKEN),
            ConnectRefusal::AnonymousToken => Self::Disconnect(Disconnect::PERMISSION_DENIED),
            ConnectRefusal::Expired => Self::Error(ClientError::Expired),
        }
    }
}

impl From<&RefreshRefusal> for Failure {
    fn from(refusal: &RefreshRefusal) -> Self {
        match refusal {
            RefreshRefusal::Token(TokenRefusal::Expired(_)) => Self::Disconnect(Disconnect::EXPIRED),
            RefreshRefusal::Token(TokenRefusal::Invalid(_)) => Self::Disconnect(Disconnect::INVALID_TOKEN),
            RefreshRefusal::OtherUser => Self::Disconnect(Disconnect::INVALID_TOKEN),
            RefreshRefusal::Expired => Self::Error(ClientError::Expired),
            RefreshRefusal::OtherChannels => Self::Disconnect(Disconnect::INSUFFICIENT_STATE),
        }
    }
}

impl From<&SubRefreshRefusal> for Failure {
    fn from(refusal: &SubRefreshRefusal) -> Self {
        match refusal {
            SubRefreshRefusal::NoToken => Self::Error(ClientError::BadRequest),
            // The reference answers success and drops the expiry, which cannot be meant: the client is told to fetch a
            // new one.
            SubRefreshRefusal::Token(TokenRefusal::Expired(_)) => Self::Error(ClientError::TokenExpired),
            SubRefreshRefusal::Token(TokenRefusal::Invalid(_)) => Self::Disconnect(Disconnect::INVALID_TOKEN),
            SubRefreshRefusal::Mismatch => Self::Disconnect(Disconnect::INVALID_TOKEN),
            SubRefreshRefusal::Expired => Self::Error(ClientError::Expired),
        }
    }
}

// === refusals in logs ===

const EXPIRED_ALREADY: &str = "the token is accepted, but its claim expire_at has passed";

impl fmt::Display for ConnectRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCredentials => f.write_str(
                "there is no token; see options client.allow_anonymous_connect_without_token and \
                 client.user_id_http_header, or use client.insecure in development",
            ),
            Self::Token(refusal) => write!(f, "the connection token is not accepted: {refusal}"),
            Self::AnonymousToken => {
                f.write_str("the connection token has no user; see option client.disallow_anonymous_connection_tokens")
            }
            Self::Expired => f.write_str(EXPIRED_ALREADY),
        }
    }
}

impl fmt::Display for RefreshRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(refusal) => write!(f, "the new connection token is not accepted: {refusal}"),
            Self::OtherUser => f.write_str("the new connection token is for another user"),
            Self::Expired => f.write_str(EXPIRED_ALREADY),
            Self::OtherChannels => f.write_str("the new connection token lists other channels than the connection has"),
        }
    }
}

impl fmt::Display for SubRefreshRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToken => f.write_str("there is no token"),
            Self::Token(refusal) => write!(f, "the new subscription token is not accepted: {refusal}"),
            Self::Mismatch => f.write_str("the new subscription token is for another channel, user or connection"),
            Self::Expired => f.write_str(EXPIRED_ALREADY),
        }
    }
}
