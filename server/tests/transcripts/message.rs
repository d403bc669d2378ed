//! The recorded form of messages: what came over JSON and over Protobuf in one shape, with payloads byte by byte.

use std::{fmt, path::Path};

use anyhow::{Context, Result, anyhow, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value, prost::Message as _,
};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::json::{Json, Object};

/// Members that hold application bytes, wherever they stand.
pub(crate) const PAYLOADS: [&str; 3] = ["data", "conn_info", "chan_info"];

// === payloads ===

/// The recorded form of payload bytes: the JSON value if they are its canonical text, else `$raw` text, else `$b64`.
pub(crate) fn show_payload(bytes: &[u8]) -> Json {
    match std::str::from_utf8(bytes) {
        Ok(text) => show_payload_text(text),
        Err(_) => Json::object([("$b64", Json::text(BASE64_STANDARD.encode(bytes)))]),
    }
}

fn show_payload_text(text: &str) -> Json {
    match serde_json::from_str::<Json>(text) {
        Ok(value) if value.canonical() == text => value,
        Ok(_) | Err(_) => Json::object([("$raw", Json::text(text))]),
    }
}

/// The bytes that a payload value of a scenario means.
pub(crate) fn payload_bytes(value: &Json) -> Result<Vec<u8>> {
    if let Some(object) = value.as_object().filter(|o| o.len() == 1) {
        if let Some(text) = object.get("$raw").and_then(Json::as_str) {
            return Ok(text.as_bytes().to_vec());
        }
        if let Some(text) = object.get("$b64").and_then(Json::as_str) {
            return BASE64_STANDARD.decode(text).context("$b64");
        }
    }
    Ok(value.compact().into_bytes())
}

// === JSON ===

/// Reads one JSON text, with payload members in their recorded form and repeated members in `$duplicate_keys`.
pub(crate) fn parse_json(text: &str) -> Result<Json> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Recorded.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

struct Recorded;

impl<'de> DeserializeSeed<'de> for Recorded {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Recorded {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Json, E> {
        Ok(Json::Int(n.into()))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Json, E> {
        Ok(Json::Int(n.into()))
    }

    fn visit_f64<E>(self, n: f64) -> Result<Json, E> {
        Ok(Json::Float(n))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Recorded)? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let (mut object, mut repeated) = (Object::default(), Vec::new());
        while let Some(name) = members.next_key::<String>()? {
            let value = if PAYLOADS.contains(&name.as_str()) {
                show_payload_text(members.next_value::<Box<RawValue>>()?.get())
            } else {
                members.next_value_seed(Recorded)?
            };
            if object.insert(&*name, value).is_some() {
                repeated.push(Json::text(name));
            }
        }
        if !repeated.is_empty() {
            object.insert("$duplicate_keys", Json::List(repeated));
        }
        Ok(Json::Object(object))
    }
}

// === Protobuf ===

pub(crate) const COMMAND: &str = "centrifugal.centrifuge.protocol.Command";
pub(crate) const REPLY: &str = "centrifugal.centrifuge.protocol.Reply";
pub(crate) const PUSH: &str = "centrifugal.centrifuge.protocol.Push";
pub(crate) const EMULATION_REQUEST: &str = "centrifugal.centrifuge.protocol.EmulationRequest";
pub(crate) const API_SERVICE: &str = "centrifugal.centrifugo.api.CentrifugoApi";
pub(crate) const UNI_SERVICE: &str = "centrifugal.centrifugo.unistream.CentrifugoUniStream";

/// The messages of the project's .proto files, without generated types: they are filled from and shown in JSON form.
pub(crate) struct Schema(DescriptorPool);

impl Schema {
    pub(crate) fn load() -> Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/proto");
        let files = protox::compile(["client.proto", "api.proto", "unistream.proto"], [folder])?;
        Ok(Self(DescriptorPool::from_file_descriptor_set(files)?))
    }

    pub(crate) fn encode(&self, message: &str, value: &Json) -> Result<Vec<u8>> {
        Ok(fill(self.message(message)?, value)?.encode_to_vec())
    }

    pub(crate) fn decode(&self, message: &str, bytes: &[u8]) -> Result<Json> {
        Ok(show(&DynamicMessage::decode(self.message(message)?, bytes)?))
    }

    /// Names of the request and response message of a method; nothing when the service has no such method.
    pub(crate) fn method(&self, service: &str, method: &str) -> Result<Option<(String, String)>> {
        let service = self.0.get_service_by_name(service).with_context(|| format!("no service {service}"))?;
        let found = service.methods().find(|m| m.name() == method);
        Ok(found.map(|m| (m.input().full_name().to_owned(), m.output().full_name().to_owned())))
    }

    fn message(&self, name: &str) -> Result<MessageDescriptor> {
        self.0.get_message_by_name(name).with_context(|| format!("no message {name}"))
    }
}

/// A message of its JSON form; members that are null are left out.
fn fill(descriptor: MessageDescriptor, value: &Json) -> Result<DynamicMessage> {
    let object = value.as_object().with_context(|| format!("{} is no object", value.compact()))?;
    let mut message = DynamicMessage::new(descriptor.clone());
    for (name, value) in object.iter().filter(|(_, value)| **value != Json::Null) {
        let field =
            descriptor.get_field_by_name(name).with_context(|| format!("{} has no {name}", descriptor.name()))?;
        let value = fill_field(&field, value).with_context(|| name.to_owned())?;
        message.try_set_field(&field, value).map_err(|e| anyhow!("{name}: {e}"))?;
    }
    Ok(message)
}

