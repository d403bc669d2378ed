//! The embedded broker of a node that is alone: streams in memory, and publications straight to the node's own subscribers.
//!
//! A publication with history gets its offset, goes to the subscribers and enters the stream under one lock, that of its
//! channel's record: the order of offsets is the order of delivery. That lock is taken before the one of the channel table
//! that delivery takes, never the other way round: nobody may call the broker while holding a lock of the table.
//!
//! Memory: a stream holds at most `history_size` publications, each 56 bytes and a copy of its payload, tags and info; they
//! are freed within a second after `history_ttl`, and the stream itself (about 200 bytes) after `history_meta_ttl`. Results of
//! idempotency keys are kept five minutes. A restart forgets everything: streams begin new lives with new epochs.

mod records;
mod results;
mod stream;

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::{self, BoxFuture, FutureExt};
use tokio::{
    runtime::Handle,
    time::{MissedTickBehavior, interval},
};
use tokio_util::task::AbortOnDropHandle;

use self::{
    records::{Record, Records},
    stream::{Kept, Stream},
};
use super::{
    Broker, BrokerError, BrokerEvents, ClientInfo, History, HistoryOptions, HistoryQuery, Publication, PublishOptions,
    Published, Suppressed,
};
use crate::{
    clock::{Clock, Moment},
    names::ChannelName,
};

/// Time between two sweeps for what has expired.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What tells the time.
type Now = Box<dyn Fn() -> Moment + Send + Sync>;

/// Broker without a network. All its futures are ready at once.
pub struct MemoryBroker {
    events: Arc<dyn BrokerEvents>,
    records: Arc<Records>,
    now: Now,
    _sweeper: Option<AbortOnDropHandle<()>>,
}

impl MemoryBroker {
    /// A broker that delivers to `events`. What expires is freed by a task on `runtime` that ends with the broker.
    pub fn start(events: Arc<dyn BrokerEvents>, clock: Clock, runtime: &Handle) -> Self {
        let records = Arc::new(Records::default());
        let sweeper = runtime.spawn(sweep(Arc::downgrade(&records), clock));
        let now = Box::new(move || clock.now());
        Self { events, records, now, _sweeper: Some(AbortOnDropHandle::new(sweeper)) }
    }

    /// A broker whose time is what `now` says. What expires is not seen any more, but freed only by [`sweep`](Self::sweep).
    pub fn with_time(events: Arc<dyn BrokerEvents>, now: impl Fn() -> Moment + Send + Sync + 'static) -> Self {
        Self { events, records: Arc::default(), now: Box::new(now), _sweeper: None }
    }

    /// Frees what has expired.
    pub fn sweep(&self) {
        self.records.sweep((self.now)());
    }

    fn publish_now(
        &self,
        channel: &ChannelName,
        publication: Publication,
        options: PublishOptions,
    ) -> Result<Published, BrokerError> {
        let PublishOptions { history, idempotency_key, delta, version } = options;
        if history.is_none() && idempotency_key.is_none() {
            self.events.publication(channel, publication, None)?;
            return Ok(Published::default());
        }
        let now = (self.now)();
        // Before the lock: it copies.
        let kept = history.map(|history| (history, Kept::from(&publication)));
        self.records.with(channel, now, |record| {
            let Record { stream, results, .. } = record;
            if let Some(position) = idempotency_key.as_deref().and_then(|key| results.get(key)) {
                return Ok(Published { position, suppressed: Some(Suppressed::Idempotency) });
            }
            let position = match kept {
                None => {
                    self.events.publication(channel, publication, None)?;
                    None
                }
                Some((history, kept)) => {
                    let stream = stream.get_or_insert_with(Stream::new);
                    stream.used(&history, now);
                    if version.as_ref().is_some_and(|version| stream.is_outdated(version)) {
                        let position = Some(stream.position());
                        return Ok(Published { position, suppressed: Some(Suppressed::Version) });
                    }
                    let position = stream.next_position();
                    let publication = Publication { position: Some(position.clone()), ..publication };
                    let previous = if delta { stream.last_payload() } else { None };
                    // First, since it may fail: a publication that was not taken has not happened.
                    self.events.publication(channel, publication, previous)?;
                    stream.append(kept, version, &history, now);
                    Some(position)
                }
            };
            if let Some(key) = idempotency_key {
                results.remember(&key, position.clone(), now);
            }
            Ok(Published { position, suppressed: None })
        })
    }
}

