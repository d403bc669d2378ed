//! One subscriber: what it says to the server, and the check of everything it gets.

use std::sync::atomic::Ordering;

use tokio::sync::OwnedSemaphorePermit;

use super::disruption::Disrupted;
use super::{RunPlan, Shared};
use crate::audit::{Arrival, Fault, FaultKind, Findings, StreamAudit};
use crate::fleet::{Fleet, Role};
use crate::latency::LatencyHistogram;
use crate::payload::Alteration;
use crate::target::centrifuge::{CONNECT_ID, Command, Message, Position, Recovery, Subscribed};
use crate::websocket::{self, FrameReader};

/// Subscribe commands are packed into frames of about this size, well under the 65,536 bytes servers allow.
const COMMAND_FRAME_BYTES: usize = 16 << 10;

/// What the thread has found in messages.
#[derive(Debug, Default)]
pub(super) struct Checks {
    pub(super) findings: Findings,
    pub(super) foreign: u64,
    pub(super) latency: LatencyHistogram,
    pub(super) interval: LatencyHistogram,
    /// Latencies by phase, where a run has several.
    pub(super) phases: Vec<LatencyHistogram>,
    /// When each phase ends, Unix nanoseconds.
    pub(super) phase_ends: Vec<u64>,
    pub(super) disrupted: Disrupted,
    /// What is being checked came with the answer to a subscription.
    recovered: bool,
    /// New deliveries within the present read.
    pub(super) fresh: u64,
    pub(super) faults: u64,
}

#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) index: u32,
    pub(super) stage: Stage,
    pub(super) pongs: bool,
    pub(super) frames: FrameReader,
    /// Bytes to send; empty and without memory but for moments.
    pub(super) output: Vec<u8>,
    pub(super) audits: Box<[StreamAudit]>,
    /// Where each subscription stands in the history of its channel; empty in a run that recovers nothing.
    positions: Box<[Option<Position>]>,
    /// False for those that misbehave on purpose: what they get is not checked.
    pub(super) audited: bool,
    /// Held while the connection is being set up, which bounds how many are.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

/// ```text
/// Opening -> Connecting -> Subscribing -> Live      Centrifuge, Socket.IO
/// Opening ------------------------------> Live      plain, silence
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// TCP and WebSocket handshake.
    Opening,
    /// `connect` is unanswered.
    Connecting,
    /// So many `subscribe` commands are unanswered.
    Subscribing(u32),
    /// Publications come.
    Live,
}

impl Subscriber {
    /// A subscriber that is about to open its connection.
    pub(super) fn new(index: u32, fleet: &Fleet) -> Self {
        let streams = fleet.subscriptions as usize * usize::from(fleet.streams);
        let positions = if fleet.recover { fleet.subscriptions as usize } else { 0 };
        Subscriber {
            index,
            stage: Stage::Opening,
            pongs: false,
            frames: FrameReader::default(),
            output: Vec::new(),
            audits: vec![StreamAudit::default(); streams].into_boxed_slice(),
            positions: vec![None; positions].into_boxed_slice(),
            audited: fleet.role(index) == Role::Reader,
            permit: None,
        }
    }

    /// The connection is gone; the next one starts from nothing but knows where it stood.
    pub(super) fn leave(&mut self) {
        self.stage = Stage::Opening;
        self.frames = FrameReader::default();
        self.output = Vec::new();
        self.audits.iter_mut().for_each(StreamAudit::left);
    }

    /// Starts over after an attempt to come back that failed.
    pub(super) fn start_over(&mut self) {
        self.stage = Stage::Opening;
        self.frames = FrameReader::default();
        self.output = Vec::new();
    }

    /// The subscription number `place` stands again; `complete` when what was missed is sent.
    pub(super) fn subscription_returned(&mut self, fleet: &Fleet, place: usize, now_ns: u64, complete: bool) {
        let streams = usize::from(fleet.streams);
        let audits = self.audits.iter_mut().skip(place * streams).take(streams);
        audits.for_each(|audit| audit.returned(now_ns, complete));
    }

