//! What a run costs both sides: processor time between two moments, per message.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::latency::LatencySummary;
use crate::process::{CpuReading, ProcessProbe};
use crate::publish::Published;
use crate::receive::Received;

/// What the generator itself needed.
#[derive(Debug, Serialize)]
pub(super) struct GeneratorCost {
    pub(super) own_lag: LatencySummary,
    pub(super) loop_delay: LatencySummary,
    pub(super) cpu_seconds: f64,
    pub(super) cpu_us_per_message: f64,
    pub(super) busiest_thread_cores: f64,
    pub(super) resident_bytes: u64,
}

/// What the server needed meanwhile.
#[derive(Debug, Serialize)]
pub(super) struct ServerCost {
    pub(super) cpu_seconds: f64,
    pub(super) cores: f64,
    pub(super) cpu_us_per_message: f64,
    pub(super) resident_bytes: u64,
}

/// Costs between two moments.
pub(super) struct Measurement {
    own: CpuReading,
    server: Option<(ProcessProbe, Option<CpuReading>)>,
    began: Instant,
}

/// What [`Measurement`] measured.
pub(super) struct Cost {
    own: Duration,
    busiest: Duration,
    server: Option<(Duration, u64)>,
    wall: Duration,
}

impl Measurement {
    pub(super) fn begin(probe: Option<ProcessProbe>) -> Self {
        let own = ProcessProbe::own().cpu().expect("a process can read itself");
        Measurement { own, server: probe.map(|probe| (probe, probe.cpu().ok())), began: Instant::now() }
    }

    pub(super) fn end(self) -> Cost {
        let wall = self.began.elapsed();
        let own = ProcessProbe::own().cpu().expect("a process can read itself");
        let server = self.server.and_then(|(probe, before)| {
            let spent = probe.cpu().ok()?.since(&before?);
            Some((spent, probe.memory().ok()?.resident_bytes))
        });
        Cost { own: own.since(&self.own), busiest: own.busiest_thread_since(&self.own), server, wall }
    }
}

impl Cost {
    pub(super) fn generator(&self, messages: u64, published: &Published, received: &Received) -> GeneratorCost {
        // The publisher's thread has ended: its time is in the process's ticks at best, so it is added from its own word.
        let cpu = self.own + published.cpu;
        let publisher = published.cpu.as_secs_f64() / published.wall.as_secs_f64().max(1e-9);
        GeneratorCost {
            own_lag: published.own_lag.summary(),
            loop_delay: received.loop_delay.summary(),
            cpu_seconds: cpu.as_secs_f64(),
            cpu_us_per_message: per_message_us(cpu, messages),
            busiest_thread_cores: publisher.max(self.busiest.as_secs_f64() / self.wall.as_secs_f64().max(1e-9)),
            resident_bytes: ProcessProbe::own().memory().map_or(0, |memory| memory.resident_bytes),
        }
    }

    pub(super) fn server(&self, messages: u64) -> Option<ServerCost> {
        self.server.map(|(cpu, resident_bytes)| ServerCost {
            cpu_seconds: cpu.as_secs_f64(),
            cores: cpu.as_secs_f64() / self.wall.as_secs_f64().max(1e-9),
            cpu_us_per_message: per_message_us(cpu, messages),
            resident_bytes,
        })
    }
}

fn per_message_us(cpu: Duration, messages: u64) -> f64 {
    cpu.as_secs_f64() * 1e6 / messages.max(1) as f64
}
