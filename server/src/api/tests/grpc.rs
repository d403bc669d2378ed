use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use prost::Message;
use starling_proto::api::{self as proto, centrifugo_api_client::CentrifugoApiClient};
use tokio::net::{TcpListener, TcpStream};
use tonic::{Code, Request, Status, codec::CompressionEncoding, transport::Channel};

use super::fakes::{FakeNode, Told, serve_grpc};
use crate::{
    api::{Face, Failure, Method, grpc::GrpcFace},
    auth::UnixSeconds,
    config::{ErrorMode, GrpcApi, Secret},
    error::{ApiError, Disconnect},
};

#[tokio::test]
async fn publish_hands_the_payload_over_and_answers_the_position() {
    let mut backend = Backend::start().await;
    let response = backend.client.publish(publish("c", b"\xff\x00\xfe")).await.unwrap().into_inner();
    assert_eq!(response, proto::PublishResponse { error: None, result: Some(proto::PublishResult::default()) });
    let response = backend.client.publish(publish("hist:c", b"1")).await.unwrap().into_inner();
    assert_eq!(response.result, Some(proto::PublishResult { offset: 7, epoch: "xyz".to_owned() }));
    let told = backend.node.told();
    assert!(
        matches!(&told[0], Told::Published { channel, data, .. } if channel == "c" && &data[..] == b"\xff\x00\xfe")
    );
    assert_eq!(backend.node.commands(), [(Face::Grpc, Method::Publish); 2]);
}

#[tokio::test]
async fn errors_of_the_operation_are_in_the_response() {
    let mut backend = Backend::start().await;
    let response = backend.client.publish(publish("ghost:c", b"1")).await.unwrap().into_inner();
    let error = proto::Error { code: 102, message: "unknown channel".to_owned() };
    assert_eq!(response, proto::PublishResponse { error: Some(error), result: None });
    let response = backend.client.publish(publish("c", b"")).await.unwrap().into_inner();
    assert_eq!(response.error.map(|error| error.code), Some(107));
    let request = proto::PresenceRequest { channel: "c".to_owned() };
    assert_eq!(backend.client.presence(request).await.unwrap().into_inner().error.map(|error| error.code), Some(108));
    let request = proto::RpcRequest { method: "x".to_owned(), params: Bytes::new() };
    assert_eq!(backend.client.rpc(request).await.unwrap().into_inner().error.map(|error| error.code), Some(104));
    let request = proto::SubscribeRequest { channel: "ghost:c".to_owned(), ..Default::default() };
    assert_eq!(backend.client.subscribe(request).await.unwrap().into_inner().error.map(|error| error.code), Some(102));
    assert_eq!(backend.node.failures().len(), 5);
}

#[tokio::test]
async fn transport_error_mode_answers_a_status_with_the_error_as_detail() {
    let mut backend = Backend::with(GrpcApi { error_mode: ErrorMode::Transport, ..GrpcApi::default() }).await;
    let status = backend.client.publish(publish("ghost:c", b"1")).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "unknown channel"));
    // google.rpc.Status: code, message, and one Any with the error message of the API.
    let error = proto::Error { code: 102, message: "unknown channel".to_owned() }.encode_to_vec();
    let url = b"type.googleapis.com/centrifugal.centrifugo.api.Error";
    let mut any = vec![0x0a, url.len() as u8];
    any.extend_from_slice(url);
    any.extend_from_slice(&[0x12, error.len() as u8]);
    any.extend_from_slice(&error);
    let mut expected = vec![0x08, 5, 0x12, 15];
    expected.extend_from_slice(b"unknown channel");
    expected.extend_from_slice(&[0x1a, any.len() as u8]);
    expected.extend_from_slice(&any);
    assert_eq!(status.details(), expected);

    let batch = proto::BatchRequest { commands: vec![proto::Command::default()], parallel: false };
    let replies = backend.client.batch(batch).await.unwrap().into_inner().replies;
    assert_eq!(replies[0].error.as_ref().map(|error| error.code), Some(104));
}

