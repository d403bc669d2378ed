//! One delivery thread and all it owns: its connections, their sessions, its channels, its timers, its scratch buffers.
//!
//! A worker is a small single-threaded server. Nothing reaches into it; others put messages into its [`inbox`]. So everything
//! here is plain owned data, and `Worker` itself is synchronous: it is entered, does something, and is left again. The few
//! tasks around it only wait: one per connection for input, one per blocked connection for room, one for the inbox.
//!
//! | file | what it knows |
//! |---|---|
//! | [`inbox`] | the way in |
//! | `adopt` | a connection on its way from the listener |
//! | `outlet` | the socket, plain or encrypted |
//! | `connection` | one connection's write, backlog and suspended input |
//! | `input` | bytes to commands to the session |
//! | `perform` | what a session wants done |
//! | `local` | the channels of this worker and their members |
//! | `delivery` | passes over the members |
//! | `repair` | gaps, position checks, presence that has to be renewed |
//! | `ending` | closing, lingering, draining |
//! | `wheel` | timers |
//! | `threads` | starting workers, and the handle that the node holds |
//!
//! Order of work in one turn: messages of the inbox, then timers, then deliveries up to a budget; then input of connections
//! gets its turn. When nothing is left to do the thread sleeps.

mod adopt;
mod connection;
mod delivery;
mod ending;
pub mod inbox;
mod input;
mod local;
mod outlet;
mod perform;
mod repair;
mod threads;
mod users;
mod wheel;

use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
};

use hashbrown::HashMap;
use slab::Slab;
use smallvec::SmallVec;
use tokio::time::{Instant, sleep_until};

pub use self::{
    adopt::{Adopted, Carrier},
    threads::{Shared, Workers},
    users::Users,
};
use self::{
    connection::{Connection, Stage},
    inbox::{ConnectionRef, Message},
    local::{Key, LocalChannels},
    outlet::Outlet,
    wheel::Wheel,
};
use crate::{
    channels::Tools,
    clock::{Moment, unix_ms},
    error::Disconnect,
    limits,
    metrics::CommandKind,
    names::{ClientId, UserId},
    session::{Context, Input, Output, Session},
    settings::Settings,
    wire::{
        deflate::{Deflater, Inflater},
        websocket::{OpenFrame, Reader, Rules},
    },
};

/// What one thread owns.
pub(crate) struct Worker {
    number: usize,
    shared: Arc<Shared>,
    settings: Held,
    connections: Slab<Connection>,
    generation: u32,
    /// Connections of each user who is not anonymous; those are found by a walk over all.
    users: HashMap<UserId, SmallVec<[u32; 2]>>,
    channels: LocalChannels,
    /// Channels with unsent frames, each at most once.
    jobs: VecDeque<Key>,
    /// Connections to be ended as soon as no walk is under way.
    doomed: Vec<(ConnectionRef, Disconnect)>,
    wheel: Wheel,
    due: Vec<ConnectionRef>,
    drain: Option<ending::Drain>,
    /// When positions are compared and presence is renewed next.
    periodic_at: Moment,
    /// Tasks to start when the worker is left.
    tasks: Vec<Task>,
    // Scratch, so that nothing is allocated per message.
    read_scratch: Vec<u8>,
    replies: Vec<u8>,
    /// Frame under way at the end of `replies`.
    reply_frame: Option<OpenFrame>,
    joined: Vec<u8>,
    outputs: Vec<Output>,
    /// Command that the outputs under way are the consequence of, for metrics.
    command_kind: CommandKind,
    inflater: Inflater,
    tools: Tools,
}

/// The settings in force, counted by this thread alone: they are held for every input, and the count of the shared
/// reference would travel between cores each time.
#[allow(clippy::redundant_allocation)]
type Held = Rc<Arc<Settings>>;

/// Something that waits on behalf of one connection.
enum Task {
    /// For input.
    Read(ConnectionRef, Outlet),
    /// For room to write.
    Flush(ConnectionRef, Outlet),
}

/// A worker among its tasks. Entered by one of them at a time and never across an await.
struct World(RefCell<Worker>);

impl World {
    /// Does something with the worker, then starts the tasks that came of it.
    fn enter<R>(self: &Rc<Self>, work: impl FnOnce(&mut Worker) -> R) -> R {
        let (result, tasks) = {
            let mut worker = self.0.borrow_mut();
            let result = work(&mut worker);
            worker.end_doomed();
            (result, std::mem::take(&mut worker.tasks))
        };
        for task in tasks {
            let world = self.clone();
            match task {
                Task::Read(at, outlet) => tokio::task::spawn_local(world.read(at, outlet)),
                Task::Flush(at, outlet) => tokio::task::spawn_local(world.flush(at, outlet)),
            };
        }
        result
    }

