//! The command line: `downlink dev`, `serve`, `config`, `publish`, `subscribe`, `decode`, `health`,
//! `backup`, `cluster`, `key`, `token`, `bench`, `completions` and `man`.
//!
//! The program writes an error and its causes to stderr as one sentence. The exit code is 1 for a
//! failure, 2 for a wrong command line, and 78 for a setting that cannot be used. If the program
//! that reads stdout closes it early, the exit code is 0.

mod backup;
mod cluster;
mod config;
mod credential;
mod decode;
mod environment;
mod exit;
mod file_watch;
mod generated;
mod health;
mod keys;
mod listening;
mod notices;
mod output;
mod publish;
mod reload;
mod runtime;
mod serve;
mod server_url;
#[cfg(test)]
mod settings_page;
mod subscribe;
#[cfg(unix)]
mod supervisor;

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::{
    Arg, ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand,
    builder::Resettable,
};

use self::{
    config::Serve,
    output::{ReaderGone, complain, printed, shown},
    reload::Reload,
};
use crate::{
    config::{Settings, Values, table, with_table},
    logs::{Log, LogFormat},
    values::masked,
};

/// The text at the end of `--help`.
const AFTER_HELP: &str = "\
DOWNLINK_LOG or --log sets the level of a server's log on stderr: error, warn, info (the default), \
debug, trace, or a list such as info,access=debug.

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
    /// Show or check the settings of downlink serve.
    Config(config::Arguments),
    /// Publish one event, or a stream of them from stdin.
    Publish(publish::Arguments),
    /// Print events as they arrive. Reconnects and resumes after an interruption.
    Subscribe(subscribe::Arguments),
    /// Read an event stream on stdin and print one JSON object per event.
    Decode(decode::Arguments),
    /// Ask a server whether it is ready. The exit code is 0 if it is, and 1 if it is not.
    Health(health::Arguments),
    /// Create, check and show the hub of a cluster of servers.
    Cluster(Box<cluster::Arguments>),
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

