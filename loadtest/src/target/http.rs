//! Publishing over the HTTP API, without a socket: HTTP/1.1 with several requests in flight on one connection.
//!
//! `POST /api/publish` with `X-API-Key`; the body is `{"channel":C,"data":D}`; status 200 with `{"result":…}` is success,
//! `{"error":{"code","message"}}` or another status is not. Answers come in the order of requests, as HTTP/1.1 demands,
//! so a connection with more than one in flight simply sends on (pipelining). A general client library costs several
//! times this and would measure itself.

use std::collections::VecDeque;

use serde::Deserialize;

use super::Endpoint;
use super::lane::Answer;

const HEAD_LIMIT_BYTES: usize = 64 << 10;
const BODY_LIMIT_BYTES: usize = 1 << 20;

/// One HTTP/1.1 connection to the server API.
#[derive(Debug)]
pub struct HttpWire {
    head: Vec<u8>,
    output: Vec<u8>,
    input: Vec<u8>,
    waiting: VecDeque<u64>,
}

impl HttpWire {
    /// Prepares requests to `endpoint`; its path is that of the API, such as `/api`.
    pub fn new(endpoint: &Endpoint, key: &str) -> Self {
        let path = endpoint.path.trim_end_matches('/');
        let host = &endpoint.host;
        let key = if key.is_empty() { String::new() } else { format!("X-API-Key: {key}\r\n") };
        let head = format!(
            "POST {path}/publish HTTP/1.1\r\nHost: {host}\r\n{key}Content-Type: application/json\r\nContent-Length: "
        );
        HttpWire { head: head.into_bytes(), output: Vec::new(), input: Vec::new(), waiting: VecDeque::new() }
    }

    /// Requests without an answer.
    pub fn in_flight(&self) -> usize {
        self.waiting.len()
    }

    /// Bytes to send.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Queues one publish request.
    pub fn publish(&mut self, ticket: u64, channel: &str, data: &[u8]) {
        const AROUND: usize = r#"{"channel":"","data":}"#.len();
        self.output.extend_from_slice(&self.head);
        self.output.extend_from_slice((AROUND + channel.len() + data.len()).to_string().as_bytes());
        self.output.extend_from_slice(b"\r\n\r\n{\"channel\":\"");
        self.output.extend_from_slice(channel.as_bytes());
        self.output.extend_from_slice(b"\",\"data\":");
        self.output.extend_from_slice(data);
        self.output.push(b'}');
        self.waiting.push_back(ticket);
    }

    /// Takes received bytes.
    ///
    /// # Errors
    ///
    /// In words, when the peer does not speak HTTP/1.1 or answers what was not asked.
    pub fn handle(&mut self, bytes: &[u8], answers: &mut Vec<Answer>) -> Result<(), String> {
        self.input.extend_from_slice(bytes);
        let mut used = 0;
        while let Some(response) = read_response(&self.input[used..])? {
            used += response.length;
            let ticket = self.waiting.pop_front().ok_or("an HTTP response that nobody asked for")?;
            answers.push(Answer { ticket, outcome: judge(response.status, &response.body) });
        }
        self.input.drain(..used);
        Ok(())
    }
}

#[derive(Deserialize)]
struct PublishReply {
    error: Option<PublishError>,
}

#[derive(Deserialize)]
struct PublishError {
    code: u32,
    #[serde(default)]
    message: String,
}

fn judge(status: u16, body: &[u8]) -> Result<(), String> {
    if status == 200 && body.starts_with(br#"{"result":"#) {
        return Ok(());
    }
    match serde_json::from_slice(body) {
        Ok(PublishReply { error: Some(PublishError { code, message }) }) => Err(format!("error {code}, {message}")),
        Ok(PublishReply { error: None }) if status == 200 => Ok(()),
        Ok(PublishReply { error: None }) | Err(_) => Err(format!("HTTP status {status}")),
    }
}

struct Response {
    status: u16,
    body: Vec<u8>,
    length: usize,
}

