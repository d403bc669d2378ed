//! The mask of frames from clients, RFC 6455 section 5.3.

/// Applies the mask in place; applying it again takes it off.
///
/// `offset` is the place of `bytes` within the payload of the frame, so that a payload can be unmasked in pieces.
pub fn unmask(bytes: &mut [u8], mask: [u8; 4], offset: usize) {
    let mut turned = mask;
    turned.rotate_left(offset % 4);
    let word = u64::from(u32::from_ne_bytes(turned));
    let word = word << 32 | word;

    let (words, rest) = bytes.as_chunks_mut::<8>();
    for chunk in words {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(turned.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::unmask;

    #[test]
    fn unmasking_in_pieces_is_unmasking_byte_by_byte() {
        let mask = [1, 20, 120, 255];
        let payload: Vec<u8> = (0..200).collect();
        let expected: Vec<u8> = payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
        for length in 0..payload.len() {
            for cut in [0, 1, 2, 3, 5, 8, 13, length] {
                let cut = cut.min(length);
                let mut bytes = payload[..length].to_vec();
                let (head, tail) = bytes.split_at_mut(cut);
                unmask(head, mask, 0);
                unmask(tail, mask, cut);
                assert_eq!(bytes, expected[..length], "{length} cut at {cut}");
            }
        }
    }
}
