//! The log on stderr.
//!
//! A line never blocks a request: a thread of its own writes the lines, and takes them from a queue
//! with at most [`LINES_MAX`] lines. If the reader of stderr is too slow, the queue becomes full.
//! The server then leaves lines out, and counts them.
//!
//! Lines about requests have the target [`ACCESS`], so the setting `--log` can turn them off alone.
//! Text from clients is cleaned before it gets into a line ([`text`]). No line contains the query
//! of a request, a cookie or a header with a credential.

mod request;
mod requesters;
mod text;

use std::{
    io::{self, BufWriter, IsTerminal as _},
    sync::OnceLock,
    time::Duration,
};

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    Layer as _, Registry,
    filter::Targets,
    fmt,
    layer::SubscriberExt as _,
    reload::{self, Handle},
    util::SubscriberInitExt as _,
};

pub use self::requesters::Requesters;
pub(crate) use self::{
    request::{Logged, RequestLine},
    requesters::{Requester, StreamLines},
};

/// The target of the lines about requests.
pub(crate) const ACCESS: &str = "access";

/// The maximum number of lines that wait for stderr.
///
/// A line has about 400 bytes, so a full queue takes 2 MB. Half of it would lose lines in a storm
/// of 10,000 disconnects while the disk of the log is busy for a moment.
const LINES_MAX: usize = 4_096;

/// How many lines were left out, because the reader of stderr was too slow. Empty until the log
/// begins.
static LEFT_OUT: OnceLock<ErrorCounter> = OnceLock::new();

/// The form of the lines.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object on each line.
    Json,
}

/// The log, until it is dropped. The drop waits up to a second until all lines are written.
#[derive(Debug)]
pub(crate) struct Log {
    /// Flushes the queue when it is dropped.
    _writing: WorkerGuard,
    level: Handle<Targets, Registry>,
}

/// The level of the log, which can change while the program runs.
#[derive(Debug)]
pub(crate) struct LogLevel(Handle<Targets, Registry>);

impl LogLevel {
    pub(crate) fn set(&self, level: &str) -> anyhow::Result<()> {
        Ok(self.0.reload(level.parse::<Targets>()?)?)
    }
}

impl Log {
    /// Begins to log to stderr, at this level.
    pub(crate) fn to_stderr(level: &str, format: LogFormat) -> anyhow::Result<Self> {
        let (filter, handle) = reload::Layer::new(level.parse::<Targets>()?);
        let colours = io::stderr().is_terminal();
        // The thread that writes flushes the buffer when no more lines wait.
        let (lines, writing) = NonBlockingBuilder::default()
            .buffered_lines_limit(LINES_MAX)
            .thread_name("downlink-log")
            .finish(BufWriter::new(io::stderr()));
        let _ = LEFT_OUT.set(lines.error_counter());
        let lines = fmt::layer().with_writer(lines).with_ansi(colours);
        let lines = match format {
            LogFormat::Text => lines.boxed(),
            LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
        };
        // If a test has already installed a log subscriber, this call fails and that subscriber
        // stays.
        let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
        Ok(Self { _writing: writing, level: handle })
    }

    pub(crate) fn level(&self) -> LogLevel {
        LogLevel(self.level.clone())
    }
}

/// The number of lines that were left out since the start of the server.
pub(crate) fn left_out() -> u64 {
    LEFT_OUT.get().map_or(0, |count| count.dropped_lines() as u64)
}

/// A time in seconds, with a precision of a microsecond.
fn seconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e6
}
