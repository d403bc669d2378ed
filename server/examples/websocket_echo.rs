//! An echo server over the server's own frames, for conformance suites of WebSocket: `cargo run --example websocket_echo PORT`.
//!
//! It keeps to RFC 6455 also where the real server is lenient as its reference (`Rules::strict`). How it is played against the
//! Autobahn fuzzing client, which is Python 2:
//!
//! ```text
//! python2 -m pip install --target DIR autobahntestsuite==0.8.2
//! python2 -c 'import site; site.addsitedir("DIR"); from autobahntestsuite.wstest import run; run()' \
//!     -m fuzzingclient -s spec.json
//! ```
//!
//! where `spec.json` is
//!
//! ```text
//! { "outdir": "reports", "servers": [{ "agent": "starling", "url": "ws://127.0.0.1:PORT" }],
//!   "cases": ["*"], "exclude-cases": ["9.*", "12.*", "13.*"], "exclude-agent-cases": {} }
//! ```
//!
//! and `reports/index.json` has the result: everything is `OK`, `NON-STRICT` or `INFORMATIONAL`. Of the compression cases, 12
//! and 13, twenty were run and pass; all of them take the client some ten minutes.

use std::{convert::Infallible, io, net::Ipv4Addr};

use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use starling_server::wire::{
    deflate::{Deflater, Inflater, Params},
    handshake,
    websocket::{self, Event, Kind, Reader, Rules, Violation},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Longest message, before and after inflating: the suite sends up to 16 MiB.
const LIMIT: usize = 16 * 1024 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(0);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("ws://{}", listener.local_addr()?);
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        tokio::spawn(serve(socket));
    }
}

async fn serve(socket: TcpStream) {
    let service = service_fn(async |request| Ok::<_, Infallible>(upgrade(request)));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service).with_upgrades();
    if let Err(error) = connection.await {
        eprintln!("{error}");
    }
}

fn upgrade(mut request: Request<Incoming>) -> Response<Full<bytes::Bytes>> {
    match handshake::upgrade(&request, true, |_| true) {
        Err(refusal) => refusal.response().map(Full::from),
        Ok(accepted) => {
            let upgraded = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let Ok(stream) = upgraded.await else { return };
                // A client that is gone needs no answer.
                let _ = echo(TokioIo::new(stream), accepted.deflate).await;
            });
            accepted.response.map(|()| Full::default())
        }
    }
}

async fn echo(mut stream: TokioIo<Upgraded>, deflate: Option<Params>) -> io::Result<()> {
    let mut echo = Echo { deflate, inflater: Inflater::new(), deflater: Deflater::new(1), out: Vec::new() };
    let rules = Rules { message_size_limit: LIMIT, deflate: deflate.is_some(), strict: true };
    let mut reader = Reader::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let mut input = &mut buffer[..read];
        let ended = loop {
            let answered = match reader.read(rules, &mut input) {
                Ok(None) => break false,
                Ok(Some(event)) => echo.answer(event),
                Err(violation) => Err(violation),
            };
            match answered {
                Ok(true) => {}
                Ok(false) => break true,
                Err(violation) => {
                    websocket::close_frame(Some(violation.code), violation.reason, &mut echo.out);
                    break true;
                }
            }
        };
        stream.write_all(&echo.out).await?;
        echo.out.clear();
        if ended {
            return stream.shutdown().await;
        }
    }
}

struct Echo {
    deflate: Option<Params>,
    inflater: Inflater,
    deflater: Deflater,
    out: Vec<u8>,
}

impl Echo {
    /// Answers whether the connection goes on.
    fn answer(&mut self, event: Event<'_>) -> Result<bool, Violation> {
        match event {
            Event::Message { kind, deflated: false, payload } => self.message(kind, &payload),
            Event::Message { kind, deflated: true, payload } => {
                let mut inflated = Vec::new();
                self.inflater.inflate(&payload, LIMIT, &mut inflated)?;
                if kind == Kind::Text && std::str::from_utf8(&inflated).is_err() {
                    return Err(Violation::NOT_UTF8);
                }
                self.message(kind, &inflated);
            }
            Event::Ping(payload) => websocket::pong_frame(&payload, &mut self.out),
            Event::Pong => {}
            Event::Close { code, reason: _ } => {
                websocket::close_frame(code, "", &mut self.out);
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn message(&mut self, kind: Kind, payload: &[u8]) {
        match self.deflate {
            None => websocket::frame(kind, payload, &mut self.out),
            Some(params) => {
                let mut deflated = Vec::new();
                self.deflater.deflate(params, payload, &mut deflated);
                websocket::deflated_frame(kind, &deflated, &mut self.out);
            }
        }
    }
}
