//! Tests of the questions to an app, over real connections on this machine.

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State as RouterState},
    http::{HeaderMap, HeaderValue, Response, header},
    routing::any,
};
use downlink::hub::{ClientId, Selection, TopicSelector};
use downlink_access::{GRANT_BYTES_MAX, Grant};
use futures_util::{FutureExt as _, future::join_all};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc,
};

use super::{
    answer::REUSE_MAX,
    question::{CREDENTIAL_BYTES_MAX, QUESTION_BYTES_MAX},
    *,
};
use crate::access::local_server::LocalServer;

const GRANT: &str = r#"{"subscribe":["a"],"client":"ada"}"#;

/// A request that has arrived at the app.
#[derive(Debug)]
struct Arrived {
    method: String,
    headers: HeaderMap,
    body: String,
}

type Respond = dyn Fn(&Arrived) -> Response<Body> + Send + Sync;

/// The app. It reports each request to the test, waits until its gate is open, and then answers.
struct App {
    /// Each answer takes one permit. A closed gate has no permits.
    gate: Semaphore,
    calls: AtomicUsize,
    arrivals: mpsc::UnboundedSender<Arrived>,
    respond: Box<Respond>,
}

/// An app with its web server, and the [`AskApp`] that asks it.
struct Site {
    app: Arc<App>,
    arrivals: mpsc::UnboundedReceiver<Arrived>,
    server: Option<LocalServer>,
    ask: AskApp,
    clock: Clock,
}

fn router(app: &Arc<App>) -> Router {
    let routes = Router::new().route("/ask", any(respond)).route("/other", any(respond));
    routes.with_state(Arc::clone(app))
}

async fn respond(RouterState(app): RouterState<Arc<App>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let arrived = Arrived { method: parts.method.to_string(), headers: parts.headers, body };
    let response = (app.respond)(&arrived);
    app.calls.fetch_add(1, SeqCst);
    let _ = app.arrivals.send(arrived);
    app.gate.acquire().await.unwrap().forget();
    response
}

/// The number of answers that an open gate lets pass.
const GATE: usize = 100_000;

impl Site {
    fn new(respond: impl Fn(&Arrived) -> Response<Body> + Send + Sync + 'static) -> Self {
        let (sender, arrivals) = mpsc::unbounded_channel();
        let (gate, calls) = (Semaphore::new(GATE), AtomicUsize::new(0));
        let app = Arc::new(App { gate, calls, arrivals: sender, respond: Box::new(respond) });
        let server = LocalServer::start(router(&app));
        let clock = Clock::manual();
        let ask = ask_at(&server.url("/ask"), &clock);
        Self { app, arrivals, server: Some(server), ask, clock }
    }

    /// An app that answers only while its gate is open.
    fn closed(respond: impl Fn(&Arrived) -> Response<Body> + Send + Sync + 'static) -> Self {
        let site = Self::new(respond);
        site.app.gate.forget_permits(GATE);
        site
    }

    fn open_gate(&self) {
        self.app.gate.add_permits(GATE);
    }

    fn calls(&self) -> usize {
        self.app.calls.load(SeqCst)
    }

    async fn arrived(&mut self) -> Arrived {
        self.arrivals.recv().await.unwrap()
    }

    /// Asks the app about a subscription of a user. The cookie of the request names the user's
    /// session.
    async fn user(&self, session: &str) -> Result<Grant, Answer> {
        user(&self.ask, session).await
    }
}

fn ask_at(url: &str, clock: &Clock) -> AskApp {
    let options =
        AskOptions { url: url.into(), cookies: vec!["sid".into()], passes_authorization: true };
    AskApp::with_clock(options, clock.clone()).unwrap()
}

fn cookie(session: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::COOKIE, HeaderValue::from_str(&format!("sid={session}")).unwrap());
    headers
}

fn selection(topic: &str) -> Selection {
    Selection { selectors: vec![TopicSelector::parse(topic).unwrap()], client: None }
}

async fn outcome(ask: &AskApp, headers: &HeaderMap) -> Result<Granted, Answer> {
    let asked = selection("a");
    let question = Question { asked: &asked, address: None, headers, may_use_cookies: true };
    ask.grant(&question).await
}

