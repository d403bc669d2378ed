//! JSON of the server API.
//!
//! The requests and results are the Protobuf messages of `starling_proto::api`, but their JSON is not Protobuf's own: it is
//! what the reference server's JSON library makes of them, and client libraries depend on it. `decode.rs` says how members
//! are read, `requests.rs` which members each message has, `results.rs` how results are written, and `call.rs` carries out
//! a method whose parameters and result are JSON.

mod call;
mod decode;
mod requests;
mod results;

pub(super) use call::Called;
pub(super) use decode::{DecodeError, decode, decode_next};
pub(super) use requests::{BatchCommands, OldCommand};
pub(super) use results::{WriteJson, write_error, write_reply};
