//! Tests of the information that the server gives about itself: its topics, clients, health and
//! metrics, and the page in a browser.

use serde_json::{Value, json};

use crate::Server;

#[tokio::test]
async fn a_topic_shows_its_events_subscribers_and_cursor() {
    let server = Server::start().await;
    let empty = server.get("/topics?topic=a").await.json();
    let cursor = empty["cursor"].as_str().expect("an id").to_owned();
    assert!(cursor.ends_with("-0"), "{cursor}");
    let expected = json!({
        "topic": "a", "subscribers": 0, "events": 0, "bytes": 0, "published": 0, "oldest": null,
        "cursor": cursor, "finished": false,
    });
    assert_eq!(empty, expected);

    // The cursor is the id after which the next event of the topic comes. A subscription that
    // starts after the cursor of the empty topic gets both later events.
    let first = server.publish_id("topic=a", "1").await;
    let second = server.publish_id("topic=a", "2").await;
    let mut stream = server.stream(&format!("topic=a&open=0&start=after:{cursor}"), "").await;
    assert_eq!([stream.data().await, stream.data().await], ["1", "2"]);
    let topic = server.get("/topics?topic=a").await.json();
    assert!(topic["bytes"].as_u64().expect("a number") > 0);
    assert_eq!((&topic["oldest"], &topic["cursor"]), (&json!(first), &json!(second)));
    assert_eq!((&topic["events"], &topic["subscribers"]), (&json!(2), &json!(1)));
    assert_eq!(topic["published"], 2);
}

#[tokio::test]
async fn the_count_of_published_events_includes_evicted_events() {
    let server = Server::with(&["--retain-events", "1"]).await;
    for data in ["1", "2", "3"] {
        server.publish("topic=a&topic=b", data).await;
    }
    server.post("/finish?topic=b", "").await.json();
    for topic in ["a", "b"] {
        let topic = server.get(&format!("/topics?topic={topic}")).await.json();
        assert_eq!((&topic["events"], &topic["published"]), (&json!(1), &json!(3)));
    }
}

fn names(list: &Value) -> Vec<&str> {
    list["topics"]
        .as_array()
        .expect("a list")
        .iter()
        .flat_map(|row| row["topic"].as_str())
        .collect()
}

#[tokio::test]
async fn lists_of_topics_have_pages() {
    let server = Server::start().await;
    for topic in ["b/1", "a", "b/2", "c", "b/3"] {
        server.publish(&format!("topic={topic}"), "x").await;
    }
    server.publish("client=alice", "x").await;
    server.publish("everyone", "x").await;
    let all = server.get("/topics").await.json();
    assert_eq!(names(&all), ["a", "b/1", "b/2", "b/3", "c"]);
    assert_eq!(all["next"], Value::Null);
    let row = server.get("/topics?topic=c").await.json();
    assert_eq!(all["topics"][4], row);
    let page = server.get("/topics?prefix=b/&limit=2").await.json();
    assert_eq!((names(&page), &page["next"]), (vec!["b/1", "b/2"], &json!("b/2")));
    let page = server.get("/topics?prefix=b/&limit=2&after=b/2").await.json();
    assert_eq!((names(&page), &page["next"]), (vec!["b/3"], &Value::Null));
    assert_eq!(names(&server.get("/topics?prefix=none").await.json()), [""; 0]);
}

#[tokio::test]
async fn the_parameter_limit_is_from_1_to_10000() {
    let server = Server::start().await;
    for path in ["/topics", "/clients"] {
        for limit in ["1", "9999", "10000"] {
            server.get(&format!("{path}?limit={limit}")).await.json();
        }
        for limit in ["0", "10001"] {
            let path = format!("{path}?limit={limit}");
            server.refuses(("GET", &path, ""), "", (400, "between 1 and 10000")).await;
        }
    }
    let both = "/topics?topic=a&limit=1";
    server.refuses(("GET", both, ""), "", (400, "without prefix, limit and after")).await;
    server.refuses(("GET", "/topics?topic=*", ""), "", (400, "reserved character")).await;
    server
        .refuses(
            ("GET", "/topics?after=", ""),
            "",
            (400, "The parameter after is \"\", not a topic"),
        )
        .await;
}

#[tokio::test]
async fn clients_are_listed_and_disconnected() {
    let server = Server::start().await;
    let alice =
        [server.subscribe("client=alice&topic=a").await, server.subscribe("client=alice").await];
    let mut other = server.subscribe("topic=a").await;
    let list = server.get("/clients").await.json();
    assert_eq!(list["connections"], 3);
    let rows = list["clients"].as_array().expect("a list");
    assert_eq!(rows.iter().filter(|row| row["client"] == "alice").count(), 2);
    assert_eq!(rows.iter().filter(|row| row["client"] == Value::Null).count(), 1);
    for row in rows {
        assert!(row["connection"].is_string() && row["topics"].is_u64(), "{row}");
        assert!(row["age"].is_u64() && row["address"] == "127.0.0.1", "{row}");
        assert_eq!(row["bytes"], 0);
        assert_eq!(row["lag"], 0);
    }
    let one = server.get("/clients?limit=1").await.json();
    assert_eq!(
        (one["clients"].as_array().map(Vec::len), &one["connections"]),
        (Some(1), &json!(3))
    );

    let answer = server.ask("DELETE", "/clients?client=alice", "", "").await.json();
    assert_eq!(answer, json!({ "disconnected": 2 }));
    for stream in alice {
        assert_eq!(stream.rest().await, [""; 0]);
    }
    let again = server.ask("DELETE", "/clients?client=alice", "", "").await.json();
    assert_eq!(again, json!({ "disconnected": 0 }));
    server.publish("topic=a", "still here").await;
    assert_eq!(other.data().await, "still here");
    server.refuses(("DELETE", "/clients", ""), "", (400, "add ?client=ID")).await;
    server.refuses(("DELETE", "/clients?client=", ""), "", (400, "is not a client id")).await;
}

