//! Sessions in memory. A cookie with a random token names a session.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::StatusCode;
use downlink::http::Problem;
use tokio::time::Instant;

/// The maximum length of a name in characters. The page shows the name and the message on one line,
/// so a name must be short.
pub const NAME_CHARS_MAX: usize = 20;

/// The maximum number of sessions. Each session takes a few hundred bytes, so all sessions take a
/// few megabytes. If there are this many sessions, no other user can sign in.
pub const SESSIONS_MAX: usize = 10_000;

/// How long a session lasts. Twelve hours cover a working day, so a user signs in once a day.
pub const SESSION_AGE_MAX: Duration = Duration::from_secs(12 * 60 * 60);

/// The name of the cookie. Browsers send the cookies of this machine to the programs on all of its
/// ports. Another program may use the name `session`, so this program uses a less common name.
const COOKIE: &str = "rooms_session";

/// The header value that deletes the cookie.
pub(crate) const NO_COOKIE: &str = "rooms_session=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0";

/// The number of bytes in a token. An attacker cannot guess 128 random bits.
const TOKEN_BYTES: usize = 16;

/// The session of a user.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Session {
    pub(crate) user: String,
    pub(crate) ends: Instant,
    number: u64,
}

impl Session {
    /// The client id of all streams of this session.
    pub(crate) fn client(&self) -> String {
        format!("session-{}", self.number)
    }
}

#[derive(Default)]
struct Table {
    by_token: HashMap<String, Session>,
    /// The number of sessions ever started.
    count: u64,
}

/// All sessions. Clones share the same table.
///
/// The lock is held for one read or change, and never across an await. No other lock is taken while
/// it is held.
#[derive(Clone, Default)]
pub struct Sessions(Arc<Mutex<Table>>);

/// The output has no tokens, because anyone with a token can use the session.
impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sessions").field(&self.lock().by_token.len()).finish()
    }
}

impl Sessions {
    /// Starts a session and returns its cookie.
    ///
    /// # Errors
    ///
    /// A problem with status 400 if the name is invalid, 503 if there are too many sessions, or 500
    /// if the system provides no random bytes.
    pub fn sign_in(&self, name: &str) -> Result<String, Problem> {
        let user = check_name(name)?;
        let token = token()?;
        let now = Instant::now();
        let mut table = self.lock();
        // Ended sessions are removed only when the table is full.
        if table.by_token.len() >= SESSIONS_MAX {
            table.by_token.retain(|_, session| session.ends > now);
        }
        if table.by_token.len() >= SESSIONS_MAX {
            let sentence = format!("{SESSIONS_MAX} people are signed in. Try again later.");
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE).detail(sentence));
        }
        table.count += 1;
        let session = Session { user, ends: now + SESSION_AGE_MAX, number: table.count };
        table.by_token.insert(token.clone(), session);
        let seconds = SESSION_AGE_MAX.as_secs();
        Ok(format!("{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/; Max-Age={seconds}"))
    }

    pub(crate) fn sign_out(&self, token: &str) {
        self.lock().by_token.remove(token);
    }

    /// The session of a token. Returns `None` if the session has ended or never existed.
    pub(crate) fn of(&self, token: &str) -> Option<Session> {
        let session = self.lock().by_token.get(token).cloned()?;
        (session.ends > Instant::now()).then_some(session)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The token of the session in the value of a `Cookie` header.
pub(crate) fn token_in(cookies: &str) -> Option<&str> {
    cookies.split(';').find_map(|cookie| {
        let (name, value) = cookie.trim().split_once('=')?;
        (name == COOKIE).then_some(value)
    })
}

fn check_name(name: &str) -> Result<String, Problem> {
    let name = name.trim().to_ascii_lowercase();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if (1..=NAME_CHARS_MAX).contains(&name.len()) && name.bytes().all(is_plain) {
        return Ok(name);
    }
    Err(Problem::new(StatusCode::BAD_REQUEST).detail(format!(
        "A name has 1 to {NAME_CHARS_MAX} letters from a to z, digits, - and _. Choose another one."
    )))
}

fn token() -> Result<String, Problem> {
    let mut bytes = [0; TOKEN_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| {
        let sentence = format!("The system provides no random bytes: {error}.");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR).detail(sentence)
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_name_is_lower_cased_and_invalid_name_is_refused() {
        assert_eq!(check_name(" Alice_2-b ").expect("the name is valid"), "alice_2-b");
        for length in [1, NAME_CHARS_MAX - 1, NAME_CHARS_MAX] {
            assert!(check_name(&"a".repeat(length)).is_ok());
        }
        let long = "a".repeat(NAME_CHARS_MAX + 1);
        for name in ["", " ", "a b", "<b>", "é", "a/b", &long] {
            let problem = check_name(name).expect_err("the name is invalid");
            assert_eq!(problem.status(), 400, "{name:?}");
        }
    }

    #[test]
    fn token_is_found_among_cookies() {
        assert_eq!(token_in("a=b; rooms_session=7f; c"), Some("7f"));
        assert_eq!(token_in("xrooms_session=7f"), None);
        assert_eq!(token_in(""), None);
    }

    #[tokio::test(start_paused = true)]
    async fn session_ends_by_age_or_by_signing_out() {
        let sessions = Sessions::default();
        let cookie = sessions.sign_in("Alice").expect("the user gets a session");
        let token = token_in(cookie.split(';').next().expect("the cookie has a value"))
            .expect("the cookie has a token");
        assert_eq!(sessions.of(token).expect("the user is signed in").user, "alice");
        assert_eq!(sessions.of("0"), None);
        tokio::time::advance(SESSION_AGE_MAX - Duration::from_secs(1)).await;
        assert!(sessions.of(token).is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(sessions.of(token), None);

        let cookie = sessions.sign_in("Alice").expect("the user gets a session");
        let token = token_in(cookie.split(';').next().expect("the cookie has a value"))
            .expect("the cookie has a token");
        sessions.sign_out(token);
        assert_eq!(sessions.of(token), None);
    }

    #[tokio::test(start_paused = true)]
    async fn session_above_the_limit_is_refused_until_others_have_ended() {
        let sessions = Sessions::default();
        for _ in 0..SESSIONS_MAX {
            sessions.sign_in("alice").expect("the limit is not reached");
        }
        assert_eq!(sessions.sign_in("bob").expect_err("the limit is reached").status(), 503);
        tokio::time::advance(SESSION_AGE_MAX).await;
        sessions.sign_in("bob").expect("the other sessions have ended");
    }

    #[tokio::test]
    async fn debug_shows_no_token() {
        let sessions = Sessions::default();
        sessions.sign_in("alice").expect("the user gets a session");
        assert_eq!(format!("{sessions:?}"), "Sessions(1)");
    }
}
