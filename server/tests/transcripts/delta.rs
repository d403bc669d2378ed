//! Publications on a subscription with delta compression.
//!
//! An encoder may choose other copies than the reference encoder does and still be right, so patches are applied, not
//! compared: what is recorded is the payload that a client ends up with, and whether it came whole or as a patch.

use anyhow::{Context, Result, bail, ensure};

use crate::{
    json::{Json, Object},
    message::{payload_bytes, show_payload},
};

/// Follows one channel of one client and rewrites its publications.
pub(crate) struct Tracker {
    channel: String,
    json_protocol: bool,
    base: Option<Vec<u8>>,
}

impl Tracker {
    pub(crate) fn new(channel: String, json_protocol: bool) -> Self {
        Self { channel, json_protocol, base: None }
    }

    pub(crate) fn message(&mut self, message: &mut Object) {
        if message.get("push").is_some_and(|push| push.as_object().is_some()) {
            self.push(message.object_mut("push"));
        } else {
            self.push(message);
        }
        if let Some(result) = message.get_mut("subscribe").and_then(Json::as_object_mut) {
            self.subscribed(result);
        }
        let subs = message.get_mut("connect").and_then(Json::as_object_mut).and_then(|connect| connect.get_mut("subs"));
        let subs = subs.and_then(Json::as_object_mut);
        if let Some(result) = subs.and_then(|subs| subs.get_mut(&self.channel)).and_then(Json::as_object_mut) {
            self.subscribed(result);
        }
    }

    fn push(&mut self, push: &mut Object) {
        if push.get("channel").and_then(Json::as_str) == Some(self.channel.as_str())
            && let Some(publication) = push.get_mut("pub").and_then(Json::as_object_mut)
        {
            self.publication(publication);
        }
    }

    fn subscribed(&mut self, result: &mut Object) {
        if result.get("delta") != Some(&Json::Bool(true)) {
            return;
        }
        if result.get("recovered") != Some(&Json::Bool(true)) {
            self.base = None;
        }
        if let Some(Json::List(publications)) = result.get_mut("publications") {
            for publication in publications.iter_mut().filter_map(Json::as_object_mut) {
                self.publication(publication);
            }
        }
    }

    fn publication(&mut self, publication: &mut Object) {
        let data = self.followed(publication).unwrap_or_else(|shown| shown);
        publication.insert("data", data);
    }

    /// What `data` becomes; as an error when that says that something is wrong.
    fn followed(&mut self, publication: &Object) -> Result<Json, Json> {
        let shown = publication.get("data").cloned().unwrap_or(Json::Null);
        let bytes = if self.json_protocol { string_of(&shown)?.into_bytes() } else { bytes_of(&shown) };
        if publication.get("delta") != Some(&Json::Bool(true)) {
            let payload = show_payload(&bytes);
            self.base = Some(bytes);
            return Ok(if self.json_protocol { Json::object([("$string", payload)]) } else { payload });
        }
        let Some(base) = &self.base else {
            return Err(Json::object([("$patch_without_base", Json::Bool(true))]));
        };
        let patched = apply(base, &bytes).map_err(|e| Json::object([("$bad_patch", Json::Text(e.to_string()))]))?;
        let payload = show_payload(&patched);
        self.base = Some(patched);
        Ok(Json::object([("$patch", payload)]))
    }
}

/// The content of a JSON string in its recorded form.
fn string_of(shown: &Json) -> Result<String, Json> {
    let raw = shown.get("$raw").and_then(Json::as_str);
    let value = raw.and_then(|text| serde_json::from_str::<Json>(text).ok());
    match value.as_ref().unwrap_or(shown) {
        Json::Text(text) => Ok(text.clone()),
        _ => Err(Json::object([("$not_a_string", shown.clone())])),
    }
}

fn bytes_of(shown: &Json) -> Vec<u8> {
    if *shown == Json::Null {
        return Vec::new();
    }
    payload_bytes(shown).unwrap_or_default()
}

/// Applies a Fossil patch; its length and checksum must be right.
fn apply(base: &[u8], patch: &[u8]) -> Result<Vec<u8>> {
    let mut patch = Patch(patch);
    let size = patch.number()?;
    ensure!(patch.mark()? == b'\n', "no newline after the size");
    let mut out: Vec<u8> = Vec::new();
    loop {
        let count = patch.number()?;
        match patch.mark()? {
            b'@' => {
                let start = patch.number()?;
                ensure!(patch.mark()? == b',', "no comma after a copy");
                out.extend_from_slice(
                    base.get(start..).and_then(|b| b.get(..count)).context("a copy beyond the base")?,
                );
            }
            b':' => {
                let (inserted, rest) = patch.0.split_at_checked(count).context("an insert beyond the patch")?;
                out.extend_from_slice(inserted);
                patch.0 = rest;
            }
            b';' => {
                ensure!(out.len() == size, "{} bytes, not {size}", out.len());
                ensure!(checksum(&out) == count, "the checksum is another");
                return Ok(out);
            }
            other => bail!("no operation {:?}", char::from(other)),
        }
    }
}

/// Sum of the big-endian words, the last one filled up with zeros.
fn checksum(bytes: &[u8]) -> usize {
    let words = bytes.chunks(4).map(|word| (0..4).fold(0, |sum, i| sum << 8 | u32::from(*word.get(i).unwrap_or(&0))));
    words.fold(0, u32::wrapping_add) as usize
}

/// What is left of a patch.
struct Patch<'a>(&'a [u8]);

impl Patch<'_> {
    fn number(&mut self) -> Result<usize> {
        const DIGITS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";
        let (mut value, mut length) = (0_usize, 0);
        while let Some(digit) = self.0.get(length).and_then(|byte| DIGITS.iter().position(|d| d == byte)) {
            value = value.checked_mul(64).context("a number too large")? + digit;
            length += 1;
        }
        ensure!(length > 0, "a digit expected");
        self.0 = &self.0[length..];
        Ok(value)
    }

    fn mark(&mut self) -> Result<u8> {
        let (mark, rest) = self.0.split_first().context("the patch ends early")?;
        self.0 = rest;
        Ok(*mark)
    }
}
