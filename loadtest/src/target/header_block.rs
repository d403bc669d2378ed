//! Header blocks of HTTP/2 (RFC 7541) as far as a client needs them that wants to know one header.
//!
//! Requests are static table entries and literals that are never indexed. In answers only `grpc-status` is looked for; the
//! rest is stepped over without decoding it.

/// A `grpc-status`; `None` is one whose number could not be read.
pub(super) type Status = Option<u32>;

/// The header block of every request: static table entries and literals that are never indexed.
pub(super) fn request_headers(host: &str, key: &str) -> Vec<u8> {
    const METHOD_POST: u8 = 0x83;
    const SCHEME_HTTP: u8 = 0x86;
    let mut block = vec![METHOD_POST, SCHEME_HTTP];
    literal(&mut block, 4, "/centrifugal.centrifugo.api.CentrifugoApi/Publish");
    literal(&mut block, 1, host);
    literal(&mut block, 31, "application/grpc");
    block.push(0);
    string(&mut block, "te");
    string(&mut block, "trailers");
    if !key.is_empty() {
        literal(&mut block, 23, &format!("apikey {key}"));
    }
    block
}

fn literal(block: &mut Vec<u8>, static_name: usize, value: &str) {
    integer(block, 0, 4, static_name);
    string(block, value);
}

fn string(block: &mut Vec<u8>, value: &str) {
    integer(block, 0, 7, value.len());
    block.extend_from_slice(value.as_bytes());
}

fn integer(block: &mut Vec<u8>, pattern: u8, prefix_bits: u32, value: usize) {
    let limit = (1usize << prefix_bits) - 1;
    if value < limit {
        return block.push(pattern | value as u8);
    }
    block.push(pattern | limit as u8);
    let mut rest = value - limit;
    while rest >= 128 {
        block.push(rest as u8 & 127 | 128);
        rest >>= 7;
    }
    block.push(rest as u8);
}

/// "grpc-status" in the Huffman code of RFC 7541 appendix B.
const GRPC_STATUS_HUFFMAN: [u8; 8] = [0x9a, 0xca, 0xc8, 0xb2, 0x12, 0x34, 0xda, 0x8f];

/// Finds `grpc-status` in a block: `None` when the block is malformed, `Some(None)` when it is not there.
pub(super) fn grpc_status(block: &[u8]) -> Option<Option<Status>> {
    let mut rest = block;
    let mut found = None;
    while let Some(&first) = rest.first() {
        if first & 0x80 != 0 {
            read_integer(&mut rest, 7)?;
            continue;
        }
        if first & 0xe0 == 0x20 {
            read_integer(&mut rest, 5)?;
            continue;
        }
        let prefix = if first & 0xc0 == 0x40 { 6 } else { 4 };
        let name = match read_integer(&mut rest, prefix)? {
            0 => Some(read_string(&mut rest)?),
            _ => None,
        };
        let (value, huffman) = read_string(&mut rest)?;
        if matches!(name, Some((b"grpc-status", false))) || name == Some((&GRPC_STATUS_HUFFMAN, true)) {
            found = Some(if huffman { huffman_number(value) } else { str::from_utf8(value).ok()?.parse().ok() });
        }
    }
    Some(found)
}

fn read_integer(rest: &mut &[u8], prefix_bits: u32) -> Option<usize> {
    let (&first, tail) = rest.split_first()?;
    *rest = tail;
    let limit = (1usize << prefix_bits) - 1;
    let mut value = usize::from(first) & limit;
    if value < limit {
        return Some(value);
    }
    for shift in [0, 7, 14, 21] {
        let (&next, tail) = rest.split_first()?;
        *rest = tail;
        value += usize::from(next & 127) << shift;
        if next & 128 == 0 {
            return Some(value);
        }
    }
    None
}

/// Bytes of a string, and whether they are Huffman code.
fn read_string<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], bool)> {
    let huffman = rest.first()? & 0x80 != 0;
    let length = read_integer(rest, 7)?;
    let (string, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some((string, huffman))
}

/// A decimal number of at most four digits in Huffman code: 0 to 2 are five bits, 3 to 9 six bits, padding is ones.
fn huffman_number(code: &[u8]) -> Option<u32> {
    let bits = code.iter().fold(String::new(), |bits, byte| bits + &format!("{byte:08b}"));
    let mut rest = bits.as_str();
    let mut number = None;
    // What is left and has no zero is padding: no digit's code is all ones.
    while rest.contains('0') {
        let five = u32::from_str_radix(rest.get(..5)?, 2).ok()?;
        let (digit, used) = if five <= 2 {
            (five, 5)
        } else {
            let six = u32::from_str_radix(rest.get(..6)?, 2).ok()?;
            (six.checked_sub(0x19).filter(|&above| above < 7)? + 3, 6)
        };
        number = Some(number.unwrap_or(0) * 10 + digit);
        rest = &rest[used..];
        if number > Some(9_999) {
            return None;
        }
    }
    number.filter(|_| rest.len() < 8)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::target) fn status_block(value: &[u8], huffman: bool) -> Vec<u8> {
        let mut block = vec![0x40];
        if huffman {
            block.push(0x88);
            block.extend_from_slice(&GRPC_STATUS_HUFFMAN);
            block.push(0x80 | value.len() as u8);
        } else {
            string(&mut block, "grpc-status");
            block.push(value.len() as u8);
        }
        block.extend_from_slice(value);
        block
    }

    #[test]
    fn the_huffman_form_of_the_name_is_right() {
        let codes = "100110 101100 101011 00100 010110 01000 01001 00011 01001 101101 01000 1111".replace(' ', "");
        let bytes: Vec<u8> =
            (0..8).map(|byte| u8::from_str_radix(&codes[8 * byte..8 * byte + 8], 2).expect("bits")).collect();
        assert_eq!(bytes, GRPC_STATUS_HUFFMAN);
    }

    #[test]
    fn a_status_is_read_in_both_codings() {
        assert_eq!(grpc_status(&status_block(b"0", false)), Some(Some(Some(0))));
        assert_eq!(grpc_status(&status_block(&[0x07], true)), Some(Some(Some(0))));
        assert_eq!(grpc_status(&status_block(b"16", false)), Some(Some(Some(16))));
        assert_eq!(grpc_status(&status_block(&[0b0000_1011, 0b1001_1111], true)), Some(Some(Some(16))));
        assert_eq!(grpc_status(&status_block(&[0b0000_1011], true)), Some(Some(None)), "a broken code");
        assert_eq!(grpc_status(&[0x88]), Some(None));
        assert_eq!(grpc_status(&[0x40, 0x7f]), None);
    }
}
