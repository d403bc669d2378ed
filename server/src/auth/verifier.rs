//! Checks of one kind of token, in the reference's order: form, signature, types of claims, audience and issuer, (a
//! channel where none may be), time, the rest. So a wrong signature is invalid even when the token has expired too, and
//! an expired token is worth a new one only when everything else about it was right.

use std::collections::BTreeMap;

use regex::Regex;

use super::{
    ChannelClaims, ConfigProblem, ConnectionClaims, Period, SubscriptionClaims, TokenRefusal, UnixSeconds,
    keys::Keys,
    token::{Audience, ConnectionPayload, Parts, Registered, SubscriptionPayload, claim, object, payload, verbatim},
};
use crate::{config::TokenOptions, names::UserId};

/// Checks tokens by one set of options.
#[derive(Debug)]
pub(super) struct Verifier {
    /// Path of the options: `client.token`.
    pub(super) section: &'static str,
    pub(super) keys: Keys,
    audience: Wanted,
    issuer: Wanted,
    user_id_claim: Option<String>,
    /// `client.insecure_skip_token_signature_verify`
    pub(super) skip_signature: bool,
}

/// What a claim must be.
#[derive(Debug)]
enum Wanted {
    Anything,
    Exactly(String),
    Matching(Regex),
}

impl Verifier {
    pub(super) fn new(
        section: &'static str,
        options: &TokenOptions,
        skip_signature: bool,
    ) -> Result<Self, ConfigProblem> {
        if let Some(name) = &options.user_id_claim
            && (name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_'))
        {
            let problem = format!("{name:?} must be the name of one claim, of letters and _ only");
            return Err(ConfigProblem { option: format!("{section}.user_id_claim"), problem });
        }
        Ok(Self {
            section,
            keys: Keys::new(section, options)?,
            audience: Wanted::new(section, "audience", &options.audience, &options.audience_regex)?,
            issuer: Wanted::new(section, "issuer", &options.issuer, &options.issuer_regex)?,
            user_id_claim: options.user_id_claim.clone(),
            skip_signature,
        })
    }

    /// Checks a connection token.
    pub(super) fn connection(&self, token: &str, now: UnixSeconds) -> Result<ConnectionClaims, TokenRefusal> {
        let parts = Parts::of(token).map_err(TokenRefusal::Invalid)?;
        self.check_signature(&parts, now)?;
        let (registered, read) = connection_claims(&parts.claims)?;
        self.check_audience_and_issuer(&registered)?;
        check_no_channel(&registered)?;
        check_time(&registered, now)?;
        Ok(ConnectionClaims {
            user: self.user(&parts.claims, &registered)?,
            info: payload("b64info", &read.b64info, read.info).map_err(TokenRefusal::Invalid)?,
            meta: verbatim(read.meta),
            expire_at: expire_at(&registered),
            channels: channels(&read)?,
        })
    }

    /// Checks a subscription token. Whom it is for is the caller's question.
    pub(super) fn subscription(&self, token: &str, now: UnixSeconds) -> Result<SubscriptionClaims, TokenRefusal> {
        let parts = Parts::of(token).map_err(TokenRefusal::Invalid)?;
        self.check_signature(&parts, now)?;
        let (registered, read) = subscription_claims(&parts.claims)?;
        self.check_audience_and_issuer(&registered)?;
        check_time(&registered, now)?;
        check_has_channel(&registered)?;
        Ok(SubscriptionClaims {
            user: self.user(&parts.claims, &registered)?,
            client: read.client.clone().filter(|client| !client.is_empty()),
            subscription: read.channel_claims().map_err(TokenRefusal::Invalid)?,
            expire_at: expire_at(&registered),
            channel: registered.channel,
        })
    }

    /// Name of the claim that holds the user.
    pub(super) fn user_claim(&self) -> &str {
        self.user_id_claim.as_deref().unwrap_or("sub")
    }

    /// The audience that tokens must name, where it is one by name.
    pub(super) fn exact_audience(&self) -> Option<&str> {
        self.audience.exactly()
    }

    /// The issuer likewise.
    pub(super) fn exact_issuer(&self) -> Option<&str> {
        self.issuer.exactly()
    }

    /// Everything that is wrong with a token of either kind, for people. Empty when it would be accepted.
    ///
    /// The checks are those above; only that one failing does not hide the next.
    pub(super) fn problems(&self, parts: &Parts<'_>, now: UnixSeconds) -> Vec<TokenRefusal> {
        let mut problems = Vec::new();
        problems.extend(self.check_signature(parts, now).err());
        let registered = match object::<Registered>("claims", &parts.claims) {
            Ok(registered) => registered,
            Err(why) => {
                problems.push(TokenRefusal::Invalid(why));
                return problems;
            }
        };
        problems.extend(self.check_audience(&registered).err());
        problems.extend(self.check_issuer(&registered).err());
        problems.extend(check_time(&registered, now).err());
        problems.extend(self.user(&parts.claims, &registered).err());
        problems.extend(rest_problem(&registered, &parts.claims));
        problems
    }

    fn check_signature(&self, parts: &Parts<'_>, now: UnixSeconds) -> Result<(), TokenRefusal> {
        if self.skip_signature {
            return Ok(());
        }
        let verified = self.keys.verify(&parts.algorithm, parts.message, parts.signature, now);
        verified.map_err(|problem| TokenRefusal::Invalid(problem.to_string()))
    }

    fn check_audience_and_issuer(&self, registered: &Registered) -> Result<(), TokenRefusal> {
        self.check_audience(registered)?;
        self.check_issuer(registered)
    }

    fn check_audience(&self, Registered { aud: Audience(audiences), .. }: &Registered) -> Result<(), TokenRefusal> {
        if self.audience.is_any_of(audiences.iter().map(String::as_str)) {
            return Ok(());
        }
        Err(self.audience.missed(self.section, "audience", "aud", &format!("{audiences:?}")))
    }

    fn check_issuer(&self, registered: &Registered) -> Result<(), TokenRefusal> {
        // A token without an issuer is looked at as one with an empty issuer, so that a pattern may let it through.
        let issuer = registered.iss.as_deref().unwrap_or("");
        if self.issuer.is_any_of([issuer]) {
            return Ok(());
        }
        Err(self.issuer.missed(self.section, "issuer", "iss", &format!("{issuer:?}")))
    }

    fn user(&self, claims: &str, registered: &Registered) -> Result<UserId, TokenRefusal> {
        let Some(name) = &self.user_id_claim else {
            return Ok(UserId::from(registered.sub.as_deref().unwrap_or("")));
        };
        let value = claim(claims, name).map_err(TokenRefusal::Invalid)?;
        let Some(value) = value else { return Ok(UserId::from("")) };
        match serde_json::from_str(value.get()) {
            Ok(serde_json::Value::String(user)) => Ok(UserId::from(user)),
            // A number is taken as it is written: user ids often are numbers where they come from.
            Ok(serde_json::Value::Number(_)) => Ok(UserId::from(value.get())),
            Ok(serde_json::Value::Null) => Ok(UserId::from("")),
            Ok(_) | Err(_) => Err(TokenRefusal::Invalid(format!(
                "claim {name}, which {}.user_id_claim names, must be a string or a number",
                self.section
            ))),
        }
    }
}

impl Wanted {
    fn new(
        section: &str,
        option: &str,
        exact: &Option<String>,
        pattern: &Option<String>,
    ) -> Result<Self, ConfigProblem> {
        match (exact, pattern) {
            (None, None) => Ok(Self::Anything),
            (Some(exact), None) => Ok(Self::Exactly(exact.clone())),
            (None, Some(pattern)) => match Regex::new(pattern) {
                Ok(regex) => Ok(Self::Matching(regex)),
                Err(error) => Err(ConfigProblem {
                    option: format!("{section}.{option}_regex"),
                    problem: format!("{pattern:?} is not a pattern: {error}"),
                }),
            },
            (Some(_), Some(_)) => Err(ConfigProblem {
                option: format!("{section}.{option}"),
                problem: format!("excludes {section}.{option}_regex: set one of them"),
            }),
        }
    }

