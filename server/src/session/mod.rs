//! The protocol state of one connection.

pub mod protocol;
