//! The open-loop schedule: which message is due when, on which channel, and who sends it.

use std::ops::Range;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::clock::nanoseconds;
use crate::phase::Phase;

/// A schedule of phases over channels and ordered streams.
///
/// A publication is due when its phase says, whatever happened to earlier ones: nothing the server does slows the
/// schedule down, so a stall shows in the latency of every message that was due meanwhile.
///
/// Channels take turns, or are drawn by lot ([`Spread`]). Within a channel, publications take turns over its *streams*;
/// each stream is sent by one lane (one connection of the publisher), in order, so order within a stream is a promise the
/// server can be held to. There is one stream per channel when there are at least as many channels as lanes, else the
/// lanes are shared out.
#[derive(Clone, Debug)]
pub struct Schedule {
    phases: Vec<PhaseAt>,
    total: u64,
    channels: u32,
    lanes: u32,
    streams: u16,
    /// Channel and turn within the channel of each publication, where these are drawn: 12 bytes per publication.
    drawn: Option<Box<[(u32, u32)]>>,
}

#[derive(Clone, Debug)]
struct PhaseAt {
    phase: Phase,
    first: u64,
    start_ns: u64,
}

/// How publications are spread over channels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spread {
    /// Channels take turns.
    Even,
    /// Drawn by lot: channel number `n`, from 1, has the weight `n` to the power of minus this exponent.
    Zipf(f64),
}

/// Where a publication belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the channel.
    pub channel: u32,
    /// Stream within the channel.
    pub stream: u16,
    /// Sequence number within the stream, from 0.
    pub seq: u64,
    /// The lane that sends this stream.
    pub lane: u32,
}

impl Schedule {
    /// A schedule of `phases` one after the other, the first beginning at `start_ns` (Unix nanoseconds).
    ///
    /// `channels` and `lanes` are at least 1; `seed` determines what is drawn by lot.
    pub fn new(start_ns: u64, phases: &[Phase], spread: Spread, channels: u32, lanes: u32, seed: u64) -> Self {
        let (mut first, mut start_ns) = (0, start_ns);
        let mut placed = Vec::with_capacity(phases.len());
        for phase in phases {
            placed.push(PhaseAt { phase: phase.clone(), first, start_ns });
            first += phase.publications();
            start_ns += nanoseconds(phase.duration);
        }
        let drawn = match spread {
            Spread::Even => None,
            Spread::Zipf(exponent) => Some(draw(first, exponent, channels, seed)),
        };
        let streams = streams_per_channel(channels, lanes);
        Schedule { phases: placed, total: first, channels, lanes, streams, drawn }
    }

    /// How many publications the whole schedule has.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// From the beginning to the end of each phase, Unix nanoseconds.
    pub fn phase_times(&self) -> Vec<Range<u64>> {
        let time = |at: &PhaseAt| at.start_ns..at.start_ns + nanoseconds(at.phase.duration);
        self.phases.iter().map(time).collect()
    }

    /// When publication `k` is due, Unix nanoseconds; `k` is below [`Schedule::total`].
    pub fn due_ns(&self, k: u64) -> u64 {
        let after = self.phases.partition_point(|at| at.first <= k);
        let Some(at) = after.checked_sub(1).and_then(|index| self.phases.get(index)) else { return 0 };
        at.start_ns + (at.phase.due_seconds(k - at.first) * 1e9) as u64
    }

    /// Where publication `k` belongs.
    pub fn place(&self, k: u64) -> Place {
        let (channel, turn) = match &self.drawn {
            None => ((k % u64::from(self.channels)) as u32, k / u64::from(self.channels)),
            Some(drawn) => {
                let (channel, turn) = drawn[k as usize];
                (channel, u64::from(turn))
            }
        };
        let stream = (turn % u64::from(self.streams)) as u16;
        let lane = (channel + u32::from(stream) * self.channels) % self.lanes;
        Place { channel, stream, seq: turn / u64::from(self.streams), lane }
    }

    /// When each message was due, by stream (index `channel * streams + stream`) and sequence number: 8 bytes per
    /// publication, made only to tell what a subscriber missed while it was away.
    pub fn due_by_stream(&self) -> Vec<Vec<u64>> {
        let mut due = vec![Vec::new(); self.channels as usize * usize::from(self.streams)];
        for k in 0..self.total {
            let Place { channel, stream, .. } = self.place(k);
            due[channel as usize * usize::from(self.streams) + usize::from(stream)].push(self.due_ns(k));
        }
        due
    }
}

