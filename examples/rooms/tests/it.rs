//! Tests of the endpoints and of the program. The tests of the endpoints use no socket.

#[cfg(unix)]
#[path = "../../progress/tests/started/mod.rs"]
mod started;
#[expect(dead_code, reason = "a client needs a cookie before it can open a stream")]
#[path = "../../basic/tests/support/mod.rs"]
mod support;

use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode},
};
use http_body_util::BodyExt as _;
use rooms::{
    BODY_BYTES_MAX, HISTORY_EVENTS, PRIVATE_ROOM, Rooms, SESSION_AGE_MAX, SESSION_STREAMS_MAX,
    TEXT_CHARS_MAX,
};
use serde_json::{Value, json};
use support::{patiently, program, send};

fn app() -> Router {
    rooms::app(Rooms::new().expect("the settings are valid"))
}

/// A user: the app that the user sends requests to, and the user's cookie after the sign-in.
struct Person {
    app: Router,
    cookie: String,
}

/// An event stream and everything read from it.
struct Stream {
    body: Body,
    seen: String,
}

impl Stream {
    async fn sees(&mut self, text: &str) -> &str {
        while !self.seen.contains(text) {
            self.read()
                .await
                .unwrap_or_else(|| panic!("the stream ended without {text:?}: {}", self.seen));
        }
        &self.seen
    }

    async fn read(&mut self) -> Option<()> {
        let frame = patiently(self.body.frame()).await?.expect("the body has not failed");
        let bytes = frame.into_data().expect("the frame has data");
        self.seen.push_str(std::str::from_utf8(&bytes).expect("no read ends within a character"));
        Some(())
    }

    async fn ends(&mut self) {
        while self.read().await.is_some() {}
    }

    /// The presence events so far. Each has the user who joined or left, whether the user joined,
    /// and the users in the room after the change.
    fn presence(&self) -> Vec<(String, bool, String)> {
        let frames = self.seen.split("\n\n").filter(|frame| frame.contains("event: presence\n"));
        let presence = frames.map(|frame| {
            let data = frame.split_once("data: ").expect("the event has data").1;
            let event: Value = serde_json::from_str(data).expect("the text is JSON");
            let people = event["people"].as_array().expect("the value is a list").iter();
            let people: Vec<_> =
                people.map(|name| name.as_str().expect("the name is text")).collect();
            let user = event["user"].as_str().expect("the name is text").to_owned();
            (user, event["came"].as_bool().expect("the value is true or false"), people.join(" "))
        });
        presence.collect()
    }
}

impl Person {
    fn stranger(app: &Router) -> Self {
        Self { app: app.clone(), cookie: "a=b".into() }
    }

    async fn signed_in(app: &Router, name: &str) -> Self {
        let mut person = Self::stranger(app);
        let response = person.form(name).await;
        assert_eq!(response.status(), 204);
        let cookie =
            response.headers()["set-cookie"].to_str().expect("the value is ASCII").to_owned();
        let (pair, rest) = cookie.split_once("; ").expect("the cookie has attributes");
        assert_eq!(rest, "HttpOnly; SameSite=Strict; Path=/; Max-Age=43200");
        person.cookie = format!("a=b; {pair}");
        person
    }

    async fn form(&self, name: &str) -> Response<Body> {
        let request = Request::post("/sign-in")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(format!("user={name}")));
        send(&self.app, request.expect("the request is valid")).await
    }

    async fn request(&self, method: &str, path: &str, body: String) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path).header("cookie", &self.cookie);
        let request = request.header("content-type", "application/json").body(Body::from(body));
        whole(send(&self.app, request.expect("the request is valid")).await).await
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        self.request("GET", path, String::new()).await
    }

    async fn post(&self, path: &str) -> (StatusCode, String) {
        self.request("POST", path, String::new()).await
    }

    async fn say(&self, room: &str, text: &str) -> (StatusCode, String) {
        let body = json!({ "text": text }).to_string();
        self.request("POST", &format!("/messages?room={room}"), body).await
    }

    async fn says(&self, room: &str, text: &str) {
        assert_eq!(self.say(room, text).await.0, 202);
    }

    async fn opens(&self, path: &str, last_event_id: &str) -> Stream {
        let request = Request::get(path)
            .header("cookie", &self.cookie)
            .header("last-event-id", last_event_id)
            .body(Body::empty());
        let response = send(&self.app, request.expect("the request is valid")).await;
        assert_eq!(response.status(), 200);
        let mut stream = Stream { body: response.into_body(), seen: String::new() };
        stream.sees("keep_alive_ms").await;
        stream
    }

    async fn joins(&self, room: &str) -> Stream {
        self.opens(&format!("/events?room={room}"), "").await
    }
}

