//! One table for flags, environment and file: a setting is declared once, in [`Settings`].
//!
//! `--drain-within 5s`, `DOWNLINK_DRAIN_WITHIN=5s` and `drain-within = "5s"` in the file are the
//! same setting. A flag overrides the environment, and the environment overrides the file. The
//! values of the file become the defaults of the flags, so checks and error messages are the same
//! for all.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{ArgAction, Args, Command};

pub use crate::{retain::RetainRule, socket_file::Group};

use crate::{
    address::Address, duration::parse_time, host::parse_host, size::parse_bytes,
    socket_file::parse_mode,
};

/// The settings of `downlink serve`.
#[derive(Args, Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Where to listen: an address and a port, or `unix:` and a path. Ignored when the server
    /// inherits a socket (`LISTEN_FDS`, systemd's socket activation).
    #[arg(
        long,
        env = "DOWNLINK_LISTEN",
        value_name = "ADDR:PORT|unix:PATH",
        default_value = "127.0.0.1:8080"
    )]
    pub listen: Address,
    /// The permissions of a Unix socket's file, such as 660; by default as the umask says.
    #[arg(long, env = "DOWNLINK_SOCKET_MODE", value_name = "MODE", value_parser = parse_mode)]
    pub socket_mode: Option<u32>,
    /// The group of a Unix socket's file, such as that of a proxy on this machine.
    #[arg(long, env = "DOWNLINK_SOCKET_GROUP", value_name = "NAME")]
    pub socket_group: Option<Group>,
    /// The file that keeps history; `none` keeps it in memory, and a restart loses it.
    #[arg(long, env = "DOWNLINK_STORE", value_name = "FILE|none", default_value = "./downlink.db")]
    pub store: PathBuf,
    /// How long to wait for a store that another server still has open. The default is 5s; with an
    /// inherited socket, --drain-within is added.
    #[arg(long, env = "DOWNLINK_STORE_WAIT", value_name = "TIME", value_parser = parse_time)]
    pub store_wait: Option<Duration>,
    /// When an event is confirmed and visible: when the disk has it, or the operating system.
    #[arg(
        long,
        env = "DOWNLINK_DURABILITY",
        value_name = "commit|relaxed",
        default_value = "commit"
    )]
    pub durability: Durability,
    /// The largest size of the store; the oldest events are removed first.
    #[arg(
        long,
        env = "DOWNLINK_STORE_BYTES_MAX",
        value_name = "BYTES",
        default_value = "16GiB", value_parser = parse_bytes::<u64>
    )]
    pub store_bytes_max: u64,
    /// The rights of peers without credentials, when listening beyond this machine. May be given
    /// several times, or separated by commas.
    #[arg(
        long,
        env = "DOWNLINK_ANONYMOUS",
        value_name = "subscribe,publish",
        value_delimiter = ','
    )]
    pub anonymous: Vec<Right>,
    /// A host name that clients may use for the server, besides this machine's own. May be given
    /// several times, or separated by commas.
    #[arg(
        long = "host",
        env = "DOWNLINK_HOST",
        value_name = "NAME[:PORT]",
        value_delimiter = ',',
        value_parser = parse_host
    )]
    pub hosts: Vec<String>,
    /// Events kept for each topic.
    #[arg(long, env = "DOWNLINK_RETAIN_EVENTS", value_name = "N", default_value = "1000")]
    pub retain_events: usize,
    /// Bytes kept for each topic.
    #[arg(long, env = "DOWNLINK_RETAIN_BYTES", value_name = "BYTES", default_value = "4MiB", value_parser = parse_bytes::<usize>)]
    pub retain_bytes: usize,
    /// How long events are kept.
    #[arg(long, env = "DOWNLINK_RETAIN_AGE", value_name = "TIME", default_value = "24h", value_parser = parse_time)]
    pub retain_age: Duration,
    /// What topics of a pattern keep instead: `chat/*=events:100,age:1h,bytes:64KiB`. May be given
    /// several times, or separated by `;`; the first match counts.
    #[arg(long, env = "DOWNLINK_RETAIN", value_name = "TOPICS=LIMITS", value_delimiter = ';')]
    pub retain: Vec<RetainRule>,
    /// Bytes of history in memory, all topics together.
    #[arg(
        long,
        env = "DOWNLINK_HISTORY_BYTES_MAX",
        value_name = "BYTES",
        default_value = "256MiB", value_parser = parse_bytes::<usize>
    )]
    pub history_bytes_max: usize,
    /// The largest event in bytes.
    #[arg(long, env = "DOWNLINK_EVENT_BYTES_MAX", value_name = "BYTES", default_value = "1MiB", value_parser = parse_bytes::<usize>)]
    pub event_bytes_max: usize,
    /// The largest batch in bytes.
    #[arg(
        long,
        env = "DOWNLINK_BATCH_BYTES_MAX",
        value_name = "BYTES",
        default_value = "16MiB", value_parser = parse_bytes::<usize>
    )]
    pub batch_bytes_max: usize,
    /// Subscriptions at a time.
    #[arg(long, env = "DOWNLINK_SUBSCRIBERS_MAX", value_name = "N", default_value = "1000000")]
    pub subscribers_max: usize,
    /// Subscriptions of one client at a time.
    #[arg(
        long,
        env = "DOWNLINK_SUBSCRIBERS_PER_CLIENT_MAX",
        value_name = "N",
        default_value = "1000"
    )]
    pub subscribers_per_client_max: usize,
    /// Topics and patterns per subscription.
    #[arg(long, env = "DOWNLINK_SELECTORS_MAX", value_name = "N", default_value = "1000")]
    pub selectors_max: usize,
    /// Topics and clients' inboxes that have events or are finished, at a time.
    #[arg(long, env = "DOWNLINK_TOPICS_MAX", value_name = "N", default_value = "100000")]
    pub topics_max: usize,
    /// Distinct topics and clients that subscriptions name, at a time.
    #[arg(
        long,
        env = "DOWNLINK_SUBSCRIBED_NAMES_MAX",
        value_name = "N",
        default_value = "1000000"
    )]
    pub subscribed_names_max: usize,
    /// Distinct patterns that subscriptions name, at a time.
    #[arg(long, env = "DOWNLINK_PATTERNS_MAX", value_name = "N", default_value = "1000000")]
    pub patterns_max: usize,
    /// Connections at a time; the default follows from the descriptor limit.
    #[arg(long, env = "DOWNLINK_CONNECTIONS_MAX", value_name = "N")]
    pub connections_max: Option<usize>,
    /// A keep-alive is sent after this much silence.
    #[arg(long, env = "DOWNLINK_KEEP_ALIVE", value_name = "TIME", default_value = "15s", value_parser = parse_time)]
    pub keep_alive: Duration,
    /// A subscription's connection ends at this age, varied by a fifth; by default never.
    #[arg(long, env = "DOWNLINK_MAX_AGE", value_name = "TIME", value_parser = parse_time)]
    pub max_age: Option<Duration>,
    /// How long a peer may read nothing before its connection is closed.
    #[arg(long, env = "DOWNLINK_WRITE_STALL_MAX", value_name = "TIME", default_value = "10s", value_parser = parse_time)]
    pub write_stall_max: Duration,
    /// Unsent bytes that the kernel holds for one connection; 0 leaves it to the system.
    #[arg(long, env = "DOWNLINK_UNSENT_BYTES_MAX", value_name = "BYTES", default_value = "8KiB", value_parser = parse_bytes::<u32>)]
    pub unsent_bytes_max: u32,
    /// How long the head of a request may take to arrive.
    #[arg(long, env = "DOWNLINK_HEADER_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = parse_time)]
    pub header_timeout: Duration,
    /// How long an idle connection waits for its next request: longer than a balancer in front.
    #[arg(long, env = "DOWNLINK_IDLE_TIMEOUT", value_name = "TIME", default_value = "75s", value_parser = parse_time)]
    pub idle_timeout: Duration,
    /// How long the body of a request may pause.
    #[arg(long, env = "DOWNLINK_BODY_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    pub body_timeout: Duration,
    /// How long a streamed publish may pause.
    #[arg(long, env = "DOWNLINK_STREAM_PAUSE_MAX", value_name = "TIME", default_value = "1h", value_parser = parse_time)]
    pub stream_pause_max: Duration,
    /// How long a shutdown may take.
    #[arg(long, env = "DOWNLINK_DRAIN_WITHIN", value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    pub drain_within: Duration,
    /// How long a finished topic stays finished and readable.
    #[arg(long, env = "DOWNLINK_FINISHED_KEEP", value_name = "TIME", default_value = "1h", value_parser = parse_time)]
    pub finished_keep: Duration,
}

