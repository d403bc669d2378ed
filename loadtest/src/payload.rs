//! What a published message looks like, and how a received one is checked.
//!
//! Every payload is one JSON object of a fixed layout, so that writing and checking it costs a few dozen nanoseconds and
//! needs no JSON parser:
//!
//! ```text
//! {"r":"RRRRRRRR","h":"CCCCCC","p":"PPPP","s":"SSSSSSSSSS","d":"DDDDDDDDDDDDDDDD","c":"KKKKKKKK","x":"padding"}
//! ```
//!
//! Lower-case hexadecimal: `r` the run, `h` the channel's index, `p` the stream within the channel, `s` the sequence
//! number within that stream from 0, `d` when the message was due (Unix nanoseconds), `c` a checksum over all of these.
//! The padding is a window of a pool that the run's seed determines; where the window begins follows from the sequence
//! number, so checking it is one comparison of memory and any altered byte shows. A run with several sizes gives them to
//! the messages of a stream in turn.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Bytes of a payload without padding.
pub const MINIMUM_BYTES: usize = 102;

/// Largest index of a channel, exclusive: six hexadecimal digits.
pub const CHANNEL_LIMIT: u32 = 1 << 24;

const POOL_STARTS: usize = 64;

/// Where the digits of the sequence number begin.
const SEQ_AT: usize = 45;

/// What one publication says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Index of the channel it was published to.
    pub channel: u32,
    /// Stream within the channel: publications of one stream are sent in order.
    pub stream: u16,
    /// Sequence number within the stream, from 0.
    pub seq: u64,
    /// When it was due, Unix nanoseconds.
    pub due_ns: u64,
}

/// Why a received payload is not what was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alteration {
    /// The layout or the checksum does not hold: nothing the stamp says can be believed.
    Stamp,
    /// The stamp holds, the padding or the length does not.
    Padding(Stamp),
    /// A sound stamp of another run: not an alteration, somebody else uses the channel.
    ForeignRun,
}

/// Writes and checks the payloads of one run.
#[derive(Clone, Debug)]
pub struct PayloadFormat {
    run: u32,
    sizes: Vec<usize>,
    pool: Vec<u8>,
}

impl PayloadFormat {
    /// A format for payloads of `sizes` bytes in turn, each at least [`MINIMUM_BYTES`].
    ///
    /// `run` tells runs apart that share a server; `seed` determines the padding, of which the share `compressible`
    /// (0 to 1) is one and the same letter.
    pub fn new(run: u32, sizes: &[usize], compressible: f64, seed: u64) -> Self {
        let mut sizes: Vec<usize> = sizes.iter().map(|&bytes| bytes.max(MINIMUM_BYTES)).collect();
        if sizes.is_empty() {
            sizes.push(MINIMUM_BYTES);
        }
        let longest = sizes.iter().max().copied().unwrap_or(MINIMUM_BYTES);
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut random = StdRng::seed_from_u64(seed);
        let mut letter = || {
            let letter = alphabet[random.random_range(0..alphabet.len())];
            if compressible > 0.0 && random.random_bool(compressible.min(1.0)) { b'A' } else { letter }
        };
        let pool = (0..longest - MINIMUM_BYTES + POOL_STARTS).map(|_| letter()).collect();
        PayloadFormat { run, sizes, pool }
    }

    /// Length of message `seq` of any stream.
    pub fn bytes(&self, seq: u64) -> usize {
        match self.sizes[..] {
            [only] => only,
            _ => self.sizes[(seq % self.sizes.len() as u64) as usize],
        }
    }

    /// The length that a received payload must have by what its beginning says; any length when it says nothing.
    pub fn expected_bytes(&self, beginning: &[u8]) -> usize {
        if let [only] = self.sizes[..] {
            return only;
        }
        let seq = beginning.get(SEQ_AT..).and_then(|rest| unhex(rest, 10));
        seq.map_or(0, |(seq, _)| self.bytes(seq))
    }

    /// Appends one payload to `out`.
    pub fn write(&self, stamp: Stamp, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"r\":\"");
        hex(out, u64::from(self.run), 8);
        out.extend_from_slice(b"\",\"h\":\"");
        hex(out, u64::from(stamp.channel), 6);
        out.extend_from_slice(b"\",\"p\":\"");
        hex(out, u64::from(stamp.stream), 4);
        out.extend_from_slice(b"\",\"s\":\"");
        hex(out, stamp.seq, 10);
        out.extend_from_slice(b"\",\"d\":\"");
        hex(out, stamp.due_ns, 16);
        out.extend_from_slice(b"\",\"c\":\"");
        hex(out, u64::from(checksum(self.run, stamp)), 8);
        out.extend_from_slice(b"\",\"x\":\"");
        out.extend_from_slice(self.padding(stamp.seq));
        out.extend_from_slice(b"\"}");
    }

    /// Checks a received payload and returns its stamp.
    ///
    /// # Errors
    ///
    /// [`Alteration`] says how much of the message can still be believed.
    pub fn check(&self, payload: &[u8]) -> Result<Stamp, Alteration> {
        let (run, stamp, padding) = parse(payload).ok_or(Alteration::Stamp)?;
        if run != self.run {
            return Err(Alteration::ForeignRun);
        }
        if payload.len() == self.bytes(stamp.seq) && padding == self.padding(stamp.seq) {
            Ok(stamp)
        } else {
            Err(Alteration::Padding(stamp))
        }
    }

    fn padding(&self, seq: u64) -> &[u8] {
        let start = (seq % POOL_STARTS as u64) as usize;
        &self.pool[start..start + self.bytes(seq) - MINIMUM_BYTES]
    }
}

