//! The connection: attempts, greeting, pings, the token, and the ways in which it ends.

use std::time::{Duration, Instant};

use rand::RngExt;
use starling_proto::client::{self, Command, ConnectRequest, RefreshRequest, Reply};

use super::{InFlight, Machine, Output, Timer, TokenFor, refused, worth_repeating};
use crate::codes::{self, connecting, disconnected, server};
use crate::publication::present;
use crate::{Connected, ConnectionEvent, Error, TokenError};

/// Where the connection is; the [module](super) has the picture.
#[derive(Debug)]
pub(super) enum State {
    /// Before the start.
    Idle,
    /// Until the next attempt.
    Waiting,
    /// The attempt needs a token first.
    AskingToken,
    /// The transport is being opened.
    Opening,
    /// The connect command is sent.
    Greeting,
    /// The server accepted it.
    Connected(Live),
    /// For good; why.
    Disconnected { code: u32, reason: String },
}

#[derive(Debug)]
pub(super) struct Live {
    since: Instant,
    /// How long to wait for the next ping; `None` when the server sends none.
    ping_deadline: Option<Duration>,
    /// Whether pings want to be answered.
    pong: bool,
}

/// The connection's token.
#[derive(Debug)]
pub(super) struct Token {
    current: Option<String>,
    /// Whether a question for a new one is open: there is never more than one.
    asked: bool,
}

impl Token {
    pub(super) fn new(current: Option<String>) -> Self {
        Self { current, asked: false }
    }
}

// === attempts ===

impl Machine {
    pub(super) fn connect(&mut self, now: Instant) {
        if !matches!(self.state, State::Idle) {
            return;
        }
        self.outputs.push_back(Output::Connection(ConnectionEvent::Connecting {
            code: connecting::CONNECT_CALLED,
            reason: "connect called".to_owned(),
            retry_in: Duration::ZERO,
        }));
        self.attempt(now);
    }

    pub(super) fn reconnect_now(&mut self, now: Instant) {
        if matches!(self.state, State::Waiting) {
            self.timers.clear(Timer::Attempt);
            self.attempt(now);
        }
    }

    pub(super) fn attempt(&mut self, now: Instant) {
        if self.token.current.is_none() && self.options.has_token_source {
            self.state = State::AskingToken;
            self.ask_token(now);
        } else {
            self.open(now);
        }
    }

    fn open(&mut self, now: Instant) {
        self.state = State::Opening;
        self.transport = true;
        self.timers.set(Timer::Opening, self.options.timing.open_timeout, now);
        self.outputs.push_back(Output::Open);
    }

    pub(super) fn opened(&mut self, now: Instant) {
        if !matches!(self.state, State::Opening) {
            return;
        }
        self.timers.clear(Timer::Opening);
        self.timers.set(Timer::Greeting, self.options.timing.command_timeout, now);
        self.state = State::Greeting;
        let connect = ConnectRequest {
            token: self.token.current.clone().unwrap_or_default(),
            data: self.options.data.clone().unwrap_or_default(),
            name: self.options.name.clone(),
            version: self.options.version.clone(),
            ..ConnectRequest::default()
        };
        self.send(InFlight::Connect, Command { connect: Some(connect), ..Command::default() });
    }

    pub(super) fn opening_timed_out(&mut self, now: Instant) {
        self.close_transport();
        self.attempt_failed(Error::Transport("not open in time".to_owned()), now);
    }

    pub(super) fn greeting_timed_out(&mut self, now: Instant) {
        self.close_transport();
        self.attempt_failed(Error::Timeout, now);
    }

    fn attempt_failed(&mut self, error: Error, now: Instant) {
        self.timers.clear(Timer::Opening);
        self.timers.clear(Timer::Greeting);
        self.in_flight.clear();
        let retry_in = self.wait_for_attempt(now);
        self.outputs.push_back(Output::Connection(ConnectionEvent::Retrying { error, retry_in }));
    }

    fn wait_for_attempt(&mut self, now: Instant) -> Duration {
        let retry_in = self.options.timing.reconnect.delay(self.failures, &mut self.rng);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting;
        self.timers.set(Timer::Attempt, retry_in, now);
        retry_in
    }

    pub(super) fn connect_replied(&mut self, outcome: Result<Reply, client::Error>, now: Instant) {
        let result = match outcome {
            Ok(reply) => reply.connect,
            Err(error) => return self.connect_refused(error, now),
        };
        let Some(result) = result else { return self.bad_protocol("the reply to connect has no connect body") };
        self.timers.clear(Timer::Greeting);
        let ping_every = (result.ping > 0).then(|| Duration::from_secs(u64::from(result.ping)));
        let ping_deadline = ping_every.map(|every| every + self.options.timing.max_server_ping_delay);
        self.state = State::Connected(Live { since: now, ping_deadline, pong: result.pong });
        if let Some(after) = ping_deadline {
            self.timers.set(Timer::Ping, after, now);
        }
        self.schedule_refresh(result.expires, result.ttl, now);
        self.outputs.push_back(Output::Connection(ConnectionEvent::Connected(Connected {
            client: result.client,
            version: result.version,
            data: present(result.data),
        })));
        self.subscribe_all(now);
        self.send_waiting_calls();
    }

