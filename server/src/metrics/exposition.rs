//! The classic Prometheus text format.

use std::fmt::Write;

use super::histogram::{BOUNDS, Histogram};

/// Type of a metric.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A text under way.
#[derive(Default)]
pub(super) struct Exposition {
    text: String,
}

/// One metric, to which samples are added.
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
    head: Option<(&'static str, Kind)>,
}

impl Exposition {
    /// Begins a metric. A metric without a sample leaves no trace.
    pub(super) fn family(&mut self, name: &'static str, help: &'static str, kind: Kind) -> Family<'_> {
        Family { text: &mut self.text, name, head: Some((help, kind)) }
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

impl Family<'_> {
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: u64) {
        self.head();
        self.line("", labels, &value.to_string());
    }

    /// A sample of a set that is mostly empty.
    pub(super) fn sample_unless_zero(&mut self, labels: &[(&str, &str)], value: u64) {
        if value > 0 {
            self.sample(labels, value);
        }
    }

    pub(super) fn histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram) {
        self.head();
        let (counts, sum) = histogram.read();
        let bounds = BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(counts) {
            let labels: Vec<_> = labels.iter().copied().chain([("le", &*bound)]).collect();
            self.line("_bucket", &labels, &count.to_string());
        }
        self.line("_sum", labels, &sum.to_string());
        self.line("_count", labels, &counts[BOUNDS.len()].to_string());
    }

    fn head(&mut self) {
        if let Some((help, kind)) = self.head.take() {
            let kind = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            // Writing to a String does not fail.
            let _ = writeln!(self.text, "# HELP {0} {help}\n# TYPE {0} {kind}", self.name);
        }
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: &str) {
        let _ = write!(self.text, "{}{suffix}", self.name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let open = if index == 0 { '{' } else { ',' };
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{open}{label}=\"{text}\"");
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_heads_labels_and_escapes() {
        let mut out = Exposition::default();
        out.family("a_count", "A.", Kind::Counter).sample(&[("x", "1\"\\\n"), ("y", "")], 7);
        out.family("b", "B.", Kind::Gauge).sample(&[], 0);
        out.family("c", "C.", Kind::Counter).sample_unless_zero(&[], 0);
        let expected = "# HELP a_count A.\n# TYPE a_count counter\na_count{x=\"1\\\"\\\\\\n\",y=\"\"} 7\n\
                        # HELP b B.\n# TYPE b gauge\nb 0\n";
        assert_eq!(out.finish(), expected);
    }
}
