//! `cargo xtask`: every check and test of the project behind one command.
//!
//! `ci` runs for each change; `nightly` and `bench` take longer; `setup` installs the tools that
//! they need. This program is the only place that knows the tools and their flags. Not here: the
//! checks that need a browser (`tests/browser`). This program only starts them.

#![allow(clippy::print_stdout, reason = "printing is what this program is for")]

mod bench;
mod browser;
mod ci;
mod command;
mod cross;
mod nightly;
mod package;
mod promtool;
mod setup;
mod steps;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::{Context as _, bail};

use crate::steps::{Choice, Verdict};
use crate::workspace::Workspace;

const USAGE: &str = "\
usage: cargo xtask <command>

  ci [--only STEP] [--list]      everything that must hold for a change
  tidy                           the rules of the house that no other tool knows
  browser [--only STEP] [--list] real browsers and foreign clients alone
  nightly [--seconds N] [--only STEP] [--list]
                                 long torture, fuzzing, browsers three times, advisories
  bench [--quick] [--rounds N] [--seconds N] [--only CELL,…] [--list]
                                 downlink beside axum and a bare loop of writes
  setup [--all]                  installs what the tests need; --all: what ci and nightly need
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
        "setup" => setup::run(&workspace, options.all),
        other => bail!("there is no command `{other}`\n\n{USAGE}"),
    }
}

/// The options after the command.
#[derive(Debug)]
struct Options {
    choice: Choice,
    /// Seconds for each fuzz target, or for each load.
    seconds: Option<u64>,
    rounds: Option<u64>,
    is_quick: bool,
    all: bool,
}

impl Options {
    /// One minute per target finds shallow bugs and keeps a night's run under an hour.
    const SECONDS_DEFAULT: u64 = 60;

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
