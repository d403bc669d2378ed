//! The HTML report in a real browser. Skipped, loudly, where there is none.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use support::{FaultyServer, directory, loadtest, text};

#[test]
fn the_html_report_draws_its_plots_in_a_browser_and_leaves_a_screenshot() {
    let Some(browser) = browser() else { return };
    let files = directory("html-report");
    let (page, json) = (files.join("report.html"), files.join("report.json"));
    let server = FaultyServer::start(&["--drop", "1/97"]);
    let pid = server.child.id().to_string();
    let shape = ["--subscribers", "20", "--rate", "100", "--duration", "3s", "--grace", "1s", "--max-own-lag", "60s"];
    let reports = ["--html", path(&page), "--json", path(&json), "--server-pid", &pid];
    let output = loadtest(&[&["run", "--url", &server.url][..], &shape, &reports].concat());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));

    let drawn = browser.open(&page, &files);
    // Latency, percentiles, throughput, messages, connections, processor, memory.
    assert!(drawn.contains("data-drawn=\"7\""), "a script failed: {drawn}");
    assert!(drawn.contains("class=\"badge failed\""), "{drawn}");
    assert!(drawn.contains("First faults"), "{drawn}");
    let picture = files.join("report.png");
    browser.picture(&page, &picture, &files);
    assert!(fs::metadata(picture).expect("a screenshot").len() > 20_000, "an empty page is smaller");

    let both = files.join("compare.html");
    let output = loadtest(&["compare", path(&json), path(&json), "--html", path(&both)]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let drawn = browser.open(&both, &files);
    assert!(drawn.contains("data-drawn=\"7\"") && drawn.contains("Figures"), "{drawn}");
}

struct Browser(&'static str);

fn browser() -> Option<Browser> {
    let known = ["chromium", "chromium-browser", "google-chrome"];
    let there =
        |name: &&&str| Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    let found = known.iter().find(there);
    if found.is_none() {
        eprintln!("SKIPPED: no chromium here to open the report with");
    }
    found.map(|name| Browser(name))
}

impl Browser {
    /// The page after its scripts have run, as text.
    fn open(&self, page: &Path, files: &Path) -> String {
        let output = self.run(&["--dump-dom"], page, files);
        String::from_utf8_lossy(&output).into_owned()
    }

    fn picture(&self, page: &Path, picture: &Path, files: &Path) {
        let target = format!("--screenshot={}", path(picture));
        self.run(&["--window-size=1240,2400", "--hide-scrollbars", &target], page, files);
    }

    fn run(&self, more: &[&str], page: &Path, files: &Path) -> Vec<u8> {
        let profile = format!("--user-data-dir={}", path(&files.join("profile")));
        let output = Command::new(self.0)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", &profile])
            .args(more)
            .arg(format!("file://{}", path(page)))
            .output()
            .expect("the browser starts");
        output.stdout
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}
