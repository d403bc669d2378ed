//! What the reader makes of frames; how it compares with another implementation is in
//! `tests/websocket_differential.rs`.

use super::*;

const RULES: Rules = Rules { message_size_limit: 1024, deflate: false, strict: false };
const STRICT: Rules = Rules { strict: true, ..RULES };
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A masked frame; `first` is its first byte.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        short @ 0..126 => out.push(0x80 | short as u8),
        medium @ 126..65_536 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    let start = out.len();
    out.extend_from_slice(payload);
    unmask(&mut out[start..], MASK, 0);
    out
}

#[derive(Debug, PartialEq)]
enum Seen {
    Message(Kind, Vec<u8>),
    Deflated(Kind, Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>, String),
    Failed(u16),
}

/// Gives the bytes in pieces of `step` and lists what comes out, up to the first failure.
fn read_in_steps(rules: Rules, bytes: &[u8], step: usize) -> Vec<Seen> {
    let mut reader = Reader::new();
    let mut seen = Vec::new();
    for piece in bytes.chunks(step.max(1)) {
        let mut piece = piece.to_vec();
        let mut input = &mut piece[..];
        loop {
            seen.push(match reader.read(rules, &mut input) {
                Ok(None) => break,
                Ok(Some(Event::Message { kind, deflated: false, payload })) => {
                    Seen::Message(kind, payload.into_owned())
                }
                Ok(Some(Event::Message { kind, deflated: true, payload })) => {
                    Seen::Deflated(kind, payload.into_owned())
                }
                Ok(Some(Event::Ping(payload))) => Seen::Ping(payload.into_owned()),
                Ok(Some(Event::Pong)) => Seen::Pong,
                Ok(Some(Event::Close { code, reason })) => Seen::Close(code, reason),
                Err(violation) => {
                    seen.push(Seen::Failed(violation.code));
                    return seen;
                }
            });
        }
        assert!(input.is_empty(), "everything is taken");
    }
    assert!(reader.is_idle(), "nothing is kept after the last frame: {reader:?}");
    seen
}

fn read(rules: Rules, frames: &[Vec<u8>]) -> Vec<Seen> {
    let bytes = frames.concat();
    let whole = read_in_steps(rules, &bytes, bytes.len());
    for step in [1, 2, 3, 7, 100] {
        assert_eq!(read_in_steps(rules, &bytes, step), whole, "in steps of {step}");
    }
    whole
}

fn text(payload: &str) -> Seen {
    Seen::Message(Kind::Text, payload.into())
}

#[test]
fn an_idle_reader_is_one_pointer() {
    assert_eq!(size_of::<Reader>(), size_of::<usize>());
}

#[test]
fn whole_frames_are_unmasked_where_they_lie() {
    let mut bytes = [masked(0x81, b"hello"), masked(0x89, b"ping"), masked(0x82, b"")].concat();
    let (mut input, mut reader) = (&mut bytes[..], Reader::new());
    for expected in [&b"hello"[..], b"ping", b""] {
        match reader.read(RULES, &mut input).unwrap() {
            Some(Event::Message { payload: Cow::Borrowed(payload), .. } | Event::Ping(Cow::Borrowed(payload))) => {
                assert_eq!(payload, expected);
            }
            other => panic!("{other:?}"),
        }
        assert!(reader.is_idle());
    }
    assert_eq!(reader.read(RULES, &mut input), Ok(None));
}

#[test]
fn fragments_are_joined_and_control_frames_between_them_come_first() {
    let frames =
        [masked(0x01, b"{\"id\":1,"), masked(0x00, b""), masked(0x89, b"hi"), masked(0x8a, b"x"), masked(0x80, b"}")];
    assert_eq!(read(RULES, &frames), [Seen::Ping(b"hi".into()), Seen::Pong, text("{\"id\":1,}")]);
    let empty = [masked(0x02, b""), masked(0x80, b""), masked(0x81, b"x")];
    assert_eq!(read(RULES, &empty), [Seen::Message(Kind::Binary, vec![]), text("x")]);
}

#[test]
fn what_follows_an_event_stays_in_the_input_untouched() {
    let second = masked(0x81, b"second");
    let mut bytes = [masked(0x81, b"first"), second.clone()].concat();
    let mut input = &mut bytes[..];
    Reader::new().read(RULES, &mut input).unwrap();
    assert_eq!(input, second);
}

