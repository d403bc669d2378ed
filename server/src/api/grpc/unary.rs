//! Unary gRPC calls over HTTP/2: one message in, one message and a status out.
//!
//! A message is one byte that tells whether it is compressed, its length in four bytes, most significant first, and that many
//! bytes. The status of a successful call follows the message in trailers; that of a failed one comes in the headers alone.
//! Source: "gRPC over HTTP2" of the gRPC project.

use std::{
    convert::Infallible,
    io::Read,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::bufread::GzDecoder;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header::CONTENT_TYPE};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use prost::{Message, encoding};
use tokio::time::timeout;
use tonic::{Code, Status};

/// How long a message may take to arrive.
const ARRIVAL_TIME: Duration = Duration::from_secs(30);

/// Length of what precedes a message.
const PREFIX_BYTES: usize = 5;

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const OK: HeaderValue = HeaderValue::from_static("0");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// Reads the message of a call, at most `limit` bytes, compressed or not.
///
/// Errors are those of gRPC libraries: ResourceExhausted for a message that is too large, Unimplemented for a compression
/// that is not gzip, Internal for a broken frame.
pub(super) async fn read<B>(headers: &HeaderMap, body: Pin<&mut B>, limit: usize) -> Result<Bytes, Status>
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let arrived = timeout(ARRIVAL_TIME, read_frame(body, limit)).await;
    let mut frame = arrived.unwrap_or_else(|_| Err(Status::deadline_exceeded("the message did not arrive in time")))?;
    let compressed = frame.get_u8();
    frame.advance(PREFIX_BYTES - 1);
    match compressed {
        0 => Ok(frame),
        1 => decompress(headers, &frame, limit),
        _ => Err(Status::internal("grpc: a message whose compressed flag is neither 0 nor 1")),
    }
}

/// Decodes a message. Its payloads are slices of the bytes.
pub(super) fn decode<M: Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message).map_err(|error| Status::internal(format!("grpc: error unmarshalling request: {error}")))
}

/// A successful answer.
pub(super) fn response(message: &impl Message) -> Response<UnaryBody> {
    framed(message.encoded_len(), |out| message.encode_raw(out))
}

/// A successful answer with a message whose only member is `message`, in the field with this number.
pub(super) fn response_with(field: u32, message: &impl Message) -> Response<UnaryBody> {
    let len = encoding::message::encoded_len(field, message);
    framed(len, |out| encoding::message::encode(field, message, out))
}

/// The status of a failed operation, with the error itself as its detail.
pub(super) fn status(code: Code, error: &starling_proto::api::Error) -> Status {
    let detail = Any {
        type_url: "type.googleapis.com/centrifugal.centrifugo.api.Error".to_owned(),
        value: error.encode_to_vec(),
    };
    let details = RpcStatus { code: code.into(), message: error.message.clone(), details: vec![detail] };
    Status::with_details(code, error.message.clone(), details.encode_to_vec().into())
}

/// How long the caller waits for the answer, if it says so in a way that can be understood.
pub(super) fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// Reads the only message of a body, its prefix included.
async fn read_frame<B>(mut body: Pin<&mut B>, limit: usize) -> Result<Bytes, Status>
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    // Nearly every message comes in one piece, which is then a slice of what the socket was read into.
    let mut whole = Bytes::new();
    let mut pieces = BytesMut::new();
    loop {
        let complete = match if pieces.is_empty() { &whole[..] } else { &pieces[..] } {
            [_, a, b, c, d, message @ ..] => {
                let announced = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
                if announced > limit {
                    let text = format!("grpc: received message larger than max ({announced} vs. {limit})");
                    return Err(Status::resource_exhausted(text));
                }
                if message.len() > announced {
                    return Err(Status::internal("grpc: more than one message in a unary call"));
                }
                message.len() == announced
            }
            _ => false,
        };
        if complete && body.is_end_stream() {
            break;
        }
        let piece = match body.frame().await {
            None if complete => break,
            None => return Err(Status::internal("grpc: the call ended before its message")),
            Some(Err(error)) => return Err(Status::cancelled(format!("the call broke off: {error}"))),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(piece) => piece,
                Err(_trailers) => continue,
            },
        };
        if whole.is_empty() && pieces.is_empty() {
            whole = piece;
            continue;
        }
        if pieces.is_empty() {
            pieces.extend_from_slice(&std::mem::take(&mut whole));
        }
        pieces.extend_from_slice(&piece);
    }
    Ok(if pieces.is_empty() { whole } else { pieces.freeze() })
}

fn decompress(headers: &HeaderMap, message: &[u8], limit: usize) -> Result<Bytes, Status> {
    match headers.get(GRPC_ENCODING).map(|encoding| encoding.as_bytes()) {
        Some(b"gzip") => {}
        None | Some(b"identity") => {
            return Err(Status::internal("grpc: compressed flag set with identity or empty encoding"));
        }
        Some(_) => {
            let mut status = Status::unimplemented("grpc: only the encodings gzip and identity are supported");
            status.metadata_mut().insert("grpc-accept-encoding", tonic::metadata::MetadataValue::from_static("gzip"));
            return Err(status);
        }
    }
    let mut out = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    match GzDecoder::new(message).take(most).read_to_end(&mut out) {
        Err(error) => Err(Status::internal(format!("grpc: failed to decompress the message: {error}"))),
        Ok(len) if len > limit => Err(Status::resource_exhausted(format!(
            "grpc: received message after decompression larger than max {limit}"
        ))),
        Ok(_) => Ok(out.into()),
    }
}

