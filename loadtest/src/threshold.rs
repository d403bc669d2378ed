//! Thresholds: what a run must hold, written `p99_deliver < 50ms`.

use anyhow::{Context, anyhow, bail, ensure};

use crate::latency::readable;
use crate::metrics::{self, Metrics, Unit, unit_of};
use crate::scenario::nearest;

/// One demand on one figure of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    text: String,
    name: String,
    operator: Operator,
    value: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Below,
    AtMost,
    Above,
    AtLeast,
    Equal,
    Unequal,
}

/// In the order in which they are looked for: `<=` before `<`.
const OPERATORS: [(&str, Operator); 6] = [
    ("<=", Operator::AtMost),
    (">=", Operator::AtLeast),
    ("==", Operator::Equal),
    ("!=", Operator::Unequal),
    ("<", Operator::Below),
    (">", Operator::Above),
];

const UNITS: [(&str, Unit, f64); 13] = [
    ("ns", Unit::Time, 1.0),
    ("us", Unit::Time, 1e3),
    ("µs", Unit::Time, 1e3),
    ("ms", Unit::Time, 1e6),
    ("s", Unit::Time, 1e9),
    ("B", Unit::Size, 1.0),
    ("kB", Unit::Size, 1e3),
    ("MB", Unit::Size, 1e6),
    ("GB", Unit::Size, 1e9),
    ("KiB", Unit::Size, 1024.0),
    ("MiB", Unit::Size, 1_048_576.0),
    ("GiB", Unit::Size, 1_073_741_824.0),
    ("", Unit::Number, 1.0),
];

impl Threshold {
    /// Reads `NAME OPERATOR VALUE`; `phases` are the names that may stand behind an `@`.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it: no operator, an unknown figure (with the nearest), an unknown phase, a wrong unit.
    pub fn parse(text: &str, phases: &[&str]) -> anyhow::Result<Self> {
        Self::read(text, phases).with_context(|| format!("threshold `{text}`"))
    }

    fn read(text: &str, phases: &[&str]) -> anyhow::Result<Self> {
        let found = OPERATORS.iter().find_map(|&(sign, operator)| Some((text.split_once(sign)?, operator)));
        let ((name, value), operator) = found.context("there is no comparison in it, such as `p99_deliver < 50ms`")?;
        let (name, value) = (name.trim(), value.trim());
        let unit = unit_of(name).ok_or_else(|| {
            let names: Vec<String> = metrics::names().collect();
            let meant = nearest(name, names.iter().map(String::as_str));
            anyhow!(
                "no figure is called `{name}`{}",
                meant.map_or(String::new(), |meant| format!(", did you mean `{meant}`?"))
            )
        })?;
        if let Some((_, phase)) = name.split_once('@') {
            ensure!(phases.contains(&phase), "no phase is called `{phase}`");
        }
        let digits = value.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(value.len());
        let (number, suffix) = value.split_at(digits);
        let number: f64 = number.parse().map_err(|_| anyhow!("`{value}` is no number"))?;
        let known = UNITS.iter().find(|(word, of, _)| *word == suffix.trim() && *of == unit);
        let Some((_, _, factor)) = known else {
            bail!(
                "`{name}` is compared with {}",
                match unit {
                    Unit::Time => "a time such as 250us, 50ms or 2s",
                    Unit::Size => "a size such as 900B, 3KiB or 1MiB",
                    Unit::Number => "a plain number",
                }
            );
        };
        Ok(Threshold { text: text.trim().to_owned(), name: name.to_owned(), operator, value: number * factor })
    }

    /// The figure it speaks of.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// `Ok` when the run holds it, else the reason in words. A figure that the run does not have is not held, whatever is
    /// demanded of it.
    ///
    /// # Errors
    ///
    /// The reason.
    pub fn check(&self, metrics: &Metrics) -> Result<(), String> {
        let Threshold { text, name, operator, value } = self;
        let Some(&measured) = metrics.get(name) else {
            return Err(format!("{text}: there were no values of {name}"));
        };
        let held = match operator {
            Operator::Below => measured < *value,
            Operator::AtMost => measured <= *value,
            Operator::Above => measured > *value,
            Operator::AtLeast => measured >= *value,
            Operator::Equal => measured == *value,
            Operator::Unequal => measured != *value,
        };
        if held { Ok(()) } else { Err(format!("{text}: it was {}", shown(name, measured))) }
    }
}

/// A figure with its unit.
pub fn shown(name: &str, value: f64) -> String {
    match unit_of(name) {
        Some(Unit::Time) => readable(value.max(0.0) as u64),
        Some(Unit::Size) => crate::command::readable_bytes(value),
        Some(Unit::Number) | None if value.fract() == 0.0 => format!("{value:.0}"),
        Some(Unit::Number) | None => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(text: &str, value: f64) -> bool {
        let threshold = Threshold::parse(text, &["storm"]).expect(text);
        threshold.check(&Metrics::from([(threshold.name().to_owned(), value)])).is_ok()
    }

    #[test]
    fn thresholds_compare_in_their_unit() {
        assert!(held("p99_deliver < 50ms", 49e6) && !held("p99_deliver < 50ms", 50e6));
        assert!(held("p99_deliver@storm<=1.5s", 1.5e9));
        assert!(held("lost == 0", 0.0) && !held("lost == 0", 1.0));
        assert!(held("rss_per_conn < 3KiB", 3071.0) && !held("rss_per_conn < 3KiB", 3072.0));
        assert!(held("deliver_rate >= 1000", 1000.0) && held("recovered != 0", 2.0) && held("recovered > 0", 1.0));
    }

    #[test]
    fn a_wrong_threshold_says_what_is_wrong() {
        for (text, hint) in [
            ("p99_deliver", "no comparison"),
            ("p99_delivery < 50ms", "did you mean `p99_deliver`?"),
            ("p99_deliver@x < 50ms", "no phase is called `x`"),
            ("p99_deliver < 50", "a time such as"),
            ("rss < 5ms", "a size such as"),
            ("lost == none", "no number"),
        ] {
            let told = format!("{:#}", Threshold::parse(text, &[]).expect_err(text));
            assert!(told.contains(hint), "{text}: {told}");
        }
    }

    #[test]
    fn a_figure_without_values_is_not_held() {
        let threshold = Threshold::parse("p99_return < 5s", &[]).expect("sound");
        assert!(threshold.check(&Metrics::new()).expect_err("no values").contains("no values"));
    }
}
