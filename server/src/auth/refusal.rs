//! Why somebody is not let in, and what that means on the wire.

use std::fmt;

use crate::error::{ClientError, Disconnect};

/// How a refusal ends on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The command is answered with this error.
    Error(ClientError),
    /// The connection is closed.
    Disconnect(Disconnect),
}

/// Why a token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenRefusal {
    /// The token was right but does not count at this moment: the client may fetch a new one and repeat.
    Expired(Period),
    /// The token never counts.
    Invalid(String),
}

/// How a moment lies outside of a token's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// `exp` is reached.
    Over {
        /// Seconds since then.
        since: u64,
    },
    /// `nbf` is not reached.
    NotBegun {
        /// Seconds until then.
        begins_in: u64,
    },
}

impl fmt::Display for TokenRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired(period) => period.fmt(f),
            Self::Invalid(why) => f.write_str(why),
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Over { since } => write!(f, "expired {since} s ago (claim exp)"),
            Self::NotBegun { begins_in } => write!(f, "not valid for another {begins_in} s (claim nbf)"),
        }
    }
}
