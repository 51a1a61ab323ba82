//! `downlink config`: shows or checks the settings of `downlink serve`.
//!
//! The flags and the environment variables are those of `downlink serve`. Neither command opens a
//! socket or a store, or makes a file.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, anyhow};
use clap::{Args, Command, Subcommand};
use downlink::serve::connections_supported;

use super::{
    exit,
    output::{complain, printed, shown},
};
use crate::{
    access::{self, AccessSettings},
    address::Address,
    app,
    config::{Settings, Values, table, with_table},
};

/// The arguments of `downlink serve`.
#[derive(Args, Debug)]
pub(super) struct Serve {
    /// A TOML file with settings, such as `listen = "127.0.0.1:9000"`. Flags and environment
    /// variables override the file.
    #[arg(long, env = "DOWNLINK_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) settings: Settings,
    #[command(flatten, next_help_heading = "Access control")]
    pub(super) access: AccessSettings,
}

/// Reads the settings that this command line of `downlink serve` gives, with those of the
/// environment and of the settings file.
pub(super) type ReadServe = fn(&[OsString]) -> anyhow::Result<(Serve, Values)>;

#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(subcommand)]
    wanted: Wanted,
}

#[derive(Debug, Subcommand)]
enum Wanted {
    /// Print every setting with its value and its source, as a settings file (TOML).
    Show(Box<Show>),
    /// Check everything that downlink serve checks before it opens its sockets. The exit code is 78
    /// if a setting or a file cannot be used.
    Check(Box<Serve>),
}

#[derive(Args, Debug)]
struct Show {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    serve: Serve,
}

/// Runs the command. `arguments` are the words of the command line. `command` describes the command
/// line of the whole program.
pub(super) fn run(
    arguments: &[OsString],
    wanted: &Arguments,
    command: &Command,
    read: ReadServe,
) -> anyhow::Result<()> {
    let mut words = of_serve(arguments);
    match &wanted.wanted {
        Wanted::Show(show) => {
            if show.json {
                words.retain(|word| word != "--json");
            }
            let (_, values) = read(&words).map_err(exit::configuration)?;
            let text = match show.json {
                true => format!("{:#}\n", values.to_json()),
                false => values.to_toml(),
            };
            printed(io::stdout().write_all(shown(&text).as_bytes()))
        }
        Wanted::Check(serve) => {
            let errors = match read(&words) {
                Ok((serve, _)) => problems(&serve.settings, &serve.access),
                Err(error) => of_file(command, &words, serve.config.as_deref(), error),
            };
            report(errors)
        }
    }
}

/// The words of a command line of `downlink serve` with the same flags.
fn of_serve(arguments: &[OsString]) -> Vec<OsString> {
    let flags = arguments.iter().skip(3).cloned();
    arguments.iter().take(1).cloned().chain([OsString::from("serve")]).chain(flags).collect()
}

/// Prints all errors but the last, and returns the last one. If there are no errors, prints that
/// the settings can be used.
fn report(mut errors: Vec<anyhow::Error>) -> anyhow::Result<()> {
    let Some(last) = errors.pop() else {
        return printed(writeln!(io::stdout(), "the settings can be used"));
    };
    errors.iter().for_each(|error| complain(format_args!("{error:#}")));
    Err(exit::configuration(last))
}

/// The errors of a settings file: one for each setting that cannot be used. If each setting can be
/// used alone, the only error is `error`, which is the error of all settings together.
fn of_file(
    command: &Command,
    words: &[OsString],
    file: Option<&Path>,
    error: anyhow::Error,
) -> Vec<anyhow::Error> {
    let read = file.and_then(|file| Some((file, table(file).ok()?)));
    let Some((file, settings)) = read else { return vec![error] };
    let refused = |entry: (String, toml::Value)| {
        let name = entry.0.clone();
        let alone = toml::Table::from_iter([entry]);
        let matched = with_table(command.clone(), "serve", file, alone).and_then(|command| {
            let refused = || format!("{}: {name} cannot be used", file.display());
            command.try_get_matches_from(words).with_context(refused)
        });
        matched.err()
    };
    let errors: Vec<_> = settings.into_iter().filter_map(refused).collect();
    if errors.is_empty() { vec![error] } else { errors }
}

/// The errors in the settings and in the files that they name. A socket may still fail later.
fn problems(settings: &Settings, access: &AccessSettings) -> Vec<anyhow::Error> {
    contradictions(settings, access).into_iter().chain(access::check(settings, access)).collect()
}

/// The errors in the settings that a server can find without the files of access control.
pub(super) fn contradictions(settings: &Settings, access: &AccessSettings) -> Vec<anyhow::Error> {
    let admin = access.admin_listen.as_ref();
    let sockets = [Some(&settings.listen), admin].into_iter().flatten().filter_map(Address::path);
    let files = settings.store().into_iter().chain(sockets);
    let mut errors = contradictions_of_values(settings, access);
    errors.extend(files.filter_map(|file| check_folder(file).err()));
    errors
}

/// As [`contradictions`], but does not check the folders of the store and of the sockets. A running
/// server needs no such check, because it has these files open.
pub(super) fn contradictions_of_values(
    settings: &Settings,
    access: &AccessSettings,
) -> Vec<anyhow::Error> {
    let admin = access.admin_listen.as_ref();
    let checked =
        [settings.check(admin), access.check(&settings.listen), check_connections(settings)];
    let mut errors: Vec<anyhow::Error> = checked.into_iter().filter_map(Result::err).collect();
    let in_memory = Settings { store: "none".into(), ..settings.clone() };
    errors.extend(
        app::hub(&in_memory, &Arc::default(), app::Source::Publishers)
            .err()
            .map(anyhow::Error::from),
    );
    errors
}

/// Checks that a file can be made at this path.
fn check_folder(file: &Path) -> anyhow::Result<()> {
    let shown = file.display();
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        folder.read_dir().with_context(|| format!("cannot use the folder of {shown}"))?;
    }
    match file.is_dir() {
        true => Err(anyhow!("{shown} is a folder, and the setting needs the path of a file")),
        false => Ok(()),
    }
}

/// Checks that the limit of connections is not above the limit of open files. Without this check,
/// the server would fail only later, when it has many connections.
pub(super) fn check_connections(settings: &Settings) -> anyhow::Result<()> {
    let supported = connections_supported();
    match settings.connections_max {
        Some(wanted) if wanted > supported => Err(anyhow!(
            "--connections-max {wanted} is more than this process can have: its limit of open \
             files allows {supported} connections; raise that limit (ulimit -n, or LimitNOFILE= in \
             systemd), or give --connections-max {supported} or less"
        )),
        _ => Ok(()),
    }
}
