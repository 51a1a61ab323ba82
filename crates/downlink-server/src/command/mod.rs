//! The command line: `downlink dev`, `serve`, `publish`, `subscribe`, `decode`, `health`,
//! `backup`, `key`, `token`, `bench`, `completions` and `man`.
//!
//! The program writes an error and its causes to stderr as one sentence. The exit code is 1 for a
//! failure, 2 for a wrong command line, and 78 for a setting that cannot be used. If the program
//! that reads stdout closes it early, the exit code is 0.

mod backup;
mod credential;
mod decode;
mod environment;
mod exit;
mod generated;
mod health;
mod keys;
mod listening;
mod output;
mod publish;
mod runtime;
mod serve;
mod server_url;
mod subscribe;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand, builder::Resettable};

use self::output::{ReaderGone, complain, printed, shown};
use crate::{
    access::AccessSettings,
    config::{self, Settings},
};

/// The text at the end of `--help`.
const AFTER_HELP: &str = "\
DOWNLINK_LOG sets the level of the log on stderr: error, warn, info (the default), debug, trace, or \
a list such as info,downlink_server=debug.

Exit codes: 0 for success, 1 for a failure, 2 for a wrong command line, 78 for a setting that \
cannot be used.";

/// Push live updates to browsers and programs with Server-Sent Events.
#[derive(Debug, Parser)]
#[command(
    name = "downlink",
    version,
    args_conflicts_with_subcommands = true,
    after_help = format!("Settings of the server: see downlink dev --help and downlink serve --help.\n{AFTER_HELP}")
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Sub>,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// Run a server for development on this machine: every program here has every right (the
    /// default).
    #[command(after_help = AFTER_HELP)]
    Dev(Box<Dev>),
    /// Run a server for production: credentials decide who may do what.
    #[command(after_help = AFTER_HELP)]
    Serve(Box<Serve>),
    /// Publish one event, or a stream of them from stdin.
    Publish(publish::Arguments),
    /// Print events as they arrive. Reconnects and resumes after an interruption.
    Subscribe(subscribe::Arguments),
    /// Read an event stream on stdin and print one JSON object per event.
    Decode(decode::Arguments),
    /// Ask a server whether it is ready. The exit code is 0 if it is, and 1 if it is not.
    Health(health::Arguments),
    /// Copy the store of a server, also while the server runs.
    Backup(backup::Arguments),
    /// Make a key, or print the id of one.
    Key(keys::KeyArguments),
    /// Make a token for tests and small sites, or show what a token contains.
    Token(keys::TokenArguments),
    /// Put load on a server and check that every event arrives.
    Bench(Box<downlink_bench::Arguments>),
    /// Print completions for a shell. In bash: `source <(downlink completions bash)`.
    Completions(generated::CompletionsArguments),
    /// Print a manual page. To read it: `downlink man serve | man -l -`.
    Man(generated::ManArguments),
}

