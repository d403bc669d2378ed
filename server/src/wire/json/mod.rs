//! JSON: one object per command, reply or push.
//!
//! Member names are the field names of the Protobuf messages. Zero values are left out, but for the members that the
//! official SDKs take for granted. Payloads are not encoded as text: their bytes stand in the message as they are.

mod decode;
mod encode;

pub use decode::{connect_request, next_command};
pub use encode::{bare_push, publication_push, push, reply};
