//! `--authorize-url`: the app decides about subscriptions without a token or a ticket. Its answer
//! is a grant, which lists the topics that the user may read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::{
    credentials::Signer,
    patiently,
    request::Request,
    site::{Site, assert_revoked},
    web::{Reply, Web},
};

/// The maximum time until the server answers a request if the app never answers. The server waits
/// for the app for two seconds. The third second allows for a busy machine.
const SLOW_MAX: Duration = Duration::from_secs(3);

/// Starts an app that gives this reply, and a server that asks the app.
fn start(reply: Reply, flags: &[&str]) -> (Web, Site) {
    let app = Web::start(reply);
    let url = app.url();
    let asks = ["--authorize-url", &url, "--authorize-cookie", "sid"];
    let site = Site::without_tokens(&[&asks, flags].concat());
    (app, site)
}

fn rooms() -> Reply {
    Reply::json(&json!({ "subscribe": ["rooms/*"], "client": "ada" }))
}

fn lasting_rooms() -> Reply {
    Reply::lasting(&json!({ "subscribe": ["rooms/*"], "client": "ada" }))
}

/// A request with the session cookie of the user ada.
fn of_ada(target: &str) -> Request {
    Request::get(target).header("Cookie", "theme=dark; sid=1")
}

#[tokio::test]
async fn the_app_gets_the_question_and_its_grant_gives_the_rights() {
    let (app, site) = start(rooms(), &["--trusted-proxy", "127.0.0.1"]);
    let request = of_ada("/events?topic=rooms/1&topic=rooms/2")
        .header("X-Forwarded-For", "198.51.100.1, 203.0.113.7")
        .header("X-Secret", "of the page");
    let mut stream = site.subscribe(request).await;
    let asked = app.asked_times(1).await;
    let question = json!({
        "topics": ["rooms/1", "rooms/2"],
        "client": null,
        "address": "203.0.113.7",
        "origin": null,
    });
    assert_eq!(asked.json(), question);
    assert_eq!(asked.header("content-type"), Some("application/json"));
    for name in ["authorization", "x-secret", "x-forwarded-for", "forwarded"] {
        assert_eq!(asked.header(name), None, "{name}");
    }
    site.publish("topic=rooms/2", "hello").await;
    assert_eq!(stream.data().await, "hello");
}

#[tokio::test]
async fn the_app_gets_only_the_cookies_of_the_setting() {
    let (app, site) = start(rooms(), &[]);
    for (cookie, passed) in
        [("theme=dark; sid=1; x=2", Some("sid=1")), ("theme=dark", None), ("xsid=1", None)]
    {
        let request = Request::get("/events?topic=rooms/1").header("Cookie", cookie);
        let times = app.asked().len() + 1;
        site.subscribe(request).await;
        assert_eq!(app.asked_times(times).await.header("cookie"), passed, "{cookie}");
    }
    // The server does not pass on the cookies of a request from a page of another site, although
    // this page may use the server.
    let (app, site) = start(rooms(), &["--cors-origin", "*"]);
    let request = of_ada("/events?topic=rooms/1").header("Origin", "https://other.example");
    site.subscribe(request).await;
    let asked = app.asked_times(1).await;
    assert_eq!(asked.header("cookie"), None);
    assert_eq!(asked.json()["origin"], "https://other.example");
}

/// The grant of the app is a list of the topics that a user may read. It does not lift the limit of
/// topics for the user's address.
#[tokio::test]
async fn the_topics_of_a_user_count_towards_the_limit_of_its_address() {
    let (_app, site) = start(rooms(), &["--subscribed-names-per-address-max", "17"]);
    let topics = |count| format!("/events?topic={}", vec!["rooms/1"; count].join("&topic="));
    let _open = site.subscribe(of_ada(&topics(17))).await;
    let refused = of_ada(&topics(17)).ask(site.public()).await;
    assert_eq!(refused.outcome(), "429 too_many_requests");
    site.subscribe(of_ada(&topics(16))).await;
}