#[test]
fn broken_frames_fail_with_the_codes_of_the_reference_server() {
    for (name, frame, code) in [
        ("unmasked", b"\x81\x02{}".to_vec(), 1002),
        ("first reserved bit", masked(0xc1, b"{}"), 1002),
        ("second reserved bit", masked(0xa1, b"{}"), 1002),
        ("third reserved bit of a control frame", masked(0x99, b""), 1002),
        ("reserved data opcode", masked(0x83, b"{}"), 1002),
        ("reserved control opcode", masked(0x8b, b""), 1002),
        ("control frame of 126 bytes", masked(0x89, &[b'p'; 126]), 1002),
        ("fragmented control frame", masked(0x09, b"x"), 1002),
        ("continuation of nothing", masked(0x80, b"{}"), 1002),
        ("message within a message", [masked(0x01, b"{"), masked(0x81, b"}")].concat(), 1002),
        ("one byte too many", masked(0x81, &[b'x'; 1025]), 1009),
        ("too many over fragments", [masked(0x01, &[b'x'; 600]), masked(0x80, &[b'x'; 425])].concat(), 1009),
        ("length of 2^62", [&[0x81, 0xff][..], &(1u64 << 62).to_be_bytes(), &MASK].concat(), 1009),
        ("length of 2^63", [&[0x81, 0xff][..], &(1u64 << 63).to_be_bytes(), &MASK].concat(), 1002),
        ("close code 1005", masked(0x88, &1005u16.to_be_bytes()), 1002),
        ("close code 999", masked(0x88, &999u16.to_be_bytes()), 1002),
        ("close code 2999", masked(0x88, &2999u16.to_be_bytes()), 1002),
        ("close code 5000", masked(0x88, &5000u16.to_be_bytes()), 1002),
        ("close reason not UTF-8", masked(0x88, b"\x03\xe8\xff"), 1007),
    ] {
        assert_eq!(read(RULES, &[masked(0x81, b"ok"), frame]), [text("ok"), Seen::Failed(code)], "{name}");
    }
}

#[test]
fn messages_up_to_the_limit_are_taken_whole_or_in_fragments() {
    let whole = "x".repeat(1024);
    assert_eq!(read(RULES, &[masked(0x81, whole.as_bytes())]), [text(&whole)]);
    let fragments = [masked(0x01, &whole.as_bytes()[..600]), masked(0x80, &whole.as_bytes()[600..])];
    assert_eq!(read(RULES, &fragments), [text(&whole)]);
}

#[test]
fn close_frames_tell_code_and_reason() {
    for (body, code, reason) in [
        (&b""[..], None, ""),
        (b"\x03\xe8", Some(1000), ""),
        (b"\x03\xe8bye", Some(1000), "bye"),
        (b"\x13\x87\xc3\xa9", Some(4999), "é"),
        (b"\x03\xf4", Some(1012), ""),
    ] {
        assert_eq!(read(STRICT, &[masked(0x88, body)]), [Seen::Close(code, reason.into())]);
    }
}

#[test]
fn rules_say_whether_texts_and_short_close_bodies_are_checked() {
    let not_utf8 = [masked(0x81, b"{\xff}")];
    assert_eq!(read(RULES, &not_utf8), [Seen::Message(Kind::Text, b"{\xff}".into())]);
    assert_eq!(read(STRICT, &not_utf8), [Seen::Failed(1007)]);
    assert_eq!(read(STRICT, &[masked(0x82, b"\xff")]), [Seen::Message(Kind::Binary, b"\xff".into())]);

    let one_byte = [masked(0x88, b"\x03")];
    assert_eq!(read(RULES, &one_byte), [Seen::Close(None, String::new())]);
    assert_eq!(read(STRICT, &one_byte), [Seen::Failed(1002)]);
}

#[test]
fn a_text_cut_within_characters_is_checked_as_it_comes() {
    let crab = "🦀é".as_bytes();
    for cut in 0..=crab.len() {
        let frames = [masked(0x01, &crab[..cut]), masked(0x00, b""), masked(0x80, &crab[cut..])];
        assert_eq!(read(STRICT, &frames), [text("🦀é")], "cut at {cut}");
    }
    // Fails before the message, or even the frame, is whole.
    assert_eq!(read(STRICT, &[masked(0x01, b"\xf0\x9f\xff")]), [Seen::Failed(1007)]);
    let frame = masked(0x81, b"ab\xffcdefgh");
    assert_eq!(read_in_steps(STRICT, &frame[..9], 3), [Seen::Failed(1007)]);
    // An unfinished character at the end.
    assert_eq!(read(STRICT, &[masked(0x01, b"\xf0\x9f"), masked(0x80, b"\xa6")]), [Seen::Failed(1007)]);
}

#[test]
fn the_first_reserved_bit_marks_deflated_messages_once_that_is_agreed() {
    let rules = Rules { deflate: true, ..STRICT };
    let frames = [masked(0x41, b"\xf2\x48"), masked(0x80, b"\xcd"), masked(0xc2, b"\xff"), masked(0x81, b"plain")];
    let deflated = [
        Seen::Deflated(Kind::Text, b"\xf2\x48\xcd".into()),
        Seen::Deflated(Kind::Binary, b"\xff".into()),
        text("plain"),
    ];
    assert_eq!(read(rules, &frames), deflated);
    assert_eq!(read(rules, &[masked(0x01, b"a"), masked(0xc0, b"b")]), [Seen::Failed(1002)], "only on the first");
    assert_eq!(read(rules, &[masked(0xc9, b"")]), [Seen::Failed(1002)], "not on control frames");
}

#[test]
fn a_payload_takes_memory_as_it_comes_and_never_more_than_announced() {
    let rules = Rules { message_size_limit: 1_000_000, ..RULES };
    let mut bytes = masked(0x82, &vec![7; 1_000_000]);
    let (head, tail) = bytes.split_at_mut(1000);
    let mut reader = Reader::new();
    assert_eq!(reader.read(rules, &mut &mut *head), Ok(None));
    assert!(reader.memory() < 2500);
    for piece in tail.chunks_mut(1000).take(998) {
        assert_eq!(reader.read(rules, &mut &mut *piece), Ok(None));
    }
    assert!(reader.memory() < 1_000_500);
}
