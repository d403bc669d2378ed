//! Failures of calls, and what the caller may do next.

use std::fmt;

/// Why a call failed.
///
/// The connection survives all of these except [`Error::Disconnected`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The server refused the command. It was not carried out. Try again only when `temporary` is true; otherwise the
    /// same command fails the same way until something changes on the server.
    Refused {
        /// Error code: 0 to 399 are the protocol's (103 is "permission denied"), 400 to 1999 the application's.
        code: u32,
        /// Text for people, never empty from a well-behaved server.
        message: String,
        /// Whether the server invites another try.
        temporary: bool,
    },
    /// No reply came in time. The server may or may not have carried the command out: repeat it only when twice does no
    /// harm.
    Timeout,
    /// The connection ended before the reply. As with [`Error::Timeout`], nobody knows whether the command was carried
    /// out. The client reconnects by itself; the next call waits for that.
    ConnectionLost,
    /// The client is disconnected and stays so: by [`Client::disconnect`](crate::Client::disconnect), or by a code that
    /// forbids to reconnect. Make a new client, after curing the cause that `code` names.
    Disconnected {
        /// A code of [`codes::disconnected`](crate::codes::disconnected) or of the server.
        code: u32,
        /// Text for people.
        reason: String,
    },
    /// This client has a subscription to the channel already. Use that one, or end it first.
    AlreadySubscribed,
    /// So many calls wait for replies that no more is taken
    /// ([`Limits::calls`](crate::Limits::calls)). Wait for some of them.
    TooManyCalls,
    /// The payload is not JSON, which it must be on a JSON connection. Nothing was sent: mend it, or use
    /// [`Protocol::Protobuf`](crate::Protocol::Protobuf), which carries any bytes.
    InvalidPayload(String),
    /// The configuration cannot work (a malformed address, `wss` without roots, an unusable header or certificate).
    /// Nothing was tried.
    InvalidConfig(String),
    /// The connection could not be made: name resolution, TCP, TLS or the upgrade, in words. The client tries again by
    /// itself; the error is told by [`ConnectionEvent::Retrying`](crate::ConnectionEvent::Retrying).
    Transport(String),
    /// The token source failed, in its own words. The client asks again later.
    Token(String),
    /// The server answered something that is no answer to the command. A defect of the server.
    BadReply(&'static str),
}

impl Error {
    /// Returns the numeric code, where there is one.
    pub fn code(&self) -> Option<u32> {
        match self {
            Self::Refused { code, .. } | Self::Disconnected { code, .. } => Some(*code),
            Self::Timeout
            | Self::ConnectionLost
            | Self::AlreadySubscribed
            | Self::TooManyCalls
            | Self::InvalidPayload(_)
            | Self::InvalidConfig(_)
            | Self::Transport(_)
            | Self::Token(_)
            | Self::BadReply(_) => None,
        }
    }

    /// Returns whether the same call may succeed later without anything being changed.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Refused { temporary, .. } => *temporary,
            Self::Timeout | Self::ConnectionLost | Self::TooManyCalls | Self::Transport(_) | Self::Token(_) => true,
            Self::Disconnected { .. }
            | Self::AlreadySubscribed
            | Self::InvalidPayload(_)
            | Self::InvalidConfig(_)
            | Self::BadReply(_) => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code, message, temporary: true } => write!(f, "{message} (error {code}, temporary)"),
            Self::Refused { code, message, temporary: false } => write!(f, "{message} (error {code})"),
            Self::Timeout => f.write_str("no reply in time"),
            Self::ConnectionLost => f.write_str("the connection ended before the reply"),
            Self::Disconnected { code, reason } => write!(f, "disconnected: {reason} (code {code})"),
            Self::AlreadySubscribed => f.write_str("already subscribed to this channel"),
            Self::TooManyCalls => f.write_str("too many calls wait for replies"),
            Self::InvalidPayload(why) => write!(f, "the payload is not valid JSON: {why}"),
            Self::InvalidConfig(why) => write!(f, "configuration: {why}"),
            Self::Transport(why) => write!(f, "transport: {why}"),
            Self::Token(why) => write!(f, "token source: {why}"),
            Self::BadReply(why) => write!(f, "bad reply: {why}"),
        }
    }
}

impl std::error::Error for Error {}
