//! Carrying out one method whose parameters and result are JSON.

use std::time::Instant;

use bytes::Bytes;
use starling_proto::api::InfoRequest;

use super::{DecodeError, WriteJson, decode};
use crate::{
    api::{Api, Face, Method},
    error::ApiError,
};

/// What a method came to.
pub(in crate::api) enum Called {
    /// The result was appended to the output.
    Result,
    /// The method failed; nothing was appended.
    Error(ApiError),
}

impl Api {
    /// Carries out `method`, which is not `batch`, and appends the JSON of its result to `out`.
    ///
    /// # Errors
    ///
    /// Those of decoding `params`; nothing was done and nothing appended.
    pub(in crate::api) async fn call(
        &self,
        face: Face,
        method: Method,
        params: &Bytes,
        out: &mut Vec<u8>,
    ) -> Result<Called, DecodeError> {
        let started = Instant::now();
        let finish = Finish { api: self, face, method, started, out };
        // Publish is called so much more often than anything else that its future should not be as large as theirs.
        match method {
            Method::Publish => Ok(finish.with(self.publish(decode(params)?).await)),
            _ => Box::pin(self.call_other(method, params, finish)).await,
        }
    }

    async fn call_other(&self, method: Method, params: &Bytes, finish: Finish<'_>) -> Result<Called, DecodeError> {
        Ok(match method {
            Method::Publish => finish.with(self.publish(decode(params)?).await),
            Method::Broadcast => finish.with(self.broadcast(decode(params)?).await),
            Method::Unsubscribe => finish.with(self.unsubscribe(decode(params)?).await),
            Method::Disconnect => finish.with(self.disconnect(decode(params)?).await),
            Method::Channels => finish.with(self.channels(decode(params)?).await),
            // The reference server's old form takes this one without parameters too.
            Method::Info if params.is_empty() => finish.with(self.info(InfoRequest {}).await),
            Method::Info => finish.with(self.info(decode(params)?).await),
            Method::Presence => finish.with(self.presence(decode(params)?).await),
            Method::PresenceStats => finish.with(self.presence_stats(decode(params)?).await),
            Method::History => finish.with(self.history(decode(params)?).await),
            Method::HistoryRemove => finish.with(self.history_remove(decode(params)?).await),
            Method::Rpc => finish.with(self.rpc(decode(params)?)),
            Method::Subscribe => finish.with(self.subscribe(decode(params)?).await),
            Method::Refresh => finish.with(self.refresh(decode(params)?).await),
            Method::MapPublish
            | Method::MapRemove
            | Method::MapReadState
            | Method::MapReadStream
            | Method::MapStats
            | Method::MapClear
            | Method::SharedPollPublish => finish.with(self.keyed(method, &decode(params)?)),
            Method::Batch => Called::Error(ApiError::NotFound),
        })
    }
}

/// What is left to do when an operation is over: count it, and write its result down.
struct Finish<'a> {
    api: &'a Api,
    face: Face,
    method: Method,
    started: Instant,
    out: &'a mut Vec<u8>,
}

impl Finish<'_> {
    fn with<T: WriteJson>(self, result: Result<T, ApiError>) -> Called {
        let Self { api, face, method, started, out } = self;
        match api.counted(face, method, started, result) {
            Ok(result) => {
                result.write(out);
                Called::Result
            }
            Err(error) => Called::Error(error),
        }
    }
}
