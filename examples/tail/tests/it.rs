//! Tests of the endpoints and of the program. The tests of the endpoints use real files, but no
//! socket.

#[cfg(unix)]
#[expect(dead_code, reason = "clients of this program send no POST")]
#[path = "../../progress/tests/started/mod.rs"]
mod started;
#[expect(dead_code, reason = "the first argument of this program is a file")]
#[path = "../../basic/tests/support/mod.rs"]
mod support;

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use axum::{Router, body::Body, http::Request};
use http_body_util::BodyExt as _;
use support::{Streaming, open, send};
use tail::{EVENTS_AHEAD_MAX, LINE_BYTES_MAX, Place, START_BYTES_MAX};

/// The file of one test. When this value is dropped, the file is removed.
struct Growing(PathBuf);

impl Growing {
    fn new(text: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("tail-{}-{number}.log", std::process::id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&path, text).expect("the folder for tests exists");
        Self(path)
    }

    fn app(&self) -> Router {
        tail::app(self.0.clone())
    }

    fn grow(&self, text: impl AsRef<[u8]>) {
        let mut file = OpenOptions::new().append(true).open(&self.0).expect("the file exists");
        file.write_all(text.as_ref()).expect("the disk has space");
    }

    /// Moves the file away and creates another file with its name.
    fn rotate(&self, text: &str) {
        let old = self.0.with_extension("old");
        fs::rename(&self.0, &old).expect("the file exists");
        fs::write(&self.0, text).expect("the disk has space");
        fs::remove_file(&old).expect("the old file exists");
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.0);
    }
}

/// The type and the text of each event in a stream. An event is a line or a notice.
fn events(seen: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for frame in seen.split("\n\n").filter(|frame| frame.contains("id: ")) {
        let fields = |name: &str| {
            let values = frame.lines().filter_map(|line| line.strip_prefix(name));
            values.collect::<Vec<_>>().join("⏎")
        };
        found.push((fields("event: "), fields("data: ")));
    }
    found
}

/// The lines in a stream, without notices.
fn lines(seen: &str) -> Vec<String> {
    let events = events(seen).into_iter().filter(|(event_type, _)| event_type.is_empty());
    events.map(|(_, text)| text).collect()
}

fn last_id(seen: &str) -> String {
    let mut ids = seen.lines().filter_map(|line| line.strip_prefix("id: "));
    ids.next_back().expect("the stream has an id").to_owned()
}

async fn ends(stream: &mut Streaming, text: &str) -> String {
    stream.sees(&format!("{text}\n\n")).await.to_owned()
}

#[tokio::test]
async fn lines_arrive_as_the_file_grows() {
    let file = Growing::new("one\ntwo\n");
    let mut stream = open(&file.app(), "/events", "").await;
    ends(&mut stream, "two").await;
    file.grow("thr");
    file.grow("ee\n<b>four</b>\r\n");
    file.grow(b"fi\xffve\n");
    let seen = ends(&mut stream, "fi\u{fffd}ve").await;
    assert_eq!(lines(&seen), ["one", "two", "three", "<b>four</b>", "fi\u{fffd}ve"]);
}

#[tokio::test]
async fn id_has_the_offset_after_the_line() {
    let file = Growing::new("one\nzwölf\n");
    let seen = ends(&mut open(&file.app(), "/events", "").await, "zwölf").await;
    let offsets: Vec<_> = seen
        .lines()
        .filter_map(|line| Place::parse(line.strip_prefix("id: ")?))
        .map(|place| place.offset)
        .collect();
    assert_eq!(offsets, [0, 4, 11]);
}

#[tokio::test]
async fn reconnecting_client_resumes_after_its_last_line() {
    let file = Growing::new("one\ntwo\n");
    let seen = ends(&mut open(&file.app(), "/events", "").await, "one").await;
    file.grow("three\n");
    let first = seen.split("data: one").next().expect("a split has a first part");
    let seen = ends(&mut open(&file.app(), "/events", &last_id(first)).await, "three").await;
    assert_eq!(events(&seen).len(), 2, "the stream has only the two missing lines: {seen}");
    assert_eq!(lines(&seen), ["two", "three"]);
}

