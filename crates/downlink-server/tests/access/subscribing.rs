//! A subscription gets the events that its grant covers, live and from the history. A grant is a
//! list of rights.

use serde_json::{Value, json};

use crate::{
    credentials::{Signer, claims},
    request::Request,
    site::Site,
    stream::Stream,
};

/// Reads up to the event with this data, and returns the data of the events before it.
async fn up_to(stream: &mut Stream, last: &str) -> Vec<String> {
    let mut before = Vec::new();
    loop {
        let data = stream.data().await;
        if data == last {
            return before;
        }
        before.push(data);
    }
}

/// Publishes one event to each kind of address. Returns the id of the first event.
async fn publish_everywhere(site: &Site) -> String {
    let first = site.publish("topic=other/1", "other topic").await;
    site.publish("client=bob", "inbox of bob").await;
    site.publish("client=ada", "inbox of ada").await;
    site.publish("topic=rooms/1", "room").await;
    site.publish("topic=other/1&client=bob&topic=rooms/1", "several addresses").await;
    site.publish("everyone", "everyone").await;
    first
}

#[tokio::test]
async fn replay_and_live_events_are_those_that_the_grant_covers() {
    let site = Site::start(&[]);
    let mut live = site.subscribe_as("ada", "topic=rooms/*").await;
    let first = publish_everywhere(&site).await;
    site.publish("topic=rooms/1", "end").await;
    let covered = ["inbox of ada", "room", "several addresses", "everyone"];
    assert_eq!(up_to(&mut live, "end").await, covered);
    for start in [
        "start=earliest".to_owned(),
        "last_event_id=earliest".to_owned(),
        format!("last_event_id={first}"),
        format!("start=after:{first}"),
        "start=last:100".to_owned(),
        "start=since:2020-01-01T00:00:00Z".to_owned(),
    ] {
        let mut replay = site.subscribe_as("ada", &format!("topic=rooms/*&{start}")).await;
        assert_eq!(up_to(&mut replay, "end").await, covered, "{start}");
    }
}

#[tokio::test]
async fn a_ticket_replays_only_its_own_topics() {
    let site = Site::start(&[]);
    publish_everywhere(&site).await;
    site.publish("topic=rooms/2", "another room").await;
    site.publish("topic=rooms/1", "end").await;
    let issue = Request::post("/tickets?topic=rooms/1", "").bearer(&site.keys.user("ada"));
    let url = issue.ask(site.public()).await.json()["url"].as_str().expect("a URL").to_owned();
    let mut replay = site.subscribe(Request::get(format!("{url}&start=earliest"))).await;
    let covered = ["inbox of ada", "room", "several addresses", "everyone"];
    assert_eq!(up_to(&mut replay, "end").await, covered);
    let wider = Request::get(format!("{url}&topic=rooms/2"));
    assert_eq!(wider.ask(site.public()).await.outcome(), "403 topic_denied");
}

#[tokio::test]
async fn with_meta_1_events_name_only_topics_and_clients_that_the_grant_covers() {
    let site = Site::start(&["--public", "public/*"]);
    let mut ada = site.subscribe_as("ada", "topic=rooms/*&meta=1").await;
    let mut stranger = site.subscribe(Request::get("/events?topic=public/news&meta=1")).await;
    let to = "topic=rooms/1&topic=other/1&topic=public/news&client=ada&client=bob";
    site.publish(to, "hello").await;
    let addresses = async |stream: &mut Stream| {
        let mut described: Value = serde_json::from_str(&stream.data().await).expect("JSON");
        (described["topics"].take(), described["clients"].take(), described["data"].take())
    };
    let hello = json!("hello");
    let (topics, clients, data) = addresses(&mut ada).await;
    assert_eq!(
        (topics, clients, &data),
        (json!(["public/news", "rooms/1"]), json!(["ada"]), &hello)
    );
    let (topics, clients, data) = addresses(&mut stranger).await;
    assert_eq!((topics, clients, &data), (json!(["public/news"]), json!([]), &hello));
}

