//! Servers of other people: `ws` and `socket.io` from npm. Skipped, loudly, where node or the registry is not there.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use support::{loadtest, text};

const SHAPE: [&str; 8] = ["--subscribers", "20", "--rate", "100", "--duration", "1s", "--max-own-lag", "60s"];

#[test]
fn a_plain_broadcasting_server_delivers_to_everybody() {
    let Some(server) = NodeServer::start("ws.cjs", include_str!("servers/ws.cjs")) else { return };
    let output = loadtest(&[&["run", "--protocol", "plain", "--url", &server.url][..], &SHAPE].concat());
    let text = text(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("2000 of 2000 expected"), "{text}");
}

#[test]
fn a_socket_io_server_delivers_to_its_rooms_and_who_was_cut_comes_back() {
    let Some(server) = NodeServer::start("socket-io.cjs", include_str!("servers/socket-io.cjs")) else { return };
    let rooms = ["--channels", "5", "--subscriptions", "2", "--publishers", "2"];
    let output = loadtest(&[&["run", "--protocol", "socket-io", "--url", &server.url][..], &SHAPE, &rooms].concat());
    let calm = text(&output);
    assert_eq!(output.status.code(), Some(0), "{calm}");
    assert!(calm.contains("800 of 800 expected"), "{calm}");
    let cut = ["--cut", "0.5", "--offline", "200ms", "--threshold", "cuts > 0", "--threshold", "not_returned == 0"];
    let output = loadtest(&[&["run", "--protocol", "socket-io", "--url", &server.url][..], &SHAPE, &cut].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[test]
fn a_server_of_another_protocol_is_a_set_up_failure_that_says_so() {
    let Some(server) = NodeServer::start("ws-wrong.cjs", include_str!("servers/ws.cjs")) else { return };
    let output = loadtest(&["run", "--protocol", "socket-io", "--url", &server.url, "--connect-timeout", "2s"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("set-up failed"), "{}", text(&output));
}

struct NodeServer {
    child: Child,
    url: String,
}

impl NodeServer {
    /// `None` where it cannot be started here.
    fn start(name: &str, script: &str) -> Option<Self> {
        let file = packages()?.join(name);
        fs::write(&file, script).expect("written");
        let mut child = Command::new("node")
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node starts, it has just installed packages");
        let mut url = String::new();
        let output = child.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut url).expect("the server tells its address");
        Some(NodeServer { child, url: url.trim().to_owned() })
    }
}

impl Drop for NodeServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The directory that has the packages installed, which happens once per checkout.
fn packages() -> Option<&'static Path> {
    static PACKAGES: OnceLock<Option<PathBuf>> = OnceLock::new();
    let installed = PACKAGES.get_or_init(|| {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("npm");
        fs::create_dir_all(&directory).expect("the directory of tests can be written");
        let there = |package: &str| directory.join("node_modules").join(package).join("package.json").exists();
        if !(there("ws") && there("socket.io")) {
            let install = Command::new("npm")
                .args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "ws@8", "socket.io@4"])
                .arg("--prefix")
                .arg(&directory)
                .output();
            if !install.is_ok_and(|output| output.status.success()) {
                eprintln!("SKIPPED: no node here, or its packages cannot be installed");
                return None;
            }
        }
        Some(directory)
    });
    installed.as_deref()
}
