//! Scenario files, disruption, thresholds and the reports of a run: the whole program against the reference server.

mod support;

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::{FaultyServer, directory, loadtest, text};

/// Lateness of the generator is allowed: this machine may be slow, and how fast anything is is not tested here.
const CALM: &str = "max_own_lag = \"60s\"\n";

#[test]
fn a_scenario_file_makes_the_run_and_the_command_line_wins() {
    let server = FaultyServer::start(&[]);
    let run = Run::of("wins", &server, "subscribers = 5\nrate = 100\nduration = \"300ms\"\n", &["--subscribers", "7"]);
    assert_eq!(run.code, 0, "{}", run.text);
    assert_eq!((run.measured()["subscribers"].as_u64(), run.metric("delivered")), (Some(7), 7.0 * 30.0));
    let settings = run.report["provenance"]["scenario"].to_string();
    assert!(settings.contains("rate=100"), "{settings}");
}

#[test]
fn a_wrong_scenario_file_is_a_set_up_failure_told_by_line_with_the_nearest_key() {
    let file = directory("wrong").join("wrong.toml");
    fs::write(&file, "rate = 10\nsubscriberz = 5\n").expect("written");
    let output = loadtest(&["run", file.to_str().expect("text")]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output).contains("wrong.toml:2: unknown key `subscriberz`, did you mean `subscribers`?"));
    let output = loadtest(&["run", "smok"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output).contains("did you mean `smoke`?"), "{}", text(&output));
}

#[test]
fn presets_are_listed_and_printed_as_files_to_begin_with() {
    let list = text(&loadtest(&["presets"]));
    assert!(list.contains("reconnect-storm") && list.contains("smoke"), "{list}");
    let smoke = text(&loadtest(&["presets", "smoke"]));
    assert!(smoke.starts_with("# ") && smoke.contains("threshold = ["), "{smoke}");
    assert_eq!(loadtest(&["presets", "nonsense"]).status.code(), Some(3));
}

#[test]
fn the_smoke_preset_passes_with_nothing_but_an_address() {
    let server = FaultyServer::start(&[]);
    let output = loadtest(&["run", "smoke", "--url", &server.url, "--max-own-lag", "60s"]);
    let text = text(&output);
    // Latency is a matter of this machine; nothing else may fail.
    let only_slow =
        output.status.code() == Some(1) && text.matches("\n  - ").count() == 1 && text.contains("- p99_deliver");
    assert!(output.status.code() == Some(0) || only_slow, "{text}");
    assert!(text.contains("750 of 750 expected"), "{text}");
}

#[test]
fn phases_have_latencies_and_thresholds_of_their_own() {
    let server = FaultyServer::start(&[]);
    let scenario = "subscribers = 4\nthreshold = [\"min_deliver@second < 60s\", \"delivered == 160\"]\n\
        [[phase]]\nname = \"first\"\nrate = 50\nduration = \"200ms\"\n\
        [[phase]]\nname = \"second\"\nrate = [50, 250]\nduration = \"200ms\"\n";
    let run = Run::of("phases", &server, scenario, &[]);
    assert_eq!(run.code, 0, "{}", run.text);
    let counts: Vec<_> = run.measured()["phases"].as_array().expect("phases").iter().collect();
    assert_eq!(counts[0]["latency"]["count"], 40);
    assert_eq!(counts[1]["latency"]["count"], 120);
}

#[test]
fn a_missed_threshold_fails_the_run_and_a_threshold_on_a_fault_replaces_the_demand_of_none() {
    let server = FaultyServer::start(&["--drop", "1/100"]);
    let scenario = "subscribers = 10\nrate = 200\nduration = \"500ms\"\ngrace = \"500ms\"\n";
    let tolerant = Run::of("tolerant", &server, scenario, &["--threshold", "lost <= 10"]);
    assert_eq!((tolerant.code, tolerant.metric("lost")), (0, 10.0), "{}", tolerant.text);
    let strict = Run::of("strict", &server, scenario, &["--threshold", "lost < 10"]);
    assert_eq!(strict.code, 1, "{}", strict.text);
    assert!(strict.text.contains("lost < 10: it was 10"), "{}", strict.text);
}

#[test]
fn a_threshold_that_cannot_be_checked_is_refused_before_anything_is_started() {
    for (threshold, hint) in [("p99_delivery < 5ms", "did you mean"), ("rss_per_conn < 3KiB", "needs --server-pid")] {
        let output = loadtest(&["run", "--threshold", threshold]);
        assert_eq!(output.status.code(), Some(3));
        assert!(text(&output).contains(hint), "{}", text(&output));
    }
}

