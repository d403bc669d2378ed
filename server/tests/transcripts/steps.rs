//! What each kind of step does and what it records; section 3 of the README beside the scenarios.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    connection::{Connection, grpc, inbox::Wanted},
    http1::{Headers, Response, exchange, has, headers_of, target},
    json::{Json, Object},
    message::API_SERVICE,
    normalise::Entry,
    run::Run,
    scenario::{Api, Close, Encoding, Expect, ExpectBackend, ExpectClose, Grpc, Http, Open, Quiet, ServerStep, Step},
    tokens,
};

/// How long a listener besides the main ones may take to come up.
const LATE_LISTENER: Duration = Duration::from_secs(10);

/// A record in the making.
struct Record(Object);

impl Record {
    fn of(kind: &str, what: impl Into<Json>) -> Self {
        let mut object = Object::default();
        object.insert(kind, what.into());
        Self(object)
    }

    fn with(mut self, name: &str, value: Json) -> Self {
        self.0.insert(name, value);
        self
    }

    fn with_all(mut self, members: &Object) -> Self {
        for (name, value) in members.iter() {
            self.0.insert(name, value.clone());
        }
        self
    }

    fn with_closed(self, closed: Option<Json>) -> Self {
        match closed {
            Some(closed) => self.with("closed", closed),
            None => self,
        }
    }

    fn entry(self) -> Entry {
        Entry { recorded: self.0, unordered: None }
    }

