use starling_proto::client::{ConnectRequest, Disconnect, Refresh, RefreshResult};

use super::*;

fn with_source() -> Options {
    Options { has_token_source: true, ..options() }
}

fn token(answer: Result<&str, TokenError>) -> Input {
    Input::Token(TokenFor::Connection, answer.map(str::to_owned))
}

#[test]
fn a_machine_opens_greets_and_is_connected() {
    let mut script =
        Script::with(Options { token: Some("t".to_owned()), data: Some(Bytes::from_static(b"1")), ..options() });
    let connecting =
        ConnectionEvent::Connecting { code: 0, reason: "connect called".to_owned(), retry_in: Duration::ZERO };
    assert_eq!(script.input(Input::Connect), [Output::Connection(connecting), Output::Open]);

    let connect = ConnectRequest {
        token: "t".to_owned(),
        data: Bytes::from_static(b"1"),
        name: "test".to_owned(),
        version: "1".to_owned(),
        ..ConnectRequest::default()
    };
    let command = Command { id: 1, connect: Some(connect), ..Command::default() };
    assert_eq!(script.input(Input::Opened), [Output::Send(Box::new(command))]);

    let result = ConnectResult { version: "v".to_owned(), data: Bytes::from_static(b"{}"), ..greeting() };
    let connected =
        Connected { client: "c1".to_owned(), version: "v".to_owned(), data: Some(Bytes::from_static(b"{}")) };
    assert_eq!(
        script.reply(Reply { id: 1, connect: Some(result), ..Reply::default() }),
        [Output::Connection(ConnectionEvent::Connected(connected))]
    );
    assert_eq!(script.input(Input::Connect), []);
}

#[test]
fn each_ping_is_answered_with_one_empty_command() {
    let mut script = Script::connected();
    assert_eq!(script.reply(Reply::default()), [Output::Send(Box::default())]);
    assert_eq!(script.reply(Reply::default()), [Output::Send(Box::default())]);
}

#[test]
fn pings_are_not_answered_when_the_server_does_not_want_it() {
    let mut script = Script::new();
    script.input(Input::Connect);
    script.input(Input::Opened);
    let result = ConnectResult { pong: false, ..greeting() };
    script.reply(Reply { id: 1, connect: Some(result), ..Reply::default() });
    assert_eq!(script.reply(Reply::default()), []);
}

#[test]
fn a_missing_ping_replaces_the_connection_and_other_traffic_does_not_count() {
    let mut script = Script::connected();
    script.pass(34 * SECOND);
    script.reply(Reply::default());
    assert_eq!(script.pass(34 * SECOND), []);
    script.publication("unknown", 1);
    let outputs = script.pass(SECOND);
    assert_eq!(outputs[0], Output::Close);
    assert!(
        matches!(&outputs[1], Output::Connection(ConnectionEvent::Connecting { code: codes::connecting::NO_PING, .. })),
        "{outputs:?}"
    );
}

#[test]
fn without_announced_pings_silence_is_no_failure() {
    let mut script = Script::new();
    script.input(Input::Connect);
    script.input(Input::Opened);
    script.reply(Reply { id: 1, connect: Some(ConnectResult::default()), ..Reply::default() });
    assert_eq!(script.machine.next_deadline(), None);
}

#[test]
fn nothing_is_blamed_on_the_server_while_the_application_does_not_read() {
    let mut script = Script::connected();
    script.input(Input::Subscribe(NEWS, wish("news")));
    script.input(Input::ReadingPaused);
    assert_eq!(script.pass(3600 * SECOND), []);
    script.input(Input::ReadingResumed);
    assert_eq!(script.pass(4 * SECOND), []);
    let outputs = script.pass(SECOND);
    assert_eq!(outputs[0], Output::Close, "the subscribe command is late now");
}

#[test]
fn a_lost_connection_is_replaced_after_the_announced_delay() {
    let mut script = Script::connected();
    let outputs = script.closed(None);
    let delay = retry_in(&outputs);
    let connecting = ConnectionEvent::Connecting { code: 1, reason: "gone".to_owned(), retry_in: delay };
    assert_eq!(outputs, [Output::Connection(connecting)]);
    assert!(delay >= Duration::from_millis(200) && delay <= Duration::from_millis(400), "{delay:?}");
    assert_eq!(script.pass(delay - Duration::from_nanos(1)), []);
    assert_eq!(script.pass(Duration::from_nanos(1)), [Output::Open]);
}

