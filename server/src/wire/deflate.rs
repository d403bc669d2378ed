//! permessage-deflate without context takeover, RFC 7692.
//!
//! Without context takeover every message is compressed for itself. So no connection holds a window (a compressor takes
//! 380 KB, a decompressor 48 KB): one [`Deflater`] and one [`Inflater`] serve all connections of a worker, and a
//! message is compressed once for all subscribers whose [`Params`] are equal.

use std::fmt;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use http::{HeaderMap, header::SEC_WEBSOCKET_EXTENSIONS};

use super::websocket::Violation;

const EXTENSION: &str = "permessage-deflate";

/// End of a deflate stream that was flushed to a byte boundary: an empty block, which is not transmitted.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

const LARGEST_WINDOW: u8 = 15;
/// The format knows 8, but zlib cannot compress with it.
const SMALLEST_WINDOW: u8 = 9;

/// What was agreed upon in the handshake. Displayed it is the extension's answer in the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Params {
    /// Base-2 logarithm of the window that messages to the client may use, 9 to 15.
    window_bits: u8,
}

/// The largest window: what nearly every client agrees to.
impl Default for Params {
    fn default() -> Self {
        Self { window_bits: LARGEST_WINDOW }
    }
}

/// Order of the parameters: that of the reference server.
impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{EXTENSION}; server_no_context_takeover; client_no_context_takeover")?;
        if self.window_bits < LARGEST_WINDOW {
            write!(f, "; server_max_window_bits={}", self.window_bits)?;
        }
        Ok(())
    }
}

/// Finds the first offer that can be accepted in the `Sec-WebSocket-Extensions` headers of a request.
///
/// An offer with a parameter that is unknown, repeated or out of range is declined, RFC 7692 section 7.1. The reference
/// server accepts it and does not keep to it.
pub fn negotiate(headers: &HeaderMap) -> Option<Params> {
    let values = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).find_map(accept)
}

fn accept(offer: &str) -> Option<Params> {
    let mut parts = offer.split(';').map(str::trim);
    if parts.next() != Some(EXTENSION) {
        return None;
    }
    let mut params = Params { window_bits: LARGEST_WINDOW };
    let mut seen = Vec::new();
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(value.trim_start().trim_matches('"'))),
            None => (part, None),
        };
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
        match (name, value) {
            ("server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits", None) => {}
            ("client_max_window_bits", Some(bits)) => drop(window_bits(bits)?),
            ("server_max_window_bits", Some(bits)) => params.window_bits = window_bits(bits)?,
            _ => return None,
        }
    }
    (params.window_bits >= SMALLEST_WINDOW).then_some(params)
}

fn window_bits(value: &str) -> Option<u8> {
    let plain = value.bytes().all(|byte| byte.is_ascii_digit()) && !value.starts_with('0');
    value.parse().ok().filter(|bits| plain && (8..=LARGEST_WINDOW).contains(bits))
}

/// Compresses messages, one after the other.
///
/// Holds one compressor for each size of window that was asked for, made at its first use.
#[derive(Debug)]
pub struct Deflater {
    level: Compression,
    compressors: [Option<Compress>; (LARGEST_WINDOW - SMALLEST_WINDOW) as usize + 1],
}

impl Deflater {
    /// `level` goes from 0, no compression, to 9, the slowest; more is taken for 9.
    pub fn new(level: u32) -> Self {
        Self { level: Compression::new(level.min(9)), compressors: Default::default() }
    }

    /// Appends the compressed message to `out`, to be sent as a
    /// [`deflated_frame`](super::websocket::deflated_frame).
    pub fn deflate(&mut self, params: Params, message: &[u8], out: &mut Vec<u8>) {
        let slot = &mut self.compressors[usize::from(params.window_bits - SMALLEST_WINDOW)];
        let compressor =
            slot.get_or_insert_with(|| Compress::new_with_window_bits(self.level, false, params.window_bits));
        compressor.reset();
        let mut rest = message;
        loop {
            out.reserve(rest.len() / 2 + 32);
            let before = compressor.total_in();
            compressor
                .compress_vec(rest, out, FlushCompress::Sync)
                .expect("a compressor that was just reset takes any input");
            rest = &rest[(compressor.total_in() - before) as usize..];
            // Room left over means that nothing more waited to be written.
            if rest.is_empty() && out.len() < out.capacity() {
                break;
            }
        }
        if out.ends_with(&TAIL) {
            out.truncate(out.len() - TAIL.len());
        }
    }
}

/// Inflates messages, one after the other, of any client window. The decompressor is made at the first message.
#[derive(Debug, Default)]
pub struct Inflater {
    decompressor: Option<Decompress>,
}

