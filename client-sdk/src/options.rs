//! What an application can choose.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::StreamPosition;
use crate::codec::Protocol;
use crate::machine::Backoff;
use crate::tls::Tls;

/// Everything a client needs to know to connect.
///
/// ```
/// use starling_client::{ClientConfig, Protocol};
///
/// let config = ClientConfig {
///     protocol: Protocol::Protobuf,
///     name: "price-ticker".to_owned(),
///     ..ClientConfig::new("ws://localhost:8000/connection/websocket")
/// };
/// ```
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// `ws://` or `wss://` address with path, such as `ws://localhost:8000/connection/websocket`.
    pub url: String,
    /// How messages are written. JSON carries only JSON payloads.
    pub protocol: Protocol,
    /// Token for the first connection, if the application has one already.
    pub token: Option<String>,
    /// Where to get tokens: when there is none yet, and when the old one expired or is about to. Without it, a client
    /// whose token expired is disconnected for good.
    pub token_source: Option<TokenSource>,
    /// Name of the client program, for the server's statistics.
    pub name: String,
    /// Version of the client program, for the server's statistics.
    pub version: String,
    /// Payload of the connect command, for the application behind the server.
    pub data: Option<Bytes>,
    /// Additional headers of the HTTP request that opens the WebSocket, such as `Origin`.
    pub headers: Vec<(String, String)>,
    /// Whom to trust with `wss://`.
    pub tls: Option<Tls>,
    /// How long to wait for what.
    pub timing: Timing,
    /// How much to hold at once.
    pub limits: Limits,
}

impl ClientConfig {
    /// Returns the configuration of an anonymous JSON client.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            protocol: Protocol::default(),
            token: None,
            token_source: None,
            name: "starling-client".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            data: None,
            headers: Vec::new(),
            tls: None,
            timing: Timing::default(),
            limits: Limits::default(),
        }
    }
}

/// What one subscription asks for. The server may grant less, or more.
#[derive(Debug, Clone, Default)]
pub struct SubscribeOptions {
    /// Subscription token, for channels that need one.
    pub token: Option<String>,
    /// Where to get subscription tokens for this channel: when there is none yet, and when the old one expired or is
    /// about to.
    pub token_source: Option<TokenSource>,
    /// Payload of the subscribe command, for the application behind the server.
    pub data: Option<Bytes>,
    /// Ask the server to watch over gaps in the stream.
    pub positioned: bool,
    /// Ask the server to bring what is missed during an interruption.
    pub recoverable: bool,
    /// Ask to be told who comes and goes.
    pub join_leave: bool,
    /// Ask for patches in place of payloads that resemble the one before. Nothing but the number of bytes on the wire
    /// changes; when the server does not grant it, payloads come whole. If one cannot be restored, which only a defect of
    /// the server can bring about, the client reconnects ([`codes::connecting::BAD_PATCH`](crate::codes::connecting)) and
    /// goes on from the last one that could.
    pub delta: Option<Delta>,
    /// Go on from this place, which an earlier subscription to the channel reached
    /// ([`Subscription::position`](crate::Subscription::position)).
    pub since: Option<StreamPosition>,
}

/// A form of patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delta {
    /// That of Fossil.
    Fossil,
}

impl Delta {
    /// Its name in the protocol.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Fossil => "fossil",
        }
    }
}

/// Durations. The defaults are those of the official Centrifuge SDKs where they have the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// Until a command counts as lost. 5 s.
    pub command_timeout: Duration,
    /// For name resolution, TCP, TLS and the upgrade together. 10 s.
    pub open_timeout: Duration,
    /// Until a token source counts as failed. 30 s.
    pub token_timeout: Duration,
    /// How late a ping of the server may be until the connection counts as dead. 10 s.
    pub max_server_ping_delay: Duration,
    /// Between attempts to connect. 0.2 s to 20 s.
    pub reconnect: Backoff,
    /// Between attempts to subscribe. 0.5 s to 20 s.
    pub resubscribe: Backoff,
    /// How long a connection or a subscription must have lived until the next failure counts as a first one. 5 s. (Our
    /// decision: a server that accepts and closes at once should see delays that grow.)
    pub stable_after: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            command_timeout: Duration::from_secs(5),
            open_timeout: Duration::from_secs(10),
            token_timeout: Duration::from_secs(30),
            max_server_ping_delay: Duration::from_secs(10),
            reconnect: Backoff { min: Duration::from_millis(200), max: Duration::from_secs(20) },
            resubscribe: Backoff { min: Duration::from_millis(500), max: Duration::from_secs(20) },
            stable_after: Duration::from_secs(5),
        }
    }
}

/// Bounds, and what happens at them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Calls that wait for replies or for the connection. One more is refused with
    /// [`Error::TooManyCalls`](crate::Error::TooManyCalls). 1024.
    pub calls: usize,
    /// Unread events of one subscription. At the bound the client reads nothing more from the connection until the
    /// application has read some: the server feels the back-pressure and may in the end disconnect the slow client, which
    /// then recovers. 256; at least 1.
    pub subscription_events: usize,
    /// Unread events of one [`Events`](crate::Events). At the bound the oldest are dropped, which the reader is told. 64;
    /// at least 1.
    pub connection_events: usize,
    /// Bytes of one message from the server. A larger one disconnects the client for good, because it would come again.
    /// With delta compression, also bytes of a payload that is restored. 16 MiB.
    pub message_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { calls: 1024, subscription_events: 256, connection_events: 64, message_bytes: 16 << 20 }
    }
}

/// Where tokens come from: a function of the application.
///
/// At most one call for the connection and one for each subscription is under way. When the answer is no longer needed
/// the future is dropped.
#[derive(Clone)]
pub struct TokenSource(Arc<dyn Fn() -> TokenFuture + Send + Sync>);

/// A token on its way.
pub(crate) type TokenFuture = Pin<Box<dyn Future<Output = Result<String, TokenError>> + Send>>;

impl TokenSource {
    /// Makes a source of a function.
    ///
    /// ```
    /// use starling_client::{TokenError, TokenSource};
    ///
    /// # async fn fetch() -> Result<String, std::io::Error> { Ok(String::new()) }
    /// let source = TokenSource::new(|| async {
    ///     fetch().await.map_err(|error| TokenError::Temporary(error.to_string()))
    /// });
    /// ```
    pub fn new<F, T>(source: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<String, TokenError>> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(source())))
    }

    pub(crate) fn ask(&self) -> TokenFuture {
        (self.0)()
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSource")
    }
}

/// Why a token source gave no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenError {
    /// There will be none: the user may not connect (or subscribe). The client disconnects (or unsubscribes) for good.
    Unauthorized,
    /// Not now, in words. The client asks again later.
    Temporary(String),
}