    fn exactly(&self) -> Option<&str> {
        match self {
            Self::Exactly(exact) => Some(exact),
            Self::Anything | Self::Matching(_) => None,
        }
    }

    fn is_any_of<'a>(&self, values: impl IntoIterator<Item = &'a str>) -> bool {
        let mut values = values.into_iter();
        match self {
            Self::Anything => true,
            Self::Exactly(exact) => values.any(|value| value == exact),
            Self::Matching(regex) => values.any(|value| regex.is_match(value)),
        }
    }

    fn missed(&self, section: &str, option: &str, claim: &str, seen: &str) -> TokenRefusal {
        TokenRefusal::Invalid(match self {
            Self::Anything => format!("claim {claim} is {seen}"),
            Self::Exactly(exact) => format!("claim {claim} is {seen}, and {section}.{option} asks for {exact:?}"),
            Self::Matching(regex) => {
                format!("claim {claim} is {seen}, and {section}.{option}_regex asks for {:?}", regex.as_str())
            }
        })
    }
}

fn connection_claims(claims: &str) -> Result<(Registered, ConnectionPayload<'_>), TokenRefusal> {
    let read = || Ok((object("claims", claims)?, object("claims", claims)?));
    read().map_err(TokenRefusal::Invalid)
}

fn subscription_claims(claims: &str) -> Result<(Registered, SubscriptionPayload<'_>), TokenRefusal> {
    let read = || Ok((object("claims", claims)?, object("claims", claims)?));
    read().map_err(TokenRefusal::Invalid)
}

