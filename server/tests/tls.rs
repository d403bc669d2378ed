//! TLS on the listeners, and certificates that are replaced while the server runs.

mod support;

use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use starling_proto::api::{self, centrifugo_api_client::CentrifugoApiClient};
use support::{
    Event, Protocol, Server,
    http::Call,
    replace,
    tls::{Pair, Trust},
    until,
};
use tempfile::TempDir;
use tonic::{
    Request,
    transport::{Certificate, Channel, ClientTlsConfig},
};

fn folder_with(pair: &Pair) -> TempDir {
    let folder = TempDir::new().unwrap();
    pair.write(folder.path());
    folder
}

fn options(folder: &TempDir) -> Value {
    json!({
        "enabled": true,
        "cert_pem": folder.path().join("cert.pem"),
        "key_pem": folder.path().join("key.pem"),
    })
}

async fn start(pair: &Pair) -> Server {
    let folder = folder_with(pair);
    let tls = options(&folder);
    Server::start_in(folder, json!({ "http_server": { "tls": tls } })).await
}

async fn until_shown(server: &Server, trust: &Trust, certificate: &CertificateDer<'_>) {
    until("the certificate", async || trust.shown(server.port).await.is_ok_and(|shown| shown == *certificate)).await;
}

fn publish(server: &Server, trust: &Trust, data: &str) -> Call {
    let body = json!({ "channel": "news", "data": data }).to_string();
    Call::post(server.port, "/api/publish", body).key().tls(trust)
}

