//! The connection for commands to one server: publishing, and later scripts.
//!
//! Commands of all callers share one connection and one pipeline. A task keeps it: it connects, pings, and connects again
//! for as long as the node lives. A ping that is not answered in time means a new connection, since a frozen server or a
//! silently lost network leaves the old one open.
//!
//! What a caller meets: while the server is known to be away its command fails at once; while the first attempt after a
//! loss is under way, it waits for that attempt; and it never waits longer than the time limit of settings. After a failure
//! the command may or may not have been carried out. Nothing is repeated here, since a repeated publication would be two.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use redis::{RedisError, aio::MultiplexedConnection};
use tokio::{
    runtime::Handle,
    sync::watch,
    time::{interval, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    complaint::Complaint,
    connect::{Backoff, LinkError, commands},
    health::{Health, LinkHealth},
    settings::{Server, Settings},
};
use crate::broker::BrokerError;

/// Time between pings, and the longest time for an answer to one: a frozen server is noticed within 5 s.
pub(super) const PING_EVERY: Duration = Duration::from_secs(2);
pub(super) const PING_LIMIT: Duration = Duration::from_secs(3);

/// Handle to the connection. Its task ends when it is dropped.
pub(crate) struct Commands {
    link: watch::Receiver<Link>,
    limit: Duration,
    complaint: Mutex<Complaint>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Clone)]
enum Link {
    /// The first attempt, or the first after a loss, is under way.
    Connecting,
    Up(MultiplexedConnection),
    /// An attempt has failed since the last success.
    Away,
}

impl Commands {
    pub(super) fn start(server: Server, settings: Arc<Settings>, health: &Health, runtime: &Handle) -> Self {
        let (sender, link) = watch::channel(Link::Connecting);
        let limit = settings.io_timeout;
        let keeper = Keeper { server, settings, link: sender, health: health.link("commands") };
        let task = AbortOnDropHandle::new(runtime.spawn(keeper.run()));
        Self { link, limit, complaint: Mutex::new(Complaint::default()), _task: task }
    }

    /// Whether commands have a connection now.
    pub(super) fn is_up(&self) -> bool {
        matches!(*self.link.borrow(), Link::Up(_))
    }

    /// Runs `operation` on the connection, with one time limit for waiting and working.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Unavailable`] for every failure; the log has the cause of those that are not a lost connection.
    pub(crate) async fn run<T, F>(&self, operation: impl FnOnce(MultiplexedConnection) -> F) -> Result<T, BrokerError>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let work = async { operation(self.connection().await?).await.map_err(|error| self.complain(&error)) };
        timeout(self.limit, work).await.map_err(|_| BrokerError::Unavailable)?
    }

    async fn connection(&self) -> Result<MultiplexedConnection, BrokerError> {
        let mut link = self.link.clone();
        loop {
            match &*link.borrow_and_update() {
                Link::Up(connection) => return Ok(connection.clone()),
                Link::Away => return Err(BrokerError::Unavailable),
                Link::Connecting => {}
            }
            link.changed().await.map_err(|_| BrokerError::Unavailable)?;
        }
    }

    /// A lost connection is reported by its task; a command that Redis refuses is reported here, not once per command.
    fn complain(&self, error: &RedisError) -> BrokerError {
        if !error.is_unrecoverable_error()
            && let Some(unsaid) = self.complaint.lock().due(Instant::now())
        {
            tracing::error!(%error, unsaid, "Redis refused a command");
        }
        BrokerError::Unavailable
    }
}

/// The task that keeps the connection.
struct Keeper {
    server: Server,
    settings: Arc<Settings>,
    link: watch::Sender<Link>,
    health: LinkHealth,
}

/// Commands need no pushes.
type NoPush = fn(redis::PushInfo) -> Result<(), redis::aio::SendError>;

impl Keeper {
    async fn run(self) {
        let mut backoff = Backoff::new();
        loop {
            let lost = match commands(&self.server, &self.settings, None::<NoPush>).await {
                Ok((connection, driver)) => {
                    self.link.send_replace(Link::Up(connection.clone()));
                    self.health.up();
                    let why = keep(connection, driver, &mut backoff).await;
                    self.link.send_replace(Link::Connecting);
                    why
                }
                Err(why) => {
                    self.link.send_replace(Link::Away);
                    why
                }
            };
            self.health.away(&lost);
            sleep(backoff.delay(rand::random())).await;
        }
    }
}

/// Pings until the connection is lost or not answered in time.
async fn keep(
    mut connection: MultiplexedConnection,
    driver: AbortOnDropHandle<()>,
    backoff: &mut Backoff,
) -> LinkError {
    let mut tick = interval(PING_EVERY);
    tick.tick().await;
    tokio::pin!(driver);
    loop {
        tokio::select! {
            _ = &mut driver => return LinkError::Closed,
            _ = tick.tick() => {}
        }
        let ping = redis::cmd("PING");
        match timeout(PING_LIMIT, connection.send_packed_command(&ping)).await {
            // A server that says no ("loading the data set") is there.
            Ok(Ok(_)) => backoff.reset(),
            Ok(Err(error)) if !error.is_unrecoverable_error() => backoff.reset(),
            Ok(Err(error)) => return error.into(),
            Err(_) => return LinkError::Timeout("ping"),
        }
    }
}
