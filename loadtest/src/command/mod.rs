//! The commands, one file each, and the options they share.

pub mod compare;
mod cost;
pub mod fanout;
pub mod idle;
pub mod knee;
mod outcome;
pub mod presets;
pub mod publish;
pub mod run;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde::Serialize;

use crate::clock::RunClock;
use crate::fleet::{ChannelNames, Fleet, Tokens};
use crate::payload::{CHANNEL_LIMIT, MINIMUM_BYTES, PayloadFormat};
use crate::process::{ProcessProbe, raise_descriptor_limit};
use crate::publish::{Lane, PublishTarget};
use crate::receive::PoolStatus;
use crate::schedule::streams_per_channel;
use crate::target::Endpoint;
use crate::target::centrifuge::Encoding;
use crate::target::lane::Via;
use crate::target::speech::Speech;

/// Largest message that is published: larger ones are no load test of messaging.
const MAXIMUM_BYTES: usize = 16 << 20;

/// Descriptors a process needs beside its connections.
const OTHER_DESCRIPTORS: u64 = 64;

/// The share of one core from which a thread counts as fully used.
pub const FULL_CORE: f64 = 0.9;

/// Where the server is and how to be let in.
#[derive(Clone, Debug, Args)]
pub struct ServerOptions {
    /// WebSocket endpoint of subscribers [path: that of the protocol, /connection/websocket]
    #[arg(long, default_value = "ws://127.0.0.1:8000", value_name = "URL")]
    pub url: String,
    /// HTTP API for publishing [default: /api on the host of --url]
    #[arg(long, value_name = "URL")]
    pub api_url: Option<String>,
    /// gRPC API for publishing [default: port 10000 on the host of --url]
    #[arg(long, value_name = "URL")]
    pub grpc_url: Option<String>,
    /// Key of the HTTP and gRPC API
    #[arg(long, default_value = "", hide_default_value = true, value_name = "KEY")]
    pub api_key: String,
    /// What is spoken on the WebSocket
    #[arg(long, value_enum, default_value = "json")]
    pub protocol: Protocol,
    /// Signs a token per subscriber (HS256) with this secret
    #[arg(long, value_name = "SECRET")]
    pub token_secret: Option<String>,
    /// Token of all subscribers
    #[arg(long, value_name = "JWT", conflicts_with = "token_secret")]
    pub token: Option<String>,
    /// Process of the server, to measure its processor time and memory
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
}

/// What is spoken on the WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// Centrifuge client protocol in JSON
    Json,
    /// Centrifuge client protocol in Protobuf
    Protobuf,
    /// Socket.IO with the events `subscribe` and `publish` (acknowledged) and `message`
    SocketIo,
    /// A server that sends every message it gets to everybody
    Plain,
}

impl Protocol {
    fn speech(self) -> Speech {
        match self {
            Protocol::Json => Speech::Centrifuge(Encoding::Json),
            Protocol::Protobuf => Speech::Centrifuge(Encoding::Protobuf),
            Protocol::SocketIo => Speech::SocketIo,
            Protocol::Plain => Speech::Plain,
        }
    }

    /// Path of the WebSocket where the URL has none.
    fn path(self) -> &'static str {
        match self {
            Protocol::Json | Protocol::Protobuf => "/connection/websocket",
            Protocol::SocketIo => "/socket.io/?EIO=4&transport=websocket",
            Protocol::Plain => "/",
        }
    }
}

