//! The control plane over Redis: one PUB/SUB channel for all nodes, one for each.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use tokio::{runtime::Handle, sync::mpsc};

use super::{
    Counters, RedisBroker,
    bus::{self, Bus, BusPlan, Listener},
    commands::Commands,
    keys::Keys,
};
use crate::{
    broker::BrokerError,
    names::{ChannelName, NodeId},
    node::control::{Control, ControlEvent, To, nothing_to_say},
};

/// Control messages that have been received and not yet handled. When there are more, the newest are dropped and counted.
const LANE: usize = 4096;

/// Sends control messages. Every node listens on all servers; messages go to them in rotation.
pub struct RedisControl {
    keys: Keys,
    servers: Vec<Arc<Commands>>,
    next: AtomicUsize,
    _buses: Vec<Bus>,
}

impl RedisBroker {
    /// Starts to listen for control messages to `node`, on `runtime`. What arrives comes out of the receiver, in the order
    /// of each server. Connections and tasks end when the [`RedisControl`] is dropped. To be called once.
    pub fn control(&self, node: &NodeId, runtime: &Handle) -> (RedisControl, mpsc::Receiver<ControlEvent>) {
        let (lane, events) = mpsc::channel(LANE);
        let buses = self.shards.iter().map(|shard| {
            let plan = control_plan(&self.keys, node, &lane, &self.counters);
            let commands = Arc::clone(&shard.commands);
            Bus::start(plan, shard.server.clone(), Arc::clone(&self.settings), commands, &shard.health, runtime)
        });
        let control = RedisControl {
            keys: self.keys.clone(),
            servers: self.shards.iter().map(|shard| Arc::clone(&shard.commands)).collect(),
            next: AtomicUsize::new(0),
            _buses: buses.collect(),
        };
        (control, events)
    }
}

fn control_plan(keys: &Keys, node: &NodeId, lane: &mpsc::Sender<ControlEvent>, counters: &Arc<Counters>) -> BusPlan {
    let own = keys.node(node);
    BusPlan {
        name: "control",
        fixed: vec![keys.control(), own.clone()],
        probe: (own, nothing_to_say(node)),
        listener: Box::new(Lane { lane: lane.clone(), counters: Arc::clone(counters) }),
    }
}

/// Puts what arrives into the lane. It has no channels beside the fixed ones.
struct Lane {
    lane: mpsc::Sender<ControlEvent>,
    counters: Arc<Counters>,
}

impl Listener for Lane {
    fn wire_name(&self, channel: &ChannelName) -> String {
        channel.to_string()
    }

    fn receive(&self, _channel: &[u8], message: Bytes) {
        if self.lane.try_send(ControlEvent::Message(message)).is_err() {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn wanted(&self, _channel: &ChannelName) -> bool {
        false
    }

    fn interrupted(&self, _channels: &[ChannelName]) {}

    fn connected(&self) {
        // With a full lane the next announcement in turn has to do.
        let _ = self.lane.try_send(ControlEvent::Connected);
    }
}

impl RedisControl {
    /// The next server in rotation; one that is away is passed over while another is there.
    fn pick(&self) -> &Arc<Commands> {
        let first = self.next.fetch_add(1, Ordering::Relaxed) % self.servers.len();
        let (before, after) = self.servers.split_at(first);
        after.iter().chain(before).find(|commands| commands.is_up()).unwrap_or(&self.servers[first])
    }
}

impl Control for RedisControl {
    fn send(&self, to: To, message: Bytes) -> BoxFuture<'static, Result<(), BrokerError>> {
        let commands = Arc::clone(self.pick());
        let channel = match to {
            To::All => self.keys.control(),
            To::Node(node) => self.keys.node(&node),
        };
        async move { commands.run(|connection| bus::publish(connection, channel, message)).await }.boxed()
    }
}