#[test]
fn a_delay_and_a_stall_show_in_the_latency_of_every_message_that_was_due_meanwhile() {
    let scenario = "subscribers = 5\nrate = 100\nduration = \"1s\"\n";
    let server = FaultyServer::start(&["--delay", "80ms"]);
    let delayed = Run::of("delay", &server, scenario, &["--threshold", "p50_deliver < 50ms"]);
    assert_eq!(delayed.code, 1, "{}", delayed.text);
    assert!(delayed.metric("min_deliver") >= 79e6, "{}", delayed.text);
    // A stall of 400 ms at message 50: the 40 messages due meanwhile waited 200 ms in the mean, whoever sent them when.
    let server = FaultyServer::start(&["--stall", "1/250", "--stall-for", "400ms"]);
    let stalled = Run::of("stall", &server, scenario, &["--threshold", "p90_deliver < 100ms"]);
    assert_eq!(stalled.code, 1, "{}", stalled.text);
    assert!(stalled.text.contains("p90_deliver < 100ms: it was"), "{}", stalled.text);
    assert!(stalled.metric("max_deliver") >= 399e6, "{}", stalled.text);
}

#[test]
fn cut_connections_come_back_and_what_they_missed_meanwhile_is_not_lost() {
    let server = FaultyServer::start(&[]);
    let scenario = "subscribers = 20\nchannels = 2\nrate = 200\nduration = \"1500ms\"\ncut = 0.5\nchurn = 10\n\
        offline = \"200ms\"\n";
    let run = Run::of("cut", &server, scenario, &["--seed", "5"]);
    assert_eq!(run.code, 0, "{}", run.text);
    assert!(run.metric("cuts") > 5.0 && run.metric("not_returned") == 0.0, "{}", run.text);
    assert!(run.metric("missed_while_away") > 0.0 && run.metric("delivered") < 3_000.0, "{}", run.text);
    assert_eq!(run.metric("delivered"), run.metric("expected"), "{}", run.text);
}

#[test]
fn who_was_cut_recovers_everything_from_a_history_in_both_encodings() {
    let server = FaultyServer::start(&["--history", "1000"]);
    let scenario = "subscribers = 20\nrate = 200\nduration = \"1s\"\ncut = 0.5\noffline = \"200ms\"\nrecover = true\n";
    for protocol in ["json", "protobuf"] {
        let run = Run::of("recover", &server, scenario, &["--protocol", protocol, "--seed", "5"]);
        assert_eq!((run.code, run.metric("delivered")), (0, 4_000.0), "{}", run.text);
        assert!(run.metric("recovered") > 100.0, "{}", run.text);
    }
}

#[test]
fn a_server_that_claims_to_have_recovered_everything_and_did_not_is_found_out() {
    let server = FaultyServer::start(&["--history", "1000", "--drop-recovered", "1/100"]);
    let scenario = "subscribers = 20\nrate = 200\nduration = \"1s\"\ncut = 1.0\noffline = \"300ms\"\nrecover = true\n\
        grace = \"3s\"\n";
    let run = Run::of("claims", &server, scenario, &[]);
    assert_eq!(run.code, 1, "{}", run.text);
    assert!(run.metric("lost") > 0.0 && run.metric("unrecovered") == 0.0, "{}", run.text);
    assert_eq!(run.metric("lost"), (run.metric("recovered") + run.metric("lost")).div_euclid(100.0), "{}", run.text);
}

#[test]
fn a_history_that_is_too_short_is_told_as_unrecovered() {
    let server = FaultyServer::start(&["--history", "2"]);
    let scenario = "subscribers = 10\nrate = 200\nduration = \"1s\"\ncut = 1.0\noffline = \"300ms\"\nrecover = true\n";
    let run = Run::of("short", &server, scenario, &[]);
    assert_eq!((run.code, run.metric("unrecovered"), run.metric("lost")), (1, 10.0, 0.0), "{}", run.text);
    assert!(run.text.contains("10 subscriptions could not be recovered"), "{}", run.text);
}

#[test]
fn clients_that_misbehave_are_no_part_of_the_audit() {
    let server = FaultyServer::start(&[]);
    let scenario = "subscribers = 10\nslow_readers = 2\nhalf_open = 3\nrate = 100\nduration = \"500ms\"\n";
    let run = Run::of("misbehave", &server, scenario, &[]);
    assert_eq!((run.code, run.metric("delivered")), (0, 5.0 * 50.0), "{}", run.text);
}

