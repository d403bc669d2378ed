//! How a given value becomes a typed one: [`Setting`] for everything in the tree, [`Take`] for single options.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;

use super::duration;
use super::environment::Environment;
use super::given::{Given, Value};
use super::place::{Place, Step};
use super::problem::Problem;
use super::raw::Raw;
use super::shape::{Leaf, Shape, Written};
use super::values::{Pem, Secret};

/// A part of the tree of options: a section, a list of sections or a single option.
pub(super) trait Setting {
    /// What it looks like.
    fn shape() -> Shape;

    /// Takes over what was given; what was not keeps its value. What cannot be read is reported and keeps its value too.
    fn read(&mut self, given: &Given, reader: &mut Reader<'_>);

    /// Adds the present value of every option in it to `list`.
    fn show(&self, place: &Place, list: &mut Vec<Shown>);
}

/// The value of one option, for people and for comparison.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shown {
    pub(super) place: Place,
    /// `Null` if the option is absent.
    pub(super) value: serde_json::Value,
    /// The value must not be printed.
    pub(super) secret: bool,
}

/// What reading needs and leaves behind.
pub(super) struct Reader<'a> {
    pub(super) environment: &'a Environment,
    pub(super) place: Place,
    pub(super) problems: Vec<Problem>,
}

impl Reader<'_> {
    /// Reads the field `key` of a section, if it was given. The empty key is the section itself.
    pub(super) fn field(&mut self, given: &Given, key: &str, read: impl FnOnce(&Given, &mut Self)) {
        if key.is_empty() {
            return read(given, self);
        }
        let step = Step::Key(key.into());
        if let Some(inner) = given.get(&step) {
            self.place.push(step);
            read(inner, self);
            self.place.pop();
        }
    }

    /// Reads a single option by a rule of its own.
    pub(super) fn take<T: Take>(&mut self, slot: &mut T, given: &Given, rule: Rule<T>) {
        let raw = given.raw();
        match rule(&raw, slot, self.environment) {
            Ok(value) => *slot = value,
            Err(refusal) => {
                let text = match refusal {
                    Refusal::Type if T::SECRET => {
                        format!("`{}` takes {}, not {}", self.place, T::takes(), kind_of(&raw))
                    }
                    Refusal::Type => format!("`{}` takes {}, not {}", self.place, T::takes(), raw.describe()),
                    Refusal::Because(reason) => format!("`{}` {reason}", self.place),
                };
                self.problems.push(Problem::new(given, &self.place, text));
            }
        }
    }
}

/// Why a value is not taken.
pub(super) enum Refusal {
    /// It is not what the option takes.
    Type,
    /// Something else; the sentence goes on after the name of the option.
    Because(String),
}

/// How a value is read: from what was written, knowing the default.
pub(super) type Rule<T> = fn(&Raw, &T, &Environment) -> Result<T, Refusal>;

/// A single option.
pub(super) trait Take: Sized {
    /// How it is written in a variable or flag.
    const WRITTEN: Written;
    /// Values of this type may be ones that must not be printed.
    const SECRET: bool;

    /// What it takes, in words: "a number from 0 to 65535".
    fn takes() -> String;

    /// Reads it.
    fn take(raw: &Raw, environment: &Environment) -> Result<Self, Refusal>;

    /// It is 0 or empty: what Centrifugo takes for "absent" or "the default" where it has no better way to say so.
    fn is_zero(&self) -> bool;

    /// Its value for people; `Null` if absent.
    fn value(&self) -> serde_json::Value;

    /// This very value must not be printed.
    fn is_secret(&self) -> bool {
        Self::SECRET
    }
}

// === sections and lists of sections; the sections themselves come from the macro ===

/// A section that lists are made of.
pub(super) trait Item: Setting + Default {}

impl<T: Item> Setting for Vec<T> {
    fn shape() -> Shape {
        match T::shape() {
            Shape::Section(fields) | Shape::Items(fields) => Shape::Items(fields),
            Shape::Leaf(leaf) => Shape::Leaf(leaf),
        }
    }

    fn read(&mut self, given: &Given, reader: &mut Reader<'_>) {
        // Anything but a list has been reported by the check of names.
        let Value::List(items) = &given.value else { return };
        self.clear();
        for (index, item) in items.iter().enumerate() {
            reader.place.push(Step::Item { index, name: item.name() });
            let mut value = T::default();
            value.read(item, reader);
            self.push(value);
            reader.place.pop();
        }
    }

