//! Scenarios and their goldens: reading them and checking their form.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::json::{Json, Object};

/// Where the recorded scenarios are.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/transcripts")
}

/// A recorded scenario with the transcript that is to come out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Golden {
    pub(crate) scenario: Scenario,
    pub(crate) transcript: Vec<Json>,
    #[serde(rename = "format")]
    _format: u32,
    #[serde(rename = "recorded_from")]
    _recorded_from: String,
}

/// One scenario; the members are those of the README beside the recorded ones, section 1.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) checks: String,
    pub(crate) quirk: Option<String>,
    #[serde(default)]
    pub(crate) config: Object,
    #[serde(default)]
    pub(crate) env: Object,
    pub(crate) start: Option<Start>,
    pub(crate) backend: Option<Object>,
    /// Seconds.
    #[serde(default = "half_a_minute")]
    pub(crate) time_limit: u64,
    /// As written, with variables: a step becomes a [`Step`] at the moment it is played.
    pub(crate) steps: Vec<Json>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Start {
    /// The server must end by itself instead of listening.
    Refused,
}

/// One step, with its variables replaced. Times are in milliseconds.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    Open(Box<Open>),
    Send(Send),
    Expect(Expect),
    Quiet(Quiet),
    ExpectClose(ExpectClose),
    Close(Close),
    Token(Token),
    Set(Object),
    Wait(u64),
    Http(Http),
    Api(Api),
    Grpc(Grpc),
    ExpectBackend(ExpectBackend),
    Server(ServerStep),
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Transport {
    #[default]
    Websocket,
    HttpStream,
    Sse,
    UniWebsocket,
    UniSse,
    UniHttpStream,
    UniGrpc,
}

impl Transport {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Websocket => "websocket",
            Self::HttpStream => "http_stream",
            Self::Sse => "sse",
            Self::UniWebsocket => "uni_websocket",
            Self::UniSse => "uni_sse",
            Self::UniHttpStream => "uni_http_stream",
            Self::UniGrpc => "uni_grpc",
        }
    }

    pub(crate) fn is_unidirectional(self) -> bool {
        self.name().starts_with("uni_")
    }

    pub(crate) fn is_event_stream(self) -> bool {
        matches!(self, Self::Sse | Self::UniSse)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Open {
    pub(crate) client: String,
    #[serde(default)]
    pub(crate) kind: Transport,
    pub(crate) protocol: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) query: Option<Query>,
    #[serde(default)]
    pub(crate) headers: Object,
    pub(crate) origin: Option<String>,
    pub(crate) subprotocols: Option<Vec<String>>,
    pub(crate) method: Option<String>,
    pub(crate) connect: Option<Json>,
    pub(crate) json: Option<Json>,
    pub(crate) body: Option<String>,
    #[serde(default = "yes")]
    pub(crate) auto_pong: bool,
    #[serde(default)]
    pub(crate) delta: Channels,
    #[serde(default = "emulation")]
    pub(crate) emulation_path: String,
}

/// A query given as text, or as an object that is to be form-encoded.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Query {
    Text(String),
    Form(Object),
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Channels {
    One(String),
    Many(Vec<String>),
}

