//! Carrying out one method whose parameters and result are JSON.

use std::future::Future;

use bytes::Bytes;

use super::{DecodeError, WriteJson, decode, decode::Message};
use crate::{
    api::{Api, Face, Method, Unsupported},
    error::ApiError,
};

/// What a method came to.
pub(in crate::api) enum Called {
    /// The result was appended to the output.
    Result,
    /// The method failed; nothing was appended.
    Error(ApiError),
    /// The parameters are right, but this version does not have the method yet; nothing was appended.
    Unsupported,
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
        // Publish is called so much more often than anything else that its future should not be as large as theirs.
        if method == Method::Publish {
            let operation = self.publish(decode(params)?);
            return Ok(self.finish(face, method, operation, out).await);
        }
        Box::pin(self.call_other(face, method, params, out)).await
    }

    async fn call_other(
        &self,
        face: Face,
        method: Method,
        params: &Bytes,
        out: &mut Vec<u8>,
    ) -> Result<Called, DecodeError> {
        Ok(match method {
            Method::Publish => self.finish(face, method, self.publish(decode(params)?), out).await,
            Method::Broadcast => self.finish(face, method, self.broadcast(decode(params)?), out).await,
            Method::Unsubscribe => self.finish(face, method, self.unsubscribe(decode(params)?), out).await,
            Method::Disconnect => self.finish(face, method, self.disconnect(decode(params)?), out).await,
            Method::Channels => self.finish(face, method, self.channels(decode(params)?), out).await,
            // The reference server's old form takes this one without parameters too.
            Method::Info if params.is_empty() => self.finish(face, method, self.info(Default::default()), out).await,
            Method::Info => self.finish(face, method, self.info(decode(params)?), out).await,
            Method::Presence => self.finish_now(face, method, Self::presence, params, out).await?,
            Method::PresenceStats => self.finish_now(face, method, Self::presence_stats, params, out).await?,
            Method::History => self.finish_now(face, method, Self::history, params, out).await?,
            Method::HistoryRemove => self.finish_now(face, method, Self::history_remove, params, out).await?,
            Method::Rpc => self.finish_now(face, method, Self::rpc, params, out).await?,
            Method::Subscribe => self.check(face, method, Self::subscribe, params).await?,
            Method::Refresh => self.check(face, method, Self::refresh, params).await?,
            Method::MapPublish
            | Method::MapRemove
            | Method::MapReadState
            | Method::MapReadStream
            | Method::MapStats
            | Method::MapClear
            | Method::SharedPollPublish => {
                let request = decode(params)?;
                let refusal = self.measured::<()>(face, method, async { Err(self.keyed(method, &request)) });
                refusal.await.map_or_else(Called::Error, |()| Called::Unsupported)
            }
            Method::Batch => Called::Error(ApiError::NotFound),
        })
    }

    async fn finish<T: WriteJson>(
        &self,
        face: Face,
        method: Method,
        operation: impl Future<Output = Result<T, ApiError>>,
        out: &mut Vec<u8>,
    ) -> Called {
        match self.measured(face, method, operation).await {
            Ok(result) => {
                result.write(out);
                Called::Result
            }
            Err(error) => Called::Error(error),
        }
    }

    /// As `finish`, for operations that have nothing to wait for.
    async fn finish_now<M: Message, T: WriteJson>(
        &self,
        face: Face,
        method: Method,
        operation: impl FnOnce(&Self, M) -> Result<T, ApiError>,
        params: &Bytes,
        out: &mut Vec<u8>,
    ) -> Result<Called, DecodeError> {
        let request = decode(params)?;
        Ok(self.finish(face, method, async { operation(self, request) }, out).await)
    }

    /// As `finish_now`, for operations that only check their parameters.
    async fn check<M: Message>(
        &self,
        face: Face,
        method: Method,
        operation: impl FnOnce(&Self, M) -> Result<Unsupported, ApiError>,
        params: &Bytes,
    ) -> Result<Called, DecodeError> {
        let request = decode(params)?;
        let checked = self.measured(face, method, async { operation(self, request) }).await;
        Ok(checked.map_or_else(Called::Error, |Unsupported| Called::Unsupported))
    }
}