#[tokio::test]
async fn the_refusals_of_the_app_are_final() {
    let (app, site) = start(Reply::status(401), &[]);
    for (status, outcome) in [(401, "401 app_unauthenticated"), (403, "403 app_denied")] {
        app.reply(Reply::status(status));
        for request in
            [of_ada("/events?topic=rooms/1"), of_ada("/events?topic=rooms/1").of_browser()]
        {
            let answer = request.ask(site.public()).await;
            assert_eq!(answer.outcome(), outcome);
            assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
            answer.problem(status);
        }
    }
    // The grant of the app decides about the topics and the client.
    app.reply(rooms());
    for (query, outcome) in
        [("topic=orders/1", "403 topic_denied"), ("topic=rooms/1&client=eve", "403 client_denied")]
    {
        let answer = of_ada(&format!("/events?{query}")).of_browser().ask(site.public()).await;
        assert_eq!(answer.outcome(), outcome);
    }
}

#[tokio::test]
async fn without_an_answer_a_browser_tries_again_and_a_program_gets_a_503() {
    let (mut app, site) = start(Reply::status(500), &[]);
    let check = async |what: &str| {
        let began = std::time::Instant::now();
        let program = of_ada("/events?topic=rooms/1").ask(site.public()).await;
        assert_eq!(program.outcome(), "503 app_unavailable", "{what}");
        let later: u64 = program.header("retry-after").expect("a time").parse().expect("seconds");
        assert!((1..=11).contains(&later), "{later}");
        program.problem(503);
        assert!(began.elapsed() < SLOW_MAX, "{what}: {:?}", began.elapsed());
        let later = site.assert_comes_back(of_ada("/events?topic=rooms/1")).await;
        assert!((1_000..=10_000).contains(&later), "{later}");
    };
    check("a failure").await;
    app.reply(Reply::Answer(200, "no-store", "no JSON".into()));
    check("not a grant").await;
    app.reply(Reply::Answer(200, "no-store", " ".repeat((64 << 10) + 1)));
    check("a long answer").await;
    app.reply(Reply::status(302));
    check("a redirect").await;
    app.reply(Reply::Wait);
    check("no answer").await;
    app.stop();
    check("no app").await;
    // After its restart, the app decides again.
    app.reply(rooms());
    app.start_again();
    site.subscribe(of_ada("/events?topic=rooms/1")).await;
}

#[tokio::test]
async fn open_streams_survive_a_restart_of_the_app() {
    let (mut app, site) = start(rooms(), &[]);
    let mut stream = site.subscribe(of_ada("/events?topic=rooms/1")).await;
    app.stop();
    site.publish("topic=rooms/1", "without the app").await;
    assert_eq!(stream.data().await, "without the app");
}

#[tokio::test]
async fn a_token_of_the_app_is_passed_on_only_if_the_server_verifies_no_tokens() {
    let (app, site) = start(rooms(), &[]);
    for token in ["opaque", "of.an.app"] {
        let times = app.asked().len() + 1;
        site.subscribe(Request::get("/events?topic=rooms/1").bearer(token)).await;
        let passed = app.asked_times(times).await;
        assert_eq!(passed.header("authorization"), Some(&*format!("Bearer {token}")));
    }
    // Other requests need a credential of the server.
    for request in [Request::post("/events?topic=rooms/1", "x"), Request::post("/tickets", "")] {
        let answer = request.bearer("opaque").ask(site.public()).await;
        assert_eq!(answer.outcome(), "401 key_unknown");
    }
    assert_eq!(app.asked().len(), 2);

    let app = Web::start(rooms());
    let site = Site::start(&["--authorize-url", &app.url(), "--authorize-cookie", "sid"]);
    let refused = Request::get("/events?topic=rooms/1").bearer("opaque").ask(site.public()).await;
    assert_eq!(refused.outcome(), "401 key_unknown");
    assert_eq!(app.asked().len(), 0);
    let basic = of_ada("/events?topic=rooms/1").header("Authorization", "Basic dTpw");
    site.subscribe(basic).await;
    let asked = app.asked_times(1).await;
    assert_eq!((asked.header("authorization"), asked.header("cookie")), (None, Some("sid=1")));
    // For tokens and tickets, the server does not ask the app.
    site.subscribe_as("ada", "topic=rooms/1").await;
    let ticket = site.ticket("topic=rooms/1").await;
    site.subscribe(Request::get(format!("/events?ticket={ticket}"))).await;
    assert_eq!(app.asked().len(), 1);
}

#[tokio::test]
async fn the_app_is_not_asked_about_public_topics() {
    let (app, site) = start(Reply::status(403), &["--public", "news;news/*"]);
    for query in ["topic=news", "topic=news/*&topic=news"] {
        site.subscribe(of_ada(&format!("/events?{query}"))).await;
        site.subscribe(Request::get(format!("/events?{query}")).bearer("opaque")).await;
    }
    assert_eq!(app.asked().len(), 0);
    let both = of_ada("/events?topic=news&topic=rooms/1").ask(site.public()).await;
    assert_eq!(both.outcome(), "403 app_denied");
    app.reply(rooms());
    site.subscribe(of_ada("/events?topic=news&topic=rooms/1")).await;
}

