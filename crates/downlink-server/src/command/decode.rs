//! `downlink decode`: reads an event stream from stdin, and writes one JSON object per event to
//! stdout.

use std::io::{self, Read as _, Write as _};

use anyhow::Context as _;
use clap::Args;
use downlink_client::ReceivedEvent;
use downlink_proto::{Decoder, Item};
use serde_json::json;

use super::output::{printed, shown};

/// The size of one read. The result does not depend on it.
const CHUNK_BYTES: usize = 64 << 10;

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Feed the decoder this many bytes at a time. The result does not depend on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    chunk: Option<u32>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let chunk_bytes = arguments.chunk.map_or(CHUNK_BYTES, |bytes| bytes as usize);
    let mut decoder = Decoder::default();
    let mut input = io::stdin().lock();
    let mut output = io::BufWriter::with_capacity(CHUNK_BYTES, io::stdout().lock());
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let read = input.read(&mut buffer).context("cannot read stdin")?;
        if read == 0 {
            return Ok(());
        }
        for chunk in buffer.get(..read).unwrap_or_default().chunks(chunk_bytes) {
            let decoded = decoder.handle_bytes(chunk);
            // If the decoder fails, the events before the error are still printed.
            printed(print_items(&mut decoder, &mut output))?;
            if decoded.is_err() {
                printed(output.flush())?;
            }
            decoded.context("stdin cannot be decoded further")?;
        }
        printed(output.flush())?;
    }
}

fn print_items(decoder: &mut Decoder, output: &mut impl io::Write) -> io::Result<()> {
    while let Some(item) = decoder.poll_item() {
        if let Item::Event(event) = item {
            writeln!(output, "{}", shown(&line(&event.into())))?;
        }
    }
    Ok(())
}

/// An event as one line of JSON.
pub(super) fn line(event: &ReceivedEvent) -> String {
    json!({ "event": event.event_type, "data": event.data, "id": &*event.last_event_id })
        .to_string()
}
