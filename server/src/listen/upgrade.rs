//! WebSocket handshakes: who is admitted, the response, and the socket's way from the HTTP library to a worker.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use http::{HeaderName, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::{rt::TokioIo, server::conn::auto::upgrade::downcast};
use rustls::ServerConnection;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tracing::{debug, info};

use crate::{
    auth::ConfigProblem,
    clock::Clock,
    config,
    session::Opening,
    wire::handshake,
    worker::{Adopted, Carrier, Workers},
};

/// A socket that can be taken out of the HTTP library again.
pub trait Socket: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static {
    /// The plain parts: a socket of no runtime, and the state of its encryption.
    fn into_parts(self) -> io::Result<(std::net::TcpStream, Option<Box<ServerConnection>>)>;
}

impl Socket for TokioIo<TcpStream> {
    fn into_parts(self) -> io::Result<(std::net::TcpStream, Option<Box<ServerConnection>>)> {
        Ok((self.into_inner().into_std()?, None))
    }
}

impl Socket for TokioIo<TlsStream<TcpStream>> {
    fn into_parts(self) -> io::Result<(std::net::TcpStream, Option<Box<ServerConnection>>)> {
        let (socket, tls) = self.into_inner().into_inner();
        Ok((socket.into_std()?, Some(Box::new(tls))))
    }
}

/// Whom the listener lets in at all: `client.allowed_origins`, `connection_limit`, `connection_rate_limit`.
pub struct Admission {
    origins: GlobSet,
    origins_text: String,
    connection_limit: Option<u32>,
    rate_limit: Option<u32>,
    /// The current second in the upper half, connections in it in the lower.
    rate: AtomicU64,
    /// Refusals by `connection_limit`, ever.
    pub limited: AtomicU64,
    clock: Clock,
}

impl Admission {
    /// Compiles the options.
    ///
    /// # Errors
    ///
    /// An origin that is no pattern.
    pub fn new(client: &config::Client, clock: Clock) -> Result<Self, ConfigProblem> {
        let problem = |error: globset::Error| ConfigProblem {
            option: "client.allowed_origins".into(),
            problem: error.to_string(),
        };
        let mut origins = GlobSetBuilder::new();
        for pattern in &client.allowed_origins {
            origins.add(GlobBuilder::new(&pattern.to_lowercase()).build().map_err(problem)?);
        }
        Ok(Self {
            origins: origins.build().map_err(problem)?,
            origins_text: client.allowed_origins.join(" "),
            connection_limit: client.connection_limit,
            rate_limit: client.connection_rate_limit,
            rate: AtomicU64::new(0),
            limited: AtomicU64::new(0),
            clock,
        })
    }

    /// Whether a page of this origin, in lower case, may connect.
    pub fn allows_origin(&self, origin: &str) -> bool {
        let allowed = self.origins.is_match(origin);
        if !allowed {
            info!(origin, allowed = %self.origins_text, "refused: origin not allowed; see option client.allowed_origins");
        }
        allowed
    }

    /// Whether one more connection may come now.
    fn allows_connection(&self, connections: u32) -> bool {
        if let Some(limit) = self.connection_limit
            && connections >= limit
        {
            self.limited.fetch_add(1, Ordering::Relaxed);
            info!(connections, limit, "refused: too many connections; see option client.connection_limit");
            return false;
        }
        if let Some(limit) = self.rate_limit {
            let second = self.clock.now().0 / 1000;
            let before = self.rate.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |rate| {
                let count = if rate >> 32 == second { rate & 0xffff_ffff } else { 0 };
                (count < u64::from(limit)).then_some((second << 32) | (count + 1))
            });
            if before.is_err() {
                info!(limit, "refused: too many connections a second; see option client.connection_rate_limit");
                return false;
            }
        }
        true
    }
}

/// The WebSocket endpoint.
pub struct WebSocketEndpoint {
    /// Where connections go.
    pub workers: Arc<Workers>,
    /// Whom to let in.
    pub admission: Arc<Admission>,
    /// `websocket.compression`.
    pub compression: bool,
    /// `client.user_id_http_header`.
    pub user_header: Option<HeaderName>,
}

impl WebSocketEndpoint {
    /// Answers a handshake. The connection goes to a worker as soon as the response is written.
    pub fn upgrade<S: Socket>(&self, mut request: Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
        if !self.admission.allows_connection(self.workers.connections()) {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return response;
        }
        let allows = |origin: &str| self.admission.allows_origin(origin);
        let accepted = match handshake::upgrade(&request, self.compression, allows) {
            Ok(accepted) => accepted,
            Err(refusal) => {
                debug!(%peer, ?refusal, "WebSocket handshake refused");
                return refusal.response().map(Full::from);
            }
        };
        let user_header = self.user_header.as_ref().and_then(|name| request.headers().get(name));
        let opening = Opening {
            user_header: user_header.and_then(|value| value.to_str().ok()).map(str::to_owned),
            frame_pings: accepted.frame_pings,
        };
        let upgraded = hyper::upgrade::on(&mut request);
        let workers = self.workers.clone();
        let (protocol, deflate) = (accepted.protocol, accepted.deflate);
        tokio::spawn(async move {
            let upgraded = match upgraded.await {
                Ok(upgraded) => upgraded,
                Err(error) => return debug!(%peer, %error, "the connection ended during its handshake"),
            };
            match take_out::<S>(upgraded) {
                Ok((socket, tls, first_bytes)) => {
                    let carrier = Carrier::Socket(socket, tls);
                    workers.adopt(Adopted { carrier, first_bytes, protocol, deflate, opening });
                }
                Err(error) => debug!(%peer, %error, "the connection was lost on its way to a worker"),
            }
        });
        accepted.response.map(|()| Full::default())
    }
}

type Parts = (std::net::TcpStream, Option<Box<ServerConnection>>, Vec<u8>);

fn take_out<S: Socket>(upgraded: Upgraded) -> io::Result<Parts> {
    let parts = downcast::<S>(upgraded).map_err(|_| io::Error::other("not the socket that was accepted"))?;
    let (socket, tls) = parts.io.into_parts()?;
    // A copy, even of nothing: the bytes are a slice of the library's buffer and would keep all of it.
    Ok((socket, tls, parts.read_buf.to_vec()))
}
