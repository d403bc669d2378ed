//! What a backend does to the connections of a user.

use std::borrow::Cow;

use starling_proto::api::{
    BoolValue, DisconnectRequest, DisconnectResult, FilterNode, RefreshRequest, RefreshResult, SubscribeOptionOverride,
    SubscribeRequest, SubscribeResult, UnsubscribeRequest, UnsubscribeResult,
};
use tracing::info;

use super::{Api, Method, payload, refused};
use crate::{
    auth::{ChannelClaims, Overrides, UnixSeconds},
    broker::StreamPosition,
    error::{ApiError, Disconnect, Unsubscribed},
    names::{ChannelName, UserId},
    node::Target,
    session::{ServerRefresh, ServerSubscription},
};

/// Close codes that a backend may choose: those that WebSocket leaves to applications and that SDKs know how to read.
const CLOSE_CODES: std::ops::RangeInclusive<u32> = 3000..=4999;

/// Longest reason that fits into a Close frame beside its code, in bytes.
const REASON_BYTES: usize = 123;

impl Api {
    /// Closes connections of a user on every node. Success means that the nodes were told, not that there was such a user.
    ///
    /// # Errors
    ///
    /// 107: a code outside 3000 to 4999, which a Close frame cannot carry. 108: labels or all users.
    /// 100 and 111: the other nodes could not be told.
    pub async fn disconnect(&self, request: DisconnectRequest) -> Result<DisconnectResult, ApiError> {
        let method = Method::Disconnect;
        let DisconnectRequest { user, disconnect, client, whitelist, session, label_filter, all_users } = request;
        selectable(method, label_filter.as_ref(), all_users)?;
        let cause = match disconnect {
            None => Disconnect::FORCE_DISCONNECT,
            Some(custom) => cause(custom)?,
        };
        self.node.disconnect(&target(user, client, session), &cause, &whitelist).await?;
        Ok(DisconnectResult {})
    }

    /// Ends a user's subscription to a channel on every node. Without a channel clients are told to end all of theirs.
    ///
    /// # Errors
    ///
    /// 102: unknown namespace. 108: labels or all users. 100 and 111: the other nodes could not be told.
    pub async fn unsubscribe(&self, request: UnsubscribeRequest) -> Result<UnsubscribeResult, ApiError> {
        let method = Method::Unsubscribe;
        let UnsubscribeRequest { channel, user, client, session, label_filter, all_users } = request;
        selectable(method, label_filter.as_ref(), all_users)?;
        let channel = match channel.is_empty() {
            true => None,
            false => {
                self.look(method, &channel, |_| Ok(()))?;
                Some(ChannelName::from(channel))
            }
        };
        self.node.unsubscribe(&target(user, client, session), channel.as_ref(), &Unsubscribed::SERVER).await?;
        Ok(UnsubscribeResult {})
    }

