//! Bytes that no backend should send: nothing may panic, and every answer is one of the documented statuses.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::Full;
use proptest::prelude::*;
use tokio::runtime;

use super::fakes::FakeNode;
use crate::{
    api::{Method, grpc::GrpcFace, http::HttpFace},
    config::{GrpcApi, HttpApi},
};

const BODIES: &[&str] = &[
    r#"{"channel":"c","data":{"a":[1,2.5e3,"\u00e9\ud83d\ude00"]},"tags":{"a":"b"},"version":1,"delta":true}"#,
    r#"{"channels":["a","b",""],"b64data":"eyJhIjoxfQ==","idempotency_key":"k"}"#,
    r#"{"user":"u","disconnect":{"code":4000,"reason":"x"},"whitelist":["a"],"label_filter":{"nodes":[{"vals":["x"]}]}}"#,
    r#"{"commands":[{"publish":{"channel":"c","data":1}},null,{"info":{}}],"parallel":true}"#,
    r#"{"id":1,"method":"publish","params":{"channel":"c","data":1}}{"method":9}"#,
    r#"{"channel":"hist:c","limit":-1,"since":{"offset":1,"epoch":"e"},"reverse":true}"#,
];

fn answer_http(path: &str, body: Vec<u8>) -> u16 {
    let options = HttpApi { insecure: true, ..HttpApi::default() };
    let face = HttpFace::new(Arc::new(FakeNode::default()).api(), &options);
    let request = Request::post(path).body(Full::new(Bytes::from(body))).expect("a well-formed request");
    let runtime = runtime::Builder::new_current_thread().enable_time().build().expect("a runtime starts");
    runtime.block_on(face.handle(request)).status().as_u16()
}

fn answer_grpc(path: &str, encoding: &'static str, body: Vec<u8>) -> u16 {
    let face = GrpcFace::new(Arc::new(FakeNode::default()).api(), &GrpcApi::default());
    let mut request = Request::post(path).body(Full::new(Bytes::from(body))).expect("a well-formed request");
    request.headers_mut().insert("grpc-encoding", HeaderValue::from_static(encoding));
    let runtime = runtime::Builder::new_current_thread().enable_time().build().expect("a runtime starts");
    runtime.block_on(face.handle(request)).status().as_u16()
}

fn paths() -> impl Strategy<Value = String> {
    let methods = Method::ALL.iter().map(|method| format!("/api/{}", method.name()));
    prop::sample::select(methods.chain(["/api".to_owned()]).collect::<Vec<_>>())
}

fn grpc_paths() -> impl Strategy<Value = String> {
    let methods = ["Publish", "Broadcast", "Batch", "Disconnect", "Subscribe", "History", "Channels", "Info", "RPC"];
    prop::sample::select(methods.map(|name| format!("/centrifugal.centrifugo.api.CentrifugoApi/{name}")).to_vec())
}

#[test]
fn every_prefix_of_every_body_is_answered() {
    for method in Method::ALL {
        let path = format!("/api/{}", method.name());
        for body in BODIES {
            for cut in 0..=body.len() {
                let status = answer_http(&path, body.as_bytes()[..cut].to_vec());
                assert!(matches!(status, 200 | 400 | 404), "{path} {} answered {status}", &body[..cut]);
            }
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bodies_are_answered(path in paths(), body in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(matches!(answer_http(&path, body), 200 | 400 | 404));
    }

    #[test]
    fn bodies_with_some_bytes_changed_are_answered(
        path in paths(),
        body in prop::sample::select(BODIES),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut body = body.as_bytes().to_vec();
        for (index, byte) in changes {
            let at = index.index(body.len());
            body[at] = byte;
        }
        prop_assert!(matches!(answer_http(&path, body), 200 | 400 | 404));
    }

    #[test]
    fn arbitrary_messages_are_answered(
        path in grpc_paths(),
        flag in 0..3u8,
        encoding in prop::sample::select(vec!["gzip", "identity", "x"]),
        message in prop::collection::vec(any::<u8>(), 0..100),
        lie in prop::option::weighted(0.3, any::<u32>()),
    ) {
        let length = lie.unwrap_or(message.len() as u32);
        let body = [&[flag], &length.to_be_bytes()[..], &message].concat();
        prop_assert_eq!(answer_grpc(&path, encoding, body), 200);
    }
}