#[tokio::test]
async fn clients_are_sorted_by_bytes_or_by_age() {
    let server = Server::start().await;
    let _first = server.subscribe("client=first&topic=a").await;
    let mut second = server.subscribe("client=second&topic=b").await;
    server.publish("topic=b", "hello").await;
    assert_eq!(second.data().await, "hello");
    for (sort, first) in [("bytes", "second"), ("age", "first"), ("lag", "first")] {
        let list = server.get(&format!("/clients?sort={sort}&limit=1")).await.json();
        assert_eq!(list["clients"][0]["client"], first, "{sort}: {list}");
    }
    let list = server.get("/clients?sort=bytes").await.json();
    let bytes = |index: usize| list["clients"][index]["bytes"].as_u64().expect("a number");
    assert!(bytes(0) >= "data:hello\n\n".len() as u64 && bytes(1) == 0, "{list}");
    for query in ["sort=", "sort=client", "sort=lag&sort=age"] {
        server.get(&format!("/clients?{query}")).await.problem(400);
    }
}

#[tokio::test]
async fn a_draining_server_is_healthy_but_not_ready() {
    let server = Server::start().await;
    assert_eq!(server.get("/healthz").await.body, "ok\n");
    assert_eq!(server.get("/readyz").await.body, "ready\n");
    assert!(server.get("/metrics").await.body.contains("\ndownlink_draining 0\n"));
    server.hub.drain();
    assert!(server.get("/metrics").await.body.contains("\ndownlink_draining 1\n"));
    assert_eq!(server.get("/healthz").await.status, 200);
    let answer = server.get("/readyz").await;
    assert!(answer.header("retry-after").is_some());
    assert!(answer.problem(503).contains("shutting down"));
}

/// Older programs, such as `promtool check metrics`, read only Prometheus's older text format and
/// not OpenMetrics.
#[tokio::test]
async fn metrics_are_classic_text_on_request() {
    let server = Server::start().await;
    server.publish("topic=a", "x").await;
    let answer = server.ask("GET", "/metrics", "Accept: text/plain\r\n", "").await;
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let mut described = std::collections::BTreeSet::new();
    for line in answer.body.lines() {
        match line.strip_prefix("# ") {
            Some(comment) => {
                let mut words = comment.split(' ');
                let kind = words.next().expect("a word");
                assert!(["HELP", "TYPE"].contains(&kind), "{line}");
                described.insert(words.next().expect("a name").to_owned());
            }
            None => {
                let name = line.split(['{', ' ']).next().expect("a name");
                // The samples of a histogram have these suffixes.
                let suffixes = ["_bucket", "_sum", "_count"];
                let name = suffixes.iter().find_map(|it| name.strip_suffix(it)).unwrap_or(name);
                assert!(described.contains(name), "{line} is not described");
            }
        }
    }
    assert!(answer.body.contains("\ndownlink_events_published_total 1\n"), "{}", answer.body);
}

#[tokio::test]
async fn metrics_are_openmetrics_by_default() {
    let server = Server::start().await;
    let _stream = server.subscribe("topic=a").await;
    server.publish("topic=a", "x").await;
    let answer = server.get("/metrics").await;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(answer.header("content-type"), Some(content_type));
    let version = downlink_server::VERSION;
    for line in [
        "downlink_subscribers 1",
        "downlink_events_published_total 1",
        &format!("downlink_build_info{{version=\"{version}\"}} 1"),
    ] {
        assert!(answer.body.lines().any(|found| found == line), "{line}: {}", answer.body);
    }
    assert!(answer.body.contains("\ndownlink_start_time_seconds "));
    let (samples, end) = answer.body.split_at(answer.body.len() - "# EOF\n".len());
    assert_eq!(end, "# EOF\n");
    let mut described = Vec::new();
    for line in samples.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            described.push(kind.split(' ').next().expect("a name").to_owned());
        } else if !line.starts_with("# ") {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(
                name.starts_with(described.last().expect("a TYPE line comes before the sample")),
                "{line}"
            );
        }
    }
    let mut unique = described.clone();
    unique.dedup();
    assert_eq!(unique, described);
}

#[tokio::test]
async fn the_page_runs_only_its_own_files() {
    let server = Server::start().await;
    let page = server.get("/").await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    for script in page.body.split("<script").skip(1) {
        assert!(
            script.starts_with(" src=\"page.js\"") && script.contains("></script>"),
            "{script}"
        );
    }
    assert!(!page.body.contains(" style=") && !page.body.contains(" on"), "inline code");
    for name in
        ["page", "page-feed", "page-rows", "page-json", "page-strip", "page-overview", "page-text"]
    {
        let script = server.get(&format!("/{name}.js")).await;
        assert_eq!(script.header("content-type"), Some("text/javascript; charset=utf-8"));
        for taken_for_code in ["innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "Function("]
        {
            assert!(!script.body.contains(taken_for_code), "{name}: {taken_for_code}");
        }
        for line in script.body.lines().filter(|line| line.starts_with("import ")) {
            let from =
                line.split("from \"./").nth(1).expect("an import of a file in the same folder");
            let answer = server.get(&format!("/{}", from.trim_end_matches("\";"))).await;
            assert_eq!(answer.status, 200, "{line}");
        }
    }
    let style = server.get("/page.css").await;
    assert_eq!(style.header("content-type"), Some("text/css; charset=utf-8"));
}
