//! The scripted application backend that a server calls.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpListener,
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, timeout_at},
};

use crate::{
    http1::{Body, field, read_lines},
    json::{Json, Object},
    message::{parse_json, show_payload},
    socket::{Incoming, Socket},
    variables::Variables,
};

/// What an HTTP library adds by itself and the author of a server does not choose.
const UNRECORDED: [&str; 8] = [
    "host",
    "user-agent",
    "accept",
    "accept-encoding",
    "content-length",
    "connection",
    "transfer-encoding",
    "traceparent",
];

/// Listens until it is dropped.
pub(crate) struct Backend {
    requests: UnboundedReceiver<Json>,
    task: AbortHandle,
}

struct Script {
    variables: Arc<Variables>,
    /// Answers of each path that are still to come; the last one is given again and again.
    answers: Mutex<BTreeMap<String, Vec<Json>>>,
    record: UnboundedSender<Json>,
}

impl Backend {
    pub(crate) async fn start(port: u16, answers: &Object, variables: Arc<Variables>) -> Result<Self> {
        let answers = answers.iter().map(|(path, answer)| {
            let mut queue = match answer {
                Json::List(answers) => answers.clone(),
                answer => vec![answer.clone()],
            };
            queue.reverse();
            (path.to_owned(), queue)
        });
        let (record, requests) = mpsc::unbounded_channel();
        let script = Arc::new(Script { variables, answers: Mutex::new(answers.collect()), record });
        let listener = TcpListener::bind(("127.0.0.1", port)).await.context("the port of the backend")?;
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let script = script.clone();
                // A connection that breaks is the server's affair; what it asked is recorded.
                connections.spawn(async move { script.serve(Socket::split(stream)).await.ok() });
            }
        });
        Ok(Self { requests, task: task.abort_handle() })
    }

    /// Up to so many requests, as far as they come before the deadline.
    pub(crate) async fn requests(&mut self, count: usize, deadline: Instant) -> Vec<Json> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let Ok(Some(request)) = timeout_at(deadline, self.requests.recv()).await else { break };
            taken.push(request);
        }
        taken
    }

    /// Requests that came and that nothing asked for.
    pub(crate) fn rest(&mut self) -> Vec<Json> {
        std::iter::from_fn(|| self.requests.try_recv().ok()).collect()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Script {
    async fn serve(&self, (mut incoming, socket): (Incoming, Socket)) -> Result<()> {
        loop {
            let mut lines = read_lines(&mut incoming).await?.into_iter();
            let first = lines.next().context("an empty request head")?;
            let mut words = first.split(' ');
            let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(()) };
            let headers: Object = lines
                .map(|line| field(&line))
                .map(|(name, value)| (name.to_ascii_lowercase(), Json::Text(value)))
                .collect();
            let body = read_body(&mut incoming, &headers).await?;
            let path = target.split('?').next().unwrap_or_default();
            if !path.starts_with("/jwks") {
                // The run may be over already.
                let _ = self.record.send(recorded(method, target, &headers, &body));
            }
            if !self.answer(&socket, path).await? {
                return Ok(());
            }
        }
    }

    /// Whether the connection goes on.
    async fn answer(&self, socket: &Socket, path: &str) -> Result<bool> {
        let answer = self.variables.fill(&self.next_answer(path))?;
        if let Some(Json::Int(delay)) = answer.get("delay") {
            sleep(Duration::from_millis(u64::try_from(*delay)?)).await;
        }
        if answer.get("drop") == Some(&Json::Bool(true)) {
            socket.reset_on_drop();
            return Ok(false);
        }
        let (body, kind) = match answer.get("json") {
            Some(value) => (value.compact(), "application/json"),
            None => (answer.get("text").and_then(Json::as_str).unwrap_or_default().to_owned(), "text/plain"),
        };
        let status = answer.get("status").map_or_else(|| "200".to_owned(), Json::compact);
        let mut head =
            format!("HTTP/1.1 {status} Scripted\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in answer.get("headers").and_then(Json::as_object).into_iter().flat_map(Object::iter) {
            head.push_str(&format!("{name}: {}\r\n", value.as_str().unwrap_or_default()));
        }
        let body = if status == "204" || status == "304" { "" } else { &body };
        socket.write(format!("{head}\r\n{body}").as_bytes()).await?;
        Ok(true)
    }

    fn next_answer(&self, path: &str) -> Json {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = answers.get_mut(path);
        let last = queue.as_ref().and_then(|queue| queue.last()).cloned();
        if let Some(queue) = queue.filter(|queue| queue.len() > 1) {
            queue.pop();
        }
        last.unwrap_or_else(|| Json::object([("status", Json::int(404)), ("text", Json::text("no answer scripted"))]))
    }
}

async fn read_body(incoming: &mut Incoming, headers: &Object) -> io::Result<Vec<u8>> {
    let header = |name| headers.get(name).and_then(Json::as_str).unwrap_or_default();
    let mut body = Vec::new();
    if header("transfer-encoding").eq_ignore_ascii_case("chunked") {
        let mut chunks = Body::Chunked;
        while let Some(piece) = chunks.next(incoming).await? {
            body.extend_from_slice(&piece);
        }
    } else {
        let size: usize = header("content-length").parse().unwrap_or_default();
        incoming.take(size as u64).read_to_end(&mut body).await?;
    }
    Ok(body)
}

fn recorded(method: &str, target: &str, headers: &Object, body: &[u8]) -> Json {
    let kept = headers.iter().filter(|(name, _)| !UNRECORDED.contains(name));
    let shown = match std::str::from_utf8(body) {
        Ok("") => Json::Null,
        Ok(text) => parse_json(text).unwrap_or_else(|_| show_payload(body)),
        Err(_) => show_payload(body),
    };
    Json::object([
        ("request", Json::Text(format!("{method} {target}"))),
        ("headers", Json::Object(kept.map(|(name, value)| (name.to_owned(), value.clone())).collect())),
        ("body", shown),
    ])
}
