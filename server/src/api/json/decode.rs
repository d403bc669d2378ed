//! Reading JSON into messages by the rules of the reference server (Go's `encoding/json`):
//!
//! - members are found by name, in any case if there is no exact match; unknown ones are skipped; of equal ones the last
//!   wins, and objects and maps given twice are merged;
//! - `null` leaves a value as it is, and empties lists and maps. `null` for a whole message is an empty message;
//! - numbers are integers written as such: neither `1.0` nor `"1"`;
//! - a payload is any JSON value and kept byte for byte, `null` too.
//!
//! One difference: text must be UTF-8 with paired surrogate escapes. There such text is repaired, and a channel then has
//! another name than its publisher wrote; here it is an error.
//!
//! Nothing is copied but names and other short texts: a payload is a slice of the body.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use serde_json::value::RawValue;

/// Why a body is not what a method takes; for the log.
pub(in crate::api) type DecodeError = serde_json::Error;

/// Reads one message. Nothing but white space may follow it. Never panics, whatever the bytes.
pub(in crate::api) fn decode<T: Message>(body: &Bytes) -> Result<T, DecodeError> {
    let mut input = serde_json::Deserializer::from_slice(body);
    let mut message = T::default();
    Into { target: &mut message, body }.deserialize(&mut input)?;
    input.end()?;
    Ok(message)
}

/// Reads the next message of several, which white space may separate. `None` at the end of the body.
pub(in crate::api) fn decode_next<'de, T: Message>(
    input: &mut serde_json::Deserializer<serde_json::de::SliceRead<'de>>,
    body: &'de Bytes,
) -> Result<Option<T>, DecodeError> {
    if input.end().is_ok() {
        return Ok(None);
    }
    let mut message = T::default();
    Into { target: &mut message, body }.deserialize(&mut *input)?;
    Ok(Some(message))
}

/// A message with members.
pub(in crate::api) trait Message: Default {
    /// Index of the member of exactly this name, else of the first one that it names in another case.
    fn index(name: &str) -> Option<usize>;

    /// Reads the value of the member at `index` into place.
    fn read<'de, A: MapAccess<'de>>(&mut self, index: usize, map: &mut A, body: &Bytes) -> Result<(), A::Error>;
}

/// Declares which members a message has; fields that are not named here cannot be set by JSON.
macro_rules! message {
    ($message:ty { $($field:ident),* $(,)? }) => {
        impl $crate::api::json::decode::Message for $message {
            fn index(name: &str) -> Option<usize> {
                const NAMES: &[&str] = &[$($crate::api::json::decode::member(stringify!($field))),*];
                let exact = NAMES.iter().position(|own| *own == name);
                exact.or_else(|| NAMES.iter().position(|own| own.eq_ignore_ascii_case(name)))
            }

            #[allow(unused_variables, unused_assignments, unused_mut)]
            fn read<'de, A: serde::de::MapAccess<'de>>(
                &mut self,
                index: usize,
                map: &mut A,
                body: &bytes::Bytes,
            ) -> Result<(), A::Error> {
                let mut at = 0;
                $(
                    if index == at {
                        return map.next_value_seed($crate::api::json::decode::Into { target: &mut self.$field, body });
                    }
                    at += 1;
                )*
                map.next_value::<serde::de::IgnoredAny>().map(drop)
            }
        }
    };
}
pub(super) use message;

/// Name of a member whose field may be spelled as a raw identifier.
pub(in crate::api) const fn member(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', name @ ..] => match std::str::from_utf8(name) {
            Ok(name) => name,
            Err(_) => field,
        },
        _ => field,
    }
}

/// Reads a value into a place that may hold one already.
pub(in crate::api) struct Into<'a, T> {
    pub(in crate::api) target: &'a mut T,
    /// What the text being read is a part of, for payloads.
    pub(in crate::api) body: &'a Bytes,
}

impl<'de, T: Value> DeserializeSeed<'de> for Into<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        self.target.read_value(input, self.body)
    }
}

/// Something that a member can be.
pub(in crate::api) trait Value {
    fn read_value<'de, D: Deserializer<'de>>(&mut self, input: D, body: &Bytes) -> Result<(), D::Error>;
}

