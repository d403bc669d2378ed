//! What travels on the message channel of a channel: bytes to and from [`BusMessage`].
//!
//! | message | bytes |
//! |---|---|
//! | publication without history | `PUB` |
//! | publication with history | `__p1:` offset `:` epoch `__` `PUB` |
//! | the same, with the one before it for deltas | `__d1:` offset `:` epoch `:` length `:` previous `:` length `:` `PUB` |
//! | join, leave | `__j__` `INFO`, `__l__` `INFO` |
//!
//! `PUB` and `INFO` are the Protobuf messages `Publication` and `ClientInfo` of the client protocol, numbers are decimal
//! text. No `Publication` begins with `__`: that would be field 11 with a wire type that does not exist. Fields that we do
//! not know are skipped, since later versions of other nodes may add some.

use std::fmt;

use bytes::Bytes;
use prost::Message;
use starling_proto::client as wire;

use crate::broker::{ClientInfo, Form, Publication, StreamPosition};

/// One message of a message channel.
#[derive(Clone, Debug, PartialEq)]
pub enum BusMessage {
    /// A publication.
    Publication {
        /// The publication, with its position when the channel has history.
        publication: Publication,
        /// Set when the publisher wants deltas and the channel has history: the stored bytes of the publication before
        /// this one, empty when there was none. [`payload`] reads them.
        previous: Option<Bytes>,
    },
    /// A client has subscribed.
    Join(ClientInfo),
    /// A client has left.
    Leave(ClientInfo),
}

/// Why bytes are no message. Such a message is counted and dropped; nothing else follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It begins with `__` but has none of the known forms.
    Form,
    /// The Protobuf message inside cannot be read.
    Protobuf,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "unknown form",
            Self::Protobuf => "not a Protobuf message",
        })
    }
}

/// What a publisher asks, as far as it travels within the publication.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marks {
    /// A delta is wanted where there is no history to make it of.
    pub delta: bool,
    /// The version; absent without one.
    pub version: Option<u64>,
}

/// The bytes of a publication: what is stored, and what is announced without history. `now_ms` (Unix milliseconds) becomes
/// its time when it has none: on the bus every publication has one.
pub fn encode(publication: Publication, marks: Marks, now_ms: i64) -> Vec<u8> {
    // Only plain publications travel between nodes.
    let Publication { data, info, tags, position, time, form: _ } = publication;
    debug_assert!(position.is_none(), "the position is given by the history");
    let message = wire::Publication {
        data,
        info: info.map(encode_info),
        tags,
        time: time.unwrap_or(now_ms),
        delta: marks.delta,
        version: marks.version.unwrap_or(0),
        ..wire::Publication::default()
    };
    message.encode_to_vec()
}

/// Reads one message. The payload of a publication is a slice of `bytes`, not a copy.
pub fn decode(bytes: Bytes) -> Result<BusMessage, Malformed> {
    let Some(rest) = bytes.strip_prefix(b"__") else {
        return Ok(BusMessage::Publication { publication: publication(bytes, None)?, previous: None });
    };
    let (form, rest) = rest.split_first().ok_or(Malformed::Form)?;
    let rest = bytes.slice_ref(rest);
    match form {
        b'p' => with_position(&rest),
        b'd' => with_previous(rest),
        b'j' => Ok(BusMessage::Join(info(rest)?)),
        b'l' => Ok(BusMessage::Leave(info(rest)?)),
        _ => Err(Malformed::Form),
    }
}

/// A publication of a stream; its place there is its position, whatever it says itself. `None` if it cannot be read.
pub(super) fn stored(bytes: Bytes, position: StreamPosition) -> Option<Publication> {
    let publication = publication(bytes, None).ok()?;
    Some(Publication { position: Some(position), ..publication })
}

/// The payload of a stored publication; `None` when there is none, or none that can be read: it serves for deltas only, and
/// without it publications are sent whole.
pub fn payload(stored: Bytes) -> Option<Bytes> {
    if stored.is_empty() {
        return None;
    }
    wire::Publication::decode(stored).ok().map(|publication| publication.data)
}