    /// The task of a connection that may be read. It ends with the connection, or when input has to wait for an answer.
    async fn read(self: Rc<Self>, at: ConnectionRef, outlet: Outlet) {
        loop {
            if outlet.readable().await.is_err() {
                self.enter(|worker| worker.lost(at));
                return;
            }
            match self.enter(|worker| worker.read(at)) {
                input::Reading::Wait => {}
                input::Reading::Yield => tokio::task::yield_now().await,
                input::Reading::Stop => return,
            }
        }
    }

    /// The task of a connection whose client does not take what it is sent. It ends when the backlog is gone.
    async fn flush(self: Rc<Self>, at: ConnectionRef, outlet: Outlet) {
        loop {
            if outlet.writable().await.is_err() {
                self.enter(|worker| worker.lost(at));
                return;
            }
            if self.enter(|worker| worker.flush(at)) {
                return;
            }
        }
    }

    /// The worker's own loop; ends when a drain is complete.
    async fn run(self: Rc<Self>) {
        let shared = self.0.borrow().shared.clone();
        let inbox = shared.inboxes[self.0.borrow().number].clone();
        let mut messages = Vec::new();
        loop {
            inbox.take(&mut messages);
            let more = self.enter(|worker| {
                for message in messages.drain(..) {
                    worker.message(message);
                }
                worker.timers();
                worker.deliver(limits::DELIVERIES_PER_TURN)
            });
            if messages.capacity() > limits::INBOX_MESSAGES / 16 {
                messages = Vec::new();
            }
            let (finished, wake_at) = {
                let worker = self.0.borrow();
                (worker.is_drained(), worker.wake_at())
            };
            if finished {
                return;
            }
            if more {
                tokio::task::yield_now().await;
                continue;
            }
            match wake_at {
                None => inbox.filled().await,
                Some(moment) => {
                    let instant = Instant::from_std(shared.clock.instant(moment));
                    tokio::select! {
                        biased;
                        () = inbox.filled() => {}
                        () = sleep_until(instant) => {}
                    }
                }
            }
        }
    }
}

impl Worker {
    fn new(number: usize, shared: Arc<Shared>, settings: Arc<Settings>) -> Self {
        let now = shared.clock.now();
        let tools = tools(&settings);
        let periodic_at = now + settings.presence_update_interval;
        Self {
            number,
            shared,
            settings: Rc::new(settings),
            connections: Slab::new(),
            generation: 0,
            users: HashMap::new(),
            channels: LocalChannels::default(),
            jobs: VecDeque::new(),
            doomed: Vec::new(),
            wheel: Wheel::new(now),
            due: Vec::new(),
            drain: None,
            periodic_at,
            tasks: Vec::new(),
            read_scratch: vec![0; limits::READ_SCRATCH],
            replies: Vec::new(),
            reply_frame: None,
            joined: Vec::new(),
            outputs: Vec::new(),
            command_kind: CommandKind::Pong,
            inflater: Inflater::new(),
            tools,
        }
    }

    /// One line per message.
    fn message(&mut self, message: Message) {
        match message {
            Message::Deliver(encoded) => self.take(encoded),
            Message::Answer { connection, ticket, answer } => self.answer(connection, ticket, answer),
            Message::Repaired(read) => self.repaired(*read),
            Message::Interrupted(channels) => channels.iter().for_each(|channel| self.interrupted(channel)),
            Message::Adopt(adopted) => self.adopt(*adopted),
            Message::Disconnect { target, cause, keep } => self.disconnect_users(&target, &cause, &keep),
            Message::Subscribe { target, subscription } => self.subscribe_users(&target, &subscription),
            Message::Refresh { target, refresh } => self.refresh_users(&target, &refresh),
            Message::Unsubscribe { target, channel, cause } => {
                self.unsubscribe_users(&target, channel.as_ref(), &cause);
            }
            Message::Settings(settings) => {
                self.tools = tools(&settings);
                self.settings = Rc::new(settings);
            }
            Message::Drain => self.begin_drain(),
        }
    }