async fn user(ask: &AskApp, session: &str) -> Result<Grant, Answer> {
    outcome(ask, &cookie(session)).await.map(|granted| granted.grant)
}

fn grant() -> Grant {
    Grant::from_json(GRANT.as_bytes()).unwrap()
}

fn json(status: u16, body: impl Into<Body>) -> Response<Body> {
    Response::builder().status(status).body(body.into()).unwrap()
}

fn reusable(seconds: u64, body: impl Into<Body>) -> Response<Body> {
    let response = Response::builder().header("cache-control", format!("max-age={seconds}"));
    response.body(body.into()).unwrap()
}

/// A grant for the client that the session names.
fn grant_for(arrived: &Arrived) -> String {
    let session = arrived.headers[header::COOKIE].to_str().unwrap().replace("sid=", "");
    format!(r#"{{"subscribe":["a"],"client":"{session}"}}"#)
}

fn padded(bytes: usize) -> String {
    format!("{GRANT}{}", " ".repeat(bytes - GRANT.len()))
}

fn streamed(text: String) -> Body {
    let pieces: Vec<_> = text.as_bytes().chunks(10_000).map(Bytes::copy_from_slice).collect();
    Body::from_stream(futures_util::stream::iter(pieces.into_iter().map(Ok::<_, Infallible>)))
}

/// Starts an app that gives this answer, asks it once, and returns the outcome.
async fn answer_to(
    respond: impl Fn(&Arrived) -> Response<Body> + Send + Sync + 'static,
) -> Result<Grant, Answer> {
    Site::new(respond).user("1").await
}

/// Advances the paused time of the test, and then lets the woken tasks run.
async fn advance(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// Runs the tasks of the test that can run now.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

fn is_waiting<F: Future + Unpin>(future: &mut F) -> bool {
    future.now_or_never().is_none()
}

#[tokio::test]
async fn statuses_other_than_200_401_and_403_count_as_no_answer() {
    assert_eq!(answer_to(|_| json(200, GRANT)).await, Ok(grant()));
    assert_eq!(answer_to(|_| json(401, GRANT)).await, Err(Answer::Unauthenticated));
    assert_eq!(answer_to(|_| json(403, GRANT)).await, Err(Answer::Forbidden));
    assert_eq!(answer_to(|_| json(201, GRANT)).await, Err(Answer::Unavailable));
    assert_eq!(answer_to(|_| json(204, "")).await, Err(Answer::Unavailable));
    assert_eq!(answer_to(|_| json(304, "")).await, Err(Answer::Unavailable));
    assert_eq!(answer_to(|_| json(400, GRANT)).await, Err(Answer::Unavailable));
    assert_eq!(answer_to(|_| json(404, GRANT)).await, Err(Answer::Unavailable));
    assert_eq!(answer_to(|_| json(429, GRANT)).await, Err(Answer::Unavailable));
    assert_eq!(answer_to(|_| json(500, GRANT)).await, Err(Answer::Unavailable));
    assert_eq!(answer_to(|_| json(503, GRANT)).await, Err(Answer::Unavailable));
}

#[tokio::test]
async fn a_200_without_a_valid_grant_counts_as_no_answer() {
    for body in ["", "null", "[]", "<html>", r#"{"subscribe":"a"}"#, r#"{"subscribe":["/"]}"#] {
        assert_eq!(answer_to(move |_| json(200, body)).await, Err(Answer::Unavailable), "{body}");
    }
    // If the name of a restriction is misspelt, the grant must not take effect without the
    // restriction.
    let misspelt = r#"{"subscribe":["a"],"untl":1}"#;
    assert_eq!(answer_to(move |_| json(200, misspelt)).await, Err(Answer::Unavailable));
    assert_eq!(answer_to(|_| json(200, "{}")).await, Ok(Grant::none()));
}

#[tokio::test]
async fn only_the_rights_to_read_of_an_answer_are_used() {
    let all = r#"{"subscribe":["a"],"client":"ada","publish":["*"],"publish_clients":true,
        "everyone":true,"issue":true,"follow":true,"admin":true}"#;
    assert_eq!(answer_to(move |_| json(200, all)).await, Ok(grant()));
}

#[tokio::test]
async fn the_app_gets_the_question_and_the_chosen_credentials() {
    let mut site = Site::new(|_| json(200, GRANT));
    let mut headers = HeaderMap::new();
    headers.insert(header::COOKIE, HeaderValue::from_static("other=1; sid=2"));
    headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Basic dTpw"));
    headers.insert(header::ORIGIN, HeaderValue::from_static("https://app.example"));
    headers.insert("x-secret", HeaderValue::from_static("3"));
    let asked = Selection { client: Some(ClientId::new("ada").unwrap()), ..selection("a/*") };
    let address: IpAddr = "192.0.2.7".parse().unwrap();
    let question = Question {
        asked: &asked,
        address: Some(address),
        headers: &headers,
        may_use_cookies: true,
    };
    assert!(site.ask.grant(&question).await.is_ok());
    let arrived = site.arrived().await;
    assert_eq!(arrived.method, "POST");
    assert_eq!(arrived.headers[header::CONTENT_TYPE], "application/json");
    assert_eq!(arrived.headers[header::COOKIE], "sid=2");
    assert_eq!(arrived.headers[header::AUTHORIZATION], "Basic dTpw");
    for absent in ["x-secret", "origin", "referer", "accept-encoding"] {
        assert!(!arrived.headers.contains_key(absent), "{absent}");
    }
    let body =
        r#"{"topics":["a/*"],"client":"ada","address":"192.0.2.7","origin":"https://app.example"}"#;
    assert_eq!(arrived.body, body);
}

#[tokio::test]
async fn a_request_above_the_limits_does_not_reach_the_app() {
    let site = Site::new(|_| json(200, GRANT));
    let long = "a".repeat(CREDENTIAL_BYTES_MAX);
    assert_eq!(site.user(&long).await, Err(Answer::Unauthenticated));
    let mut headers = HeaderMap::new();
    let origin = "a".repeat(QUESTION_BYTES_MAX);
    headers.insert(header::ORIGIN, HeaderValue::from_str(&origin).unwrap());
    assert_eq!(outcome(&site.ask, &headers).await, Err(Answer::Unauthenticated));
    assert_eq!(site.calls(), 0);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let site = Site::new(move |_| {
            let moved = Response::builder().status(status).header("location", "/other");
            moved.body(Body::from(GRANT)).unwrap()
        });
        assert_eq!(site.user("1").await, Err(Answer::Unavailable), "{status}");
        assert_eq!(site.calls(), 1);
    }
}