fn check_time(registered: &Registered, now: UnixSeconds) -> Result<(), TokenRefusal> {
    if let Some(exp) = registered.exp.filter(|exp| exp.0 <= now) {
        return Err(TokenRefusal::Expired(Period::Over { since: now.seconds_after(exp.0).unwrap_or(0) }));
    }
    if let Some(nbf) = registered.nbf.filter(|nbf| now < nbf.0) {
        return Err(TokenRefusal::Expired(Period::NotBegun { begins_in: nbf.0.seconds_after(now).unwrap_or(0) }));
    }
    Ok(())
}

fn check_no_channel(registered: &Registered) -> Result<(), TokenRefusal> {
    if registered.channel.is_empty() {
        return Ok(());
    }
    let channel = &registered.channel;
    Err(TokenRefusal::Invalid(format!(
        "claim channel is {channel:?}: this is a subscription token, not one to connect"
    )))
}

fn check_has_channel(registered: &Registered) -> Result<(), TokenRefusal> {
    if !registered.channel.is_empty() {
        return Ok(());
    }
    Err(TokenRefusal::Invalid("there is no claim channel: this is a connection token, not one to subscribe".into()))
}

/// When the connection or subscription expires: `expire_at` decides where it is present, and there 0 and less mean
/// never.
fn expire_at(registered: &Registered) -> Option<UnixSeconds> {
    match registered.expire_at {
        Some(moment) => (moment > 0).then_some(UnixSeconds(moment)),
        None => registered.exp.map(|exp| exp.0),
    }
}

/// Server-side channels: `subs` where it has entries, otherwise `channels`. The empty name is nobody's channel.
fn channels(read: &ConnectionPayload<'_>) -> Result<BTreeMap<String, ChannelClaims>, TokenRefusal> {
    if read.subs.is_empty() {
        let named = read.channels.iter().filter(|channel| !channel.is_empty());
        return Ok(named.map(|channel| (channel.clone(), ChannelClaims::default())).collect());
    }
    let named = read.subs.iter().filter(|(channel, _)| !channel.is_empty());
    let claims = named.map(|(channel, entry)| match entry {
        Some(entry) => match entry.channel_claims() {
            Ok(claims) => Ok((channel.clone(), claims)),
            Err(why) => Err(TokenRefusal::Invalid(format!("claim subs, channel {channel:?}: {why}"))),
        },
        None => Ok((channel.clone(), ChannelClaims::default())),
    });
    claims.collect()
}

/// What is wrong with the claims of the token's own kind.
fn rest_problem(registered: &Registered, claims: &str) -> Option<TokenRefusal> {
    if registered.channel.is_empty() {
        let read = match object::<ConnectionPayload<'_>>("claims", claims) {
            Ok(read) => read,
            Err(why) => return Some(TokenRefusal::Invalid(why)),
        };
        let info = payload("b64info", &read.b64info, read.info).map_err(TokenRefusal::Invalid);
        return info.and(channels(&read).map(|_| ())).err();
    }
    let read = object::<SubscriptionPayload<'_>>("claims", claims).and_then(|read| read.channel_claims());
    read.map_err(TokenRefusal::Invalid).err()
}
