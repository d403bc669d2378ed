//! Publishing over gRPC, without a socket: as much of HTTP/2 as unary calls with small answers need.
//!
//! A general gRPC client spends about as much processor time on a call as the server does, and a load generator must not
//! be the one that is measured. What makes this one small: it asks the server to keep no header compression state
//! (`SETTINGS_HEADER_TABLE_SIZE = 0`), so every header block stands for itself and its own requests are one constant
//! block; of the answer it reads the message and `grpc-status`. Flow control, settings, pings, resets and the limit of
//! concurrent streams are obeyed (RFC 9113); header blocks are walked by RFC 7541.

use std::collections::{HashMap, VecDeque};

use prost::Message;
use starling_proto::api::{PublishRequest, PublishResponse};

use super::Endpoint;
use super::header_block::{Status, grpc_status, request_headers};
use super::lane::Answer;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DEFAULT_WINDOW: i64 = 65_535;
const MAX_FRAME_BYTES: usize = 16_384;
/// After this many received bytes the server is given window again; less than the initial 65,535.
const WINDOW_STEP_BYTES: u32 = 32_768;
const BODY_LIMIT_BYTES: usize = 1 << 20;

mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const WINDOW_UPDATE: u8 = 8;
    pub(super) const CONTINUATION: u8 = 9;
}

mod flag {
    pub(super) const ACK: u8 = 1;
    pub(super) const END_STREAM: u8 = 1;
    pub(super) const END_HEADERS: u8 = 4;
    pub(super) const PADDED: u8 = 8;
    pub(super) const PRIORITY: u8 = 0x20;
}

/// One HTTP/2 connection to `centrifugal.centrifugo.api.CentrifugoApi`.
#[derive(Debug)]
pub struct GrpcWire {
    headers: Vec<u8>,
    output: Vec<u8>,
    input: Vec<u8>,
    next_stream: u32,
    calls: HashMap<u32, Call>,
    /// Requests that flow control holds back, oldest first; bounded by [`GrpcWire::room`].
    unsent: VecDeque<Unsent>,
    connection_window: i64,
    stream_window: i64,
    concurrent_streams: usize,
    received_bytes: u32,
    /// Stream, end-of-stream flag and block of a header whose continuation is awaited.
    open_headers: Option<(u32, bool, Vec<u8>)>,
}

#[derive(Debug)]
struct Call {
    ticket: u64,
    body: Vec<u8>,
    status: Option<Status>,
}

#[derive(Debug)]
struct Unsent {
    stream: u32,
    rest: Vec<u8>,
    window: i64,
}

impl GrpcWire {
    /// Opens the connection; an empty `key` sends none.
    pub fn new(endpoint: &Endpoint, key: &str) -> Self {
        let mut output = PREFACE.to_vec();
        // No header table, no server push.
        write_head(&mut output, 12, kind::SETTINGS, 0, 0);
        output.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
        GrpcWire {
            headers: request_headers(&endpoint.host, key),
            output,
            input: Vec::new(),
            next_stream: 1,
            calls: HashMap::new(),
            unsent: VecDeque::new(),
            connection_window: DEFAULT_WINDOW,
            stream_window: DEFAULT_WINDOW,
            concurrent_streams: 100,
            received_bytes: 0,
            open_headers: None,
        }
    }

    /// How many more calls may be in flight.
    pub fn room(&self) -> usize {
        self.concurrent_streams.saturating_sub(self.calls.len())
    }

    /// Calls without an answer.
    pub fn in_flight(&self) -> usize {
        self.calls.len()
    }