fn draw(total: u64, exponent: f64, channels: u32, seed: u64) -> Box<[(u32, u32)]> {
    let mut sum = 0.0;
    let weights = (1..=channels).map(|number| {
        sum += f64::from(number).powf(-exponent);
        sum
    });
    let weights: Vec<f64> = weights.collect();
    let mut turns = vec![0u32; channels as usize];
    let mut random = StdRng::seed_from_u64(seed ^ 0x51bf);
    let draw_one = |_| {
        let lot = random.random_range(0.0..sum);
        let channel = weights.partition_point(|&weight| weight <= lot).min(weights.len() - 1);
        turns[channel] += 1;
        (channel as u32, turns[channel] - 1)
    };
    (0..total).map(draw_one).collect()
}

/// How many streams each channel has when `lanes` send to `channels`.
pub fn streams_per_channel(channels: u32, lanes: u32) -> u16 {
    u16::try_from((lanes / channels).max(1)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::time::Duration;

    use crate::phase::Disruption;

    fn phase(rate: f64, seconds: u64) -> Phase {
        let (name, duration) = (String::new(), Duration::from_secs(seconds));
        Phase { name, duration, rate, rate_at_end: rate, disruption: Disruption::default() }
    }

    #[test]
    fn due_times_do_not_drift_over_a_long_run() {
        let schedule = Schedule::new(1_000, &[phase(3.0, 10_000_000)], Spread::Even, 1, 1, 1);
        assert_eq!(schedule.due_ns(0), 1_000);
        assert_eq!(schedule.due_ns(3_000_000), 1_000 + 1_000_000 * 1_000_000_000);
    }

    #[test]
    fn phases_follow_each_other_also_after_a_silent_one() {
        let phases = [phase(10.0, 2), phase(0.0, 3), phase(100.0, 1)];
        let schedule = Schedule::new(0, &phases, Spread::Even, 1, 1, 1);
        assert_eq!(schedule.total(), 120);
        assert_eq!(schedule.due_ns(19), 1_900_000_000);
        assert_eq!(schedule.due_ns(20), 5_000_000_000);
        assert_eq!(schedule.due_ns(119), 5_990_000_000);
        assert_eq!(schedule.phase_times()[1], 2_000_000_000..5_000_000_000);
    }

    #[test]
    fn every_stream_is_gap_free_and_belongs_to_one_lane() {
        for (channels, lanes) in [(1, 1), (1, 8), (3, 8), (8, 3), (100, 7)] {
            for spread in [Spread::Even, Spread::Zipf(1.0)] {
                let schedule = Schedule::new(0, &[phase(1.0, 1_000)], spread, channels, lanes, 7);
                let mut next = HashMap::new();
                let mut lane_of = HashMap::new();
                for k in 0..schedule.total() {
                    let place = schedule.place(k);
                    let expected: &mut u64 = next.entry((place.channel, place.stream)).or_default();
                    assert_eq!(place.seq, *expected);
                    *expected += 1;
                    assert_eq!(*lane_of.entry((place.channel, place.stream)).or_insert(place.lane), place.lane);
                    assert!(place.lane < lanes);
                }
            }
        }
    }

    #[test]
    fn all_lanes_work_when_one_channel_has_many() {
        let schedule = Schedule::new(0, &[phase(1.0, 1_000)], Spread::Even, 1, 8, 1);
        let used: std::collections::HashSet<u32> = (0..16).map(|k| schedule.place(k).lane).collect();
        assert_eq!(used.len(), 8);
    }

    #[test]
    fn zipf_prefers_the_first_channels_and_a_seed_repeats_it() {
        let schedule = |seed| Schedule::new(0, &[phase(1.0, 10_000)], Spread::Zipf(1.0), 100, 1, seed);
        let (one, again) = (schedule(5), schedule(5));
        let mut counts = [0u32; 100];
        (0..10_000).for_each(|k| counts[one.place(k).channel as usize] += 1);
        // The first of 100 channels has 1/5.187 of all weight.
        assert!((1_700..2_200).contains(&counts[0]), "{}", counts[0]);
        assert!(counts[99] < 60);
        assert!((0..10_000).all(|k| one.place(k) == again.place(k)));
        assert_eq!(one.due_by_stream().iter().map(Vec::len).sum::<usize>(), 10_000);
    }
}
