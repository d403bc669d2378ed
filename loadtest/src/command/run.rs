//! `loadtest run`: subscribers, an open-loop publisher, disruption, latency from the due time, and the exact audit.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use clap::Args;

use super::cost::Measurement;
use super::outcome::{self, Measurements, RunResult};
use super::{RunOptions, ServerOptions, Shape, fleet, open_lanes, parse_duration};
use crate::baseline::Baseline;
use crate::clock::nanoseconds;
use crate::fleet::Fleet;
use crate::interrupt::Interrupt;
use crate::metrics::needs_server;
use crate::phase::{Disruption, Phase};
use crate::process::ProcessProbe;
use crate::publish::{OpenLoop, PublishProgress, Published};
use crate::receive::{Pool, RunPlan};
use crate::report::Verdict;
use crate::scenario::PhaseKeys;
use crate::schedule::{Schedule, Spread};
use crate::server_process::ServerProcess;
use crate::target::Endpoint;
use crate::target::lane::Via;
use crate::threshold::Threshold;
use crate::timeline::Timeline;
use crate::view::{View, ViewKind};

/// From the moment all is set up to the first due publication.
const LEAD: Duration = Duration::from_millis(100);

/// In a run that cuts connections nobody knows beforehand how many deliveries are owed: when none has come for so long, no
/// more are expected.
const QUIET: Duration = Duration::from_secs(2);

/// Options of `loadtest run`.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Scenario file or preset (`loadtest presets` lists them); options given here win
    #[arg(value_name = "FILE|PRESET")]
    pub scenario: Option<String>,
    #[command(flatten)]
    pub(super) server: ServerOptions,
    #[command(flatten)]
    pub(super) run: RunOptions,
    /// Starts the server for the run and watches it: a program and its arguments, separated by blanks
    #[arg(long, value_name = "COMMAND", conflicts_with = "server_pid")]
    server_command: Option<String>,
    /// Subscribers, each with a connection of its own
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub(super) subscribers: u32,
    /// Channels, over which subscribers are spread evenly
    #[arg(long, default_value_t = 1, value_name = "N")]
    channels: u32,
    /// Channels that each subscriber subscribes to
    #[arg(long, default_value_t = 1, value_name = "N")]
    subscriptions: u32,
    /// Publications per second, all channels together
    #[arg(long, default_value_t = 100.0, value_name = "PER_SECOND")]
    pub(super) rate: f64,
    /// Spreads publications by Zipf's law with this exponent (1 is usual) instead of evenly
    #[arg(long, value_name = "EXPONENT")]
    zipf: Option<f64>,
    /// How long to publish; in a scenario with phases, of those that do not say
    #[arg(long, default_value = "10s", value_parser = parse_duration, value_name = "TIME")]
    pub(super) duration: Duration,
    /// How to publish
    #[arg(long, value_enum, default_value = "websocket")]
    publish_via: Via,
    /// Connections that publish [default: 1 over WebSocket, else 8]; over HTTP and gRPC each waits for its answer
    #[arg(long, value_name = "N")]
    publishers: Option<u32>,
    /// Longest wait for the last deliveries
    #[arg(long, default_value = "10s", value_parser = parse_duration, value_name = "TIME")]
    grace: Duration,
    /// Connections opened per second [default: as fast as they come]
    #[arg(long, value_name = "N")]
    connects_per_second: Option<f64>,
    /// Connections cut per second, drawn by lot
    #[arg(long, default_value_t = 0.0, value_name = "PER_SECOND")]
    churn: f64,
    /// Share of connections (0 to 1) cut at the beginning
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    cut: f64,
    /// How long who was cut stays away
    #[arg(long, default_value = "1s", value_parser = parse_duration, value_name = "TIME")]
    offline: Duration,
    /// Who was cut asks for what it missed, and the server is held to it
    #[arg(long)]
    recover: bool,
    /// So many of the subscribers read slowly
    #[arg(long, default_value_t = 0, value_name = "N")]
    slow_readers: u32,
    /// How slowly
    #[arg(long, default_value_t = 1024, value_name = "BYTES")]
    slow_bytes_per_second: u64,
    /// So many of the subscribers neither read nor answer once they are subscribed, and do not close
    #[arg(long, default_value_t = 0, value_name = "N")]
    half_open: u32,
    /// What the run must hold, such as 'p99_deliver < 50ms' or 'lost == 0'; may be given more than once
    #[arg(long, value_name = "CONDITION")]
    pub(super) threshold: Vec<String>,
    /// JSON report of an earlier run that this one must not fall behind
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// How much worse than the baseline is tolerated
    #[arg(long, default_value_t = 10.0, value_name = "PERCENT")]
    drift: f64,
    /// Makes the run so many times; figures are of the last one, the spread is of all
    #[arg(long, default_value_t = 1, value_name = "N")]
    repeat: u32,
    /// How progress is shown
    #[arg(long, value_enum, default_value = "auto")]
    pub(super) view: ViewKind,
    /// Phases of the scenario file.
    #[arg(skip)]
    pub phases: Vec<PhaseKeys>,
}

