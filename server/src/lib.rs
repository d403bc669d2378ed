//! Starling, a real-time messaging server.

pub mod api;
pub mod auth;
pub mod broker;
pub mod cli;
pub mod config;
pub mod error;
pub mod names;
pub mod namespace;
pub mod node;
pub mod session;
pub mod wire;