#[tokio::test]
async fn client_that_resumes_with_the_first_id_gets_every_line() {
    let file = Growing::new("");
    let seen = ends(&mut open(&file.app(), "/events", "").await, "end of the file.").await;
    file.grow("one\n");
    let seen = ends(&mut open(&file.app(), "/events", &last_id(&seen)).await, "one").await;
    assert_eq!(events(&seen), [(String::new(), "one".into())]);
}

/// Makes a file of `head` and then `bytes` bytes in lines of 8 bytes each. Returns the lines that a
/// new client gets from it.
async fn shown_after(head: &str, bytes: u64) -> Vec<String> {
    let count = usize::try_from(bytes / 8).expect("the number is small");
    let text: String = (0..count).map(|number| format!("{number:07}\n")).collect();
    let file = Growing::new(&format!("{head}{text}"));
    let mut stream = open(&file.app(), "/events", "").await;
    lines(&ends(&mut stream, &format!("{:07}", count - 1)).await)
}

#[tokio::test]
async fn new_client_gets_the_last_whole_lines_up_to_the_limit() {
    let below = shown_after("head\n", START_BYTES_MAX - 8).await;
    assert_eq!(below[0], "head");
    let at = shown_after("", START_BYTES_MAX).await;
    assert_eq!(at[0], "0000000");
    let above = shown_after("head\n", START_BYTES_MAX).await;
    assert_eq!((above[0].as_str(), above.len()), ("0000000", at.len()));
    // The limit is in the middle of a line, so the client does not get this line.
    let inside = shown_after("", START_BYTES_MAX + 8).await;
    assert_eq!((inside[0].as_str(), inside.len()), ("0000001", at.len()));
}

#[tokio::test]
async fn truncated_file_gives_a_notice_and_is_read_from_its_beginning() {
    let file = Growing::new("one\ntwo\n");
    let mut stream = open(&file.app(), "/events", "").await;
    let id = last_id(&ends(&mut stream, "two").await);
    fs::write(&file.0, "new\n").expect("the disk has space");
    let seen = ends(&mut stream, "new").await;
    let told: Vec<_> = events(&seen).into_iter().map(|(event_type, _)| event_type).collect();
    assert_eq!(told, ["start", "", "", "truncated", ""]);

    let seen = ends(&mut open(&file.app(), "/events", &id).await, "new").await;
    assert_eq!(events(&seen)[0].0, "truncated", "{seen}");
}

#[cfg(unix)]
#[tokio::test]
async fn rotated_file_is_read_to_its_end_before_the_new_file() {
    let file = Growing::new("one\n");
    let mut stream = open(&file.app(), "/events", "").await;
    let id = last_id(&ends(&mut stream, "one").await);
    file.grow("the last words");
    file.rotate("a new file, longer than the old one\n");
    let seen = ends(&mut stream, "the old one").await;
    let expected = ["start", "", "", "rotated", ""];
    let told: Vec<_> = events(&seen).into_iter().map(|(event_type, _)| event_type).collect();
    assert_eq!(told, expected);
    assert_eq!(lines(&seen)[1..], ["the last words", "a new file, longer than the old one"]);

    let seen = ends(&mut open(&file.app(), "/events", &id).await, "the old one").await;
    assert_eq!(events(&seen)[0].0, "rotated", "{seen}");
}

#[cfg(unix)]
#[tokio::test]
async fn stream_waits_for_a_missing_file() {
    let file = Growing::new("one\n");
    fs::remove_file(&file.0).expect("the file exists");
    let mut stream = open(&file.app(), "/events", "").await;
    stream.sees(": connected").await;
    fs::write(&file.0, "there\n").expect("the disk has space");
    assert_eq!(lines(&ends(&mut stream, "there").await), ["there"]);
}