    /// The entry, with a list that may have no order.
    fn unordered(self, list: &'static str, is_unordered: bool) -> Entry {
        Entry { recorded: self.0, unordered: is_unordered.then_some(list) }
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl Run<'_> {
    /// Plays a step; gives what is recorded, if it records something.
    pub(crate) async fn step(&mut self, number: usize, step: Step) -> Result<Option<Entry>> {
        match step {
            Step::Open(args) => self.open(&args).await.map(Some),
            Step::Send(args) => {
                let recorded = self.client(&args.client)?.send(&args).await?;
                Ok(recorded.map(|members| Record::of("send", args.client).with_all(&members).entry()))
            }
            Step::Expect(args) => self.expect(number, &args).await.map(Some),
            Step::Quiet(args) => self.quiet(&args).await.map(Some),
            Step::ExpectClose(args) => self.expect_close(&args).await.map(Some),
            Step::Close(args) => self.close(&args).await.map(|()| None),
            Step::Token(args) => {
                let token = tokens::mint(&args)?;
                self.known.add(&token, format!("<token:{}>", args.variable));
                self.variables.set(&args.variable, Json::Text(token));
                Ok(None)
            }
            Step::Set(values) => {
                for (name, value) in values.iter() {
                    self.variables.set(name, value.clone());
                }
                Ok(None)
            }
            Step::Wait(time) => {
                sleep(Duration::from_millis(time)).await;
                Ok(None)
            }
            Step::Http(args) => self.http(&args).await.map(Some),
            Step::Api(args) => self.api(&args).await.map(Some),
            Step::Grpc(args) => self.grpc(&args).await.map(Some),
            Step::ExpectBackend(args) => self.expect_backend(number, &args).await.map(Some),
            Step::Server(args) => self.server_step(&args).await,
        }
    }

    // === connections ===

    async fn open(&mut self, args: &Open) -> Result<Entry> {
        let schema = self.stage.schema.clone();
        let (connection, recorded) = Connection::open(args, &self.server()?.listeners, schema).await?;
        self.clients.push(connection);
        Ok(Record::of("open", &*args.client).with_all(&recorded).entry())
    }

    async fn expect(&mut self, number: usize, args: &Expect) -> Result<Entry> {
        let deadline = self.deadline(number, args.within, "messages", args.messages);
        let wanted = Wanted { messages: Some(args.messages), pings: args.pings, control_frames: args.frame_pings };
        let (messages, closed) = self.hear(&args.client, wanted, deadline).await?;
        self.variables.capture(&args.capture, &messages);
        let record = Record::of("expect", &*args.client).with("messages", Json::List(messages));
        Ok(record.with_closed(closed).unordered("messages", args.unordered))
    }

    async fn quiet(&mut self, args: &Quiet) -> Result<Entry> {
        let deadline = Instant::now() + Duration::from_millis(args.time);
        let wanted = Wanted { pings: args.pings, ..Wanted::default() };
        let (messages, closed) = self.hear(&args.client, wanted, deadline).await?;
        let record = Record::of("quiet", &*args.client).with("messages", Json::List(messages));
        Ok(record.with_closed(closed).entry())
    }

    async fn expect_close(&mut self, args: &ExpectClose) -> Result<Entry> {
        let deadline = Instant::now() + Duration::from_millis(args.within);
        let client = self.client(&args.client)?;
        let messages = client.queue.take(Wanted::default(), deadline).await;
        let closed = client.queue.closed.clone().unwrap_or_else(|| Json::text("still open"));
        let record = Record::of("expect_close", &*args.client).with("closed", closed);
        let record = if messages.is_empty() { record } else { record.with("messages", Json::List(messages)) };
        Ok(record.unordered("messages", args.unordered))
    }

    async fn close(&mut self, args: &Close) -> Result<()> {
        self.client(&args.client)?.leave(args).await;
        Ok(())
    }

    /// Messages, and how the connection ended if it did so meanwhile.
    async fn hear(&mut self, client: &str, wanted: Wanted, deadline: Instant) -> Result<(Vec<Json>, Option<Json>)> {
        let queue = &mut self.client(client)?.queue;
        let was_closed = queue.closed.is_some();
        let messages = queue.take(wanted, deadline).await;
        Ok((messages, queue.closed.clone().filter(|_| !was_closed)))
    }

    // === HTTP ===

    async fn http(&mut self, args: &Http) -> Result<Entry> {
        let mut headers = headers_of(&args.headers);
        let body = match (&args.json, &args.body) {
            (Some(value), _) => {
                if !has(&headers, "content-type") {
                    headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
                }
                Some(value.compact())
            }
            (None, body) => body.clone(),
        };
        let port = match &args.port {
            Some(name) => self.late_port(name).await?,
            None => self.server()?.listeners.http(),
        };
        let target = target(&args.path, args.query.as_ref());
        let response = exchange(port, &args.method, &target, headers, body.as_deref().map(str::as_bytes)).await?;
        let shown = response.shown_body();
        self.variables.capture(&args.capture, std::slice::from_ref(&shown));

        let mut record =
            Record::of("http", format!("{} {}", args.method, args.path)).with("status", Json::int(response.status));
        let headers = response.shown_headers(args.record.headers.as_deref());
        if !headers.is_empty() {
            record = record.with("headers", Json::Object(headers));
        }
        Ok(match &args.record.lines_starting {
            Some(prefix) => record.with("lines", lines_starting(&response, prefix)),
            None if args.record.body => record.with("body", shown),
            None => record,
        }
        .entry())
    }

    /// A port of `{{port:NAME}}`, once something listens there.
    async fn late_port(&mut self, name: &str) -> Result<u16> {
        let port = self.variables.named_port(name)?;
        let deadline = Instant::now() + LATE_LISTENER;
        let up = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout_at(deadline, up).await.with_context(|| format!("nothing listens on port {name}"))?;
        Ok(port)
    }

    async fn api(&mut self, args: &Api) -> Result<Entry> {
        let section = self.config.get("http_api");
        let text = |name: &str| section.and_then(|section| section.get(name)).and_then(Json::as_str);
        let prefix = text("handler_prefix").unwrap_or("/api");
        let mut headers: Headers = headers_of(&args.headers);
        if !has(&headers, "content-type") {
            headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
        }
        if let Some(key) = text("key").filter(|key| !key.is_empty() && !has(&headers, "x-api-key")) {
            headers.push(("X-API-Key".to_owned(), key.to_owned()));
        }
        let target = format!("{prefix}/{}", args.method);
        let body = args.params.compact();
        let response =
            exchange(self.server()?.listeners.http(), "POST", &target, headers, Some(body.as_bytes())).await?;
        let shown = response.shown_body();
        self.variables.capture(&args.capture, std::slice::from_ref(&shown));
        Ok(Record::of("api", &*args.method).with("status", Json::int(response.status)).with("body", shown).entry())
    }

    // === gRPC ===

    async fn grpc(&mut self, args: &Grpc) -> Result<Entry> {
        let schema = self.stage.schema.clone();
        let method = schema.method(API_SERVICE, &args.method)?;
        let message = match &method {
            Some((request, _)) => schema.encode(request, &args.request)?,
            // A method that this project does not know is called to see it refused.
            None => Vec::new(),
        };
        let port = self.server()?.listeners.grpc().context("grpc_api is not enabled")?;
        let path = format!("/{API_SERVICE}/{}", args.method);
        let gzip = args.encoding == Some(Encoding::Gzip);
        let record = Record::of("grpc", &*args.method);
        let status = match grpc::unary(port, &path, message, &args.metadata, gzip).await? {
            Ok(bytes) => {
                let (_, response) = method.context("a method that was expected to be unknown")?;
                let shown = schema.decode(&response, &bytes)?;
                self.variables.capture(&args.capture, std::slice::from_ref(&shown));
                return Ok(record.with("code", Json::text("OK")).with("response", shown).entry());
            }
            Err(status) => status,
        };
        let record =
            record.with("code", Json::Text(grpc::code_name(&status))).with("message", Json::text(status.message()));
        if status.details().is_empty() {
            return Ok(record.entry());
        }
        let details = details(status.details())?.into_iter().map(|(type_url, bytes)| {
            let name = type_url.rsplit('/').next().unwrap_or_default();
            Ok(Json::object([("value", schema.decode(name, &bytes)?), ("type_url", Json::Text(type_url))]))
        });
        Ok(record.with("details", Json::List(details.collect::<Result<_>>()?)).entry())
    }

    // === backend and process ===

    async fn expect_backend(&mut self, number: usize, args: &ExpectBackend) -> Result<Entry> {
        let deadline = self.deadline(number, args.within, "requests", args.requests);
        let backend = self.backend.as_mut().context("the scenario has no backend")?;
        let requests = backend.requests(args.requests, deadline).await;
        let record = Record::of("expect_backend", Json::int(requests.len()));
        Ok(record.with("requests", Json::List(requests)).unordered("requests", args.unordered))
    }

    async fn server_step(&mut self, args: &ServerStep) -> Result<Option<Entry>> {
        let server = self.server()?;
        if let Some(config) = &args.reload {
            server.reconfigure(config)?;
            server.signal("HUP")?;
        }
        if let Some(name) = &args.signal {
            server.signal(name)?;
        }
        let Some(within) = args.expect_exit else { return Ok(None) };
        let code = server.exit_code(Duration::from_millis(within)).await.map_or(Json::Null, Json::int);
        Ok(Some(Record::of("server", "exit").with("exit_code", code).entry()))
    }
}

fn lines_starting(response: &Response, prefix: &str) -> Json {
    let text = String::from_utf8_lossy(&response.body);
    let mut lines: Vec<_> = text.split('\n').filter(|line| line.starts_with(prefix)).collect();
    lines.sort_unstable();
    Json::List(lines.into_iter().map(Json::text).collect())
}

/// Type URL and bytes of each detail of a `google.rpc.Status`.
fn details(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    use prost::Message as _;

    #[derive(prost::Message)]
    struct Status {
        #[prost(message, repeated, tag = "3")]
        details: Vec<Any>,
    }
    #[derive(prost::Message)]
    struct Any {
        #[prost(string, tag = "1")]
        type_url: String,
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
    }

    let status = Status::decode(bytes)?;
    Ok(status.details.into_iter().map(|any| (any.type_url, any.value)).collect())
}
