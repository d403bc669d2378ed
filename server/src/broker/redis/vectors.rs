//! Recorded data of a real Centrifugo on Redis, for the tests of this room (`tests/vectors/redis/README.md`).

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde_json::Value;

/// Content of a file of recorded data.
pub(crate) fn file(name: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/redis").join(name);
    serde_json::from_slice(&std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

/// The case called `name` in a list of cases.
pub(crate) fn case<'a>(file: &'a Value, name: &str) -> &'a Value {
    let cases = file["cases"].as_array().unwrap();
    cases.iter().find(|case| case["name"] == name).unwrap_or_else(|| panic!("no case {name}"))
}

/// Bytes of a recorded value: readable text stands as text, anything else as `{"base64": ...}`; absent is empty.
pub(crate) fn bytes(value: &Value) -> Bytes {
    match value {
        Value::Null => Bytes::new(),
        Value::String(text) => Bytes::from(text.clone()),
        other => base64(&other["base64"]),
    }
}

/// Bytes of a recorded base64 text.
pub(crate) fn base64(value: &Value) -> Bytes {
    BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap().into()
}
