//! Which payloads a channel takes.

use serde::de::IgnoredAny;

use super::{Rule, Rules, Seen, refusal::Refusal};
use crate::config::DataFormat;

impl<'a> Rules<'a> {
    /// Whether the channel takes this payload (code 107 where not, for clients and the server API alike).
    ///
    /// | `publication_data_format` | taken |
    /// |---|---|
    /// | absent | any bytes, at least one |
    /// | `json` | one JSON value of any kind |
    /// | `json_object` | one JSON object |
    /// | `binary` | any bytes, none too |
    pub fn check_data(&self, data: &[u8]) -> Result<(), Refusal<'a>> {
        let rule = match self.namespace.data_format {
            None if data.is_empty() => Rule::DataIsPresent,
            None => return Ok(()),
            Some(DataFormat::Binary) => return Ok(()),
            Some(DataFormat::Json) if is_json(data) => return Ok(()),
            Some(DataFormat::Json) => Rule::DataIsJson,
            Some(DataFormat::JsonObject) if is_json(data) && starts_as_object(data) => return Ok(()),
            Some(DataFormat::JsonObject) => Rule::DataIsJsonObject,
        };
        Err(self.refusal(rule).seeing(Seen::Length(data.len())))
    }
}

/// Checks the whole text without building anything. Nesting is walked without recursion, so depth is no danger.
fn is_json(data: &[u8]) -> bool {
    std::str::from_utf8(data).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

fn starts_as_object(json: &[u8]) -> bool {
    json.trim_ascii_start().starts_with(b"{")
}
