//! From a bound port to requests: accepting, TLS, and which endpoint a path names.
//!
//! | file | what it knows |
//! |---|---|
//! | this file | the accept loop |
//! | [`tls`] | certificates, read again when their files change |
//! | [`routes`] | paths to endpoints, and the small pages |
//! | [`upgrade`] | WebSocket handshakes, and handing the socket to a worker |
//!
//! One port carries WebSocket and everything else that is HTTP. A socket belongs to the service runtime until its
//! handshake is done, and to one worker from then on.

pub mod routes;
pub mod tls;
pub mod upgrade;

use std::{
    convert::Infallible,
    future::pending,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use self::routes::Routes;
use crate::{api::grpc::GrpcFace, limits};

/// One bound port and what is served on it.
pub struct Listener {
    /// Bound and listening.
    pub socket: TcpListener,
    /// Set for TLS; asked for each connection, so that certificates may change.
    pub tls: Option<Arc<tls::Certificates>>,
    /// What is served.
    pub service: Service,
}

/// What a port is for. A clone is a reference count.
#[derive(Clone)]
pub enum Service {
    /// WebSocket and HTTP.
    Http(Arc<Routes>),
    /// The gRPC face of the server API.
    Grpc(Arc<GrpcFace>),
}

impl Listener {
    /// Accepts until `stop`. Connections that are being served are tracked by `tasks`, and end soon after `stop`.
    ///
    /// A failing accept, as for want of descriptors, is repeated with a growing pause; nothing else ends the loop.
    pub async fn serve(self, stop: CancellationToken, tasks: TaskTracker) {
        let mut pause = Duration::ZERO;
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => {
                    pause = Duration::ZERO;
                    let tls = self.tls.as_ref().map(|certificates| certificates.current());
                    let serving = serve_connection(socket, peer, tls, self.service.clone(), stop.clone());
                    tasks.spawn(serving);
                }
                Err(error) => {
                    pause = (pause * 2).clamp(limits::ACCEPT_PAUSE.0, limits::ACCEPT_PAUSE.1);
                    warn!(%error, pause_ms = pause.as_millis(), "accepting failed");
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = sleep(pause) => {}
                    }
                }
            }
        }
    }
}

async fn serve_connection(
    socket: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    service: Service,
    stop: CancellationToken,
) {
    // Without it small frames wait for the acknowledgement of those before them. It fails only on a dead socket.
    let _ = socket.set_nodelay(true);
    match tls {
        None => {
            // The HTTP libraries wait for the first byte without a limit.
            let mut first_byte = [0];
            let begun = tokio::select! {
                () = stop.cancelled() => return,
                begun = timeout(limits::HEADER_READ, socket.peek(&mut first_byte)) => begun,
            };
            match begun {
                Ok(Ok(1..)) => serve(socket, peer, service, stop).await,
                Ok(Ok(0) | Err(_)) | Err(_) => debug!(%peer, "a connection on which nothing was sent"),
            }
        }
        Some(config) => {
            let handshake = TlsAcceptor::from(config).accept(socket);
            match timeout(limits::TLS_HANDSHAKE, Box::pin(handshake)).await {
                Ok(Ok(socket)) => serve(socket, peer, service, stop).await,
                Ok(Err(error)) => debug!(%peer, %error, "TLS handshake failed"),
                Err(_) => debug!(%peer, "TLS handshake took too long"),
            }
        }
    }
}

async fn serve<S>(socket: S, peer: SocketAddr, service: Service, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    TokioIo<S>: upgrade::Socket,
{
    // Boxed one by one: the task is as large as the largest of its branches otherwise.
    match service {
        Service::Http(routes) => Box::pin(serve_http(socket, peer, routes, stop)).await,
        Service::Grpc(face) => {
            if let Err(error) = Box::pin(face.serve(TokioIo::new(socket), async move { stop.cancelled().await })).await
            {
                debug!(%peer, %error, "gRPC connection failed");
            }
        }
    }
}

async fn serve_http<S>(socket: S, peer: SocketAddr, routes: Arc<Routes>, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    TokioIo<S>: upgrade::Socket,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADER_READ)
        .max_buf_size(limits::HTTP_BUFFER)
        .pipeline_flush(true);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(limits::HTTP2_STREAMS);
    let asked = Arc::new(AtomicBool::new(false));
    let first = asked.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        first.store(true, Ordering::Relaxed);
        let routes = routes.clone();
        async move { Ok::<_, Infallible>(routes.serve::<TokioIo<S>>(request, peer).await) }
    });
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(socket), service);
    // Which HTTP it is to be, and the beginning of HTTP/2, have no limit of their own.
    let never_asked = async {
        sleep(limits::HEADER_READ).await;
        if asked.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
    };
    tokio::pin!(connection, never_asked);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = never_asked => return debug!(%peer, "a connection without a request"),
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%peer, %error, "HTTP connection failed");
    }
}

/// Binds a port. The error names the address.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    if address.is_ipv6() {
        // "All interfaces" means both families.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into()).map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?;
    socket.listen(limits::LISTEN_BACKLOG)?;
    TcpListener::from_std(socket.into())
}
