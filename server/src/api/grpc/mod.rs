//! The gRPC face: service `centrifugal.centrifugo.api.CentrifugoApi`.
//!
//! All its methods are unary, and there is no need for more of gRPC than that: `unary.rs` speaks it over the HTTP/2 server of
//! hyper, and `connection.rs` runs a connection with its calls. With 16 calls at a time on a connection a publish costs 6 to
//! 7 microseconds so, against 8 to 12 through tonic's server, whose types serve the general case; with one call at a time
//! the kernel's part is so large that it makes no difference (`tests/speed.rs`). It also makes the statuses exactly those
//! that clients of the reference server know. Status codes and the encoding of a status are tonic's.
//!
//! | call | answer |
//! |---|---|
//! | without `authorization: apikey KEY`, if `grpc_api.key` is set | status Unauthenticated |
//! | a method that is none of this server | status Unimplemented |
//! | a message over `grpc_api.max_receive_message_size` (4 MiB) | status ResourceExhausted |
//! | a failed operation | status OK, and the error in the response |
//! | the same in transport error mode | the status of the error, with the error as its detail |
//!
//! Transport error mode (`grpc_api.error_mode`, or the metadata `x-centrifugo-error-mode: transport`) is not for `Batch`.

mod connection;
mod unary;

use std::{
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderName, Request, Response, header::AUTHORIZATION, request::Parts};
use hyper::{
    body::Body,
    rt::{Read, Write},
    service::service_fn,
};
use prost::Message;
use starling_proto::api::{self as proto, BatchRequest, BatchResponse};
use tokio::time::timeout;
use tonic::Status;
use tracing::info;

use self::{
    connection::OwnTasks,
    unary::{UnaryBody, decode},
};
use super::{Api, Face, Method, key::is_same_secret};
use crate::{
    config::{ErrorMode, GrpcApi},
    error::ApiError,
};

/// Largest message that is taken when `grpc_api.max_receive_message_size` does not say, in bytes.
const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// Fields of every response but that of `Batch`.
const ERROR_FIELD: u32 = 1;
const RESULT_FIELD: u32 = 2;

const SERVICE: &str = "/centrifugal.centrifugo.api.CentrifugoApi/";
const ERROR_MODE: HeaderName = HeaderName::from_static("x-centrifugo-error-mode");

/// The server API over gRPC.
pub struct GrpcFace {
    api: Arc<Api>,
    /// What `authorization` must be; `None`: anything, or nothing.
    authorization: Option<Box<[u8]>>,
    transport_errors: bool,
    max_message_bytes: usize,
}

impl GrpcFace {
    /// The face as `grpc_api` configures it. Whether it is on at all, and where it listens, is not decided here.
    pub fn new(api: Arc<Api>, options: &GrpcApi) -> Self {
        let key = options.key.as_ref().filter(|key| !key.is_empty());
        Self {
            api,
            authorization: key.map(|key| format!("apikey {}", key.expose()).into_bytes().into()),
            transport_errors: options.error_mode == ErrorMode::Transport,
            max_message_bytes: options.max_receive_message_size.unwrap_or(MAX_MESSAGE_BYTES),
        }
    }

    /// Serves one connection until it ends, or until `drain` is ready and the calls that were under way are answered.
    ///
    /// Dropping the future cuts the connection; what calls have begun is not undone.
    ///
    /// # Errors
    ///
    /// The peer broke HTTP/2, or the connection was lost.
    pub async fn serve<I>(self: Arc<Self>, io: I, drain: impl Future<Output = ()>) -> Result<(), hyper::Error>
    where
        I: Read + Write + Unpin + 'static,
    {
        let service = service_fn(move |request| {
            let face = Arc::clone(&self);
            async move { Ok::<_, Infallible>(face.handle(request).await) }
        });
        let tasks = OwnTasks::default();
        let serving = async {
            let mut connection = pin!(connection::settings(tasks.clone()).serve_connection(io, service));
            let mut drain = pin!(drain);
            tokio::select! {
                ended = connection.as_mut() => return ended,
                () = drain.as_mut() => connection.as_mut().graceful_shutdown(),
            }
            connection.await
        };
        connection::drive(serving, &tasks).await
    }

    /// Answers one call. Never fails: what goes wrong is a status.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<UnaryBody>
    where
        B: Body<Data = Bytes>,
        B::Error: std::fmt::Display,
    {
        let (head, body) = request.into_parts();
        let body = pin!(body);
        let answered = match unary::deadline(&head.headers) {
            None => self.answer(&head, body).await,
            Some(time) => match timeout(time, Box::pin(self.answer(&head, body))).await {
                Ok(answered) => answered,
                Err(_) => Err(Status::deadline_exceeded("the call was not answered in time")),
            },
        };
        answered.unwrap_or_else(Status::into_http)
    }

