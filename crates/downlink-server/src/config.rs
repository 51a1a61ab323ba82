//! The settings of the server. Each setting is declared once, in [`Settings`].
//!
//! A setting can be given as a flag (`--drain-within 5s`), as an environment variable
//! (`DOWNLINK_DRAIN_WITHIN=5s`), or in a settings file (`drain-within = "5s"`). A flag overrides
//! the environment, and the environment overrides the file. The values from the file become the
//! defaults of the flags, so the same checks and error messages apply to flags, variables and the
//! file.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use clap::{ArgAction, Args, Command};
use downlink::relay::Upstream;

pub use crate::{
    retain::RetainRule,
    socket_file::Group,
    values::{Source, Values},
};

use crate::{
    address::Address,
    cluster::ClusterArguments,
    duration::parse_time,
    logs::{LogFormat, parse_log},
    size::parse_bytes,
    socket_file::parse_mode,
};

/// The settings of `downlink serve` and `downlink dev`, without those of access control.
#[derive(Args, Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// The address to listen on: an IP address and a port, or `unix:` and a path. Ignored when the
    /// server inherits a socket (`LISTEN_FDS`, systemd's socket activation).
    #[arg(
        long,
        env = "DOWNLINK_LISTEN",
        value_name = "ADDR:PORT|unix:PATH",
        default_value = "127.0.0.1:8080"
    )]
    pub listen: Address,
    /// The permissions of a Unix socket's file, such as 660. By default, the umask decides. This
    /// applies to the socket of --listen. If --listen is not a Unix socket, it applies to the socket
    /// of --admin-listen, whose default is 600.
    #[arg(long, env = "DOWNLINK_SOCKET_MODE", value_name = "MODE", value_parser = parse_mode)]
    pub socket_mode: Option<u32>,
    /// The group of a Unix socket's file, such as the group of a proxy on this machine. This applies to
    /// the socket of --listen. If --listen is not a Unix socket, it applies to the socket of
    /// --admin-listen.
    #[arg(long, env = "DOWNLINK_SOCKET_GROUP", value_name = "NAME")]
    pub socket_group: Option<Group>,
    /// Makes this server a relay of the server at this URL: it has the events of that server under
    /// the same ids, and forwards publishes to it. The store is then a cache, which may be deleted.
    #[arg(long, env = "DOWNLINK_FOLLOW", value_name = "URL", value_parser = parse_upstream, conflicts_with = "servers")]
    pub follow: Option<FollowUrl>,
    /// The file with the key that this relay sends to the server that it follows. That server has
    /// the same file as --relay-key-file.
    #[arg(long, env = "DOWNLINK_FOLLOW_KEY_FILE", value_name = "FILE", requires = "follow")]
    pub follow_key_file: Option<PathBuf>,
    /// The cluster that this server is a node of.
    #[command(flatten)]
    pub cluster: ClusterArguments,
    /// The file that stores the history. With `none`, history is in memory only and a restart loses
    /// it.
    #[arg(long, env = "DOWNLINK_STORE", value_name = "FILE|none", default_value = "./downlink.db")]
    pub store: PathBuf,
    /// How long to wait if another server still has the store open. The default is 5s. With an
    /// inherited socket, the default is 5s plus --drain-within.
    #[arg(long, env = "DOWNLINK_STORE_WAIT", value_name = "TIME", value_parser = parse_time)]
    pub store_wait: Option<Duration>,
    /// When the server confirms an event and shows it to subscribers: when the event is on the disk
    /// (commit), or when the operating system has it (relaxed).
    #[arg(
        long,
        env = "DOWNLINK_DURABILITY",
        value_name = "commit|relaxed",
        default_value = "commit"
    )]
    pub durability: Durability,
    /// The maximum size of the store. The oldest events are removed first.
    #[arg(
        long,
        env = "DOWNLINK_STORE_BYTES_MAX",
        value_name = "BYTES",
        default_value = "16GiB", value_parser = parse_bytes::<u64>
    )]
    pub store_bytes_max: u64,
    /// The maximum number of events kept for each topic.
    #[arg(long, env = "DOWNLINK_RETAIN_EVENTS", value_name = "N", default_value = "1000")]
    pub retain_events: usize,
    /// The maximum number of bytes kept for each topic.
    #[arg(long, env = "DOWNLINK_RETAIN_BYTES", value_name = "BYTES", default_value = "4MiB", value_parser = parse_bytes::<usize>)]
    pub retain_bytes: usize,
    /// How long events are kept.
    #[arg(long, env = "DOWNLINK_RETAIN_AGE", value_name = "TIME", default_value = "24h", value_parser = parse_time)]
    pub retain_age: Duration,
    /// Other limits of retention for the topics that match a pattern, such as
    /// `chat/*=events:100,age:1h,bytes:64KiB`. May be given several times, or separated by `;`. The
    /// first rule that matches a topic applies to it.
    #[arg(long, env = "DOWNLINK_RETAIN", value_name = "TOPICS=LIMITS", value_delimiter = ';')]
    pub retain: Vec<RetainRule>,
    /// The maximum size of the history in memory, all topics together.
    #[arg(
        long,
        env = "DOWNLINK_HISTORY_BYTES_MAX",
        value_name = "BYTES",
        default_value = "256MiB", value_parser = parse_bytes::<usize>
    )]
    pub history_bytes_max: usize,
    /// The maximum size of an event.
    #[arg(long, env = "DOWNLINK_EVENT_BYTES_MAX", value_name = "BYTES", default_value = "1MiB", value_parser = parse_bytes::<usize>)]
    pub event_bytes_max: usize,
    /// The maximum size of a batch.
    #[arg(
        long,
        env = "DOWNLINK_BATCH_BYTES_MAX",
        value_name = "BYTES",
        default_value = "16MiB", value_parser = parse_bytes::<usize>
    )]
    pub batch_bytes_max: usize,
    /// The maximum number of open subscriptions.
    #[arg(long, env = "DOWNLINK_SUBSCRIBERS_MAX", value_name = "N", default_value = "1000000")]
    pub subscribers_max: usize,
    /// The maximum number of open subscriptions of one client.
    #[arg(
        long,
        env = "DOWNLINK_SUBSCRIBERS_PER_CLIENT_MAX",
        value_name = "N",
        default_value = "1000"
    )]
    pub subscribers_per_client_max: usize,
    /// The maximum number of topics and patterns in one subscription.
    #[arg(long, env = "DOWNLINK_SELECTORS_MAX", value_name = "N", default_value = "1000")]
    pub selectors_max: usize,
    /// The maximum number of topics and client inboxes that have events or are finished.
    #[arg(long, env = "DOWNLINK_TOPICS_MAX", value_name = "N", default_value = "100000")]
    pub topics_max: usize,
    /// The maximum number of distinct topics and clients that open subscriptions name.
    #[arg(
        long,
        env = "DOWNLINK_SUBSCRIBED_NAMES_MAX",
        value_name = "N",
        default_value = "1000000"
    )]
    pub subscribed_names_max: usize,
    /// The maximum number of distinct patterns that open subscriptions name.
    #[arg(long, env = "DOWNLINK_PATTERNS_MAX", value_name = "N", default_value = "1000000")]
    pub patterns_max: usize,
    /// The maximum number of open connections. The default is as many as the limit of open files
    /// (ulimit -n) allows.
    #[arg(long, env = "DOWNLINK_CONNECTIONS_MAX", value_name = "N")]
    pub connections_max: Option<usize>,
    /// The server sends a keep-alive when a stream has been silent for this long.
    #[arg(long, env = "DOWNLINK_KEEP_ALIVE", value_name = "TIME", default_value = "15s", value_parser = parse_time)]
    pub keep_alive: Duration,
    /// The server ends the connection of a subscription at a random age between 80 and 100 % of
    /// this time. By default, connections have no maximum age.
    #[arg(long, env = "DOWNLINK_MAX_AGE", value_name = "TIME", value_parser = parse_time)]
    pub max_age: Option<Duration>,
    /// The server closes a connection if the client has read nothing for this long while data waits
    /// to be sent.
    #[arg(long, env = "DOWNLINK_WRITE_STALL_MAX", value_name = "TIME", default_value = "10s", value_parser = parse_time)]
    pub write_stall_max: Duration,
    /// How many unsent bytes the kernel may hold for one connection. With 0, the system's default
    /// applies.
    #[arg(long, env = "DOWNLINK_UNSENT_BYTES_MAX", value_name = "BYTES", default_value = "8KiB", value_parser = parse_bytes::<u32>)]
    pub unsent_bytes_max: u32,
    /// How long the head of a request may take to arrive.
    #[arg(long, env = "DOWNLINK_HEADER_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = parse_time)]
    pub header_timeout: Duration,
    /// How long an idle connection stays open for the next request. Set it higher than the idle
    /// timeout of a load balancer in front of the server.
    #[arg(long, env = "DOWNLINK_IDLE_TIMEOUT", value_name = "TIME", default_value = "75s", value_parser = parse_time)]
    pub idle_timeout: Duration,
    /// How long the server waits for the next bytes of a request's body.
    #[arg(long, env = "DOWNLINK_BODY_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    pub body_timeout: Duration,
    /// How long the server waits for the next bytes of a stream that is being published.
    #[arg(long, env = "DOWNLINK_STREAM_PAUSE_MAX", value_name = "TIME", default_value = "1h", value_parser = parse_time)]
    pub stream_pause_max: Duration,
    /// The maximum time for a graceful shutdown.
    #[arg(long, env = "DOWNLINK_DRAIN_WITHIN", value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    pub drain_within: Duration,
    /// How long a finished topic refuses new events, and its history stays readable.
    #[arg(long, env = "DOWNLINK_FINISHED_KEEP", value_name = "TIME", default_value = "1h", value_parser = parse_time)]
    pub finished_keep: Duration,
    /// The level of the log on stderr: error, warn, info, debug, trace, or a list such as
    /// info,access=debug. With info, the log has streams that have ended and requests that were
    /// refused. access=debug adds requests that succeed, and access=off leaves all of them out.
    #[arg(long, env = "DOWNLINK_LOG", value_name = "LEVEL", default_value = "info", value_parser = parse_log)]
    pub log: String,
    /// The form of the log: lines for people, or a JSON object on each line. An error that ends the
    /// program is plain text in both forms.
    #[arg(long, env = "DOWNLINK_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// The URL of the server that a relay follows.