#[tokio::test]
async fn transport_error_mode_can_be_asked_for_by_one_call() {
    let mut backend = Backend::start().await;
    for (mode, code) in [("transport", Some(Code::NotFound)), ("other", None)] {
        let mut request = Request::new(proto::RpcRequest { method: "x".to_owned(), params: Bytes::new() });
        request.metadata_mut().insert("x-centrifugo-error-mode", mode.parse().unwrap());
        assert_eq!(backend.client.rpc(request).await.err().map(|status| status.code()), code, "{mode}");
    }
}

#[tokio::test]
async fn the_key_must_be_spelled_exactly() {
    let mut backend = Backend::with(GrpcApi { key: Some(Secret::new("very-secret")), ..GrpcApi::default() }).await;
    for (name, value, right) in [
        ("authorization", "apikey very-secret", true),
        ("authorization", "Apikey very-secret", false),
        ("authorization", "apikey wrong", false),
        ("authorization", "very-secret", false),
        ("x-api-key", "very-secret", false),
    ] {
        let mut request = Request::new(publish("c", b"1"));
        request.metadata_mut().insert(name, value.parse().unwrap());
        let answer = backend.client.publish(request).await;
        let refused = answer.err().map(|status| (status.code(), status.message().to_owned()));
        let expected = (!right).then(|| (Code::Unauthenticated, "unauthenticated".to_owned()));
        assert_eq!(refused, expected, "{name}: {value}");
    }
    assert_eq!(backend.node.told().len(), 1);
}

#[tokio::test]
async fn messages_are_taken_up_to_the_limit() {
    let mut backend = Backend::with(GrpcApi { max_receive_message_size: Some(1000), ..GrpcApi::default() }).await;
    assert!(backend.client.publish(publish("c", &[b'x'; 500])).await.is_ok());
    let status = backend.client.publish(publish("c", &[b'x'; 2000])).await.unwrap_err();
    let message = "grpc: received message larger than max (2006 vs. 1000)";
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, message));

    let mut backend = Backend::start().await;
    assert!(backend.client.publish(publish("c", &vec![b'x'; 3_000_000])).await.is_ok());
    let status = backend.client.publish(publish("c", &vec![b'x'; 5_000_000])).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn gzip_is_taken() {
    let mut backend = Backend::start().await;
    let mut client = backend.client.clone().send_compressed(CompressionEncoding::Gzip);
    client.publish(publish("c", &[b'x'; 3000])).await.unwrap();
    assert!(matches!(&backend.node.told()[..], [Told::Published { data, .. }] if data.len() == 3000));
    // A client that did not compress is not affected by one that did.
    assert!(backend.client.publish(publish("c", b"1")).await.is_ok());
}

#[tokio::test]
async fn methods_that_are_not_there_are_unimplemented() {
    let backend = Backend::start().await;
    for (path, message) in [
        ("/centrifugal.centrifugo.api.CentrifugoApi/Connections", "method Connections not implemented"),
        ("/centrifugal.centrifugo.api.CentrifugoApi/MapPublish", "method MapPublish not implemented"),
        ("/centrifugal.centrifugo.api.CentrifugoApi/Rpc", "method Rpc not implemented"),
        ("/other.Service/Publish", "unknown service"),
    ] {
        let status = backend.raw(path, proto::InfoRequest {}).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unimplemented, message));
    }
}