#[test]
fn a_junit_file_has_a_case_for_every_demand() {
    let server = FaultyServer::start(&["--duplicate", "1/50"]);
    let file = directory("junit-file").join("report.xml");
    let scenario = "subscribers = 5\nrate = 100\nduration = \"300ms\"\nthreshold = \"delivered > 0\"\n";
    let run = Run::of("junit", &server, scenario, &["--junit", file.to_str().expect("text")]);
    assert_eq!(run.code, 1, "{}", run.text);
    let junit = fs::read_to_string(file).expect("written");
    assert!(junit.contains("<failure message=\"3 duplicated of 150 expected deliveries\"/>"), "{junit}");
    assert!(junit.contains("name=\"delivered &gt; 0\"/>"), "{junit}");
}

#[test]
fn a_run_that_falls_behind_its_baseline_fails() {
    let files = directory("baseline-file");
    let baseline = files.join("before.json");
    let baseline = baseline.to_str().expect("text");
    let scenario = "subscribers = 5\nrate = 50\nduration = \"400ms\"\n";
    let before = Run::of("before", &FaultyServer::start(&[]), scenario, &["--json", baseline]);
    assert_eq!(before.code, 0, "{}", before.text);
    // A second is more than this machine could add by itself.
    let slow = FaultyServer::start(&["--delay", "1s"]);
    let after = Run::of("after", &slow, scenario, &["--baseline", baseline, "--drift", "50"]);
    assert_eq!(after.code, 1, "{}", after.text);
    assert!(after.text.contains("p50_deliver was") && after.text.contains("% worse"), "{}", after.text);
    let compared = text(&loadtest(&["compare", baseline, after.file.to_str().expect("text")]));
    assert!(compared.contains("p50_deliver") && compared.contains("A = "), "{compared}");
}

#[test]
fn the_knee_is_the_highest_rate_that_holds() {
    // 2 ms of stall per message, in the thread that publishes: more than 500 a second cannot be.
    let server = FaultyServer::start(&["--stall", "1/1", "--stall-for", "2ms"]);
    let file = directory("knee").join("knee.json");
    let shape = ["--subscribers", "1", "--duration", "1s", "--from", "10", "--to", "4000", "--precision", "50"];
    let more = ["--threshold", "p99_deliver < 300ms", "--max-own-lag", "60s", "--json", file.to_str().expect("text")];
    let output = loadtest(&[&["knee", "--url", &server.url][..], &shape, &more].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let report: Value = serde_json::from_str(&fs::read_to_string(file).expect("written")).expect("JSON");
    let (knee, broke_at) = (report["measured"]["knee"].as_f64(), report["measured"]["broke_at"].as_f64());
    assert!(knee >= Some(10.0) && broke_at > knee && broke_at <= Some(4_000.0), "{}", text(&output));
}

#[test]
fn a_server_command_that_never_listens_or_does_not_exist_is_a_set_up_failure() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("bound").to_string();
    drop(free);
    let server = "tail -f /dev/null";
    let url = format!("ws://{address}");
    let absent = ["run", "--url", &url, "--server-command", server, "--connect-timeout", "300ms"];
    let output = loadtest(&absent);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output).contains("nothing listens on"), "{}", text(&output));
    let output = loadtest(&["run", "--url", &url, "--server-command", "/does/not/exist"]);
    assert_eq!(output.status.code(), Some(3));
}

struct Run {
    code: i32,
    text: String,
    report: Value,
    file: std::path::PathBuf,
}

impl Run {
    fn of(name: &str, server: &FaultyServer, scenario: &str, more: &[&str]) -> Self {
        let files = directory(name);
        let (scenario_file, report) = (files.join("scenario.toml"), files.join("report.json"));
        fs::write(&scenario_file, format!("{CALM}{scenario}")).expect("written");
        let own_report = ["--json", path(&report)];
        let json = if more.contains(&"--json") { &[][..] } else { &own_report };
        let output = loadtest(&[&["run", path(&scenario_file), "--url", &server.url], json, more].concat());
        let text = text(&output);
        let file = more.iter().skip_while(|word| **word != "--json").nth(1).map_or(report, std::path::PathBuf::from);
        let json = fs::read_to_string(&file).unwrap_or_else(|error| panic!("no report: {error}\n{text}"));
        let report = serde_json::from_str(&json).expect("the report is JSON");
        Run { code: output.status.code().expect("not killed"), text, report, file }
    }

    fn measured(&self) -> &Value {
        &self.report["measured"]
    }

    fn metric(&self, name: &str) -> f64 {
        self.measured()["metrics"][name].as_f64().unwrap_or_else(|| panic!("no {name}\n{}", self.text))
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}