    fn show(&self, place: &Place, list: &mut Vec<Shown>) {
        for (index, item) in self.iter().enumerate() {
            let mut shown = Vec::new();
            item.show(&Place::default(), &mut shown);
            let name = shown.iter().find(|shown| shown.place.steps() == [Step::Key("name".into())]);
            item.show(&place.item(index, name.and_then(|shown| shown.value.as_str())), list);
        }
    }
}

// === rules of single options ===

/// The usual rule.
pub(super) fn plain<T: Take>(raw: &Raw, _: &T, environment: &Environment) -> Result<T, Refusal> {
    T::take(raw, environment)
}

/// Zero stands for the default.
pub(super) fn zero_is_default<T: Take + Clone>(
    raw: &Raw,
    default: &T,
    environment: &Environment,
) -> Result<T, Refusal> {
    let value = T::take(raw, environment)?;
    Ok(if value.is_zero() { default.clone() } else { value })
}

/// An interval: zero stands for the default, a negative one for off. A negative number needs no unit.
pub(super) fn interval(raw: &Raw, default: &Option<Duration>, _: &Environment) -> Result<Option<Duration>, Refusal> {
    match raw {
        Raw::Int(0) => Ok(*default),
        Raw::Int(number) if *number < 0 => Ok(None),
        Raw::Text(text) => match duration::parse(text) {
            Some(duration) if duration.negative => Ok(None),
            Some(duration) if duration.length.is_zero() => Ok(*default),
            Some(duration) => Ok(Some(duration.length)),
            None => Err(Refusal::Type),
        },
        Raw::Null | Raw::Bool(_) | Raw::Int(_) | Raw::Float(_) | Raw::List(_) | Raw::Map(_) => Err(Refusal::Type),
    }
}

/// A duration in whole seconds.
pub(super) fn whole_seconds<T: Take + Seconds>(raw: &Raw, _: &T, environment: &Environment) -> Result<T, Refusal> {
    let value = T::take(raw, environment)?;
    match value.seconds() {
        Some(duration) if duration.subsec_nanos() > 0 => {
            Err(Refusal::Because(format!("takes whole seconds, not {}", duration::format(duration))))
        }
        Some(_) | None => Ok(value),
    }
}

/// A duration, or perhaps one.
pub(super) trait Seconds {
    fn seconds(&self) -> Option<Duration>;
}

impl Seconds for Duration {
    fn seconds(&self) -> Option<Duration> {
        Some(*self)
    }
}

impl Seconds for Option<Duration> {
    fn seconds(&self) -> Option<Duration> {
        *self
    }
}

// === single options ===

/// Makes a type that is a single option a part of the tree.
macro_rules! single {
    ($($ty:ty $(where $generic:ident)?),+ $(,)?) => { $(
        impl $(<$generic: Take>)? $crate::config::setting::Setting for $ty {
            fn shape() -> $crate::config::shape::Shape {
                $crate::config::setting::leaf::<Self>()
            }

            fn read(
                &mut self,
                given: &$crate::config::given::Given,
                reader: &mut $crate::config::setting::Reader<'_>,
            ) {
                reader.take(self, given, $crate::config::setting::plain);
            }

            fn show(
                &self,
                place: &$crate::config::place::Place,
                list: &mut Vec<$crate::config::setting::Shown>,
            ) {
                list.push($crate::config::setting::shown(self, place));
            }
        }
    )+ };
}
pub(super) use single;

single!(
    bool, u16, u32, u64, usize, i64, String, Secret, Pem, PathBuf, Duration, Vec<String>, BTreeMap<String, String>,
    Option<T> where T,
);

pub(super) fn leaf<T: Take>() -> Shape {
    Shape::Leaf(Leaf { takes: T::takes(), written: T::WRITTEN })
}

pub(super) fn shown<T: Take>(value: &T, place: &Place) -> Shown {
    Shown { place: place.clone(), value: value.value(), secret: value.is_secret() }
}

impl Take for bool {
    const WRITTEN: Written = Written::Switch;
    const SECRET: bool = false;

    fn takes() -> String {
        "true or false".into()
    }

    fn take(raw: &Raw, _: &Environment) -> Result<Self, Refusal> {
        match raw {
            Raw::Bool(value) => Ok(*value),
            // Templates often put quotes around everything.
            Raw::Text(text) if text == "true" => Ok(true),
            Raw::Text(text) if text == "false" => Ok(false),
            Raw::Null | Raw::Int(_) | Raw::Float(_) | Raw::Text(_) | Raw::List(_) | Raw::Map(_) => Err(Refusal::Type),
        }
    }

    fn is_zero(&self) -> bool {
        !*self
    }

    fn value(&self) -> serde_json::Value {
        (*self).into()
    }
}

