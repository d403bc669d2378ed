//! What people see while they wait: a screen that redraws itself on a terminal, plain lines elsewhere.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};

use crate::command::readable_bytes;
use crate::latency::readable;
use crate::timeline::Second;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ViewKind {
    /// A screen on a terminal, else lines.
    Auto,
    /// A screen that redraws itself.
    Screen,
    /// One line per second.
    Lines,
    /// Nothing.
    None,
}

/// Shows the seconds of a run on standard error.
#[derive(Debug)]
pub struct View {
    kind: ViewKind,
    title: String,
    /// Lines of the screen that stand there now.
    drawn: usize,
}

/// Columns of the small plots.
const HISTORY: usize = 48;

impl View {
    /// A view with a title for its screen.
    pub fn new(kind: ViewKind, title: &str) -> Self {
        let is_terminal = || std::io::stderr().is_terminal();
        let kind = match kind {
            ViewKind::Auto if is_terminal() => ViewKind::Screen,
            ViewKind::Auto => ViewKind::Lines,
            other => other,
        };
        View { kind, title: title.to_owned(), drawn: 0 }
    }

    /// Shows the last second; the ones before are the history of the plots.
    pub fn show(&mut self, seconds: &[Second]) {
        let Some(last) = seconds.last() else { return };
        match self.kind {
            ViewKind::None | ViewKind::Auto => {}
            ViewKind::Lines => eprintln!("{}", line(last)),
            ViewKind::Screen => {
                let screen = screen(&self.title, seconds);
                let mut text = String::new();
                if self.drawn > 0 {
                    // Up to the first line of the screen, and clear from there on.
                    let _ = write!(text, "\x1b[{}A\x1b[J", self.drawn);
                }
                for line in &screen {
                    text.push_str(line);
                    text.push('\n');
                }
                self.drawn = screen.len();
                let _ = std::io::stderr().lock().write_all(text.as_bytes());
            }
        }
    }

    /// The last screen stays.
    pub fn close(&mut self) {
        self.drawn = 0;
    }
}

fn line(second: &Second) -> String {
    let Second { at_seconds, published, delivered, subscribed, ended, faults, latency, .. } = second;
    let mut line = format!("{at_seconds:6.1} s  subscribed {subscribed:>7}  published {published:>8}");
    let _ = write!(line, "  delivered {delivered:>9}");
    if latency.count > 0 {
        let [p50, p99, max] = [latency.p50_ns, latency.p99_ns, latency.max_ns].map(readable);
        let _ = write!(line, "  p50 {p50:>8}  p99 {p99:>8}  max {max:>8}");
    }
    let _ = write!(line, "  faults {faults}  ended {ended}");
    line
}

const DIM: &str = "\x1b[2m";
const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const PLAIN: &str = "\x1b[0m";

/// The lines of the screen.
fn screen(title: &str, seconds: &[Second]) -> Vec<String> {
    let Some(last) = seconds.last() else { return Vec::new() };
    let recent = &seconds[seconds.len().saturating_sub(HISTORY)..];
    let row = |label: &str, value: String, of: &dyn Fn(&Second) -> f64| {
        format!("  {DIM}{label:<14}{PLAIN}{value:>12}  {}", sparkline(recent.iter().map(of)))
    };
    let per_second = |count: u64, second: &Second| count as f64 / second.seconds.max(1e-9);
    let (faults, ended) = (last.faults, last.ended);
    let well = |count: u64, word: &str| {
        let colour = if count == 0 { GREEN } else { RED };
        format!("{colour}{count} {word}{PLAIN}")
    };
    let mut lines = vec![
        format!("{BOLD}loadtest{PLAIN} {title}  {DIM}{:.0} s{PLAIN}", last.at_seconds),
        format!("  {}   {}", well(faults, "faults"), well(ended, "connections ended")),
        row("subscribed", last.subscribed.to_string(), &|second| second.subscribed as f64),
        row("published/s", format!("{:.0}", per_second(last.published, last)), &|second| {
            per_second(second.published, second)
        }),
        row("delivered/s", format!("{:.0}", per_second(last.delivered, last)), &|second| {
            per_second(second.delivered, second)
        }),
        row("latency p50", readable(last.latency.p50_ns), &|second| second.latency.p50_ns as f64),
        row("latency p99", readable(last.latency.p99_ns), &|second| second.latency.p99_ns as f64),
        row("latency max", readable(last.latency.max_ns), &|second| second.latency.max_ns as f64),
    ];
    if let Some(server) = &last.server {
        lines.push(row("server cores", format!("{:.2}", server.cores), &|second| {
            second.server.map_or(0.0, |server| server.cores)
        }));
        lines.push(row("server memory", readable_bytes(server.resident_bytes as f64), &|second| {
            second.server.map_or(0.0, |server| server.resident_bytes as f64)
        }));
        lines.push(row("server files", server.descriptors.to_string(), &|second| {
            second.server.map_or(0.0, |server| server.descriptors as f64)
        }));
    }
    lines.push(row("own cores", format!("{:.2}", last.generator_cores), &|second| second.generator_cores));
    lines
}

/// Eight heights from nothing to the largest of the values.
fn sparkline(values: impl Iterator<Item = f64> + Clone) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.clone().fold(0.0, f64::max);
    let bar = |value: f64| if most > 0.0 { (value / most * 7.0).round().clamp(0.0, 7.0) as usize } else { 0 };
    values.map(|value| BARS[bar(value)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::LatencySummary;
    use crate::timeline::ServerSecond;

    fn seconds() -> Vec<Second> {
        let latency = |p99_ns| LatencySummary { count: 9, p99_ns, ..LatencySummary::default() };
        let server = Some(ServerSecond { cores: 0.5, resident_bytes: 30 << 20, ..ServerSecond::default() });
        let second = |at: u64| Second {
            at_seconds: at as f64,
            seconds: 1.0,
            delivered: at * 100,
            subscribed: 10,
            latency: latency(at * 1_000_000),
            server,
            ..Second::default()
        };
        (1..=100).map(second).collect()
    }

    #[test]
    fn a_screen_has_the_server_and_a_bounded_history_and_names_faults_in_red() {
        let mut seconds = seconds();
        let calm = screen("run", &seconds).join("\n");
        assert!(calm.contains("30.0 MiB") && calm.contains("10000") && calm.contains("100 ms"), "{calm}");
        assert!(!calm.contains(RED));
        assert!(screen("run", &seconds).iter().all(|line| line.chars().count() < 100));
        seconds[99].faults = 3;
        assert!(screen("run", &seconds).join("\n").contains(&format!("{RED}3 faults")));
        assert_eq!(screen("run", &[]).len(), 0);
    }

    #[test]
    fn a_line_says_no_latency_before_there_is_one() {
        assert!(line(&seconds()[4]).contains("p99  5.00 ms"), "{}", line(&seconds()[4]));
        assert!(!line(&Second::default()).contains("p99"));
    }

    #[test]
    fn a_sparkline_goes_from_nothing_to_the_most() {
        assert_eq!(sparkline([0.0, 50.0, 100.0].into_iter()), "▁▅█");
        assert_eq!(sparkline([0.0, 0.0].into_iter()), "▁▁");
    }
}
