//! One PUB/SUB connection, kept: it receives fixed channels and those of a [`ChannelList`], for as long as the node lives.
//!
//! A task owns the connection. It subscribes, gives channels up after their pause, pings, probes a quiet connection, and
//! makes a new one when the old one is lost, does not answer, or is deaf. On a new connection the fixed channels come first,
//! then all others, 512 in one SUBSCRIBE, each confirmed before the next. While one SUBSCRIBE is under way, new
//! subscribers gather for the next one.
//!
//! Messages do not pass through a queue of ours: the task that reads the socket hands each to the [`Listener`], in the order in
//! which Redis sent them. What was published while there was no connection is missed.

use std::{
    future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use parking_lot::Mutex;
use redis::{
    Msg, PushInfo, PushKind, RedisError, Value,
    aio::{MultiplexedConnection, PubSub, PubSubSink, SendError},
};
use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    channel_list::{ChannelList, Subscribed},
    commands::{Commands, PING_EVERY, PING_LIMIT},
    complaint::Complaint,
    connect::{self, Backoff, LinkError},
    health::{Health, LinkHealth},
    quiet::{Quiet, Step},
    settings::{Server, Settings},
};
use crate::{broker::BrokerError, names::ChannelName};

/// Most channels in one SUBSCRIBE or UNSUBSCRIBE: Redis serves nobody else meanwhile.
const BATCH: usize = 512;

/// What makes one bus differ from another.
pub(super) struct BusPlan {
    /// For health and log.
    pub(super) name: &'static str,
    /// PUB/SUB channels that are always received.
    pub(super) fixed: Vec<String>,
    /// What to publish, and on which of the fixed channels, to hear oneself.
    pub(super) probe: (String, Bytes),
    pub(super) listener: Box<dyn Listener>,
}

/// Who listens to a bus.
pub(super) trait Listener: Send + Sync {
    /// PUB/SUB channel of a channel of the list.
    fn wire_name(&self, channel: &ChannelName) -> String;

    /// Takes a message, with the PUB/SUB channel it came on. Must not block.
    fn receive(&self, channel: &[u8], payload: Bytes);

    /// Whether a channel still has local subscribers.
    fn wanted(&self, channel: &ChannelName) -> bool;

    /// These channels are received again after a time without a connection. Must not block.
    fn interrupted(&self, channels: &[ChannelName]);

    /// Everything is subscribed on a new connection. Must not block.
    fn connected(&self);
}

/// Handle to the connection. Its task ends when it is dropped.
pub(super) struct Bus {
    shared: Arc<Shared>,
    limit: Duration,
    _task: AbortOnDropHandle<()>,
}

struct Shared {
    plan: BusPlan,
    channels: Mutex<ChannelList>,
    /// The list has something new for the connection.
    changed: Notify,
    start: Instant,
    /// When the last message came, in milliseconds since `start`.
    heard_ms: AtomicU64,
}

impl Bus {
    pub(super) fn start(
        plan: BusPlan,
        server: Server,
        settings: Arc<Settings>,
        commands: Arc<Commands>,
        health: &Health,
        runtime: &Handle,
    ) -> Self {
        let limit = settings.io_timeout;
        let health = health.link(plan.name);
        let shared = Arc::new(Shared {
            plan,
            channels: Mutex::default(),
            changed: Notify::new(),
            start: Instant::now(),
            heard_ms: AtomicU64::new(0),
        });
        let quiet = Quiet::new(settings.quiet_limit, shared.start);
        let keeper = Keeper {
            shared: Arc::clone(&shared),
            server,
            settings,
            commands,
            health,
            quiet,
            refused: Vec::new(),
            complaint: Complaint::default(),
        };
        Self { shared, limit, _task: AbortOnDropHandle::new(runtime.spawn(keeper.run())) }
    }

