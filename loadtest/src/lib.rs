//! A load tester for real-time messaging servers that can be believed.

pub mod audit;
pub mod clock;
pub mod connect;
pub mod fleet;
pub mod interrupt;
pub mod latency;
pub mod payload;
pub mod process;
pub mod publish;
pub mod receive;
pub mod schedule;
pub mod target;
pub mod websocket;
