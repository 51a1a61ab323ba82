//! Tests of `downlink serve`: the key files that it makes, its greeting, its two listeners, and the
//! key that the commands send.

use std::{
    fs,
    net::TcpStream,
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::Path,
    process::Command,
};

use crate::{
    PATIENCE, Running, downlink,
    listening::{Folder, credential, publish},
    production, run,
    serve::{assert_commands_work, has_curl},
    through_a_shell,
};

/// A production server. Its folder has its key files.
struct Production {
    _running: Running,
    greeting: Vec<String>,
}

impl Production {
    fn start(command: Command) -> Self {
        let running = Running::start(command);
        let mut greeting: Vec<String> = Vec::new();
        while !greeting.last().is_some_and(|line| line.ends_with(" connections")) {
            greeting.push(running.stdout.next());
        }
        Self { _running: running, greeting }
    }

    /// Returns the address in the line of the greeting that contains this text. The address has the
    /// form `127.0.0.1:40000`.
    fn address(&self, text: &str) -> String {
        let line = self.greeting.iter().find(|line| line.contains(text)).expect("an address");
        line.rsplit("//").next().expect("an address").to_owned()
    }

    fn connect(&self, text: &str) -> TcpStream {
        let io = TcpStream::connect(self.address(text)).expect("the server listens");
        io.set_read_timeout(Some(PATIENCE)).expect("a socket");
        io
    }
}

const PUBLIC: &str = "is listening on";
const ADMIN: &str = "for apps and operators:";
const ANY_PORT: [&str; 2] = ["--listen", "127.0.0.1:0"];

#[track_caller]
fn assert_status(answer: &str, status: u16) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("an existing file").mode() & 0o777
}

