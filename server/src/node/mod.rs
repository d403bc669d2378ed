//! The use cases of one node: what commands of clients and methods of the server API come down to.
//!
//! A node knows its own connections through [`Local`], its brokers through [`Broker`], and the other nodes of the cluster
//! through the control plane. A request about users ("disconnect 42") is carried out on this node first and then told to
//! all others; the caller hears success without knowing whether any node had such a user.
//!
//! | file | what |
//! |---|---|
//! | [`control`] | control messages, and the seam to what carries them |
//! | [`cluster`] | the task of a node among others |
//! | [`registry`] | the other nodes |
//! | [`survey`] | questions to all nodes |
//! | [`glob`] | patterns of channel names |

pub mod cluster;
pub mod control;
pub mod glob;
pub mod registry;
pub mod survey;

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use arc_swap::ArcSwap;

use self::{
    cluster::Cluster,
    control::{Control, Message},
    glob::Glob,
};
use crate::{
    broker::{
        Broker, BrokerError, ClientInfo, History, HistoryOptions, HistoryQuery, Publication, PublishOptions, Published,
    },
    error::{Disconnect, Unsubscribed},
    names::{ChannelName, NodeId, UserId},
    namespace::Namespaces,
    presence::{Presence, PresenceStats},
    session::{ServerRefresh, ServerSubscription},
};

/// Which connections a request is about: those of `user`, narrowed by `client` and `session` when these are given.
///
/// An anonymous `user` addresses the anonymous connections, never everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whose connections.
    pub user: UserId,
    /// Only the connection with this client id, in its text form.
    pub client: Option<String>,
    /// Only the connection with this session.
    pub session: Option<String>,
}

/// How much a node holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that are open (accepted `connect`).
    pub clients: u32,
    /// Distinct users among them; all anonymous ones count as one.
    pub users: u32,
    /// Channels with local subscribers.
    pub channels: u32,
    /// Subscriptions.
    pub subscriptions: u32,
}

/// This node's own connections. Implemented by the workers; no method blocks or waits for them.
pub trait Local: Send + Sync {
    /// Disconnects the target's connections, except clients named in `keep`.
    fn disconnect(&self, target: &Target, cause: &Disconnect, keep: &[String]);

    /// Ends the target's subscription to `channel`; the clients are told. Without a channel they are only told.
    fn unsubscribe(&self, target: &Target, channel: Option<&ChannelName>, cause: &Unsubscribed);

    /// Subscribes the target's connections; a client that has the channel is only told again.
    fn subscribe(&self, target: &Target, subscription: &Arc<ServerSubscription>);

    /// Changes the expiry of the target's connections.
    fn refresh(&self, target: &Target, refresh: &Arc<ServerRefresh>);

    /// Number of local subscribers of each channel whose name `matches`.
    fn channels(&self, matches: &dyn Fn(&str) -> bool) -> BTreeMap<String, u32>;

    /// How much this node holds now.
    fn counts(&self) -> Counts;
}

/// What a node tells about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeInfo {
    /// Id of the process.
    pub uid: String,
    /// `node.name`, or host and port.
    pub name: String,
    /// Version text as clients see it.
    pub version: String,
    /// What it holds.
    pub counts: Counts,
    /// Seconds since its start.
    pub uptime_s: u32,
    /// Aggregated metrics, when fresh: interval in seconds and items by dotted name.
    pub metrics: Option<(f64, BTreeMap<String, f64>)>,
}

/// Why a question to the cluster has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SurveyError {
    /// The pattern is not a glob.
    BadPattern,
}

/// One server process among others.
pub struct Node {
    id: NodeId,
    name: String,
    version: &'static str,
    started: Instant,
    local: Arc<dyn Local>,
    broker: Arc<dyn Broker>,
    presence: Arc<dyn Presence>,
    cluster: Option<Cluster>,
}

impl Node {
    /// A node that is alone.
    pub fn new(
        id: NodeId,
        name: String,
        version: &'static str,
        started: Instant,
        local: Arc<dyn Local>,
        broker: Arc<dyn Broker>,
        presence: Arc<dyn Presence>,
    ) -> Self {
        Self { id, name, version, started, local, broker, presence, cluster: None }
    }

    /// The same node as one of a cluster whose control messages `control` carries. It takes part while
    /// [`cluster::run`] runs. `namespaces` has what control messages leave out of a subscription.
    pub fn in_cluster(self, control: Arc<dyn Control>, namespaces: Arc<ArcSwap<Namespaces>>) -> Self {
        Self { cluster: Some(Cluster::new(control, namespaces)), ..self }
    }

    /// Number of nodes of the cluster that this one knows, itself included.
    pub fn known_nodes(&self) -> usize {
        1 + self.cluster.as_ref().map_or(0, Cluster::size)
    }

    /// Id of this process.
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// The broker, for health and for joining channels.
    pub fn broker(&self) -> &Arc<dyn Broker> {
        &self.broker
    }

    /// Hands a publication to the broker. `None` without history. Dropping the future does not undo the publication.
    pub async fn publish(
        &self,
        channel: &ChannelName,
        publication: Publication,
        options: PublishOptions,
    ) -> Result<Published, BrokerError> {
        self.broker.publish(channel, publication, options).await
    }