#[test]
fn delays_grow_while_attempts_fail_and_start_again_after_a_stable_connection() {
    let mut script = Script::new();
    script.input(Input::Connect);
    let mut longest = Duration::ZERO;
    for _ in 0..12 {
        let outputs = script.closed(None);
        let error = Error::Transport("gone".to_owned());
        let delay = retry_in(&outputs);
        assert_eq!(outputs, [Output::Connection(ConnectionEvent::Retrying { error, retry_in: delay })]);
        assert!(delay <= 20 * SECOND);
        longest = longest.max(delay);
        assert_eq!(script.pass(delay), [Output::Open]);
    }
    assert!(longest > 5 * SECOND, "{longest:?}");

    // A server that accepts and closes at once does not reset the delays...
    script.open_and_greet();
    let delays: Vec<Duration> = (0..6)
        .map(|_| {
            let outputs = script.closed(None);
            script.reconnect();
            retry_in(&outputs)
        })
        .collect();
    assert!(delays.iter().any(|delay| *delay > SECOND), "{delays:?}");

    // ... one that kept the connection for a while does.
    script.pass(5 * SECOND);
    let outputs = script.closed(None);
    assert!(retry_in(&outputs) <= Duration::from_millis(400));
}

#[test]
fn an_application_that_knows_better_can_end_the_waiting() {
    let mut script = Script::connected();
    assert_eq!(script.input(Input::ReconnectNow), []);
    script.closed(None);
    assert_eq!(script.input(Input::ReconnectNow), [Output::Open]);
    assert_eq!(script.input(Input::ReconnectNow), []);
    assert!(script.pass(9 * SECOND).is_empty(), "the old timer is gone");
}

#[test]
fn a_transport_that_does_not_open_or_greet_in_time_is_given_up() {
    let mut script = Script::new();
    script.input(Input::Connect);
    let outputs = script.pass(10 * SECOND);
    assert_eq!(outputs[0], Output::Close);
    script.pass(retry_in(&outputs));
    script.input(Input::Opened);
    let outputs = script.pass(5 * SECOND);
    assert_eq!(outputs[0], Output::Close);
    assert!(
        matches!(&outputs[1], Output::Connection(ConnectionEvent::Retrying { error: Error::Timeout, .. })),
        "{outputs:?}"
    );
    // A late reply on the given-up transport changes nothing.
    assert_eq!(script.reply(Reply { id: 1, connect: Some(greeting()), ..Reply::default() }), []);
}

#[test]
fn server_codes_reconnect_or_end_by_their_range() {
    for code in [3000, 3001, 3008, 3012, 3499, 4000, 4499, 5000] {
        let mut script = Script::connected();
        let outputs = script.closed(Some(code));
        let expected = ConnectionEvent::Connecting { code, reason: "gone".to_owned(), retry_in: retry_in(&outputs) };
        assert_eq!(outputs, [Output::Connection(expected)]);
    }
    for code in [3500, 3503, 3999, 4500, 4999] {
        let mut script = Script::connected();
        assert_eq!(script.closed(Some(code)), [disconnected(code, "gone")]);
        assert_eq!(script.machine.next_deadline(), None);
        assert_eq!(script.input(Input::Connect), [], "it stays so");
    }
    for code in [1000, 1006, 2999] {
        let mut script = Script::connected();
        let outputs = script.closed(Some(code));
        assert!(
            matches!(&outputs[..], [Output::Connection(ConnectionEvent::Connecting { code: 1, .. })]),
            "{outputs:?}"
        );
    }
    let mut script = Script::connected();
    assert_eq!(script.closed(Some(1009)), [disconnected(codes::disconnected::MESSAGE_SIZE_LIMIT, "gone")]);
}

#[test]
fn terminal_codes_also_end_attempts() {
    let mut script = Script::new();
    script.input(Input::Connect);
    script.input(Input::Opened);
    assert_eq!(script.closed(Some(3500)), [disconnected(3500, "gone")]);
}

#[test]
fn a_disconnect_push_counts_like_a_close_code() {
    let push = |code| Push {
        disconnect: Some(Disconnect { code, reason: "bye".to_owned(), reconnect: false }),
        ..Push::default()
    };
    let mut script = Script::connected();
    let outputs = script.push("", push(3001));
    assert_eq!(outputs[0], Output::Close);
    assert!(matches!(&outputs[1], Output::Connection(ConnectionEvent::Connecting { code: 3001, .. })));
    script.reconnect();
    assert_eq!(script.push("", push(3503)), [Output::Close, disconnected(3503, "bye")]);
}