impl Options {
    /// The options every command has.
    pub fn run(&self) -> &RunOptions {
        &self.run
    }

    /// Everything of the options that can be wrong by itself, checked before anything is started.
    pub(super) fn prepare(&self) -> anyhow::Result<Prepared> {
        let publishers = self.publishers.unwrap_or(if self.publish_via == Via::Websocket { 1 } else { 8 });
        ensure!((1..=1_000).contains(&publishers), "--publishers must be from 1 to 1000");
        ensure!(self.subscribers > 0, "--subscribers must be at least 1");
        let misbehaving = self.slow_readers.saturating_add(self.half_open);
        ensure!(misbehaving <= self.subscribers, "there are fewer --subscribers than slow readers and half-open ones");
        ensure!(self.rate > 0.0 && self.rate <= 1e7, "--rate must be above 0 and at most 10,000,000");
        ensure!(self.churn.is_finite() && self.churn >= 0.0, "--churn must be 0 or more");
        ensure!((0.0..=1.0).contains(&self.cut), "--cut must be from 0 to 1");
        ensure!((1..=100).contains(&self.repeat), "--repeat must be from 1 to 100");
        ensure!(self.zipf.is_none_or(|exponent| (0.0..=10.0).contains(&exponent)), "--zipf must be from 0 to 10");
        let pace = self.connects_per_second;
        ensure!(pace.is_none_or(|pace| pace.is_finite() && pace > 0.0), "--connects-per-second must be above 0");
        let phases = self.phases_in_full();
        for (index, phase) in phases.iter().enumerate() {
            let again = phases[..index].iter().any(|earlier| earlier.name == phase.name);
            ensure!(!again, "two phases are called `{}`", phase.name);
            ensure!(!phase.duration.is_zero(), "phase `{}` has no duration", phase.name);
        }
        ensure!(phases.iter().any(|phase| phase.publications() > 0), "--rate and --duration make no publication");
        let names: Vec<&str> = phases.iter().map(|phase| phase.name.as_str()).collect();
        let thresholds: Vec<Threshold> =
            self.threshold.iter().map(|text| Threshold::parse(text, &names)).collect::<Result<_, _>>()?;
        let watched = self.server.server_pid.is_some() || self.server_command.is_some();
        if let Some(threshold) = thresholds.iter().find(|threshold| needs_server(threshold.name()) && !watched) {
            bail!("threshold `{}` needs --server-pid or --server-command", threshold.text());
        }
        let baseline = self.baseline.as_deref().map(|path| Baseline::read(path, self.drift)).transpose()?;
        Ok(Prepared { publishers, phases, thresholds, baseline })
    }

    fn phases_in_full(&self) -> Vec<Phase> {
        let whole = PhaseKeys { name: Some("steady".to_owned()), ..PhaseKeys::default() };
        let keys = if self.phases.is_empty() { std::slice::from_ref(&whole) } else { &self.phases };
        let numbered = keys.iter().enumerate();
        numbered
            .map(|(index, keys)| {
                let (rate, rate_at_end) = keys.rate.unwrap_or((self.rate, self.rate));
                Phase {
                    name: keys.name.clone().unwrap_or_else(|| format!("phase {}", index + 1)),
                    duration: keys.duration.unwrap_or(self.duration),
                    rate,
                    rate_at_end,
                    disruption: Disruption {
                        churn_per_second: keys.churn.unwrap_or(self.churn),
                        // A share given for the whole run is cut once, at its beginning.
                        cut_share: keys.cut.unwrap_or(if index == 0 { self.cut } else { 0.0 }),
                        offline: keys.offline.unwrap_or(self.offline),
                    },
                }
            })
            .collect()
    }

