//! The Centrifuge client protocol as a subscriber needs it, JSON and Protobuf, without a socket.
//!
//! Protocol facts: the first command is `connect`; a reply with an id answers the command with that id; a reply without id
//! carries a push; an empty reply is a ping, answered by an empty command when the connect reply said `pong`. JSON
//! messages of one frame are separated by a newline, Protobuf ones are preceded by their length as a varint.
//!
//! Reading a publication is the load tester's hot path, so it does not go through a parser: [`read_json`] compares with
//! the one form servers send and [`read_protobuf`] walks the fields. Whatever looks different takes the slow way and
//! comes out the same.

use std::borrow::Cow;

use prost::Message as _;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use starling_proto::client;

/// Encoding of the client protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Text frames.
    Json,
    /// Binary frames.
    Protobuf,
}

impl Encoding {
    /// The subprotocol to offer in the WebSocket handshake: JSON is what a server speaks unasked.
    pub fn subprotocol(self) -> Option<&'static str> {
        match self {
            Encoding::Json => None,
            Encoding::Protobuf => Some("centrifuge-protobuf"),
        }
    }

    /// The WebSocket message kind of commands.
    pub fn frame_kind(self) -> crate::websocket::Kind {
        match self {
            Encoding::Json => crate::websocket::Kind::Text,
            Encoding::Protobuf => crate::websocket::Kind::Binary,
        }
    }
}

/// Command ids of a subscriber: connect, then one per subscription.
pub const CONNECT_ID: u32 = 1;

// === commands out ===

/// A command that a load tester sends.
#[derive(Clone, Copy, Debug)]
pub enum Command<'a> {
    /// First command of a connection; an empty token is an anonymous client.
    Connect {
        /// JSON Web Token or empty.
        token: &'a str,
    },
    /// Subscribes to a channel.
    Subscribe {
        /// Channel name: printable ASCII without quotes and backslashes.
        channel: &'a str,
        /// Where to go on from.
        recovery: Recovery<'a>,
    },
    /// Publishes JSON to a channel.
    Publish {
        /// Channel name, as above.
        channel: &'a str,
        /// A JSON text without newlines.
        data: &'a [u8],
    },
    /// Answers a ping.
    Pong,
}

/// What a subscription says about messages missed before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery<'a> {
    /// Nothing: only what comes from now on.
    Off,
    /// The first time of a subscription that will want to recover.
    Begin,
    /// All that came after this position.
    After(&'a Position),
}

/// A place in the history of a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Number of the last publication that is known.
    pub offset: u64,
    /// What the server called this history; printable ASCII without quotes and backslashes, else the position is not kept.
    pub epoch: String,
}

/// Appends one command to a frame under construction, with the separator its encoding wants.
pub fn write_command(out: &mut Vec<u8>, encoding: Encoding, id: u32, command: Command<'_>) {
    match encoding {
        Encoding::Json => write_json(out, id, command),
        Encoding::Protobuf => write_protobuf(out, id, command),
    }
}

