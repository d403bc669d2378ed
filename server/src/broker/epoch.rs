//! Names for the lives of streams.

/// A fresh epoch: 8 letters, A-Z and a-z. Clients and other nodes take any text; this is what Centrifugo writes.
pub(super) fn random() -> String {
    const LETTERS: &[u8; 52] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let bytes: [u8; 8] = rand::random();
    bytes.iter().map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect()
}
