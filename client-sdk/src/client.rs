//! The application's handle of a client.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::codec::EncodeError;
use crate::driver::{Dialer, Driver, ORDERS, Order};
use crate::subscription::Subscription;
use crate::{
    ClientConfig, ClientInfo, Connected, ConnectionEvent, ConnectionState, Error, History, HistoryQuery, PresenceStats,
    Protocol, Request, Response, SubscribeOptions, codes,
};

/// A client: one connection to a server, which is replaced whenever it breaks.
///
/// Clones share the connection. It ends with [`disconnect`](Self::disconnect), when the last clone and the last
/// [`Subscription`] are dropped, or when the server or a token source forbids to reconnect; after that all calls fail
/// with [`Error::Disconnected`].
///
/// # Calls
///
/// [`publish`](Self::publish), [`history`](Self::history), [`presence`](Self::presence),
/// [`presence_stats`](Self::presence_stats) and [`rpc`](Self::rpc) send one command and wait for its reply. While there is
/// no connection they wait for one. In all they wait at most
/// [`Timing::command_timeout`](crate::Timing::command_timeout). Calls that are made one after another are sent in this
/// order.
///
/// **Cancellation**: dropping the future of a call gives up the reply, nothing else; the server may still carry the
/// command out.
#[derive(Debug, Clone)]
pub struct Client {
    orders: mpsc::Sender<Order>,
    state: watch::Receiver<ConnectionState>,
    events: Arc<EventSource>,
    protocol: Protocol,
}

#[derive(Debug)]
struct EventSource {
    /// The reader that was there before the first event, until someone asks for it.
    first: Mutex<Option<broadcast::Receiver<ConnectionEvent>>>,
    events: broadcast::WeakSender<ConnectionEvent>,
}

impl Client {
    /// Makes a client that begins to connect at once, in a task of its own.
    ///
    /// Does not wait for the connection: [`ready`](Self::ready) does. Subscriptions and calls can be made right away.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] or [`Error::InvalidPayload`]: the configuration cannot work.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time and I/O enabled.
    pub fn connect(config: ClientConfig) -> Result<Self, Error> {
        let dialer = Dialer::new(&config)?;
        if let Some(data) = &config.data {
            check(config.protocol, data)?;
        }
        let protocol = config.protocol;
        let (orders, orders_receiver) = mpsc::channel(ORDERS);
        let (state_sender, state) = watch::channel(ConnectionState::Connecting);
        let (events, first) = broadcast::channel(config.limits.connection_events.max(1));
        let source = EventSource { first: Mutex::new(Some(first)), events: events.downgrade() };
        tokio::spawn(Driver::new(config, dialer, orders_receiver, state_sender, events).run());
        Ok(Self { orders, state, events: Arc::new(source), protocol })
    }

