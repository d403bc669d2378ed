//! The audit against a server that makes mistakes on request, and set-ups that fail: the whole program as it is used.

mod support;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use support::{FaultyServer, LOADTEST, loadtest, text};

#[test]
fn a_faultless_server_passes_in_both_encodings() {
    for protocol in ["json", "protobuf"] {
        let run = run(&FaultyServer::start(&[]), &["--protocol", protocol]);
        assert_eq!(run.code, 0, "{protocol}: {}", run.text);
        assert_eq!(run.delivered(), 2_000);
        assert_eq!(run.count_of_all_faults(), 0, "{}", run.text);
        assert!(run.report["measured"]["latency"]["p50_ns"].as_u64() > Some(0), "{}", run.report);
    }
}

#[test]
fn subscribers_of_several_channels_get_each_message_once() {
    let server = FaultyServer::start(&[]);
    let shape = ["--channels", "5", "--subscriptions", "3", "--subscribers", "10", "--publishers", "2"];
    let run = run(&server, &shape);
    assert_eq!(run.code, 0, "{}", run.text);
    assert_eq!(run.delivered(), 100 * 10 * 3 / 5, "each message has the subscribers of its channel");
}

#[test]
fn a_single_lost_message_fails_the_run_and_is_named() {
    let run = run(&FaultyServer::start(&["--drop", "1/1999"]), &["--grace", "1s"]);
    assert_eq!(run.code, 1, "{}", run.text);
    assert_eq!((run.faults("lost"), run.count_of_all_faults()), (1, 1), "{}", run.text);
    // Delivery 1999 of 20 subscribers: the last but one subscriber of the last message.
    let first = &run.report["measured"]["audit"]["first"][0];
    assert_eq!((first["kind"].as_str(), first["seq"].as_u64()), (Some("lost"), Some(99)), "{first}");
    assert!(run.text.contains("1 lost of 2000 expected deliveries"), "{}", run.text);
}

#[test]
fn a_duplicated_message_fails_the_run_and_is_named() {
    let run = run(&FaultyServer::start(&["--duplicate", "1/1500"]), &[]);
    assert_eq!(run.code, 1, "{}", run.text);
    assert_eq!((run.faults("duplicated"), run.count_of_all_faults()), (1, 1), "{}", run.text);
}

#[test]
fn a_reordered_message_fails_the_run_and_is_named() {
    let run = run(&FaultyServer::start(&["--reorder", "1/1500"]), &[]);
    assert_eq!(run.code, 1, "{}", run.text);
    assert_eq!((run.faults("reordered"), run.count_of_all_faults()), (1, 1), "{}", run.text);
}

#[test]
fn an_altered_message_fails_the_run_and_is_named_in_both_encodings() {
    for protocol in ["json", "protobuf"] {
        let run = run(&FaultyServer::start(&["--alter", "1/1500"]), &["--protocol", protocol]);
        assert_eq!(run.code, 1, "{}", run.text);
        assert_eq!((run.faults("altered"), run.count_of_all_faults()), (1, 1), "{}", run.text);
    }
}

#[test]
fn a_disconnected_subscriber_fails_the_run_with_the_reason_and_its_losses() {
    let run = run(&FaultyServer::start(&["--disconnect", "1/1500"]), &["--grace", "1s"]);
    assert_eq!(run.code, 1, "{}", run.text);
    assert_eq!(run.report["measured"]["ended_connections"]["closed by the server: 3008 slow"], 1, "{}", run.text);
    // Delivery 1500 is message 74 (from 0) of the last subscriber, which misses that one and the 25 after it.
    assert_eq!(run.faults("lost"), 26, "{}", run.text);
}

#[test]
fn an_absent_target_is_a_set_up_failure() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("ws://{}", free.local_addr().expect("bound"));
    drop(free);
    let output = loadtest(&["run", "--url", &url]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output).contains("set-up failed"), "{}", text(&output));
    let idle = loadtest(&["idle", "--url", &url, "--connections", "3"]);
    assert_eq!(idle.status.code(), Some(3));
}

#[test]
fn a_target_that_speaks_another_protocol_or_nothing_is_a_set_up_failure() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("ws://{}", silent.local_addr().expect("bound"));
    let output = loadtest(&["idle", "--url", &url, "--connections", "3", "--connect-timeout", "300ms"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output).contains("no handshake within"), "{}", text(&output));
    // The reference server shakes hands and then says nothing.
    let mute = FaultyServer::start_with(&["--protocol", "nothing"]);
    let output = loadtest(&["idle", "--url", &mute.url, "--connections", "3", "--setup-timeout", "1s"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output).contains("0 of 3 subscribers"), "{}", text(&output));
}

