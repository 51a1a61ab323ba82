//! The exit codes of the program, and errors that carry one.

use std::{fmt, process::ExitCode};

/// A wrong command line, as clap reports it too.
const USAGE: u8 = 2;

/// A setting that cannot be used (`EX_CONFIG` in `sysexits.h`). A supervisor can be told not to
/// start the program again after it (`RestartPreventExitStatus=78` in systemd).
pub(super) const CONFIGURATION: u8 = 78;

/// An error with an exit code of its own. Other errors have 1.
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
