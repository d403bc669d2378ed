//! The client side of WebSocket without a socket: handshake bytes, frames out, frames in.
//!
//! Frame headers are tungstenite's; reading is ours because a held connection may cost no buffer: bytes come from a
//! buffer that all connections of a thread share, and only an incomplete frame is copied.

use std::fmt;
use std::io::Cursor;

use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Largest message a server may send us: bounds what one connection can make us buffer.
pub const MESSAGE_LIMIT_BYTES: usize = 64 << 20;

/// Largest head of an HTTP response.
const HEAD_LIMIT_BYTES: usize = 16 << 10;

/// What the peer did wrong. The connection is of no use afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The answer to the handshake is not a WebSocket upgrade; the text says what it was.
    NotUpgraded(String),
    /// A frame that no server may send.
    Frame(&'static str),
    /// A message over [`MESSAGE_LIMIT_BYTES`].
    TooLarge,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::NotUpgraded(answer) => write!(f, "no WebSocket upgrade: {answer}"),
            Violation::Frame(what) => write!(f, "WebSocket protocol violation: {what}"),
            Violation::TooLarge => write!(f, "message over {MESSAGE_LIMIT_BYTES} bytes"),
        }
    }
}

impl std::error::Error for Violation {}

/// One opening handshake.
#[derive(Debug)]
pub struct Handshake {
    key: String,
}

impl Handshake {
    /// Draws a fresh key.
    pub fn new() -> Self {
        Handshake { key: generate_key() }
    }

    /// The request to send. `subprotocol` is offered when given.
    pub fn request(&self, host: &str, path: &str, subprotocol: Option<&str>) -> Vec<u8> {
        let key = &self.key;
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        );
        if let Some(subprotocol) = subprotocol {
            request.push_str("Sec-WebSocket-Protocol: ");
            request.push_str(subprotocol);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        request.into_bytes()
    }

    /// Reads the response from all bytes received so far: its length, or `None` when it is not complete yet.
    ///
    /// # Errors
    ///
    /// [`Violation::NotUpgraded`] when the server answered anything but a correct upgrade.
    pub fn response(&self, received: &[u8]) -> Result<Option<usize>, Violation> {
        let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
            if received.len() > HEAD_LIMIT_BYTES {
                return Err(Violation::NotUpgraded("the response has no end".to_owned()));
            }
            return Ok(None);
        };
        let head = String::from_utf8_lossy(&received[..end]);
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("101") {
            return Err(Violation::NotUpgraded(status.chars().take(120).collect()));
        }
        let accept = lines
            .filter_map(|line| line.split_once(':'))
            .find_map(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-accept").then(|| value.trim()));
        if accept != Some(derive_accept_key(self.key.as_bytes()).as_str()) {
            return Err(Violation::NotUpgraded("wrong Sec-WebSocket-Accept".to_owned()));
        }
        Ok(Some(end + 4))
    }
}

impl Default for Handshake {
    fn default() -> Self {
        Handshake::new()
    }
}

/// What can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole text message.
    Text,
    /// A whole binary message.
    Binary,
    /// Answer to a ping.
    Pong,
    /// Closing handshake.
    Close,
}

/// Appends one frame to `out`; masked when `mask` is given, as a client must.
pub fn write_frame(out: &mut Vec<u8>, kind: Kind, payload: &[u8], mask: Option<[u8; 4]>) {
    let opcode = match kind {
        Kind::Text => OpCode::Data(Data::Text),
        Kind::Binary => OpCode::Data(Data::Binary),
        Kind::Pong => OpCode::Control(Control::Pong),
        Kind::Close => OpCode::Control(Control::Close),
    };
    let header = FrameHeader { opcode, mask, ..FrameHeader::default() };
    header.format(payload.len() as u64, out).expect("writing to a vector does not fail");
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        unmask(&mut out[start..], mask);
    }
}

