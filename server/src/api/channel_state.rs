//! What channels keep beside their subscribers: presence and history. Of maps and shared polling this server keeps none, so
//! that those operations check their parameters and then answer what a server with the features switched off answers.

use std::convert::Infallible;

use starling_proto::api::{
    ClientInfo, HistoryRemoveRequest, HistoryRemoveResult, HistoryRequest, HistoryResult, PresenceRequest,
    PresenceResult, PresenceStatsRequest, PresenceStatsResult, Publication,
};

use super::{Api, Method, option_of, refused};
use crate::{
    broker::{self, History, HistoryOptions, HistoryQuery, Limit},
    error::ApiError,
    names::ChannelName,
    presence::PresenceStats,
};

impl Api {
    /// Lists the clients of a channel on all nodes, by client id.
    ///
    /// # Errors
    ///
    /// 107: no channel. 102: unknown namespace. 108: the channel has no presence. 100: the store is away.
    pub async fn presence(&self, request: PresenceRequest) -> Result<PresenceResult, ApiError> {
        let channel = self.channel_with_presence(Method::Presence, request.channel)?;
        let list = self.node.presence(&channel).await?;
        Ok(PresenceResult { presence: list.into_iter().map(|(client, info)| (client, info.into())).collect() })
    }

    /// Counts the clients of a channel. Errors as for [`Api::presence`].
    pub async fn presence_stats(&self, request: PresenceStatsRequest) -> Result<PresenceStatsResult, ApiError> {
        let channel = self.channel_with_presence(Method::PresenceStats, request.channel)?;
        let PresenceStats { clients, users } = self.node.presence_stats(&channel).await?;
        Ok(PresenceStatsResult { num_clients: clients, num_users: users })
    }

    /// Reads a channel's history: the position alone with limit 0, all that is kept with a negative one.
    ///
    /// # Errors
    ///
    /// 107: no channel. 102: unknown namespace. 108: the channel keeps no history. 100: the broker is away, or what precedes
    /// offset 0 is asked for. 112: the position is of another epoch.
    pub async fn history(&self, request: HistoryRequest) -> Result<HistoryResult, ApiError> {
        let method = Method::History;
        let HistoryRequest { channel, limit, since, reverse } = request;
        let (channel, options) = self.channel_with_history(method, channel)?;
        if reverse && since.as_ref().is_some_and(|since| since.offset == 0) {
            let why = "nothing precedes offset 0";
            return Err(refused(method, channel.as_str(), ApiError::Internal, why, "since.offset"));
        }
        let limit = match u32::try_from(limit) {
            Ok(0) => Limit::PositionOnly,
            Ok(most) => Limit::AtMost(most),
            Err(_) => Limit::All,
        };
        let query = HistoryQuery { since: since.as_ref().map(|since| since.offset), limit, reverse };
        let History { publications, top } = self.node.history(&channel, query, options).await?;
        // No epoch means any: it is how a caller reads from the first offset on.
        if since.is_some_and(|since| !since.epoch.is_empty() && *since.epoch != *top.epoch) {
            let why = "the position is of another life of the stream";
            return Err(refused(method, channel.as_str(), ApiError::UnrecoverablePosition, why, "since.epoch"));
        }
        Ok(HistoryResult {
            publications: publications.into_iter().map(Publication::from).collect(),
            epoch: top.epoch.to_string(),
            offset: top.offset,
        })
    }

    /// Empties a channel's history; its position stays. Errors as for [`Api::history`].
    pub async fn history_remove(&self, request: HistoryRemoveRequest) -> Result<HistoryRemoveResult, ApiError> {
        let (channel, _) = self.channel_with_history(Method::HistoryRemove, request.channel)?;
        self.node.remove_history(&channel).await?;
        Ok(HistoryRemoveResult {})
    }

    /// Refuses a method that is about maps or shared polling: there is no namespace of that kind.
    ///
    /// 107: a missing parameter, or a namespace that is none of these. 102: unknown namespace.
    pub(super) fn keyed(&self, method: Method, request: &KeyedRequest) -> Result<Infallible, ApiError> {
        let needs_key = matches!(method, Method::MapPublish | Method::MapRemove | Method::SharedPollPublish);
        if needs_key && request.key.is_empty() {
            return Err(refused(method, &request.channel, ApiError::BadRequest, "the request names no key", "key"));
        }
        if method == Method::SharedPollPublish && request.version == 0 {
            let why = "the request has no version";
            return Err(refused(method, &request.channel, ApiError::BadRequest, why, "version"));
        }
        self.look(method, &request.channel, |rules| {
            let why = "the namespace is for publications, not for maps or polling";
            let see = option_of(rules, "subscription_type");
            Err(refused(method, &request.channel, ApiError::BadRequest, why, see))
        })
    }

    fn channel_with_presence(&self, method: Method, channel: String) -> Result<ChannelName, ApiError> {
        self.look(method, &channel, |rules| {
            if rules.presence() {
                return Ok(());
            }
            let see = option_of(rules, "presence");
            Err(refused(method, &channel, ApiError::NotAvailable, "the channel keeps no presence", see))
        })?;
        Ok(channel.into())
    }

    fn channel_with_history(&self, method: Method, channel: String) -> Result<(ChannelName, HistoryOptions), ApiError> {
        let options = self.look(method, &channel, |rules| {
            rules.history().ok_or_else(|| {
                let see = option_of(rules, "history_size");
                refused(method, &channel, ApiError::NotAvailable, "the channel keeps no history", see)
            })
        })?;
        Ok((channel.into(), options))
    }
}

impl From<broker::ClientInfo> for ClientInfo {
    fn from(info: broker::ClientInfo) -> Self {
        let broker::ClientInfo { user, client, conn_info, chan_info } = info;
        Self { user, client, conn_info, chan_info }
    }
}

impl From<broker::Publication> for Publication {
    fn from(publication: broker::Publication) -> Self {
        let broker::Publication { data, info, tags, position, .. } = publication;
        let offset = position.map_or(0, |position| position.offset);
        Self { data, info: info.map(ClientInfo::from), offset, tags }
    }
}

/// What is looked at in the requests of all methods about maps and shared polling.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct KeyedRequest {
    pub(super) channel: String,
    pub(super) key: String,
    pub(super) version: u64,
}
