//! Which publications a subscriber wants, by their tags.
//!
//! A client may send a filter with its subscribe command (`tf`), a tree of comparisons joined by `and`, `or` and `not`.
//! [`Filter::compile`] checks it once; [`Filter::matches`] then answers for each publication without allocating.
//!
//! ```text
//! node        op ""           one comparison: key, cmp, val or vals
//!             op and, or      nodes, at least one
//!             op not          nodes, exactly one
//! cmp         needs           holds when the tag                                        without the tag
//! eq          key, val        is val                                                    no
//! neq         key, val        is not val                                                yes
//! in          key, vals       is one of vals                                            if "" is in vals
//! nin         key, vals       is none of vals                                           unless "" is in vals
//! ex          -               is there                                                  no
//! nex         -               is not there                                              yes
//! sw ew ct    key, val        starts with, ends with, contains val                      no
//! lt lte      key, val        is a smaller number than val, or at most val              no
//! gt gte      key, val        is a greater number than val, or at least val             no
//! ```
//!
//! Sources: the client protocol's subscribe request, field 13, and the reference's answers to it. Ours are the bounds
//! [`MAX_DEPTH`] and [`MAX_NODES`] (the reference has none), and numbers with more than 19 digits behind the point, which
//! never match there.

mod decimal;

use std::{cmp::Ordering, collections::BTreeMap};

use starling_proto::client::FilterNode;

use decimal::{Decimal, OwnedDecimal};

/// How deep nodes may lie in each other; a single comparison is one deep. Evaluation recurses this deep at most.
pub const MAX_DEPTH: usize = 32;

/// How many nodes a filter may have. It bounds what one subscriber costs for each publication. Long lists of values
/// belong into one `in` or `nin`, which is a single node whose cost grows with the logarithm of the list's length.
pub const MAX_NODES: usize = 1024;

/// A filter by tags, checked and ready.
///
/// Two filters are equal, and hash the same, when their nodes say the same in the same order; the order and repetition
/// of `vals` and the writing of numbers (`9.5`, `+9.50`) do not count. Equal filters match the same publications, so
/// that their subscribers can be served as one group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Filter(Node);

impl Filter {
    /// Compiles a filter of a subscribe command.
    ///
    /// # Errors
    ///
    /// The client's fault: the filter is malformed or too large. Nothing else is wrong with the command.
    pub fn compile(filter: &FilterNode) -> Result<Self, FilterProblem> {
        Compiler { nodes: 0 }.node(filter, 1).map(Self)
    }

    /// Whether a publication with these tags passes. Never allocates.
    pub fn matches(&self, tags: &BTreeMap<String, String>) -> bool {
        self.0.matches(tags)
    }
}

/// What is wrong with a filter.
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
    /// Deeper than [`MAX_DEPTH`].
    TooDeep,
    /// More than [`MAX_NODES`].
    TooManyNodes,
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
            Self::TooDeep => "at most 32 nodes may lie in each other",
            Self::TooManyNodes => "at most 1024 nodes",
        }
    }
}