#[tokio::test]
async fn with_hear_everyone_false_an_event_only_for_everyone_does_not_arrive() {
    let site = Site::start(&[]);
    let grant = json!({ "subscribe": ["rooms/*"], "hear_everyone": false, "issue": true });
    let token = site.keys.token(Signer::Es256, &claims(Some("ada"), grant));
    let issue = Request::post("/tickets?topic=rooms/*", "").bearer(&token);
    let url = issue.ask(site.public()).await.json()["url"].as_str().expect("a URL").to_owned();
    let live = Request::get("/events?topic=rooms/*").bearer(&token);
    let replay = Request::get("/events?topic=rooms/*&start=earliest").bearer(&token);
    let mut live = site.subscribe(live).await;
    site.publish("everyone", "everyone").await;
    site.publish("everyone&topic=rooms/1", "everyone and a room").await;
    site.publish("everyone", "everyone again").await;
    site.publish("client=ada", "inbox").await;
    site.publish("topic=rooms/1", "end").await;
    let covered = ["everyone and a room", "inbox"];
    assert_eq!(up_to(&mut live, "end").await, covered);
    let mut replay = site.subscribe(replay).await;
    assert_eq!(up_to(&mut replay, "end").await, covered);
    let mut ticket = site.subscribe(Request::get(format!("{url}&start=earliest"))).await;
    assert_eq!(up_to(&mut ticket, "end").await, covered);
}

#[tokio::test]
async fn a_list_of_topics_has_only_topics_that_the_grant_covers() {
    let site = Site::start(&["--public", "public/*"]);
    for topic in ["a", "other/1", "other/2", "public/1", "rooms/1", "rooms/2", "zzz"] {
        site.publish(&format!("topic={topic}"), "x").await;
    }
    let ada = site.keys.user("ada");
    let list = async |query: &str| {
        let answer = Request::get(format!("/topics?{query}")).bearer(&ada).ask(site.admin()).await;
        let answer = answer.json();
        let topics = answer["topics"].as_array().expect("a list").iter();
        let topics: Vec<String> =
            topics.map(|row| row["topic"].as_str().expect("a name").to_owned()).collect();
        (topics, answer["next"].as_str().map(str::to_owned))
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(list("").await, (names(&["public/1", "rooms/1", "rooms/2"]), None));
    // A page ends after a topic that the caller may read, so `next` reveals no other name.
    assert_eq!(list("limit=1").await, (names(&["public/1"]), Some("public/1".to_owned())));
    assert_eq!(list("limit=1&after=public/1").await.0, names(&["rooms/1"]));
    assert_eq!(list("limit=2&after=rooms/1").await, (names(&["rooms/2"]), None));
    assert_eq!(list("prefix=other").await, (names(&[]), None));
    site.revoke("client=ada&topic=rooms/1").await;
    assert_eq!(list("").await, (names(&["public/1", "rooms/2"]), None));
}

#[tokio::test]
async fn no_spelling_of_a_query_reaches_a_topic_that_the_grant_does_not_cover() {
    let site = Site::start(&["--public", "public/*"]);
    for (query, expected) in [
        ("topic=rooms/1&topic=other/1", "403 topic_denied"),
        ("topic=other/1&topic=rooms/1", "403 topic_denied"),
        ("topic=rooms%2F1", "200"),
        ("%74opic=other/1", "403 topic_denied"),
        ("topic=rooms%252F1", "403 topic_denied"),
        ("topic=*", "403 topic_denied"),
        ("topic={a}/{b}", "403 topic_denied"),
        ("topic=rooms", "403 topic_denied"),
        ("topic=rooms/{id}", "200"),
        ("topic=Rooms/1", "403 topic_denied"),
        ("topic=rooms/../other", "200"),
        ("topic=public/1", "200"),
        ("topic=public/*&topic=rooms/*", "200"),
        ("topic=public", "403 topic_denied"),
        ("topics=other/1", "400"),
        ("topic[]=other/1", "400"),
        ("client=bob", "403 client_denied"),
        ("client=ada", "200"),
        ("client=ada&client=bob", "400"),
        ("client=ada%00bob", "400"),
        ("%63lient=bob", "403 client_denied"),
        ("_client=bob", "200"),
    ] {
        let request = Request::get(format!("/events?{query}"));
        assert_eq!(site.outcome_as("ada", request).await, expected, "{query}");
    }
    // Without a credential, a client may read only public topics.
    for (query, expected) in [
        ("topic=public/1", "200"),
        ("topic=public/*", "200"),
        ("topic=public/1&topic=rooms/1", "401 token_missing"),
        ("topic=public/1&client=ada", "401 token_missing"),
        ("topic=*", "401 token_missing"),
    ] {
        let answer = Request::get(format!("/events?{query}")).ask(site.public()).await;
        assert_eq!(answer.outcome(), expected, "{query}");
    }
}