/// `1:` offset `:` epoch `__` `PUB`. Only the first colon parts offset from epoch, and the epoch ends at the first `__`.
fn with_position(rest: &Bytes) -> Result<BusMessage, Malformed> {
    let body = rest.strip_prefix(b"1:").ok_or(Malformed::Form)?;
    let end = body.windows(2).position(|pair| pair == b"__").ok_or(Malformed::Form)?;
    let header = std::str::from_utf8(&body[..end]).map_err(|_| Malformed::Form)?;
    let (offset, epoch) = header.split_once(':').ok_or(Malformed::Form)?;
    let position = position(offset, epoch)?;
    let publication = publication(rest.slice_ref(&body[end + 2..]), position)?;
    Ok(BusMessage::Publication { publication, previous: None })
}

/// `1:` offset `:` epoch `:` length `:` previous `:` length `:` `PUB`.
fn with_previous(mut rest: Bytes) -> Result<BusMessage, Malformed> {
    if take_part(&mut rest)? != "1" {
        return Err(Malformed::Form);
    }
    let position = position(&take_part(&mut rest)?, &take_part(&mut rest)?)?;
    let previous = take_counted(&mut rest)?;
    if rest.is_empty() || rest.split_to(1) != ":" {
        return Err(Malformed::Form);
    }
    let last = take_counted(&mut rest)?;
    if !rest.is_empty() {
        return Err(Malformed::Form);
    }
    Ok(BusMessage::Publication { publication: publication(last, position)?, previous: Some(previous) })
}

/// The text before the next colon; both are taken off.
fn take_part(rest: &mut Bytes) -> Result<String, Malformed> {
    let colon = rest.iter().position(|byte| *byte == b':').ok_or(Malformed::Form)?;
    let part = rest.split_to(colon + 1).slice(..colon);
    String::from_utf8(part.into()).map_err(|_| Malformed::Form)
}

/// Length, a colon, and that many bytes; all are taken off.
fn take_counted(rest: &mut Bytes) -> Result<Bytes, Malformed> {
    let length: usize = take_part(rest)?.parse().map_err(|_| Malformed::Form)?;
    if length > rest.len() {
        return Err(Malformed::Form);
    }
    Ok(rest.split_to(length))
}

/// Offset 0 is how the wire says that there is none.
fn position(offset: &str, epoch: &str) -> Result<Option<StreamPosition>, Malformed> {
    let offset: u64 = offset.parse().map_err(|_| Malformed::Form)?;
    Ok((offset != 0).then(|| StreamPosition { epoch: epoch.into(), offset }))
}

/// An offset or epoch inside the message wins over those of the prefix.
fn publication(bytes: Bytes, prefix: Option<StreamPosition>) -> Result<Publication, Malformed> {
    let wire::Publication { data, info, offset, tags, time, epoch, .. } =
        wire::Publication::decode(bytes).map_err(|_| Malformed::Protobuf)?;
    let (prefix_offset, prefix_epoch) = prefix.map_or((0, "".into()), |position| (position.offset, position.epoch));
    let offset = if offset == 0 { prefix_offset } else { offset };
    let epoch = if epoch.is_empty() { prefix_epoch } else { epoch.into() };
    Ok(Publication {
        data,
        info: info.map(decode_info),
        tags,
        position: (offset != 0).then_some(StreamPosition { epoch, offset }),
        time: (time != 0).then_some(time),
        form: Form::Plain,
    })
}

/// `__` `INFO`, what is left of a join or leave.
fn info(rest: Bytes) -> Result<ClientInfo, Malformed> {
    let body = rest.strip_prefix(b"__").ok_or(Malformed::Form)?;
    wire::ClientInfo::decode(body).map(decode_info).map_err(|_| Malformed::Protobuf)
}

/// The bytes of a join.
pub fn encode_join(info: ClientInfo) -> Vec<u8> {
    with_form(b"__j__", info)
}