async fn whole(response: Response<Body>) -> (StatusCode, String) {
    let status = response.status();
    if !status.is_success() {
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }
    let body = response.into_body().collect().await.expect("the body is complete").to_bytes();
    (status, String::from_utf8(body.into()).expect("the text is UTF-8"))
}

/// The texts of all messages in a stream, in order.
fn texts(seen: &str) -> Vec<String> {
    let data = seen.lines().filter_map(|line| line.strip_prefix("data: "));
    let data = data.map(|data| serde_json::from_str::<Value>(data).expect("the text is JSON"));
    data.filter_map(|event| Some(event["text"].as_str()?.to_owned())).collect()
}

fn last_id(seen: &str) -> String {
    let mut ids = seen.lines().filter_map(|line| line.strip_prefix("id: "));
    ids.next_back().expect("the stream has an id").to_owned()
}

#[tokio::test]
async fn only_readers_of_a_room_get_its_messages() {
    let app = app();
    let (alice, bob) =
        (Person::signed_in(&app, "Alice").await, Person::signed_in(&app, "bob").await);
    let mut here = [alice.joins("lobby").await, bob.opens("/events", "").await];
    let mut elsewhere = bob.joins("random").await;
    alice.says("lobby", " <b>Hi</b>\n").await;
    bob.says("random", "elsewhere").await;
    for stream in &mut here {
        let seen = stream.sees(r#"data: {"user":"alice","text":"<b>Hi</b>","at":""#).await;
        assert_eq!(texts(seen), ["<b>Hi</b>"]);
    }
    assert_eq!(texts(elsewhere.sees("elsewhere").await), ["elsewhere"]);
}

#[tokio::test]
async fn new_reader_gets_history_and_reconnecting_reader_gets_missed_messages() {
    let app = app();
    let alice = Person::signed_in(&app, "alice").await;
    for number in 1..=HISTORY_EVENTS + 10 {
        alice.says("lobby", &format!("number {number}")).await;
    }
    let mut stream = alice.joins("lobby").await;
    let id = last_id(stream.sees("number 60").await);
    let expected: Vec<_> = (11..=60).map(|number| format!("number {number}")).collect();
    assert_eq!(texts(&stream.seen), expected);
    drop(stream);
    for text in ["one", "two"] {
        alice.says("lobby", text).await;
    }
    let mut stream = alice.opens("/events?room=lobby", &id).await;
    assert_eq!(texts(stream.sees("two").await), ["one", "two"]);
}

#[tokio::test]
async fn user_with_two_tabs_joins_once_and_leaves_with_the_last_tab() {
    let app = app();
    let (alice, bob) =
        (Person::signed_in(&app, "alice").await, Person::signed_in(&app, "bob").await);
    let mut watching = alice.joins("lobby").await;
    let tabs = (bob.joins("lobby").await, bob.joins("lobby").await);
    drop(tabs.0);
    alice.says("lobby", "one tab is closed").await;
    watching.sees("one tab is closed").await;
    drop(tabs.1);
    alice.says("lobby", "both are closed").await;
    watching.sees("both are closed").await;
    let expected = [("alice", true, "alice"), ("bob", true, "alice bob"), ("bob", false, "alice")];
    assert_eq!(
        watching.presence(),
        expected.map(|(who, came, now)| (who.into(), came, now.into()))
    );
}

#[tokio::test]
async fn version_of_the_list_of_people_rises_with_each_change() {
    let app = app();
    let alice = Person::signed_in(&app, "alice").await;
    let people = async || {
        let (status, answer) = alice.get("/people?room=lobby").await;
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str::<Value>(&answer).expect("the text is JSON")
    };
    assert_eq!(people().await, json!({ "version": 0, "people": [] }));
    let tab = alice.joins("lobby").await;
    let _elsewhere = alice.joins("random").await;
    assert_eq!(people().await, json!({ "version": 2, "people": ["alice"] }));
    drop(tab);
    assert_eq!(people().await, json!({ "version": 3, "people": [] }));
}

#[tokio::test]
async fn typing_notices_arrive_at_once_and_are_not_replayed() {
    let app = app();
    let (alice, bob) =
        (Person::signed_in(&app, "alice").await, Person::signed_in(&app, "bob").await);
    let mut room = bob.joins("lobby").await;
    let mut typing = bob.opens("/typing?room=lobby", "").await;
    let id = last_id(&typing.seen);
    assert_eq!(alice.post("/typing?room=lobby").await.0, 202);
    let seen = typing.sees(r#"data: {"user":"alice"}"#).await;
    assert!(seen.contains("event: typing\n"), "{seen}");

    for _ in 0..100 {
        alice.post("/typing?room=lobby").await;
    }
    let mut again = bob.opens("/typing?room=lobby", &id).await;
    bob.post("/typing?room=lobby").await;
    let seen = again.sees("bob").await;
    assert!(!seen.contains("alice") && !seen.contains("downlink.gap"), "{seen}");
    alice.says("lobby", "done").await;
    let seen = room.sees("done").await;
    assert!(!seen.contains("event: typing") && !seen.contains("downlink.gap"), "{seen}");
}

#[tokio::test]
async fn private_room_is_for_its_members_only() {
    let app = app();
    let (alice, carol) =
        (Person::signed_in(&app, "alice").await, Person::signed_in(&app, "carol").await);
    let mut stream = alice.joins(PRIVATE_ROOM).await;
    for path in ["/events", "/typing", "/people"] {
        let (status, answer) = carol.get(&format!("{path}?room={PRIVATE_ROOM}")).await;
        assert_eq!(status, 403, "{path}");
        assert!(answer.contains("The room private-team is not for carol."), "{answer}");
    }
    assert_eq!(carol.say(PRIVATE_ROOM, "let me in").await.0, 403);
    assert_eq!(carol.post(&format!("/typing?room={PRIVATE_ROOM}")).await.0, 403);
    assert_eq!(alice.get("/events?room=private-other").await.0, 403);
    alice.says(PRIVATE_ROOM, "alone").await;
    assert_eq!(texts(stream.sees("alone").await), ["alone"]);
    let me = r#"{"user":"carol","rooms":["lobby","random"]}"#;
    assert_eq!(carol.get("/me").await, (StatusCode::OK, me.into()));
}

#[tokio::test]
async fn requests_without_a_session_get_401() {
    let app = app();
    let mut stranger = Person::stranger(&app);
    for cookie in ["", "a=b", "rooms_session=", "rooms_session=0123456789abcdef0123456789abcdef"] {
        stranger.cookie = cookie.into();
        for path in ["/me", "/events", "/typing", "/people"] {
            let (status, answer) = stranger.get(path).await;
            assert_eq!(status, 401, "{path}");
            assert!(answer.contains("Sign in first."), "{answer}");
        }
        for path in ["/typing", "/sign-out"] {
            assert_eq!(stranger.post(path).await.0, 401, "{path}");
        }
        assert_eq!(stranger.say("lobby", "x").await.0, 401);
    }
}

#[tokio::test]
async fn signing_out_ends_only_the_streams_of_this_session() {
    let app = app();
    let (here, there) =
        (Person::signed_in(&app, "alice").await, Person::signed_in(&app, "alice").await);
    let mut streams = [here.joins("lobby").await, here.opens("/typing", "").await];
    let mut other = there.joins("lobby").await;
    assert_eq!(here.post("/sign-out").await.0, 204);
    for stream in &mut streams {
        stream.ends().await;
    }
    assert_eq!(here.get("/me").await.0, 401);
    there.says("lobby", "still here").await;
    other.sees("still here").await;
}

#[tokio::test(start_paused = true)]
async fn stream_ends_when_its_session_ends() {
    let alice = Person::signed_in(&app(), "alice").await;
    let mut stream = alice.joins("lobby").await;
    let began = tokio::time::Instant::now();
    while tokio::time::timeout(SESSION_AGE_MAX, stream.read())
        .await
        .expect("the stream ends in time")
        .is_some()
    {}
    assert!(began.elapsed() >= SESSION_AGE_MAX - std::time::Duration::from_secs(1));
    assert_eq!(alice.get("/events").await.0, 401);
}

#[tokio::test]
async fn stream_above_the_limit_of_a_session_is_refused() {
    let app = app();
    let alice = Person::signed_in(&app, "alice").await;
    let mut streams = Vec::new();
    for _ in 0..SESSION_STREAMS_MAX {
        streams.push(alice.joins("lobby").await);
    }
    let (status, answer) = alice.get("/events?room=lobby").await;
    assert_eq!(status, 503, "{answer}");
    streams.pop();
    alice.joins("lobby").await;
}

#[tokio::test]
async fn invalid_name_is_refused_with_a_reason() {
    let app = app();
    let stranger = Person::stranger(&app);
    for name in ["", "%3Cb%3E", "a%20b", &"x".repeat(21)] {
        let (status, answer) = whole(stranger.form(name).await).await;
        assert_eq!(status, 400, "{name}");
        assert!(answer.contains("A name has 1 to 20 letters"), "{answer}");
    }
    let (status, answer) = stranger.post("/sign-in").await;
    assert_eq!(status, 415, "{answer}");
}

#[tokio::test]
async fn invalid_message_or_room_is_refused_with_a_reason() {
    let app = app();
    let alice = Person::signed_in(&app, "alice").await;
    for (body, reason) in
        [("", "EOF while parsing"), ("{}", "missing field `text`"), (r#"{"text":" "}"#, "0 charac")]
    {
        let (status, answer) = alice.request("POST", "/messages", body.into()).await;
        assert_eq!(status, 400, "{body}");
        assert!(answer.contains(reason), "{answer}");
    }
    for room in ["Lobby", "a/b", "*", "", "a&room=b"] {
        let (status, answer) = alice.get(&format!("/people?room={room}")).await;
        assert_eq!(status, 400, "{room}: {answer}");
    }
}

#[tokio::test]
async fn text_or_body_above_the_limit_is_refused() {
    let app = app();
    let alice = Person::signed_in(&app, "alice").await;
    for (chars, expected) in
        [(TEXT_CHARS_MAX - 1, 202), (TEXT_CHARS_MAX, 202), (TEXT_CHARS_MAX + 1, 400)]
    {
        assert_eq!(alice.say("lobby", &"é".repeat(chars)).await.0, expected);
    }
    let message = r#"{"text":"x"}"#;
    for (bytes, expected) in
        [(BODY_BYTES_MAX - 1, 202), (BODY_BYTES_MAX, 202), (BODY_BYTES_MAX + 1, 413)]
    {
        let body = format!("{message}{}", " ".repeat(bytes - message.len()));
        assert_eq!(alice.request("POST", "/messages", body).await.0, expected);
    }
}

#[tokio::test]
async fn page_of_another_origin_cannot_post() {
    let app = app();
    let alice = Person::signed_in(&app, "alice").await;
    for path in ["/messages", "/typing", "/sign-in", "/sign-out"] {
        let request = Request::post(path)
            .header("cookie", &alice.cookie)
            .header("host", "127.0.0.1:8080")
            .header("origin", "http://127.0.0.1:8081")
            .body(Body::from(r#"{"text":"x"}"#));
        let (status, answer) =
            whole(send(&app, request.expect("the request is valid")).await).await;
        assert_eq!(status, 403, "{path}");
        assert!(answer.contains("a page of another origin"), "{answer}");
    }
    assert_eq!(alice.get("/me").await.0, 200, "alice is still signed in");
}

#[tokio::test]
async fn page_contacts_no_other_server() {
    for path in ["/", "/rooms.css", "/rooms.js"] {
        let request = Request::get(path).body(Body::empty()).expect("the request is valid");
        let response = send(&app(), request).await;
        assert_eq!(response.status(), 200);
        let policy =
            response.headers()["content-security-policy"].to_str().expect("the value is ASCII");
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}

/// The page does not allow input that the server would refuse.
#[tokio::test]
async fn input_fields_of_the_page_have_the_limits_of_the_server() {
    let (_, page) = Person::stranger(&app()).get("/").await;
    for (id, chars_max) in [("name", rooms::NAME_CHARS_MAX), ("text", TEXT_CHARS_MAX)] {
        let field = format!(r#"<input id="{id}" maxlength="{chars_max}""#);
        assert!(page.contains(&field), "{field}");
    }
}

#[cfg(unix)]
mod running {
    use rustix::process::Signal;

    use super::{program, started::Started};

    const PROGRAM: &str = env!("CARGO_BIN_EXE_rooms");

    #[tokio::test]
    async fn program_ends_at_a_signal_while_a_user_is_in_a_room() {
        for signal in [Signal::INT, Signal::TERM] {
            let program = Started::with(PROGRAM, &["0"]).await;
            let form = "application/x-www-form-urlencoded";
            let answer = program.post("/sign-in", form, "user=alice").await;
            let cookie = answer.split("rooms_session=").nth(1).expect(&answer);
            let token = cookie.split(';').next().expect("the cookie has a token");
            let headers = format!("Cookie: rooms_session={token}\r\n");
            program.ends_with_open("/events", &headers, signal).await;
        }
    }

    #[tokio::test]
    async fn the_error_names_the_port_that_is_in_use() {
        program::names_a_port_in_use(PROGRAM).await;
    }

    #[tokio::test]
    async fn the_port_is_set_by_the_argument_or_by_the_variable() {
        program::takes_its_port_from_argument_or_variable(PROGRAM).await;
    }
}
