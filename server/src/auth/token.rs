//! A JSON Web Token taken apart, unchecked: header, claims, signature.
//!
//! ```text
//! base64url({"alg":"HS256",...}) . base64url({"sub":"42",...}) . base64url(signature over the first two parts)
//! ```
//!
//! Claims are read twice: what every token may have ([`Registered`]), then what its kind has. Payload claims (`info`,
//! `data`, `meta`) stay the bytes that they are in the token. A claim of the wrong type makes the token invalid, also
//! where the server would not use it; unknown claims are ignored.

use std::{borrow::Cow, collections::BTreeMap};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::value::RawValue;

use super::{ChannelClaims, Overrides, UnixSeconds};

/// A token in its parts. `claims` is JSON text, not looked at yet.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) algorithm: String,
    /// Header as JSON text, for showing.
    pub(super) header: String,
    pub(super) claims: String,
    /// The first two parts, which are signed.
    pub(super) message: &'a [u8],
    /// The third part, in base64.
    pub(super) signature: &'a str,
}

impl<'a> Parts<'a> {
    /// Takes a token apart; `Err` says in words what is wrong with its form.
    pub(super) fn of(token: &'a str) -> Result<Self, String> {
        let parts = |text: &'a str| {
            let (message, signature) = text.rsplit_once('.')?;
            let (header, claims) = message.split_once('.')?;
            (!claims.contains('.')).then_some((message, header, claims, signature))
        };
        let (message, header, claims, signature) =
            parts(token).ok_or("not a token: it must be three parts of base64url separated by dots")?;
        let header = text_of("header", header)?;
        let Header { alg, crit, .. } = object("header", &header)?;
        if crit.is_some() {
            return Err("header: crit asks for extensions that this server does not have".into());
        }
        Ok(Self { algorithm: alg, claims: text_of("claims", claims)?, header, message: message.as_bytes(), signature })
    }
}

/// What the server reads of a header. `typ` and `kid` must be texts if they are there.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[allow(dead_code, reason = "only its type is checked")]
    typ: Option<String>,
    #[allow(dead_code, reason = "only its type is checked, until keys are chosen by it")]
    kid: Option<String>,
    crit: Option<serde::de::IgnoredAny>,
}

/// Claims that tokens of both kinds have.
#[derive(Deserialize)]
pub(super) struct Registered {
    pub(super) sub: Option<String>,
    pub(super) exp: Option<NumericDate>,
    pub(super) nbf: Option<NumericDate>,
    #[allow(dead_code, reason = "only its type is checked")]
    iat: Option<NumericDate>,
    pub(super) iss: Option<String>,
    #[serde(default)]
    pub(super) aud: Audience,
    #[allow(dead_code, reason = "only its type is checked")]
    jti: Option<String>,
    pub(super) expire_at: Option<i64>,
    /// Empty counts as absent.
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) channel: String,
}

/// Claims of a connection token beside the registered ones.
#[derive(Deserialize)]
pub(super) struct ConnectionPayload<'a> {
    #[serde(default, borrow, deserialize_with = "raw")]
    pub(super) info: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) b64info: String,
    #[serde(default, borrow, deserialize_with = "raw")]
    pub(super) meta: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) channels: Vec<String>,
    #[serde(default, borrow, deserialize_with = "null_is_default")]
    pub(super) subs: BTreeMap<String, Option<SubscriptionPayload<'a>>>,
}

/// Claims of a subscription token beside the registered ones, and an entry of `subs`.
#[derive(Default, Deserialize)]
pub(super) struct SubscriptionPayload<'a> {
    /// Of subscription tokens only. Empty counts as absent.
    pub(super) client: Option<String>,
    #[serde(default, borrow, deserialize_with = "raw")]
    info: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "null_is_default")]
    b64info: String,
    #[serde(default, borrow, deserialize_with = "raw")]
    data: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "null_is_default")]
    b64data: String,
    #[serde(default, deserialize_with = "null_is_default", rename = "override")]
    overrides: OverridesPayload,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct OverridesPayload {
    presence: Option<Switch>,
    join_leave: Option<Switch>,
    force_push_join_leave: Option<Switch>,
    force_recovery: Option<Switch>,
    force_positioning: Option<Switch>,
}