macro_rules! number {
    ($($ty:ty),+) => { $(
        impl Take for $ty {
            const WRITTEN: Written = Written::Number;
            const SECRET: bool = false;

            fn takes() -> String {
                format!("a whole number from {} to {}", <$ty>::MIN, <$ty>::MAX)
            }

            fn take(raw: &Raw, _: &Environment) -> Result<Self, Refusal> {
                let number = match raw {
                    Raw::Int(number) => Some(*number),
                    Raw::Text(text) => text.parse().ok(),
                    Raw::Null | Raw::Bool(_) | Raw::Float(_) | Raw::List(_) | Raw::Map(_) => None,
                };
                number.and_then(|number| number.try_into().ok()).ok_or(Refusal::Type)
            }

            fn is_zero(&self) -> bool {
        *self == 0
    }

            fn value(&self) -> serde_json::Value {
                (*self).into()
            }
        }
    )+ };
}

number!(u16, u32, u64, usize, i64);

impl Take for String {
    const WRITTEN: Written = Written::Text;
    const SECRET: bool = false;

    fn takes() -> String {
        "a text".into()
    }

    fn take(raw: &Raw, _: &Environment) -> Result<Self, Refusal> {
        match raw {
            Raw::Text(text) => Ok(text.clone()),
            Raw::Bool(_) | Raw::Int(_) | Raw::Float(_) => Err(Refusal::Because(format!(
                "takes a text: put {} in quotes, so that it stays as it is written",
                kind_of(raw)
            ))),
            Raw::Null | Raw::List(_) | Raw::Map(_) => Err(Refusal::Type),
        }
    }

    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn value(&self) -> serde_json::Value {
        self.as_str().into()
    }
}

impl Take for Secret {
    const WRITTEN: Written = Written::Text;
    const SECRET: bool = true;

    fn takes() -> String {
        String::takes()
    }

    fn take(raw: &Raw, environment: &Environment) -> Result<Self, Refusal> {
        String::take(raw, environment).map(Self::new)
    }

    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn value(&self) -> serde_json::Value {
        self.expose().into()
    }
}

impl Take for PathBuf {
    const WRITTEN: Written = Written::Text;
    const SECRET: bool = false;

    fn takes() -> String {
        "a path".into()
    }

    fn take(raw: &Raw, environment: &Environment) -> Result<Self, Refusal> {
        String::take(raw, environment).map(Self::from)
    }

    fn is_zero(&self) -> bool {
        self.as_os_str().is_empty()
    }

    fn value(&self) -> serde_json::Value {
        self.to_string_lossy().into_owned().into()
    }
}

impl Take for Pem {
    const WRITTEN: Written = Written::Text;
    const SECRET: bool = true;

    fn takes() -> String {
        "PEM, base64 of PEM, or a path".into()
    }

    fn take(raw: &Raw, environment: &Environment) -> Result<Self, Refusal> {
        let text = String::take(raw, environment)?;
        if text.contains("-----BEGIN ") {
            return Ok(Self::Inline(Secret::new(text)));
        }
        let joined: String = text.split_whitespace().collect();
        let decoded = base64::engine::general_purpose::STANDARD.decode(joined).ok();
        match decoded.and_then(|bytes| String::from_utf8(bytes).ok()) {
            Some(decoded) if decoded.contains("-----BEGIN ") => Ok(Self::Inline(Secret::new(decoded))),
            Some(_) | None => Ok(Self::File(text.into())),
        }
    }

    fn is_zero(&self) -> bool {
        false
    }

    fn value(&self) -> serde_json::Value {
        match self {
            Self::Inline(text) => text.expose().into(),
            Self::File(path) => path.value(),
        }
    }

    fn is_secret(&self) -> bool {
        match self {
            Self::Inline(_) => true,
            Self::File(_) => false,
        }
    }
}

impl Take for Duration {
    const WRITTEN: Written = Written::Text;
    const SECRET: bool = false;

    fn takes() -> String {
        "a duration such as 25s or 1m30s".into()
    }

    fn take(raw: &Raw, _: &Environment) -> Result<Self, Refusal> {
        match raw {
            Raw::Int(0) => Ok(Self::ZERO),
            Raw::Text(text) => match duration::parse(text) {
                Some(duration) if duration.negative => Err(Refusal::Because("takes no negative duration".into())),
                Some(duration) => Ok(duration.length),
                None => Err(Refusal::Type),
            },
            Raw::Null | Raw::Bool(_) | Raw::Int(_) | Raw::Float(_) | Raw::List(_) | Raw::Map(_) => Err(Refusal::Type),
        }
    }