#[test]
fn a_temporary_connect_error_is_retried_and_another_one_is_final() {
    let mut script = Script::new();
    script.input(Input::Connect);
    script.input(Input::Opened);
    let outputs = script.error(1, 100, true);
    let retrying = ConnectionEvent::Retrying { error: refusal(100, true), retry_in: retry_in(&outputs) };
    assert_eq!(outputs, [Output::Close, Output::Connection(retrying)]);
    assert_eq!(script.next(), [Output::Open]);
    script.input(Input::Opened);
    assert_eq!(script.error(2, 110, false), [Output::Close, disconnected(110, "no")]);
}

#[test]
fn the_first_token_is_asked_for_before_the_transport_is_opened() {
    let mut script = Script::with(with_source());
    assert_eq!(script.input(Input::Connect)[1..], [Output::AskToken(TokenFor::Connection)]);
    assert_eq!(script.input(token(Ok("fresh"))), [Output::Open]);
    let outputs = script.input(Input::Opened);
    assert_eq!(only_command(&outputs).connect.as_ref().unwrap().token, "fresh");
}

#[test]
fn an_expired_token_is_replaced() {
    let mut script = Script::with(Options { token: Some("old".to_owned()), ..with_source() });
    script.input(Input::Connect);
    script.input(Input::Opened);
    let outputs = script.error(1, 109, false);
    assert_eq!(outputs[0], Output::Close);
    assert_eq!(script.pass(retry_in(&outputs)), [Output::AskToken(TokenFor::Connection)]);
    assert_eq!(script.input(token(Ok("new"))), [Output::Open]);
    let outputs = script.input(Input::Opened);
    assert_eq!(only_command(&outputs).connect.as_ref().unwrap().token, "new");
}

#[test]
fn an_expired_token_without_source_is_the_end() {
    let mut script = Script::with(Options { token: Some("old".to_owned()), ..options() });
    script.input(Input::Connect);
    script.input(Input::Opened);
    let outputs = script.error(1, 109, false);
    let reason = "token expired, and there is no token source";
    assert_eq!(outputs, [Output::Close, disconnected(codes::disconnected::UNAUTHORIZED, reason)]);
}

#[test]
fn an_unauthorized_or_empty_answer_of_the_token_source_is_the_end() {
    for answer in [Err(TokenError::Unauthorized), Ok("")] {
        let mut script = Script::with(with_source());
        script.input(Input::Connect);
        let outputs = script.input(token(answer));
        assert_eq!(outputs, [disconnected(codes::disconnected::UNAUTHORIZED, "unauthorized")]);
    }
}

#[test]
fn a_token_source_that_fails_or_hangs_is_asked_again_later() {
    let mut script = Script::with(with_source());
    script.input(Input::Connect);
    let outputs = script.input(token(Err(TokenError::Temporary("503".to_owned()))));
    let retrying = ConnectionEvent::Retrying { error: Error::Token("503".to_owned()), retry_in: retry_in(&outputs) };
    assert_eq!(outputs, [Output::Connection(retrying)]);
    assert_eq!(script.pass(retry_in(&outputs)), [Output::AskToken(TokenFor::Connection)]);
    let outputs = script.pass(30 * SECOND);
    assert!(matches!(&outputs[0], Output::Connection(ConnectionEvent::Retrying { error: Error::Token(_), .. })));
    assert_eq!(script.input(token(Ok("late"))), [], "an answer nobody waits for");
}

#[test]
fn the_token_is_renewed_before_it_expires_with_one_question_at_a_time() {
    let mut script = Script::with(Options { token: Some("t".to_owned()), ..with_source() });
    script.input(Input::Connect);
    script.input(Input::Opened);
    let result = ConnectResult { expires: true, ttl: 100, ..ConnectResult::default() };
    script.reply(Reply { id: 1, connect: Some(result), ..Reply::default() });
    assert_eq!(script.pass(90 * SECOND), []);
    assert_eq!(script.pass(5 * SECOND), [Output::AskToken(TokenFor::Connection)]);

    // The connection is lost meanwhile. The next one uses the old token, without a second question; the answer to the
    // first is used to refresh it.
    let outputs = script.closed(None);
    assert_eq!(script.pass(retry_in(&outputs)), [Output::Open]);
    let outputs = script.input(Input::Opened);
    assert_eq!(only_command(&outputs).connect.as_ref().unwrap().token, "t");
    let (id, result) = (script.last_id, ConnectResult { expires: true, ttl: 4, ..ConnectResult::default() });
    script.reply(Reply { id, connect: Some(result), ..Reply::default() });
    assert_eq!(script.pass(5 * SECOND), [], "the question is still open");
    let outputs = script.input(token(Ok("t2")));
    let command = only_command(&outputs);
    assert_eq!(command.refresh.as_ref().unwrap().token, "t2");
    let (id, result) = (command.id, RefreshResult { expires: true, ttl: 1000, ..RefreshResult::default() });
    assert_eq!(script.reply(Reply { id, refresh: Some(result), ..Reply::default() }), []);
    assert_eq!(script.pass(900 * SECOND), []);
    assert_eq!(script.pass(70 * SECOND), [Output::AskToken(TokenFor::Connection)]);
}