    fn fleet(&self, prepared: &Prepared, seed: u64) -> anyhow::Result<Fleet> {
        let (subscribers, channels, subscriptions) = (self.subscribers, self.channels, self.subscriptions);
        let shape = Shape { subscribers, channels, subscriptions, lanes: prepared.publishers };
        Ok(Fleet {
            connects_per_second: self.connects_per_second,
            cuts: prepared.phases.iter().any(|phase| phase.disruption.cuts()),
            recover: self.recover,
            slow_readers: self.slow_readers,
            slow_bytes_per_second: self.slow_bytes_per_second,
            half_open: self.half_open,
            ..fleet(&self.server, &self.run, seed, shape)?
        })
    }
}

/// Options that have been checked.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) publishers: u32,
    pub(super) phases: Vec<Phase>,
    pub(super) thresholds: Vec<Threshold>,
    pub(super) baseline: Option<Baseline>,
}

/// Makes the run, as often as wanted.
///
/// # Errors
///
/// Whatever kept it from measuring.
pub fn execute(options: &Options, seed: u64, interrupt: &Interrupt) -> anyhow::Result<(RunResult, Verdict)> {
    let prepared = options.prepare()?;
    let (mut result, mut verdict) = run_once(options, &prepared, seed, interrupt)?;
    let mut repeats = vec![result.metrics.clone()];
    for turn in 1..options.repeat {
        if interrupt.is_raised() {
            break;
        }
        eprintln!("repeat {} of {}", turn + 1, options.repeat);
        // Other channels, so that nothing of the run before is taken for this one's.
        let (next, its_verdict) = run_once(options, &prepared, seed.wrapping_add(u64::from(turn)), interrupt)?;
        repeats.push(next.metrics.clone());
        result = next;
        verdict.merge(its_verdict);
    }
    result.repeats = repeats;
    Ok((result, verdict))
}

/// One run from its first connection to its verdict.
pub(super) fn run_once(
    options: &Options,
    prepared: &Prepared,
    seed: u64,
    interrupt: &Interrupt,
) -> anyhow::Result<(RunResult, Verdict)> {
    let Prepared { publishers, phases, .. } = prepared;
    let fleet = options.fleet(prepared, seed)?;
    let started_server = start_server(options, &fleet.endpoint)?;
    let probe = match &started_server {
        Some(server) => Some(ProcessProbe::new(server.pid())?),
        None => options.server.probe()?,
    };
    let target = options.server.publish_target(options.publish_via)?;
    // A wrong key shows before thousands of connections are opened; the lanes themselves come after them, because a
    // publishing connection that nobody drives meanwhile does not answer pings.
    drop(open_lanes(&target, &options.run, &fleet, 1)?);

    let resident_before = probe.as_ref().and_then(|probe| probe.memory().ok());
    let title = format!("run {}", options.scenario.as_deref().unwrap_or("")).trim_end().to_owned();
    let mut timeline = Timeline::new(View::new(options.view, &title), probe);
    let setting_up = Instant::now();
    let pool = Pool::start(fleet.clone())?;
    pool.wait_subscribed(options.run.setup_timeout, interrupt, |_| timeline.tick(&pool, None, false))?;
    let set_up = setting_up.elapsed();
    let resident_subscribed = probe.as_ref().and_then(|probe| probe.memory().ok());
    let lanes = open_lanes(&target, &options.run, &fleet, *publishers)?;

    let measure = Measurement::begin(probe);
    let progress = Arc::new(PublishProgress::default());
    let start_ns = fleet.clock.now_ns() + nanoseconds(LEAD);
    let measuring_from = timeline.elapsed() + LEAD;
    let spread = options.zipf.map_or(Spread::Even, Spread::Zipf);
    let schedule = Schedule::new(start_ns, phases, spread, options.channels, *publishers, seed);
    let times = schedule.phase_times();
    let plan = times.iter().cloned().zip(phases.iter().map(|phase| phase.disruption)).collect();
    pool.begin_measuring(RunPlan { phases: plan });
    let publisher = OpenLoop {
        lanes,
        schedule: schedule.clone(),
        channels: fleet.channels.all().clone(),
        format: fleet.format.clone(),
        clock: fleet.clock,
        progress: progress.clone(),
    };
    let started = Instant::now();
    let publisher = std::thread::Builder::new().name("publish".to_owned()).spawn(move || publisher.run())?;
    let end_ns = times.last().map_or(start_ns, |time| time.end);
    // To the end of the last phase, even when nothing is published any more: connections may still be cut.
    while !publisher.is_finished() || fleet.clock.now_ns() < end_ns {
        if interrupt.wait(Duration::from_millis(20)) {
            progress.stop.store(true, Ordering::Relaxed);
            break;
        }
        timeline.tick(&pool, Some(&progress), false);
        if publisher.is_finished() && pool.status().ended >= u64::from(options.subscribers) {
            break;
        }
    }
    let published = publisher.join().expect("the publisher does not panic")?;
    let expected = expected_deliveries(&published, &fleet.subscribers_by_channel());
    let quiet = wait_for_the_rest(options, &fleet, &pool, expected, interrupt, || {
        timeline.tick(&pool, Some(&progress), false);
    });
    timeline.tick(&pool, Some(&progress), true);
    timeline.close();
    let seconds = started.elapsed().saturating_sub(LEAD + quiet).as_secs_f64();
    let cost = measure.end();
    let due = if fleet.cuts { schedule.due_by_stream() } else { Vec::new() };
    let due_ns = |stream: usize, seq: u64| due.get(stream).and_then(|due| due.get(seq as usize)).map_or(0, |due| *due);
    let received = pool.finish(&published.ledgers, due_ns);

    let growth = resident_before.zip(resident_subscribed).map(|(before, after)| {
        (after.resident_bytes as f64 - before.resident_bytes as f64) / f64::from(options.subscribers)
    });
    let result = RunResult::new(Measurements {
        subscribers: options.subscribers,
        channels: options.channels,
        subscriptions_each: options.subscriptions,
        publishers: *publishers,
        via: options.publish_via,
        payload: options.run.payload.clone(),
        slow_readers: options.slow_readers,
        half_open: options.half_open,
        phases,
        times: &times,
        start_ns,
        measuring_from,
        seconds,
        lead: LEAD,
        set_up,
        expected,
        published: &published,
        received: &received,
        cost: &cost,
        growth,
        watched: probe,
        timeline: timeline.seconds,
    });
    let mut verdict = outcome::judge(&result, prepared, options.run.max_own_lag);
    verdict.interrupted = interrupt.is_raised();
    Ok((result, verdict))
}

