//! Two servers on one real Redis: what either accepts reaches the clients of both, also after Redis was away.

mod redis_support;
mod support;

use std::time::Duration;

use redis_support::RedisServer;
use serde_json::{Value, json};
use support::{Client, Event, Protocol, SOON, Server, http::Call, soon, until};
use tokio::time::timeout;

async fn node(redis: &RedisServer, name: &str) -> Server {
    let config = json!({
        "node": { "name": name },
        "engine": { "type": "redis", "redis": { "address": redis.address() } },
    });
    Server::start(config).await
}

async fn is_ready(server: &Server) -> bool {
    Call::get(server.port, "/health/ready").send().await.status == 200
}

/// Two nodes that are ready and know each other.
async fn pair(redis: &RedisServer) -> [Server; 2] {
    let nodes = [node(redis, "one").await, node(redis, "two").await];
    for node in &nodes {
        until("readiness", async || is_ready(node).await).await;
        node.counts("centrifugo_node_num_nodes", 2.0).await;
    }
    nodes
}

async fn subscribed(server: &Server, protocol: Protocol, channel: &str) -> Client {
    let mut client = server.dial().protocol(protocol).connect().await;
    client.subscribe(channel).await;
    client
}

/// A client of each protocol on each node.
async fn clients(nodes: &[Server], channel: &str) -> Vec<Client> {
    let mut clients = Vec::new();
    for node in nodes {
        for protocol in [Protocol::Json, Protocol::Protobuf] {
            clients.push(subscribed(node, protocol, channel).await);
        }
    }
    clients
}

/// Publishes by each node until each client gets one, and takes all that was published: delivery works.
async fn delivery_works(nodes: &[Server], clients: &mut [Client], channel: &str) {
    for (number, node) in nodes.iter().enumerate() {
        let mut attempt = 0;
        for client in &mut *clients {
            until("delivery", async || {
                attempt += 1;
                let mark = format!("again-{number}-{attempt}");
                // Failures are what is to end.
                node.try_api("publish", json!({ "channel": channel, "data": mark })).await;
                let mark = json!(mark).to_string();
                let got_it = async { while client.publication().await.1 != mark {} };
                timeout(Duration::from_millis(500), got_it).await.is_ok()
            })
            .await;
        }
    }
    nodes[0].publish(channel, json!("settled")).await;
    for client in clients {
        soon("what is under way", async { while client.publication().await.1 != "\"settled\"" {} }).await;
    }
}

#[tokio::test]
async fn a_publication_accepted_by_either_node_reaches_the_subscribers_of_both_in_order() {
    let redis = RedisServer::start().await;
    let nodes = pair(&redis).await;
    let mut clients = clients(&nodes, "news").await;
    for (number, node) in nodes.iter().enumerate() {
        for count in 0..200 {
            node.publish("news", json!({ "node": number, "count": count })).await;
        }
    }
    for client in &mut clients {
        for number in 0..2 {
            for count in 0..200 {
                let (channel, data) = client.publication().await;
                let data: Value = serde_json::from_slice(&data).unwrap();
                assert_eq!((channel.as_str(), data), ("news", json!({ "node": number, "count": count })));
            }
        }
    }

    // Clients publish, too; the publisher's own copy may come after its reply.
    let publisher = clients.len() - 1;
    for count in 0..50 {
        clients[publisher].publish("news", format!("{count}").as_bytes()).await;
    }
    for client in &mut clients {
        for count in 0..50 {
            assert_eq!(client.publication().await.1, count.to_string());
        }
    }
}

#[tokio::test]
async fn channels_of_one_node_only_and_of_nobody_are_told_apart() {
    let redis = RedisServer::start().await;
    let [one, two] = pair(&redis).await;
    let mut here = subscribed(&one, Protocol::Json, "here").await;
    let mut there = subscribed(&two, Protocol::Json, "there").await;
    one.publish("there", json!("by one")).await;
    two.publish("here", json!("by two")).await;
    one.publish("nowhere", json!("unheard")).await;
    assert_eq!(there.publication().await, ("there".into(), "\"by one\"".into()));
    assert_eq!(here.publication().await, ("here".into(), "\"by two\"".into()));

    // After the last subscriber has left and the next has come, the channel is received again.
    here.unsubscribe("here").await;
    two.publish("here", json!("between")).await;
    here.subscribe("here").await;
    two.publish("here", json!("heard")).await;
    let mut data = here.publication().await.1;
    if data == "\"between\"" {
        // It was still on its way when the subscription began, which is late but no fault.
        data = here.publication().await.1;
    }
    assert_eq!(data, "\"heard\"");
}

