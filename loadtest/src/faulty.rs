//! A small server that speaks the Centrifuge client protocol and makes mistakes on request.
//!
//! It exists to prove the audit: each kind of mistake is injected at a known rate and must be found and named. It knows
//! `connect`, `subscribe` and `publish`, JSON and Protobuf, and lets everybody do everything. A thread per connection,
//! one lock around all channels: not made for load.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use prost::Message as _;
use serde::Deserialize;
use serde_json::value::RawValue;
use starling_proto::client;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::{self, Message, http::HeaderValue};

use crate::command::parse_duration;
use crate::target::centrifuge::{Encoding, Position, Subscribed, write_numbered, write_subscribed};
use crate::websocket::{Kind, write_frame};

/// "One in so many", written `1/N`; counted, not drawn by lot, so that a test knows what to expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneIn(u64);

impl OneIn {
    fn hits(self, delivery: u64) -> bool {
        delivery.is_multiple_of(self.0)
    }
}

impl FromStr for OneIn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.strip_prefix("1/").and_then(|number| number.parse().ok()).filter(|&number| number > 0);
        number.map(OneIn).ok_or_else(|| format!("{text} is not of the form 1/N"))
    }
}

/// Mistakes, each in one of so many deliveries.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Faults {
    /// Do not deliver
    #[arg(long, value_name = "1/N")]
    pub drop: Option<OneIn>,
    /// Deliver twice
    #[arg(long, value_name = "1/N")]
    pub duplicate: Option<OneIn>,
    /// Deliver after the next one
    #[arg(long, value_name = "1/N")]
    pub reorder: Option<OneIn>,
    /// Change a byte of the data
    #[arg(long, value_name = "1/N")]
    pub alter: Option<OneIn>,
    /// Close the subscriber's connection with code 3008
    #[arg(long, value_name = "1/N")]
    pub disconnect: Option<OneIn>,
    /// Do nothing for anybody for a while
    #[arg(long, value_name = "1/N")]
    pub stall: Option<OneIn>,
    /// For how long
    #[arg(long, default_value = "500ms", value_parser = parse_duration, value_name = "TIME")]
    pub stall_for: Duration,
    /// Deliver everything so much later
    #[arg(long, default_value = "0s", value_parser = parse_duration, value_name = "TIME")]
    pub delay: Duration,
    /// Channels keep so many publications, and recover from them
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub history: usize,
    /// Leave out one in so many recovered publications
    #[arg(long, value_name = "1/N")]
    pub drop_recovered: Option<OneIn>,
}

/// Runs the server until its standard input ends; prints its address as a line `ws://IP:PORT`.
///
/// # Errors
///
/// When it cannot listen.
pub fn serve(listen: SocketAddr, faults: Faults) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("listening on {listen}"))?;
    println!("ws://{}", listener.local_addr()?);
    let (late, due) = channel();
    let hub = Arc::new(Hub { faults, late: Mutex::new(late), state: Mutex::default() });
    let deliverer = hub.clone();
    std::thread::Builder::new().name("late".to_owned()).spawn(move || deliver_late(&deliverer, &due))?;
    let accept = move || {
        for stream in listener.incoming().flatten() {
            let hub = hub.clone();
            // A client that breaks the protocol loses its connection and nothing else happens.
            let serve = move || drop(serve_client(&hub, stream));
            drop(std::thread::Builder::new().name("client".to_owned()).spawn(serve));
        }
    };
    std::thread::Builder::new().name("accept".to_owned()).spawn(accept)?;
    io::stdin().lock().read_to_end(&mut Vec::new())?;
    Ok(())
}

#[derive(Debug)]
struct Hub {
    faults: Faults,
    /// Deliveries that wait for their time. Not bounded: a test's worth of messages.
    late: Mutex<Sender<Late>>,
    state: Mutex<HubState>,
}

#[derive(Debug, Default)]
struct HubState {
    channels: HashMap<String, Channel>,
    deliveries: u64,
    recovered: u64,
}

#[derive(Debug, Default)]
struct Channel {
    subscribers: Vec<Subscriber>,
    /// Number of the last publication.
    offset: u64,
    /// The last publications with their numbers.
    history: VecDeque<(Vec<u8>, u64)>,
}

/// A delivery that is made late.
#[derive(Debug)]
struct Late {
    due: Instant,
    stream: TcpStream,
    frame: Vec<u8>,
}

/// Writes late deliveries at their time; they all wait equally long, so they come in order.
fn deliver_late(hub: &Hub, late: &Receiver<Late>) {
    for Late { due, mut stream, frame } in late {
        while let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            std::thread::park_timeout(left);
        }
        // Nobody else writes meanwhile. Who is gone misses it.
        let _state = hub.lock();
        let _ = stream.write_all(&frame);
    }
}

