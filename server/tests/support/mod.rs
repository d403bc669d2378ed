//! The built server as a process of its own, and clients that speak with it.
//!
//! Every server has its own free ports, its own folder and its own log, and is killed when its [`Server`] is dropped. Waiting
//! is always for something that is looked for, within a bound from which nothing is concluded.
#![allow(dead_code, missing_docs, unreachable_pub, unused_imports)]

pub mod client;
pub mod http;
pub mod tls;

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
    time::timeout,
};

pub use self::client::{Client, Dial, Event, Protocol};

/// Bound of everything that is expected to happen.
pub const SOON: Duration = Duration::from_secs(60);

/// Key of the HTTP and gRPC API of every server.
pub const API_KEY: &str = "key-of-the-tests";

/// Key of the connection tokens of every server.
pub const TOKEN_KEY: &str = "secret-of-the-tests";

/// Waits for a future that is expected to end.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.unwrap_or_else(|_| panic!("{what}: not in {SOON:?}"))
}

/// Waits until a condition holds that nobody announces.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        while !holds().await {
            look.tick().await;
        }
    };
    soon(what, wait).await;
}

/// A port that is free now, below those that systems give to outgoing connections.
pub fn free_port() -> u16 {
    (0..1000)
        .map(|_| rand::random_range(12_000..32_000))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("some port is free")
}

/// A connection token of a user, without an end.
pub fn token(user: &str) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(TOKEN_KEY.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &json!({ "sub": user }), &key).unwrap()
}

/// Puts `from` over `into`, object by object.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

// === impl Server ===

/// A server process.
pub struct Server {
    pub port: u16,
    pub grpc_port: u16,
    /// Where the API and the metrics are.
    internal_port: u16,
    folder: TempDir,
    child: Child,
    config: Value,
}

impl Server {
    /// Starts a server that lets anonymous clients connect, subscribe and publish, with `config` put over that, and waits
    /// until it accepts connections.
    pub async fn start(config: Value) -> Self {
        Self::start_in(TempDir::new().unwrap(), config).await
    }

    /// The same with a folder that holds files of the configuration already.
    pub async fn start_in(folder: TempDir, config: Value) -> Self {
        let mut folder = folder;
        // Another process may take a port between our look and the start.
        for _ in 0..5 {
            let mut server = Self::spawn(folder, config.clone());
            match server.accepts().await {
                Ok(()) => return server,
                Err(status) if server.log().contains("in use") => eprintln!("a port was taken: {status}"),
                Err(status) => panic!("the server did not start, {status}:\n{}", server.log()),
            }
            folder = std::mem::replace(&mut server.folder, TempDir::new().unwrap());
        }
        panic!("no free port");
    }

    /// Starts a server that is expected to refuse its configuration. Answers its exit code and its words.
    pub async fn refused(folder: TempDir, config: Value) -> (Option<i32>, String) {
        let mut server = Self::spawn(folder, config);
        let code = server.ended().await;
        (code, server.log())
    }

    fn spawn(folder: TempDir, config: Value) -> Self {
        let (port, grpc_port) = (free_port(), free_port());
        let mut whole = json!({
            "http_server": { "address": "127.0.0.1", "port": port },
            "grpc_api": { "address": "127.0.0.1", "port": grpc_port, "key": API_KEY },
            "http_api": { "key": API_KEY },
            "health": { "enabled": true },
            "prometheus": { "enabled": true },
            "client": {
                "token": { "hmac_secret_key": TOKEN_KEY },
                "allow_anonymous_connect_without_token": true,
            },
            "channel": { "without_namespace": {
                "allow_subscribe_for_client": true,
                "allow_subscribe_for_anonymous": true,
                "allow_publish_for_client": true,
                "allow_publish_for_anonymous": true,
            } },
        });
        merge(&mut whole, config);
        let path = folder.path().join("config.json");
        fs::write(&path, whole.to_string()).unwrap();
        let log = fs::File::create(folder.path().join("server.log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_starling"))
            .args(["serve", "--config"])
            .arg(&path)
            .current_dir(folder.path())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { port, grpc_port, internal_port: port, folder, child, config: whole }
    }

    async fn accepts(&mut self) -> Result<(), ExitStatus> {
        let mut status = None;
        until("start of the server", async || {
            status = self.child.try_wait().unwrap();
            status.is_some() || self.answers().await
        })
        .await;
        match status {
            None => Ok(()),
            Some(status) => Err(status),
        }
    }

