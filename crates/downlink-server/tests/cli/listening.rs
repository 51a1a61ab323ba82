//! Tests of Unix sockets, of sockets that a supervisor (such as systemd) hands over to the server,
//! and of the server's notices to the supervisor.

use std::{
    fs,
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::OwnedFd,
        unix::fs::MetadataExt as _,
        unix::net::{UnixDatagram, UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Ended, PATIENCE, Running, Server, downlink, production, run, through_a_shell};

/// A folder for sockets, stores and key files. Dropping this value removes the folder. The path
/// of the folder is short, because operating systems limit the paths of sockets to about 100 bytes.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("dl-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for the test");
        Self(folder)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The command of a production server that listens on a Unix socket in this folder.
fn at(folder: &Folder, name: &str) -> Command {
    production(folder, &["--listen", &format!("unix:{}", folder.path(name).display())])
}

/// Starts a server and waits until it listens.
fn serving(command: Command) -> Running {
    let running = Running::start(command);
    let line = running.stdout.next();
    assert!(line.contains("listening on"), "{line}");
    running
}

/// Publishes over a connection with this credential, which is a header line or empty. Returns the
/// answer.
pub(crate) fn publish(mut io: impl std::io::Read + std::io::Write, credential: &str) -> String {
    let request = format!(
        "POST /events?topic=a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Length: 1\r\n{credential}\r\nx"
    );
    io.write_all(request.as_bytes()).expect("the connection is open");
    let mut answer = String::new();
    io.read_to_string(&mut answer).expect("an answer in UTF-8");
    answer
}

/// The header line with the publish key that the server has made in this folder.
pub(crate) fn credential(folder: &Folder) -> String {
    let key = fs::read_to_string(folder.path("downlink-publish.key")).expect("a key file");
    format!("Authorization: Bearer {}\r\n", key.trim_end())
}

fn connect(path: &Path) -> UnixStream {
    let io = UnixStream::connect(path).expect("a server listens");
    io.set_read_timeout(Some(PATIENCE)).expect("a socket");
    io
}

/// Whether the production server on this socket in the folder answers a publish.
fn is_served(folder: &Folder, name: &str) -> bool {
    let answer = publish(connect(&folder.path(name)), &credential(folder));
    answer.starts_with("HTTP/1.1 200 OK\r\n")
}

#[test]
fn a_server_removes_the_file_of_its_unix_socket_at_its_end() {
    let folder = Folder::new("served");
    let path = folder.path("a.sock");
    let running = Running::start(at(&folder, "a.sock"));
    let place = format!("unix:{}", path.display());
    assert!(running.stdout.next().ends_with(&format!("listening on {place}")));
    let curl = format!("curl --unix-socket '{}' -H ", path.display());
    assert!(running.stdout.next().contains(&curl));
    assert!(is_served(&folder, "a.sock"));
    running.signal("TERM");
    assert_eq!(running.ended().code, Some(0));
    assert!(!path.exists());
}

/// The permissions and the group of a socket's file.
fn permissions(path: &Path) -> (u32, u32) {
    let found = fs::metadata(path).expect("a socket");
    (found.mode() & 0o777, found.gid())
}

/// A proxy that runs as another user can connect only if it may write to the socket's file.
#[test]
fn the_socket_file_has_the_mode_of_the_flag_socket_mode() {
    let folder = Folder::new("mode");
    for (umask, mode, expected) in [("077", "660", 0o660), ("000", "600", 0o600)] {
        let path = folder.path(mode);
        let mut command = at(&folder, mode);
        command.args(["--socket-mode", mode]);
        let script = format!("umask {umask}; exec \"$@\"");
        let running = serving(through_a_shell(&command, &script));
        assert_eq!(permissions(&path).0, expected);
        assert!(is_served(&folder, mode));
        running.signal("TERM");
        assert_eq!(running.ended().code, Some(0));
        assert!(!path.exists(), "the server removes its file");
    }
}

/// As root, the test uses a group other than root's own. Other users can give a file only to a
/// group that they belong to. So without root, the test uses the user's own group.
#[test]
fn the_socket_file_has_the_group_of_the_flag_socket_group() {
    let folder = Folder::new("group");
    fs::write(folder.path("own"), "").expect("a file");
    let own = permissions(&folder.path("own")).1;
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let groups = fs::read_to_string("/etc/group").expect("groups");
    let named = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?.parse::<u32>().ok()?);
        ((id == own) != is_root).then(|| (name.to_owned(), id))
    });
    let (name, id) = named.expect("a group");
    for group in [name, id.to_string()] {
        let mut command = at(&folder, &group);
        command.args(["--socket-mode", "660", "--socket-group", &group]);
        let _running = serving(command);
        assert_eq!(permissions(&folder.path(&group)), (0o660, id));
        assert!(is_served(&folder, &group));
    }
}

