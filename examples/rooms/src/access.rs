//! Access control. These extractors check the cookie and the query of a request before the
//! request's handler runs.

use axum::{
    extract::{FromRequestParts, Query},
    http::{StatusCode, header::COOKIE, request::Parts},
};
use downlink::http::Problem;
use serde::Deserialize;

use crate::{
    DEFAULT_ROOM, Rooms,
    session::{Session, token_in},
};

/// The maximum length of a room's name in characters.
pub const ROOM_CHARS_MAX: usize = 32;

/// The names of private rooms begin with this prefix.
const PRIVATE: &str = "private-";

/// The only private room of this example.
pub const PRIVATE_ROOM: &str = "private-team";

/// The members of the private room. A real app would read them from its database.
pub const PRIVATE_ROOM_MEMBERS: [&str; 2] = ["alice", "bob"];

/// A user with a session.
pub(crate) struct SignedIn {
    pub(crate) session: Session,
    pub(crate) token: String,
}

/// A user with a session, and the room of the request. The user may join this room.
pub(crate) struct Member {
    pub(crate) session: Session,
    pub(crate) room: String,
}

impl Member {
    pub(crate) fn topic(&self) -> [&str; 2] {
        topic(&self.room)
    }

    pub(crate) fn typing_topic(&self) -> [&str; 2] {
        ["typing", &self.room]
    }
}

/// The segments of a room's topic. The room's name is a whole segment, so a `/` in it cannot lead
/// to another topic.
pub(crate) fn topic(room: &str) -> [&str; 2] {
    ["rooms", room]
}

/// The rooms that the page offers to a user. A user may also join any other room without the
/// private prefix.
pub(crate) fn rooms_of(user: &str) -> Vec<&'static str> {
    let rooms = [DEFAULT_ROOM, "random", PRIVATE_ROOM];
    rooms.into_iter().filter(|room| may_join(user, room)).collect()
}

fn may_join(user: &str, room: &str) -> bool {
    if !room.starts_with(PRIVATE) {
        return true;
    }
    room == PRIVATE_ROOM && PRIVATE_ROOM_MEMBERS.contains(&user)
}

impl FromRequestParts<Rooms> for SignedIn {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, rooms: &Rooms) -> Result<Self, Problem> {
        let mut cookies = parts.headers.get_all(COOKIE).iter().filter_map(|one| one.to_str().ok());
        let found = cookies.find_map(|cookies| {
            let token = token_in(cookies)?;
            Some(Self { session: rooms.sessions.of(token)?, token: token.to_owned() })
        });
        found.ok_or_else(|| {
            Problem::new(StatusCode::UNAUTHORIZED).detail("You are not signed in. Sign in first.")
        })
    }
}

/// The query of a request.
#[derive(Deserialize)]
struct Where {
    room: Option<String>,
}

impl FromRequestParts<Rooms> for Member {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, rooms: &Rooms) -> Result<Self, Problem> {
        let SignedIn { session, .. } = SignedIn::from_request_parts(parts, rooms).await?;
        let query = Query::<Where>::try_from_uri(&parts.uri);
        let Query(Where { room }) = query.map_err(|error| bad(error.body_text()))?;
        let room = room.unwrap_or_else(|| DEFAULT_ROOM.into());
        check_room(&room)?;
        if !may_join(&session.user, &room) {
            let sentence =
                format!("The room {room} is not for {}. Go to another one.", session.user);
            return Err(Problem::new(StatusCode::FORBIDDEN).detail(sentence));
        }
        Ok(Self { session, room })
    }
}

fn check_room(room: &str) -> Result<(), Problem> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=ROOM_CHARS_MAX).contains(&room.len()) && room.bytes().all(is_plain) {
        return Ok(());
    }
    Err(bad(format!(
        "A room's name has 1 to {ROOM_CHARS_MAX} characters: lower-case letters from a to z, digits and -."
    )))
}

fn bad(sentence: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST).detail(sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_rooms_are_for_their_members() {
        assert!(may_join("alice", PRIVATE_ROOM) && may_join("bob", PRIVATE_ROOM));
        assert!(!may_join("carol", PRIVATE_ROOM));
        assert!(!may_join("alice", "private-other"), "the room private-other has no members");
        assert!(may_join("carol", "privates"));
        assert_eq!(rooms_of("carol"), [DEFAULT_ROOM, "random"]);
    }

    #[test]
    fn empty_long_or_unusual_room_name_is_refused() {
        for length in [1, ROOM_CHARS_MAX - 1, ROOM_CHARS_MAX] {
            assert!(check_room(&"a".repeat(length)).is_ok());
        }
        let long = "a".repeat(ROOM_CHARS_MAX + 1);
        for room in ["", "Lobby", "a/b", "*", "é", &long] {
            assert_eq!(
                check_room(room).expect_err("the name is invalid").status(),
                400,
                "{room:?}"
            );
        }
    }
}
