//! From bytes to commands: what a connection reads, and how reading waits for answers.

use std::{io, sync::atomic::Ordering};

use super::{
    Task, Worker,
    connection::{Stage, Suspended},
    inbox::ConnectionRef,
};
use crate::{
    error::Disconnect,
    limits,
    metrics::CommandKind,
    session::{Answer, Input, Ticket},
    wire::{
        self,
        websocket::{self, Event, Violation},
    },
};

/// What the reading task does next.
pub(super) enum Reading {
    /// Nothing more is there now.
    Wait,
    /// More may be there, but it is others' turn.
    Yield,
    /// The connection is gone, or its input waits for an answer; a new task is started when it goes on.
    Stop,
}

impl Worker {
    /// Reads what is there, at most [`limits::READS_PER_TURN`] times.
    pub(super) fn read(&mut self, at: ConnectionRef) -> Reading {
        let mut scratch = std::mem::take(&mut self.read_scratch);
        let reading = self.read_into(&mut scratch, at);
        self.read_scratch = scratch;
        reading
    }

    fn read_into(&mut self, scratch: &mut [u8], at: ConnectionRef) -> Reading {
        for _ in 0..limits::READS_PER_TURN {
            let Some(connection) = self.connection(at) else { return Reading::Stop };
            match connection.outlet.try_read(scratch) {
                Ok(0) => {
                    self.lost(at);
                    return Reading::Stop;
                }
                Ok(read) => {
                    self.input(at, &mut scratch[..read]);
                    self.write_replies(at);
                    self.reschedule(at);
                    match self.connection(at) {
                        Some(connection) if connection.reading => {}
                        Some(_) | None => return Reading::Stop,
                    }
                    if read < scratch.len() {
                        return Reading::Wait;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Reading::Wait,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.lost(at);
                    return Reading::Stop;
                }
            }
        }
        Reading::Yield
    }

    /// Takes what came with the handshake, as if it had been read.
    pub(super) fn first_input(&mut self, at: ConnectionRef, mut bytes: Vec<u8>) {
        self.input(at, &mut bytes);
        self.write_replies(at);
        self.reschedule(at);
    }

    /// Takes the answer to a session's question, and goes on with the input that waited for it.
    pub(super) fn answer(&mut self, at: ConnectionRef, ticket: Ticket, answer: Answer) {
        if self.connection(at).is_none() {
            return;
        }
        if let Answer::Published { channel, .. } = &answer {
            // The publisher gets its own publication before the reply.
            self.catch_up(at, channel);
        }
        self.drive(at, Input::Answer(ticket, answer));
        self.resume(at);
        self.write_replies(at);
        self.reschedule(at);
    }

    fn resume(&mut self, at: ConnectionRef) {
        let settings = self.settings.clone();
        let Some(connection) = self.connection(at) else { return };
        if connection.session.is_busy(&settings) {
            return;
        }
        if let Some(suspended) = connection.suspended.take() {
            let Suspended { message, mut input } = *suspended;
            if !message.is_empty() {
                self.commands(at, &message);
            }
            self.input(at, &mut input);
        }
        if let Some(connection) = self.connection(at)
            && connection.suspended.is_none()
            && !connection.session.is_busy(&settings)
            && !connection.reading
        {
            connection.reading = true;
            let outlet = connection.outlet.clone();
            self.tasks.push(Task::Read(at, outlet));
        }
    }

    /// Takes bytes of the peer, up to the first message that has to wait for an answer.
    fn input(&mut self, at: ConnectionRef, mut bytes: &mut [u8]) {
        let settings = self.settings.clone();
        while !bytes.is_empty() {
            let Some(connection) = self.connection(at) else { return };
            if connection.stage == Stage::Open && connection.session.is_busy(&settings) {
                connection.suspended.get_or_insert_default().input.extend_from_slice(bytes);
                break;
            }
            let rules = self.frame_rules(self.connections[at.slot as usize].deflate.is_some());
            let connection = &mut self.connections[at.slot as usize];
            let stage = connection.stage;
            match connection.reader.read(rules, &mut bytes) {
                Ok(None) => break,
                // What comes after a refused connect, or while the Close frame of the peer is awaited, is dropped.
                Ok(Some(Event::Message { .. } | Event::Ping(_) | Event::Pong)) if stage != Stage::Open => {}
                Ok(Some(Event::Message { kind: _, deflated, payload })) => self.received(at, deflated, &payload),
                Ok(Some(Event::Ping(payload))) => {
                    let mut frame = Vec::with_capacity(payload.len() + 2);
                    websocket::pong_frame(&payload, &mut frame);
                    self.write_replies(at);
                    self.write(at, &frame);
                }
                Ok(Some(Event::Pong)) => self.drive(at, Input::FramePong),
                Ok(Some(Event::Close { code, reason: _ })) => return self.peer_closed(at, code),
                Err(violation) => return self.violated(at, violation),
            }
        }
        if let Some(connection) = self.connection(at)
            && connection.stage == Stage::Open
            && connection.session.is_busy(&settings)
        {
            connection.reading = false;
        }
    }

    /// Takes a whole message.
    fn received(&mut self, at: ConnectionRef, deflated: bool, payload: &[u8]) {
        let counters = &self.shared.counters[self.number];
        counters.received.fetch_add(1, Ordering::Relaxed);
        counters.received_bytes.fetch_add(payload.len() as u64, Ordering::Relaxed);
        if !deflated {
            return self.commands(at, payload);
        }
        let mut inflated = Vec::new();
        match self.inflater.inflate(payload, self.settings.inflated_size_limit, &mut inflated) {
            Ok(()) => self.commands(at, &inflated),
            Err(violation) => self.violated(at, violation),
        }
    }

    fn violated(&mut self, at: ConnectionRef, violation: Violation) {
        self.end(at, Disconnect { code: u32::from(violation.code), reason: violation.reason.into() });
    }

    /// Carries out the commands of a message, up to one that has to wait for the answer to an earlier one.
    fn commands(&mut self, at: ConnectionRef, message: &[u8]) {
        let settings = self.settings.clone();
        let Some(connection) = self.connection(at) else { return };
        let mut commands = wire::commands(connection.session.protocol(), message);
        loop {
            let Some(connection) = self.connection(at) else { return };
            if connection.stage != Stage::Open {
                return;
            }
            if connection.session.is_busy(&settings) {
                let rest = commands.rest();
                if !rest.is_empty() {
                    connection.suspended.get_or_insert_default().message = rest.to_vec();
                }
                return;
            }
            match commands.next() {
                None => return,
                Some(Ok(command)) => {
                    let input = Input::Command(command);
                    if let Some(kind) = CommandKind::of(&input) {
                        self.shared.counters[self.number].command(kind);
                    }
                    self.drive(at, input);
                }
                Some(Err(_)) => self.drive(at, Input::Malformed),
            }
        }
    }
}
