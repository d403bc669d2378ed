//! `loadtest run`: subscribers, an open-loop publisher, latency from the due time, and the exact audit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use serde::Serialize;

use super::cost::{GeneratorCost, Measurement, ServerCost};
use super::timeline::{Second, Timeline};
use super::{
    FULL_CORE, RunOptions, ServerOptions, Shape, fleet, open_lanes, parse_duration, readable_bytes, tell_subscribing,
};
use crate::audit::{FaultKind, Findings};
use crate::clock::nanoseconds;
use crate::interrupt::Interrupt;
use crate::latency::{LatencySummary, readable};
use crate::publish::{OpenLoop, PublishProgress, Published};
use crate::receive::Pool;
use crate::report::{Measured, Table, Verdict};
use crate::schedule::Schedule;
use crate::target::lane::Via;

/// From the moment all is set up to the first due publication.
const LEAD: Duration = Duration::from_millis(100);

/// Options of `loadtest run`.
#[derive(Clone, Debug, Args)]
pub struct Options {
    #[command(flatten)]
    server: ServerOptions,
    #[command(flatten)]
    run: RunOptions,
    /// Subscribers, each with a connection of its own
    #[arg(long, default_value_t = 100, value_name = "N")]
    subscribers: u32,
    /// Channels, over which subscribers and publications are spread evenly
    #[arg(long, default_value_t = 1, value_name = "N")]
    channels: u32,
    /// Channels that each subscriber subscribes to
    #[arg(long, default_value_t = 1, value_name = "N")]
    subscriptions: u32,
    /// Publications per second, all channels together
    #[arg(long, default_value_t = 100.0, value_name = "PER_SECOND")]
    rate: f64,
    /// How long to publish
    #[arg(long, default_value = "10s", value_parser = parse_duration, value_name = "TIME")]
    duration: Duration,
    /// How to publish
    #[arg(long, value_enum, default_value = "websocket")]
    publish_via: Via,
    /// Connections that publish [default: 1 over WebSocket, else 8]; over HTTP and gRPC each waits for its answer
    #[arg(long, value_name = "N")]
    publishers: Option<u32>,
    /// Longest wait for the last deliveries
    #[arg(long, default_value = "10s", value_parser = parse_duration, value_name = "TIME")]
    grace: Duration,
}

impl Options {
    /// The options every command has.
    pub fn run(&self) -> &RunOptions {
        &self.run
    }
}

/// What `loadtest run` measured.
#[derive(Debug, Serialize)]
pub struct RunResult {
    subscribers: u32,
    channels: u32,
    subscriptions_each: u32,
    publishers: u32,
    via: Via,
    payload_bytes: usize,
    rate_wanted: f64,
    rate_achieved: f64,
    seconds: f64,
    set_up_seconds: f64,
    published: u64,
    accepted: u64,
    refused: BTreeMap<String, u64>,
    unanswered: u64,
    unsent: u64,
    expected: u64,
    delivered: u64,
    foreign: u64,
    audit: Findings,
    ended_connections: BTreeMap<String, u64>,
    broken_publishers: Vec<String>,
    latency: LatencySummary,
    publish_answer: LatencySummary,
    publish_wait: LatencySummary,
    generator: GeneratorCost,
    server: Option<ServerCost>,
    timeline: Vec<Second>,
}

