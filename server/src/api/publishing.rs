//! Publishing from a backend: to one channel, and the same data to many.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use starling_proto::api::{BroadcastRequest, BroadcastResult, Error, PublishRequest, PublishResponse, PublishResult};

use tracing::info;

use super::{Api, Method, option_of, payload, refused};
use crate::{
    broker::{Publication, PublishOptions},
    config::SubscriptionType,
    error::ApiError,
    names::ChannelName,
    namespace::Rules,
};

/// Publications of one broadcast that are under way at the same time.
const BROADCAST_CONCURRENCY: usize = 1024;

impl Api {
    /// Publishes to one channel. The result has a position only if the channel keeps history.
    ///
    /// # Errors
    ///
    /// 107: no channel, bad base64, data that the namespace does not take, or a namespace that is not for streams.
    /// 102: unknown namespace. 100 and 111: the broker is away or behind; publish again with the same idempotency key.
    pub async fn publish(&self, request: PublishRequest) -> Result<PublishResult, ApiError> {
        let method = Method::Publish;
        // History comes with its own options; without it there is nothing to skip, to compare versions with, or to send
        // differences of.
        let PublishRequest {
            channel,
            data,
            b64data,
            skip_history: _,
            tags,
            idempotency_key,
            delta: _,
            version: _,
            version_epoch: _,
        } = request;
        if channel.is_empty() {
            return Err(refused(method, "", ApiError::BadRequest, "the request names no channel", "channel"));
        }
        let data = payload(method, data, &b64data, "b64data")?;
        self.look(method, &channel, |rules| {
            if rules.options().subscription_type != SubscriptionType::Stream {
                let why = "the namespace is not for publications but for maps or polling";
                let see = option_of(rules, "subscription_type");
                return Err(refused(method, &channel, ApiError::BadRequest, why, see));
            }
            check(method, rules, &data)
        })?;
        self.hand_over(channel, data, tags, idempotency_key).await
    }

    /// Publishes the same data to many channels, up to 1024 at a time; the responses are in the order of the channels.
    ///
    /// # Errors
    ///
    /// 107: no channels, or bad base64. What is wrong with one channel is told in its response, and the others go on.
    pub async fn broadcast(&self, request: BroadcastRequest) -> Result<BroadcastResult, ApiError> {
        let method = Method::Broadcast;
        let BroadcastRequest {
            channels,
            data,
            b64data,
            skip_history: _,
            tags,
            idempotency_key,
            delta: _,
            version: _,
            version_epoch: _,
        } = request;
        if channels.is_empty() {
            return Err(refused(method, "", ApiError::BadRequest, "the request names no channels", "channels"));
        }
        let data = payload(method, data, &b64data, "b64data")?;
        let responses = stream::iter(channels)
            .map(|channel| {
                let (data, tags, idempotency_key) = (data.clone(), tags.clone(), idempotency_key.clone());
                async move {
                    self.look(method, &channel, |rules| check(method, rules, &data))?;
                    self.hand_over(channel, data, tags, idempotency_key).await
                }
            })
            .buffered(BROADCAST_CONCURRENCY)
            .map(response)
            .collect()
            .await;
        Ok(BroadcastResult { responses })
    }

    async fn hand_over(
        &self,
        channel: String,
        data: Bytes,
        tags: BTreeMap<String, String>,
        idempotency_key: String,
    ) -> Result<PublishResult, ApiError> {
        let channel = ChannelName::from(channel);
        let publication = Publication { data, tags, ..Publication::default() };
        let options = PublishOptions { idempotency_key: (!idempotency_key.is_empty()).then_some(idempotency_key) };
        let position = self.node.publish(&channel, publication, options).await?;
        Ok(position.map_or_else(PublishResult::default, |position| PublishResult {
            offset: position.offset,
            epoch: position.epoch.to_string(),
        }))
    }
}

fn check(method: Method, rules: Rules<'_>, data: &[u8]) -> Result<(), ApiError> {
    rules.check_data(data).map_err(|refusal| {
        let error = ApiError::BadRequest;
        info!(method = method.name(), code = error.code(), "server API request {refusal}");
        error
    })
}

fn response(result: Result<PublishResult, ApiError>) -> PublishResponse {
    match result {
        Ok(result) => PublishResponse { error: None, result: Some(result) },
        Err(error) => PublishResponse { error: Some(error.into()), result: None },
    }
}

impl From<ApiError> for Error {
    fn from(error: ApiError) -> Self {
        Self { code: error.code(), message: error.message().to_owned() }
    }
}
