use starling_proto::client::{
    ClientInfo as WireInfo, HistoryResult, PresenceResult, PresenceStatsResult, PublishResult, RpcResult,
};

use super::*;
use crate::{ClientInfo, History, HistoryLimit, PresenceStats};

fn publish() -> Request {
    Request::Publish { channel: "news".to_owned(), data: Bytes::from_static(b"1") }
}

#[test]
fn each_call_becomes_its_command_and_its_reply_the_answer() {
    let mut script = Script::connected();
    let channel = || "news".to_owned();
    let history = Request::History {
        channel: channel(),
        query: HistoryQuery { limit: HistoryLimit::ServerMaximum, since: Some(position("e", 4)), reverse: true },
    };

    let outputs = script.input(Input::Call(Ticket(1), publish()));
    let command = only_command(&outputs);
    let body = command.publish.as_ref().unwrap();
    assert_eq!((body.channel.as_str(), body.data.as_ref()), ("news", b"1".as_slice()));
    let reply = Reply { id: command.id, publish: Some(PublishResult {}), ..Reply::default() };
    assert_eq!(script.reply(reply), [Output::Answer(Ticket(1), Ok(Response::Publish))]);

    let outputs = script.input(Input::Call(Ticket(2), history));
    let command = only_command(&outputs);
    let body = command.history.as_ref().unwrap();
    assert_eq!((body.limit, body.reverse), (-1, true));
    assert_eq!(body.since, Some(client::StreamPosition { offset: 4, epoch: "e".to_owned() }));
    let result = HistoryResult { publications: vec![wire_publication(3)], epoch: "e".to_owned(), offset: 9 };
    let outputs = script.reply(Reply { id: command.id, history: Some(result), ..Reply::default() });
    let [Output::Answer(Ticket(2), Ok(Response::History(History { publications, position: end })))] = &outputs[..]
    else {
        panic!("{outputs:?}")
    };
    assert_eq!((publications[0].offset, end.clone()), (Some(3), Some(position("e", 9))));

    let outputs = script.input(Input::Call(Ticket(3), Request::Presence { channel: channel() }));
    let id = only_command(&outputs).id;
    let info = WireInfo { user: "42".to_owned(), client: "c".to_owned(), ..WireInfo::default() };
    let presence = PresenceResult { presence: [("c".to_owned(), info)].into() };
    let expected = ClientInfo { user: "42".to_owned(), client: "c".to_owned(), ..ClientInfo::default() };
    assert_eq!(
        script.reply(Reply { id, presence: Some(presence), ..Reply::default() }),
        [Output::Answer(Ticket(3), Ok(Response::Presence([("c".to_owned(), expected)].into())))]
    );

    let outputs = script.input(Input::Call(Ticket(4), Request::PresenceStats { channel: channel() }));
    let id = only_command(&outputs).id;
    let stats = PresenceStatsResult { num_clients: 2, num_users: 1 };
    assert_eq!(
        script.reply(Reply { id, presence_stats: Some(stats), ..Reply::default() }),
        [Output::Answer(Ticket(4), Ok(Response::PresenceStats(PresenceStats { clients: 2, users: 1 })))]
    );

    let rpc = Request::Rpc { method: "m".to_owned(), data: Bytes::from_static(b"2") };
    let outputs = script.input(Input::Call(Ticket(5), rpc));
    let command = only_command(&outputs);
    assert_eq!(command.rpc.as_ref().unwrap().method, "m");
    let result = RpcResult { data: Bytes::from_static(b"3") };
    assert_eq!(
        script.reply(Reply { id: command.id, rpc: Some(result), ..Reply::default() }),
        [Output::Answer(Ticket(5), Ok(Response::Rpc(Bytes::from_static(b"3"))))]
    );
    assert_eq!(script.machine.next_deadline(), Some(script.now + 35 * SECOND), "only the ping is awaited");
}

