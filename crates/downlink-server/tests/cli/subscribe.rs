//! Tests of `downlink subscribe`.

use crate::{Running, Server, downlink, forwarder::Forwarder, run};
#[cfg(unix)]
use crate::{listening::Folder, production};

#[test]
fn subscribe_prints_the_data_or_json_objects() {
    let server = Server::start(&[]);
    server.publish("a", "one");
    server.publish("a/b", "two");
    let base = ["subscribe", "--url", &server.url, "--start", "earliest", "--count", "2"];
    let plain = run(downlink(&[&base[..], &["a", "a/*"]].concat()), "");
    assert_eq!((plain.code, &*plain.stdout), (Some(0), "one\ntwo\n"), "{}", plain.stderr);
    let json = run(downlink(&[&base[..], &["--json", "a", "a/*"]].concat()), "");
    let first = json.stdout.lines().next().expect("a line");
    assert!(first.starts_with(r#"{"data":"one","event":"message","id":""#), "{first}");
    // A pattern may match several topics. So the JSON of each event has the topics and the time of
    // the event.
    let topics: Vec<serde_json::Value> = json.stdout.lines().map(object).collect();
    assert_eq!(topics[0]["topics"], serde_json::json!(["a"]));
    assert_eq!(topics[1]["topics"], serde_json::json!(["a/b"]));
    let since = format!("since:{}", topics[1]["time"].as_str().expect("a time"));
    let again = ["subscribe", "--url", &server.url, "--start", &since, "--count", "1", "a/*"];
    let again = run(downlink(&again), "");
    assert_eq!(again.stdout, "two\n", "the time works as a start: {}", again.stderr);
    let none = run(downlink(&["subscribe", "--url", &server.url, "--count", "0", "a"]), "");
    assert_eq!((none.code, &*none.stdout), (Some(0), ""));
}

fn object(line: &str) -> serde_json::Value {
    serde_json::from_str(line).expect("JSON")
}

#[test]
fn the_url_may_have_a_path_and_topics() {
    let server = Server::start(&[]);
    server.publish("news", "hello");
    let url = &server.url;
    let (events, query) = (format!("{url}/events"), format!("{url}/events?topic=news"));
    let count = ["--start", "earliest", "--count", "1"];
    for arguments in [
        vec![&*query],
        vec![&*events, "news"],
        vec![&**url, "news"],
        vec!["--url", &*events, "news"],
        vec!["--url", &*query],
        // A URL in place of a topic overrides `--url`.
        vec!["--url", "http://127.0.0.1:9", &*query],
    ] {
        let read = run(downlink(&[&["subscribe"], &count[..], &arguments].concat()), "");
        assert_eq!((read.code, &*read.stdout), (Some(0), "hello\n"), "{arguments:?}");
    }
    for wrong in [vec!["ftp://h/x"], vec![&*query, &*query]] {
        let refused = run(downlink(&[&["subscribe"], &*wrong].concat()), "");
        assert_eq!(refused.code, Some(2), "{wrong:?}");
        assert!(refused.stderr.contains("address"), "{}", refused.stderr);
    }
}

/// The admin socket gives every right, so the commands need no key.
#[cfg(unix)]
#[test]
fn commands_reach_a_server_on_a_unix_socket() {
    let folder = Folder::new("url");
    let url = format!("unix:{}", folder.path("a.sock").display());
    let flags = ["--listen", "127.0.0.1:0", "--admin-listen", &url];
    let server = Running::start(production(&folder, &flags));
    while !server.stdout.next().ends_with(&url) {}
    let published = run(downlink(&["publish", "--url", &url, "-t", "a", "hello"]), "");
    assert_eq!(published.code, Some(0), "{}", published.stderr);
    let read = ["subscribe", "--start", "earliest", "--count", "1"];
    for arguments in [["--url", &*url, "a"], ["a", &*url, "b"]] {
        let read = run(downlink(&[&read[..], &arguments].concat()), "");
        assert_eq!((read.code, &*read.stdout), (Some(0), "hello\n"), "{}", read.stderr);
    }
    let nobody = run(downlink(&["publish", "--url", "unix:/nowhere/a.sock", "-t", "a", "x"]), "");
    assert_eq!(nobody.code, Some(1));
    assert!(nobody.stderr.contains("the connection failed"), "{}", nobody.stderr);
}

#[test]
fn subscribe_resumes_after_an_id_and_ends_when_the_topic_is_finished() {
    let server = Server::start(&[]);
    let first: serde_json::Value = serde_json::from_str(&server.publish("a", "one")).expect("JSON");
    server.publish("a", "two");
    let last = ["publish", "--url", &server.url, "-t", "a", "--last", "three"];
    assert_eq!(run(downlink(&last), "").code, Some(0));
    let id = first["id"].as_str().expect("an id");
    let rest = run(downlink(&["subscribe", "--url", &server.url, "--last-event-id", id, "a"]), "");
    assert_eq!((rest.code, &*rest.stdout), (Some(0), "two\nthree\n"), "{}", rest.stderr);
}

#[test]
fn gaps_are_printed() {
    let server = Server::start(&[]);
    server.publish("a", "one");
    let base = ["subscribe", "--url", &server.url, "--last-event-id", "strange", "--count", "1"];
    let plain = run(downlink(&[&base[..], &["a"]].concat()), "");
    assert_eq!(plain.stdout, "one\n");
    assert_eq!(plain.stderr, "downlink: events are missing (unknown_id)\n");
    let json = run(downlink(&[&base[..], &["--json", "a"]].concat()), "");
    let gap = json.stdout.lines().next().expect("a line");
    assert!(gap.starts_with(r#"{"after":"strange","gap":"unknown_id","oldest":""#), "{gap}");
}

#[test]
fn subscribe_reconnects_after_a_restart_and_prints_a_gap() {
    let first = Server::start(&[]);
    let forwarder = Forwarder::to(first.address());
    let arguments = [
        "subscribe",
        "--url",
        &forwarder.url,
        "--json",
        "--start",
        "earliest",
        "--count",
        "2",
        "a",
    ];
    let reader = Running::start(downlink(&arguments));
    first.publish("a", "before");
    assert!(reader.stdout.next().contains("before"));

    let second = Server::start(&[]);
    second.publish("a", "after");
    forwarder.turn_to(second.address());
    first.running.signal("TERM");
    assert_eq!(first.running.ended().code, Some(0));
    let gap = reader.stdout.next();
    assert!(gap.contains(r#""gap":"new_epoch""#), "{gap}");
    assert!(reader.stdout.next().contains("after"));
    assert_eq!(reader.ended().code, Some(0));
}

/// The second server has the same store as the first, so it has the same ids.
#[cfg(unix)]
#[test]
fn subscribe_goes_on_at_another_server_and_prints_each_event_once() {
    let folder = Folder::new("failover");
    let store = folder.path("store.db").display().to_string();
    let first = Server::start(&["--store", &store]);
    // Until the second server runs, its address belongs to a server that refuses subscriptions.
    let busy = Server::start(&["--subscribers-max", "1"]);
    busy.publish("x", "the only subscriber reads");
    let subscribe = ["subscribe", "--url", &busy.url, "--start", "earliest", "x"];
    let only_subscriber = Running::start(downlink(&subscribe));
    only_subscriber.stdout.next();
    let forwarder = Forwarder::to(busy.address());
    let both = ["--url", &first.url, "--url", &forwarder.url];
    let limits = ["--start", "earliest", "--count", "3", "a"];
    let reader = Running::start(downlink(&[&["subscribe"], &both[..], &limits[..]].concat()));
    first.publish("a", "one");
    first.publish("a", "two");
    assert_eq!(reader.stdout.next(), "one");
    assert_eq!(reader.stdout.next(), "two");

    first.running.signal("KILL");
    let error = reader.stderr.next();
    let (from, to) = (&first.url, &forwarder.url);
    assert!(error.starts_with(&format!("downlink: {from}: the connection broke")), "{error}");
    assert!(error.ends_with(&format!("; connecting to {to} in 0.0 s")), "{error}");
    let refused = reader.stderr.next();
    assert!(refused.contains("503"), "{refused}");

    drop(first);
    let second = Server::start(&["--store", &store]);
    second.publish("a", "three");
    forwarder.turn_to(second.address());
    assert_eq!(reader.stdout.next(), "three");
    assert_eq!(reader.ended().code, Some(0));
}

#[test]
fn a_list_of_addresses_that_cannot_be_used_is_refused() {
    let several = |addresses: &[&str]| run(downlink(&[&["subscribe"], addresses].concat()), "");
    for (addresses, advice) in [
        (&["--url", "http://h", "--url", "http://h/events"][..], "1 and 2 are equal: remove one"),
        (&["http://h", "http://h:80"], "1 and 2 are equal: remove one"),
        (&["http://h", "http://h:99999"], "address 2 cannot be used"),
        (&["--url", "http://h", "--url", "unix:/a.sock"], "give it alone, or give only URLs"),
        (&["--url", "http://h", "--url", "nonsense"], "not a server address"),
    ] {
        let refused = several(addresses);
        assert_eq!((refused.code, &*refused.stdout), (Some(2), ""), "{addresses:?}");
        assert!(refused.stderr.contains(advice), "{addresses:?}: {}", refused.stderr);
    }
    let urls: Vec<String> = (0..17).map(|number| format!("http://h/{number}")).collect();
    let refused = several(&urls.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(refused.stderr.contains("the maximum is 16"), "{}", refused.stderr);
}

#[test]
fn subscribe_ends_with_an_error_if_a_retry_cannot_help() {
    let server = Server::start(&[]);
    let refused = run(downlink(&["subscribe", "--url", &server.url, "a//b"]), "");
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("status 400"), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("\"a//b\" is neither a topic nor a pattern"),
        "{}",
        refused.stderr
    );
    for url in ["nonsense", "http://127.0.0.1:99999"] {
        for command in
            [&["subscribe", "--url", url, "a"][..], &["publish", "--url", url, "-ta", "x"]]
        {
            let nonsense = run(downlink(command), "");
            assert_eq!((nonsense.code, &*nonsense.stdout), (Some(2), ""), "{command:?}");
            assert!(nonsense.stderr.contains("not a server address"), "{}", nonsense.stderr);
        }
    }
}
