//! Scripts: inputs in, exact outputs out.

use std::{sync::LazyLock, time::Duration};

use bytes::Bytes;

use super::{
    protocol::{ConnectRequest, ConnectResult, SubscribeRequest},
    *,
};
use crate::config::Config;

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| settings(""));

fn settings(client: &str) -> Settings {
    let text = format!(
        r#"{{"client": {{"allow_anonymous_connect_without_token": true, "channel_limit": 2 {client}}},
            "channel": {{"without_namespace": {{"allow_subscribe_for_client": true, "allow_subscribe_for_anonymous": true,
            "allow_publish_for_subscriber": true, "allow_publish_for_anonymous": true}}}}}}"#
    );
    Settings::new(&Config::from_json(&text).expect("a good configuration"), "test").expect("it compiles")
}

/// A session and its clock.
struct Script<'a> {
    session: Session,
    settings: &'a Settings,
    now: Moment,
}

impl<'a> Script<'a> {
    fn new(settings: &'a Settings) -> Self {
        let now = Moment(1_000);
        let context = Context { now, unix_ms: 1_700_000_000_000, random: 0, settings };
        let session = Session::new(ClientId::random(), Protocol::Json, Opening::default(), &context);
        Self { session, settings, now }
    }

    /// A script whose client is connected.
    fn open(settings: &'a Settings) -> Self {
        let mut script = Self::new(settings);
        script.connect();
        script
    }

    fn connect(&mut self) {
        let outputs = self.command(1, Request::Connect(Box::default()));
        let [Output::Ask(ticket, Ask::Enter { .. })] = outputs[..] else { panic!("{outputs:?}") };
        let outputs = self.give(Input::Answer(ticket, Answer::Entered(true)));
        assert!(matches!(&outputs[..], [Output::Reply(1, Reply::Connect(_))]), "{outputs:?}");
    }

    fn give(&mut self, input: Input) -> Vec<Output> {
        let unix_ms = 1_700_000_000_000 + i64::try_from(self.now.0).expect("small") - 1_000;
        let context = Context { now: self.now, unix_ms, random: 0, settings: self.settings };
        let mut outputs = Vec::new();
        self.session.handle(input, &context, &mut outputs);
        outputs
    }

    fn command(&mut self, id: u32, request: Request) -> Vec<Output> {
        self.give(Input::Command(Command { id, request }))
    }

    /// Subscribes up to the question for a place.
    fn ask_to_join(&mut self, id: u32, channel: &str) -> Ticket {
        let outputs = self.command(id, subscribe(channel));
        let [Output::Ask(ticket, Ask::Join(_))] = outputs[..] else { panic!("{outputs:?}") };
        ticket
    }

    fn join(&mut self, id: u32, channel: &str) {
        let ticket = self.ask_to_join(id, channel);
        let outputs = self.give(Input::Answer(ticket, Answer::Joined(Ok(None))));
        assert_eq!(outputs, [Output::Reply(id, Reply::Subscribe(Box::default())), live(channel)]);
    }

    fn wait_for_deadline(&mut self) -> Vec<Output> {
        self.now = self.session.next_deadline(self.settings).expect("something is due");
        self.give(Input::Deadline)
    }
}

fn subscribe(channel: &str) -> Request {
    Request::Subscribe(Box::new(SubscribeRequest { channel: channel.into(), ..SubscribeRequest::default() }))
}

fn live(channel: &str) -> Output {
    Output::GoLive(GoLive {
        channel: channel.into(),
        position: None,
        delta: false,
        has_base: false,
        joins: false,
        filter: None,
    })
}

fn gone(channel: &str) -> Output {
    Output::Leave(Departure { channel: channel.into(), presence: None, leave: None })
}

fn unsubscribe(channel: &str) -> Request {
    Request::Unsubscribe { channel: channel.into() }
}

