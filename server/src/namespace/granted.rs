//! What a subscription has: the options of its namespace, what a token puts in their place, and what was asked for.

use std::sync::Arc;

use bytes::Bytes;

use super::{Rules, Subject};
use crate::{
    auth::{ChannelClaims, UnixSeconds},
    config::{DeltaType, RecoveryMode},
    filter::Filter,
    session::protocol::SubscribeRequest,
};

/// What one subscription has.
#[derive(Clone, Debug, PartialEq)]
pub struct Granted {
    /// The subscriber is kept in the channel's presence.
    pub presence: bool,
    /// Its coming and going is told to the channel.
    pub join_leave: bool,
    /// It is told the coming and going of everyone, itself included.
    pub push_join_leave: bool,
    /// Its position is checked, and told in the reply. Always so when it is recoverable.
    pub positioned: bool,
    /// It may recover what it missed, and is told so in the reply.
    pub recoverable: bool,
    /// What recovery brings back.
    pub recovery_mode: RecoveryMode,
    /// It recovers even if it does not ask (the latest publication for every new subscriber).
    pub auto_cache_recover: bool,
    /// Kind of differences that it gets publications as. `None` with a filter: a difference could rest on a publication
    /// that the filter held back.
    pub delta: Option<DeltaType>,
    /// Publications that do not pass it are held back.
    pub filter: Option<Arc<Filter>>,
    /// When it expires unless it is refreshed; `None` for never.
    pub expire_at: Option<UnixSeconds>,
    /// The client refreshes it, so that the client is told when it expires; otherwise the server asks the backend.
    pub client_side_refresh: bool,
    /// What others in the channel are shown about the subscriber; empty for nothing.
    pub info: Bytes,
    /// Data for the subscriber in the reply; empty for none.
    pub data: Bytes,
}

impl Rules<'_> {
    /// What a subscription has that the server makes by itself: from `channels` or `subs` of a connection token, the
    /// user's personal channel, or the server API. The session adds what the client asks for these at `connect`.
    pub fn granted_by_server(&self, claims: Option<&ChannelClaims>, expire_at: Option<UnixSeconds>) -> Granted {
        let options = self.options();
        let over = claims.map(|claims| claims.overrides).unwrap_or_default();
        let recoverable = over.force_recovery.unwrap_or(options.force_recovery);
        Granted {
            presence: over.presence.unwrap_or(options.presence),
            join_leave: over.join_leave.unwrap_or(options.join_leave),
            push_join_leave: over.force_push_join_leave.unwrap_or(options.force_push_join_leave),
            positioned: recoverable || over.force_positioning.unwrap_or(options.force_positioning),
            recoverable,
            recovery_mode: options.force_recovery_mode,
            auto_cache_recover: options.auto_cache_recover,
            delta: None,
            filter: None,
            expire_at,
            client_side_refresh: !options.sub_refresh_proxy_enabled,
            info: claims.map(|claims| claims.info.clone()).unwrap_or_default(),
            data: claims.map(|claims| claims.data.clone()).unwrap_or_default(),
        }
    }

    /// Adds what the client asks for and may have.
    ///
    /// Rights for subscribers count, because the client is about to be one. What is asked for and not granted is left
    /// out silently.
    pub(super) fn grant_what_is_asked(&self, granted: &mut Granted, who: Subject<'_>, request: &SubscribeRequest) {
        let options = self.options();
        let who = Subject { subscribed: true, ..who };
        let history = self.history_right(who).is_ok();
        if request.positioned && (options.allow_positioning || history) {
            granted.positioned = true;
        }
        if request.recoverable && (options.allow_recovery || history) {
            granted.recoverable = true;
            granted.positioned = true;
        }
        if request.join_leave && options.join_leave && self.presence_right(who).is_ok() {
            granted.push_join_leave = true;
        }
        granted.delta = if granted.filter.is_none() { self.negotiated_delta(&request.delta) } else { None };
    }

    /// The kind of differences that the client asks for, if the channel has it.
    pub fn negotiated_delta(&self, asked: &str) -> Option<DeltaType> {
        self.options().allowed_delta_types.iter().copied().find(|kind| kind.as_str() == asked)
    }
}
