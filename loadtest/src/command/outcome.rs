//! What a run measured, its figures, its text, and the judgement on it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use serde::Serialize;

use super::cost::{Cost, GeneratorCost, ServerCost};
use super::run::Prepared;
use super::{FULL_CORE, Sizes, readable_bytes};
use crate::audit::{FaultKind, Findings};
use crate::clock::nanoseconds;
use crate::latency::{LatencyHistogram, LatencySummary, readable};
use crate::metrics::{Metrics, add_latency};
use crate::phase::{Disruption, Phase};
use crate::process::ProcessProbe;
use crate::publish::Published;
use crate::receive::Received;
use crate::report::{Measured, Table, Verdict};
use crate::target::lane::Via;
use crate::timeline::Second;

/// What `loadtest run` measured.
#[derive(Debug, Serialize)]
pub struct RunResult {
    /// Every figure under its name: times in nanoseconds, sizes in bytes.
    pub metrics: Metrics,
    /// The figures of every repeat, this one's last.
    pub repeats: Vec<Metrics>,
    subscribers: u32,
    channels: u32,
    subscriptions_each: u32,
    publishers: u32,
    via: Via,
    payload_bytes: Sizes,
    rate_achieved: f64,
    seconds: f64,
    set_up_seconds: f64,
    /// When the first publication was due, on the axis of the timeline.
    measuring_from_seconds: f64,
    published: u64,
    accepted: u64,
    refused: BTreeMap<String, u64>,
    unanswered: u64,
    unsent: u64,
    /// Deliveries owed; who was away is not owed what it missed.
    pub(super) expected: u64,
    pub(super) delivered: u64,
    foreign: u64,
    audit: Findings,
    ended_connections: BTreeMap<String, u64>,
    broken_publishers: Vec<String>,
    latency: LatencySummary,
    /// The percentile curve: percentile (0 to 100) and nanoseconds.
    curve: Vec<(f64, u64)>,
    publish_answer: LatencySummary,
    publish_wait: LatencySummary,
    phases: Vec<PhaseResult>,
    disruption: Option<DisruptionResult>,
    generator: GeneratorCost,
    server: Option<ServerCost>,
    timeline: Vec<Second>,
}

#[derive(Debug, Serialize)]
struct PhaseResult {
    name: String,
    from_seconds: f64,
    to_seconds: f64,
    rate: f64,
    rate_at_end: f64,
    disruption: Disruption,
    latency: LatencySummary,
    curve: Vec<(f64, u64)>,
}

#[derive(Debug, Serialize)]
struct DisruptionResult {
    cuts: u64,
    returned: u64,
    return_time: LatencySummary,
    refusals: BTreeMap<String, u64>,
    missed_while_away: u64,
    recovered: u64,
    recovered_age: LatencySummary,
    unrecovered: u64,
    slow_readers: u32,
    slow_readers_ended: BTreeMap<String, u64>,
    half_open: u32,
    half_open_ended: BTreeMap<String, u64>,
    misbehaved_for: LatencySummary,
}

/// Everything a result is made of.
pub(super) struct Measurements<'a> {
    pub(super) subscribers: u32,
    pub(super) channels: u32,
    pub(super) subscriptions_each: u32,
    pub(super) publishers: u32,
    pub(super) via: Via,
    pub(super) payload: Sizes,
    pub(super) slow_readers: u32,
    pub(super) half_open: u32,
    pub(super) phases: &'a [Phase],
    pub(super) times: &'a [Range<u64>],
    pub(super) start_ns: u64,
    pub(super) measuring_from: Duration,
    pub(super) seconds: f64,
    pub(super) lead: Duration,
    pub(super) set_up: Duration,
    /// Deliveries that would be owed if nobody had been away.
    pub(super) expected: u64,
    pub(super) published: &'a Published,
    pub(super) received: &'a Received,
    pub(super) cost: &'a Cost,
    /// Growth of the server's resident memory per connection while subscribing.
    pub(super) growth: Option<f64>,
    pub(super) watched: Option<ProcessProbe>,
    pub(super) timeline: Vec<Second>,
}

