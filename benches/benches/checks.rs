//! What a client may do: tokens and permissions.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use starling_server::{
    auth::{Authenticator, UnixSeconds},
    config::Config,
    names::{ClientId, UserId},
    namespace::{Namespaces, Subject, TokenVerdict},
    session::protocol::SubscribeRequest,
};

const NOW: UnixSeconds = UnixSeconds(1_790_000_000);

fn tokens(criterion: &mut Criterion) {
    let secret = "a secret of thirty-two characters";
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key pair");
    let config = json!({ "client": { "token": {
        "hmac_secret_key": secret,
        "ecdsa_public_key": pair.public_key_pem(),
    } } });
    let config = Config::from_json(&config.to_string()).expect("a configuration");
    let authenticator = Authenticator::new(&config.client).expect("keys");
    let claims = json!({ "sub": "user-42", "exp": NOW.0 + 3600, "info": { "name": "Alice" } });

    let mut group = criterion.benchmark_group("check a connection token");
    for (algorithm, key) in [
        (Algorithm::HS256, EncodingKey::from_secret(secret.as_bytes())),
        (Algorithm::ES256, EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("a private key")),
    ] {
        let token = jsonwebtoken::encode(&Header::new(algorithm), &claims, &key).expect("a token");
        authenticator.connection_token(&token, NOW).expect("the token is valid");
        group.bench_function(format!("{algorithm:?}"), |bencher| {
            bencher.iter(|| authenticator.connection_token(black_box(&token), NOW));
        });
    }
    group.finish();
}

fn permissions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("check a permission");
    for count in [1, 50] {
        let namespaces: Vec<_> = (0..count)
            .map(|number| {
                json!({
                    "name": format!("space{number}"),
                    "allow_subscribe_for_client": true,
                    "allow_publish_for_subscriber": true,
                })
            })
            .collect();
        let config = json!({ "channel": { "namespaces": namespaces } });
        let config = Config::from_json(&config.to_string()).expect("a configuration");
        let namespaces = Namespaces::new(&config.channel, &config.client).expect("rules");
        let user = UserId::from("user-42");
        let who = Subject { user: &user, client: ClientId::random(), subscribed: true };
        let channel = format!("space{}:room-17", count - 1);
        let request = SubscribeRequest { channel: channel.clone(), ..SubscribeRequest::default() };

        assert!(namespaces.may_subscribe(who, &request, TokenVerdict::Absent, NOW).is_ok());
        group.bench_function(BenchmarkId::new("subscribe, namespaces", count), |bencher| {
            bencher.iter(|| namespaces.may_subscribe(who, black_box(&request), TokenVerdict::Absent, NOW));
        });
        assert!(namespaces.may_publish(who, &channel, b"{}").is_ok());
        group.bench_function(BenchmarkId::new("publish, namespaces", count), |bencher| {
            bencher.iter(|| namespaces.may_publish(who, black_box(&channel), b"{}"));
        });
    }
    group.finish();
}

criterion_group!(benches, tokens, permissions);
criterion_main!(benches);
