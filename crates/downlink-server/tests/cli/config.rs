//! Tests of `downlink config show` and `downlink config check`.

use std::{fs, process::Command};

use serde_json::{Value, json};

use crate::{Ended, downlink, listening::Folder, run};

/// A command in this folder, without a setting in the environment.
fn command(folder: &Folder, words: &[&str]) -> Command {
    let mut command = downlink(words);
    command.env_remove("DOWNLINK_STORE").current_dir(folder.path(""));
    command
}

fn ran(folder: &Folder, words: &[&str]) -> Ended {
    run(command(folder, words), "")
}

fn as_json(command: Command) -> Value {
    let shown = run(command, "");
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    serde_json::from_str(&shown.stdout).expect("JSON")
}

#[test]
fn show_names_the_source_of_each_value() {
    let folder = Folder::new("show");
    let file = "keep-alive = \"2s\"\nretain-events = 5\npublic = [\"a\", \"b/*\"]\n";
    fs::write(folder.path("d.toml"), file).expect("a file");
    let words = ["config", "show", "--config", "d.toml", "--retain-events", "7"];
    let mut shown = command(&folder, &words);
    shown.env("DOWNLINK_HOST", "a.example,b.example").env("DOWNLINK_KEEP_ALIVE", "3s");
    let shown = run(shown, "").stdout;
    for line in [
        "listen = \"127.0.0.1:8080\" # default",
        "keep-alive = \"3s\" # environment",
        "retain-events = 7 # flag",
        "public = [\"a\", \"b/*\"] # file",
        "host = [\"a.example\", \"b.example\"] # environment",
        "proxy-protocol = false # default",
        "# connections-max is not set",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
    }
    let json = as_json(command(&folder, &[&words[..], &["--json"]].concat()));
    assert_eq!(json["retain-events"], json!({ "value": 7, "source": "flag" }));
    assert_eq!(json["public"], json!({ "value": ["a", "b/*"], "source": "file" }));
    assert_eq!(json["connections-max"], json!({ "value": null, "source": "default" }));
}

/// Values in every form that a setting can have: quotes, units, lists with the separators of other
/// lists, and a flag without a value.
#[test]
fn a_server_reads_the_same_settings_from_the_output_of_show() {
    let folder = Folder::new("again");
    let flags = [
        "--listen",
        "unix:a \"b\".sock",
        "--socket-mode",
        "0660",
        "--store",
        "none",
        "--retain",
        "a/*=events:1,age:1h;b=bytes:1KiB",
        "--retain",
        "c=events:2",
        "--public",
        "a;b,c",
        "--host",
        "a.example,[::1]:80",
        "--jwt-issuer",
        "5",
        "--trusted-proxy",
        "10.0.0.0/8,unix",
        "--proxy-protocol",
        "--tickets-per-key",
        "off",
        "--jwt-key-file",
        "a b.key,c.key",
        "--token-grant",
        "users/$client/*",
        "--log",
        "info,a=debug",
        "--authorize-url",
        "https://app.example/a?b=1#c",
        "--authorize-cookie",
        "a,b",
    ];
    let first = ran(&folder, &[&["config", "show"][..], &flags].concat());
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    fs::write(folder.path("again.toml"), &first.stdout).expect("a file");
    let values = |words: &[&str]| -> Vec<(String, Value)> {
        let json = as_json(command(&folder, words));
        let all = json.as_object().expect("an object").clone().into_iter();
        all.map(|(name, entry)| (name, entry["value"].clone())).collect()
    };
    let given = values(&[&["config", "show", "--json"][..], &flags].concat());
    let again = values(&["config", "show", "--json", "--config", "again.toml"]);
    assert!(given.len() > 50, "{given:?}");
    assert_eq!(again, given);
}

#[test]
fn show_hides_the_password_of_a_url() {
    let folder = Folder::new("masked");
    let url = "https://me:secret@issuer.example/keys";
    for words in [&["config", "show"][..], &["config", "show", "--json"]] {
        let shown = ran(&folder, &[words, &["--jwks-url", url]].concat()).stdout;
        assert!(shown.contains("https://***@issuer.example/keys"), "{shown}");
        assert!(!shown.contains("secret"), "{shown}");
    }
}

#[test]
fn check_accepts_good_settings_and_makes_no_file() {
    let folder = Folder::new("good");
    fs::write(folder.path("d.toml"), "public = \"news\"\nstore = \"d.db\"\n").expect("a file");
    let checked = ran(&folder, &["config", "check", "--config", "d.toml"]);
    assert_eq!((checked.code, &*checked.stderr), (Some(0), ""), "{}", checked.stdout);
    assert_eq!(checked.stdout, "the settings can be used\n");
    assert_eq!(fs::read_dir(folder.path("")).expect("the folder").count(), 1);
}

fn assert_refused(folder: &Folder, words: &[&str], says: &[&str]) {
    let refused = ran(folder, &[&["config", "check"][..], words].concat());
    assert_eq!((refused.code, &*refused.stdout), (Some(78), ""), "{}", refused.stderr);
    for text in says {
        assert!(refused.stderr.contains(text), "{text}: {}", refused.stderr);
    }
}

#[test]
fn check_reports_all_problems_of_a_run() {
    let folder = Folder::new("bad");
    fs::write(folder.path("short.key"), "x").expect("a file");
    fs::write(folder.path("bad.pem"), "no PEM").expect("a file");
    let many = "keep-alive = \"soon\"\nlissten = 1\nretain-events = \"many\"\n";
    fs::write(folder.path("many.toml"), many).expect("a file");
    let says = ["keep-alive cannot be used", "\"lissten\"", "retain-events cannot be used"];
    assert_refused(&folder, &["--config", "many.toml"], &says);
    let flags = ["--publish-key-file", "short.key,none.key", "--jwt-public-key", "bad.pem"];
    let more = ["--socket-mode", "660", "--proxy-protocol", "--retain-events", "0"];
    assert_refused(
        &folder,
        &[&flags[..], &more].concat(),
        &["short.key", "none.key", "bad.pem", "--socket-mode", "--proxy-protocol", "events_max"],
    );
    let token_keys = ["--jwks-url", "http://issuer.example/keys"];
    assert_refused(&folder, &token_keys, &["cannot use --jwks-url"]);
    assert_refused(&folder, &["--store", "nowhere/d.db"], &["cannot use the folder"]);
    assert_refused(&folder, &["--listen", "unix:nowhere/a.sock"], &["nowhere/a.sock"]);
    assert_refused(&folder, &["--config", "none.toml"], &["cannot read none.toml"]);
    let wrong = ran(&folder, &["config", "check", "--keep-alive", "soon"]);
    assert_eq!(wrong.code, Some(2), "a flag is a part of the command line");
    let mut variable = command(&folder, &["config", "check"]);
    variable.env("DOWNLINK_KEEP_ALIVE", "soon");
    assert_eq!(run(variable, "").code, Some(78));
}
