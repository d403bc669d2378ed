//! The verdict as JUnit XML, which build servers read.

use std::fmt::Write as _;

use crate::report::Verdict;

/// One test suite with a test case per demand.
pub fn document(command: &str, verdict: &Verdict) -> String {
    let mut cases = String::new();
    let (mut tests, mut failures, mut errors) = (0, 0, 0);
    let mut case = |name: &str, trouble: Option<(&str, &str)>| {
        tests += 1;
        let name = escaped(name);
        match trouble {
            None => drop(writeln!(cases, r#"    <testcase classname="loadtest" name="{name}"/>"#)),
            Some((kind, text)) => {
                let (text, counter) = (escaped(text), if kind == "error" { &mut errors } else { &mut failures });
                *counter += 1;
                let _ = writeln!(cases, r#"    <testcase classname="loadtest" name="{name}">"#);
                let _ = writeln!(cases, r#"      <{kind} message="{text}"/>"#);
                let _ = writeln!(cases, "    </testcase>");
            }
        }
    };
    match &verdict.set_up_failure {
        Some(reason) => case("set-up", Some(("error", reason))),
        None => case("set-up", None),
    }
    for check in &verdict.checks {
        case(&check.name, check.failure.as_deref().map(|failure| ("failure", failure)));
    }
    // Failures of commands that make no list of their demands.
    for failure in &verdict.failures {
        if !verdict.checks.iter().any(|check| check.failure.as_ref() == Some(failure)) {
            case(failure, Some(("failure", failure)));
        }
    }
    for limit in &verdict.generator_limits {
        case("the generator was fast enough", Some(("error", limit)));
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  \
         <testsuite name=\"loadtest {command}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\">\n\
         {cases}  </testsuite>\n</testsuites>\n"
    )
}

/// What XML can hold: characters that it cannot are replaced.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(' '),
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_demand_is_a_case_and_what_was_not_held_says_why() {
        let mut verdict = Verdict::default();
        verdict.demand("lost == 0", Ok(()));
        verdict.demand("p99 < 5ms", Err("it was \"9 ms\" & <slow>\u{1b}".to_owned()));
        verdict.generator_limits.push("late".to_owned());
        let text = document("run", &verdict);
        assert!(text.contains(r#"tests="4" failures="1" errors="1""#), "{text}");
        assert!(text.contains(r#"name="p99 &lt; 5ms""#), "{text}");
        assert!(text.contains("&quot;9 ms&quot; &amp; &lt;slow&gt;\u{fffd}"), "{text}");
    }

    #[test]
    fn a_failed_set_up_is_an_error() {
        let verdict = Verdict { set_up_failure: Some("nobody there".to_owned()), ..Verdict::default() };
        assert!(document("run", &verdict).contains(r#"<error message="nobody there"/>"#));
    }
}