/// The bytes of a leave.
pub fn encode_leave(info: ClientInfo) -> Vec<u8> {
    with_form(b"__l__", info)
}

fn with_form(form: &[u8], info: ClientInfo) -> Vec<u8> {
    let info = encode_info(info);
    let mut bytes = Vec::with_capacity(form.len() + info.encoded_len());
    bytes.extend_from_slice(form);
    info.encode(&mut bytes).expect("a vector grows");
    bytes
}

/// A client's info as others see it, on the bus and in presence.
pub(crate) fn encode_info(info: ClientInfo) -> wire::ClientInfo {
    let ClientInfo { user, client, conn_info, chan_info } = info;
    wire::ClientInfo { user, client, conn_info, chan_info }
}

/// The reverse.
pub(crate) fn decode_info(info: wire::ClientInfo) -> ClientInfo {
    let wire::ClientInfo { user, client, conn_info, chan_info } = info;
    ClientInfo { user, client, conn_info, chan_info }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::broker::redis::vectors;

    #[test]
    fn every_recorded_payload_is_read() {
        for case in vectors::file("payloads.json")["cases"].as_array().unwrap() {
            let read = decode(vectors::base64(&case["base64"])).unwrap();
            assert_eq!(read, recorded(case), "{}", case["name"]);
        }
    }

    /// The message that a recorded case describes.
    fn recorded(case: &Value) -> BusMessage {
        match case["form"].as_str().unwrap() {
            "join" => BusMessage::Join(recorded_info(&case["info"])),
            "leave" => BusMessage::Leave(recorded_info(&case["info"])),
            form => {
                let mut publication = recorded_publication(&case["publication"]);
                publication.position = case["offset"]
                    .as_u64()
                    .map(|offset| StreamPosition { offset, epoch: case["epoch"].as_str().unwrap().into() });
                let previous = form.ends_with("and previous publication").then(|| recorded_previous(case));
                BusMessage::Publication { publication, previous }
            }
        }
    }

    fn recorded_publication(value: &Value) -> Publication {
        Publication {
            data: vectors::bytes(&value["data"]),
            info: value.get("info").map(recorded_info),
            tags: value.get("tags").map(|tags| serde_json::from_value(tags.clone()).unwrap()).unwrap_or_default(),
            position: None,
            time: value["time"].as_i64(),
            form: Form::Plain,
        }
    }

    fn recorded_previous(case: &Value) -> Bytes {
        match (case.get("previous_base64"), &case["previous"]) {
            (Some(stored), _) => vectors::base64(stored),
            (None, Value::Null) => Bytes::new(),
            (None, previous) => encode(recorded_publication(previous), Marks::default(), 0).into(),
        }
    }

    fn recorded_info(value: &Value) -> ClientInfo {
        ClientInfo {
            user: value["user"].as_str().unwrap().into(),
            client: value["client"].as_str().unwrap().into(),
            conn_info: vectors::bytes(&value["conn_info"]),
            chan_info: vectors::bytes(&value["chan_info"]),
        }
    }

    #[test]
    fn publications_are_written_as_they_were_recorded() {
        let payloads = vectors::file("payloads.json");
        for name in ["plain", "binary", "tags", "skip_history"] {
            let case = vectors::case(&payloads, name);
            let publication = recorded_publication(&case["publication"]);
            assert_eq!(encode(publication, Marks::default(), 0), vectors::base64(&case["base64"]), "{name}");
        }
        // What follows the prefix is written by the publishing node, too.
        for name in ["position", "position_tags", "position_client"] {
            let case = vectors::case(&payloads, name);
            let recorded = vectors::base64(&case["base64"]);
            let encoded = encode(recorded_publication(&case["publication"]), Marks::default(), 0);
            assert!(recorded.ends_with(&encoded), "{name}");
        }
    }

    #[test]
    fn a_publication_without_a_time_gets_the_time_of_sending() {
        let written =
            encode(Publication { data: "{}".into(), ..Publication::default() }, Marks::default(), 1_700_000_000_000);
        assert_eq!(written, b"\x22\x02{}\x48\x80\xd0\x95\xff\xbc\x31");
    }

    #[test]
    fn a_position_inside_the_message_wins_over_that_of_the_prefix() {
        let inner = wire::Publication { offset: 7, epoch: "inner".into(), ..wire::Publication::default() };
        let bytes = [b"__p1:5:outer__".as_slice(), &inner.encode_to_vec()].concat();
        assert_eq!(positions(&bytes), Some(StreamPosition { epoch: "inner".into(), offset: 7 }));
        let inner = wire::Publication { offset: 7, ..wire::Publication::default() };
        assert_eq!(positions(&inner.encode_to_vec()), Some(StreamPosition { epoch: "".into(), offset: 7 }));
        assert_eq!(positions(b"__p1:5:a:b.c__"), Some(StreamPosition { epoch: "a:b.c".into(), offset: 5 }));
        assert_eq!(positions(b"__p1:0:outer__"), None);
    }

    fn positions(bytes: &[u8]) -> Option<StreamPosition> {
        match decode(Bytes::copy_from_slice(bytes)).unwrap() {
            BusMessage::Publication { publication, .. } => publication.position,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn fields_of_later_versions_are_skipped() {
        // Field 1000, a length-delimited "new".
        let bytes = [
            &encode(Publication { data: "1".into(), ..Publication::default() }, Marks::default(), 1),
            b"\xc2\x3e\x03new".as_slice(),
        ];
        let BusMessage::Publication { publication, .. } = decode(bytes.concat().into()).unwrap() else { panic!() };
        assert_eq!(publication.data, "1");
    }

    #[test]
    fn malformed_messages_are_refused() {
        let malformed = [
            ("__", Malformed::Form),
            ("__x__", Malformed::Form),
            ("__p2:1:e__", Malformed::Form),
            ("__p1:1:e", Malformed::Form),
            ("__p1:1__", Malformed::Form),
            ("__p1:-1:e__", Malformed::Form),
            ("__p1:1:e__\u{7f}", Malformed::Protobuf),
            ("__d1:1:e:0:", Malformed::Form),
            ("__d1:1:e:0::0", Malformed::Form),
            ("__d1:1:e:0::1:", Malformed::Form),
            ("__d1:1:e:0::0:x", Malformed::Form),
            ("__d1:1:e:18446744073709551616::0:", Malformed::Form),
            ("__d1:1:e:99999::0:", Malformed::Form),
            ("__d2:1:e:0::0:", Malformed::Form),
            ("__j_", Malformed::Form),
            ("__j__\u{7f}", Malformed::Protobuf),
            ("probe", Malformed::Protobuf),
        ];
        for (bytes, why) in malformed {
            assert_eq!(decode(Bytes::from_static(bytes.as_bytes())), Err(why), "{bytes}");
        }
        assert!(decode(Bytes::from_static(b"__p1:1:\xff__")).is_err());
    }

    #[test]
    fn no_cut_of_a_recorded_payload_panics() {
        for case in vectors::file("payloads.json")["cases"].as_array().unwrap() {
            let whole = vectors::base64(&case["base64"]);
            for cut in 0..whole.len() {
                let _ = decode(whole.slice(..cut));
                let _ = decode(whole.slice(cut..));
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(form in "(|__p1:|__d1:|__j__|__d1:1:e:[0-9]{1,20}:)", bytes: Vec<u8>) {
            let _ = decode([form.as_bytes(), &bytes].concat().into());
        }

        #[test]
        fn what_is_written_is_read_again(data: Vec<u8>, tags: std::collections::BTreeMap<String, String>, time in 1_i64..) {
            let publication = Publication { data: data.into(), tags, time: Some(time), ..Publication::default() };
            let read = decode(encode(publication.clone(), Marks::default(), 0).into()).unwrap();
            prop_assert_eq!(read, BusMessage::Publication { publication, previous: None });
        }
    }
}