#[tokio::test]
async fn delivery_is_back_after_redis_was_killed_and_nobody_was_disconnected() {
    let mut redis = RedisServer::start().await;
    let nodes = pair(&redis).await;
    let mut clients = clients(&nodes, "news").await;
    delivery_works(&nodes, &mut clients, "news").await;

    for _ in 0..2 {
        redis.kill().await;
        for node in &nodes {
            until("a word of the outage", async || !is_ready(node).await).await;
            let health = Call::get(node.port, "/health").send().await;
            assert_eq!(health.status, 200, "the node lives");
            let answer = node.try_api("publish", json!({ "channel": "news", "data": "lost" })).await;
            assert_eq!(answer["error"]["code"], 100, "{answer}");
        }
        redis.restart().await;
        delivery_works(&nodes, &mut clients, "news").await;
        for node in &nodes {
            until("readiness", async || is_ready(node).await).await;
        }
    }
    // Also for those who come now.
    let mut late = subscribed(&nodes[1], Protocol::Json, "late").await;
    nodes[0].publish("late", json!("hello")).await;
    assert_eq!(late.publication().await.1, "\"hello\"");
}

#[tokio::test]
async fn a_node_starts_without_redis_says_so_and_works_once_redis_is_there() {
    let mut redis = RedisServer::absent();
    let nodes = [node(&redis, "one").await, node(&redis, "two").await];
    for node in &nodes {
        assert_eq!(Call::get(node.port, "/health").send().await.status, 200);
        let ready = Call::get(node.port, "/health/ready").send().await;
        assert_eq!(ready.status, 503);
        assert!(ready.text().contains("redis"), "{}", ready.text());
    }
    let mut early = nodes[0].dial().connect().await;
    let id = early.send_subscribe("news").await;
    assert_eq!(early.reply(id).await, Some(100), "the SDK tries again");

    redis.restart().await;
    for node in &nodes {
        until("readiness", async || is_ready(node).await).await;
    }
    early.subscribe("news").await;
    let mut clients = clients(&nodes, "news").await;
    clients.push(early);
    delivery_works(&nodes, &mut clients, "news").await;
}

#[tokio::test]
async fn info_and_channels_cover_both_nodes() {
    let redis = RedisServer::start().await;
    let nodes = pair(&redis).await;
    let _shared = clients(&nodes, "shared").await;
    let _own = subscribed(&nodes[1], Protocol::Json, "own").await;
    for node in &nodes {
        // What other nodes tell about themselves is some seconds old.
        until("what both nodes hold", async || {
            let info = node.api("info", json!({})).await;
            let mut clients: Vec<_> = info["nodes"].as_array().unwrap().iter().map(clients_of).collect();
            clients.sort();
            clients == [("one".to_owned(), 2), ("two".to_owned(), 3)]
        })
        .await;
        let channels = node.api("channels", json!({})).await;
        let expected = json!({ "channels": { "shared": { "num_clients": 4 }, "own": { "num_clients": 1 } } });
        assert_eq!(channels, expected);
        let channels = node.api("channels", json!({ "pattern": "o*" })).await;
        assert_eq!(channels, json!({ "channels": { "own": { "num_clients": 1 } } }));
    }
}

fn clients_of(node: &Value) -> (String, u64) {
    (node["name"].as_str().unwrap().to_owned(), node["num_clients"].as_u64().unwrap())
}

#[tokio::test]
async fn a_user_is_unsubscribed_and_disconnected_on_the_other_node() {
    let redis = RedisServer::start().await;
    let [one, two] = pair(&redis).await;
    let mut target = two.dial().user("42").connect().await;
    target.subscribe("news").await;
    let mut other = two.dial().user("43").connect().await;
    other.subscribe("news").await;

    one.api("unsubscribe", json!({ "user": "42", "channel": "news" })).await;
    assert_eq!(target.event().await, Event::Unsubscribed { channel: "news".into(), code: 2000 });
    one.publish("news", json!("for others")).await;
    assert_eq!(other.publication().await.1, "\"for others\"");

    one.api("disconnect", json!({ "user": "42" })).await;
    assert_eq!(target.event().await, Event::closed(3503, "force disconnect"));
    let disconnect = json!({ "code": 4002, "reason": "moved" });
    one.api("disconnect", json!({ "user": "43", "disconnect": disconnect })).await;
    assert_eq!(other.event().await, Event::closed(4002, "moved"));
}

async fn knows(server: &Server) -> usize {
    server.api("info", json!({})).await["nodes"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_node_that_stops_is_forgotten_and_one_that_dies_too() {
    let redis = RedisServer::start().await;
    let [one, mut two] = pair(&redis).await;
    assert_eq!(knows(&one).await, 2);
    two.terminate();
    assert_eq!(two.ended().await, Some(0));
    until("the farewell", async || knows(&one).await == 1).await;

    let mut three = node(&redis, "three").await;
    until("the third node", async || knows(&one).await == 2).await;
    three.kill().await;
    // Without a farewell it is missed after 7 to 16 seconds.
    timeout(SOON, async { until("the end of the third node", async || knows(&one).await == 1).await }).await.unwrap();
    // What it held is not asked for any more.
    assert_eq!(one.api("channels", json!({})).await, json!({ "channels": {} }));
}

#[tokio::test]
async fn a_node_that_comes_back_takes_part_again() {
    let redis = RedisServer::start().await;
    let [one, mut two] = pair(&redis).await;
    let mut client = subscribed(&one, Protocol::Json, "news").await;
    two.kill().await;
    let again = node(&redis, "two").await;
    until("readiness", async || is_ready(&again).await).await;
    again.publish("news", json!("back")).await;
    assert_eq!(client.publication().await.1, "\"back\"");
}
