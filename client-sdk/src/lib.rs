//! Rust client for Starling, and for every other server that speaks the Centrifuge client protocol.
//!
//! ```no_run
//! use starling_client::{Client, ClientConfig, SubscribeOptions, SubscriptionEvent};
//!
//! # async fn example() -> Result<(), starling_client::Error> {
//! let client = Client::connect(ClientConfig::new("ws://localhost:8000/connection/websocket"))?;
//! let mut news = client.subscribe("news", SubscribeOptions::default()).await?;
//! client.publish("news", r#"{"text":"hello"}"#).await?;
//! while let Some(event) = news.next().await {
//!     match event {
//!         SubscriptionEvent::Subscribed(subscribed) => println!("{:?}", subscribed.recovery),
//!         SubscriptionEvent::Publication(publication) => println!("{:?}", publication.data),
//!         SubscriptionEvent::Unsubscribed { code, reason } => println!("ended: {reason} ({code})"),
//!         other => println!("{other:?}"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A [`Client`] holds one WebSocket connection. When that breaks, the client makes a new one after a random, growing
//! delay, subscribes again to every channel from where it was, and delivers what was missed before what is new; or it
//! says that something may be missing. It stops only when the server or a token source forbids to go on.
//!
//! # Rooms
//!
//! | room | what it does |
//! |---|---|
//! | [`Client`], [`Subscription`], [`Events`] | what applications hold: handles that send orders to the driver |
//! | `driver` | one tokio task per client: socket, TLS, clock, queues |
//! | [`machine`] | the protocol's state, pure: inputs and the time go in, outputs come out |
//! | [`codec`] | messages to bytes and back, JSON and Protobuf |
//! | [`delta`] | payloads from patches |
//! | [`codes`] | the numbers that explain why something ended |
//!
//! The way of one publication: `driver::socket` reads a frame, [`codec`] makes replies of it, [`machine::Machine`] finds
//! the subscription, moves its position and outputs a [`SubscriptionEvent::Publication`], `driver::feeds` puts it into
//! the queue that [`Subscription::next`] reads.
//!
//! # Not here yet
//!
//! Server-side subscriptions (their pushes are ignored), channel compaction, tags filters, map and shared-poll
//! subscriptions, and transports other than WebSocket.

mod client;
pub mod codec;
pub mod codes;
pub mod delta;
mod driver;
mod error;
mod event;
pub mod machine;
mod options;
mod publication;
mod request;
mod subscription;
mod tls;

pub use client::{Client, Events};
pub use codec::Protocol;
pub use error::Error;
pub use event::{Connected, ConnectionEvent, ConnectionState, Recovery, Subscribed, SubscriptionEvent};
pub use machine::Backoff;
pub use options::{ClientConfig, Delta, Limits, SubscribeOptions, Timing, TokenError, TokenSource};
pub use publication::{ClientInfo, Publication, StreamPosition};
pub use request::{History, HistoryLimit, HistoryQuery, PresenceStats, Request, Response};
pub use subscription::Subscription;
pub use tls::Tls;
