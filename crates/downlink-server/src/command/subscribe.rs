//! `downlink subscribe`: prints events as they arrive, until it is stopped.

use std::io::{self, Write as _};

use anyhow::{Context as _, bail};
use clap::Args;
use downlink_client::{
    Closed, DecoderLimits, Delivery, EventSource, Gap, GapReason, ReceivedEvent, StreamError,
};
use jiff::Timestamp;
use reqwest::Url;
use serde::Deserialize;
use serde_json::json;

use super::{
    credential::{ADVICE, Credential},
    decode, exit,
    output::{complain, printed, shown},
    runtime::block_on,
    server_url::{self, ServerUrl},
};

/// The type of every event of a subscription with `meta=1`. With `--json`, this command subscribes
/// with `meta=1`, because the data of such an event has the original data, the topics and the time.
const DESCRIBED: &str = "downlink.event";

/// The maximum size of an event that this command can read. The server's limit is usually lower.
/// With `meta=1`, an event may be six times as large as its original data.
const EVENT_BYTES_MAX: usize = 128 << 20;

/// The data of an event of a subscription with `meta=1`.
#[derive(Deserialize)]
struct Described {
    topics: Vec<String>,
    event: Option<String>,
    /// Milliseconds since 1970.
    at: i64,
    data: String,
}

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Topics and patterns. Without any, only events for everyone are printed. The addresses of
    /// servers, such as http://127.0.0.1:8080/events?topic=news, may be given here in place of
    /// --url.
    #[arg(value_name = "TOPIC|URL")]
    topics: Vec<String>,
    /// The address of the server: a URL, or `unix:` and the path of a socket. Give --url several
    /// times for servers that send the same events with the same ids. If one fails, the command
    /// goes on at the next one.
    #[arg(long, env = "DOWNLINK_URL", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: Vec<ServerUrl>,
    #[command(flatten)]
    credential: Credential,
    /// A client id. Events for this client are printed too.
    #[arg(long, value_name = "ID")]
    client: Option<String>,
    /// Where to begin: live, earliest, last:50, since:2026-01-01T00:00:00Z or after:ID.
    #[arg(long, value_name = "WHERE")]
    start: Option<String>,
    /// Resume after this event id.
    #[arg(long, value_name = "ID")]
    last_event_id: Option<String>,
    /// Print each event and each gap as one JSON object per line. Events include their topics and
    /// their time.
    #[arg(long)]
    json: bool,
    /// End after this many events.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    block_on(subscribe(arguments))
}

async fn subscribe(arguments: Arguments) -> anyhow::Result<()> {
    let (mut source, has_key) = open(&arguments)?;
    let mut left = arguments.count;
    while left != Some(0) {
        let Some(delivery) = source.next().await else { break };
        let is_event = matches!(&delivery, Delivery::Event(event) if !is_control(event));
        print(&source, &delivery, arguments.json)?;
        left = left.map(|left| left - u64::from(is_event));
    }
    match source.closed_because() {
        None | Some(Closed::ByCaller | Closed::NoContent) => Ok(()),
        Some(Closed::Failed(error @ StreamError::Status { status, .. }))
            if *status == 401 && !has_key =>
        {
            bail!("{ADVICE}: {}", chain(error))
        }
        Some(Closed::Failed(error)) => bail!("{}", chain(error)),
        Some(closed) => bail!("{closed}"),
    }
}

/// The addresses of the servers, and the topics. The addresses are the values of `--url`, or are
/// among the arguments for topics.
fn urls_and_topics(arguments: &Arguments) -> anyhow::Result<(Vec<ServerUrl>, Vec<&String>)> {
    let (addresses, topics): (Vec<_>, Vec<_>) =
        arguments.topics.iter().partition(|text| ServerUrl::is_meant(text));
    let parse = |address: &String| {
        let parsed = address.parse().map_err(anyhow::Error::msg);
        parsed.with_context(|| format!("{address:?} cannot be used"))
    };
    let urls: Vec<ServerUrl> = addresses.into_iter().map(parse).collect::<anyhow::Result<_>>()?;
    Ok((if urls.is_empty() { arguments.url.clone() } else { urls }, topics))
}

