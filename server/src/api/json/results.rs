//! Writing results as JSON.
//!
//! Members that are empty are left out, but for those that client libraries count on: they are always there, and the writers
//! below write them unconditionally. 64-bit integers are numbers. Payloads are written as the reference server does: without
//! white space between tokens, so that an answer is one line, and fit to stand in HTML.

use std::convert::Infallible;

use serde::de::IgnoredAny;
use starling_proto::api::{
    BroadcastResult, ChannelInfo, ChannelsResult, ClientInfo, DisconnectResult, Error, HistoryRemoveResult,
    HistoryResult, InfoResult, Metrics, NodeResult, PresenceResult, PresenceStatsResult, Process, Publication,
    PublishResponse, PublishResult, RefreshResult, Reply, RpcResult, SubscribeResult, UnsubscribeResult,
};

use crate::error::ApiError;

/// Something that is written as one JSON value.
pub(in crate::api) trait WriteJson {
    /// Appends the value.
    fn write(&self, out: &mut Vec<u8>);
}

/// The result of what cannot succeed.
impl WriteJson for Infallible {
    fn write(&self, _: &mut Vec<u8>) {
        match *self {}
    }
}

/// Appends an error as an object of code and message.
pub(in crate::api) fn write_error(error: ApiError, out: &mut Vec<u8>) {
    Error::from(error).write(out);
}

/// Appends one reply of a batch: an object with the method or `error` as its only member.
pub(in crate::api) fn write_reply(reply: &Reply, out: &mut Vec<u8>) {
    let Reply {
        error,
        publish,
        broadcast,
        subscribe,
        unsubscribe,
        disconnect,
        presence,
        presence_stats,
        history,
        history_remove,
        info,
        rpc,
        refresh,
        channels,
    } = reply;
    object(out, |object| {
        object.optional("error", error);
        object.optional("publish", publish);
        object.optional("broadcast", broadcast);
        object.optional("subscribe", subscribe);
        object.optional("unsubscribe", unsubscribe);
        object.optional("disconnect", disconnect);
        object.optional("presence", presence);
        object.optional("presence_stats", presence_stats);
        object.optional("history", history);
        object.optional("history_remove", history_remove);
        object.optional("info", info);
        object.optional("rpc", rpc);
        object.optional("refresh", refresh);
        object.optional("channels", channels);
    });
}

// === results ===

impl WriteJson for Error {
    fn write(&self, out: &mut Vec<u8>) {
        let Self { code, message } = self;
        object(out, |object| {
            object.member("code", code);
            object.member("message", message);
        });
    }
}

impl WriteJson for PublishResult {
    fn write(&self, out: &mut Vec<u8>) {
        let Self { offset, epoch } = self;
        object(out, |object| {
            object.non_zero("offset", offset);
            object.non_empty("epoch", epoch);
        });
    }
}

impl WriteJson for PublishResponse {
    fn write(&self, out: &mut Vec<u8>) {
        let Self { error, result } = self;
        object(out, |object| {
            object.optional("error", error);
            object.optional("result", result);
        });
    }
}

impl WriteJson for BroadcastResult {
    fn write(&self, out: &mut Vec<u8>) {
        let Self { responses } = self;
        object(out, |object| {
            if !responses.is_empty() {
                object.member("responses", responses);
            }
        });
    }
}

macro_rules! empty_results {
    ($($result:ty),*) => { $(
        impl WriteJson for $result {
            fn write(&self, out: &mut Vec<u8>) {
                let Self {} = self;
                out.extend_from_slice(b"{}");
            }
        }
    )* };
}
empty_results!(SubscribeResult, UnsubscribeResult, DisconnectResult, RefreshResult, HistoryRemoveResult);

impl WriteJson for PresenceResult {
    fn write(&self, out: &mut Vec<u8>) {
        let Self { presence } = self;
        object(out, |object| object.member("presence", &Entries(presence.iter())));
    }
}

impl WriteJson for PresenceStatsResult {
    fn write(&self, out: &mut Vec<u8>) {
        let Self { num_clients, num_users } = self;
        object(out, |object| {
            object.member("num_clients", num_clients);
            object.member("num_users", num_users);
        });
    }
}

impl WriteJson for ClientInfo {
    fn write(&self, out: &mut Vec<u8>) {
        let Self { user, client, conn_info, chan_info } = self;
        object(out, |object| {
            object.member("user", user);
            object.member("client", client);
            object.payload("conn_info", conn_info);
            object.payload("chan_info", chan_info);
        });
    }
}

impl WriteJson for HistoryResult {
    fn write(&self, out: &mut Vec<u8>) {
        let Self { publications, epoch, offset } = self;
        object(out, |object| {
            object.member("publications", publications);
            object.member("epoch", epoch);
            object.member("offset", offset);
        });
    }
}