/// How a run is made, whatever it measures.
#[derive(Clone, Debug, Args)]
pub struct RunOptions {
    /// Beginning of channel names; a namespace goes here [default: loadtest-RUN-]
    #[arg(long, value_name = "TEXT")]
    pub channel_prefix: Option<String>,
    /// Bytes of each published message; several sizes take turns
    #[arg(long, default_value = "128", value_name = "BYTES[,BYTES]")]
    pub payload: Sizes,
    /// Share of a message's padding that is the same letter over and over (0 to 1)
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub compressible: f64,
    /// Receiving threads
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Connections that open at the same time
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub connect_concurrency: usize,
    /// Time for one connection or publisher to be set up
    #[arg(long, default_value = "10s", value_parser = parse_duration, value_name = "TIME")]
    pub connect_timeout: Duration,
    /// Time for all subscribers to be set up
    #[arg(long, default_value = "120s", value_parser = parse_duration, value_name = "TIME")]
    pub setup_timeout: Duration,
    /// How late the generator itself may be in 99 of 100 cases before a run is invalid
    #[arg(long, default_value = "10ms", value_parser = parse_duration, value_name = "TIME")]
    pub max_own_lag: Duration,
    /// Seed of everything random [default: drawn]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Writes the report as JSON as well
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes the report as one HTML file with plots as well
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Writes the verdict as JUnit XML as well
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
}

/// Sizes of messages in bytes, in turn: `128` or `128,4096`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Sizes {
    /// At least one.
    pub all: Vec<usize>,
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all: Result<Vec<usize>, _> = text.split(',').map(|size| size.trim().parse()).collect();
        all.map(|all| Sizes { all }).map_err(|_| format!("{text} is no number of bytes, nor several with commas"))
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.all.iter().map(usize::to_string).collect();
        f.write_str(&all.join(", "))
    }
}

/// The shape of a load: what [`fleet`] needs to know beside the options.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Number of subscribers.
    pub subscribers: u32,
    /// Number of channels.
    pub channels: u32,
    /// Channels per subscriber.
    pub subscriptions: u32,
    /// Connections that publish.
    pub lanes: u32,
}

/// A whole number of units: `250ms`, `10s`, `5m`, `1h`; a bare number is seconds.
///
/// # Errors
///
/// Says what a duration looks like.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| format!("{text} is no duration such as 250ms, 10s or 5m"))?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" | "" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        "h" => Ok(Duration::from_secs(number.saturating_mul(3600))),
        _ => Err(format!("{text} is no duration such as 250ms, 10s or 5m")),
    }
}

impl ServerOptions {
    /// The probe of the server's process, when it was named.
    ///
    /// # Errors
    ///
    /// When the process cannot be read.
    pub fn probe(&self) -> anyhow::Result<Option<ProcessProbe>> {
        self.server_pid.map(ProcessProbe::new).transpose().context("--server-pid")
    }

    /// How to publish.
    ///
    /// # Errors
    ///
    /// When an address is wrong or a token cannot be signed.
    pub fn publish_target(&self, via: Via) -> anyhow::Result<PublishTarget> {
        let subscribers = Endpoint::parse(&self.url, "ws", self.protocol.path())?;
        let endpoint = match via {
            Via::Websocket => subscribers,
            Via::Http => match &self.api_url {
                Some(url) => Endpoint::parse(url, "http", "/api")?,
                None => Endpoint { path: "/api".to_owned(), ..subscribers },
            },
            Via::Grpc => match &self.grpc_url {
                Some(url) => Endpoint::parse(url, "http", "/")?,
                None => {
                    let host = subscribers.host.rsplit_once(':').map_or(subscribers.host.as_str(), |(host, _)| host);
                    Endpoint::parse(&format!("http://{host}:10000"), "http", "/")?
                }
            },
        };
        let tokens = Tokens::new(self.token_secret.as_deref(), self.token.as_deref());
        let token = tokens.token("loadtest-publisher")?;
        Ok(PublishTarget { via, endpoint, key: self.api_key.clone(), token, speech: self.protocol.speech() })
    }
}

