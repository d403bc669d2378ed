//! Starling, a real-time messaging server.

pub mod api;
pub mod app;
pub mod auth;
pub mod broker;
pub mod channels;
pub mod cli;
pub mod clock;
pub mod config;
pub mod delta;
pub mod dev;
pub mod error;
pub mod filter;
pub mod limits;
pub mod listen;
pub mod metrics;
pub mod names;
pub mod namespace;
pub mod node;
pub mod session;
pub mod settings;
pub mod wire;
pub mod worker;
