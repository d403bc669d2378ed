//! What tests of the whole program share: the program, a server that makes mistakes, a place for files.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

pub(crate) const LOADTEST: &str = env!("CARGO_BIN_EXE_loadtest");

/// The reference server, which ends with this value.
pub(crate) struct FaultyServer {
    pub(crate) child: Child,
    pub(crate) url: String,
}

impl FaultyServer {
    pub(crate) fn start(faults: &[&str]) -> Self {
        Self::start_with(&[&["--protocol", "centrifuge"], faults].concat())
    }

    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let mut child = Command::new(LOADTEST)
            .arg("reference-server")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut url = String::new();
        let output = child.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut url).expect("the server tells its address");
        FaultyServer { child, url: url.trim().to_owned() }
    }
}

impl Drop for FaultyServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory of its own for the files of one test, empty at first; what a test leaves there is its artifact.
pub(crate) fn directory(test: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("the directory of tests can be written");
    path
}

pub(crate) fn loadtest(arguments: &[&str]) -> Output {
    Command::new(LOADTEST).args(arguments).stdin(Stdio::null()).output().expect("the binary starts")
}

pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
