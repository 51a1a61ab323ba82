//! Tests of `downlink decode`.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use crate::{Running, downlink, run};

fn fixtures() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../downlink-proto/tests/fixtures");
    let files = fs::read_dir(directory)
        .expect("fixtures")
        .map(|file| file.expect("the entry is readable").path());
    let streams: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "sse")).collect();
    assert!(streams.len() >= 15, "only {} streams", streams.len());
    streams
}

#[track_caller]
fn check(flags: &[&str]) {
    for stream in fixtures() {
        let expected = fs::read_to_string(stream.with_extension("jsonl"))
            .expect("a file with the expected events");
        let decoded = run(
            downlink(&[&["decode"], flags].concat()),
            fs::read(&stream).expect("a readable file"),
        );
        assert_eq!(decoded.code, Some(0), "{}", decoded.stderr);
        assert!(decoded.stdout == expected, "{}: {:.300}", stream.display(), decoded.stdout);
    }
}

#[test]
fn the_stream_of_each_fixture_decodes_to_its_expected_events() {
    check(&[]);
}

#[test]
fn the_size_of_chunks_does_not_change_the_events() {
    check(&["--chunk", "1"]);
    check(&["--chunk", "7"]);
}

#[test]
fn a_chunk_has_at_least_one_byte() {
    for chunk in ["0", "-1", "x"] {
        assert_eq!(run(downlink(&["decode", "--chunk", chunk]), "").code, Some(2));
    }
}

#[test]
fn events_are_printed_as_soon_as_they_arrive() {
    let mut command = downlink(&["decode"]);
    command.stdin(Stdio::piped());
    let mut running = Running::start(command);
    let mut stdin = running.stdin.take().expect("the stream is piped");
    stdin.write_all(b"data: one\n\ndata: tw").expect("the program reads stdin");
    assert_eq!(running.stdout.next(), r#"{"data":"one","event":"message","id":""}"#);
    stdin.write_all(b"o\nid: 7\n\n").expect("the program reads stdin");
    assert_eq!(running.stdout.next(), r#"{"data":"two","event":"message","id":"7"}"#);
    drop(stdin);
    assert_eq!(running.ended().code, Some(0));
}

#[test]
fn events_before_an_error_are_printed() {
    let mut stream = b"data: one\n\ndata: ".to_vec();
    stream.extend(std::iter::repeat_n(b'x', downlink_proto::EVENT_BYTES_MAX_DEFAULT + 1));
    let decoded = run(downlink(&["decode"]), stream);
    assert_eq!(decoded.code, Some(1));
    assert_eq!(decoded.stdout.lines().count(), 1);
    assert!(decoded.stderr.starts_with("downlink: stdin cannot be decoded"), "{}", decoded.stderr);
    assert_eq!(decoded.stderr.lines().count(), 1);
}

#[test]
fn a_closed_stdout_is_not_an_error() {
    let mut child = downlink(&["decode"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().expect("the stream is piped");
    let _ = stdin.write_all("data: x\n\n".repeat(100_000).as_bytes());
    drop(stdin);
    let ended = child.wait_with_output().expect("the program ran");
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    assert_eq!(ended.status.code(), Some(0));
}