#[tokio::test]
async fn clients_and_the_api_are_served_over_tls() {
    let pair = Pair::new();
    let server = start(&pair).await;
    let trust = Trust::in_any_of(&[&pair]);
    for protocol in [Protocol::Json, Protocol::Protobuf] {
        let mut client = server.dial().protocol(protocol).tls(&trust).connect().await;
        client.subscribe("news").await;
        assert_eq!(publish(&server, &trust, "hello").send().await.text(), r#"{"result":{}}"#);
        assert_eq!(client.publication().await, ("news".into(), r#""hello""#.into()));
        client.publish("news", br#""from a client""#).await;
        assert_eq!(client.publication().await, ("news".into(), r#""from a client""#.into()));
        client.close().await;
    }
    assert_eq!(Call::get(server.port, "/health").tls(&trust).send().await.status, 200);
}

#[tokio::test]
async fn large_messages_pass_both_ways_over_tls() {
    let pair = Pair::new();
    let folder = folder_with(&pair);
    let config = json!({
        "http_server": { "tls": options(&folder) },
        "websocket": { "message_size_limit": 1_000_000 },
    });
    let server = Server::start_in(folder, config).await;
    let mut client = server.dial().tls(&Trust::in_any_of(&[&pair])).connect().await;
    client.subscribe("news").await;
    for length in [10_000, 16_384, 70_000, 600_000] {
        let data = json!("x".repeat(length)).to_string();
        client.publish("news", data.as_bytes()).await;
        assert_eq!(client.publication().await.1, data);
    }
    client.close().await;
}

#[tokio::test]
async fn who_does_not_speak_tls_is_not_served_and_harms_nobody() {
    let pair = Pair::new();
    let server = start(&pair).await;
    assert!(server.dial().handshake().await.is_err());
    let trust = Trust::in_any_of(&[&pair]);
    server.dial().tls(&trust).connect().await.close().await;
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_new_connections_while_open_ones_live_on() {
    let (old, new) = (Pair::new(), Pair::new());
    let server = start(&old).await;
    let trust = Trust::in_any_of(&[&old, &new]);
    let mut open = server.dial().tls(&trust).connect().await;
    open.subscribe("news").await;
    until_shown(&server, &trust, &old.der).await;

    replace(&server.folder().join("cert.pem"), &new.certificate);
    replace(&server.folder().join("key.pem"), &new.key);
    until_shown(&server, &trust, &new.der).await;

    publish(&server, &trust, "still here").send().await;
    assert_eq!(open.publication().await.1, r#""still here""#);
    open.publish("news", br#""both ways""#).await;
    assert_eq!(open.publication().await.1, r#""both ways""#);
    open.close().await;
}

#[tokio::test]
async fn a_wrong_pair_at_run_time_leaves_the_old_one_in_force_and_is_said() {
    let (old, new) = (Pair::new(), Pair::new());
    let server = start(&old).await;
    let trust = Trust::in_any_of(&[&old, &new]);

    replace(&server.folder().join("cert.pem"), &new.certificate);
    server.says("the old ones stay in force").await;
    assert!(server.log().contains("http_server.tls.key_pem"), "{}", server.log());
    assert_eq!(trust.shown(server.port).await.unwrap(), old.der);
    server.dial().tls(&trust).connect().await.close().await;

    replace(&server.folder().join("key.pem"), &new.key);
    until_shown(&server, &trust, &new.der).await;
}

#[tokio::test]
async fn a_missing_file_at_run_time_leaves_the_old_one_in_force() {
    let pair = Pair::new();
    let server = start(&pair).await;
    std::fs::remove_file(server.folder().join("cert.pem")).unwrap();
    server.says("the old ones stay in force").await;
    server.dial().tls(&Trust::in_any_of(&[&pair])).connect().await.close().await;
}

/// The words of a server that did not start.
async fn refusal(folder: TempDir, tls: Value) -> String {
    let (code, log) = Server::refused(folder, json!({ "http_server": { "tls": tls } })).await;
    assert!(code.is_some_and(|code| code != 0), "{code:?}: {log}");
    assert!(!log.contains("panicked"), "{log}");
    log
}

#[tokio::test]
async fn a_key_of_another_certificate_refuses_the_start() {
    let folder = folder_with(&Pair::new());
    std::fs::write(folder.path().join("key.pem"), Pair::new().key).unwrap();
    let tls = options(&folder);
    let words = refusal(folder, tls).await;
    assert!(words.contains("http_server.tls.key_pem"), "{words}");
}

#[tokio::test]
async fn files_that_hold_no_certificate_or_no_key_refuse_the_start_by_the_name_of_their_option() {
    for name in ["cert", "key"] {
        for text in ["", "no PEM at all", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n"] {
            let folder = folder_with(&Pair::new());
            std::fs::write(folder.path().join(format!("{name}.pem")), text).unwrap();
            let tls = options(&folder);
            let words = refusal(folder, tls).await;
            assert!(words.contains(&format!("http_server.tls.{name}_pem")), "{name} {text:?}: {words}");
        }
    }
}

#[tokio::test]
async fn tls_without_a_certificate_refuses_the_start() {
    let words = refusal(TempDir::new().unwrap(), json!({ "enabled": true })).await;
    assert!(words.contains("http_server.tls.cert_pem"), "{words}");
}

#[tokio::test]
async fn the_internal_listener_has_certificates_of_its_own() {
    let (external, internal) = (Pair::new(), Pair::new());
    let folder = folder_with(&external);
    let internal_folder = folder_with(&internal);
    let internal_port = support::free_port();
    let config = json!({ "http_server": {
        "internal_port": internal_port,
        "tls": options(&folder),
        "internal_tls": options(&internal_folder),
    } });
    let server = Server::start_in(folder, config).await;
    let trust = Trust::in_any_of(&[&internal]);
    assert_eq!(Call::get(internal_port, "/health").tls(&trust).send().await.status, 200);
    let external = Trust::in_any_of(&[&external]);
    assert_eq!(Call::get(server.port, "/health").tls(&external).send().await.status, 404);
    server.dial().tls(&external).connect().await.close().await;
}

#[tokio::test]
async fn the_grpc_api_has_certificates_of_its_own_which_are_renewed_too() {
    let (old, new) = (Pair::new(), Pair::new());
    let folder = folder_with(&old);
    let tls = options(&folder);
    let config = json!({ "grpc_api": { "enabled": true, "tls": tls } });
    let server = Server::start_in(folder, config).await;
    let mut open = grpc(&server, &old).await.unwrap();
    assert_eq!(open.publish(publication()).await.unwrap().into_inner().error, None);
    assert!(grpc(&server, &new).await.is_err(), "not the certificate that is asked for");

    replace(&server.folder().join("cert.pem"), &new.certificate);
    replace(&server.folder().join("key.pem"), &new.key);
    until("the new certificate", async || grpc(&server, &new).await.is_ok()).await;
    assert_eq!(open.publish(publication()).await.unwrap().into_inner().error, None);

    // The other listener has none.
    server.dial().connect().await.close().await;
}

fn publication() -> Request<api::PublishRequest> {
    let publish = api::PublishRequest { channel: "news".into(), data: "{}".into(), ..Default::default() };
    let mut request = Request::new(publish);
    request.metadata_mut().insert("authorization", format!("apikey {}", support::API_KEY).parse().unwrap());
    request
}

async fn grpc(server: &Server, trusted: &Pair) -> Result<CentrifugoApiClient<Channel>, tonic::transport::Error> {
    let tls =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&trusted.certificate)).domain_name("localhost");
    let endpoint = Channel::from_shared(format!("https://127.0.0.1:{}", server.grpc_port)).unwrap().tls_config(tls)?;
    Ok(CentrifugoApiClient::new(support::soon("a gRPC connection", endpoint.connect()).await?))
}

#[tokio::test]
async fn an_internal_listener_without_tls_stays_plain_where_tls_is_for_the_external_one() {
    let pair = Pair::new();
    let folder = folder_with(&pair);
    let internal_port = support::free_port();
    let mut tls = json!({ "internal_port": internal_port, "tls_external": true });
    tls["tls"] = options(&folder);
    let server = Server::start_in(folder, json!({ "http_server": tls })).await;
    assert_eq!(Call::get(internal_port, "/health").send().await.status, 200);
    server.dial().tls(&Trust::in_any_of(&[&pair])).connect().await.close().await;
}

#[tokio::test]
async fn a_client_over_tls_that_is_disconnected_sees_the_code() {
    let pair = Pair::new();
    let server = start(&pair).await;
    let mut client = server.dial().tls(&Trust::in_any_of(&[&pair])).connect().await;
    // A pong that nobody asked for.
    client.send(tokio_tungstenite::tungstenite::Message::text("{}")).await;
    assert_eq!(client.event().await, Event::closed(3501, "bad request"));
    client.close().await;
}