impl Default for Channels {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Channels {
    pub(crate) fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Many(names) => names,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Send {
    pub(crate) client: String,
    pub(crate) commands: Option<Vec<Json>>,
    pub(crate) text: Option<String>,
    pub(crate) binary_hex: Option<String>,
    #[serde(default)]
    pub(crate) pong: bool,
    pub(crate) frame: Option<RawFrame>,
}

/// One WebSocket frame, right or wrong.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawFrame {
    pub(crate) opcode: u8,
    pub(crate) hex: Option<String>,
    #[serde(default)]
    pub(crate) text: String,
    #[serde(default = "yes")]
    pub(crate) fin: bool,
    #[serde(default = "yes")]
    pub(crate) mask: bool,
    #[serde(default)]
    pub(crate) rsv: u8,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    pub(crate) client: String,
    #[serde(default = "one")]
    pub(crate) messages: usize,
    #[serde(default = "three_seconds")]
    pub(crate) within: u64,
    #[serde(default)]
    pub(crate) pings: bool,
    #[serde(default)]
    pub(crate) frame_pings: bool,
    #[serde(default)]
    pub(crate) unordered: bool,
    #[serde(default)]
    pub(crate) capture: Object,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Quiet {
    pub(crate) client: String,
    #[serde(rename = "for", default = "a_moment")]
    pub(crate) time: u64,
    #[serde(default)]
    pub(crate) pings: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpectClose {
    pub(crate) client: String,
    #[serde(default = "three_seconds")]
    pub(crate) within: u64,
    #[serde(default)]
    pub(crate) unordered: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Close {
    pub(crate) client: String,
    #[serde(default = "normal_closure")]
    pub(crate) code: u16,
    #[serde(default)]
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) abort: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Token {
    #[serde(rename = "as")]
    pub(crate) variable: String,
    #[serde(default = "hs256")]
    pub(crate) alg: String,
    #[serde(default)]
    pub(crate) key: String,
    #[serde(default = "empty")]
    pub(crate) claims: Json,
    #[serde(default)]
    pub(crate) header: Object,
    pub(crate) tamper: Option<Tamper>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Tamper {
    Signature,
    Payload,
    Cut,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Http {
    #[serde(default = "get")]
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: Option<Query>,
    #[serde(default)]
    pub(crate) headers: Object,
    pub(crate) json: Option<Json>,
    pub(crate) body: Option<String>,
    pub(crate) port: Option<String>,
    #[serde(default)]
    pub(crate) capture: Object,
    #[serde(default)]
    pub(crate) record: Record,
}

/// What of a response is recorded.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) headers: Option<Vec<String>>,
    #[serde(default = "yes")]
    pub(crate) body: bool,
    pub(crate) lines_starting: Option<String>,
}

impl Default for Record {
    fn default() -> Self {
        Self { headers: None, body: true, lines_starting: None }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Api {
    pub(crate) method: String,
    #[serde(default = "empty")]
    pub(crate) params: Json,
    #[serde(default)]
    pub(crate) headers: Object,
    #[serde(default)]
    pub(crate) capture: Object,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grpc {
    pub(crate) method: String,
    #[serde(default = "empty")]
    pub(crate) request: Json,
    #[serde(default)]
    pub(crate) metadata: Object,
    pub(crate) encoding: Option<Encoding>,
    #[serde(default)]
    pub(crate) capture: Object,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Encoding {
    Gzip,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpectBackend {
    #[serde(default = "one")]
    pub(crate) requests: usize,
    #[serde(default = "three_seconds")]
    pub(crate) within: u64,
    #[serde(default)]
    pub(crate) unordered: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerStep {
    pub(crate) reload: Option<Object>,
    pub(crate) signal: Option<String>,
    pub(crate) expect_exit: Option<u64>,
}

impl Step {
    /// The kind as it stands in the scenario.
    pub(crate) fn kind(step: &Json) -> &str {
        step.as_object().and_then(|o| o.iter().next()).map_or("?", |(kind, _)| kind)
    }

    pub(crate) fn parse(step: &Json) -> Result<Self> {
        Ok(serde_json::from_str(&step.compact())?)
    }
}

impl Golden {
    /// Reads a golden and makes sure that it was recorded from the scenario as it is now.
    fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)?;
        let golden: Self = serde_json::from_str(&text)?;
        let name = golden.scenario.name.as_str();
        let beside = folder().join(name).with_added_extension("yaml");
        ensure!(path == folder().join(name).with_added_extension("golden.json"), "its scenario is named {name}");
        for (number, step) in (1..).zip(&golden.scenario.steps) {
            Step::parse(step).with_context(|| format!("step {number} ({})", Step::kind(step)))?;
        }
        let written: Json = yaml_serde::from_str(&fs::read_to_string(&beside).context("its scenario file")?)?;
        let whole: Json = serde_json::from_str(&text)?;
        ensure!(whole.get("scenario") == Some(&written), "the scenario file has changed since this was recorded");
        Ok(golden)
    }

    /// The entry recorded for a step; steps are numbered from 1.
    pub(crate) fn entry(&self, step: usize) -> Option<&Json> {
        self.transcript.iter().find(|entry| entry.get("step") == Some(&Json::int(step)))
    }

    pub(crate) fn area(&self) -> &str {
        self.scenario.name.split('/').next().unwrap_or_default()
    }

    /// Whether the client has to answer within a fraction of a second, for which it needs the machine for itself.
    pub(crate) fn answers_in_time(&self) -> bool {
        self.area() == "ping"
    }

    /// How long the scenario waits by its own account: long ones are played first.
    pub(crate) fn waits(&self) -> Duration {
        let member = |step: &Json, path: &str| match step.dig(path) {
            Some(Json::Int(ms)) => u64::try_from(*ms).unwrap_or_default(),
            _ => 0,
        };
        let paths = ["quiet.for", "wait", "expect.within", "expect_close.within", "expect_backend.within"];
        let steps = self.scenario.steps.iter();
        Duration::from_millis(steps.map(|step| paths.iter().map(|path| member(step, path)).sum::<u64>()).sum())
    }
}

/// All goldens, sorted by name.
pub(crate) fn load_all() -> Result<Vec<Golden>> {
    const SUFFIX: &str = ".golden.json";
    let mut goldens = Vec::new();
    for area in fs::read_dir(folder()).with_context(|| folder().display().to_string())? {
        let area = area?.path();
        if !area.is_dir() {
            continue;
        }
        for file in fs::read_dir(&area)? {
            let path = file?.path();
            if path.to_string_lossy().ends_with(SUFFIX) {
                goldens.push(Golden::load(&path).with_context(|| path.display().to_string())?);
            }
        }
    }
    ensure!(!goldens.is_empty(), "no recorded scenarios in {}", folder().display());
    goldens.sort_by(|a, b| a.scenario.name.cmp(&b.scenario.name));
    Ok(goldens)
}

// === defaults ===

fn half_a_minute() -> u64 {
    30
}

fn three_seconds() -> u64 {
    3000
}

fn a_moment() -> u64 {
    300
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

fn normal_closure() -> u16 {
    1000
}

fn get() -> String {
    "GET".to_owned()
}

fn hs256() -> String {
    "HS256".to_owned()
}

fn emulation() -> String {
    "/emulation".to_owned()
}

fn empty() -> Json {
    Json::object([])
}
