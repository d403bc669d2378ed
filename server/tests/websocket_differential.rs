//! Our frame reader against tungstenite: the same bytes must give the same messages and the same verdict.
//!
//! Both get sequences of whole frames, sound ones mostly, cut into pieces at arbitrary places. Our reader runs under
//! strict rules, which are those of RFC 6455. A failure prints the frames and the cuts; proptest writes its seed down.
//!
//! Where a frame is wrong in two ways, the one that is found first gives the code. tungstenite looks at the length of a
//! frame before the rest of its header and at the reason of a Close frame before its code, we do it the other way
//! round.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
};

use proptest::prelude::*;
use starling_server::wire::websocket::{
    Event, Kind, OpenFrame, Reader, Rules, close_frame, frame, ping_frame, pong_frame, shared_frame, unmask,
};
use tokio_tungstenite::tungstenite::{
    Error, Message,
    protocol::{Role, WebSocket, WebSocketConfig, frame::coding::CloseCode},
};

const LIMIT: usize = 300;
const RULES: Rules = Rules { message_size_limit: LIMIT, deflate: false, strict: true };

/// A frame as a client might send it.
#[derive(Clone, Debug)]
struct Sent {
    opcode: u8,
    is_final: bool,
    reserved: u8,
    mask: Option<[u8; 4]>,
    payload: Vec<u8>,
}

impl Sent {
    fn bytes(&self) -> Vec<u8> {
        let masked = if self.mask.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![u8::from(self.is_final) << 7 | self.reserved << 4 | self.opcode];
        match self.payload.len() {
            short @ 0..126 => bytes.push(masked | short as u8),
            long => {
                bytes.push(masked | 126);
                bytes.extend_from_slice(&(long as u16).to_be_bytes());
            }
        }
        bytes.extend(self.mask.iter().flatten());
        let start = bytes.len();
        bytes.extend_from_slice(&self.payload);
        if let Some(mask) = self.mask {
            unmask(&mut bytes[start..], mask, 0);
        }
        bytes
    }
}

/// What a reader made of the bytes, in order. Nothing follows the last three.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Message(Kind, Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Closed(Option<u16>, String),
    Failed(u16),
    WantsMore,
}

fn ours(pieces: &[Vec<u8>]) -> Vec<Seen> {
    let mut reader = Reader::new();
    let mut seen = Vec::new();
    for piece in pieces {
        let mut piece = piece.clone();
        let mut input = &mut piece[..];
        loop {
            seen.push(match reader.read(RULES, &mut input) {
                Ok(None) => break,
                Ok(Some(Event::Message { kind, deflated, payload })) => {
                    assert!(!deflated);
                    Seen::Message(kind, payload.into_owned())
                }
                Ok(Some(Event::Ping(payload))) => Seen::Ping(payload.into_owned()),
                Ok(Some(Event::Pong)) => Seen::Pong,
                Ok(Some(Event::Close { code, reason })) => {
                    seen.push(Seen::Closed(code, reason));
                    return seen;
                }
                Err(violation) => {
                    seen.push(Seen::Failed(violation.code));
                    return seen;
                }
            });
        }
    }
    seen.push(Seen::WantsMore);
    seen
}

fn theirs(pieces: &[Vec<u8>]) -> Vec<Seen> {
    let config = WebSocketConfig::default().max_message_size(Some(LIMIT)).max_frame_size(Some(LIMIT));
    let mut socket = WebSocket::from_raw_socket(Pieces(pieces.iter().cloned().collect()), Role::Server, Some(config));
    let mut seen = Vec::new();
    loop {
        seen.push(match socket.read() {
            Ok(Message::Text(text)) => Seen::Message(Kind::Text, text.as_bytes().to_vec()),
            Ok(Message::Binary(bytes)) => Seen::Message(Kind::Binary, bytes.to_vec()),
            Ok(Message::Ping(payload)) => Seen::Ping(payload.to_vec()),
            Ok(Message::Pong(_)) => Seen::Pong,
            Ok(Message::Close(Some(close)))
                if close.code == CloseCode::Protocol && close.reason == "Protocol violation" =>
            {
                // Its word for a code that a peer must not send.
                Seen::Failed(1002)
            }
            Ok(Message::Close(close)) => match close {
                Some(close) => Seen::Closed(Some(close.code.into()), close.reason.to_string()),
                None => Seen::Closed(None, String::new()),
            },
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Seen::WantsMore,
            Err(Error::Protocol(_)) => Seen::Failed(1002),
            Err(Error::Utf8(_)) => Seen::Failed(1007),
            Err(Error::Capacity(_)) => Seen::Failed(1009),
            other => panic!("unexpected {other:?}"),
        });
        if matches!(seen.last(), Some(Seen::Closed(..) | Seen::Failed(_) | Seen::WantsMore)) {
            return seen;
        }
    }
}

