//! What a configuration file says before anybody knows what it should: one value type for JSON, YAML and TOML, and the
//! line on which a value stands.

use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::place::Step;

/// A value as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw {
    /// Nothing; counts as not written.
    Null,
    /// A switch.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A number with a fraction.
    Float(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Raw>),
    /// A section, in the order it was written; no key twice.
    Map(Vec<(String, Raw)>),
}

impl Raw {
    /// The value in an error message, cut short.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".into(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Text(text) if text.chars().count() > 60 => {
                format!("\"{}…\"", text.chars().take(60).collect::<String>().escape_debug())
            }
            Self::Text(text) => format!("\"{}\"", text.escape_debug()),
            Self::List(_) => "a list".into(),
            Self::Map(_) => "a section".into(),
        }
    }
}

/// A format of configuration files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `.json`
    Json,
    /// `.yaml` and `.yml`
    Yaml,
    /// `.toml`
    Toml,
}

impl Format {
    /// The format that the extension of a file name stands for.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "json" => Some(Self::Json),
            "yaml" | "yml" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            _ => None,
        }
    }
}

/// Why a text is not of its format.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) line: Option<usize>,
    pub(super) message: String,
}

/// Reads a whole text. A key that stands twice in one section is an error in every format.
pub(super) fn parse(text: &str, format: Format) -> Result<Raw, SyntaxError> {
    read(text, format, Whole)
}

/// The line (from 1) on which the key or list item at `steps` stands; `None` if there is no such place.
pub(super) fn line_of(text: &str, format: Format, steps: &[Step]) -> Option<usize> {
    // Every parser knows where it is only when it fails. So fail, on purpose, at the place in question.
    match read(text, format, Locate(steps)) {
        Ok(()) => None,
        Err(error) if error.message.contains(FOUND) => error.line,
        Err(_) => None,
    }
}

/// Something that any of the three deserializers can be given to.
trait Reading {
    type Value;

    fn run<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error>;
}

fn read<R: Reading>(text: &str, format: Format, reading: R) -> Result<R::Value, SyntaxError> {
    match format {
        Format::Json => {
            let mut deserializer = serde_json::Deserializer::from_str(text);
            reading.run(&mut deserializer).and_then(|value| deserializer.end().map(|()| value)).map_err(|error| {
                SyntaxError { line: Some(error.line()), message: without_position(&error.to_string()) }
            })
        }
        Format::Yaml => reading.run(yaml_serde::Deserializer::from_str(text)).map_err(|error| SyntaxError {
            line: error.location().map(|at| at.line()),
            message: without_position(&error.to_string()),
        }),
        Format::Toml => {
            toml::Deserializer::parse(text).and_then(|deserializer| reading.run(deserializer)).map_err(|error| {
                let line = error.span().and_then(|span| Some(text.get(..span.start)?.matches('\n').count() + 1));
                SyntaxError { line, message: error.message().into() }
            })
        }
    }
}

/// The position is told in front of the message, in one way for all formats.
fn without_position(message: &str) -> String {
    message.split(" at line ").next().unwrap_or(message).into()
}

// === reading a whole text ===

struct Whole;

impl Reading for Whole {
    type Value = Raw;

    fn run<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Int(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Int(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map: Vec<(String, Raw)> = Vec::new();
        while let Some(key) = entries.next_key_seed(NewKey(&map))? {
            map.push((key, entries.next_value()?));
        }
        // How the TOML library hands a date over. No option takes one; as a text it gets the usual message.
        match map.pop() {
            Some((key, date)) if map.is_empty() && key == "$__toml_private_datetime" => Ok(date),
            Some(last) => {
                map.push(last);
                Ok(Raw::Map(map))
            }
            None => Ok(Raw::Map(map)),
        }
    }
}

/// A key that the section has not yet. YAML may take one for a number or a switch; it is a text all the same.
struct NewKey<'a>(&'a [(String, Raw)]);

impl<'de> DeserializeSeed<'de> for NewKey<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NewKey<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<String, E> {
        if self.0.iter().any(|(known, _)| known == key) {
            return Err(E::custom(format_args!("`{key}` is set twice in one section")));
        }
        Ok(key.into())
    }

    fn visit_bool<E: serde::de::Error>(self, key: bool) -> Result<String, E> {
        self.visit_str(&key.to_string())
    }

    fn visit_i64<E: serde::de::Error>(self, key: i64) -> Result<String, E> {
        self.visit_str(&key.to_string())
    }

    fn visit_u64<E: serde::de::Error>(self, key: u64) -> Result<String, E> {
        self.visit_str(&key.to_string())
    }
}

// === finding a place ===

const FOUND: &str = "this is the place that was looked for";

#[derive(Clone, Copy)]
struct Locate<'a>(&'a [Step]);

impl Reading for Locate<'_> {
    type Value = ();

    fn run<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.deserialize(deserializer)
    }
}

impl<'de> DeserializeSeed<'de> for Locate<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Locate<'_> {
    fn scalar<E: serde::de::Error>(self) -> Result<(), E> {
        if self.0.is_empty() { Err(E::custom(FOUND)) } else { Ok(()) }
    }
}