/// A right of peers without credentials.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Eq, PartialEq)]
pub enum Right {
    /// Subscribe, and list topics and clients.
    Subscribe,
    /// Publish, finish and disconnect.
    Publish,
}

/// When an event is confirmed and visible.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// When the disk has it.
    Commit,
    /// When the operating system has it; it is on the disk within a tenth of a second.
    Relaxed,
}

impl Settings {
    /// The file that keeps history. `None` if history is kept in memory.
    pub fn store(&self) -> Option<&Path> {
        Some(self.store.as_path()).filter(|file| *file != Path::new("none"))
    }

    /// Whether events are confirmed before the disk has them.
    pub fn is_relaxed(&self) -> bool {
        self.store().is_some() && self.durability == Durability::Relaxed
    }

    /// Whether peers without credentials have this right.
    pub fn allows(&self, right: Right) -> bool {
        self.anonymous.contains(&right) || (self.anonymous.is_empty() && self.is_local())
    }

    /// Whether the file of a Unix socket gets permissions of its own.
    pub(crate) fn has_socket_file(&self) -> bool {
        self.socket_mode.is_some() || self.socket_group.is_some()
    }

    /// Whether the server listens on this machine only.
    pub fn is_local(&self) -> bool {
        self.listen.is_local()
    }

    /// Checks rules that concern several settings.
    ///
    /// # Errors
    ///
    /// A sentence that says what to change.
    pub fn check(&self) -> anyhow::Result<()> {
        if !self.is_local() && self.anonymous.is_empty() {
            bail!(
                "{} can be reached from other machines, and there are no credentials yet: say \
                 what anybody may do with --anonymous subscribe, --anonymous publish or \
                 --anonymous subscribe,publish, or listen on 127.0.0.1",
                self.listen
            );
        }
        if self.has_socket_file() && self.listen.path().is_none() {
            bail!(
                "--socket-mode and --socket-group are for a Unix socket, and {} is none: listen on \
                 one with --listen unix:/run/downlink.sock, or leave them out",
                self.listen
            );
        }
        Ok(())
    }
}