/// A socket that reads at most one piece at a time, then nothing more for now; and takes anything written.
struct Pieces(VecDeque<Vec<u8>>);

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(piece) = self.0.front_mut() else { return Err(io::ErrorKind::WouldBlock.into()) };
        let length = piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&piece[..length]);
        piece.drain(..length);
        if piece.is_empty() {
            self.0.pop_front();
        }
        Ok(length)
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn cut(bytes: &[u8], mut cuts: Vec<usize>) -> Vec<Vec<u8>> {
    cuts.iter_mut().for_each(|cut| *cut %= bytes.len() + 1);
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.dedup();
    cuts.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect()
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[a-z{}é🦀]{0,20}".prop_map(String::into_bytes),
        2 => proptest::collection::vec(any::<u8>(), 0..130),
        1 => "[a-zé]{120,180}".prop_map(String::into_bytes),
        // Parts of characters, to be joined or not by what follows.
        1 => proptest::sample::select(vec![&b"\xf0"[..], b"\xf0\x9f", b"\xa6\x80", b"a\xc3", b"\xa9", b"\xed\xa0"])
            .prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(Just(b'x'), 290..310),
    ]
}

fn close_body() -> impl Strategy<Value = Vec<u8>> {
    let code = prop_oneof![Just(1000u16), Just(1005), Just(3501), 995..1020u16, any::<u16>()];
    let whole = (code, "[a-zé]{0,10}").prop_map(|(code, reason)| [&code.to_be_bytes()[..], reason.as_bytes()].concat());
    let bent_reason = proptest::collection::vec(any::<u8>(), 0..8).prop_map(|reason| [b"\x03\xe8", &*reason].concat());
    prop_oneof![6 => whole, 1 => bent_reason, 1 => proptest::collection::vec(any::<u8>(), 0..2)]
}

fn data_frame(opcodes: &[u8], is_final: bool) -> impl Strategy<Value = Sent> + use<> {
    (proptest::sample::select(opcodes.to_vec()), payload(), any::<[u8; 4]>())
        .prop_map(move |(opcode, payload, mask)| Sent { opcode, is_final, reserved: 0, mask: Some(mask), payload })
}

/// Something a sound client could send: a message in one or more frames with control frames between them.
fn sound() -> impl Strategy<Value = Vec<Sent>> {
    let ping = (9..11u8, proptest::collection::vec(any::<u8>(), 0..126), any::<[u8; 4]>())
        .prop_map(|(opcode, payload, mask)| Sent { opcode, is_final: true, reserved: 0, mask: Some(mask), payload });
    let between = proptest::collection::vec(prop_oneof![data_frame(&[0], false), ping.clone()], 0..4);
    let fragmented =
        (data_frame(&[1, 2], false), between, data_frame(&[0], true)).prop_map(|(first, between, last)| {
            let mut frames = vec![first];
            frames.extend(between);
            frames.push(last);
            frames
        });
    prop_oneof![data_frame(&[1, 2], true).prop_map(|frame| vec![frame]), fragmented, ping.prop_map(|frame| vec![frame])]
}

