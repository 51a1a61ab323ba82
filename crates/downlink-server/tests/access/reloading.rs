//! Reloads: at SIGHUP, a server reads its settings file and its key files again.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::mpsc,
};

use downlink_access::Secret;
use serde_json::{Value, json};

use crate::{
    PATIENCE,
    credentials::{Credentials, Signer, claims, of_a_user},
    program::{Folder, Program, command},
    request::Request,
    site::{Site, assert_ended},
    web::{Reply, Web},
};

/// A server whose settings come from a file, and the lines of its log.
struct Reloadable {
    site: Site,
    log: mpsc::Receiver<String>,
}

/// The settings of every server in these tests.
const SETTINGS: &str = "\
listen = \"127.0.0.1:0\"
admin-listen = \"127.0.0.1:0\"
admin-key-file = \"admin-key-file.key\"
ticket-key-file = \"ticket-key-file.key\"
jwt-key-file = \"jwt-key-file.key\"
jwt-public-key = [\"rs256.pem\", \"es256.pem\"]
jwt-issuer = \"https://issuer.example\"
jwt-audience = \"downlink\"
";

/// The setting with the key of the app.
const ONE_KEY: &str = "publish-key-file = \"publish-key-file.key\"\n";
const TWO_KEYS: &str = "publish-key-file = [\"publish-key-file.key\", \"other.key\"]\n";

/// Makes a key file and returns the key.
fn key(folder: &Folder, name: &str) -> String {
    let secret = Secret::generate().expect("randomness");
    secret.create_file(folder.file(name).as_ref()).expect("a new file");
    secret.text().to_string()
}

impl Reloadable {
    /// Starts a server with [`SETTINGS`] and these settings.
    fn start(folder: Folder, settings: &str) -> Self {
        let keys = Credentials::new(&folder);
        let file = folder.file("downlink.toml");
        fs::write(&file, format!("{SETTINGS}{settings}")).expect("a file");
        let serve = command(&["serve", "--config", &file, "--store", "downlink.db"]);
        // If the test runs under `nohup`, its child processes ignore SIGHUP too. `env` restores the
        // default action.
        let mut started = Command::new("env");
        started.arg("--default-signal=HUP").arg(serve.get_program()).args(serve.get_args());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DOWNLINK_") {
                started.env_remove(name);
            }
        }
        started.current_dir(folder.path()).stdin(Stdio::null());
        let mut child = started.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("env");
        let stderr = BufReader::new(child.stderr.take().expect("the stream is piped"));
        let (sender, log) = mpsc::sync_channel(100_000);
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let site = Site::running(Program::greeted(child), keys, folder);
        Self { site, log }
    }

    /// Writes the settings file again, with [`SETTINGS`] and these settings.
    fn write(&self, settings: &str) {
        let text = format!("{SETTINGS}{settings}");
        fs::write(self.site.folder.file("downlink.toml"), text).expect("a file");
    }

    /// Sends SIGHUP, and returns the lines of the log up to the outcome of the reload.
    fn reload(&self) -> String {
        self.site.program().hang_up();
        self.log_until(|line| line.contains("read the key files") || line.contains("cannot reload"))
    }

    fn log_until(&self, is_last: impl Fn(&str) -> bool) -> String {
        let mut lines = String::new();
        loop {
            let line = self.log.recv_timeout(PATIENCE).expect("another line");
            lines.push_str(&line);
            if is_last(&line) {
                return lines;
            }
            lines.push('\n');
        }
    }

    /// Writes the settings, reloads, and checks that the server has applied the settings with these
    /// names.
    fn apply(&self, settings: &str, names: &str) {
        self.write(settings);
        let log = self.reload();
        assert!(log.ends_with(&format!("applied new values of {names}")), "{log}");
    }

    async fn publish_with(&self, key: &str) -> String {
        let request = Request::post("/events?topic=rooms/1", "x").bearer(key);
        request.ask(self.site.admin()).await.outcome()
    }
}