    /// Ready when the channel is received; at once when it is already. The wish stands from the call on, whether or not the
    /// future is polled or dropped. While Redis is away it waits for it, up to the time limit; then it fails, and the
    /// channel is forgotten unless it turns out to be wanted.
    pub(super) fn subscribe(&self, channel: &ChannelName) -> BoxFuture<'static, Result<(), BrokerError>> {
        let Subscribed::Wait(answer) = self.shared.channels.lock().subscribe(channel) else {
            return future::ready(Ok(())).boxed();
        };
        self.shared.changed.notify_one();
        let (shared, limit, channel) = (Arc::clone(&self.shared), self.limit, channel.clone());
        async move {
            match timeout(limit, answer).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(BrokerError::Unavailable),
                Err(_) => {
                    shared.unsubscribe(&channel);
                    Err(BrokerError::Unavailable)
                }
            }
        }
        .boxed()
    }

    /// See [`Broker::unsubscribe`](crate::broker::Broker::unsubscribe).
    pub(super) fn unsubscribe(&self, channel: &ChannelName) {
        self.shared.unsubscribe(channel);
    }
}

impl Shared {
    fn unsubscribe(&self, channel: &ChannelName) {
        self.channels.lock().unsubscribe(channel, Instant::now());
        self.changed.notify_one();
    }

    fn receive(&self, channel: &[u8], payload: Bytes) {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.store(elapsed, Ordering::Relaxed);
        self.plan.listener.receive(channel, payload);
    }

    fn heard(&self) -> Instant {
        self.start + Duration::from_millis(self.heard_ms.load(Ordering::Relaxed))
    }
}

/// The task that keeps the connection.
struct Keeper {
    shared: Arc<Shared>,
    server: Server,
    settings: Arc<Settings>,
    commands: Arc<Commands>,
    health: LinkHealth,
    quiet: Quiet,
    /// Channels that Redis refused, to be asked for again.
    refused: Vec<ChannelName>,
    complaint: Complaint,
}

impl Keeper {
    async fn run(mut self) {
        let mut backoff = Backoff::new();
        loop {
            let lost = self.connect_and_serve(&mut backoff).await;
            self.shared.channels.lock().disconnected();
            self.refused.clear();
            self.health.away(&lost);
            self.wait(backoff.delay(rand::random())).await;
        }
    }

