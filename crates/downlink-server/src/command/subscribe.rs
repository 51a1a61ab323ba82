//! `downlink subscribe`: prints events as they arrive, until it is stopped.

use std::io::{self, Write as _};

use anyhow::{Context as _, bail};
use clap::Args;
use downlink_client::{Closed, Delivery, EventSource, Gap, GapReason};
use serde_json::json;

use super::{
    decode,
    output::{complain, printed},
    runtime::block_on,
};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Topics and patterns; none subscribes only to events for everyone.
    topics: Vec<String>,
    /// The address of the server.
    #[arg(long, env = "DOWNLINK_URL", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Subscribe to this client's events too.
    #[arg(long, value_name = "ID")]
    client: Option<String>,
    /// Where to begin: live, earliest, last:50, since:2026-01-01T00:00:00Z or after:ID.
    #[arg(long, value_name = "WHERE")]
    start: Option<String>,
    /// Resume after this event id.
    #[arg(long, value_name = "ID")]
    last_event_id: Option<String>,
    /// Print one JSON object per line, for events and gaps.
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
    let mut source = open(&arguments)?;
    let mut left = arguments.count;
    while left != Some(0) {
        let Some(delivery) = source.next().await else { break };
        let is_event = matches!(delivery, Delivery::Event(_));
        print(&delivery, arguments.json)?;
        left = left.map(|left| left - u64::from(is_event));
    }
    match source.closed_because() {
        None | Some(Closed::ByCaller | Closed::NoContent) => Ok(()),
        Some(Closed::Failed(error)) => bail!("{}", chain(error)),
        Some(closed) => bail!("{closed}"),
    }
}

fn open(arguments: &Arguments) -> anyhow::Result<EventSource> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for topic in &arguments.topics {
        query.append_pair("topic", topic);
    }
    if let Some(client) = &arguments.client {
        query.append_pair("client", client);
    }
    if let Some(start) = &arguments.start {
        query.append_pair("start", start);
    }
    let base = arguments.url.trim_end_matches('/');
    let mut builder = EventSource::builder(format!("{base}/events?{}", query.finish()));
    if let Some(id) = &arguments.last_event_id {
        builder = builder.last_event_id(id.clone());
    }
    builder.build().with_context(|| format!("{base} is not the address of a server"))
}

fn print(delivery: &Delivery, as_json: bool) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let written = match delivery {
        Delivery::Event(event) if as_json => writeln!(out, "{}", decode::line(event)),
        Delivery::Event(event) => writeln!(out, "{}", event.data),
        Delivery::Gap(gap) if as_json => writeln!(out, "{}", gap_line(gap)),
        Delivery::Gap(gap) => {
            complain(format_args!("events are missing ({})", reason(gap)));
            Ok(())
        }
        Delivery::Error(interruption) => {
            let (error, wait) = (chain(&interruption.error), interruption.retry_in);
            complain(format_args!("{error}; trying again in {:.1} s", wait.as_secs_f32()));
            Ok(())
        }
        _ => Ok(()),
    };
    printed(written.and_then(|()| out.flush()))
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