#[derive(Clone, Debug)]
pub struct FollowUrl {
    /// The URL as it was given, without slashes at its end.
    pub(crate) url: String,
    /// The upstream at this URL, without a key.
    pub(crate) upstream: Upstream,
}

fn parse_upstream(text: &str) -> Result<FollowUrl, String> {
    let upstream = Upstream::new(text).map_err(|error| error.to_string())?;
    Ok(FollowUrl { url: text.trim_end_matches('/').to_owned(), upstream })
}

/// When the server confirms an event and shows it to subscribers.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// When the event is on the disk.
    Commit,
    /// When the operating system has the event. It is on the disk within a tenth of a second.
    Relaxed,
}

impl Settings {
    /// The file that stores the history. `None` if history is in memory only.
    pub fn store(&self) -> Option<&Path> {
        Some(self.store.as_path()).filter(|file| *file != Path::new("none"))
    }

    /// Whether events are confirmed before they are on the disk.
    pub fn is_relaxed(&self) -> bool {
        self.store().is_some() && self.durability == Durability::Relaxed
    }

    /// Whether the mode or the group of the Unix socket's file is set.
    pub(crate) fn has_socket_file(&self) -> bool {
        self.socket_mode.is_some() || self.socket_group.is_some()
    }

    /// Whether only programs on this machine can reach the server.
    pub fn is_local(&self) -> bool {
        self.listen.is_local()
    }

