//! Whether a tags filter is well formed.

use starling_proto::client::FilterNode;

/// What is wrong with a tags filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterProblem {
    /// `op` is none of the known ones.
    UnknownOperation,
    /// `and` or `or` without a child, or `not` without exactly one.
    WrongNumberOfNodes,
    /// A comparison without `cmp`, or with an unknown one.
    UnknownComparison,
    /// A comparison that needs `key` has none.
    NoKey,
    /// `val` or `vals` is missing, or stands where it must not.
    WrongValue,
}

impl FilterProblem {
    /// The problem in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownOperation => "op must be empty, and, or, not",
            Self::WrongNumberOfNodes => "and, or need a node; not needs exactly one",
            Self::UnknownComparison => "cmp must be eq, neq, in, nin, ex, nex, sw, ew, ct, lt, lte, gt, gte",
            Self::NoKey => "this comparison needs a key",
            Self::WrongValue => "in, nin need vals and no val; ex, nex neither; the others val and no vals",
        }
    }
}

/// Checks a filter and all its nodes. Its depth is bounded by the decoder that made it.
pub(super) fn check(node: &FilterNode) -> Result<(), FilterProblem> {
    match (node.op.as_str(), node.nodes.as_slice()) {
        ("", _) => check_comparison(node),
        ("and" | "or", []) => Err(FilterProblem::WrongNumberOfNodes),
        ("and" | "or", nodes) => nodes.iter().try_for_each(check),
        ("not", [node]) => check(node),
        ("not", _) => Err(FilterProblem::WrongNumberOfNodes),
        _ => Err(FilterProblem::UnknownOperation),
    }
}

fn check_comparison(node: &FilterNode) -> Result<(), FilterProblem> {
    let (needs_key, needs_val, needs_vals) = match node.cmp.as_str() {
        "eq" | "neq" | "sw" | "ew" | "ct" | "lt" | "lte" | "gt" | "gte" => (true, true, false),
        "in" | "nin" => (true, false, true),
        "ex" | "nex" => (false, false, false),
        _ => return Err(FilterProblem::UnknownComparison),
    };
    if needs_key && node.key.is_empty() {
        return Err(FilterProblem::NoKey);
    }
    if needs_val == node.val.is_empty() || needs_vals == node.vals.is_empty() {
        return Err(FilterProblem::WrongValue);
    }
    Ok(())
}
