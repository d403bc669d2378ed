//! Whether a publication passes a subscriber's filter.
#![allow(missing_docs)]

use std::{collections::BTreeMap, hint::black_box};

use criterion::{Criterion, criterion_group, criterion_main};
use starling_proto::client::FilterNode;
use starling_server::filter::Filter;

fn leaf(key: &str, cmp: &str, val: &str) -> FilterNode {
    FilterNode { key: key.into(), cmp: cmp.into(), val: val.into(), ..FilterNode::default() }
}

fn one_of(key: &str, count: usize) -> FilterNode {
    FilterNode { vals: (0..count).map(|i| format!("value-{i}")).collect(), ..leaf(key, "in", "") }
}

fn node(op: &str, nodes: Vec<FilterNode>) -> FilterNode {
    FilterNode { op: op.into(), nodes, ..FilterNode::default() }
}

fn filters() -> Vec<(&'static str, FilterNode)> {
    vec![
        ("eq", leaf("lang", "eq", "en-GB")),
        ("eq, no such tag", leaf("other", "eq", "en-GB")),
        ("neq", leaf("lang", "neq", "fr-FR")),
        ("sw", leaf("lang", "sw", "en")),
        ("ct", leaf("title", "ct", "storm")),
        ("gte", leaf("price", "gte", "99.5")),
        ("in, of 4", one_of("kind", 4)),
        ("in, of 1000", one_of("kind", 1000)),
        (
            "five nodes",
            node(
                "and",
                vec![
                    leaf("lang", "sw", "en"),
                    leaf("price", "lt", "1000"),
                    node("not", vec![leaf("kind", "eq", "ad")]),
                ],
            ),
        ),
    ]
}

fn matches(criterion: &mut Criterion) {
    let tags = [
        ("kind", "value-3"),
        ("lang", "en-GB"),
        ("price", "123.45"),
        ("region", "eu-west"),
        ("title", "a heavy storm is coming from the west"),
    ];
    let tags: BTreeMap<String, String> = tags.map(|(key, value)| (key.into(), value.into())).into();
    let mut group = criterion.benchmark_group("match five tags");
    for (name, filter) in filters() {
        let filter = Filter::compile(&filter).expect("well formed");
        group.bench_function(name, |bencher| bencher.iter(|| black_box(&filter).matches(black_box(&tags))));
    }
    group.finish();
}

fn compile(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compile a filter");
    for (name, filter) in filters() {
        group.bench_function(name, |bencher| bencher.iter(|| Filter::compile(black_box(&filter))));
    }
    group.finish();
}

criterion_group!(benches, matches, compile);
criterion_main!(benches);