#[tokio::test]
async fn history_and_presence_are_answered() {
    let mut backend = Backend::start().await;
    let request = proto::HistoryRequest { channel: "hist:c".to_owned(), limit: -1, ..Default::default() };
    let history = backend.client.history(request.clone()).await.unwrap().into_inner().result.unwrap();
    assert_eq!((&*history.epoch, history.offset, history.publications.len()), ("xyz", 7, 2));
    let publication = &history.publications[0];
    // Over gRPC a payload is what was published, byte for byte.
    assert_eq!((&publication.data[..], publication.offset), (&b"{ \"n\": 6 }"[..], 6));
    assert_eq!(publication.tags.get("t").map(String::as_str), Some("x"));
    let somebody = proto::ClientInfo {
        user: "u".to_owned(),
        client: "c1".to_owned(),
        conn_info: Bytes::from_static(b"{ }"),
        chan_info: Bytes::new(),
    };
    assert_eq!(publication.info.as_ref(), Some(&somebody));
    let since = Some(proto::StreamPosition { offset: 1, epoch: "old".to_owned() });
    let response = backend.client.history(proto::HistoryRequest { since, ..request }).await.unwrap().into_inner();
    assert_eq!(response.error.map(|error| error.code), Some(112));
    let request = proto::HistoryRemoveRequest { channel: "hist:c".to_owned() };
    let removed = backend.client.history_remove(request).await.unwrap().into_inner();
    assert_eq!(removed.result, Some(proto::HistoryRemoveResult {}));

    let request = proto::PresenceRequest { channel: "hist:c".to_owned() };
    let presence = backend.client.presence(request).await.unwrap().into_inner().result.unwrap().presence;
    assert_eq!(presence.into_iter().collect::<Vec<_>>(), [("c1".to_owned(), somebody)]);
    let request = proto::PresenceStatsRequest { channel: "hist:c".to_owned() };
    let stats = backend.client.presence_stats(request).await.unwrap().into_inner().result.unwrap();
    assert_eq!((stats.num_clients, stats.num_users), (3, 2));
}