#[test]
fn errors_about_mode_and_group_say_what_to_write() {
    let folder = Folder::new("permit");
    let path = folder.path("a.sock");
    let listen = format!("unix:{}", path.display());
    let with = |flags: &[&str]| run(production(&folder, flags), "");
    let mode = with(&["--listen", &listen, "--socket-mode", "rw"]);
    assert_eq!(mode.code, Some(2));
    assert!(mode.stderr.contains("three octal digits, such as 660"), "{}", mode.stderr);
    let group = with(&["--listen", &listen, "--socket-group", "no such group"]);
    assert_eq!(group.code, Some(2));
    assert!(group.stderr.contains("in /etc/group; write the name of a group"), "{}", group.stderr);
    let tcp = with(&["--listen", "127.0.0.1:0", "--socket-mode", "660"]);
    assert_eq!(tcp.code, Some(78));
    assert!(tcp.stderr.contains("--listen unix:/run/downlink.sock"), "{}", tcp.stderr);
    assert!(!path.exists());
}

#[test]
fn the_mode_of_an_inherited_socket_cannot_be_set() {
    let folder = Folder::new("owners");
    let socket = UnixListener::bind(folder.path("a.sock")).expect("a new path");
    let mut command = supervised(&production(&folder, &[]), socket, 1, ONE);
    command.env("DOWNLINK_SOCKET_MODE", "660");
    let mut running = Running::start(command);
    drop(running.stdin.take());
    let ended = running.ended();
    assert_eq!(ended.code, Some(78), "{}", ended.stderr);
    assert!(ended.stderr.contains("SocketMode="), "{}", ended.stderr);
}

#[test]
fn a_unix_socket_in_use_is_not_replaced() {
    let folder = Folder::new("in-use");
    let _first = serving(at(&folder, "a.sock"));
    let refused = run(at(&folder, "a.sock"), "");
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("is in use by another program"), "{}", refused.stderr);
    assert!(is_served(&folder, "a.sock"));
}

#[test]
fn a_socket_file_left_by_a_crash_is_replaced() {
    let folder = Folder::new("stale");
    let killed = serving(at(&folder, "a.sock"));
    killed.signal("KILL");
    assert_eq!(killed.ended().code, None);
    assert!(folder.path("a.sock").exists());
    let _next = serving(at(&folder, "a.sock"));
    assert!(is_served(&folder, "a.sock"));
}

#[test]
fn a_file_that_is_not_a_socket_is_never_replaced() {
    let folder = Folder::new("file");
    let path = folder.path("precious");
    fs::write(&path, "precious").expect("a file");
    let refused = run(at(&folder, "precious"), "");
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("exists and is not a socket"), "{}", refused.stderr);
    assert_eq!(fs::read(&path).expect("the same file"), b"precious");
}

#[test]
fn a_server_does_not_remove_the_socket_file_of_the_next_server() {
    let folder = Folder::new("successor");
    let first = serving(at(&folder, "a.sock"));
    fs::remove_file(folder.path("a.sock")).expect("an existing file");
    let _second = serving(at(&folder, "a.sock"));
    first.signal("TERM");
    assert_eq!(first.ended().code, Some(0));
    assert!(is_served(&folder, "a.sock"));
}

/// The command of a server that a supervisor starts. The server inherits these environment
/// variables, and `count` copies of the descriptor. The copies have the numbers 3, 4 and so on.
fn supervised(
    server: &Command,
    descriptor: impl Into<OwnedFd>,
    count: usize,
    variables: &str,
) -> Command {
    let descriptors: String = (3..3 + count).map(|fd| format!("exec {fd}<&0; ")).collect();
    let script = format!("{descriptors}exec 0</dev/null; export {variables}; exec \"$@\"");
    let mut command = through_a_shell(server, &script);
    command.stdin(Stdio::from(descriptor.into()));
    command
}

/// The command of a development server. The server uses the address only if it inherits no socket.
fn development() -> Command {
    downlink(&["dev", "--listen", "127.0.0.1:0"])
}

const ONE: &str = "LISTEN_PID=$$ LISTEN_FDS=1";

#[test]
fn an_inherited_tcp_socket_is_served() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("the listener is bound");
    // This connection is made before the server is started. The server must still serve it.
    let early = TcpStream::connect(address).expect("the server listens");
    let socket = socket.try_clone().expect("a descriptor");
    let server = Server::of(supervised(&development(), socket, 1, ONE));
    assert_eq!(server.address(), address.to_string());
    assert!(publish(early, "").starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn an_inherited_unix_socket_is_served_and_its_file_stays() {
    let folder = Folder::new("handed");
    let path = folder.path("a.sock");
    let socket = UnixListener::bind(&path).expect("a new path");
    let first = socket.try_clone().expect("a descriptor");
    let server = serving(supervised(&production(&folder, &[]), first, 1, ONE));
    assert!(is_served(&folder, "a.sock"));
    server.signal("TERM");
    assert_eq!(server.ended().code, Some(0));
    assert!(path.exists(), "the socket's file belongs to the supervisor");
    let _next = serving(supervised(&production(&folder, &[]), socket, 1, ONE));
    assert!(is_served(&folder, "a.sock"));
}

#[test]
fn the_inherited_socket_with_the_name_downlink_is_served() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("the listener is bound").to_string();
    let says = "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=web:downlink";
    let server = Server::of(supervised(&development(), socket, 2, says));
    assert_eq!(server.address(), address);
}