impl RunResult {
    pub(super) fn new(of: Measurements<'_>) -> Self {
        let Measurements { published, received, cost, .. } = of;
        let sent: u64 = published.ledgers.iter().map(|ledger| ledger.sent).sum();
        let messages = sent + received.delivered;
        let phases = phase_results(&of);
        let disrupted = of.phases.iter().any(|phase| phase.disruption.cuts());
        let mut result = RunResult {
            metrics: Metrics::new(),
            repeats: Vec::new(),
            subscribers: of.subscribers,
            channels: of.channels,
            subscriptions_each: of.subscriptions_each,
            publishers: of.publishers,
            via: of.via,
            payload_bytes: of.payload,
            rate_achieved: sent as f64 / published.wall.saturating_sub(of.lead).as_secs_f64().max(1e-9),
            seconds: of.seconds,
            set_up_seconds: of.set_up.as_secs_f64(),
            measuring_from_seconds: of.measuring_from.as_secs_f64(),
            published: sent,
            accepted: published.ledgers.iter().map(|ledger| ledger.accepted()).sum(),
            unanswered: published.ledgers.iter().map(|ledger| ledger.unanswered.len() as u64).sum(),
            refused: published.refusals.clone(),
            unsent: published.unsent,
            expected: of.expected.saturating_sub(received.missed_while_away),
            delivered: received.delivered,
            foreign: received.foreign,
            audit: received.findings.clone(),
            ended_connections: received.ended.clone(),
            broken_publishers: published.broken.clone(),
            latency: received.latency.summary(),
            curve: received.latency.curve(),
            publish_answer: published.answering.summary(),
            publish_wait: published.sending.summary(),
            phases,
            disruption: (disrupted || of.slow_readers + of.half_open > 0)
                .then(|| DisruptionResult::new(received, of.slow_readers, of.half_open)),
            generator: cost.generator(messages, published, received),
            server: cost.server(messages),
            timeline: of.timeline,
        };
        result.metrics = result.figures(of.growth, of.watched);
        result
    }

    fn figures(&self, growth: Option<f64>, watched: Option<ProcessProbe>) -> Metrics {
        let mut metrics = Metrics::new();
        let mut set = |name: &str, value: f64| {
            metrics.insert(name.to_owned(), value);
        };
        for kind in FaultKind::ALL {
            set(kind.name(), self.audit.count(kind) as f64);
        }
        let sum = |reasons: &BTreeMap<String, u64>| reasons.values().sum::<u64>() as f64;
        set("published", self.published as f64);
        set("refused", sum(&self.refused));
        set("unanswered", self.unanswered as f64);
        set("unsent", self.unsent as f64);
        set("expected", self.expected as f64);
        set("delivered", self.delivered as f64);
        set("publish_rate", self.rate_achieved);
        set("deliver_rate", self.delivered as f64 / self.seconds.max(1e-9));
        set("ended", sum(&self.ended_connections));
        set("publishers_ended", self.broken_publishers.len() as f64);
        set("set_up", self.set_up_seconds * 1e9);
        if let Some(disruption) = &self.disruption {
            set("cuts", disruption.cuts as f64);
            set("not_returned", (disruption.cuts - disruption.returned) as f64);
            set("return_refusals", sum(&disruption.refusals));
            set("missed_while_away", disruption.missed_while_away as f64);
            set("recovered", disruption.recovered as f64);
            set("unrecovered", disruption.unrecovered as f64);
            set("slow_readers_ended", sum(&disruption.slow_readers_ended));
            set("half_open_ended", sum(&disruption.half_open_ended));
        }
        set("generator_cores", self.generator.busiest_thread_cores);
        set("generator_cpu_per_message", self.generator.cpu_us_per_message * 1e3);
        if let Some(server) = &self.server {
            set("server_cores", server.cores);
            set("server_cpu_per_message", server.cpu_us_per_message * 1e3);
            set("server_cpu_per_million", server.cpu_seconds * 1e9 / self.delivered.max(1) as f64 * 1e6);
            set("rss", server.resident_bytes as f64);
        }
        if let Some(growth) = growth {
            set("rss_per_conn", growth);
        }
        if let Some(probe) = watched {
            set("descriptors", probe.descriptors().unwrap_or(0) as f64);
            let switches = self.timeline.iter().filter_map(|second| Some(second.server?.context_switches));
            let (sum, count) = switches.fold((0.0, 0.0), |(sum, count), switches| (sum + switches, count + 1.0));
            set("context_switches", sum / f64::max(count, 1.0));
        }
        add_latency(&mut metrics, "deliver", "", &self.latency);
        add_latency(&mut metrics, "answer", "", &self.publish_answer);
        add_latency(&mut metrics, "wait", "", &self.publish_wait);
        add_latency(&mut metrics, "lag", "", &self.generator.own_lag);
        add_latency(&mut metrics, "loop", "", &self.generator.loop_delay);
        if let Some(disruption) = &self.disruption {
            add_latency(&mut metrics, "return", "", &disruption.return_time);
            add_latency(&mut metrics, "recovered", "", &disruption.recovered_age);
        }
        for phase in &self.phases {
            add_latency(&mut metrics, "deliver", &format!("@{}", phase.name), &phase.latency);
        }
        metrics
    }
}