// === evaluation ===

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Node {
    All(Box<[Node]>),
    Any(Box<[Node]>),
    Not(Box<Node>),
    Tag(Box<str>, Comparison),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Comparison {
    Is(Box<str>),
    IsNot(Box<str>),
    IsOneOf(Values),
    IsNoneOf(Values),
    IsThere,
    IsNotThere,
    StartsWith(Box<str>),
    EndsWith(Box<str>),
    Contains(Box<str>),
    IsNumber(Relation, OwnedDecimal),
    /// A comparison with something that is no number.
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Relation {
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl Node {
    fn matches(&self, tags: &BTreeMap<String, String>) -> bool {
        match self {
            Self::All(nodes) => nodes.iter().all(|node| node.matches(tags)),
            Self::Any(nodes) => nodes.iter().any(|node| node.matches(tags)),
            Self::Not(node) => !node.matches(tags),
            Self::Tag(key, comparison) => comparison.holds(tags.get(&**key).map(String::as_str)),
        }
    }
}

impl Comparison {
    fn holds(&self, tag: Option<&str>) -> bool {
        match self {
            Self::Is(value) => tag == Some(&**value),
            Self::IsNot(value) => tag != Some(&**value),
            Self::IsOneOf(values) => values.contain(tag.unwrap_or_default()),
            Self::IsNoneOf(values) => !values.contain(tag.unwrap_or_default()),
            Self::IsThere => tag.is_some(),
            Self::IsNotThere => tag.is_none(),
            Self::StartsWith(value) => tag.is_some_and(|tag| tag.starts_with(&**value)),
            Self::EndsWith(value) => tag.is_some_and(|tag| tag.ends_with(&**value)),
            Self::Contains(value) => tag.is_some_and(|tag| tag.contains(&**value)),
            Self::IsNumber(relation, number) => {
                tag.and_then(Decimal::parse).is_some_and(|tag| relation.holds(tag.cmp(&number.as_decimal())))
            }
            Self::Never => false,
        }
    }
}

impl Relation {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::AtLeast => order.is_ge(),
        }
    }
}

/// A set of values, sorted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Values(Box<[Box<str>]>);

impl Values {
    fn new(values: &[String]) -> Self {
        let mut values: Vec<Box<str>> = values.iter().map(|value| value.as_str().into()).collect();
        values.sort_unstable();
        values.dedup();
        Self(values.into())
    }

    fn contain(&self, value: &str) -> bool {
        self.0.binary_search_by(|one| (**one).cmp(value)).is_ok()
    }
}

// === compilation ===

struct Compiler {
    nodes: usize,
}

impl Compiler {
    /// What a node has beside what its operation needs is ignored, as the reference does.
    fn node(&mut self, node: &FilterNode, depth: usize) -> Result<Node, FilterProblem> {
        if depth > MAX_DEPTH {
            return Err(FilterProblem::TooDeep);
        }
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(FilterProblem::TooManyNodes);
        }
        match (node.op.as_str(), node.nodes.as_slice()) {
            ("", _) => Ok(Node::Tag(node.key.as_str().into(), comparison(node)?)),
            ("and" | "or", []) => Err(FilterProblem::WrongNumberOfNodes),
            ("and", nodes) => self.all(nodes, depth).map(Node::All),
            ("or", nodes) => self.all(nodes, depth).map(Node::Any),
            ("not", [node]) => self.node(node, depth + 1).map(|node| Node::Not(Box::new(node))),
            ("not", _) => Err(FilterProblem::WrongNumberOfNodes),
            _ => Err(FilterProblem::UnknownOperation),
        }
    }

    fn all(&mut self, nodes: &[FilterNode], depth: usize) -> Result<Box<[Node]>, FilterProblem> {
        nodes.iter().map(|node| self.node(node, depth + 1)).collect()
    }
}

fn comparison(node: &FilterNode) -> Result<Comparison, FilterProblem> {
    let value = || node.val.as_str().into();
    let number = |relation| {
        let number = Decimal::parse(&node.val);
        number.map_or(Comparison::Never, |number| Comparison::IsNumber(relation, number.to_owned()))
    };
    let (comparison, needs) = match node.cmp.as_str() {
        "eq" => (Comparison::Is(value()), Needs::KEY_AND_VAL),
        "neq" => (Comparison::IsNot(value()), Needs::KEY_AND_VAL),
        "in" => (Comparison::IsOneOf(Values::new(&node.vals)), Needs::KEY_AND_VALS),
        "nin" => (Comparison::IsNoneOf(Values::new(&node.vals)), Needs::KEY_AND_VALS),
        "ex" => (Comparison::IsThere, Needs::NOTHING),
        "nex" => (Comparison::IsNotThere, Needs::NOTHING),
        "sw" => (Comparison::StartsWith(value()), Needs::KEY_AND_VAL),
        "ew" => (Comparison::EndsWith(value()), Needs::KEY_AND_VAL),
        "ct" => (Comparison::Contains(value()), Needs::KEY_AND_VAL),
        "lt" => (number(Relation::Less), Needs::KEY_AND_VAL),
        "lte" => (number(Relation::AtMost), Needs::KEY_AND_VAL),
        "gt" => (number(Relation::Greater), Needs::KEY_AND_VAL),
        "gte" => (number(Relation::AtLeast), Needs::KEY_AND_VAL),
        _ => return Err(FilterProblem::UnknownComparison),
    };
    needs.check(node)?;
    Ok(comparison)
}

/// What stands beside `cmp`.
struct Needs {
    key: bool,
    val: bool,
    vals: bool,
}

impl Needs {
    const NOTHING: Self = Self { key: false, val: false, vals: false };
    const KEY_AND_VAL: Self = Self { key: true, val: true, vals: false };
    const KEY_AND_VALS: Self = Self { key: true, val: false, vals: true };

    fn check(&self, node: &FilterNode) -> Result<(), FilterProblem> {
        if self.key && node.key.is_empty() {
            return Err(FilterProblem::NoKey);
        }
        if self.val == node.val.is_empty() || self.vals == node.vals.is_empty() {
            return Err(FilterProblem::WrongValue);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
