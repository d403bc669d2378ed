//! A publication on its way through the channel table to the inboxes of the workers.
#![allow(missing_docs)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use starling_server::{
    broker::{BrokerEvents, Publication},
    channels::ChannelTable,
    names::ChannelName,
    session::protocol::Protocol,
    worker::inbox::Inbox,
};

/// Publications between two emptyings of the inboxes, which are not measured; far below the bound of an inbox.
const RUN: u64 = 1_024;

/// Time of `count` publications to a channel with a subscriber of each of these protocols on each worker.
fn deliver(workers: usize, protocols: &[Protocol], count: u64) -> Duration {
    let inboxes: Vec<_> = (0..workers).map(|_| Arc::new(Inbox::new())).collect();
    let table = ChannelTable::new(inboxes.clone());
    let channel = ChannelName::from("chat:room-17");
    // Others make the table as large as it is in life.
    for number in 0..10_000 {
        table.join(&ChannelName::from(format!("chat:other-{number}")), number % workers, Protocol::Json);
    }
    for worker in 0..workers {
        for protocol in protocols {
            table.join(&channel, worker, *protocol);
        }
    }
    let publication = Publication {
        data: Bytes::from_static(br#"{"text":"a message of some hundred bytes"}"#),
        ..Default::default()
    };
    let mut time = Duration::ZERO;
    let mut left = count;
    while left > 0 {
        let run = left.min(RUN);
        let start = Instant::now();
        for _ in 0..run {
            table.publication(&channel, publication.clone(), None).expect("the inboxes are emptied in time");
        }
        time += start.elapsed();
        left -= run;
        for inbox in &inboxes {
            inbox.take(&mut Vec::new());
        }
    }
    time
}

fn channel_table(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish into the channel table");
    let variants: [(&str, &[Protocol]); 3] =
        [("nobody", &[]), ("json", &[Protocol::Json]), ("json and protobuf", &[Protocol::Json, Protocol::Protobuf])];
    for (name, protocols) in variants {
        for workers in [1, 4] {
            group.bench_function(format!("{name}, workers: {workers}"), |bencher| {
                bencher.iter_custom(|count| deliver(workers, protocols, count));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, channel_table);
criterion_main!(benches);
