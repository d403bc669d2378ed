//! The two macros that an option is declared with: [`options!`] for a section, [`words!`] for an option that is one of
//! a few words. One line gives an option its name, type, default and description, so that the struct, the list of known
//! names, the reading and the text of `config explain` cannot drift apart.

/// Declares sections of the configuration.
///
/// `field: Type = default => rule` is an option of the same name. Without a default it is the type's own (`false`, 0,
/// absent, empty), without a rule it is read in the usual way (`setting::plain`). `field as "key": Type` gives it
/// another name in files (`type` is a keyword here); the empty key merges the fields of a nested section into this one.
macro_rules! options {
    ($(
        $(#[doc = $doc:literal])+
        pub struct $name:ident {
            $(
                $(#[doc = $about:literal])+
                $field:ident $(as $key:literal)? : $ty:ty $(= $default:expr)? $(=> $rule:ident)?
            ),*
            $(,)?
        }
    )+) => { $(
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name { $( $(#[doc = $about])+ pub $field: $ty, )* }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: options!(@default $($default)?), )* }
            }
        }

        impl $crate::config::setting::Setting for $name {
            fn shape() -> $crate::config::shape::Shape {
                $crate::config::shape::section(vec![ $( $crate::config::shape::Field {
                    name: options!(@key $field $($key)?),
                    about: concat!($($about),+).trim_ascii_start(),
                    shape: <$ty as $crate::config::setting::Setting>::shape(),
                }, )* ])
            }

            fn read(&mut self, given: &$crate::config::given::Given, reader: &mut $crate::config::setting::Reader<'_>) {
                $( reader.field(given, options!(@key $field $($key)?), |given, reader| {
                    options!(@read self.$field, given, reader $(, $rule)?);
                }); )*
            }

            fn show(&self, place: &$crate::config::place::Place, list: &mut Vec<$crate::config::setting::Shown>) {
                $(
                    let key = options!(@key $field $($key)?);
                    if key.is_empty() { self.$field.show(place, list) } else { self.$field.show(&place.key(key), list) }
                )*
            }
        }
    )+ };
    (@default) => { Default::default() };
    (@default $default:expr) => { $default };
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
    (@read $slot:expr, $given:ident, $reader:ident) => { $slot.read($given, $reader) };
    (@read $slot:expr, $given:ident, $reader:ident, $rule:ident) => {
        $reader.take(&mut $slot, $given, $crate::config::setting::$rule)
    };
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

        impl $crate::config::setting::Take for $name {
            const WRITTEN: $crate::config::shape::Written = $crate::config::shape::Written::Text;
            const SECRET: bool = false;

            fn takes() -> String {
                $crate::config::setting::one_of(&[$($word),*])
            }

            fn take(
                raw: &$crate::config::raw::Raw,
                _: &$crate::config::environment::Environment,
            ) -> Result<Self, $crate::config::setting::Refusal> {
                match raw {
                    $( $crate::config::raw::Raw::Text(text) if [$word $(, $alias)*].contains(&text.as_str()) => {
                        Ok(Self::$variant)
                    } )*
                    _ => Err($crate::config::setting::Refusal::Type),
                }
            }

            fn is_zero(&self) -> bool {
                false
            }

            fn value(&self) -> serde_json::Value {
                self.as_str().into()
            }
        }

        $crate::config::setting::single!($name);
    )+ };
}

pub(super) use {options, words};