fn fill_field(field: &FieldDescriptor, value: &Json) -> Result<Value> {
    if field.is_map() {
        let kind = field.kind();
        let entry = kind.as_message().context("the entry of a map")?.map_entry_value_field().kind();
        let members = value.as_object().context("a map is an object")?.iter();
        let map = members.map(|(key, value)| Ok((MapKey::String(key.to_owned()), fill_value(&entry, value)?)));
        return Ok(Value::Map(map.collect::<Result<_>>()?));
    }
    if field.is_list() {
        let Json::List(items) = value else { bail!("a list expected") };
        return Ok(Value::List(items.iter().map(|item| fill_value(&field.kind(), item)).collect::<Result<_>>()?));
    }
    fill_value(&field.kind(), value)
}

fn fill_value(kind: &Kind, value: &Json) -> Result<Value> {
    Ok(match (kind, value) {
        (Kind::Message(descriptor), value) => Value::Message(fill(descriptor.clone(), value)?),
        (Kind::Bytes, value) => Value::Bytes(payload_bytes(value)?.into()),
        (Kind::String, Json::Text(text)) => Value::String(text.clone()),
        (Kind::Bool, Json::Bool(value)) => Value::Bool(*value),
        (Kind::Uint32 | Kind::Fixed32, Json::Int(n)) => Value::U32(u32::try_from(*n)?),
        (Kind::Uint64 | Kind::Fixed64, Json::Int(n)) => Value::U64(u64::try_from(*n)?),
        (Kind::Int32 | Kind::Sint32 | Kind::Sfixed32, Json::Int(n)) => Value::I32(i32::try_from(*n)?),
        (Kind::Int64 | Kind::Sint64 | Kind::Sfixed64, Json::Int(n)) => Value::I64(i64::try_from(*n)?),
        (Kind::Double, Json::Float(n)) => Value::F64(*n),
        (kind, value) => bail!("{} is no {kind:?}", value.compact()),
    })
}

/// The JSON form of a message: set fields only, present empty messages as `{}`.
fn show(message: &DynamicMessage) -> Json {
    let mut object: Object =
        message.fields().map(|(field, value)| (field.name().to_owned(), show_value(value))).collect();
    let mut unknown: Vec<_> = message.unknown_fields().map(|field| field.number()).collect();
    unknown.sort_unstable();
    unknown.dedup();
    if !unknown.is_empty() {
        object.insert("$unknown_fields", Json::List(unknown.into_iter().map(Json::int).collect()));
    }
    Json::Object(object)
}

fn show_value(value: &Value) -> Json {
    match value {
        Value::Bool(value) => Json::Bool(*value),
        Value::I32(n) | Value::EnumNumber(n) => Json::int(*n),
        Value::I64(n) => Json::int(*n),
        Value::U32(n) => Json::int(*n),
        Value::U64(n) => Json::int(*n),
        Value::F32(n) => Json::Float(f64::from(*n)),
        Value::F64(n) => Json::Float(*n),
        Value::String(text) => Json::text(text),
        Value::Bytes(bytes) => show_payload(bytes),
        Value::Message(message) => show(message),
        Value::List(items) => Json::List(items.iter().map(show_value).collect()),
        Value::Map(entries) => {
            Json::Object(entries.iter().map(|(key, value)| (show_key(key), show_value(value))).collect())
        }
    }
}

fn show_key(key: &MapKey) -> String {
    match key {
        MapKey::String(text) => text.clone(),
        MapKey::Bool(value) => value.to_string(),
        MapKey::I32(n) => n.to_string(),
        MapKey::I64(n) => n.to_string(),
        MapKey::U32(n) => n.to_string(),
        MapKey::U64(n) => n.to_string(),
    }
}

// === lengths ===

/// A message preceded by its length as a varint.
pub(crate) fn delimited(message: &[u8]) -> Vec<u8> {
    let mut out = varint(message.len());
    out.extend_from_slice(message);
    out
}

pub(crate) fn varint(mut n: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while n > 127 {
        out.push((n & 127) as u8 | 128);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

/// Takes whole length-delimited messages off the front; what is left is the beginning of another one, or garbage.
pub(crate) fn take_delimited(bytes: &mut Vec<u8>) -> Vec<Vec<u8>> {
    let (mut messages, mut at) = (Vec::new(), 0);
    while let Some((size, head)) = read_varint(&bytes[at..]) {
        let Some(message) = bytes.get(at + head..).and_then(|rest| rest.get(..size)) else { break };
        messages.push(message.to_vec());
        at += head + size;
    }
    bytes.drain(..at);
    messages
}

/// Value and length of a varint of at most nine bytes.
fn read_varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let last = bytes.iter().take(9).position(|byte| byte & 128 == 0)?;
    let value = bytes[..=last].iter().rev().fold(0, |value, byte| value << 7 | usize::from(byte & 127));
    Some((value, last + 1))
}
