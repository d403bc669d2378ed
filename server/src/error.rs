//! The only table from failure to what the outside sees: wire code, text, retry, log level, metric label.
//!
//! | kind | where it goes | what the connection does |
//! |---|---|---|
//! | [`ClientError`] | `error` of a reply | lives on (except for `connect`) |
//! | [`Disconnect`] | Close frame, or a `disconnect` push | ends |
//! | [`Unsubscribed`] | `unsubscribe` push | lives on, the subscription ends |
//! | [`ApiError`] | `error` of a server API response | - |
//!
//! Codes and texts are those of the Centrifuge protocol and of Centrifugo's server API, which SDKs and API libraries
//! act upon. Code ranges of a disconnect tell the SDK what to do: 3000-3499 and 4000-4499 reconnect, 3500-3999 and
//! 4500-4999 do not. An unsubscribe code from 2500 on makes the SDK subscribe again, one below does not.

use std::{borrow::Cow, fmt};

use tracing::Level;

macro_rules! client_errors {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $message:literal, temporary: $temporary:literal;)*) => {
        /// Why a command failed. The connection lives on, except after a failed `connect`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ClientError {
            $($(#[$doc])* $name,)*
        }

        impl ClientError {
            /// Code on the wire, and label of the metric.
            pub fn code(self) -> u32 {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            /// Text on the wire. Never empty: one SDK fails on an empty message.
            pub fn message(self) -> &'static str {
                match self {
                    $(Self::$name => $message,)*
                }
            }

            /// Whether SDKs repeat the command by themselves, with a growing delay.
            pub fn temporary(self) -> bool {
                match self {
                    $(Self::$name => $temporary,)*
                }
            }
        }
    };
}

client_errors! {
    /// A failure of ours; the log has the cause.
    Internal = 100, "internal server error", temporary: true;
    /// Not authorised (custom answers only).
    Unauthorized = 101, "unauthorized", temporary: false;
    /// The namespace of the channel does not exist.
    UnknownChannel = 102, "unknown channel", temporary: false;
    /// No right to do this, or an invalid subscription token.
    PermissionDenied = 103, "permission denied", temporary: false;
    /// No such RPC method.
    MethodNotFound = 104, "method not found", temporary: false;
    /// The connection has this subscription already, or is about to.
    AlreadySubscribed = 105, "already subscribed", temporary: false;
    /// A configured limit is reached.
    LimitExceeded = 106, "limit exceeded", temporary: false;
    /// A malformed argument.
    BadRequest = 107, "bad request", temporary: false;
    /// The feature is off for this channel.
    NotAvailable = 108, "not available", temporary: false;
    /// The token has expired: the SDK fetches a new one and repeats.
    TokenExpired = 109, "token expired", temporary: false;
    /// The expiry that a token or the backend gave is past already.
    Expired = 110, "expired", temporary: false;
    /// A rate limit.
    TooManyRequests = 111, "too many requests", temporary: true;
    /// The position asked for cannot be served from history.
    UnrecoverablePosition = 112, "unrecoverable position", temporary: false;
}

/// Why the server ends a connection.
///
/// The reason goes into the Close frame: at most 123 bytes, not empty (one SDK ignores the code then) and never valid
/// JSON of any kind (two SDKs would read it as an answer of an old server).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disconnect {
    /// Code of the Close frame or `disconnect` push.
    pub code: u32,
    /// Text beside it.
    pub reason: Cow<'static, str>,
}

impl Disconnect {
    const fn known(code: u32, reason: &'static str) -> Self {
        Self { code, reason: Cow::Borrowed(reason) }
    }

    /// The peer is gone; nothing is written.
    pub const CONNECTION_CLOSED: Self = Self::known(3000, "connection closed");
    /// This node stops.
    pub const SHUTDOWN: Self = Self::known(3001, "shutdown");
    /// A failure of ours; the log has the cause.
    pub const SERVER_ERROR: Self = Self::known(3004, "internal server error");
    /// The connection's token expired and was not refreshed in time.
    pub const EXPIRED: Self = Self::known(3005, "connection expired");
    /// A server-side subscription expired.
    pub const SUBSCRIPTION_EXPIRED: Self = Self::known(3006, "subscription expired");
    /// The client's backlog passed its bound, or stood still too long.
    pub const SLOW: Self = Self::known(3008, "slow");
    /// Writing to the socket failed.
    pub const WRITE_ERROR: Self = Self::known(3009, "write error");
    /// The position of a server-side subscription is lost.
    pub const INSUFFICIENT_STATE: Self = Self::known(3010, "insufficient state");
    /// An operator asked for a reconnect.
    pub const FORCE_RECONNECT: Self = Self::known(3011, "force reconnect");
    /// A ping was not answered in time.
    pub const NO_PONG: Self = Self::known(3012, "no pong");
    /// A rate limit.
    pub const TOO_MANY_REQUESTS: Self = Self::known(3013, "too many requests");
    /// The token is not valid, or belongs to someone else.
    pub const INVALID_TOKEN: Self = Self::known(3500, "invalid token");
    /// The client broke the protocol.
    pub const BAD_REQUEST: Self = Self::known(3501, "bad request");
    /// No accepted `connect` in time.
    pub const STALE: Self = Self::known(3502, "stale");
    /// The server API asked for it.
    pub const FORCE_DISCONNECT: Self = Self::known(3503, "force disconnect");
    /// `client.user_connection_limit` is reached.
    pub const CONNECTION_LIMIT: Self = Self::known(3504, "connection limit");
    /// `client.channel_limit` is passed by server-side subscriptions.
    pub const CHANNEL_LIMIT: Self = Self::known(3505, "channel limit");
    /// A payload that is not JSON would have to go to a JSON connection.
    pub const INAPPROPRIATE_PROTOCOL: Self = Self::known(3506, "inappropriate protocol");
    /// An anonymous token while those are not allowed.
    pub const PERMISSION_DENIED: Self = Self::known(3507, "permission denied");
    /// A message without a handler.
    pub const NOT_AVAILABLE: Self = Self::known(3508, "not available");

