//! The keys that tokens are signed with.
//!
//! Which key is tried follows from what is configured, never from the token alone: an HMAC token is never checked with
//! a public key, and an elliptic key takes the one algorithm that fits its curve.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED, UnparsedPublicKey};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto};

use super::{ConfigProblem, UnixSeconds};
use crate::config::TokenOptions;

/// The keys of one set of token options.
pub(super) struct Keys {
    /// Path of the options: `client.token`.
    section: &'static str,
    hmac: Option<DecodingKey>,
    hmac_for_signing: Option<EncodingKey>,
    previous_hmac: Option<PreviousHmac>,
    rsa: Option<DecodingKey>,
    ecdsa: Option<(Curve, DecodingKey)>,
}

struct PreviousHmac {
    key: DecodingKey,
    /// `None` for as long as it is configured.
    valid_until: Option<UnixSeconds>,
}

/// A curve, and the one algorithm that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

/// Why a signature is not accepted. `Display` says which keys were tried or which option is missing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SignatureProblem {
    /// `alg` is `none`.
    Unsigned,
    /// `alg` is no algorithm of ours.
    UnknownAlgorithm(String),
    /// No key is configured for the algorithm.
    NoKey { algorithm: String, option: String },
    /// The elliptic key is on another curve than the algorithm.
    WrongCurve { algorithm: String, option: String, takes: &'static str },
    /// None of the keys made this signature.
    Mismatch { algorithm: String, tried: String },
}

impl Keys {
    /// Reads the keys.
    ///
    /// # Errors
    ///
    /// A text that is no public key of its kind.
    pub(super) fn new(section: &'static str, options: &TokenOptions) -> Result<Self, ConfigProblem> {
        let problem = |option: &str, problem: &str| ConfigProblem {
            option: format!("{section}.{option}"),
            problem: problem.into(),
        };
        if options.jwks_public_endpoint.is_some() {
            // Fetching keys by `kid` is a step before the check, and waits. It comes with a later version; until then a
            // server that ignored the option would trust other keys than it was told to.
            return Err(problem("jwks_public_endpoint", "key sets are not supported yet"));
        }
        let rsa = options.rsa_public_key.as_deref().map(|pem| {
            let key = DecodingKey::from_rsa_pem(pem.as_bytes());
            key.map_err(|_| problem("rsa_public_key", "is no RSA public key in PEM form"))
        });
        let ecdsa = options.ecdsa_public_key.as_deref().map(|pem| {
            let key = DecodingKey::from_ec_pem(pem.as_bytes()).ok();
            let key = key.and_then(|key| Some((Curve::of(&key)?, key)));
            let expected = "is no public key in PEM form on one of the curves P-256, P-384, P-521";
            key.ok_or_else(|| problem("ecdsa_public_key", expected))
        });
        Ok(Self {
            section,
            hmac: options.hmac_secret_key.as_deref().map(|secret| DecodingKey::from_secret(secret.as_bytes())),
            hmac_for_signing: options.hmac_secret_key.as_deref().map(|key| EncodingKey::from_secret(key.as_bytes())),
            previous_hmac: options.hmac_previous_secret_key.as_deref().map(|secret| PreviousHmac {
                key: DecodingKey::from_secret(secret.as_bytes()),
                valid_until: options
                    .hmac_previous_secret_key_valid_until
                    .map(|until| UnixSeconds(i64::try_from(until).unwrap_or(i64::MAX))),
            }),
            rsa: rsa.transpose()?,
            ecdsa: ecdsa.transpose()?,
        })
    }

    /// Checks a signature.
    ///
    /// `message` is what was signed, `signature` the third part of the token as it stands there.
    pub(super) fn verify(
        &self,
        algorithm: &str,
        message: &[u8],
        signature: &str,
        now: UnixSeconds,
    ) -> Result<(), SignatureProblem> {
        match algorithm {
            "HS256" => self.verify_hmac(Algorithm::HS256, algorithm, message, signature, now),
            "HS384" => self.verify_hmac(Algorithm::HS384, algorithm, message, signature, now),
            "HS512" => self.verify_hmac(Algorithm::HS512, algorithm, message, signature, now),
            "RS256" => self.verify_rsa(Algorithm::RS256, algorithm, message, signature),
            "RS384" => self.verify_rsa(Algorithm::RS384, algorithm, message, signature),
            "RS512" => self.verify_rsa(Algorithm::RS512, algorithm, message, signature),
            "ES256" => self.verify_ecdsa(Curve::P256, message, signature),
            "ES384" => self.verify_ecdsa(Curve::P384, message, signature),
            "ES512" => self.verify_ecdsa(Curve::P521, message, signature),
            // Ed25519 keys come from key sets only.
            "EdDSA" => Err(self.no_key(algorithm, "jwks_public_endpoint")),
            _ if algorithm.eq_ignore_ascii_case("none") => Err(SignatureProblem::Unsigned),
            _ => Err(SignatureProblem::UnknownAlgorithm(algorithm.into())),
        }
    }

    /// Signs with HS256.
    pub(super) fn sign(&self, message: &str) -> Result<String, ConfigProblem> {
        let option = || format!("{}.hmac_secret_key", self.section);
        let Some(key) = &self.hmac_for_signing else {
            return Err(ConfigProblem { option: option(), problem: "is not set, and tokens are made with it".into() });
        };
        crypto::sign(message.as_bytes(), key, Algorithm::HS256)
            .map_err(|error| ConfigProblem { option: option(), problem: format!("cannot sign with it: {error}") })
    }

