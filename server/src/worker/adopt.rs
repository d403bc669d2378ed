//! A connection on its way from the listener to its worker.

use std::net::TcpStream;

use rustls::ServerConnection;

use crate::{
    session::{Opening, protocol::Protocol},
    wire::deflate,
};

/// A WebSocket connection whose handshake response is written. It belongs to no runtime until a worker adopts it.
pub struct Adopted {
    /// The socket, non-blocking.
    pub socket: TcpStream,
    /// State of the encryption, on a TLS listener.
    pub tls: Option<Box<ServerConnection>>,
    /// Bytes that came in right behind the request.
    pub first_bytes: Vec<u8>,
    /// Encoding chosen in the handshake.
    pub protocol: Protocol,
    /// permessage-deflate, when negotiated.
    pub deflate: Option<deflate::Params>,
    /// What only the handshake knows.
    pub opening: Opening,
}
