//! The opening handshake of a WebSocket connection, RFC 6455 section 4.2, and what it decides for the connection.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{
        CONNECTION, CONTENT_TYPE, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE, X_CONTENT_TYPE_OPTIONS,
    },
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::deflate::{self, Params};
use crate::session::protocol::Protocol;

/// An accepted handshake.
#[derive(Debug)]
pub struct Upgrade {
    /// Switches protocols.
    pub response: Response<()>,
    /// Encoding of the connection.
    pub protocol: Protocol,
    /// The client asked for WebSocket pings instead of those of the client protocol.
    pub frame_pings: bool,
    /// Messages may be compressed.
    pub deflate: Option<Params>,
}

/// Why a handshake is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Only GET can be upgraded.
    Method,
    /// Not a WebSocket handshake; says why, for the log.
    Malformed(&'static str),
    /// The page's origin is not allowed.
    Origin,
}

impl Refusal {
    /// Status of the response.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Origin => StatusCode::FORBIDDEN,
        }
    }

    /// The response: the status text and a newline, like the reference server.
    pub fn response(self) -> Response<String> {
        let status = self.status();
        let mut response = Response::new(format!("{}\n", status.canonical_reason().unwrap_or_default()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        response
    }
}

/// Decides about a request to the WebSocket endpoint.
///
/// `compression` says whether permessage-deflate may be agreed upon. `origin_allowed` is asked with the origin in lower
/// case, if the request has one: only pages in browsers have. It is asked last.
///
/// Client protocol: Protobuf is chosen by the subprotocol `centrifuge-protobuf` or by the query `cf_protocol=protobuf`
/// or `format=protobuf`, JSON otherwise; of several known subprotocols the client's first is answered, an unknown one is
/// not answered and no failure.
pub fn upgrade<B>(
    request: &Request<B>,
    compression: bool,
    origin_allowed: impl FnOnce(&str) -> bool,
) -> Result<Upgrade, Refusal> {
    let headers = request.headers();
    if !has_token(headers, CONNECTION, "upgrade") {
        return Err(Refusal::Malformed("no upgrade in the Connection header"));
    }
    if !has_token(headers, UPGRADE, "websocket") {
        return Err(Refusal::Malformed("no websocket in the Upgrade header"));
    }
    if request.method() != Method::GET {
        return Err(Refusal::Method);
    }
    if request.version() < Version::HTTP_11 {
        return Err(Refusal::Malformed("HTTP before 1.1"));
    }
    if !has_token(headers, SEC_WEBSOCKET_VERSION, "13") {
        return Err(Refusal::Malformed("WebSocket version is not 13"));
    }
    let key = headers
        .get(SEC_WEBSOCKET_KEY)
        .filter(|key| BASE64.decode(key).is_ok_and(|bytes| bytes.len() == 16))
        .ok_or(Refusal::Malformed("no valid Sec-WebSocket-Key"))?;
    if let Some(origin) = headers.get(ORIGIN).filter(|origin| !origin.is_empty())
        && !origin.to_str().is_ok_and(|origin| origin_allowed(&origin.to_ascii_lowercase()))
    {
        return Err(Refusal::Origin);
    }

    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(SEC_WEBSOCKET_ACCEPT, ascii(&derive_accept_key(key.as_bytes())));

    let subprotocol = subprotocol(headers);
    if let Some((name, _)) = subprotocol {
        answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    }
    let deflate = if compression { deflate::negotiate(headers) } else { None };
    if let Some(params) = deflate {
        answer.insert(SEC_WEBSOCKET_EXTENSIONS, ascii(&params.to_string()));
    }

    let query = |wanted: &str| request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == wanted));
    let protobuf = subprotocol.is_some_and(|(_, protocol)| protocol == Protocol::Protobuf)
        || query("cf_protocol=protobuf")
        || query("format=protobuf");
    Ok(Upgrade {
        response,
        protocol: if protobuf { Protocol::Protobuf } else { Protocol::Json },
        frame_pings: query("cf_ws_frame_ping_pong=true"),
        deflate,
    })
}

fn subprotocol(headers: &HeaderMap) -> Option<(&'static str, Protocol)> {
    tokens(headers, SEC_WEBSOCKET_PROTOCOL).find_map(|name| match name {
        "centrifuge-json" => Some(("centrifuge-json", Protocol::Json)),
        "centrifuge-protobuf" => Some(("centrifuge-protobuf", Protocol::Protobuf)),
        _ => None,
    })
}

/// Whether a header that is a list, over several lines perhaps, has an element, in any letter case.
fn has_token(headers: &HeaderMap, name: HeaderName, wanted: &str) -> bool {
    tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted))
}

fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn ascii(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("base64 and the names of parameters are visible ASCII")
}

#[cfg(test)]
mod tests {
    use http::request::Builder;

    use super::*;

    /// The handshake of RFC 6455 section 1.3.
    fn handshake(uri: &str) -> Builder {
        Request::get(uri)
            .header("host", "server.example.com")
            .header("upgrade", "websocket")
            .header("connection", "Upgrade")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-version", "13")
    }

    fn plain() -> Request<()> {
        handshake("/connection/websocket").body(()).unwrap()
    }

    fn without_origin(request: &Request<()>) -> Result<Upgrade, Refusal> {
        upgrade(request, false, |_| unreachable!("no origin was given"))
    }

    fn accepted(builder: Builder) -> Upgrade {
        upgrade(&builder.body(()).unwrap(), true, |_| true).unwrap()
    }

