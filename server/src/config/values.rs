//! Types of option values that the standard library has not.

use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;

/// Text that is never printed: passwords, keys, connection strings.
///
/// Reads like a `&str`; `Debug` shows only that there is one.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Deref for Secret {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// A certificate, certificate chain or key in PEM form, and how it was given.
///
/// An option of this kind takes the PEM text itself, base64 of it, or the path of a file, tried in that order. The
/// difference matters later: files are read again when they change.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// The PEM text stood in the configuration, as it is or as base64.
    Inline(Secret),
    /// The PEM text is in this file.
    File(PathBuf),
}

impl Pem {
    /// The PEM text as it is now: of a file, its present content.
    ///
    /// # Errors
    ///
    /// Those of reading the file.
    pub fn load(&self) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Inline(text) => Ok(text.expose().as_bytes().to_vec()),
            Self::File(path) => std::fs::read(path),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("Inline(***)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}
