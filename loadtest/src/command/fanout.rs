//! `loadtest fanout`: what one delivery costs the server, beside a server that only calls `write(2)`.
//!
//! One channel, many subscribers, one message at a time: the next one is published when all have the last one. Rounds of
//! the server and of the [reference server](crate::reference) alternate in the same run, with the same number of
//! connections, the same receivers and frames of the same size, so that what the machine does to one it does to both.

use std::time::Duration;

use anyhow::{bail, ensure};
use clap::Args;
use serde::Serialize;

use super::{RunOptions, ServerOptions, Shape, Sizes, fleet, open_lanes, tell_subscribing};
use crate::audit::{FaultKind, Findings, StreamLedger};
use crate::fleet::Fleet;
use crate::interrupt::Interrupt;
use crate::latency::LatencySummary;
use crate::payload::Stamp;
use crate::process::ProcessProbe;
use crate::publish::Lane;
use crate::receive::Pool;
use crate::reference::ReferenceServer;
use crate::report::{Measured, Table, Verdict};
use crate::target::Endpoint;
use crate::target::centrifuge::write_publication;
use crate::target::lane::Via;
use crate::target::speech::Speech;
use crate::websocket::write_frame;

/// Longest wait for one message to reach everybody.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Options of `loadtest fanout`.
#[derive(Clone, Debug, Args)]
pub struct Options {
    #[command(flatten)]
    server: ServerOptions,
    #[command(flatten)]
    run: RunOptions,
    /// Subscribers of the one channel
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    subscribers: u32,
    /// Rounds, each of the server and of the reference
    #[arg(long, default_value_t = 7, value_name = "N")]
    rounds: u32,
    /// Messages per round
    #[arg(long, default_value_t = 50, value_name = "N")]
    messages: u32,
    /// How to publish
    #[arg(long, value_enum, default_value = "websocket")]
    publish_via: Via,
    /// Fails when the median ratio of server to reference is above this
    #[arg(long, value_name = "RATIO", requires = "server_pid")]
    max_ratio: Option<f64>,
}

impl Options {
    /// The options every command has.
    pub fn run(&self) -> &RunOptions {
        &self.run
    }
}

/// What `loadtest fanout` measured.
#[derive(Debug, Serialize)]
pub struct FanoutResult {
    subscribers: u32,
    messages_per_round: u32,
    payload_bytes: Sizes,
    rounds: Vec<Round>,
    /// Median, least and most of the rounds' processor time per delivery of the server, in microseconds.
    server_us: Option<Spread>,
    /// The same of the reference server.
    reference_us: Spread,
    /// The same of the rounds' ratios.
    ratio: Option<Spread>,
    /// Of the generator, per delivery from either server.
    generator_us: Spread,
    server_latency: LatencySummary,
    reference_latency: LatencySummary,
    server_audit: Findings,
    reference_audit: Findings,
}

/// Processor time per delivery in one round, microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    server_us: Option<f64>,
    reference_us: f64,
    generator_us: f64,
}

/// The middle and the ends of some numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one, or the mean of the two middle ones.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

impl Spread {
    /// Of at least one number; `None` of none.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let median = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0;
        Some(Spread { median, least, most })
    }
}

/// One side of the comparison.
struct Side {
    pool: Pool,
    fleet: Fleet,
    sender: Sender,
    probe: Option<ProcessProbe>,
    sent: u64,
}

enum Sender {
    Server(Box<Lane>),
    Reference(ReferenceServer),
}

