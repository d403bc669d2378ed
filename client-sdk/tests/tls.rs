//! wss:// against a TLS server of our own.

mod support;

use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use starling_client::{Client, ClientConfig, ConnectionEvent, Error, Protocol, Tls};
use starling_proto::client::PublishResult;
use support::*;
use tokio_rustls::TlsAcceptor;

/// A TLS server for `localhost`, and its certificate in PEM form.
fn server() -> (TlsAcceptor, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), cert.pem())
}

fn config(peer: &Peer, pem: &str) -> ClientConfig {
    let port = peer.listener.local_addr().unwrap().port();
    ClientConfig {
        url: format!("wss://localhost:{port}/"),
        tls: Some(Tls::with_roots_pem(pem.as_bytes()).unwrap()),
        ..peer.config()
    }
}

#[tokio::test]
async fn a_client_talks_over_tls_to_a_server_that_it_trusts() {
    let peer = Peer::listen(Protocol::Protobuf).await;
    let (acceptor, pem) = server();
    let client = Client::connect(config(&peer, &pem)).unwrap();
    let (stream, _) = within(peer.listener.accept()).await.unwrap();
    let mut connection = peer.upgrade(within(acceptor.accept(stream)).await.unwrap()).await;
    let connect = connection.command().await;
    connection.accept_connect(connect.id).await;
    within(client.ready()).await.unwrap();
    let (published, ()) = tokio::join!(client.publish("news", "1"), async {
        let id = connection.command().await.id;
        let publish = Some(PublishResult {});
        connection.reply(starling_proto::client::Reply { id, publish, ..Default::default() }).await;
    });
    published.unwrap();
    let (_, code) = tokio::join!(within(client.disconnect()), connection.closed());
    assert_eq!(code, Some(1000));
}

#[tokio::test]
async fn a_server_that_is_not_trusted_is_refused_and_the_reason_told() {
    let peer = Peer::listen(Protocol::Json).await;
    let (acceptor, _) = server();
    let (_, other_pem) = server();
    let client = Client::connect(config(&peer, &other_pem)).unwrap();
    let mut events = client.events();
    let (stream, _) = within(peer.listener.accept()).await.unwrap();
    assert!(within(acceptor.accept(stream)).await.is_err());
    within(events.next()).await;
    let Some(ConnectionEvent::Retrying { error: Error::Transport(why), .. }) = within(events.next()).await else {
        panic!("not told")
    };
    assert!(why.contains("certificate"), "{why}");
}

#[test]
fn roots_that_are_no_certificates_are_refused() {
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for pem in ["", "nothing", broken] {
        assert!(matches!(Tls::with_roots_pem(pem.as_bytes()), Err(Error::InvalidConfig(_))), "{pem:?}");
    }
}