#[test]
fn connect_tells_the_client_about_pings() {
    let mut script = Script::new(&SETTINGS);
    let outputs = script.command(7, Request::Connect(Box::default()));
    let [Output::Ask(ticket, Ask::Enter { ref user, limit: None })] = outputs[..] else { panic!("{outputs:?}") };
    assert!(user.is_anonymous());
    let expected = ConnectResult {
        client: script.session.client().to_string(),
        version: "test",
        ping: 25,
        pong: true,
        ..ConnectResult::default()
    };
    let outputs = script.give(Input::Answer(ticket, Answer::Entered(true)));
    assert_eq!(outputs, [Output::Reply(7, Reply::Connect(Box::new(expected)))]);
}

#[test]
fn a_command_before_connect_ends_the_connection() {
    let outputs = Script::new(&SETTINGS).command(1, subscribe("news"));
    assert_eq!(outputs, [Output::Close(Disconnect::BAD_REQUEST)]);
}

#[test]
fn a_second_connect_ends_the_connection() {
    let outputs = Script::open(&SETTINGS).command(2, Request::Connect(Box::default()));
    assert_eq!(outputs, [Output::Close(Disconnect::BAD_REQUEST)]);
}

#[test]
fn an_invalid_token_ends_the_connection_and_says_why() {
    let request = ConnectRequest { token: "nonsense".into(), ..ConnectRequest::default() };
    let outputs = Script::new(&SETTINGS).command(1, Request::Connect(Box::new(request)));
    assert!(matches!(&outputs[..], [Output::Refused(_), Output::Close(cause)] if *cause == Disconnect::INVALID_TOKEN));
}

#[test]
fn who_never_connects_is_stale() {
    assert_eq!(Script::new(&SETTINGS).wait_for_deadline(), [Output::Close(Disconnect::STALE)]);
}

#[test]
fn a_user_with_too_many_connections_is_turned_away() {
    let mut script = Script::new(&SETTINGS);
    let outputs = script.command(1, Request::Connect(Box::default()));
    let [Output::Ask(ticket, _)] = outputs[..] else { panic!("{outputs:?}") };
    let outputs = script.give(Input::Answer(ticket, Answer::Entered(false)));
    assert!(
        matches!(&outputs[..], [Output::Refused(_), Output::Close(cause)] if *cause == Disconnect::CONNECTION_LIMIT)
    );
}

#[test]
fn pings_come_in_the_second_half_of_the_interval_and_want_one_pong_each() {
    let mut script = Script::open(&SETTINGS);
    assert_eq!(script.wait_for_deadline(), [Output::Ping]);
    assert_eq!(script.now, Moment(1_000) + Duration::from_millis(12_500));
    assert_eq!(script.command(0, Request::Pong), []);
    assert_eq!(script.command(0, Request::Pong), [Output::Close(Disconnect::BAD_REQUEST)]);
}

#[test]
fn an_unanswered_ping_ends_the_connection() {
    let mut script = Script::open(&SETTINGS);
    assert_eq!(script.wait_for_deadline(), [Output::Ping]);
    assert_eq!(script.wait_for_deadline(), [Output::Close(Disconnect::NO_PONG)]);
}

#[test]
fn a_subscription_goes_live_behind_its_reply() {
    Script::open(&SETTINGS).join(2, "news");
}

#[test]
fn commands_wait_for_the_answer_to_the_one_before() {
    let mut script = Script::open(&SETTINGS);
    assert!(!script.session.is_busy(script.settings));
    let ticket = script.ask_to_join(2, "news");
    assert!(script.session.is_busy(script.settings));
    script.give(Input::Answer(ticket, Answer::Joined(Ok(None))));
    assert!(!script.session.is_busy(script.settings));
}

#[test]
fn a_broker_that_is_away_refuses_the_subscription_but_not_the_connection() {
    let mut script = Script::open(&SETTINGS);
    let ticket = script.ask_to_join(2, "news");
    let outputs = script.give(Input::Answer(ticket, Answer::Joined(Err(BrokerError::Unavailable))));
    assert_eq!(outputs, [gone("news"), Output::Reply(2, Reply::Error(ClientError::Internal))]);
    script.join(3, "news");
}

