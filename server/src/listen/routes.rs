//! Which endpoint a path names, and the small pages: root, health, readiness, metrics, init.
//!
//! The external listener carries what clients need, the internal one what backends and operators need; without an internal
//! port of its own one listener carries both.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, uri::Authority};
use http_body_util::Full;
use hyper::body::Incoming;

use super::upgrade::{Admission, Socket, WebSocketEndpoint};
use crate::{api::http::HttpFace, broker::Broker, metrics::Metrics};

/// What clients are served.
pub struct External {
    /// Path of the WebSocket endpoint, unless it is off.
    pub websocket: Option<(String, WebSocketEndpoint)>,
    /// Path of the init endpoint, when it is on.
    pub init: Option<(String, Arc<Admission>)>,
}

/// What backends and operators are served.
pub struct Internal {
    /// The server API, unless it is off.
    pub api: Option<HttpFace>,
    /// Path of the liveness check, when it is on; readiness is below it.
    pub health: Option<(String, Health)>,
    /// Path of the Prometheus endpoint, when it is on.
    pub metrics: Option<(String, Arc<Metrics>)>,
}

/// What health is asked of.
pub struct Health {
    /// The one dependency there is.
    pub broker: Arc<dyn Broker>,
    /// Name of the broker for people.
    pub broker_name: &'static str,
}

/// What one listener serves. The parts are looked at in the order in which they stand here.
#[derive(Default)]
pub struct Routes {
    /// The demo page of `starling dev`, which stands in for the root page.
    pub demo: Option<Bytes>,
    /// Clients' endpoints.
    pub external: Option<External>,
    /// Backends' and operators' endpoints.
    pub internal: Option<Internal>,
    /// Version of the server, for the root page.
    pub version: &'static str,
}

impl Routes {
    /// Answers one request. `S` is the type of socket that the HTTP library holds.
    pub async fn serve<S: Socket>(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
        let path = request.uri().path().trim_end_matches('/');
        if let Some(external) = &self.external {
            if let Some((prefix, endpoint)) = &external.websocket
                && path == prefix.trim_end_matches('/')
            {
                return endpoint.upgrade::<S>(request, peer);
            }
            if let Some((prefix, admission)) = &external.init
                && path == prefix.trim_end_matches('/')
            {
                return init(&request, admission);
            }
        }
        if let Some(internal) = &self.internal {
            if let Some((prefix, health)) = &internal.health {
                let prefix = prefix.trim_end_matches('/');
                if path == prefix {
                    return json(StatusCode::OK, "{}".into());
                }
                if path.strip_prefix(prefix) == Some("/ready") {
                    return ready(health);
                }
            }
            if let Some((prefix, metrics)) = &internal.metrics
                && path == prefix.trim_end_matches('/')
            {
                return page("text/plain; version=0.0.4; charset=utf-8", metrics.encode().into());
            }
            if let Some(api) = internal.api.as_ref().filter(|api| api.serves(request.uri().path())) {
                return api.handle(request).await;
            }
        }
        if path.is_empty() && request.method() == Method::GET {
            return match &self.demo {
                Some(demo) if asks_this_machine(&request) => page("text/html; charset=utf-8", demo.clone()),
                Some(_) | None => page("text/plain; charset=utf-8", self.root_page().into()),
            };
        }
        not_found()
    }

    /// For whoever opens the server in a browser: it runs, and where to go from here.
    fn root_page(&self) -> String {
        let mut text = format!("Starling {} is running.\n\nEndpoints here:\n", self.version);
        if let Some(external) = &self.external {
            if let Some((prefix, _)) = &external.websocket {
                text += &format!("  {prefix}  WebSocket, for the centrifuge client libraries\n");
            }
            if let Some((prefix, _)) = &external.init {
                text += &format!("  {prefix}  GET, a check before connecting\n");
            }
        }
        if let Some(internal) = &self.internal {
            if let Some(api) = &internal.api {
                text += &format!("  {}/publish and others  POST with a key, the server API\n", api.prefix());
            }
            if let Some((prefix, _)) = &internal.health {
                text += &format!("  {prefix}  alive; {prefix}/ready  ready, with the state of what the server needs\n");
            }
            if let Some((prefix, _)) = &internal.metrics {
                text += &format!("  {prefix}  Prometheus metrics\n");
            }
        }
        text + "\nNext: connect a client (new Centrifuge('ws://...') from npm's centrifuge), or publish with\n`starling publish`. \
                `starling config explain` shows which options are in force and where they come from.\n"
    }
}

/// Whether a request names this machine as its host. The demo page holds the keys of its run: a page elsewhere, under a name
/// that leads here by a trick of DNS, must not be able to read it.
fn asks_this_machine(request: &Request<Incoming>) -> bool {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = host.and_then(|host| host.parse::<Authority>().ok()).or(request.uri().authority().cloned());
    authority.is_some_and(|authority| {
        let host = authority.host().trim_matches(['[', ']']);
        host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    })
}

/// Client protocol: GET only, an empty object, with CORS for allowed origins.
fn init(request: &Request<Incoming>, admission: &Admission) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return empty(StatusCode::METHOD_NOT_ALLOWED);
    }
    let mut response = json(StatusCode::OK, "{}".into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    if let Some(origin) = request.headers().get(header::ORIGIN)
        && origin.to_str().is_ok_and(|origin| admission.allows_origin(&origin.to_ascii_lowercase()))
    {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    response
}

/// Readiness: 200 when everything that the server needs can be reached, else 503; the body says which.
fn ready(health: &Health) -> Response<Full<Bytes>> {
    let (status, state) = match health.broker.status() {
        Ok(()) => (StatusCode::OK, "ok".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    };
    json(status, serde_json::json!({ "ready": status == StatusCode::OK, health.broker_name: state }).to_string())
}

fn json(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = page("application/json", body.into());
    *response.status_mut() = status;
    response
}

fn page(content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// The text that the reference answers.
fn not_found() -> Response<Full<Bytes>> {
    let mut response = page("text/plain; charset=utf-8", Bytes::from_static(b"404 page not found\n"));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}
