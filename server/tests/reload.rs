//! SIGHUP: the configuration is read again, for whoever comes and for whoever is there, and nobody is disconnected.

mod support;

use rustix::process::Signal;
use serde_json::json;
use support::{Event, Server, http::Call};

const DONE: &str = "the configuration was read again";
const REFUSED: &str = "the old one stays in force";

#[tokio::test]
async fn new_channel_rules_hold_for_open_connections_which_stay_open() {
    let server = Server::start(json!({})).await;
    let mut client = server.dial().connect().await;
    client.subscribe("news").await;
    let id = client.send_subscribe("chat:room").await;
    assert_eq!(client.reply(id).await, Some(102), "no such namespace yet");
    let answer = server.try_api("publish", json!({ "channel": "chat:room", "data": 1 })).await;
    assert_eq!(answer["error"]["code"], 102, "{answer}");

    let namespace =
        json!({ "name": "chat", "allow_subscribe_for_client": true, "allow_subscribe_for_anonymous": true });
    server.reconfigure(json!({ "channel": { "namespaces": [namespace] } }));
    server.signal(Signal::HUP);
    server.says(DONE).await;

    client.subscribe("chat:room").await;
    server.publish("chat:room", json!("for the new one")).await;
    assert_eq!(client.publication().await.1, "\"for the new one\"");
    server.publish("news", json!("for the old one")).await;
    assert_eq!(client.publication().await.1, "\"for the old one\"");
    client.close().await;
}

#[tokio::test]
async fn tokens_of_another_key_are_refused_from_then_on_and_who_is_there_stays() {
    let server = Server::start(json!({})).await;
    let mut there = server.dial().user("42").connect().await;
    there.subscribe("news").await;

    server.reconfigure(json!({ "client": { "token": { "hmac_secret_key": "another secret" } } }));
    server.signal(Signal::HUP);
    server.says(DONE).await;

    let mut late = server.dial().open().await;
    late.send_connect(&support::token("42")).await;
    assert_eq!(late.event().await, Event::closed(3500, "invalid token"));
    server.publish("news", json!("still here")).await;
    assert_eq!(there.publication().await.1, "\"still here\"");
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_changes_nothing_and_is_said() {
    let server = Server::start(json!({})).await;
    let mut client = server.dial().connect().await;
    for (number, wrong) in [
        json!({ "clientt": {} }),
        json!({ "client": { "ping_interval": "soon" } }),
        json!({ "client": { "token": { "rsa_public_key": "no key" } } }),
    ]
    .into_iter()
    .enumerate()
    {
        server.reconfigure(wrong);
        server.signal(Signal::HUP);
        support::until("a refusal", async || server.log().matches(REFUSED).count() > number).await;
    }
    std::fs::write(server.folder().join("config.json"), "no JSON").unwrap();
    server.signal(Signal::HUP);
    support::until("a refusal", async || server.log().matches(REFUSED).count() > 3).await;
    assert!(!server.log().contains(DONE), "{}", server.log());
    client.subscribe("news").await;
    server.dial().user("42").connect().await.close().await;

    // And the next one that can be used is.
    server.reconfigure(json!({}));
    server.signal(Signal::HUP);
    server.says(DONE).await;
    client.close().await;
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_stays_as_it_was() {
    let server = Server::start(json!({})).await;
    server.reconfigure(json!({ "http_api": { "key": "another key" }, "health": { "enabled": false } }));
    server.signal(Signal::HUP);
    server.says("need a restart").await;
    for option in ["http_api.key", "health.enabled"] {
        assert!(server.log().contains(option), "{option}: {}", server.log());
    }
    assert_eq!(Call::get(server.port, "/health").send().await.status, 200);
    server.publish("news", json!("with the old key")).await;
}