#[test]
fn a_wrong_command_line_is_a_set_up_failure() {
    for wrong in [&["run", "--rate", "x"][..], &["run", "--payload", "5"], &["run", "--url", "http://h"], &["nonsense"]]
    {
        let output = loadtest(wrong);
        assert_eq!(output.status.code(), Some(3), "{wrong:?}");
    }
    assert_eq!(loadtest(&["--help"]).status.code(), Some(0));
}

#[test]
fn a_generator_that_may_never_be_late_is_reported_as_the_bottleneck() {
    let server = FaultyServer::start(&[]);
    let run = run_with(&server, &["--max-own-lag", "0s"]);
    assert_eq!(run.code, 2, "{}", run.text);
    assert!(run.text.contains("the generator was the bottleneck"), "{}", run.text);
}

#[test]
fn idle_connections_are_held_and_counted() {
    let server = FaultyServer::start(&[]);
    let output = loadtest(&["idle", "--url", &server.url, "--connections", "50", "--hold", "0s"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[test]
fn the_reference_server_delivers_to_all_and_the_comparison_ends() {
    let server = FaultyServer::start(&[]);
    let pid = server.child.id().to_string();
    let shape = ["--subscribers", "20", "--rounds", "2", "--messages", "5", "--server-pid", &pid];
    let output = loadtest(&[&["fanout", "--url", &server.url][..], &shape].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("server / reference"), "{}", text(&output));
}

#[test]
fn a_closed_loop_publishes_over_a_client_connection() {
    let server = FaultyServer::start(&[]);
    let shape = ["--via", "websocket", "--connections", "2", "--in-flight", "8", "--duration", "1s"];
    let output = loadtest(&[&["publish", "--url", &server.url][..], &shape].concat());
    // Code 2 when this machine is slow: what counts is that nothing was refused.
    assert_ne!(output.status.code(), Some(1), "{}", text(&output));
    assert_ne!(output.status.code(), Some(3), "{}", text(&output));
}

#[test]
fn an_interrupted_run_still_reports_and_passes() {
    let server = FaultyServer::start(&[]);
    let arguments = ["run", "--url", &server.url, "--subscribers", "5", "--rate", "100", "--duration", "1h"];
    let mut child = Command::new(LOADTEST)
        .args([&arguments[..], &["--max-own-lag", "60s"]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut progress = BufReader::new(child.stderr.take().expect("piped"));
    progress.read_line(&mut String::new()).expect("a progress line after a second");
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill is there").success());
    std::io::copy(&mut progress, &mut std::io::sink()).expect("the rest is read");
    let output = child.wait_with_output().expect("the run ends");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("interrupted"), "{}", text(&output));
}

struct Run {
    code: i32,
    text: String,
    report: serde_json::Value,
}

impl Run {
    fn faults(&self, kind: &str) -> u64 {
        self.report["measured"]["audit"]["counts"][kind].as_u64().unwrap_or(0)
    }

    fn count_of_all_faults(&self) -> u64 {
        let counts = self.report["measured"]["audit"]["counts"].as_object().expect("a report with counts");
        counts.values().filter_map(serde_json::Value::as_u64).sum()
    }

    fn delivered(&self) -> u64 {
        self.report["measured"]["delivered"].as_u64().expect("a report with deliveries")
    }
}

/// 100 messages to 20 subscribers; this machine may be slow, so lateness of the generator is allowed.
fn run(server: &FaultyServer, more: &[&str]) -> Run {
    run_with(server, &[&["--max-own-lag", "60s"], more].concat())
}

fn run_with(server: &FaultyServer, more: &[&str]) -> Run {
    let report = std::env::temp_dir().join(format!("loadtest-{}-{}.json", std::process::id(), server.child.id()));
    let path = report.to_str().expect("a path of text");
    let mut arguments = vec!["run", "--url", &server.url, "--rate", "200", "--duration", "500ms", "--json", path];
    if !more.contains(&"--subscribers") {
        arguments.extend(["--subscribers", "20"]);
    }
    let output = loadtest(&[&arguments[..], more].concat());
    let text = text(&output);
    let json = std::fs::read_to_string(&report).unwrap_or_else(|error| panic!("no report: {error}\n{text}"));
    std::fs::remove_file(&report).expect("the report was there");
    let report = serde_json::from_str(&json).expect("the report is JSON");
    Run { code: output.status.code().expect("not killed"), text, report }
}
