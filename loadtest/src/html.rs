//! The HTML report: one file with everything in it, which opens anywhere and asks nobody for anything.
//!
//! The page is a small script of our own that draws the JSON report, which stands in the page as it is.

use serde_json::{Value, json};

const PAGE: &str = include_str!("report.html");

/// A page for one report, or for several side by side, each with a name.
pub fn page(reports: &[(String, Value)]) -> String {
    let named = reports.iter().map(|(name, report)| json!({ "name": name, "report": report }));
    let data = Value::Array(named.collect()).to_string();
    // Within a script element only `</` and `<!--` mean anything to HTML; in JSON a `<` occurs within texts only.
    PAGE.replace("\"@REPORTS@\"", &data.replace('<', "\\u003c"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_report_can_end_the_script_it_stands_in() {
        let report = json!({ "verdict": { "failures": ["</script><script>alert(1)</script>"] } });
        let page = page(&[(String::new(), report)]);
        assert!(!page.contains("</script><script>alert"));
        assert!(page.contains("\\u003c/script>"));
        assert!(!page.contains("@REPORTS@"));
    }

    #[test]
    fn the_page_asks_no_other_host_for_anything() {
        for word in ["src=", "@import", "url(", "href=\"http"] {
            assert!(!PAGE.contains(word), "{word}");
        }
    }
}
