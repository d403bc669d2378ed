//! One subscriber: what it says to the server, and the check of everything it gets.

use std::sync::atomic::Ordering;

use tokio::sync::OwnedSemaphorePermit;

use super::Shared;
use crate::audit::{Arrival, Fault, FaultKind, Findings, StreamAudit};
use crate::fleet::Fleet;
use crate::latency::LatencyHistogram;
use crate::payload::Alteration;
use crate::target::centrifuge::{self, CONNECT_ID, Command, Message};
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
    /// Held while the connection is being set up, which bounds how many are.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

/// ```text
/// Opening -> Connecting -> Subscribing -> Live      Centrifuge
/// Opening ------------------------------> Live      silence
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
    /// A subscriber that is about to open its connection, with so many streams to audit.
    pub(super) fn new(index: u32, streams: usize) -> Self {
        Subscriber {
            index,
            stage: Stage::Opening,
            pongs: false,
            frames: FrameReader::default(),
            output: Vec::new(),
            audits: vec![StreamAudit::default(); streams].into_boxed_slice(),
            permit: None,
        }
    }

    pub(super) fn send(&mut self, fleet: &Fleet, write: impl FnOnce(&mut Vec<u8>, centrifuge::Encoding)) {
        let mut command = Vec::new();
        write(&mut command, fleet.encoding);
        websocket::write_frame(&mut self.output, fleet.encoding.frame_kind(), &command, Some(rand::random()));
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
                    self.send(fleet, |command, encoding| {
                        centrifuge::write_command(command, encoding, 0, Command::Pong);
                    });
                }
                Ok(())
            }
            (Message::Answer { id, error: Some((code, text)), .. }, _) => {
                let what = if id == CONNECT_ID { "connect" } else { "subscribe" };
                Err(format!("the server refused {what}: error {code}, {text}"))
            }
            (Message::Answer { id: CONNECT_ID, wants_pong, .. }, Stage::Connecting) => {
                self.pongs = wants_pong;
                self.stage = Stage::Subscribing(fleet.subscriptions);
                self.subscribe(fleet);
                Ok(())
            }
            (Message::Answer { .. }, Stage::Subscribing(1)) => {
                self.go_live(shared);
                Ok(())
            }
            (Message::Answer { .. }, Stage::Subscribing(unanswered)) => {
                self.stage = Stage::Subscribing(unanswered - 1);
                Ok(())
            }
            (Message::Answer { id, .. }, _) => Err(format!("an answer to command {id}, which was not sent")),
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

    fn subscribe(&mut self, fleet: &Fleet) {
        let mut frame = Vec::new();
        for (id, channel) in (CONNECT_ID + 1..).zip(fleet.channels_of(self.index)) {
            let channel = fleet.channels.name(channel);
            centrifuge::write_command(&mut frame, fleet.encoding, id, Command::Subscribe { channel });
            if frame.len() > COMMAND_FRAME_BYTES {
                self.send(fleet, |command, _| *command = std::mem::take(&mut frame));
            }
        }
        if !frame.is_empty() {
            self.send(fleet, |command, _| *command = frame);
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
        now_ns: u64,
    ) {
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
        let audit = &mut subscriber.audits[place * usize::from(fleet.streams) + usize::from(stamp.stream)];
        let kind = match audit.arrived(stamp.seq) {
            Arrival::InOrder => None,
            Arrival::Reordered => Some(FaultKind::Reordered),
            Arrival::Duplicated => Some(FaultKind::Duplicated),
        };
        if kind != Some(FaultKind::Duplicated) {
            self.fresh += 1;
            self.interval.record(now_ns.saturating_sub(stamp.due_ns));
        }
        if let Some(kind) = kind {
            self.fault(subscriber, kind, stamp.channel, Some((stamp.stream, stamp.seq)));
        }
    }

    fn fault(&mut self, subscriber: &Subscriber, kind: FaultKind, channel: u32, place: Option<(u16, u64)>) {
        self.faults += 1;
        let (stream, seq) = place.unzip();
        self.findings.note(Fault { kind, subscriber: subscriber.index, channel, stream, seq });
    }
}
