//! Truncated, bent and lying input at every length: no panic, no message out of nothing, memory within its bound.

use bytes::Bytes;
use starling_server::{
    broker::Publication,
    session::protocol::{Protocol, Reply},
    wire::{
        self,
        deflate::Inflater,
        websocket::{Event, Reader, Rules, Violation, unmask},
    },
};

const LIMIT: usize = 70_000;

/// What a reader holds beside the payload that came: its box, a header, a control frame.
const OVERHEAD: usize = 600;

fn rules() -> impl Iterator<Item = Rules> {
    [false, true].into_iter().flat_map(|deflate| {
        [false, true].into_iter().map(move |strict| Rules { message_size_limit: LIMIT, deflate, strict })
    })
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [9, 99, 199, 255];
    let mut bytes = match payload.len() {
        short @ 0..126 => vec![first, 0x80 | short as u8],
        medium @ 126..65_536 => [&[first, 0x80 | 126][..], &(medium as u16).to_be_bytes()].concat(),
        long => [&[first, 0x80 | 127][..], &(long as u64).to_be_bytes()].concat(),
    };
    bytes.extend_from_slice(&mask);
    let start = bytes.len();
    bytes.extend_from_slice(payload);
    unmask(&mut bytes[start..], mask, 0);
    bytes
}

/// Sound conversations of one connection.
fn conversations() -> Vec<Vec<u8>> {
    let text = "{\"id\":1,\"connect\":{\"name\":\"é🦀\"}}";
    vec![
        masked(0x81, text.as_bytes()),
        [masked(0x01, b"{\"id\":1,"), masked(0x89, b"hi"), masked(0x00, b""), masked(0x80, b"\"send\":{}}")].concat(),
        masked(0x82, &[7; 126]),
        masked(0x82, &vec![7; 66_000]),
        [masked(0x8a, &[1; 125]), masked(0x88, b"\x03\xe8bye")].concat(),
    ]
}

/// Reads to the end or the first failure; counts messages and checks the bound on memory after every read.
fn read(rules: Rules, pieces: &mut [Vec<u8>]) -> (usize, Result<(), Violation>) {
    let mut reader = Reader::new();
    let (mut messages, mut received) = (0, 0);
    for piece in pieces {
        received += piece.len();
        let mut input = &mut piece[..];
        loop {
            let event = match reader.read(rules, &mut input) {
                Ok(event) => event,
                Err(violation) => return (messages, Err(violation)),
            };
            match event {
                None => break,
                Some(Event::Message { payload, .. }) => {
                    assert!(payload.len() <= rules.message_size_limit);
                    messages += 1;
                }
                Some(Event::Ping(payload)) => assert!(payload.len() <= 125),
                Some(Event::Close { reason, .. }) => assert!(reason.len() <= 123),
                Some(Event::Pong) => {}
            }
        }
        let bound = (2 * received).min(rules.message_size_limit) + OVERHEAD;
        assert!(reader.memory() <= bound, "{} of memory after {received} bytes", reader.memory());
    }
    (messages, Ok(()))
}

#[test]
fn a_frame_cut_anywhere_waits_for_the_rest() {
    for bytes in conversations() {
        for rules in rules() {
            let (all, result) = read(rules, &mut [bytes.clone()]);
            assert_eq!(result, Ok(()));
            for length in (0..bytes.len()).step_by(1 + bytes.len() / 1000) {
                let (messages, result) = read(rules, &mut [bytes[..length].to_vec()]);
                assert_eq!(result, Ok(()), "cut at {length}");
                assert!(messages <= all);
                let resumed = read(rules, &mut [bytes[..length].to_vec(), bytes[length..].to_vec()]);
                assert_eq!(resumed, (all, Ok(())), "cut at {length}");
            }
        }
    }
}

#[test]
fn every_beginning_of_two_bytes_is_read_or_refused() {
    for rules in rules() {
        for first in 0..=255u8 {
            for second in 0..=255u8 {
                let mut bytes = vec![first, second];
                bytes.extend((0..40u8).map(|byte| byte.wrapping_mul(37)));
                let (_, whole) = read(rules, &mut [bytes.clone()]);
                let mut single: Vec<_> = bytes.iter().map(|byte| vec![*byte]).collect();
                assert_eq!(read(rules, &mut single).1, whole, "{first:#x} {second:#x}");
                if second < 0x80 {
                    assert!(whole.is_err(), "unmasked {first:#x} {second:#x}");
                }
            }
        }
    }
}

#[test]
fn a_bent_bit_is_read_or_refused() {
    for bytes in conversations() {
        for rules in rules() {
            for at in (0..bytes.len()).step_by(1 + bytes.len() / 200) {
                for bit in 0..8 {
                    let mut bent = bytes.clone();
                    bent[at] ^= 1 << bit;
                    let (head, tail) = bent.split_at(bent.len() / 2);
                    let _ = read(rules, &mut [head.to_vec(), tail.to_vec()]);
                }
            }
        }
    }
}

