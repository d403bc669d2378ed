//! The command line.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::command::{RunOptions, fanout, idle, publish, run};
use crate::faulty::{self, Faults};
use crate::interrupt::Interrupt;
use crate::reference;
use crate::report::{Exit, Measured, Provenance, Report, Verdict};

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
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no failure; a wrong command line is a failed set-up.
            let exit = if error.use_stderr() { Exit::SetUpFailed } else { Exit::Passed };
            let _ = error.print();
            return ExitCode::from(exit as u8);
        }
    };
    let exit = match cli.command {
        Command::Run(options) => measure("run", options.run(), |seed, stop| run::execute(&options, seed, stop)),
        Command::Idle(options) => measure("idle", options.run(), |seed, stop| idle::execute(&options, seed, stop)),
        Command::Publish(options) => {
            measure("publish", options.run(), |seed, stop| publish::execute(&options, seed, stop))
        }
        Command::Fanout(options) => {
            measure("fanout", options.run(), |seed, stop| fanout::execute(&options, seed, stop))
        }
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

fn measure<M: Measured>(
    name: &'static str,
    options: &RunOptions,
    execute: impl FnOnce(u64, &Interrupt) -> anyhow::Result<(M, Verdict)>,
) -> anyhow::Result<Exit> {
    let RunOptions { seed, json, .. } = options;
    let seed = seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let provenance = Provenance::new(std::env::args(), seed);
    let interrupt = Interrupt::listen()?;
    Report::new(name, provenance, execute(seed, &interrupt)).publish(json.as_deref())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
