//! Protobuf: every command, reply and push behind its length as a varint.
//!
//! An empty result body is present with length 0, because one SDK cannot tell a reply without a body.

mod decode;
mod encode;

pub use decode::{connect_request, next_command};
pub use encode::{bare_push, publication_push, push, reply};
