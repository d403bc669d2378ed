use starling_proto::client::{ClientInfo as WireInfo, Join, Leave, SubRefreshResult, SubscribeRequest};

use super::*;
use crate::ClientInfo;

fn token(id: SubscriptionId, answer: Result<&str, TokenError>) -> Input {
    Input::Token(TokenFor::Subscription(id), answer.map(str::to_owned))
}

fn with_source(channel: &str) -> Subscribe {
    Subscribe { has_token_source: true, ..wish(channel) }
}

fn request(outputs: &[Output]) -> SubscribeRequest {
    only_command(outputs).subscribe.clone().unwrap_or_else(|| panic!("no subscribe command in {outputs:?}"))
}

/// What a request says about recovery.
fn asks(request: &SubscribeRequest) -> (bool, &str, u64) {
    (request.recover, &request.epoch, request.offset)
}

#[test]
fn a_subscription_is_asked_for_accepted_and_receives() {
    let mut script = Script::connected();
    let subscribe = Subscribe {
        channel: "news".to_owned(),
        token: Some("t".to_owned()),
        data: Some(Bytes::from_static(b"1")),
        positioned: true,
        recoverable: true,
        join_leave: true,
        ..Subscribe::default()
    };
    let outputs = script.input(Input::Subscribe(NEWS, subscribe));
    let expected = SubscribeRequest {
        channel: "news".to_owned(),
        token: "t".to_owned(),
        data: Bytes::from_static(b"1"),
        positioned: true,
        recoverable: true,
        join_leave: true,
        ..SubscribeRequest::default()
    };
    assert_eq!(request(&outputs), expected);
    let (id, result) = (script.last_id, SubscribeResult { data: Bytes::from_static(b"2"), ..positioned("e", 7) });
    let subscribed = Subscribed {
        recovery: Recovery::First,
        position: Some(position("e", 7)),
        recoverable: true,
        positioned: true,
        data: Some(Bytes::from_static(b"2")),
    };
    assert_eq!(
        script.reply(Reply { id, subscribe: Some(result), ..Reply::default() }),
        [Output::Subscription(NEWS, SubscriptionEvent::Subscribed(subscribed))]
    );
    assert_eq!(script.publication("news", 8), [delivered(NEWS, 8)]);

    let info = WireInfo { user: "42".to_owned(), ..WireInfo::default() };
    let expected = ClientInfo { user: "42".to_owned(), ..ClientInfo::default() };
    let join = Push { join: Some(Join { info: Some(info.clone()) }), ..Push::default() };
    assert_eq!(script.push("news", join), [Output::Subscription(NEWS, SubscriptionEvent::Join(expected.clone()))]);
    let leave = Push { leave: Some(Leave { info: Some(info) }), ..Push::default() };
    assert_eq!(script.push("news", leave), [Output::Subscription(NEWS, SubscriptionEvent::Leave(expected))]);
}