    /// Waits between attempts; channels are given up meanwhile, too.
    async fn wait(&mut self, delay: Duration) {
        let over = sleep(delay);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return,
                () = leave_due(&self.shared) => self.give_up(),
            }
        }
    }

    async fn connect_and_serve(&mut self, backoff: &mut Backoff) -> LinkError {
        match self.connect().await {
            Err(why) => why,
            Ok(mut link) => match self.serve(&mut link, backoff).await {
                Err(why) => why,
                Ok(never) => match never {},
            },
        }
    }

    /// Opens a connection and subscribes the fixed channels on it.
    async fn connect(&mut self) -> Result<Link, LinkError> {
        let mut link = Link::open(&self.server, &self.settings, &self.shared).await?;
        link.subscribe(&self.shared.plan.fixed, self.settings.io_timeout).await?;
        self.shared.channels.lock().connected();
        Ok(link)
    }

    async fn serve(&mut self, link: &mut Link, backoff: &mut Backoff) -> Result<std::convert::Infallible, LinkError> {
        self.exchange(link).await?;
        self.quiet.connected(Instant::now());
        self.health.up();
        self.shared.plan.listener.connected();
        let mut tick = interval(PING_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.tick().await;
        let mut probe = None;
        loop {
            tokio::select! {
                () = link.closed() => return Err(LinkError::Closed),
                () = self.shared.changed.notified() => {}
                () = leave_due(&self.shared) => self.give_up(),
                _ = tick.tick() => {
                    link.ping().await?;
                    backoff.reset();
                    self.listen_for_silence(&mut probe)?;
                    self.shared.channels.lock().retry(std::mem::take(&mut self.refused));
                }
            }
            self.exchange(link).await?;
        }
    }

    /// Brings the connection to what the list wants: what is given up first, then what is new.
    async fn exchange(&mut self, link: &mut Link) -> Result<(), LinkError> {
        loop {
            let (gone, new) = {
                let mut channels = self.shared.channels.lock();
                (channels.take_unsubscribes(), channels.take_subscribes(BATCH))
            };
            for batch in gone.chunks(BATCH) {
                link.unsubscribe(&self.wire_names(batch), self.settings.io_timeout).await?;
            }
            if new.is_empty() {
                return Ok(());
            }
            match link.subscribe(&self.wire_names(&new), self.settings.io_timeout).await {
                Ok(()) => self.confirm(&new),
                Err(LinkError::Redis(error)) if !error.is_unrecoverable_error() => self.one_by_one(link, &new).await?,
                Err(why) => return Err(why),
            }
        }
    }

    /// Channels of an earlier connection are reported as soon as they are received again, not once all are: the first ones
    /// are repaired while the last ones are subscribed.
    fn confirm(&self, channels: &[ChannelName]) {
        let interrupted = self.shared.channels.lock().confirm(channels);
        if !interrupted.is_empty() {
            self.shared.plan.listener.interrupted(&interrupted);
        }
    }

    /// Redis refuses a whole SUBSCRIBE for one channel that we may not have: the others must not suffer.
    async fn one_by_one(&mut self, link: &mut Link, channels: &[ChannelName]) -> Result<(), LinkError> {
        for channel in channels {
            let one = std::slice::from_ref(channel);
            match link.subscribe(&self.wire_names(one), self.settings.io_timeout).await {
                Ok(()) => self.confirm(one),
                Err(LinkError::Redis(error)) if !error.is_unrecoverable_error() => {
                    if let Some(unsaid) = self.complaint.due(Instant::now()) {
                        tracing::warn!(%channel, %error, unsaid, "Redis refused to subscribe");
                    }
                    self.shared.channels.lock().refuse(channel, Instant::now());
                    self.refused.push(channel.clone());
                }
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    fn wire_names(&self, channels: &[ChannelName]) -> Vec<String> {
        channels.iter().map(|channel| self.shared.plan.listener.wire_name(channel)).collect()
    }

    /// Gives up channels whose pause is over. The question whether one is wanted is asked without our lock: it takes the
    /// lock of the channel's subscribers, under which `subscribe` may be called.
    fn give_up(&self) {
        let now = Instant::now();
        let due = self.shared.channels.lock().due(now);
        for channel in due {
            let wanted = self.shared.plan.listener.wanted(&channel);
            self.shared.channels.lock().leave(&channel, wanted, now);
        }
    }

    /// Probes a quiet connection, and finds a deaf one. The probe travels beside: waiting for the command connection must
    /// not hold up subscribers.
    fn listen_for_silence(&mut self, probe: &mut Option<AbortOnDropHandle<bool>>) -> Result<(), LinkError> {
        let now = Instant::now();
        self.quiet.heard(self.shared.heard());
        if let Some(sent) = probe.take_if(|sent| sent.is_finished())
            && matches!(sent.now_or_never(), Some(Ok(true)))
        {
            self.quiet.probe_accepted(now);
        }
        match self.quiet.check(now) {
            Step::Rebuild => return Err(LinkError::Deaf),
            Step::Probe if probe.is_none() => {
                let commands = Arc::clone(&self.commands);
                let (channel, payload) = self.shared.plan.probe.clone();
                *probe = Some(AbortOnDropHandle::new(tokio::spawn(async move {
                    commands.run(|connection| publish(connection, channel, payload)).await.is_ok()
                })));
            }
            Step::Probe | Step::Nothing => {}
        }
        Ok(())
    }
}

/// Ready when a channel's pause is over.
async fn leave_due(shared: &Shared) {
    let next = shared.channels.lock().next_leave();
    match next {
        Some(at) => sleep_until(at.into()).await,
        None => future::pending().await,
    }
}

/// PUBLISH, as a command of its own.
pub(super) async fn publish(
    mut connection: MultiplexedConnection,
    channel: String,
    payload: impl AsRef<[u8]>,
) -> Result<(), RedisError> {
    let mut command = redis::Cmd::with_capacity(3, channel.len() + payload.as_ref().len() + 7);
    command.arg("PUBLISH").arg(channel).arg(payload.as_ref());
    connection.send_packed_command(&command).await?.extract_error()?;
    Ok(())
}

// === impl Link ===

/// A connection in one of the two protocol versions, and the task that reads it.
struct Link {
    speaker: Speaker,
    reader: AbortOnDropHandle<()>,
}

enum Speaker {
    Resp3(MultiplexedConnection),
    Resp2(PubSubSink),
}

impl Link {
    async fn open(server: &Server, settings: &Settings, shared: &Arc<Shared>) -> Result<Self, LinkError> {
        if server.speaks_resp3() {
            let shared = Arc::clone(shared);
            let on_push = move |push: PushInfo| -> Result<(), SendError> {
                take_push(&shared, push);
                Ok(())
            };
            let (connection, reader) = connect::commands(server, settings, Some(on_push)).await?;
            return Ok(Self { speaker: Speaker::Resp3(connection), reader });
        }
        let stream = connect::open(server, settings).await?;
        let introduced = timeout(settings.io_timeout, PubSub::new(&server.identity, stream)).await;
        let (speaker, mut messages) = introduced.map_err(|_| LinkError::Timeout("handshake"))??.split();
        let shared = Arc::clone(shared);
        // The library queues what this task has not read yet, without a bound; it does nothing but read.
        let reader = tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                take_message(&shared, &message);
            }
        });
        Ok(Self { speaker: Speaker::Resp2(speaker), reader: AbortOnDropHandle::new(reader) })
    }

    /// Ready when the connection is lost.
    async fn closed(&mut self) {
        // However the reader ended, nothing is read any more.
        let _ = (&mut self.reader).await;
    }

    async fn subscribe(&mut self, channels: &[String], limit: Duration) -> Result<(), LinkError> {
        let asked = async {
            match &mut self.speaker {
                Speaker::Resp3(connection) => connection.subscribe(channels).await,
                Speaker::Resp2(sink) => sink.subscribe(channels).await,
            }
        };
        Ok(timeout(limit, asked).await.map_err(|_| LinkError::Timeout("subscribe"))??)
    }

    async fn unsubscribe(&mut self, channels: &[String], limit: Duration) -> Result<(), LinkError> {
        let asked = async {
            match &mut self.speaker {
                Speaker::Resp3(connection) => connection.unsubscribe(channels).await,
                Speaker::Resp2(sink) => sink.unsubscribe(channels).await,
            }
        };
        Ok(timeout(limit, asked).await.map_err(|_| LinkError::Timeout("unsubscribe"))??)
    }

    async fn ping(&mut self) -> Result<(), LinkError> {
        let asked = async {
            match &mut self.speaker {
                Speaker::Resp3(connection) => connection.send_packed_command(&redis::cmd("PING")).await,
                Speaker::Resp2(sink) => sink.ping::<Value>().await,
            }
        };
        match timeout(PING_LIMIT, asked).await.map_err(|_| LinkError::Timeout("ping"))? {
            // A server that says no ("loading the data set") is there.
            Err(error) if error.is_unrecoverable_error() => Err(error.into()),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// A push of RESP3: `message`, channel, payload. Confirmations are pushes, too; they are answered elsewhere.
fn take_push(shared: &Shared, push: PushInfo) {
    if push.kind != PushKind::Message {
        return;
    }
    if let Ok([Value::BulkString(channel), Value::BulkString(payload)]) = <[Value; 2]>::try_from(push.data) {
        shared.receive(&channel, payload.into());
    }
}

fn take_message(shared: &Shared, message: &Msg) {
    let payload = Bytes::copy_from_slice(message.get_payload_bytes());
    shared.receive(message.get_channel_name().as_bytes(), payload);
}
