//! A node among others: it announces itself, remembers the others, asks them and answers them, and carries out what they
//! tell all nodes to do.
//!
//! [`run`] is the whole life of it: one task that handles control messages one after the other, so that an unsubscribe and
//! a disconnect of a user happen here in the order in which they arrived.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Node, Target,
    control::{self, Control, ControlEvent, Message, RemoteSubscription, To},
    registry::{ANNOUNCE_EVERY, Registry, SWEEP_EVERY, Seen},
    survey::{self, Outcome, Surveys},
};
use crate::{auth::UnixSeconds, broker::BrokerError, names::NodeId, namespace::Namespaces};

/// How long a question waits for answers. Nodes that are later are left out, and named in the log.
const SURVEY_DEADLINE: Duration = Duration::from_secs(1);

/// How long a stopping node tries to say so.
const FAREWELL: Duration = Duration::from_secs(1);

/// Messages that are being sent by the task of [`run`]; more are dropped. Those are announcements and answers, whose
/// receivers can do without.
const SENDING: usize = 1024;

/// The other nodes, from the view of one.
pub(super) struct Cluster {
    control: Arc<dyn Control>,
    namespaces: Arc<ArcSwap<Namespaces>>,
    registry: Mutex<Registry>,
    surveys: Mutex<Surveys>,
}

impl Cluster {
    pub(super) fn new(control: Arc<dyn Control>, namespaces: Arc<ArcSwap<Namespaces>>) -> Self {
        Self { control, namespaces, registry: Mutex::default(), surveys: Mutex::default() }
    }

    /// Tells all other nodes.
    pub(super) fn tell_all(&self, own: &NodeId, message: Message) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.control.send(To::All, control::encode(own, message))
    }

    /// Number of other nodes.
    pub(super) fn size(&self) -> usize {
        self.registry.lock().infos().count()
    }

    /// What the other nodes told last.
    pub(super) fn infos(&self) -> Vec<super::NodeInfo> {
        self.registry.lock().infos().cloned().collect()
    }

    /// Channels with subscribers on other nodes, summed over them.
    pub(super) async fn channels(&self, own: &NodeId, pattern: Option<&str>) -> BTreeMap<String, u32> {
        let Outcome { answers, silent } = self.survey(own, survey::CHANNELS, survey::ask_channels(pattern)).await;
        let mut channels = BTreeMap::<String, u32>::new();
        let mut useless = Vec::new();
        for (node, answer) in answers {
            let code = answer.code;
            let Some(of_node) = survey::channels_in(answer) else {
                useless.push((node, code));
                continue;
            };
            for (name, clients) in of_node {
                let sum = channels.entry(name).or_default();
                *sum = sum.saturating_add(clients);
            }
        }
        if !silent.is_empty() || !useless.is_empty() {
            tracing::warn!(?silent, ?useless, "the list of channels is without those of some nodes");
        }
        channels
    }

    /// Asks all other nodes and waits until all have answered, or for a second. Dropping the future ends the question.
    async fn survey(&self, own: &NodeId, op: &str, data: Bytes) -> Outcome {
        let nodes = self.registry.lock().ids();
        if nodes.is_empty() {
            return Outcome::default();
        }
        let Some((id, complete)) = self.surveys.lock().open(nodes.clone()) else {
            return Outcome { silent: nodes, ..Outcome::default() };
        };
        let open = OpenSurvey { cluster: self, id };
        let asked = async {
            // When it could not be sent, nobody answers.
            if self.tell_all(own, Message::SurveyRequest { id, op: op.to_owned(), data }).await.is_ok() {
                let _ = complete.await;
            }
        };
        // Late is as good as never.
        let _ = timeout(SURVEY_DEADLINE, asked).await;
        open.close()
    }
}

/// Closes the question when its asker is gone.
struct OpenSurvey<'a> {
    cluster: &'a Cluster,
    id: u64,
}

impl OpenSurvey<'_> {
    fn close(self) -> Outcome {
        self.cluster.surveys.lock().close(self.id)
    }
}

impl Drop for OpenSurvey<'_> {
    fn drop(&mut self) {
        self.cluster.surveys.lock().close(self.id);
    }
}