    fn connect_refused(&mut self, error: client::Error, now: Instant) {
        if error.code == server::TOKEN_EXPIRED {
            if !self.options.has_token_source {
                return self.disconnect(disconnected::UNAUTHORIZED, "token expired, and there is no token source");
            }
            self.token.current = None;
        } else if !worth_repeating(&error) {
            return self.disconnect(error.code, &error.message);
        }
        // After an error the server takes no second connect on the same transport.
        self.close_transport();
        self.attempt_failed(refused(error), now);
    }
}

// === pings ===

impl Machine {
    /// Only pings show that the server lives, as in most official SDKs: they come whatever else flows.
    pub(super) fn pinged(&mut self, now: Instant) {
        let State::Connected(Live { since: _, ping_deadline, pong }) = self.state else { return };
        if let Some(after) = ping_deadline {
            self.timers.set(Timer::Ping, after, now);
        }
        if pong {
            self.outputs.push_back(Output::Send(Box::default()));
        }
    }

    pub(super) fn ping_missing(&mut self, now: Instant) {
        self.lose_connection(connecting::NO_PING, "no ping", now);
    }
}

// === the token ===

impl Machine {
    fn ask_token(&mut self, now: Instant) {
        if self.token.asked {
            return;
        }
        self.token.asked = true;
        self.timers.set(Timer::Token, self.options.timing.token_timeout, now);
        self.outputs.push_back(Output::AskToken(TokenFor::Connection));
    }

    pub(super) fn connection_token(&mut self, answer: Result<String, TokenError>, now: Instant) {
        if !self.token.asked {
            return;
        }
        self.token.asked = false;
        self.timers.clear(Timer::Token);
        match answer {
            Ok(token) if !token.is_empty() => {
                self.token.current = Some(token);
                match self.state {
                    State::AskingToken => self.open(now),
                    State::Connected(_) => self.send_refresh(now),
                    // The next attempt uses it.
                    State::Waiting | State::Opening | State::Greeting => {}
                    State::Idle | State::Disconnected { .. } => {}
                }
            }
            Ok(_) | Err(TokenError::Unauthorized) => self.disconnect(disconnected::UNAUTHORIZED, "unauthorized"),
            Err(TokenError::Temporary(why)) => match self.state {
                State::AskingToken => self.attempt_failed(Error::Token(why), now),
                State::Connected(_) => self.refresh_failed(Error::Token(why), now),
                // It was asked for a connection that is gone; the next one asks again when it has to.
                State::Waiting | State::Opening | State::Greeting => {}
                State::Idle | State::Disconnected { .. } => {}
            },
        }
    }

    /// Plans the next renewal. Without a source the server will end the connection when the token expires.
    fn schedule_refresh(&mut self, expires: bool, ttl_seconds: u32, now: Instant) {
        if expires && self.options.has_token_source {
            let after = before_expiry(ttl_seconds, self.rng.random());
            self.timers.set(Timer::Refresh, after, now);
        } else {
            self.timers.clear(Timer::Refresh);
        }
    }

    pub(super) fn refresh(&mut self, now: Instant) {
        self.ask_token(now);
    }

    fn send_refresh(&mut self, now: Instant) {
        let refresh = RefreshRequest { token: self.token.current.clone().unwrap_or_default() };
        self.send_command(InFlight::Refresh, Command { refresh: Some(refresh), ..Command::default() }, now);
    }

    pub(super) fn refresh_replied(&mut self, outcome: Result<Reply, client::Error>, now: Instant) {
        match outcome {
            Ok(Reply { refresh: Some(result), .. }) => self.schedule_refresh(result.expires, result.ttl, now),
            Ok(_) => self.bad_protocol("the reply to refresh has no refresh body"),
            Err(error) if worth_repeating(&error) || error.code == server::TOKEN_EXPIRED => {
                self.refresh_failed(refused(error), now);
            }
            Err(error) => self.disconnect(error.code, &error.message),
        }
    }

    pub(super) fn refresh_failed(&mut self, error: Error, now: Instant) {
        let retry_in = self.refresh_retry_delay();
        self.timers.set(Timer::Refresh, retry_in, now);
        self.outputs.push_back(Output::Connection(ConnectionEvent::Retrying { error, retry_in }));
    }

    /// Between attempts to renew a token: 5 to 10 s, as the official SDKs do. The server waits 25 s after expiry.
    pub(super) fn refresh_retry_delay(&mut self) -> Duration {
        Duration::from_secs(5) + Duration::from_secs(5).mul_f64(self.rng.random())
    }