#[tokio::test]
async fn a_removed_key_ends_its_streams_and_no_other_stream() {
    let folder = Folder::new();
    let other = key(&folder, "other.key");
    let server = Reloadable::start(folder, &format!("{TWO_KEYS}public = \"rooms/1\"\n"));
    let site = &server.site;
    let rooms = || Request::get("/events?topic=rooms/1");
    let of_key = |key: &str| rooms().bearer(key);
    let admin = |request: Request| site.stream_at(site.admin(), request);
    let mut removed = admin(of_key(&other)).await;
    removed.next().await.expect("the first event");
    let mut kept = vec![
        admin(of_key(&site.keys.publish_key())).await,
        site.stream(rooms()).await,
        site.stream(of_key(&site.keys.user("ada"))).await,
    ];
    for stream in &mut kept {
        assert_eq!(stream.next().await.expect("the first event").event_type, "downlink.open");
    }
    server.apply(&format!("{ONE_KEY}public = \"rooms/1\"\n"), "publish-key-file");
    assert_ended(removed, "key_unknown").await;
    assert_eq!(server.publish_with(&other).await, "401 key_unknown");
    assert_eq!(server.publish_with(&site.keys.publish_key()).await, "200");
    for stream in &mut kept {
        assert_eq!(stream.next().await.expect("the event").data, "x");
    }
    // Of the streams that are left, only the one without a credential needs the public topic.
    server.apply(ONE_KEY, "public");
    assert_ended(kept.remove(1), "token_missing").await;
    assert_eq!(server.publish_with(&site.keys.publish_key()).await, "200");
    for stream in &mut kept {
        assert_eq!(stream.next().await.expect("the event").data, "x");
    }
}

#[tokio::test]
async fn a_new_key_is_accepted_after_a_reload() {
    let server = Reloadable::start(Folder::new(), ONE_KEY);
    let other = key(&server.site.folder, "other.key");
    assert_eq!(server.publish_with(&other).await, "401 key_unknown");
    server.apply(TWO_KEYS, "publish-key-file");
    assert_eq!(server.publish_with(&other).await, "200");
    // The file has another key, and the settings are the same.
    fs::remove_file(server.site.folder.file("other.key")).expect("a file");
    let newest = key(&server.site.folder, "other.key");
    let log = server.reload();
    assert!(log.ends_with("read the key files again"), "{log}");
    assert_eq!(server.publish_with(&other).await, "401 key_unknown");
    assert_eq!(server.publish_with(&newest).await, "200");
}

#[tokio::test]
async fn a_file_that_cannot_be_used_changes_nothing() {
    let folder = Folder::new();
    let other = key(&folder, "other.key");
    let server = Reloadable::start(folder, TWO_KEYS);
    let site = &server.site;
    let mut stream = site.subscribe_as("ada", "topic=rooms/1").await;
    fs::write(site.folder.file("short.key"), "x").expect("a file");
    for (settings, says) in [
        ("listen = ", "is not TOML: line"),
        ("key = \"hunter2\" x\n", "is not TOML: line"),
        ("authorize-url = \"ftp://me:hunter2@h\"\n", "ftp://***@h"),
        ("publish-key-file = \"short.key\"\n", "short.key"),
        ("publish-key-file = \"none.key\"\n", "none.key"),
        ("publish-key-files = \"other.key\"\n", "perhaps publish-key-file is meant"),
        (&format!("{ONE_KEY}keep-alive = \"soon\"\n"), "keep-alive"),
        (&format!("{ONE_KEY}retain-events = 0\n"), "keeps no event"),
        (&format!("{ONE_KEY}retain-events = 5\nretain = [\"a//b=events:1\"]\n"), "a//b"),
        (&format!("{ONE_KEY}proxy-protocol = true\n"), "--proxy-protocol needs --trusted-proxy"),
    ] {
        server.write(settings);
        let log = server.reload();
        assert!(log.contains("ERROR") && log.contains("nothing has changed"), "{log}");
        assert!(log.contains(says) && !log.contains("hunter2"), "{says}: {log}");
        assert_eq!(server.publish_with(&other).await, "200");
        assert_eq!(stream.next().await.expect("the event").data, "x");
    }
    fs::remove_file(site.folder.file("downlink.toml")).expect("a file");
    assert!(server.reload().contains("cannot read"));
    assert_eq!(server.publish_with(&other).await, "200");
}

#[tokio::test]
async fn a_setting_that_needs_a_restart_is_named_with_both_values() {
    let server = Reloadable::start(Folder::new(), &format!("{ONE_KEY}keep-alive = \"20s\"\n"));
    let changed = "keep-alive = \"30s\"\ntopics-max = 7\nconnections-max = 9\n";
    for settings in [changed, &format!("{changed}public = \"a\"\n")] {
        server.write(&format!("{ONE_KEY}{settings}"));
        let log = server.reload();
        for says in [
            "does not change keep-alive: it is \"20s\" until a restart, and \"30s\" after it",
            "does not change topics-max: it is 100000 until a restart, and 7 after it",
            "does not change connections-max: it is not set until a restart, and 9 after it",
        ] {
            assert!(log.contains(says) && log.contains("WARN"), "{says}: {log}");
        }
    }
    let public = Request::get("/events?topic=a").ask(server.site.public()).await;
    assert_eq!(public.outcome(), "200", "the other changes apply");
}

