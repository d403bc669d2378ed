//! Values that come as texts, from variables and flags: which option a name means, and what the text is for that
//! option.

use std::fmt;

use super::environment::Environment;
use super::given::{Given, Origin};
use super::place::{Place, Step};
use super::problem::Problem;
use super::raw::{Format, Raw, parse};
use super::shape::{Field, Shape, Written, nearest, suggestion};
use super::{tree_patterns, tree_shape};

/// A value on the command line.
#[derive(Clone, PartialEq, Eq)]
pub struct Flag {
    /// Path of the option. An item of a list goes by its name: `channel.namespaces.chat.presence`.
    pub option: String,
    /// The value, written as in a variable.
    pub value: String,
    /// How it was written, for messages and without the value, which may be a secret: `--http_server.port`.
    pub written: String,
}

impl fmt::Debug for Flag {
    /// Without the value, which may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flag").field("option", &self.option).finish_non_exhaustive()
    }
}

/// Prefixes of our variables; of one name with both, the last counts.
const PREFIXES: [&str; 2] = ["CENTRIFUGO_", "STARLING_"];

/// Adds what the variables say to `given`. Reports those with our prefixes that mean no option.
pub(super) fn apply_variables(environment: &Environment, given: &mut Given, problems: &mut Vec<Problem>) {
    let shape = tree_shape();
    let names = tree_patterns().iter().map(|pattern| (variable_name(pattern), pattern.as_str()));
    let names: Vec<(String, &str)> = names.filter(|(_, pattern)| !pattern.contains("[]")).collect();
    let mut of_items = Vec::new();
    for prefix in PREFIXES {
        for (variable, value) in environment.iter() {
            let Some(name) = variable.strip_prefix(prefix) else { continue };
            if name.starts_with("VAR_") || looks_like_kubernetes_service(name, value) {
                continue;
            }
            let field = names.iter().find(|(known, _)| known == name).and_then(|(_, pattern)| {
                let field = shape.find(pattern).filter(|field| !matches!(field.shape, Shape::Section(_)))?;
                Some((Place::from(*pattern), field))
            });
            match field {
                Some((place, field)) => set(given, &place, field, value, Origin::Variable(variable.into()), problems),
                None => of_items.push((variable, name, value)),
            }
        }
    }
    // Only now are all lists there, so that items can be found by their names.
    for (variable, name, value) in of_items {
        match item_option(shape, given, name) {
            ItemOption::One(place, field) => {
                set(given, &place, &field, value, Origin::Variable(variable.into()), problems);
            }
            ItemOption::Several(places) => {
                let text = format!("could mean {}; use the file for these", places.join(" or "));
                problems.push(Problem::at(variable, text));
            }
            ItemOption::NoSuchItem { list, item } => {
                let text = format!("`{list}` has no item that is called {item}; an item must be in the list first");
                problems.push(Problem::at(variable, text));
            }
            ItemOption::None => {
                let prefix = variable.strip_suffix(name).unwrap_or_default();
                let known: Vec<String> = names
                    .iter()
                    .filter(|(_, pattern)| !matches!(shape.find(pattern).map(|f| &f.shape), Some(Shape::Section(_))))
                    .map(|(name, _)| name.clone())
                    .collect();
                let text = format!("no option has this variable. Did you mean {prefix}{}?", nearest(&known, name));
                problems.push(Problem::at(variable, text));
            }
        }
    }
}

/// Adds what the flags say to `given`, in their order.
pub(super) fn apply_flags(flags: &[Flag], given: &mut Given, problems: &mut Vec<Problem>) {
    for flag in flags {
        match resolve(given, &flag.option) {
            Ok((place, field)) => {
                set(given, &place, field, &flag.value, Origin::Flag(flag.written.clone()), problems);
            }
            Err(text) => problems.push(Problem::at(flag.written.clone(), text)),
        }
    }
}

fn set(given: &mut Given, place: &Place, field: &Field, text: &str, origin: Origin, problems: &mut Vec<Problem>) {
    match read_text(text, &field.shape) {
        Ok(raw) => {
            let value = Given::new(raw, &origin);
            field.shape.check(&value, &mut place.clone(), problems);
            given.set(place.steps(), value);
        }
        Err(reason) => problems.push(Problem {
            place: Some(place.clone()),
            origin: origin.at(place),
            text: format!("`{place}` {reason}"),
        }),
    }
}

/// What a text says, given what the option takes: the type decides, nothing is guessed from the looks of the text.
fn read_text(text: &str, shape: &Shape) -> Result<Raw, String> {
    let written = match shape {
        Shape::Leaf(leaf) => leaf.written,
        Shape::Items(_) => Written::Map,
        Shape::Section(_) => return Err("is a section of options; set one of them".into()),
    };
    match written {
        Written::Text => Ok(Raw::Text(text.into())),
        Written::Switch => Ok(switch(text).map_or_else(|| Raw::Text(text.into()), Raw::Bool)),
        Written::Number => Ok(number(text).map_or_else(|| Raw::Text(text.into()), Raw::Int)),
        Written::List => Ok(Raw::List(text.split_whitespace().map(|item| Raw::Text(item.into())).collect())),
        Written::Map => parse(text, Format::Json)
            .map_err(|error| format!("is written in JSON here, and this is not: {}", error.message)),
    }
}

