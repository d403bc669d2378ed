//! The command line.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::command::{RunOptions, compare, fanout, idle, knee, presets, publish, run};
use crate::faulty::{self, Faults};
use crate::interrupt::Interrupt;
use crate::reference;
use crate::report::{Exit, Measured, Provenance, Report, Verdict};
use crate::scenario::{self, Scenario};

/// Load tester with an exact audit of every delivery.
///
/// Exit codes: 0 passed, 1 a fault or a missed threshold, 2 the generator was the bottleneck, 3 the set-up failed.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Subscribers, a publication rate, latency from the due time, audit of every delivery
    Run(run::Options),
    /// The highest rate, or the most subscribers, that hold the thresholds
    Knee(knee::Options),
    /// The ready scenarios, or one of them as a file to begin with
    Presets(presets::Options),
    /// Two JSON reports side by side
    Compare(compare::Options),
    /// Idle subscribed connections: memory of the server per connection
    Idle(idle::Options),
    /// Publications without subscribers, as fast as answers come
    Publish(publish::Options),
    /// Processor time per delivery, beside a server that only writes
    Fanout(fanout::Options),
    /// The servers to compare with and to prove the audit with; ends with its standard input
    ReferenceServer {
        /// Address to listen on; port 0 is a free one
        #[arg(long, default_value = "127.0.0.1:0", value_name = "IP:PORT")]
        listen: SocketAddr,
        /// What to speak
        #[arg(long, value_enum, default_value = "nothing")]
        protocol: ReferenceProtocol,
        #[command(flatten)]
        faults: Faults,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ReferenceProtocol {
    /// Writes frames from standard input, each after its length in 4 bytes, to all connections
    Nothing,
    /// Centrifuge client protocol with injected faults, not made for load
    Centrifuge,
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let (cli, scenario) = match parse(std::env::args().collect()) {
        Ok(parsed) => parsed,
        Err(Refused::CommandLine(error)) => {
            // Help and version are no failure; a wrong command line is a failed set-up.
            let exit = if error.use_stderr() { Exit::SetUpFailed } else { Exit::Passed };
            let _ = error.print();
            return ExitCode::from(exit as u8);
        }
        Err(Refused::Scenario(error)) => {
            eprintln!("{error:#}");
            return ExitCode::from(Exit::SetUpFailed as u8);
        }
    };
    let settings = scenario.settings;
    let exit = match cli.command {
        Command::Run(options) => {
            measure("run", options.run(), settings, |seed, stop| run::execute(&options, seed, stop))
        }
        Command::Knee(options) => {
            measure("knee", options.run(), settings, |seed, stop| knee::execute(&options, seed, stop))
        }
        Command::Idle(options) => {
            measure("idle", options.run(), settings, |seed, stop| idle::execute(&options, seed, stop))
        }
        Command::Publish(options) => {
            measure("publish", options.run(), settings, |seed, stop| publish::execute(&options, seed, stop))
        }
        Command::Fanout(options) => {
            measure("fanout", options.run(), settings, |seed, stop| fanout::execute(&options, seed, stop))
        }
        Command::Presets(options) => presets::text(&options).map(say),
        Command::Compare(options) => compare::text(&options).map(say),
        Command::ReferenceServer { listen, protocol, faults } => match protocol {
            ReferenceProtocol::Nothing => reference::serve(listen),
            ReferenceProtocol::Centrifuge => faulty::serve(listen, faults),
        }
        .map(|()| Exit::Passed),
    };
    let exit = exit.unwrap_or_else(|error| {
        eprintln!("loadtest: {error:#}");
        Exit::SetUpFailed
    });
    ExitCode::from(exit as u8)
}

fn say(text: String) -> Exit {
    print!("{text}");
    Exit::Passed
}

enum Refused {
    CommandLine(clap::Error),
    Scenario(anyhow::Error),
}

/// Reads the command line and, where it names one, the scenario, whose keys then stand in for options that are not on
/// the command line.
fn parse(mut line: Vec<String>) -> Result<(Cli, Scenario), Refused> {
    let given = Cli::command().try_get_matches_from(&line).map_err(Refused::CommandLine)?;
    let scenario = match given.subcommand() {
        Some((name, given)) => read_scenario(name, given).map_err(Refused::Scenario)?,
        None => Scenario::default(),
    };
    line.extend(scenario.arguments.iter().cloned());
    let mut cli = Cli::command()
        .try_get_matches_from(line)
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(Refused::CommandLine)?;
    if let Command::Run(options) | Command::Knee(knee::Options { load: options, .. }) = &mut cli.command {
        options.phases.clone_from(&scenario.phases);
    }
    Ok((cli, scenario))
}

fn read_scenario(command: &str, given: &ArgMatches) -> anyhow::Result<Scenario> {
    let Some(word) = given.try_get_one::<String>("scenario").ok().flatten() else { return Ok(Scenario::default()) };
    let (name, text) = scenario::find(word)?;
    let all = Cli::command();
    let command = all.find_subcommand(command).expect("it has just been matched");
    scenario::read(&name, &text, command, given)
}

fn measure<M: Measured>(
    name: &'static str,
    options: &RunOptions,
    settings: Vec<String>,
    execute: impl FnOnce(u64, &Interrupt) -> anyhow::Result<(M, Verdict)>,
) -> anyhow::Result<Exit> {
    let seed = options.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let provenance = Provenance::new(std::env::args(), settings, seed);
    let interrupt = Interrupt::listen()?;
    Report::new(name, provenance, execute(seed, &interrupt)).publish(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
