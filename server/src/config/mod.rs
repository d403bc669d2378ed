//! The only reader of files, environment and flags: typed values with units and defaults.
//!
//! [`Config`] is the whole tree of options. Names, nesting and defaults are those of Centrifugo v6, so that its configuration
//! file starts this server. What is a sentinel there (0, an empty text, a negative interval) is an `Option` here.

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
mod support;
mod texts;
mod tree;
mod validate;
mod values;

use std::sync::LazyLock;

pub(crate) use duration::parse_with_days;
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

/// Every name in the tree, as a pattern.
fn tree_patterns() -> &'static [String] {
    static PATTERNS: LazyLock<Vec<String>> = LazyLock::new(|| tree_shape().patterns());
    &PATTERNS
}

#[cfg(test)]
#[cfg(test)]
mod tests;