#[test]
fn replies_may_come_in_any_order() {
    let mut script = Script::connected();
    let first = only_command(&script.input(Input::Call(Ticket(1), publish()))).id;
    let second = only_command(&script.input(Input::Call(Ticket(2), publish()))).id;
    let reply = |id| Reply { id, publish: Some(PublishResult {}), ..Reply::default() };
    assert_eq!(script.reply(reply(second)), [Output::Answer(Ticket(2), Ok(Response::Publish))]);
    assert_eq!(script.reply(reply(first)), [Output::Answer(Ticket(1), Ok(Response::Publish))]);
    assert_eq!(script.reply(reply(first)), [], "a second reply answers nothing");
}

#[test]
fn a_refused_call_tells_why_and_the_connection_lives() {
    let mut script = Script::connected();
    let id = only_command(&script.input(Input::Call(Ticket(1), publish()))).id;
    assert_eq!(script.error(id, 103, false), [Output::Answer(Ticket(1), Err(refusal(103, false)))]);
}

#[test]
fn a_reply_with_another_body_is_a_bad_reply() {
    let mut script = Script::connected();
    let id = only_command(&script.input(Input::Call(Ticket(1), publish()))).id;
    let outputs = script.reply(Reply { id, rpc: Some(RpcResult::default()), ..Reply::default() });
    assert!(matches!(&outputs[..], [Output::Answer(Ticket(1), Err(Error::BadReply(_)))]), "{outputs:?}");
}

#[test]
fn a_call_without_reply_times_out_and_its_late_reply_is_ignored() {
    let mut script = Script::connected();
    let id = only_command(&script.input(Input::Call(Ticket(1), publish()))).id;
    assert_eq!(script.pass(5 * SECOND), [Output::Answer(Ticket(1), Err(Error::Timeout))]);
    assert_eq!(script.reply(Reply { id, publish: Some(PublishResult {}), ..Reply::default() }), []);
}

#[test]
fn calls_time_out_even_while_the_application_does_not_read() {
    let mut script = Script::connected();
    script.input(Input::ReadingPaused);
    script.input(Input::Call(Ticket(1), publish()));
    assert_eq!(script.pass(5 * SECOND), [Output::Answer(Ticket(1), Err(Error::Timeout))]);
}

#[test]
fn calls_wait_for_the_connection_in_order_but_not_longer_than_their_time() {
    let mut script = Script::new();
    script.input(Input::Connect);
    script.input(Input::Call(Ticket(1), publish()));
    script.pass(4 * SECOND);
    script.input(Input::Call(Ticket(2), publish()));
    script.input(Input::Call(Ticket(3), Request::Presence { channel: "news".to_owned() }));
    assert_eq!(script.pass(SECOND), [Output::Answer(Ticket(1), Err(Error::Timeout))]);
    let outputs = script.open_and_greet();
    let sent: Vec<bool> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Send(command) => Some(command.publish.is_some()),
            _ => None,
        })
        .collect();
    assert_eq!(sent, [true, false]);
}

#[test]
fn sent_calls_fail_with_the_connection_and_waiting_ones_go_on() {
    let mut script = Script::connected();
    script.input(Input::Call(Ticket(1), publish()));
    let outputs = script.closed(None);
    assert_eq!(outputs[1..], [Output::Answer(Ticket(1), Err(Error::ConnectionLost))]);
    assert_eq!(script.input(Input::Call(Ticket(2), publish())), []);
    let outputs = script.reconnect();
    assert!(only_command(&outputs).publish.is_some());
}

#[test]
fn one_call_too_many_is_refused_at_once() {
    let mut script = Script::connected();
    for ticket in 1..=3 {
        script.input(Input::Call(Ticket(ticket), publish()));
    }
    let outputs = script.input(Input::Call(Ticket(4), publish()));
    assert_eq!(outputs, [Output::Answer(Ticket(4), Err(Error::TooManyCalls))]);
}

#[test]
fn calls_of_a_disconnected_machine_fail_at_once_and_say_why() {
    let mut script = Script::connected();
    script.closed(Some(3503));
    let error = Error::Disconnected { code: 3503, reason: "gone".to_owned() };
    assert_eq!(script.input(Input::Call(Ticket(1), publish())), [Output::Answer(Ticket(1), Err(error))]);
}
