//! What the load tester itself spends on one received message: cut it out of the stream, find the publication, prove it
//! unaltered, tell whether it is the next one, count its latency. The socket is not part of it.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use starling_loadtest::audit::{Arrival, StreamAudit};
use starling_loadtest::latency::LatencyHistogram;
use starling_loadtest::payload::{PayloadFormat, Stamp};
use starling_loadtest::target::centrifuge::{Encoding, Message, write_numbered};
use starling_loadtest::target::speech::Speech;
use starling_loadtest::websocket::{FrameReader, Incoming, write_frame};

/// Messages of one read: what a socket has when its thread comes back to it under load.
const MESSAGES: u64 = 64;

fn stream(format: &PayloadFormat, encoding: Encoding) -> Vec<u8> {
    let (mut stream, mut payload, mut message) = (Vec::new(), Vec::new(), Vec::new());
    for seq in 0..MESSAGES {
        payload.clear();
        message.clear();
        format.write(Stamp { channel: 7, stream: 0, seq, due_ns: 1_000_000 + seq }, &mut payload);
        write_numbered(&mut message, encoding, "loadtest-0badcafe-7", &payload, Some(seq + 1));
        write_frame(&mut stream, encoding.frame_kind(), &message, None);
    }
    stream
}

fn received_message(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("loadtest/received_message");
    group.throughput(Throughput::Elements(MESSAGES));
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        for bytes in [128, 1_024] {
            let format = PayloadFormat::new(1, &[bytes], 0.0, 1);
            let stream = stream(&format, encoding);
            let (speech, mut latency) = (Speech::Centrifuge(encoding), LatencyHistogram::new());
            let id = BenchmarkId::new(format!("{encoding:?}"), bytes);
            group.bench_function(id, |bencher| {
                bencher.iter(|| {
                    let (mut frames, mut audit, mut in_order) = (FrameReader::default(), StreamAudit::default(), 0);
                    let read = frames.read(black_box(&stream), |incoming| {
                        let Incoming::Message(frame) = incoming else { return };
                        speech.read(
                            frame,
                            |beginning| format.expected_bytes(beginning),
                            |message| {
                                let Message::Publication { data, .. } = message else { return };
                                let Ok(stamp) = format.check(data) else { return };
                                in_order += u64::from(audit.arrived(stamp.seq) == Arrival::InOrder);
                                latency.record(stamp.due_ns);
                            },
                        );
                    });
                    assert!(read.is_ok() && in_order == MESSAGES, "the stream is sound");
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, received_message);
criterion_main!(benches);