impl Inflater {
    /// An inflater that holds nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the inflated message to `out`, at most `limit` bytes.
    ///
    /// Fails with [`Violation::TOO_LARGE`] beyond the limit, having written little more than it, and with
    /// [`Violation::NOT_DEFLATED`]. What a failure left in `out` has no meaning. Client protocol: the limit is ten
    /// times the limit of messages.
    pub fn inflate(&mut self, message: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Violation> {
        let decompressor = self.decompressor.get_or_insert_with(|| Decompress::new(false));
        decompressor.reset(false);
        let start = out.len();
        for mut rest in [message, &TAIL] {
            loop {
                let room = limit.saturating_add(1) - (out.len() - start);
                out.reserve_exact(room.min(2 * rest.len() + 64));
                let before = (decompressor.total_in(), out.len());
                let status = decompressor
                    .decompress_vec(rest, out, FlushDecompress::Sync)
                    .map_err(|_| Violation::NOT_DEFLATED)?;
                rest = &rest[(decompressor.total_in() - before.0) as usize..];
                if out.len() - start > limit {
                    return Err(Violation::TOO_LARGE);
                }
                if status == Status::StreamEnd {
                    // The sender may mark its last block; the tail that it left out means nothing then.
                    return Ok(());
                }
                let full = out.len() == out.capacity();
                if rest.is_empty() && !full {
                    break;
                }
                if (decompressor.total_in(), out.len()) == before && !full {
                    return Err(Violation::NOT_DEFLATED);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn answer(offers: &[&'static str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for offer in offers {
            headers.append(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(offer));
        }
        negotiate(&headers).map(|params| params.to_string())
    }

    const PLAIN: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    #[test]
    fn offers_are_answered_without_context_takeover() {
        for offer in [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate;client_max_window_bits=\"12\" ; server_no_context_takeover;client_no_context_takeover",
            "permessage-deflate; server_max_window_bits=15",
            "x-other, permessage-deflate",
            "permessage-deflate; server_max_window_bits=8, permessage-deflate",
            "permessage-deflate; bogus,permessage-deflate; client_max_window_bits",
        ] {
            assert_eq!(answer(&[offer]).as_deref(), Some(PLAIN), "{offer}");
        }
        assert_eq!(answer(&["x-other", "permessage-deflate"]).as_deref(), Some(PLAIN));
        assert_eq!(
            answer(&["permessage-deflate; server_max_window_bits=10"]),
            Some(format!("{PLAIN}; server_max_window_bits=10"))
        );
    }

    #[test]
    fn offers_that_cannot_be_kept_are_declined() {
        for offer in [
            "",
            "x-webkit-deflate-frame",
            "permessage-deflate; bogus",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=010",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_no_context_takeover=1",
            "permessage-deflate; client_max_window_bits; client_max_window_bits",
        ] {
            assert_eq!(answer(&[offer]), None, "{offer}");
        }
        assert_eq!(answer(&[]), None);
    }

    fn inflated(message: &[u8], limit: usize) -> Result<Vec<u8>, Violation> {
        let mut out = Vec::new();
        Inflater::new().inflate(message, limit, &mut out).map(|()| out)
    }

    /// RFC 7692 section 7.2.3: the examples, all saying Hello.
    #[test]
    fn inflates_every_form_of_message_that_the_standard_shows() {
        for message in [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00, 0x00, 0xff, 0xff, 0x00],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        ] {
            assert_eq!(inflated(message, 5).as_deref(), Ok(&b"Hello"[..]), "{message:x?}");
        }
        assert_eq!(inflated(&[0x00], 0).as_deref(), Ok(&[][..]));
    }

    #[test]
    fn a_message_that_inflates_beyond_the_limit_is_refused_without_its_memory() {
        let mut small = Vec::new();
        Deflater::new(9).deflate(Params { window_bits: 15 }, &vec![b'a'; 10_000_000], &mut small);
        assert!(small.len() < 20_000);
        let mut out = Vec::new();
        assert_eq!(Inflater::new().inflate(&small, 65_536, &mut out), Err(Violation::TOO_LARGE));
        assert!(out.capacity() < 200_000);
    }

    #[test]
    fn what_is_not_deflated_is_refused_and_the_inflater_lives_on() {
        let mut inflater = Inflater::new();
        for broken in [&[0xff, 0xff][..], &[0x07], &[0x00, 0x05, 0x00]] {
            assert_eq!(inflater.inflate(broken, 100, &mut Vec::new()), Err(Violation::NOT_DEFLATED), "{broken:x?}");
            let mut out = Vec::new();
            inflater.inflate(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], 100, &mut out).unwrap();
            assert_eq!(out, b"Hello");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn messages_come_back_as_they_were(
            messages in proptest::collection::vec(
                prop_oneof![proptest::collection::vec(any::<u8>(), 0..3000), proptest::collection::vec(0..3u8, 0..30_000)],
                1..4,
            ),
            window_bits in SMALLEST_WINDOW..=LARGEST_WINDOW,
            level in 0..11u32,
        ) {
            let (mut deflater, mut inflater) = (Deflater::new(level), Inflater::new());
            for message in messages {
                let (mut small, mut out) = (b"head".to_vec(), b"head".to_vec());
                deflater.deflate(Params { window_bits }, &message, &mut small);
                prop_assert!(!small.ends_with(&TAIL));
                inflater.inflate(&small[4..], message.len(), &mut out).unwrap();
                prop_assert_eq!(&out[4..], &message);
                if !message.is_empty() {
                    let short = inflater.inflate(&small[4..], message.len() - 1, &mut Vec::new());
                    prop_assert_eq!(short, Err(Violation::TOO_LARGE));
                }
            }
        }

        #[test]
        fn any_bytes_are_inflated_or_refused(message in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            if Inflater::new().inflate(&message, 1000, &mut out).is_ok() {
                prop_assert!(out.len() <= 1000);
            }
        }
    }
}
