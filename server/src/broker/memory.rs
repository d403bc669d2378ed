//! The embedded broker of a node that is alone: a publication goes straight to the node's own subscribers.

use std::sync::Arc;

use futures_util::future::{self, BoxFuture, FutureExt};

use super::{
    Broker, BrokerError, BrokerEvents, ClientInfo, History, HistoryOptions, HistoryQuery, Publication, PublishOptions,
    Published, StreamPosition,
};
use crate::names::ChannelName;

/// Broker without a network. All its futures are ready at once.
pub struct MemoryBroker {
    events: Arc<dyn BrokerEvents>,
}

impl MemoryBroker {
    /// A broker that delivers to `events`.
    pub fn new(events: Arc<dyn BrokerEvents>) -> Self {
        Self { events }
    }
}

impl Broker for MemoryBroker {
    fn subscribe(&self, _channel: &ChannelName) -> BoxFuture<'static, Result<(), BrokerError>> {
        future::ready(Ok(())).boxed()
    }

    fn unsubscribe(&self, _channel: &ChannelName) {}

    fn publish(
        &self,
        channel: &ChannelName,
        publication: Publication,
        _options: PublishOptions,
    ) -> BoxFuture<'static, Result<Published, BrokerError>> {
        future::ready(self.events.publication(channel, publication, None).map(|()| Published::default())).boxed()
    }

    fn join(&self, channel: &ChannelName, info: ClientInfo) -> BoxFuture<'static, Result<(), BrokerError>> {
        future::ready(self.events.joined(channel, info)).boxed()
    }

    fn leave(&self, channel: &ChannelName, info: ClientInfo) -> BoxFuture<'static, Result<(), BrokerError>> {
        future::ready(self.events.left(channel, info)).boxed()
    }

    fn history(
        &self,
        _channel: &ChannelName,
        _query: HistoryQuery,
        _options: HistoryOptions,
    ) -> BoxFuture<'static, Result<History, BrokerError>> {
        let top = StreamPosition { epoch: "none".into(), offset: 0 };
        future::ready(Ok(History { publications: Vec::new(), top })).boxed()
    }

    fn remove_history(&self, _channel: &ChannelName) -> BoxFuture<'static, Result<(), BrokerError>> {
        future::ready(Ok(())).boxed()
    }

    fn status(&self) -> Result<(), String> {
        Ok(())
    }
}
