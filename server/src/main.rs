//! The `starling` binary.

use std::process::ExitCode;

use starling_server::{cli, config::Environment};

fn main() -> ExitCode {
    cli::run(std::env::args_os(), Environment::of_process())
}
