//! Chat rooms with presence, typing notices, history and access control.
//!
//! The app has a hub, which keeps events and sends them to its clients. Each room has a topic, and
//! the hub keeps the history of this topic. The events of the topic are the messages, and a notice
//! for each user who joins or leaves. A room has another topic for typing notices, which are useful
//! for a few seconds only. The page reads typing notices over a second stream, which never resumes.
//! So a reader never gets a gap (a notice that events are missing) for typing notices that the hub
//! no longer has.
//!
//! The example has no passwords, so anyone may use any name. A real app replaces `sign_in` with its
//! own login.

mod access;
mod origin;
mod page;
mod presence;
mod session;

use std::future::pending;

use axum::{
    Form, Json, Router,
    extract::{
        DefaultBodyLimit, State,
        rejection::{FormRejection, JsonRejection},
    },
    http::{StatusCode, header::SET_COOKIE},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use downlink::{
    Hub, LastEventId, SubscribeError,
    http::Problem,
    hub::{HubError, HubRetention, Limits, Retention, Start},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use access::{Member, SignedIn};
pub use access::{PRIVATE_ROOM, PRIVATE_ROOM_MEMBERS, ROOM_CHARS_MAX};
use presence::Presence;
pub use presence::PresenceEvent;
pub use session::{NAME_CHARS_MAX, SESSION_AGE_MAX, SESSIONS_MAX, Sessions};

/// The room in which every user starts.
pub const DEFAULT_ROOM: &str = "lobby";

/// The number of earlier events that a new client of a room gets. They fill a few screens.
pub const HISTORY_EVENTS: usize = 50;

/// The maximum length of a text in characters. This is about half a printed page. A longer text
/// would fill the screens of all users in the room.
pub const TEXT_CHARS_MAX: usize = 1_000;

/// The largest request body in bytes. The longest text fits, even if a client escapes every
/// character as two `\u` sequences of six bytes.
pub const BODY_BYTES_MAX: usize = 16 * 1_024;

/// The maximum number of streams of one session. Each tab needs two streams, so a user can open ten
/// tabs.
pub const SESSION_STREAMS_MAX: usize = 20;

/// The maximum number of rooms. Each room has one topic for messages and one for typing notices.
const ROOMS_MAX: usize = 1_000;

/// The retention of typing notices. The page shows a notice for 3 s, so the hub need not keep it
/// for longer than a few seconds.
const TYPING: Retention = Retention {
    events_max: 10,
    bytes_max: 16 << 10,
    age_max: Some(std::time::Duration::from_secs(5)),
};

/// An event of a room.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum RoomEvent {
    /// A message.
    Said {
        /// The author.
        user: String,
        /// The text.
        text: String,
        /// The time when the server received the message, in RFC 3339 format, in UTC.
        at: String,
    },
    /// A user has joined or left.
    Presence(PresenceEvent),
    /// A user is typing.
    Typing {
        /// The user.
        user: String,
    },
}

/// All rooms. Clones share the same rooms.
#[derive(Clone, Debug)]
pub struct Rooms {
    hub: Hub<RoomEvent>,
    sessions: Sessions,
    presence: Presence,
}

impl Rooms {
    /// Makes rooms without messages and without signed-in users.
    ///
    /// # Errors
    ///
    /// [`HubError`] if the settings are invalid. The tests check that they are valid.
    pub fn new() -> Result<Self, HubError> {
        let limits = Limits {
            topics_max: 2 * ROOMS_MAX,
            subscribers_per_client_max: SESSION_STREAMS_MAX,
            ..Limits::default()
        };
        let retention = HubRetention::default().topics("typing/*", TYPING);
        let hub = Hub::builder().json().retention(retention).limits(limits).build()?;
        let presence = Presence::new(hub.clone());
        Ok(Self { hub, sessions: Sessions::default(), presence })
    }
}

/// Makes the app with these rooms.
pub fn app(rooms: Rooms) -> Router {
    Router::new()
        .route("/me", get(me))
        .route("/sign-in", post(sign_in))
        .route("/sign-out", post(sign_out))
        .route("/events", get(join))
        .route("/people", get(people))
        .route("/messages", post(say))
        .route("/typing", get(watch_typing).post(type_on))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(origin::only_our_own))
        .with_state(rooms)
        .merge(page::routes())
}

/// The sign-in form.
#[derive(Deserialize)]
struct Name {
    user: String,
}