#[tokio::test]
async fn a_user_gets_the_events_for_the_client_of_its_grant() {
    let (_app, site) = start(rooms(), &["--public", "news"]);
    let mut with_topic = site.subscribe(of_ada("/events?topic=rooms/1")).await;
    let mut by_name = site.subscribe(of_ada("/events?client=ada")).await;
    site.publish("client=ada", "for ada").await;
    assert_eq!(with_topic.data().await, "for ada");
    assert_eq!(by_name.data().await, "for ada");
    let eve = of_ada("/events?client=eve").ask(site.public()).await;
    assert_eq!(eve.outcome(), "403 client_denied");
}

#[tokio::test]
async fn the_stream_ends_at_the_end_of_the_grant() {
    let (app, site) = start(Reply::status(401), &[]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right").as_secs();
    let until = now + 4;
    app.reply(Reply::json(&json!({ "subscribe": ["rooms/*"], "client": "ada", "until": until })));
    let mut stream = site.subscribe(of_ada("/events?topic=rooms/1")).await;
    assert_eq!(stream.next().await.expect("the notice").event_type, "downlink.expiring");
    let expired = stream.next().await.expect("the last event");
    assert_eq!((&*expired.event_type, &*expired.data), ("downlink.expired", "{}"));
    assert_eq!(stream.rest().await, [""; 0]);
    app.reply(Reply::json(&json!({ "subscribe": ["rooms/*"], "until": until })));
    let late = of_ada("/events?topic=rooms/1").ask(site.public()).await;
    assert_eq!(late.outcome(), "401 token_expired");
    // The page reconnects, and the app gives a new grant.
    app.reply(rooms());
    site.subscribe(of_ada("/events?topic=rooms/1").of_browser()).await;
}

#[tokio::test]
async fn an_answer_is_used_again_until_its_client_is_revoked() {
    let (app, site) = start(lasting_rooms(), &[]);
    let request = of_ada("/events?topic=rooms/1");
    let first = site.subscribe(request.clone()).await;
    let second = site.subscribe(request.clone().of_browser()).await;
    assert_eq!(app.asked().len(), 1);
    site.subscribe(of_ada("/events?topic=rooms/2")).await;
    site.subscribe(request.clone().header("Cookie", "sid=2")).await;
    assert_eq!(app.asked().len(), 3);
    site.revoke("client=ada").await;
    assert_revoked(first).await;
    assert_revoked(second).await;
    // The server asks the app again, and uses the new answer.
    app.reply(Reply::status(401));
    let refused = request.clone().of_browser().ask(site.public()).await;
    assert_eq!(refused.outcome(), "401 app_unauthenticated");
    app.reply(lasting_rooms());
    site.subscribe(request).await;
    assert_eq!(app.asked().len(), 5);
}

#[tokio::test]
async fn the_revocation_of_a_topic_ends_only_its_streams() {
    let (_app, site) = start(lasting_rooms(), &[]);
    let first = site.subscribe(of_ada("/events?topic=rooms/1")).await;
    let mut second = site.subscribe(of_ada("/events?topic=rooms/2")).await;
    site.revoke("client=ada&topic=rooms/1").await;
    assert_revoked(first).await;
    site.publish("topic=rooms/2", "still here").await;
    assert_eq!(second.data().await, "still here");
}

#[tokio::test]
async fn many_subscriptions_at_once_cause_few_questions() {
    const SUBSCRIPTIONS: usize = 300;
    let (app, site) = start(Reply::Wait, &[]);
    let open = |query: &str| {
        let (request, place) = (of_ada(&format!("/events?{query}")), site.public().clone());
        tokio::spawn(async move { request.ask(&place).await.status })
    };
    let same: Vec<_> = (0..SUBSCRIPTIONS).map(|_| open("topic=rooms/1")).collect();
    app.asked_times(1).await;
    let different: Vec<_> =
        (0..SUBSCRIPTIONS).map(|n| open(&format!("topic=rooms/{n}&topic=rooms"))).collect();
    app.asked_times(64).await;
    app.reply(Reply::json(&json!({ "subscribe": ["rooms/*", "rooms"] })));
    for answer in same.into_iter().chain(different) {
        let status = patiently(answer).await.expect("the task did not panic");
        // On a busy machine, a question to the app may wait for too long. The subscription then
        // gets a 503.
        assert!(matches!(status, 200 | 503), "{status}");
    }
    assert!(app.open_max() <= 64, "{} calls were open at once", app.open_max());
    let asked = app.asked();
    let same = asked.iter().filter(|asked| asked.json()["topics"] == json!(["rooms/1"])).count();
    assert!(same < 10, "{same} questions for the same subscription");
    assert!(asked.len() - same <= SUBSCRIPTIONS, "{} questions", asked.len());
}

/// The public listener accepts no keys, so for this listener the key is an unknown credential. The
/// server must still not pass the key on to the app.
#[tokio::test]
async fn a_key_of_the_server_is_not_passed_on() {
    let (app, site) = start(rooms(), &[]);
    for key in [site.keys.publish_key(), site.keys.admin_key()] {
        let request = Request::get("/events?topic=rooms/1").bearer(&key);
        assert_eq!(request.ask(site.public()).await.outcome(), "401 key_unknown");
        assert_eq!(request.ask(site.admin()).await.status, 200);
    }
    site.revoke(&format!("key={}", site.keys.publish_key_id())).await;
    let request = Request::get("/events?topic=rooms/1").bearer(&site.keys.publish_key());
    assert_eq!(request.ask(site.public()).await.outcome(), "401 key_unknown");
    assert_eq!(request.ask(site.admin()).await.outcome(), "401 revoked");
    assert_eq!(app.asked().len(), 0, "{:?}", app.asked());
}

/// Without this limit, a stranger could try session cookies through the server as fast as the app
/// answers.
#[tokio::test]
async fn after_too_many_refusals_the_app_is_not_asked() {
    let (app, site) = start(Reply::status(401), &["--failures-per-address", "1/h,burst:3"]);
    let guess =
        |n: usize| Request::get("/events?topic=rooms/1").header("Cookie", format!("sid={n}"));
    for n in 0..3 {
        let answer = guess(n).ask(site.public()).await;
        assert_eq!(answer.outcome(), "401 app_unauthenticated");
    }
    app.reply(rooms());
    let answer = guess(3).ask(site.public()).await;
    assert_eq!(answer.outcome(), "429 too_many_requests");
    let later = site.assert_comes_back(guess(3)).await;
    assert!(
        later > 3_500_000,
        "the browser reconnects after {later} ms, but the limit is one attempt in an hour"
    );
    assert_eq!(app.asked().len(), 3);
}

/// The rights of the client are revoked while the app answers. The server must not use this answer,
/// and must ask the app once more. With the old answer, the request would get a 204, and the
/// `EventSource` would never reconnect.
#[tokio::test]
async fn an_answer_from_before_a_revocation_is_not_used() {
    let (app, site) = start(Reply::Wait, &[]);
    let request = of_ada("/events?topic=rooms/1").of_browser();
    let (place, asking) = (site.public().clone(), request.clone());
    let answer = tokio::spawn(async move { asking.ask(&place).await });
    app.asked_times(1).await;
    site.revoke("client=ada").await;
    app.reply(lasting_rooms());
    let answer = patiently(answer).await.expect("the task did not panic");
    assert_eq!((answer.status, app.asked().len()), (200, 2));
    // Only the second answer is in the cache.
    site.subscribe(request).await;
    assert_eq!(app.asked().len(), 2);
}

/// The app does not know the user of a token, so it would refuse the subscription. This refusal
/// would be final, and the page would not reconnect.
#[tokio::test]
async fn the_app_is_not_asked_about_a_token_whose_keys_cannot_be_fetched() {
    let app = Web::start(Reply::status(401));
    let issuer = Web::start(Reply::status(500));
    let site = Site::with_key_set(
        &issuer.url(),
        &["--authorize-url", &app.url(), "--authorize-cookie", "sid"],
    );
    let token = site.keys.named_token(Signer::Rs256, "rs256", "ada");
    let cookie = format!("sid=1; __Host-downlink={token}");
    let request = Request::get("/events?topic=rooms/1").header("Cookie", cookie);
    assert_eq!(request.ask(site.public()).await.outcome(), "503 keys_unavailable");
    site.assert_comes_back(request).await;
    assert_eq!(app.asked().len(), 0);
}
