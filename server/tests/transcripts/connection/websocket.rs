//! A small WebSocket client that hides nothing: it sends frames that a well-behaved library refuses to send, and tells
//! how a connection ended, with a Close frame or without one.

use std::io;

use anyhow::Result;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use flate2::{Decompress, FlushDecompress};
use tokio::io::AsyncReadExt as _;

use crate::{
    http1::{Headers, Response, has, write_request},
    socket::{Incoming, Socket},
};

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// A frame to send; the defaults are those of a well-behaved client.
pub(crate) struct Frame<'a> {
    pub(crate) opcode: u8,
    pub(crate) payload: &'a [u8],
    pub(crate) fin: bool,
    pub(crate) mask: bool,
    /// The three reserved bits; 4 is the first one.
    pub(crate) rsv: u8,
}

impl<'a> Frame<'a> {
    pub(crate) fn new(opcode: u8, payload: &'a [u8]) -> Self {
        Self { opcode, payload, fin: true, mask: true, rsv: 0 }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![u8::from(self.fin) << 7 | self.rsv << 4 | self.opcode];
        let mask_bit = u8::from(self.mask) << 7;
        match self.payload.len() {
            size @ 0..126 => out.push(mask_bit | size as u8),
            size @ 126..65536 => {
                out.push(mask_bit | 126);
                out.extend_from_slice(&(size as u16).to_be_bytes());
            }
            size => {
                out.push(mask_bit | 127);
                out.extend_from_slice(&(size as u64).to_be_bytes());
            }
        }
        if self.mask {
            let key: [u8; 4] = rand::random();
            out.extend_from_slice(&key);
            out.extend(self.payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        } else {
            out.extend_from_slice(self.payload);
        }
        out
    }
}

/// What comes from a server.
pub(crate) enum Event {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    /// A message of an opcode that has no meaning.
    Reserved(u8),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// The connection ended by a Close frame: code (1005 without one) and reason.
    Closed(u16, String),
    /// The connection ended without a Close frame.
    Lost,
}

/// Sends the handshake with the headers given, which replace those that it would send.
pub(crate) async fn handshake(port: u16, target: &str, given: Headers, left_out: &[String]) -> Result<Upgrade> {
    let (mut incoming, socket) = Socket::connect(port).await?;
    let own = [
        ("Host", format!("127.0.0.1:{port}")),
        ("Upgrade", "websocket".to_owned()),
        ("Connection", "Upgrade".to_owned()),
        ("Sec-WebSocket-Key", BASE64_STANDARD.encode(rand::random::<[u8; 16]>())),
        ("Sec-WebSocket-Version", "13".to_owned()),
    ];
    let is_replaced = |name: &str| has(&given, name) || left_out.iter().any(|n| n.eq_ignore_ascii_case(name));
    let mut headers: Headers =
        own.into_iter().filter(|(name, _)| !is_replaced(name)).map(|(name, value)| (name.to_owned(), value)).collect();
    headers.extend(given);
    write_request(&socket, "GET", target, &headers, None).await?;
    let mut response = Response::read_head(&mut incoming).await?;
    if response.status != 101 {
        response.read_body(&mut incoming, "GET").await?;
        return Ok(Upgrade { response, opened: None });
    }
    let inflates = response.header("sec-websocket-extensions").is_some_and(|e| e.contains("permessage-deflate"));
    Ok(Upgrade { response, opened: Some((Messages { incoming, inflates, parts: Vec::new(), first: 0 }, socket)) })
}

/// The answer to a handshake; both ends of the connection unless it was refused.
pub(crate) struct Upgrade {
    pub(crate) response: Response,
    pub(crate) opened: Option<(Messages, Socket)>,
}

/// The reading side: frames put together to messages.
pub(crate) struct Messages {
    incoming: Incoming,
    inflates: bool,
    /// Payload of the fragments so far, and the first byte of the first one.
    parts: Vec<u8>,
    first: u8,
}

impl Messages {
    /// The next event. After `Closed` or `Lost` there is none.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            let Ok((first, payload)) = self.frame().await else { return Event::Lost };
            match first & 15 {
                CLOSE => {
                    let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                    let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
                    return Event::Closed(code, reason);
                }
                PING => return Event::Ping(payload),
                PONG => return Event::Pong(payload),
                opcode => {
                    if opcode != 0 {
                        self.first = first;
                    }
                    self.parts.extend_from_slice(&payload);
                }
            }
            if first & 128 != 0 {
                return self.message();
            }
        }
    }

    fn message(&mut self) -> Event {
        let mut data = std::mem::take(&mut self.parts);
        if self.inflates && self.first & 64 != 0 {
            let Ok(inflated) = inflate(data) else { return Event::Lost };
            data = inflated;
        }
        match self.first & 15 {
            TEXT => Event::Text(data),
            BINARY => Event::Binary(data),
            other => Event::Reserved(other),
        }
    }

    /// First byte and payload of a frame; those of a server are not masked.
    async fn frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let first = self.incoming.read_u8().await?;
        let size = match self.incoming.read_u8().await? & 127 {
            126 => self.incoming.read_u16().await?.into(),
            127 => self.incoming.read_u64().await?,
            size => size.into(),
        };
        let mut payload = Vec::new();
        if (&mut self.incoming).take(size).read_to_end(&mut payload).await? as u64 != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok((first, payload))
    }
}

/// Inflates one message that was compressed without what came before it.
fn inflate(mut data: Vec<u8>) -> Result<Vec<u8>> {
    data.extend_from_slice(&[0, 0, 255, 255]);
    let (mut inflater, mut out) = (Decompress::new(false), Vec::with_capacity(4096));
    loop {
        let consumed = inflater.total_in() as usize;
        let produced = out.len();
        inflater.decompress_vec(&data[consumed..], &mut out, FlushDecompress::Sync)?;
        if inflater.total_in() as usize == consumed && out.len() == produced {
            return Ok(out);
        }
        out.reserve(4096);
    }
}
