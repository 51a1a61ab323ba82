//! `downlink publish`: publishes one event, or a stream of events from stdin.

use std::{
    io::{self, Read as _, Write as _},
    slice,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use clap::{
    Args, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use downlink_client::{PublishError, PublishRequest, StreamFormat, StreamIds, StreamTypes};
use futures_util::Stream;
use serde_json::json;
use tokio::{io::AsyncReadExt as _, sync::mpsc};

use super::{
    credential::{ADVICE, Credential},
    exit,
    output::{printed, shown},
    runtime::block_on,
    server_url::ServerUrl,
};

/// The maximum size of an event read from stdin. It protects the memory of this program. The
/// server's own limit is usually lower.
const DATA_BYTES_MAX: u64 = 64 << 20;

/// The maximum size of one chunk read from stdin.
const CHUNK_BYTES: usize = 16 << 10;

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The data of the event. If not given, the data is read from stdin, and the line end at its
    /// end is removed.
    data: Option<String>,
    /// Keep the line end at the end of stdin.
    #[arg(long, conflicts_with_all = ["data", "stream"])]
    keep_line_end: bool,
    /// A topic to publish to. May be given several times.
    #[arg(long, short, value_name = "TOPIC")]
    topic: Vec<String>,
    /// A client to publish to. May be given several times.
    #[arg(long, value_name = "ID")]
    client: Vec<String>,
    /// Publish to every subscription.
    #[arg(long)]
    everyone: bool,
    /// The event type.
    #[arg(long, value_name = "TYPE")]
    event: Option<String>,
    /// The event id. By default, the server assigns one.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// The reconnection time for clients, in milliseconds.
    #[arg(long, value_name = "MS")]
    retry: Option<u64>,
    /// Finish the topics after this event, or at the end of the stream.
    #[arg(long)]
    last: bool,
    /// Publish only once, even if the command is repeated with the same key.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Read stdin as a stream, and publish each event, or each line of JSON, as it arrives.
    #[arg(long, value_name = "FORMAT", conflicts_with_all = ["data", "event", "id", "retry", "idempotency_key"])]
    stream: Option<Format>,
    /// What to do with the event ids of a stream. With `drop` (the default), the server gives each
    /// event a new id.
    #[arg(long, value_name = "drop|keep", requires = "stream", conflicts_with = "data", value_parser = stream_ids())]
    ids: Option<StreamIds>,
    /// What to do with the event types of a stream. With `prefix` (the default), reserved types get
    /// the prefix `upstream.`.
    #[arg(long, value_name = "prefix|keep|drop", requires = "stream", conflicts_with = "data", value_parser = stream_types())]
    types: Option<StreamTypes>,
    /// The address of the server: a URL, or `unix:` and the path of a socket.
    #[arg(long, env = "DOWNLINK_URL", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: ServerUrl,
    #[command(flatten)]
    credential: Credential,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// An event stream.
    EventStream,
    /// One JSON value per line.
    Ndjson,
}

fn stream_ids() -> impl TypedValueParser<Value = StreamIds> {
    PossibleValuesParser::new(["drop", "keep"]).map(|text| match &*text {
        "keep" => StreamIds::Keep,
        _ => StreamIds::Drop,
    })
}

fn stream_types() -> impl TypedValueParser<Value = StreamTypes> {
    PossibleValuesParser::new(["prefix", "keep", "drop"]).map(|text| match &*text {
        "keep" => StreamTypes::Keep,
        "drop" => StreamTypes::Drop,
        _ => StreamTypes::Prefix,
    })
}

pub(super) fn run(mut arguments: Arguments) -> anyhow::Result<()> {
    take_addresses(&mut arguments).map_err(exit::usage)?;
    block_on(publish(arguments))
}

async fn publish(arguments: Arguments) -> anyhow::Result<()> {
    let mut publisher = arguments.url.publisher()?;
    let key = arguments.credential.read(slice::from_ref(&arguments.url))?;
    if let Some(key) = &key {
        publisher = publisher.with_bearer_token(key)?;
    }
    let advised = |error: PublishError| match &error {
        PublishError::Rejected(problem) if problem.status == 401 && key.is_none() => {
            anyhow!(error).context(ADVICE)
        }
        _ => anyhow!(error),
    };
    let request = request(&arguments).map_err(exit::usage)?;
    let answer = match arguments.stream {
        Some(format) => {
            let format = match format {
                Format::EventStream => StreamFormat::EventStream,
                Format::Ndjson => StreamFormat::Ndjson,
            };
            let receipt =
                publisher.publish_stream(&request, format, stdin()).await.map_err(advised)?;
            json!({
                "id": receipt.id,
                "events": receipt.events,
                "repeated": receipt.repeated,
                "subscribers": receipt.subscribers,
            })
        }
        None => {
            let data = match arguments.data {
                Some(data) => data,
                None => read_stdin(arguments.keep_line_end)?,
            };
            let receipt = publisher.publish(&request, data).await.map_err(advised)?;
            json!({ "id": receipt.id, "subscribers": receipt.subscribers })
        }
    };
    printed(writeln!(io::stdout(), "{}", shown(&answer.to_string())))
}

/// Adds the topics and clients that are in the query of the server's address.
fn take_addresses(arguments: &mut Arguments) -> anyhow::Result<()> {
    for (name, value) in std::mem::take(&mut arguments.url.query) {
        match &*name {
            "topic" => arguments.topic.push(value),
            "client" => arguments.client.push(value),
            _ => bail!("--url has the parameter {name:?}: remove it, and use a flag for it"),
        }
    }
    Ok(())
}

fn request(arguments: &Arguments) -> anyhow::Result<PublishRequest> {
    let topics = arguments.topic.iter().map(|topic| (Kind::Topic, topic));
    let clients = arguments.client.iter().map(|client| (Kind::Client, client));
    let mut request = arguments.everyone.then(PublishRequest::to_everyone);
    for (kind, name) in topics.chain(clients) {
        request = Some(match (request, kind) {
            (Some(request), Kind::Topic) => request.topic(name),
            (Some(request), Kind::Client) => request.client(name),
            (None, Kind::Topic) => PublishRequest::to_topic(name),
            (None, Kind::Client) => PublishRequest::to_client(name),
        });
    }
    let Some(mut request) = request else {
        bail!("no recipient: give --topic NAME, --client ID or --everyone");
    };
    if let Some(event_type) = &arguments.event {
        request = request.event_type(event_type);
    }
    if let Some(id) = &arguments.id {
        request = request.id(id);
    }
    if let Some(millis) = arguments.retry {
        request = request.retry(Duration::from_millis(millis));
    }
    if arguments.last {
        let stream = arguments.stream.is_some();
        request = if stream { request.finish_on_end() } else { request.last() };
    }
    if let Some(ids) = arguments.ids {
        request = request.stream_ids(ids);
    }
    if let Some(types) = arguments.types {
        request = request.stream_types(types);
    }
    if let Some(key) = &arguments.idempotency_key {
        request = request.idempotency_key(key);
    }
    Ok(request)
}

#[derive(Clone, Copy)]
enum Kind {
    Topic,
    Client,
}

/// Reads the data from stdin. Removes the line end that `echo` and editors add, unless
/// `keep_line_end` is set.
fn read_stdin(keep_line_end: bool) -> anyhow::Result<String> {
    let mut data = String::new();
    let mut input = io::stdin().lock().take(DATA_BYTES_MAX + 1);
    input.read_to_string(&mut data).context("cannot read stdin as UTF-8")?;
    if data.len() as u64 > DATA_BYTES_MAX {
        bail!("stdin has more than {DATA_BYTES_MAX} bytes");
    }
    if data.is_empty() {
        bail!("stdin is empty; give data on stdin or as an argument, which may be empty ('')");
    }
    if !keep_line_end && data.ends_with('\n') {
        data.pop();
        if data.ends_with('\r') {
            data.pop();
        }
    }
    Ok(data)
}

/// The chunks of stdin, as they arrive.
fn stdin() -> impl Stream<Item = io::Result<Bytes>> {
    let (sender, mut receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut input = tokio::io::stdin();
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            let read = input.read(&mut chunk).await;
            let end = !matches!(read, Ok(1..));
            let piece = read.map(|read| {
                chunk.truncate(read);
                Bytes::from(chunk)
            });
            if sender.send(piece).await.is_err() || end {
                return;
            }
        }
    });
    futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx))
}