/// Makes the values of a file the defaults of a command's flags.
///
/// # Errors
///
/// The file cannot be read, is not TOML, or names an unknown setting.
pub fn with_file(mut command: Command, subcommand: &str, file: &Path) -> anyhow::Result<Command> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    let table: toml::Table = text.parse().with_context(|| format!("{shown} is not TOML"))?;
    for (name, value) in table {
        let values = texts_of(&value)
            .with_context(|| format!("{shown}: {name} has to be a text, a number or a list"))?;
        let serve = command.find_subcommand(subcommand).context("the command has settings")?;
        let known = serve.get_arguments().find(|arg| arg.get_long() == Some(&name));
        // The file cannot name another file.
        let known = known.filter(|arg| arg.get_id() != "config");
        let Some(known) = known else {
            let flags = serve.get_arguments().filter(|arg| arg.get_id() != "config");
            let perhaps = perhaps(&name, flags.filter_map(|arg| arg.get_long()));
            bail!("{shown}: there is no setting {name:?}; {perhaps}see downlink serve --help");
        };
        if values.len() != 1 && !matches!(known.get_action(), ArgAction::Append) {
            bail!("{shown}: {name} has one value, and this is a list");
        }
        let id = known.get_id().clone();
        command = command.mut_subcommand(subcommand, |serve| {
            serve.mut_arg(id, |arg| arg.default_values(values))
        });
    }
    Ok(command)
}

/// The known name that a mistyped one probably means, as a part of a sentence. Empty if none is
/// near.
pub(crate) fn perhaps<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let bare = |name: &str| name.to_lowercase().replace('_', "-");
    let distance = |known: &str| strsim::damerau_levenshtein(&bare(name), &bare(known));
    let nearest = known.map(|known| (distance(known), known)).min();
    match nearest {
        Some((0..=3, known)) => format!("perhaps {known} is meant; "),
        _ => String::new(),
    }
}

fn texts_of(value: &toml::Value) -> Option<Vec<String>> {
    match value {
        toml::Value::Array(items) => items.iter().map(text_of).collect(),
        value => text_of(value).map(|text| vec![text]),
    }
}

fn text_of(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        _ => None,
    }
}
