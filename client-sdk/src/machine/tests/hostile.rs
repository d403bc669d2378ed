//! Whatever a server, a driver and an application do, in whatever order: no panic, the machine's own invariants hold
//! (it checks them after every input), every call is answered exactly once, every subscription ends exactly once.

use std::collections::BTreeMap;

use proptest::prelude::*;
use starling_proto::client::{Disconnect, Join, PublishResult, Refresh, RefreshResult};

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Subscribe {
        channel: u8,
        token_source: bool,
    },
    Unsubscribe {
        nth: usize,
    },
    Publish,
    ReconnectNow,
    Opened,
    Closed {
        code: Option<u32>,
    },
    /// A reply to one of the last commands, right or wrong.
    Reply {
        back: u32,
        body: u8,
        error: Option<(u32, bool)>,
        position: Option<(u8, u64)>,
    },
    Push {
        channel: u8,
        body: u8,
        number: u32,
    },
    Token {
        connection: bool,
        nth: usize,
        answer: u8,
    },
    Pause,
    Resume,
    Pass {
        millis: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let code = prop_oneof![Just(None), (0_u32..6000).prop_map(Some), Just(Some(1006)), Just(Some(3014))];
    let error = proptest::option::weighted(0.3, (prop_oneof![0_u32..120, Just(109_u32)], any::<bool>()));
    prop_oneof![
        2 => (0_u8..3, any::<bool>()).prop_map(|(channel, token_source)| Step::Subscribe { channel, token_source }),
        1 => (0_usize..4).prop_map(|nth| Step::Unsubscribe { nth }),
        2 => Just(Step::Publish),
        1 => Just(Step::ReconnectNow),
        3 => Just(Step::Opened),
        1 => code.prop_map(|code| Step::Closed { code }),
        8 => (0_u32..4, 0_u8..7, error, proptest::option::of((0_u8..3, 0_u64..9)))
            .prop_map(|(back, body, error, position)| Step::Reply { back, body, error, position }),
        4 => (0_u8..3, 0_u8..7, prop_oneof![0_u32..9, 2000_u32..5000])
            .prop_map(|(channel, body, number)| Step::Push { channel, body, number }),
        3 => (any::<bool>(), 0_usize..4, 0_u8..4)
            .prop_map(|(connection, nth, answer)| Step::Token { connection, nth, answer }),
        1 => Just(Step::Pause),
        1 => Just(Step::Resume),
        2 => (0_u64..40_000).prop_map(|millis| Step::Pass { millis }),
    ]
}

fn channel(number: u8) -> String {
    format!("channel-{number}")
}