#[test]
fn an_announced_length_takes_no_memory_by_itself() {
    for rules in rules() {
        for length in [126u64, 1000, LIMIT as u64, LIMIT as u64 + 1, u64::from(u32::MAX), 1 << 62, u64::MAX] {
            let header = [&[0x82, 0xff][..], &length.to_be_bytes(), &[1, 2, 3, 4, 5]].concat();
            let (messages, result) = read(rules, &mut [header]);
            assert_eq!(messages, 0);
            assert_eq!(result.is_ok(), length <= LIMIT as u64, "{length}");
        }
    }
}

#[test]
fn endless_empty_fragments_take_no_memory() {
    let mut pieces = vec![masked(0x01, b"x")];
    pieces.resize(10_000, masked(0x00, b""));
    for rules in rules() {
        // The bound that is checked after every piece grows with what came; this one does not.
        assert_eq!(read(rules, &mut pieces.clone()), (0, Ok(())));
        let mut reader = Reader::new();
        for piece in &mut pieces.clone() {
            reader.read(rules, &mut &mut piece[..]).unwrap();
        }
        assert!(reader.memory() < OVERHEAD);
    }
}

#[test]
fn commands_cut_or_bent_anywhere_are_read_or_refused() {
    let json = "{\"id\":1,\"connect\":{\"token\":\"é\\u00e9\",\"data\":{\"a\":[1,null]},\"subs\":{\"c\":{\"offset\":5}}}}\n\
                {\"id\":2,\"subscribe\":{\"channel\":\"c\",\"tf\":{\"op\":\"and\",\"nodes\":[{\"key\":\"k\"}]}}}\n\
                {\"id\":3,\"history\":{\"channel\":\"c\",\"since\":{\"offset\":3,\"epoch\":\"e\"}}}";
    let protobuf = b"\x0b\x08\x02\x2a\x07\x0a\x01c\x6a\x02\x0a\x00\x00\x08\x08\x03\x3a\x04\x0a\x00\x12\x00";
    for (protocol, bytes) in [(Protocol::Json, json.as_bytes()), (Protocol::Protobuf, protobuf)] {
        let all = wire::commands(protocol, bytes).filter(Result::is_ok).count();
        assert_eq!(all, 3, "{protocol:?}");
        for length in 0..bytes.len() {
            let sound = wire::commands(protocol, &bytes[..length]).filter(Result::is_ok).count();
            assert!(sound < all, "{protocol:?} cut at {length}");
        }
        for at in 0..bytes.len() {
            for byte in 0..=255 {
                let mut bent = bytes.to_vec();
                bent[at] = byte;
                assert!(wire::commands(protocol, &bent).count() <= 40);
            }
        }
    }
}

#[test]
fn hostile_nesting_and_lengths_in_commands_are_refused_without_their_cost() {
    let nest = |open: &str, depth: usize| format!("{{\"id\":1,\"subscribe\":{{\"tf\":{}", open.repeat(depth));
    for text in [nest("{\"nodes\":[", 6_000), nest("[", 60_000), "[".repeat(65_536), "{\"a\":".repeat(13_000)] {
        assert!(wire::commands(Protocol::Json, text.as_bytes()).all(|command| command.is_err()));
    }
    // A length of 2^63, of one more than there is, and a varint without an end.
    for bytes in [&b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x08"[..], b"\x03\x08\x01", &[0x80; 100]] {
        assert!(wire::commands(Protocol::Protobuf, bytes).all(|command| command.is_err()));
    }
}

#[test]
fn any_payload_from_a_backend_is_embedded_or_refused() {
    let mut out = Vec::new();
    for first in 0..=255u8 {
        for second in 0..=255u8 {
            let data = Bytes::from(vec![first, second]);
            let before = out.len();
            let refused = wire::reply(Protocol::Json, 1, &Reply::Rpc(data.clone()), &mut out).is_err();
            assert_eq!(refused, out.len() == before);
            assert!(std::str::from_utf8(&out[before..]).is_ok_and(|text| !text.contains('\n')));
            let publication = Publication { data, ..Publication::default() };
            let push = wire::publication_push(Protocol::Protobuf, &"c".into(), &publication, &mut out);
            assert_eq!(push, Ok(()));
            out.clear();
        }
    }
}

#[test]
fn bytes_that_are_not_deflated_do_not_harm_the_inflater() {
    let mut inflater = Inflater::new();
    for first in 0..=255u8 {
        for second in 0..=255u8 {
            let mut out = Vec::new();
            let _ = inflater.inflate(&[first, second, 0xaa, 0x55, 1, 0, 0xfe, 0xff], 1000, &mut out);
            assert!(out.capacity() <= 2048);
        }
    }
    let mut out = Vec::new();
    inflater.inflate(b"\xf2\x48\xcd\xc9\xc9\x07\x00", 5, &mut out).unwrap();
    assert_eq!(out, b"Hello");
}
