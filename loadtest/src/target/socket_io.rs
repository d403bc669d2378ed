//! Socket.IO over Engine.IO 4, WebSocket only, without a socket.
//!
//! Protocol facts: a text frame is one Engine.IO packet, whose first digit is its kind: 0 open, 2 ping (answered by 3),
//! 4 message. A message is a Socket.IO packet: 0 connect, 1 disconnect, 2 event, 3 acknowledgement, 4 connect error; an
//! event or acknowledgement has an id in digits, then a JSON array whose first element is the event's name.
//!
//! Socket.IO has no channels and no publishing: servers make them of rooms and events. This adapter speaks the usual
//! ones, with an acknowledgement each:
//!
//! ```text
//! socket.on("subscribe", (channel, ack) => { socket.join(channel); ack(); });
//! socket.on("publish", (channel, data, ack) => { io.to(channel).emit("message", channel, data); ack(); });
//! ```

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::centrifuge::{Command, Message};
use super::speech::connected;

/// Writes one packet; a frame holds no more than one.
pub(super) fn write_packet(out: &mut Vec<u8>, id: u32, command: Command<'_>) {
    match command {
        // A token has no place in the protocol itself; what servers take is the `token` of this object.
        Command::Connect { token: "" } => out.extend_from_slice(b"40"),
        Command::Connect { token } => out.extend_from_slice(format!(r#"40{{"token":"{token}"}}"#).as_bytes()),
        Command::Subscribe { channel, .. } => {
            out.extend_from_slice(format!(r#"42{id}["subscribe","{channel}"]"#).as_bytes());
        }
        Command::Publish { channel, data } => {
            out.extend_from_slice(format!(r#"42{id}["publish","{channel}","#).as_bytes());
            out.extend_from_slice(data);
            out.push(b']');
        }
        Command::Pong => out.push(b'3'),
    }
}

/// Reads one packet.
pub(super) fn read_packet(packet: &[u8], payload_bytes: impl Fn(&[u8]) -> usize) -> Message<'_> {
    match packet {
        b"2" => Message::Ping,
        [b'4', b'2', event @ ..] => {
            quick_event(event, payload_bytes).or_else(|| event_of(event)).unwrap_or(Message::Unreadable)
        }
        [b'4', b'3', rest @ ..] => match leading_number(rest) {
            Some(id) => Message::Answer { id, wants_pong: false, error: None },
            None => Message::Unreadable,
        },
        [b'4', b'0', ..] => connected(true),
        [b'4', b'4', reason @ ..] => {
            let reason = String::from_utf8_lossy(reason).into_owned();
            Message::Answer { id: super::centrifuge::CONNECT_ID, wants_pong: false, error: Some((4, reason)) }
        }
        [b'4', b'1', ..] => Message::Unsubscribed { channel: "everything".to_owned(), code: 1 },
        [b'0' | b'6', ..] => Message::Other,
        _ => Message::Unreadable,
    }
}

/// The form in which a server sends a publication of known length: `["message","C",D]`.
fn quick_event(event: &[u8], payload_bytes: impl Fn(&[u8]) -> usize) -> Option<Message<'_>> {
    let rest = event.strip_prefix(br#"["message",""#)?;
    let quote = rest.iter().position(|&byte| byte == b'"' || byte == b'\\')?;
    let (channel, rest) = rest.split_at(quote);
    let rest = rest.strip_prefix(b"\",")?;
    let (data, rest) = rest.split_at_checked(payload_bytes(rest))?;
    let channel = str::from_utf8(channel).ok().filter(|_| rest == b"]")?;
    Some(Message::Publication { channel: Cow::Borrowed(channel), data, offset: None })
}

/// Any event; those that are no publications are of no interest.
fn event_of(event: &[u8]) -> Option<Message<'_>> {
    let digits = event.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let elements: Vec<&RawValue> = serde_json::from_slice(&event[digits..]).ok()?;
    let [name, channel, data] = elements[..] else { return Some(Message::Other) };
    if name.get() != r#""message""# {
        return Some(Message::Other);
    }
    let channel: String = serde_json::from_str(channel.get()).ok()?;
    Some(Message::Publication { channel: Cow::Owned(channel), data: data.get().as_bytes(), offset: None })
}

fn leading_number(text: &[u8]) -> Option<u32> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    str::from_utf8(&text[..digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::centrifuge::Recovery;

    #[test]
    fn packets_are_written_as_the_protocol_wants_them() {
        let packet = |command| {
            let mut out = Vec::new();
            write_packet(&mut out, 7, command);
            String::from_utf8(out).expect("text")
        };
        assert_eq!(packet(Command::Connect { token: "" }), "40");
        let subscribe = Command::Subscribe { channel: "c", recovery: Recovery::Off };
        assert_eq!(packet(subscribe), r#"427["subscribe","c"]"#);
        assert_eq!(packet(Command::Publish { channel: "c", data: b"{}" }), r#"427["publish","c",{}]"#);
        assert_eq!(packet(Command::Pong), "3");
    }

    #[test]
    fn packets_are_read_the_same_by_the_quick_and_the_slow_way() {
        let expected = || Message::Publication { channel: Cow::Borrowed("c"), data: b"{\"a\":1}", offset: None };
        assert_eq!(read_packet(br#"42["message","c",{"a":1}]"#, |_| 7), expected());
        assert_eq!(read_packet(br#"42["message","c",{"a":1}]"#, |_| 6), expected());
        assert_eq!(read_packet(br#"42["message", "c", {"a":1}]"#, |_| 7), expected());
        assert_eq!(read_packet(br#"42["hello"]"#, |_| 7), Message::Other);
        assert_eq!(read_packet(b"2", |_| 7), Message::Ping);
        assert_eq!(read_packet(br#"40{"sid":"x"}"#, |_| 7), connected(true));
        let answered = Message::Answer { id: 12, wants_pong: false, error: None };
        assert_eq!(read_packet(b"4312[]", |_| 7), answered);
        for foreign in [&b""[..], b"9", b"42[", b"43[]", b"{}"] {
            assert_eq!(read_packet(foreign, |_| 7), Message::Unreadable, "{foreign:?}");
        }
    }
}
