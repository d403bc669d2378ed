//! What is wrong with a configuration, said so that it can be put right.

use std::fmt;

use super::given::Given;
use super::place::Place;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The option it is about, if it is about one.
    pub(super) place: Option<Place>,
    /// Where the value came from; empty if it was not given at all.
    pub(super) origin: String,
    /// What is wrong, in a sentence.
    pub(super) text: String,
}

impl Problem {
    /// Something is wrong with a given value.
    pub(super) fn new(given: &Given, place: &Place, text: impl Into<String>) -> Self {
        Self { place: Some(place.clone()), origin: given.origin.at(place), text: text.into() }
    }

    /// Something is wrong at an origin that is no option's value.
    pub(super) fn at(origin: impl Into<String>, text: impl Into<String>) -> Self {
        Self { place: None, origin: origin.into(), text: text.into() }
    }

    /// The path of the option it is about, if it is about one.
    pub fn option(&self) -> Option<String> {
        self.place.as_ref().map(Place::to_string)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.origin.is_empty() { f.write_str(&self.text) } else { write!(f, "{}: {}", self.origin, self.text) }
    }
}

/// Everything that is wrong with a configuration. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub(super) Vec<Problem>);

impl Problems {
    /// The problems, in the order they are best read.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    /// One problem a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