    pub(super) fn refresh_pushed(&mut self, refresh: client::Refresh, now: Instant) {
        self.schedule_refresh(refresh.expires, refresh.ttl, now);
    }
}

/// When to renew a token that lives `ttl_seconds`: shortly before it expires (a tenth of its life, at most a minute),
/// and not all clients at once: `random` (0 to 1) takes up to half of that away. At least a second from now, whatever
/// the server says.
pub(super) fn before_expiry(ttl_seconds: u32, random: f64) -> Duration {
    let ttl = Duration::from_secs(u64::from(ttl_seconds));
    let margin = (ttl / 10).min(Duration::from_secs(60));
    (ttl - margin.mul_f64(1.0 - random / 2.0)).max(Duration::from_secs(1))
}

// === ends ===

impl Machine {
    /// The transport ended by itself.
    pub(super) fn closed(&mut self, code: Option<u32>, reason: String, now: Instant) {
        self.transport = false;
        match self.state {
            State::Opening | State::Greeting | State::Connected(_) => self.ended_by_server(code, reason, now),
            State::Idle | State::Waiting | State::AskingToken | State::Disconnected { .. } => {}
        }
    }

    pub(super) fn disconnect_pushed(&mut self, disconnect: client::Disconnect, now: Instant) {
        self.close_transport();
        self.ended_by_server(Some(disconnect.code), disconnect.reason, now);
    }

    fn ended_by_server(&mut self, code: Option<u32>, reason: String, now: Instant) {
        let code = code.unwrap_or(connecting::TRANSPORT_CLOSED);
        if code == server::MESSAGE_TOO_BIG {
            return self.disconnect(disconnected::MESSAGE_SIZE_LIMIT, &text_or(reason, "message too big"));
        }
        if codes::forbids_reconnect(code) {
            return self.disconnect(code, &text_or(reason, "closed by the server"));
        }
        if code == server::STATE_INVALIDATED {
            self.invalidate_subscriptions();
        }
        if matches!(code, server::STATE_INVALIDATED | server::CONNECTION_EXPIRED) && self.options.has_token_source {
            self.token.current = None;
        }
        // Codes below 3000 are the transport's own affair.
        let (code, reason) = match code {
            0..3000 => (connecting::TRANSPORT_CLOSED, text_or(reason, "transport closed")),
            3000.. => (code, text_or(reason, "closed by the server")),
        };
        if matches!(self.state, State::Connected(_)) {
            self.connection_lost(code, reason, now);
        } else {
            self.attempt_failed(Error::Transport(reason), now);
        }
    }

    /// Gives a connection up that the machine no longer trusts, and makes a new one.
    pub(super) fn lose_connection(&mut self, code: u32, reason: &str, now: Instant) {
        self.close_transport();
        self.connection_lost(code, reason.to_owned(), now);
    }

    fn connection_lost(&mut self, code: u32, reason: String, now: Instant) {
        let State::Connected(Live { since, ping_deadline: _, pong: _ }) = self.state else { return };
        if now.saturating_duration_since(since) >= self.options.timing.stable_after {
            self.failures = 0;
        }
        self.timers.clear(Timer::Ping);
        self.timers.clear(Timer::Refresh);
        let retry_in = self.wait_for_attempt(now);
        self.outputs.push_back(Output::Connection(ConnectionEvent::Connecting { code, reason, retry_in }));
        self.suspend_subscriptions(now);
        for (id, what) in std::mem::take(&mut self.in_flight) {
            self.timers.clear(Timer::Command(id));
            if let InFlight::Call(ticket, _) = what {
                self.answer(ticket, Err(Error::ConnectionLost));
            }
        }
    }

    pub(super) fn bad_protocol(&mut self, why: &str) {
        self.disconnect(disconnected::BAD_PROTOCOL, &format!("bad protocol: {why}"));
    }

    /// Ends everything, for good.
    pub(super) fn disconnect(&mut self, code: u32, reason: &str) {
        if matches!(self.state, State::Disconnected { .. }) {
            return;
        }
        self.close_transport();
        self.state = State::Disconnected { code, reason: reason.to_owned() };
        self.token.asked = false;
        self.in_flight.clear();
        self.end_subscriptions();
        while let Some((ticket, _)) = self.calls.first_key_value() {
            self.answer(*ticket, Err(Error::Disconnected { code, reason: reason.to_owned() }));
        }
        self.timers.clear_all();
        self.outputs.push_back(Output::Connection(ConnectionEvent::Disconnected { code, reason: reason.to_owned() }));
    }

    fn close_transport(&mut self) {
        if self.transport {
            self.transport = false;
            self.outputs.push_back(Output::Close);
        }
    }
}

fn text_or(text: String, otherwise: &str) -> String {
    if text.is_empty() { otherwise.to_owned() } else { text }
}