#[tokio::test]
async fn subscribe_and_refresh_reach_the_node() {
    let mut backend = Backend::start().await;
    let request = proto::SubscribeRequest {
        user: "u".to_owned(),
        channel: "hist:c".to_owned(),
        r#override: Some(proto::SubscribeOptionOverride {
            force_positioning: Some(proto::BoolValue { value: true }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let subscribed = backend.client.subscribe(request).await.unwrap().into_inner();
    assert_eq!(subscribed.result, Some(proto::SubscribeResult {}));
    let request = proto::RefreshRequest { user: "u".to_owned(), expire_at: 9, ..Default::default() };
    let refreshed = backend.client.refresh(request).await.unwrap().into_inner();
    assert_eq!(refreshed.result, Some(proto::RefreshResult {}));
    let told = backend.node.told();
    let [Told::Subscribed { subscription, .. }, Told::Refreshed { refresh, .. }] = &told[..] else {
        panic!("{told:?}")
    };
    assert!(subscription.granted.positioned && !subscription.granted.recoverable);
    assert_eq!(refresh.expire_at, Some(UnixSeconds(9)));
}

#[tokio::test]
async fn the_other_methods_answer_their_own_results() {
    let mut backend = Backend::start().await;
    let request = proto::BroadcastRequest {
        channels: ["c", "hist:a", "ghost:b", ""].map(str::to_owned).to_vec(),
        data: Bytes::from_static(b"1"),
        ..Default::default()
    };
    let responses = backend.client.broadcast(request).await.unwrap().into_inner().result.unwrap().responses;
    let codes: Vec<_> = responses.iter().map(|response| response.error.as_ref().map(|error| error.code)).collect();
    assert_eq!(codes, [None, None, Some(102), Some(107)]);

    let channels = backend.client.channels(proto::ChannelsRequest::default()).await.unwrap().into_inner();
    assert_eq!(channels.result.unwrap().channels["one"].num_clients, 2);
    let info = backend.client.info(proto::InfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.result.unwrap().nodes[0].num_clients, 3);

    let disconnect = proto::Disconnect { code: 4500, reason: "bye".to_owned() };
    let request = proto::DisconnectRequest { user: "u".to_owned(), disconnect: Some(disconnect), ..Default::default() };
    assert!(backend.client.disconnect(request).await.unwrap().into_inner().result.is_some());
    let request = proto::UnsubscribeRequest { user: "u".to_owned(), channel: "c".to_owned(), ..Default::default() };
    assert!(backend.client.unsubscribe(request).await.unwrap().into_inner().result.is_some());
    let told = backend.node.told();
    let cause = Disconnect { code: 4500, reason: "bye".into() };
    assert!(matches!(&told[told.len() - 2], Told::Disconnected { cause: told, .. } if *told == cause));

    let publish = |channel: &str| proto::Command { publish: Some(publish(channel, b"1")), ..Default::default() };
    let commands = vec![publish("hist:c"), publish("ghost:c"), proto::Command::default()];
    let batch = proto::BatchRequest { commands, parallel: true };
    let replies = backend.client.batch(batch).await.unwrap().into_inner().replies;
    let codes: Vec<_> = replies.iter().map(|reply| reply.error.as_ref().map_or(0, |error| error.code)).collect();
    assert_eq!(codes, [0, 102, 104]);
    assert_eq!(replies[0].publish.as_ref().map(|result| result.offset), Some(7));
    let failures = backend.node.failures();
    assert_eq!(failures, [(Face::Grpc, Method::Publish, Failure::Api(ApiError::UnknownChannel))]);
}

#[tokio::test]
async fn a_call_is_given_up_at_its_deadline() {
    let face = GrpcFace::new(Arc::new(FakeNode::default()).api(), &GrpcApi::default());
    let call = async |channel: &str, timeout: &str| {
        let message = publish(channel, b"1").encode_to_vec();
        let frame = [&[0], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], &message].concat();
        let request = http::Request::post("/centrifugal.centrifugo.api.CentrifugoApi/Publish")
            .header("grpc-timeout", timeout)
            .body(Full::new(Bytes::from(frame)))
            .unwrap();
        let response = face.handle(request).await;
        // Only a failed call has its status in the headers.
        response.headers().get("grpc-status").map(|status| status.to_str().unwrap().to_owned())
    };
    assert_eq!(call("c", "1H").await, None);
    let deadline_exceeded = (Code::DeadlineExceeded as i32).to_string();
    assert_eq!(call("stuck:c", "1m").await, Some(deadline_exceeded));
}

#[tokio::test]
async fn a_connection_that_drains_answers_what_it_has_and_ends() {
    let node = Arc::new(FakeNode::default());
    let face = Arc::new(GrpcFace::new(node.api(), &GrpcApi::default()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (drain, drained) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        face.serve(TokioIo::new(socket), async { drop(drained.await) }).await
    });
    let mut client = connect(address).await;
    client.publish(publish("c", b"1")).await.unwrap();
    drain.send(()).unwrap();
    server.await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

/// A server, and a client that calls it as a backend would.
struct Backend {
    node: Arc<FakeNode>,
    address: SocketAddr,
    client: CentrifugoApiClient<Channel>,
}

impl Backend {
    async fn start() -> Self {
        Self::with(GrpcApi::default()).await
    }

    async fn with(options: GrpcApi) -> Self {
        let node = Arc::new(FakeNode::default());
        let address = serve_grpc(&node, &options).await;
        Self { node, address, client: connect(address).await }
    }

    /// Calls a path that the generated client does not have.
    async fn raw(&self, path: &'static str, message: proto::InfoRequest) -> Result<proto::InfoResponse, Status> {
        let channel = Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap();
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::default();
        let path = http::uri::PathAndQuery::from_static(path);
        grpc.unary(Request::new(message), path, codec).await.map(|response| response.into_inner())
    }
}

async fn connect(address: SocketAddr) -> CentrifugoApiClient<Channel> {
    CentrifugoApiClient::connect(format!("http://{address}")).await.unwrap()
}

fn publish(channel: &str, data: &[u8]) -> proto::PublishRequest {
    proto::PublishRequest { channel: channel.to_owned(), data: Bytes::copy_from_slice(data), ..Default::default() }
}
