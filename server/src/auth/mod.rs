//! Tokens and keys: who a client is, and what its tokens allow.
//!
//! [`Authenticator`] is compiled once from the `client` section and replaced as a whole when the configuration is read
//! again. Like the rest of this room it is pure: the moment is an argument, nothing waits. (Fetching keys by address,
//! which waits, will be a step before these checks, not a part of them.)
//!
//! | question | answer |
//! |---|---|
//! | who connects ([`Authenticator::connect`]) | [`Identity`] or [`ConnectRefusal`] |
//! | a new token for a connection ([`Authenticator::refresh`]) | [`ConnectionClaims`] or [`RefreshRefusal`] |
//! | a subscription token ([`Authenticator::subscription_token`]) | [`SubscriptionClaims`] or [`TokenRefusal`] |
//! | a new one of those ([`Authenticator::sub_refresh`]) | [`SubscriptionClaims`] or [`SubRefreshRefusal`] |
//! | what is wrong with a token ([`Authenticator::inspect`]) | [`Inspection`] |
//!
//! Each refusal turns into its code on the wire by one `From` for [`Failure`], and into a line for the log by
//! `Display`. A token in the wrong time is worth a new one (109); any other wrong token is final (3500, and 103 for a
//! subscription).
//!
//! | claim | checked how |
//! |---|---|
//! | `exp`, `nbf` | no leeway: invalid from the second that `exp` names, and until the one that `nbf` names |
//! | `aud`, `iss` | only where the options ask for one, exactly or by a pattern |
//! | `iat`, `jti` | their type only |
//! | `expire_at` | replaces `exp` as the end of the connection or subscription; not the end of the token itself |

mod claims;
mod connect;
mod create;
mod inspect;
mod keys;
mod refusal;
#[cfg(test)]
mod tests;
mod token;
mod verifier;

use std::fmt;

pub use claims::{ChannelClaims, ConnectionClaims, Mismatch, Overrides, SubscriptionClaims, UnixSeconds};
pub use connect::{ConnectRefusal, Identity, IdentitySource, RefreshRefusal, SubRefreshRefusal};
pub use inspect::{Inspection, TokenKind};
pub use refusal::{Failure, Period, TokenRefusal};

use crate::config::Client;
use verifier::Verifier;

/// Decides who clients are and which tokens count.
#[derive(Debug)]
pub struct Authenticator {
    connection: Verifier,
    /// `None`: the keys of connection tokens check both.
    subscription: Option<Verifier>,
    /// `client.allow_anonymous_connect_without_token`
    anonymous_connects: bool,
    /// Not `client.disallow_anonymous_connection_tokens`.
    anonymous_tokens: bool,
    /// `client.user_id_http_header` is set.
    header_counts: bool,
    /// `client.insecure`
    insecure: bool,
}

impl Authenticator {
    /// Compiles the options.
    ///
    /// # Errors
    ///
    /// A key or a pattern that is none, two options that exclude each other, or a key set by address, which is not
    /// supported yet.
    pub fn new(client: &Client) -> Result<Self, ConfigProblem> {
        let skip_signature = client.insecure_skip_token_signature_verify;
        let separate = &client.subscription_token;
        let subscription = separate
            .enabled
            .then(|| Verifier::new("client.subscription_token", &separate.token, skip_signature))
            .transpose()?;
        Ok(Self {
            connection: Verifier::new("client.token", &client.token, skip_signature)?,
            subscription,
            anonymous_connects: client.allow_anonymous_connect_without_token,
            anonymous_tokens: !client.disallow_anonymous_connection_tokens,
            header_counts: client.user_id_http_header.is_some(),
            insecure: client.insecure,
        })
    }

    /// Checks a connection token.
    pub fn connection_token(&self, token: &str, now: UnixSeconds) -> Result<ConnectionClaims, TokenRefusal> {
        self.connection.connection(token, now)
    }

    /// Checks a subscription token. Whether it is for this channel, user and connection is left to
    /// [`crate::namespace::Namespaces::may_subscribe`].
    pub fn subscription_token(&self, token: &str, now: UnixSeconds) -> Result<SubscriptionClaims, TokenRefusal> {
        self.subscription_verifier().subscription(token, now)
    }

    fn subscription_verifier(&self) -> &Verifier {
        self.subscription.as_ref().unwrap_or(&self.connection)
    }
}

/// An option whose value cannot be used. The server does not start with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Path of the option: `client.token.rsa_public_key`.
    pub option: String,
    /// What is wrong with its value, and what would be right.
    pub problem: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.option, self.problem)
    }
}

impl std::error::Error for ConfigProblem {}