#[tokio::test]
async fn hosts_origins_rates_and_token_rules_change_without_a_restart() {
    let server = Reloadable::start(Folder::new(), ONE_KEY);
    let site = &server.site;
    let named = || {
        let request = Request::get("/downlink.js").host("push.example");
        async move { request.ask(site.public()).await.outcome() }
    };
    assert_eq!(named().await, "403 host_denied");
    let page = || {
        let request = Request::get("/downlink.js").header("Origin", "https://page.example");
        async move { request.ask(site.public()).await.outcome() }
    };
    assert_eq!(page().await, "403 origin_denied");
    let settings = format!(
        "{ONE_KEY}host = \"push.example\"\ncors-origin = \"https://page.example\"\n\
         publishes-per-key = \"1/h,burst:1\"\n"
    );
    server.apply(&settings, "cors-origin, host, publishes-per-key");
    assert_eq!(named().await, "200");
    assert_eq!(page().await, "200");
    let key = site.keys.publish_key();
    assert_eq!(server.publish_with(&key).await, "200");
    assert_eq!(server.publish_with(&key).await, "429 too_many_requests");
    // A reload that changes no rate keeps the counts.
    server.apply(&format!("{settings}public = \"a\"\n"), "public");
    assert_eq!(server.publish_with(&key).await, "429 too_many_requests");
    let stream = site.subscribe_as("ada", "topic=rooms/1").await;
    let other_issuer = format!("{SETTINGS}{ONE_KEY}").replace("issuer.example", "other.example");
    fs::write(site.folder.file("downlink.toml"), other_issuer).expect("a file");
    server.reload();
    let rooms = Request::get("/events?topic=rooms/1");
    assert_eq!(site.outcome_as("ada", rooms).await, "401 issuer");
    assert_eq!(server.publish_with(&key).await, "200", "there is no limit any more");
    drop(stream);
}

#[tokio::test]
async fn the_level_of_the_log_changes_without_a_restart() {
    let server = Reloadable::start(Folder::new(), &format!("{ONE_KEY}log = \"info\"\n"));
    assert_eq!(server.publish_with(&server.site.keys.publish_key()).await, "200");
    server.write(&format!("{ONE_KEY}log = \"info,access=debug\"\n"));
    let log = server.reload();
    assert!(log.ends_with("applied new values of log"), "{log}");
    assert!(!log.contains("access: request"), "{log}");
    assert_eq!(server.publish_with(&server.site.keys.publish_key()).await, "200");
    server.log_until(|line| line.contains("access: request") && line.contains("status=200"));
}

/// Kubernetes changes the files of a secret in a running container, and sends no signal.
#[tokio::test]
async fn changed_files_are_read_without_a_signal() {
    let server = Reloadable::start(Folder::new(), ONE_KEY);
    server.write(&format!("{ONE_KEY}public = \"news\"\n"));
    let log = server.log_until(|line| line.contains("applied new values of"));
    assert!(log.contains("the settings or the keys have changed"), "{log}");
    assert!(log.ends_with("applied new values of public"), "{log}");
    let public = Request::get("/events?topic=news").ask(server.site.public()).await;
    assert_eq!(public.outcome(), "200");
    let old = server.site.keys.publish_key();
    fs::remove_file(server.site.folder.file("publish-key-file.key")).expect("the file exists");
    let new = key(&server.site.folder, "publish-key-file.key");
    server.log_until(|line| line.contains("read the key files again"));
    assert_eq!(server.publish_with(&new).await, "200");
    assert_eq!(server.publish_with(&old).await, "401 key_unknown");
    // The settings name a file that is made later.
    server.write(TWO_KEYS);
    server.log_until(|line| line.contains("nothing has changed"));
    let late = key(&server.site.folder, "other.key");
    server.log_until(|line| line.contains("applied new values of"));
    assert_eq!(server.publish_with(&late).await, "200");
}

