//! Bytes to commands, publications to frames.
#![allow(missing_docs)]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use prost::Message;
use starling_proto::client as pb;
use starling_server::{
    broker::Publication,
    names::ChannelName,
    session::protocol::Protocol,
    wire::{self, websocket},
};

/// Bytes of a payload: a small event, a document.
const SIZES: [usize; 2] = [100, 1_000];

const PROTOCOLS: [(&str, Protocol); 2] = [("json", Protocol::Json), ("protobuf", Protocol::Protobuf)];

/// A JSON object of `size` bytes.
fn payload(size: usize) -> String {
    let frame = r#"{"text":""}"#;
    frame.replace(r#""""#, &format!("\"{}\"", "x".repeat(size - frame.len())))
}

fn publish_command(protocol: Protocol, size: usize) -> Vec<u8> {
    let data = payload(size);
    match protocol {
        Protocol::Json => format!(r#"{{"id":42,"publish":{{"channel":"chat:room-17","data":{data}}}}}"#).into(),
        Protocol::Protobuf => {
            let publish =
                pb::PublishRequest { channel: "chat:room-17".into(), data: data.into(), ..Default::default() };
            pb::Command { id: 42, publish: Some(publish), ..Default::default() }.encode_length_delimited_to_vec()
        }
    }
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode a publish command");
    for (name, protocol) in PROTOCOLS {
        for size in SIZES {
            let message = publish_command(protocol, size);
            group.throughput(Throughput::Bytes(message.len() as u64));
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| wire::commands(protocol, black_box(&message)).next());
            });
        }
    }
    group.finish();
}

fn encode_once(criterion: &mut Criterion) {
    let channel = ChannelName::from("chat:room-17");
    let mut group = criterion.benchmark_group("encode a publication once");
    for (name, protocol) in PROTOCOLS {
        for size in SIZES {
            let publication = Publication { data: Bytes::from(payload(size)), ..Publication::default() };
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| {
                    let mut push = Vec::with_capacity(size + 128);
                    wire::publication_push(protocol, &channel, black_box(&publication), &mut push)
                        .expect("the payload is JSON");
                    websocket::shared_frame(protocol.kind(), &push)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, decode, encode_once);
criterion_main!(benches);