#[test]
fn sockets_for_another_pid_are_ignored() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("the listener is bound").to_string();
    let other = "LISTEN_PID=1 LISTEN_FDS=1";
    let server = Server::of(supervised(&development(), socket, 1, other));
    assert_ne!(server.address(), address);
    let warning = server.running.stderr.next();
    assert!(warning.contains("they are for process 1, and"), "{warning}");
}

/// Asserts that the server does not start, and that its error message contains these parts.
#[track_caller]
fn refused(descriptor: impl Into<OwnedFd>, count: usize, variables: &str, parts: &[&str]) {
    let mut running = Running::start(supervised(&development(), descriptor, count, variables));
    drop(running.stdin.take());
    let Ended { code, stderr, .. } = running.ended();
    assert_eq!(code, Some(1), "{stderr}");
    for part in ["cannot use the inherited socket"].iter().chain(parts) {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
}

#[test]
fn an_error_has_the_number_of_the_unusable_descriptor() {
    let file = || fs::File::open("/dev/null").expect("an existing file");
    let none = ["descriptor 3 is not an open TCP or Unix stream socket"];
    refused(file(), 0, ONE, &none);
    refused(file(), 1, ONE, &none);
    refused(UdpSocket::bind("127.0.0.1:0").expect("a free port"), 1, ONE, &none);
    let (connected, _other) = UnixStream::pair().expect("a pair");
    refused(connected, 1, ONE, &["descriptor 3 is a socket that is not listening"]);
}

#[test]
fn an_error_has_the_name_of_the_invalid_variable() {
    let socket = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    refused(socket(), 1, "LISTEN_FDS=one", &["LISTEN_FDS=\"one\""]);
    refused(socket(), 1, "LISTEN_FDS=1 LISTEN_PID=me", &["LISTEN_PID=\"me\""]);
    refused(socket(), 2, "LISTEN_FDS=2", &["LISTEN_FDS=2", "LISTEN_FDNAMES"]);
}

/// The address of an inherited socket follows the same rules as `--listen`.
#[test]
fn a_development_server_takes_no_inherited_socket_that_others_can_reach() {
    let folder = Folder::new("inherited");
    let open = TcpListener::bind("0.0.0.0:0").expect("a free port");
    let unix = UnixListener::bind(folder.path("a.sock")).expect("a new path");
    for socket in [OwnedFd::from(open), unix.into()] {
        let mut running = Running::start(supervised(&development(), socket, 1, ONE));
        drop(running.stdin.take());
        let ended = running.ended();
        assert_eq!((ended.code, &*ended.stdout), (Some(78), ""));
        assert!(ended.stderr.contains("start downlink serve"), "{}", ended.stderr);
    }
}

#[test]
fn requests_over_an_inherited_socket_on_all_addresses_need_a_credential() {
    let folder = Folder::new("open");
    let socket = TcpListener::bind("0.0.0.0:0").expect("a free port");
    let port = socket.local_addr().expect("the listener is bound").port();
    let _server = serving(supervised(&production(&folder, &[]), socket, 1, ONE));
    let connect = || TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    assert!(publish(connect(), "").starts_with("HTTP/1.1 401 Unauthorized\r\n"));
    assert!(publish(connect(), &credential(&folder)).starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn a_supervisor_gets_notices_of_the_start_and_the_end() {
    let folder = Folder::new("notify");
    let path = folder.path("notify");
    let supervisor = UnixDatagram::bind(&path).expect("a new path");
    supervisor.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let notice = || {
        let mut bytes = [0; 256];
        let read = supervisor.recv(&mut bytes).expect("a notice in time");
        String::from_utf8_lossy(&bytes[..read]).trim_end().to_owned()
    };
    let script = "exec env --default-signal=HUP \"$@\"";
    let mut command = through_a_shell(&at(&folder, "a.sock"), script);
    command.env("NOTIFY_SOCKET", &path);
    let server = Running::start(command);
    assert_eq!(notice(), "READY=1");
    assert!(is_served(&folder, "a.sock"));
    server.signal("HUP");
    let reloading = notice();
    let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("a reload");
    assert!(time.parse::<u64>().is_ok_and(|time| time > 0), "{reloading}");
    assert_eq!(notice(), "READY=1");
    server.signal("TERM");
    assert_eq!(notice(), "STOPPING=1");
    assert_eq!(server.ended().code, Some(0));
}
