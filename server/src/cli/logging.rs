//! Where log lines go, and in which form.
//!
//! Levels by who would act: ERROR is a fault of ours, WARN is what an operator should look at, INFO what happened to the server or
//! was refused to somebody, DEBUG what happened to one connection, TRACE every message. On a terminal lines are for
//! people, elsewhere they are JSON objects. `RUST_LOG` in the usual form overrides `log.level`.

use std::{fs::OpenOptions, io::IsTerminal, sync::Mutex};

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::config::{Log, LogLevel};

/// Starts logging.
///
/// # Errors
///
/// A log file that cannot be opened.
pub(super) fn start(options: &Log) -> Result<(), String> {
    let level = match options.level {
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Fatal => LevelFilter::ERROR,
        LogLevel::None => LevelFilter::OFF,
    };
    // The WebSocket library writes whole payloads at its lowest level.
    let filter = EnvFilter::builder().with_default_directive(level.into()).from_env_lossy();
    let filter = ["tungstenite=info", "h2=info", "hyper=info"].into_iter().fold(filter, |filter, directive| {
        filter.add_directive(directive.parse().expect("the directives above are well formed"))
    });
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    let started = match &options.file {
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            let file = file.map_err(|error| format!("log.file {}: {error}", path.display()))?;
            builder.json().flatten_event(true).with_writer(Mutex::new(file)).try_init()
        }
        None if std::io::stderr().is_terminal() => builder.with_target(false).with_writer(std::io::stderr).try_init(),
        None => builder.json().flatten_event(true).with_writer(std::io::stderr).try_init(),
    };
    // Logging that is set up already, by a test, is as good.
    let _ = started;
    Ok(())
}
