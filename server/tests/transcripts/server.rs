//! The server under test: one process for each run, on free loopback ports.

use std::{
    env, fmt,
    fs::{self, File},
    net::Ipv4Addr,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, timeout},
};

use crate::{
    json::{Json, Object},
    ports::{Port, Ports},
};

/// Longest time from the start to the first accepted connection, for a machine that is busy with a dozen others.
const START: Duration = Duration::from_secs(30);

/// How the server is started.
pub(crate) struct CommandLine(Vec<String>);

impl CommandLine {
    /// The binary of this crate, or what `STARLING_TRANSCRIPT_SERVER` says.
    pub(crate) fn from_environment() -> Result<Self> {
        let Some(text) = env::var_os("STARLING_TRANSCRIPT_SERVER") else {
            return Ok(Self(
                [env!("CARGO_BIN_EXE_starling"), "serve", "--config", "{config}"].map(str::to_owned).to_vec(),
            ));
        };
        // The server runs in a folder of its own, so a program or file given by a relative path is made absolute.
        let absolute = |word: &str| match word.contains('/').then(|| fs::canonicalize(word)) {
            Some(Ok(path)) => path.to_string_lossy().into_owned(),
            Some(Err(_)) | None => word.to_owned(),
        };
        let words: Vec<_> = text.to_string_lossy().split_whitespace().map(absolute).collect();
        if !words.iter().any(|word| word.contains("{config}")) {
            bail!("STARLING_TRANSCRIPT_SERVER must hold {{config}}, the place of the configuration file");
        }
        Ok(Self(words))
    }
}

/// The ports on which a run's server listens.
pub(crate) struct Listeners {
    http: Port,
    grpc: Option<Port>,
    uni_grpc: Option<Port>,
}

impl Listeners {
    /// Ports for the listeners that the configuration enables.
    pub(crate) fn choose(config: &Object, ports: &Arc<Ports>) -> Result<Self> {
        let optional = |section: &str| {
            let enabled = config.get(section).and_then(|section| section.get("enabled")) == Some(&Json::Bool(true));
            enabled.then(|| ports.take()).transpose()
        };
        Ok(Self { http: ports.take()?, grpc: optional("grpc_api")?, uni_grpc: optional("uni_grpc")? })
    }

    pub(crate) fn http(&self) -> u16 {
        self.http.number()
    }

    pub(crate) fn grpc(&self) -> Option<u16> {
        self.grpc.as_ref().map(Port::number)
    }

    pub(crate) fn uni_grpc(&self) -> Option<u16> {
        self.uni_grpc.as_ref().map(Port::number)
    }

    /// Puts ports and addresses into a configuration.
    fn complete(&self, config: &mut Object) {
        let sections = [("http_server", Some(self.http())), ("grpc_api", self.grpc()), ("uni_grpc", self.uni_grpc())];
        for (section, port) in sections {
            let Some(port) = port else { continue };
            let section = config.object_mut(section);
            section.insert("port", Json::int(port));
            if !section.contains("address") {
                section.insert("address", Json::text("127.0.0.1"));
            }
        }
    }
}

/// The process ended before it listened.
#[derive(Debug)]
pub(crate) struct EndedEarly(ExitStatus);

impl EndedEarly {
    /// Whether it did so on purpose: it was not killed, it did not panic, and it did not call that a success.
    pub(crate) fn is_refusal(&self) -> bool {
        const PANIC: i32 = 101;
        self.0.code().is_some_and(|code| code != 0 && code != PANIC)
    }
}

impl fmt::Display for EndedEarly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server ended before it listened: {}", self.0)
    }
}

impl std::error::Error for EndedEarly {}

/// A started process; it is killed when this is dropped.
pub(crate) struct Server {
    pub(crate) listeners: Listeners,
    folder: TempDir,
    child: Child,
}

impl Server {
    pub(crate) fn start(command: &CommandLine, listeners: Listeners, config: &Object, env: &Object) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("transcript-").tempdir()?;
        write_config(&folder, &listeners, config)?;
        let place = config_path(&folder);
        let mut words = command.0.iter().map(|word| word.replace("{config}", &place.to_string_lossy()));
        let log = File::create(log_path(&folder))?;
        let mut process = Command::new(words.next().context("a command")?);
        process.args(words).current_dir(folder.path()).kill_on_drop(true);
        process.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CENTRIFUGO_") || text.starts_with("STARLING_") {
                process.env_remove(&name);
            }
        }
        for (name, value) in env.iter() {
            process.env(name, value.as_str().map_or_else(|| value.compact(), str::to_owned));
        }
        let child = process.spawn().context("the server does not start")?;
        Ok(Self { listeners, folder, child })
    }

    /// Waits until every port accepts connections.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START;
        let ports = [Some(self.listeners.http()), self.listeners.grpc(), self.listeners.uni_grpc()];
        for port in ports.into_iter().flatten() {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
                if let Ok(status) = timeout(Duration::from_millis(10), self.child.wait()).await {
                    return Err(EndedEarly(status?).into());
                }
                if Instant::now() > deadline {
                    bail!("the server does not listen on port {port}");
                }
            }
        }
        Ok(())
    }

    /// Writes another configuration, with the ports that the process has.
    pub(crate) fn reconfigure(&self, config: &Object) -> Result<()> {
        write_config(&self.folder, &self.listeners, config)
    }

    /// Sends a signal; a process that has ended gets none.
    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        let signal = match name {
            "TERM" => Signal::TERM,
            "HUP" => Signal::HUP,
            "INT" => Signal::INT,
            "QUIT" => Signal::QUIT,
            "USR1" => Signal::USR1,
            "USR2" => Signal::USR2,
            "KILL" => Signal::KILL,
            _ => bail!("no signal {name}"),
        };
        if let Some(pid) = self.child.id() {
            kill_process(Pid::from_raw(pid.try_into()?).context("a process id")?, signal)?;
        }
        Ok(())
    }

    /// The exit code once the process has ended; negative is the signal that ended it.
    pub(crate) async fn exit_code(&mut self, within: Duration) -> Option<i32> {
        let status = timeout(within, self.child.wait()).await.ok()?.ok()?;
        status.code().or_else(|| ended_by(status))
    }

    /// TERM, and KILL after half a second.
    pub(crate) async fn stop(mut self) {
        if self.signal("TERM").is_ok() && self.exit_code(Duration::from_millis(500)).await.is_none() {
            // It fails only when the process has just ended.
            let _ = self.child.kill().await;
        }
    }

    /// What the process wrote so far.
    pub(crate) fn log(&self) -> String {
        fs::read(log_path(&self.folder))
            .map_or_else(|e| e.to_string(), |log| String::from_utf8_lossy(&log).into_owned())
    }
}

fn ended_by(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status).map(|signal| -signal)
}

fn write_config(folder: &TempDir, listeners: &Listeners, config: &Object) -> Result<()> {
    let mut config = config.clone();
    listeners.complete(&mut config);
    fs::write(config_path(folder), Json::Object(config).compact())?;
    Ok(())
}

fn config_path(folder: &TempDir) -> PathBuf {
    folder.path().join("config.json")
}

fn log_path(folder: &TempDir) -> PathBuf {
    folder.path().join("server.log")
}
