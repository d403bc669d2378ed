//! A run second by second: what the report plots, and what people see who wait.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::latency::LatencySummary;
use crate::process::{CpuReading, ProcessProbe};
use crate::publish::PublishProgress;
use crate::receive::Pool;
use crate::view::View;

/// One second of the timeline.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Second {
    /// End of this second, counted from the moment the first connection was opened.
    pub at_seconds: f64,
    /// How long it really was.
    pub seconds: f64,
    /// Publications sent.
    pub published: u64,
    /// Deliveries of new publications.
    pub delivered: u64,
    /// Subscribers that are there, at its end.
    pub subscribed: u64,
    /// Connections that have ended unasked, so far.
    pub ended: u64,
    /// Faults found so far.
    pub faults: u64,
    /// From due to received.
    pub latency: LatencySummary,
    /// Processor time of the generator, in cores.
    pub generator_cores: f64,
    /// The server, when its process is watched.
    pub server: Option<ServerSecond>,
}

/// The server's process in one second.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct ServerSecond {
    /// Processor time, in cores.
    pub cores: f64,
    /// Resident memory at the end.
    pub resident_bytes: u64,
    /// Open descriptors at the end.
    pub descriptors: u64,
    /// Context switches per second.
    pub context_switches: f64,
}

/// Takes the seconds of a run and shows them.
#[derive(Debug)]
pub struct Timeline {
    started: Instant,
    last: Duration,
    before: (u64, u64),
    own: Option<CpuReading>,
    server: Option<(ProcessProbe, Option<CpuReading>, u64)>,
    view: View,
    /// The seconds so far.
    pub seconds: Vec<Second>,
}

impl Timeline {
    /// A timeline that begins now; it watches the server when its process is known.
    pub fn new(view: View, server: Option<ProcessProbe>) -> Self {
        let own = ProcessProbe::own().cpu().ok();
        let server = server.map(|probe| (probe, probe.cpu().ok(), probe.context_switches().unwrap_or(0)));
        let (started, last) = (Instant::now(), Duration::ZERO);
        Timeline { started, last, before: (0, 0), own, server, view, seconds: Vec::new() }
    }

    /// Seconds since it began.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Takes a second if it is over, or what there is of the last one.
    pub fn tick(&mut self, pool: &Pool, progress: Option<&PublishProgress>, last: bool) {
        let elapsed = self.started.elapsed();
        let seconds = (elapsed - self.last).as_secs_f64();
        if seconds < 1.0 && !(last && seconds > 0.0) {
            return;
        }
        self.last = elapsed;
        let status = pool.status();
        let published = progress.map_or(0, |progress| progress.sent.load(Ordering::Relaxed));
        let own = ProcessProbe::own().cpu().ok();
        let spent = own.as_ref().zip(self.own.as_ref()).map_or(0.0, |(now, before)| now.since(before).as_secs_f64());
        self.own = own;
        self.seconds.push(Second {
            at_seconds: elapsed.as_secs_f64(),
            seconds,
            published: published - self.before.0,
            delivered: status.delivered - self.before.1,
            subscribed: status.subscribed.saturating_sub(status.ended),
            ended: status.ended,
            faults: status.faults,
            latency: pool.take_interval().summary(),
            generator_cores: spent / seconds,
            server: self.server.as_mut().and_then(|server| watch(server, seconds)),
        });
        self.before = (published, status.delivered);
        self.view.show(&self.seconds);
    }

    /// The view is done; the report follows.
    pub fn close(&mut self) {
        self.view.close();
    }
}

fn watch(server: &mut (ProcessProbe, Option<CpuReading>, u64), seconds: f64) -> Option<ServerSecond> {
    let (probe, before, switches_before) = server;
    let (now, memory) = (probe.cpu().ok()?, probe.memory().ok()?);
    let cores = before.as_ref().map_or(0.0, |before| now.since(before).as_secs_f64() / seconds);
    *before = Some(now);
    let switches = probe.context_switches().unwrap_or(0);
    // Those of ended threads are gone from the count.
    let switched = switches.saturating_sub(std::mem::replace(switches_before, switches));
    Some(ServerSecond {
        cores,
        resident_bytes: memory.resident_bytes,
        descriptors: probe.descriptors().unwrap_or(0),
        context_switches: switched as f64 / seconds,
    })
}
