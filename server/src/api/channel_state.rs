//! What channels keep beside their subscribers: presence, history, maps. This server keeps none of it yet, so that these
//! operations check their parameters and then answer what a server with the features switched off answers.

use starling_proto::api::{
    HistoryRemoveRequest, HistoryRemoveResult, HistoryRequest, HistoryResult, PresenceRequest, PresenceResult,
    PresenceStatsRequest, PresenceStatsResult,
};

use super::{Api, Method, option_of, refused};
use crate::{error::ApiError, namespace::Rules};

impl Api {
    /// Lists the clients of a channel.
    ///
    /// # Errors
    ///
    /// 107: no channel. 102: unknown namespace. 108: always, since presence is not kept.
    pub fn presence(&self, request: PresenceRequest) -> Result<PresenceResult, ApiError> {
        Err(self.no_presence(Method::Presence, &request.channel))
    }

    /// Counts the clients of a channel. Errors as for [`Api::presence`].
    pub fn presence_stats(&self, request: PresenceStatsRequest) -> Result<PresenceStatsResult, ApiError> {
        Err(self.no_presence(Method::PresenceStats, &request.channel))
    }

    /// Reads a channel's history.
    ///
    /// # Errors
    ///
    /// 107: no channel. 102: unknown namespace. 108: always, since history is not kept.
    pub fn history(&self, request: HistoryRequest) -> Result<HistoryResult, ApiError> {
        Err(self.no_history(Method::History, &request.channel))
    }

    /// Empties a channel's history. Errors as for [`Api::history`].
    pub fn history_remove(&self, request: HistoryRemoveRequest) -> Result<HistoryRemoveResult, ApiError> {
        Err(self.no_history(Method::HistoryRemove, &request.channel))
    }

    /// Refuses a method that is about maps or shared polling: there is no namespace of that kind.
    ///
    /// 107: a missing parameter, or a namespace that is none of these. 102: unknown namespace.
    pub(super) fn keyed(&self, method: Method, request: &KeyedRequest) -> ApiError {
        let needs_key = matches!(method, Method::MapPublish | Method::MapRemove | Method::SharedPollPublish);
        if needs_key && request.key.is_empty() {
            return refused(method, &request.channel, ApiError::BadRequest, "the request names no key", "key");
        }
        if method == Method::SharedPollPublish && request.version == 0 {
            return refused(method, &request.channel, ApiError::BadRequest, "the request has no version", "version");
        }
        self.always(method, &request.channel, |rules| {
            let why = "the namespace is for publications, not for maps or polling";
            let see = option_of(rules, "subscription_type");
            refused(method, &request.channel, ApiError::BadRequest, why, see)
        })
    }

    fn no_presence(&self, method: Method, channel: &str) -> ApiError {
        self.always(method, channel, |rules| {
            let see = option_of(rules, "presence");
            refused(method, channel, ApiError::NotAvailable, "the channel keeps no presence", see)
        })
    }

    fn no_history(&self, method: Method, channel: &str) -> ApiError {
        self.always(method, channel, |rules| {
            let see = option_of(rules, "history_size");
            refused(method, channel, ApiError::NotAvailable, "the channel keeps no history", see)
        })
    }

    /// The error of a method that can only fail, even on a channel that exists.
    fn always(&self, method: Method, channel: &str, error: impl FnOnce(Rules<'_>) -> ApiError) -> ApiError {
        match self.look(method, channel, |rules| Ok(error(rules))) {
            Ok(error) => error,
            Err(error) => error,
        }
    }
}

/// What is looked at in the requests of all methods about maps and shared polling.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct KeyedRequest {
    pub(super) channel: String,
    pub(super) key: String,
    pub(super) version: u64,
}
