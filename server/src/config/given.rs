//! What was given: a tree of values, each with where it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::place::{Place, Step};
use super::raw::{Format, Raw, line_of};

/// Where a value came from.
#[derive(Clone)]
pub(super) enum Origin {
    /// A configuration file.
    File(Arc<SourceFile>),
    /// A variable of the environment, by its full name.
    Variable(String),
    /// The command line, as it was written there.
    Flag(String),
}

/// A configuration file that was read. Kept so that a line can be named when there is something to say about it.
pub(super) struct SourceFile {
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) format: Format,
}

impl Origin {
    /// The origin of the value at `place`, for people: `config.yaml:12`, `STARLING_HEALTH_ENABLED`, `--set …`.
    pub(super) fn at(&self, place: &Place) -> String {
        match self {
            Self::File(file) => {
                let path = file.path.display();
                // The place itself may be the missing one; then the line of the section around it helps most.
                let steps = place.steps();
                let line =
                    (1..=steps.len()).rev().find_map(|length| line_of(&file.text, file.format, &steps[..length]));
                line.map_or_else(|| path.to_string(), |line| format!("{path}:{line}"))
            }
            Self::Variable(name) => name.clone(),
            Self::Flag(text) => text.clone(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.at(&Place::default()))
    }
}

/// A value and its origin. In a section that several sources added to, the origin of the section is that of the first.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// A given value; sections and lists hold given values in turn.
#[derive(Clone)]
pub(super) enum Value {
    /// Neither a list nor a section.
    Scalar(Raw),
    /// A list.
    List(Vec<Given>),
    /// A section.
    Map(BTreeMap<String, Given>),
}

impl Given {
    pub(super) fn new(raw: Raw, origin: &Origin) -> Self {
        let value = match raw {
            Raw::List(items) => Value::List(items.into_iter().map(|item| Self::new(item, origin)).collect()),
            Raw::Map(entries) => {
                Value::Map(entries.into_iter().map(|(key, value)| (key, Self::new(value, origin))).collect())
            }
            raw @ (Raw::Null | Raw::Bool(_) | Raw::Int(_) | Raw::Float(_) | Raw::Text(_)) => Value::Scalar(raw),
        };
        Self { value, origin: origin.clone() }
    }

    /// A section with nothing in it.
    pub(super) fn empty(origin: Origin) -> Self {
        Self { value: Value::Map(BTreeMap::new()), origin }
    }

    pub(super) fn raw(&self) -> Raw {
        match &self.value {
            Value::Scalar(raw) => raw.clone(),
            Value::List(items) => Raw::List(items.iter().map(Self::raw).collect()),
            Value::Map(entries) => Raw::Map(entries.iter().map(|(key, value)| (key.clone(), value.raw())).collect()),
        }
    }

    /// Nothing was written, or an explicit nothing: both leave the default.
    pub(super) fn is_null(&self) -> bool {
        matches!(self.value, Value::Scalar(Raw::Null))
    }

    pub(super) fn get(&self, step: &Step) -> Option<&Self> {
        match (&self.value, step) {
            (Value::Map(entries), Step::Key(key)) => entries.get(key).filter(|given| !given.is_null()),
            (Value::List(items), Step::Item { index, .. }) => items.get(*index),
            (Value::Map(_) | Value::List(_) | Value::Scalar(_), Step::Key(_) | Step::Item { .. }) => None,
        }
    }

    /// The value at a place, if one was given.
    pub(super) fn find(&self, place: &Place) -> Option<&Self> {
        place.steps().iter().try_fold(self, |given, step| given.get(step))
    }

    /// The value at a place, or the nearest section around it that was given: where to look for what is missing.
    pub(super) fn nearest(&self, place: &Place) -> Option<&Self> {
        let mut nearest = None;
        let mut given = self;
        for step in place.steps() {
            match given.get(step) {
                Some(inner) => given = inner,
                None => break,
            }
            nearest = Some(given);
        }
        nearest
    }

    /// Sets the value at a place. What stood there, and anything on the way that is no section, is replaced.
    pub(super) fn set(&mut self, steps: &[Step], value: Self) {
        let Some((first, rest)) = steps.split_first() else {
            *self = value;
            return;
        };
        match (first, &mut self.value) {
            (Step::Key(key), Value::Map(entries)) => {
                let origin = value.origin.clone();
                entries.entry(key.clone()).or_insert_with(|| Self::empty(origin)).set(rest, value);
            }
            (Step::Item { index, .. }, Value::List(items)) => {
                if let Some(item) = items.get_mut(*index) {
                    item.set(rest, value);
                }
            }
            (Step::Key(_), Value::Scalar(_) | Value::List(_)) => {
                *self = Self::empty(value.origin.clone());
                self.set(steps, value);
            }
            (Step::Item { .. }, Value::Scalar(_) | Value::Map(_)) => {}
        }
    }

    /// Takes away what stands at a place.
    pub(super) fn remove(&mut self, steps: &[Step]) {
        if let (Some((Step::Key(key), rest)), Value::Map(entries)) = (steps.split_first(), &mut self.value) {
            if rest.is_empty() {
                entries.remove(key);
            } else if let Some(inner) = entries.get_mut(key) {
                inner.remove(rest);
            }
        }
    }

    /// Names and indexes of the items of the list at a place.
    pub(super) fn item_names(&self, place: &Place) -> Vec<(usize, String)> {
        let Some(Self { value: Value::List(items), .. }) = self.find(place) else { return Vec::new() };
        items.iter().enumerate().filter_map(|(index, item)| Some((index, item.name()?))).collect()
    }

    /// The name of an item of a list, if it has one.
    pub(super) fn name(&self) -> Option<String> {
        match &self.get(&Step::Key("name".into()))?.value {
            Value::Scalar(Raw::Text(name)) if !name.is_empty() => Some(name.clone()),
            Value::Scalar(_) | Value::List(_) | Value::Map(_) => None,
        }
    }
}
