//! The only reader of files, environment and flags: typed values with units and defaults.
//!
//! [`Config`] is the whole tree of options. Names, nesting and defaults are those of Centrifugo v6, so that its
//! configuration file starts this server. What is a sentinel there (0, an empty text, a negative interval) is an
//! `Option` here.

mod duration;
mod environment;
mod given;
mod load;
mod options;
mod place;
mod problem;
mod raw;
mod setting;
mod shape;
mod single;
mod support;
mod texts;
mod tree;
mod validate;
mod values;

use std::sync::LazyLock;

pub(crate) use duration::{format as format_duration, parse_with_days};
pub use environment::Environment;
pub use load::{Explained, Loaded, Sources};
pub use problem::{Problem, Problems};
pub use raw::Format;
pub use texts::Flag;
pub use tree::*;
pub use values::{Pem, Secret};

/// The shape of the whole tree.
fn tree_shape() -> &'static shape::Shape {
    static SHAPE: LazyLock<shape::Shape> = LazyLock::new(<Config as setting::Setting>::shape);
    &SHAPE
}

/// What there is to know about an option or section before it has a value.
pub(crate) struct About {
    /// What it is, in a sentence.
    pub(crate) text: &'static str,
    /// What it takes; empty for a section.
    pub(crate) takes: &'static str,
    /// It is a switch, so that a flag for it needs no value.
    pub(crate) is_switch: bool,
}

/// What there is to know about an option or section; `None` for a name that is neither.
pub(crate) fn about(option: &str) -> Option<About> {
    let field = tree_shape().find(option)?;
    let (takes, is_switch) = match &field.shape {
        shape::Shape::Leaf(leaf) => (leaf.takes.as_str(), leaf.written == shape::Written::Switch),
        shape::Shape::Section(_) | shape::Shape::Items(_) => ("", false),
    };
    Some(About { text: field.about, takes, is_switch })
}

/// Says that there is no such option, and which one may be meant.
pub(crate) fn unknown_option(option: &str) -> String {
    format!("`{option}` is not an option. {}", shape::suggestion(&place::Place::from(option)))
}

/// Every name in the tree, as a pattern.
fn tree_patterns() -> &'static [String] {
    static PATTERNS: LazyLock<Vec<String>> = LazyLock::new(|| tree_shape().patterns());
    &PATTERNS
}

#[cfg(test)]
#[cfg(test)]
mod tests;