/// Describes the subscribers of a run.
///
/// # Errors
///
/// When a number is impossible: too small a payload, more channels per subscriber than there are, more connections than
/// the process may hold.
pub fn fleet(server: &ServerOptions, options: &RunOptions, seed: u64, shape: Shape) -> anyhow::Result<Fleet> {
    let Shape { subscribers, channels, subscriptions, lanes } = shape;
    ensure!(channels > 0 && channels < CHANNEL_LIMIT, "--channels must be from 1 to {}", CHANNEL_LIMIT - 1);
    ensure!(
        (1..=channels).contains(&subscriptions),
        "--subscriptions must be from 1 to the number of channels, {channels}"
    );
    let sizes = &options.payload.all;
    let sound = sizes.iter().all(|size| (MINIMUM_BYTES..=MAXIMUM_BYTES).contains(size));
    ensure!(sound, "--payload must be from {MINIMUM_BYTES} (for the stamp) to {MAXIMUM_BYTES} bytes");
    ensure!((0.0..=1.0).contains(&options.compressible), "--compressible must be from 0 to 1");
    ensure!(options.threads > 0, "--threads must be at least 1");
    ensure!(options.connect_concurrency > 0, "--connect-concurrency must be at least 1");
    ensure!(
        server.protocol != Protocol::Plain || channels == 1,
        "a plain server has one channel: --channels must be 1"
    );
    let descriptors = raise_descriptor_limit();
    let wanted = u64::from(subscribers) + u64::from(lanes) + OTHER_DESCRIPTORS;
    if wanted > descriptors {
        bail!(
            "{subscribers} subscribers need {wanted} descriptors and this process may open {descriptors}: \
             raise the hard limit (ulimit -Hn) or use several processes"
        );
    }
    let run = seed as u32;
    let prefix = options.channel_prefix.clone().unwrap_or_else(|| format!("loadtest-{run:08x}-"));
    let sound = prefix.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
    ensure!(sound, "--channel-prefix may hold printable ASCII without quotes and backslashes");
    Ok(Fleet {
        endpoint: Endpoint::parse(&server.url, "ws", server.protocol.path())?,
        speech: server.protocol.speech(),
        tokens: Tokens::new(server.token_secret.as_deref(), server.token.as_deref()),
        subscribers,
        subscriptions,
        channels: ChannelNames::new(&prefix, channels),
        streams: streams_per_channel(channels, lanes.max(1)),
        format: Arc::new(PayloadFormat::new(run, sizes, options.compressible, seed)),
        clock: RunClock::start(),
        threads: options.threads,
        connect_timeout: options.connect_timeout,
        connect_concurrency: options.connect_concurrency,
        connects_per_second: None,
        cuts: false,
        recover: false,
        slow_readers: 0,
        slow_bytes_per_second: 0,
        half_open: 0,
        seed,
    })
}

/// Opens lanes and proves each with one publication to a channel that nobody hears.
///
/// # Errors
///
/// The first failure: nobody there, another protocol, wrong key, no permission.
pub fn open_lanes(
    target: &PublishTarget,
    options: &RunOptions,
    fleet: &Fleet,
    count: u32,
) -> anyhow::Result<Vec<Lane>> {
    let silent = format!("{}probe", fleet.channels.name(0).trim_end_matches('0'));
    (0..count)
        .map(|_| {
            let mut lane = Lane::open(target, options.connect_timeout)?;
            lane.publish_and_wait(&silent, b"{}", options.connect_timeout).context("first publication")?;
            Ok(lane)
        })
        .collect()
}

/// A progress line while subscribers are set up.
pub fn tell_subscribing(status: PoolStatus, wanted: u32) {
    eprintln!("subscribing: {} of {wanted}", status.subscribed);
}

/// Bytes with a unit.
pub fn readable_bytes(bytes: f64) -> String {
    match bytes.abs() {
        0.0..10_240.0 => format!("{bytes:.0} B"),
        10_240.0..10_485_760.0 => format!("{:.1} KiB", bytes / 1024.0),
        _ => format!("{:.1} MiB", bytes / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "s", "1d", "-1s", "1.5s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
