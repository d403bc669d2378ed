//! Replaces what differs from run to run by typed placeholders.
//!
//! A value gets the same placeholder everywhere in one transcript, so that equalities are still compared: the epoch of a
//! push is the epoch of the reply.

use std::{collections::BTreeMap, sync::LazyLock};

use regex::{Captures, Regex};

use crate::{
    json::{Json, Object},
    message::PAYLOADS,
};

static UUID: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}").expect("a regular expression that is constant")
});

/// Close codes of the WebSocket protocol itself, whose reason is each library's own wording.
const FREE_REASONS: [i128; 3] = [1002, 1007, 1009];

/// A recorded step; the list of the member named `unordered` has no order.
pub(crate) struct Entry {
    pub(crate) recorded: Object,
    pub(crate) unordered: Option<&'static str>,
}

/// The values that the runner can name, in the order in which they are looked for in longer texts.
#[derive(Default)]
pub(crate) struct Known(Vec<(String, String)>);

impl Known {
    /// The first placeholder of a value stays; nothing stands for an empty value.
    pub(crate) fn add(&mut self, value: &str, placeholder: String) {
        if !value.is_empty() && self.of(value).is_none() {
            self.0.push((value.to_owned(), placeholder));
        }
    }

    fn of(&self, value: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == value).map(|(_, placeholder)| placeholder.as_str())
    }
}

/// The normalised transcript.
pub(crate) fn normalise(known: Known, entries: Vec<Entry>) -> Vec<Json> {
    let mut normaliser = Normaliser { known, numbered: BTreeMap::new(), counts: BTreeMap::new(), masked: false };
    entries.into_iter().map(|entry| normaliser.entry(entry)).collect()
}

struct Normaliser {
    known: Known,
    numbered: BTreeMap<String, String>,
    counts: BTreeMap<&'static str, usize>,
    /// While lists without order are sorted, placeholders bear no number.
    masked: bool,
}

/// Where a value stands: its own key and the key around it (an element of a list has those of the list).
#[derive(Clone, Copy)]
struct Place<'a> {
    key: &'a str,
    parent: &'a str,
    /// Inside application data, where only known values and UUIDs are replaced.
    opaque: bool,
}

impl Normaliser {
    fn entry(&mut self, mut entry: Entry) -> Json {
        if let Some(Json::List(list)) = entry.unordered.and_then(|name| entry.recorded.get_mut(name)) {
            self.masked = true;
            let place = Place { key: "", parent: "", opaque: false };
            list.sort_by_cached_key(|element| self.walk(element, place).canonical());
            self.masked = false;
        }
        self.walk(&Json::Object(entry.recorded), Place { key: "", parent: "", opaque: false })
    }

    fn walk(&mut self, value: &Json, place: Place<'_>) -> Json {
        match value {
            Json::Object(object) => self.object(object, place),
            Json::List(items) => Json::List(items.iter().map(|item| self.walk(item, place)).collect()),
            Json::Text(text) if !place.opaque => self.text_at(text, place),
            Json::Text(text) => Json::Text(self.text(text)),
            Json::Int(n) if !place.opaque => number_at(*n, place),
            Json::Null | Json::Bool(_) | Json::Int(_) | Json::Float(_) => value.clone(),
        }
    }

    fn object(&mut self, object: &Object, place: Place<'_>) -> Json {
        let mut members: Vec<_> = object.iter().collect();
        members.sort_by_key(|(name, _)| (self.known.of(name).unwrap_or_default().to_owned(), *name));
        let free_reason =
            place.key == "closed" && matches!(object.get("code"), Some(Json::Int(code)) if FREE_REASONS.contains(code));
        let mut out = Object::default();
        for (name, value) in members {
            if place.key == "nodes" && name == "metrics" {
                continue;
            }
            let shown = self.text(name);
            if free_reason && name == "reason" && value.as_str().is_some_and(|reason| !reason.is_empty()) {
                out.insert(shown, Json::text("<any>"));
                continue;
            }
            let opaque = place.opaque || PAYLOADS.contains(&name) || name == "meta" || name == "text";
            let value = self.walk(value, Place { key: name, parent: place.key, opaque });
            out.insert(shown, value);
        }
        Json::Object(out)
    }

    fn text_at(&mut self, text: &str, place: Place<'_>) -> Json {
        Json::Text(match place.key {
            "epoch" if !text.is_empty() && text != "_" => match self.known.of(text) {
                Some(placeholder) => placeholder.to_owned(),
                None => self.number("epoch", text),
            },
            "version" if place.parent == "connect" || place.parent == "nodes" => "<version>".to_owned(),
            "name" if place.parent == "nodes" => "<node-name>".to_owned(),
            "uptime" => "<uptime>".to_owned(),
            _ => self.text(text),
        })
    }

    fn text(&mut self, text: &str) -> String {
        if let Some(placeholder) = self.known.of(text) {
            return placeholder.to_owned();
        }
        if let Some(placeholder) = self.numbered.get(text).filter(|_| !self.masked) {
            return placeholder.clone();
        }
        let mut text = text.to_owned();
        for (value, placeholder) in self.known.0.iter().filter(|(value, _)| value.len() > 7) {
            if text.contains(value) {
                text = text.replace(value, placeholder);
            }
        }
        UUID.replace_all(&text, |found: &Captures<'_>| self.number("uuid", &found[0])).into_owned()
    }

    fn number(&mut self, kind: &'static str, value: &str) -> String {
        if self.masked {
            return format!("<{kind}>");
        }
        if let Some(placeholder) = self.numbered.get(value) {
            return placeholder.clone();
        }
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        let placeholder = format!("<{kind}:{count}>");
        self.numbered.insert(value.to_owned(), placeholder.clone());
        placeholder
    }
}

fn number_at(n: i128, place: Place<'_>) -> Json {
    match place.key {
        "uptime" => Json::text("<uptime>"),
        "name" if place.parent == "nodes" => Json::text("<node-name>"),
        "time" if n > 1_000_000_000 => Json::text("<time>"),
        "ttl" if (1..=7).contains(&n) => Json::text("<ttl:few>"),
        "ttl" => {
            let near = (n + 5).div_euclid(10) * 10;
            if (n - near).abs() <= 2 { Json::Text(format!("<ttl:{near}>")) } else { Json::Int(n) }
        }
        _ => Json::Int(n),
    }
}