/// Sweeps for as long as there is a broker.
async fn sweep(records: Weak<Records>, clock: Clock) {
    let mut tick = interval(SWEEP_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(records) = records.upgrade() else { return };
        records.sweep(clock.now());
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
        options: PublishOptions,
    ) -> BoxFuture<'static, Result<Published, BrokerError>> {
        future::ready(self.publish_now(channel, publication, options)).boxed()
    }

    fn join(&self, channel: &ChannelName, info: ClientInfo) -> BoxFuture<'static, Result<(), BrokerError>> {
        future::ready(self.events.joined(channel, info)).boxed()
    }

    fn leave(&self, channel: &ChannelName, info: ClientInfo) -> BoxFuture<'static, Result<(), BrokerError>> {
        future::ready(self.events.left(channel, info)).boxed()
    }

    fn history(
        &self,
        channel: &ChannelName,
        query: HistoryQuery,
        options: HistoryOptions,
    ) -> BoxFuture<'static, Result<History, BrokerError>> {
        let now = (self.now)();
        let history = self.records.with(channel, now, |record| {
            let stream = record.stream.get_or_insert_with(Stream::new);
            stream.used(&options, now);
            History { publications: stream.read(&query), top: stream.position() }
        });
        future::ready(Ok(history)).boxed()
    }

    fn remove_history(&self, channel: &ChannelName) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.records.with(channel, (self.now)(), |record| {
            if let Some(stream) = &mut record.stream {
                stream.clear();
            }
        });
        future::ready(Ok(())).boxed()
    }

    fn status(&self) -> Result<(), String> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use bytes::Bytes;

    use super::*;
    use crate::broker::Limit;

    /// Subscribers that take everything.
    struct Nobody;

    impl BrokerEvents for Nobody {
        fn publication(&self, _: &ChannelName, _: Publication, _: Option<Bytes>) -> Result<(), BrokerError> {
            Ok(())
        }

        fn joined(&self, _: &ChannelName, _: ClientInfo) -> Result<(), BrokerError> {
            Ok(())
        }

        fn left(&self, _: &ChannelName, _: ClientInfo) -> Result<(), BrokerError> {
            Ok(())
        }

        fn interrupted(&self, _: &[ChannelName]) {}

        fn wanted(&self, _: &ChannelName) -> bool {
            false
        }
    }

    const OPTIONS: HistoryOptions =
        HistoryOptions { size: 2, ttl: Duration::from_secs(10), meta_ttl: Duration::from_secs(100) };

    #[test]
    fn what_has_expired_is_freed_and_the_list_holds_each_channel_a_bounded_number_of_times() {
        let time = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&time);
        let broker = MemoryBroker::with_time(Arc::new(Nobody), move || Moment(told.load(Ordering::SeqCst)));
        let channels: Vec<_> = (0..100).map(|number| ChannelName::from(format!("c{number}"))).collect();
        for second in 0..1000 {
            time.store(second * 1000, Ordering::SeqCst);
            for channel in channels.iter().step_by(1 + usize::try_from(second % 7).unwrap()) {
                let options = PublishOptions {
                    history: (second % 3 > 0).then_some(OPTIONS),
                    idempotency_key: Some(format!("k{second}")),
                    ..PublishOptions::default()
                };
                broker.publish_now(channel, Publication::default(), options).unwrap();
            }
            let _ = broker.remove_history(&"never used".into()).now_or_never();
            broker.sweep();
            let (records, listed) = broker.records.sizes();
            assert!(records <= 100 && listed <= 300, "{second} {records} {listed}");
        }
        for (second, left) in [(1010, (100, 200)), (1101, (100, 100)), (1301, (0, 0))] {
            time.store(second * 1000, Ordering::SeqCst);
            broker.sweep();
            assert_eq!(broker.records.sizes(), left, "{second}");
        }
    }

    #[test]
    fn a_read_begins_a_stream_and_a_removal_does_not() {
        let broker = MemoryBroker::with_time(Arc::new(Nobody), || Moment(0));
        let _ = broker.remove_history(&"a".into()).now_or_never();
        assert_eq!(broker.records.sizes(), (0, 0));
        let query = HistoryQuery { since: None, limit: Limit::All, reverse: false };
        let history = broker.history(&"a".into(), query, OPTIONS).now_or_never().unwrap().unwrap();
        assert_eq!((history.top.offset, history.publications.len()), (0, 0));
        assert_eq!(broker.records.sizes(), (1, 1));
    }
}
