//! The only reader of files, environment and flags: typed values with units and defaults.
//!
//! [`Config`] is the whole tree of options. Names, nesting and defaults are those of Centrifugo v6, so that its configuration
//! file starts this server. What is a sentinel there (0, an empty text, a negative interval) is an `Option` here.

mod options;
mod tree;
mod values;

pub use tree::*;
pub use values::{Pem, Secret};
