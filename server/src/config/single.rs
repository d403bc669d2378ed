//! The types of single options: what each takes and how it is read.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;

use super::duration;
use super::environment::Environment;
use super::raw::Raw;
use super::setting::{Refusal, Take, kind_of, single};
use super::shape::Written;
use super::values::{Pem, Secret};

single!(
    bool, u16, u32, u64, usize, i64, String, Secret, Pem, PathBuf, Duration, Vec<String>, BTreeMap<String, String>,
    Option<T> where T,
);

impl Take for bool {
    const WRITTEN: Written = Written::Switch;
    const SECRET: bool = false;

    fn takes() -> String {
        "true or false".into()
    }

    fn take(raw: &Raw, _: &Environment) -> Result<Self, Refusal> {
        match raw {
            Raw::Bool(value) => Ok(*value),
            // Templates often put quotes around everything.
            Raw::Text(text) if text == "true" => Ok(true),
            Raw::Text(text) if text == "false" => Ok(false),
            Raw::Null | Raw::Int(_) | Raw::Float(_) | Raw::Text(_) | Raw::List(_) | Raw::Map(_) => Err(Refusal::Type),
        }
    }

    fn is_zero(&self) -> bool {
        !*self
    }

    fn value(&self) -> serde_json::Value {
        (*self).into()
    }
}

macro_rules! number {
    ($($ty:ty),+) => { $(
        impl Take for $ty {
            const WRITTEN: Written = Written::Number;
            const SECRET: bool = false;

            fn takes() -> String {
                format!("a whole number from {} to {}", <$ty>::MIN, <$ty>::MAX)
            }

            fn take(raw: &Raw, _: &Environment) -> Result<Self, Refusal> {
                let number = match raw {
                    Raw::Int(number) => Some(*number),
                    Raw::Text(text) => text.parse().ok(),
                    Raw::Null | Raw::Bool(_) | Raw::Float(_) | Raw::List(_) | Raw::Map(_) => None,
                };
                number.and_then(|number| number.try_into().ok()).ok_or(Refusal::Type)
            }

            fn is_zero(&self) -> bool {
        *self == 0
    }

            fn value(&self) -> serde_json::Value {
                (*self).into()
            }
        }
    )+ };
}

number!(u16, u32, u64, usize, i64);

impl Take for String {
    const WRITTEN: Written = Written::Text;
    const SECRET: bool = false;

    fn takes() -> String {
        "a text".into()
    }

    fn take(raw: &Raw, _: &Environment) -> Result<Self, Refusal> {
        match raw {
            Raw::Text(text) => Ok(text.clone()),
            Raw::Bool(_) | Raw::Int(_) | Raw::Float(_) => Err(Refusal::Because(format!(
                "takes a text: put {} in quotes, so that it stays as it is written",
                kind_of(raw)
            ))),
            Raw::Null | Raw::List(_) | Raw::Map(_) => Err(Refusal::Type),
        }
    }

    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn value(&self) -> serde_json::Value {
        self.as_str().into()
    }
}

impl Take for Secret {
    const WRITTEN: Written = Written::Text;
    const SECRET: bool = true;

    fn takes() -> String {
        String::takes()
    }

    fn take(raw: &Raw, environment: &Environment) -> Result<Self, Refusal> {
        String::take(raw, environment).map(Self::new)
    }

    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn value(&self) -> serde_json::Value {
        self.expose().into()
    }
}

impl Take for PathBuf {
    const WRITTEN: Written = Written::Text;
    const SECRET: bool = false;

    fn takes() -> String {
        "a path".into()
    }

    fn take(raw: &Raw, environment: &Environment) -> Result<Self, Refusal> {
        String::take(raw, environment).map(Self::from)
    }

    fn is_zero(&self) -> bool {
        self.as_os_str().is_empty()
    }

    fn value(&self) -> serde_json::Value {
        self.to_string_lossy().into_owned().into()
    }
}

impl Take for Pem {
    const WRITTEN: Written = Written::Text;
    const SECRET: bool = true;

    fn takes() -> String {
        "PEM, base64 of PEM, or a path".into()
    }

    fn take(raw: &Raw, environment: &Environment) -> Result<Self, Refusal> {
        let text = String::take(raw, environment)?;
        if text.contains("-----BEGIN ") {
            return Ok(Self::Inline(Secret::new(text)));
        }
        let joined: String = text.split_whitespace().collect();
        let decoded = base64::engine::general_purpose::STANDARD.decode(joined).ok();
        match decoded.and_then(|bytes| String::from_utf8(bytes).ok()) {
            Some(decoded) if decoded.contains("-----BEGIN ") => Ok(Self::Inline(Secret::new(decoded))),
            Some(_) | None => Ok(Self::File(text.into())),
        }
    }

    fn is_zero(&self) -> bool {
        false
    }

    fn value(&self) -> serde_json::Value {
        match self {
            Self::Inline(text) => text.expose().into(),
            Self::File(path) => path.value(),
        }
    }

