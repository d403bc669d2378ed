//! Protobuf messages of the three protocols that Starling speaks, generated from `proto/*.proto`.
//!
//! The generated code is committed; `tests/generated.rs` proves that it agrees with the definitions. All `bytes` fields
//! are [`bytes::Bytes`]: decoding from a `Bytes` makes slices of the input, not copies.

/// The client protocol: commands, replies and pushes.
#[allow(missing_docs, clippy::all)]
pub mod client {
    include!("generated/centrifugal.centrifuge.protocol.rs");
}

/// The server API with its gRPC client and server.
#[allow(missing_docs, clippy::all, unused_qualifications, unreachable_pub)]
pub mod api {
    include!("generated/centrifugal.centrifugo.api.rs");
}

/// The control plane between the nodes of a cluster.
#[allow(missing_docs, clippy::all)]
pub mod control {
    include!("generated/centrifugal.centrifuge.control.rs");
}