fn framed(len: usize, encode: impl FnOnce(&mut BytesMut)) -> Response<UnaryBody> {
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + len);
    out.put_u8(0);
    // Answers are far from this long; if one ever is, the peer will see that the lengths differ.
    out.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    encode(&mut out);
    let mut response = Response::new(UnaryBody(Next::Message(out.freeze())));
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// Body of an answer: a message and its status, or, where the status is in the headers, nothing.
#[derive(Debug, Default)]
pub struct UnaryBody(Next);

#[derive(Debug, Default)]
enum Next {
    Message(Bytes),
    Trailers,
    #[default]
    Nothing,
}

impl Body for UnaryBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(match std::mem::take(&mut self.0) {
            Next::Message(message) => {
                self.0 = Next::Trailers;
                Some(Ok(Frame::data(message)))
            }
            Next::Trailers => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(GRPC_STATUS, OK);
                Some(Ok(Frame::trailers(trailers)))
            }
            Next::Nothing => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Next::Nothing)
    }
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use http_body_util::{Full, StreamBody};

    use super::*;

    fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
        let mut out = vec![flag];
        out.extend_from_slice(&u32::try_from(message.len()).expect("short").to_be_bytes());
        out.extend_from_slice(message);
        out
    }

    async fn read_whole(headers: &HeaderMap, body: Vec<u8>, limit: usize) -> Result<Bytes, (Code, String)> {
        let read = read(headers, pin!(Full::new(Bytes::from(body))), limit).await;
        read.map_err(|status| (status.code(), status.message().to_owned()))
    }

    #[tokio::test]
    async fn a_message_may_come_in_any_pieces() {
        let whole = frame(0, b"hello");
        for size in 1..=whole.len() {
            let pieces: Vec<_> = whole
                .chunks(size)
                .map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(piece))))
                .collect();
            let body = StreamBody::new(futures_util::stream::iter(pieces));
            assert_eq!(read(&HeaderMap::new(), pin!(body), 5).await.unwrap(), "hello", "pieces of {size}");
        }
    }

    #[tokio::test]
    async fn broken_frames_are_refused() {
        let headers = HeaderMap::new();
        for cut in 0..10 {
            let body = frame(0, b"hello")[..cut].to_vec();
            assert_eq!(read_whole(&headers, body, 100).await.unwrap_err().0, Code::Internal, "{cut} bytes");
        }
        let two = [frame(0, b"a"), frame(0, b"b")].concat();
        assert_eq!(read_whole(&headers, two, 100).await.unwrap_err().0, Code::Internal);
        assert_eq!(read_whole(&headers, frame(2, b"a"), 100).await.unwrap_err().0, Code::Internal);
        assert_eq!(read_whole(&headers, frame(1, b"a"), 100).await.unwrap_err().0, Code::Internal);
    }

    #[tokio::test]
    async fn a_message_over_the_limit_is_refused_by_its_prefix() {
        let expected = (Code::ResourceExhausted, "grpc: received message larger than max (2008 vs. 1000)".to_owned());
        let prefix_only = frame(0, &[0; 2008])[..5].to_vec();
        assert_eq!(read_whole(&HeaderMap::new(), prefix_only, 1000).await, Err(expected));
    }

    #[tokio::test]
    async fn gzip_is_unpacked_up_to_the_limit() {
        let mut packed = Vec::new();
        let zeros = vec![0; 100_000];
        flate2::bufread::GzEncoder::new(&zeros[..], flate2::Compression::fast()).read_to_end(&mut packed).unwrap();
        let mut headers = HeaderMap::from_iter([(GRPC_ENCODING, HeaderValue::from_static("gzip"))]);
        assert_eq!(read_whole(&headers, frame(1, &packed), 100_000).await.map(|message| message.len()), Ok(100_000));
        assert_eq!(read_whole(&headers, frame(1, &packed), 99_999).await.unwrap_err().0, Code::ResourceExhausted);
        assert_eq!(read_whole(&headers, frame(1, b"no gzip"), 100).await.unwrap_err().0, Code::Internal);
        headers.insert(GRPC_ENCODING, HeaderValue::from_static("zstd"));
        assert_eq!(read_whole(&headers, frame(1, &packed), 100_000).await.unwrap_err().0, Code::Unimplemented);
    }

    #[test]
    fn timeouts_have_up_to_eight_digits_and_a_unit() {
        let read = |text| deadline(&HeaderMap::from_iter([(GRPC_TIMEOUT, HeaderValue::from_static(text))]));
        assert_eq!(read("150m"), Some(Duration::from_millis(150)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for wrong in ["", "S", "123456789S", "-1S", "1s", "1.5S"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
