//! Servers as processes that a test can kill, pause and start again at the same address.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use downlink_access::Secret;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::patiently;

/// How long to wait before asking again whether a condition holds.
const POLL: Duration = Duration::from_millis(5);

/// The maximum time for one request. A paused server does not answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The folder and the keys of one test. Dropping this value removes the folder, unless the test
/// fails.
pub(crate) struct Site {
    folder: PathBuf,
    /// The key of publishers, which each server has.
    pub(crate) publish_key: String,
}

/// Where a server keeps its history.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kept {
    InMemory,
    InStore,
}

impl Site {
    pub(crate) fn new(name: &str) -> Self {
        let folder = format!("downlink-test-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        fs::create_dir_all(&folder).expect("a folder for the test");
        let key = |name: &str| {
            let secret = Secret::generate().expect("randomness");
            secret.create_file(&folder.join(name)).expect("a new file");
            secret.text().to_string()
        };
        let publish_key = key("publish.key");
        key("relay.key");
        key("admin.key");
        Self { folder, publish_key }
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.join(name).to_str().expect("UTF-8").to_owned()
    }

    /// The text of a key file.
    pub(crate) fn key(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).expect("a key file").trim().to_owned()
    }

    /// A server that follows no other server. It does not run yet.
    pub(crate) fn upstream(&self, name: &str, kept: Kept, flags: &[&str]) -> Node {
        self.node(name, kept, flags)
    }

    /// A relay, which follows the server at the address `of`. It does not run yet.
    pub(crate) fn relay(&self, name: &str, of: SocketAddr, kept: Kept, flags: &[&str]) -> Node {
        let (url, key) = (format!("http://{of}"), self.file("relay.key"));
        let follow = ["--follow", &url, "--follow-key-file", &key];
        self.node(name, kept, &[&follow, flags].concat())
    }

