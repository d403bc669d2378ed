//! A connection on its way from the listener to its worker.

use std::net::TcpStream;

use rustls::ServerConnection;

use crate::{
    session::{Opening, protocol::Protocol},
    wire::deflate,
};

/// A WebSocket connection whose handshake response is written. It belongs to no runtime until a worker adopts it.
pub struct Adopted {
    /// What its bytes travel through.
    pub carrier: Carrier,
    /// Bytes that came in right behind the request.
    pub first_bytes: Vec<u8>,
    /// Encoding chosen in the handshake.
    pub protocol: Protocol,
    /// permessage-deflate, when negotiated.
    pub deflate: Option<deflate::Params>,
    /// What only the handshake knows.
    pub opening: Opening,
}

/// What the bytes of a connection travel through.
pub enum Carrier {
    /// A non-blocking socket, and on a TLS listener the state of its encryption.
    Socket(TcpStream, Option<Box<ServerConnection>>),
    /// Nothing: all that is written is taken, and nothing comes. Shows benches what delivery costs without a kernel.
    Sink,
}
