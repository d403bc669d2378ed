//! `starling serve`: start, wait for a signal, drain.

use std::{fs, io, path::Path, process::ExitCode};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};
use tracing::{error, info, warn};

use super::{complain, logging};
use crate::{
    app::{Extras, Running},
    config::{Config, Loaded},
};

/// Runs the server until it is told to stop.
pub(super) fn run(loaded: Loaded) -> ExitCode {
    run_with(loaded, Extras::default(), |_| {})
}

/// Runs the server until it is told to stop; `started` is called once it serves.
///
/// SIGTERM and SIGINT drain it, a second one ends it at once; SIGHUP reads the configuration again.
pub(super) fn run_with(loaded: Loaded, extras: Extras, started: impl FnOnce(&Running)) -> ExitCode {
    if let Err(problem) = logging::start(&loaded.config.log) {
        complain(&problem);
        return ExitCode::FAILURE;
    }
    raise_descriptor_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("service").build() {
        Ok(runtime) => runtime,
        Err(problem) => {
            complain(&format!("the service threads cannot be started: {problem}"));
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        // Before anything slow, so that a signal during the start is not lost.
        let mut signals = match Signals::new() {
            Ok(signals) => signals,
            Err(problem) => {
                complain(&format!("signals cannot be received: {problem}"));
                return ExitCode::FAILURE;
            }
        };
        let running = match Running::start(&loaded.config, extras).await {
            Ok(running) => running,
            Err(problem) => {
                complain(&format!("not started: {problem}"));
                return ExitCode::FAILURE;
            }
        };
        let pid_file = loaded.config.pid_file.clone();
        if let Some(path) = &pid_file
            && let Err(problem) = fs::write(path, format!("{}\n", std::process::id()))
        {
            complain(&format!("pid_file {}: {problem}", path.display()));
            return ExitCode::FAILURE;
        }
        started(&running);
        let code = wait_and_drain(running, loaded, &mut signals).await;
        if let Some(path) = &pid_file {
            remove(path);
        }
        code
    });
    // What is cut is not waited for; after a drain nothing is left to wait for.
    runtime.shutdown_background();
    code
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn wait_and_drain(running: Running, mut loaded: Loaded, signals: &mut Signals) -> ExitCode {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = signals.reload.recv() => reload(&running, &mut loaded),
        }
    }
    let Config { shutdown, .. } = &loaded.config;
    info!(timeout_s = shutdown.timeout.as_secs(), "draining; a second signal ends the server at once");
    tokio::select! {
        drained = timeout(shutdown.timeout, running.drain()) => match drained {
            Ok(()) => {
                info!("drained");
                ExitCode::SUCCESS
            }
            Err(_) => {
                error!("not drained within shutdown.timeout; connections are cut");
                ExitCode::FAILURE
            }
        },
        () = signals.stop() => {
            warn!("a second signal: connections are cut");
            ExitCode::FAILURE
        }
    }
}

fn reload(running: &Running, loaded: &mut Loaded) {
    let before = loaded.clone();
    match loaded.reload() {
        Ok(waiting) => {
            if let Err(problem) = running.reload(&loaded.config) {
                warn!(%problem, "the new configuration cannot be used; the old one stays in force");
                *loaded = before;
                return;
            }
            info!("the configuration was read again");
            if !waiting.is_empty() {
                warn!(options = waiting.join(" "), "these options are different now and need a restart");
            }
        }
        Err(problems) => {
            for problem in problems.iter() {
                warn!(%problem, "the new configuration cannot be used; the old one stays in force");
            }
        }
    }
}

/// Each connection is a descriptor: take what the system allows, and say how many that is.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let now = getrlimit(Resource::Nofile);
    info!(before = ?limit.current, now = ?now.current, "limit of open files, which bounds the connections");
    if let Err(problem) = raised {
        warn!(%problem, "the limit of open files could not be raised");
    }
}

fn remove(path: &Path) {
    if let Err(problem) = fs::remove_file(path) {
        warn!(%problem, path = %path.display(), "the pid file could not be removed");
    }
}
