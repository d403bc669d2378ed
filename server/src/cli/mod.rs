//! The command line.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done; the server has drained |
//! | 1 | it cannot be done: a configuration with problems, a token that would be refused, a file in the way |
//! | 2 | the command line itself is wrong |
//!
//! What was asked for goes to standard output, everything else to standard error, so that
//! `TOKEN=$(starling token create)` works.

mod config;
mod dev;
mod flags;
mod logging;
mod publish;
mod serve;
mod subscribe;
mod token;
mod trust;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::config::{Environment, Loaded, Sources};
use flags::{ConfigFlags, OptionFlags};

/// Runs the command that `arguments` (the first is the name of the program) ask for.
pub fn run(arguments: impl IntoIterator<Item = OsString>, environment: Environment) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let program = arguments.first().map_or("starling".into(), |program| program.to_string_lossy().into_owned());
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => {
            // Help and version come as errors too, for standard output.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let line = match CommandLine::from_arg_matches(&matches) {
        Ok(line) => line,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(USAGE);
        }
    };
    match line.command {
        None => with_config(line.serve.sources(environment), serve::run),
        Some(Command::Serve(flags)) => with_config(flags.sources(environment), serve::run),
        Some(Command::Dev(flags)) => dev::run(flags, &program),
        Some(Command::Config { command }) => config::run(command, environment),
        Some(Command::Token { command }) => token::run(command, environment),
        Some(Command::Publish(flags)) => publish::run(flags, environment),
        Some(Command::Subscribe(flags)) => subscribe::run(flags, environment),
        Some(Command::Version) => {
            say(&format!("starling {}\n", env!("CARGO_PKG_VERSION")));
            ExitCode::SUCCESS
        }
    }
}

const USAGE: u8 = 2;

/// Real-time messaging: browsers subscribe, backends publish.
#[derive(Debug, Parser)]
#[command(name = "starling", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: OptionFlags,
}

const EXAMPLES: &str = "\
Try it:           starling dev
Set it up:        starling config init config.toml
Run it:           starling serve --config config.toml
Make a token:     starling token create --user 42 --config config.toml

Options come from the file, then from variables (STARLING_HTTP_SERVER_PORT=9000), then from the command line.
Names, defaults and formats are those of Centrifugo v6; its variables (CENTRIFUGO_...) are read too.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (the same as no command)
    Serve(OptionFlags),
    /// Try it: a server on this machine with a demo page, a token and example commands, no set-up
    Dev(dev::DevFlags),
    /// Check, explain or write a configuration
    Config {
        #[command(subcommand)]
        command: config::ConfigCommand,
    },
    /// Make a token, or say why one would be refused
    Token {
        #[command(subcommand)]
        command: token::TokenCommand,
    },
    /// Publish to a channel of a running server
    Publish(publish::PublishFlags),
    /// Print what is published to a channel of a running server, one line each
    Subscribe(subscribe::SubscribeFlags),
    /// Print the version
    Version,
}

/// The whole command line. Flags of single options are many: the first page of help leaves them out, that of `serve`
/// has them.
fn command() -> clap::Command {
    CommandLine::command().mut_args(|argument| {
        let of_an_option = argument.get_id().as_str().contains('.') || argument.get_id() == "pid_file";
        argument.hide(of_an_option)
    })
}

/// Loads the configuration and goes on with it, or says everything that is wrong with it.
fn with_config(sources: Sources, then: impl FnOnce(Loaded) -> ExitCode) -> ExitCode {
    match sources.load() {
        Ok(loaded) => then(loaded),
        Err(problems) => {
            let (count, noun) = match problems.iter().count() {
                1 => ("a".to_owned(), "problem"),
                count => (count.to_string(), "problems"),
            };
            let lines: Vec<String> = problems.iter().map(|problem| format!("  {problem}")).collect();
            complain(&format!("the configuration has {count} {noun}\n{}", lines.join("\n")));
            ExitCode::FAILURE
        }
    }
}

/// How this machine reaches a listener with this address, as part of a URL.
fn reachable(address: Option<&String>) -> String {
    match address.map_or("", String::as_str).trim_matches(['[', ']']) {
        "" | "0.0.0.0" | "::" => "127.0.0.1".to_owned(),
        address if address.contains(':') => format!("[{address}]"),
        address => address.to_owned(),
    }
}

/// Prints what was asked for. Nobody may be listening any more (`… | head`), which is no failure.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Prints what went wrong.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "starling: {text}");
}

/// Prints what is worth knowing besides.
fn remark(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
