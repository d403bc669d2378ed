//! Frames to a client: never masked, never fragmented.

use bytes::Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

use super::Kind;

/// Bytes of the longest header without a mask.
const HEADER_MAX: usize = 10;

/// Most bytes of a Close frame's reason.
const REASON_MAX: usize = 123;

/// Appends a message as one frame.
pub fn frame(kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    whole(header(kind.into(), false, payload.len()), payload, out);
}

/// Appends a message that was deflated by a [`Deflater`](crate::wire::deflate::Deflater) as one frame.
pub fn deflated_frame(kind: Kind, deflated: &[u8], out: &mut Vec<u8>) {
    whole(header(kind.into(), true, deflated.len()), deflated, out);
}

/// A message as one frame that many connections can be sent: header and payload in one allocation of exact size.
pub fn shared_frame(kind: Kind, payload: &[u8]) -> Bytes {
    shared(header(kind.into(), false, payload.len()), payload)
}

/// Like [`shared_frame`], of a message that was deflated.
pub fn shared_deflated_frame(kind: Kind, deflated: &[u8]) -> Bytes {
    shared(header(kind.into(), true, deflated.len()), deflated)
}

/// Appends a ping. Only the first 125 bytes of the payload are sent.
pub fn ping_frame(payload: &[u8], out: &mut Vec<u8>) {
    control(Control::Ping, payload, out);
}

/// Appends the answer to a ping. Only the first 125 bytes of the payload are sent.
pub fn pong_frame(payload: &[u8], out: &mut Vec<u8>) {
    control(Control::Pong, payload, out);
}

/// Appends a Close frame. A reason longer than 123 bytes is cut between two characters. Without a code there is no
/// reason either.
pub fn close_frame(code: Option<u16>, reason: &str, out: &mut Vec<u8>) {
    let mut body = Vec::with_capacity(2 + REASON_MAX);
    if let Some(code) = code {
        body.extend_from_slice(&code.to_be_bytes());
        body.extend_from_slice(&reason.as_bytes()[..reason.floor_char_boundary(REASON_MAX)]);
    }
    control(Control::Close, &body, out);
}

/// A data frame whose payload is being written to the end of a vector. Its header is filled in when the length is
/// known.
///
/// Several frames can follow each other in one vector; nothing is left between them.
#[derive(Debug)]
#[must_use = "a frame without its header is not a frame"]
pub struct OpenFrame {
    start: usize,
}

impl OpenFrame {
    /// Room kept for the header: right for payloads of 126 to 65,535 bytes, others are moved.
    const ROOM: usize = 4;

    /// Begins a frame at the end of `out`; what is appended from now on is its payload.
    pub fn begin(out: &mut Vec<u8>) -> Self {
        let start = out.len();
        out.extend_from_slice(&[0; Self::ROOM]);
        Self { start }
    }

    /// The payload so far.
    pub fn payload<'a>(&self, out: &'a [u8]) -> &'a [u8] {
        &out[self.start + Self::ROOM..]
    }

    /// Fills in the header.
    pub fn finish(self, kind: Kind, out: &mut Vec<u8>) {
        let header = header(kind.into(), false, self.payload(out).len());
        let header = header.as_slice();
        if header.len() == Self::ROOM {
            out[self.start..self.start + Self::ROOM].copy_from_slice(header);
        } else {
            out.splice(self.start..self.start + Self::ROOM, header.iter().copied());
        }
    }

    /// Takes the frame back.
    pub fn cancel(self, out: &mut Vec<u8>) {
        out.truncate(self.start);
    }
}

impl From<Kind> for OpCode {
    fn from(kind: Kind) -> Self {
        Self::Data(match kind {
            Kind::Text => Data::Text,
            Kind::Binary => Data::Binary,
        })
    }
}

/// A formatted header.
struct Header {
    bytes: [u8; HEADER_MAX],
    length: usize,
}

impl Header {
    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

fn header(opcode: OpCode, deflated: bool, payload: usize) -> Header {
    let header = FrameHeader { opcode, rsv1: deflated, ..FrameHeader::default() };
    let mut bytes = [0; HEADER_MAX];
    let mut room = &mut bytes[..];
    header.format(payload as u64, &mut room).expect("no header without a mask is longer than 10 bytes");
    let length = HEADER_MAX - room.len();
    Header { bytes, length }
}

fn control(control: Control, payload: &[u8], out: &mut Vec<u8>) {
    let payload = &payload[..payload.len().min(125)];
    whole(header(OpCode::Control(control), false, payload.len()), payload, out);
}

fn whole(header: Header, payload: &[u8], out: &mut Vec<u8>) {
    out.reserve(header.length + payload.len());
    out.extend_from_slice(header.as_slice());
    out.extend_from_slice(payload);
}

fn shared(header: Header, payload: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(header.length + payload.len());
    whole(header, payload, &mut frame);
    frame.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_stands_in_one_three_or_nine_bytes() {
        for (length, head) in [
            (0, &[0x81, 0][..]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (65_535, &[0x81, 126, 255, 255]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let payload = vec![b'x'; length];
            let expected = [head, &payload].concat();
            let mut out = Vec::new();
            frame(Kind::Text, &payload, &mut out);
            assert_eq!(out, expected);
            assert_eq!(shared_frame(Kind::Text, &payload), expected);

            let mut out = b"before".to_vec();
            for _ in 0..2 {
                let open = OpenFrame::begin(&mut out);
                out.extend_from_slice(&payload);
                assert_eq!(open.payload(&out), payload);
                open.finish(Kind::Text, &mut out);
            }
            let open = OpenFrame::begin(&mut out);
            out.push(b'x');
            open.cancel(&mut out);
            assert_eq!(out, [b"before", &*expected, &expected].concat());
        }
    }

    #[test]
    fn opcodes_and_the_deflate_bit_stand_in_the_first_byte() {
        assert_eq!(&shared_frame(Kind::Binary, b"x")[..], b"\x82\x01x");
        assert_eq!(&shared_deflated_frame(Kind::Text, b"x")[..], b"\xc1\x01x");
        let mut out = Vec::new();
        deflated_frame(Kind::Binary, b"x", &mut out);
        ping_frame(b"", &mut out);
        pong_frame(b"hi", &mut out);
        close_frame(None, "unsaid", &mut out);
        close_frame(Some(1000), "", &mut out);
        close_frame(Some(3501), "bad request", &mut out);
        assert_eq!(out, b"\xc2\x01x\x89\0\x8a\x02hi\x88\0\x88\x02\x03\xe8\x88\x0d\x0d\xadbad request");
    }

    #[test]
    fn control_frames_are_cut_at_125_bytes_and_reasons_between_characters() {
        let mut out = Vec::new();
        pong_frame(&[0; 200], &mut out);
        assert_eq!((out.len(), out[1]), (127, 125));

        out.clear();
        close_frame(Some(1000), &"é".repeat(100), &mut out);
        assert_eq!(&out[4..], "é".repeat(61).as_bytes());
    }
}
