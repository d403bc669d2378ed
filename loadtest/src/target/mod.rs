//! What is on the other side: addresses and the protocols spoken there, each without a socket.
//!
//! [`speech`] is what is spoken on WebSockets, first of all [`centrifuge`]. [`http`] and [`grpc`] are what publishers speak to the server API; together
//! with a publishing WebSocket connection they are the three kinds of [`lane`].

pub mod centrifuge;
pub mod grpc;
mod header_block;
pub mod http;
pub mod lane;
mod socket_io;
pub mod speech;

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, bail};

/// Where something listens, from a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Resolved address; the first one when a name has several.
    pub address: SocketAddr,
    /// What the `Host` header says.
    pub host: String,
    /// Path and query, at least `/`.
    pub path: String,
}

impl Endpoint {
    /// Reads `scheme://host[:port][/path]`; a missing port is 80 and a missing path is `default_path`.
    ///
    /// # Errors
    ///
    /// Names what is wrong with the URL, a scheme over TLS (not supported yet) included, or that the name does not resolve.
    pub fn parse(url: &str, scheme: &str, default_path: &str) -> anyhow::Result<Self> {
        let uri: ::http::Uri = url.parse().with_context(|| format!("{url} is not a URL"))?;
        match uri.scheme_str() {
            Some(given) if given == scheme => {}
            Some("wss" | "https") => bail!("{url}: TLS is not supported yet, use {scheme}://"),
            _ => bail!("{url}: the URL must begin with {scheme}://"),
        }
        let authority = uri.authority().with_context(|| format!("{url} names no host"))?;
        let port = authority.port_u16().unwrap_or(80);
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        let address = (name, port)
            .to_socket_addrs()
            .with_context(|| format!("{url}: {name} does not resolve"))?
            .next()
            .with_context(|| format!("{url}: {name} has no address"))?;
        let path = match uri.path_and_query() {
            Some(path) if path.as_str() != "/" => path.to_string(),
            _ => default_path.to_owned(),
        };
        Ok(Endpoint { address, host: authority.to_string(), path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gives_address_host_and_path() {
        let endpoint = Endpoint::parse("ws://127.0.0.1:8000", "ws", "/connection/websocket").expect("sound");
        assert_eq!(endpoint.address.to_string(), "127.0.0.1:8000");
        assert_eq!(endpoint.path, "/connection/websocket");
        let endpoint = Endpoint::parse("ws://[::1]:9/x?format=protobuf", "ws", "/").expect("sound");
        assert_eq!((endpoint.address.port(), endpoint.path.as_str()), (9, "/x?format=protobuf"));
    }

    #[test]
    fn a_wrong_scheme_says_which_is_meant() {
        for (url, hint) in [("http://h", "ws://"), ("wss://h", "TLS"), ("localhost:8000", "ws://"), ("", "not a URL")] {
            let error = Endpoint::parse(url, "ws", "/").expect_err(url);
            assert!(format!("{error:#}").contains(hint), "{url}: {error:#}");
        }
    }
}
