//! Patterns of channel names, as Centrifugo's `channels` method reads them.
//!
//! | pattern | matches |
//! |---|---|
//! | `*`, `**` | any text, also none |
//! | `?` | one character |
//! | `[abc]`, `[!abc]` | one of these characters, none of them |
//! | `[a-z]`, `[!a-z]` | one of a range, none of it; a range stands alone in its brackets |
//! | `{one,two}` | one of these patterns, which may be empty; a missing `}` is taken to stand at the end |
//! | `\x` | the character x itself |
//!
//! No character is special to `*` and `?`, and case counts. These rules were found by asking a Centrifugo 6.9.1; brackets that
//! are open, empty, or more than one range are what it refuses. A pattern becomes a regular expression, so that no pattern
//! takes more than linear time.

use std::{iter::Peekable, str::Chars};

use regex::Regex;

/// A pattern that can be asked. A clone is a reference count.
#[derive(Clone, Debug)]
pub struct Glob(Regex);

/// The pattern is malformed, or too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadGlob;

impl Glob {
    /// Reads a pattern.
    pub fn new(pattern: &str) -> Result<Self, BadGlob> {
        let mut expression = String::from(r"(?s)\A");
        let mut open = 0_usize;
        let mut rest = pattern.chars().peekable();
        while let Some(next) = rest.next() {
            match next {
                '*' => expression.push_str(".*"),
                '?' => expression.push('.'),
                '[' => expression.push_str(&class(&mut rest)?),
                '{' => {
                    open += 1;
                    expression.push_str("(?:");
                }
                ',' if open > 0 => expression.push('|'),
                '}' if open > 0 => {
                    open -= 1;
                    expression.push(')');
                }
                '\\' => {
                    if let Some(escaped) = rest.next() {
                        push_literal(&mut expression, escaped);
                    }
                }
                literal => push_literal(&mut expression, literal),
            }
        }
        expression.extend(std::iter::repeat_n(')', open));
        expression.push_str(r"\z");
        Regex::new(&expression).map(Self).map_err(|_| BadGlob)
    }

    /// Whether the whole name matches.
    pub fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

/// What follows a `[`, its `]` included, as a class of a regular expression.
fn class(rest: &mut Peekable<Chars<'_>>) -> Result<String, BadGlob> {
    let negated = rest.next_if_eq(&'!').is_some();
    let mut characters = Vec::new();
    let mut range = false;
    loop {
        match rest.next().ok_or(BadGlob)? {
            ']' => break,
            '\\' => characters.push(rest.next().ok_or(BadGlob)?),
            '-' if characters.len() == 1 => {
                range = true;
                characters.push('-');
            }
            literal => characters.push(literal),
        }
    }
    let mut class = String::from(if negated { "[^" } else { "[" });
    match (range, &*characters) {
        (_, []) => return Err(BadGlob),
        (true, [first, _, last]) if first <= last => {
            push_literal(&mut class, *first);
            class.push('-');
            push_literal(&mut class, *last);
        }
        (true, _) => return Err(BadGlob),
        (false, list) => list.iter().for_each(|character| push_literal(&mut class, *character)),
    }
    class.push(']');
    Ok(class)
}

fn push_literal(expression: &mut String, character: char) {
    expression.push_str(&regex::escape(character.encode_utf8(&mut [0; 4])));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_what_they_match_in_a_centrifugo() {
        let names = [
            "one",
            "two",
            "a/b",
            "a.b",
            "new\nline",
            "[x]",
            "a,b",
            "{a}",
            r"back\slash",
            "x^",
            "a]",
            "-",
            "b",
            "!",
            "a**b",
            "*",
        ];
        let cases: [(&str, &[&str]); 38] = [
            ("*", &names),
            ("**", &names),
            ("?", &["-", "b", "!", "*"]),
            ("???", &["one", "two", "a/b", "a.b", "[x]", "a,b", "{a}"]),
            ("o?e", &["one"]),
            ("a?b", &["a/b", "a.b", "a,b"]),
            ("[a-z]", &["b"]),
            ("[!a]", &["-", "b", "!", "*"]),
            ("[!a-z]", &["-", "!", "*"]),
            ("[!ab]", &["-", "!", "*"]),
            ("[^a]", &[]),
            ("[-a]", &["-"]),
            ("[abc-e]", &["-", "b"]),
            (r"[\]]", &[]),
            ("a[*]b", &[]),
            ("a]", &["a]"]),
            ("]", &[]),
            ("{one,two}", &["one", "two"]),
            ("{one", &["one"]),
            ("{a,b", &["b"]),
            ("one}", &[]),
            ("{one,{two,b}}", &["one", "two", "b"]),
            ("{,b}", &["b"]),
            ("{one,}", &["one"]),
            ("{}", &[]),
            ("{*}", &names),
            ("{a*,t*}", &["two", "a/b", "a.b", "a,b", "a]", "a**b"]),
            ("{[a],b}", &["b"]),
            (r"{a\,b,x}", &["a,b"]),
            ("a,b", &["a,b"]),
            (r"a\,b", &["a,b"]),
            (r"\*", &["*"]),
            (r"\", &[]),
            (r"back\\slash", &[r"back\slash"]),
            ("a/*", &["a/b"]),
            ("**/b", &["a/b"]),
            ("a**b", &["a/b", "a.b", "a,b", "a**b"]),
            ("new?line", &["new\nline"]),
        ];
        for (pattern, expected) in cases {
            let glob = Glob::new(pattern).unwrap();
            let matched: Vec<_> = names.into_iter().filter(|name| glob.matches(name)).collect();
            assert_eq!(matched, expected, "{pattern}");
        }
    }

    #[test]
    fn a_character_is_a_character_however_many_bytes_it_has() {
        assert!(Glob::new("кан?л").unwrap().matches("канал"));
        assert!(Glob::new("emoji[😀]").unwrap().matches("emoji😀"));
    }

    #[test]
    fn malformed_brackets_are_refused() {
        for pattern in ["[a", "[", "[!", "[]", "[!]", "[]]", "[z-a]", "[a-]", "[a-c,x]", "[a-cx]", "[a-b-c]"] {
            assert_eq!(Glob::new(pattern).err(), Some(BadGlob), "{pattern}");
        }
        assert_eq!(Glob::new(&"{".repeat(100_000)).err(), Some(BadGlob));
    }

    proptest! {
        #[test]
        fn no_pattern_panics(pattern: String, name: String) {
            let _ = Glob::new(&pattern).map(|glob| glob.matches(&name));
        }

        #[test]
        fn an_escaped_name_matches_itself_and_nothing_longer(name in "[a-z*?{},!\\[\\]\\\\-]{0,12}") {
            let escaped: String = name.chars().flat_map(|character| ['\\', character]).collect();
            let glob = Glob::new(&escaped).unwrap();
            prop_assert!(glob.matches(&name));
            let longer = format!("{name}x");
            prop_assert!(!glob.matches(&longer));
        }
    }
}
