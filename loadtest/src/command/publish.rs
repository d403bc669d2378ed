//! `loadtest publish`: how many publications a server takes when nobody listens.
//!
//! Closed loop: so many are kept in flight, and the next one goes when an answer comes. That measures capacity, not
//! latency under load; `loadtest run` does the latter.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use serde::Serialize;

use super::{FULL_CORE, RunOptions, ServerOptions, Shape, Sizes, fleet, open_lanes, parse_duration};
use crate::interrupt::Interrupt;
use crate::latency::LatencySummary;
use crate::publish::{PublishProgress, run_closed_loop};
use crate::report::{Measured, Table, Verdict};
use crate::target::lane::Via;

/// Options of `loadtest publish`.
#[derive(Clone, Debug, Args)]
pub struct Options {
    #[command(flatten)]
    server: ServerOptions,
    #[command(flatten)]
    run: RunOptions,
    /// How to publish
    #[arg(long, value_enum, default_value = "grpc")]
    via: Via,
    /// Publications without an answer, all connections together
    #[arg(long, default_value_t = 64, value_name = "N")]
    in_flight: u32,
    /// Connections; over HTTP, more in flight than connections means pipelining
    #[arg(long, default_value_t = 4, value_name = "N")]
    connections: u32,
    /// Channels, which take turns
    #[arg(long, default_value_t = 1, value_name = "N")]
    channels: u32,
    /// How long to publish
    #[arg(long, default_value = "10s", value_parser = parse_duration, value_name = "TIME")]
    duration: Duration,
}

impl Options {
    /// The options every command has.
    pub fn run(&self) -> &RunOptions {
        &self.run
    }
}

/// What `loadtest publish` measured.
#[derive(Debug, Serialize)]
pub struct PublishResult {
    via: Via,
    in_flight: u32,
    connections: u32,
    channels: u32,
    payload_bytes: Sizes,
    seconds: f64,
    accepted: u64,
    refused: BTreeMap<String, u64>,
    broken: Vec<String>,
    per_second: f64,
    answer: LatencySummary,
    server_cpu_seconds: Option<f64>,
    per_server_cpu_second: Option<f64>,
    server_us_per_publication: Option<f64>,
    generator_cpu_seconds: f64,
    generator_us_per_publication: f64,
}

/// Publishes as fast as answers come.
///
/// # Errors
///
/// Whatever kept it from measuring.
pub fn execute(options: &Options, seed: u64, interrupt: &Interrupt) -> anyhow::Result<(PublishResult, Verdict)> {
    let Options { via, in_flight, connections, channels, duration, .. } = *options;
    ensure!((1..=1_000).contains(&connections), "--connections must be from 1 to 1000");
    ensure!(in_flight >= connections, "--in-flight must be at least the number of connections, {connections}");
    let shape = Shape { subscribers: 0, channels, subscriptions: 1, lanes: connections };
    let fleet = fleet(&options.server, &options.run, seed, shape)?;
    let probe = options.server.probe()?;
    let lanes = open_lanes(&options.server.publish_target(via)?, &options.run, &fleet, connections)?;

    let before = probe.as_ref().map(|probe| probe.cpu()).transpose()?;
    let progress = Arc::new(PublishProgress::default());
    let (names, format, seen) = (fleet.channels.all().clone(), fleet.format.clone(), progress.clone());
    let work = move || run_closed_loop(lanes, in_flight as usize, duration, &names, &format, &seen);
    let started = Instant::now();
    let publisher = std::thread::Builder::new().name("publish".to_owned()).spawn(work)?;
    let (mut told, mut next) = (0, Duration::from_secs(1));
    while !publisher.is_finished() {
        if interrupt.wait(Duration::from_millis(20)) {
            progress.stop.store(true, Ordering::Relaxed);
            break;
        }
        if started.elapsed() >= next {
            let accepted = progress.accepted.load(Ordering::Relaxed);
            eprintln!("{:6.1} s  accepted {:>8}", started.elapsed().as_secs_f64(), accepted - told);
            (told, next) = (accepted, next + Duration::from_secs(1));
        }
    }
    let done = publisher.join().expect("the publisher does not panic")?;
    let spent = match (&probe, &before) {
        (Some(probe), Some(before)) => Some(probe.cpu()?.since(before).as_secs_f64()),
        _ => None,
    };
    let own = done.cpu.as_secs_f64();
    let wall = done.wall.as_secs_f64().max(1e-9);
    let accepted = done.accepted.max(1) as f64;
    let result = PublishResult {
        via,
        in_flight,
        connections,
        channels,
        payload_bytes: options.run.payload.clone(),
        seconds: wall,
        accepted: done.accepted,
        refused: done.refusals,
        broken: done.broken,
        per_second: done.accepted as f64 / wall,
        answer: done.answering.summary(),
        server_cpu_seconds: spent,
        per_server_cpu_second: spent.map(|spent| done.accepted as f64 / spent.max(1e-9)),
        server_us_per_publication: spent.map(|spent| spent * 1e6 / accepted),
        generator_cpu_seconds: own,
        generator_us_per_publication: own * 1e6 / accepted,
    };
    let mut verdict = Verdict { interrupted: interrupt.is_raised(), ..Verdict::default() };
    let refused: u64 = result.refused.values().sum();
    if refused > 0 {
        verdict.failures.push(format!("{refused} publications were refused"));
    }
    for reason in &result.broken {
        verdict.failures.push(reason.clone());
    }
    if own / wall >= FULL_CORE {
        let percent = own / wall * 100.0;
        let limit =
            format!("the generator's thread used {percent:.0} % of a core: publications per second are its limit");
        // Publications per CPU-second of the server stay true: they do not depend on how fast the next one comes.
        match result.per_server_cpu_second {
            Some(_) => verdict.notes.push(limit),
            None => verdict.generator_limits.push(limit),
        }
    }
    if result.server_us_per_publication.is_some_and(|server| server <= result.generator_us_per_publication) {
        verdict.notes.push("the generator used more processor time per publication than the server".to_owned());
    }
    Ok((result, verdict))
}

impl Measured for PublishResult {
    fn describe(&self, table: &mut Table) {
        let PublishResult { via, in_flight, connections, channels, payload_bytes, .. } = self;
        table.heading("publishing without subscribers, closed loop");
        table.row(
            "shape",
            format!("{via:?}, {in_flight} in flight on {connections} connection(s), {channels} channel(s)"),
        );
        table.row("payload", format!("{payload_bytes} bytes"));
        table.row("accepted", format!("{} in {:.2} s", self.accepted, self.seconds));
        for (reason, count) in &self.refused {
            table.row("refused", format!("{count} times: {reason}"));
        }
        table.row("rate", format!("{:.0} per second", self.per_second));
        table.row("answer", self.answer);
        if let (Some(rate), Some(cost), Some(spent)) =
            (self.per_server_cpu_second, self.server_us_per_publication, self.server_cpu_seconds)
        {
            table.row("server", format!("{rate:.0} per CPU-second, {cost:.1} µs each, {spent:.2} CPU-seconds"));
        }
        let (cost, spent) = (self.generator_us_per_publication, self.generator_cpu_seconds);
        table.row("generator", format!("{cost:.1} µs each, {spent:.2} CPU-seconds"));
    }
}