impl Value for String {
    fn read_value<'de, D: Deserializer<'de>>(&mut self, input: D, _: &Bytes) -> Result<(), D::Error> {
        input.deserialize_any(Text(self))
    }
}

impl Value for bool {
    fn read_value<'de, D: Deserializer<'de>>(&mut self, input: D, _: &Bytes) -> Result<(), D::Error> {
        input.deserialize_any(Flag(self))
    }
}

/// A payload: the text of the value as it stands in the body.
impl Value for Bytes {
    fn read_value<'de, D: Deserializer<'de>>(&mut self, input: D, body: &Bytes) -> Result<(), D::Error> {
        let raw = <&'de RawValue as serde::Deserialize>::deserialize(input)?;
        *self = body.slice_ref(raw.get().as_bytes());
        Ok(())
    }
}

macro_rules! integers {
    ($($integer:ty),*) => { $(
        impl Value for $integer {
            fn read_value<'de, D: Deserializer<'de>>(&mut self, input: D, _: &Bytes) -> Result<(), D::Error> {
                input.deserialize_any(Integer(self))
            }
        }
    )* };
}
integers!(u32, u64, i32, i64);

impl<T: Value + Default> Value for Vec<T> {
    fn read_value<'de, D: Deserializer<'de>>(&mut self, input: D, body: &Bytes) -> Result<(), D::Error> {
        input.deserialize_any(List { target: self, body })
    }
}

impl Value for BTreeMap<String, String> {
    fn read_value<'de, D: Deserializer<'de>>(&mut self, input: D, body: &Bytes) -> Result<(), D::Error> {
        input.deserialize_any(TextMap { target: self, body })
    }
}

impl<T: Message> Value for Option<T> {
    fn read_value<'de, D: Deserializer<'de>>(&mut self, input: D, body: &Bytes) -> Result<(), D::Error> {
        input.deserialize_option(Optional { target: self, body })
    }
}

impl<T: Message> Value for T {
    fn read_value<'de, D: Deserializer<'de>>(&mut self, input: D, body: &Bytes) -> Result<(), D::Error> {
        input.deserialize_any(Object { target: self, body })
    }
}

struct Text<'a>(&'a mut String);

impl<'de> Visitor<'de> for Text<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        text.clone_into(self.0);
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

struct Flag<'a>(&'a mut bool);

impl<'de> Visitor<'de> for Flag<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true or false")
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<(), E> {
        *self.0 = flag;
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

struct Integer<'a, T>(&'a mut T);

impl<'de, T: TryFrom<u64> + TryFrom<i64>> Visitor<'de> for Integer<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer in range")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        *self.0 = T::try_from(number).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))?;
        Ok(())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        *self.0 = T::try_from(number).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))?;
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

struct List<'a, T> {
    target: &'a mut Vec<T>,
    body: &'a Bytes,
}

impl<'de, T: Value + Default> Visitor<'de> for List<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.target.clear();
        loop {
            let mut element = T::default();
            match seq.next_element_seed(Into { target: &mut element, body: self.body })? {
                Some(()) => self.target.push(element),
                None => return Ok(()),
            }
        }
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.target.clear();
        Ok(())
    }
}

struct TextMap<'a> {
    target: &'a mut BTreeMap<String, String>,
    body: &'a Bytes,
}

impl<'de> Visitor<'de> for TextMap<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            let mut text = String::new();
            map.next_value_seed(Into { target: &mut text, body: self.body })?;
            self.target.insert(name, text);
        }
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.target.clear();
        Ok(())
    }
}

struct Optional<'a, T> {
    target: &'a mut Option<T>,
    body: &'a Bytes,
}

impl<'de, T: Message> Visitor<'de> for Optional<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        *self.target = None;
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        let target = self.target.get_or_insert_default();
        input.deserialize_any(Object { target, body: self.body })
    }
}

struct Object<'a, T> {
    target: &'a mut T,
    body: &'a Bytes,
}

impl<'de, T: Message> Visitor<'de> for Object<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(index) = map.next_key_seed(Name::<T>(PhantomData))? {
            match index {
                Some(index) => self.target.read(index, &mut map, self.body)?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Turns a member's name into its index without keeping the name.
struct Name<T>(PhantomData<T>);

impl<'de, T: Message> DeserializeSeed<'de> for Name<T> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_str(self)
    }
}

