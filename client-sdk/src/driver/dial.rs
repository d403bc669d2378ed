//! From an address to an open WebSocket.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error as WebSocketError;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::socket::Socket;
use crate::{ClientConfig, Error, Protocol};

/// What a WebSocket runs over: TCP, or TLS over it.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Bytes of the read buffer and of the write buffer of a connection. The library's 128 KiB are for few connections.
const BUFFER_BYTES: usize = 16 << 10;

/// The checked address and all that belongs to it; made once and used for every attempt.
pub(crate) struct Dialer {
    uri: Uri,
    host: String,
    port: u16,
    headers: HeaderMap,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    protocol: Protocol,
    websocket: WebSocketConfig,
}

impl Dialer {
    pub(crate) fn new(config: &ClientConfig) -> Result<Self, Error> {
        let invalid = |why: String| Error::InvalidConfig(why);
        let uri: Uri = config.url.parse().map_err(|error| invalid(format!("url {:?}: {error}", config.url)))?;
        let secure = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            Some(_) | None => return Err(invalid(format!("url {:?}: must begin with ws:// or wss://", config.url))),
        };
        let host = uri.host().ok_or_else(|| invalid(format!("url {:?}: no host", config.url)))?;
        // Addresses of version 6 stand in brackets in a URL, and nowhere else.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = if secure {
            let tls = config.tls.as_ref().ok_or_else(|| invalid("wss:// needs ClientConfig::tls".to_owned()))?;
            let name =
                ServerName::try_from(host.clone()).map_err(|error| invalid(format!("host {host:?}: {error}")))?;
            Some((TlsConnector::from(tls.config()), name))
        } else {
            None
        };
        let websocket = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(BUFFER_BYTES)
            .max_message_size(Some(config.limits.message_bytes))
            .max_frame_size(Some(config.limits.message_bytes));
        let dialer = Self {
            port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            host,
            headers: headers(config)?,
            tls,
            protocol: config.protocol,
            websocket,
            uri,
        };
        // What the library finds wrong with the address, it should say now and not at every attempt.
        dialer.uri.clone().into_client_request().map_err(|error| invalid(error.to_string()))?;
        Ok(dialer)
    }

    /// Opens a WebSocket. Dropping the future gives it up.
    ///
    /// The error says in words what failed.
    pub(super) async fn dial(self: Arc<Self>) -> Result<Box<Socket>, String> {
        let wire = self.wire().await.map_err(|error| error.to_string())?;
        let mut request = self.uri.clone().into_client_request().map_err(|error| error.to_string())?;
        for (name, value) in &self.headers {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        let (websocket, _) =
            client_async_with_config(request, wire, Some(self.websocket)).await.map_err(refused_upgrade)?;
        Ok(Box::new(Socket::new(websocket, self.protocol)))
    }

    async fn wire(&self) -> std::io::Result<Box<dyn Wire>> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        // Commands are small and awaited: they should not wait for each other.
        tcp.set_nodelay(true)?;
        match &self.tls {
            None => Ok(Box::new(tcp)),
            Some((connector, name)) => Ok(Box::new(connector.connect(name.clone(), tcp).await?)),
        }
    }
}

fn headers(config: &ClientConfig) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    // JSON is what a server speaks that is not asked for anything else.
    if config.protocol == Protocol::Protobuf {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("centrifuge-protobuf"));
    }
    for (name, value) in &config.headers {
        let invalid = |why: String| Error::InvalidConfig(format!("header {name:?}: {why}"));
        let name = HeaderName::try_from(name).map_err(|error| invalid(error.to_string()))?;
        let value = HeaderValue::try_from(value).map_err(|error| invalid(error.to_string()))?;
        headers.insert(name, value);
    }
    Ok(headers)
}

/// The status and the first line of the body say more than the library's own words.
fn refused_upgrade(error: WebSocketError) -> String {
    let WebSocketError::Http(response) = error else { return error.to_string() };
    let body = response.body().as_deref().unwrap_or_default();
    let text = String::from_utf8_lossy(&body[..body.len().min(200)]);
    match text.lines().next().map(str::trim).filter(|line| !line.is_empty()) {
        Some(line) => format!("the server refused the upgrade: HTTP {}: {line}", response.status()),
        None => format!("the server refused the upgrade: HTTP {}", response.status()),
    }
}
