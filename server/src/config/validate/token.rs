//! Rules of token verification.

use jsonwebtoken::DecodingKey;

use super::Checker;
use crate::config::place::Place;
use crate::config::tree::{Client, TokenOptions};

pub(super) fn check(client: &Client, checker: &mut Checker<'_>) {
    options(&client.token, &Place::from("client.token"), checker);
    if client.subscription_token.enabled {
        options(&client.subscription_token.token, &Place::from("client.subscription_token"), checker);
    }
}

fn options(options: &TokenOptions, place: &Place, checker: &mut Checker<'_>) {
    if let Some(key) = &options.rsa_public_key
        && DecodingKey::from_rsa_pem(key.as_bytes()).is_err()
    {
        checker.refuse(place.key("rsa_public_key"), "is no RSA public key in PEM form");
    }
    if let Some(key) = &options.ecdsa_public_key
        && DecodingKey::from_ec_pem(key.as_bytes()).is_err()
    {
        checker.refuse(place.key("ecdsa_public_key"), "is no elliptic-curve public key in PEM form");
    }
    if let Some(endpoint) = &options.jwks_public_endpoint
        && !is_web_address(endpoint)
    {
        checker.refuse(place.key("jwks_public_endpoint"), "takes an http:// or https:// address");
    }
    checker.pattern(place.key("audience_regex"), options.audience_regex.as_deref());
    checker.pattern(place.key("issuer_regex"), options.issuer_regex.as_deref());
    for (exact, pattern, is_both) in [
        ("audience", "audience_regex", options.audience.is_some() && options.audience_regex.is_some()),
        ("issuer", "issuer_regex", options.issuer.is_some() && options.issuer_regex.is_some()),
    ] {
        if is_both {
            checker.refuse(place.key(exact), format!("does not go together with `{pattern}`"));
        }
    }
    if let Some(claim) = &options.user_id_claim
        && !claim.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_')
    {
        checker.refuse(place.key("user_id_claim"), "takes letters and underscores");
    }
}

/// The address may hold `{{name}}` in its host or path, to be filled from the token.
fn is_web_address(text: &str) -> bool {
    let filled = text.replace("{{", "x").replace("}}", "x");
    let Ok(address) = filled.parse::<http::Uri>() else { return false };
    matches!(address.scheme_str(), Some("http" | "https")) && address.host().is_some_and(|host| !host.is_empty())
}