impl<'de, T: Message> Visitor<'de> for Name<T> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(T::index(name))
    }
}

#[cfg(test)]
mod tests {
    use starling_proto::api::{DisconnectRequest, HistoryRequest, PublishRequest};

    use super::*;

    fn publish(text: &str) -> Result<PublishRequest, String> {
        decode(&Bytes::copy_from_slice(text.as_bytes())).map_err(|error| error.to_string())
    }

    #[test]
    fn a_payload_is_a_slice_of_the_body() {
        let body = Bytes::from_static(br#"{"channel":"c", "data": { "b" : 1.50, "a":[ 1e2 ] } }"#);
        let request: PublishRequest = decode(&body).unwrap();
        assert_eq!(request.data, r#"{ "b" : 1.50, "a":[ 1e2 ] }"#);
        assert!(body.as_ptr_range().contains(&request.data.as_ptr()));
    }

    #[test]
    fn names_match_in_any_case_and_the_last_of_equal_ones_wins() {
        let request = publish(r#"{"CHANNEL":"a","Data":1,"channel":"b","mood":{"x":[1,"\ud83d\ude00"]}}"#).unwrap();
        assert_eq!((request.channel.as_str(), request.data), ("b", Bytes::from_static(b"1")));
        assert_eq!(publish(r#"{"\u0063hannel":"\u0061"}"#).unwrap().channel, "a");
    }

    #[test]
    fn null_is_a_payload_but_no_other_value() {
        let request = publish(r#"{"channel":"c","channel":null,"data":null,"tags":null,"version":null,"delta":null}"#);
        assert_eq!(request.as_ref().map(|request| request.channel.as_str()), Ok("c"));
        assert_eq!(request.map(|request| request.data), Ok(Bytes::from_static(b"null")));
        assert_eq!(publish("null"), Ok(PublishRequest::default()));
        let request: DisconnectRequest =
            decode(&Bytes::from_static(br#"{"whitelist":[null,"a"],"disconnect":null}"#)).unwrap();
        assert_eq!((request.whitelist, request.disconnect), (vec![String::new(), "a".to_owned()], None));
    }

    #[test]
    fn integers_are_integers_in_range() {
        assert_eq!(publish(r#"{"version":18446744073709551615}"#).map(|request| request.version), Ok(u64::MAX));
        for wrong in ["-1", "1.0", "1e2", "\"1\"", "18446744073709551616", "true", "[]", "{}"] {
            assert!(publish(&format!(r#"{{"version":{wrong}}}"#)).is_err(), "{wrong}");
        }
        let history: HistoryRequest =
            decode(&Bytes::from_static(br#"{"limit":-1,"since":{"offset":3},"since":{"epoch":"e"}}"#)).unwrap();
        assert_eq!(history.limit, -1);
        assert_eq!(history.since.map(|since| (since.offset, since.epoch)), Some((3, "e".to_owned())));
    }

    #[test]
    fn wrong_types_and_malformed_bodies_are_errors() {
        let wrong = [
            r#"{"channel":5}"#,
            r#"{"tags":{"a":1}}"#,
            r#"{"tags":[]}"#,
            r#"{"delta":1}"#,
            "",
            "[]",
            "\"text\"",
            r#"{"channel":"c""#,
            r#"{"channel":"c"} {}"#,
            "{\"data\":nul}",
            r#"{"channel":"\ud800"}"#,
        ];
        for text in wrong {
            assert!(publish(text).is_err(), "{text}");
        }
        assert!(decode::<PublishRequest>(&Bytes::from_static(b"{\"data\":\"\xff\"}")).is_err());
        assert!(publish(" \n{}\r\n\t ").is_ok());
    }

    #[test]
    fn deep_nesting_is_an_error_or_a_payload_but_no_overflow() {
        let deep = "[".repeat(200_000);
        assert!(publish(&deep).is_err());
        assert!(publish(&format!(r#"{{"data":{deep}"#)).is_err());
        let closed = format!("{deep}{}", "]".repeat(200_000));
        assert_eq!(publish(&format!(r#"{{"data":{closed}}}"#)).map(|request| request.data.len()), Ok(400_000));
    }
}