#[test]
fn the_first_start_makes_key_files_and_the_next_start_uses_them() {
    let folder = Folder::new("made");
    let store = folder.path("data/events.db");
    let files = ["downlink-publish.key", "downlink-ticket.key"]
        .map(|name| store.parent().expect("a folder").join(name));
    fs::create_dir_all(store.parent().expect("a folder")).expect("a folder");
    let start = || {
        let flags = [&ANY_PORT[..], &["--store", store.to_str().expect("UTF-8")]].concat();
        Production::start(through_a_shell(&production(&folder, &flags), "umask 0; exec \"$@\""))
    };
    let first = start();
    let greeting = first.greeting.join("\n");
    for (file, words) in
        files.iter().zip(["the key for your app is in", "the key that seals tickets is"])
    {
        assert!(greeting.contains(words) && greeting.contains(file.to_str().expect("UTF-8")));
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    assert!(!greeting.contains("lost at a restart"), "{greeting}");
    let made = files.each_ref().map(|file| fs::read(file).expect("a key"));
    assert_ne!(made[0], made[1]);
    drop(first);
    let second = start();
    assert_eq!(files.map(|file| fs::read(file).expect("a key")), made);
    let key = String::from_utf8(made[0].clone()).expect("UTF-8");
    let header = format!("Authorization: Bearer {}\r\n", key.trim_end());
    assert_status(&publish(second.connect(PUBLIC), &header), 200);
    assert_status(&publish(second.connect(PUBLIC), ""), 401);
}

#[test]
fn a_folder_in_which_no_key_file_can_be_made_is_an_error() {
    let folder = Folder::new("unwritable");
    fs::write(folder.path("file"), "").expect("a file");
    for store in ["missing/events.db", "file/events.db"] {
        let flags = [&ANY_PORT[..], &["--store", store]].concat();
        let refused = run(production(&folder, &flags), "");
        assert_eq!((refused.code, &*refused.stdout), (Some(78), ""), "{store}");
        let file = Path::new(store).with_file_name("downlink-publish.key");
        let says = format!("cannot make the key file {}: let the server write", file.display());
        assert!(refused.stderr.contains(&says), "{}", refused.stderr);
        assert!(refused.stderr.contains("--publish-key-file FILE"), "{}", refused.stderr);
    }
}

#[test]
fn key_files_that_cannot_be_used_are_errors() {
    let folder = Folder::new("bad-keys");
    fs::write(folder.path("short.key"), "too short\n").expect("a file");
    fs::write(folder.path("long.key"), "k".repeat(100_000)).expect("a file");
    fs::write(folder.path("good.key"), "k".repeat(40)).expect("a file");
    for (flags, says) in [
        (&["--publish-key-file", "short.key"][..], "cannot use the key file short.key"),
        (&["--publish-key-file", "long.key"], "cannot use the key file long.key"),
        (&["--admin-key-file", "missing.key"], "cannot use the key file missing.key"),
        (&["--ticket-key-file", "short.key"], "cannot use the key file short.key"),
        (&["--jwt-key-file", "short.key"], "cannot use the key file short.key"),
        (
            &["--publish-key-file", "good.key", "--admin-key-file", "good.key"],
            "the same key is in another key file",
        ),
        (&["--jwt-public-key", "missing.pem"], "cannot use the public keys in missing.pem"),
    ] {
        let refused = run(production(&folder, &[&ANY_PORT[..], flags].concat()), "");
        assert_eq!((refused.code, &*refused.stdout), (Some(78), ""), "{flags:?}");
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
        assert!(!refused.stderr.contains("kkkk"), "{}", refused.stderr);
    }
}

#[test]
fn the_commands_in_the_greeting_of_a_production_server_work() {
    if !has_curl() {
        return;
    }
    let folder = Folder::new("it's greeted");
    fs::write(folder.path("app's.key"), "k".repeat(40)).expect("a file");
    let socket = "unix:a'b.sock".to_owned();
    for flags in [
        &ANY_PORT[..],
        &["--listen", &socket],
        &["--listen", "0.0.0.0:0"],
        &["--listen", "127.0.0.1:0", "--publish-key-file", "app's.key"],
        &["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"],
        &["--listen", "127.0.0.1:0", "--admin-listen", &socket],
        &["--listen", "127.0.0.1:0", "--public", "news"],
    ] {
        let server = Production::start(production(&folder, flags));
        // The user may paste the commands in another folder than that of the server.
        assert_commands_work(&server.greeting, Path::new("/"));
        let greeting = server.greeting.join("\n");
        assert!(
            !greeting.contains("page:"),
            "the greeting names a page, but a browser cannot send the key: {greeting}"
        );
        assert!(greeting.contains("revocations are in memory only"), "{greeting}");
    }
}

#[test]
fn a_production_server_may_listen_beyond_this_machine() {
    let folder = Folder::new("beyond");
    let server = Production::start(production(&folder, &["--listen", "0.0.0.0:0"]));
    let port = server.address(PUBLIC);
    let port = port.rsplit(':').next().expect("a port");
    let connect = || TcpStream::connect(format!("127.0.0.1:{port}")).expect("the server listens");
    let stranger = publish(connect(), "");
    assert_status(&stranger, 401);
    assert!(stranger.to_lowercase().contains("\r\nwww-authenticate: bearer"), "{stranger}");
    assert_status(&publish(connect(), &credential(&folder)), 200);
    let elsewhere = run(production(&folder, &["--listen", "192.0.2.1:8080"]), "");
    assert_eq!(elsewhere.code, Some(1));
    assert!(elsewhere.stderr.contains("not an address of this machine"), "{}", elsewhere.stderr);
}

#[test]
fn an_admin_socket_gives_every_right_and_only_its_owner_can_connect() {
    let folder = Folder::new("admin");
    let path = folder.path("admin.sock");
    let admin = format!("unix:{}", path.display());
    let flags = [&ANY_PORT[..], &["--admin-listen", &admin]].concat();
    let command = through_a_shell(&production(&folder, &flags), "umask 0; exec \"$@\"");
    let server = Production::start(command);
    assert_eq!(mode(&path), 0o600);
    let connect = || UnixStream::connect(&path).expect("the server listens");
    assert_status(&publish(connect(), ""), 200);
    assert_status(&publish(server.connect(PUBLIC), ""), 401);
    let key = credential(&folder);
    let answer = publish(server.connect(PUBLIC), &key);
    assert_status(&answer, 401);
    assert!(answer.contains("\"code\":\"key_unknown\""), "the public listener takes no keys");
}

#[test]
fn an_admin_listener_on_tcp_needs_a_key() {
    let folder = Folder::new("admin-tcp");
    let flags = [&ANY_PORT[..], &["--admin-listen", "127.0.0.1:0"]].concat();
    let server = Production::start(production(&folder, &flags));
    assert_ne!(server.address(PUBLIC), server.address(ADMIN));
    assert_status(&publish(server.connect(ADMIN), ""), 401);
    assert_status(&publish(server.connect(ADMIN), &credential(&folder)), 200);
    let beyond = [&ANY_PORT[..], &["--admin-listen", "0.0.0.0:0"]].concat();
    let refused = run(production(&folder, &beyond), "");
    assert_eq!((refused.code, &*refused.stdout), (Some(78), ""));
    assert!(refused.stderr.contains("--admin-listen 0.0.0.0:0 can be"), "{}", refused.stderr);
}

#[test]
fn a_settings_file_may_have_settings_of_access_control() {
    let folder = Folder::new("file");
    fs::write(folder.path("app.key"), "k".repeat(40)).expect("a file");
    let text = "listen = \"127.0.0.1:0\"\npublish-key-file = \"app.key\"\n\
                public = [\"news\", \"rooms/*\"]\ntoken-lifetime-max = \"1h\"\n\
                host = \"push.example\"\npublic-url = \"https://push.example\"\n\
                trusted-proxy = [\"192.0.2.1\"]\nproxy-protocol = true\n";
    fs::write(folder.path("downlink.toml"), text).expect("a file");
    let server = Production::start(production(&folder, &["--config", "downlink.toml"]));
    assert!(!folder.path("downlink-publish.key").exists(), "the file gives a publish key");
    let key = format!("Authorization: Bearer {}\r\n", "k".repeat(40));
    assert_status(&publish(server.connect(PUBLIC), &key), 200);
    fs::write(folder.path("bad.toml"), "public = \"news//all\"\n").expect("a file");
    let refused = run(production(&folder, &["--config", "bad.toml"]), "");
    assert_eq!((refused.code, &*refused.stdout), (Some(78), ""));
    assert!(refused.stderr.contains("bad.toml has a setting that cannot"), "{}", refused.stderr);
    assert!(refused.stderr.contains("\"news//all\" is no topic"), "{}", refused.stderr);
}

/// Runs a command in the folder of the server.
fn run_in(folder: &Folder, arguments: &[&str]) -> crate::Ended {
    let mut command = downlink(arguments);
    command.current_dir(folder.path(""));
    run(command, "")
}

#[test]
fn commands_send_the_key_of_a_server_on_this_machine() {
    let folder = Folder::new("keyed");
    let server = Production::start(production(&folder, &ANY_PORT));
    let url = format!("http://{}", server.address(PUBLIC));
    let publish = ["publish", "--url", &url, "-t", "a", "hello"];
    let subscribe = ["subscribe", "--url", &url, "--start", "earliest", "--count", "1", "a"];
    // The folder of the server has its key file.
    let published = run_in(&folder, &publish);
    assert_eq!(published.code, Some(0), "{}", published.stderr);
    assert_eq!(run_in(&folder, &subscribe).stdout, "hello\n");
    // In another folder, the flag or the variable names the file.
    let elsewhere = Folder::new("elsewhere");
    for arguments in [&publish[..], &subscribe] {
        let refused = run_in(&elsewhere, arguments);
        assert_eq!(refused.code, Some(1), "{arguments:?}");
        for part in ["401", "give a key or a token with --key-file FILE: "] {
            assert!(refused.stderr.contains(part), "{}", refused.stderr);
        }
        let file = folder.path("downlink-publish.key");
        let file = file.to_str().expect("UTF-8");
        let given = run_in(&elsewhere, &[arguments, &["--key-file", file]].concat());
        assert_eq!(given.code, Some(0), "{}", given.stderr);
        let mut command = downlink(arguments);
        command.current_dir(elsewhere.path("")).env("DOWNLINK_KEY_FILE", file);
        assert_eq!(run(command, "").code, Some(0), "{arguments:?}");
    }
    fs::write(elsewhere.path("empty.key"), "\n").expect("a file");
    for (file, says) in [("empty.key", "the file is empty"), ("missing.key", "No such file")] {
        let refused = run_in(&elsewhere, &[&publish[..], &["--key-file", file]].concat());
        assert_eq!((refused.code, &*refused.stdout), (Some(78), ""), "{file}");
        let names = format!("cannot use the key file {file}: ");
        assert!(refused.stderr.contains(&names), "{}", refused.stderr);
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
    }
}