    /// Checks the rules that concern several settings together. `admin` is the address of the admin
    /// listener, if there is one.
    ///
    /// # Errors
    ///
    /// An error that says which setting to change.
    pub fn check(&self, admin: Option<&Address>) -> anyhow::Result<()> {
        let is_socket = |address: &Address| address.path().is_some();
        let has_socket = is_socket(&self.listen) || admin.is_some_and(is_socket);
        if self.has_socket_file() && !has_socket {
            bail!(
                "--socket-mode and --socket-group are for a Unix socket, and {} is not one: listen \
                 on a Unix socket with --listen unix:/run/downlink.sock, or remove these flags",
                self.listen
            );
        }
        Ok(())
    }
}

/// Makes the values of a settings file the defaults of a subcommand's flags.
///
/// # Errors
///
/// The file cannot be read, is not TOML, or names an unknown setting.
pub fn with_file(command: Command, subcommand: &str, file: &Path) -> anyhow::Result<Command> {
    with_table(command, subcommand, file, table(file)?)
}

/// Reads a settings file.
///
/// # Errors
///
/// The file cannot be read, or is not TOML.
pub(crate) fn table(file: &Path) -> anyhow::Result<toml::Table> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    text.parse().map_err(|error: toml::de::Error| {
        // The error would quote a line of the file, which may contain a secret.
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        anyhow!("{shown} is not TOML: line {line}: {}", error.message())
    })
}

/// Makes the values of a settings file the defaults of a subcommand's flags. Errors name the file.
pub(crate) fn with_table(
    mut command: Command,
    subcommand: &str,
    file: &Path,
    table: toml::Table,
) -> anyhow::Result<Command> {
    let shown = file.display();
    for (name, value) in table {
        let values = texts_of(&value).with_context(|| {
            format!("{shown}: {name} must be a string, a whole number, true, false or a list")
        })?;
        let serve = command.find_subcommand(subcommand).context("the command does not exist")?;
        let known = serve.get_arguments().find(|arg| arg.get_long() == Some(&name));
        // `config` is the path of the settings file, so it cannot be set in the file.
        let known = known.filter(|arg| arg.get_id() != "config");
        let Some(known) = known else {
            let flags = serve.get_arguments().filter(|arg| arg.get_id() != "config");
            let perhaps = perhaps(&name, flags.filter_map(|arg| arg.get_long()));
            let of_serve = command.find_subcommand("serve").into_iter();
            let mut of_serve = of_serve.flat_map(Command::get_arguments);
            if of_serve.any(|arg| arg.get_long() == Some(&name) && arg.get_id() != "config") {
                bail!(
                    "{shown}: {name} is a setting of downlink serve, and downlink {subcommand} \
                     allows everything to the programs of this machine: start downlink serve"
                );
            }
            bail!(
                "{shown}: there is no setting {name:?}; {perhaps}see downlink {subcommand} --help"
            );
        };
        if values.len() != 1 && !matches!(known.get_action(), ArgAction::Append) {
            bail!("{shown}: {name} takes one value, but the file gives {}", values.len());
        }
        let id = known.get_id().clone();
        command = command.mut_subcommand(subcommand, |serve| {
            serve.mut_arg(id, |arg| arg.default_values(values))
        });
    }
    Ok(command)
}

/// A hint for an unknown name, as a part of an error message. The hint is the most similar known
/// name. It is empty if no known name is similar.
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
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    }
}
