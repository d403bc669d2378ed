//! gRPC calls with messages as plain bytes: of the server API, and of the unidirectional stream.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::{Ascii, MetadataKey, MetadataValue},
    transport::{Channel, Endpoint},
};

use crate::{http1::headers_of, json::Object};

/// How long a call may take; no scenario has one that is slow on purpose.
const PATIENCE: Duration = Duration::from_secs(10);

/// A call with one response; an error is what the server answered.
pub(crate) async fn unary(
    port: u16,
    path: &str,
    message: Vec<u8>,
    metadata: &Object,
    gzip: bool,
) -> Result<Result<Bytes, Status>> {
    let mut client = connect(port).await?;
    if gzip {
        client = client.send_compressed(CompressionEncoding::Gzip);
    }
    let mut request = request(message, metadata)?;
    request.set_timeout(PATIENCE);
    client.ready().await?;
    let answer = client.unary(request, PathAndQuery::try_from(path)?, Plain).await;
    Ok(answer.map(tonic::Response::into_inner))
}

/// A call whose response is a stream of messages; its end is a status.
pub(crate) struct Stream(Result<Streaming<Bytes>, Status>);

impl Stream {
    pub(crate) async fn open(port: u16, path: &str, request: Request<Bytes>) -> Result<Self> {
        let mut client = connect(port).await?;
        client.ready().await?;
        let answer = client.server_streaming(request, PathAndQuery::try_from(path)?, Plain).await;
        Ok(Self(answer.map(tonic::Response::into_inner)))
    }

    /// The next message, or as an error the status with which the call ended.
    pub(crate) async fn next(&mut self) -> Result<Bytes, Status> {
        match &mut self.0 {
            Ok(messages) => messages.message().await?.ok_or_else(|| Status::ok("")),
            Err(status) => Err(status.clone()),
        }
    }
}

/// The name of a status code as the goldens spell it: `NOT_FOUND`.
pub(crate) fn code_name(status: &Status) -> String {
    let camel = format!("{:?}", status.code());
    if camel == "Ok" {
        return "OK".to_owned();
    }
    let mut name = String::new();
    for letter in camel.chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

async fn connect(port: u16) -> Result<Grpc<Channel>> {
    let channel = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?.connect().await?;
    Ok(Grpc::new(channel).accept_compressed(CompressionEncoding::Gzip))
}

pub(crate) fn request(message: Vec<u8>, metadata: &Object) -> Result<Request<Bytes>> {
    let mut request = Request::new(Bytes::from(message));
    for (name, value) in headers_of(metadata) {
        let name: MetadataKey<Ascii> = name.parse().with_context(|| name.clone())?;
        let value: MetadataValue<Ascii> = value.parse().with_context(|| value.clone())?;
        request.metadata_mut().append(name, value);
    }
    Ok(request)
}

/// Messages are the bytes that they are on the wire.
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(message);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}
