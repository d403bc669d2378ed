//! A server that the load tester starts itself and ends with the run.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// How long a server may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// A running server; dropping it asks the process to end and, if it does not, ends it.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
}

impl ServerProcess {
    /// Starts `command` (words separated by blanks, no shell) and waits until `address` accepts connections.
    ///
    /// # Errors
    ///
    /// When it cannot be started, ends at once, something listens there already, or nothing does after `timeout`.
    pub fn start(command: &str, address: SocketAddr, timeout: Duration) -> anyhow::Result<Self> {
        let mut words = command.split_whitespace();
        let program = words.next().context("--server-command is empty")?;
        ensure!(TcpStream::connect(address).is_err(), "--server-command: something listens on {address} already");
        let child = Command::new(program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("--server-command: starting {program}"))?;
        let mut server = ServerProcess { child };
        let deadline = Instant::now() + timeout;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("--server-command: {program} ended at once, {status}");
            }
            ensure!(Instant::now() < deadline, "--server-command: nothing listens on {address} after {timeout:?}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let asked = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        let deadline = Instant::now() + PATIENCE;
        while asked && Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
