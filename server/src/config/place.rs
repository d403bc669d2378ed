//! Where an option is: the way to it from the top of the tree.

use std::fmt;

/// One step of the way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// Into a section.
    Key(String),
    /// To an item of a list, by its index from 0; the name of the item, where it has one, is for people.
    Item { index: usize, name: Option<String> },
}

/// A way to an option. Shown as `client.token.audience` or `channel.namespaces[chat].presence`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(Vec<Step>);

impl Place {
    pub(super) fn steps(&self) -> &[Step] {
        &self.0
    }

    pub(super) fn push(&mut self, step: Step) {
        self.0.push(step);
    }

    pub(super) fn pop(&mut self) {
        self.0.pop();
    }

    pub(super) fn key(&self, key: &str) -> Self {
        let mut place = self.clone();
        place.push(Step::Key(key.into()));
        place
    }

    pub(super) fn item(&self, index: usize, name: Option<&str>) -> Self {
        let mut place = self.clone();
        place.push(Step::Item { index, name: name.map(Into::into) });
        place
    }

    /// The place with every item as `[]`: what is the same for all items of a list.
    pub(super) fn pattern(&self) -> String {
        let mut text = String::new();
        for step in &self.0 {
            match step {
                Step::Key(key) if text.is_empty() => text.push_str(key),
                Step::Key(key) => {
                    text.push('.');
                    text.push_str(key);
                }
                Step::Item { .. } => text.push_str("[]"),
            }
        }
        text
    }
}

impl From<&str> for Place {
    /// `a.b[1].c`; an index must be a number.
    fn from(text: &str) -> Self {
        let mut place = Self::default();
        for part in text.split('.').filter(|part| !part.is_empty()) {
            let (key, items) = part.split_once('[').unwrap_or((part, ""));
            place.push(Step::Key(key.into()));
            for index in items.split('[').filter_map(|item| item.trim_end_matches(']').parse().ok()) {
                place.push(Step::Item { index, name: None });
            }
        }
        place
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if position == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Item { name: Some(name), .. } => write!(f, "[{name}]")?,
                Step::Item { index, name: None } => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
