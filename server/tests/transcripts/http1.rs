//! HTTP/1.1: requests sent exactly as told, responses read whole or as a stream, and how both are recorded.

use std::io;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _};

use crate::{
    json::{Json, Object},
    message::{parse_json, show_payload},
    scenario::Query,
    socket::{Incoming, Socket},
};

/// Header fields in the order in which they are sent or came.
pub(crate) type Headers = Vec<(String, String)>;

/// Headers that a transcript shows when no others are asked for.
const SHOWN: [&str; 14] = [
    "content-type",
    "cache-control",
    "pragma",
    "x-accel-buffering",
    "www-authenticate",
    "allow",
    "location",
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-max-age",
    "sec-websocket-protocol",
    "sec-websocket-extensions",
];

/// One request and its whole response.
pub(crate) async fn exchange(
    port: u16,
    method: &str,
    target: &str,
    mut headers: Headers,
    body: Option<&[u8]>,
) -> Result<Response> {
    let (mut incoming, socket) = Socket::connect(port).await?;
    if !has(&headers, "host") {
        headers.insert(0, ("Host".to_owned(), format!("127.0.0.1:{port}")));
    }
    headers.push(("Connection".to_owned(), "close".to_owned()));
    let write = write_request(&socket, method, target, &headers, body);
    let read = async {
        let mut response = Response::read_head(&mut incoming).await?;
        response.read_body(&mut incoming, method).await?;
        Ok(response)
    };
    while_writing(write, read).await
}

/// Reads an answer while the request is written: a server may answer, and end the connection, before it has read all
/// of a request that is too large, and what it answered could not be read after that.
pub(crate) async fn while_writing<T>(
    write: impl Future<Output = Result<()>>,
    read: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::pin!(write, read);
    tokio::select! {
        answer = &mut read => answer,
        written = &mut write => {
            written?;
            read.await
        }
    }
}

/// That the server has ended the connection is no error here: its answer counts.
pub(crate) async fn write_request(
    socket: &Socket,
    method: &str,
    target: &str,
    headers: &[(String, String)],
    body: Option<&[u8]>,
) -> Result<()> {
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = body.filter(|_| !has(headers, "content-length")) {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let request = [head.as_bytes(), body.unwrap_or_default()].concat();
    match socket.write(&request).await {
        Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(()),
        other => Ok(other?),
    }
}

/// Headers of a scenario; those that are null are left out.
pub(crate) fn headers_of(object: &Object) -> Headers {
    let given = object.iter().filter(|(_, value)| **value != Json::Null);
    given.map(|(name, value)| (name.to_owned(), plain(value))).collect()
}

pub(crate) fn has(headers: &[(String, String)], name: &str) -> bool {
    headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name))
}

pub(crate) fn target(path: &str, query: Option<&Query>) -> String {
    match query {
        None => path.to_owned(),
        Some(Query::Text(text)) if text.is_empty() => path.to_owned(),
        Some(Query::Form(object)) if object.is_empty() => path.to_owned(),
        Some(Query::Text(text)) => format!("{path}?{text}"),
        Some(Query::Form(object)) => {
            let pairs: Vec<_> =
                object.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(&plain(value)))).collect();
            format!("{path}?{}", pairs.join("&"))
        }
    }
}

fn plain(value: &Json) -> String {
    value.as_str().map_or_else(|| value.compact(), str::to_owned)
}

fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Headers,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// Reads up to the empty line, skipping interim responses.
    pub(crate) async fn read_head(incoming: &mut Incoming) -> Result<Self> {
        loop {
            let mut lines = read_lines(incoming).await?.into_iter();
            let first = lines.next().context("an empty response head")?;
            let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
            let status = status.with_context(|| format!("no status line: {first}"))?;
            if status >= 200 || status == 101 {
                return Ok(Self { status, headers: lines.map(|line| field(&line)).collect(), body: Vec::new() });
            }
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// How the body that follows is delimited.
    pub(crate) fn body(&self, method: &str) -> Body {
        if method == "HEAD" || matches!(self.status, 101 | 204 | 304) {
            return Body::Sized(0);
        }
        if self.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return Body::Chunked;
        }
        match self.header("content-length").and_then(|value| value.parse().ok()) {
            Some(size) => Body::Sized(size),
            None => Body::UntilEnd,
        }
    }

    pub(crate) async fn read_body(&mut self, incoming: &mut Incoming, method: &str) -> io::Result<()> {
        let mut body = self.body(method);
        while let Some(piece) = body.next(incoming).await? {
            self.body.extend_from_slice(&piece);
        }
        Ok(())
    }

    /// The recorded headers: those named, or those shown by default.
    pub(crate) fn shown_headers(&self, only: Option<&[String]>) -> Object {
        let wanted = |name: &str| match only {
            Some(names) => names.iter().any(|n| n.eq_ignore_ascii_case(name)),
            None => SHOWN.contains(&name),
        };
        let lower = self.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), Json::text(value)));
        let mut shown: Object = lower.filter(|(name, _)| wanted(name)).collect();
        // What is said without an allowed origin means nothing to anybody.
        let origin = shown.get("access-control-allow-origin").and_then(Json::as_str).unwrap_or_default();
        if only.is_none() && origin.is_empty() {
            shown.remove("access-control-allow-origin");
            shown.remove("access-control-allow-credentials");
        }
        shown
    }

    /// The recorded body.
    pub(crate) fn shown_body(&self) -> Json {
        let Ok(text) = std::str::from_utf8(&self.body) else { return show_payload(&self.body) };
        if !text.is_empty() && self.header("content-type").is_some_and(|kind| kind.contains("json")) {
            if let Ok(value) = parse_json(text) {
                return value;
            }
            let lines = text.split('\n').filter(|line| !line.is_empty()).map(parse_json);
            if let Ok(lines) = lines.collect::<Result<_>>() {
                return Json::object([("$lines", Json::List(lines))]);
            }
        }
        Json::text(text)
    }
}

/// What is left of a body.
pub(crate) enum Body {
    Sized(usize),
    Chunked,
    UntilEnd,
}

impl Body {
    /// The next piece as it came; nothing at the end. An error if the connection ends before the body does.
    pub(crate) async fn next(&mut self, incoming: &mut Incoming) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::Sized(0) => Ok(None),
            Self::Sized(left) => {
                let mut piece = vec![0; (*left).min(65536)];
                let n = incoming.read(&mut piece).await?;
                if n == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                *left -= n;
                piece.truncate(n);
                Ok(Some(piece))
            }
            Self::Chunked => {
                let mut line = String::new();
                incoming.read_line(&mut line).await?;
                let digits = line.split(';').next().unwrap_or_default().trim();
                let size = usize::from_str_radix(digits, 16).map_err(|_| io::ErrorKind::UnexpectedEof)?;
                let mut piece = vec![0; size + 2];
                incoming.read_exact(&mut piece).await?;
                piece.truncate(size);
                Ok((size > 0).then_some(piece))
            }
            Self::UntilEnd => {
                let mut piece = vec![0; 65536];
                let n = incoming.read(&mut piece).await?;
                piece.truncate(n);
                Ok((n > 0).then_some(piece))
            }
        }
    }
}

/// Lines of a message head, without the empty one that ends it.
pub(crate) async fn read_lines(incoming: &mut Incoming) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        if incoming.read_until(b'\n', &mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
        if line.is_empty() {
            return Ok(lines);
        }
        lines.push(line);
    }
}

/// Name and value of a header line.
pub(crate) fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name.trim().to_owned(), value.trim().to_owned())
}
