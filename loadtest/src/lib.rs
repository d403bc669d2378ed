//! A load tester for real-time messaging servers that can be believed.

pub mod audit;
pub mod clock;
pub mod latency;
pub mod payload;
pub mod schedule;
pub mod target;
pub mod websocket;