    /// Bytes to send.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Queues one call.
    pub fn publish(&mut self, ticket: u64, channel: &str, data: &[u8]) {
        let (channel, data) = (channel.to_owned(), bytes::Bytes::copy_from_slice(data));
        let request = PublishRequest { channel, data, ..PublishRequest::default() };
        let length = request.encoded_len();
        let mut body = Vec::with_capacity(5 + length);
        body.push(0);
        body.extend_from_slice(&(length as u32).to_be_bytes());
        request.encode(&mut body).expect("a vector has room");

        let stream = self.next_stream;
        self.next_stream += 2;
        write_head(&mut self.output, self.headers.len(), kind::HEADERS, flag::END_HEADERS, stream);
        self.output.extend_from_slice(&self.headers);
        self.calls.insert(stream, Call { ticket, body: Vec::new(), status: None });
        self.unsent.push_back(Unsent { stream, rest: body, window: self.stream_window });
        self.send_data();
    }

    fn send_data(&mut self) {
        while let Some(unsent) = self.unsent.front_mut() {
            let window = usize::try_from(unsent.window.min(self.connection_window)).unwrap_or(0);
            let length = unsent.rest.len().min(window).min(MAX_FRAME_BYTES);
            if length == 0 {
                return;
            }
            let last = length == unsent.rest.len();
            let flags = if last { flag::END_STREAM } else { 0 };
            write_head(&mut self.output, length, kind::DATA, flags, unsent.stream);
            self.output.extend(unsent.rest.drain(..length));
            self.connection_window -= length as i64;
            unsent.window -= length as i64;
            if last {
                self.unsent.pop_front();
            }
        }
    }

    /// Takes received bytes.
    ///
    /// # Errors
    ///
    /// In words, when the peer does not speak HTTP/2, breaks it, or says goodbye.
    pub fn handle(&mut self, bytes: &[u8], answers: &mut Vec<Answer>) -> Result<(), String> {
        self.input.extend_from_slice(bytes);
        let mut input = std::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        while let Some((head, tail)) = rest.split_first_chunk::<9>() {
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            if length > MAX_FRAME_BYTES {
                return Err("the server does not speak HTTP/2 (or sends frames over the limit)".to_owned());
            }
            let Some((payload, tail)) = tail.split_at_checked(length) else { break };
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
            self.handle_frame(head[3], head[4], stream, payload, answers)?;
            rest = tail;
        }
        let used = input.len() - rest.len();
        input.drain(..used);
        self.input = input;
        self.send_data();
        Ok(())
    }

