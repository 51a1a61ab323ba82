//! A simple reader, which is easy to check by eye. It takes a whole stream, replaces all line ends
//! by LF, and follows the standard's section "Interpreting an event stream" line by line.
//!
//! It shares no code with the decoder. It has no limits, and cannot read a stream in chunks.

/// One item of a stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Seen {
    Event { event_type: String, data: String, last_event_id: String, has_own_id: bool },
    Comment(String),
    Retry(u64),
}

/// The result of reading a whole stream.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Reading {
    pub(crate) seen: Vec<Seen>,
    pub(crate) last_event_id: String,
    pub(crate) reconnection_time: Option<u64>,
}

/// Reads a whole stream. At the start of the stream, the reader has this last event id.
pub(crate) fn read_whole(stream: &[u8], last_event_id: &str) -> Reading {
    let text = String::from_utf8_lossy(stream);
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(&text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut blocks: Vec<&str> = text.split_inclusive('\n').collect();
    blocks.retain(|line| line.ends_with('\n'));

    let mut reading = Reading { last_event_id: last_event_id.to_owned(), ..Reading::default() };
    for block in blocks.split_inclusive(|line| *line == "\n") {
        read_block(block, &mut reading);
    }
    reading
}

/// Reads one block: the lines up to a blank line, or the last lines of a stream.
fn read_block(lines: &[&str], reading: &mut Reading) {
    let is_complete = lines.last() == Some(&"\n");
    let mut event_type = "";
    let mut data = String::new();
    let mut id = None;
    for line in lines.iter().map(|line| line.trim_end_matches('\n')) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let stripped = value.strip_prefix(' ').unwrap_or(value);
        if line.starts_with(':') {
            reading.seen.push(Seen::Comment(value.to_owned()));
        } else if name == "event" {
            event_type = stripped;
        } else if name == "data" {
            data = data + stripped + "\n";
        } else if name == "id" && !stripped.contains('\0') {
            id = Some(stripped);
        } else if name == "retry" {
            read_retry(stripped, reading);
        }
    }
    if !is_complete {
        return;
    }
    if let Some(id) = id {
        reading.last_event_id = id.to_owned();
    }
    if let Some(data) = data.strip_suffix('\n') {
        reading.seen.push(Seen::Event {
            event_type: if event_type.is_empty() { "message" } else { event_type }.to_owned(),
            data: data.to_owned(),
            last_event_id: reading.last_event_id.clone(),
            has_own_id: id.is_some(),
        });
    }
}

fn read_retry(value: &str, reading: &mut Reading) {
    if !value.is_empty() && value.chars().all(|character| character.is_ascii_digit()) {
        let millis = value.parse().unwrap_or(u64::MAX);
        reading.seen.push(Seen::Retry(millis));
        reading.reconnection_time = Some(millis);
    }
}