#[test]
fn a_failed_renewal_is_repeated_and_a_refused_one_is_final() {
    let mut script = Script::with(Options { token: Some("t".to_owned()), ..with_source() });
    script.input(Input::Connect);
    script.input(Input::Opened);
    let result = ConnectResult { expires: true, ttl: 1, ..ConnectResult::default() };
    script.reply(Reply { id: 1, connect: Some(result), ..Reply::default() });
    assert_eq!(script.pass(SECOND), [Output::AskToken(TokenFor::Connection)]);
    let outputs = script.input(token(Err(TokenError::Temporary("x".to_owned()))));
    let delay = retry_in(&outputs);
    assert!(delay >= 5 * SECOND && delay <= 10 * SECOND);
    assert_eq!(script.pass(delay), [Output::AskToken(TokenFor::Connection)]);

    script.input(token(Ok("t2")));
    let outputs = script.error(script.last_id, 100, true);
    assert_eq!(script.pass(retry_in(&outputs)), [Output::AskToken(TokenFor::Connection)]);

    script.input(token(Ok("t3")));
    let outputs = script.error(script.last_id, 103, false);
    assert_eq!(outputs, [Output::Close, disconnected(103, "no")]);
}

#[test]
fn a_refresh_push_moves_the_renewal() {
    let mut script = Script::with(Options { token: Some("t".to_owned()), ..with_source() });
    script.input(Input::Connect);
    script.input(Input::Opened);
    script.reply(Reply { id: 1, connect: Some(ConnectResult::default()), ..Reply::default() });
    script.push("", Push { refresh: Some(Refresh { expires: true, ttl: 10 }), ..Push::default() });
    assert_eq!(script.pass(9 * SECOND), []);
    assert_eq!(script.pass(SECOND), [Output::AskToken(TokenFor::Connection)]);
}

#[test]
fn an_expired_connection_comes_back_with_a_new_token() {
    let mut script = Script::with(Options { token: Some("t".to_owned()), ..with_source() });
    script.input(Input::Connect);
    script.open_and_greet();
    let outputs = script.closed(Some(3005));
    assert_eq!(script.pass(retry_in(&outputs)), [Output::AskToken(TokenFor::Connection)]);
}

#[test]
fn frames_and_replies_that_are_not_of_the_protocol_are_the_end() {
    let mut script = Script::connected();
    let outputs = script.input(Input::Malformed("line 1".to_owned()));
    assert_eq!(outputs, [Output::Close, disconnected(codes::disconnected::BAD_PROTOCOL, "bad protocol: line 1")]);
    let mut script = Script::new();
    script.input(Input::Connect);
    script.input(Input::Opened);
    let outputs = script.reply(Reply { id: 1, ..Reply::default() });
    let reason = "bad protocol: the reply to connect has no connect body";
    assert_eq!(outputs, [Output::Close, disconnected(codes::disconnected::BAD_PROTOCOL, reason)]);
}

#[test]
fn disconnecting_ends_everything_once() {
    let mut script = Script::connected();
    script.subscribe(NEWS, "news", "e", 0);
    script.input(Input::Call(Ticket(1), Request::Presence { channel: "news".to_owned() }));
    let outputs = script.input(Input::Disconnect);
    let error = Error::Disconnected { code: 0, reason: "disconnect called".to_owned() };
    let expected = [
        Output::Close,
        unsubscribed(NEWS, codes::unsubscribed::CLIENT_CLOSED, "client disconnected: disconnect called (code 0)"),
        Output::Answer(Ticket(1), Err(error)),
        disconnected(0, "disconnect called"),
    ];
    assert_eq!(outputs, expected);
    assert_eq!(script.input(Input::Disconnect), []);
    assert_eq!(script.closed(None), []);
}
