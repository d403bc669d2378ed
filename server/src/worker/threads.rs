//! Starting workers, and what the rest of the process holds of them.

use std::{
    collections::BTreeMap,
    io,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
};

use tokio::runtime::Handle;

use super::{
    Worker, World,
    adopt::Adopted,
    inbox::{Inbox, Message},
    users::Users,
};
use crate::{
    broker::{Broker, BrokerError, History},
    channels::ChannelTable,
    clock::Clock,
    error::{Disconnect, Unsubscribed},
    metrics::WorkerCounters,
    names::ChannelName,
    node::{Counts, Local, Target},
    presence::Presence,
    session::{Join, ServerRefresh, ServerSubscription},
    settings::Settings,
};

/// What all workers of a node share, read-only or with locks of its own.
pub struct Shared {
    /// The process's clock.
    pub clock: Clock,
    /// One per worker, by number.
    pub inboxes: Vec<Arc<Inbox>>,
    /// One per worker, by number; each is written by its worker only.
    pub counters: Vec<Arc<WorkerCounters>>,
    /// The node's channels.
    pub table: Arc<ChannelTable>,
    /// The node's users.
    pub users: Arc<Users>,
    /// Where publications go.
    pub broker: Arc<dyn Broker>,
    /// Who is in which channel.
    pub presence: Arc<dyn Presence>,
    /// Whether presence has to be refreshed, because it expires.
    pub presence_expires: bool,
    /// Ends all connections of a user but one, on every node.
    pub displace: Box<dyn Fn(Target, String) + Send + Sync>,
    /// Where futures run that a worker must not wait for.
    pub services: Handle,
}

impl Shared {
    /// Takes a place in a channel; see [`Join`]. Everything is begun at the first poll, in order, and in the memory engine also
    /// ended.
    pub(super) async fn join(self: Arc<Self>, join: Join) -> Result<Option<History>, BrokerError> {
        let Join { channel, presence, history } = join;
        self.broker.subscribe(&channel).await?;
        if let Some((client, info)) = presence {
            self.presence.add(&channel, client, info).await?;
        }
        match history {
            None => Ok(None),
            Some((query, options)) => self.broker.history(&channel, query, options).await.map(Some),
        }
    }

    pub(super) fn connection_ended(&self, worker: usize) {
        self.counters[worker].connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The node's workers, seen from outside.
pub struct Workers {
    shared: Arc<Shared>,
}

impl Workers {
    /// Starts one thread per inbox. The handles end when a drain is complete.
    pub fn start(shared: Arc<Shared>, settings: &Arc<Settings>) -> io::Result<(Self, Vec<JoinHandle<()>>)> {
        let threads = (0..shared.inboxes.len())
            .map(|number| {
                let (shared, settings) = (shared.clone(), settings.clone());
                std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        // Sockets are looked at often, also while a long pass keeps the thread busy.
                        .event_interval(7)
                        .build()
                        .expect("a runtime needs a few descriptors, which are reserved before listening");
                    let world = Rc::new(World(Worker::new(number, shared, settings).into()));
                    tokio::task::LocalSet::new().block_on(&runtime, world.run());
                })
            })
            .collect::<io::Result<Vec<_>>>()?;
        Ok((Self { shared }, threads))
    }

    /// Gives a connection to the worker with the fewest.
    pub fn adopt(&self, adopted: Adopted) {
        let loads = self.shared.counters.iter().map(|counters| counters.connections.load(Ordering::Relaxed));
        let (number, _) = loads.enumerate().min_by_key(|(_, load)| *load).expect("there is at least one worker");
        self.shared.counters[number].connections.fetch_add(1, Ordering::Relaxed);
        self.shared.inboxes[number].push(Message::Adopt(Box::new(adopted)));
    }

    /// Connections held by the workers, those still without an accepted `connect` included.
    pub fn connections(&self) -> u32 {
        self.shared.counters.iter().map(|counters| counters.connections.load(Ordering::Relaxed)).sum()
    }

    /// Makes all workers use new settings.
    pub fn apply(&self, settings: &Arc<Settings>) {
        self.tell(|| Message::Settings(settings.clone()));
    }

    /// Makes all workers close their connections in paced batches and end.
    pub fn drain(&self) {
        self.tell(|| Message::Drain);
    }

    fn tell(&self, message: impl Fn() -> Message) {
        for inbox in &self.shared.inboxes {
            inbox.push(message());
        }
    }
}

impl Local for Workers {
    fn disconnect(&self, target: &Target, cause: &Disconnect, keep: &[String]) {
        let target = Arc::new(target.clone());
        let keep: Arc<[String]> = keep.into();
        self.tell(|| Message::Disconnect { target: target.clone(), cause: cause.clone(), keep: keep.clone() });
    }

    fn unsubscribe(&self, target: &Target, channel: Option<&ChannelName>, cause: &Unsubscribed) {
        let target = Arc::new(target.clone());
        self.tell(|| Message::Unsubscribe { target: target.clone(), channel: channel.cloned(), cause: cause.clone() });
    }

    fn subscribe(&self, target: &Target, subscription: &Arc<ServerSubscription>) {
        let target = Arc::new(target.clone());
        self.tell(|| Message::Subscribe { target: target.clone(), subscription: subscription.clone() });
    }

    fn refresh(&self, target: &Target, refresh: &Arc<ServerRefresh>) {
        let target = Arc::new(target.clone());
        self.tell(|| Message::Refresh { target: target.clone(), refresh: refresh.clone() });
    }

    fn channels(&self, matches: &dyn Fn(&str) -> bool) -> BTreeMap<String, u32> {
        self.shared.table.subscribers(matches)
    }

    fn counts(&self) -> Counts {
        let sum = |of: fn(&WorkerCounters) -> u32| self.shared.counters.iter().map(|counters| of(counters)).sum();
        Counts {
            clients: sum(|counters| counters.clients.load(Ordering::Relaxed)),
            users: u32::try_from(self.shared.users.len()).unwrap_or(u32::MAX),
            channels: u32::try_from(self.shared.table.len()).unwrap_or(u32::MAX),
            subscriptions: sum(|counters| counters.subscriptions.load(Ordering::Relaxed)),
        }
    }
}
