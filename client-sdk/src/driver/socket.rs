//! An open WebSocket: whole frames in both directions, in one place that is polled by one task.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncWrite;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as WebSocketError};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::dial::Wire;
use crate::Protocol;
use crate::codes::server::MESSAGE_TOO_BIG;

/// Bytes of frames that the peer has not taken. From here on nothing more is read either, so that a peer that sends
/// pings and does not take the pongs cannot fill our memory.
const BACKLOG_BYTES: usize = 1 << 20;

pub(super) struct Socket {
    websocket: WebSocketStream<Box<dyn Wire>>,
    protocol: Protocol,
    backlog: VecDeque<Message>,
    backlog_bytes: usize,
    unflushed: bool,
    /// Writing failed. What the peer said before, such as why it closes, can still be read.
    write_failed: bool,
}

pub(super) enum SocketEvent {
    /// A frame of the right type.
    Frame(Bytes),
    /// A frame of the other protocol's type.
    WrongFrame,
    /// The backlog was full and is not any more.
    Drained,
    /// The end; nothing comes after it.
    Closed { code: Option<u32>, reason: String },
}

impl Socket {
    pub(super) fn new(websocket: WebSocketStream<Box<dyn Wire>>, protocol: Protocol) -> Self {
        Self { websocket, protocol, backlog: VecDeque::new(), backlog_bytes: 0, unflushed: false, write_failed: false }
    }

    /// Queues a frame; [`next`](Self::next) writes it. Text must be UTF-8, which all that the codec writes is.
    pub(super) fn queue(&mut self, frame: Bytes) {
        self.backlog_bytes += frame.len();
        self.backlog.push_back(match self.protocol {
            Protocol::Json => Message::Text(Utf8Bytes::try_from(frame).expect("the JSON codec writes UTF-8")),
            Protocol::Protobuf => Message::Binary(frame),
        });
    }

    pub(super) fn is_full(&self) -> bool {
        self.backlog_bytes >= BACKLOG_BYTES
    }

    /// Writes what is queued, and with `read` waits for the next frame. Cancel safe: nothing is lost when the future is
    /// dropped.
    pub(super) async fn next(&mut self, read: bool) -> SocketEvent {
        poll_fn(|context| self.poll(context, read)).await
    }

    /// Says goodbye as far as that is possible without waiting: queued frames, a close frame, the end of the stream.
    pub(super) fn finish(mut self) {
        let mut context = Context::from_waker(Waker::noop());
        self.poll_write(&mut context);
        if self.backlog.is_empty() && !self.write_failed {
            let normal = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
            // Fails when the peer closed first; then the answer to that is waiting to be flushed.
            let _ = self.websocket.start_send_unpin(Message::Close(Some(normal)));
            if self.websocket.poll_flush_unpin(&mut context).is_ready() {
                let _ = Pin::new(self.websocket.get_mut()).poll_shutdown(&mut context);
            }
        }
    }

    fn poll(&mut self, context: &mut Context<'_>, read: bool) -> Poll<SocketEvent> {
        let was_full = self.is_full();
        self.poll_write(context);
        if was_full && !self.is_full() {
            return Poll::Ready(SocketEvent::Drained);
        }
        while read && !self.is_full() {
            let event = match std::task::ready!(self.websocket.poll_next_unpin(context)) {
                Some(Ok(Message::Text(text))) if self.protocol == Protocol::Json => SocketEvent::Frame(text.into()),
                Some(Ok(Message::Binary(bytes))) if self.protocol == Protocol::Protobuf => SocketEvent::Frame(bytes),
                Some(Ok(Message::Text(_) | Message::Binary(_))) => SocketEvent::WrongFrame,
                // The library answers pings.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Close(frame))) => closed(frame),
                Some(Err(error)) => failed(&error),
                None => SocketEvent::Closed { code: None, reason: "connection closed".to_owned() },
            };
            return Poll::Ready(event);
        }
        Poll::Pending
    }

    fn poll_write(&mut self, context: &mut Context<'_>) {
        while !self.backlog.is_empty() && !self.write_failed {
            match self.websocket.poll_ready_unpin(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return self.fail_writing(),
                Poll::Pending => return,
            }
            let Some(frame) = self.backlog.pop_front() else { return };
            self.backlog_bytes -= frame.len();
            self.unflushed = true;
            if self.websocket.start_send_unpin(frame).is_err() {
                return self.fail_writing();
            }
        }
        if self.unflushed && !self.write_failed {
            match self.websocket.poll_flush_unpin(context) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => self.fail_writing(),
                Poll::Pending => {}
            }
        }
    }

    fn fail_writing(&mut self) {
        self.write_failed = true;
        self.backlog.clear();
        self.backlog_bytes = 0;
    }
}

fn closed(frame: Option<CloseFrame>) -> SocketEvent {
    match frame {
        Some(CloseFrame { code, reason }) => {
            SocketEvent::Closed { code: Some(u32::from(u16::from(code))), reason: reason.to_string() }
        }
        None => SocketEvent::Closed { code: None, reason: "closed without a code".to_owned() },
    }
}

fn failed(error: &WebSocketError) -> SocketEvent {
    let code = match error {
        WebSocketError::Capacity(CapacityError::MessageTooLong { .. }) => Some(MESSAGE_TOO_BIG),
        _ => None,
    };
    SocketEvent::Closed { code, reason: error.to_string() }
}
