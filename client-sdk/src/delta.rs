//! Patches in the Fossil format: what subscribers with delta compression get instead of whole payloads.
//!
//! ```text
//! patch      size "\n" operation* checksum ";"
//! operation  count "@" offset ","        copies count bytes of the base from offset
//!            count ":" bytes             inserts the count bytes that follow
//! checksum   sum of the result's big-endian 32-bit words, the last one filled up with zeros, modulo 2^32
//! numbers    in base 64, the most significant digit first: 0-9 A-Z _ a-z ~
//! ```
//!
//! Source: client protocol, delta compression; the format is that of Fossil's delta encoding. Making patches is the work
//! of servers; here they are only applied.

use std::fmt;

/// Applies a patch to its base and returns the result.
///
/// Nothing larger than `max_bytes` is made, and never more than the patch declares in its head; memory is taken as
/// operations fill it, so that a short patch cannot make much be reserved by only declaring it.
///
/// # Errors
///
/// The patch is damaged, rests on another base, or its result is larger than `max_bytes`. Nothing of it can be used; only
/// a whole payload helps.
pub fn apply(base: &[u8], patch: &[u8], max_bytes: usize) -> Result<Vec<u8>, PatchError> {
    let mut rest = Rest(patch);
    let size = rest.number()?;
    if rest.byte()? != b'\n' {
        return Err(PatchError::Malformed);
    }
    if size > max_bytes {
        return Err(PatchError::TooLarge { bytes: size, max_bytes });
    }
    let mut result = Vec::with_capacity(size.min(base.len().saturating_add(patch.len())));
    loop {
        let number = rest.number()?;
        let piece = match rest.byte()? {
            b'@' => {
                let offset = rest.number()?;
                if rest.byte()? != b',' {
                    return Err(PatchError::Malformed);
                }
                base.get(offset..).and_then(|base| base.get(..number)).ok_or(PatchError::BeyondBase)?
            }
            b':' => rest.bytes(number)?,
            b';' if !rest.0.is_empty() => return Err(PatchError::Malformed),
            b';' if result.len() != size => return Err(PatchError::WrongSize),
            b';' if checksum(&result) as usize != number => return Err(PatchError::WrongChecksum),
            b';' => return Ok(result),
            _ => return Err(PatchError::Malformed),
        };
        if piece.len() > size - result.len() {
            return Err(PatchError::WrongSize);
        }
        result.extend_from_slice(piece);
    }
}

/// Returns the checksum that ends the patch for a payload.
pub fn checksum(payload: &[u8]) -> u32 {
    let (words, rest) = payload.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    words.iter().fold(u32::from_be_bytes(last), |sum, word| sum.wrapping_add(u32::from_be_bytes(*word)))
}

/// Why a patch could not be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchError {
    /// It is not of the format, or ends early.
    Malformed,
    /// It copies what the base does not have.
    BeyondBase,
    /// Its operations make more or less than its head declares.
    WrongSize,
    /// The result is not what the patch was made for.
    WrongChecksum,
    /// The result would be larger than the caller takes.
    TooLarge {
        /// Size of the result.
        bytes: usize,
        /// What the caller takes.
        max_bytes: usize,
    },
}

impl fmt::Display for PatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the patch is malformed"),
            Self::BeyondBase => f.write_str("the patch copies what the base does not have"),
            Self::WrongSize => f.write_str("the patch makes another size than it declares"),
            Self::WrongChecksum => f.write_str("the patch makes another checksum than it declares"),
            Self::TooLarge { bytes, max_bytes } => write!(f, "the patch makes {bytes} bytes, more than {max_bytes}"),
        }
    }
}

impl std::error::Error for PatchError {}

/// What is left of a patch.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn number(&mut self) -> Result<usize, PatchError> {
        let mut value = 0_usize;
        let mut digits = 0;
        while let Some(digit) = self.0.get(digits).copied().and_then(digit) {
            value = value.checked_mul(64).ok_or(PatchError::Malformed)? + digit;
            digits += 1;
        }
        if digits == 0 {
            return Err(PatchError::Malformed);
        }
        self.bytes(digits)?;
        Ok(value)
    }

    fn byte(&mut self) -> Result<u8, PatchError> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], PatchError> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(PatchError::Malformed)?;
        self.0 = rest;
        Ok(bytes)
    }
}