/// Makes the run.
///
/// # Errors
///
/// Whatever kept it from measuring.
pub fn execute(options: &Options, seed: u64, interrupt: &Interrupt) -> anyhow::Result<(RunResult, Verdict)> {
    ensure!(options.rate > 0.0 && options.rate <= 1e7, "--rate must be above 0 and at most 10,000,000");
    ensure!(options.subscribers > 0, "--subscribers must be at least 1");
    let publishers = options.publishers.unwrap_or(if options.publish_via == Via::Websocket { 1 } else { 8 });
    ensure!((1..=1_000).contains(&publishers), "--publishers must be from 1 to 1000");
    let total = (options.rate * options.duration.as_secs_f64()).round() as u64;
    ensure!(total > 0, "--rate and --duration make no publication");

    let shape = Shape {
        subscribers: options.subscribers,
        channels: options.channels,
        subscriptions: options.subscriptions,
        lanes: publishers,
    };
    let fleet = fleet(&options.server, &options.run, seed, shape)?;
    let probe = options.server.probe()?;
    let target = options.server.publish_target(options.publish_via)?;
    // A wrong key shows before thousands of connections are opened; the lanes themselves come after them, because a
    // publishing connection that nobody drives meanwhile does not answer pings.
    drop(open_lanes(&target, &options.run, &fleet, 1)?);

    let setting_up = Instant::now();
    let pool = Pool::start(fleet.clone())?;
    pool.wait_subscribed(options.run.setup_timeout, interrupt, |status| tell_subscribing(status, fleet.subscribers))?;
    let set_up = setting_up.elapsed();
    let lanes = open_lanes(&target, &options.run, &fleet, publishers)?;

    pool.begin_measuring();
    let measure = Measurement::begin(probe);
    let progress = Arc::new(PublishProgress::default());
    let start_ns = fleet.clock.now_ns() + nanoseconds(LEAD);
    let publisher = OpenLoop {
        lanes,
        schedule: Schedule::new(start_ns, options.rate, total, options.channels, publishers),
        channels: fleet.channels.all().clone(),
        format: fleet.format.clone(),
        clock: fleet.clock,
        progress: progress.clone(),
    };
    let started = Instant::now();
    let publisher = std::thread::Builder::new().name("publish".to_owned()).spawn(move || publisher.run())?;
    let mut timeline = Timeline::new(started);
    while !publisher.is_finished() {
        if interrupt.is_raised() {
            progress.stop.store(true, Ordering::Relaxed);
            // The publisher ends within its grace; waiting on the raised interrupt would return at once.
            break;
        }
        interrupt.wait(Duration::from_millis(20));
        timeline.tick(&pool, &progress, false);
    }
    let published = publisher.join().expect("the publisher does not panic")?;
    let expected = expected_deliveries(&published, &fleet.subscribers_by_channel());
    let grace = Instant::now() + options.grace;
    let anybody_left = || pool.status().ended < u64::from(fleet.subscribers);
    while !pool.wait_delivered(expected, Duration::from_millis(100)) && Instant::now() < grace && anybody_left() {
        timeline.tick(&pool, &progress, false);
    }
    timeline.tick(&pool, &progress, true);
    let seconds = started.elapsed().saturating_sub(LEAD).as_secs_f64();
    let cost = measure.end();
    let received = pool.finish(&published.ledgers);

    let sent: u64 = published.ledgers.iter().map(|ledger| ledger.sent).sum();
    let messages = sent + received.delivered;
    let result = RunResult {
        subscribers: options.subscribers,
        channels: options.channels,
        subscriptions_each: options.subscriptions,
        publishers,
        via: options.publish_via,
        payload_bytes: options.run.payload,
        rate_wanted: options.rate,
        rate_achieved: sent as f64 / published.wall.saturating_sub(LEAD).as_secs_f64().max(1e-9),
        seconds,
        set_up_seconds: set_up.as_secs_f64(),
        published: sent,
        accepted: published.ledgers.iter().map(|ledger| ledger.accepted()).sum(),
        unanswered: published.ledgers.iter().map(|ledger| ledger.unanswered.len() as u64).sum(),
        refused: published.refusals.clone(),
        unsent: published.unsent,
        expected,
        delivered: received.delivered,
        foreign: received.foreign,
        audit: received.findings.clone(),
        ended_connections: received.ended.clone(),
        broken_publishers: published.broken.clone(),
        latency: received.latency.summary(),
        publish_answer: published.answering.summary(),
        publish_wait: published.sending.summary(),
        generator: cost.generator(messages, &published, &received),
        server: cost.server(messages),
        timeline: timeline.seconds,
    };
    let mut verdict = judge(&result, options);
    verdict.interrupted = interrupt.is_raised();
    Ok((result, verdict))
}

/// Accepted publications, each times the subscribers of its channel.
fn expected_deliveries(published: &Published, subscribers: &[u64]) -> u64 {
    let by_channel = published.ledgers.chunks(usize::from(published.streams));
    let accepted = by_channel.map(|streams| streams.iter().map(|ledger| ledger.accepted()).sum::<u64>());
    accepted.zip(subscribers).map(|(accepted, subscribers)| accepted * subscribers).sum()
}