/// Applies a mask, which is its own inverse.
pub fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// What arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A whole message, text or binary.
    Message(&'a [u8]),
    /// A ping that wants a pong with the same bytes.
    Ping(&'a [u8]),
    /// The peer closes, with code and reason when it gave them.
    Close(Option<u16>, String),
}

/// Cuts a stream of bytes into messages. Two words while nothing is incomplete.
#[derive(Debug, Default)]
pub struct FrameReader {
    incomplete: Option<Box<Incomplete>>,
}

#[derive(Debug, Default)]
struct Incomplete {
    /// Beginning of a frame whose end has not come.
    frame: Vec<u8>,
    /// Fragments of a message whose last has not come.
    message: Option<Vec<u8>>,
}

impl FrameReader {
    /// Takes the next bytes; `visit` gets everything that is complete, in order.
    ///
    /// # Errors
    ///
    /// [`Violation`] on what no server may send, compressed and masked frames included (neither is ever asked for).
    pub fn read(&mut self, bytes: &[u8], mut visit: impl FnMut(Incoming<'_>)) -> Result<(), Violation> {
        let Some(mut incomplete) = self.incomplete.take() else {
            let mut message = None;
            let used = read_frames(bytes, &mut message, &mut visit)?;
            if used < bytes.len() || message.is_some() {
                self.incomplete = Some(Box::new(Incomplete { frame: bytes[used..].to_vec(), message }));
            }
            return Ok(());
        };
        incomplete.frame.extend_from_slice(bytes);
        let used = read_frames(&incomplete.frame, &mut incomplete.message, &mut visit)?;
        incomplete.frame.drain(..used);
        if !incomplete.frame.is_empty() || incomplete.message.is_some() {
            self.incomplete = Some(incomplete);
        }
        Ok(())
    }
}

/// Reads all complete frames of `bytes` and returns how many bytes they took.
fn read_frames(
    bytes: &[u8],
    message: &mut Option<Vec<u8>>,
    visit: &mut impl FnMut(Incoming<'_>),
) -> Result<usize, Violation> {
    let mut used = 0;
    loop {
        let mut cursor = Cursor::new(&bytes[used..]);
        let header = FrameHeader::parse(&mut cursor).map_err(|_| Violation::Frame("bad header"))?;
        let Some((header, length)) = header else { return Ok(used) };
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Violation::Frame("reserved bit without an extension"));
        }
        if header.mask.is_some() {
            return Err(Violation::Frame("masked frame from a server"));
        }
        let assembled = message.as_ref().map_or(0, Vec::len);
        let length = usize::try_from(length).map_err(|_| Violation::TooLarge)?;
        if length.saturating_add(assembled) > MESSAGE_LIMIT_BYTES {
            return Err(Violation::TooLarge);
        }
        let start = used + cursor.position() as usize;
        let Some(payload) = bytes.get(start..start + length) else { return Ok(used) };
        used = start + length;
        match header.opcode {
            OpCode::Data(Data::Continue) => {
                let Some(assembled) = message else { return Err(Violation::Frame("continuation of nothing")) };
                assembled.extend_from_slice(payload);
                if header.is_final {
                    visit(Incoming::Message(assembled));
                    *message = None;
                }
            }
            OpCode::Data(_) if message.is_some() => return Err(Violation::Frame("message within a message")),
            OpCode::Data(_) if header.is_final => visit(Incoming::Message(payload)),
            OpCode::Data(_) => *message = Some(payload.to_vec()),
            OpCode::Control(_) if !header.is_final || length > 125 => {
                return Err(Violation::Frame("fragmented or long control frame"));
            }
            OpCode::Control(Control::Ping) => visit(Incoming::Ping(payload)),
            OpCode::Control(Control::Close) => {
                let code = payload.first_chunk().map(|&code| u16::from_be_bytes(code));
                let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
                visit(Incoming::Close(code, reason));
            }
            OpCode::Control(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_stream() -> Vec<u8> {
        let mut stream = Vec::new();
        write_frame(&mut stream, Kind::Text, b"{}", None);
        write_frame(&mut stream, Kind::Binary, &[7; 300], None);
        stream.extend_from_slice(&[0x01, 2, b'a', b'b']);
        stream.extend_from_slice(&[0x89, 1, b'p']);
        stream.extend_from_slice(&[0x80, 1, b'c']);
        write_frame(&mut stream, Kind::Close, b"\x0b\xc0slow", None);
        stream
    }

    fn read_in_pieces(stream: &[u8], piece: usize) -> Vec<String> {
        let mut reader = FrameReader::default();
        let mut seen = Vec::new();
        for bytes in stream.chunks(piece) {
            reader.read(bytes, |incoming| seen.push(format!("{incoming:?}"))).expect("the stream is sound");
        }
        assert!(reader.incomplete.is_none(), "nothing is kept once all is read");
        seen
    }

    #[test]
    fn any_cut_of_the_stream_gives_the_same_messages() {
        let whole = read_in_pieces(&server_stream(), usize::MAX);
        assert_eq!(whole.len(), 5);
        assert_eq!(whole[3], format!("{:?}", Incoming::Message(b"abc")));
        assert_eq!(whole[4], format!("{:?}", Incoming::Close(Some(3008), "slow".to_owned())));
        for piece in 1..320 {
            assert_eq!(read_in_pieces(&server_stream(), piece), whole, "pieces of {piece}");
        }
    }

    #[test]
    fn frames_that_no_server_may_send_are_violations() {
        let bad: [&[u8]; 6] =
            [&[0xc1, 0], &[0x81, 0x80, 0, 0, 0, 0], &[0x80, 0], &[0x83, 0], &[0x09, 0], &[0x89, 126, 0, 126]];
        for bytes in bad {
            let mut stream = bytes.to_vec();
            stream.extend_from_slice(&[0; 200]);
            assert!(FrameReader::default().read(&stream, |_| {}).is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn an_announced_giant_is_refused_before_it_is_buffered() {
        let mut reader = FrameReader::default();
        let huge = [0x82, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(reader.read(&huge, |_| {}), Err(Violation::TooLarge));
    }

    #[test]
    fn a_masked_frame_unmasks_to_what_was_written() {
        let mut frame = Vec::new();
        write_frame(&mut frame, Kind::Text, b"hello", Some([1, 2, 3, 4]));
        assert_eq!(frame[1], 0x85);
        unmask(&mut frame[6..], [1, 2, 3, 4]);
        assert_eq!(&frame[6..], b"hello");
    }

    #[test]
    fn only_a_correct_upgrade_is_accepted() {
        let handshake = Handshake { key: "dGhlIHNhbXBsZSBub25jZQ==".to_owned() };
        let good = "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nrest";
        assert_eq!(handshake.response(good.as_bytes()), Ok(Some(good.len() - 4)));
        assert_eq!(handshake.response(&good.as_bytes()[..40]), Ok(None));
        let forbidden = "HTTP/1.1 403 Forbidden\r\n\r\n";
        let refused = Violation::NotUpgraded("HTTP/1.1 403 Forbidden".to_owned());
        assert_eq!(handshake.response(forbidden.as_bytes()), Err(refused));
        assert!(handshake.response(good.replace("s3p", "xxx").as_bytes()).is_err());
    }
}
