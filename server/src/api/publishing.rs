//! Publishing from a backend: to one channel, and the same data to many.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use starling_proto::api::{BroadcastRequest, BroadcastResult, Error, PublishRequest, PublishResponse, PublishResult};

use tracing::info;

use super::{Api, Method, option_of, payload, refused};
use crate::{
    broker::{Publication, PublishOptions, Version},
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
        let PublishRequest {
            channel,
            data,
            b64data,
            skip_history,
            tags,
            idempotency_key,
            delta,
            version,
            version_epoch,
        } = request;
        let wishes = Wishes { skip_history, idempotency_key, delta, version, version_epoch };
        if channel.is_empty() {
            return Err(refused(method, "", ApiError::BadRequest, "the request names no channel", "channel"));
        }
        let data = payload(method, data, &b64data, "b64data")?;
        let options = self.look(method, &channel, |rules| {
            if rules.options().subscription_type != SubscriptionType::Stream {
                let why = "the namespace is not for publications but for maps or polling";
                let see = option_of(rules, "subscription_type");
                return Err(refused(method, &channel, ApiError::BadRequest, why, see));
            }
            check(method, rules, &data)?;
            Ok(wishes.options(rules))
        })?;
        self.hand_over(channel, data, tags, options).await
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
            skip_history,
            tags,
            idempotency_key,
            delta,
            version,
            version_epoch,
        } = request;
        let wishes = &Wishes { skip_history, idempotency_key, delta, version, version_epoch };
        if channels.is_empty() {
            return Err(refused(method, "", ApiError::BadRequest, "the request names no channels", "channels"));
        }
        let data = payload(method, data, &b64data, "b64data")?;
        let responses = stream::iter(channels)
            .map(|channel| {
                let (data, tags) = (data.clone(), tags.clone());
                async move {
                    let options = self.look(method, &channel, |rules| {
                        check(method, rules, &data)?;
                        Ok(wishes.options(rules))
                    })?;
                    self.hand_over(channel, data, tags, options).await
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
        options: PublishOptions,
    ) -> Result<PublishResult, ApiError> {
        let channel = ChannelName::from(channel);
        let publication = Publication { data, tags, ..Publication::default() };
        let published = self.node.publish(&channel, publication, options).await?;
        Ok(published.position.map_or_else(PublishResult::default, |position| PublishResult {
            offset: position.offset,
            epoch: position.epoch.to_string(),
        }))
    }
}

/// What a request asks of the broker, as it stands in the request.
struct Wishes {
    skip_history: bool,
    idempotency_key: String,
    delta: bool,
    version: u64,
    version_epoch: String,
}

impl Wishes {
    /// The same, in a channel with these rules. What only has a meaning with history is passed on without it, too; the
    /// broker passes over it.
    fn options(&self, rules: Rules<'_>) -> PublishOptions {
        PublishOptions {
            history: if self.skip_history { None } else { rules.history() },
            idempotency_key: (!self.idempotency_key.is_empty()).then(|| self.idempotency_key.clone()),
            delta: self.delta || rules.options().delta_publish,
            version: (self.version > 0).then(|| Version { number: self.version, epoch: self.version_epoch.clone() }),
        }
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