    /// A server with these flags. It does not run yet.
    pub(crate) fn node(&self, name: &str, kept: Kept, flags: &[&str]) -> Node {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).expect("a folder for the server");
        let address = free_address();
        let store = if kept == Kept::InStore { "history.db" } else { "none" };
        let listen = address.to_string();
        let keys = ["relay", "publish", "admin"];
        let keys = keys.map(|key| (format!("--{key}-key-file"), self.file(&format!("{key}.key"))));
        let mut words: Vec<&str> =
            vec!["serve", "--listen", &listen, "--store", store, "--public", "*"];
        words.extend(keys.iter().flat_map(|(flag, file)| [flag.as_str(), file]));
        words.extend(flags);
        let words = words.into_iter().map(str::to_owned).collect();
        let client = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
        let key = self.key("admin.key");
        Node { name: name.to_owned(), address, folder, words, client, key, child: None }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the folder of the servers, with their logs: {}", self.folder.display());
        } else {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// An address whose port is not in the range from which the system takes ports for clients.
/// Otherwise a client could take the port while the server is away.
fn free_address() -> SocketAddr {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(97);
    loop {
        let tried = TRIED.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + (first.wrapping_add(tried) % 18_000) as u16;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// A server, which may run or not. Dropping this value kills it.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    folder: PathBuf,
    words: Vec<String>,
    client: reqwest::Client,
    /// The key of an operator.
    key: String,
    child: Option<Child>,
}

/// The answer to one request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a member of the answer's JSON object.
    pub(crate) fn member(&self, name: &str) -> Value {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        body[name].clone()
    }

    /// The id in the answer to a publish. Panics if the publish was refused.
    #[track_caller]
    pub(crate) fn id(&self) -> String {
        assert!([200, 202].contains(&self.status), "{self:?}");
        self.member("id").as_str().expect("an id").to_owned()
    }
}

impl Node {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The path of the file with the history.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder.join("history.db")
    }

    /// Makes the server follow another one from its next start on. The server must be a relay.
    pub(crate) fn follow(&mut self, of: SocketAddr) {
        self.set_flag("--follow", &format!("http://{of}"));
    }

    /// Changes a flag that the server has.
    pub(crate) fn set_flag(&mut self, flag: &str, value: &str) {
        let at = self.words.iter().position(|word| word == flag).expect("the server has the flag");
        value.clone_into(&mut self.words[at + 1]);
    }

    /// The command that starts this server.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_downlink"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DOWNLINK_") {
                command.env_remove(name);
            }
        }
        command.current_dir(&self.folder).args(&self.words);
        command.env("DOWNLINK_LOG", "info,access=off");
        command.stdin(Stdio::null());
        command
    }

    /// Starts the process, and waits until it answers.
    pub(crate) async fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_file());
        let mut command = self.command();
        command.stdout(Stdio::null()).stderr(log.expect("the log can be written"));
        self.child = Some(command.spawn().expect("the program starts"));
        patiently(async {
            while self.try_get("/healthz").await.is_none_or(|answer| answer.status != 200) {
                let child = self.child.as_mut().expect("the process was started");
                if child.try_wait().expect("a child").is_some() {
                    panic!("{} does not start: {}", self.name, self.log());
                }
                sleep(POLL).await;
            }
        })
        .await;
    }

    /// Starts the process, and waits until it has all events of its upstream (the server that a
    /// relay follows) or of its cluster.
    pub(crate) async fn start_ready(&mut self) {
        self.start().await;
        self.becomes_ready().await;
    }

    pub(crate) async fn becomes_ready(&self) {
        self.readyz_becomes(|answer| answer.status == 200 && answer.body == "ready\n").await;
    }

    /// Waits until the answer of `/readyz` is as expected, and returns it.
    pub(crate) async fn readyz_becomes(&self, is_expected: impl Fn(&Answer) -> bool) -> Answer {
        let mut last = None;
        let becomes = async {
            loop {
                last = self.try_get("/readyz").await;
                if let Some(answer) = last.clone().filter(&is_expected) {
                    return answer;
                }
                sleep(POLL).await;
            }
        };
        let became = timeout(crate::PATIENCE, becomes).await;
        became.unwrap_or_else(|_| panic!("{}: {last:?}\n{}", self.name, self.log()))
    }

    /// Kills the process at once, with SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends the process with SIGTERM, and waits for its end.
    pub(crate) async fn stop(&mut self) {
        self.signal(Signal::TERM);
        let mut child = self.child.take().expect("the server runs");
        let ended = tokio::task::spawn_blocking(move || child.wait().expect("a child"));
        let ended = patiently(ended).await.expect("the wait does not panic");
        assert!(ended.success(), "{}: {}", self.name, self.log());
    }

    /// Stops all threads of the process, with SIGSTOP.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a paused process go on.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("the server runs");
        kill_process(Pid::from_child(child), signal).expect("the process exists");
    }

    /// The number of bytes of physical memory that the process uses now.
    #[cfg(target_os = "linux")]
    pub(crate) fn resident_bytes(&self) -> u64 {
        let id = self.child.as_ref().expect("the server runs").id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).expect("the process exists");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1_024
    }

    /// Deletes the file with the history. The server must not run.
    pub(crate) fn delete_store(&self) {
        for suffix in ["", "-wal", "-shm"] {
            let file = format!("{}{suffix}", self.store().display());
            if Path::new(&file).exists() {
                fs::remove_file(file).expect("a file of this test");
            }
        }
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("stderr.log")
    }

    /// Everything that the server has logged, over all its runs.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Waits until the log contains a text.
    pub(crate) async fn logs(&self, text: &str) {
        let logged = async {
            while !self.log().contains(text) {
                sleep(POLL).await;
            }
        };
        let logged = timeout(crate::PATIENCE, logged).await;
        logged.unwrap_or_else(|_| panic!("{}: no {text:?} in {}", self.name, self.log()));
    }

    /// Sends a GET request with the key of an operator. `None` if there is no answer.
    async fn try_get(&self, path: &str) -> Option<Answer> {
        self.try_get_as(&self.key, path).await
    }

    async fn try_get_as(&self, credential: &str, path: &str) -> Option<Answer> {
        let mut request = self.client.get(self.url(path));
        if !credential.is_empty() {
            request = request.bearer_auth(credential);
        }
        let sent = request.send();
        let response = timeout(Duration::from_secs(5), sent).await.ok()?.ok()?;
        let status = response.status().as_u16();
        Some(Answer { status, body: response.text().await.ok()? })
    }

    /// Sends a GET request with this credential. An empty one is not sent.
    pub(crate) async fn get_as(&self, credential: &str, path: &str) -> Answer {
        let answer = self.try_get_as(credential, path).await;
        answer.unwrap_or_else(|| panic!("{} does not answer: {}", self.name, self.log()))
    }

    /// Sends a GET request with the key of an operator.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        let answer = self.try_get(path).await;
        answer.unwrap_or_else(|| panic!("{} does not answer: {}", self.name, self.log()))
    }

    /// Sends a POST request with the key of an operator. Each header is a name and a value.
    pub(crate) async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        self.post_as(&self.key, path, headers, body).await
    }

    /// Sends a POST request with this credential.
    pub(crate) async fn post_as(
        &self,
        credential: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let mut request = self.client.post(self.url(path)).bearer_auth(credential).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = async {
            let response = request.send().await.expect("an answer");
            let status = response.status().as_u16();
            Answer { status, body: response.text().await.expect("a whole answer") }
        };
        timeout(ANSWER_WITHIN, answer).await.expect("the server answers in time")
    }

    /// Sends a DELETE request with the key of an operator.
    pub(crate) async fn delete(&self, path: &str) -> Answer {
        let request = self.client.delete(self.url(path)).bearer_auth(&self.key);
        let answer = async {
            let response = request.send().await.expect("an answer");
            let status = response.status().as_u16();
            Answer { status, body: response.text().await.expect("a whole answer") }
        };
        timeout(ANSWER_WITHIN, answer).await.expect("the server answers in time")
    }

    /// Publishes to a topic, and returns the id of the event. Panics if the publish is refused.
    pub(crate) async fn publish(&self, topic: &str, data: impl Into<String>) -> String {
        self.post(&format!("/events?topic={topic}"), &[], data.into()).await.id()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
