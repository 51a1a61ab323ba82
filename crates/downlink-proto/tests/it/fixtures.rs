//! Tests with the streams in `tests/fixtures`. For each stream, a file beside it has the expected
//! events. Other readers are tested with the same files.
//!
//! With `UPDATE_EXPECT=1`, the test replaces the expected events with the events that the naive
//! reader finds. A person must then review these files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::{
    check::check,
    naive::{Seen, read_whole},
};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn streams() -> Vec<PathBuf> {
    let files = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path());
    let mut streams: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "sse")).collect();
    streams.sort();
    streams
}

/// The events as lines of JSON, in the format of the command `downlink decode`.
fn to_json_lines(seen: &[Seen]) -> String {
    seen.iter()
        .filter_map(|seen| match seen {
            Seen::Event { event_type, data, last_event_id, .. } => Some(format!(
                "{}\n",
                json!({"event": event_type, "data": data, "id": last_event_id})
            )),
            _ => None,
        })
        .collect()
}

#[test]
fn each_stream_gives_the_expected_events() {
    let streams = streams();
    assert!(streams.len() >= 15, "there are only {} streams", streams.len());
    for path in streams {
        let stream = fs::read(&path).unwrap();
        let reading = read_whole(&stream, "");
        let found = to_json_lines(&reading.seen);
        let expected_path = path.with_extension("jsonl");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&expected_path, &found).unwrap();
        }
        let expected = fs::read_to_string(&expected_path).unwrap();
        assert_eq!(found, expected, "{}", path.display());
        if stream.len() < 4_096 {
            check(&stream, &reading.seen);
        } else {
            check_in_chunks(&stream, &reading.seen);
        }
    }
}

#[track_caller]
fn check_in_chunks(stream: &[u8], expected: &[Seen]) {
    for length in [1, 2, 7, 1_024, 65_536, stream.len()] {
        let mut decoder = downlink_proto::Decoder::default();
        let (reading, error) = crate::reader::read_with(&mut decoder, stream.chunks(length));
        assert_eq!(error, None);
        assert!(reading.seen == expected, "the items differ with chunks of {length} bytes");
    }
}

#[test]
fn each_stream_is_named_in_the_readme() {
    let readme = fs::read_to_string(directory().join("README.md")).unwrap();
    for path in streams() {
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(
            readme.contains(&format!("| `{name}` |")),
            "the table in the README has no row for {name}"
        );
    }
}