fn parse(payload: &[u8]) -> Option<(u32, Stamp, &[u8])> {
    let rest = payload.strip_prefix(b"{\"r\":\"")?;
    let (run, rest) = unhex(rest, 8)?;
    let (channel, rest) = unhex(rest.strip_prefix(b"\",\"h\":\"")?, 6)?;
    let (stream, rest) = unhex(rest.strip_prefix(b"\",\"p\":\"")?, 4)?;
    let (seq, rest) = unhex(rest.strip_prefix(b"\",\"s\":\"")?, 10)?;
    let (due_ns, rest) = unhex(rest.strip_prefix(b"\",\"d\":\"")?, 16)?;
    let (sum, rest) = unhex(rest.strip_prefix(b"\",\"c\":\"")?, 8)?;
    let padding = rest.strip_prefix(b"\",\"x\":\"")?.strip_suffix(b"\"}")?;
    let stamp = Stamp { channel: channel as u32, stream: stream as u16, seq, due_ns };
    (u64::from(checksum(run as u32, stamp)) == sum).then_some((run as u32, stamp, padding))
}

/// A 32-bit mix of everything a stamp says; any changed digit changes it with all but certainty.
fn checksum(run: u32, stamp: Stamp) -> u32 {
    let mut mixed = u64::from(run) << 32 | u64::from(stamp.channel);
    for part in [u64::from(stamp.stream), stamp.seq, stamp.due_ns] {
        mixed = (mixed ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^= mixed >> 29;
    }
    (mixed ^ mixed >> 32) as u32
}

fn hex(out: &mut Vec<u8>, value: u64, digits: u32) {
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(value >> (4 * place) & 15) as usize]);
    }
}

fn unhex(bytes: &[u8], digits: usize) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_at_checked(digits)?;
    let mut value = 0;
    for &digit in number {
        let nibble = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        value = value << 4 | u64::from(nibble);
    }
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { channel: 7, stream: 3, seq: 42, due_ns: 1_790_000_000_123_456_789 };

    fn written(format: &PayloadFormat) -> Vec<u8> {
        let mut payload = Vec::new();
        format.write(STAMP, &mut payload);
        payload
    }

    #[test]
    fn a_written_payload_is_json_of_the_wanted_length_and_reads_back() {
        for bytes in [MINIMUM_BYTES, 128, 4096] {
            let format = PayloadFormat::new(9, &[bytes], 0.0, 1);
            let payload = written(&format);
            assert_eq!(payload.len(), bytes);
            assert_eq!(format.check(&payload), Ok(STAMP));
            serde_json::from_slice::<serde_json::Value>(&payload).expect("the layout is JSON");
        }
    }

    #[test]
    fn sizes_take_turns_and_the_beginning_of_a_payload_tells_its_length() {
        let format = PayloadFormat::new(9, &[128, 300, 110], 0.5, 1);
        for seq in 0..6 {
            let mut payload = Vec::new();
            format.write(Stamp { seq, ..STAMP }, &mut payload);
            assert_eq!(payload.len(), [128, 300, 110][seq as usize % 3]);
            assert_eq!(format.expected_bytes(&payload), payload.len());
            assert_eq!(format.check(&payload).map(|stamp| stamp.seq), Ok(seq));
        }
        assert_eq!(format.expected_bytes(b"{}"), 0);
    }

    #[test]
    fn every_altered_bit_is_found() {
        let format = PayloadFormat::new(9, &[160], 0.0, 1);
        let payload = written(&format);
        for byte in 0..payload.len() {
            for bit in 0..8 {
                let mut altered = payload.clone();
                altered[byte] ^= 1 << bit;
                assert_ne!(format.check(&altered), Ok(STAMP), "byte {byte} bit {bit}");
            }
        }
    }

    #[test]
    fn every_truncation_is_found() {
        let format = PayloadFormat::new(9, &[160], 0.0, 1);
        let payload = written(&format);
        for length in 0..payload.len() {
            assert!(format.check(&payload[..length]).is_err(), "length {length}");
        }
    }

    #[test]
    fn an_altered_padding_leaves_the_stamp_believable() {
        let format = PayloadFormat::new(9, &[160], 0.0, 1);
        let mut payload = written(&format);
        payload[150] = b'!';
        assert_eq!(format.check(&payload), Err(Alteration::Padding(STAMP)));
    }

    #[test]
    fn a_message_of_another_run_is_foreign_not_altered() {
        let payload = written(&PayloadFormat::new(10, &[160], 0.0, 1));
        assert_eq!(PayloadFormat::new(9, &[160], 0.0, 1).check(&payload), Err(Alteration::ForeignRun));
    }
}
