//! The program prints data from publishers and servers on a terminal. Control characters in the
//! data must not reach the terminal.
//!
//! The tests run the program on a pseudo-terminal.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    net::TcpListener,
    process::{Command, Stdio},
    sync::mpsc,
};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::{PATIENCE, Server, downlink, run, through_a_shell};

/// Text with characters that could control a terminal. It has an ESC sequence that sets the title,
/// and a sequence with U+009B that sets a colour. It also has a character that reverses the
/// direction of the text, line separators, a byte order mark and an invisible tag. The last
/// character has a zero-width joiner, which is harmless and must be kept.
const HOSTILE: &str =
    "a\u{1b}]0;x\u{7}b\u{9b}31m\u{202e}c\u{2028}\u{2029}\u{feff}\u{e0041}\u{7f}é👩\u{200d}👧";

/// The same text as the program must print it on a terminal.
const SHOWN: &str = "a\\u001b]0;x\\u0007b\\u009b31m\\u202ec\\u2028\\u2029\\ufeff\\udb40\\udc41\
                     \\u007fé👩\u{200d}👧";

/// Runs a command whose stdout and stderr are a terminal. Returns what the command has printed.
fn on_a_terminal(mut command: Command) -> String {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
    grantpt(&master).expect("a pseudo-terminal");
    unlockpt(&master).expect("a pseudo-terminal");
    let path = ptsname(&master, Vec::new()).expect("a name");
    let path = path.to_str().expect("UTF-8");
    let slave = OpenOptions::new().read(true).write(true).open(path).expect("a terminal");
    command.stdout(slave.try_clone().expect("a descriptor")).stderr(slave);
    let mut child = command.stdin(Stdio::null()).spawn().expect("the program starts");
    // This closes the test's descriptors of the terminal. Now only the program has the terminal
    // open, so the output ends when the program ends.
    drop(command);
    let (sender, output) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // Linux reports the end of the output as an error, which is ignored.
        let _ = File::from(master).read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    let bytes = output.recv_timeout(PATIENCE);
    let _ = child.kill();
    child.wait().expect("a child");
    String::from_utf8(bytes.expect("output in time")).expect("UTF-8").replace("\r\n", "\n")
}

#[test]
fn control_characters_are_escaped_on_a_terminal() {
    let server = Server::start(&[]);
    server.publish("a", &format!("{HOSTILE}\tx\ny"));
    let read = ["subscribe", "--url", &server.url, "--start", "earliest", "--count", "1", "a"];
    assert_eq!(on_a_terminal(downlink(&read)), format!("{SHOWN}\tx\ny\n"));
    let piped = run(downlink(&read), "");
    assert_eq!(piped.stdout, format!("{HOSTILE}\tx\ny\n"), "a pipe gets the original bytes");
}

#[test]
fn json_on_a_terminal_is_escaped_and_still_valid() {
    let server = Server::start(&[]);
    let event = "note\u{9b}31m\u{202e}";
    let publish = ["publish", "--url", &server.url, "-t", "a", "--event", event, HOSTILE];
    assert_eq!(run(downlink(&publish), "").code, Some(0));
    let read = ["subscribe", "--url", &server.url, "--start", "earliest", "--count", "1"];
    let line = on_a_terminal(downlink(&[&read[..], &["--json", "a"]].concat()));
    assert!(!line.contains(['\u{9b}', '\u{202e}', '\u{2028}', '\u{feff}']), "{line:?}");
    let event_again: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&event_again["event"], &event_again["data"]), (&event.into(), &HOSTILE.into()));
}

#[test]
fn decoded_streams_are_escaped_on_a_terminal() {
    let path = std::env::temp_dir().join(format!("dl-decode-{}.sse", std::process::id()));
    std::fs::write(&path, format!("data: {HOSTILE}\n\n")).expect("a file");
    // A shell makes the file the command's stdin.
    let script = format!("exec \"$@\" < '{}'", path.display());
    let command = through_a_shell(&downlink(&["decode"]), &script);
    let line = on_a_terminal(command);
    std::fs::remove_file(&path).expect("an existing file");
    assert!(line.contains("\\u009b31m") && !line.contains('\u{9b}'), "{line:?}");
}

/// Starts a server that refuses every request and gives this reason. Returns the URL of the server.
fn refusing(reason: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("the listener is bound"));
    let body = serde_json::json!({ "detail": reason }).to_string();
    std::thread::spawn(move || {
        for mut io in listener.incoming().flatten() {
            let mut head = [0; 4_096];
            let _ = io.read(&mut head);
            let _ = write!(
                io,
                "HTTP/1.1 400 No\r\nContent-Type: application/problem+json\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    url
}

#[test]
fn errors_are_escaped_on_a_terminal() {
    let url = refusing(HOSTILE);
    for arguments in
        [vec!["subscribe", "--url", &*url, "a"], vec!["publish", "--url", &url, "-ta", "x"]]
    {
        let complaint = on_a_terminal(downlink(&arguments));
        assert!(complaint.contains(SHOWN), "{complaint:?}");
        assert!(!complaint.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{complaint:?}");
        let piped = run(downlink(&arguments), "");
        assert!(piped.stderr.contains(HOSTILE), "{:?}", piped.stderr);
    }
}

/// A production server reloads at SIGHUP. But the system also sends SIGHUP when a terminal closes,
/// and a server that was started there must not stay behind.
#[cfg(target_os = "linux")]
#[test]
fn a_production_server_ends_when_its_terminal_closes() {
    // The terminal closes when the test closes its descriptor. So the server must not have it too.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).expect("a pseudo-terminal");
    grantpt(&master).expect("a pseudo-terminal");
    unlockpt(&master).expect("a pseudo-terminal");
    let path = ptsname(&master, Vec::new()).expect("a name");
    let folder = crate::listening::Folder::new("tty");
    let command = crate::production(&folder, &["--listen", "127.0.0.1:0"]);
    // The server becomes the leader of a session with this terminal.
    let terminal = path.to_str().expect("UTF-8");
    let script = format!("exec env --default-signal=HUP setsid --ctty \"$@\" < {terminal}");
    let server = Server::of(through_a_shell(&command, &script));
    server.running.signal("HUP");
    while !server.running.stderr.next().contains("read the key files again") {}
    drop(master);
    let ended = server.running.ended();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("shutting down"), "{}", ended.stderr);
}
