//! The faces against a node without workers, over real connections: what a backend sends, what it gets back, and what
//! reaches the node.

mod fakes;
mod grpc;
mod hostile;
mod http;
mod speed;

use bytes::Bytes;

use super::*;

#[test]
fn error_labels_are_the_codes() {
    let all = [
        ApiError::Internal,
        ApiError::UnknownChannel,
        ApiError::NotFound,
        ApiError::BadRequest,
        ApiError::NotAvailable,
        ApiError::Overloaded,
        ApiError::UnrecoverablePosition,
    ];
    for error in all {
        assert_eq!(Failure::Api(error).label(), error.code().to_string());
    }
}

#[test]
fn base64_wins_over_the_plain_payload_and_may_have_line_breaks() {
    let plain = Bytes::from_static(b"plain");
    let read = |base64| payload(Method::Publish, plain.clone(), base64, "b64data");
    assert_eq!(read(""), Ok(plain.clone()));
    assert_eq!(read("/wD+"), Ok(Bytes::from_static(b"\xff\x00\xfe")));
    assert_eq!(read("/w\r\nD+\n"), Ok(Bytes::from_static(b"\xff\x00\xfe")));
    for wrong in ["!", "eyJhIjoxfQ", "_wD-"] {
        assert_eq!(read(wrong), Err(ApiError::BadRequest), "{wrong}");
    }
}