/// A reload that keeps the URL of a key set keeps the fetched keys, so no token is refused until
/// the next fetch.
#[tokio::test]
async fn a_key_set_is_fetched_after_a_reload_and_outlives_the_next_reload() {
    const KEYS: &str = include_str!("../../../downlink-access/tests/fixtures/keys.json");
    let server = Reloadable::start(Folder::new(), ONE_KEY);
    let site = &server.site;
    let file = site.folder.file("keys.json");
    fs::write(&file, KEYS).expect("a file");
    let token = site.keys.token(Signer::Es384, &claims(Some("ada"), of_a_user()));
    let rooms = Request::get("/events?topic=rooms/1").bearer(&token);
    assert_eq!(rooms.ask(site.public()).await.outcome(), "401 algorithm");
    let settings = format!("{ONE_KEY}jwks-url = \"file://{file}\"\n");
    server.apply(&settings, "jwks-url");
    let mut stream = site.subscribe(rooms.clone()).await;
    fs::remove_file(file).expect("a file");
    server.apply(&format!("{settings}public = \"a\"\n"), "public");
    assert_eq!(rooms.ask(site.public()).await.outcome(), "200");
    assert_eq!(server.publish_with(&site.keys.publish_key()).await, "200");
    assert_eq!(stream.next().await.expect("the event").data, "x");
    server.apply(ONE_KEY, "public, jwks-url");
    assert_ended(stream, "key_unknown").await;
}

/// Until the new set is fetched, the server does not know whether the key of a stream is still
/// accepted.
#[tokio::test]
async fn a_new_key_set_ends_the_streams_of_keys_that_it_does_not_have() {
    const KEYS: &str = include_str!("../../../downlink-access/tests/fixtures/keys.json");
    let folder = Folder::new();
    let (first, second) = (folder.file("first.json"), folder.file("second.json"));
    fs::write(&first, KEYS).expect("a file");
    let mut keys: Value = serde_json::from_str(KEYS).expect("JSON");
    let list = keys["keys"].as_array_mut().expect("a list");
    list.retain(|key| key["crv"] != "P-384");
    assert!(!list.is_empty());
    fs::write(&second, keys.to_string()).expect("a file");
    let with = |file: &str| format!("{ONE_KEY}jwks-url = \"file://{file}\"\n");
    let server = Reloadable::start(folder, &with(&first));
    let site = &server.site;
    let token = site.keys.token(Signer::Es384, &claims(Some("ada"), of_a_user()));
    let stream = site.subscribe(Request::get("/events?topic=rooms/1").bearer(&token)).await;
    server.apply(&with(&second), "jwks-url");
    assert_ended(stream, "key_unknown").await;
}

/// A moved key must not be replaced by a new one: all streams of the old key would end.
#[tokio::test]
async fn a_reload_makes_no_key() {
    let server = Reloadable::start(Folder::new(), "");
    let file = server.site.folder.file("downlink-publish.key");
    let key = fs::read_to_string(&file).expect("the server has made its key");
    fs::remove_file(&file).expect("a file");
    let log = server.reload();
    assert!(log.contains("nothing has changed") && log.contains("is missing"), "{log}");
    assert!(fs::metadata(&file).is_err(), "the reload has made a key");
    assert_eq!(server.publish_with(key.trim_end()).await, "200");
}

#[tokio::test]
async fn open_subscriptions_count_for_a_new_limit_of_names() {
    let settings = |max| {
        format!("{ONE_KEY}public = \"rooms/*\"\nsubscribed-names-per-address-max = \"{max}\"\n")
    };
    let server = Reloadable::start(Folder::new(), &settings(20));
    let site = &server.site;
    let topics: String = (0..18).map(|number| format!("topic=rooms/{number}&")).collect();
    let request = || Request::get(format!("/events?{topics}"));
    let first = site.stream(request()).await;
    assert_eq!(request().ask(site.public()).await.outcome(), "429 too_many_requests");
    server.apply(&settings(40), "subscribed-names-per-address-max");
    let second = site.stream(request()).await;
    assert_eq!((first.status(), second.status()), (200, 200));
    assert_eq!(request().ask(site.public()).await.outcome(), "429 too_many_requests");
}

#[tokio::test]
async fn the_answers_of_the_app_stay_in_the_cache_if_its_settings_stay() {
    let app = Web::start(Reply::lasting(&json!({ "subscribe": ["rooms/*"] })));
    let ask = format!("{ONE_KEY}authorize-url = \"{}\"\n", app.url());
    let server = Reloadable::start(Folder::new(), &ask);
    let site = &server.site;
    let rooms = || Request::get("/events?topic=rooms/1");
    let mut stream = site.subscribe(rooms()).await;
    server.apply(&format!("{ask}public = \"a\"\n"), "public");
    assert_eq!(rooms().ask(site.public()).await.outcome(), "200");
    assert_eq!(app.asked().len(), 1, "the second answer came from the cache");
    server.apply(ONE_KEY, "public, authorize-url");
    assert_eq!(rooms().ask(site.public()).await.outcome(), "401 token_missing");
    // The stream is still open, because the app has allowed it until a later time.
    assert_eq!(server.publish_with(&site.keys.publish_key()).await, "200");
    assert_eq!(stream.next().await.expect("the event").data, "x");
}
