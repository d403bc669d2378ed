//! A TCP connection that one task reads while others write, and that can be cut off.

use std::{
    io,
    net::Ipv4Addr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, BufReader, ReadBuf},
    net::TcpStream,
    sync::Mutex,
};

/// The writing end; clones write to the same connection, one call at a time.
#[derive(Clone)]
pub(crate) struct Socket {
    stream: Arc<TcpStream>,
    turn: Arc<Mutex<()>>,
}

/// The reading end.
pub(crate) type Incoming = BufReader<ReadHalf>;

pub(crate) struct ReadHalf(Arc<TcpStream>);

impl Socket {
    /// Connects to a port on loopback.
    pub(crate) async fn connect(port: u16) -> io::Result<(Incoming, Self)> {
        Ok(Self::split(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?))
    }

    pub(crate) fn split(stream: TcpStream) -> (Incoming, Self) {
        let stream = Arc::new(stream);
        (BufReader::new(ReadHalf(stream.clone())), Self { stream, turn: Arc::default() })
    }

    pub(crate) async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        let _turn = self.turn.lock().await;
        while !bytes.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Makes the connection end by a reset as soon as its last end is dropped.
    pub(crate) fn reset_on_drop(&self) {
        // Fails only on a connection that has ended already.
        let _ = self.stream.set_zero_linger();
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read(buf.initialize_unfilled()) {
                Ok(n) => {
                    buf.advance(n);
                    return Poll::Ready(Ok(()));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}
