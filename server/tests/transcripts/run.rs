//! Plays one scenario against one server process; section 2 of the README beside the scenarios.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    backend::Backend,
    connection::{Connection, inbox::Wanted},
    json::{Json, Object},
    message::Schema,
    normalise::{Entry, Known, normalise},
    ports::Ports,
    scenario::{Golden, Start, Step},
    server::{CommandLine, Listeners, Server},
    variables::Variables,
};

/// Wait for what no step asks for.
const SETTLE: Duration = Duration::from_millis(150);

/// What a scenario whose golden got all that a step waits for may wait longer for it: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(5);

/// The same for a whole scenario, start of the server included.
const WHOLE_PATIENCE: Duration = Duration::from_secs(60);

/// What all runs share.
pub(crate) struct Stage {
    pub(crate) command: CommandLine,
    pub(crate) ports: Arc<Ports>,
    pub(crate) schema: Arc<Schema>,
}

/// The normalised transcript, or why there is none; and what the server wrote.
pub(crate) struct Played {
    pub(crate) transcript: Result<Vec<Json>>,
    pub(crate) log: String,
}

pub(crate) async fn play(stage: &Stage, golden: &Golden) -> Played {
    let limit = Duration::from_secs(golden.scenario.time_limit) + WHOLE_PATIENCE;
    let mut run = Run::new(stage, golden);
    let transcript = match timeout(limit, run.play()).await {
        Ok(transcript) => transcript,
        Err(_) => Err(anyhow!("it takes longer than {} s", limit.as_secs())),
    };
    // Clients go first, so that a server that waits for them ends.
    drop(std::mem::take(&mut run.clients));
    let log = run.server.as_ref().map(Server::log).unwrap_or_default();
    if let Some(server) = run.server.take() {
        server.stop().await;
    }
    Played { transcript, log }
}

pub(crate) struct Run<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) golden: &'a Golden,
    pub(crate) variables: Arc<Variables>,
    pub(crate) config: Object,
    pub(crate) server: Option<Server>,
    pub(crate) backend: Option<Backend>,
    /// In the order of opening; of two with one name the last one is meant.
    pub(crate) clients: Vec<Connection>,
    pub(crate) known: Known,
}

impl<'a> Run<'a> {
    fn new(stage: &'a Stage, golden: &'a Golden) -> Self {
        Self {
            stage,
            golden,
            variables: Arc::new(Variables::new(stage.ports.clone())),
            config: Object::default(),
            server: None,
            backend: None,
            clients: Vec::new(),
            known: Known::default(),
        }
    }

    async fn play(&mut self) -> Result<Vec<Json>> {
        let scenario = &self.golden.scenario;
        let backend_port = self.stage.ports.take()?;
        let listeners = Listeners::choose(&scenario.config, &self.stage.ports)?;
        self.name_address("addr", &format!("127.0.0.1:{}", listeners.http()));
        self.name_address("backend", &format!("http://127.0.0.1:{}", backend_port.number()));
        if let Some(answers) = &scenario.backend {
            self.backend = Some(Backend::start(backend_port.number(), answers, self.variables.clone()).await?);
        }
        self.config = self.variables.fill_object(&scenario.config)?;
        let env = self.variables.fill_object(&scenario.env)?;
        let server = self.server.insert(Server::start(&self.stage.command, listeners, &self.config, &env)?);
        if scenario.start == Some(Start::Refused) {
            let code = server.exit_code(Duration::from_secs(5)).await.map_or(Json::Null, Json::int);
            return Ok(vec![Json::object([("start", Json::text("refused")), ("exit_code", code)])]);
        }
        server.ready().await?;

        let mut entries = Vec::new();
        for (number, step) in (1..).zip(&scenario.steps) {
            let place = || format!("step {number} ({})", Step::kind(step));
            let step = self.variables.fill(step).and_then(|step| Step::parse(&step)).with_context(place)?;
            if let Some(entry) = self.step(number, step).await.with_context(place)? {
                entries.push(numbered(number, entry));
            }
        }
        entries.extend(self.rest().await);
        self.name_clients();
        Ok(normalise(std::mem::take(&mut self.known), entries))
    }

    fn name_address(&mut self, name: &str, address: &str) {
        self.variables.set(name, Json::text(address));
        self.known.add(address, format!("<{name}>"));
    }

    fn name_clients(&mut self) {
        for client in &self.clients {
            self.known.add(&client.connect_member("client"), format!("<client:{}>", client.name));
            self.known.add(&client.connect_member("session"), format!("<session:{}>", client.name));
            self.known.add(&client.connect_member("node"), "<node>".to_owned());
        }
    }

    /// What came and no step asked for.
    async fn rest(&mut self) -> Vec<Entry> {
        sleep(SETTLE).await;
        let mut entries = Vec::new();
        for at in 0..self.clients.len() {
            let is_replaced = self.clients[at + 1..].iter().any(|later| later.name == self.clients[at].name);
            let client = &mut self.clients[at];
            if client.left || is_replaced {
                continue;
            }
            let was_closed = client.queue.closed.is_some();
            let messages = client.queue.take(Wanted::default(), Instant::now()).await;
            let closed = client.queue.closed.clone().filter(|_| !was_closed);
            if messages.is_empty() && closed.is_none() {
                continue;
            }
            let mut recorded = Object::default();
            recorded.insert("rest", Json::text(&client.name));
            recorded.insert("messages", Json::List(messages));
            if let Some(closed) = closed {
                recorded.insert("closed", closed);
            }
            entries.push(Entry { recorded, unordered: None });
        }
        let requests = self.backend.as_mut().map(Backend::rest).unwrap_or_default();
        if !requests.is_empty() {
            let members = [("rest".to_owned(), Json::text("backend")), ("requests".to_owned(), Json::List(requests))];
            entries.push(Entry { recorded: members.into_iter().collect(), unordered: None });
        }
        entries
    }

    pub(crate) fn client(&mut self, name: &str) -> Result<&mut Connection> {
        let found = self.clients.iter_mut().rev().find(|client| client.name == name);
        found.with_context(|| format!("no client {name} is open"))
    }

    pub(crate) fn server(&mut self) -> Result<&mut Server> {
        self.server.as_mut().context("the server runs")
    }

    /// When a step that waits for `count` things stops waiting. It ends as soon as they are there; so it may be given
    /// more time than the scenario says where the golden has all of them, and must not where it has fewer.
    pub(crate) fn deadline(&self, number: usize, within: u64, list: &str, count: usize) -> Instant {
        let deadline = Instant::now() + Duration::from_millis(within);
        let entry = self.golden.entry(number);
        let has_all = match entry.and_then(|entry| entry.get(list)) {
            Some(Json::List(things)) => things.len() >= count,
            _ => false,
        };
        let has_ended = entry.is_some_and(|entry| entry.get("closed").is_some());
        if has_all || has_ended { deadline + PATIENCE } else { deadline }
    }
}

/// An entry with the number of its step in front.
fn numbered(number: usize, entry: Entry) -> Entry {
    let mut recorded = Object::default();
    recorded.insert("step", Json::int(number));
    for (name, value) in entry.recorded.iter() {
        recorded.insert(name, value.clone());
    }
    Entry { recorded, ..entry }
}