    async fn answer<B>(&self, head: &Parts, body: Pin<&mut B>) -> Result<Response<UnaryBody>, Status>
    where
        B: Body<Data = Bytes>,
        B::Error: std::fmt::Display,
    {
        let path = head.uri.path();
        let Some(name) = path.strip_prefix(SERVICE) else {
            info!(path, "gRPC API call refused: there is only the service centrifugal.centrifugo.api.CentrifugoApi");
            return Err(Status::unimplemented("unknown service"));
        };
        let Some(method) = Method::from_rpc(name) else {
            info!(method = name, "gRPC API call refused: this server has no such method");
            return Err(unimplemented(name));
        };
        if let Some(right) = &self.authorization {
            let given = head.headers.get(AUTHORIZATION).map(|value| value.as_bytes());
            if !given.is_some_and(|given| is_same_secret(given, right)) {
                info!(path, "gRPC API call refused: its authorization is not \"apikey KEY\"; see grpc_api.key");
                return Err(Status::unauthenticated("unauthenticated"));
            }
        }
        let transport_errors =
            self.transport_errors || head.headers.get(ERROR_MODE).is_some_and(|mode| mode.as_bytes() == b"transport");
        let message = unary::read(&head.headers, body, self.max_message_bytes).await?;
        let call = Call { api: &self.api, method, name, started: Instant::now(), transport_errors };
        // Publish is called so much more often than anything else that its future should not be as large as theirs.
        match method {
            Method::Publish => call.finish(self.api.publish(decode(message)?).await),
            _ => Box::pin(call.answer(message)).await,
        }
    }
}

/// One call that was read and may be answered.
struct Call<'a> {
    api: &'a Api,
    method: Method,
    /// Name of the method in the service.
    name: &'a str,
    started: Instant,
    transport_errors: bool,
}

impl Call<'_> {
    async fn answer(&self, message: Bytes) -> Result<Response<UnaryBody>, Status> {
        let api = self.api;
        match self.method {
            Method::Batch => self.batch(decode(message)?).await,
            Method::Publish => self.finish(api.publish(decode(message)?).await),
            Method::Broadcast => self.finish(api.broadcast(decode(message)?).await),
            Method::Unsubscribe => self.finish(api.unsubscribe(decode(message)?).await),
            Method::Disconnect => self.finish(api.disconnect(decode(message)?).await),
            Method::Channels => self.finish(api.channels(decode(message)?).await),
            Method::Info => self.finish(api.info(decode(message)?).await),
            Method::Presence => self.finish(api.presence(decode(message)?).await),
            Method::PresenceStats => self.finish(api.presence_stats(decode(message)?).await),
            Method::History => self.finish(api.history(decode(message)?).await),
            Method::HistoryRemove => self.finish(api.history_remove(decode(message)?).await),
            Method::Rpc => self.finish(api.rpc(decode(message)?)),
            Method::Subscribe => self.finish(api.subscribe(decode(message)?).await),
            Method::Refresh => self.finish(api.refresh(decode(message)?).await),
            Method::MapPublish
            | Method::MapRemove
            | Method::MapReadState
            | Method::MapReadStream
            | Method::MapStats
            | Method::MapClear
            | Method::SharedPollPublish => Err(unimplemented(self.name)),
        }
    }

    async fn batch(&self, request: BatchRequest) -> Result<Response<UnaryBody>, Status> {
        let commands = request.commands.into_iter().map(Some).collect();
        let replies = self.api.batch(Face::Grpc, commands, request.parallel).await;
        Ok(unary::response(&BatchResponse { replies }))
    }

    fn finish<T: Message>(&self, result: Result<T, ApiError>) -> Result<Response<UnaryBody>, Status> {
        match self.api.counted(Face::Grpc, self.method, self.started, result) {
            Ok(result) => Ok(unary::response_with(RESULT_FIELD, &result)),
            Err(error) => self.failed(error),
        }
    }

    fn failed(&self, error: ApiError) -> Result<Response<UnaryBody>, Status> {
        let message = proto::Error::from(error);
        match self.transport_errors {
            true => Err(unary::status(error.grpc_code(), &message)),
            false => Ok(unary::response_with(ERROR_FIELD, &message)),
        }
    }
}

fn unimplemented(name: &str) -> Status {
    Status::unimplemented(format!("method {name} not implemented"))
}
