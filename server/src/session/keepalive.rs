//! Pings, and the rule that each is answered by exactly one pong.
//!
//! Client protocol: the first ping comes at a random moment in the second half of the interval, so that clients who came together
//! do not ping together; then one every interval, whatever else flows. A pong is due within the pong timeout. A pong
//! without an outstanding ping breaks the protocol. Clients who asked for WebSocket pings get those instead, and
//! their pongs are frames.

use std::time::Duration;

use super::{Context, Output, Phase, Session};
use crate::{clock::Moment, error::Disconnect};

/// Ping state of an open connection.
#[derive(Debug)]
pub(super) struct Keepalive {
    /// When the next ping is due; `None` when pings are off.
    next_ping: Option<Moment>,
    /// A ping was sent and not answered.
    outstanding: bool,
    /// When the missing pong ends the connection.
    pong_due: Option<Moment>,
    /// Pings are WebSocket frames.
    frames: bool,
}

/// What `connect` tells a client about pings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Announced {
    pub(super) ping_s: u32,
    pub(super) pong: bool,
}

impl Keepalive {
    pub(super) fn new(frames: bool, context: &Context<'_>) -> Self {
        let first = context.settings.ping_interval.map(|interval| {
            let half = interval / 2;
            let jitter = half.as_secs_f64() * f64::from(context.random) / f64::from(u32::MAX);
            context.now + half + Duration::from_secs_f64(jitter)
        });
        Self { next_ping: first, outstanding: false, pong_due: None, frames }
    }

    pub(super) fn announced(&self, context: &Context<'_>) -> Announced {
        match context.settings.ping_interval {
            Some(interval) if !self.frames => Announced {
                ping_s: u32::try_from(interval.as_secs()).unwrap_or(u32::MAX),
                pong: context.settings.pong_timeout.is_some(),
            },
            Some(_) | None => Announced::default(),
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Moment> {
        [self.next_ping, self.pong_due].into_iter().flatten().min()
    }
}

impl Session {
    /// Sends the ping that is due, or ends a connection whose pong is overdue.
    pub(super) fn keep_alive(&mut self, context: &Context<'_>, out: &mut Vec<Output>) {
        let Phase::Open(open) = &mut self.phase else { return };
        let keepalive = &mut open.keepalive;
        if keepalive.pong_due.is_some_and(|due| due <= context.now) {
            return self.close(Disconnect::NO_PONG, out);
        }
        let Some(interval) = context.settings.ping_interval else {
            // Pings were switched off while the connection lived.
            keepalive.next_ping = None;
            return;
        };
        if keepalive.next_ping.is_some_and(|due| due <= context.now) {
            keepalive.next_ping = Some(context.now + interval);
            keepalive.outstanding = true;
            keepalive.pong_due = context.settings.pong_timeout.map(|timeout| context.now + timeout);
            out.push(if keepalive.frames { Output::FramePing } else { Output::Ping });
        }
    }

    /// The client's empty command.
    pub(super) fn pong(&mut self, out: &mut Vec<Output>) {
        let Phase::Open(open) = &mut self.phase else { return };
        let keepalive = &mut open.keepalive;
        if keepalive.frames || !keepalive.outstanding {
            return self.close(Disconnect::BAD_REQUEST, out);
        }
        keepalive.outstanding = false;
        keepalive.pong_due = None;
    }

    /// A pong frame: counts only where pings are frames, and may come unasked, as WebSocket allows.
    pub(super) fn frame_pong(&mut self) {
        let Phase::Open(open) = &mut self.phase else { return };
        if open.keepalive.frames {
            open.keepalive.outstanding = false;
            open.keepalive.pong_due = None;
        }
    }
}