fn digit(byte: u8) -> Option<usize> {
    let value = match byte {
        b'0'..=b'9' => byte - b'0',
        b'A'..=b'Z' => byte - b'A' + 10,
        b'_' => 36,
        b'a'..=b'z' => byte - b'a' + 37,
        b'~' => 63,
        _ => return None,
    };
    Some(usize::from(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: usize = 1 << 20;

    /// Made by Centrifugo 6.9.1.
    const BASE: &[u8] = b"1234567890123456999999999";
    const TARGET: &[u8] = b"123456789012345677777777";
    const PATCH: &[u8] = b"O\nG@0,8:7777777711Eoy2;";

    #[test]
    fn a_patch_of_the_reference_gives_the_payload() {
        assert_eq!(apply(BASE, PATCH, MIB), Ok(TARGET.to_vec()));
        let base = br#""abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ""#;
        let patch = b"1K\n~@0,L:!!!!!!!!!!!!!!!!!!!!\"3KAJY~;";
        let target = [&base[..63], br#"!!!!!!!!!!!!!!!!!!!!""#].concat();
        assert_eq!(apply(base, patch, MIB), Ok(target));
    }

    #[test]
    fn every_defect_is_told_apart() {
        let rows: &[(&[u8], PatchError)] = &[
            (b"", PatchError::Malformed),
            (b"\n", PatchError::Malformed),
            (b"4\n", PatchError::Malformed),
            (b"4 4:abcd1XYXYX;", PatchError::Malformed),
            (b"4\n4:ab", PatchError::Malformed),
            (b"4\n4@0;", PatchError::Malformed),
            (b"4\n4@,", PatchError::Malformed),
            (b"4\n4!0", PatchError::Malformed),
            (b"4\n:abcd", PatchError::Malformed),
            (b"~~~~~~~~~~~~~~~\n", PatchError::Malformed),
            (b"0\n0;0;", PatchError::Malformed),
            (b"4\n4@M,", PatchError::BeyondBase),
            (b"4\n4@~~~~~~~~~~,", PatchError::BeyondBase),
            (b"Z\nZ@0,", PatchError::BeyondBase),
            (b"4\n3@0,0;", PatchError::WrongSize),
            (b"4\n3@0,3@0,0;", PatchError::WrongSize),
            (b"4\n5:abcde0;", PatchError::WrongSize),
            (b"4\n4@0,0;", PatchError::WrongChecksum),
            (b"1\n1:a0;", PatchError::WrongChecksum),
            (b"G001\n", PatchError::TooLarge { bytes: (16 << 18) + 1, max_bytes: MIB }),
        ];
        for (patch, error) in rows {
            assert_eq!(apply(BASE, patch, MIB), Err(*error), "{:?}", String::from_utf8_lossy(patch));
        }
        assert_eq!(apply(b"", b"0\n0;", MIB), Ok(Vec::new()));
    }

    #[test]
    fn a_patch_that_only_declares_much_reserves_little() {
        let patch = b"3~~~~\n1@0,";
        assert_eq!(apply(BASE, patch, usize::MAX), Err(PatchError::Malformed));
    }

    #[test]
    fn the_size_bound_is_the_largest_size_that_is_taken() {
        assert!(apply(BASE, PATCH, TARGET.len()).is_ok());
        let bytes = TARGET.len();
        assert_eq!(apply(BASE, PATCH, bytes - 1), Err(PatchError::TooLarge { bytes, max_bytes: bytes - 1 }));
    }

    #[test]
    fn a_checksum_counts_the_last_bytes_as_if_zeros_followed() {
        assert_eq!(checksum(b""), 0);
        assert_eq!(checksum(b"a"), 0x6100_0000);
        assert_eq!(checksum(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 2, 1]), 1 + 0x0100_0000);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_exceed_the_bound(
            base in prop::collection::vec(any::<u8>(), 0..64),
            patch in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..64),
                "[0-9A-Za-z_~]{1,2}\n([0-9A~]{1,2}(@[0-9~]{1,2},|:[0-9]{1,3}|;)){0,8}".prop_map(String::into_bytes),
            ],
        ) {
            if let Ok(result) = apply(&base, &patch, 100) {
                prop_assert!(result.len() <= 100);
            }
        }

        #[test]
        fn a_damaged_patch_fails_or_gives_what_it_gave(place in 0..PATCH.len(), byte: u8) {
            let mut patch = PATCH.to_vec();
            patch[place] = byte;
            if let Ok(result) = apply(BASE, &patch, MIB) {
                prop_assert_eq!(result, TARGET);
            }
            let _ = apply(BASE, &patch[..place], MIB).unwrap_err();
        }
    }
}