#[tokio::test]
async fn an_answer_is_accepted_up_to_its_size_limit() {
    let (fits, above) = (padded(GRANT_BYTES_MAX), padded(GRANT_BYTES_MAX + 1));
    let (short, long) = (fits.clone(), above.clone());
    assert_eq!(answer_to(move |_| json(200, short.clone())).await, Ok(grant()));
    assert_eq!(answer_to(move |_| json(200, long.clone())).await, Err(Answer::Unavailable));
    assert_eq!(answer_to(move |_| json(200, streamed(fits.clone()))).await, Ok(grant()));
    let above = answer_to(move |_| json(200, streamed(above.clone()))).await;
    assert_eq!(above, Err(Answer::Unavailable));
}

#[tokio::test]
async fn a_body_without_an_end_is_read_up_to_the_limit() {
    let endless = || {
        let piece = Bytes::from_static(&[b' '; 1_000]);
        futures_util::stream::repeat_with(move || Ok::<_, Infallible>(piece.clone()))
    };
    let answer = answer_to(move |_| json(200, Body::from_stream(endless()))).await;
    assert_eq!(answer, Err(Answer::Unavailable));
}

/// An app that answers each connection with these bytes, and then keeps the connection open or
/// closes it.
async fn raw_app(answer: &'static str, keeps_open: bool) -> AskApp {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut peer, _)) = listener.accept().await {
            let _ = peer.read(&mut [0; 4_096]).await;
            let _ = peer.write_all(answer.as_bytes()).await;
            if keeps_open {
                open.push(peer);
            }
        }
    });
    ask_at(&url, &Clock::manual())
}

