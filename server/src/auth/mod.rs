//! Tokens and keys: who a client is, and what its tokens allow.

mod claims;
mod refusal;

use std::fmt;

pub use claims::{ChannelClaims, ConnectionClaims, Overrides, SubscriptionClaims, UnixSeconds};
pub use refusal::{Failure, Period, TokenRefusal};

/// An option whose value cannot be used. The server does not start with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Path of the option: `client.token.rsa_public_key`.
    pub option: String,
    /// What is wrong with its value, and what would be right.
    pub problem: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.option, self.problem)
    }
}

impl std::error::Error for ConfigProblem {}
