//! Publishing with a grant, which is a list of rights. A batch is refused as a whole, a stream
//! stops when its rights end, and an id belongs to its publisher.

use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::{
    credentials::{Signer, for_seconds, of_a_user},
    request::{Place, Request},
    site::Site,
    upload::Upload,
};

#[tokio::test]
async fn a_batch_is_refused_as_a_whole() {
    let site = Site::start(&[]);
    let lines = |last: &str| {
        format!(
            "{{\"topic\":\"rooms/1\",\"data\":1}}\n{{\"topic\":\"rooms/2\",\"data\":2}}\n{last}\n"
        )
    };
    let ada = site.keys.user("ada");
    for (last, expected) in [
        (r#"{"topic":"other/1","data":3}"#, "403 topic_denied"),
        (r#"{"topics":["rooms/1","other/1"],"data":3}"#, "403 topic_denied"),
        (r#"{"topic":"rooms/1","client":"bob","data":3}"#, "403 right_missing"),
        (r#"{"everyone":true,"data":3}"#, "403 right_missing"),
    ] {
        let batch = Request::post("/events/batch", lines(last)).bearer(&ada);
        let answer = batch.ask(site.public()).await;
        assert_eq!(answer.outcome(), expected, "{last}");
        let detail = answer.problem(403);
        assert!(detail.starts_with("Line 3: "), "{detail}");
        assert!(detail.ends_with(" Nothing of the batch was published."), "{detail}");
    }
    assert_eq!(site.events("rooms/1").await, 0);
    let batch = Request::post("/events/batch", lines("")).bearer(&ada);
    assert_eq!(batch.ask(site.public()).await.outcome(), "200");
    assert_eq!(site.events("rooms/1").await, 1);
}

#[tokio::test]
async fn a_batch_without_a_credential_is_refused_before_its_body_arrives() {
    let site = Site::start(&[]);
    let Place::Tcp(address) = site.public() else { panic!("the listener is on TCP") };
    let mut io = TcpStream::connect(address).await.expect("the server listens");
    let request = Request::post("/events/batch", "");
    let head = request.text(site.public(), "Content-Length: 1000000\r\n");
    io.write_all(head.as_bytes()).await.expect("the connection is open");
    assert_eq!(Upload(io).answer().await.outcome(), "401 token_missing");
}

#[tokio::test]
async fn a_revocation_stops_a_streamed_publish_and_the_answer_has_the_exact_count() {
    let site = Site::start(&[]);
    for revocation in ["client=ada", "client=bob&topic=rooms/*"] {
        let client = if revocation.starts_with("client=ada") { "ada" } else { "bob" };
        let mut subscriber = site.subscribe_as("carol", "topic=rooms/1").await;
        let token = site.keys.user(client);
        let mut upload = Upload::start(site.public(), &token, "topic=rooms/1").await;
        for number in 0..3 {
            upload.send(&number.to_string()).await;
            assert_eq!(subscriber.data().await, number.to_string());
        }
        let last = subscriber.last_event_id();
        site.revoke(revocation).await;
        let answer = upload.answer().await;
        assert_eq!(answer.outcome(), "401 revoked");
        let detail = answer.problem(401);
        assert!(detail.starts_with("Event 4 of the stream: "), "{detail}");
        assert!(detail.ends_with(&format!(" Published: 3, the last as {last}.")), "{detail}");
    }
    assert_eq!(site.events("rooms/1").await, 6);
}

#[tokio::test]
async fn a_streamed_publish_stops_at_the_end_of_its_token() {
    let site = Site::start(&[]);
    let mut subscriber = site.subscribe_as("carol", "topic=rooms/1").await;
    let token = site.keys.token(Signer::Es256, &for_seconds("ada", of_a_user(), 6));
    let query = "topic=rooms/1&finish_on_end=true";
    let mut upload = Upload::start(site.public(), &token, query).await;
    upload.send("1").await;
    assert_eq!(subscriber.data().await, "1");
    let answer = upload.answer().await;
    assert_eq!(answer.outcome(), "401 token_expired");
    let detail = answer.problem(401);
    assert!(detail.contains(" Published: 1, the last as "), "{detail}");
    // An event tells the subscribers that the stream broke off.
    let broken = subscriber.next().await.expect("the last event");
    assert_eq!((&*broken.event_type, &*broken.data), ("upstream.broken", r#"{"published":1}"#));
}

#[tokio::test]
async fn a_streamed_publish_without_the_right_is_refused_before_its_first_event() {
    let site = Site::start(&[]);
    let token = site.keys.user("ada");
    for (query, expected) in [
        ("topic=rooms/1&topic=other/1&finish_on_end=true", "403 topic_denied"),
        ("topic=rooms/1&client=bob", "403 right_missing"),
        ("topic=rooms/1&everyone", "403 right_missing"),
    ] {
        let mut upload = Upload::start(site.public(), &token, query).await;
        upload.send("1").await;
        assert_eq!(upload.answer().await.outcome(), expected, "{query}");
    }
    assert_eq!(site.events("rooms/1").await, 0);
}

#[tokio::test]
async fn ids_and_idempotency_keys_belong_to_their_publisher() {
    let site = Site::start(&[]);
    let mut subscriber = site.subscribe_as("carol", "topic=rooms/1").await;
    let publish = async |token: &str, query: &str, key: &str, data: &str| {
        let request = Request::post(format!("/events?topic=rooms/1{query}"), data).bearer(token);
        let request = if key.is_empty() { request } else { request.header("Idempotency-Key", key) };
        let answer = request.ask(site.admin()).await;
        let body: Value = serde_json::from_str(&answer.body).expect("JSON");
        (answer.status, body["id"].as_str().unwrap_or_default().to_owned())
    };
    let (ada, bob) = (site.keys.user("ada"), site.keys.user("bob"));
    let app = site.keys.publish_key();
    for (query, key) in [("&id=order-7", ""), ("", "order-7")] {
        let mut ids = Vec::new();
        for (token, data) in [(&ada, "of ada"), (&bob, "of bob"), (&app, "of the app")] {
            let (status, id) = publish(token, query, key, data).await;
            assert_eq!((status, subscriber.data().await), (200, data.to_owned()));
            assert!(!ids.contains(&id), "{id} is the id of another event");
            ids.push(id);
        }
        // A repeated publish of one user gets the same answer and adds no event.
        assert_eq!(publish(&ada, query, key, "of ada").await, (200, ids[0].clone()));
        assert_eq!(publish(&ada, query, key, "changed").await.0, 409);
        let (status, _) = publish(&ada, "", "", "next").await;
        assert_eq!((status, subscriber.data().await), (200, "next".to_owned()));
    }
    // An event of ada already has the id `order-7`. So the server also refuses a batch or a stream
    // in which ada uses this id with other data. Carol may use the same id.
    let line = r#"{"topic":"rooms/1","id":"order-7","data":"changed"}"#;
    let batch = Request::post("/events/batch", line).bearer(&ada).ask(site.admin()).await;
    assert_eq!(batch.status, 409);
    let stream = Request::post("/events?topic=rooms/1&ids=keep", "id: order-7\ndata: changed\n\n")
        .header("Content-Type", "text/event-stream");
    assert_eq!(stream.clone().bearer(&ada).ask(site.admin()).await.status, 409);
    let carol = site.keys.user("carol");
    assert_eq!(stream.bearer(&carol).ask(site.admin()).await.status, 200);
}