    /// Waits until the client is connected and returns what the server said then.
    ///
    /// Failed attempts do not end the waiting; [`events`](Self::events) tells of them. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Error::Disconnected`], when the client is disconnected for good.
    pub async fn ready(&self) -> Result<Connected, Error> {
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| !matches!(state, ConnectionState::Connecting)).await;
        match settled.as_deref() {
            Ok(ConnectionState::Connected(connected)) => Ok(connected.clone()),
            Ok(ConnectionState::Connecting | ConnectionState::Disconnected { .. }) | Err(_) => {
                drop(settled);
                Err(self.stopped())
            }
        }
    }

    /// Returns the state of the connection as it is now.
    pub fn state(&self) -> ConnectionState {
        self.state.borrow().clone()
    }

    /// Returns the changes of the connection: the first call those since the client was made, each later one those from
    /// now on.
    pub fn events(&self) -> Events {
        let first = self.events.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        Events(first.or_else(|| self.events.events.upgrade().map(|events| events.subscribe())))
    }

    /// Subscribes to a channel.
    ///
    /// Does not wait for the server: the stream tells of its answer, be it yes or no.
    ///
    /// Cancellation: when the future is dropped, there is no subscription.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadySubscribed`], [`Error::InvalidPayload`] (of [`SubscribeOptions::data`]), [`Error::Disconnected`].
    pub async fn subscribe(
        &self,
        channel: impl Into<String>,
        options: SubscribeOptions,
    ) -> Result<Subscription, Error> {
        if let Some(data) = &options.data {
            check(self.protocol, data)?;
        }
        let (answer, subscription) = oneshot::channel();
        let order = Order::Subscribe { channel: channel.into(), options, orders: self.orders.clone(), answer };
        self.orders.send(order).await.map_err(|_| self.stopped())?;
        subscription.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// Publishes to a channel. Returns when the server has accepted the publication.
    ///
    /// # Errors
    ///
    /// Any but [`Error::AlreadySubscribed`] and those of the configuration; [`Error`] says what to do about each.
    pub async fn publish(&self, channel: impl Into<String>, data: impl Into<Bytes>) -> Result<(), Error> {
        let data = data.into();
        check(self.protocol, &data)?;
        match self.call(Request::Publish { channel: channel.into(), data }).await? {
            Response::Publish => Ok(()),
            _ => Err(OTHER_KIND),
        }
    }

    /// Reads from the history of a channel.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    pub async fn history(&self, channel: impl Into<String>, query: HistoryQuery) -> Result<History, Error> {
        match self.call(Request::History { channel: channel.into(), query }).await? {
            Response::History(history) => Ok(history),
            _ => Err(OTHER_KIND),
        }
    }

    /// Returns who is subscribed to a channel, by client id.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    pub async fn presence(&self, channel: impl Into<String>) -> Result<BTreeMap<String, ClientInfo>, Error> {
        match self.call(Request::Presence { channel: channel.into() }).await? {
            Response::Presence(presence) => Ok(presence),
            _ => Err(OTHER_KIND),
        }
    }

    /// Returns how many are subscribed to a channel.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    pub async fn presence_stats(&self, channel: impl Into<String>) -> Result<PresenceStats, Error> {
        match self.call(Request::PresenceStats { channel: channel.into() }).await? {
            Response::PresenceStats(stats) => Ok(stats),
            _ => Err(OTHER_KIND),
        }
    }

    /// Calls a method of the application behind the server and returns its result, which may be empty. So may `data`.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    pub async fn rpc(&self, method: impl Into<String>, data: impl Into<Bytes>) -> Result<Bytes, Error> {
        let data = data.into();
        check(self.protocol, &data)?;
        match self.call(Request::Rpc { method: method.into(), data }).await? {
            Response::Rpc(data) => Ok(data),
            _ => Err(OTHER_KIND),
        }
    }

    /// Ends the waiting between two attempts to connect: for applications that know that the network is back. No effect
    /// otherwise.
    pub async fn reconnect_now(&self) {
        // An error means that the client is disconnected for good.
        let _ = self.orders.send(Order::ReconnectNow).await;
    }

    /// Disconnects for good and returns when that is done: the server was told, all calls are answered, all subscriptions
    /// have ended.
    pub async fn disconnect(&self) {
        let _ = self.orders.send(Order::Disconnect).await;
        let mut state = self.state.clone();
        let _ = state.wait_for(|state| matches!(state, ConnectionState::Disconnected { .. })).await;
    }

    async fn call(&self, request: Request) -> Result<Response, Error> {
        let (answer, response) = oneshot::channel();
        self.orders.send(Order::Call(request, answer)).await.map_err(|_| self.stopped())?;
        response.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// Why the task no longer answers.
    fn stopped(&self) -> Error {
        match &*self.state.borrow() {
            ConnectionState::Disconnected { code, reason } => {
                Error::Disconnected { code: *code, reason: reason.clone() }
            }
            // The task died (a token source panicked), or the runtime is shutting down.
            ConnectionState::Connecting | ConnectionState::Connected(_) => Error::Disconnected {
                code: codes::disconnected::DISCONNECT_CALLED,
                reason: "the client's task has stopped".to_owned(),
            },
        }
    }
}

/// Changes of a client's connection, in order.
///
/// Holds up to [`Limits::connection_events`](crate::Limits::connection_events) unread events; at the bound the oldest are
/// dropped and [`ConnectionEvent::Missed`] says how many. Does not keep the client alive.
#[derive(Debug)]
pub struct Events(Option<broadcast::Receiver<ConnectionEvent>>);

impl Events {
    /// Waits for the next event; `None` after [`ConnectionEvent::Disconnected`].
    ///
    /// Cancel safe: no event is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<ConnectionEvent> {
        match self.0.as_mut()?.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(count)) => Some(ConnectionEvent::Missed { count }),
            Err(broadcast::error::RecvError::Closed) => {
                self.0 = None;
                None
            }
        }
    }
}

/// The machine answers a request with a response of its kind, so nobody sees this.
const OTHER_KIND: Error = Error::BadReply("an answer to another call");

fn check(protocol: Protocol, payload: &[u8]) -> Result<(), Error> {
    protocol.check_payload(payload).map_err(|error: EncodeError| Error::InvalidPayload(error.to_string()))
}
