//! How connections end: with a Close frame and a short wait for the peer's, at once, or in paced batches when the node stops.

use std::time::Duration;

use tracing::{debug, info};

use super::{Worker, connection::Stage, inbox::ConnectionRef};
use crate::{clock::Moment, error::Disconnect, limits, session::Input, wire};

/// A drain under way.
pub(super) struct Drain {
    /// Slot to go on from.
    next_slot: usize,
    /// When the next batch is due.
    at: Moment,
}

impl Drain {
    pub(super) fn next(&self) -> Moment {
        self.at
    }
}

impl Worker {
    /// Ends those whose end was found out during a walk.
    pub(super) fn end_doomed(&mut self) {
        // Ending writes a Close frame, which may doom again.
        while let Some((at, cause)) = self.doomed.pop() {
            self.end(at, cause);
        }
    }

    /// Ends a connection from our side: nothing more is delivered, the Close frame follows what is on its way.
    pub(super) fn end(&mut self, at: ConnectionRef, cause: Disconnect) {
        let now = self.now();
        let Some(connection) = self.connection(at) else { return };
        if connection.stage != Stage::Open {
            // Not even the Close frame can be written: no reason to wait any longer. (Several writes of one pass may each find
            // the client slow; it is told once.)
            if cause == Disconnect::WRITE_ERROR {
                self.drop_connection(at);
            }
            return;
        }
        self.write_replies(at);
        if cause != Disconnect::SLOW && cause != Disconnect::WRITE_ERROR {
            self.catch_up_with_all(at);
        }
        self.log_end(at, &cause);
        self.shared.counters[self.number].disconnect(&cause);
        self.withdraw(at, &cause);
        let Some(connection) = self.connection(at) else { return };
        connection.stage = Stage::Closing(now + limits::CLOSE_LINGER);
        connection.suspended = None;
        if cause == Disconnect::WRITE_ERROR || cause.code == Disconnect::CONNECTION_CLOSED.code {
            return self.drop_connection(at);
        }
        if cause == Disconnect::SLOW {
            let before = connection.backlog_bytes();
            connection.discard_backlog();
            let after = connection.backlog_bytes();
            self.count_backlog(before, after);
        }
        self.shared.counters[self.number].close_frame(&cause);
        let mut frame = Vec::new();
        wire::websocket::close_frame(u16::try_from(cause.code).ok(), &cause.reason, &mut frame);
        self.write_close(at, &frame);
        self.keep_reading(at);
        self.reschedule(at);
    }

    /// After an error reply to `connect`: no Close frame, further input is dropped, and soon the connection.
    pub(super) fn refuse(&mut self, at: ConnectionRef) {
        let now = self.now();
        self.write_replies(at);
        self.withdraw(at, &Disconnect::CONNECTION_CLOSED);
        let Some(connection) = self.connection(at) else { return };
        connection.stage = Stage::Refused(now + limits::CLOSE_LINGER);
        connection.suspended = None;
        self.keep_reading(at);
        self.reschedule(at);
    }

    /// A connection whose input waited for an answer is read again while it ends: the peer's Close frame must be seen.
    fn keep_reading(&mut self, at: ConnectionRef) {
        let Some(connection) = self.connection(at) else { return };
        if !connection.reading {
            connection.reading = true;
            let outlet = connection.outlet.clone();
            self.tasks.push(super::Task::Read(at, outlet));
        }
    }

    /// The peer sent its Close frame: it is answered with the same code, and that is the end.
    pub(super) fn peer_closed(&mut self, at: ConnectionRef, code: Option<u16>) {
        let Some(connection) = self.connection(at) else { return };
        if !matches!(connection.stage, Stage::Closing(_)) {
            self.write_replies(at);
            let mut frame = Vec::new();
            wire::websocket::close_frame(code, "", &mut frame);
            self.write(at, &frame);
        }
        self.lost(at);
    }

    /// The wire is gone, or about to be: nothing is said any more.
    pub(super) fn lost(&mut self, at: ConnectionRef) {
        let Some(connection) = self.connection(at) else { return };
        if connection.stage == Stage::Open {
            connection.stage = Stage::Closing(Moment(0));
            self.withdraw(at, &Disconnect::CONNECTION_CLOSED);
        }
        self.drop_connection(at);
    }

    /// Takes the connection out of every channel and map, so that nobody finds it any more.
    fn withdraw(&mut self, at: ConnectionRef, cause: &Disconnect) {
        let Some(connection) = self.connection(at) else { return };
        let user = connection.session.user().cloned();
        let memberships = std::mem::take(&mut connection.memberships);
        for membership in memberships {
            self.give_up(at, membership);
        }
        if let Some(user) = user {
            self.left(at, &user);
        }
        // The session may know already; one that does not hears it, and says nothing that matters any more.
        let settings = self.settings.clone();
        let context = self.context(&settings);
        let Some(connection) = self.connection(at) else { return };
        connection.session.handle(Input::Disconnect(cause.clone()), &context, &mut Vec::new());
        for departure in connection.session.departures() {
            self.depart(at, departure);
        }
    }

    /// Closes the socket and forgets the connection.
    pub(super) fn drop_connection(&mut self, at: ConnectionRef) {
        if self.connection(at).is_none() {
            return;
        }
        let connection = self.connections.remove(at.slot as usize);
        self.count_backlog(connection.backlog_bytes(), 0);
        connection.outlet.say_end();
        connection.outlet.shut_down();
        self.shared.connection_ended(self.number);
        if self.connections.is_empty() {
            self.connections.shrink_to_fit();
        }
    }

    fn log_end(&mut self, at: ConnectionRef, cause: &Disconnect) {
        let Some(connection) = self.connection(at) else { return };
        let client = connection.session.client();
        if cause.log_level() <= tracing::Level::INFO {
            info!(%client, code = cause.code, reason = %cause.reason, "client disconnected");
        } else {
            debug!(%client, code = cause.code, reason = %cause.reason, "client disconnected");
        }
    }

    pub(super) fn begin_drain(&mut self) {
        if self.drain.is_none() {
            self.drain = Some(Drain { next_slot: 0, at: self.now() });
        }
    }

    /// Closes the next batch, when it is due.
    pub(super) fn drain_step(&mut self, now: Moment) {
        let Some(drain) = &self.drain else { return };
        if drain.at > now {
            return;
        }
        let mut slot = drain.next_slot;
        let mut closed = 0;
        while closed < limits::DRAIN_BATCH && slot < self.connections.capacity() {
            if let Some(connection) = self.connections.get(slot)
                && connection.stage == Stage::Open
            {
                let at = ConnectionRef {
                    slot: u32::try_from(slot).expect("a process has fewer than 2^32 descriptors"),
                    generation: connection.generation,
                };
                self.end(at, Disconnect::SHUTDOWN);
                closed += 1;
            }
            slot += 1;
        }
        if slot >= self.connections.capacity() {
            // A connection whose handshake was under way may still come; the next round finds it.
            slot = 0;
        }
        let pause: Duration = limits::DRAIN_PAUSE;
        self.drain = Some(Drain { next_slot: slot, at: now + pause });
    }

    /// Whether a drain is complete.
    pub(super) fn is_drained(&self) -> bool {
        self.drain.is_some() && self.connections.is_empty()
    }
}
