//! Messages preceded by their length as a varint. The empty message, one zero byte, is the ping and the pong.

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;

use super::{DecodeError, EncodeError};

pub(super) fn encode(message: &impl Message, frame: &mut BytesMut) -> Result<(), EncodeError> {
    message.encode_length_delimited(frame).map_err(|error| EncodeError(error.to_string()))
}

/// Payloads of the result are slices of `frame`.
pub(super) fn decode<M: Message + Default>(mut frame: Bytes) -> Result<Vec<M>, DecodeError> {
    if frame.is_empty() {
        return Err(DecodeError("empty frame".to_owned()));
    }
    let mut messages = Vec::new();
    while frame.has_remaining() {
        let length = prost::encoding::decode_varint(&mut frame).map_err(|error| DecodeError(error.to_string()))?;
        // Compared as u64: a length that does not fit usize is certainly longer than the frame.
        if length > frame.remaining() as u64 {
            return Err(DecodeError(format!("a message of {length} bytes in the last {} bytes", frame.remaining())));
        }
        let message = M::decode(frame.split_to(length as usize)).map_err(|error| DecodeError(error.to_string()))?;
        messages.push(message);
    }
    Ok(messages)
}