/// Alternates between both and compares.
///
/// # Errors
///
/// Whatever kept it from measuring.
pub fn execute(options: &Options, seed: u64, interrupt: &Interrupt) -> anyhow::Result<(FanoutResult, Verdict)> {
    ensure!(options.subscribers > 0 && options.rounds > 0, "--subscribers and --rounds must be at least 1");
    ensure!(options.messages > 0, "--messages must be at least 1");
    let Options { subscribers, rounds, messages, .. } = *options;
    // Both sides hold their connections at the same time, in this process.
    let shape = Shape { subscribers, channels: 1, subscriptions: 1, lanes: subscribers + 1 };
    let description = Fleet { streams: 1, ..fleet(&options.server, &options.run, seed, shape)? };
    let probe = options.server.probe()?;
    let target = options.server.publish_target(options.publish_via)?;
    // A wrong key shows before the connections are opened.
    drop(open_lanes(&target, &options.run, &description, 1)?);
    let Speech::Centrifuge(encoding) = description.speech else {
        bail!("the reference server speaks the client protocol only: --protocol must be json or protobuf");
    };
    let reference = ReferenceServer::spawn()?;
    let silent = Fleet {
        endpoint: Endpoint::parse(reference.url(), "ws", "/")?,
        speech: Speech::Silence(encoding),
        ..description.clone()
    };
    let reference_probe = ProcessProbe::new(reference.pid())?;
    let pool = start_pool(&description, options, interrupt)?;
    let floor_pool = start_pool(&silent, options, interrupt)?;
    let lane = open_lanes(&target, &options.run, &description, 1)?.remove(0);
    let mut server = Side { pool, fleet: description, sender: Sender::Server(Box::new(lane)), probe, sent: 0 };
    let sender = Sender::Reference(reference);
    let mut floor = Side { pool: floor_pool, fleet: silent, sender, probe: Some(reference_probe), sent: 0 };

    let warm_up = messages.min(10);
    server.send(warm_up, options, || Ok(()))?;
    floor.send(warm_up, options, || server.keep_alive())?;
    let mut measured = Vec::new();
    for round in 0..rounds {
        if interrupt.is_raised() {
            ensure!(!measured.is_empty(), "interrupted before the first round was measured");
            break;
        }
        // The order changes from round to round: neither side always comes after the other.
        let (server_cost, floor_cost) = if round % 2 == 0 {
            let server_cost = server.send(messages, options, || Ok(()))?;
            (server_cost, floor.send(messages, options, || server.keep_alive())?)
        } else {
            let floor_cost = floor.send(messages, options, || server.keep_alive())?;
            (server.send(messages, options, || Ok(()))?, floor_cost)
        };
        let round = Round {
            server_us: server_cost.process_us,
            reference_us: floor_cost.process_us.unwrap_or_default(),
            generator_us: (server_cost.generator_us + floor_cost.generator_us) / 2.0,
        };
        let server_us = round.server_us.map_or("?".to_owned(), |cost| format!("{cost:.2}"));
        eprintln!(
            "round {}: server {server_us} µs, reference {:.2} µs per delivery",
            measured.len() + 1,
            round.reference_us
        );
        measured.push(round);
    }

    let spread = |of: fn(&Round) -> Option<f64>| Spread::of(measured.iter().filter_map(of));
    let none = Spread { median: 0.0, least: 0.0, most: 0.0 };
    let ledger = |sent| [StreamLedger { sent, ..StreamLedger::default() }];
    let (server_us, reference_us) = (spread(|round| round.server_us), spread(|round| Some(round.reference_us)));
    let ratio = spread(|round| Some(round.server_us? / round.reference_us.max(1e-9)));
    let generator_us = spread(|round| Some(round.generator_us)).unwrap_or(none);
    let (server_sent, floor_sent) = (server.sent, floor.sent);
    let (server, floor) =
        (server.pool.finish(&ledger(server_sent), |_, _| 0), floor.pool.finish(&ledger(floor_sent), |_, _| 0));
    let result = FanoutResult {
        subscribers,
        messages_per_round: messages,
        payload_bytes: options.run.payload.clone(),
        rounds: measured,
        server_us,
        reference_us: reference_us.unwrap_or(none),
        ratio,
        generator_us,
        server_latency: server.latency.summary(),
        reference_latency: floor.latency.summary(),
        server_audit: server.findings,
        reference_audit: floor.findings,
    };
    let mut verdict = judge(&result, options.max_ratio);
    verdict.interrupted = interrupt.is_raised();
    Ok((result, verdict))
}

fn judge(result: &FanoutResult, max_ratio: Option<f64>) -> Verdict {
    let mut verdict = Verdict::default();
    for (audit, whose) in [(&result.server_audit, "server"), (&result.reference_audit, "reference")] {
        for kind in FaultKind::ALL.into_iter().filter(|&kind| audit.count(kind) > 0) {
            verdict.failures.push(format!("{whose}: {} {}", audit.count(kind), kind.name()));
        }
    }
    if let (Some(most), Some(ratio)) = (max_ratio, result.ratio)
        && ratio.median > most
    {
        verdict.failures.push(format!("{:.2} times the reference, at most {most:.2} were allowed", ratio.median));
    }
    if result.server_us.is_some_and(|server| server.median <= result.generator_us.median) {
        verdict.notes.push("the generator used more processor time per delivery than the server".to_owned());
    }
    verdict
}

