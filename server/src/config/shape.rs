//! What the tree of options looks like: which names there are, what each takes, and which is nearest to a mistyped one.

use super::given::{Given, Value};
use super::place::{Place, Step};
use super::problem::Problem;
use super::raw::Raw;
use super::tree_patterns;

/// What stands at one place of the tree.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// An option.
    Leaf(Leaf),
    /// A section.
    Section(Vec<Field>),
    /// A list of sections.
    Items(Vec<Field>),
}

/// What an option takes.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    /// In words, for people: "a duration such as 25s".
    pub(super) takes: String,
    /// How a text from a variable or a flag becomes its value.
    pub(super) written: Written,
}

/// How the value of an option is written where there are only texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// The text is the value.
    Text,
    /// `true`, `false` and the other words for them.
    Switch,
    /// A number.
    Number,
    /// Texts separated by spaces.
    List,
    /// A JSON object.
    Map,
}

/// One name of a section.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    /// What it is, in a sentence.
    pub(super) about: &'static str,
    pub(super) shape: Shape,
}

/// A section of these fields. A field without a name is a section whose fields belong to this one.
pub(super) fn section(fields: Vec<Field>) -> Shape {
    let mut flat = Vec::with_capacity(fields.len());
    for field in fields {
        match field.shape {
            Shape::Section(inner) if field.name.is_empty() => flat.extend(inner),
            shape @ (Shape::Leaf(_) | Shape::Section(_) | Shape::Items(_)) => flat.push(Field { shape, ..field }),
        }
    }
    Shape::Section(flat)
}

impl Shape {
    fn fields(&self) -> &[Field] {
        match self {
            Self::Leaf(_) => &[],
            Self::Section(fields) => fields,
            Self::Items(fields) => fields,
        }
    }

    /// The field at a pattern such as `channel.namespaces[].presence`.
    pub(super) fn find(&self, pattern: &str) -> Option<&Field> {
        let (first, rest) = pattern.split_once('.').map_or((pattern, None), |(first, rest)| (first, Some(rest)));
        let field = self.fields().iter().find(|field| field.name == first.trim_end_matches("[]"))?;
        match rest {
            Some(rest) => field.shape.find(rest),
            None => Some(field),
        }
    }

    /// Calls `visit` with every pattern and field of the tree, sections before what they hold.
    pub(super) fn walk<'a>(&'a self, pattern: &str, visit: &mut dyn FnMut(&str, &'a Field)) {
        for field in self.fields() {
            let pattern = if pattern.is_empty() { field.name.into() } else { format!("{pattern}.{}", field.name) };
            visit(&pattern, field);
            match &field.shape {
                Shape::Leaf(_) => {}
                Shape::Section(_) => field.shape.walk(&pattern, visit),
                Shape::Items(_) => field.shape.walk(&format!("{pattern}[]"), visit),
            }
        }
    }

    /// Every pattern of the tree.
    pub(super) fn patterns(&self) -> Vec<String> {
        let mut patterns = Vec::new();
        self.walk("", &mut |pattern, _| patterns.push(pattern.to_owned()));
        patterns
    }

    /// Reports every name in `given` that the tree has not, and every section that is none.
    pub(super) fn check(&self, given: &Given, place: &mut Place, problems: &mut Vec<Problem>) {
        match (self, &given.value) {
            (_, Value::Scalar(Raw::Null)) => {}
            (Self::Leaf(_), _) => {}
            (Self::Section(fields), _) => check_section(fields, given, place, problems),
            (Self::Items(fields), Value::List(items)) => {
                for (index, item) in items.iter().enumerate() {
                    place.push(Step::Item { index, name: item.name() });
                    check_section(fields, item, place, problems);
                    place.pop();
                }
            }
            (Self::Items(_), Value::Scalar(_) | Value::Map(_)) => {
                let text = format!("`{place}` takes a list of sections, not {}", given.raw().describe());
                problems.push(Problem::new(given, place, text));
            }
        }
    }
}