fn start_server(options: &Options, endpoint: &Endpoint) -> anyhow::Result<Option<ServerProcess>> {
    let start = |command: &String| ServerProcess::start(command, endpoint.address, options.run.connect_timeout);
    options.server_command.as_ref().map(start).transpose()
}

/// Waits until all that is owed has come and everybody is back, or the grace is over. Who was away is not owed what it
/// missed, and nobody knows beforehand how much that is: then a quiet while is the end. Returns how long nothing came at
/// the end.
fn wait_for_the_rest(
    options: &Options,
    fleet: &Fleet,
    pool: &Pool,
    expected: u64,
    interrupt: &Interrupt,
    mut tick: impl FnMut(),
) -> Duration {
    let grace = Instant::now() + options.grace;
    let (mut delivered, mut last_change) = (pool.status().delivered, Instant::now());
    loop {
        let all = pool.wait_delivered(expected, Duration::from_millis(100));
        tick();
        let now = pool.status();
        let everybody = !fleet.cuts || now.subscribed >= u64::from(fleet.subscribers) || interrupt.is_raised();
        if all && everybody {
            return Duration::ZERO;
        }
        if now.delivered != delivered {
            (delivered, last_change) = (now.delivered, Instant::now());
        }
        let quiet = fleet.cuts && everybody && last_change.elapsed() >= QUIET;
        if quiet || Instant::now() >= grace || now.ended >= u64::from(fleet.subscribers) {
            return last_change.elapsed();
        }
        if all {
            interrupt.wait(Duration::from_millis(20));
        }
    }
}

/// Accepted publications, each times the audited subscribers of its channel.
fn expected_deliveries(published: &Published, subscribers: &[u64]) -> u64 {
    let by_channel = published.ledgers.chunks(usize::from(published.streams));
    let accepted = by_channel.map(|streams| streams.iter().map(|ledger| ledger.accepted()).sum::<u64>());
    accepted.zip(subscribers).map(|(accepted, subscribers)| accepted * subscribers).sum()
}
