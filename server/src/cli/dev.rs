//! `starling dev`

use std::process::ExitCode;

use super::complain;
use crate::config::Sources;

/// Runs a server to try things with, on this machine only.
pub(super) fn run(_sources: Sources) -> ExitCode {
    complain("this build has no server yet");
    ExitCode::FAILURE
}
