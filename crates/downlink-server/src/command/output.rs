//! The output of the commands: stdout for results, stderr for errors.
//!
//! A reader may close stdout early. The command then ends, and its exit code is 0.

use std::{
    fmt,
    io::{self, Write as _},
};

use anyhow::Context as _;

/// Writes a line to stderr. An error is ignored: there is no other place to report it.
pub(super) fn complain(what: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "downlink: {what}");
}

/// The reader of stdout has closed it, as `head` does.
#[derive(Debug)]
pub(super) struct ReaderGone;

impl fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the reader of the output is gone")
    }
}

impl std::error::Error for ReaderGone {}

/// Turns the result of a write to stdout into the result of the command.
pub(super) fn printed(written: io::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        written => written.context("cannot write to stdout"),
    }
}
