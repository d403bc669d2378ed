//! The key that calls of the server API carry.

use std::{borrow::Cow, hint::black_box};

use http::{HeaderMap, HeaderName, header::AUTHORIZATION};

use crate::config::{HttpApi, Secret};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// What the HTTP API asks of its callers.
#[derive(Clone, Debug)]
pub(super) enum KeyRule {
    /// Nothing: `http_api.insecure`.
    Open,
    /// A key, but there is none that would do: neither `http_api.key` nor `http_api.insecure` is set.
    NoKey,
    /// This key.
    Key(Secret),
}

impl KeyRule {
    pub(super) fn new(options: &HttpApi) -> Self {
        match &options.key {
            _ if options.insecure => Self::Open,
            Some(key) if !key.is_empty() => Self::Key(key.clone()),
            Some(_) | None => Self::NoKey,
        }
    }

    /// Checks a request; `Err` says why it is refused.
    ///
    /// The key is the value of `X-API-Key`, or if that is absent or empty, what follows the word `apikey` (in any case) in
    /// `Authorization`. If neither is right, the query parameter `api_key` may still be.
    pub(super) fn check(&self, headers: &HeaderMap, query: Option<&str>) -> Result<(), &'static str> {
        let key = match self {
            Self::Open => return Ok(()),
            Self::NoKey => return Err("no key is configured, so that none can be right"),
            Self::Key(key) => key.as_bytes(),
        };
        let own_header = headers.get(X_API_KEY).map(|value| value.as_bytes()).filter(|value| !value.is_empty());
        let by_header = match own_header {
            Some(given) => is_same_secret(given, key),
            None => headers.get(AUTHORIZATION).is_some_and(|value| {
                authorization_key(value.as_bytes()).is_some_and(|given| is_same_secret(given, key))
            }),
        };
        let by_query = || query.and_then(query_key).is_some_and(|given| is_same_secret(&given, key));
        match by_header || by_query() {
            true => Ok(()),
            false => Err("the request carries no valid key"),
        }
    }
}

/// Compares without telling by the time it takes where the texts differ. The length is not kept secret.
pub(super) fn is_same_secret(given: &[u8], right: &[u8]) -> bool {
    let differences = given.iter().zip(right).fold(0, |all, (a, b)| black_box(all | (a ^ b)));
    given.len() == right.len() && differences == 0
}

/// The key in `apikey KEY`: two words, any white space between and around them.
fn authorization_key(value: &[u8]) -> Option<&[u8]> {
    let mut words = value.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    match (words.next(), words.next(), words.next()) {
        (Some(scheme), Some(key), None) if scheme.eq_ignore_ascii_case(b"apikey") => Some(key),
        _ => None,
    }
}

/// The first `api_key` of a query. Pairs with a semicolon or a broken escape do not count.
fn query_key(query: &str) -> Option<Cow<'_, [u8]>> {
    query.split('&').filter(|pair| !pair.contains(';')).find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (unescaped(name)?.as_ref() == b"api_key").then(|| unescaped(value)).flatten()
    })
}

/// Form decoding: `+` is a space, `%` and two hexadecimal digits are a byte.
fn unescaped(text: &str) -> Option<Cow<'_, [u8]>> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Some(Cow::Borrowed(text.as_bytes()));
    }
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                digit()? << 4 | digit()?
            }
            plain => plain,
        });
    }
    Some(Cow::Owned(out))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn accepts(headers: &[(&'static str, &'static str)], query: Option<&str>) -> bool {
        let rule = KeyRule::new(&HttpApi { key: Some(Secret::new("very-secret")), ..HttpApi::default() });
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        rule.check(&headers, query).is_ok()
    }

    #[test]
    fn the_key_is_taken_from_its_header_then_authorization_then_the_query() {
        assert!(accepts(&[("x-api-key", "very-secret")], None));
        assert!(accepts(&[("authorization", "APIKEY  very-secret")], None));
        assert!(accepts(&[("x-api-key", ""), ("authorization", "apikey very-secret")], None));
        assert!(accepts(&[], Some("api_key=very-secret")));
        assert!(accepts(&[("x-api-key", "wrong")], Some("x=%zz&a;b=1&api_key=very%2dsecret")));
    }

    #[test]
    fn a_wrong_key_is_refused_wherever_it_stands() {
        assert!(!accepts(&[], None));
        assert!(!accepts(&[("x-api-key", "wrong"), ("authorization", "apikey very-secret")], None));
        assert!(!accepts(&[("x-api-key", "Very-Secret")], Some("key=very-secret")));
        assert!(!accepts(&[("x-api-key", "very-secre")], None));
        assert!(!accepts(&[("authorization", "Bearer very-secret")], None));
        assert!(!accepts(&[("authorization", "apikey very-secret more")], None));
        assert!(!accepts(&[("authorization", "very-secret")], Some("api_key=bad&api_key=very-secret")));
    }

    #[test]
    fn without_a_configured_key_nothing_is_right_unless_the_api_is_open() {
        let no_key = KeyRule::new(&HttpApi { key: Some(Secret::new("")), ..HttpApi::default() });
        assert!(no_key.check(&HeaderMap::new(), Some("api_key=")).is_err());
        let open = KeyRule::new(&HttpApi { insecure: true, ..HttpApi::default() });
        assert_eq!(open.check(&HeaderMap::new(), None), Ok(()));
    }

    #[test]
    fn escapes_that_are_broken_spoil_only_their_pair() {
        for broken in ["%", "%4", "%4x", "%%41"] {
            assert_eq!(unescaped(broken), None, "{broken}");
        }
        assert_eq!(unescaped("a+b%2B%ff").as_deref(), Some(&b"a b+\xff"[..]));
    }
}
