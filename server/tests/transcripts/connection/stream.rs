//! HTTP streaming and SSE: one request, then messages in the body of its response.

use anyhow::{Context, Result, bail};

use super::{Opened, Opening, inbox::Inbox, outgoing::Route};
use crate::{
    http1::{Body, Headers, Response, has, target, while_writing, write_request},
    json::{Json, Object},
    message::{COMMAND, delimited},
    scenario::Query,
    socket::{Incoming, Socket},
};

/// The forms in which messages stand in a body.
#[derive(Clone, Copy)]
enum Framing {
    Lines,
    Events,
    Delimited,
}

impl Opening<'_> {
    pub(super) async fn stream(self) -> Result<Opened> {
        let method = self.args.method.clone();
        let method = method.unwrap_or_else(|| if self.args.kind.is_event_stream() { "GET" } else { "POST" }.to_owned());
        let (target, body) = self.request(&method)?;
        let mut headers: Headers = vec![("Host".to_owned(), format!("127.0.0.1:{}", self.port))];
        headers.extend(self.headers());
        if self.is_protobuf() && !has(&headers, "content-type") {
            headers.push(("Content-Type".to_owned(), "application/octet-stream".to_owned()));
        }
        let (mut incoming, socket) = Socket::connect(self.port).await?;
        let write = write_request(&socket, &method, &target, &headers, body.as_deref());
        let mut response = while_writing(write, Response::read_head(&mut incoming)).await?;

        let mut recorded = Object::default();
        recorded.insert("status", Json::int(response.status));
        recorded.insert("headers", Json::Object(response.shown_headers(None)));
        if response.status != 200 || method == "OPTIONS" {
            response.read_body(&mut incoming, &method).await?;
            recorded.insert("body", response.shown_body());
            return Ok(Opened { recorded, outgoing: self.outgoing(Route::Nowhere), socket: None, reader: None });
        }
        let route = match self.args.kind.is_unidirectional() {
            true => Route::Nowhere,
            false => Route::Emulation { port: self.port, path: self.args.emulation_path.clone() },
        };
        let framing = match (self.is_protobuf(), self.args.kind.is_event_stream()) {
            (true, _) => Framing::Delimited,
            (false, true) => Framing::Events,
            (false, false) => Framing::Lines,
        };
        let outgoing = self.outgoing(route);
        let inbox = self.inbox(self.message_type(), outgoing.clone());
        let body = response.body(&method);
        let reader = tokio::spawn(read_stream(incoming, body, framing, inbox));
        Ok(Opened { recorded, outgoing, socket: Some(socket), reader: Some(reader) })
    }

    /// Target and body of the request.
    fn request(&self, method: &str) -> Result<(String, Option<Vec<u8>>)> {
        let path = self.path();
        let mut body = None;
        let mut request_target = target(&path, self.args.query.as_ref());
        if let Some(connect) = &self.args.connect {
            let connect = connect.clone();
            let value = match self.args.kind.is_unidirectional() {
                true => connect,
                false => Json::object([("id", Json::int(1)), ("connect", connect)]),
            };
            if method == "GET" {
                let mut form = match &self.args.query {
                    None => Object::default(),
                    Some(Query::Form(form)) => form.clone(),
                    Some(Query::Text(_)) => bail!("a connect request joins a query that is an object"),
                };
                form.insert("cf_connect", Json::Text(value.compact()));
                request_target = target(&path, Some(&Query::Form(form)));
            } else if self.is_protobuf() {
                body = Some(delimited(&self.schema.encode(COMMAND, &value).context("the connect request")?));
            } else {
                body = Some(value.compact().into_bytes());
            }
        }
        if let Some(value) = &self.args.json {
            body = Some(value.compact().into_bytes());
        } else if let Some(text) = &self.args.body {
            body = Some(text.clone().into_bytes());
        }
        Ok((request_target, body))
    }
}

async fn read_stream(mut incoming: Incoming, mut body: Body, framing: Framing, mut inbox: Inbox) {
    let (mut rest, mut event) = (Vec::new(), Vec::new());
    let how = loop {
        match body.next(&mut incoming).await {
            Ok(Some(piece)) => rest.extend_from_slice(&piece),
            Ok(None) => break "end_of_stream",
            Err(_) => break "broken_stream",
        }
        if let Framing::Delimited = framing {
            inbox.delimited(&mut rest).await;
            continue;
        }
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line[..end]);
            let line = line.trim_end_matches('\r');
            match framing {
                Framing::Events => event_line(line, &mut event, &mut inbox).await,
                Framing::Lines | Framing::Delimited => inbox.json(line).await,
            }
        }
    };
    if !rest.is_empty() {
        inbox.anomaly(format!("{} bytes without an end mark", rest.len()));
    }
    inbox.ended(Json::object([(how, Json::Bool(true))]));
}

/// One line of an event stream; an empty one ends the event.
async fn event_line(line: &str, event: &mut Vec<String>, inbox: &mut Inbox) {
    if let Some(data) = line.strip_prefix("data:") {
        event.push(data.strip_prefix(' ').unwrap_or(data).to_owned());
    } else if !line.is_empty() {
        inbox.anomaly(format!("a line of the event stream that is no data: {line}"));
    } else if !event.is_empty() {
        let data = std::mem::take(event).join("\n");
        inbox.json(&data).await;
    }
}
