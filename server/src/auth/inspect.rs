//! What a token says, and everything that is wrong with it, in words for people.

use std::fmt;

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{Authenticator, ConnectRefusal, TokenRefusal, UnixSeconds, token::Parts, verifier::Verifier};

/// A token taken apart. `Display` is the page that the command line prints.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspection {
    /// What the token is for, by its claims.
    pub kind: TokenKind,
    /// Path of the options that it was checked with: `client.token` or `client.subscription_token`.
    pub section: &'static str,
    /// Header, as JSON; `None` when the token has not the form of one.
    pub header: Option<String>,
    /// Claims, as JSON; `None` likewise.
    pub claims: Option<String>,
    /// Why it would be refused; empty when it would be accepted. The first is what a client would meet.
    pub problems: Vec<String>,
    /// What is worth knowing although it is no reason for a refusal.
    pub remarks: Vec<String>,
}

/// The claim that makes a token one to subscribe with.
#[derive(Default, Deserialize)]
struct ChannelClaim {
    channel: Option<Box<RawValue>>,
}

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// To connect.
    Connection,
    /// To subscribe: it has the claim `channel`.
    Subscription,
}

impl Authenticator {
    /// Takes a token apart and says everything that is wrong with it.
    pub fn inspect(&self, token: &str, now: UnixSeconds) -> Inspection {
        let token = token.trim();
        let parts = match Parts::of(token) {
            Ok(parts) => parts,
            Err(why) => return Inspection::of_no_token(self.connection.section, why),
        };
        let claims: Value = serde_json::from_str(&parts.claims).unwrap_or_default();
        // Read by itself: the checks do not look into claims that they do not use, so neither may the kind depend on them.
        let kind = match serde_json::from_str::<ChannelClaim>(&parts.claims).unwrap_or_default().channel.as_deref() {
            Some(channel) if !matches!(channel.get(), "null" | "\"\"") => TokenKind::Subscription,
            Some(_) | None => TokenKind::Connection,
        };
        let verifier = match kind {
            TokenKind::Connection => &self.connection,
            TokenKind::Subscription => self.subscription_verifier(),
        };
        let mut problems: Vec<String> = verifier.problems(&parts, now).iter().map(TokenRefusal::to_string).collect();
        if let Err(first) = self.check_as(kind, token, now) {
            problems.retain(|problem| *problem != first);
            problems.insert(0, first);
        }
        let remarks = Self::remarks(kind, verifier, &claims, now);
        let (header, claims) = (Some(parts.header), Some(parts.claims));
        Inspection { kind, section: verifier.section, header, claims, problems, remarks }
    }

    /// The check that a client meets, up to being let in.
    fn check_as(&self, kind: TokenKind, token: &str, now: UnixSeconds) -> Result<(), String> {
        let expired = match kind {
            TokenKind::Connection => {
                let claims = self.connection_token(token, now).map_err(|refusal| refusal.to_string())?;
                return self.identity_of(claims, now).map(|_| ()).map_err(|refusal| refusal.to_string());
            }
            TokenKind::Subscription => {
                let claims = self.subscription_token(token, now).map_err(|refusal| refusal.to_string())?;
                claims.expire_at.is_some_and(|end| end <= now)
            }
        };
        if expired { Err(ConnectRefusal::Expired.to_string()) } else { Ok(()) }
    }

    fn remarks(kind: TokenKind, verifier: &Verifier, claims: &Value, now: UnixSeconds) -> Vec<String> {
        let mut remarks = Vec::new();
        if verifier.skip_signature {
            remarks.push("client.insecure_skip_token_signature_verify is on: the signature was not checked".into());
        }
        let user_claim = verifier.user_claim();
        if claims.get(user_claim).is_none_or(|user| user.is_null() || user == "") {
            remarks.push(match kind {
                TokenKind::Connection => format!("there is no claim {user_claim}: the connection is anonymous"),
                TokenKind::Subscription => format!("there is no claim {user_claim}: only for anonymous connections"),
            });
        }
        let moment = |claim: &str| claims.get(claim).and_then(Value::as_i64);
        match (moment("expire_at"), moment("exp")) {
            (Some(end @ ..=0), _) => remarks.push(format!("expire_at is {end}: what it gives never expires")),
            (Some(end), _) if end <= now.0 => (),
            (Some(end), _) => remarks.push(format!("what it gives expires in {} s (claim expire_at)", end - now.0)),
            (None, Some(end)) if end > now.0 => remarks.push(format!("expires in {} s (claim exp)", end - now.0)),
            (None, Some(_)) => (),
            (None, None) => remarks.push("there is no claim exp: the token never expires".into()),
        }
        remarks
    }
}

impl Inspection {
    fn of_no_token(section: &'static str, why: String) -> Self {
        Self {
            kind: TokenKind::Connection,
            section,
            header: None,
            claims: None,
            problems: vec![why],
            remarks: Vec::new(),
        }
    }

    /// Whether a client that comes with it now would be let in, or, with a subscription token, into the channel that it
    /// names if it is the user and connection that it names.
    pub fn is_accepted(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for TokenKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection => "connection token",
            Self::Subscription => "subscription token",
        })
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, checked with {}", self.kind, self.section)?;
        if let (Some(header), Some(claims)) = (&self.header, &self.claims) {
            writeln!(f, "header: {}", printable(header))?;
            writeln!(f, "claims: {}", printable(claims))?;
        }
        for remark in &self.remarks {
            writeln!(f, "note: {remark}")?;
        }
        match self.problems.as_slice() {
            [] => writeln!(f, "accepted"),
            problems => {
                writeln!(f, "refused:")?;
                problems.iter().try_for_each(|problem| writeln!(f, "- {problem}"))
            }
        }
    }
}

/// Text from a token on its way to a terminal, where control characters must not act.
fn printable(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_unicode().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}
