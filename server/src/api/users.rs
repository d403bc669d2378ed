//! What a backend does to the connections of a user.

use std::borrow::Cow;

use starling_proto::api::{
    DisconnectRequest, DisconnectResult, FilterNode, RefreshRequest, SubscribeRequest, UnsubscribeRequest,
    UnsubscribeResult,
};
use tracing::info;

use super::{Api, Method, payload, refused};
use crate::{
    error::{ApiError, Disconnect, Unsubscribed},
    names::{ChannelName, UserId},
    node::Target,
};

/// Close codes that a backend may choose: those that WebSocket leaves to applications and that SDKs know how to read.
const CLOSE_CODES: std::ops::RangeInclusive<u32> = 3000..=4999;

/// Longest reason that fits into a Close frame beside its code, in bytes.
const REASON_BYTES: usize = 123;

/// A well-formed request for something that this server cannot do yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsupported;

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

    /// Checks a request for a server-side subscription; making one is not supported yet.
    ///
    /// # Errors
    ///
    /// 107: no channel, or bad base64. 102: unknown namespace. 108: labels or all users.
    pub fn subscribe(&self, request: SubscribeRequest) -> Result<Unsupported, ApiError> {
        let method = Method::Subscribe;
        selectable(method, request.label_filter.as_ref(), request.all_users)?;
        self.look(method, &request.channel, |_| Ok(()))?;
        payload(method, request.data, &request.b64data, "b64data")?;
        payload(method, request.info, &request.b64info, "b64info")?;
        Ok(Unsupported)
    }

    /// Checks a request to change when connections expire; changing it is not supported yet.
    ///
    /// # Errors
    ///
    /// 108: labels or all users.
    pub fn refresh(&self, request: RefreshRequest) -> Result<Unsupported, ApiError> {
        selectable(Method::Refresh, request.label_filter.as_ref(), request.all_users)?;
        Ok(Unsupported)
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