/// Lives the node's part in its cluster, until `stop`; then it says so to the others, for at most a second, and returns.
/// Returns at once for a node that is alone, and when `events` ends. Dropping the future stops without saying so: the others
/// then notice after 7 to 16 s.
pub async fn run(node: Arc<Node>, mut events: mpsc::Receiver<ControlEvent>, stop: CancellationToken) {
    let Some(cluster) = &node.cluster else { return };
    let mut announce = interval(ANNOUNCE_EVERY);
    announce.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sweep = interval(SWEEP_EVERY);
    let mut sending = Sending(FuturesUnordered::new());
    // The first announcement belongs after the first connection: until then nobody's answer would be heard.
    let mut connected = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            event = events.recv() => match event {
                None => return,
                Some(ControlEvent::Connected) => {
                    connected = true;
                    announce.reset_immediately();
                }
                Some(ControlEvent::Message(bytes)) => match control::decode(&node.id, bytes) {
                    Ok((from, message)) => handle(&node, cluster, &mut sending, from, message),
                    Err(control::Ignored::Own) => {}
                    Err(why) => tracing::debug!(%why, "ignored a control message"),
                },
            },
            _ = announce.tick(), if connected => {
                sending.push(cluster.tell_all(&node.id, Message::Announce(node.own_info())));
            }
            _ = sweep.tick() => {
                for silent in cluster.registry.lock().sweep(Instant::now()) {
                    tracing::info!(node = %silent, "a node has been silent too long; forgotten");
                }
            }
            Some(_) = sending.0.next() => {}
        }
    }
    // Whether they heard or not, there is nothing more to do.
    let _ = timeout(FAREWELL, cluster.tell_all(&node.id, Message::Shutdown)).await;
}

/// Messages under way. Announcements and answers that fail are not repeated; health says that the broker is away.
struct Sending(FuturesUnordered<BoxFuture<'static, Result<(), BrokerError>>>);

impl Sending {
    fn push(&mut self, message: BoxFuture<'static, Result<(), BrokerError>>) {
        if self.0.len() < SENDING {
            self.0.push(message);
        }
    }
}

fn handle(node: &Node, cluster: &Cluster, sending: &mut Sending, from: NodeId, message: Message) {
    match message {
        Message::Announce(info) => {
            let (uid, name) = (NodeId(info.uid.as_str().into()), info.name.clone());
            if cluster.registry.lock().announced(info, Instant::now()) == Seen::First {
                tracing::info!(node = %uid, name, "a node joined the cluster");
                let hello = control::encode(&node.id, Message::Announce(node.own_info()));
                sending.push(cluster.control.send(To::Node(uid), hello));
            }
        }
        Message::Shutdown => {
            tracing::info!(node = %from, "a node left the cluster");
            cluster.registry.lock().stopped(&from);
        }
        Message::Disconnect { target, cause, keep } => node.local.disconnect(&target, &cause, &keep),
        Message::Unsubscribe { target, channel, cause } => node.local.unsubscribe(&target, channel.as_ref(), &cause),
        Message::Subscribe { target, subscription } => subscribe(node, cluster, &from, &target, subscription),
        Message::Refresh { target, refresh } => node.local.refresh(&target, &Arc::new(refresh)),
        Message::SurveyRequest { id, op, data } => {
            let survey::Answer { code, data } = survey::answer(&op, data, &*node.local);
            let answer = control::encode(&node.id, Message::SurveyResponse { id, code, data });
            sending.push(cluster.control.send(To::Node(from), answer));
        }
        Message::SurveyResponse { id, code, data } => {
            cluster.surveys.lock().answered(id, from, survey::Answer { code, data });
        }
    }
}

fn subscribe(node: &Node, cluster: &Cluster, from: &NodeId, target: &Target, subscription: RemoteSubscription) {
    // Its node has refused it; a node of the reference server asks nevertheless.
    if subscription.expire_at.is_some_and(|at| at <= UnixSeconds::now()) {
        return tracing::debug!(%from, channel = %subscription.channel, "ignored a subscription that has expired");
    }
    let channel = subscription.channel.clone();
    match cluster.namespaces.load().resolve(channel.as_str()) {
        Some(rules) => node.local.subscribe(target, &Arc::new(subscription.under(rules))),
        None => tracing::warn!(
            %from, %channel,
            "another node subscribes a user to a channel whose namespace is not defined on this one; is channel.namespaces \
             the same on all nodes?"
        ),
    }
}
