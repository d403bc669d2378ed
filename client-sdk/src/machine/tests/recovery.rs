//! The machine against a model of a server's stream: whatever is published, trimmed, lost and cut, the subscriber sees
//! every publication once and in order, or is told that it may have missed some. Never a third outcome.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Event {
    Publish,
    /// The connection breaks; what is under way is lost.
    Cut,
    /// The client comes back.
    Return,
    /// The server finds that the subscriber's position is wrong.
    InsufficientState,
    /// The stream is lost: a new epoch, offsets from 1.
    LoseStream,
}

/// A stream that keeps its last four publications. Each has a number that never repeats, whatever the epoch.
#[derive(Default)]
struct Stream {
    epoch: u32,
    top: u64,
    kept: VecDeque<(u64, u64)>,
    published: u64,
}

impl Stream {
    fn publish(&mut self) -> WirePublication {
        self.top += 1;
        self.published += 1;
        self.kept.push_back((self.top, self.published));
        if self.kept.len() > 4 {
            self.kept.pop_front();
        }
        publication((self.top, self.published))
    }

    /// Answers a subscribe command by the rules of stream recovery.
    fn answer(&self, command: &Command) -> Reply {
        let request = command.subscribe.as_ref().expect("only subscribe commands are sent");
        let epoch = self.epoch.to_string();
        let mut result = positioned(&epoch, self.top);
        if request.recover {
            let missed: Vec<(u64, u64)> =
                self.kept.iter().copied().filter(|(offset, _)| *offset > request.offset).collect();
            let contiguous = match missed.first() {
                Some((first, _)) => *first == request.offset + 1,
                None => request.offset == self.top,
            };
            result.was_recovering = true;
            result.recovered = request.epoch == epoch && contiguous;
            if result.recovered {
                result.offset = request.offset;
                result.publications = missed.into_iter().map(publication).collect();
            }
        }
        Reply { id: command.id, subscribe: Some(result), ..Reply::default() }
    }
}

fn publication((offset, number): (u64, u64)) -> WirePublication {
    WirePublication { data: Bytes::from(number.to_string()), ..wire_publication(offset) }
}

/// What the application knows: the number of the last publication that it has seen or given up.
#[derive(Default)]
struct Reader {
    expected: u64,
}

impl Reader {
    fn read(&mut self, outputs: &[Output], published: u64) {
        for output in outputs {
            match output {
                Output::Subscription(_, SubscriptionEvent::Publication(publication)) => {
                    let number: u64 = std::str::from_utf8(&publication.data).unwrap().parse().unwrap();
                    assert_eq!(number, self.expected + 1, "a gap, a repetition or a wrong order");
                    self.expected = number;
                }
                Output::Subscription(_, SubscriptionEvent::Subscribed(subscribed)) => match subscribed.recovery {
                    Recovery::Complete => {}
                    Recovery::First | Recovery::Incomplete => self.expected = published,
                },
                _ => {}
            }
        }
    }
}

/// Answers the subscribe command among the outputs, if there is one, and returns what follows from that.
fn serve(script: &mut Script, stream: &Stream, outputs: &[Output]) -> Option<Vec<Output>> {
    let command = outputs.iter().find_map(|output| match output {
        Output::Send(command) if command.subscribe.is_some() => Some(command.clone()),
        _ => None,
    })?;
    let reply = stream.answer(&command);
    Some(script.reply(reply))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_missed_or_repeated_without_being_told(
        events in prop::collection::vec(
            prop_oneof![
                6 => Just(Event::Publish),
                2 => Just(Event::Cut),
                2 => Just(Event::Return),
                1 => Just(Event::InsufficientState),
                1 => Just(Event::LoseStream),
            ],
            0..60,
        ),
    ) {
        let (mut script, mut stream, mut reader) = (Script::connected(), Stream::default(), Reader::default());
        let outputs = script.input(Input::Subscribe(NEWS, wish("news")));
        let outputs = serve(&mut script, &stream, &outputs).expect("a subscribe command");
        reader.read(&outputs, stream.published);
        let (mut online, mut live) = (true, true);
        for event in events {
            match event {
                Event::Publish => {
                    let publication = stream.publish();
                    if live {
                        let outputs = script.push("news", Push { r#pub: Some(publication), ..Push::default() });
                        reader.read(&outputs, stream.published);
                        prop_assert_eq!(reader.expected, stream.published, "a live publication was not delivered");
                    }
                }
                Event::Cut if online => {
                    script.closed(None);
                    (online, live) = (false, false);
                }
                Event::Return if !online => {
                    let outputs = script.reconnect();
                    let outputs = serve(&mut script, &stream, &outputs).expect("it subscribes again");
                    reader.read(&outputs, stream.published);
                    (online, live) = (true, true);
                }
                Event::InsufficientState | Event::LoseStream => {
                    if let Event::LoseStream = event {
                        stream = Stream { epoch: stream.epoch + 1, published: stream.published, ..Stream::default() };
                    }
                    if live {
                        let mut outputs = script.unsubscribe_push("news", 2500);
                        if !outputs.iter().any(|output| matches!(output, Output::Send(_))) {
                            outputs = script.next();
                        }
                        let outputs = serve(&mut script, &stream, &outputs).expect("it subscribes again");
                        reader.read(&outputs, stream.published);
                        script.reply(Reply::default());
                    }
                }
                Event::Cut | Event::Return => {}
            }
            prop_assert!(!live || reader.expected == stream.published);
        }
    }
}