/// Any frame, broken in any way perhaps.
fn any_frame() -> impl Strategy<Value = Sent> {
    let reserved = prop_oneof![9 => Just(0u8), 1 => 0..8u8];
    let mask = prop_oneof![9 => any::<[u8; 4]>().prop_map(Some), 1 => Just(None)];
    let opcode = prop_oneof![8 => proptest::sample::select(vec![0u8, 1, 2, 9, 10]), 1 => 0..16u8];
    (opcode, any::<bool>(), reserved, mask, payload()).prop_map(|(opcode, is_final, reserved, mask, payload)| Sent {
        opcode,
        is_final,
        reserved,
        mask,
        payload,
    })
}

fn close() -> impl Strategy<Value = Sent> {
    (close_body(), any::<[u8; 4]>()).prop_map(|(payload, mask)| Sent {
        opcode: 8,
        is_final: true,
        reserved: 0,
        mask: Some(mask),
        payload,
    })
}

fn frames() -> impl Strategy<Value = Vec<Sent>> {
    let some = prop_oneof![6 => sound(), 1 => any_frame().prop_map(|frame| vec![frame])];
    (proptest::collection::vec(some, 0..8), proptest::option::of(close()))
        .prop_map(|(frames, close)| frames.into_iter().flatten().chain(close).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn reads_what_tungstenite_reads(
        frames in frames(),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(Sent::bytes).collect();
        let pieces = cut(&bytes, cuts);
        let (mut ours, mut theirs) = (ours(&pieces), theirs(&pieces));
        let either = |code| match code {
            1009 => frames.iter().any(|frame| frame.payload.len() > LIMIT),
            1007 => frames.iter().any(|frame| frame.opcode == 8),
            _ => false,
        };
        if let (Some(Seen::Failed(1002)), Some(Seen::Failed(code))) = (ours.last(), theirs.last())
            && either(*code)
        {
            ours.pop();
            theirs.pop();
        }
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn where_the_bytes_are_cut_does_not_matter(
        frames in frames(),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(Sent::bytes).collect();
        prop_assert_eq!(ours(&cut(&bytes, cuts)), ours(&[bytes]));
    }

    #[test]
    fn tungstenite_reads_what_we_write(
        messages in proptest::collection::vec((0..6u8, "[a-zé🦀]{0,50}", 0..4000usize), 0..8),
        close in proptest::option::of((1000..1004u16, "[a-zé]{0,10}")),
    ) {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for (form, text, repeat) in messages {
            let (text, payload) = (text.repeat(repeat / 100), vec![form; repeat * 20]);
            let control = &payload[..payload.len().min(125)];
            match form {
                0 => frame(Kind::Text, text.as_bytes(), &mut bytes),
                1 => frame(Kind::Binary, &payload, &mut bytes),
                2 => bytes.extend_from_slice(&shared_frame(Kind::Binary, &payload)),
                3 => {
                    let open = OpenFrame::begin(&mut bytes);
                    bytes.extend_from_slice(text.as_bytes());
                    open.finish(Kind::Text, &mut bytes);
                }
                4 => ping_frame(control, &mut bytes),
                _ => pong_frame(control, &mut bytes),
            }
            expected.push(match form {
                0 | 3 => Message::text(text),
                1 | 2 => Message::binary(payload),
                4 => Message::Ping(control.to_vec().into()),
                _ => Message::Pong(control.to_vec().into()),
            });
        }
        if let Some((code, reason)) = &close {
            close_frame(Some(*code), reason, &mut bytes);
        }

        let mut client = WebSocket::from_raw_socket(Pieces(cut(&bytes, vec![]).into()), Role::Client, None);
        for expected in expected {
            prop_assert_eq!(client.read().unwrap(), expected);
        }
        match close {
            Some((code, reason)) => match client.read() {
                Ok(Message::Close(Some(close))) => {
                    prop_assert_eq!((u16::from(close.code), close.reason.as_str()), (code, reason.as_str()));
                }
                other => panic!("unexpected {other:?}"),
            },
            None => prop_assert!(matches!(client.read(), Err(Error::Io(_)))),
        }
    }
}