#[tokio::test]
async fn a_broken_answer_counts_as_no_answer() {
    let short = "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n{}";
    assert_eq!(user(&raw_app(short, false).await, "1").await, Err(Answer::Unavailable));
    let cut = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n";
    assert_eq!(user(&raw_app(cut, false).await, "1").await, Err(Answer::Unavailable));
    assert_eq!(user(&raw_app("", false).await, "1").await, Err(Answer::Unavailable));
    let nonsense = "220 mail.example ESMTP\r\n";
    assert_eq!(user(&raw_app(nonsense, false).await, "1").await, Err(Answer::Unavailable));
}

#[tokio::test]
async fn a_call_ends_at_the_timeout_if_the_body_of_the_answer_stops_arriving() {
    let stops = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{";
    let ask = raw_app(stops, true).await;
    tokio::time::pause();
    let start = Instant::now();
    assert_eq!(user(&ask, "1").await, Err(Answer::Unavailable));
    assert!(start.elapsed() >= CALL_TIMEOUT && start.elapsed() < 2 * CALL_TIMEOUT);
}

#[tokio::test]
async fn a_call_ends_at_the_timeout_if_the_app_is_slow() {
    let mut site = Site::closed(|_| json(200, GRANT));
    let ask = site.ask.clone();
    let mut waiting = Box::pin(user(&ask, "1"));
    assert!(is_waiting(&mut waiting));
    site.arrived().await;
    advance(CALL_TIMEOUT - Duration::from_millis(500)).await;
    settle().await;
    assert!(is_waiting(&mut waiting));
    advance(Duration::from_millis(600)).await;
    assert_eq!(waiting.await, Err(Answer::Unavailable));
    site.open_gate();
    assert_eq!(site.user("1").await, Ok(grant()));
    assert_eq!(site.calls(), 2);
}

#[tokio::test]
async fn an_app_that_restarts_is_asked_again() {
    let mut site = Site::new(|_| json(200, GRANT));
    assert_eq!(site.user("1").await, Ok(grant()));
    let address = site.server.as_ref().unwrap().address();
    site.server = None;
    assert_eq!(site.user("1").await, Err(Answer::Unavailable));
    site.server = Some(LocalServer::start_at(address, router(&site.app)));
    assert_eq!(site.user("1").await, Ok(grant()));
    assert_eq!(site.calls(), 2);
}

#[tokio::test]
async fn equal_questions_at_the_same_time_make_one_call() {
    let mut site = Site::closed(|_| json(200, GRANT));
    let ask = site.ask.clone();
    let mut waiting: Vec<_> = (0..500).map(|_| Box::pin(user(&ask, "1"))).collect();
    assert!(waiting.iter_mut().all(is_waiting));
    site.arrived().await;
    site.open_gate();
    assert!(join_all(waiting).await.iter().all(|outcome| *outcome == Ok(grant())));
    assert_eq!(site.calls(), 1);
    // Without a `max-age`, the answer is not used again.
    assert_eq!(site.user("1").await, Ok(grant()));
    assert_eq!(site.calls(), 2);
}

#[tokio::test]
async fn users_never_share_an_answer() {
    let site = Site::new(|arrived| reusable(60, grant_for(arrived)));
    let sessions: Vec<String> = (0..200).map(|number| format!("u{number}")).collect();
    let first = join_all(sessions.iter().map(|session| site.user(session))).await;
    let second = join_all(sessions.iter().map(|session| site.user(session))).await;
    assert_eq!(first, second);
    assert_eq!(site.calls(), 200);
    let clients = first.iter().map(|outcome| outcome.as_ref().unwrap().client().unwrap().as_str());
    assert!(clients.eq(sessions.iter().map(String::as_str)));
}

/// The requests have the same text, but in different headers, or split between two headers. The
/// server must ask the app about each of them.
#[tokio::test]
async fn requests_that_split_the_same_text_differently_never_share_an_answer() {
    let site = Site::new(|_| reusable(60, GRANT));
    let request = |pairs: &[(header::HeaderName, &'static str)]| {
        let pairs = pairs.iter();
        pairs.map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    };
    let requests: [HeaderMap; 5] = [
        request(&[(header::COOKIE, "sid=ab")]),
        request(&[(header::COOKIE, "sid=a"), (header::AUTHORIZATION, "b")]),
        request(&[(header::COOKIE, "sid=a"), (header::ORIGIN, "b")]),
        request(&[(header::AUTHORIZATION, "sid=ab")]),
        request(&[(header::ORIGIN, "sid=ab")]),
    ];
    for headers in &requests {
        assert!(outcome(&site.ask, headers).await.is_ok());
    }
    assert_eq!(site.calls(), 5);
}

/// The app knows the address of the client, so its answer may depend on the address.
#[tokio::test]
async fn requests_from_different_addresses_never_share_an_answer() {
    let site = Site::new(|_| reusable(60, GRANT));
    let (asked, headers) = (selection("a"), HeaderMap::new());
    for address in ["192.0.2.1", "192.0.2.2", "192.0.2.1", "::ffff:192.0.2.1"] {
        let address = Some(address.parse().unwrap());
        let question =
            Question { asked: &asked, address, headers: &headers, may_use_cookies: true };
        assert!(site.ask.grant(&question).await.is_ok());
    }
    assert_eq!(site.calls(), 2);
}

/// A page of a foreign origin must not get an answer that the app gave because of a user's cookies.
#[tokio::test]
async fn the_cache_gives_no_answer_to_a_request_whose_cookies_may_not_be_used() {
    let site = Site::new(|arrived| match arrived.headers.contains_key(header::COOKIE) {
        true => reusable(60, GRANT),
        false => json(401, ""),
    });
    assert_eq!(site.user("1").await, Ok(grant()));
    let (asked, headers) = (selection("a"), cookie("1"));
    let question =
        Question { asked: &asked, address: None, headers: &headers, may_use_cookies: false };
    assert_eq!(site.ask.grant(&question).await, Err(Answer::Unauthenticated));
}

#[tokio::test]
async fn an_answer_is_used_again_until_its_max_age() {
    let site = Site::new(|_| reusable(60, GRANT));
    assert_eq!(site.user("1").await, Ok(grant()));
    advance(Duration::from_secs(55)).await;
    assert_eq!(site.user("1").await, Ok(grant()));
    assert_eq!(site.calls(), 1);
    advance(Duration::from_secs(5)).await;
    assert_eq!(site.user("1").await, Ok(grant()));
    assert_eq!(site.calls(), 2);
}

#[tokio::test]
async fn an_answer_is_used_again_for_an_hour_at_most() {
    let site = Site::new(|_| reusable(1_000_000, GRANT));
    assert_eq!(site.user("1").await, Ok(grant()));
    advance(REUSE_MAX).await;
    assert_eq!(site.user("1").await, Ok(grant()));
    assert_eq!(site.calls(), 2);
}

#[tokio::test]
async fn a_grant_from_the_cache_keeps_the_time_of_its_question() {
    let site = Site::new(|_| reusable(60, GRANT));
    let first = outcome(&site.ask, &cookie("1")).await.unwrap();
    assert_eq!(first.asked_at, site.clock.now());
    site.clock.advance(Duration::from_secs(5));
    assert_eq!(outcome(&site.ask, &cookie("1")).await, Ok(first));
    assert_eq!(site.calls(), 1);
}

#[tokio::test]
async fn a_grant_that_has_ended_is_not_used_again() {
    let end = Clock::manual().now().as_millis() / 1_000 + 10;
    let site = Site::new(move |_| reusable(60, format!(r#"{{"subscribe":["a"],"until":{end}}}"#)));
    assert!(site.user("1").await.is_ok() && site.user("1").await.is_ok());
    assert_eq!(site.calls(), 1);
    site.clock.advance(Duration::from_secs(10));
    assert!(site.user("1").await.is_ok());
    assert_eq!(site.calls(), 2);
}

/// A user who signs in must not be refused because of an earlier refusal.
#[tokio::test]
async fn refusals_and_failures_are_not_used_again() {
    for status in [401, 403, 500] {
        let site = Site::new(move |_| {
            let response = Response::builder().status(status).header("cache-control", "max-age=60");
            response.body(Body::empty()).unwrap()
        });
        assert!(site.user("1").await.is_err() && site.user("1").await.is_err());
        assert_eq!(site.calls(), 2, "{status}");
    }
}

#[tokio::test]
async fn a_dropped_request_does_not_end_the_call_for_other_requests() {
    let mut site = Site::closed(|_| json(200, GRANT));
    let ask = site.ask.clone();
    let mut dropped = Box::pin(user(&ask, "1"));
    let mut waiting = Box::pin(user(&ask, "1"));
    assert!(is_waiting(&mut dropped) && is_waiting(&mut waiting));
    site.arrived().await;
    drop(dropped);
    site.open_gate();
    assert_eq!(waiting.await, Ok(grant()));
    assert_eq!(site.calls(), 1);
}

/// If the call ended early, clients that disconnect at once could start any number of calls.
#[tokio::test]
async fn a_call_in_flight_keeps_its_permit_after_its_requests_have_ended() {
    let mut site = Site::closed(|_| json(200, GRANT));
    let ask = site.ask.clone();
    let mut dropped = Box::pin(user(&ask, "1"));
    assert!(is_waiting(&mut dropped));
    site.arrived().await;
    drop(dropped);
    settle().await;
    assert_eq!(ask.shared.turns.available_permits(), CALLS_MAX - 1);
    // A new request joins the call.
    let mut waiting = Box::pin(user(&ask, "1"));
    assert!(is_waiting(&mut waiting));
    site.open_gate();
    assert_eq!(waiting.await, Ok(grant()));
    assert_eq!(site.calls(), 1);
}

/// Starts one call for each of these users, and waits until all calls are in flight.
async fn occupy<'a>(
    site: &mut Site,
    ask: &'a AskApp,
    names: &'a [String],
) -> Vec<std::pin::Pin<Box<dyn Future<Output = Result<Grant, Answer>> + 'a>>> {
    let mut calls: Vec<std::pin::Pin<Box<dyn Future<Output = _> + 'a>>> = Vec::new();
    for name in names {
        calls.push(Box::pin(user(ask, name)));
    }
    assert!(calls.iter_mut().all(is_waiting));
    for _ in names {
        site.arrived().await;
    }
    calls
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("u{number}")).collect()
}

#[tokio::test]
async fn above_the_limit_of_calls_a_question_waits_for_its_turn() {
    let mut site = Site::closed(|arrived| json(200, grant_for(arrived)));
    let (ask, names) = (site.ask.clone(), names(CALLS_MAX));
    let calls = occupy(&mut site, &ask, &names).await;
    let mut waiting = Box::pin(user(&ask, "last"));
    assert!(is_waiting(&mut waiting));
    settle().await;
    assert_eq!(site.calls(), CALLS_MAX);
    site.app.gate.add_permits(1);
    let arrived = site.arrived().await;
    assert_eq!(arrived.headers[header::COOKIE], "sid=last");
    site.open_gate();
    assert_eq!(waiting.await.unwrap().client().unwrap().as_str(), "last");
    assert!(join_all(calls).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_call_that_waits_too_long_for_its_turn_is_not_sent() {
    let site = Site::new(|_| json(200, GRANT));
    // Takes all permits, as if the maximum number of calls were in flight and no call ended.
    assert_eq!(site.ask.shared.turns.forget_permits(CALLS_MAX), CALLS_MAX);
    tokio::time::pause();
    let start = Instant::now();
    assert_eq!(site.user("1").await, Err(Answer::Unavailable));
    assert!(start.elapsed() >= TURN_WAIT_MAX && start.elapsed() < 2 * TURN_WAIT_MAX);
    assert_eq!(site.calls(), 0);
}

#[tokio::test]
async fn a_call_that_waits_for_its_turn_is_dropped_when_no_request_waits_for_it() {
    let mut site = Site::closed(|_| json(200, GRANT));
    let (ask, names) = (site.ask.clone(), names(CALLS_MAX));
    let _calls = occupy(&mut site, &ask, &names).await;
    let mut dropped = Box::pin(user(&ask, "dropped"));
    assert!(is_waiting(&mut dropped));
    settle().await;
    let bytes = ask.shared.state.lock().unanswered_bytes;
    drop(dropped);
    settle().await;
    assert!(ask.shared.state.lock().unanswered_bytes < bytes);
    let mut last = Box::pin(user(&ask, "last"));
    assert!(is_waiting(&mut last));
    site.open_gate();
    assert!(last.await.is_ok());
    assert_eq!(site.arrived().await.headers[header::COOKIE], "sid=last");
}

#[tokio::test]
async fn the_bytes_of_waiting_questions_are_limited() {
    let site = Site::closed(|_| json(200, GRANT));
    let (ask, mut waiting) = (site.ask.clone(), Vec::new());
    let session = |number: usize| format!("{number:0>8000}");
    for number in 0.. {
        let ask = ask.clone();
        let mut call = Box::pin(async move { user(&ask, &session(number)).await });
        match (&mut call).now_or_never() {
            None => waiting.push(call),
            Some(outcome) => {
                assert_eq!(outcome, Err(Answer::Unavailable));
                break;
            }
        }
    }
    let bytes = ask.shared.state.lock().unanswered_bytes;
    assert!(bytes <= UNANSWERED_BYTES_MAX && bytes > UNANSWERED_BYTES_MAX - 10_000);
    assert_eq!(waiting.len(), UNANSWERED_BYTES_MAX / (bytes / waiting.len()));
    // Calls that no request waits for do not begin.
    drop(waiting);
    while ask.shared.state.lock().unanswered_bytes > 0 {
        tokio::task::yield_now().await;
    }
    assert!(ask.shared.state.lock().unanswered.is_empty());
    assert_eq!(site.calls(), 0);
}

#[tokio::test]
async fn forgotten_answers_are_not_used_again() {
    let site = Site::new(|_| reusable(60, GRANT));
    assert_eq!(site.user("1").await, Ok(grant()));
    site.ask.forget();
    assert_eq!(site.user("1").await, Ok(grant()));
    assert_eq!(site.calls(), 2);
}

/// The rights of a user may be revoked while the app answers. A revocation calls `forget`, because
/// such an answer may be older than the revocation.
#[tokio::test]
async fn after_forget_new_requests_do_not_join_a_call_in_flight() {
    let mut site = Site::closed(|_| reusable(60, GRANT));
    let ask = site.ask.clone();
    let mut before = Box::pin(outcome_of_user(&ask));
    assert!(is_waiting(&mut before));
    site.arrived().await;
    site.clock.advance(Duration::from_secs(1));
    ask.forget();
    // A new request begins its own call, and does not join the older call.
    let mut after = Box::pin(outcome_of_user(&ask));
    assert!(is_waiting(&mut after));
    site.arrived().await;
    site.app.gate.add_permits(1);
    let older = before.await.unwrap();
    assert_eq!(older.asked_at.after(Duration::from_secs(1)), site.clock.now());
    site.open_gate();
    let newer = after.await.unwrap();
    assert_eq!(newer.asked_at, site.clock.now());
    assert_eq!(outcome_of_user(&ask).await, Ok(newer), "only the newer answer is kept");
    assert_eq!(site.calls(), 2);
}

#[tokio::test]
async fn after_forget_the_grant_of_a_call_in_flight_is_not_stored() {
    let mut site = Site::closed(|_| reusable(60, GRANT));
    let ask = site.ask.clone();
    let mut before = Box::pin(outcome_of_user(&ask));
    assert!(is_waiting(&mut before));
    site.arrived().await;
    ask.forget();
    site.open_gate();
    assert!(before.await.is_ok() && outcome_of_user(&ask).await.is_ok());
    assert_eq!(site.calls(), 2);
}

async fn outcome_of_user(ask: &AskApp) -> Result<Granted, Answer> {
    outcome(ask, &cookie("1")).await
}

#[test]
fn an_app_has_an_http_url() {
    let options = |url: &str| AskOptions {
        url: url.into(),
        cookies: Vec::new(),
        passes_authorization: false,
    };
    assert!(AskApp::new(options("http://app.internal:3000/ask")).is_ok());
    assert!(AskApp::new(options("unix:/run/app.sock")).is_err());
    assert!(AskApp::new(options("http://user:secret@app.example/")).is_err());
}