impl<'de> Visitor<'de> for Locate<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.scalar()
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<(), E> {
        self.scalar()
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.scalar()
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.scalar()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Some((first, rest)) = self.0.split_first() else { return Err(A::Error::custom(FOUND)) };
        for index in 0.. {
            let more = match first {
                Step::Item { index: wanted, .. } if *wanted == index => items.next_element_seed(Locate(rest))?,
                Step::Item { .. } | Step::Key(_) => items.next_element::<IgnoredAny>()?.map(drop),
            };
            if more.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Some((first, rest)) = self.0.split_first() else { return Err(A::Error::custom(FOUND)) };
        while let Some(here) = entries.next_key_seed(LocateKey { wanted: first, last: rest.is_empty() })? {
            if here {
                entries.next_value_seed(Locate(rest))?;
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Says whether a key is the wanted one; fails on it if it is the last step.
struct LocateKey<'a> {
    wanted: &'a Step,
    last: bool,
}

impl<'de> DeserializeSeed<'de> for LocateKey<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for LocateKey<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        let here = matches!(self.wanted, Step::Key(wanted) if wanted == key);
        if here && self.last { Err(E::custom(FOUND)) } else { Ok(here) }
    }

    fn visit_bool<E: serde::de::Error>(self, key: bool) -> Result<bool, E> {
        self.visit_str(&key.to_string())
    }

    fn visit_i64<E: serde::de::Error>(self, key: i64) -> Result<bool, E> {
        self.visit_str(&key.to_string())
    }

    fn visit_u64<E: serde::de::Error>(self, key: u64) -> Result<bool, E> {
        self.visit_str(&key.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Vec<Step> {
        super::super::place::Place::from(text).steps().to_vec()
    }

    #[test]
    fn the_three_formats_say_the_same() {
        let json = r#"{"a": {"b": [1, "x", true, null]}, "c": 1.5, "d": "0123"}"#;
        let yaml = "a:\n  b: [1, x, true, null]\nc: 1.5\nd: \"0123\"\n";
        let parsed = parse(json, Format::Json).unwrap();
        assert_eq!(parsed, parse(yaml, Format::Yaml).unwrap());
        let toml = "c = 1.5\nd = \"0123\"\n[a]\nb = [1, \"x\", true]\n";
        let Raw::Map(entries) = parse(toml, Format::Toml).unwrap() else { panic!("a document is a section") };
        assert!(entries.contains(&("d".into(), Raw::Text("0123".into()))));
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_in_every_format() {
        for (text, format) in
            [("{\"a\": 1,\n \"a\": 2}", Format::Json), ("a: 1\na: 2\n", Format::Yaml), ("a = 1\na = 2\n", Format::Toml)]
        {
            assert_eq!(parse(text, format).unwrap_err().line, Some(2), "{format:?}");
        }
    }

    #[test]
    fn a_syntax_error_has_its_line() {
        for (text, format) in
            [("{\n \"a\": ]", Format::Json), ("a: 1\nb: [\n", Format::Yaml), ("a = 1\nb = \n", Format::Toml)]
        {
            let error = parse(text, format).unwrap_err();
            assert!(error.line.is_some_and(|line| line >= 2), "{format:?}: {error:?}");
        }
    }

    #[test]
    fn the_line_of_a_key_is_found_in_every_format() {
        let json = "{\n \"a\": {\n  \"b\": 1,\n  \"c\": [\n   {\"d\": 1},\n   {\"d\": 2}\n  ]\n }\n}";
        let yaml = "# comment\na:\n  b: 1\n  c:\n  - d: 1\n  - d: 2\n";
        let toml = "[a]\n# comment\nb = 1\n\n[[a.c]]\nd = 1\n\n[[a.c]]\nd = 2\n";
        for (text, format, b, second) in
            [(json, Format::Json, 3, 6), (yaml, Format::Yaml, 3, 6), (toml, Format::Toml, 3, 9)]
        {
            assert_eq!(line_of(text, format, &place("a.b")), Some(b), "{format:?}");
            assert_eq!(line_of(text, format, &place("a.c[1].d")), Some(second), "{format:?}");
            assert_eq!(line_of(text, format, &place("a.x")), None, "{format:?}");
        }
    }

    #[test]
    fn an_empty_file_says_nothing() {
        assert_eq!(parse("", Format::Yaml).unwrap(), Raw::Null);
        assert_eq!(parse("", Format::Toml).unwrap(), Raw::Map(vec![]));
        assert!(parse("", Format::Json).is_err());
    }

    #[test]
    fn yaml_leaves_words_and_versions_as_texts() {
        let Raw::Map(entries) = parse("a: yes\nb: \"1.10\"\n1: x\n", Format::Yaml).unwrap() else {
            panic!("a section")
        };
        assert_eq!(entries[0].1, Raw::Text("yes".into()));
        assert_eq!(entries[1].1, Raw::Text("1.10".into()));
        assert_eq!(entries[2].0, "1");
    }
}