    fn is_zero(&self) -> bool {
        Self::is_zero(self)
    }

    fn value(&self) -> serde_json::Value {
        duration::format(*self).into()
    }
}

impl Take for Vec<String> {
    const WRITTEN: Written = Written::List;
    const SECRET: bool = false;

    fn takes() -> String {
        "a list of texts".into()
    }

    fn take(raw: &Raw, environment: &Environment) -> Result<Self, Refusal> {
        match raw {
            Raw::List(items) => items.iter().map(|item| String::take(item, environment)).collect(),
            // One text is a list too, as in a variable.
            Raw::Text(text) => Ok(text.split_whitespace().map(Into::into).collect()),
            Raw::Null | Raw::Bool(_) | Raw::Int(_) | Raw::Float(_) | Raw::Map(_) => Err(Refusal::Type),
        }
    }

    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn value(&self) -> serde_json::Value {
        self.as_slice().into()
    }
}

impl Take for BTreeMap<String, String> {
    const WRITTEN: Written = Written::Map;
    // Headers and metadata for a backend are where its credentials are.
    const SECRET: bool = true;

    fn takes() -> String {
        "a section of texts, or a list of sections with `key` and `value`".into()
    }

    fn take(raw: &Raw, environment: &Environment) -> Result<Self, Refusal> {
        let mut map = Self::new();
        match raw {
            Raw::Map(entries) => {
                for (key, value) in entries {
                    map.insert(key.clone(), expand(&String::take(value, environment)?, environment)?);
                }
            }
            Raw::List(entries) => {
                for entry in entries {
                    let Raw::Map(entry) = entry else { return Err(Refusal::Type) };
                    let part = |name: &str| entry.iter().find(|(key, _)| key == name).map(|(_, value)| value);
                    let (Some(key), Some(value), 2) = (part("key"), part("value"), entry.len()) else {
                        return Err(Refusal::Type);
                    };
                    let value = expand(&String::take(value, environment)?, environment)?;
                    map.insert(String::take(key, environment)?, value);
                }
            }
            Raw::Null | Raw::Bool(_) | Raw::Int(_) | Raw::Float(_) | Raw::Text(_) => return Err(Refusal::Type),
        }
        Ok(map)
    }

    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn value(&self) -> serde_json::Value {
        self.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect::<serde_json::Map<_, _>>().into()
    }

    fn is_secret(&self) -> bool {
        !self.is_empty()
    }
}

/// Replaces `${STARLING_VAR_X}` and `${CENTRIFUGO_VAR_X}` by those variables.
fn expand(text: &str, environment: &Environment) -> Result<String, Refusal> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let Some(length) = rest[start..].find('}') else { break };
        let name = &rest[start + 2..start + length];
        expanded.push_str(&rest[..start]);
        if name.starts_with("STARLING_VAR_") || name.starts_with("CENTRIFUGO_VAR_") {
            let value = environment.get(name);
            expanded.push_str(value.ok_or_else(|| Refusal::Because(format!("refers to {name}, which is not set")))?);
        } else {
            expanded.push_str(&rest[start..=start + length]);
        }
        rest = &rest[start + length + 1..];
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// Zero and the empty text are how a file says "absent".
impl<T: Take> Take for Option<T> {
    const WRITTEN: Written = T::WRITTEN;
    const SECRET: bool = T::SECRET;

    fn takes() -> String {
        T::takes()
    }

    fn take(raw: &Raw, environment: &Environment) -> Result<Self, Refusal> {
        if matches!(raw, Raw::Text(text) if text.is_empty()) {
            return Ok(None);
        }
        let value = T::take(raw, environment)?;
        Ok(if value.is_zero() { None } else { Some(value) })
    }

    fn is_zero(&self) -> bool {
        self.is_none()
    }

    fn value(&self) -> serde_json::Value {
        self.as_ref().map_or(serde_json::Value::Null, T::value)
    }

    fn is_secret(&self) -> bool {
        self.as_ref().is_some_and(T::is_secret)
    }
}

/// "`a`, `b` or `c`", for options that are one of a few words.
pub(super) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().filter(|word| !word.is_empty()).map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => "nothing".into(),
    }
}

/// What kind of value it is, without the value.
fn kind_of(raw: &Raw) -> &'static str {
    match raw {
        Raw::Null => "nothing",
        Raw::Bool(_) => "a switch",
        Raw::Int(_) | Raw::Float(_) => "the number",
        Raw::Text(_) => "such a text",
        Raw::List(_) => "a list",
        Raw::Map(_) => "a section",
    }
}
