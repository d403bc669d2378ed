//! The word that somebody probably meant.

/// The nearest of `known` to `word`, unless all are far away: more than a third of its letters would have to change.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.into_iter().map(|known| (distance(word, known), known)).min()?;
    (near.0 <= word.chars().count().max(3).div_ceil(3)).then_some(near.1)
}

/// How many letters must be added, removed, changed or swapped with their neighbour to make one word of the other.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (row, &letter) in one.iter().enumerate() {
        let mut next = vec![row + 1];
        for (column, &candidate) in other.iter().enumerate() {
            let changed = last[column] + usize::from(letter != candidate);
            let mut least = changed.min(last[column + 1] + 1).min(next[column] + 1);
            let swapped = row > 0 && column > 0 && letter == other[column - 1] && one[row - 1] == candidate;
            if swapped {
                least = least.min(before[column - 1] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut last, next);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_finger_find_the_word_and_nonsense_finds_none() {
        let known = ["rate", "duration", "subscribers", "subscriptions"];
        assert_eq!(nearest("raet", known), Some("rate"));
        assert_eq!(nearest("subscriber", known), Some("subscribers"));
        assert_eq!(nearest("durations", known), Some("duration"));
        assert_eq!(nearest("colour", known), None);
    }
}