fn write_json(out: &mut Vec<u8>, id: u32, command: Command<'_>) {
    if !out.is_empty() {
        out.push(b'\n');
    }
    let text = match command {
        Command::Connect { token: "" } => format!(r#"{{"id":{id},"connect":{{"name":"loadtest"}}}}"#),
        Command::Connect { token } => format!(r#"{{"id":{id},"connect":{{"token":"{token}","name":"loadtest"}}}}"#),
        Command::Subscribe { channel, recovery } => {
            let recovery = match recovery {
                Recovery::Off => String::new(),
                Recovery::Begin => r#","recoverable":true"#.to_owned(),
                Recovery::After(Position { offset, epoch }) => {
                    format!(r#","recoverable":true,"recover":true,"offset":{offset},"epoch":"{epoch}""#)
                }
            };
            format!(r#"{{"id":{id},"subscribe":{{"channel":"{channel}"{recovery}}}}}"#)
        }
        Command::Publish { channel, data } => {
            out.extend_from_slice(format!(r#"{{"id":{id},"publish":{{"channel":"{channel}","data":"#).as_bytes());
            out.extend_from_slice(data);
            "}}".to_owned()
        }
        Command::Pong => "{}".to_owned(),
    };
    out.extend_from_slice(text.as_bytes());
}

fn write_protobuf(out: &mut Vec<u8>, id: u32, command: Command<'_>) {
    let mut message = client::Command::default();
    match command {
        Command::Connect { token } => {
            message.id = id;
            let (token, name) = (token.to_owned(), "loadtest".to_owned());
            message.connect = Some(client::ConnectRequest { token, name, ..Default::default() });
        }
        Command::Subscribe { channel, recovery } => {
            message.id = id;
            let mut request = client::SubscribeRequest { channel: channel.to_owned(), ..Default::default() };
            request.recoverable = recovery != Recovery::Off;
            if let Recovery::After(Position { offset, epoch }) = recovery {
                (request.recover, request.offset, request.epoch) = (true, *offset, epoch.clone());
            }
            message.subscribe = Some(request);
        }
        Command::Publish { channel, data } => {
            message.id = id;
            let (channel, data) = (channel.to_owned(), bytes::Bytes::copy_from_slice(data));
            message.publish = Some(client::PublishRequest { channel, data, ..Default::default() });
        }
        Command::Pong => {}
    }
    message.encode_length_delimited(out).expect("a vector has room");
}

/// The message that carries a publication to a subscriber, as a server sends it; for reference servers.
pub fn write_publication(out: &mut Vec<u8>, encoding: Encoding, channel: &str, data: &[u8]) {
    write_numbered(out, encoding, channel, data, None);
}

/// The same with its place in the history of the channel.
pub fn write_numbered(out: &mut Vec<u8>, encoding: Encoding, channel: &str, data: &[u8], offset: Option<u64>) {
    match encoding {
        Encoding::Json => {
            out.extend_from_slice(format!(r#"{{"push":{{"channel":"{channel}","pub":"#).as_bytes());
            write_json_publication(out, data, offset);
            out.extend_from_slice(b"}}");
        }
        Encoding::Protobuf => {
            let publication = protobuf_publication_of(data, offset);
            let push = client::Push { channel: channel.to_owned(), r#pub: Some(publication), ..Default::default() };
            let reply = client::Reply { push: Some(push), ..Default::default() };
            reply.encode_length_delimited(out).expect("a vector has room");
        }
    }
}

/// The answer to a subscription of a channel with a history; for reference servers.
pub fn write_subscribed(out: &mut Vec<u8>, encoding: Encoding, id: u32, subscribed: &Subscribed) {
    let Subscribed { position: Position { offset, epoch }, recovered, publications } = subscribed;
    match encoding {
        Encoding::Json => {
            let head = format!(r#"{{"id":{id},"subscribe":{{"recoverable":true,"epoch":"{epoch}","publications":["#);
            out.extend_from_slice(head.as_bytes());
            for (index, (data, offset)) in publications.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_json_publication(out, data, Some(*offset));
            }
            out.extend_from_slice(format!(r#"],"recovered":{recovered},"offset":{offset}}}}}"#).as_bytes());
        }
        Encoding::Protobuf => {
            let publications = publications.iter().map(|(data, offset)| protobuf_publication_of(data, Some(*offset)));
            let subscribe = client::SubscribeResult {
                recoverable: true,
                epoch: epoch.clone(),
                offset: *offset,
                recovered: *recovered,
                publications: publications.collect(),
                ..Default::default()
            };
            let reply = client::Reply { id, subscribe: Some(subscribe), ..Default::default() };
            reply.encode_length_delimited(out).expect("a vector has room");
        }
    }
}

fn write_json_publication(out: &mut Vec<u8>, data: &[u8], offset: Option<u64>) {
    out.extend_from_slice(b"{\"data\":");
    out.extend_from_slice(data);
    if let Some(offset) = offset {
        out.extend_from_slice(format!(r#","offset":{offset}"#).as_bytes());
    }
    out.push(b'}');
}

fn protobuf_publication_of(data: &[u8], offset: Option<u64>) -> client::Publication {
    let data = bytes::Bytes::copy_from_slice(data);
    client::Publication { data, offset: offset.unwrap_or(0), ..Default::default() }
}

// === messages in ===

/// One message from the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Wants a pong, if the connect reply said so.
    Ping,
    /// A publication in a channel.
    Publication {
        /// Channel name.
        channel: Cow<'a, str>,
        /// Published data.
        data: &'a [u8],
        /// Its place in the history of the channel, where there is one.
        offset: Option<u64>,
    },
    /// The answer to the command with this id.
    Answer {
        /// Id of the command.
        id: u32,
        /// `pong` of a connect reply; false in all others.
        wants_pong: bool,
        /// Code and text when the command failed.
        error: Option<(u32, String)>,
    },
    /// The answer to a subscription of a channel with a history.
    Subscribed {
        /// Id of the command.
        id: u32,
        /// What it says.
        subscribed: Box<Subscribed>,
    },
    /// The server ended a subscription.
    Unsubscribed {
        /// Channel name.
        channel: String,
        /// Code and reason.
        code: u32,
    },
    /// Another push: joins, leaves and what else a load tester does not ask for.
    Other,
    /// Not a message of the protocol.
    Unreadable,
}

/// What the answer to a subscription says about the history of its channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscribed {
    /// Where the subscription stands before the recovered publications.
    pub position: Position,
    /// True when nothing was missed, or all of it is in `publications`.
    pub recovered: bool,
    /// What was missed, in order: data and offset.
    pub publications: Vec<(Vec<u8>, u64)>,
}

/// Reads all messages of one frame. `payload_bytes` tells the expected length of published data by its beginning.
pub fn read_frame<'a>(
    encoding: Encoding,
    frame: &'a [u8],
    payload_bytes: impl Fn(&[u8]) -> usize + Copy,
    mut visit: impl FnMut(Message<'a>),
) {
    match encoding {
        Encoding::Json => {
            let mut rest = Some(frame);
            while let Some(frame) = rest {
                // Data of known length is stepped over, not searched for the end of its line.
                let (message, length) = json_publication(frame, payload_bytes).unwrap_or_else(|| {
                    let length = line_length(frame);
                    (read_json_slowly(&frame[..length]), length)
                });
                visit(message);
                rest = frame.get(length + 1..);
            }
        }
        Encoding::Protobuf => {
            let mut rest = frame;
            while !rest.is_empty() {
                let message = varint(&mut rest).and_then(|length| take(&mut rest, length));
                let Some(message) = message else { return visit(Message::Unreadable) };
                visit(read_protobuf(message));
            }
        }
    }
}

/// Reads one JSON message.
pub fn read_json(message: &[u8], payload_bytes: impl Fn(&[u8]) -> usize) -> Message<'_> {
    match json_publication(message, payload_bytes) {
        Some((publication, length)) if length == message.len() => publication,
        Some(_) | None => read_json_slowly(message),
    }
}

fn read_json_slowly(message: &[u8]) -> Message<'_> {
    if message == b"{}" { Message::Ping } else { read_any_json(message) }
}

/// The length of the first line, without its end.
fn line_length(text: &[u8]) -> usize {
    text.iter().position(|&byte| byte == b'\n').unwrap_or(text.len())
}

/// The one form in which servers send publications of known length: `{"push":{"channel":"C","pub":{"data":D`, then
/// perhaps the publisher's description, then perhaps the offset, then `}}}`. Also returns the length of the message, which
/// is the first line of what is given.
fn json_publication(message: &[u8], payload_bytes: impl Fn(&[u8]) -> usize) -> Option<(Message<'_>, usize)> {
    const OFFSET: &[u8] = br#","offset":"#;
    let rest = message.strip_prefix(br#"{"push":{"channel":""#)?;
    let quote = rest.iter().position(|&byte| byte == b'"' || byte == b'\\')?;
    let (channel, rest) = rest.split_at(quote);
    let rest = rest.strip_prefix(br#"","pub":{"data":"#)?;
    let (data, rest) = rest.split_at_checked(payload_bytes(rest))?;
    let length = message.len() - rest.len() + line_length(rest);
    let tail = rest[..line_length(rest)].strip_suffix(b"}}}")?;
    let ends_here = matches!(tail.first(), None | Some(b',')) && data.ends_with(b"\"}");
    let channel = str::from_utf8(channel).ok().filter(|_| ends_here)?;
    // Where the offset is not the last field, the slow way finds it.
    let offset = match tail.windows(OFFSET.len()).rposition(|window| window == OFFSET) {
        Some(at) => Some(str::from_utf8(&tail[at + OFFSET.len()..]).ok()?.parse().ok()?),
        None => None,
    };
    Some((Message::Publication { channel: Cow::Borrowed(channel), data, offset }, length))
}

#[derive(Deserialize)]
struct JsonReply<'a> {
    #[serde(default)]
    id: u32,
    error: Option<JsonError>,
    #[serde(borrow)]
    push: Option<JsonPush<'a>>,
    connect: Option<JsonConnect>,
    #[serde(borrow)]
    subscribe: Option<JsonSubscribe<'a>>,
    publish: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct JsonError {
    code: u32,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct JsonPush<'a> {
    #[serde(borrow, default)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    r#pub: Option<JsonPublication<'a>>,
    unsubscribe: Option<JsonUnsubscribe>,
}

#[derive(Deserialize)]
struct JsonPublication<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
    offset: Option<u64>,
}

#[derive(Deserialize)]
struct JsonSubscribe<'a> {
    #[serde(default)]
    epoch: String,
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    recovered: bool,
    #[serde(borrow, default)]
    publications: Vec<JsonPublication<'a>>,
}

#[derive(Deserialize)]
struct JsonUnsubscribe {
    #[serde(default)]
    code: u32,
}

#[derive(Deserialize)]
struct JsonConnect {
    #[serde(default)]
    pong: bool,
}

fn read_any_json(message: &[u8]) -> Message<'_> {
    let Ok(JsonReply { id, error, push, connect, subscribe, publish }) = serde_json::from_slice(message) else {
        return Message::Unreadable;
    };
    if let Some(push) = push {
        return match push {
            JsonPush { channel, r#pub: Some(publication), .. } => {
                let JsonPublication { data, offset } = publication;
                Message::Publication { channel, data: data.get().as_bytes(), offset }
            }
            JsonPush { channel, unsubscribe: Some(JsonUnsubscribe { code }), .. } => {
                Message::Unsubscribed { channel: channel.into_owned(), code }
            }
            JsonPush { .. } => Message::Other,
        };
    }
    if let (None, Some(JsonSubscribe { epoch, offset, recovered, publications })) = (&error, &subscribe)
        && !epoch.is_empty()
        && id != 0
    {
        let missed = publications.iter().map(|one| (one.data.get().as_bytes().to_vec(), one.offset.unwrap_or(0)));
        return subscribed(id, epoch, *offset, *recovered, missed.collect());
    }
    let error = error.map(|JsonError { code, message }| (code, message));
    match (id, &error, connect) {
        (0, _, _) => Message::Unreadable,
        (id, _, Some(JsonConnect { pong })) => Message::Answer { id, wants_pong: pong, error },
        (id, None, None) if subscribe.is_none() && publish.is_none() => {
            Message::Answer { id, wants_pong: false, error: Some((0, "an answer without a body".to_owned())) }
        }
        (id, _, None) => Message::Answer { id, wants_pong: false, error },
    }
}

fn subscribed<'a>(
    id: u32,
    epoch: &str,
    offset: u64,
    recovered: bool,
    publications: Vec<(Vec<u8>, u64)>,
) -> Message<'a> {
    let position = Position { offset, epoch: epoch.to_owned() };
    Message::Subscribed { id, subscribed: Box::new(Subscribed { position, recovered, publications }) }
}

/// Reads one Protobuf reply, its length prefix already taken.
pub fn read_protobuf(message: &[u8]) -> Message<'_> {
    if message.is_empty() {
        return Message::Ping;
    }
    protobuf_publication(message).unwrap_or_else(|| read_any_protobuf(message))
}

/// A reply whose only field is a push with a channel and a publication: walked, not decoded.
fn protobuf_publication(message: &[u8]) -> Option<Message<'_>> {
    let mut rest = message;
    let push = field(&mut rest, 4).filter(|_| rest.is_empty())?;
    let mut rest = push;
    let channel = str::from_utf8(field(&mut rest, 2)?).ok()?;
    let publication = field(&mut rest, 4).filter(|_| rest.is_empty())?;
    let mut rest = publication;
    let data = field(&mut rest, 4)?;
    // The publisher's description, when it is a client.
    let _info = field(&mut rest, 5);
    let offset = match rest.strip_prefix(&[6 << 3]) {
        Some(mut tail) => Some(varint(&mut tail)?),
        None => None,
    };
    Some(Message::Publication { channel: Cow::Borrowed(channel), data, offset })
}

fn read_any_protobuf(message: &[u8]) -> Message<'_> {
    let Ok(reply) = client::Reply::decode(message) else { return Message::Unreadable };
    if let Some(push) = reply.push {
        return match push {
            client::Push { channel, unsubscribe: Some(unsubscribe), .. } => {
                Message::Unsubscribed { channel, code: unsubscribe.code }
            }
            // A publication that the walk above did not recognise has fields that no server sends.
            client::Push { r#pub: Some(_), .. } => Message::Unreadable,
            client::Push { .. } => Message::Other,
        };
    }
    if reply.id == 0 {
        return Message::Unreadable;
    }
    if let (None, Some(answer)) = (&reply.error, &reply.subscribe)
        && !answer.epoch.is_empty()
    {
        let missed = answer.publications.iter().map(|one| (one.data.to_vec(), one.offset));
        return subscribed(reply.id, &answer.epoch, answer.offset, answer.recovered, missed.collect());
    }
    let error = reply.error.map(|error| (error.code, error.message));
    Message::Answer { id: reply.id, wants_pong: reply.connect.is_some_and(|connect| connect.pong), error }
}

/// Takes a length-delimited field with this number, if it is the next one.
fn field<'a>(rest: &mut &'a [u8], number: u8) -> Option<&'a [u8]> {
    let tail = rest.strip_prefix(&[number << 3 | 2])?;
    *rest = tail;
    let length = varint(rest)?;
    take(rest, length)
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (taken, tail) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = tail;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    prost::encoding::decode_varint(rest).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(encoding: Encoding, frame: &[u8]) -> Vec<Message<'_>> {
        let mut messages = Vec::new();
        read_frame(encoding, frame, |_| 12, |message| messages.push(message));
        messages
    }

    fn publication<'a>(channel: &'a str, data: &'a [u8]) -> Message<'a> {
        Message::Publication { channel: Cow::Borrowed(channel), data, offset: None }
    }

    fn numbered<'a>(channel: &'a str, data: &'a [u8], offset: u64) -> Message<'a> {
        Message::Publication { channel: Cow::Borrowed(channel), data, offset: Some(offset) }
    }

    #[test]
    fn a_publication_reads_the_same_by_the_fast_and_the_slow_way() {
        let frame = br#"{"push":{"channel":"c","pub":{"data":{"a":"hello"},"offset":8}}}"#;
        let expected = numbered("c", br#"{"a":"hello"}"#, 8);
        assert_eq!(read_json(frame, |_| 13), expected);
        assert_eq!(read_json(frame, |_| 12), expected, "a wrong length takes the slow way");
        let by_client = br#"{"push":{"channel":"c","pub":{"data":{"a":"hello"},"info":{"client":"x","conn_info":{"a":1,"offset":3}},"offset":8}}}"#;
        assert_eq!(read_json(by_client, |_| 13), expected);
        let tagged = br#"{"push":{"channel":"c","pub":{"data":{"a":"hello"},"tags":{},"offset":8}}}"#;
        assert_eq!(read_json(tagged, |_| 13), expected);
        let plain = br#"{"push":{"channel":"c","pub":{"data":{"a":"hello"}}}}"#;
        assert_eq!(read_json(plain, |_| 13), publication("c", br#"{"a":"hello"}"#));
        let spaced = br#"{"push": {"pub":{"offset":8,"data":{"a":"hello"}},"channel":"c"}}"#;
        assert_eq!(read_json(spaced, |_| 13), expected);
    }

    #[test]
    fn several_json_messages_of_one_frame_come_in_order() {
        let frame =
            b"{\"id\":1,\"connect\":{\"client\":\"x\",\"ping\":25,\"pong\":true}}\n{}\n{\"id\":2,\"subscribe\":{}}";
        let answer = |id, wants_pong| Message::Answer { id, wants_pong, error: None };
        assert_eq!(all(Encoding::Json, frame), [answer(1, true), Message::Ping, answer(2, false)]);
    }

    #[test]
    fn publications_that_share_a_frame_are_read_one_by_one() {
        let first = r#"{"push":{"channel":"c","pub":{"data":{"a":"first"}}}}"#;
        let second = r#"{"push":{"channel":"d","pub":{"data":{"a":"secon"},"offset":8}}}"#;
        let frame = format!("{first}\n{{}}\n{second}");
        let expected = [publication("c", br#"{"a":"first"}"#), Message::Ping, numbered("d", br#"{"a":"secon"}"#, 8)];
        for length in [13, 12] {
            let mut messages = Vec::new();
            read_frame(Encoding::Json, frame.as_bytes(), |_| length, |message| messages.push(message));
            assert_eq!(messages, expected, "told {length}");
        }
    }

    #[test]
    fn a_json_error_and_an_unsubscribe_are_told() {
        let frame = b"{\"id\":2,\"error\":{\"code\":103,\"message\":\"permission denied\"}}\n\
            {\"push\":{\"channel\":\"c\",\"unsubscribe\":{\"code\":2500,\"reason\":\"insufficient state\"}}}";
        let denied = Some((103, "permission denied".to_owned()));
        let refused = Message::Answer { id: 2, wants_pong: false, error: denied };
        let ended = Message::Unsubscribed { channel: "c".to_owned(), code: 2500 };
        assert_eq!(all(Encoding::Json, frame), [refused, ended]);
    }

    #[test]
    fn protobuf_publications_pings_and_answers_are_read() {
        let mut frame = Vec::new();
        write_publication(&mut frame, Encoding::Protobuf, "c", b"data");
        frame.push(0);
        let connect = Some(client::ConnectResult { pong: true, ..Default::default() });
        let answer = client::Reply { id: 1, connect, ..Default::default() };
        answer.encode_length_delimited(&mut frame).expect("a vector has room");
        let answered = Message::Answer { id: 1, wants_pong: true, error: None };
        assert_eq!(all(Encoding::Protobuf, &frame), [publication("c", b"data"), Message::Ping, answered]);
    }

    #[test]
    fn a_publication_with_more_fields_is_still_read() {
        let info = Some(client::ClientInfo { client: "x".to_owned(), ..Default::default() });
        let publication = client::Publication { data: "data".into(), info, offset: 9, ..Default::default() };
        let push = client::Push { channel: "c".to_owned(), r#pub: Some(publication), ..Default::default() };
        let message = client::Reply { push: Some(push), ..Default::default() }.encode_to_vec();
        assert_eq!(read_protobuf(&message), numbered("c", b"data", 9));
    }

    #[test]
    fn truncated_and_foreign_bytes_are_unreadable_and_never_panic() {
        let mut frame = Vec::new();
        write_publication(&mut frame, Encoding::Protobuf, "c", b"0123456789");
        for length in 1..frame.len() {
            assert_eq!(all(Encoding::Protobuf, &frame[..length]), [Message::Unreadable], "length {length}");
        }
        for text in ["", "[]", "nonsense", r#"{"push":{"channel":"c","pub":{"data":"#, r#"{"id":0}"#] {
            assert_eq!(read_json(text.as_bytes(), |_| 3), Message::Unreadable, "{text}");
        }
    }

    #[test]
    fn an_answer_with_a_history_tells_its_position_and_what_was_missed_in_both_encodings() {
        let frame = br#"{"id":2,"subscribe":{"recoverable":true,"epoch":"e1","publications":[{"data":{"a":1},"offset":7}],"recovered":true,"offset":7,"positioned":true,"was_recovering":true}}"#;
        let position = Position { offset: 7, epoch: "e1".to_owned() };
        let publications = vec![(br#"{"a":1}"#.to_vec(), 7)];
        let subscribed = Box::new(Subscribed { position, recovered: true, publications });
        let expected = Message::Subscribed { id: 2, subscribed };
        assert_eq!(read_json(frame, |_| 3), expected);
        let missed = client::Publication { data: r#"{"a":1}"#.into(), offset: 7, ..Default::default() };
        let subscribe = client::SubscribeResult {
            epoch: "e1".to_owned(),
            offset: 7,
            recovered: true,
            publications: vec![missed],
            ..Default::default()
        };
        let reply = client::Reply { id: 2, subscribe: Some(subscribe), ..Default::default() };
        assert_eq!(read_protobuf(&reply.encode_to_vec()), expected);
    }

    #[test]
    fn a_subscription_asks_for_what_came_after_its_position() {
        let position = Position { offset: 4, epoch: "e".to_owned() };
        let mut frame = Vec::new();
        let command = Command::Subscribe { channel: "c", recovery: Recovery::After(&position) };
        write_command(&mut frame, Encoding::Json, 2, command);
        let expected =
            r#"{"id":2,"subscribe":{"channel":"c","recoverable":true,"recover":true,"offset":4,"epoch":"e"}}"#;
        assert_eq!(String::from_utf8_lossy(&frame), expected);
    }

    #[test]
    fn json_commands_of_one_frame_are_separated_by_a_newline() {
        let mut frame = Vec::new();
        write_command(&mut frame, Encoding::Json, 1, Command::Connect { token: "" });
        write_command(&mut frame, Encoding::Json, 2, Command::Publish { channel: "c", data: b"{}" });
        let expected =
            "{\"id\":1,\"connect\":{\"name\":\"loadtest\"}}\n{\"id\":2,\"publish\":{\"channel\":\"c\",\"data\":{}}}";
        assert_eq!(String::from_utf8_lossy(&frame), expected);
    }

    #[test]
    fn a_protobuf_pong_is_one_zero_byte() {
        let mut frame = Vec::new();
        write_command(&mut frame, Encoding::Protobuf, 0, Command::Pong);
        assert_eq!(frame, [0]);
    }
}