#[test]
fn subscribing_twice_or_too_often_is_an_error() {
    let mut script = Script::open(&SETTINGS);
    script.join(2, "one");
    assert_eq!(script.command(3, subscribe("one")), [Output::Reply(3, Reply::Error(ClientError::AlreadySubscribed))]);
    script.join(4, "two");
    let outputs = script.command(5, subscribe("three"));
    assert_eq!(outputs.last(), Some(&Output::Reply(5, Reply::Error(ClientError::LimitExceeded))));
}

#[test]
fn unsubscribe_leaves_before_its_reply_and_is_no_error_without_a_subscription() {
    let mut script = Script::open(&SETTINGS);
    script.join(2, "news");
    let outputs = script.command(3, unsubscribe("news"));
    assert_eq!(outputs, [gone("news"), Output::Reply(3, Reply::Unsubscribe)]);
    assert_eq!(script.command(4, unsubscribe("news")), [Output::Reply(4, Reply::Unsubscribe)]);
}

#[test]
fn an_unsubscribe_while_joining_waits_for_the_subscribe_reply() {
    let settings = settings(r#", "concurrency": 8"#);
    let mut script = Script::open(&settings);
    let ticket = script.ask_to_join(2, "news");
    assert_eq!(script.command(3, unsubscribe("news")), []);
    let outputs = script.give(Input::Answer(ticket, Answer::Joined(Ok(None))));
    assert!(
        matches!(
            &outputs[..],
            [
                Output::Reply(2, Reply::Subscribe(_)),
                Output::GoLive(_),
                Output::Leave(_),
                Output::Reply(3, Reply::Unsubscribe)
            ]
        ),
        "{outputs:?}"
    );
}

#[test]
fn the_server_api_ends_a_subscription_with_a_push() {
    let mut script = Script::open(&SETTINGS);
    script.join(2, "news");
    let outputs = script.give(Input::Unsubscribe(Some("news".into()), Unsubscribed::SERVER));
    let push = Push::Unsubscribe { channel: "news".into(), cause: Unsubscribed::SERVER };
    assert_eq!(outputs, [gone("news"), Output::Push(push)]);
}

#[test]
fn only_subscribers_may_publish_where_the_channel_says_so() {
    let mut script = Script::open(&SETTINGS);
    let publish = || Request::Publish { channel: "news".into(), data: Bytes::from_static(b"{}") };
    let outputs = script.command(2, publish());
    assert_eq!(outputs.last(), Some(&Output::Reply(2, Reply::Error(ClientError::PermissionDenied))));
    script.join(3, "news");
    let outputs = script.command(4, publish());
    let [Output::Ask(ticket, Ask::Publish { publication, .. })] = &outputs[..] else { panic!("{outputs:?}") };
    let info = publication.info.as_ref().expect("a client's publication says whose it is");
    assert_eq!(info.client, script.session.client().to_string());
    let answer = Answer::Published { channel: "news".into(), result: Ok(Published::default()) };
    assert_eq!(script.give(Input::Answer(*ticket, answer)), [Output::Reply(4, Reply::Publish)]);
}

#[test]
fn a_closed_session_says_nothing_more() {
    let mut script = Script::open(&SETTINGS);
    let ticket = script.ask_to_join(2, "news");
    let outputs = script.give(Input::Disconnect(Disconnect::FORCE_DISCONNECT));
    assert_eq!(outputs, [Output::Close(Disconnect::FORCE_DISCONNECT)]);
    assert_eq!(script.give(Input::Answer(ticket, Answer::Joined(Ok(None)))), []);
    assert_eq!(script.give(Input::Malformed), []);
    assert_eq!(script.session.next_deadline(script.settings), None);
}
