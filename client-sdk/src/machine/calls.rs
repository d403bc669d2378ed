//! Calls of the application: they wait for the connection, are sent once, and are always answered.

use std::time::Instant;

use starling_proto::client::{self, Reply};

use super::connection::State;
use super::{InFlight, Machine, Output, Ticket, Timer, refused};
use crate::Error;
use crate::request::{Request, RequestKind, Response};

#[derive(Debug)]
pub(super) enum Call {
    /// For the connection.
    Waiting(Request),
    /// In this command.
    Sent(u32),
}

impl Machine {
    pub(super) fn call(&mut self, ticket: Ticket, request: Request, now: Instant) {
        if let State::Disconnected { code, reason } = &self.state {
            let error = Error::Disconnected { code: *code, reason: reason.clone() };
            return self.answer(ticket, Err(error));
        }
        if self.calls.len() >= self.options.max_calls {
            return self.answer(ticket, Err(Error::TooManyCalls));
        }
        self.timers.set(Timer::Call(ticket), self.options.timing.command_timeout, now);
        let call = match self.state {
            State::Connected(_) => self.send_call(ticket, request),
            State::Idle | State::Waiting | State::AskingToken | State::Opening | State::Greeting => {
                Call::Waiting(request)
            }
            State::Disconnected { .. } => unreachable!("returned above"),
        };
        self.calls.insert(ticket, call);
    }

    /// Sends what waited for the connection, oldest first (tickets grow).
    pub(super) fn send_waiting_calls(&mut self) {
        for (ticket, call) in std::mem::take(&mut self.calls) {
            let call = match call {
                Call::Waiting(request) => self.send_call(ticket, request),
                Call::Sent(command) => Call::Sent(command),
            };
            self.calls.insert(ticket, call);
        }
    }

    fn send_call(&mut self, ticket: Ticket, request: Request) -> Call {
        let kind = request.kind();
        Call::Sent(self.send(InFlight::Call(ticket, kind), request.into_command(0)))
    }

    pub(super) fn call_replied(&mut self, ticket: Ticket, kind: RequestKind, outcome: Result<Reply, client::Error>) {
        let answer = match outcome {
            Ok(reply) => kind.response(reply),
            Err(error) => Err(refused(error)),
        };
        self.answer(ticket, answer);
    }

    pub(super) fn call_timed_out(&mut self, ticket: Ticket) {
        if let Some(Call::Sent(command)) = self.calls.get(&ticket) {
            self.in_flight.remove(command);
        }
        self.answer(ticket, Err(Error::Timeout));
    }

    pub(super) fn answer(&mut self, ticket: Ticket, answer: Result<Response, Error>) {
        self.calls.remove(&ticket);
        self.timers.clear(Timer::Call(ticket));
        self.outputs.push_back(Output::Answer(ticket, answer));
    }
}