fn input(step: &Step, script: &Script, subscriptions: u64, calls: u64) -> Input {
    match step {
        Step::Subscribe { channel: number, token_source } => Input::Subscribe(
            SubscriptionId(subscriptions),
            Subscribe { has_token_source: *token_source, ..wish(&channel(*number)) },
        ),
        Step::Unsubscribe { nth } => Input::Unsubscribe(SubscriptionId(*nth as u64)),
        Step::Publish => {
            Input::Call(Ticket(calls), Request::Publish { channel: channel(0), data: Bytes::from_static(b"1") })
        }
        Step::ReconnectNow => Input::ReconnectNow,
        Step::Opened => Input::Opened,
        Step::Closed { code } => Input::Closed { code: *code, reason: String::new() },
        Step::Reply { back, body, error, position } => {
            let mut reply = Reply { id: script.last_id.saturating_sub(*back), ..Reply::default() };
            reply.error = error.map(|(code, temporary)| client::Error { code, message: String::new(), temporary });
            match body {
                0 | 1 => reply.connect = Some(ConnectResult { expires: true, ttl: u32::from(*body), ..greeting() }),
                2 | 3 => {
                    let (epoch, offset) = position.map_or((String::new(), 0), |(e, offset)| (e.to_string(), offset));
                    let publications = (0..offset % 3).map(wire_publication).collect();
                    reply.subscribe =
                        Some(SubscribeResult { publications, expires: *body == 3, ..positioned(&epoch, offset) });
                }
                4 => reply.publish = Some(PublishResult {}),
                5 => reply.unsubscribe = Some(UnsubscribeResult {}),
                _ => reply.refresh = Some(RefreshResult::default()),
            }
            Input::Received(Box::new(reply))
        }
        Step::Push { channel: number, body, number: value } => {
            let mut push = Push { channel: channel(*number), ..Push::default() };
            match body {
                0..3 => push.r#pub = Some(wire_publication(u64::from(*value))),
                3 => push.join = Some(Join { info: None }),
                4 => push.unsubscribe = Some(Unsubscribe { code: *value, reason: String::new() }),
                5 => push.refresh = Some(Refresh { expires: true, ttl: *value }),
                _ => push.disconnect = Some(Disconnect { code: *value, ..Disconnect::default() }),
            }
            Input::Received(Box::new(Reply { push: Some(push), ..Reply::default() }))
        }
        Step::Token { connection, nth, answer } => {
            let of =
                if *connection { TokenFor::Connection } else { TokenFor::Subscription(SubscriptionId(*nth as u64)) };
            let answer = match answer {
                0 => Ok(String::new()),
                1 => Err(TokenError::Temporary("x".to_owned())),
                _ => Ok("t".to_owned()),
            };
            Input::Token(of, answer)
        }
        Step::Pause => Input::ReadingPaused,
        Step::Resume => Input::ReadingResumed,
        Step::Pass { .. } => Input::Tick,
    }
}

/// How often each call was answered and each subscription ended; whether the transport may be spoken of.
#[derive(Default)]
struct Ledger {
    answers: BTreeMap<u64, u32>,
    ends: BTreeMap<u64, u32>,
    transport: bool,
}

impl Ledger {
    fn note(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Open => {
                    assert!(!self.transport, "one transport at a time");
                    self.transport = true;
                }
                Output::Close => {
                    assert!(self.transport, "only an open transport is closed");
                    self.transport = false;
                }
                Output::Send(_) => assert!(self.transport, "commands need a transport"),
                Output::Answer(Ticket(ticket), _) => *self.answers.entry(ticket).or_default() += 1,
                Output::Subscription(SubscriptionId(id), event) => {
                    assert!(!self.ends.contains_key(&id), "nothing follows the end: {event:?}");
                    if let SubscriptionEvent::Unsubscribed { .. } = event {
                        *self.ends.entry(id).or_default() += 1;
                    }
                }
                Output::AskToken(_) | Output::Connection(_) => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_events_breaks_the_machine(
        steps in prop::collection::vec(step(), 0..80),
        token_source in any::<bool>(),
    ) {
        let mut script = Script::with(Options { has_token_source: token_source, ..options() });
        let (mut ledger, mut subscriptions, mut calls) = (Ledger::default(), 0, 0);
        ledger.note(script.input(Input::Connect));
        for step in &steps {
            match step {
                Step::Pass { millis } => ledger.note(script.pass(Duration::from_millis(*millis))),
                // The driver says nothing about transports that there are not.
                Step::Opened | Step::Closed { .. } | Step::Reply { .. } | Step::Push { .. } if !ledger.transport => {}
                Step::Closed { .. } => {
                    ledger.transport = false;
                    ledger.note(script.input(input(step, &script, subscriptions, calls)));
                }
                _ => ledger.note(script.input(input(step, &script, subscriptions, calls))),
            }
            subscriptions += u64::from(matches!(step, Step::Subscribe { .. }));
            calls += u64::from(matches!(step, Step::Publish));
        }
        ledger.note(script.input(Input::Disconnect));
        prop_assert!(!ledger.transport);
        prop_assert_eq!(ledger.answers, (0..calls).map(|ticket| (ticket, 1)).collect());
        prop_assert_eq!(ledger.ends, (0..subscriptions).map(|id| (id, 1)).collect());
        prop_assert_eq!(script.machine.next_deadline(), None);
    }
}
