//! The exit codes of the program, and errors with an exit code.

use std::{fmt, process::ExitCode};

/// The exit code for a wrong command line. clap uses the same code.
const USAGE: u8 = 2;

/// The exit code for a setting that cannot be used (`EX_CONFIG` in `sysexits.h`). A supervisor can
/// be configured not to restart the program after this code (`RestartPreventExitStatus=78` in
/// systemd).
pub(super) const CONFIGURATION: u8 = 78;

/// An error with its own exit code. For other errors, the exit code is 1.
#[derive(Debug)]
struct Coded {
    code: u8,
    error: anyhow::Error,
}

impl fmt::Display for Coded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

impl std::error::Error for Coded {}

/// Marks an error as a wrong command line.
pub(super) fn usage(error: anyhow::Error) -> anyhow::Error {
    Coded { code: USAGE, error }.into()
}

/// Marks an error as a setting that cannot be used.
pub(super) fn configuration(error: anyhow::Error) -> anyhow::Error {
    Coded { code: CONFIGURATION, error }.into()
}

pub(super) fn code_of(error: &anyhow::Error) -> ExitCode {
    error.downcast_ref::<Coded>().map_or(ExitCode::FAILURE, |coded| coded.code.into())
}