#[derive(Args, Debug)]
struct Dev {
    /// A TOML file with settings, such as `listen = "127.0.0.1:9000"`. Flags and environment
    /// variables override the file.
    #[arg(long, env = "DOWNLINK_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Args, Debug)]
struct Serve {
    /// A TOML file with settings, such as `listen = "127.0.0.1:9000"`. Flags and environment
    /// variables override the file.
    #[arg(long, env = "DOWNLINK_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten, next_help_heading = "Access control")]
    access: AccessSettings,
}

/// Runs the program with these arguments.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    if is_bare(&arguments) {
        arguments.insert(1.min(arguments.len()), "dev".into());
    }
    let cli = match parse(&arguments) {
        Ok(cli) => cli,
        Err(error) => return fail(&error),
    };
    let done = match cli.command {
        Some(Sub::Dev(dev)) => serve::run(dev.settings, None),
        Some(Sub::Serve(serve)) => serve::run(serve.settings, Some(serve.access)),
        Some(Sub::Publish(arguments)) => publish::run(arguments),
        Some(Sub::Subscribe(arguments)) => subscribe::run(arguments),
        Some(Sub::Decode(arguments)) => decode::run(&arguments),
        Some(Sub::Health(arguments)) => health::run(&arguments),
        Some(Sub::Backup(arguments)) => backup::run(&arguments),
        Some(Sub::Key(arguments)) => keys::key(&arguments),
        Some(Sub::Token(arguments)) => keys::token(&arguments),
        Some(Sub::Bench(arguments)) => bench(&arguments),
        Some(Sub::Completions(wanted)) => generated::completions(Cli::command(), &wanted),
        Some(Sub::Man(wanted)) => generated::man(Cli::command(), &wanted),
        None => Ok(()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn bench(arguments: &downlink_bench::Arguments) -> anyhow::Result<()> {
    let report = downlink_bench::run(arguments)?;
    printed(io::stdout().write_all(shown(&report).as_bytes()))
}

/// Whether the user left out the word `dev`: the command line is empty, or begins with a flag of
/// `dev`.
fn is_bare(arguments: &[OsString]) -> bool {
    let first = arguments.get(1).map(|argument| argument.to_string_lossy());
    first.is_none_or(|first| {
        first.starts_with('-') && !["-h", "--help", "-V", "--version"].contains(&&*first)
    })
}

/// Parses the command line. The values of a settings file become the defaults of the flags.
fn parse(arguments: &[OsString]) -> anyhow::Result<Cli> {
    let matches = Cli::command().try_get_matches_from(arguments);
    let matches = matches.unwrap_or_else(|error| end_with(&error, arguments));
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let variables: Vec<_> = std::env::vars_os().map(|(name, _)| name).collect();
    let variables = variables.into_iter();
    environment::check(&Cli::command(), variables.clone()).map_err(exit::configuration)?;
    if matches!(cli.command, Some(Sub::Dev(_))) {
        environment::check_dev(&Cli::command(), variables).map_err(exit::configuration)?;
    }
    with_file(cli, arguments).map_err(exit::configuration)
}

/// Prints the help or the error that clap returned, and ends the program.
fn end_with(error: &clap::Error, arguments: &[OsString]) -> ! {
    let mut command = Cli::command();
    for name in command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect::<Vec<_>>() {
        let reset = |arg: Arg| arg.env(Resettable::Reset);
        command = command.mut_subcommand(name, |sub| sub.mut_args(reset));
    }
    if error.use_stderr() && command.try_get_matches_from(arguments).is_ok() {
        let _ = error.print();
        complain(format_args!("the value comes from an environment variable"));
        std::process::exit(exit::CONFIGURATION.into());
    }
    error.exit()
}

fn with_file(cli: Cli, arguments: &[OsString]) -> anyhow::Result<Cli> {
    let (name, file) = match &cli.command {
        Some(Sub::Dev(dev)) => ("dev", dev.config.clone()),
        Some(Sub::Serve(serve)) => ("serve", serve.config.clone()),
        _ => return Ok(cli),
    };
    let Some(file) = file else { return Ok(cli) };
    let command = config::with_file(Cli::command(), name, &file)?;
    // The first parse, without the file, had no error. So an error of this parse comes from the
    // file.
    let matches = command.try_get_matches_from(arguments);
    let cli = matches.and_then(|matches| Cli::from_arg_matches(&matches));
    cli.with_context(|| format!("{} has a setting that cannot be used", file.display()))
}

fn fail(error: &anyhow::Error) -> ExitCode {
    if error.is::<ReaderGone>() {
        return ExitCode::SUCCESS;
    }
    complain(format_args!("{error:#}"));
    exit::code_of(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_of_the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    fn bare(arguments: &[&str]) -> bool {
        is_bare(&arguments.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn flags_without_a_command_belong_to_dev() {
        assert!(bare(&["downlink"]));
        assert!(bare(&["downlink", "--listen", "127.0.0.1:0"]));
        assert!(!bare(&["downlink", "serve"]));
        assert!(!bare(&["downlink", "--help"]));
        assert!(!bare(&["downlink", "--version"]));
    }
}
