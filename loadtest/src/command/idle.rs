//! `loadtest idle`: what a connection costs that does nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use serde::Serialize;

use super::{RunOptions, ServerOptions, Shape, fleet, parse_duration, readable_bytes, tell_subscribing};
use crate::interrupt::Interrupt;
use crate::process::{MemoryReading, ProcessProbe};
use crate::receive::Pool;
use crate::report::{Measured, Table, Verdict};

/// Options of `loadtest idle`.
#[derive(Clone, Debug, Args)]
pub struct Options {
    #[command(flatten)]
    server: ServerOptions,
    #[command(flatten)]
    run: RunOptions,
    /// Connections to hold
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    connections: u32,
    /// Channels, over which the connections are spread, one subscription each
    #[arg(long, default_value_t = 1, value_name = "N")]
    channels: u32,
    /// How long to hold them
    #[arg(long, default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
    hold: Duration,
    /// Fails when the server's memory per connection is above this at the end
    #[arg(long, value_name = "BYTES", requires = "server_pid")]
    max_bytes_per_connection: Option<f64>,
}

impl Options {
    /// The options every command has.
    pub fn run(&self) -> &RunOptions {
        &self.run
    }
}

/// What `loadtest idle` measured.
#[derive(Debug, Serialize)]
pub struct IdleResult {
    connections: u32,
    channels: u32,
    set_up_seconds: f64,
    held_seconds: f64,
    ended_connections: BTreeMap<String, u64>,
    server: Option<ServerMemory>,
    own_bytes_per_connection: f64,
}

#[derive(Debug, Serialize)]
struct ServerMemory {
    before: MemoryReading,
    connected: MemoryReading,
    held: MemoryReading,
    bytes_per_connection_connected: f64,
    bytes_per_connection_held: f64,
    anonymous_bytes_per_connection_held: f64,
    cpu_us_per_connect: f64,
    cpu_us_per_connection_and_second: f64,
}

/// Connects, holds, measures.
///
/// # Errors
///
/// Whatever kept it from measuring.
pub fn execute(options: &Options, seed: u64, interrupt: &Interrupt) -> anyhow::Result<(IdleResult, Verdict)> {
    ensure!(options.connections > 0, "--connections must be at least 1");
    let shape = Shape { subscribers: options.connections, channels: options.channels, subscriptions: 1, lanes: 0 };
    let fleet = fleet(&options.server, &options.run, seed, shape)?;
    let probe = options.server.probe()?;
    let readings = |probe: &ProcessProbe| anyhow::Ok((probe.memory()?, probe.cpu()?));

    let own = ProcessProbe::own();
    let own_before = own.memory()?;
    let before = probe.as_ref().map(readings).transpose()?;
    let connecting = Instant::now();
    let pool = Pool::start(fleet)?;
    let wanted = options.connections;
    pool.wait_subscribed(options.run.setup_timeout, interrupt, |status| tell_subscribing(status, wanted))?;
    let set_up = connecting.elapsed();
    let connected = probe.as_ref().map(readings).transpose()?;

    let holding = Instant::now();
    let mut interrupted = false;
    while !interrupted && holding.elapsed() < options.hold {
        let left = options.hold.saturating_sub(holding.elapsed());
        interrupted = interrupt.wait(left.min(Duration::from_secs(5)));
        if let Some(probe) = &probe {
            let resident = readable_bytes(probe.memory()?.resident_bytes as f64);
            eprintln!("held for {:.0} s, server {resident} resident", holding.elapsed().as_secs_f64());
        }
    }
    let held_seconds = holding.elapsed().as_secs_f64();
    let held = probe.as_ref().map(readings).transpose()?;
    let own_growth = grown(own.memory()?.resident_bytes, own_before.resident_bytes, wanted);
    let received = pool.finish(&[], |_, _| 0);

    let server = before.zip(connected).zip(held).map(|((before, connected), held)| {
        let connect_cpu = connected.1.since(&before.1).as_secs_f64();
        let hold_cpu = held.1.since(&connected.1).as_secs_f64();
        let (before, connected, held) = (before.0, connected.0, held.0);
        ServerMemory {
            before,
            connected,
            held,
            bytes_per_connection_connected: grown(connected.resident_bytes, before.resident_bytes, wanted),
            bytes_per_connection_held: grown(held.resident_bytes, before.resident_bytes, wanted),
            anonymous_bytes_per_connection_held: grown(held.anonymous_bytes, before.anonymous_bytes, wanted),
            cpu_us_per_connect: connect_cpu * 1e6 / f64::from(wanted),
            cpu_us_per_connection_and_second: hold_cpu * 1e6 / f64::from(wanted) / held_seconds.max(1e-9),
        }
    });
    let mut verdict = Verdict { interrupted, ..Verdict::default() };
    let ended: u64 = received.ended.values().sum();
    if ended > 0 {
        verdict.failures.push(format!("{ended} connections ended while they were held"));
    }
    if let (Some(most), Some(server)) = (options.max_bytes_per_connection, &server)
        && server.bytes_per_connection_held > most
    {
        let bytes = server.bytes_per_connection_held;
        verdict.failures.push(format!("{bytes:.0} bytes per connection, at most {most:.0} were allowed"));
    }
    let result = IdleResult {
        connections: wanted,
        channels: options.channels,
        set_up_seconds: set_up.as_secs_f64(),
        held_seconds,
        ended_connections: received.ended,
        server,
        own_bytes_per_connection: own_growth,
    };
    Ok((result, verdict))
}

fn grown(after: u64, before: u64, connections: u32) -> f64 {
    (after as f64 - before as f64) / f64::from(connections)
}

impl Measured for IdleResult {
    fn describe(&self, table: &mut Table) {
        table.heading("idle connections");
        let per_second = f64::from(self.connections) / self.set_up_seconds.max(1e-9);
        table.row("connections", format!("{}, on {} channel(s)", self.connections, self.channels));
        table.row("set up in", format!("{:.2} s, {per_second:.0} per second", self.set_up_seconds));
        table.row("held for", format!("{:.1} s", self.held_seconds));
        for (reason, count) in &self.ended_connections {
            table.row("ended connections", format!("{count}: {reason}"));
        }
        if let Some(server) = &self.server {
            table.heading("server");
            let resident = |memory: &MemoryReading| readable_bytes(memory.resident_bytes as f64);
            table.row("resident before", resident(&server.before));
            table.row("resident connected", resident(&server.connected));
            table.row("resident held", resident(&server.held));
            let per = |bytes: f64| format!("{bytes:.0} bytes per connection");
            table.row("when connected", per(server.bytes_per_connection_connected));
            table.row("at the end", per(server.bytes_per_connection_held));
            table.row("of it anonymous", per(server.anonymous_bytes_per_connection_held));
            table.row("processor", format!("{:.1} µs per connect", server.cpu_us_per_connect));
            let idle = server.cpu_us_per_connection_and_second;
            table.row("", format!("{idle:.2} µs per idle connection and second"));
        }
        table.heading("generator");
        table.row("resident", format!("{:.0} bytes per connection", self.own_bytes_per_connection));
    }
}
