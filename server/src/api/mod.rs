//! The server API: what backends ask of the server.
//!
//! One set of operations, several faces. An operation is a method of [`Api`]: the request message in, the result message or
//! an [`ApiError`] out, the Protobuf types of `starling_proto::api` for all of them. The faces translate and do nothing
//! else: [`http`] has a path per method and the old single path, [`grpc`] has the gRPC service. Both count what they
//! carry out through a [`Meter`].
//!
//! | file | operations |
//! |---|---|
//! | `publishing.rs` | publish, broadcast |
//! | `users.rs` | subscribe, unsubscribe, disconnect, refresh |
//! | `channel_state.rs` | presence, presence_stats, history, history_remove; refusals of maps and shared polling |
//! | `cluster.rs` | channels, info, rpc |
//! | `batch.rs` | several commands in one call |
//!
//! A refusal is logged once, at info level, with the rule that was broken and the option that would change the outcome:
//! the reader is the backend developer whose call failed.

mod batch;
mod channel_state;
mod cluster;
pub mod grpc;
pub mod http;
mod json;
mod key;
mod method;
mod publishing;
mod users;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use tracing::info;

use crate::{
    broker::BrokerError,
    error::ApiError,
    namespace::{Namespaces, OptionPath, Rules},
    node::Node,
};

pub use method::Method;

/// The operations of the server API, for all faces.
///
/// All methods may be called from any runtime thread. Dropping the future of a call that was begun does not undo it.
pub struct Api {
    node: Arc<Node>,
    namespaces: Arc<ArcSwap<Namespaces>>,
    meter: Arc<dyn Meter>,
}

impl Api {
    /// The operations on `node`, under the rules that `namespaces` holds at the time of each call, counted by `meter`.
    pub fn new(node: Arc<Node>, namespaces: Arc<ArcSwap<Namespaces>>, meter: Arc<dyn Meter>) -> Self {
        Self { node, namespaces, meter }
    }

    /// Has a command counted that was begun at `started` and came to `result`; passes the result on.
    ///
    /// Not a wrapper around the operation's future: each layer of futures makes the outermost larger by a copy of the inner.
    fn counted<T>(
        &self,
        face: Face,
        method: Method,
        started: Instant,
        result: Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        self.meter.command(face, method, started.elapsed());
        if let Err(error) = result {
            self.meter.failure(face, method, Failure::Api(error));
        }
        result
    }

    /// Looks at the rules of a channel that the request must name.
    ///
    /// Errors are those of `look`, and 107 for no channel, 102 for one whose namespace is not defined.
    fn look<T>(
        &self,
        method: Method,
        channel: &str,
        look: impl FnOnce(Rules<'_>) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        if channel.is_empty() {
            return Err(refused(method, channel, ApiError::BadRequest, "the request names no channel", "channel"));
        }
        match self.namespaces.load().resolve(channel) {
            Some(rules) => look(rules),
            None => {
                let why = "the channel's namespace is not defined";
                Err(refused(method, channel, ApiError::UnknownChannel, why, "channel.namespaces"))
            }
        }
    }
}

/// Where a command came from, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Face {
    /// The HTTP API.
    Http,
    /// The gRPC API.
    Grpc,
}

impl Face {
    /// Label `protocol` of the API metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }
}

/// Counts what the faces carry out. Called for each command, those inside a batch too; must be cheap and must not block.
///
/// `centrifugo_api_command_duration_seconds_histogram{protocol, method}` is fed by [`Meter::command`],
/// `centrifugo_api_command_errors_total{protocol, method, error}` by [`Meter::failure`].
pub trait Meter: Send + Sync {
    /// A command was carried out, successfully or not.
    fn command(&self, face: Face, method: Method, took: Duration);

    /// A command failed, or was never understood.
    fn failure(&self, face: Face, method: Method, failure: Failure);
}

/// How a command failed, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The operation answered this error.
    Api(ApiError),
    /// The body could not be read.
    ReadBody,
    /// The body is not what the method takes.
    Unmarshal,
}

impl Failure {
    /// Label `error` of the metric: the error's code, or a word.
    pub fn label(self) -> &'static str {
        match self {
            Self::Api(ApiError::Internal) => "100",
            Self::Api(ApiError::UnknownChannel) => "102",
            Self::Api(ApiError::NotFound) => "104",
            Self::Api(ApiError::BadRequest) => "107",
            Self::Api(ApiError::NotAvailable) => "108",
            Self::Api(ApiError::Overloaded) => "111",
            Self::Api(ApiError::UnrecoverablePosition) => "112",
            Self::ReadBody => "read_body",
            Self::Unmarshal => "unmarshal",
        }
    }
}

impl From<BrokerError> for ApiError {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Unavailable => Self::Internal,
            BrokerError::Overloaded => Self::Overloaded,
        }
    }
}

/// Logs why a request was refused, and passes the error on. `see` is the option or the request's member to look at.
fn refused(method: Method, channel: &str, error: ApiError, why: &'static str, see: impl fmt::Display) -> ApiError {
    info!(method = method.name(), channel, code = error.code(), "server API request refused: {why}; see {see}");
    error
}

/// Where an option of the channel's namespace stands in the configuration.
fn option_of<'a>(rules: Rules<'a>, option: &'static str) -> OptionPath<'a> {
    match rules.namespace() {
        Some(name) => OptionPath::Namespace { name, option },
        None => OptionPath::WithoutNamespace(option),
    }
}

/// The bytes of a payload given twice: a non-empty base64 text wins over the plain field.
///
/// Standard alphabet with padding; line breaks are skipped, as other implementations of the API do.
fn payload(method: Method, plain: Bytes, base64: &str, member: &'static str) -> Result<Bytes, ApiError> {
    if base64.is_empty() {
        return Ok(plain);
    }
    let decoded = match base64.bytes().any(|byte| matches!(byte, b'\r' | b'\n')) {
        false => BASE64_STANDARD.decode(base64),
        true => BASE64_STANDARD.decode(base64.replace(['\r', '\n'], "")),
    };
    match decoded {
        Ok(bytes) => Ok(bytes.into()),
        Err(_) => Err(refused(method, "", ApiError::BadRequest, "the text is not standard base64", member)),
    }
}
