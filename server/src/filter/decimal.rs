//! Decimal numbers of any length, compared as text: nothing is rounded and nothing is allocated.

use std::cmp::Ordering;

/// A number, taken apart. Zeros that say nothing are gone and zero is not negative, so that equal numbers are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decimal<'a> {
    negative: bool,
    /// Without zeros in front.
    integer: &'a str,
    /// Without zeros at the end.
    fraction: &'a str,
}

impl<'a> Decimal<'a> {
    /// Reads `[+-]digits[.digits]` in ASCII. `None` for everything else, such as `.5`, `5.`, `1e3`, or spaces around;
    /// the reference knows these neither.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (negative, digits) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (integer, fraction) = match digits.split_once('.') {
            Some((_, "")) => return None,
            Some(parts) => parts,
            None => (digits, ""),
        };
        let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if integer.is_empty() || !are_digits(integer) || !are_digits(fraction) {
            return None;
        }
        let (integer, fraction) = (integer.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let is_zero = integer.is_empty() && fraction.is_empty();
        Some(Self { negative: negative && !is_zero, integer, fraction })
    }

    pub(super) fn to_owned(self) -> OwnedDecimal {
        let Self { negative, integer, fraction } = self;
        OwnedDecimal { negative, integer: integer.into(), fraction: fraction.into() }
    }

    /// A longer integer part is greater; among equally long ones, and among fractions, the alphabet decides.
    fn cmp_magnitude(&self, other: &Self) -> Ordering {
        (self.integer.len().cmp(&other.integer.len()))
            .then_with(|| self.integer.cmp(other.integer))
            .then_with(|| self.fraction.cmp(other.fraction))
    }
}

impl Ord for Decimal<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (false, false) => self.cmp_magnitude(other),
            (true, true) => other.cmp_magnitude(self),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Decimal<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A [`Decimal`] that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct OwnedDecimal {
    negative: bool,
    integer: Box<str>,
    fraction: Box<str>,
}

impl OwnedDecimal {
    pub(super) fn as_decimal(&self) -> Decimal<'_> {
        Decimal { negative: self.negative, integer: &self.integer, fraction: &self.fraction }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_decimals_are_numbers() {
        for text in
            ["0", "-0", "+5", "00005", "1.5", "-1.50", "0.0", &"9".repeat(300), &format!("0.{}", "1".repeat(300))]
        {
            assert!(Decimal::parse(text).is_some(), "{text}");
        }
        for text in [
            "", "-", "+", ".", "5.", ".5", "-.5", " 5", "5 ", "1e3", "1E3", "0x10", "1_000", "1,5", "1.2.3", "--5",
            "+-5", "NaN", "Inf", "٣", "5.-1", "1.+1",
        ] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_ordered_whatever_their_writing() {
        let ascending = [
            "-123456789012345678901234567890.5",
            "-123456789012345678901234567890",
            "-10",
            "-9.51",
            "-9.5",
            "-0.1",
            "0",
            "0.12345678901234567890123456788",
            "0.12345678901234567890123456789",
            "0.2",
            "9",
            "9.09",
            "9.5",
            "10",
            "9007199254740992",
            "9007199254740993",
        ];
        for (i, left) in ascending.iter().enumerate() {
            for (j, right) in ascending.iter().enumerate() {
                let (left, right) = (Decimal::parse(left).unwrap(), Decimal::parse(right).unwrap());
                assert_eq!(left.cmp(&right), i.cmp(&j), "{left:?} {right:?}");
            }
        }
        for (left, right) in [("-0", "0"), ("+0.0", "-0.00"), ("007", "7"), ("9.50", "9.5"), ("-01.0", "-1")] {
            assert_eq!(Decimal::parse(left), Decimal::parse(right));
        }
    }
}
