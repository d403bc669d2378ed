//! JSON: one value per line, field names as in the .proto file, payloads embedded as they are.
//!
//! The generated Protobuf types know nothing of JSON. [`mirrors`] holds a type of the same shape for each of them, and
//! [`Mirror`] says how the two turn into each other, field by field.
//!
//! Reading is lenient where the protocol is: unknown fields are ignored and `null` counts as absent, except in a
//! payload, where it is the payload `null`.

mod mirrors;

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use starling_proto::client::{Command, Reply};

use super::{DecodeError, EncodeError};

pub(super) fn encode_command(command: Command, frame: &mut BytesMut) -> Result<(), EncodeError> {
    encode::<mirrors::Command>(command, frame)
}

pub(super) fn encode_reply(reply: Reply, frame: &mut BytesMut) -> Result<(), EncodeError> {
    encode::<mirrors::Reply>(reply, frame)
}

pub(super) fn decode_commands(frame: &[u8]) -> Result<Vec<Command>, DecodeError> {
    decode::<mirrors::Command>(frame)
}

pub(super) fn decode_replies(frame: &[u8]) -> Result<Vec<Reply>, DecodeError> {
    decode::<mirrors::Reply>(frame)
}

pub(super) fn check_payload(payload: &[u8]) -> Result<(), EncodeError> {
    match serde_json::from_slice::<&RawValue>(payload) {
        Ok(_) => Ok(()),
        Err(error) => Err(EncodeError(error.to_string())),
    }
}

fn encode<M: Mirror + Serialize>(message: M::Wire, frame: &mut BytesMut) -> Result<(), EncodeError> {
    let before = frame.len();
    if before > 0 {
        frame.put_u8(b'\n');
    }
    match serde_json::to_writer((&mut *frame).writer(), &M::from_wire(message)) {
        Ok(()) => Ok(()),
        Err(error) => {
            frame.truncate(before);
            Err(EncodeError(error.to_string()))
        }
    }
}

fn decode<M: Mirror + DeserializeOwned>(frame: &[u8]) -> Result<Vec<M::Wire>, DecodeError> {
    // One newline at the end is tolerated.
    let lines = frame.strip_suffix(b"\n").unwrap_or(frame);
    let mut messages = Vec::new();
    for line in lines.split(|&byte| byte == b'\n') {
        // A derived reader would take an array for an object, too.
        if line.trim_ascii_start().first() != Some(&b'{') {
            return Err(DecodeError("a line is not a JSON object".to_owned()));
        }
        let mirror = serde_json::from_slice::<M>(line).map_err(|error| DecodeError(error.to_string()))?;
        messages.push(mirror.into_wire());
    }
    Ok(messages)
}

/// A type for JSON and the type of the Protobuf message (or field) that it mirrors.
trait Mirror: Sized {
    type Wire;

    fn from_wire(wire: Self::Wire) -> Self;
    fn into_wire(self) -> Self::Wire;

    /// Whether the field is left out of its object.
    fn is_absent(&self) -> bool;

    /// Reads a field that is there.
    fn read<'de, D: Deserializer<'de>>(field: D) -> Result<Self, D::Error>;
}

/// Reads a field for which `null` means the same as leaving it out.
fn null_is_absent<'de, T, D>(field: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    Option::<T>::deserialize(field).map(Option::unwrap_or_default)
}

macro_rules! scalar_mirror {
    ($($scalar:ty),*) => {$(
        impl Mirror for $scalar {
            type Wire = Self;

            fn from_wire(wire: Self) -> Self {
                wire
            }

            fn into_wire(self) -> Self {
                self
            }

            fn is_absent(&self) -> bool {
                *self == <$scalar>::default()
            }

            fn read<'de, D: Deserializer<'de>>(field: D) -> Result<Self, D::Error> {
                null_is_absent(field)
            }
        }
    )*};
}

scalar_mirror!(bool, i32, u32, i64, u64, String);

impl<T: Mirror + DeserializeOwned> Mirror for Option<T> {
    type Wire = Option<T::Wire>;

    fn from_wire(wire: Self::Wire) -> Self {
        wire.map(T::from_wire)
    }

    fn into_wire(self) -> Self::Wire {
        self.map(T::into_wire)
    }

    fn is_absent(&self) -> bool {
        self.is_none()
    }

    fn read<'de, D: Deserializer<'de>>(field: D) -> Result<Self, D::Error> {
        Self::deserialize(field)
    }
}

impl<T: Mirror + DeserializeOwned> Mirror for Vec<T> {
    type Wire = Vec<T::Wire>;

    fn from_wire(wire: Self::Wire) -> Self {
        wire.into_iter().map(T::from_wire).collect()
    }

    fn into_wire(self) -> Self::Wire {
        self.into_iter().map(T::into_wire).collect()
    }

    fn is_absent(&self) -> bool {
        self.is_empty()
    }

    fn read<'de, D: Deserializer<'de>>(field: D) -> Result<Self, D::Error> {
        null_is_absent(field)
    }
}

impl<T: Mirror + DeserializeOwned> Mirror for BTreeMap<String, T> {
    type Wire = BTreeMap<String, T::Wire>;

    fn from_wire(wire: Self::Wire) -> Self {
        wire.into_iter().map(|(key, value)| (key, T::from_wire(value))).collect()
    }

    fn into_wire(self) -> Self::Wire {
        self.into_iter().map(|(key, value)| (key, value.into_wire())).collect()
    }

    fn is_absent(&self) -> bool {
        self.is_empty()
    }

    fn read<'de, D: Deserializer<'de>>(field: D) -> Result<Self, D::Error> {
        null_is_absent(field)
    }
}

/// A field that is written even when it is zero or empty.
#[derive(Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Always<T>(T);

impl<T: Mirror> Mirror for Always<T> {
    type Wire = T::Wire;

    fn from_wire(wire: Self::Wire) -> Self {
        Self(T::from_wire(wire))
    }

    fn into_wire(self) -> Self::Wire {
        self.0.into_wire()
    }

    fn is_absent(&self) -> bool {
        false
    }

    fn read<'de, D: Deserializer<'de>>(field: D) -> Result<Self, D::Error> {
        T::read(field).map(Self)
    }
}

/// A payload: bytes on the wire type, a JSON value in place in the text.
#[derive(Default)]
struct Payload(Bytes);

impl Serialize for Payload {
    /// Line ends separate messages, so none may be inside one. In JSON text they can only be white space between tokens.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = std::str::from_utf8(&self.0).map_err(serde::ser::Error::custom)?;
        // Checked as it is: in a string a line end is an error, not white space.
        let mut raw = RawValue::from_string(text.to_owned()).map_err(serde::ser::Error::custom)?;
        if raw.get().contains('\n') {
            raw = RawValue::from_string(raw.get().replace('\n', " ")).map_err(serde::ser::Error::custom)?;
        }
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Self(Bytes::from(String::from(Box::<str>::from(raw)))))
    }
}

impl Mirror for Payload {
    type Wire = Bytes;

    fn from_wire(wire: Bytes) -> Self {
        Self(wire)
    }

    fn into_wire(self) -> Bytes {
        self.0
    }

    fn is_absent(&self) -> bool {
        self.0.is_empty()
    }

    fn read<'de, D: Deserializer<'de>>(field: D) -> Result<Self, D::Error> {
        Self::deserialize(field)
    }
}
