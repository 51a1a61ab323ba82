//! The log on stderr.
//!
//! A line never blocks a request, because a separate thread writes the lines ([`queue`]).
//!
//! Lines about requests and streams have the target [`ACCESS`](filter::ACCESS), so the setting
//! `--log` can turn off only these lines. Text from clients is cleaned before it gets into a line
//! ([`text`]). A line contains only the topics and clients of a request's query. No line contains a
//! cookie or a header with a credential.

mod filter;
mod queue;
mod request;
mod requesters;
mod text;

use std::{
    io::{self, IsTerminal as _, Write},
    panic,
    sync::OnceLock,
    thread,
};

use tracing_subscriber::{
    Layer as _, Registry,
    filter::Targets,
    fmt,
    layer::SubscriberExt as _,
    reload::{self, Handle},
    util::SubscriberInitExt as _,
};

use self::queue::Queue;
pub use self::requesters::Requesters;
pub(crate) use self::{
    filter::parse_log,
    request::{Logged, RequestLine},
    requesters::{Requester, StreamLines},
    text::is_hidden,
};

/// The queue of the program. Empty until the log begins.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// The form of the lines.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object on each line.
    Json,
}

/// The log. When it is dropped, it waits up to a second until all lines are written.
#[derive(Debug)]
pub(crate) struct Log {
    queue: Queue,
    level: Handle<Targets, Registry>,
}

/// The level of the log, which can change while the program runs.
#[derive(Debug)]
pub(crate) struct LogLevel(Handle<Targets, Registry>);

impl LogLevel {
    pub(crate) fn set(&self, level: &str) -> anyhow::Result<()> {
        Ok(self.0.reload(filter::targets(level)?)?)
    }
}

impl Log {
    /// Begins to log to stderr, at this level.
    pub(crate) fn to_stderr(level: &str, format: LogFormat) -> anyhow::Result<Self> {
        let (filter, handle) = reload::Layer::new(filter::targets(level)?);
        let queue = Queue::start(stderr()?)?;
        let _ = QUEUE.set(queue.clone());
        let lines = fmt::layer().with_writer(queue.clone()).with_ansi(io::stderr().is_terminal());
        let lines = match format {
            LogFormat::Text => lines.boxed(),
            LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
        };
        // If a test has already installed a log subscriber, this call fails and that subscriber
        // stays.
        let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
        log_panics();
        Ok(Self { queue, level: handle })
    }

    pub(crate) fn level(&self) -> LogLevel {
        LogLevel(self.level.clone())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // A panic from now on is printed, because the log takes no more lines. A thread that panics
        // must not change the hook.
        if !thread::panicking() {
            let _ = panic::take_hook();
        }
        self.queue.close();
    }
}

/// Writes a panic as a line of the log. The default is to print it, and that could block a thread
/// that serves requests.
fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let message = text::cleaned(panic.payload_as_str().unwrap_or("no message"), 1_000);
        let place = panic.location().map(ToString::to_string);
        if tracing::enabled!(tracing::Level::ERROR) {
            tracing::error!(place, "a thread panicked: {message}");
        } else if let Some(queue) = QUEUE.get() {
            // The settings turn the log off. A panic is written nevertheless, because it is a fault
            // of the server.
            let place = place.unwrap_or_default();
            queue.push_always(&format!("downlink: a thread panicked at {place}: {message}\n"));
        }
    }));
}

/// The standard error stream. The writing thread does not hold the lock of stderr while it waits,
/// so an error that ends the program can still be printed.
fn stderr() -> io::Result<impl Write + Send> {
    #[cfg(unix)]
    {
        use std::os::fd::AsFd as _;
        Ok(std::fs::File::from(io::stderr().as_fd().try_clone_to_owned()?))
    }
    #[cfg(not(unix))]
    Ok(io::stderr())
}

/// The number of lines that were left out since the start of the server.
pub(crate) fn left_out() -> u64 {
    QUEUE.get().map_or(0, Queue::left_out)
}
