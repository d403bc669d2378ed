//! Making tokens, for the command line and tests.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{Authenticator, ConfigProblem, UnixSeconds, verifier::Verifier};

impl Authenticator {
    /// Makes an HS256 connection token for a user (empty for anonymous) that this server accepts: it has the audience
    /// and issuer that the options ask for by name. Without `ttl` it never expires.
    ///
    /// # Errors
    ///
    /// There is no HMAC key among the options of connection tokens.
    pub fn create_connection_token(
        &self,
        user: &str,
        ttl: Option<Duration>,
        now: UnixSeconds,
    ) -> Result<String, ConfigProblem> {
        create(&self.connection, user, None, ttl, now)
    }

    /// Makes an HS256 subscription token for a user and a channel, likewise.
    ///
    /// # Errors
    ///
    /// There is no HMAC key among the options of subscription tokens.
    pub fn create_subscription_token(
        &self,
        user: &str,
        channel: &str,
        ttl: Option<Duration>,
        now: UnixSeconds,
    ) -> Result<String, ConfigProblem> {
        create(self.subscription_verifier(), user, Some(channel), ttl, now)
    }
}

fn create(
    verifier: &Verifier,
    user: &str,
    channel: Option<&str>,
    ttl: Option<Duration>,
    now: UnixSeconds,
) -> Result<String, ConfigProblem> {
    let mut claims = Map::new();
    claims.insert(verifier.user_claim().into(), user.into());
    if let Some(channel) = channel {
        claims.insert("channel".into(), channel.into());
    }
    if let Some(ttl) = ttl {
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        claims.insert("exp".into(), now.0.saturating_add(seconds).into());
    }
    claims.insert("iat".into(), now.0.into());
    if let Some(audience) = verifier.exact_audience() {
        claims.insert("aud".into(), audience.into());
    }
    if let Some(issuer) = verifier.exact_issuer() {
        claims.insert("iss".into(), issuer.into());
    }
    let message = message(r#"{"alg":"HS256","typ":"JWT"}"#, &Value::Object(claims).to_string());
    let signature = verifier.keys.sign(&message)?;
    Ok(format!("{message}.{signature}"))
}

/// The signed part of a token.
pub(super) fn message(header: &str, claims: &str) -> String {
    let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}", encode(header), encode(claims))
}