    #[test]
    fn a_handshake_is_answered_with_the_key_of_the_standard() {
        let upgrade = without_origin(&plain()).unwrap();
        assert_eq!(upgrade.response.status(), 101);
        let mut headers: Vec<_> =
            upgrade.response.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        headers.sort();
        assert_eq!(
            headers,
            [
                ("connection", "Upgrade"),
                ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
                ("upgrade", "websocket")
            ]
        );
        assert_eq!((upgrade.protocol, upgrade.frame_pings, upgrade.deflate), (Protocol::Json, false, None));
    }

    #[test]
    fn header_lists_may_hold_more_than_what_is_needed() {
        let mut request = plain();
        request.headers_mut().insert("upgrade", HeaderValue::from_static("h2c, WebSocket"));
        request.headers_mut().insert("connection", HeaderValue::from_static("keep-alive"));
        request.headers_mut().append("connection", HeaderValue::from_static("te,upgrade"));
        request.headers_mut().insert("sec-websocket-version", HeaderValue::from_static("13, 8"));
        assert!(without_origin(&request).is_ok());
    }

    #[test]
    fn what_is_no_handshake_is_refused_with_the_status_text() {
        let refused = |change: fn(&mut Request<()>)| {
            let mut request = plain();
            change(&mut request);
            let response = without_origin(&request).unwrap_err().response();
            assert_eq!(response.headers()["sec-websocket-version"], "13");
            (response.status().as_u16(), response.into_body())
        };
        let bad_request = (400, "Bad Request\n".to_owned());
        assert_eq!(refused(|request| drop(request.headers_mut().remove("upgrade"))), bad_request);
        assert_eq!(refused(|request| drop(request.headers_mut().remove("connection"))), bad_request);
        assert_eq!(refused(|request| drop(request.headers_mut().remove("sec-websocket-key"))), bad_request);
        assert_eq!(refused(|request| drop(request.headers_mut().remove("sec-websocket-version"))), bad_request);
        assert_eq!(
            refused(|request| drop(
                request.headers_mut().insert("sec-websocket-version", HeaderValue::from_static("8"))
            )),
            bad_request
        );
        assert_eq!(
            refused(|request| drop(request.headers_mut().insert("sec-websocket-key", HeaderValue::from_static("abc")))),
            bad_request
        );
        assert_eq!(refused(|request| *request.version_mut() = Version::HTTP_10), bad_request);
        assert_eq!(refused(|request| *request.method_mut() = Method::POST), (405, "Method Not Allowed\n".to_owned()));
    }

    #[test]
    fn an_origin_must_be_allowed_and_its_absence_is() {
        let request = handshake("/").header("origin", "https://App.Example.com").body(()).unwrap();
        assert!(upgrade(&request, false, |origin| origin == "https://app.example.com").is_ok());
        let refusal = upgrade(&request, false, |_| false).unwrap_err();
        assert_eq!(refusal.response().status(), 403);
        assert_eq!(refusal.response().body(), "Forbidden\n");

        let unreadable = handshake("/").header("origin", &b"\xff"[..]).body(()).unwrap();
        assert_eq!(upgrade(&unreadable, false, |_| true).unwrap_err(), Refusal::Origin);
        let empty = handshake("/").header("origin", "").body(()).unwrap();
        assert!(without_origin(&empty).is_ok());
    }

    #[test]
    fn the_first_subprotocol_that_is_known_is_echoed_and_chooses_the_encoding() {
        for (offer, echo, protocol) in [
            ("centrifuge-json", Some("centrifuge-json"), Protocol::Json),
            ("centrifuge-json, centrifuge-protobuf", Some("centrifuge-json"), Protocol::Json),
            ("centrifuge-protobuf,centrifuge-json", Some("centrifuge-protobuf"), Protocol::Protobuf),
            ("chat, centrifuge-protobuf", Some("centrifuge-protobuf"), Protocol::Protobuf),
            ("chat", None, Protocol::Json),
            ("CENTRIFUGE-PROTOBUF", None, Protocol::Json),
        ] {
            let upgrade = accepted(handshake("/").header("sec-websocket-protocol", offer));
            let echoed = upgrade.response.headers().get("sec-websocket-protocol").map(|name| name.to_str().unwrap());
            assert_eq!((echoed, upgrade.protocol), (echo, protocol), "{offer}");
        }
    }

    #[test]
    fn the_query_chooses_the_encoding_and_the_kind_of_pings() {
        for (query, protocol, frame_pings) in [
            ("cf_protocol=protobuf", Protocol::Protobuf, false),
            ("a=b&format=protobuf", Protocol::Protobuf, false),
            ("format=PROTOBUF&cf_protocol_version=v2", Protocol::Json, false),
            ("cf_ws_frame_ping_pong=true&cf_protocol=protobuf", Protocol::Protobuf, true),
            ("cf_ws_frame_ping_pong=1", Protocol::Json, false),
        ] {
            let upgrade = accepted(handshake(&format!("/connection/websocket?{query}")));
            assert_eq!((upgrade.protocol, upgrade.frame_pings), (protocol, frame_pings), "{query}");
        }
    }

    #[test]
    fn compression_is_agreed_upon_only_when_it_is_on() {
        let request =
            || handshake("/").header("sec-websocket-extensions", "permessage-deflate; client_max_window_bits");
        let upgrade_with = accepted(request());
        assert!(upgrade_with.deflate.is_some());
        assert_eq!(
            upgrade_with.response.headers()["sec-websocket-extensions"],
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        );
        let without = without_origin(&request().body(()).unwrap()).unwrap();
        assert!(without.deflate.is_none() && !without.response.headers().contains_key("sec-websocket-extensions"));
    }
}