    /// Subscribes a user's connections on every node to a channel. Success means that the nodes were told, not that there
    /// was such a user. Nobody's rights are asked for: the backend knows what it does.
    ///
    /// # Errors
    ///
    /// 107: no channel, bad base64, or a time of expiry that is past. 102: unknown namespace. 108: labels or all users.
    /// 100 and 111: the other nodes could not be told.
    pub async fn subscribe(&self, request: SubscribeRequest) -> Result<SubscribeResult, ApiError> {
        let method = Method::Subscribe;
        let SubscribeRequest {
            channel,
            user,
            expire_at,
            info,
            b64info,
            client,
            data,
            b64data,
            recover_since,
            r#override,
            session,
            label_filter,
            all_users,
        } = request;
        selectable(method, label_filter.as_ref(), all_users)?;
        let (granted, history) = self.look(method, &channel, |rules| {
            let info = payload(method, info, &b64info, "b64info")?;
            let data = payload(method, data, &b64data, "b64data")?;
            let expire_at = given_time(expire_at);
            // The reference server fails with 100 here if the user happens to be on the node that is asked, and passes over
            // it if not. Nobody is subscribed either way.
            if expire_at.is_some_and(|at| at <= UnixSeconds::now()) {
                let why = "the subscription would have expired before it began";
                return Err(refused(method, &channel, ApiError::BadRequest, why, "expire_at"));
            }
            let claims = ChannelClaims { info, data, overrides: r#override.map(overrides).unwrap_or_default() };
            Ok((rules.granted_by_server(Some(&claims), expire_at), rules.history()))
        })?;
        let recover_since =
            recover_since.map(|since| StreamPosition { epoch: since.epoch.into(), offset: since.offset });
        let subscription = ServerSubscription { channel: channel.into(), granted, recover_since, history };
        self.node.subscribe(&target(user, client, session), subscription).await?;
        Ok(SubscribeResult {})
    }

    /// Changes when a user's connections on every node expire: at a time, never (without one), or now. Success means that the
    /// nodes were told.
    ///
    /// # Errors
    ///
    /// 108: labels or all users. 100 and 111: the other nodes could not be told.
    pub async fn refresh(&self, request: RefreshRequest) -> Result<RefreshResult, ApiError> {
        let RefreshRequest { user, client, expired, expire_at, info, session, label_filter, all_users } = request;
        selectable(Method::Refresh, label_filter.as_ref(), all_users)?;
        let info = (!info.is_empty()).then_some(info);
        let refresh = ServerRefresh { expired, expire_at: given_time(expire_at), info };
        self.node.refresh(&target(user, client, session), refresh).await?;
        Ok(RefreshResult {})
    }
}

/// A Unix time in seconds, where what is not positive stands for none.
fn given_time(seconds: i64) -> Option<UnixSeconds> {
    (seconds > 0).then_some(UnixSeconds(seconds))
}

fn overrides(given: SubscribeOptionOverride) -> Overrides {
    let SubscribeOptionOverride { presence, join_leave, force_recovery, force_positioning, force_push_join_leave } =
        given;
    let flag = |given: Option<BoolValue>| given.map(|given| given.value);
    Overrides {
        presence: flag(presence),
        join_leave: flag(join_leave),
        force_push_join_leave: flag(force_push_join_leave),
        force_recovery: flag(force_recovery),
        force_positioning: flag(force_positioning),
    }
}

/// Refuses selections that this server does not know. To skip over them would hit connections that nobody meant.
fn selectable(method: Method, labels: Option<&FilterNode>, all_users: bool) -> Result<(), ApiError> {
    if labels.is_some() {
        return Err(refused(method, "", ApiError::NotAvailable, "connections have no labels here", "label_filter"));
    }
    if all_users {
        return Err(refused(method, "", ApiError::NotAvailable, "one call is about one user here", "all_users"));
    }
    Ok(())
}

fn target(user: String, client: String, session: String) -> Target {
    let given = |text: String| (!text.is_empty()).then_some(text);
    Target { user: UserId::from(user), client: given(client), session: given(session) }
}

fn cause(custom: starling_proto::api::Disconnect) -> Result<Disconnect, ApiError> {
    let starling_proto::api::Disconnect { code, mut reason } = custom;
    if !CLOSE_CODES.contains(&code) {
        let why = "the code is outside 3000 to 4999, which is what a Close frame may carry";
        return Err(refused(Method::Disconnect, "", ApiError::BadRequest, why, "disconnect.code"));
    }
    if reason.len() > REASON_BYTES {
        info!(bytes = reason.len(), limit = REASON_BYTES, "disconnect.reason is cut: a Close frame has no more room");
        reason.truncate(reason.floor_char_boundary(REASON_BYTES));
    }
    // One SDK takes a frame without a reason for one without a code.
    let reason = match reason.is_empty() {
        true => Disconnect::FORCE_DISCONNECT.reason,
        false => Cow::Owned(reason),
    };
    Ok(Disconnect { code, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_cut_to_what_a_close_frame_holds_between_characters() {
        let long = starling_proto::api::Disconnect { code: 4000, reason: "ы".repeat(100) };
        assert_eq!(cause(long).map(|cause| cause.reason.len()), Ok(122));
        let none = starling_proto::api::Disconnect { code: 4000, reason: String::new() };
        assert_eq!(cause(none).map(|cause| cause.reason), Ok("force disconnect".into()));
    }

    #[test]
    fn codes_that_no_close_frame_can_carry_are_refused() {
        for code in [0, 5, 1000, 2999, 5000, u32::MAX] {
            let custom = starling_proto::api::Disconnect { code, reason: "x".to_owned() };
            assert_eq!(cause(custom), Err(ApiError::BadRequest), "{code}");
        }
    }
}
