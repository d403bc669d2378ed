//! Patches between one publication and the next.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use starling_server::delta::{Encoder, apply};

/// Rows of a table in JSON, about 64 bytes each; numbers depend on `seed`.
fn table(rows: u64, seed: u64) -> String {
    let rows: Vec<String> = (0..rows)
        .map(|row| {
            let price = (row * 7919 + seed * 104_729) % 9000 + 1000;
            format!(r#"{{"symbol":"S{row:03}","price":{price}.25,"open":true,"lots":{}}}"#, 100_000 + row * 7)
        })
        .collect();
    format!(r#"{{"market":"test","rows":[{}]}}"#, rows.join(","))
}

/// Bytes that have nothing in common with those of another seed.
fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as u8
    })
    .take(length)
    .collect()
}

/// What happened between two publications, and both.
fn pairs() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let one_kib = table(16, 1);
    let all_rows = table(48, 1);
    let rows: Vec<&str> = all_rows.split(r#"{"symbol""#).skip(1).collect();
    let one_letter = vec![b'a'; 64 << 10];
    let mut other_letter = one_letter.clone();
    other_letter[30_000] = b'b';
    vec![
        (
            "1 KiB JSON, one value",
            one_kib.clone().into(),
            one_kib.replace("S007\",\"price\":", "S007\",\"price\":9").into(),
        ),
        (
            "1 KiB JSON, three values",
            one_kib.clone().into(),
            one_kib.replace("S00", "T00").replacen("T00", "S00", 7).into(),
        ),
        ("1 KiB JSON, a value in every row", one_kib.into(), table(16, 2).into()),
        ("3 KiB JSON, a row in front, one behind gone", rows[1..].concat().into(), rows[..47].concat().into()),
        ("4 KiB noise, all of it", noise(4 << 10, 1), noise(4 << 10, 2)),
        ("64 KiB of one letter, one", one_letter, other_letter),
        ("64 KiB JSON, a value in every row", table(1000, 1).into(), table(1000, 2).into()),
    ]
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("make a patch");
    for (name, base, target) in pairs() {
        let (mut encoder, mut patch) = (Encoder::default(), Vec::new());
        let is_shorter = encoder.encode(&base, &target, false, &mut patch);
        println!("{name}: {} bytes for {} (shorter: {is_shorter})", patch.len(), target.len());
        group.throughput(Throughput::Bytes(target.len() as u64));
        for (kind, text) in [("bytes", false), ("text", true)] {
            if text && std::str::from_utf8(&target).is_err() {
                continue;
            }
            group.bench_function(BenchmarkId::new(kind, name), |bencher| {
                bencher.iter(|| encoder.encode(black_box(&base), black_box(&target), text, &mut patch));
            });
        }
    }
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply a patch");
    for (name, base, target) in pairs() {
        let mut patch = Vec::new();
        if Encoder::default().encode(&base, &target, false, &mut patch) {
            group.bench_function(name, |bencher| {
                bencher.iter(|| apply(black_box(&base), black_box(&patch), target.len()));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, encode, decode);
criterion_main!(benches);