impl WriteJson for Publication {
    fn write(&self, out: &mut Vec<u8>) {
        let Self { data, info, offset, tags } = self;
        object(out, |object| {
            object.payload("data", data);
            object.optional("info", info);
            object.non_zero("offset", offset);
            if !tags.is_empty() {
                object.member("tags", &Entries(tags.iter()));
            }
        });
    }
}

impl WriteJson for ChannelsResult {
    fn write(&self, out: &mut Vec<u8>) {
        let Self { channels } = self;
        object(out, |object| object.member("channels", &Entries(channels.iter())));
    }
}

impl WriteJson for ChannelInfo {
    fn write(&self, out: &mut Vec<u8>) {
        let Self { num_clients } = self;
        object(out, |object| object.member("num_clients", num_clients));
    }
}

impl WriteJson for InfoResult {
    fn write(&self, out: &mut Vec<u8>) {
        let Self { nodes } = self;
        object(out, |object| {
            if !nodes.is_empty() {
                object.member("nodes", nodes);
            }
        });
    }
}

impl WriteJson for NodeResult {
    fn write(&self, out: &mut Vec<u8>) {
        let Self { uid, name, version, num_clients, num_users, num_channels, uptime, metrics, process, num_subs } =
            self;
        object(out, |object| {
            object.member("uid", uid);
            object.member("name", name);
            object.member("version", version);
            object.member("num_clients", num_clients);
            object.member("num_users", num_users);
            object.member("num_channels", num_channels);
            object.non_zero("uptime", uptime);
            object.optional("metrics", metrics);
            object.optional("process", process);
            object.member("num_subs", num_subs);
        });
    }
}

impl WriteJson for Metrics {
    fn write(&self, out: &mut Vec<u8>) {
        let Self { interval, items } = self;
        object(out, |object| {
            object.non_zero("interval", interval);
            if !items.is_empty() {
                object.member("items", &Entries(items.iter()));
            }
        });
    }
}

impl WriteJson for Process {
    fn write(&self, out: &mut Vec<u8>) {
        let Self { cpu, rss } = self;
        object(out, |object| {
            object.non_zero("cpu", cpu);
            object.non_zero("rss", rss);
        });
    }
}

impl WriteJson for RpcResult {
    fn write(&self, out: &mut Vec<u8>) {
        let Self { data } = self;
        object(out, |object| object.payload("data", data));
    }
}

// === values ===

impl WriteJson for str {
    fn write(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(out, self).expect("writing a text to memory cannot fail");
    }
}

impl WriteJson for String {
    fn write(&self, out: &mut Vec<u8>) {
        self.as_str().write(out);
    }
}

macro_rules! numbers {
    ($($number:ty),*) => { $(
        impl WriteJson for $number {
            fn write(&self, out: &mut Vec<u8>) {
                serde_json::to_writer(out, self).expect("writing a number to memory cannot fail");
            }
        }
    )* };
}
// Floating-point numbers that JSON has no form for become null.
numbers!(u32, u64, i64, f64);

impl<T: WriteJson> WriteJson for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (index, element) in self.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            element.write(out);
        }
        out.push(b']');
    }
}

/// A map as an object.
struct Entries<I>(I);

impl<'a, T: WriteJson + 'a, I: Iterator<Item = (&'a String, &'a T)> + Clone> WriteJson for Entries<I> {
    fn write(&self, out: &mut Vec<u8>) {
        object(out, |object| {
            for (name, value) in self.0.clone() {
                object.named(|out| name.write(out), value);
            }
        });
    }
}

fn object(out: &mut Vec<u8>, members: impl FnOnce(&mut Object<'_>)) {
    out.push(b'{');
    members(&mut Object { out, empty: true });
    out.push(b'}');
}

/// An object whose members are being written.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl Object<'_> {
    /// Writes a member. The names given here need no escapes.
    fn member(&mut self, name: &'static str, value: &(impl WriteJson + ?Sized)) {
        let quoted = |out: &mut Vec<u8>| {
            out.push(b'"');
            out.extend_from_slice(name.as_bytes());
            out.push(b'"');
        };
        self.named(quoted, value);
    }

    fn named(&mut self, name: impl FnOnce(&mut Vec<u8>), value: &(impl WriteJson + ?Sized)) {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        name(self.out);
        self.out.push(b':');
        value.write(self.out);
    }

    fn optional(&mut self, name: &'static str, value: &Option<impl WriteJson>) {
        if let Some(value) = value {
            self.member(name, value);
        }
    }

    fn non_zero<T: WriteJson + PartialEq + Default>(&mut self, name: &'static str, value: &T) {
        if *value != T::default() {
            self.member(name, value);
        }
    }

    fn non_empty(&mut self, name: &'static str, value: &String) {
        if !value.is_empty() {
            self.member(name, value);
        }
    }

    /// Writes a payload, unless it is empty. What is not JSON cannot stand in JSON and is written as `null`; who publishes
    /// other data reads it back over gRPC.
    fn payload(&mut self, name: &'static str, payload: &[u8]) {
        if payload.is_empty() {
            return;
        }
        let text = std::str::from_utf8(payload).ok();
        let json = text.filter(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
        self.member(name, &Compact(json.unwrap_or("null")));
    }
}

/// Valid JSON, written without white space between tokens. Numbers, escapes and the order of members stay as they are; only
/// what has a meaning in HTML or ends a line in JavaScript is escaped: `<`, `>`, `&`, U+2028 and U+2029.
struct Compact<'a>(&'a str);

