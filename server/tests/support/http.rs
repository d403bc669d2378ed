//! HTTP requests, one connection each.

use std::net::Ipv4Addr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::{API_KEY, soon, tls::Trust};

/// A request to be.
pub struct Call {
    port: u16,
    tls: Option<Trust>,
    request: http::request::Builder,
    body: Bytes,
}

/// The whole answer.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Call {
    pub fn new(method: Method, port: u16, path: &str, body: impl Into<Bytes>) -> Self {
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        Self { port, tls: None, request, body: body.into() }
    }

    pub fn get(port: u16, path: &str) -> Self {
        Self::new(Method::GET, port, path, Bytes::new())
    }

    pub fn post(port: u16, path: &str, body: impl Into<Bytes>) -> Self {
        Self::new(Method::POST, port, path, body)
    }

    pub fn header(self, name: &str, value: &str) -> Self {
        Self { request: self.request.header(name, value), ..self }
    }

    /// With the right key of the API.
    pub fn key(self) -> Self {
        self.header("x-api-key", API_KEY)
    }

    /// Over TLS.
    pub fn tls(self, trust: &Trust) -> Self {
        Self { tls: Some(trust.clone()), ..self }
    }

    pub async fn send(self) -> Response {
        soon("an HTTP response", self.send_now()).await
    }

    async fn send_now(self) -> Response {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.unwrap();
        match &self.tls {
            None => exchange(TokioIo::new(socket), self.request, self.body).await,
            Some(trust) => {
                let socket = trust.handshake(socket).await.expect("a TLS handshake");
                exchange(TokioIo::new(socket), self.request, self.body).await
            }
        }
    }
}

async fn exchange<S>(socket: S, request: http::request::Builder, body: Bytes) -> Response
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let response = sender.send_request(request.body(Full::new(body)).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Response { status: head.status.as_u16(), headers: head.headers, body }
}

impl Response {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}
