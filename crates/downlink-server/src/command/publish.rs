//! `downlink publish`: one event, or a stream of them from stdin.

use std::{
    io::{self, Read as _, Write as _},
    time::Duration,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use downlink_client::{PublishRequest, Publisher, StreamFormat};
use futures_util::Stream;
use serde_json::json;
use tokio::{io::AsyncReadExt as _, sync::mpsc};

use super::{output::printed, runtime::block_on};

/// The largest event read from stdin. The server's limit is usually lower.
const DATA_BYTES_MAX: u64 = 64 << 20;

/// The largest chunk read from stdin at a time.
const CHUNK_BYTES: usize = 16 << 10;

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The data of the event; read from stdin if not given.
    data: Option<String>,
    /// A topic of the event; repeatable.
    #[arg(long, short, value_name = "TOPIC")]
    topic: Vec<String>,
    /// A client that receives the event; repeatable.
    #[arg(long, value_name = "ID")]
    client: Vec<String>,
    /// Publish to every subscription.
    #[arg(long)]
    everyone: bool,
    /// The event type.
    #[arg(long, value_name = "TYPE")]
    event: Option<String>,
    /// An event id of your own.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// The reconnection time for clients, in milliseconds.
    #[arg(long, value_name = "MS")]
    retry: Option<u64>,
    /// Finish the topics with this event, or with the end of the stream.
    #[arg(long)]
    last: bool,
    /// Publish once, even if the command is repeated with this key.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Stdin is a stream: publish each event, or each line of JSON, as it arrives.
    #[arg(long, value_name = "FORMAT", conflicts_with_all = ["data", "event", "id", "retry", "idempotency_key"])]
    stream: Option<Format>,
    /// The address of the server.
    #[arg(long, env = "DOWNLINK_URL", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// An event stream.
    EventStream,
    /// One JSON value per line.
    Ndjson,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    block_on(publish(arguments))
}

async fn publish(arguments: Arguments) -> anyhow::Result<()> {
    let publisher = Publisher::new(&arguments.url)
        .with_context(|| format!("{} is not the address of a server", arguments.url))?;
    let request = request(&arguments)?;
    let answer = match arguments.stream {
        Some(format) => {
            let format = match format {
                Format::EventStream => StreamFormat::EventStream,
                Format::Ndjson => StreamFormat::Ndjson,
            };
            let receipt = publisher.publish_stream(&request, format, stdin()).await?;
            json!({ "id": receipt.id })
        }
        None => {
            let data = match arguments.data {
                Some(data) => data,
                None => read_stdin()?,
            };
            let receipt = publisher.publish(&request, data).await?;
            json!({ "id": receipt.id, "subscribers": receipt.subscribers })
        }
    };
    printed(writeln!(io::stdout(), "{answer}"))
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

fn read_stdin() -> anyhow::Result<String> {
    let mut data = String::new();
    let mut input = io::stdin().lock().take(DATA_BYTES_MAX + 1);
    input.read_to_string(&mut data).context("cannot read stdin as UTF-8")?;
    if data.len() as u64 > DATA_BYTES_MAX {
        bail!("stdin has more than {DATA_BYTES_MAX} bytes");
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
