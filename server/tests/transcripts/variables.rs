//! `{{EXPRESSION}}` in the texts of a scenario.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};

use crate::{
    json::{Json, Object},
    ports::{Port, Ports},
    scenario,
};

/// The variables of one run, shared by its steps and its backend.
pub(crate) struct Variables {
    ports: Arc<Ports>,
    values: Mutex<BTreeMap<String, Json>>,
    named_ports: Mutex<BTreeMap<String, Port>>,
}

impl Variables {
    pub(crate) fn new(ports: Arc<Ports>) -> Self {
        Self { ports, values: Mutex::default(), named_ports: Mutex::default() }
    }

    pub(crate) fn set(&self, name: &str, value: Json) {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), value);
    }

    /// The value with all expressions in it replaced, those in names of members too.
    pub(crate) fn fill(&self, value: &Json) -> Result<Json> {
        Ok(match value {
            Json::Text(text) => self.fill_text(text)?,
            Json::List(items) => Json::List(items.iter().map(|item| self.fill(item)).collect::<Result<_>>()?),
            Json::Object(object) => Json::Object(self.fill_object(object)?),
            Json::Null | Json::Bool(_) | Json::Int(_) | Json::Float(_) => value.clone(),
        })
    }

    pub(crate) fn fill_object(&self, object: &Object) -> Result<Object> {
        object.iter().map(|(name, value)| Ok((as_text(self.fill_text(name)?), self.fill(value)?))).collect()
    }

    /// Sets a variable for each captured path from the first of the candidates that has it.
    pub(crate) fn capture(&self, wanted: &Object, candidates: &[Json]) {
        for (name, path) in wanted.iter() {
            let path = path.as_str().unwrap_or_default();
            let found = candidates.iter().find_map(|candidate| candidate.dig(path)).cloned();
            self.set(name, found.unwrap_or_else(|| Json::text(format!("not-captured-{name}"))));
        }
    }

    /// The port of `{{port:NAME}}`.
    pub(crate) fn named_port(&self, name: &str) -> Result<u16> {
        let mut named = self.named_ports.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(port) = named.get(name) {
            return Ok(port.number());
        }
        let port = self.ports.take()?;
        let number = port.number();
        named.insert(name.to_owned(), port);
        Ok(number)
    }

    fn fill_text(&self, text: &str) -> Result<Json> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, expression, after)) = next_expression(rest) {
            let value = self.evaluate(expression)?;
            if before.is_empty() && after.is_empty() && out.is_empty() {
                return Ok(value);
            }
            out.push_str(before);
            out.push_str(&as_text(value));
            rest = after;
        }
        out.push_str(rest);
        Ok(Json::Text(out))
    }

    fn evaluate(&self, expression: &str) -> Result<Json> {
        if let Some(value) = self.values.lock().unwrap_or_else(PoisonError::into_inner).get(expression) {
            return Ok(value.clone());
        }
        if let Some(shift) = expression.strip_prefix("now") {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock")?.as_secs();
            let shift = if shift.is_empty() { 0 } else { shift.parse::<i64>().context("now+N or now-N")? };
            return Ok(Json::int(i128::from(now) + i128::from(shift)));
        }
        if let Some(arguments) = expression.strip_prefix("repeat:") {
            let (text, times) = arguments.split_once(':').context("repeat:TEXT:N")?;
            return Ok(Json::Text(text.repeat(times.parse()?)));
        }
        if let Some(file) = expression.strip_prefix("key:") {
            return Ok(Json::Text(key_file(file)?));
        }
        if let Some(name) = expression.strip_prefix("port:") {
            return Ok(Json::int(self.named_port(name)?));
        }
        if expression == "jwks" {
            return Ok(serde_json::from_str(&key_file("jwks.json")?)?);
        }
        bail!("no variable {expression}")
    }
}

/// Text of a file of `keys/`.
pub(crate) fn key_file(name: &str) -> Result<String> {
    let path = scenario::folder().join("keys").join(name);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// Text before the first expression, the expression, text after it.
fn next_expression(text: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    while let Some(start) = text[from..].find("{{").map(|at| from + at) {
        let inside = &text[start + 2..];
        match inside.find(['{', '}']) {
            Some(end) if end > 0 && inside[end..].starts_with("}}") => {
                return Some((&text[..start], inside[..end].trim(), &inside[end + 2..]));
            }
            Some(_) | None => from = start + 1,
        }
    }
    None
}

fn as_text(value: Json) -> String {
    match value {
        Json::Text(text) => text,
        other => other.compact(),
    }
}
