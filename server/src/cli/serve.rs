//! `starling serve`

use std::process::ExitCode;

use super::complain;
use crate::config::Loaded;

/// Runs the server until it is told to stop.
pub(super) fn run(_loaded: Loaded) -> ExitCode {
    complain("this build has no server yet");
    ExitCode::FAILURE
}
