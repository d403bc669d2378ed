//! One connection: its outlet, its session, what it has not taken yet, and what of its input waits.

use std::{collections::VecDeque, io};

use bytes::{Buf, Bytes};
use smallvec::SmallVec;

use super::{
    local::{Key, Place},
    outlet::Outlet,
};
use crate::{
    channels::Variant,
    clock::Moment,
    error::Disconnect,
    session::Session,
    wire::{deflate::Params, websocket::Reader},
};

/// A live wire and the protocol state at its end.
pub(super) struct Connection {
    pub(super) generation: u32,
    pub(super) outlet: Outlet,
    pub(super) session: Session,
    pub(super) reader: Reader,
    pub(super) deflate: Option<Params>,
    pub(super) stage: Stage,
    /// Whether a task waits for input.
    pub(super) reading: bool,
    pub(super) backlog: Option<Box<Backlog>>,
    pub(super) suspended: Option<Box<Suspended>>,
    pub(super) memberships: SmallVec<[Membership; 1]>,
    /// When the wheel looks at this connection next.
    pub(super) look_at: Option<Moment>,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The session takes input.
    Open,
    /// Input is read and dropped until the moment, then the connection ends without a Close frame.
    Refused(Moment),
    /// Our Close frame is on its way; the peer's is awaited until the moment.
    Closing(Moment),
}

/// A subscription's place in a channel of this worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Membership {
    pub(super) channel: Key,
    /// Where it is among the members; `None` while it is joining, or waiting for what its history has already.
    pub(super) place: Option<Place>,
}

/// Input that waits for an answer: the rest of a message and what came behind it.
///
/// Bound: one message and one read; nothing more is read while a connection is suspended, so TCP slows the client down.
#[derive(Default)]
pub(super) struct Suspended {
    /// Commands of the message whose earlier command waits.
    pub(super) message: Vec<u8>,
    /// Bytes behind that message, masked as they came.
    pub(super) input: Vec<u8>,
}

/// What one client has not taken yet.
///
/// Bound: `client.queue_max_size` bytes, counted as if frames were not shared; at the bound the client is slow. An empty
/// backlog takes one write of any size, so that a publication larger than the bound reaches who reads. A client is also
/// given up when it takes nothing for `websocket.write_timeout`.
pub(super) struct Backlog {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    /// Whether a part of the first chunk is written: only behind it may anything else go out.
    torn: bool,
    /// When the client last took something.
    pub(super) moved_at: Moment,
}

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// The socket took all of it.
    All,
    /// Some of it is in a backlog that was empty: somebody must wait for the socket and flush.
    Blocked,
    /// It is in a backlog that somebody flushes already.
    Queued,
}

impl Connection {
    /// Frames that are shared are compressed with the largest window. A client that asked for a smaller one cannot take
    /// those; it gets plain frames, which may come on any connection.
    pub(super) fn variant(&self) -> Variant {
        Variant { protocol: self.session.protocol(), deflate: self.deflate == Some(Params::default()) }
    }

    /// Bytes that wait for the client.
    pub(super) fn backlog_bytes(&self) -> usize {
        self.backlog.as_ref().map_or(0, |backlog| backlog.bytes)
    }

    /// Writes `bytes`, or what fits, and keeps the rest as given by `keep(from)`; a shared frame is kept by reference.
    pub(super) fn write(
        &mut self,
        bytes: &[u8],
        keep: impl FnOnce(usize) -> Bytes,
        limit: usize,
        now: Moment,
    ) -> Result<Written, Disconnect> {
        if let Some(backlog) = &mut self.backlog {
            return backlog.push(keep(0), limit).map(|()| Written::Queued);
        }
        let mut written = 0;
        while written < bytes.len() {
            match self.outlet.try_write(&bytes[written..]) {
                Ok(0) => return Err(Disconnect::WRITE_ERROR),
                Ok(taken) => written += taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Disconnect::WRITE_ERROR),
            }
        }
        if written == bytes.len() && !self.outlet.wants_flush() {
            return Ok(Written::All);
        }
        let mut backlog = Box::new(Backlog { chunks: VecDeque::new(), bytes: 0, torn: written > 0, moved_at: now });
        if written < bytes.len() {
            backlog.push(keep(written), limit)?;
        }
        self.backlog = Some(backlog);
        Ok(Written::Blocked)
    }

    /// Writes more of the backlog. Answers whether all is out.
    pub(super) fn flush(&mut self, now: Moment) -> Result<bool, Disconnect> {
        let Some(backlog) = &mut self.backlog else { return Ok(true) };
        while let Some(chunk) = backlog.chunks.front_mut() {
            match self.outlet.try_write(chunk) {
                Ok(0) => return Err(Disconnect::WRITE_ERROR),
                Ok(taken) => {
                    backlog.moved_at = now;
                    backlog.bytes -= taken;
                    chunk.advance(taken);
                    backlog.torn = !chunk.is_empty();
                    if chunk.is_empty() {
                        backlog.chunks.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Disconnect::WRITE_ERROR),
            }
        }
        match self.outlet.try_flush() {
            Ok(()) => {
                self.backlog = None;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(_) => Err(Disconnect::WRITE_ERROR),
        }
    }

    /// Drops what the client will never be sent, so that a Close frame can follow what is written already.
    pub(super) fn discard_backlog(&mut self) {
        if let Some(backlog) = &mut self.backlog {
            backlog.discard();
        }
    }
}

impl Backlog {
    fn push(&mut self, chunk: Bytes, limit: usize) -> Result<(), Disconnect> {
        if !self.chunks.is_empty() && self.bytes + chunk.len() > limit {
            return Err(Disconnect::SLOW);
        }
        self.bytes += chunk.len();
        self.chunks.push_back(chunk);
        Ok(())
    }

    fn discard(&mut self) {
        let keep = usize::from(self.torn).min(self.chunks.len());
        self.chunks.truncate(keep);
        self.bytes = self.chunks.iter().map(Bytes::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A million of them are held by one process; what grows here grows a million times.
    #[test]
    fn a_connection_stays_small() {
        assert!(size_of::<Connection>() <= 320, "{} bytes", size_of::<Connection>());
        assert!(size_of::<Session>() <= 160, "{} bytes", size_of::<Session>());
    }
}
