//! Making one connection to a Redis server, and waiting between attempts.

use std::{fmt, io, time::Duration};

use redis::{
    AsyncConnectionConfig, RedisError,
    aio::{AsyncPushSender, MultiplexedConnection},
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use super::settings::{Server, Settings};

/// Why there is no connection (any more). Its text is what health and log show.
#[derive(Debug)]
pub(super) enum LinkError {
    /// No TCP connection, or no TLS on it.
    Connect(io::Error),
    /// Something took longer than its limit.
    Timeout(&'static str),
    /// Redis said no, or closed the connection while we spoke.
    Redis(RedisError),
    /// Redis closed the connection.
    Closed,
    /// Publications are accepted but none of them arrives.
    Deaf,
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::Timeout(what) => write!(f, "no answer in time ({what})"),
            Self::Redis(error) => write!(f, "{error}"),
            Self::Closed => f.write_str("connection closed"),
            Self::Deaf => f.write_str("subscribed, but nothing arrives"),
        }
    }
}

impl From<RedisError> for LinkError {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

/// A byte stream to Redis, encrypted or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Opens a byte stream to a server. Takes at most `connect_timeout` for TCP and `io_timeout` for TLS.
pub(super) async fn open(server: &Server, settings: &Settings) -> Result<Box<dyn Stream>, LinkError> {
    let connecting = TcpStream::connect((server.host.as_str(), server.port));
    let stream = timeout(settings.connect_timeout, connecting)
        .await
        .map_err(|_| LinkError::Timeout("connect"))?
        .map_err(LinkError::Connect)?;
    tune(&stream).map_err(LinkError::Connect)?;
    let Some(tls) = &server.tls else { return Ok(Box::new(stream)) };
    let stream = timeout(settings.io_timeout, tls.connect(&server.host, stream))
        .await
        .map_err(|_| LinkError::Timeout("TLS handshake"))?
        .map_err(LinkError::Connect)?;
    Ok(Box::new(stream))
}

/// Pings of ours find a dead peer while we write; keep-alive and user timeout find it while nobody does.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(5)),
    )?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(Duration::from_secs(10)))?;
    Ok(())
}

/// Commands waiting to be written on one connection; more callers than this wait in their futures.
const PIPELINE: usize = 4096;

/// Opens a connection for commands, and for pushes when it has a receiver for them. The task that moves its bytes ends with
/// the handle; it ends by itself when the connection is lost, and `on_push` is not called any more once it has ended.
pub(super) async fn commands(
    server: &Server,
    settings: &Settings,
    on_push: Option<impl AsyncPushSender>,
) -> Result<(MultiplexedConnection, AbortOnDropHandle<()>), LinkError> {
    let stream = open(server, settings).await?;
    // No time limit inside the library: it would be one for a single command, and ours are around whole operations.
    let mut config = AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(PIPELINE);
    if let Some(on_push) = on_push {
        config = config.set_push_sender(on_push);
    }
    let introduce = async {
        let (mut connection, driver) = MultiplexedConnection::new_with_config(&server.identity, stream, config).await?;
        let driver = AbortOnDropHandle::new(tokio::spawn(driver));
        if let Some(name) = &server.client_name {
            connection.send_packed_command(redis::cmd("CLIENT").arg("SETNAME").arg(name)).await?;
        }
        Ok((connection, driver))
    };
    timeout(settings.io_timeout, introduce).await.map_err(|_| LinkError::Timeout("handshake"))?
}

/// Waiting times between attempts: they double from 100 ms to 2 s, each drawn at random from its upper half, so that the
/// nodes of a cluster do not come back to a restarted Redis in step. There is no last attempt.
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(2);

    pub(super) fn new() -> Self {
        Self { next: Self::FIRST }
    }

    /// How long to wait now; `random` is in 0..1.
    pub(super) fn delay(&mut self, random: f64) -> Duration {
        let delay = self.next.mul_f64(0.5 + random / 2.0);
        self.next = (self.next * 2).min(Self::LONGEST);
        delay
    }

    /// The connection has proved itself: the next loss begins with short waits again.
    pub(super) fn reset(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_two_seconds_and_no_further() {
        let mut backoff = Backoff::new();
        let longest: Vec<_> = (0..7).map(|_| backoff.delay(1.0).as_millis()).collect();
        assert_eq!(longest, [100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(backoff.delay(0.0).as_millis(), 1000);
        backoff.reset();
        assert_eq!(backoff.delay(0.0).as_millis(), 50);
    }
}
