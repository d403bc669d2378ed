use super::*;
use crate::delta::checksum;

/// The patch that keeps the beginning of a base and adds to it. Short payloads only: every number has one digit.
fn patch(base: &str, target: &str) -> Vec<u8> {
    let digit = |number: usize| {
        assert!(number < 64);
        char::from(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"[number])
    };
    let kept: usize = base.chars().zip(target.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
    let added = &target[kept..];
    let mut sum: String =
        (0..6).rev().map(|place| digit(checksum(target.as_bytes()) as usize >> (6 * place) & 63)).collect();
    sum = sum.trim_start_matches('0').to_owned();
    let (size, copied, inserted) = (digit(target.len()), digit(kept), digit(added.len()));
    format!("{size}\n{copied}@0,{inserted}:{added}{sum};").into_bytes()
}

/// Data as it travels on a JSON connection.
fn string(data: &[u8]) -> Bytes {
    Bytes::from(serde_json::to_vec(std::str::from_utf8(data).unwrap()).unwrap())
}

fn whole(offset: u64, payload: &str) -> WirePublication {
    WirePublication { data: string(payload.as_bytes()), offset, ..WirePublication::default() }
}

fn patched(offset: u64, base: &str, payload: &str) -> WirePublication {
    WirePublication { data: string(&patch(base, payload)), offset, delta: true, ..WirePublication::default() }
}

fn payload(id: SubscriptionId, offset: u64, payload: &str) -> Output {
    let publication =
        Publication { data: Bytes::from(payload.to_owned()), offset: Some(offset), ..Publication::default() };
    Output::Subscription(id, SubscriptionEvent::Publication(publication))
}

fn with_delta(channel: &str) -> Subscribe {
    Subscribe { delta: Some(Delta::Fossil), ..wish(channel) }
}

fn negotiated(epoch: &str, offset: u64) -> SubscribeResult {
    SubscribeResult { delta: true, ..positioned(epoch, offset) }
}

impl Script {
    fn publish(&mut self, publication: WirePublication) -> Vec<Output> {
        self.push("news", Push { r#pub: Some(publication), ..Push::default() })
    }

    fn accept(&mut self, result: SubscribeResult) -> Vec<Output> {
        let id = self.last_id;
        self.reply(Reply { id, subscribe: Some(result), ..Reply::default() })
    }
}

/// Subscribed at offset 0, and one whole publication received.
fn with_base() -> Script {
    let mut script = Script::connected();
    script.input(Input::Subscribe(NEWS, with_delta("news")));
    script.accept(negotiated("e", 0));
    assert_eq!(script.publish(whole(1, r#"{"n":1}"#)), [payload(NEWS, 1, r#"{"n":1}"#)]);
    script
}

/// What happens when a payload cannot be restored: nothing is delivered, and a new connection goes on from `offset`.
fn assert_recovers_from(script: &mut Script, outputs: &[Output], offset: u64) {
    let delivered = |output: &Output| matches!(output, Output::Subscription(_, SubscriptionEvent::Publication(_)));
    assert!(!outputs.iter().any(delivered), "{outputs:?}");
    let lost = |output: &Output| {
        matches!(output, Output::Connection(ConnectionEvent::Connecting { code: codes::connecting::BAD_PATCH, .. }))
    };
    assert!(outputs.contains(&Output::Close) && outputs.iter().any(lost), "{outputs:?}");
    let outputs = script.reconnect();
    let request = only_command(&outputs).subscribe.clone().unwrap();
    assert_eq!((request.recover, request.epoch.as_str(), request.offset), (true, "e", offset));
}

#[test]
fn delta_is_asked_for_by_its_name() {
    let mut script = Script::connected();
    let outputs = script.input(Input::Subscribe(NEWS, with_delta("news")));
    assert_eq!(only_command(&outputs).subscribe.as_ref().unwrap().delta, "fossil");
    let outputs = script.input(Input::Subscribe(CHAT, wish("chat")));
    assert_eq!(only_command(&outputs).subscribe.as_ref().unwrap().delta, "");
}

#[test]
fn patches_restore_payloads_each_on_the_one_before() {
    let mut script = with_base();
    let (one, two, three) = (r#"{"n":1}"#, r#"{"n":2,"é":"日"}"#, r#"{"n":2,"é":"月"}"#);
    assert_eq!(script.publish(patched(2, one, two)), [payload(NEWS, 2, two)]);
    assert_eq!(script.publish(patched(3, two, three)), [payload(NEWS, 3, three)]);
    assert_eq!(script.publish(whole(4, "4")), [payload(NEWS, 4, "4")]);
    assert_eq!(script.publish(patched(5, "4", "45")), [payload(NEWS, 5, "45")]);
}

#[test]
fn over_protobuf_patches_are_bytes() {
    let mut script = Script::with(Options { protocol: Protocol::Protobuf, ..options() });
    script.connect();
    script.input(Input::Subscribe(NEWS, with_delta("news")));
    script.accept(negotiated("e", 0));
    let first = WirePublication { data: Bytes::from("\"one\""), offset: 1, ..WirePublication::default() };
    assert_eq!(script.publish(first), [payload(NEWS, 1, "\"one\"")]);
    let data = Bytes::from(patch("\"one\"", "\"onward\""));
    let second = WirePublication { data, offset: 2, delta: true, ..WirePublication::default() };
    assert_eq!(script.publish(second), [payload(NEWS, 2, "\"onward\"")]);
}

#[test]
fn without_negotiated_delta_payloads_stay_as_they_are() {
    let mut script = Script::connected();
    script.input(Input::Subscribe(NEWS, with_delta("news")));
    script.accept(positioned("e", 0));
    assert_eq!(script.publish(whole(1, "1")), [payload(NEWS, 1, "\"1\"")]);
    let outputs = script.publish(patched(2, "1", "12"));
    assert_recovers_from(&mut script, &outputs, 1);
}

#[test]
fn recovered_publications_are_restored_like_live_ones() {
    let mut script = with_base();
    script.closed(None);
    script.reconnect();
    let publications = vec![whole(2, "22"), patched(3, "22", "223")];
    let outputs = script.accept(SubscribeResult { recovered: true, publications, ..negotiated("e", 1) });
    let subscribed = subscribed(NEWS, Recovery::Complete, position("e", 1));
    assert_eq!(outputs, [subscribed, payload(NEWS, 2, "22"), payload(NEWS, 3, "223")]);
    assert_eq!(script.publish(patched(4, "223", "24")), [payload(NEWS, 4, "24")]);
}

#[test]
fn a_recovery_of_nothing_keeps_the_base() {
    let mut script = with_base();
    script.closed(None);
    script.reconnect();
    script.accept(SubscribeResult { recovered: true, ..negotiated("e", 1) });
    assert_eq!(script.publish(patched(2, r#"{"n":1}"#, r#"{"n":2}"#)), [payload(NEWS, 2, r#"{"n":2}"#)]);
}

#[test]
fn a_base_does_not_outlive_a_recovery_that_failed() {
    let mut script = with_base();
    script.closed(None);
    script.reconnect();
    script.accept(negotiated("e", 5));
    let outputs = script.publish(patched(6, r#"{"n":1}"#, r#"{"n":2}"#));
    assert_recovers_from(&mut script, &outputs, 5);
}

#[test]
fn a_payload_that_cannot_be_restored_is_fetched_again() {
    let good = patched(2, r#"{"n":1}"#, r#"{"n":2}"#);
    let rows = [
        WirePublication { data: string(b"nonsense"), ..good.clone() },
        WirePublication { data: Bytes::from_static(b"7"), ..good.clone() },
        WirePublication { data: Bytes::from_static(b"7"), ..whole(2, "") },
        WirePublication { data: Bytes::new(), ..good.clone() },
        patched(2, r#"{"n":0}"#, r#"{"n":00}"#),
        WirePublication { data: string(b"FfG\n"), ..good },
    ];
    for bad in rows {
        let mut script = with_base();
        let outputs = script.publish(bad);
        assert_recovers_from(&mut script, &outputs, 1);
        script.accept(SubscribeResult { recovered: true, publications: vec![whole(2, "2")], ..negotiated("e", 1) });
        assert_eq!(script.publish(patched(3, "2", "23")), [payload(NEWS, 3, "23")], "and all is well again");
    }
}

#[test]
fn a_recovered_payload_that_cannot_be_restored_stays_undelivered() {
    let mut script = with_base();
    script.closed(None);
    script.reconnect();
    let publications = vec![whole(2, "2"), patched(3, "3", "34")];
    let outputs = script.accept(SubscribeResult { recovered: true, publications, ..negotiated("e", 1) });
    assert_eq!(outputs[..2], [subscribed(NEWS, Recovery::Complete, position("e", 1)), payload(NEWS, 2, "2")]);
    assert_recovers_from(&mut script, &outputs[2..], 2);
}