/// `{"value": true}`; without `value` it is off.
#[derive(Clone, Copy, Deserialize)]
struct Switch {
    #[serde(default)]
    value: bool,
}

impl SubscriptionPayload<'_> {
    /// What it says about the subscription; `Err` says in words which claim is wrong.
    pub(super) fn channel_claims(&self) -> Result<ChannelClaims, String> {
        let OverridesPayload { presence, join_leave, force_push_join_leave, force_recovery, force_positioning } =
            self.overrides;
        let value = |switch: Option<Switch>| switch.map(|switch| switch.value);
        Ok(ChannelClaims {
            info: payload("b64info", &self.b64info, self.info)?,
            data: payload("b64data", &self.b64data, self.data)?,
            overrides: Overrides {
                presence: value(presence),
                join_leave: value(join_leave),
                force_push_join_leave: value(force_push_join_leave),
                force_recovery: value(force_recovery),
                force_positioning: value(force_positioning),
            },
        })
    }
}

/// A payload that is given as base64 or, failing that, as JSON; empty when absent.
pub(super) fn payload(b64_claim: &str, b64: &str, json: Option<&RawValue>) -> Result<Bytes, String> {
    if b64.is_empty() {
        return Ok(verbatim(json));
    }
    let decoded = BASE64_STANDARD.decode(b64);
    decoded.map(Bytes::from).map_err(|error| format!("claim {b64_claim} is no standard base64 with padding: {error}"))
}

/// JSON byte for byte as it is in the token; empty when absent.
pub(super) fn verbatim(json: Option<&RawValue>) -> Bytes {
    json.map(|json| Bytes::copy_from_slice(json.get().as_bytes())).unwrap_or_default()
}

/// The value of a claim of any name.
pub(super) fn claim<'a>(claims: &'a str, name: &str) -> Result<Option<&'a RawValue>, String> {
    let all: BTreeMap<Cow<'_, str>, &RawValue> = object("claims", claims)?;
    Ok(all.get(name).copied())
}

/// Reads one JSON object of the token. Anything else is refused, arrays too, which would otherwise fill fields in
/// order.
pub(super) fn object<'a, T: Deserialize<'a>>(part: &str, json: &'a str) -> Result<T, String> {
    if !json.trim_ascii_start().starts_with('{') {
        return Err(format!("{part}: not a JSON object"));
    }
    serde_json::from_str(json).map_err(|error| format!("{part}: {error}"))
}

fn text_of(part: &str, base64: &str) -> Result<String, String> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(base64).map_err(|error| format!("{part}: no base64url: {error}"))?;
    String::from_utf8(bytes).map_err(|_| format!("{part}: not UTF-8"))
}

/// `aud`: one text or a list of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Audience(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Audience {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "aud must be a string or a list of strings")]
        enum Form {
            None(()),
            One(String),
            Many(Vec<String>),
        }
        Ok(Self(match Form::deserialize(deserializer)? {
            Form::None(()) => Vec::new(),
            Form::One(audience) => vec![audience],
            Form::Many(audiences) => audiences,
        }))
    }
}

/// A moment in a token: a number of seconds, whole or not, or a text of one. Fractions are cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NumericDate(pub(super) UnixSeconds);

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a date must be a number of seconds")]
        enum Form {
            Whole(i64),
            Fraction(f64),
            Text(String),
        }
        let fraction = |seconds: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the cast saturates, and a year beyond i64 is as good as its end"
            )]
            UnixSeconds(seconds.floor() as i64)
        };
        match Form::deserialize(deserializer)? {
            Form::Whole(seconds) => Ok(Self(UnixSeconds(seconds))),
            Form::Fraction(seconds) => Ok(Self(fraction(seconds))),
            Form::Text(text) => match text.parse::<i64>() {
                Ok(seconds) => Ok(Self(UnixSeconds(seconds))),
                Err(_) => Err(D::Error::custom("a date must be a number of seconds")),
            },
        }
    }
}

/// Keeps `null` as the payload `null`, which `Option` alone would take for absent.
fn raw<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}
