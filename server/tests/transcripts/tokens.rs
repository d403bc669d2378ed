//! JSON Web Tokens, put together by hand so that wrong ones can be made too.

use anyhow::{Context, Result, anyhow, bail};
use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, RsaEncoding, RsaKeyPair},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};

use crate::{
    json::{Json, Object},
    scenario::{Tamper, Token},
    variables::key_file,
};

/// The token that a `token` step asks for.
pub(crate) fn mint(step: &Token) -> Result<String> {
    let payload = match &step.claims {
        Json::Text(text) => text.clone(),
        claims => claims.compact(),
    };
    let mut message = format!("{}.{}", part(&header(step)), part(&payload));
    let mut signature = sign(&step.alg, &step.key, message.as_bytes())?;
    match step.tamper {
        None => {}
        Some(Tamper::Cut) => return Ok(message),
        Some(Tamper::Signature) => *signature.last_mut().context("no signature to tamper with")? ^= 1,
        Some(Tamper::Payload) => {
            let mut claims = step.claims.as_object().context("claims that can be changed")?.clone();
            claims.insert("sub", Json::text("mallory"));
            message = format!("{}.{}", part(&header(step)), part(&Json::Object(claims).compact()));
        }
    }
    Ok(format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
}

fn header(step: &Token) -> String {
    let mut header = Object::default();
    header.insert("alg", Json::text(&step.alg));
    header.insert("typ", Json::text("JWT"));
    for (name, value) in step.header.iter() {
        header.insert(name, value.clone());
    }
    let kept = header.iter().filter(|(_, value)| **value != Json::Null);
    Json::Object(kept.map(|(name, value)| (name.to_owned(), value.clone())).collect()).compact()
}

fn part(text: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(text)
}

fn sign(alg: &str, key: &str, message: &[u8]) -> Result<Vec<u8>> {
    match alg {
        "HS256" => Ok(hmac(hmac::HMAC_SHA256, key, message)),
        "HS384" => Ok(hmac(hmac::HMAC_SHA384, key, message)),
        "HS512" => Ok(hmac(hmac::HMAC_SHA512, key, message)),
        "RS256" => rsa(&signature::RSA_PKCS1_SHA256, key, message),
        "RS384" => rsa(&signature::RSA_PKCS1_SHA384, key, message),
        "RS512" => rsa(&signature::RSA_PKCS1_SHA512, key, message),
        "PS256" => rsa(&signature::RSA_PSS_SHA256, key, message),
        "PS384" => rsa(&signature::RSA_PSS_SHA384, key, message),
        "PS512" => rsa(&signature::RSA_PSS_SHA512, key, message),
        "ES256" => ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, key, message),
        "ES384" => ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, key, message),
        "ES512" => ecdsa(&signature::ECDSA_P521_SHA512_FIXED_SIGNING, key, message),
        "EdDSA" => {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(private_key(key)?.secret_pkcs8_der())
                .map_err(|e| anyhow!("{key}: {e}"))?;
            Ok(pair.sign(message).as_ref().to_vec())
        }
        _ if alg.eq_ignore_ascii_case("none") => Ok(Vec::new()),
        _ => bail!("no algorithm {alg}"),
    }
}

fn hmac(algorithm: hmac::Algorithm, secret: &str, message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(algorithm, secret.as_bytes()), message).as_ref().to_vec()
}

fn rsa(padding: &'static dyn RsaEncoding, key: &str, message: &[u8]) -> Result<Vec<u8>> {
    let pair = RsaKeyPair::from_pkcs8(private_key(key)?.secret_pkcs8_der()).map_err(|e| anyhow!("{key}: {e}"))?;
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(padding, &SystemRandom::new(), message, &mut signature)?;
    Ok(signature)
}

fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm, key: &str, message: &[u8]) -> Result<Vec<u8>> {
    let pair =
        EcdsaKeyPair::from_pkcs8(algorithm, private_key(key)?.secret_pkcs8_der()).map_err(|e| anyhow!("{key}: {e}"))?;
    Ok(pair.sign(&SystemRandom::new(), message)?.as_ref().to_vec())
}

fn private_key(name: &str) -> Result<PrivatePkcs8KeyDer<'static>> {
    let file = format!("{name}.private.pem");
    PrivatePkcs8KeyDer::from_pem_slice(key_file(&file)?.as_bytes()).map_err(|e| anyhow!("{file}: {e}"))
}
