//! The embedded broker of a node that is alone: a publication goes straight to the node's own subscribers.

use std::sync::Arc;

use futures_util::future::{self, BoxFuture, FutureExt};

use super::{Broker, BrokerError, BrokerEvents, Publication, PublishOptions, StreamPosition};
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
    ) -> BoxFuture<'static, Result<Option<StreamPosition>, BrokerError>> {
        future::ready(self.events.publication(channel, publication).map(|()| None)).boxed()
    }

    fn status(&self) -> Result<(), String> {
        Ok(())
    }
}