struct SideCost {
    process_us: Option<f64>,
    generator_us: f64,
}

fn start_pool(fleet: &Fleet, options: &Options, interrupt: &Interrupt) -> anyhow::Result<Pool> {
    let pool = Pool::start(fleet.clone())?;
    let wanted = fleet.subscribers;
    pool.wait_subscribed(options.run.setup_timeout, interrupt, |status| tell_subscribing(status, wanted))?;
    Ok(pool)
}

impl Side {
    /// The publishing connection answers pings while the other side has its turn.
    fn keep_alive(&mut self) -> anyhow::Result<()> {
        match &mut self.sender {
            Sender::Server(lane) => lane.keep_alive(),
            Sender::Reference(_) => Ok(()),
        }
    }

    /// Sends so many messages, each when everybody has the one before; `meanwhile` is called between them.
    fn send(
        &mut self,
        messages: u32,
        options: &Options,
        mut meanwhile: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<SideCost> {
        let own = ProcessProbe::own();
        let before = self.probe.as_ref().map(ProcessProbe::cpu).transpose()?;
        let own_before = own.cpu()?;
        let (mut payload, mut message, mut frame) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..messages {
            meanwhile()?;
            payload.clear();
            let stamp = Stamp { channel: 0, stream: 0, seq: self.sent, due_ns: self.fleet.clock.now_ns() };
            self.fleet.format.write(stamp, &mut payload);
            let channel = self.fleet.channels.name(0);
            match &mut self.sender {
                Sender::Server(lane) => lane.publish_and_wait(channel, &payload, options.run.connect_timeout)?,
                Sender::Reference(reference) => {
                    let Speech::Silence(encoding) = self.fleet.speech else { bail!("another protocol") };
                    message.clear();
                    frame.clear();
                    write_publication(&mut message, encoding, channel, &payload);
                    write_frame(&mut frame, encoding.frame_kind(), &message, None);
                    reference.write_to_all(&frame)?;
                }
            }
            self.sent += 1;
            if !self.pool.wait_delivered(self.sent * u64::from(self.fleet.subscribers), DELIVERY_TIMEOUT) {
                // The audit will say what is missing; going on would only wait again and again.
                let status = self.pool.status();
                bail!("a message did not reach everybody within {DELIVERY_TIMEOUT:?}: {status:?}");
            }
        }
        let deliveries = f64::from(messages) * f64::from(self.fleet.subscribers);
        let process_us = match (&self.probe, &before) {
            (Some(probe), Some(before)) => Some(probe.cpu()?.since(before).as_secs_f64() * 1e6 / deliveries),
            _ => None,
        };
        let generator_us = own.cpu()?.since(&own_before).as_secs_f64() * 1e6 / deliveries;
        Ok(SideCost { process_us, generator_us })
    }
}

impl Measured for FanoutResult {
    fn describe(&self, table: &mut Table) {
        let FanoutResult { subscribers, messages_per_round, payload_bytes, rounds, .. } = self;
        table.heading("fan-out, one message at a time");
        table.row("shape", format!("{subscribers} subscribers of one channel, {payload_bytes} bytes"));
        table.row("rounds", format!("{} of {messages_per_round} messages, server and reference in turn", rounds.len()));
        table.heading("processor time per delivery (median of rounds, least to most)");
        let text = |spread: &Spread, unit| {
            let Spread { median, least, most } = spread;
            format!("{median:.2}{unit}  ({least:.2} to {most:.2})")
        };
        match &self.server_us {
            Some(server) => table.row("server", text(server, " µs")),
            None => table.row("server", "unknown without --server-pid"),
        }
        table.row("reference", text(&self.reference_us, " µs"));
        table.row("generator", text(&self.generator_us, " µs"));
        if let Some(ratio) = &self.ratio {
            table.row("server / reference", text(ratio, ""));
        }
        table.heading("latency, published to received");
        table.row("server", self.server_latency);
        table.row("reference", self.reference_latency);
        table.heading("audit");
        table.row("server", format!("{} faults", self.server_audit.total()));
        table.row("reference", format!("{} faults", self.reference_audit.total()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_middle_and_the_ends() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, least: 1.0, most: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).map(|spread| spread.median), Some(2.5));
        assert_eq!(Spread::of([]), None);
    }
}
