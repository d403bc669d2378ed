//! Commands from JSON.
//!
//! Client protocol: unknown members are ignored; `null` means absent, but is a payload where a payload may stand; of
//! several bodies the first of a fixed order counts. Like the reference server, member names are taken in any letter
//! case, and of two members of one name the last counts. Integers must be integers within the range of their field.
//! Bytes that are not UTF-8 become U+FFFD, because clients of the reference server get away with them.

use std::{borrow::Cow, collections::BTreeMap, fmt, marker::PhantomData, str};

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess},
};
use serde_json::{error::Category, value::RawValue};
use starling_proto::client::FilterNode;

use crate::{
    session::protocol::{Command, ConnectRequest, HistoryRequest, Request, SubscribeRequest},
    wire::Malformed,
};

/// Decodes the command of the first line and moves behind that line.
///
/// Costs one copy of each text and payload: the input is a buffer that others use next. Nesting within payloads and
/// unknown members needs no stack, nesting within a tags filter is bounded by the parser's limit of 128.
pub fn next_command(rest: &mut &[u8]) -> Result<Command, Malformed> {
    let line = next_line(rest);
    if line == b"{}" {
        return Ok(Command { id: 0, request: Request::Pong });
    }
    let Object(command) = first_value::<Object<AnyCommand>>(&utf8(line))?;
    command.choose()
}

/// Decodes a connect request that stands alone. What follows it is dropped, like behind a command.
pub fn connect_request(message: &[u8]) -> Result<ConnectRequest, Malformed> {
    Ok(first_value::<Option<Object<_>>>(&utf8(message))?.map(|Object(body)| body).unwrap_or_default())
}

fn next_line<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    // Nearly always there is one line only, and `contains` searches many bytes at a time.
    let end = if rest.contains(&b'\n') { rest.iter().position(|byte| *byte == b'\n') } else { None };
    let (line, next) = match end {
        Some(end) => (&rest[..end], &rest[end + 1..]),
        None => (*rest, &[][..]),
    };
    *rest = next;
    line
}

fn utf8(bytes: &[u8]) -> Cow<'_, str> {
    match str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

fn first_value<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Malformed> {
    // The parser's own words may quote the input, a token perhaps: only the kind and the place are told.
    T::deserialize(&mut serde_json::Deserializer::from_str(text)).map_err(|error| {
        let kind = match error.classify() {
            Category::Eof => "incomplete JSON",
            Category::Data => "unexpected JSON value",
            Category::Syntax | Category::Io => "invalid JSON",
        };
        Malformed(format!("{kind} at column {}", error.column()).into())
    })
}

/// A command of which any number of bodies may be present.
#[derive(Default)]
struct AnyCommand {
    id: u32,
    /// The body that counts so far, with its place in [`BODIES`].
    body: Option<(usize, Request)>,
    sends: bool,
}

/// The body that stands here first counts.
const BODIES: [&str; 11] = [
    "connect",
    "subscribe",
    "unsubscribe",
    "publish",
    "presence",
    "presence_stats",
    "history",
    "rpc",
    "send",
    "refresh",
    "sub_refresh",
];

impl AnyCommand {
    fn choose(self) -> Result<Command, Malformed> {
        let request = match self.body {
            _ if self.id == 0 && !self.sends => Request::Pong,
            Some((_, body)) => body,
            None => return Err(Malformed::new("command without a body")),
        };
        Ok(Command { id: self.id, request })
    }
}

impl<'de> Members<'de> for AnyCommand {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        if name == "id" {
            return set(&mut self.id, map);
        }
        let Some(place) = BODIES.iter().position(|body| *body == name) else { return Ok(false) };
        let request = match name {
            "connect" => object(map)?.map(|body| Request::Connect(Box::new(body))),
            "subscribe" => object(map)?.map(|body| Request::Subscribe(Box::new(body))),
            "unsubscribe" => object(map)?.map(|Parts { channel, .. }| Request::Unsubscribe { channel }),
            "publish" => object(map)?.map(|Parts { channel, data, .. }| Request::Publish { channel, data }),
            "presence" => object(map)?.map(|Parts { channel, .. }| Request::Presence { channel }),
            "presence_stats" => object(map)?.map(|Parts { channel, .. }| Request::PresenceStats { channel }),
            "history" => object(map)?.map(|body| Request::History(Box::new(body))),
            "rpc" => object(map)?.map(|Parts { method, data, .. }| Request::Rpc { method, data }),
            "send" => object(map)?.map(|Parts { .. }| Request::Send),
            "refresh" => object(map)?.map(|Parts { token, .. }| Request::Refresh { token }),
            _ => object(map)?.map(|Parts { channel, token, .. }| Request::SubRefresh { channel, token }),
        };
        if let Some(request) = request {
            self.sends |= matches!(request, Request::Send);
            if self.body.as_ref().is_none_or(|(before, _)| place <= *before) {
                self.body = Some((place, request));
            }
        }
        Ok(true)
    }
}

/// What the small bodies are made of. Each takes what it knows.
#[derive(Default)]
struct Parts {
    channel: String,
    token: String,
    method: String,
    data: Bytes,
}

