//! The HTTP face: `POST PREFIX/METHOD` with a JSON body, and the old form, `POST PREFIX` with commands that name their method.
//!
//! | request | answer |
//! |---|---|
//! | a path that is no method | 404, text |
//! | another HTTP method than POST | 405, empty |
//! | no valid key | 401, empty |
//! | a body over [`MAX_BODY_BYTES`] | 413, text |
//! | a body that cannot be read within 30 s, or breaks off | 408, 500, text |
//! | a body that is not what the method takes | 400, text |
//! | a failed operation | 200 and `{"error": {"code", "message"}}` |
//! | the same in transport error mode | the status of the error and `{"code", "message"}` |
//! | success | 200 and `{"result": ...}`; of `batch` `{"replies": [...]}` |
//!
//! They are judged in this order. The content type of the request is not looked at. Transport error mode
//! (`http_api.error_mode`, or the header `X-Centrifugo-Error-Mode: transport`) is not for `batch` and the old form.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method as HttpMethod, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use tokio::time::timeout;
use tracing::info;

use super::{
    Api, Face, Failure, Method,
    json::{BatchCommands, Called, DecodeError, OldCommand, decode, decode_next, write_error, write_reply},
    key::KeyRule,
    method::OldName,
};
use crate::{
    config::{ErrorMode, HttpApi},
    error::ApiError,
};

/// Longest request body, in bytes. The reference server has no bound; what is larger is better sent in pieces.
pub const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;

/// How long the body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(30);

const ERROR_MODE: HeaderName = HeaderName::from_static("x-centrifugo-error-mode");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const EMPTY_RESULT: &[u8] = br#"{"result":{}}"#;

/// The server API over HTTP, whatever carries it: HTTP/1.1, HTTP/2, TLS or not.
pub struct HttpFace {
    api: Arc<Api>,
    /// Without a slash at its end; empty for the root.
    prefix: Box<str>,
    key: KeyRule,
    transport_errors: bool,
}

impl HttpFace {
    /// The face as `http_api` configures it. Whether it is on at all, and on which listener, is not decided here.
    pub fn new(api: Arc<Api>, options: &HttpApi) -> Self {
        Self {
            api,
            prefix: options.handler_prefix.trim_end_matches('/').into(),
            key: KeyRule::new(options),
            transport_errors: options.error_mode == ErrorMode::Transport,
        }
    }

    /// Path that all methods are under, without a slash at its end.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether requests for this path are for this face, and not for another part of the listener.
    pub fn serves(&self, path: &str) -> bool {
        self.route(path).is_some()
    }

    /// Answers one request. Never fails, and reads no body that is refused before it is needed.
    ///
    /// Dropping the future, which is what happens when the caller hangs up, does not undo what was begun.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes>,
        B::Error: std::fmt::Display,
    {
        let path = request.uri().path();
        let Some(route) = self.route(path) else {
            info!(
                path,
                "server API request refused: the path is no method of this server; see http_api.handler_prefix"
            );
            return text(StatusCode::NOT_FOUND, "404 page not found\n");
        };
        if request.method() != HttpMethod::POST {
            info!(path, method = %request.method(), "server API request refused: the method must be POST");
            return empty(StatusCode::METHOD_NOT_ALLOWED);
        }
        if let Err(why) = self.key.check(request.headers(), request.uri().query()) {
            info!(path, "server API request refused: {why}; see http_api.key and http_api.insecure");
            return empty(StatusCode::UNAUTHORIZED);
        }
        let transport_errors = self.transport_errors
            || request.headers().get(ERROR_MODE).is_some_and(|mode| mode.as_bytes() == b"transport");
        let body = match read(pin!(request.into_body())).await {
            Ok(body) => body,
            Err(error) => return self.unread(route, error),
        };
        match route {
            Route::Method(Method::Batch) => self.batch(body).await,
            Route::Method(method) => self.method(method, body, transport_errors).await,
            Route::OldForm => Box::pin(self.old_form(body)).await,
        }
    }

    fn route(&self, path: &str) -> Option<Route> {
        let rest = path.strip_prefix(&*self.prefix)?;
        match rest.strip_prefix('/') {
            None if rest.is_empty() => Some(Route::OldForm),
            None => None,
            // At the root, the paths that nobody else serves are the old form's.
            Some("") if self.prefix.is_empty() => Some(Route::OldForm),
            Some(name) => Method::from_path(name).map(Route::Method),
        }
    }

