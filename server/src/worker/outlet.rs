//! How a worker reads from and writes to one connection. Everything above is the same for every transport.

use std::{
    cell::RefCell,
    future::pending,
    io::{self, Read, Write},
    net::Shutdown,
    rc::Rc,
};

use rustls::ServerConnection;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::adopt::Carrier;

/// One connection's way in and out. A clone names the same connection.
#[derive(Clone)]
pub(super) enum Outlet {
    /// A socket, written to directly.
    Plain(Rc<TcpStream>),
    /// A socket behind TLS.
    Tls(Rc<TlsSocket>),
    /// [`Carrier::Sink`].
    Sink,
}

pub(super) struct TlsSocket {
    socket: TcpStream,
    tls: RefCell<Box<ServerConnection>>,
}

impl Outlet {
    /// Takes a connection into the current runtime.
    pub(super) fn new(carrier: Carrier) -> io::Result<Self> {
        Ok(match carrier {
            Carrier::Socket(socket, None) => Self::Plain(Rc::new(TcpStream::from_std(socket)?)),
            Carrier::Socket(socket, Some(tls)) => {
                Self::Tls(Rc::new(TlsSocket { socket: TcpStream::from_std(socket)?, tls: RefCell::new(tls) }))
            }
            Carrier::Sink => Self::Sink,
        })
    }

    fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(socket) => Some(socket),
            Self::Tls(tls) => Some(&tls.socket),
            Self::Sink => None,
        }
    }

    /// Waits until reading may give something.
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self.socket() {
            Some(socket) => socket.readable().await,
            None => pending().await,
        }
    }

    /// Waits until writing may take something.
    pub(super) async fn writable(&self) -> io::Result<()> {
        match self.socket() {
            Some(socket) => socket.writable().await,
            None => Ok(()),
        }
    }

    /// Reads what is there. 0 is the end of the stream; `WouldBlock` means that nothing is there now.
    pub(super) fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.try_read(into),
            Self::Tls(tls) => tls.try_read(into),
            Self::Sink => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Writes what fits. `WouldBlock` means that nothing does now.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.try_write(bytes),
            Self::Tls(tls) => tls.try_write(bytes),
            Self::Sink => Ok(bytes.len()),
        }
    }

    /// Whether bytes that [`try_write`](Self::try_write) took are still to be written: [`try_flush`](Self::try_flush).
    pub(super) fn wants_flush(&self) -> bool {
        match self {
            Self::Plain(_) | Self::Sink => false,
            Self::Tls(tls) => tls.tls.borrow().wants_write(),
        }
    }

    /// Writes what the encryption holds back. `WouldBlock` means that some of it is left.
    pub(super) fn try_flush(&self) -> io::Result<()> {
        match self {
            Self::Plain(_) | Self::Sink => Ok(()),
            Self::Tls(tls) => tls.flush_tls(&mut tls.tls.borrow_mut()),
        }
    }

    /// Says the end to the peer's TLS, so that it is no truncation. Best effort.
    pub(super) fn say_end(&self) {
        if let Self::Tls(tls) = self {
            let mut state = tls.tls.borrow_mut();
            state.send_close_notify();
            // The socket is about to be closed: a failure changes nothing.
            let _ = tls.flush_tls(&mut state);
        }
    }

    /// Ends both directions, which also wakes whoever waits for the socket.
    pub(super) fn shut_down(&self) {
        if let Some(socket) = self.socket() {
            // Fails when the peer was faster; the end is the same.
            let _ = SockRef::from(socket).shutdown(Shutdown::Both);
        }
    }
}

impl TlsSocket {
    fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut tls = self.tls.borrow_mut();
        loop {
            match tls.reader().read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            if tls.read_tls(&mut SocketReader(&self.socket))? == 0 {
                return Ok(0);
            }
            let processed = tls.process_new_packets();
            // An alert or a key update may have to go out, also when the input was refused.
            match self.flush_tls(&mut tls) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
            processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut tls = self.tls.borrow_mut();
        // Records are made only when the ones before are out, so that a slow client's bytes wait in our countable
        // backlog and not in the encryption.
        if tls.wants_write() {
            self.flush_tls(&mut tls)?;
        }
        let taken = tls.writer().write(bytes)?;
        match self.flush_tls(&mut tls) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    fn flush_tls(&self, tls: &mut ServerConnection) -> io::Result<()> {
        while tls.wants_write() {
            if tls.write_tls(&mut SocketWriter(&self.socket))? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }
}

struct SocketReader<'a>(&'a TcpStream);

impl Read for SocketReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(into)
    }
}

struct SocketWriter<'a>(&'a TcpStream);

impl Write for SocketWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