/// Reads the first response of `input`, if it is complete.
fn read_response(input: &[u8]) -> Result<Option<Response>, String> {
    const NOT_HTTP: &str = "the server does not answer in HTTP/1.1";
    let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else {
        let begins = b"HTTP/1.";
        let common = input.len().min(begins.len());
        let sound = input[..common] == begins[..common] && input.len() <= HEAD_LIMIT_BYTES;
        return if sound { Ok(None) } else { Err(NOT_HTTP.to_owned()) };
    };
    let head = str::from_utf8(&input[..end]).map_err(|_| NOT_HTTP)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")).and_then(|line| line.get(2..5));
    let status = status.and_then(|status| status.parse().ok()).ok_or(NOT_HTTP)?;
    let mut content_length = 0;
    let mut chunked = false;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            content_length = value.trim().parse().map_err(|_| "bad Content-Length")?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = value.trim().eq_ignore_ascii_case("chunked");
        }
    }
    let rest = &input[end + 4..];
    if chunked {
        let Some((body, length)) = read_chunks(rest)? else { return Ok(None) };
        return Ok(Some(Response { status, body, length: end + 4 + length }));
    }
    if content_length > BODY_LIMIT_BYTES {
        return Err("a response body over the limit".to_owned());
    }
    let Some(body) = rest.get(..content_length) else { return Ok(None) };
    Ok(Some(Response { status, body: body.to_vec(), length: end + 4 + content_length }))
}

/// Body and length of a chunked encoding without trailers, if it is complete.
fn read_chunks(input: &[u8]) -> Result<Option<(Vec<u8>, usize)>, String> {
    let mut body = Vec::new();
    let mut used = 0;
    loop {
        let Some(line) = input[used..].windows(2).position(|window| window == b"\r\n") else { return Ok(None) };
        let size = str::from_utf8(&input[used..used + line]).ok().and_then(|line| line.split(';').next());
        let size = size.and_then(|size| usize::from_str_radix(size.trim(), 16).ok()).ok_or("bad chunk size")?;
        if size.saturating_add(body.len()) > BODY_LIMIT_BYTES {
            return Err("a response body over the limit".to_owned());
        }
        used += line + 2;
        let Some(chunk) = input.get(used..used + size + 2) else { return Ok(None) };
        body.extend_from_slice(&chunk[..size]);
        used += size + 2;
        if size == 0 {
            return Ok(Some((body, used)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire() -> HttpWire {
        let endpoint = Endpoint::parse("http://127.0.0.1:1/api", "http", "/api").expect("sound");
        HttpWire::new(&endpoint, "k")
    }

    #[test]
    fn a_request_is_what_the_api_expects() {
        let mut wire = wire();
        wire.publish(1, "news", b"{}");
        let request = String::from_utf8_lossy(wire.output()).into_owned();
        let (head, body) = request.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("POST /api/publish HTTP/1.1\r\n") && head.contains("X-API-Key: k\r\n"), "{head}");
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{head}");
        assert_eq!(body, r#"{"channel":"news","data":{}}"#);
    }

    #[test]
    fn pipelined_answers_match_their_requests_however_they_are_cut() {
        let stream = "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"result\":{}}\
            HTTP/1.1 200 OK\r\ncontent-length: 46\r\n\r\n{\"error\":{\"code\":102,\"message\":\"unknown chann\"}}\
            HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n\
            HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n{\"resu\r\n7\r\nlt\":{}}\r\n0\r\n\r\n"
            .replace("46", "48");
        for piece in 1..stream.len() {
            let mut wire = wire();
            (0..4).for_each(|ticket| wire.publish(ticket, "c", b"{}"));
            let mut answers = Vec::new();
            for bytes in stream.as_bytes().chunks(piece) {
                wire.handle(bytes, &mut answers).expect("sound");
            }
            let outcomes: Vec<_> = answers.into_iter().map(|answer| answer.outcome).collect();
            let expected =
                [Ok(()), Err("error 102, unknown chann".to_owned()), Err("HTTP status 401".to_owned()), Ok(())];
            assert_eq!(outcomes, expected, "pieces of {piece}");
            assert_eq!(wire.in_flight(), 0);
        }
    }

    #[test]
    fn another_protocol_is_named_at_once() {
        assert!(wire().handle(b"SSH-2.0-x\r\n", &mut Vec::new()).is_err());
        assert!(wire().handle(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", &mut Vec::new()).is_err());
    }
}