async fn sign_in(
    State(rooms): State<Rooms>,
    name: Result<Form<Name>, FormRejection>,
) -> Result<Response, Problem> {
    let Form(name) = name.map_err(|error| {
        let sentence = format!("{}. Send the form field `user`.", error.body_text());
        Problem::new(error.status()).detail(sentence)
    })?;
    let cookie = rooms.sessions.sign_in(&name.user)?;
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response())
}

/// Ends the session and all of its streams.
async fn sign_out(State(rooms): State<Rooms>, who: SignedIn) -> Response {
    rooms.sessions.sign_out(&who.token);
    rooms.hub.disconnect(&who.session.client());
    (StatusCode::NO_CONTENT, [(SET_COOKIE, session::NO_COOKIE)]).into_response()
}

/// The answer to `GET /me`: the signed-in user, and the rooms that the page offers to the user.
#[derive(Serialize)]
struct Me {
    user: String,
    rooms: Vec<&'static str>,
}

async fn me(who: SignedIn) -> Json<Me> {
    let rooms = access::rooms_of(&who.session.user);
    Json(Me { user: who.session.user, rooms })
}

async fn join(
    State(rooms): State<Rooms>,
    member: Member,
    last: LastEventId,
) -> Result<Response, SubscribeError> {
    let subscribe = rooms.hub.subscribe().topic_segments(member.topic());
    let subscribe = subscribe.client(member.session.client()).announce_alive(true);
    let subscribe = subscribe.start(Start::Last(HISTORY_EVENTS)).resume(last);
    let subscription = subscribe.open().await?;
    // The user is in the room until this guard is dropped. The future below never completes and
    // holds the guard. The stream holds the future, so all three are dropped together.
    let here = rooms.presence.enter(&member.room, &member.session.user);
    let sse = subscription.into_sse().until(async move {
        let _here = here;
        pending::<()>().await;
    });
    Ok(sse.expires_at(member.session.ends).into_response())
}

async fn people(State(rooms): State<Rooms>, member: Member) -> Json<presence::People> {
    Json(rooms.presence.people(&member.room))
}

/// A message as a client sends it.
#[derive(Deserialize)]
struct Draft {
    text: String,
}

async fn say(
    State(rooms): State<Rooms>,
    member: Member,
    draft: Result<Json<Draft>, JsonRejection>,
) -> Result<StatusCode, Problem> {
    let Json(Draft { text }) = draft.map_err(|rejection| unreadable(&rejection))?;
    let text = text.trim();
    let chars = text.chars().count();
    if !(1..=TEXT_CHARS_MAX).contains(&chars) {
        return Err(Problem::new(StatusCode::BAD_REQUEST).detail(format!(
            "The text has {chars} characters. Write 1 to {TEXT_CHARS_MAX} characters."
        )));
    }
    let at = format!("{:.3}", Timestamp::now());
    let said = RoomEvent::Said { user: member.session.user.clone(), text: text.into(), at };
    let said = rooms.hub.to_segments(member.topic()).publish(said);
    said.map_err(|error| error.to_problem())?;
    Ok(StatusCode::ACCEPTED)
}

async fn type_on(State(rooms): State<Rooms>, member: Member) -> Result<StatusCode, Problem> {
    let typing = RoomEvent::Typing { user: member.session.user.clone() };
    let typed = rooms.hub.to_segments(member.typing_topic()).event("typing").publish(typing);
    typed.map_err(|error| error.to_problem())?;
    Ok(StatusCode::ACCEPTED)
}

async fn watch_typing(
    State(rooms): State<Rooms>,
    member: Member,
    last: LastEventId,
) -> Result<Response, SubscribeError> {
    let subscribe = rooms.hub.subscribe().topic_segments(member.typing_topic());
    // The subscription does not use the client's last event id, because old typing notices are
    // useless.
    let subscribe = subscribe.client(member.session.client()).resume(last.without_id());
    let subscription = subscribe.open().await?;
    Ok(subscription.into_sse().expires_at(member.session.ends).into_response())
}

/// The answer to a request whose body is not a message.
fn unreadable(rejection: &JsonRejection) -> Problem {
    let status = match rejection {
        JsonRejection::JsonDataError(_) => StatusCode::BAD_REQUEST,
        other => other.status(),
    };
    Problem::new(status).detail(format!(
        r#"{}. Send {{"text":"…"}} as application/json, at most {BODY_BYTES_MAX} bytes."#,
        rejection.body_text()
    ))
}