    fn handle_frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        answers: &mut Vec<Answer>,
    ) -> Result<(), String> {
        if self.open_headers.is_some() && kind != kind::CONTINUATION {
            return Err("HTTP/2: a header block was interrupted".to_owned());
        }
        match kind {
            kind::DATA => {
                self.grant_window(payload.len());
                let data = without_padding(flags, payload).ok_or("HTTP/2: bad padding")?;
                if let Some(call) = self.calls.get_mut(&stream) {
                    if call.body.len() + data.len() > BODY_LIMIT_BYTES {
                        return Err("an answer over the limit".to_owned());
                    }
                    call.body.extend_from_slice(data);
                }
                if flags & flag::END_STREAM != 0 {
                    self.finish(stream, answers);
                }
            }
            kind::HEADERS => {
                let mut block = without_padding(flags, payload).ok_or("HTTP/2: bad padding")?;
                if flags & flag::PRIORITY != 0 {
                    block = block.get(5..).ok_or("HTTP/2: bad priority")?;
                }
                self.open_headers = Some((stream, flags & flag::END_STREAM != 0, block.to_vec()));
                self.finish_headers(flags, answers)?;
            }
            kind::CONTINUATION => {
                let Some((_, _, block)) = &mut self.open_headers else {
                    return Err("HTTP/2: continuation of nothing".to_owned());
                };
                if block.len() + payload.len() > BODY_LIMIT_BYTES {
                    return Err("headers over the limit".to_owned());
                }
                block.extend_from_slice(payload);
                self.finish_headers(flags, answers)?;
            }
            kind::RST_STREAM => {
                let code = payload.first_chunk().map_or(0, |&code| u32::from_be_bytes(code));
                self.unsent.retain(|unsent| unsent.stream != stream);
                if let Some(call) = self.calls.remove(&stream) {
                    answers.push(Answer { ticket: call.ticket, outcome: Err(format!("stream reset, code {code}")) });
                }
            }
            kind::SETTINGS if flags & flag::ACK == 0 => {
                self.apply_settings(payload)?;
                write_head(&mut self.output, 0, kind::SETTINGS, flag::ACK, 0);
            }
            kind::PING if flags & flag::ACK == 0 => {
                write_head(&mut self.output, payload.len(), kind::PING, flag::ACK, 0);
                self.output.extend_from_slice(payload);
            }
            kind::GOAWAY => {
                let code = payload.get(4..).and_then(<[u8]>::first_chunk).map_or(0, |&code| u32::from_be_bytes(code));
                return Err(format!("the server ends the HTTP/2 connection, code {code}"));
            }
            kind::WINDOW_UPDATE => {
                let step = payload.first_chunk().map_or(0, |&step| u32::from_be_bytes(step) & 0x7fff_ffff);
                if stream == 0 {
                    self.connection_window += i64::from(step);
                } else if let Some(unsent) = self.unsent.iter_mut().find(|unsent| unsent.stream == stream) {
                    unsent.window += i64::from(step);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn apply_settings(&mut self, payload: &[u8]) -> Result<(), String> {
        let (settings, []) = payload.as_chunks::<6>() else { return Err("HTTP/2: bad settings".to_owned()) };
        for &[high, low, a, b, c, d] in settings {
            let value = u32::from_be_bytes([a, b, c, d]);
            match u16::from_be_bytes([high, low]) {
                3 => self.concurrent_streams = usize::try_from(value).unwrap_or(usize::MAX),
                4 => {
                    let change = i64::from(value) - self.stream_window;
                    self.stream_window += change;
                    self.unsent.iter_mut().for_each(|unsent| unsent.window += change);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives the server window for what it sent. Streams end long before theirs is used up.
    fn grant_window(&mut self, bytes: usize) {
        self.received_bytes += bytes as u32;
        if self.received_bytes >= WINDOW_STEP_BYTES {
            write_head(&mut self.output, 4, kind::WINDOW_UPDATE, 0, 0);
            self.output.extend_from_slice(&self.received_bytes.to_be_bytes());
            self.received_bytes = 0;
        }
    }

    fn finish_headers(&mut self, flags: u8, answers: &mut Vec<Answer>) -> Result<(), String> {
        if flags & flag::END_HEADERS == 0 {
            return Ok(());
        }
        let Some((stream, end_stream, block)) = self.open_headers.take() else { return Ok(()) };
        let status = grpc_status(&block).ok_or("HTTP/2: unreadable header block")?;
        if let Some(call) = self.calls.get_mut(&stream) {
            call.status = status.or(call.status);
        }
        if end_stream {
            self.finish(stream, answers);
        }
        Ok(())
    }

    fn finish(&mut self, stream: u32, answers: &mut Vec<Answer>) {
        let Some(Call { ticket, body, status }) = self.calls.remove(&stream) else { return };
        self.unsent.retain(|unsent| unsent.stream != stream);
        answers.push(Answer { ticket, outcome: judge(status, &body) });
    }
}

fn judge(status: Option<Status>, body: &[u8]) -> Result<(), String> {
    match status {
        None => return Err("an answer without grpc-status".to_owned()),
        Some(Some(0)) => {}
        Some(Some(code)) => return Err(format!("gRPC status {code}")),
        Some(None) => return Err("gRPC status unknown".to_owned()),
    }
    let message = body.get(5..).ok_or("an empty gRPC answer")?;
    match PublishResponse::decode(message) {
        Ok(PublishResponse { error: Some(error), .. }) => Err(format!("error {}, {}", error.code, error.message)),
        Ok(PublishResponse { error: None, .. }) => Ok(()),
        Err(_) => Err("an unreadable gRPC answer".to_owned()),
    }
}

fn write_head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    let [_, high, middle, low] = (length as u32).to_be_bytes();
    out.extend_from_slice(&[high, middle, low, kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

fn without_padding(flags: u8, payload: &[u8]) -> Option<&[u8]> {
    if flags & flag::PADDED == 0 {
        return Some(payload);
    }
    let (&padding, rest) = payload.split_first()?;
    rest.get(..rest.len().checked_sub(usize::from(padding))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::header_block::tests::status_block;

    fn wire() -> GrpcWire {
        let endpoint = Endpoint::parse("http://127.0.0.1:1", "http", "/").expect("sound");
        GrpcWire::new(&endpoint, "k")
    }

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        write_head(&mut frame, payload.len(), kind, flags, stream);
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn an_answer_in_any_pieces_is_the_answer() {
        let mut stream = frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 250]);
        stream.extend(frame(kind::HEADERS, flag::END_HEADERS, 1, &[0x88]));
        stream.extend(frame(kind::DATA, 0, 1, &[0, 0, 0, 0, 2, 0x12, 0]));
        stream.extend(frame(kind::HEADERS, 0, 1, &status_block(b"0", false)[..4]));
        let mut trailers = frame(kind::CONTINUATION, flag::END_HEADERS, 1, &status_block(b"0", false)[4..]);
        trailers.extend(frame(kind::PING, 0, 0, &[1; 8]));
        stream.extend(trailers);
        for piece in 1..stream.len() {
            let mut wire = wire();
            wire.publish(9, "c", b"{}");
            let mut answers = Vec::new();
            for bytes in stream.chunks(piece) {
                wire.handle(bytes, &mut answers).expect("sound");
            }
            assert!(answers.is_empty(), "the stream has not ended");
            wire.handle(&frame(kind::DATA, flag::END_STREAM, 1, &[]), &mut answers).expect("sound");
            assert_eq!(answers, [Answer { ticket: 9, outcome: Ok(()) }]);
            assert_eq!(wire.room(), 250);
            assert!(wire.output().ends_with(&frame(kind::PING, flag::ACK, 0, &[1; 8])));
        }
    }

    #[test]
    fn a_request_larger_than_the_window_waits_for_it() {
        let mut wire = wire();
        wire.output().clear();
        let data = vec![b'1'; 100_000];
        wire.publish(1, "c", &data);
        wire.publish(2, "c", b"2");
        assert_eq!(wire.unsent.len(), 2);
        let sent = wire.output().len();
        assert!(sent > 65_535 && sent < 66_000, "{sent}");
        let mut updates = frame(kind::WINDOW_UPDATE, 0, 0, &1_000_000u32.to_be_bytes());
        updates.extend(frame(kind::WINDOW_UPDATE, 0, 1, &1_000_000u32.to_be_bytes()));
        wire.handle(&updates, &mut Vec::new()).expect("sound");
        assert!(wire.unsent.is_empty());
        assert!(wire.output().len() > 100_000);
    }

    #[test]
    fn a_refusal_a_reset_and_another_protocol_are_told_apart() {
        let mut wire = wire();
        (0..2).for_each(|ticket| wire.publish(ticket, "c", b"{}"));
        let mut answers = Vec::new();
        let mut stream = frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &status_block(b"16", false));
        stream.extend(frame(kind::RST_STREAM, 0, 3, &8u32.to_be_bytes()));
        wire.handle(&stream, &mut answers).expect("sound");
        let outcomes: Vec<_> = answers.into_iter().map(|answer| answer.outcome.expect_err("refused")).collect();
        assert_eq!(outcomes, ["gRPC status 16", "stream reset, code 8"]);
        assert!(wire.handle(b"HTTP/1.1 400 Bad Request\r\n\r\n", &mut Vec::new()).is_err());
    }
}