fn phase_results(of: &Measurements<'_>) -> Vec<PhaseResult> {
    let from_start = |ns: u64| of.measuring_from.as_secs_f64() + ns.saturating_sub(of.start_ns) as f64 / 1e9;
    let none = LatencyHistogram::new();
    let results = of.phases.iter().zip(of.times).enumerate().map(|(index, (phase, time))| {
        // One phase is the whole run.
        let histogram = if of.phases.len() == 1 { Some(&of.received.latency) } else { of.received.phases.get(index) };
        let histogram = histogram.unwrap_or(&none);
        PhaseResult {
            name: phase.name.clone(),
            from_seconds: from_start(time.start),
            to_seconds: from_start(time.end),
            rate: phase.rate,
            rate_at_end: phase.rate_at_end,
            disruption: phase.disruption,
            latency: histogram.summary(),
            curve: histogram.curve(),
        }
    });
    results.collect()
}

impl DisruptionResult {
    fn new(received: &Received, slow_readers: u32, half_open: u32) -> Self {
        let disrupted = &received.disrupted;
        DisruptionResult {
            cuts: disrupted.cuts,
            returned: disrupted.returned,
            return_time: disrupted.return_time.summary(),
            refusals: disrupted.refusals.clone(),
            missed_while_away: received.missed_while_away,
            recovered: disrupted.recovered,
            recovered_age: disrupted.recovered_age.summary(),
            unrecovered: disrupted.unrecovered,
            slow_readers,
            slow_readers_ended: disrupted.slow_readers_ended.clone(),
            half_open,
            half_open_ended: disrupted.half_open_ended.clone(),
            misbehaved_for: disrupted.misbehaved_for.summary(),
        }
    }
}

// === judgement ===

/// Counts of which there must be none, unless a threshold says otherwise, with what they count.
const DEMANDED: [(&str, &str); 5] = [
    ("refused", "publications were refused"),
    ("unanswered", "publications got no answer"),
    ("ended", "connections of subscribers ended"),
    ("publishers_ended", "connections of publishers ended"),
    ("unrecovered", "subscriptions could not be recovered"),
];

/// The verdict on a run.
pub(super) fn judge(result: &RunResult, prepared: &Prepared, max_own_lag: Duration) -> Verdict {
    let mut verdict = Verdict::default();
    let spoken_of = |name: &str| prepared.thresholds.iter().any(|threshold| threshold.name() == name);
    let count = |name: &str| result.metrics.get(name).copied().unwrap_or(0.0) as u64;
    let no = |count: u64, reason: String| if count == 0 { Ok(()) } else { Err(reason) };
    for kind in FaultKind::ALL.into_iter().filter(|kind| !spoken_of(kind.name())) {
        let (name, count) = (kind.name(), result.audit.count(kind));
        verdict.demand(
            format!("{name} == 0"),
            no(count, format!("{count} {name} of {} expected deliveries", result.expected)),
        );
    }
    for (name, what) in DEMANDED.into_iter().filter(|(name, _)| !spoken_of(name)) {
        let count = count(name);
        verdict.demand(format!("{name} == 0"), no(count, format!("{count} {what}")));
    }
    for threshold in &prepared.thresholds {
        verdict.demand(threshold.text(), threshold.check(&result.metrics));
    }
    for (name, held) in prepared.baseline.iter().flat_map(|baseline| baseline.check(&result.metrics)) {
        verdict.demand(name, held);
    }
    judge_generator(result, nanoseconds(max_own_lag), &mut verdict);
    verdict
}

