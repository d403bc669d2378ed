//! Tables of tokens and what becomes of them. The rows were compared with the reference server where it could be asked;
//! where ours differs on purpose, the test says so.

use std::{sync::LazyLock, time::Duration};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use proptest::prelude::*;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_RSA_SHA256};

use super::*;
use crate::{
    config::{Secret, TokenOptions},
    error::{ClientError, Disconnect},
    names::{ClientId, UserId},
    session::protocol::ConnectRequest,
};

const NOW: UnixSeconds = UnixSeconds(1_000_000);

// === signatures and keys ===

#[test]
fn hmac_tokens_of_every_strength_are_checked_with_the_secret() {
    let auth = with_secret();
    for (kind, name) in [(Algorithm::HS256, "HS256"), (Algorithm::HS384, "HS384"), (Algorithm::HS512, "HS512")] {
        let token = |secret: &str| {
            let message = create::message(&format!(r#"{{"alg":"{name}"}}"#), r#"{"sub":"42"}"#);
            let key = EncodingKey::from_secret(secret.as_bytes());
            let signature = crypto::sign(message.as_bytes(), &key, kind).expect("signs");
            format!("{message}.{signature}")
        };
        assert_eq!(user(&auth, &token("secret")), Ok("42".into()), "{name}");
        assert_eq!(
            invalid(&auth, &token("other")),
            format!("the {name} signature is not of the configured key (tried client.token.hmac_secret_key)")
        );
    }
}

#[test]
fn the_previous_secret_counts_until_its_time() {
    let auth = |until: Option<u64>| {
        with_options(|options| {
            options.hmac_secret_key = Some(Secret::new("secret"));
            options.hmac_previous_secret_key = Some(Secret::new("former"));
            options.hmac_previous_secret_key_valid_until = until;
        })
    };
    let former = signed("former", r#"{"sub":"42"}"#);
    for until in [None, Some(1_000_001)] {
        assert_eq!(user(&auth(until), &signed("secret", r#"{"sub":"42"}"#)), Ok("42".into()));
        assert_eq!(user(&auth(until), &former), Ok("42".into()), "{until:?}");
    }
    let why = invalid(&auth(Some(1_000_000)), &former);
    assert!(why.ends_with("but not client.token.hmac_previous_secret_key, whose valid_until has passed)"), "{why}");
    let alone = with_options(|options| options.hmac_previous_secret_key = Some(Secret::new("former")));
    assert_eq!(user(&alone, &former), Ok("42".into()));
    assert!(invalid(&alone, &signed("secret", "{}")).contains("(tried client.token.hmac_previous_secret_key)"));
}

#[test]
fn rsa_tokens_are_checked_with_the_public_key_and_nothing_else_is() {
    static RSA: LazyLock<KeyPair> =
        LazyLock::new(|| KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).expect("generates"));
    static OTHER: LazyLock<KeyPair> =
        LazyLock::new(|| KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).expect("generates"));
    let auth = with_options(|options| options.rsa_public_key = Some(RSA.public_key_pem()));
    let token = |pair: &KeyPair, name: &str, kind| {
        let message = create::message(&format!(r#"{{"alg":"{name}"}}"#), r#"{"sub":"42"}"#);
        let key = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).expect("a key");
        format!("{message}.{}", crypto::sign(message.as_bytes(), &key, kind).expect("signs"))
    };
    for (kind, name) in [(Algorithm::RS256, "RS256"), (Algorithm::RS384, "RS384"), (Algorithm::RS512, "RS512")] {
        assert_eq!(user(&auth, &token(&RSA, name, kind)), Ok("42".into()), "{name}");
        let why = invalid(&auth, &token(&OTHER, name, kind));
        assert!(why.contains("(tried client.token.rsa_public_key)"), "{why}");
    }
    // The classic confusion: the text of the public key as HMAC secret.
    let confused = signed(&RSA.public_key_pem(), r#"{"sub":"42"}"#);
    assert_eq!(invalid(&auth, &confused), "there is no key for HS256: client.token.hmac_secret_key is not set");
    assert!(invalid(&auth, &token(&RSA, "PS256", Algorithm::PS256)).starts_with("alg \"PS256\" is not supported"));
}

#[test]
fn elliptic_keys_take_the_one_algorithm_of_their_curve() {
    let pairs = [
        ("ES256", KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("generates")),
        ("ES384", KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("generates")),
        ("ES512", KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).expect("generates")),
    ];
    for (mine, key) in &pairs {
        let auth = with_options(|options| options.ecdsa_public_key = Some(key.public_key_pem()));
        for (other, pair) in &pairs {
            let token = signed_by_curve(pair, other);
            if mine == other {
                assert_eq!(user(&auth, &token), Ok("42".into()), "{mine}");
                let (signed_part, signature) = token.rsplit_once('.').expect("three parts");
                let swapped = format!("{signed_part}.{}", flip_first(signature));
                assert!(invalid(&auth, &swapped).contains("(tried client.token.ecdsa_public_key)"));
            } else {
                let why = format!("the key of client.token.ecdsa_public_key takes {mine} only, not {other}");
                assert_eq!(invalid(&auth, &token), why);
            }
        }
    }
}

#[test]
fn the_key_families_may_be_configured_together() {
    let ec = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("generates");
    let auth = with_options(|options| {
        options.hmac_secret_key = Some(Secret::new("secret"));
        options.ecdsa_public_key = Some(ec.public_key_pem());
    });
    assert_eq!(user(&auth, &signed("secret", r#"{"sub":"1"}"#)), Ok("1".into()));
    assert_eq!(user(&auth, &signed_by_curve(&ec, "ES256")), Ok("42".into()));
}

#[test]
fn unsigned_and_unknown_algorithms_are_refused_whatever_the_keys() {
    let auth = with_secret();
    for (header, why) in [
        (r#"{"alg":"none"}"#, "alg none: unsigned tokens are never accepted"),
        (r#"{"alg":"NONE"}"#, "alg none: unsigned tokens are never accepted"),
        (r#"{"alg":"hs256"}"#, "alg \"hs256\" is not supported; supported are HS, RS"),
        (r#"{"alg":""}"#, "alg \"\" is not supported"),
        (r#"{"alg":"EdDSA"}"#, "there is no key for EdDSA: client.token.jwks_public_endpoint is not set"),
        (r#"{"alg":"RS256"}"#, "there is no key for RS256: client.token.rsa_public_key is not set"),
        (r#"{"alg":"ES256"}"#, "there is no key for ES256: client.token.ecdsa_public_key is not set"),
        (r#"{"typ":"JWT"}"#, "header: missing field `alg`"),
        (r#"{"alg":5}"#, "header: invalid type"),
        (r#"{"alg":"HS256","alg":"none"}"#, "header: duplicate field `alg`"),
        (r#"{"alg":"HS256","kid":5}"#, "header: invalid type"),
        (r#"{"alg":"HS256","crit":["x"]}"#, "header: crit asks for extensions"),
        (r#"["HS256"]"#, "header: not a JSON object"),
    ] {
        let token = signed_with_header(header, "secret", r#"{"sub":"42"}"#);
        let seen = invalid(&auth, &token);
        assert!(seen.starts_with(why), "{header}: {seen}");
    }
    for header in [r#"{"alg":"HS256","kid":"any","typ":"odd"}"#, r#"{"alg":"HS256","x5c":5,"jwk":{}}"#] {
        assert_eq!(user(&auth, &signed_with_header(header, "secret", r#"{"sub":"42"}"#)), Ok("42".into()), "{header}");
    }
}

#[test]
fn texts_that_are_no_tokens_are_refused() {
    let auth = with_secret();
    let good = signed("secret", r#"{"sub":"42"}"#);
    let (signed_part, signature) = good.rsplit_once('.').expect("three parts");
    for token in [
        "invalid".to_owned(),
        "..".into(),
        ".".into(),
        signed_part.into(),
        format!("{signed_part}."),
        format!("{good}.x"),
        format!("{good}="),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{signed_part}.{}", flip_first(signature)),
        format!("e30.{}", good.split_once('.').expect("three parts").1),
    ] {
        invalid(&auth, &token);
    }
}

#[test]
fn keys_and_options_that_cannot_be_used_name_the_option() {
    let ec = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("generates").public_key_pem();
    let ed = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("generates").public_key_pem();
    let some = |text: &str| Some(text.to_owned());
    let rows: [(&str, TokenOptions); 10] = [
        ("rsa_public_key", TokenOptions { rsa_public_key: some("nonsense"), ..Default::default() }),
        ("rsa_public_key", TokenOptions { rsa_public_key: some(&ec), ..Default::default() }),
        ("ecdsa_public_key", TokenOptions { ecdsa_public_key: some("nonsense"), ..Default::default() }),
        ("ecdsa_public_key", TokenOptions { ecdsa_public_key: some(&ed), ..Default::default() }),
        ("audience_regex", TokenOptions { audience_regex: some("("), ..Default::default() }),
        ("issuer_regex", TokenOptions { issuer_regex: some("("), ..Default::default() }),
        ("audience", TokenOptions { audience: some("a"), audience_regex: some("a"), ..Default::default() }),
        ("issuer", TokenOptions { issuer: some("a"), issuer_regex: some("a"), ..Default::default() }),
        ("user_id_claim", TokenOptions { user_id_claim: some("app.uid"), ..Default::default() }),
        ("jwks_public_endpoint", TokenOptions { jwks_public_endpoint: some("http://keys"), ..Default::default() }),
    ];
    for (option, token) in rows {
        let mut client = Client { token: token.clone(), ..Client::default() };
        assert_eq!(Authenticator::new(&client).expect_err(option).option, format!("client.token.{option}"));
        client.token = TokenOptions::default();
        client.subscription_token.token = token;
        assert!(Authenticator::new(&client).is_ok(), "not looked at while it is not enabled");
        client.subscription_token.enabled = true;
        let problem = Authenticator::new(&client).expect_err(option);
        assert_eq!(problem.option, format!("client.subscription_token.{option}"));
    }
}

#[test]
fn subscription_tokens_may_have_keys_of_their_own() {
    let mut client = Client::default();
    client.token.hmac_secret_key = Some(Secret::new("first"));
    let subscription = r#"{"sub":"42","channel":"x"}"#;
    let shared = Authenticator::new(&client).expect("compiles");
    assert!(shared.subscription_token(&signed("first", subscription), NOW).is_ok());
    client.subscription_token.enabled = true;
    client.subscription_token.token.hmac_secret_key = Some(Secret::new("second"));
    let separate = Authenticator::new(&client).expect("compiles");
    assert!(separate.subscription_token(&signed("second", subscription), NOW).is_ok());
    let refused = separate.subscription_token(&signed("first", subscription), NOW).expect_err("another key");
    assert!(refused.to_string().contains("(tried client.subscription_token.hmac_secret_key)"), "{refused}");
    assert!(separate.connection_token(&signed("first", r#"{"sub":"42"}"#), NOW).is_ok());
    assert!(separate.connection_token(&signed("second", r#"{"sub":"42"}"#), NOW).is_err());
}

#[test]
fn without_signature_check_everything_else_is_checked() {
    let mut client = Client { insecure_skip_token_signature_verify: true, ..Client::default() };
    client.token.audience = Some("a".into());
    let auth = Authenticator::new(&client).expect("compiles");
    for header in [r#"{"alg":"HS256"}"#, r#"{"alg":"ES256"}"#, r#"{"alg":"none"}"#, r#"{"alg":"XX"}"#] {
        let message = create::message(header, r#"{"sub":"42","aud":"a"}"#);
        assert_eq!(user(&auth, &format!("{message}.aa")), Ok("42".into()), "{header}");
        assert_eq!(user(&auth, &format!("{message}.")), Ok("42".into()), "{header}");
    }
    invalid(&auth, &signed("any", r#"{"sub":"42"}"#));
    invalid(&auth, &signed("any", r#"{"sub":"42","aud":"a","channel":"x"}"#));
    let expired = auth.connection_token(&signed("any", r#"{"sub":"42","aud":"a","exp":5}"#), NOW);
    assert_eq!(expired, Err(TokenRefusal::Expired(Period::Over { since: 999_995 })));
}

// === claims ===

#[test]
fn times_have_no_leeway() {
    let auth = with_secret();
    let over = |since| Some(TokenRefusal::Expired(Period::Over { since }));
    let not_begun = |begins_in| Some(TokenRefusal::Expired(Period::NotBegun { begins_in }));
    for (claims, refusal) in [
        (r#"{"exp":1000001}"#, None),
        (r#"{"exp":1000000}"#, over(0)),
        (r#"{"exp":999940}"#, over(60)),
        (r#"{"exp":0}"#, over(1_000_000)),
        (r#"{"exp":-5}"#, over(1_000_005)),
        (r#"{"exp":1000000.9}"#, over(0)),
        (r#"{"exp":1000001.5}"#, None),
        (r#"{"exp":1e11}"#, None),
        (r#"{"exp":1e300}"#, None),
        (r#"{"exp":"1000001"}"#, None),
        (r#"{"exp":"999999"}"#, over(1)),
        (r#"{"exp":null}"#, None),
        (r#"{}"#, None),
        (r#"{"nbf":1000000}"#, None),
        (r#"{"nbf":1000001}"#, not_begun(1)),
        (r#"{"nbf":999999.5}"#, None),
        (r#"{"nbf":1000600,"exp":5}"#, over(999_995)),
        (r#"{"iat":99999999999}"#, None),
    ] {
        assert_eq!(auth.connection_token(&signed("secret", claims), NOW).err(), refusal, "{claims}");
        let claims = claims.replacen('{', r#"{"channel":"x","#, 1).replace(",}", "}");
        assert_eq!(auth.subscription_token(&signed("secret", &claims), NOW).err(), refusal, "{claims}");
    }
}

#[test]
fn a_wrong_signature_audience_or_type_is_invalid_even_when_expired() {
    let auth = with_options(|options| {
        options.hmac_secret_key = Some(Secret::new("secret"));
        options.audience = Some("a".into());
    });
    invalid(&auth, &signed("other", r#"{"aud":"a","exp":5}"#));
    invalid(&auth, &signed("secret", r#"{"exp":5}"#));
    invalid(&auth, &signed("secret", r#"{"aud":"a","exp":5,"sub":5}"#));
    invalid(&auth, &signed("secret", r#"{"aud":"a","exp":5,"channel":"x"}"#));
    for claims in [r#"{"aud":"a","exp":5}"#, r#"{"aud":"a","exp":5,"b64info":"%%"}"#] {
        assert!(matches!(user(&auth, &signed("secret", claims)), Err(TokenRefusal::Expired(_))), "{claims}");
    }
    let without_channel = auth.subscription_token(&signed("secret", r#"{"aud":"a","exp":5}"#), NOW);
    assert!(matches!(without_channel, Err(TokenRefusal::Expired(_))));
}

#[test]
fn expire_at_replaces_exp_as_the_end_of_what_the_token_gives() {
    let auth = with_secret();
    for (claims, end) in [
        (r#"{}"#, None),
        (r#"{"exp":1000060}"#, Some(1_000_060)),
        (r#"{"exp":1000060,"expire_at":1007200}"#, Some(1_007_200)),
        (r#"{"exp":1000060,"expire_at":5}"#, Some(5)),
        (r#"{"exp":1000060,"expire_at":0}"#, None),
        (r#"{"exp":1000060,"expire_at":-1}"#, None),
        (r#"{"exp":1000060,"expire_at":null}"#, Some(1_000_060)),
        (r#"{"expire_at":1007200}"#, Some(1_007_200)),
    ] {
        let accepted = auth.connection_token(&signed("secret", claims), NOW).expect(claims);
        assert_eq!(accepted.expire_at, end.map(UnixSeconds), "{claims}");
    }
}

#[test]
fn claims_of_a_wrong_type_make_the_token_invalid() {
    let auth = with_secret();
    for claims in [
        r#"{"sub":42}"#,
        r#"{"exp":"soon"}"#,
        r#"{"exp":true}"#,
        r#"{"nbf":"x"}"#,
        r#"{"iat":"x"}"#,
        r#"{"iss":5}"#,
        r#"{"iss":["x"]}"#,
        r#"{"jti":5}"#,
        r#"{"aud":5}"#,
        r#"{"aud":["x",5]}"#,
        r#"{"aud":{"a":1}}"#,
        r#"{"expire_at":1.5}"#,
        r#"{"expire_at":"5"}"#,
        r#"{"channel":5}"#,
        r#"{"channels":"x"}"#,
        r#"{"channels":[5]}"#,
        r#"{"subs":[]}"#,
        r#"{"subs":{"a":{"override":{"presence":5}}}}"#,
        r#"{"subs":{"a":{"b64data":"%%"}}}"#,
        r#"{"subs":{"a":{"b64info":"e30"}}}"#,
        // The reference answers a temporary error here, so that clients would come back for ever with a token that
        // cannot work.
        r#"{"b64info":"%%"}"#,
        r#"{"b64info":"_-__"}"#,
        // The reference takes the last of two equal claims, and null for an empty object.
        r#"{"sub":"a","sub":"b"}"#,
        "null",
        "[1]",
        "[]",
        r#"["42"]"#,
        "",
        "{",
        r#"{"sub":"a"}x"#,
        r#"{"sub":"\ud800"}"#,
    ] {
        invalid(&auth, &signed("secret", claims));
    }
    for claims in
        [r#"{"client":5}"#, r#"{"sub":"x","role":"admin","nested":{"deep":[1]}}"#, r#"{"aud":null,"iss":null}"#]
    {
        assert!(auth.connection_token(&signed("secret", claims), NOW).is_ok(), "{claims}");
    }
}

#[test]
fn payloads_are_kept_byte_for_byte_and_base64_wins() {
    let auth = with_secret();
    let claims = "{\"sub\":\"42\", \"info\": { \"b\" : 1.0,\n \"a\":\"<é>\" } ,\"meta\":[ 1,2 ]}";
    let accepted = auth.connection_token(&signed("secret", claims), NOW).expect("accepted");
    assert_eq!(accepted.info, "{ \"b\" : 1.0,\n \"a\":\"<é>\" }");
    assert_eq!(accepted.meta, "[ 1,2 ]");
    for (claims, info) in [
        (r#"{}"#, &b""[..]),
        (r#"{"info":null}"#, b"null"),
        (r#"{"info":5}"#, b"5"),
        (r#"{"info":{"a":1},"b64info":"eyJiIjoyfQ=="}"#, b"{\"b\":2}"),
        (r#"{"info":{"a":1},"b64info":""}"#, b"{\"a\":1}"),
        (r#"{"b64info":"/+//"}"#, b"\xff\xef\xff"),
    ] {
        let accepted = auth.connection_token(&signed("secret", claims), NOW).expect(claims);
        assert_eq!(accepted.info, info, "{claims}");
    }
}

#[test]
fn channels_or_subs_name_the_server_side_channels() {
    let auth = with_secret();
    let channels = |claims: &str| {
        let accepted = auth.connection_token(&signed("secret", claims), NOW).expect(claims);
        accepted.channels
    };
    let names = |claims: &str| channels(claims).into_keys().collect::<Vec<_>>();
    assert_eq!(names(r#"{"channels":["b","a","a",""]}"#), ["a", "b"]);
    assert_eq!(names(r#"{"channels":null}"#), [""; 0]);
    assert_eq!(names(r#"{"channels":["a"],"subs":{}}"#), ["a"]);
    assert_eq!(names(r#"{"channels":["a"],"subs":{"b":null,"":{}}}"#), ["b"]);
    let subs = channels(
        r#"{"subs":{"one":{"info":{"i":1},"data":{"d":1},"override":{"presence":{"value":true},"force_recovery":{},
           "join_leave":null}},"two":{"b64data":"eyJiIjoyfQ==","override":null}}}"#,
    );
    let one = &subs["one"];
    assert_eq!((&one.info[..], &one.data[..]), (&b"{\"i\":1}"[..], &b"{\"d\":1}"[..]));
    let overrides = Overrides { presence: Some(true), force_recovery: Some(false), ..Overrides::default() };
    assert_eq!(one.overrides, overrides);
    let two = ChannelClaims { data: "{\"b\":2}".into(), ..ChannelClaims::default() };
    assert_eq!(subs["two"], two);
}

#[test]
fn each_kind_of_token_is_refused_in_the_place_of_the_other() {
    let auth = with_secret();
    assert!(invalid(&auth, &signed("secret", r#"{"channel":"news"}"#)).contains("this is a subscription token"));
    assert!(user(&auth, &signed("secret", r#"{"sub":"42","channel":""}"#)).is_ok());
    assert!(user(&auth, &signed("secret", r#"{"sub":"42","channel":null}"#)).is_ok());
    for claims in [r#"{"sub":"42"}"#, r#"{"sub":"42","channel":""}"#, r#"{"sub":"42","channel":null}"#] {
        let refused = auth.subscription_token(&signed("secret", claims), NOW).expect_err(claims);
        assert!(refused.to_string().contains("there is no claim channel"), "{refused}");
    }
}

#[test]
fn subscription_tokens_say_for_whom_they_are() {
    let auth = with_secret();
    let claims = r#"{"sub":"42","channel":"$x","client":"c","info":{"i":1},"data":2,"exp":1000060}"#;
    let accepted = auth.subscription_token(&signed("secret", claims), NOW).expect("accepted");
    let subscription = ChannelClaims { info: "{\"i\":1}".into(), data: "2".into(), ..ChannelClaims::default() };
    let expected = SubscriptionClaims {
        channel: "$x".into(),
        user: "42".into(),
        client: Some("c".into()),
        subscription,
        expire_at: Some(UnixSeconds(1_000_060)),
    };
    assert_eq!(accepted, expected);
    for claims in [r#"{"channel":"x","client":""}"#, r#"{"channel":"x","client":null,"channels":5,"meta":5}"#] {
        let accepted = auth.subscription_token(&signed("secret", claims), NOW).expect(claims);
        assert_eq!((accepted.client, accepted.user.as_str()), (None, ""));
    }
    assert!(auth.subscription_token(&signed("secret", r#"{"channel":"x","client":5}"#), NOW).is_err());
}

#[test]
fn audience_and_issuer_are_asked_for_by_name_or_pattern() {
    let some = |text: &str| Some(text.to_owned());
    let audience = TokenOptions { audience: some("chat"), ..Default::default() };
    let audience_regex = TokenOptions { audience_regex: some("^chat-[0-9]+$"), ..Default::default() };
    let any_audience = TokenOptions { audience_regex: some("x*"), ..Default::default() };
    let issuer = TokenOptions { issuer: some("auth"), ..Default::default() };
    let issuer_regex = TokenOptions { issuer_regex: some("auth"), ..Default::default() };
    let any_issuer = TokenOptions { issuer_regex: some("x*"), ..Default::default() };
    for (options, claims, fine) in [
        (&audience, r#"{"aud":"chat"}"#, true),
        (&audience, r#"{"aud":["shop","chat"]}"#, true),
        (&audience, r#"{"aud":"Chat"}"#, false),
        (&audience, r#"{"aud":[]}"#, false),
        (&audience, r#"{}"#, false),
        (&audience_regex, r#"{"aud":"chat-7"}"#, true),
        (&audience_regex, r#"{"aud":["a","chat-7"]}"#, true),
        (&audience_regex, r#"{"aud":"chat-x"}"#, false),
        (&any_audience, r#"{"aud":""}"#, true),
        (&any_audience, r#"{}"#, false),
        (&issuer, r#"{"iss":"auth"}"#, true),
        (&issuer, r#"{"iss":"other"}"#, false),
        (&issuer, r#"{}"#, false),
        (&issuer_regex, r#"{"iss":"my-auth-1"}"#, true),
        (&issuer_regex, r#"{}"#, false),
        (&any_issuer, r#"{}"#, true),
    ] {
        let auth = with_options(|token| {
            *token = TokenOptions { hmac_secret_key: Some(Secret::new("secret")), ..options.clone() };
        });
        assert_eq!(user(&auth, &signed("secret", claims)).is_ok(), fine, "{claims} for {options:?}");
        let subscription = claims.replacen('{', r#"{"channel":"x","#, 1).replace(",}", "}");
        let checked = auth.subscription_token(&signed("secret", &subscription), NOW);
        assert_eq!(checked.is_ok(), fine, "{subscription} for {options:?}");
    }
    let auth = with_options(|token| {
        token.hmac_secret_key = Some(Secret::new("secret"));
        token.issuer = some("auth");
    });
    let why = invalid(&auth, &signed("secret", r#"{"iss":"other"}"#));
    assert_eq!(why, "claim iss is \"other\", and client.token.issuer asks for \"auth\"");
}

#[test]
fn the_user_may_be_in_another_claim() {
    let auth = with_options(|options| {
        options.hmac_secret_key = Some(Secret::new("secret"));
        options.user_id_claim = Some("uid".into());
    });
    for (claims, expected) in [
        (r#"{"uid":"42","sub":"ignored"}"#, Some("42")),
        (r#"{"sub":"42"}"#, Some("")),
        (r#"{"uid":null}"#, Some("")),
        (r#"{"uid":5}"#, Some("5")),
        (r#"{"uid":12345678901234567890123}"#, Some("12345678901234567890123")),
        // The reference takes the JSON text of these for the user.
        (r#"{"uid":["a"]}"#, None),
        (r#"{"uid":true}"#, None),
        (r#"{"uid":"q","sub":5}"#, None),
    ] {
        let accepted = user(&auth, &signed("secret", claims)).ok();
        assert_eq!(accepted.as_ref().map(UserId::as_str), expected, "{claims}");
    }
}

// === who a connection is ===

#[test]
fn what_a_connect_means_follows_from_token_header_and_options() {
    type Change = fn(&mut Client);
    let none: Change = |_| ();
    let anonymous: Change = |client| client.allow_anonymous_connect_without_token = true;
    let insecure: Change = |client| client.insecure = true;
    let strict: Change = |client| client.disallow_anonymous_connection_tokens = true;
    let header: Change = |client| client.user_id_http_header = Some("X-User".into());
    let header_and_anonymous: Change = |client| {
        client.user_id_http_header = Some("X-User".into());
        client.allow_anonymous_connect_without_token = true;
    };
    let header_and_insecure: Change = |client| {
        client.user_id_http_header = Some("X-User".into());
        client.insecure = true;
    };
    let good = signed("secret", r#"{"sub":"42","exp":1000060}"#);
    let nobody = signed("secret", r#"{"info":{}}"#);
    let expired = signed("secret", r#"{"sub":"42","exp":5}"#);
    let early = signed("secret", r#"{"sub":"42","nbf":1000600}"#);
    let over = signed("secret", r#"{"sub":"42","exp":1000060,"expire_at":1000000}"#);
    let wrong = signed("other", r#"{"sub":"42"}"#);

    let refused = |failure| Err(failure);
    let error = |error| refused(Failure::Error(error));
    let close = |disconnect| refused(Failure::Disconnect(disconnect));
    let let_in = |user: &'static str, source, expires: bool| Ok((user, source, expires));
    use IdentitySource::{Anonymous, Header, Token};
    let rows = [
        (none, "", None, close(Disconnect::BAD_REQUEST)),
        (none, "", Some("7"), close(Disconnect::BAD_REQUEST)),
        (none, &*good, None, let_in("42", Token, true)),
        (none, &*nobody, None, let_in("", Token, false)),
        (none, &*expired, None, error(ClientError::TokenExpired)),
        (none, &*early, None, error(ClientError::TokenExpired)),
        (none, &*over, None, error(ClientError::Expired)),
        (none, &*wrong, None, close(Disconnect::INVALID_TOKEN)),
        (none, "invalid", None, close(Disconnect::INVALID_TOKEN)),
        (anonymous, "", None, let_in("", Anonymous, false)),
        (anonymous, &*wrong, None, close(Disconnect::INVALID_TOKEN)),
        (strict, &*nobody, None, close(Disconnect::PERMISSION_DENIED)),
        (strict, &*good, None, let_in("42", Token, true)),
        (insecure, "", None, let_in("", Anonymous, false)),
        (insecure, &*good, None, let_in("42", Token, false)),
        (insecure, &*over, None, let_in("42", Token, false)),
        (insecure, &*expired, None, error(ClientError::TokenExpired)),
        (insecure, &*wrong, None, close(Disconnect::INVALID_TOKEN)),
        (header, "", Some("7"), let_in("7", Header, false)),
        (header, "", Some(""), close(Disconnect::BAD_REQUEST)),
        (header, "", None, close(Disconnect::BAD_REQUEST)),
        (header, &*good, Some("7"), let_in("42", Token, true)),
        (header, &*nobody, Some("7"), let_in("", Token, false)),
        (header, &*wrong, Some("7"), close(Disconnect::INVALID_TOKEN)),
        // The reference takes these two for anonymous.
        (header_and_anonymous, "", Some("7"), let_in("7", Header, false)),
        (header_and_insecure, "", Some("7"), let_in("7", Header, false)),
        (header_and_anonymous, "", Some(""), let_in("", Anonymous, false)),
    ];
    for (row, (change, token, header_user, expected)) in rows.into_iter().enumerate() {
        let mut client = Client::default();
        client.token.hmac_secret_key = Some(Secret::new("secret"));
        change(&mut client);
        let auth = Authenticator::new(&client).expect("compiles");
        let request = ConnectRequest { token: token.into(), ..ConnectRequest::default() };
        let decided = auth.connect(&request, header_user, NOW);
        let seen = match &decided {
            Ok(identity) => Ok((identity.user.as_str(), identity.source, identity.expire_at.is_some())),
            Err(refusal) => Err(Failure::from(refusal)),
        };
        assert_eq!(seen, expected, "row {row}");
    }
}

#[test]
fn emulated_headers_name_nobody() {
    let client = Client { user_id_http_header: Some("X-User-Id".into()), ..Client::default() };
    let auth = Authenticator::new(&client).expect("compiles");
    let headers = [("X-User-Id".to_owned(), "77".to_owned())].into();
    let request = ConnectRequest { headers, ..ConnectRequest::default() };
    assert_eq!(auth.connect(&request, None, NOW), Err(ConnectRefusal::NoCredentials));
}

#[test]
fn a_refused_connect_names_the_option() {
    let auth = with_secret();
    let refusal = auth.connect(&ConnectRequest::default(), None, NOW).expect_err("refused").to_string();
    assert!(refusal.contains("client.allow_anonymous_connect_without_token"), "{refusal}");
    let request = ConnectRequest { token: signed("secret", r#"{"exp":999940}"#), ..ConnectRequest::default() };
    let refusal = auth.connect(&request, None, NOW).expect_err("refused").to_string();
    assert_eq!(refusal, "the connection token is not accepted: expired 60 s ago (claim exp)");
}

#[test]
fn a_new_token_refreshes_the_connection_of_the_same_user_with_the_same_channels() {
    let auth = with_secret();
    let error = |error| Some(Failure::Error(error));
    let close = |disconnect| Some(Failure::Disconnect(disconnect));
    for (claims, failure) in [
        (r#"{"sub":"42","channels":["one","two"],"exp":1000900}"#, None),
        (r#"{"sub":"42","channels":["two","one"]}"#, None),
        (r#"{"sub":"42","channels":["one"]}"#, close(Disconnect::INSUFFICIENT_STATE)),
        (r#"{"sub":"42","channels":["one","two","three"]}"#, close(Disconnect::INSUFFICIENT_STATE)),
        (r#"{"sub":"43","channels":["one","two"]}"#, close(Disconnect::INVALID_TOKEN)),
        (r#"{"channels":["one","two"]}"#, close(Disconnect::INVALID_TOKEN)),
        (r#"{"sub":"42","channels":["one","two"],"exp":5}"#, close(Disconnect::EXPIRED)),
        (r#"{"sub":"42","channels":["one","two"],"expire_at":1000000}"#, error(ClientError::Expired)),
    ] {
        let decided = auth.refresh(&signed("secret", claims), &UserId::from("42"), ["two", "one"], NOW);
        assert_eq!(decided.as_ref().err().map(Failure::from), failure, "{claims}");
    }
    let decided = auth.refresh(&signed("other", "{}"), &UserId::from("42"), [], NOW);
    assert_eq!(decided.as_ref().err().map(Failure::from), close(Disconnect::INVALID_TOKEN));
}

#[test]
fn a_new_token_refreshes_the_subscription_that_it_is_for() {
    let auth = with_secret();
    let error = |error| Some(Failure::Error(error));
    let close = || Some(Failure::Disconnect(Disconnect::INVALID_TOKEN));
    let client = ClientId(uuid::Uuid::from_u128(7));
    let refresh = |token: &str| {
        let decided = auth.sub_refresh(token, "news", &UserId::from("42"), client, NOW);
        decided.as_ref().err().map(Failure::from)
    };
    for (claims, failure) in [
        (r#"{"sub":"42","channel":"news","exp":1000900}"#, None),
        (r#"{"sub":"42","channel":"news","client":"00000000-0000-0000-0000-000000000007"}"#, None),
        (r#"{"sub":"42","channel":"news","client":"someone"}"#, close()),
        (r#"{"sub":"42","channel":"olds"}"#, close()),
        (r#"{"sub":"43","channel":"news"}"#, close()),
        (r#"{"sub":"42"}"#, close()),
        (r#"{"sub":"42","channel":"news","expire_at":1000000}"#, error(ClientError::Expired)),
        // The reference answers success here.
        (r#"{"sub":"42","channel":"news","exp":5}"#, error(ClientError::TokenExpired)),
    ] {
        assert_eq!(refresh(&signed("secret", claims)), failure, "{claims}");
    }
    assert_eq!(refresh(""), error(ClientError::BadRequest));
    assert_eq!(refresh(&signed("other", r#"{"sub":"42","channel":"news"}"#)), close());
}

// === the command line's questions ===

#[test]
fn tokens_made_here_are_accepted_here() {
    let mut client = Client::default();
    client.token.hmac_secret_key = Some(Secret::new("secret"));
    client.token.audience = Some("chat".into());
    client.token.issuer = Some("me".into());
    client.token.user_id_claim = Some("uid".into());
    let auth = Authenticator::new(&client).expect("compiles");
    let hour = Some(Duration::from_secs(3600));
    let connection = auth.create_connection_token("42", hour, NOW).expect("made");
    let accepted = auth.connection_token(&connection, NOW).expect("accepted");
    assert_eq!((accepted.user.as_str(), accepted.expire_at), ("42", Some(UnixSeconds(1_003_600))));
    let endless = auth.create_connection_token("", None, NOW).expect("made");
    let accepted = auth.connection_token(&endless, UnixSeconds(i64::MAX)).expect("accepted");
    assert_eq!((accepted.user.as_str(), accepted.expire_at), ("", None));
    let subscription = auth.create_subscription_token("42", "$x", hour, NOW).expect("made");
    let accepted = auth.subscription_token(&subscription, NOW).expect("accepted");
    assert_eq!((accepted.user.as_str(), &*accepted.channel), ("42", "$x"));

    client.subscription_token.enabled = true;
    let auth = Authenticator::new(&client).expect("compiles");
    let problem = auth.create_subscription_token("42", "$x", None, NOW).expect_err("no key");
    assert_eq!(problem.option, "client.subscription_token.hmac_secret_key");
}

#[test]
fn an_inspection_says_everything_that_is_wrong() {
    let mut client = Client::default();
    client.token.hmac_secret_key = Some(Secret::new("secret"));
    client.token.audience = Some("chat".into());
    let auth = Authenticator::new(&client).expect("compiles");
    let token = signed("other", r#"{"aud":"shop","exp":999940,"b64info":"%%"}"#);
    let inspection = auth.inspect(&token, NOW);
    assert!(!inspection.is_accepted());
    let page = inspection.to_string();
    let lines: Vec<&str> = page.lines().collect();
    assert_eq!(
        lines,
        [
            "connection token, checked with client.token",
            "header: {\"alg\":\"HS256\",\"typ\":\"JWT\"}",
            "claims: {\"aud\":\"shop\",\"exp\":999940,\"b64info\":\"%%\"}",
            "note: there is no claim sub: the connection is anonymous",
            "refused:",
            "- the HS256 signature is not of the configured key (tried client.token.hmac_secret_key)",
            "- claim aud is [\"shop\"], and client.token.audience asks for \"chat\"",
            "- expired 60 s ago (claim exp)",
            "- claim b64info is no standard base64 with padding: Invalid symbol 37, offset 0.",
        ]
    );
    let good = auth.create_connection_token("42", Some(Duration::from_secs(60)), NOW).expect("made");
    let inspection = auth.inspect(&format!(" {good}\n"), NOW);
    assert!(inspection.is_accepted());
    let page = inspection.to_string();
    assert!(page.ends_with("note: expires in 60 s (claim exp)\naccepted\n"), "{page}");
}

#[test]
fn an_inspection_tells_the_kinds_apart_and_survives_anything() {
    let auth = with_secret();
    let inspection = auth.inspect(&signed("secret", r#"{"sub":"42","channel":"x"}"#), NOW);
    assert_eq!((inspection.kind, inspection.is_accepted()), (TokenKind::Subscription, true));
    let inspection = auth.inspect("invalid", NOW);
    assert!(inspection.to_string().contains("- not a token: it must be three parts"));
    let inspection = auth.inspect(&signed("secret", "[\"\u{1b}[31m\"]"), NOW);
    assert!(!inspection.to_string().contains('\u{1b}'), "control characters do not reach the terminal");
    let inspection = auth.inspect(&signed("secret", r#"{"sub":5}"#), NOW);
    assert_eq!(inspection.problems.len(), 1, "{inspection}");
}

#[test]
fn an_inspection_knows_what_refuses_an_accepted_token() {
    let mut client = Client { disallow_anonymous_connection_tokens: true, ..Client::default() };
    client.token.hmac_secret_key = Some(Secret::new("secret"));
    let auth = Authenticator::new(&client).expect("compiles");
    for (claims, why) in [
        ("{}", "client.disallow_anonymous_connection_tokens"),
        (r#"{"sub":"42","expire_at":5}"#, "expire_at has passed"),
        (r#"{"sub":"42","channel":"x","expire_at":5}"#, "expire_at has passed"),
    ] {
        let inspection = auth.inspect(&signed("secret", claims), NOW);
        assert!(inspection.problems.len() == 1 && inspection.problems[0].contains(why), "{inspection}");
    }
}

#[test]
fn depth_is_no_danger() {
    let auth = with_secret();
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let info = auth.connection_token(&signed("secret", &format!(r#"{{"sub":"42","info":{deep}}}"#)), NOW);
    assert_eq!(info.map(|claims| claims.info.len()), Ok(40_000));
    for claims in [format!(r#"{{"x":{deep}}}"#), format!(r#"{{"aud":{deep}}}"#), format!(r#"{{"exp":{deep}}}"#)] {
        let token = signed("secret", &claims);
        let accepted = auth.connection_token(&token, NOW).is_ok();
        assert_eq!(auth.inspect(&token, NOW).is_accepted(), accepted);
    }
}

#[test]
fn debug_output_has_no_secrets() {
    let auth = with_options(|options| options.hmac_secret_key = Some(Secret::new("hush-hush")));
    let shown = format!("{auth:?}");
    assert!(!shown.contains("hush") && !shown.contains("104, 117"), "{shown}");
}

// === hostile input ===

proptest! {
    #[test]
    fn no_text_makes_the_check_panic(token in "(?s).{0,200}") {
        let auth = with_secret();
        prop_assert!(auth.connection_token(&token, NOW).is_err());
        prop_assert!(auth.subscription_token(&token, NOW).is_err());
        prop_assert!(!auth.inspect(&token, NOW).is_accepted());
    }

    #[test]
    fn no_header_or_claims_make_the_check_panic(header in "(?s).{0,60}", claims in json_like()) {
        let auth = with_secret();
        let skipping =
            Client { insecure_skip_token_signature_verify: true, ..Client::default() };
        let skipping = Authenticator::new(&skipping).expect("compiles");
        for token in [signed("secret", &claims), signed_with_header(&header, "secret", &claims)] {
            for auth in [&auth, &skipping] {
                let request = ConnectRequest { token: token.clone(), ..ConnectRequest::default() };
                let connects = auth.connect(&request, None, NOW).is_ok();
                let subscription = auth.subscription_token(&token, NOW);
                let subscribes = subscription.is_ok_and(|claims| claims.expire_at.is_none_or(|end| end > NOW));
                let accepted = connects || subscribes;
                prop_assert_eq!(auth.inspect(&token, NOW).is_accepted(), accepted, "{}", auth.inspect(&token, NOW));
            }
        }
    }

    #[test]
    fn a_changed_token_is_never_accepted(at in any::<prop::sample::Index>(), by in 1_u8..128) {
        let auth = with_secret();
        let mut token = signed("secret", r#"{"sub":"42"}"#).into_bytes();
        let at = at.index(token.len());
        token[at] = (token[at] ^ by) & 0x7f;
        let token = String::from_utf8(token).expect("ASCII");
        // The last character of a part may have bits that do not count; the decoder refuses those too.
        prop_assert!(auth.connection_token(&token, NOW).is_err(), "{}", token);
    }
}

/// Objects with the claims that the server reads, of every type, nested, and sometimes broken.
fn json_like() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        Just("1e400".to_owned()),
        "\"[a-z%=/+]{0,6}\"",
        Just("\"\\ud800\"".to_owned()),
    ];
    let value = scalar.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((name(), inner), 0..4).prop_map(object),
        ]
    });
    (prop::collection::vec((name(), value), 0..5).prop_map(object), 0..8_usize).prop_map(|(mut text, cut)| {
        if cut == 7 {
            text.pop();
        }
        text
    })
}

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "sub",
        "exp",
        "nbf",
        "iat",
        "aud",
        "iss",
        "jti",
        "info",
        "b64info",
        "data",
        "b64data",
        "meta",
        "channel",
        "channels",
        "subs",
        "override",
        "presence",
        "value",
        "expire_at",
        "client",
        "x",
    ])
}

fn object(members: Vec<(&'static str, String)>) -> String {
    let members: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

// === making tokens and authenticators ===

fn with_secret() -> Authenticator {
    with_options(|options| options.hmac_secret_key = Some(Secret::new("secret")))
}

fn with_options(edit: impl FnOnce(&mut TokenOptions)) -> Authenticator {
    let mut client = Client::default();
    edit(&mut client.token);
    Authenticator::new(&client).expect("compiles")
}

fn signed(secret: &str, claims: &str) -> String {
    signed_with_header(r#"{"alg":"HS256","typ":"JWT"}"#, secret, claims)
}

fn signed_with_header(header: &str, secret: &str, claims: &str) -> String {
    let message = create::message(header, claims);
    let key = EncodingKey::from_secret(secret.as_bytes());
    format!("{message}.{}", crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("signs"))
}

fn signed_by_curve(pair: &KeyPair, algorithm: &str) -> String {
    let message = create::message(&format!(r#"{{"alg":"{algorithm}"}}"#), r#"{"sub":"42"}"#);
    let der_key = || EncodingKey::from_ec_der(&pair.serialize_der());
    let signature = match algorithm {
        "ES256" => crypto::sign(message.as_bytes(), &der_key(), Algorithm::ES256).expect("signs"),
        "ES384" => crypto::sign(message.as_bytes(), &der_key(), Algorithm::ES384).expect("signs"),
        _ => {
            let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P521_SHA512_FIXED_SIGNING, &pair.serialize_der()).expect("a key");
            BASE64_URL_SAFE_NO_PAD.encode(key.sign(&SystemRandom::new(), message.as_bytes()).expect("signs"))
        }
    };
    format!("{message}.{signature}")
}

fn flip_first(text: &str) -> String {
    let first = if text.starts_with('A') { "B" } else { "A" };
    format!("{first}{}", &text[1..])
}

/// The user of an accepted connection token.
fn user(auth: &Authenticator, token: &str) -> Result<UserId, TokenRefusal> {
    auth.connection_token(token, NOW).map(|claims| claims.user)
}

/// Why a connection token is invalid.
fn invalid(auth: &Authenticator, token: &str) -> String {
    match auth.connection_token(token, NOW) {
        Err(TokenRefusal::Invalid(why)) => why,
        other => panic!("{token} is not invalid: {other:?}"),
    }
}