    /// Whether SDKs connect again after this code.
    pub fn reconnects(&self) -> bool {
        !matches!(self.code, 3500..=3999 | 4500..=4999)
    }

    /// Level of the log line: who would act on it.
    pub fn log_level(&self) -> Level {
        match self.code {
            3004 => Level::ERROR,
            3008 | 3009 | 3012 => Level::INFO,
            _ => Level::DEBUG,
        }
    }
}

impl fmt::Display for Disconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.reason)
    }
}

/// Why the server ends one subscription while the connection lives on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribed {
    /// Code of the `unsubscribe` push, 2000 to 2999.
    pub code: u32,
    /// Text beside it.
    pub reason: Cow<'static, str>,
}

impl Unsubscribed {
    const fn known(code: u32, reason: &'static str) -> Self {
        Self { code, reason: Cow::Borrowed(reason) }
    }

    /// The server API asked for it. Final.
    pub const SERVER: Self = Self::known(2000, "server unsubscribe");
    /// The client may have missed publications; the SDK subscribes again from its position.
    pub const INSUFFICIENT_STATE: Self = Self::known(2500, "insufficient state");
    /// The subscription token expired; the SDK fetches a new one.
    pub const EXPIRED: Self = Self::known(2501, "subscription expired");
}

/// Why a server API method failed.
///
/// | error | HTTP in transport mode | gRPC in transport mode |
/// |---|---|---|
/// | 100 | 500 | Internal |
/// | 102, 104 | 404 | NotFound |
/// | 107, 108 | 400 | InvalidArgument |
/// | 111 | 503 | ResourceExhausted |
/// | 112 | 416 | OutOfRange |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ApiError {
    /// A failure of ours or of the broker; the log has the cause.
    Internal,
    /// The namespace of the channel does not exist.
    UnknownChannel,
    /// No such command or method.
    NotFound,
    /// A missing or malformed parameter.
    BadRequest,
    /// The feature is off for this channel.
    NotAvailable,
    /// The delivery workers are behind by more than their bound; try again later. Ours: the reference has no such code.
    Overloaded,
    /// The position asked for cannot be served from history.
    UnrecoverablePosition,
}

impl ApiError {
    /// Code in the response, and label of the metric.
    pub fn code(self) -> u32 {
        match self {
            Self::Internal => 100,
            Self::UnknownChannel => 102,
            Self::NotFound => 104,
            Self::BadRequest => 107,
            Self::NotAvailable => 108,
            Self::Overloaded => 111,
            Self::UnrecoverablePosition => 112,
        }
    }

    /// Text in the response.
    pub fn message(self) -> &'static str {
        match self {
            Self::Internal => "internal server error",
            Self::UnknownChannel => "unknown channel",
            Self::NotFound => "not found",
            Self::BadRequest => "bad request",
            Self::NotAvailable => "not available",
            Self::Overloaded => "too many requests",
            Self::UnrecoverablePosition => "unrecoverable position",
        }
    }

    /// HTTP status when errors are reported by the transport.
    pub fn http_status(self) -> u16 {
        match self {
            Self::Internal => 500,
            Self::UnknownChannel => 404,
            Self::NotFound => 404,
            Self::BadRequest => 400,
            Self::NotAvailable => 400,
            Self::Overloaded => 503,
            Self::UnrecoverablePosition => 416,
        }
    }

    /// gRPC status code when errors are reported by the transport.
    pub fn grpc_code(self) -> tonic::Code {
        match self {
            Self::Internal => tonic::Code::Internal,
            Self::UnknownChannel => tonic::Code::NotFound,
            Self::NotFound => tonic::Code::NotFound,
            Self::BadRequest => tonic::Code::InvalidArgument,
            Self::NotAvailable => tonic::Code::InvalidArgument,
            Self::Overloaded => tonic::Code::ResourceExhausted,
            Self::UnrecoverablePosition => tonic::Code::OutOfRange,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_fit_a_close_frame_and_are_not_json() {
        let all = [
            Disconnect::SHUTDOWN,
            Disconnect::SLOW,
            Disconnect::INVALID_TOKEN,
            Disconnect::BAD_REQUEST,
            Disconnect::INAPPROPRIATE_PROTOCOL,
        ];
        for disconnect in all {
            assert!((1..=123).contains(&disconnect.reason.len()), "{disconnect}");
            assert!(serde_json::from_str::<serde_json::Value>(&disconnect.reason).is_err(), "{disconnect}");
        }
    }

    #[test]
    fn terminal_codes_are_those_that_sdks_do_not_reconnect_on() {
        assert!(Disconnect::SHUTDOWN.reconnects());
        assert!(Disconnect::SLOW.reconnects());
        assert!(!Disconnect::BAD_REQUEST.reconnects());
        assert!(!Disconnect { code: 4500, reason: "gone".into() }.reconnects());
        assert!(Disconnect { code: 4499, reason: "later".into() }.reconnects());
    }
}