    /// Reads a channel's stream, as [`Broker::history`].
    pub async fn history(
        &self,
        channel: &ChannelName,
        query: HistoryQuery,
        options: HistoryOptions,
    ) -> Result<History, BrokerError> {
        self.broker.history(channel, query, options).await
    }

    /// Drops the kept publications of a channel, as [`Broker::remove_history`]. Dropping the future does not undo it.
    pub async fn remove_history(&self, channel: &ChannelName) -> Result<(), BrokerError> {
        self.broker.remove_history(channel).await
    }

    /// Everyone in a channel on any node, by client id.
    pub async fn presence(&self, channel: &ChannelName) -> Result<BTreeMap<String, ClientInfo>, BrokerError> {
        self.presence.list(channel).await
    }

    /// How many are in a channel on all nodes.
    pub async fn presence_stats(&self, channel: &ChannelName) -> Result<PresenceStats, BrokerError> {
        self.presence.stats(channel).await
    }

    /// Subscribes the target's connections on every node. A client that has the channel is only told again.
    ///
    /// Other nodes take the kind of recovery, and how much history there is, from their own configuration, and do nothing
    /// where that does not know the channel.
    ///
    /// # Errors
    ///
    /// The other nodes could not be told; this one has done it.
    pub async fn subscribe(&self, target: &Target, subscription: ServerSubscription) -> Result<(), BrokerError> {
        let subscription = Arc::new(subscription);
        self.local.subscribe(target, &subscription);
        let Some(cluster) = &self.cluster else { return Ok(()) };
        let message = Message::Subscribe { target: target.clone(), subscription: (&*subscription).into() };
        cluster.tell_all(&self.id, message).await
    }

    /// Changes when the target's connections expire, on every node.
    ///
    /// # Errors
    ///
    /// The other nodes could not be told; this one has done it.
    pub async fn refresh(&self, target: &Target, refresh: ServerRefresh) -> Result<(), BrokerError> {
        let refresh = Arc::new(refresh);
        self.local.refresh(target, &refresh);
        let Some(cluster) = &self.cluster else { return Ok(()) };
        let message = Message::Refresh { target: target.clone(), refresh: ServerRefresh::clone(&refresh) };
        cluster.tell_all(&self.id, message).await
    }

    /// Disconnects the target's connections on every node, except clients named in `keep`.
    ///
    /// # Errors
    ///
    /// The other nodes could not be told; this one has done it.
    pub async fn disconnect(&self, target: &Target, cause: &Disconnect, keep: &[String]) -> Result<(), BrokerError> {
        self.local.disconnect(target, cause, keep);
        let Some(cluster) = &self.cluster else { return Ok(()) };
        let message = Message::Disconnect { target: target.clone(), cause: cause.clone(), keep: keep.to_vec() };
        cluster.tell_all(&self.id, message).await
    }

    /// Ends the target's subscription to `channel` on every node; without a channel the clients are only told.
    ///
    /// # Errors
    ///
    /// The other nodes could not be told; this one has done it.
    pub async fn unsubscribe(
        &self,
        target: &Target,
        channel: Option<&ChannelName>,
        cause: &Unsubscribed,
    ) -> Result<(), BrokerError> {
        self.local.unsubscribe(target, channel, cause);
        let Some(cluster) = &self.cluster else { return Ok(()) };
        let message = Message::Unsubscribe { target: target.clone(), channel: channel.cloned(), cause: cause.clone() };
        cluster.tell_all(&self.id, message).await
    }

    /// Channels with subscribers on any node, by a glob over their names ([`Glob`]); counts are summed over the nodes.
    ///
    /// Nodes that do not answer within a second are left out and named in the log. An empty pattern is none.
    pub async fn channels(&self, pattern: Option<&str>) -> Result<BTreeMap<String, u32>, SurveyError> {
        let pattern = pattern.filter(|pattern| !pattern.is_empty());
        let glob = pattern.map(Glob::new).transpose().map_err(|_| SurveyError::BadPattern)?;
        let others = match &self.cluster {
            None => BTreeMap::new(),
            Some(cluster) => cluster.channels(&self.id, pattern).await,
        };
        let mut channels = self.local.channels(&|name| glob.as_ref().is_none_or(|glob| glob.matches(name)));
        for (name, clients) in others {
            let sum = channels.entry(name).or_default();
            *sum = sum.saturating_add(clients);
        }
        Ok(channels)
    }

    /// What every node of the cluster tells about itself; this node first, as it is now, the others as they told last.
    pub async fn info(&self) -> Vec<NodeInfo> {
        let mut infos = vec![self.own_info()];
        infos.extend(self.cluster.iter().flat_map(Cluster::infos));
        infos
    }

    fn own_info(&self) -> NodeInfo {
        NodeInfo {
            uid: self.id.to_string(),
            name: self.name.clone(),
            version: self.version.to_owned(),
            counts: self.local.counts(),
            uptime_s: u32::try_from(self.started.elapsed().as_secs()).unwrap_or(u32::MAX),
            metrics: None,
        }
    }
}
