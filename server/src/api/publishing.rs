//! Publishing from a backend: to one channel, and the same data to many.

use std::{cell::OnceCell, collections::BTreeMap};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::de::IgnoredAny;
use starling_proto::api::{BroadcastRequest, BroadcastResult, Error, PublishRequest, PublishResponse, PublishResult};

use super::{Api, Method, payload, refused};
use crate::{
    broker::{Publication, PublishOptions},
    config::DataFormat,
    error::ApiError,
    names::ChannelName,
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
        let data = Data::new(payload(method, data, &b64data, "b64data")?);
        let rule = self.rule(method, &channel)?;
        if !rule.stream {
            let why = "the namespace is not for publications but for maps or polling";
            return Err(refused(method, &channel, ApiError::BadRequest, why, "subscription_type"));
        }
        data.check(method, &channel, rule.data_format)?;
        self.hand_over(channel, data.bytes, tags, idempotency_key).await
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
        let data = Data::new(payload(method, data, &b64data, "b64data")?);
        // What is checked is checked before anything is published, so that the futures below need no borrow of `data`.
        let checked: Vec<_> = channels
            .into_iter()
            .map(|channel| -> Result<_, ApiError> {
                let rule = self.rule(method, &channel)?;
                data.check(method, &channel, rule.data_format)?;
                Ok((channel, data.bytes.clone(), tags.clone(), idempotency_key.clone()))
            })
            .collect();
        let responses = stream::iter(checked)
            .map(|checked| async {
                let (channel, data, tags, idempotency_key) = checked?;
                self.hand_over(channel, data, tags, idempotency_key).await
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

/// Payload of a publish or broadcast. Whether it is JSON is found out at most once, and only if a namespace asks.
struct Data {
    bytes: Bytes,
    json: OnceCell<bool>,
}

impl Data {
    fn new(bytes: Bytes) -> Self {
        Self { bytes, json: OnceCell::new() }
    }

    fn check(&self, method: Method, channel: &str, format: Option<DataFormat>) -> Result<(), ApiError> {
        let wrong = match format {
            Some(DataFormat::Binary) => return Ok(()),
            None if !self.bytes.is_empty() => return Ok(()),
            None => "the request has no data",
            Some(DataFormat::Json) if self.is_json() => return Ok(()),
            Some(DataFormat::Json) => "the data is not JSON",
            Some(DataFormat::JsonObject) if self.is_json() && self.is_braced() => return Ok(()),
            Some(DataFormat::JsonObject) => "the data is not a JSON object",
        };
        Err(refused(method, channel, ApiError::BadRequest, wrong, "publication_data_format"))
    }

    fn is_json(&self) -> bool {
        *self.json.get_or_init(|| {
            // The parser skips over string contents without looking at their encoding.
            std::str::from_utf8(&self.bytes).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
        })
    }

    fn is_braced(&self) -> bool {
        self.bytes.trim_ascii_start().first() == Some(&b'{')
    }
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
