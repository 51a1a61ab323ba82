//! Tests of `downlink key` and `downlink token`.

use std::{fs, os::unix::fs::MetadataExt as _};

use crate::{Ended, downlink, listening::Folder, run};

fn in_folder(folder: &Folder, arguments: &[&str]) -> Ended {
    let mut command = downlink(arguments);
    command.current_dir(folder.path(""));
    run(command, "")
}

/// Runs a command that must succeed, and returns its only line.
#[track_caller]
fn line(folder: &Folder, arguments: &[&str]) -> String {
    let ended = in_folder(folder, arguments);
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{arguments:?}");
    ended.stdout.strip_suffix('\n').expect("a line").to_owned()
}

#[test]
fn a_new_key_is_printed_or_written_to_a_new_file() {
    let folder = Folder::new("key-new");
    let printed = line(&folder, &["key", "new"]);
    assert!(printed.len() >= 43 && !printed.contains(char::is_whitespace), "{printed}");
    assert_ne!(printed, line(&folder, &["key", "new"]));
    let made = in_folder(&folder, &["key", "new", "app.key"]);
    assert_eq!((made.code, &*made.stdout), (Some(0), ""), "{}", made.stderr);
    let path = folder.path("app.key");
    assert_eq!(fs::metadata(&path).expect("a file").mode() & 0o777, 0o600);
    let key = fs::read(&path).expect("a key");
    for (file, says) in [("app.key", "File exists"), ("missing/app.key", "No such file")] {
        let refused = in_folder(&folder, &["key", "new", file]);
        assert_eq!((refused.code, &*refused.stdout), (Some(1), ""));
        let names = format!("cannot make the key file {file}: {says}");
        assert!(refused.stderr.contains(&names), "{}", refused.stderr);
    }
    assert_eq!(fs::read(&path).expect("a key"), key, "an existing key is never replaced");
}

#[test]
fn the_id_of_a_key_has_16_digits_and_depends_on_the_key_and_its_role() {
    let folder = Folder::new("key-id");
    for (name, text) in [("a.key", "k".repeat(40)), ("b.key", format!("{}\n", "k".repeat(40)))] {
        fs::write(folder.path(name), text).expect("a file");
    }
    let id = line(&folder, &["key", "id", "a.key"]);
    assert!(id.len() == 16 && id.bytes().all(|digit| digit.is_ascii_hexdigit()), "{id}");
    assert_eq!(line(&folder, &["key", "id", "b.key"]), id);
    assert_ne!(line(&folder, &["key", "id", "a.key", "--admin"]), id, "the id depends on the role");
    fs::write(folder.path("short.key"), "short").expect("a file");
    for file in ["short.key", "missing.key"] {
        let refused = in_folder(&folder, &["key", "id", file]);
        assert_eq!((refused.code, &*refused.stdout), (Some(78), ""), "{file}");
        let names = format!("cannot use the key file {file}: ");
        assert!(refused.stderr.contains(&names), "{}", refused.stderr);
    }
}

const MINT: [&str; 4] = ["token", "mint", "--jwt-key-file", "jwt.key"];

#[test]
fn a_minted_token_contains_its_grant() {
    let folder = Folder::new("token");
    fs::write(folder.path("jwt.key"), "s".repeat(40)).expect("a file");
    let flags = ["--subscribe", "rooms/*", "--publish", "rooms/{room}/lines", "--client", "ada"];
    let more = ["--issuer", "me", "--audience", "push", "--lifetime", "90s"];
    let token = line(&folder, &[&MINT[..], &flags, &more].concat());
    assert_eq!(token.split('.').count(), 3, "{token}");
    let shown = in_folder(&folder, &["token", "inspect", &token]).stdout;
    let piped = run(downlink(&["token", "inspect"]), format!("{token}\n"));
    assert_eq!(piped.stdout, shown, "{}", piped.stderr);
    let (header, claims) = shown.trim_end().split_once('\n').expect("two lines");
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    let (header, claims) = (json(header), json(claims));
    assert_eq!(header["alg"], "HS256");
    assert_eq!((&claims["iss"], &claims["sub"]), (&"me".into(), &"ada".into()));
    assert!(claims["aud"] == "push" || claims["aud"][0] == "push", "{claims}");
    let grant = &claims["downlink"];
    assert_eq!(grant["subscribe"], serde_json::json!(["rooms/*"]));
    assert_eq!(grant["publish"], serde_json::json!(["rooms/{room}/lines"]));
    let life = claims["exp"].as_u64().expect("an end") - claims["iat"].as_u64().expect("a start");
    assert_eq!(life, 90);
}

#[test]
fn wrong_tokens_and_grants_are_errors() {
    let folder = Folder::new("token-wrong");
    fs::write(folder.path("jwt.key"), "s".repeat(40)).expect("a file");
    for (arguments, code, says) in [
        (&["token", "inspect", "no.token"][..], 2, "this is not a JSON Web Token"),
        (&[&MINT[..], &["--subscribe", "a//b"]].concat(), 2, "\"a//b\" is no topic or pattern"),
        (&[&MINT[..], &["--client", ""]].concat(), 2, "\"\" is no client id"),
        (&["token", "mint", "--jwt-key-file", "missing.key"], 78, "key file missing.key: "),
    ] {
        let refused = in_folder(&folder, arguments);
        assert_eq!((refused.code, &*refused.stdout), (Some(code), ""), "{arguments:?}");
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
    }
}

/// The token works as a credential of the commands, and only for its topics.
#[test]
fn a_server_accepts_a_minted_token() {
    let folder = Folder::new("token-used");
    fs::write(folder.path("jwt.key"), "s".repeat(40)).expect("a file");
    let server = crate::Running::start(crate::production(
        &folder,
        &["--listen", "127.0.0.1:0", "--jwt-key-file", "jwt.key"],
    ));
    let line_of_server = server.stdout.next();
    let url = line_of_server.rsplit(' ').next().expect("an address");
    let token = line(&folder, &[&MINT[..], &["--publish", "a", "--subscribe", "a"]].concat());
    fs::write(folder.path("token"), format!("{token}\n")).expect("a file");
    let publish = |topic| {
        let to = ["publish", "--url", url, "--key-file", "token", "-t", topic, "x"];
        in_folder(&folder, &to)
    };
    assert_eq!(publish("a").code, Some(0));
    let denied = publish("b");
    assert_eq!(denied.code, Some(1));
    assert!(denied.stderr.contains("403"), "{}", denied.stderr);
    let read = ["subscribe", "--url", url, "--key-file", "token", "--start", "earliest"];
    let read = in_folder(&folder, &[&read[..], &["--count", "1", "a"]].concat());
    assert_eq!((read.code, &*read.stdout), (Some(0), "x\n"), "{}", read.stderr);
}