impl<'de> Members<'de> for Parts {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        match name {
            "channel" => set(&mut self.channel, map),
            "token" => set(&mut self.token, map),
            "method" => set(&mut self.method, map),
            "data" => set_payload(&mut self.data, map),
            _ => Ok(false),
        }
    }
}

impl<'de> Members<'de> for ConnectRequest {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        match name {
            "token" => set(&mut self.token, map),
            "data" => set_payload(&mut self.data, map),
            "subs" => {
                let subs: Option<BTreeMap<String, Option<Object<SubscribeRequest>>>> = map.next_value()?;
                let subs = subs.unwrap_or_default().into_iter();
                self.subs.extend(subs.map(|(channel, sub)| (channel, sub.unwrap_or_default().0)));
                Ok(true)
            }
            "name" => set(&mut self.name, map),
            "version" => set(&mut self.version, map),
            "headers" => {
                let headers: Option<BTreeMap<String, Option<String>>> = map.next_value()?;
                let headers = headers.unwrap_or_default().into_iter();
                self.headers.extend(headers.map(|(name, value)| (name, value.unwrap_or_default())));
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

impl<'de> Members<'de> for SubscribeRequest {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        match name {
            "channel" => set(&mut self.channel, map),
            "token" => set(&mut self.token, map),
            "recover" => set(&mut self.recover, map),
            "epoch" => set(&mut self.epoch, map),
            "offset" => set(&mut self.offset, map),
            "data" => set_payload(&mut self.data, map),
            "positioned" => set(&mut self.positioned, map),
            "recoverable" => set(&mut self.recoverable, map),
            "join_leave" => set(&mut self.join_leave, map),
            "delta" => set(&mut self.delta, map),
            "tf" => {
                if let Some(filter) = object(map)? {
                    self.tags_filter = Some(Box::new(filter));
                }
                Ok(true)
            }
            "flag" => set(&mut self.flag, map),
            "type" => set(&mut self.kind, map),
            _ => Ok(false),
        }
    }
}

/// Recursive, but never deeper than the parser allows.
impl<'de> Members<'de> for FilterNode {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        match name {
            "op" => set(&mut self.op, map),
            "key" => set(&mut self.key, map),
            "cmp" => set(&mut self.cmp, map),
            "val" => set(&mut self.val, map),
            "vals" => {
                let vals: Option<Vec<Option<String>>> = map.next_value()?;
                self.vals = vals.unwrap_or_default().into_iter().map(Option::unwrap_or_default).collect();
                Ok(true)
            }
            "nodes" => {
                let nodes: Option<Vec<Option<Object<FilterNode>>>> = map.next_value()?;
                self.nodes = nodes.unwrap_or_default().into_iter().map(|node| node.unwrap_or_default().0).collect();
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

impl<'de> Members<'de> for HistoryRequest {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        match name {
            "channel" => set(&mut self.channel, map),
            "limit" => set(&mut self.limit, map),
            "since" => {
                if let Some(Since(offset, epoch)) = object(map)? {
                    self.since = Some((offset, epoch));
                }
                Ok(true)
            }
            "reverse" => set(&mut self.reverse, map),
            _ => Ok(false),
        }
    }
}

#[derive(Default)]
struct Since(u64, String);

impl<'de> Members<'de> for Since {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        match name {
            "offset" => set(&mut self.0, map),
            "epoch" => set(&mut self.1, map),
            _ => Ok(false),
        }
    }
}

/// What can be read from a JSON object, one member after the other. Absent members keep their defaults.
///
/// By hand, because derived code takes arrays for objects, refuses repeated members, and knows one letter case only.
trait Members<'de>: Default {
    /// Reads the value of a member, or leaves it and answers false if there is no such member. `name` is in lower case.
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error>;
}

fn set<'de, T: Deserialize<'de>, A: MapAccess<'de>>(field: &mut T, map: &mut A) -> Result<bool, A::Error> {
    if let Some(value) = map.next_value()? {
        *field = value;
    }
    Ok(true)
}

fn set_payload<'de, A: MapAccess<'de>>(field: &mut Bytes, map: &mut A) -> Result<bool, A::Error> {
    let raw: &RawValue = map.next_value()?;
    *field = Bytes::copy_from_slice(raw.get().as_bytes());
    Ok(true)
}

fn object<'de, T: Members<'de>, A: MapAccess<'de>>(map: &mut A) -> Result<Option<T>, A::Error> {
    Ok(map.next_value::<Option<Object<T>>>()?.map(|Object(value)| value))
}

#[derive(Default)]
struct Object<T>(T);

impl<'de, T: Members<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(PhantomData<T>);

        impl<'de, T: Members<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut value = T::default();
                while let Some(Name(mut name)) = map.next_key()? {
                    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
                        name.to_mut().make_ascii_lowercase();
                    }
                    if !value.member(&name, &mut map)? {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Object(value))
            }
        }

        deserializer.deserialize_map(Visitor(PhantomData))
    }
}

/// Name of a member, copied only if it is written with escapes.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member name")
            }

            fn visit_borrowed_str<E: de::Error>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }

        deserializer.deserialize_str(Visitor)
    }
}