fn check_section(fields: &[Field], given: &Given, place: &mut Place, problems: &mut Vec<Problem>) {
    let Value::Map(entries) = &given.value else {
        let text = format!("`{place}` is a section of options, not {}", given.raw().describe());
        problems.push(Problem::new(given, place, text));
        return;
    };
    for (key, inner) in entries {
        place.push(Step::Key(key.clone()));
        match fields.iter().find(|field| field.name == key) {
            Some(field) => field.shape.check(inner, place, problems),
            None => problems.push(unknown(inner, place)),
        }
        place.pop();
    }
}

fn unknown(given: &Given, place: &Place) -> Problem {
    let text = format!("`{place}` is not an option. {}", suggestion(place));
    Problem::new(given, place, text)
}

/// "Did you mean …?" for a place that is not in the tree.
pub(super) fn suggestion(place: &Place) -> String {
    format!("Did you mean `{}`?", with_names(nearest(tree_patterns(), &place.pattern()), place))
}

/// The pattern nearest to a mistyped one; one with the same last name elsewhere beats one that is far off.
pub(super) fn nearest<'a>(patterns: &'a [String], wrong: &str) -> &'a str {
    let (parent, last) = wrong.rsplit_once('.').unwrap_or(("", wrong));
    let is_sibling = |pattern: &str| match pattern.strip_prefix(parent) {
        Some(rest) if parent.is_empty() => !rest.contains('.'),
        Some(rest) => rest.starts_with('.') && !rest[1..].contains('.'),
        None => false,
    };
    let mut best = ("", usize::MAX);
    for of_section in [true, false] {
        for pattern in patterns.iter().filter(|pattern| is_sibling(pattern) == of_section) {
            let distance = distance(pattern, wrong, best.1);
            if distance < best.1 {
                best = (pattern, distance);
            }
        }
        if best.1 <= 1 {
            return best.0;
        }
    }
    // Two slips are a typo. Beyond that, a name cut short or a known name in the wrong section is likelier.
    if best.1 > 2 {
        let cut_short = |pattern: &&String| {
            let name = pattern.rsplit('.').next().unwrap_or(pattern);
            let shared = name.bytes().zip(last.bytes()).take_while(|(a, b)| a == b).count();
            is_sibling(pattern) && shared >= 4 && shared + 1 >= last.len()
        };
        let namesake = |pattern: &&String| pattern.rsplit('.').next() == Some(last);
        let likelier = patterns.iter().find(cut_short).or_else(|| {
            let namesakes = patterns.iter().filter(namesake);
            namesakes.min_by_key(|pattern| (pattern.matches('.').count(), pattern.len()))
        });
        if let Some(likelier) = likelier {
            return likelier;
        }
    }
    best.0
}

/// The pattern with the names of the items that the mistyped place went through, as far as both go the same way.
fn with_names(pattern: &str, place: &Place) -> String {
    let mut items = place.steps().iter().filter_map(|step| match step {
        Step::Item { index, name } => Some(name.clone().unwrap_or_else(|| index.to_string())),
        Step::Key(_) => None,
    });
    let mut parts = pattern.split("[]");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let item = items.next().unwrap_or_default();
        text.push_str(&format!("[{item}]{part}"));
    }
    text
}

/// Damerau-Levenshtein distance (insert, delete, replace, swap neighbours), or any number from `limit` on when it is
/// not below `limit`.
fn distance(a: &str, b: &str, limit: usize) -> usize {
    let (a, b) = without_common_ends(a.as_bytes(), b.as_bytes());
    if a.len().abs_diff(b.len()) >= limit {
        return limit;
    }
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &left) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &right) in b.iter().enumerate() {
            let mut cost = (last[j] + usize::from(left != right)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && left == b[j - 1] && a[i - 1] == right {
                cost = cost.min(before_last[j - 1] + 1);
            }
            row.push(cost);
        }
        if row.iter().all(|&cost| cost >= limit) {
            return limit;
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

fn without_common_ends<'a>(a: &'a [u8], b: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    let prefix = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[prefix..], &b[prefix..]);
    let suffix = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    (&a[..a.len() - suffix], &b[..b.len() - suffix])
}