#[tokio::test]
async fn too_long_line_is_sent_as_an_event_of_the_type_cut() {
    let file = Growing::new(&format!("{}\nnext\n", "x".repeat(3 * LINE_BYTES_MAX)));
    let seen = ends(&mut open(&file.app(), "/events", "").await, "next").await;
    let cut = &events(&seen)[1];
    assert_eq!((cut.0.as_str(), cut.1.len()), ("cut", LINE_BYTES_MAX));
    assert_eq!(lines(&seen), ["next"]);
}

/// The file has more lines than the server reads ahead of a client. The server must wait for the
/// client, and not skip lines.
#[tokio::test]
async fn slow_client_loses_no_line() {
    let count = 5 * EVENTS_AHEAD_MAX;
    let text: String = (0..count).map(|number| format!("{number}\n")).collect();
    let file = Growing::new(&text);
    let mut stream = open(&file.app(), "/events", "").await;
    let seen = ends(&mut stream, &format!("data: {}", count - 1)).await;
    let expected: Vec<_> = (0..count).map(|number| number.to_string()).collect();
    assert_eq!(lines(&seen), expected);
}

#[tokio::test]
async fn client_with_an_unknown_id_starts_near_the_end_of_the_file() {
    let file = Growing::new("one\n");
    for id in ["evt-7", "tail-1", "tail-zz-4"] {
        let seen = ends(&mut open(&file.app(), "/events", id).await, "one").await;
        assert_eq!(events(&seen)[0].0, "start", "{id}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn file_that_cannot_be_read_is_answered_with_500() {
    let file = Growing::new("");
    let request = Request::get("/events").body(Body::empty()).expect("the request is valid");
    let response = send(&tail::app(file.0.join("below a file")), request).await;
    assert_eq!(response.status(), 500);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let body = response.into_body().collect().await.expect("the body is complete").to_bytes();
    let text = std::str::from_utf8(&body).expect("the text is UTF-8");
    assert!(text.contains("The file cannot be read: Not a directory"), "{text}");
}

#[tokio::test]
async fn page_contacts_no_other_server() {
    let file = Growing::new("");
    for path in ["/", "/tail.css", "/tail.js"] {
        let request = Request::get(path).body(Body::empty()).expect("the request is valid");
        let response = send(&file.app(), request).await;
        assert_eq!(response.status(), 200);
        let policy =
            response.headers()["content-security-policy"].to_str().expect("the value is ASCII");
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}

#[cfg(unix)]
mod running {
    use std::{net::TcpListener, process::Command};

    use rustix::process::Signal;

    use super::{Growing, started::Started};

    const PROGRAM: &str = env!("CARGO_BIN_EXE_tail");

    fn refuses(arguments: &[&str]) -> String {
        let output = Command::new(PROGRAM).args(arguments).output().expect("the program starts");
        assert!(!output.status.success());
        String::from_utf8(output.stderr).expect("the text is UTF-8")
    }

    #[tokio::test]
    async fn program_ends_at_a_signal_while_a_stream_is_open() {
        let file = Growing::new("one\n");
        for signal in [Signal::INT, Signal::TERM] {
            let program =
                Started::with(PROGRAM, &[file.0.to_str().expect("the text is UTF-8"), "0"]).await;
            program.ends_with_open("/events", "", signal).await;
        }
    }

    #[test]
    fn program_names_the_argument_that_prevents_its_start() {
        assert!(refuses(&[]).contains("name a file: cargo run -p tail -- FILE [PORT]"));
        assert!(refuses(&["/none/such"]).contains("cannot read /none/such: No such file"));
        assert!(refuses(&[env!("CARGO_TARGET_TMPDIR")]).contains("is not a file that lines are"));
        let file = Growing::new("");
        let path = file.0.to_str().expect("the text is UTF-8");
        assert!(refuses(&[path, "none"]).contains(r#""none" is not a port"#));
        let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let address = taken.local_addr().expect("the listener is bound");
        let said = refuses(&[path, &address.port().to_string()]);
        assert!(said.contains(&format!("{address} is in use")), "{said}");
    }
}
