//! The open-loop schedule: which message is due when, on which channel, and who sends it.

/// A fixed-rate schedule over channels and ordered streams.
///
/// Publication `k` (from 0) is due at `start + k / rate` whatever happened to earlier ones: nothing the server does
/// slows the schedule down, so a stall shows in the latency of every message that was due meanwhile.
///
/// Channels take turns. Within a channel, publications take turns over its *streams*; each stream is sent by one lane
/// (one connection of the publisher), in order, so order within a stream is a promise the server can be held to. There
/// is one stream per channel when there are at least as many channels as lanes, else the lanes are shared out.
#[derive(Clone, Debug)]
pub struct Schedule {
    start_ns: u64,
    rate: f64,
    total: u64,
    channels: u32,
    lanes: u32,
    streams: u16,
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
    /// A schedule of `total` publications at `rate` per second, the first due at `start_ns`.
    ///
    /// `rate` is positive; `channels` and `lanes` are at least 1.
    pub fn new(start_ns: u64, rate: f64, total: u64, channels: u32, lanes: u32) -> Self {
        let streams = streams_per_channel(channels, lanes);
        Schedule { start_ns, rate, total, channels, lanes, streams }
    }

    /// How many publications the whole schedule has.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// When publication `k` is due, Unix nanoseconds.
    pub fn due_ns(&self, k: u64) -> u64 {
        self.start_ns + (k as f64 * 1e9 / self.rate) as u64
    }

    /// Where publication `k` belongs.
    pub fn place(&self, k: u64) -> Place {
        let channel = (k % u64::from(self.channels)) as u32;
        let turn = k / u64::from(self.channels);
        let stream = (turn % u64::from(self.streams)) as u16;
        let lane = (channel + u32::from(stream) * self.channels) % self.lanes;
        Place { channel, stream, seq: turn / u64::from(self.streams), lane }
    }
}

/// How many streams each channel has when `lanes` send to `channels`.
pub fn streams_per_channel(channels: u32, lanes: u32) -> u16 {
    u16::try_from((lanes / channels).max(1)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn due_times_do_not_drift_over_a_long_run() {
        let schedule = Schedule::new(1_000, 3.0, u64::MAX, 1, 1);
        assert_eq!(schedule.due_ns(0), 1_000);
        assert_eq!(schedule.due_ns(3_000_000), 1_000 + 1_000_000 * 1_000_000_000);
    }

    #[test]
    fn every_stream_is_gap_free_and_belongs_to_one_lane() {
        for (channels, lanes) in [(1, 1), (1, 8), (3, 8), (8, 3), (100, 7)] {
            let schedule = Schedule::new(0, 1.0, 1_000, channels, lanes);
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

    #[test]
    fn all_lanes_work_when_one_channel_has_many() {
        let schedule = Schedule::new(0, 1.0, 1_000, 1, 8);
        let used: std::collections::HashSet<u32> = (0..16).map(|k| schedule.place(k).lane).collect();
        assert_eq!(used.len(), 8);
    }
}
