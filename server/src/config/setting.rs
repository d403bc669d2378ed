//! How a given value becomes a typed one: [`Setting`] for everything in the tree, [`Take`] for single options.

use std::time::Duration;

use super::duration;
use super::environment::Environment;
use super::given::{Given, Value};
use super::place::{Place, Step};
use super::problem::Problem;
use super::raw::Raw;
use super::shape::{Leaf, Shape, Written};

/// A part of the tree of options: a section, a list of sections or a single option.
pub(super) trait Setting {
    /// What it looks like.
    fn shape() -> Shape;

    /// Takes over what was given; what was not keeps its value. What cannot be read is reported and keeps its value
    /// too.
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

pub(super) fn leaf<T: Take>() -> Shape {
    Shape::Leaf(Leaf { takes: T::takes(), written: T::WRITTEN })
}

pub(super) fn shown<T: Take>(value: &T, place: &Place) -> Shown {
    Shown { place: place.clone(), value: value.value(), secret: value.is_secret() }
}

/// "`a`, `b` or `c`", for options that are one of a few words.
pub(super) fn one_of(words: &[&str]) -> String {
    let quote = |word: &&str| if word.is_empty() { "an empty text".into() } else { format!("\"{word}\"") };
    // The empty text comes last: it is how some options say "none of the words".
    let (empty, words): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| word.is_empty());
    let quoted: Vec<String> = words.iter().chain(&empty).map(quote).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => "nothing".into(),
    }
}

/// What kind of value it is, without the value.
pub(super) fn kind_of(raw: &Raw) -> &'static str {
    match raw {
        Raw::Null => "nothing",
        Raw::Bool(_) => "a switch",
        Raw::Int(_) | Raw::Float(_) => "the number",
        Raw::Text(_) => "such a text",
        Raw::List(_) => "a list",
        Raw::Map(_) => "a section",
    }
}