    /// The same server, whose configuration has an internal port.
    pub fn with_internal_port(self, internal_port: u16) -> Self {
        let mut server = self;
        server.internal_port = internal_port;
        server
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Whether somebody looks at connections. With TLS the answer is that this is none.
    async fn answers(&self) -> bool {
        let Ok(mut socket) = TcpStream::connect(self.address()).await else { return false };
        // Whatever becomes of it, the end of reading is an answer.
        let _ = socket.write_all(b"GET / HTTP/1.0\r\n\r\n").await;
        matches!(timeout(Duration::from_secs(5), socket.read_u8()).await, Ok(Ok(_)))
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes another configuration, with the ports that the process has.
    pub fn reconfigure(&self, config: Value) {
        let mut whole = self.config.clone();
        merge(&mut whole, config);
        fs::write(self.folder().join("config.json"), whole.to_string()).unwrap();
    }

    /// What the process wrote so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder().join("server.log")).unwrap()).into_owned()
    }

    /// Waits until the log has these words.
    pub async fn says(&self, words: &str) {
        until(&format!("{words:?} in the log"), async || self.log().contains(words)).await;
    }

    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().expect("the process has not ended");
        kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
    }

    /// Asks the process to end.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends the process as a crash of the machine would.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits for the end of the process. Answers its exit code; `None` when a signal ended it.
    pub async fn ended(&mut self) -> Option<i32> {
        soon("end of the server", self.child.wait()).await.unwrap().code()
    }

    /// Fails unless the process lives, has not panicked, and serves a client that does everything right.
    pub async fn is_well(&mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "the server has ended:\n{}", self.log());
        assert!(!self.log().contains("panicked"), "{}", self.log());
        for protocol in [Protocol::Json, Protocol::Protobuf] {
            let mut client = self.dial().protocol(protocol).connect().await;
            client.subscribe("health-of-the-server").await;
            client.publish("health-of-the-server", br#"{"well":true}"#).await;
            assert_eq!(client.publication().await, ("health-of-the-server".into(), r#"{"well":true}"#.into()));
            client.close().await;
        }
    }

    /// A client to be.
    pub fn dial(&self) -> Dial {
        Dial::new(self.port)
    }

    /// Calls a method of the HTTP API; answers the body of the answer, which may be an error.
    pub async fn try_api(&self, method: &str, params: Value) -> Value {
        let path = format!("/api/{method}");
        let response = http::Call::post(self.internal_port, &path, params.to_string()).key().send().await;
        assert_eq!(response.status, 200, "{method}: {}", response.text());
        response.json()
    }

    /// The same where it is expected to succeed; answers its result.
    pub async fn api(&self, method: &str, params: Value) -> Value {
        let mut answer = self.try_api(method, params).await;
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].take()
    }

    /// Publishes by the API.
    pub async fn publish(&self, channel: &str, data: Value) {
        self.api("publish", json!({ "channel": channel, "data": data })).await;
    }

    pub async fn metrics(&self) -> Metrics {
        let response = http::Call::get(self.internal_port, "/metrics").send().await;
        assert_eq!(response.status, 200);
        let text = response.text();
        let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        });
        Metrics(samples.collect())
    }

    /// Waits until a metric, summed over its labels, has a value.
    pub async fn counts(&self, metric: &str, value: f64) {
        let mut last = 0.0;
        let wait = async {
            let mut look = tokio::time::interval(Duration::from_millis(20));
            loop {
                last = self.metrics().await.sum(metric);
                if last == value {
                    return;
                }
                look.tick().await;
            }
        };
        assert!(timeout(SOON, wait).await.is_ok(), "{metric} is {last}, not {value}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let log = fs::read(self.folder.path().join("server.log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        if std::thread::panicking() {
            let lines: Vec<_> = log.lines().collect();
            eprintln!("--- end of the server's log\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        } else {
            assert!(!log.contains("panicked"), "{log}");
        }
    }
}

/// Samples of the metrics endpoint, by name and labels.
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Sum of a metric over its labels.
    pub fn sum(&self, metric: &str) -> f64 {
        let of_metric =
            |name: &str| name == metric || name.strip_prefix(metric).is_some_and(|rest| rest.starts_with('{'));
        self.0.iter().filter(|(name, _)| of_metric(name)).map(|(_, value)| value).sum()
    }

    /// The gauges that must be zero when no client is left, and are not.
    pub fn left_over(&self) -> Vec<(&str, f64)> {
        let counted = |name: &str| {
            name.starts_with("starling_map_entries")
                || name.starts_with("starling_backlog_bytes")
                || name.starts_with("starling_connections")
                || name.ends_with("_inflight")
                || (name.starts_with("centrifugo_node_num_") && name != "centrifugo_node_num_nodes")
                || name.contains("_inflight{")
        };
        self.0.iter().filter(|(name, value)| counted(name) && **value != 0.0).map(|(n, v)| (n.as_str(), *v)).collect()
    }
}

/// Replaces a file as tools that renew certificates do: a reader sees the old text or the new one.
pub fn replace(path: &Path, text: &str) {
    let beside: PathBuf = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, path).unwrap();
}