    fn adopt(&mut self, adopted: Adopted) {
        let Adopted { carrier, first_bytes, protocol, deflate, opening } = adopted;
        let Ok(outlet) = Outlet::new(carrier) else {
            // Only a descriptor that epoll refuses comes here; the peer sees the connection end.
            self.shared.connection_ended(self.number);
            return;
        };
        let session = Session::new(ClientId::random(), protocol, opening, &self.context(&self.settings));
        self.generation = self.generation.wrapping_add(1);
        let slot = self.connections.insert(Connection {
            generation: self.generation,
            outlet: outlet.clone(),
            session,
            reader: Reader::new(),
            deflate,
            stage: Stage::Open,
            reading: true,
            backlog: None,
            suspended: None,
            memberships: SmallVec::new(),
            look_at: None,
        });
        let at = ConnectionRef {
            slot: u32::try_from(slot).expect("a process has fewer than 2^32 descriptors"),
            generation: self.generation,
        };
        self.reschedule(at);
        self.tasks.push(Task::Read(at, outlet));
        if !first_bytes.is_empty() {
            self.first_input(at, first_bytes);
        }
    }

    fn connection(&mut self, at: ConnectionRef) -> Option<&mut Connection> {
        self.connections.get_mut(at.slot as usize).filter(|connection| connection.generation == at.generation)
    }

    fn frame_rules(&self, deflate: bool) -> Rules {
        Rules { message_size_limit: self.settings.message_size_limit, deflate, strict: self.settings.strict_frames }
    }

    fn now(&self) -> Moment {
        self.shared.clock.now()
    }

    fn context<'a>(&self, settings: &'a Settings) -> Context<'a> {
        Context { now: self.shared.clock.now(), unix_ms: unix_ms(), random: rand::random(), settings }
    }

    /// Looks at every connection whose time has come.
    fn timers(&mut self) {
        let now = self.now();
        self.drain_step(now);
        self.periodic(now);
        if self.wheel.next().is_none_or(|at| at > now) {
            return;
        }
        let mut due = std::mem::take(&mut self.due);
        self.wheel.fire(now, &mut due);
        for at in due.drain(..) {
            self.look_at(at, now);
        }
        self.due = due;
        if self.due.capacity() > 4096 {
            self.due = Vec::new();
        }
    }

    fn look_at(&mut self, at: ConnectionRef, now: Moment) {
        let write_timeout = self.settings.write_timeout;
        let Some(connection) = self.connection(at) else { return };
        if connection.look_at.is_none_or(|moment| moment > now) {
            // An entry of an earlier plan; the valid one is still in the wheel.
            return;
        }
        connection.look_at = None;
        match connection.stage {
            Stage::Refused(until) | Stage::Closing(until) if until <= now => return self.drop_connection(at),
            Stage::Refused(_) | Stage::Closing(_) => {}
            Stage::Open => {
                let stalled = connection.backlog.as_ref().is_some_and(|b| b.moved_at + write_timeout <= now);
                if stalled {
                    return self.end(at, Disconnect::WRITE_ERROR);
                }
                self.drive(at, Input::Deadline);
                self.write_replies(at);
            }
        }
        self.reschedule(at);
    }

    /// Makes sure that the wheel looks at the connection when something is due.
    fn reschedule(&mut self, at: ConnectionRef) {
        let settings = self.settings.clone();
        let Some(connection) = self.connection(at) else { return };
        let deadline = match connection.stage {
            Stage::Refused(until) | Stage::Closing(until) => Some(until),
            Stage::Open => {
                let stall = connection.backlog.as_ref().map(|backlog| backlog.moved_at + settings.write_timeout);
                [connection.session.next_deadline(&settings), stall].into_iter().flatten().min()
            }
        };
        let Some(deadline) = deadline else { return };
        if connection.look_at.is_some_and(|planned| planned <= deadline) {
            return;
        }
        let planned = self.wheel.insert(at, deadline);
        if let Some(connection) = self.connection(at) {
            connection.look_at = Some(planned);
        }
    }

    /// When the worker must wake up without a message.
    fn wake_at(&self) -> Option<Moment> {
        let periodic = (!self.connections.is_empty()).then_some(self.periodic_at);
        [self.wheel.next(), self.drain.as_ref().map(ending::Drain::next), periodic].into_iter().flatten().min()
    }

    fn count_backlog(&self, before: usize, after: usize) {
        let gauge = &self.shared.counters[self.number].backlog_bytes;
        gauge.fetch_add((after as u64).wrapping_sub(before as u64), Ordering::Relaxed);
    }
}

fn tools(settings: &Settings) -> Tools {
    Tools {
        deflater: Deflater::new(settings.deflate_level),
        deflate_min_size: settings.deflate_min_size,
        encoder: Default::default(),
    }
}