/// The words that Go takes for a switch.
fn switch(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A whole number, decimal or with `0x`, `0o`, `0b`.
fn number(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (digits, radix) = match digits.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => (&digits[2..], 16),
        Some("0o") => (&digits[2..], 8),
        Some("0b") => (&digits[2..], 2),
        Some(_) | None => (digits, 10),
    };
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let number = i128::from_str_radix(digits, radix).ok()?;
    Some(if negative { -number } else { number })
}

/// `client.token.audience` is `CLIENT_TOKEN_AUDIENCE`, after a prefix.
pub(super) fn variable_name(pattern: &str) -> String {
    pattern.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// Kubernetes puts the addresses of a service called `starling` or `starling-grpc-api` into the environment of every
/// pod. Such a variable may even have the name of an option (`STARLING_GRPC_API_PORT=tcp://10.0.0.7:10000`).
fn looks_like_kubernetes_service(name: &str, value: &str) -> bool {
    let parts: Vec<&str> = name.split('_').collect();
    if parts.last() == Some(&"PORT") && ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme)) {
        return true;
    }
    parts.windows(2).any(|pair| match pair {
        ["SERVICE", "HOST" | "PORT"] => true,
        ["PORT", number] => !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()),
        _ => false,
    })
}

enum ItemOption {
    One(Place, Field),
    Several(Vec<String>),
    NoSuchItem { list: String, item: String },
    None,
}

/// The option of an item of a list that a variable means: `CHANNEL_NAMESPACES_CHAT_PRESENCE`.
fn item_option(shape: &Shape, given: &Given, name: &str) -> ItemOption {
    let mut found = Vec::new();
    let mut missing = None;
    shape.walk("", &mut |pattern, field| {
        let Shape::Items(fields) = &field.shape else { return };
        let Some(rest) = name.strip_prefix(&format!("{}_", variable_name(pattern))) else { return };
        let list = Place::from(pattern);
        let section = Shape::Section(fields.clone());
        section.walk("", &mut |inner, field| {
            if matches!(field.shape, Shape::Section(_)) || inner.contains("[]") {
                return;
            }
            let Some(item) = rest.strip_suffix(&format!("_{}", variable_name(inner))) else { return };
            for (index, item_name) in given.item_names(&list) {
                if variable_name(&item_name) == item {
                    let mut place = list.item(index, Some(&item_name));
                    Place::from(inner).steps().iter().for_each(|step| place.push(step.clone()));
                    found.push((place, field.clone()));
                }
            }
            // Of `A_HISTORY_SIZE` the longest option leaves the shortest name.
            if missing.as_ref().is_none_or(|(_, known): &(String, String)| item.len() < known.len()) {
                missing = Some((pattern.to_owned(), item.to_owned()));
            }
        });
    });
    match (found.len(), found.pop(), missing) {
        (1, Some((place, field)), _) => ItemOption::One(place, field),
        (2.., Some((last, _)), _) => {
            let places = found.iter().map(|(place, _)| place).chain([&last]).map(|place| format!("`{place}`"));
            ItemOption::Several(places.collect())
        }
        (_, _, Some((list, item))) => ItemOption::NoSuchItem { list, item },
        (_, _, None) => ItemOption::None,
    }
}

/// The place and field that a path on the command line means.
fn resolve(given: &Given, path: &str) -> Result<(Place, &'static Field), String> {
    let mut place = Place::default();
    let mut shape = tree_shape();
    let mut rest = path;
    loop {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        place.push(Step::Key(key.into()));
        let fields = match shape {
            Shape::Section(fields) | Shape::Items(fields) => fields.as_slice(),
            Shape::Leaf(_) => &[],
        };
        let Some(field) = fields.iter().find(|field| field.name == key) else {
            let mut wrong = place.clone();
            Place::from(after).steps().iter().for_each(|step| wrong.push(step.clone()));
            return Err(format!("`{path}` is not an option. {}", suggestion(&wrong)));
        };
        if after.is_empty() {
            return Ok((place, field));
        }
        rest = if let Shape::Items(_) = field.shape {
            let (item, after) = item_of(given, &place, after)
                .ok_or_else(|| format!("`{path}`: `{place}` has no such item; an item must be in the list first"))?;
            place.push(item);
            after
        } else {
            after
        };
        let Some(next) = rest.strip_prefix('.') else {
            return Err(format!("`{path}` is not the path of an option"));
        };
        rest = next;
        shape = &field.shape;
    }
}

/// The item of the list at `place` that `.name…` or `[name]…` begins with, and what comes after it.
fn item_of<'a>(given: &Given, place: &Place, text: &'a str) -> Option<(Step, &'a str)> {
    let names = given.item_names(place);
    let step = |index: usize, name: &str| Step::Item { index, name: Some(name.into()) };
    if let Some(inner) = text.strip_prefix('[') {
        let (name, after) = inner.split_once(']')?;
        let (index, name) = names.iter().find(|(_, known)| known == name)?;
        return Some((step(*index, name), after));
    }
    // A name may have dots in it: the longest that fits is meant.
    let text = text.strip_prefix('.')?;
    let fits =
        names.iter().filter(|(_, name)| text.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('.')));
    let (index, name) = fits.max_by_key(|(_, name)| name.len())?;
    Some((step(*index, name), &text[name.len()..]))
}