#[derive(Debug)]
struct Subscriber {
    stream: TcpStream,
    encoding: Encoding,
    /// A delivery that waits for the next one to overtake it.
    held: Option<Vec<u8>>,
}

/// A command, whichever encoding it came in.
#[derive(Debug)]
enum Asked {
    Connect,
    /// Channel, and where in its history to go on from.
    Subscribe(String, Option<u64>),
    Publish(String, Bytes),
    Pong,
}

fn serve_client(hub: &Hub, stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut encoding = Encoding::Json;
    #[allow(clippy::result_large_err, reason = "the callback's type is the library's")]
    let choose = |request: &Request, mut response: Response| {
        const PROTOBUF: HeaderValue = HeaderValue::from_static("centrifuge-protobuf");
        if request.headers().get("sec-websocket-protocol") == Some(&PROTOBUF) {
            encoding = Encoding::Protobuf;
            response.headers_mut().insert("sec-websocket-protocol", PROTOBUF);
        }
        Ok(response)
    };
    let mut socket = tungstenite::accept_hdr(stream, choose).map_err(|_| anyhow::anyhow!("handshake"))?;
    loop {
        let frame = match socket.read()? {
            Message::Text(text) => Bytes::from(text),
            Message::Binary(bytes) => bytes,
            Message::Close(_) => return Ok(()),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        for (id, asked) in read_commands(encoding, frame)? {
            // Held while answering as well, so that answers and publications do not mix on the socket.
            let mut state = hub.lock();
            match asked {
                Asked::Connect => answer(&mut writer, encoding, id, Asked::Connect)?,
                Asked::Pong => {}
                Asked::Subscribe(channel, after) if hub.faults.history > 0 => {
                    let subscribed = state.recover(hub.faults, &channel, after);
                    let (mut message, mut frame) = (Vec::new(), Vec::new());
                    write_subscribed(&mut message, encoding, id, &subscribed);
                    write_frame(&mut frame, encoding.frame_kind(), &message, None);
                    writer.write_all(&frame)?;
                    let subscriber = Subscriber { stream: writer.try_clone()?, encoding, held: None };
                    state.channels.entry(channel).or_default().subscribers.push(subscriber);
                }
                Asked::Subscribe(channel, ..) => {
                    answer(&mut writer, encoding, id, Asked::Subscribe(String::new(), None))?;
                    let subscriber = Subscriber { stream: writer.try_clone()?, encoding, held: None };
                    state.channels.entry(channel).or_default().subscribers.push(subscriber);
                }
                Asked::Publish(channel, data) => {
                    state.publish(hub, &channel, &data);
                    answer(&mut writer, encoding, id, Asked::Publish(String::new(), Bytes::new()))?;
                }
            }
        }
    }
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, HubState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HubState {
    fn publish(&mut self, hub: &Hub, name: &str, data: &[u8]) {
        let faults = hub.faults;
        let HubState { channels, deliveries, .. } = self;
        let channel = channels.entry(name.to_owned()).or_default();
        channel.offset += 1;
        if faults.history > 0 {
            channel.history.push_back((data.to_vec(), channel.offset));
            if channel.history.len() > faults.history {
                channel.history.pop_front();
            }
        }
        let offset = (faults.history > 0).then_some(channel.offset);
        channel.subscribers.retain_mut(|subscriber| {
            *deliveries += 1;
            if faults.stall.is_some_and(|stall| stall.hits(*deliveries)) {
                let end = Instant::now() + faults.stall_for;
                while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
                    std::thread::park_timeout(left);
                }
            }
            subscriber.deliver(hub, *deliveries, name, data, offset).is_ok()
        });
    }

    /// What the answer to a subscription says about the history.
    fn recover(&mut self, faults: Faults, name: &str, after: Option<u64>) -> Subscribed {
        let HubState { channels, recovered, .. } = self;
        let channel = channels.entry(name.to_owned()).or_default();
        let position = Position { offset: channel.offset, epoch: "faulty".to_owned() };
        let Some(after) = after else { return Subscribed { position, ..Subscribed::default() } };
        let oldest = channel.history.front().map_or(channel.offset + 1, |&(_, offset)| offset);
        if after + 1 < oldest {
            return Subscribed { position, ..Subscribed::default() };
        }
        let missed = channel.history.iter().filter(|&&(_, offset)| offset > after).filter(|_| {
            *recovered += 1;
            !faults.drop_recovered.is_some_and(|drop| drop.hits(*recovered))
        });
        Subscribed { position, recovered: true, publications: missed.cloned().collect() }
    }
}

impl Subscriber {
    fn deliver(&mut self, hub: &Hub, delivery: u64, channel: &str, data: &[u8], offset: Option<u64>) -> io::Result<()> {
        let faults = hub.faults;
        let hit = |fault: Option<OneIn>| fault.is_some_and(|fault| fault.hits(delivery));
        if hit(faults.disconnect) {
            let mut frame = Vec::new();
            write_frame(&mut frame, Kind::Close, b"\x0b\xc0slow", None);
            self.stream.write_all(&frame)?;
            return self.stream.shutdown(std::net::Shutdown::Write).and(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if hit(faults.drop) {
            return Ok(());
        }
        let mut data = data.to_vec();
        if let Some(byte) = data.iter_mut().nth_back(4).filter(|_| hit(faults.alter)) {
            *byte = if *byte == b'A' { b'B' } else { b'A' };
        }
        let mut message = Vec::new();
        write_numbered(&mut message, self.encoding, channel, &data, offset);
        let mut frame = Vec::new();
        write_frame(&mut frame, self.encoding.frame_kind(), &message, None);
        if hit(faults.duplicate) {
            frame.extend_from_within(..);
        }
        if hit(faults.reorder) && self.held.is_none() {
            self.held = Some(frame);
            return Ok(());
        }
        if !faults.delay.is_zero() {
            let late = Late { due: Instant::now() + faults.delay, stream: self.stream.try_clone()?, frame };
            let queue = hub.late.lock().unwrap_or_else(PoisonError::into_inner);
            return queue.send(late).map_err(|_| io::ErrorKind::BrokenPipe.into());
        }
        self.stream.write_all(&frame)?;
        if let Some(held) = self.held.take() {
            self.stream.write_all(&held)?;
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct JsonCommand {
    #[serde(default)]
    id: u32,
    connect: Option<serde::de::IgnoredAny>,
    subscribe: Option<JsonSubscribe>,
    publish: Option<JsonPublish>,
}

#[derive(Deserialize)]
struct JsonSubscribe {
    channel: String,
    #[serde(default)]
    recover: bool,
    #[serde(default)]
    offset: u64,
}

#[derive(Deserialize)]
struct JsonPublish {
    channel: String,
    data: Box<RawValue>,
}

fn read_commands(encoding: Encoding, mut frame: Bytes) -> anyhow::Result<Vec<(u32, Asked)>> {
    let mut commands = Vec::new();
    match encoding {
        Encoding::Json => {
            for line in frame.split(|&byte| byte == b'\n') {
                let JsonCommand { id, connect, subscribe, publish } = serde_json::from_slice(line)?;
                commands.push((
                    id,
                    match (connect, subscribe, publish) {
                        (Some(_), _, _) => Asked::Connect,
                        (_, Some(JsonSubscribe { channel, recover, offset }), _) => {
                            Asked::Subscribe(channel, recover.then_some(offset))
                        }
                        (_, _, Some(JsonPublish { channel, data })) => {
                            Asked::Publish(channel, Bytes::copy_from_slice(data.get().as_bytes()))
                        }
                        (None, None, None) if id == 0 => Asked::Pong,
                        (None, None, None) => bail!("unknown command"),
                    },
                ));
            }
        }
        Encoding::Protobuf => {
            while !frame.is_empty() {
                let client::Command { id, connect, subscribe, publish, .. } =
                    client::Command::decode_length_delimited(&mut frame)?;
                commands.push((
                    id,
                    match (connect, subscribe, publish) {
                        (Some(_), _, _) => Asked::Connect,
                        (_, Some(client::SubscribeRequest { channel, recover, offset, .. }), _) => {
                            Asked::Subscribe(channel, recover.then_some(offset))
                        }
                        (_, _, Some(publish)) => Asked::Publish(publish.channel, publish.data),
                        (None, None, None) if id == 0 => Asked::Pong,
                        (None, None, None) => bail!("unknown command"),
                    },
                ));
            }
        }
    }
    Ok(commands)
}

fn answer(writer: &mut TcpStream, encoding: Encoding, id: u32, asked: Asked) -> io::Result<()> {
    let message = match encoding {
        Encoding::Json => {
            let body = match asked {
                Asked::Connect => r#""connect":{"client":"c","version":"faulty","ping":25,"pong":true}"#,
                Asked::Subscribe(..) => r#""subscribe":{}"#,
                Asked::Publish(..) => r#""publish":{}"#,
                Asked::Pong => return Ok(()),
            };
            format!(r#"{{"id":{id},{body}}}"#).into_bytes()
        }
        Encoding::Protobuf => {
            let mut reply = client::Reply { id, ..client::Reply::default() };
            match asked {
                Asked::Connect => reply.connect = Some(client::ConnectResult { pong: true, ..Default::default() }),
                Asked::Subscribe(..) => reply.subscribe = Some(client::SubscribeResult::default()),
                Asked::Publish(..) => reply.publish = Some(client::PublishResult::default()),
                Asked::Pong => return Ok(()),
            }
            reply.encode_length_delimited_to_vec()
        }
    };
    let mut frame = Vec::new();
    write_frame(&mut frame, encoding.frame_kind(), &message, None);
    writer.write_all(&frame)
}
