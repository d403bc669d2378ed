//! The two macros that an option is declared with: [`options!`] for a section, [`words!`] for an option that is one of a few
//! words. One line gives an option its name, type, default and description, so that the struct, the list of known paths and
//! the text of `config explain` cannot drift apart.

/// Declares sections of the configuration.
///
/// `field: Type = default` is an option of the same name; without a default it is the type's own (`false`, 0, absent, empty).
/// `field as "key": Type` gives it another name in files (`type` is a keyword here); the empty key merges the fields of a
/// nested section into this one.
macro_rules! options {
    ($(
        $(#[doc = $doc:literal])+
        pub struct $name:ident {
            $( $(#[doc = $fdoc:literal])+ $field:ident $(as $key:literal)? : $ty:ty $(= $default:expr)? ),* $(,)?
        }
    )+) => { $(
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name { $( $(#[doc = $fdoc])+ pub $field: $ty, )* }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: options!(@default $($default)?), )* }
            }
        }
    )+ };
    (@default) => { Default::default() };
    (@default $default:expr) => { $default };
}

/// Declares an option that is one of a few words; `"word" | ""` lets the empty text mean this word too.
macro_rules! words {
    ($(
        $(#[$meta:meta])+
        pub enum $name:ident { $( $(#[$vmeta:meta])+ $variant:ident = $word:literal $(| $alias:literal)* ),* $(,)? }
    )+) => { $(
        $(#[$meta])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $( $(#[$vmeta])+ $variant, )* }

        impl $name {
            /// The word that stands for it in files and variables.
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }
        }
    )+ };
}

pub(crate) use {options, words};
