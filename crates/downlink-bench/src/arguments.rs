//! The command line of `downlink bench`.

use std::{path::PathBuf, time::Duration};

use clap::Args;

/// The help of `--url`. clap would replace `{n}` with a line break, so the text contains a style
/// sequence between `{` and `n`. The style changes nothing on a terminal, and for other outputs
/// clap removes it.
const URL_HELP: &str = "The URL of a subscription; {topic} and {\u{1b}[0mn}, the number of the \
                        connection, are replaced";

/// The settings of a run.
#[derive(Args, Debug)]
pub struct Arguments {
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080/events?topic={topic}", help = URL_HELP)]
    pub(super) url: String,
    /// A header of the subscriptions; repeatable. The placeholders of --url are replaced.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    pub(super) headers: Vec<String>,
    /// A file with a token or ticket in each line. The placeholder {credential} of --url and
    /// --header stands for the line of the connection. If there are more connections than lines,
    /// the lines are used again in the same order.
    #[arg(long, value_name = "FILE")]
    pub(super) credentials: Option<PathBuf>,
    /// The URL for publishing; {topic} is replaced [default: the URL of a subscription].
    #[arg(long, value_name = "URL")]
    pub(super) publish_url: Option<String>,
    /// The method for publishing.
    #[arg(long, value_name = "METHOD", default_value = "POST")]
    pub(super) publish_method: String,
    /// A header of the requests that publish; repeatable.
    #[arg(long = "publish-header", value_name = "NAME: VALUE")]
    pub(super) publish_headers: Vec<String>,
    /// The body of a request that publishes one event. {payload} and {topic} are replaced; write \n for
    /// a line end.
    #[arg(long, value_name = "TEMPLATE", default_value = "{payload}")]
    pub(super) publish_body: String,
    /// The number of connections that subscribe.
    #[arg(long, short, value_name = "N", default_value = "1000")]
    pub(super) connections: usize,
    /// The number of topics; connections and events are distributed evenly among them.
    #[arg(long, short, value_name = "N", default_value = "1")]
    pub(super) topics: usize,
    /// The beginning of each topic's name, before the topic's number.
    #[arg(long, value_name = "TEXT", default_value = "bench-")]
    pub(super) topic_prefix: String,
    /// The number of connections that publish. With more than one, events may arrive in any order.
    #[arg(long, short, value_name = "N", default_value = "1")]
    pub(super) publishers: usize,
    /// The events to publish per second, even if the server delivers them more slowly.
    #[arg(long, value_name = "PER SECOND", default_value = "10", conflicts_with = "window")]
    pub(super) rate: f64,
    /// Publish as fast as the server delivers: send the next event as soon as fewer than this many
    /// events have not reached all of their readers. Replaces --rate.
    #[arg(long, value_name = "EVENTS")]
    pub(super) window: Option<usize>,
    /// The maximum number of events in one request. The body of the request is then --publish-body,
    /// repeated once for each event.
    #[arg(long, value_name = "N", default_value = "1")]
    pub(super) batch: usize,
    /// The number of additional connections that read nothing during the load, and then resume.
    #[arg(long, value_name = "N", default_value = "0")]
    pub(super) stalled: usize,
    /// Also publish to a topic with one reader, at this rate, and report its latency separately.
    #[arg(long, value_name = "PER SECOND")]
    pub(super) quiet_rate: Option<f64>,
    /// Publish nothing. Open and close all connections this many times, and report the server's
    /// cost.
    #[arg(long, value_name = "N", requires = "server_pid")]
    pub(super) storms: Option<usize>,
    /// Kill the server under load, start it with this shell command, and let all clients resume.
    #[arg(long, value_name = "LINE", requires = "server_pid", conflicts_with = "storms")]
    pub(super) comeback: Option<String>,
    /// The number that marks this run's events for a later run [default: random].
    #[arg(long, value_name = "NUMBER")]
    pub(super) run: Option<u32>,
    /// The URL of an additional reader, which reads the events of an earlier run again and again.
    #[arg(long, value_name = "URL", requires = "replay_run", requires = "replay_events")]
    pub(super) replay_url: Option<String>,
    /// The number of the earlier run, which had one publisher and one topic.
    #[arg(long, value_name = "NUMBER", requires = "replay_url")]
    pub(super) replay_run: Option<u32>,
    /// The number of events that the earlier run published.
    #[arg(long, value_name = "N", requires = "replay_url")]
    pub(super) replay_events: Option<u64>,
    /// The size of each payload.
    #[arg(long, value_name = "BYTES", default_value = "100")]
    pub(super) payload_bytes: usize,
    #[command(flatten)]
    pub(super) timing: Timing,
    /// The process of the server, to measure its processor time and memory; repeatable. Child
    /// processes are not counted.
    #[arg(long, value_name = "PID")]
    pub(super) server_pid: Vec<u32>,
    /// Poll without sleeping. Use this only if no other program needs the load tool's processor
    /// core.
    #[arg(long)]
    pub(super) spin: bool,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    pub(super) json: bool,
    /// Write a chart of the latency distribution to this file.
    #[arg(long, value_name = "FILE.svg")]
    pub(super) plot: Option<PathBuf>,
}

/// The lengths of the phases.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Timing {
    /// How long to measure.
    #[arg(long, short, value_name = "TIME", default_value = "5s", value_parser = parse_time)]
    pub(super) duration: Duration,
    /// How long to publish before measuring.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_time)]
    pub(super) warmup: Duration,
    /// How long to stay idle after connecting, before the server's memory is measured.
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = parse_time)]
    pub(super) settle: Duration,
    /// If nothing arrives for this long at the end, missing deliveries count as lost.
    #[arg(long, value_name = "TIME", default_value = "1500ms", value_parser = parse_time)]
    pub(super) drain: Duration,
    /// Publish at most this many events, and end when all of them have arrived.
    #[arg(long, value_name = "N")]
    pub(super) events: Option<u64>,
}

/// A span of time such as `15s` or `500ms`.
fn parse_time(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|_| {
        format!("{text:?} is not a span of time; write a number and a unit: 500ms, 15s, 1h30m")
    })?;
    Duration::try_from(span).map_err(|_| "a span of time must not be negative".to_owned())
}
