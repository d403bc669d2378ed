//! The small gRPC client against tonic's server: two implementations that know nothing of each other.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use starling_proto::api::{Error, PublishRequest, PublishResponse, PublishResult};
use tonic::codegen::{Body, Service, StdError, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic_prost::ProstCodec;

#[test]
fn calls_are_answered_on_few_connections_with_many_in_flight() {
    let server = Server::start();
    let (code, text) = server.publish(&["--connections", "2", "--in-flight", "64", "--duration", "500ms"]);
    assert_eq!(code, 0, "{text}");
    assert!(server.published() > 64, "{text}");
}

#[test]
fn messages_larger_than_the_flow_control_window_arrive_whole() {
    let server = Server::start();
    let shape = ["--connections", "1", "--in-flight", "8", "--payload", "200000", "--duration", "500ms"];
    let (code, text) = server.publish(&shape);
    assert_eq!(code, 0, "{text}");
    assert_eq!(server.bytes.load(Ordering::SeqCst) / 200_000, server.published() - 1, "the first one is the probe");
}

#[test]
fn a_wrong_key_is_a_set_up_failure_with_its_status() {
    let (code, text) = Server::start().publish(&["--api-key", "wrong"]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("gRPC status 16"), "{text}");
}

#[test]
fn an_error_in_the_answer_is_a_refusal_with_its_code() {
    let (code, text) = Server::start().publish(&["--channel-prefix", "unknown:"]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("error 102, unknown channel"), "{text}");
}

/// A server that knows one method.
struct Server {
    address: SocketAddr,
    publications: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

impl Server {
    fn start() -> Self {
        let (publications, bytes) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let api = PublishOnly { publications: publications.clone(), bytes: bytes.clone() };
        let (told, address) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
                told.send(listener.local_addr().expect("bound")).expect("the test waits");
                let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
                tonic::transport::Server::builder().add_service(api).serve_with_incoming(incoming).await
            })
        });
        Server { address: address.recv().expect("the server starts"), publications, bytes }
    }

    fn published(&self) -> u64 {
        self.publications.load(Ordering::SeqCst)
    }

    fn publish(&self, more: &[&str]) -> (i32, String) {
        let url = format!("http://{}", self.address);
        let mut arguments = vec!["publish", "--via", "grpc", "--grpc-url", &url];
        if !more.contains(&"--api-key") {
            arguments.extend(["--api-key", "right"]);
        }
        let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .args([&arguments, more].concat())
            .stdin(Stdio::null())
            .output()
            .expect("the binary starts");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        // Code 2 means that this machine is slow, which is not the matter here.
        (output.status.code().map_or(-1, |code| if code == 2 { 0 } else { code }), text)
    }
}

#[derive(Clone)]
struct PublishOnly {
    publications: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

impl NamedService for PublishOnly {
    const NAME: &'static str = "centrifugal.centrifugo.api.CentrifugoApi";
}

impl UnaryService<PublishRequest> for PublishOnly {
    type Response = PublishResponse;
    type Future = Ready<Result<tonic::Response<PublishResponse>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<PublishRequest>) -> Self::Future {
        if request.metadata().get("authorization").map(|key| key.as_bytes()) != Some(b"apikey right") {
            return ready(Err(tonic::Status::unauthenticated("wrong key")));
        }
        let PublishRequest { channel, data, .. } = request.into_inner();
        if channel.starts_with("unknown:") {
            let error = Error { code: 102, message: "unknown channel".to_owned() };
            return ready(Ok(tonic::Response::new(PublishResponse { error: Some(error), result: None })));
        }
        self.publications.fetch_add(1, Ordering::SeqCst);
        self.bytes.fetch_add(data.len() as u64, Ordering::SeqCst);
        let result = Some(PublishResult::default());
        ready(Ok(tonic::Response::new(PublishResponse { error: None, result })))
    }
}

impl<B> Service<http::Request<B>> for PublishOnly
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let api = self.clone();
        Box::pin(async move {
            assert_eq!(request.uri().path(), "/centrifugal.centrifugo.api.CentrifugoApi/Publish");
            Ok(Grpc::new(ProstCodec::default()).unary(api, request).await)
        })
    }
}