    async fn method(&self, method: Method, body: Bytes, transport_errors: bool) -> Response<Full<Bytes>> {
        let mut out = Vec::with_capacity(128);
        out.extend_from_slice(br#"{"result":"#);
        match self.api.call(Face::Http, method, &body, &mut out).await {
            Ok(Called::Result) => {
                out.push(b'}');
                match out == EMPTY_RESULT {
                    true => json(StatusCode::OK, Bytes::from_static(EMPTY_RESULT)),
                    false => json(StatusCode::OK, out.into()),
                }
            }
            Ok(Called::Error(error)) if transport_errors => {
                out.clear();
                write_error(error, &mut out);
                let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                json(status, out.into())
            }
            Ok(Called::Error(error)) => {
                out.clear();
                out.extend_from_slice(br#"{"error":"#);
                write_error(error, &mut out);
                out.push(b'}');
                json(StatusCode::OK, out.into())
            }
            Err(error) => self.undecoded(method, &error),
        }
    }

    async fn batch(&self, body: Bytes) -> Response<Full<Bytes>> {
        let BatchCommands { commands, parallel } = match decode(&body) {
            Ok(batch) => batch,
            Err(error) => return self.undecoded(Method::Batch, &error),
        };
        let replies = Box::pin(self.api.batch(Face::Http, commands, parallel)).await;
        if replies.is_empty() {
            return json(StatusCode::OK, Bytes::from_static(b"{}"));
        }
        let mut out = Vec::with_capacity(64 * replies.len());
        out.extend_from_slice(br#"{"replies":["#);
        for (index, reply) in replies.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_reply(reply, &mut out);
        }
        out.extend_from_slice(b"]}");
        json(StatusCode::OK, out.into())
    }

    /// Carries out command after command as they are read: a malformed one spoils the answer, but not what was done before.
    async fn old_form(&self, body: Bytes) -> Response<Full<Bytes>> {
        if body.is_empty() {
            info!("server API request of the old form refused: there is no body");
            return text(StatusCode::BAD_REQUEST, "Bad Request\n");
        }
        let mut input = serde_json::Deserializer::from_slice(&body);
        let mut out = Vec::new();
        loop {
            let OldCommand { id, method, params } = match decode_next(&mut input, &body) {
                Ok(Some(command)) => command,
                Ok(None) => return json(StatusCode::OK, out.into()),
                Err(error) => {
                    info!(%error, "server API request of the old form refused: the body is not a sequence of commands");
                    return text(StatusCode::BAD_REQUEST, "Bad Request\n");
                }
            };
            if !out.is_empty() {
                out.push(b'\n');
            }
            out.push(b'{');
            if id != 0 {
                out.extend_from_slice(format!(r#""id":{id},"#).as_bytes());
            }
            let before = out.len();
            out.extend_from_slice(br#""result":"#);
            if let Err(error) = self.old_command(method, &params, &mut out).await {
                out.truncate(before);
                out.extend_from_slice(br#""error":"#);
                write_error(error, &mut out);
            }
            out.push(b'}');
        }
    }

    async fn old_command(&self, method: OldName, params: &Bytes, out: &mut Vec<u8>) -> Result<(), ApiError> {
        let OldName::Known(method) = method else {
            info!("server API command of the old form refused: the method is none of this server");
            return Err(ApiError::NotFound);
        };
        match self.api.call(Face::Http, method, params, out).await {
            Ok(Called::Result) => Ok(()),
            Ok(Called::Error(error)) => Err(error),
            Err(error) => {
                self.undecoded(method, &error);
                Err(ApiError::BadRequest)
            }
        }
    }

    fn undecoded(&self, method: Method, error: &DecodeError) -> Response<Full<Bytes>> {
        self.api.meter.failure(Face::Http, method, Failure::Unmarshal);
        info!(method = method.name(), %error, "server API request refused: it is not what the method takes");
        text(StatusCode::BAD_REQUEST, "Bad Request\n")
    }

    fn unread(&self, route: Route, error: ReadError) -> Response<Full<Bytes>> {
        if let Route::Method(method) = route {
            self.api.meter.failure(Face::Http, method, Failure::ReadBody);
        }
        match error {
            ReadError::TooLarge => {
                info!(limit_bytes = MAX_BODY_BYTES, "server API request refused: the body is larger than the limit");
                text(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "The body is larger than 32 MiB, the most that this server takes.\n",
                )
            }
            ReadError::TooSlow => {
                info!(limit_s = BODY_TIME.as_secs(), "server API request refused: its body did not arrive in time");
                text(StatusCode::REQUEST_TIMEOUT, "Request Timeout\n")
            }
            ReadError::Broken(error) => {
                info!(error, "server API request refused: its body broke off");
                text(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error\n")
            }
        }
    }
}

/// What a path stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Method(Method),
    OldForm,
}

enum ReadError {
    TooLarge,
    TooSlow,
    Broken(String),
}

async fn read<B>(mut body: Pin<&mut B>) -> Result<Bytes, ReadError>
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let is_too_large = |bytes: u64| bytes > MAX_BODY_BYTES as u64;
    if is_too_large(body.size_hint().lower()) {
        return Err(ReadError::TooLarge);
    }
    let reading = async {
        let mut whole = Bytes::new();
        // Nearly every body comes in one piece, which is then the buffer that the socket was read into.
        let mut pieces = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| ReadError::Broken(error.to_string()))?;
            let Ok(piece) = frame.into_data() else { continue };
            if is_too_large((whole.len() + pieces.len() + piece.len()) as u64) {
                return Err(ReadError::TooLarge);
            }
            if whole.is_empty() && pieces.is_empty() {
                whole = piece;
                if body.is_end_stream() {
                    break;
                }
                continue;
            }
            if pieces.is_empty() {
                pieces.extend_from_slice(&std::mem::take(&mut whole));
            }
            pieces.extend_from_slice(&piece);
        }
        Ok(if pieces.is_empty() { whole } else { pieces.freeze() })
    };
    timeout(BODY_TIME, reading).await.unwrap_or(Err(ReadError::TooSlow))
}

fn json(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    with_type(status, JSON, body)
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    with_type(status, TEXT, Bytes::from_static(body.as_bytes()))
}

fn with_type(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
