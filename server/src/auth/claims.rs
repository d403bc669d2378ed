//! What a token says once it is accepted.

use std::collections::BTreeMap;

use bytes::Bytes;
use uuid::Uuid;

use crate::names::{ClientId, UserId};

/// A moment in whole seconds since the Unix epoch, as tokens count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(pub i64);

impl UnixSeconds {
    /// The clock's present moment. For drivers and the command line only: everything below takes the moment as an
    /// argument.
    pub fn now() -> Self {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX))
    }

    /// Whole seconds from `now` until this moment; `None` once it is reached.
    pub fn seconds_after(self, now: Self) -> Option<u64> {
        u64::try_from(self.0.saturating_sub(now.0)).ok().filter(|seconds| *seconds > 0)
    }
}

/// What a connection token says.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionClaims {
    /// Who the client is; empty for anonymous.
    pub user: UserId,
    /// What others are shown about the connection, byte for byte as in the token; empty when absent.
    pub info: Bytes,
    /// Kept on the server and shown to the application backend only, byte for byte as in the token; empty when absent.
    pub meta: Bytes,
    /// When the connection expires unless it is refreshed; `None` for never.
    pub expire_at: Option<UnixSeconds>,
    /// Channels that the connection is subscribed to by the server. Never has the empty name.
    pub channels: BTreeMap<String, ChannelClaims>,
}

/// What a subscription token says.
#[derive(Clone, Debug, PartialEq)]
pub struct SubscriptionClaims {
    /// The channel that the token is for; never empty.
    pub channel: String,
    /// The user that the token is for; empty for anonymous.
    pub user: UserId,
    /// The only connection that the token is for; `None` for any of the user.
    pub client: Option<String>,
    /// Info, data and options of the subscription.
    pub subscription: ChannelClaims,
    /// When the subscription expires unless it is refreshed; `None` for never.
    pub expire_at: Option<UnixSeconds>,
}

impl SubscriptionClaims {
    /// What of the token is for somebody or something else; `None` when it is for this subscription.
    pub fn mismatch(&self, channel: &str, user: &UserId, client: ClientId) -> Option<Mismatch<'_>> {
        if self.channel != channel {
            return Some(Mismatch::Channel(&self.channel));
        }
        if self.user != *user {
            return Some(Mismatch::User(&self.user));
        }
        let is_other = |wanted: &&String| **wanted != *client.0.hyphenated().encode_lower(&mut Uuid::encode_buffer());
        self.client.as_ref().filter(is_other).map(|wanted| Mismatch::Client(wanted))
    }
}

/// How a subscription token is for somebody or something else, with what the token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch<'a> {
    /// It is for this channel.
    Channel(&'a str),
    /// It is for this user.
    User(&'a UserId),
    /// It is for this connection.
    Client(&'a str),
}

/// What a token says about one subscription.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChannelClaims {
    /// What others in the channel are shown about the subscriber, byte for byte as in the token; empty when absent.
    pub info: Bytes,
    /// Data for the subscriber, byte for byte as in the token; empty when absent.
    pub data: Bytes,
    /// Options that replace those of the namespace.
    pub overrides: Overrides,
}

/// Options of one subscription that replace those of its namespace; `None` keeps the namespace's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Replaces `presence`.
    pub presence: Option<bool>,
    /// Replaces `join_leave`.
    pub join_leave: Option<bool>,
    /// Replaces `force_push_join_leave`.
    pub force_push_join_leave: Option<bool>,
    /// Replaces `force_recovery`.
    pub force_recovery: Option<bool>,
    /// Replaces `force_positioning`.
    pub force_positioning: Option<bool>,
}