#[test]
fn subscriptions_made_before_the_connection_are_sent_together_after_it() {
    let mut script = Script::new();
    assert_eq!(script.input(Input::Subscribe(NEWS, wish("news"))), []);
    script.input(Input::Connect);
    script.input(Input::Subscribe(CHAT, wish("chat")));
    let outputs = script.open_and_greet();
    let channels: Vec<&str> = outputs[1..]
        .iter()
        .map(|output| match output {
            Output::Send(command) => command.subscribe.as_ref().unwrap().channel.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(channels, ["news", "chat"]);
}

#[test]
fn after_a_reconnect_each_subscription_continues_from_its_own_position() {
    let mut script = Script::connected();
    script.subscribe(NEWS, "news", "e", 3);
    script.subscribe(CHAT, "chat", "f", 0);
    script.publication("news", 4);
    script.publication("news", 5);
    let outputs = script.closed(Some(3001));
    assert_eq!(outputs[1..], [interrupted(NEWS), interrupted(CHAT)]);

    let outputs = script.reconnect();
    let requests: Vec<SubscribeRequest> =
        outputs[1..].iter().map(|output| request(std::slice::from_ref(output))).collect();
    assert_eq!(asks(&requests[0]), (true, "e", 5));
    assert_eq!(asks(&requests[1]), (true, "f", 0));

    // Recovered publications come before live ones, and move the position.
    let recovered = SubscribeResult {
        recovered: true,
        was_recovering: true,
        publications: vec![wire_publication(6), wire_publication(7)],
        ..positioned("e", 5)
    };
    let first = script.last_id - 1;
    assert_eq!(
        script.reply(Reply { id: first, subscribe: Some(recovered), ..Reply::default() }),
        [subscribed(NEWS, Recovery::Complete, position("e", 5)), delivered(NEWS, 6), delivered(NEWS, 7)]
    );
    assert_eq!(script.publication("news", 8), [delivered(NEWS, 8)]);
    script.closed(None);
    let outputs = script.reconnect();
    assert_eq!(asks(&request(&outputs[..2])), (true, "e", 8));
}

#[test]
fn a_failed_recovery_is_told_and_the_new_position_taken_whole() {
    let mut script = Script::connected();
    script.subscribe(NEWS, "news", "e", 50);
    script.closed(None);
    script.reconnect();
    let (id, lost) = (script.last_id, SubscribeResult { was_recovering: true, ..positioned("other", 2) });
    assert_eq!(
        script.reply(Reply { id, subscribe: Some(lost), ..Reply::default() }),
        [subscribed(NEWS, Recovery::Incomplete, position("other", 2))]
    );
    script.closed(None);
    let outputs = script.reconnect();
    assert_eq!(asks(&request(&outputs)), (true, "other", 2));
}

#[test]
fn without_recoverable_in_the_last_reply_nothing_is_recovered_and_that_is_told() {
    let mut script = Script::connected();
    script.input(Input::Subscribe(NEWS, wish("news")));
    let only_positioned = SubscribeResult { recoverable: false, ..positioned("e", 1) };
    let id = script.last_id;
    script.reply(Reply { id, subscribe: Some(only_positioned.clone()), ..Reply::default() });
    script.publication("news", 2);
    script.closed(None);
    let outputs = script.reconnect();
    assert_eq!(asks(&request(&outputs)), (false, "", 0));
    let id = script.last_id;
    let outputs = script.reply(Reply { id, subscribe: Some(only_positioned), ..Reply::default() });
    let [Output::Subscription(NEWS, SubscriptionEvent::Subscribed(subscribed))] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!(subscribed.recovery, Recovery::Incomplete);
}

#[test]
fn a_position_given_by_the_application_is_recovered_from() {
    let mut script = Script::connected();
    let subscribe = Subscribe { since: Some(position("e", 9)), ..wish("news") };
    let outputs = script.input(Input::Subscribe(NEWS, subscribe));
    assert_eq!(asks(&request(&outputs)), (true, "e", 9));
}

#[test]
fn publications_of_a_channel_without_history_are_delivered_without_offset() {
    let mut script = Script::connected();
    script.input(Input::Subscribe(NEWS, wish("news")));
    let id = script.last_id;
    script.reply(Reply { id, subscribe: Some(SubscribeResult::default()), ..Reply::default() });
    assert_eq!(script.publication("news", 0), [delivered(NEWS, 0)]);
    script.closed(None);
    let outputs = script.reconnect();
    assert_eq!(asks(&request(&outputs)), (false, "", 0));
}

#[test]
fn pushes_for_unknown_channels_and_before_the_reply_are_ignored() {
    let mut script = Script::connected();
    assert_eq!(script.publication("news", 1), []);
    script.input(Input::Subscribe(NEWS, wish("news")));
    assert_eq!(script.publication("news", 1), []);
}

#[test]
fn unsubscribe_codes_below_2500_end_the_subscription() {
    for code in [2000, 2499] {
        let mut script = Script::connected();
        script.subscribe(NEWS, "news", "e", 0);
        assert_eq!(script.unsubscribe_push("news", code), [unsubscribed(NEWS, code, "why")]);
        assert!(!script.machine.has_channel("news"));
        assert_eq!(script.publication("news", 1), []);
    }
}

#[test]
fn insufficient_state_subscribes_again_at_once_from_the_position() {
    let mut script = Script::connected();
    script.subscribe(NEWS, "news", "e", 3);
    script.publication("news", 4);
    let outputs = script.unsubscribe_push("news", 2500);
    let subscribing = SubscriptionEvent::Subscribing { code: 2500, reason: "why".to_owned() };
    assert_eq!(outputs[0], Output::Subscription(NEWS, subscribing));
    assert_eq!(asks(&request(&outputs)), (true, "e", 4));
    assert_eq!(script.unsubscribe_push("news", 2500), [], "it is subscribing already");
}

#[test]
fn a_server_that_keeps_ending_the_subscription_is_asked_less_and_less_often() {
    let mut script = Script::connected();
    script.subscribe(NEWS, "news", "e", 3);
    let accept = |script: &mut Script| {
        let id = script.last_id;
        script.reply(Reply { id, subscribe: Some(positioned("e", 3)), ..Reply::default() });
    };
    script.unsubscribe_push("news", 2500);
    accept(&mut script);
    assert_eq!(script.unsubscribe_push("news", 2500).len(), 1, "not at once this time");
    let outputs = script.pass(2 * SECOND);
    request(&outputs);
    accept(&mut script);
    script.pass(5 * SECOND);
    request(&script.unsubscribe_push("news", 2500));
}

#[test]
fn an_expired_subscription_comes_back_with_a_new_token() {
    let mut script = Script::connected();
    script.input(Input::Subscribe(NEWS, Subscribe { token: Some("old".to_owned()), ..with_source("news") }));
    let id = script.last_id;
    script.reply(Reply { id, subscribe: Some(positioned("e", 1)), ..Reply::default() });
    let outputs = script.unsubscribe_push("news", 2501);
    assert_eq!(outputs[1..], [Output::AskToken(TokenFor::Subscription(NEWS))]);
    let outputs = script.input(token(NEWS, Ok("new")));
    assert_eq!((request(&outputs).token.as_str(), request(&outputs).recover), ("new", true));
}

#[test]
fn invalidated_state_drops_the_token_and_asks_for_a_recovery_that_must_fail() {
    let mut script = Script::connected();
    script.input(Input::Subscribe(NEWS, Subscribe { token: Some("old".to_owned()), ..with_source("news") }));
    let id = script.last_id;
    script.reply(Reply { id, subscribe: Some(positioned("e", 1)), ..Reply::default() });
    script.unsubscribe_push("news", 2502);
    let outputs = script.input(token(NEWS, Ok("new")));
    assert_eq!(asks(&request(&outputs)), (true, "_", 0));
    let id = script.last_id;
    script.reply(Reply { id, subscribe: Some(positioned("e", 1)), ..Reply::default() });

    // The same for the whole connection.
    script.closed(Some(3014));
    let outputs = script.reconnect();
    assert_eq!(outputs[1..], [Output::AskToken(TokenFor::Subscription(NEWS))]);
    let outputs = script.input(token(NEWS, Ok("newer")));
    assert_eq!(asks(&request(&outputs)), (true, "_", 0));
}

#[test]
fn a_refused_subscription_ends_unless_the_error_is_temporary() {
    let mut script = Script::connected();
    script.input(Input::Subscribe(NEWS, wish("news")));
    let outputs = script.error(script.last_id, 111, true);
    assert_eq!(outputs, [Output::Subscription(NEWS, SubscriptionEvent::Error(refusal(111, true)))]);
    assert_eq!(script.pass(Duration::from_millis(499)), []);
    request(&script.pass(SECOND));
    assert_eq!(script.error(script.last_id, 103, false), [unsubscribed(NEWS, 103, "no")]);
}

#[test]
fn an_expired_subscription_token_is_replaced_or_the_end() {
    let mut script = Script::connected();
    script.input(Input::Subscribe(NEWS, Subscribe { token: Some("old".to_owned()), ..with_source("news") }));
    script.error(script.last_id, 109, false);
    assert_eq!(script.pass(SECOND), [Output::AskToken(TokenFor::Subscription(NEWS))]);
    assert_eq!(request(&script.input(token(NEWS, Ok("new")))).token, "new");

    script.input(Input::Subscribe(CHAT, Subscribe { token: Some("old".to_owned()), ..wish("chat") }));
    let outputs = script.error(script.last_id, 109, false);
    let reason = "token expired, and there is no token source";
    assert_eq!(outputs, [unsubscribed(CHAT, codes::unsubscribed::UNAUTHORIZED, reason)]);
}

#[test]
fn a_subscription_without_token_asks_its_source_first() {
    let mut script = Script::connected();
    let outputs = script.input(Input::Subscribe(NEWS, with_source("news")));
    assert_eq!(outputs, [Output::AskToken(TokenFor::Subscription(NEWS))]);
    let outputs = script.input(token(NEWS, Err(TokenError::Temporary("503".to_owned()))));
    let error = Error::Token("503".to_owned());
    assert_eq!(outputs, [Output::Subscription(NEWS, SubscriptionEvent::Error(error))]);
    assert_eq!(script.pass(SECOND), [Output::AskToken(TokenFor::Subscription(NEWS))]);
    let outputs = script.input(token(NEWS, Err(TokenError::Unauthorized)));
    assert_eq!(outputs, [unsubscribed(NEWS, codes::unsubscribed::UNAUTHORIZED, "unauthorized")]);
}

#[test]
fn a_subscription_token_is_renewed_before_it_expires() {
    let mut script = Script::connected();
    script.input(Input::Subscribe(NEWS, Subscribe { token: Some("t".to_owned()), ..with_source("news") }));
    let (id, result) = (script.last_id, SubscribeResult { expires: true, ttl: 20, ..positioned("e", 1) });
    script.reply(Reply { id, subscribe: Some(result), ..Reply::default() });
    assert_eq!(script.pass(18 * SECOND), []);
    assert_eq!(script.pass(2 * SECOND), [Output::AskToken(TokenFor::Subscription(NEWS))]);
    let outputs = script.input(token(NEWS, Ok("t2")));
    let command = only_command(&outputs);
    let body = command.sub_refresh.as_ref().unwrap();
    assert_eq!((body.channel.as_str(), body.token.as_str()), ("news", "t2"));
    let (id, result) = (command.id, SubRefreshResult { expires: true, ttl: 10, ..SubRefreshResult::default() });
    assert_eq!(script.reply(Reply { id, sub_refresh: Some(result), ..Reply::default() }), []);
    assert_eq!(script.pass(10 * SECOND), [Output::AskToken(TokenFor::Subscription(NEWS))]);

    // A refused renewal ends the subscription, on the server, too.
    script.input(token(NEWS, Ok("t3")));
    let outputs = script.error(script.last_id, 103, false);
    assert_eq!(only_command(&outputs).unsubscribe.as_ref().unwrap().channel, "news");
    assert_eq!(outputs[1..], [unsubscribed(NEWS, 103, "no")]);
}

#[test]
fn unsubscribing_ends_the_subscription_at_once_and_tells_the_server() {
    let mut script = Script::connected();
    script.subscribe(NEWS, "news", "e", 0);
    let outputs = script.input(Input::Unsubscribe(NEWS));
    assert_eq!(only_command(&outputs).unsubscribe.as_ref().unwrap().channel, "news");
    assert_eq!(outputs[1..], [unsubscribed(NEWS, 0, "unsubscribe called")]);
    assert_eq!(script.publication("news", 1), [], "late publications are dropped");

    // A new subscription to the same channel does not mistake the old one's late pushes for its own.
    let unsubscribe = script.last_id;
    script.input(Input::Subscribe(CHAT, wish("news")));
    assert_eq!(script.publication("news", 2), []);
    let reply = Reply { id: unsubscribe, unsubscribe: Some(UnsubscribeResult {}), ..Reply::default() };
    assert_eq!(script.reply(reply), []);
    let id = script.last_id;
    script.reply(Reply { id, subscribe: Some(positioned("e", 2)), ..Reply::default() });
    assert_eq!(script.publication("news", 3), [delivered(CHAT, 3)]);
}

#[test]
fn a_subscription_that_ends_before_its_reply_is_forgotten() {
    let mut script = Script::connected();
    script.input(Input::Subscribe(NEWS, wish("news")));
    let subscribe = script.last_id;
    script.input(Input::Unsubscribe(NEWS));
    let reply = Reply { id: subscribe, subscribe: Some(positioned("e", 0)), ..Reply::default() };
    assert_eq!(script.reply(reply), []);
    assert_eq!(script.input(Input::Unsubscribe(NEWS)), []);
}

#[test]
fn an_unsubscribe_that_fails_or_gets_no_reply_replaces_the_connection() {
    let mut script = Script::connected();
    script.subscribe(NEWS, "news", "e", 0);
    script.input(Input::Unsubscribe(NEWS));
    let outputs = script.error(script.last_id, 100, true);
    assert_eq!(outputs[0], Output::Close);
    assert!(matches!(&outputs[1], Output::Connection(ConnectionEvent::Connecting { code: 4, .. })), "{outputs:?}");

    script.reconnect();
    script.subscribe(CHAT, "chat", "e", 0);
    script.input(Input::Unsubscribe(CHAT));
    let outputs = script.pass(5 * SECOND);
    assert!(matches!(&outputs[1], Output::Connection(ConnectionEvent::Connecting { code: 4, .. })), "{outputs:?}");
}

#[test]
fn a_subscribe_without_reply_replaces_the_connection() {
    let mut script = Script::connected();
    script.input(Input::Subscribe(NEWS, wish("news")));
    let outputs = script.pass(5 * SECOND);
    assert_eq!(outputs[0], Output::Close);
    assert!(matches!(&outputs[1], Output::Connection(ConnectionEvent::Connecting { code: 3, .. })), "{outputs:?}");
    request(&script.reconnect());
}

#[test]
fn a_second_subscription_to_a_channel_ends_at_once_and_the_first_lives() {
    let mut script = Script::connected();
    script.subscribe(NEWS, "news", "e", 0);
    let outputs = script.input(Input::Subscribe(CHAT, wish("news")));
    assert_eq!(outputs, [unsubscribed(CHAT, 105, "already subscribed")]);
    assert_eq!(script.publication("news", 1), [delivered(NEWS, 1)]);
}