fn judge(result: &RunResult, options: &Options) -> Verdict {
    let mut verdict = Verdict::default();
    for kind in FaultKind::ALL {
        let count = result.audit.count(kind);
        if count > 0 {
            verdict.failures.push(format!("{count} {} of {} expected deliveries", kind.name(), result.expected));
        }
    }
    let refused: u64 = result.refused.values().sum();
    for (count, what) in [
        (refused, "publications were refused"),
        (result.unanswered, "publications got no answer"),
        (result.ended_connections.values().sum(), "connections of subscribers ended"),
        (result.broken_publishers.len() as u64, "connections of publishers ended"),
    ] {
        if count > 0 {
            verdict.failures.push(format!("{count} {what}"));
        }
    }
    let bound = nanoseconds(options.run.max_own_lag);
    let GeneratorCost { own_lag, loop_delay, busiest_thread_cores, .. } = &result.generator;
    for (lag, what) in [(own_lag, "the publisher's loop"), (loop_delay, "the receiving threads")] {
        if lag.p99_ns > bound {
            let (p99, bound) = (readable(lag.p99_ns), readable(bound));
            verdict.generator_limits.push(format!("{what} ran {p99} late at p99 (allowed: {bound})"));
        }
    }
    if *busiest_thread_cores >= FULL_CORE {
        let percent = busiest_thread_cores * 100.0;
        verdict.generator_limits.push(format!("a thread of the generator used {percent:.0} % of a core"));
    }
    if let Some(server) = &result.server
        && server.cpu_us_per_message <= result.generator.cpu_us_per_message
    {
        verdict.notes.push("the generator used more processor time per message than the server".to_owned());
    }
    if result.publish_wait.p99_ns > bound && own_lag.p99_ns <= bound {
        let wait = readable(result.publish_wait.p99_ns);
        verdict.notes.push(format!(
            "publications waited up to {wait} (p99) for earlier ones of their connection; more --publishers may help"
        ));
    }
    verdict
}

impl Measured for RunResult {
    fn describe(&self, table: &mut Table) {
        table.heading("load");
        let RunResult { subscribers, channels, subscriptions_each, publishers, via, payload_bytes, .. } = self;
        table.row("subscribers", format!("{subscribers}, {subscriptions_each} channel(s) each, of {channels}"));
        table.row("set up in", format!("{:.2} s", self.set_up_seconds));
        table.row("publishing", format!("over {via:?}, {publishers} connection(s), {payload_bytes} bytes each"));
        table.row("rate", format!("{:.1} per second wanted, {:.1} achieved", self.rate_wanted, self.rate_achieved));
        table.row("measured for", format!("{:.2} s", self.seconds));

        table.heading("audit");
        let refused: u64 = self.refused.values().sum();
        let RunResult { published, accepted, unanswered, unsent, .. } = self;
        table.row(
            "publications",
            format!(
                "{published} sent, {accepted} accepted, {refused} refused, {unanswered} unanswered, {unsent} unsent"
            ),
        );
        for (reason, count) in &self.refused {
            table.row("  refused", format!("{count} times: {reason}"));
        }
        table.row("deliveries", format!("{} of {} expected", self.delivered, self.expected));
        for kind in FaultKind::ALL {
            table.row(kind.name(), self.audit.count(kind));
        }
        for fault in self.audit.first.iter().take(10) {
            let number = |number: Option<u64>| number.map_or("?".to_owned(), |number| number.to_string());
            let (stream, seq) = (number(fault.stream.map(u64::from)), number(fault.seq));
            let (subscriber, channel) = (fault.subscriber, fault.channel);
            let place = format!("subscriber {subscriber}, channel {channel}, stream {stream}, message {seq}");
            table.row(&format!("  {}", fault.kind.name()), place);
        }
        if self.foreign > 0 {
            table.row("of other runs", self.foreign);
        }
        for (reason, count) in &self.ended_connections {
            table.row("ended connections", format!("{count}: {reason}"));
        }
        for reason in &self.broken_publishers {
            table.row("ended publisher", reason);
        }

        table.heading("latency");
        table.row("due to received", self.latency);
        table.row("due to sent", self.publish_wait);
        table.row("due to answered", self.publish_answer);

        table.heading("cost");
        if let Some(server) = &self.server {
            let ServerCost { cpu_us_per_message, cores, resident_bytes, .. } = server;
            let resident = readable_bytes(*resident_bytes as f64);
            table.row(
                "server",
                format!("{cpu_us_per_message:.2} µs per message, {cores:.2} cores, {resident} resident"),
            );
        }
        let GeneratorCost { cpu_us_per_message, busiest_thread_cores, resident_bytes, own_lag, loop_delay, .. } =
            &self.generator;
        let resident = readable_bytes(*resident_bytes as f64);
        table.row(
            "generator",
            format!("{cpu_us_per_message:.2} µs per message, busiest thread {busiest_thread_cores:.2} cores, {resident} resident"),
        );
        table.row("publisher's lag", own_lag);
        table.row("receivers' delay", loop_delay);
    }
}