    pub(super) fn send(&mut self, fleet: &Fleet, id: u32, command: Command<'_>) {
        let mut packet = Vec::new();
        fleet.speech.write(&mut packet, id, command);
        self.send_packet(fleet, &packet);
    }

    fn send_packet(&mut self, fleet: &Fleet, packet: &[u8]) {
        websocket::write_frame(&mut self.output, fleet.speech.frame_kind(), packet, Some(rand::random()));
    }

    pub(super) fn go_live(&mut self, shared: &Shared) {
        self.stage = Stage::Live;
        self.permit = None;
        shared.subscribed.fetch_add(1, Ordering::SeqCst);
    }

    /// Handles everything but publications.
    pub(super) fn handle(
        &mut self,
        fleet: &Fleet,
        shared: &Shared,
        checks: &mut Checks,
        message: Message<'_>,
    ) -> Result<(), String> {
        match (message, self.stage) {
            (Message::Ping, _) => {
                if self.pongs {
                    self.send(fleet, 0, Command::Pong);
                }
                Ok(())
            }
            (Message::Answer { id, error: Some((code, text)), .. }, _) => {
                let what = if id == CONNECT_ID { "connect" } else { "subscribe" };
                Err(format!("the server refused {what}: error {code}, {text}"))
            }
            (Message::Subscribed { id, subscribed }, Stage::Subscribing(_)) => {
                self.subscribed(fleet, checks, id, *subscribed);
                self.count_answer(shared);
                Ok(())
            }
            (Message::Answer { id: CONNECT_ID, wants_pong, .. }, Stage::Connecting) => {
                self.pongs = wants_pong;
                self.stage = Stage::Subscribing(fleet.subscriptions);
                self.subscribe(fleet);
                Ok(())
            }
            (Message::Answer { id, .. }, Stage::Subscribing(_)) => {
                self.subscribed(fleet, checks, id, Subscribed::default());
                self.count_answer(shared);
                Ok(())
            }
            (Message::Answer { id, .. } | Message::Subscribed { id, .. }, _) => {
                Err(format!("an answer to command {id}, which was not sent"))
            }
            (Message::Unsubscribed { channel, code }, _) => {
                Err(format!("unsubscribed from {channel} with code {code}"))
            }
            (Message::Unreadable, Stage::Live) => {
                checks.fault(self, FaultKind::Altered, fleet.first_channel(self.index), None);
                Ok(())
            }
            (Message::Unreadable, _) => Err("the server sent what is not its protocol".to_owned()),
            (Message::Publication { .. } | Message::Other, _) => Ok(()),
        }
    }

    fn count_answer(&mut self, shared: &Shared) {
        match self.stage {
            Stage::Subscribing(1) => self.go_live(shared),
            Stage::Subscribing(unanswered) => self.stage = Stage::Subscribing(unanswered.saturating_sub(1)),
            Stage::Opening | Stage::Connecting | Stage::Live => {}
        }
    }

    /// The subscription that command `id` asked for is confirmed.
    fn subscribed(&mut self, fleet: &Fleet, checks: &mut Checks, id: u32, subscribed: Subscribed) {
        let Subscribed { position, recovered, publications } = subscribed;
        let place = id.wrapping_sub(CONNECT_ID + 1) as usize;
        let now_ns = fleet.clock.now_ns();
        let wanted = self.positions.get(place).is_some_and(Option::is_some);
        self.subscription_returned(fleet, place, now_ns, wanted && recovered);
        if wanted && !recovered {
            checks.disrupted.unrecovered += 1;
        }
        let Some(channel) = fleet.channels_of(self.index).nth(place) else { return };
        for (data, offset) in publications {
            checks.recovered = true;
            checks.publication(fleet, self, fleet.channels.name(channel), &data, Some(offset), now_ns);
        }
        checks.recovered = false;
        if let Some(kept) = self.positions.get_mut(place) {
            let sound = position.epoch.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
            *kept = (!position.epoch.is_empty() && sound).then_some(position);
        }
    }

