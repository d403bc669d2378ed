//! Durations as texts: `300ms`, `1m30s`, `720h`, the form of Go.

use std::fmt::Write as _;
use std::time::Duration;

/// A duration with a sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signed {
    pub(super) negative: bool,
    pub(super) length: Duration,
}

/// Reads a duration: one or more numbers, each with its unit (`h`, `m`, `s`, `ms`, `us`, `ns`), or `0`.
pub(super) fn parse(text: &str) -> Option<Signed> {
    parse_with(text, &[])
}

/// As [`parse`], and also days (`7d`): for the command line, where no other server has to read it.
pub(crate) fn parse_with_days(text: &str) -> Option<Duration> {
    parse_with(text, &[("d", 86_400_000_000_000)]).filter(|signed| !signed.negative).map(|signed| signed.length)
}

const UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

fn parse_with(text: &str, more_units: &[(&str, u64)]) -> Option<Signed> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(Signed { negative: false, length: Duration::ZERO });
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanoseconds: u64 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit = UNITS.iter().chain(more_units).find(|(name, _)| *name == unit)?.1;
        nanoseconds = nanoseconds.checked_add(scaled(number, unit)?)?;
        rest = after;
    }
    // Go keeps durations in 63 bits; longer ones would not mean the same everywhere.
    let length = Duration::from_nanos(i64::try_from(nanoseconds).ok()?.unsigned_abs());
    Some(Signed { negative: negative && !length.is_zero(), length })
}

/// A decimal number of units in nanoseconds; what is below a nanosecond is dropped.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = whole.checked_mul(unit)?;
    let mut part = unit;
    for digit in fraction.bytes().take(18) {
        part /= 10;
        total = total.checked_add(part * u64::from(digit - b'0'))?;
    }
    Some(total)
}

/// Writes a duration so that [`parse`] reads the same.
pub(crate) fn format(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    for unit in ["h", "m", "s", "ms", "us", "ns"] {
        let size = UNITS.iter().find(|(name, _)| *name == unit).map_or(1, |(_, size)| *size);
        if rest >= size {
            let _ = write!(text, "{}{unit}", rest / size);
            rest %= size;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positive(length: Duration) -> Option<Signed> {
        Some(Signed { negative: false, length })
    }

    #[test]
    fn durations_are_read_as_go_reads_them() {
        assert_eq!(parse("25s"), positive(Duration::from_secs(25)));
        assert_eq!(parse("1h2m3s"), positive(Duration::from_secs(3723)));
        assert_eq!(parse("1.5s"), positive(Duration::from_millis(1500)));
        assert_eq!(parse(".5s"), positive(Duration::from_millis(500)));
        assert_eq!(parse("+1000ms"), positive(Duration::from_secs(1)));
        assert_eq!(parse("720h"), positive(Duration::from_secs(720 * 3600)));
        assert_eq!(parse("0"), positive(Duration::ZERO));
        assert_eq!(parse("-0s"), positive(Duration::ZERO));
        assert_eq!(parse("-1s"), Some(Signed { negative: true, length: Duration::from_secs(1) }));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "25", "-1", "s", "1 s", "1x", "1d", "-", ".s", "1..5s", "1s2", "99999999999h", "１s", "1s "] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_command_line_knows_days() {
        assert_eq!(parse_with_days("7d"), Some(Duration::from_secs(7 * 86_400)));
        assert_eq!(parse_with_days("1d12h"), Some(Duration::from_secs(129_600)));
        assert_eq!(parse_with_days("-1d"), None);
    }

    #[test]
    fn a_written_duration_reads_the_same() {
        for length in [0, 1, 999, 1_000_000, 1_500_000_000, 60_000_000_000, 2_592_000_000_000_000, 3_600_000_000_001] {
            let duration = Duration::from_nanos(length);
            assert_eq!(parse(&format(duration)), positive(duration));
        }
        assert_eq!(format(Duration::from_secs(90)), "1m30s");
    }
}
