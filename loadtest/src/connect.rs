//! Opening connections, many of them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::fleet::{Fleet, Role};
use crate::target::Endpoint;
use crate::websocket::Handshake;

/// Connections to one destination that leave from one source address: less than the kernel's range of ports (28,232 by
/// default), because other programs use ports too.
const CONNECTIONS_PER_SOURCE: u32 = 20_000;

/// What the kernel may keep for a client that reads slowly: little, so that the server notices soon. A half-open client has
/// the usual buffer: behind a full one it could never see that the server has ended it.
const SLOW_RECEIVE_BUFFER_BYTES: u32 = 4 << 10;

/// Opens the WebSocket of subscriber `index` and returns it with what the server sent behind its response.
///
/// # Errors
///
/// Says which step failed; dropping the future closes the socket.
pub async fn open_websocket(fleet: &Fleet, index: u32) -> anyhow::Result<(TcpStream, Vec<u8>)> {
    let Endpoint { address, .. } = fleet.endpoint;
    let endpoint = &fleet.endpoint;
    let subprotocol = fleet.speech.subprotocol();
    let little = (fleet.role(index) == Role::SlowReader).then_some(SLOW_RECEIVE_BUFFER_BYTES);
    let opening = open(address, source_of(address, index), little);
    let mut stream = opening.await.with_context(|| format!("connecting to {address}"))?;
    let handshake = Handshake::new();
    stream
        .write_all(&handshake.request(&endpoint.host, &endpoint.path, subprotocol))
        .await
        .context("sending handshake")?;
    let mut received = Vec::with_capacity(512);
    loop {
        if stream.read_buf(&mut received).await.context("reading handshake")? == 0 {
            anyhow::bail!("the server closed during the handshake");
        }
        if let Some(end) = handshake.response(&received)? {
            return Ok((stream, received.split_off(end)));
        }
    }
}

async fn open(address: SocketAddr, source: Option<IpAddr>, receive_buffer: Option<u32>) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The source address for connection `index`, where the kernel's choice would run out of ports.
///
/// All of 127.0.0.0/8 belongs to the loopback interface, so there a process can use many. Elsewhere a machine has the
/// addresses it has, and the kernel chooses.
fn source_of(destination: SocketAddr, index: u32) -> Option<IpAddr> {
    let block = index / CONNECTIONS_PER_SOURCE;
    let IpAddr::V4(address) = destination.ip() else { return None };
    if block == 0 || !address.is_loopback() {
        return None;
    }
    let [_, _, high, low] = (1 + block).to_be_bytes();
    Some(IpAddr::V4(Ipv4Addr::new(127, 0, high, low)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_addresses_change_before_ports_run_out_and_only_on_loopback() {
        let local: SocketAddr = "127.0.0.1:8000".parse().expect("an address");
        assert_eq!(source_of(local, 19_999), None);
        assert_eq!(source_of(local, 20_000), Some("127.0.0.2".parse().expect("an address")));
        assert_eq!(source_of(local, 1_000_000), Some("127.0.0.51".parse().expect("an address")));
        assert_eq!(source_of("10.0.0.1:8000".parse().expect("an address"), 50_000), None);
    }
}
