//! `cargo xtask` runs every check and test of the project.
//!
//! `ci` runs for each change. `nightly` and `bench` take longer. `setup` installs the tools that
//! the other commands need. The tools and their flags are listed only in this program. The checks
//! that need a browser are in `tests/browser`; this program only starts them.

#![allow(clippy::print_stdout, reason = "this program prints its results")]

mod bench;
mod browser;
mod ci;
mod cluster;
mod command;
mod cross;
mod deploy;
mod dist;
mod nightly;
mod package;
mod promtool;
mod relays;
mod schemathesis;
mod setup;
mod snippets;
mod steps;
mod tidy;
mod trial;
mod workspace;

use std::process::ExitCode;

use anyhow::{Context as _, bail};

use crate::steps::{Choice, Verdict};
use crate::workspace::Workspace;

const USAGE: &str = "\
usage: cargo xtask <command>

  ci [--only STEP] [--list]      all checks that a change has to pass
  tidy                           the project's own rules
  browser [--only STEP] [--list] only the checks with browsers and other clients
  nightly [--seconds N] [--only STEP] [--list]
                                 long torture tests, fuzzing, browsers three times, advisories
  bench [--quick] [--rounds N] [--seconds N] [--only CELL,…] [--list]
                                 measures downlink, axum and a bare loop of writes
  dist                           builds the static program and packs the archive
  setup [--all]                  installs the tools for the tests; --all: for ci and nightly too
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Bad) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> anyhow::Result<Verdict> {
    let Some((command, rest)) = arguments.split_first() else {
        bail!("no command given\n\n{USAGE}");
    };
    let options = Options::parse(rest)?;
    let workspace = Workspace::load()?;
    match command.as_str() {
        "ci" => steps::run(&ci::steps(&workspace), &options.choice, &workspace),
        "browser" => steps::run(&browser::steps(), &options.choice, &workspace),
        "nightly" => {
            let steps =
                nightly::steps(&workspace, options.seconds.unwrap_or(Options::SECONDS_DEFAULT))?;
            steps::run(&steps, &options.choice, &workspace)
        }
        "tidy" => tidy::run(&workspace),
        "bench" => bench::run(&workspace, &options),
        "dist" => dist::run(&workspace),
        "setup" => setup::run(&workspace, options.all),
        other => bail!("there is no command `{other}`\n\n{USAGE}"),
    }
}

/// The options after the command.
#[derive(Debug)]
struct Options {
    choice: Choice,
    /// The seconds of each fuzz target in `nightly`, or of each load in `bench`.
    seconds: Option<u64>,
    rounds: Option<u64>,
    is_quick: bool,
    all: bool,
}

impl Options {
    /// The default for fuzzing: an hour for each target. A minute finds only shallow bugs. With much
    /// more than an hour, all targets together would take longer than a night.
    const SECONDS_DEFAULT: u64 = 3_600;

    fn parse(arguments: &[String]) -> anyhow::Result<Self> {
        let (choice, all, is_quick) = (Choice::All, false, false);
        let mut options = Self { choice, seconds: None, rounds: None, is_quick, all };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "--list" => options.choice = Choice::List,
                "--all" => options.all = true,
                "--only" => {
                    let step = rest.next().context("--only needs the name of a step")?;
                    options.choice = Choice::Only(step.clone());
                }
                "--seconds" => options.seconds = Some(number(argument, rest.next())?),
                "--rounds" => options.rounds = Some(number(argument, rest.next())?),
                "--quick" => options.is_quick = true,
                other => bail!("unknown option `{other}`\n\n{USAGE}"),
            }
        }
        Ok(options)
    }
}

fn number(flag: &str, word: Option<&String>) -> anyhow::Result<u64> {
    let number = word.and_then(|word| word.parse().ok());
    number.with_context(|| format!("{flag} needs a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> anyhow::Result<Options> {
        Options::parse(&arguments.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read() {
        let options = parsed(&["--only", "fmt", "--seconds", "5"]).unwrap();
        assert_eq!(options.choice, Choice::Only("fmt".into()));
        assert_eq!(options.seconds, Some(5));
    }

    #[test]
    fn unknown_and_incomplete_options_are_refused() {
        for arguments in
            [&["--onyl"][..], &["--only"], &["--seconds"], &["--seconds", "x"], &["--rounds"]]
        {
            assert!(parsed(arguments).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn an_unknown_command_is_refused() {
        assert!(run(&["cj".to_owned()]).is_err());
        assert!(run(&[]).is_err());
    }
}