fn judge_generator(result: &RunResult, bound: u64, verdict: &mut Verdict) {
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
}

// === text ===

impl Measured for RunResult {
    fn describe(&self, table: &mut Table) {
        self.describe_load(table);
        self.describe_audit(table);
        if let Some(disruption) = &self.disruption {
            disruption.describe(table);
        }
        table.heading("latency");
        table.row("due to received", self.latency);
        if self.phases.len() > 1 {
            self.phases.iter().for_each(|phase| table.row(&format!("  {}", phase.name), phase.latency));
        }
        table.row("due to sent", self.publish_wait);
        table.row("due to answered", self.publish_answer);
        self.describe_cost(table);
    }
}

impl RunResult {
    fn describe_load(&self, table: &mut Table) {
        table.heading("load");
        let RunResult { subscribers, channels, subscriptions_each, publishers, via, payload_bytes, .. } = self;
        table.row("subscribers", format!("{subscribers}, {subscriptions_each} channel(s) each, of {channels}"));
        table.row("set up in", format!("{:.2} s", self.set_up_seconds));
        table.row("publishing", format!("over {via:?}, {publishers} connection(s), {payload_bytes} bytes each"));
        for PhaseResult { name, from_seconds, to_seconds, rate, rate_at_end, .. } in &self.phases {
            let rate = if rate == rate_at_end { format!("{rate}") } else { format!("{rate} to {rate_at_end}") };
            table.row(&format!("  {name}"), format!("{rate} per second for {:.1} s", to_seconds - from_seconds));
        }
        table.row("rate", format!("{:.1} per second achieved", self.rate_achieved));
        table.row("measured for", format!("{:.2} s", self.seconds));
    }

    fn describe_audit(&self, table: &mut Table) {
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
    }

    fn describe_cost(&self, table: &mut Table) {
        table.heading("cost");
        if let Some(server) = &self.server {
            let ServerCost { cpu_us_per_message, cores, resident_bytes, .. } = server;
            let resident = readable_bytes(*resident_bytes as f64);
            table.row(
                "server",
                format!("{cpu_us_per_message:.2} µs per message, {cores:.2} cores, {resident} resident"),
            );
        }
        if let Some(growth) = self.metrics.get("rss_per_conn") {
            table.row("", format!("{growth:.0} bytes resident per connection while subscribing"));
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

impl DisruptionResult {
    fn describe(&self, table: &mut Table) {
        table.heading("disruption");
        if self.cuts > 0 {
            table.row("cut connections", format!("{}, {} of them back at the end", self.cuts, self.returned));
            table.row("back after", self.return_time);
            table.row("missed meanwhile", self.missed_while_away);
            let DisruptionResult { recovered, unrecovered, .. } = self;
            table.row("recovered", format!("{recovered} messages; {unrecovered} subscriptions were not recoverable"));
        }
        for (reason, count) in &self.refusals {
            table.row("  refused", format!("{count} times: {reason}"));
        }
        for (label, count, ended) in [
            ("slow readers", self.slow_readers, &self.slow_readers_ended),
            ("half-open", self.half_open, &self.half_open_ended),
        ] {
            if count > 0 {
                let sum: u64 = ended.values().sum();
                table.row(label, format!("{count}, of which the server ended {sum}"));
                ended.iter().for_each(|(reason, count)| table.row("  ended", format!("{count}: {reason}")));
            }
        }
        if self.misbehaved_for.count > 0 {
            table.row("ended after", self.misbehaved_for);
        }
    }
}