    fn subscribe(&mut self, fleet: &Fleet) {
        let (mut frame, mut output) = (Vec::new(), Vec::new());
        for (place, (id, channel)) in (CONNECT_ID + 1..).zip(fleet.channels_of(self.index)).enumerate() {
            let channel = fleet.channels.name(channel);
            let recovery = match self.positions.get(place) {
                None => Recovery::Off,
                Some(None) => Recovery::Begin,
                Some(Some(position)) => Recovery::After(position),
            };
            let command = Command::Subscribe { channel, recovery };
            fleet.speech.write(&mut frame, id, command);
            if frame.len() > COMMAND_FRAME_BYTES || !fleet.speech.packs_commands() {
                websocket::write_frame(&mut output, fleet.speech.frame_kind(), &frame, Some(rand::random()));
                frame.clear();
            }
        }
        self.output.append(&mut output);
        if !frame.is_empty() {
            self.send_packet(fleet, &frame);
        }
    }
}

impl Checks {
    pub(super) fn publication(
        &mut self,
        fleet: &Fleet,
        subscriber: &mut Subscriber,
        channel: &str,
        data: &[u8],
        offset: Option<u64>,
        now_ns: u64,
    ) {
        if !subscriber.audited {
            return;
        }
        let told = fleet.channels.index(channel);
        let stamp = match fleet.format.check(data) {
            Ok(stamp) => stamp,
            Err(Alteration::Padding(stamp)) => {
                self.fault(subscriber, FaultKind::Altered, stamp.channel, Some((stamp.stream, stamp.seq)));
                stamp
            }
            Err(Alteration::Stamp) => {
                let channel = told.unwrap_or_else(|| fleet.first_channel(subscriber.index));
                return self.fault(subscriber, FaultKind::Altered, channel, None);
            }
            Err(Alteration::ForeignRun) => return self.foreign += 1,
        };
        let place = told.filter(|&told| told == stamp.channel && stamp.stream < fleet.streams);
        let Some(place) = place.and_then(|channel| fleet.place_of(subscriber.index, channel)) else {
            return self.fault(subscriber, FaultKind::Misrouted, stamp.channel, Some((stamp.stream, stamp.seq)));
        };
        if let (Some(offset), Some(Some(position))) = (offset, subscriber.positions.get_mut(place)) {
            position.offset = offset;
        }
        let audit = &mut subscriber.audits[place * usize::from(fleet.streams) + usize::from(stamp.stream)];
        let kind = match audit.arrived(stamp.seq) {
            Arrival::InOrder => None,
            Arrival::Reordered => Some(FaultKind::Reordered),
            Arrival::Duplicated => Some(FaultKind::Duplicated),
        };
        if kind != Some(FaultKind::Duplicated) {
            self.fresh += 1;
            self.count_latency(now_ns, stamp.due_ns);
        }
        if let Some(kind) = kind {
            self.fault(subscriber, kind, stamp.channel, Some((stamp.stream, stamp.seq)));
        }
    }

    /// The run begins: from now on latencies are also kept by phase, if there are several.
    pub(super) fn begin_phases(&mut self, plan: &RunPlan) {
        if self.phase_ends.is_empty() {
            self.phase_ends = plan.phases.iter().map(|(time, _)| time.end).collect();
            self.phases = vec![LatencyHistogram::new(); self.phase_ends.len()];
        }
    }

    fn count_latency(&mut self, now_ns: u64, due_ns: u64) {
        let latency = now_ns.saturating_sub(due_ns);
        if self.recovered {
            // It could not come in time: how old it was is a figure of its own.
            self.disrupted.recovered += 1;
            self.disrupted.recovered_age.record(latency);
            return;
        }
        self.interval.record(latency);
        if self.phase_ends.len() > 1 {
            let last = self.phase_ends.len() - 1;
            let phase = self.phase_ends.partition_point(|&end| end <= due_ns).min(last);
            self.phases[phase].record(latency);
        }
    }

    fn fault(&mut self, subscriber: &Subscriber, kind: FaultKind, channel: u32, place: Option<(u16, u64)>) {
        self.faults += 1;
        let (stream, seq) = place.unzip();
        self.findings.note(Fault { kind, subscriber: subscriber.index, channel, stream, seq });
    }
}