    fn verify_hmac(
        &self,
        kind: Algorithm,
        algorithm: &str,
        message: &[u8],
        signature: &str,
        now: UnixSeconds,
    ) -> Result<(), SignatureProblem> {
        if self.hmac.is_none() && self.previous_hmac.is_none() {
            return Err(self.no_key(algorithm, "hmac_secret_key"));
        }
        if self.hmac.as_ref().is_some_and(|key| is_signed_by(key, kind, message, signature)) {
            return Ok(());
        }
        let previous = self.previous_hmac.as_ref().filter(|previous| previous.counts(now));
        if previous.is_some_and(|previous| is_signed_by(&previous.key, kind, message, signature)) {
            return Ok(());
        }
        Err(self.mismatch(algorithm, self.tried_hmac_keys(now)))
    }

    fn verify_rsa(
        &self,
        kind: Algorithm,
        algorithm: &str,
        message: &[u8],
        signature: &str,
    ) -> Result<(), SignatureProblem> {
        let Some(key) = &self.rsa else { return Err(self.no_key(algorithm, "rsa_public_key")) };
        if is_signed_by(key, kind, message, signature) {
            Ok(())
        } else {
            Err(self.mismatch(algorithm, format!("{}.rsa_public_key", self.section)))
        }
    }

    fn verify_ecdsa(&self, asked: Curve, message: &[u8], signature: &str) -> Result<(), SignatureProblem> {
        let Some((curve, key)) = &self.ecdsa else { return Err(self.no_key(asked.algorithm(), "ecdsa_public_key")) };
        let option = || format!("{}.ecdsa_public_key", self.section);
        if asked != *curve {
            let (algorithm, takes) = (asked.algorithm().into(), curve.algorithm());
            return Err(SignatureProblem::WrongCurve { algorithm, option: option(), takes });
        }
        let signed = match curve {
            Curve::P256 => is_signed_by(key, Algorithm::ES256, message, signature),
            Curve::P384 => is_signed_by(key, Algorithm::ES384, message, signature),
            Curve::P521 => is_signed_by_p521(key, message, signature),
        };
        if signed { Ok(()) } else { Err(self.mismatch(asked.algorithm(), option())) }
    }

    fn no_key(&self, algorithm: &str, option: &str) -> SignatureProblem {
        SignatureProblem::NoKey { algorithm: algorithm.into(), option: format!("{}.{option}", self.section) }
    }

    fn mismatch(&self, algorithm: &str, tried: String) -> SignatureProblem {
        SignatureProblem::Mismatch { algorithm: algorithm.into(), tried }
    }

    fn tried_hmac_keys(&self, now: UnixSeconds) -> String {
        let section = self.section;
        let current = self.hmac.as_ref().map(|_| format!("{section}.hmac_secret_key"));
        let previous = self.previous_hmac.as_ref().map(|previous| match previous.counts(now) {
            true => format!("{section}.hmac_previous_secret_key"),
            false => format!("but not {section}.hmac_previous_secret_key, whose valid_until has passed"),
        });
        [current, previous].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

impl PreviousHmac {
    fn counts(&self, now: UnixSeconds) -> bool {
        self.valid_until.is_none_or(|until| now < until)
    }
}

impl Curve {
    /// The curve of an elliptic public key, by the length of its uncompressed point.
    fn of(key: &DecodingKey) -> Option<Self> {
        match key.try_get_as_bytes().ok()? {
            point if point.first() != Some(&4) => None,
            point if point.len() == 65 => Some(Self::P256),
            point if point.len() == 97 => Some(Self::P384),
            point if point.len() == 133 => Some(Self::P521),
            _ => None,
        }
    }

    fn algorithm(self) -> &'static str {
        match self {
            Self::P256 => "ES256",
            Self::P384 => "ES384",
            Self::P521 => "ES512",
        }
    }
}

fn is_signed_by(key: &DecodingKey, kind: Algorithm, message: &[u8], signature: &str) -> bool {
    // A signature that is no base64 and a key that does not fit are as good as a wrong signature.
    crypto::verify(signature, message, key, kind).unwrap_or(false)
}

fn is_signed_by_p521(key: &DecodingKey, message: &[u8], signature: &str) -> bool {
    let (Ok(point), Ok(signature)) = (key.try_get_as_bytes(), BASE64_URL_SAFE_NO_PAD.decode(signature)) else {
        return false;
    };
    UnparsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point).verify(message, &signature).is_ok()
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("section", &self.section)
            .field("hmac", &self.hmac.is_some())
            .field("previous_hmac", &self.previous_hmac.is_some())
            .field("rsa", &self.rsa.is_some())
            .field("ecdsa", &self.ecdsa.as_ref().map(|(curve, _)| curve))
            .finish()
    }
}

impl fmt::Display for SignatureProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned => f.write_str("alg none: unsigned tokens are never accepted"),
            Self::UnknownAlgorithm(algorithm) => {
                write!(f, "alg {algorithm:?} is not supported; supported are HS, RS and ES with 256, 384 or 512")
            }
            Self::NoKey { algorithm, option } => write!(f, "there is no key for {algorithm}: {option} is not set"),
            Self::WrongCurve { algorithm, option, takes } => {
                write!(f, "the key of {option} takes {takes} only, not {algorithm}")
            }
            Self::Mismatch { algorithm, tried } => {
                write!(f, "the {algorithm} signature is not of the configured key (tried {tried})")
            }
        }
    }
}