    fn is_secret(&self) -> bool {
        match self {
            Self::Inline(_) => true,
            Self::File(_) => false,
        }
    }
}

impl Take for Duration {
    const WRITTEN: Written = Written::Text;
    const SECRET: bool = false;

    fn takes() -> String {
        "a duration such as 25s or 1m30s".into()
    }

    fn take(raw: &Raw, _: &Environment) -> Result<Self, Refusal> {
        match raw {
            Raw::Int(0) => Ok(Self::ZERO),
            Raw::Text(text) => match duration::parse(text) {
                Some(duration) if duration.negative => Err(Refusal::Because("takes no negative duration".into())),
                Some(duration) => Ok(duration.length),
                None => Err(Refusal::Type),
            },
            Raw::Null | Raw::Bool(_) | Raw::Int(_) | Raw::Float(_) | Raw::List(_) | Raw::Map(_) => Err(Refusal::Type),
        }
    }

    fn is_zero(&self) -> bool {
        Self::is_zero(self)
    }

    fn value(&self) -> serde_json::Value {
        duration::format(*self).into()
    }
}

impl Take for Vec<String> {
    const WRITTEN: Written = Written::List;
    const SECRET: bool = false;

    fn takes() -> String {
        "a list of texts".into()
    }

    fn take(raw: &Raw, environment: &Environment) -> Result<Self, Refusal> {
        match raw {
            Raw::List(items) => items.iter().map(|item| String::take(item, environment)).collect(),
            // One text is a list too, as in a variable.
            Raw::Text(text) => Ok(text.split_whitespace().map(Into::into).collect()),
            Raw::Null | Raw::Bool(_) | Raw::Int(_) | Raw::Float(_) | Raw::Map(_) => Err(Refusal::Type),
        }
    }

    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn value(&self) -> serde_json::Value {
        self.as_slice().into()
    }
}

impl Take for BTreeMap<String, String> {
    const WRITTEN: Written = Written::Map;
    // Headers and metadata for a backend are where its credentials are.
    const SECRET: bool = true;

    fn takes() -> String {
        "a section of texts, or a list of sections with `key` and `value`".into()
    }

    fn take(raw: &Raw, environment: &Environment) -> Result<Self, Refusal> {
        let mut map = Self::new();
        match raw {
            Raw::Map(entries) => {
                for (key, value) in entries {
                    map.insert(key.clone(), expand(&String::take(value, environment)?, environment)?);
                }
            }
            Raw::List(entries) => {
                for entry in entries {
                    let Raw::Map(entry) = entry else { return Err(Refusal::Type) };
                    let part = |name: &str| entry.iter().find(|(key, _)| key == name).map(|(_, value)| value);
                    let (Some(key), Some(value), 2) = (part("key"), part("value"), entry.len()) else {
                        return Err(Refusal::Type);
                    };
                    let value = expand(&String::take(value, environment)?, environment)?;
                    map.insert(String::take(key, environment)?, value);
                }
            }
            Raw::Null | Raw::Bool(_) | Raw::Int(_) | Raw::Float(_) | Raw::Text(_) => return Err(Refusal::Type),
        }
        Ok(map)
    }

    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn value(&self) -> serde_json::Value {
        self.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect::<serde_json::Map<_, _>>().into()
    }

    fn is_secret(&self) -> bool {
        !self.is_empty()
    }
}

/// Replaces `${STARLING_VAR_X}` and `${CENTRIFUGO_VAR_X}` by those variables.
fn expand(text: &str, environment: &Environment) -> Result<String, Refusal> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let Some(length) = rest[start..].find('}') else { break };
        let name = &rest[start + 2..start + length];
        expanded.push_str(&rest[..start]);
        if name.starts_with("STARLING_VAR_") || name.starts_with("CENTRIFUGO_VAR_") {
            let value = environment.get(name);
            expanded.push_str(value.ok_or_else(|| Refusal::Because(format!("refers to {name}, which is not set")))?);
        } else {
            expanded.push_str(&rest[start..=start + length]);
        }
        rest = &rest[start + length + 1..];
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// Zero and the empty text are how a file says "absent".
impl<T: Take> Take for Option<T> {
    const WRITTEN: Written = T::WRITTEN;
    const SECRET: bool = T::SECRET;

    fn takes() -> String {
        T::takes()
    }

    fn take(raw: &Raw, environment: &Environment) -> Result<Self, Refusal> {
        if matches!(raw, Raw::Text(text) if text.is_empty()) {
            return Ok(None);
        }
        let value = T::take(raw, environment)?;
        Ok(if value.is_zero() { None } else { Some(value) })
    }

    fn is_zero(&self) -> bool {
        self.is_none()
    }

    fn value(&self) -> serde_json::Value {
        self.as_ref().map_or(serde_json::Value::Null, T::value)
    }

    fn is_secret(&self) -> bool {
        self.as_ref().is_some_and(T::is_secret)
    }
}