/// Opens the event source. The second value says whether the event source sends a key or a token.
fn open(arguments: &Arguments) -> anyhow::Result<(EventSource, bool)> {
    let (urls, topics) = urls_and_topics(arguments).map_err(exit::usage)?;
    let queries: Vec<_> = urls.iter().map(|url| query(url, arguments, &topics)).collect();
    let mut builder = server_url::event_source(&urls, &queries).map_err(exit::usage)?;
    let key = arguments.credential.read(&urls)?;
    if let Some(key) = &key {
        builder = builder.bearer_token(key);
    }
    if let Some(id) = &arguments.last_event_id {
        builder = builder.last_event_id(id.clone());
    }
    let limits =
        DecoderLimits::default().line_bytes_max(EVENT_BYTES_MAX).event_bytes_max(EVENT_BYTES_MAX);
    builder = builder.limits(limits).control_events(true);
    let source = builder.build().with_context(|| server_url::not_usable(&urls));
    Ok((source.map_err(exit::usage)?, key.is_some()))
}

/// The query of the subscription at one of the servers.
fn query(url: &ServerUrl, arguments: &Arguments, topics: &[&String]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(&url.query);
    for topic in topics {
        query.append_pair("topic", topic);
    }
    if let Some(client) = &arguments.client {
        query.append_pair("client", client);
    }
    if let Some(start) = &arguments.start {
        query.append_pair("start", start);
    }
    if arguments.json && url.query.iter().all(|(name, _)| name != "meta") {
        query.append_pair("meta", "1");
    }
    query.finish()
}

/// Whether an event is about the subscription itself. Such events are not printed.
fn is_control(event: &ReceivedEvent) -> bool {
    event.event_type.starts_with("downlink.") && event.event_type != DESCRIBED
}

/// An event as one line of JSON, with its topics and its time if the server sent them.
fn line(event: &ReceivedEvent) -> String {
    let described = (event.event_type == DESCRIBED).then(|| event.json());
    let Some(Ok(Described { topics, event: event_type, at, data })) = described else {
        return decode::line(event);
    };
    json!({
        "event": event_type.as_deref().unwrap_or("message"),
        "data": data,
        "id": &*event.last_event_id,
        "topics": topics,
        "time": Timestamp::from_millisecond(at).ok().map(|at| at.to_string()),
    })
    .to_string()
}

fn print(source: &EventSource, delivery: &Delivery, as_json: bool) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let written = match delivery {
        Delivery::Event(event) if is_control(event) => return Ok(()),
        Delivery::Event(event) if as_json => writeln!(out, "{}", shown(&line(event))),
        Delivery::Event(event) => writeln!(out, "{}", shown(&event.data)),
        Delivery::Gap(gap) if as_json => writeln!(out, "{}", shown(&gap_line(gap))),
        Delivery::Gap(gap) => {
            complain(format_args!("events are missing ({})", reason(gap)));
            Ok(())
        }
        Delivery::Error(interruption) => {
            let (error, wait) = (chain(&interruption.error), interruption.retry_in.as_secs_f32());
            let (failed, next) = (origin(&interruption.url), origin(source.url()));
            if failed == next {
                complain(format_args!("{error}; reconnecting in {wait:.1} s"));
            } else {
                complain(format_args!("{failed}: {error}; connecting to {next} in {wait:.1} s"));
            }
            Ok(())
        }
        _ => Ok(()),
    };
    printed(written.and_then(|()| out.flush()))
}

/// The address of a server without its path and its query, which may hold a ticket.
fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

fn gap_line(gap: &Gap) -> String {
    json!({ "gap": reason(gap), "after": gap.after, "oldest": gap.oldest }).to_string()
}

fn reason(gap: &Gap) -> &str {
    match &gap.reason {
        GapReason::Evicted => "evicted",
        GapReason::UnknownId => "unknown_id",
        GapReason::NewEpoch => "new_epoch",
        GapReason::Lagged => "lagged",
        GapReason::Lost => "lost",
        GapReason::Unreadable => "unreadable",
        GapReason::UnsendableId => "unsendable_id",
        GapReason::Other(other) => other,
        _ => "unreadable_notice",
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
