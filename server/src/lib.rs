//! Starling, a real-time messaging server.

pub mod broker;
pub mod error;
pub mod names;
pub mod node;
pub mod session;
pub mod wire;
