//! The closed loop: the next publication leaves when an answer comes.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{ANSWER_GRACE, LONGEST_WAIT_NS, Lane, PublishProgress, count_reason, wait};
use crate::clock::RunClock;
use crate::latency::LatencyHistogram;
use crate::payload::{PayloadFormat, Stamp};
use crate::process::own_thread_time;
use crate::target::lane::Answer;

/// What a closed-loop publisher did.
#[derive(Debug)]
pub struct ClosedLoopResult {
    /// Publications the server accepted within the time.
    pub accepted: u64,
    /// Reasons of refusals, with counts.
    pub refusals: BTreeMap<String, u64>,
    /// Why lanes broke.
    pub broken: Vec<String>,
    /// From sent to answered.
    pub answering: LatencyHistogram,
    /// Processor time of the thread.
    pub cpu: Duration,
    /// Wall time from the first publication to the last answer.
    pub wall: Duration,
}

/// Keeps `in_flight` publications under way over all lanes until `duration` is over or `progress.stop` is set, blocking.
///
/// # Errors
///
/// Only when the kernel refuses to wait; broken lanes are part of the result.
pub fn run_closed_loop(
    mut lanes: Vec<Lane>,
    in_flight: usize,
    duration: Duration,
    channels: &[String],
    format: &PayloadFormat,
    progress: &PublishProgress,
) -> io::Result<ClosedLoopResult> {
    let started = Instant::now();
    let clock = RunClock::start();
    let cpu_before = own_thread_time();
    let count = lanes.len();
    let mut result = ClosedLoopResult {
        accepted: 0,
        refusals: BTreeMap::new(),
        broken: Vec::new(),
        answering: LatencyHistogram::new(),
        cpu: Duration::ZERO,
        wall: Duration::ZERO,
    };
    let mut readable = vec![false; count];
    let mut buffer = vec![0; 64 << 10];
    let mut payload = Vec::with_capacity(format.bytes(0));
    let mut answers = Vec::new();
    let mut seq = 0;
    loop {
        let now = clock.now_ns();
        let over = started.elapsed() >= duration || progress.stop.load(Ordering::Relaxed);
        for (index, lane) in lanes.iter_mut().enumerate() {
            lane.exchange(readable[index], &mut buffer, &mut answers);
            // The share of this lane: the remainder goes to the first ones.
            let share = in_flight / count + usize::from(index < in_flight % count);
            while !over && lane.broken.is_none() && lane.wire.in_flight() < share && lane.wire.room() > 0 {
                let channel = (seq % channels.len() as u64) as usize;
                payload.clear();
                format.write(Stamp { channel: channel as u32, stream: 0, seq, due_ns: now }, &mut payload);
                // The ticket is the time of sending: a closed loop needs to know nothing else of a publication.
                lane.wire.publish(now, &channels[channel], &payload);
                seq += 1;
            }
            lane.exchange(false, &mut buffer, &mut answers);
        }
        let answered = clock.now_ns();
        for Answer { ticket, outcome } in answers.drain(..) {
            result.answering.record(answered.saturating_sub(ticket));
            match outcome {
                Ok(()) => {
                    result.accepted += 1;
                    progress.accepted.fetch_add(1, Ordering::Relaxed);
                }
                Err(reason) => count_reason(&mut result.refusals, reason),
            }
        }
        let silent = lanes.iter().all(|lane| lane.broken.is_some() || lane.wire.in_flight() == 0);
        if silent && (over || lanes.iter().all(|lane| lane.broken.is_some())) {
            break;
        }
        if started.elapsed() >= duration + ANSWER_GRACE {
            result.broken.push(format!("answers still missing {ANSWER_GRACE:?} after the end"));
            break;
        }
        readable = wait(&mut lanes, LONGEST_WAIT_NS)?;
    }
    result.broken.extend(lanes.into_iter().filter_map(|lane| lane.broken));
    result.cpu = own_thread_time().saturating_sub(cpu_before);
    result.wall = started.elapsed();
    Ok(result)
}