/// Runs the program with these arguments.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    if is_bare(&arguments) {
        arguments.insert(1.min(arguments.len()), "dev".into());
    }
    let Loaded { cli, values } = match parse(&arguments) {
        Ok(loaded) => loaded,
        Err(error) => return fail(&error),
    };
    let done = match cli.command {
        Some(Sub::Dev(dev)) => serve::run(dev.settings, None),
        Some(Sub::Serve(serve)) => {
            let Serve { settings, access, config } = *serve;
            let reload = Reload::new(arguments, read_serve, values, config);
            serve::run(settings, Some((access, reload)))
        }
        Some(Sub::Config(wanted)) => {
            let log = Log::to_stderr("warn", LogFormat::Text);
            log.and_then(|_log| config::run(&arguments, &wanted, &Cli::command(), read_serve))
        }
        Some(Sub::Publish(arguments)) => publish::run(arguments),
        Some(Sub::Subscribe(arguments)) => subscribe::run(arguments),
        Some(Sub::Decode(arguments)) => decode::run(&arguments),
        Some(Sub::Health(arguments)) => health::run(&arguments),
        Some(Sub::Cluster(arguments)) => cluster::run(&arguments),
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

/// The command line, and the values of all settings if it starts a server.
struct Loaded {
    cli: Cli,
    values: Values,
}

/// Parses the command line, the environment and the settings file. If the command line is wrong,
/// ends the program.
fn parse(arguments: &[OsString]) -> anyhow::Result<Loaded> {
    let matches = Cli::command().try_get_matches_from(arguments);
    let matches = matches.unwrap_or_else(|error| end_with(&error, arguments));
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let variables: Vec<_> = std::env::vars_os().map(|(name, _)| name).collect();
    let variables = variables.into_iter();
    environment::check(&Cli::command(), variables.clone()).map_err(exit::configuration)?;
    match &cli.command {
        Some(Sub::Dev(_)) => {
            environment::check_dev(&Cli::command(), variables).map_err(exit::configuration)?;
        }
        Some(Sub::Serve(_)) => {}
        _ => return Ok(Loaded { cli, values: Values::default() }),
    }
    load(arguments).map_err(exit::configuration)
}

/// Prints the help or the error that clap returned, and ends the program.
fn end_with(error: &clap::Error, arguments: &[OsString]) -> ! {
    let command = without_environment(Cli::command());
    if error.use_stderr() && command.try_get_matches_from(arguments).is_ok() {
        let _ = error.print();
        complain(format_args!("the value comes from an environment variable"));
        std::process::exit(exit::CONFIGURATION.into());
    }
    error.exit()
}

fn without_environment(mut command: Command) -> Command {
    for name in command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect::<Vec<_>>() {
        command = command.mut_subcommand(name, without_environment);
    }
    command.mut_args(|arg: Arg| arg.env(Resettable::Reset))
}

/// Parses a command line that starts a server, together with its settings file. The values of the
/// file become the defaults of the flags.
fn load(arguments: &[OsString]) -> anyhow::Result<Loaded> {
    let (mut cli, mut matches) = matched(Cli::command(), arguments)?;
    let (name, file) = match &cli.command {
        Some(Sub::Dev(dev)) => ("dev", dev.config.clone()),
        Some(Sub::Serve(serve)) => ("serve", serve.config.clone()),
        _ => return Ok(Loaded { cli, values: Values::default() }),
    };
    let mut in_file = BTreeSet::new();
    if let Some(file) = file {
        let table = table(&file)?;
        in_file = table.keys().cloned().collect();
        let command = with_table(Cli::command(), name, &file, table)?;
        // The first parse, without the file, had no error. So an error of this parse comes from the
        // file.
        let refused = || format!("{} has a setting that cannot be used", file.display());
        (cli, matches) = matched(command, arguments).with_context(refused)?;
    }
    let command = Cli::command();
    let of_server = command.find_subcommand(name).zip(matches.subcommand_matches(name));
    let (command, matches) = of_server.context("the command does not exist")?;
    Ok(Loaded { cli, values: Values::new(command, matches, &in_file) })
}

/// Reads the settings of `downlink serve` again.
fn read_serve(arguments: &[OsString]) -> anyhow::Result<(Serve, Values)> {
    match load(arguments)? {
        Loaded { cli: Cli { command: Some(Sub::Serve(serve)) }, values } => Ok((*serve, values)),
        _ => bail!("the settings are not those of downlink serve"),
    }
}

fn matched(command: Command, arguments: &[OsString]) -> clap::error::Result<(Cli, ArgMatches)> {
    let matches = command.try_get_matches_from(arguments)?;
    Ok((Cli::from_arg_matches(&matches)?, matches))
}

fn fail(error: &anyhow::Error) -> ExitCode {
    if error.is::<ReaderGone>() {
        return ExitCode::SUCCESS;
    }
    complain(format_args!("{}", masked(&format!("{error:#}"))));
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

    /// The page with all settings is made from the definitions of the arguments. `UPDATE_EXPECT=1`
    /// writes it again.
    #[test]
    fn the_page_of_settings_is_up_to_date() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/SETTINGS.md");
        let command = Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        let dev = command.find_subcommand("dev").unwrap();
        let page = settings_page::page(serve, dev, &reload::RELOADED);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(file, &page).unwrap();
        }
        let found = std::fs::read_to_string(file).unwrap();
        assert!(found == page, "docs/SETTINGS.md is old: run this test with UPDATE_EXPECT=1");
    }

    #[test]
    fn every_setting_that_a_reload_applies_exists() {
        let command = Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        let names: Vec<_> = crate::values::settings(serve).filter_map(Arg::get_long).collect();
        for name in reload::RELOADED {
            assert!(names.contains(&name), "{name}");
        }
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
