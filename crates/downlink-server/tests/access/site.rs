//! A production server with a public listener for pages and users, and an admin listener for apps
//! and operators. Most tests need such a server.

use std::process::Command;

use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::{
    answer::Answer,
    credentials::{AUDIENCE, Credentials, ISSUER},
    program::{self, Folder, Program},
    request::{Place, Request},
    stream::Stream,
};

/// The flags of a public listener and an admin listener.
const TWO_LISTENERS: [&str; 4] = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];

/// A running server with its keys and its store.
pub(crate) struct Site {
    program: Option<Program>,
    pub(crate) keys: Credentials,
    words: Vec<String>,
    pub(crate) folder: Folder,
}

impl Site {
    /// Starts a server with these further flags.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::of(&[&TWO_LISTENERS, flags].concat())
    }

    /// Starts a server with exactly these flags, and with the keys of the test.
    pub(crate) fn of(flags: &[&str]) -> Self {
        Self::in_folder(Folder::new(), flags)
    }

    /// Like `of`, but the files of the server are in this folder.
    pub(crate) fn in_folder(folder: Folder, flags: &[&str]) -> Self {
        Self::with(folder, flags, |keys| keys.token_flags.clone())
    }

    /// Starts a server that verifies no tokens.
    pub(crate) fn without_tokens(flags: &[&str]) -> Self {
        Self::with(Folder::new(), &[&TWO_LISTENERS, flags].concat(), |_| Vec::new())
    }

    /// Starts a server that verifies tokens only with the key set at this URL.
    pub(crate) fn with_key_set(url: &str, flags: &[&str]) -> Self {
        let of_tokens = ["--jwks-url", url, "--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE];
        Self::without_tokens(&[&of_tokens, flags].concat())
    }

    fn with(
        folder: Folder,
        flags: &[&str],
        token_flags: impl FnOnce(&Credentials) -> Vec<String>,
    ) -> Self {
        let keys = Credentials::new(&folder);
        let store = folder.file("downlink.db");
        let mut words: Vec<String> = ["serve", "--store", &store].map(str::to_owned).to_vec();
        words.extend(flags.iter().map(|word| (*word).to_owned()));
        words.extend(keys.flags.iter().cloned().chain(token_flags(&keys)));
        let mut site = Self { program: None, keys, words, folder };
        site.start_again();
        site
    }

    /// A site of a server that already runs, with these keys and this folder.
    pub(crate) fn running(program: Program, keys: Credentials, folder: Folder) -> Self {
        Self { program: Some(program), keys, words: Vec::new(), folder }
    }

    /// Starts the server again, after it has ended.
    pub(crate) fn start_again(&mut self) {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        self.program = Some(Program::start(&words));
    }

    /// The command of another server with the same flags and the same store.
    pub(crate) fn another(&self, flags: &[&str]) -> Command {
        let words = self.words.iter().map(String::as_str).chain(flags.iter().copied());
        program::command(&words.collect::<Vec<_>>())
    }

    /// Replaces the present server with another one, which is already running. The present server
    /// must have ended.
    pub(crate) fn replace_by(&mut self, program: Program) {
        self.program = Some(program);
    }

    pub(crate) fn program(&self) -> &Program {
        self.program.as_ref().expect("the server runs")
    }

    /// Ends the server with SIGTERM.
    pub(crate) fn stop(&mut self) {
        self.program.take().expect("the server runs").stop();
    }

    /// Kills the server with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.program.take().expect("the server runs").kill();
    }

    pub(crate) fn public(&self) -> &Place {
        &self.program().public
    }

    pub(crate) fn admin(&self) -> &Place {
        self.program().admin()
    }

    /// Sends a request with the admin key to the admin listener.
    pub(crate) async fn operate(&self, request: Request) -> Answer {
        request.bearer(&self.keys.admin_key()).ask(self.admin()).await
    }

    /// The value of a metric.
    pub(crate) async fn metric(&self, name: &str) -> String {
        let body = self.operate(Request::get("/metrics")).await.body;
        let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {body}")).to_owned()
    }

    /// Publishes an event with the publish key, and returns its id.
    pub(crate) async fn publish(&self, query: &str, data: &str) -> String {
        let request = Request::post(format!("/events?{query}"), data);
        let answer = request.bearer(&self.keys.publish_key()).ask(self.admin()).await;
        answer.json()["id"].as_str().expect("an id").to_owned()
    }

    /// Sends a revocation, and checks that the server confirms it.
    pub(crate) async fn revoke(&self, query: &str) {
        let revoked = self.operate(Request::post(format!("/revoke?{query}"), "")).await.json();
        assert_eq!(revoked, serde_json::json!({ "revoked": true }));
    }

    /// Requests a ticket with the publish key, as an app does.
    pub(crate) async fn ticket(&self, query: &str) -> String {
        let request = Request::post(format!("/tickets?{query}"), "");
        let answer = request.bearer(&self.keys.publish_key()).ask(self.admin()).await;
        answer.json()["ticket"].as_str().expect("a ticket").to_owned()
    }

    /// The number of retained events of a topic.
    pub(crate) async fn events(&self, topic: &str) -> Value {
        self.operate(Request::get(format!("/topics?topic={topic}"))).await.json()["events"].take()
    }

    /// Sends a request to the public listener, and returns the stream of the answer.
    pub(crate) async fn stream(&self, request: Request) -> Stream {
        self.stream_at(self.public(), request).await
    }

    /// Sends a request to this listener, and returns the stream of the answer.
    pub(crate) async fn stream_at(&self, place: &Place, request: Request) -> Stream {
        let Place::Tcp(address) = place else { panic!("the listener is on TCP") };
        let mut io = TcpStream::connect(address).await.expect("the server listens");
        let text = request.text(place, "");
        io.write_all(text.as_bytes()).await.expect("the connection is open");
        Stream::begin(io).await
    }

    /// Subscribes like an `EventSource`. Asserts that the stream has no event and ends at once, so
    /// that the `EventSource` reconnects later. Returns the reconnection time in milliseconds.
    pub(crate) async fn assert_comes_back(&self, request: Request) -> u64 {
        let mut stream = self.stream(request.of_browser()).await;
        assert_eq!(stream.status(), 200, "{}{}", stream.head, stream.body);
        assert!(stream.next().await.is_none(), "the stream has no event: {}", stream.body);
        stream.retry.expect("a reconnection time")
    }

    /// Opens a subscription, and reads its first event.
    pub(crate) async fn subscribe(&self, request: Request) -> Stream {
        let mut stream = self.stream(request).await;
        assert_eq!(stream.status(), 200, "{}{}", stream.head, stream.body);
        let opened = stream.next().await.expect("the first event");
        assert_eq!(opened.event_type, "downlink.open");
        stream
    }

    /// Opens a subscription of this client with an ordinary token.
    pub(crate) async fn subscribe_as(&self, client: &str, query: &str) -> Stream {
        let request = Request::get(format!("/events?{query}"));
        self.subscribe(request.bearer(&self.keys.user(client))).await
    }

    /// The outcome of a request of this client to the public listener.
    pub(crate) async fn outcome_as(&self, client: &str, request: Request) -> String {
        request.bearer(&self.keys.user(client)).ask(self.public()).await.outcome()
    }
}

/// Reads the end of a stream whose credential was revoked.
pub(crate) async fn assert_revoked(stream: Stream) {
    assert_ended(stream, "revoked").await;
}

/// Reads the end of a stream whose rights have ended for the reason with this code.
pub(crate) async fn assert_ended(mut stream: Stream, code: &str) {
    let expired = stream.next().await.expect("the last event");
    assert_eq!(expired.event_type, "downlink.expired");
    assert_eq!(expired.data, format!(r#"{{"code":"{code}"}}"#));
    assert_eq!(stream.retry, Some(1_000));
    assert_eq!(stream.rest().await, [""; 0]);
}
