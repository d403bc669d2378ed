//! Readable differences between two transcripts: `-` is what the golden has, `+` what came.

use std::collections::BTreeSet;

use crate::json::Json;

/// Bytes of a value that are shown.
const SHOWN: usize = 400;

/// The differences in one entry of a transcript.
pub(crate) struct Difference {
    /// The number of the step, or nothing for what came after the last one.
    pub(crate) step: Option<usize>,
    /// The first one is the heading.
    pub(crate) lines: Vec<String>,
}

/// Members whose text is each runner's own wording.
const FREE_WORDING: [&str; 2] = ["$anomaly", "$bad_patch"];

/// Whether two values say the same.
pub(crate) fn same(expected: &Json, actual: &Json) -> bool {
    match (expected, actual) {
        (Json::Object(left), Json::Object(right)) => {
            let member =
                |(name, value)| right.get(name).is_some_and(|other| FREE_WORDING.contains(&name) || same(value, other));
            left.len() == right.len() && left.iter().all(member)
        }
        (Json::List(left), Json::List(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (expected, actual) => expected == actual,
    }
}

/// What differs, entry by entry.
pub(crate) fn transcripts(golden: &[Json], actual: &[Json]) -> Vec<Difference> {
    let mut out = Vec::new();
    for expected in golden {
        let found = actual.iter().find(|entry| identity(entry) == identity(expected));
        let mut lines = match found {
            Some(found) => values(expected, found, ""),
            None => vec![format!("- the whole step: {}", shown(expected))],
        };
        if !lines.is_empty() {
            lines.insert(0, title(expected));
            out.push(Difference { step: step_of(expected), lines });
        }
    }
    for entry in actual.iter().filter(|entry| !golden.iter().any(|expected| identity(expected) == identity(entry))) {
        let lines = vec![format!("{} is not in the golden", title(entry)), format!("+ {}", shown(entry))];
        out.push(Difference { step: step_of(entry), lines });
    }
    out
}

fn step_of(entry: &Json) -> Option<usize> {
    match entry.get("step") {
        Some(Json::Int(n)) => usize::try_from(*n).ok(),
        _ => None,
    }
}

/// What an entry is compared by: the number of its step, or whose rest it is.
fn identity(entry: &Json) -> (Option<usize>, Option<&Json>) {
    (step_of(entry), entry.get("rest"))
}

fn title(entry: &Json) -> String {
    const KINDS: [&str; 12] = [
        "open",
        "send",
        "expect",
        "quiet",
        "expect_close",
        "http",
        "api",
        "grpc",
        "expect_backend",
        "server",
        "start",
        "rest",
    ];
    let kind = KINDS.iter().find_map(|kind| Some((kind, entry.get(kind)?)));
    let what = kind.map_or_else(String::new, |(kind, value)| {
        format!("{kind} {}", value.as_str().map_or_else(|| value.compact(), str::to_owned))
    });
    match step_of(entry) {
        Some(step) => format!("step {step} ({what})"),
        None => format!("afterwards ({what})"),
    }
}

fn values(expected: &Json, actual: &Json, path: &str) -> Vec<String> {
    if same(expected, actual) {
        return Vec::new();
    }
    match (expected, actual) {
        (Json::Object(left), Json::Object(right)) => {
            let names: BTreeSet<_> = left.iter().chain(right.iter()).map(|(name, _)| name).collect();
            let mut out = Vec::new();
            for name in names {
                let place = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                match (left.get(name), right.get(name)) {
                    (Some(_), Some(_)) if FREE_WORDING.contains(&name) => {}
                    (Some(left), Some(right)) => out.extend(values(left, right, &place)),
                    (Some(left), None) => out.push(format!("- {place}: {}", shown(left))),
                    (None, Some(right)) => out.push(format!("+ {place}: {}", shown(right))),
                    (None, None) => {}
                }
            }
            out
        }
        (Json::List(left), Json::List(right)) if left.len() == right.len() => {
            let pairs = left.iter().zip(right).enumerate();
            pairs.flat_map(|(i, (left, right))| values(left, right, &format!("{path}[{i}]"))).collect()
        }
        (Json::List(left), Json::List(right)) => lists(left, right, path),
        (expected, actual) => vec![format!("- {path}: {}", shown(expected)), format!("+ {path}: {}", shown(actual))],
    }
}

/// Elements that are in one list only, by the longest common subsequence.
fn lists(left: &[Json], right: &[Json], path: &str) -> Vec<String> {
    // common[i][j]: how many elements the lists from i and from j on have in common.
    let mut common = vec![vec![0; right.len() + 1]; left.len() + 1];
    for i in (0..left.len()).rev() {
        for j in (0..right.len()).rev() {
            common[i][j] = match same(&left[i], &right[j]) {
                true => common[i + 1][j + 1] + 1,
                false => common[i + 1][j].max(common[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while i < left.len() || j < right.len() {
        if i < left.len() && j < right.len() && same(&left[i], &right[j]) {
            (i, j) = (i + 1, j + 1);
        } else if j == right.len() || (i < left.len() && common[i + 1][j] >= common[i][j + 1]) {
            out.push(format!("- {path}[{i}]: {}", shown(&left[i])));
            i += 1;
        } else {
            out.push(format!("+ {path}[{j}]: {}", shown(&right[j])));
            j += 1;
        }
    }
    out
}

fn shown(value: &Json) -> String {
    let text = value.canonical();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text,
    }
}
