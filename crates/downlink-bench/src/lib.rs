//! `downlink bench`: puts a load on any SSE server and accounts for every event.
//!
//! Many subscriptions and a few publishers in one thread; each payload carries a record by which its
//! deliveries are counted exactly. At a rate, latency runs from the time an event was due, so that
//! a stall of the server is charged in full. HTTP/1.1 without TLS; it measures, it does not judge: losses
//! are reported, not an error.

mod books;
mod client;
mod comeback;
mod load;
mod pace;
mod plan;
mod plot;
mod progress;
mod publisher;
mod quiet;
mod record;
mod replay;
mod report;
mod response;
mod server;
mod socket;
mod source;
mod stalled;
mod storms;
mod subscriber;
mod tally;

use std::{fmt::Display, fs, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use self::{plan::Plan, report::Report, server::Server};

/// Descriptors beside those of the connections: standard streams, poll, plot, `/proc`.
const DESCRIPTORS_SPARE: u64 = 32;

/// The command line of a run.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Where to subscribe; {topic} and {n}, the number of the connection, are filled in.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080/events?topic={topic}")]
    url: String,
    /// A header of the subscriptions; repeatable, with placeholders as above.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Where to publish; {topic} is filled in. Without it, where one subscribes.
    #[arg(long, value_name = "URL")]
    publish_url: Option<String>,
    /// The method with which to publish.
    #[arg(long, value_name = "METHOD", default_value = "POST")]
    publish_method: String,
    /// A header of the requests that publish; repeatable.
    #[arg(long = "publish-header", value_name = "NAME: VALUE")]
    publish_headers: Vec<String>,
    /// The body with which to publish; {payload} and {topic} are filled in, \n is a line end.
    #[arg(long, value_name = "TEMPLATE", default_value = "{payload}")]
    publish_body: String,
    /// Connections that subscribe.
    #[arg(long, short, value_name = "N", default_value = "1000")]
    connections: usize,
    /// Topics; connections and events take turns among them.
    #[arg(long, short, value_name = "N", default_value = "1")]
    topics: usize,
    /// What the topics are called, before their number.
    #[arg(long, value_name = "TEXT", default_value = "bench-")]
    topic_prefix: String,
    /// Connections that publish. With more than one, events may overtake each other on the way in.
    #[arg(long, short, value_name = "N", default_value = "1")]
    publishers: usize,
    /// Events to publish a second, however fast they are delivered.
    #[arg(long, value_name = "PER SECOND", default_value = "10", conflicts_with = "window")]
    rate: f64,
    /// Publish when fewer than this many events are on their way to any connection.
    #[arg(long, value_name = "EVENTS")]
    window: Option<usize>,
    /// Events of one request; the body is repeated for each of them.
    #[arg(long, value_name = "N", default_value = "1")]
    batch: usize,
    /// Further connections that read nothing until the load is over, and then resume.
    #[arg(long, value_name = "N", default_value = "0")]
    stalled: usize,
    /// Also publish to a topic with one reader, this often, and report its latency apart.
    #[arg(long, value_name = "PER SECOND")]
    quiet_rate: Option<f64>,
    /// Do not publish: connect all, leave all, as often, and report what it costs the server.
    #[arg(long, value_name = "N", requires = "server_pid")]
    storms: Option<usize>,
    /// Kill the server under load, start it again with this line of a shell, and let all clients resume.
    #[arg(long, value_name = "LINE", requires = "server_pid", conflicts_with = "storms")]
    comeback: Option<String>,
    /// The number that marks this run's events, by which a later run knows them; otherwise random.
    #[arg(long, value_name = "NUMBER")]
    run: Option<u32>,
    /// A further reader from here, which is to get the events of an earlier run, again and again.
    #[arg(long, value_name = "URL", requires = "replay_run", requires = "replay_events")]
    replay_url: Option<String>,
    /// The number of the earlier run, which had one publisher and one topic.
    #[arg(long, value_name = "NUMBER", requires = "replay_url")]
    replay_run: Option<u32>,
    /// How many events the earlier run published.
    #[arg(long, value_name = "N", requires = "replay_url")]
    replay_events: Option<u64>,
    /// The size of a payload.
    #[arg(long, value_name = "BYTES", default_value = "100")]
    payload_bytes: usize,
    /// How long to measure.
    #[arg(long, short, value_name = "TIME", default_value = "5s", value_parser = parse_time)]
    duration: Duration,
    /// How long to publish before measuring.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_time)]
    warmup: Duration,
    /// How long to stay idle once connected, before the server's memory is looked at.
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = parse_time)]
    settle: Duration,
    /// Silence after which what has not come is lost.
    #[arg(long, value_name = "TIME", default_value = "1500ms", value_parser = parse_time)]
    drain: Duration,
    /// Publish no more than this, and end when all of it has come.
    #[arg(long, value_name = "N")]
    events: Option<u64>,
    /// The server's process, to see what it uses; repeatable. Its children are not counted.
    #[arg(long, value_name = "PID")]
    server_pid: Vec<u32>,
    /// Poll without sleeping, when this program has a processor to itself.
    #[arg(long)]
    spin: bool,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// Draw the distribution of latency.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

/// Runs the load, and returns the report to print.
///
/// # Errors
///
/// If the arguments cannot be used, or the server cannot be reached.
pub fn run(arguments: &Arguments) -> anyhow::Result<String> {
    let plan = Plan::new(arguments)?;
    let server = Server::new(&arguments.server_pid)?;
    raise_descriptor_limit(plan.descriptors() as u64 + DESCRIPTORS_SPARE)?;
    if let Some((number, server)) = arguments.storms.zip(server.as_ref()) {
        let storms = storms::run(&plan, server, number)?;
        return text_of(arguments, &storms);
    }
    if let Some((line, server)) = arguments.comeback.as_ref().zip(server.as_ref()) {
        let comeback = comeback::run(&plan, server, line)?;
        return text_of(arguments, &comeback);
    }
    let outcome = load::run(&plan, server.as_ref())?;
    let report = Report::new(&plan, &outcome);
    if let Some(file) = &arguments.plot {
        let picture = plot::svg(&outcome.books.latency_ns, &report.headline());
        fs::write(file, picture).with_context(|| format!("cannot write {}", file.display()))?;
    }
    text_of(arguments, &report)
}

fn text_of(arguments: &Arguments, found: &(impl Serialize + Display)) -> anyhow::Result<String> {
    Ok(if arguments.json { serde_json::to_string(found)? + "\n" } else { found.to_string() })
}

/// Makes room for this many descriptors.
fn raise_descriptor_limit(needed: u64) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let most = limit.maximum.unwrap_or(u64::MAX);
    anyhow::ensure!(
        most >= needed,
        "{needed} descriptors are needed and {most} allowed: use fewer --connections, or raise \
         the limit (ulimit -Hn)"
    );
    let raised = Rlimit { current: Some(needed), maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).context("cannot raise the limit of open descriptors")
}

/// A span of time such as `15s` or `500ms`.
fn parse_time(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text
        .parse()
        .map_err(|error| format!("{error}; write a number and a unit: 500ms, 15s, 2m"))?;
    Duration::try_from(span).map_err(|_| "a span of time is not negative".to_owned())
}