impl WriteJson for Compact<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let json = self.0;
        out.reserve(json.len());
        // What is not written yet begins at `rest`.
        let (mut rest, mut in_text, mut escaped) = (0, false, false);
        for (at, &byte) in json.as_bytes().iter().enumerate() {
            let (len, written): (usize, &[u8]) = match byte {
                _ if escaped => {
                    escaped = false;
                    continue;
                }
                b'\\' => {
                    escaped = true;
                    continue;
                }
                b'"' => {
                    in_text = !in_text;
                    continue;
                }
                b' ' | b'\t' | b'\n' | b'\r' if !in_text => (1, b""),
                b'<' => (1, br"\u003c"),
                b'>' => (1, br"\u003e"),
                b'&' => (1, br"\u0026"),
                0xe2 if json[at..].starts_with('\u{2028}') => (3, br"\u2028"),
                0xe2 if json[at..].starts_with('\u{2029}') => (3, br"\u2029"),
                _ => continue,
            };
            out.extend_from_slice(&json.as_bytes()[rest..at]);
            out.extend_from_slice(written);
            rest = at + len;
        }
        out.extend_from_slice(&json.as_bytes()[rest..]);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;

    use super::*;

    fn text(value: &impl WriteJson) -> String {
        let mut out = Vec::new();
        value.write(&mut out);
        String::from_utf8(out).expect("what is written is text")
    }

    #[test]
    fn empty_members_are_left_out_but_for_those_that_are_counted_on() {
        assert_eq!(text(&PublishResult::default()), "{}");
        assert_eq!(
            text(&PublishResult { offset: u64::MAX, epoch: "e".into() }),
            r#"{"offset":18446744073709551615,"epoch":"e"}"#
        );
        assert_eq!(text(&HistoryResult::default()), r#"{"publications":[],"epoch":"","offset":0}"#);
        assert_eq!(text(&PresenceResult::default()), r#"{"presence":{}}"#);
        assert_eq!(text(&PresenceStatsResult::default()), r#"{"num_clients":0,"num_users":0}"#);
        assert_eq!(text(&ChannelsResult::default()), r#"{"channels":{}}"#);
        assert_eq!(
            text(&NodeResult::default()),
            r#"{"uid":"","name":"","version":"","num_clients":0,"num_users":0,"num_channels":0,"num_subs":0}"#
        );
    }

    #[test]
    fn names_and_texts_are_escaped() {
        let channels = BTreeMap::from([("a\"\n\\".to_owned(), ChannelInfo { num_clients: 1 })]);
        assert_eq!(text(&ChannelsResult { channels }), r#"{"channels":{"a\"\n\\":{"num_clients":1}}}"#);
    }

    #[test]
    fn payloads_are_compact_and_what_is_not_json_is_null() {
        let publication =
            |data: &'static [u8]| Publication { data: Bytes::from_static(data), ..Publication::default() };
        let spaced = publication(b" { \"b\" : 1.50,\r\n\t\"a\":[ 1e2 ,\"x \\\" y\\\\\" ] , \"a\":null } \n");
        assert_eq!(text(&spaced), r#"{"data":{"b":1.50,"a":[1e2,"x \" y\\"],"a":null}}"#);
        let html = publication("\"<&> \u{2028}\u{2029}\u{202a}€\\u003c\"".as_bytes());
        assert_eq!(text(&html), "{\"data\":\"\\u003c\\u0026\\u003e \\u2028\\u2029\u{202a}€\\u003c\"}");
        assert_eq!(text(&publication(b"\xff\x00")), r#"{"data":null}"#);
        assert_eq!(text(&publication(b"\"\xff\"")), r#"{"data":null}"#);
        assert_eq!(text(&publication(b"1 2")), r#"{"data":null}"#);
    }
}
