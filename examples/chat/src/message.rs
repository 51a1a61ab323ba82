//! The draft that a client sends, and the message that everyone gets.
//!
//! A [`Draft`] may be invalid. A [`Message`] is valid: its name and text are within the limits,
//! without spaces around them, and it has the server's time. The text is not escaped for HTML, so
//! the page must show it as text.

use axum::{extract::rejection::JsonRejection, http::StatusCode};
use downlink::http::Problem;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The maximum length of a text in characters. This is about one printed page. A longer text would
/// fill the screens of all users.
pub const TEXT_CHARS_MAX: usize = 2_000;

/// The maximum length of a name in characters. The page shows the name and the message on one line,
/// so a name must be short.
pub const USER_CHARS_MAX: usize = 40;

/// The largest request body in bytes. The longest text and name fit, even if a client escapes every
/// character as two `\u` sequences of six bytes.
pub const BODY_BYTES_MAX: usize = 32 * 1_024;

/// The name of a user who gives no name.
const ANONYMOUS: &str = "Anonymous";

/// A message as a client sends it.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Draft {
    /// The author, which may be missing or empty.
    pub user: Option<String>,
    /// The text.
    pub text: String,
}

/// A message as everyone reads it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Message {
    /// The author.
    pub user: String,
    /// The text.
    pub text: String,
    /// The time when the server received the message, in RFC 3339 format, in UTC, to the
    /// millisecond.
    pub timestamp: String,
}

impl Draft {
    /// Checks the draft and converts it to a message.
    ///
    /// # Errors
    ///
    /// A problem with status 400 if the text is empty, or the text or name is too long.
    pub fn into_message(self, now: Timestamp) -> Result<Message, Problem> {
        let text = self.text.trim();
        if text.is_empty() {
            return Err(wrong("The text is empty. Write something."));
        }
        check_length("text", text, TEXT_CHARS_MAX)?;
        let user = self.user.as_deref().map(str::trim).filter(|user| !user.is_empty());
        let user = user.unwrap_or(ANONYMOUS);
        check_length("name", user, USER_CHARS_MAX)?;
        Ok(Message { user: user.into(), text: text.into(), timestamp: format!("{now:.3}") })
    }
}

fn check_length(what: &str, text: &str, chars_max: usize) -> Result<(), Problem> {
    match text.chars().count() {
        chars if chars > chars_max => Err(wrong(format!(
            "The {what} has {chars} characters, at most {chars_max} are allowed. Shorten it."
        ))),
        _ => Ok(()),
    }
}

fn wrong(sentence: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST).detail(sentence.into())
}

/// The answer to a request whose body is not a draft.
pub(crate) fn unreadable(rejection: &JsonRejection) -> Problem {
    let status = match rejection {
        JsonRejection::JsonDataError(_) => StatusCode::BAD_REQUEST,
        other => other.status(),
    };
    Problem::new(status).detail(format!(
        r#"{}. Send {{"user":"…","text":"…"}} as application/json, at most {BODY_BYTES_MAX} bytes."#,
        rejection.body_text()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(user: Option<&str>, text: &str) -> Result<Message, String> {
        let draft = Draft { user: user.map(Into::into), text: text.into() };
        let now = Timestamp::from_millisecond(1_000_000_000_987).expect("the time is valid");
        draft.into_message(now).map_err(|problem| problem.to_json())
    }

    #[test]
    fn message_is_trimmed_and_has_the_time() {
        let expected = Message {
            user: "Alice".into(),
            text: "a <b>\n c".into(),
            timestamp: "2001-09-09T01:46:40.987Z".into(),
        };
        assert_eq!(message(Some(" Alice\n"), "\ta <b>\n c "), Ok(expected));
    }

    #[test]
    fn author_without_a_name_is_anonymous() {
        for user in [None, Some(""), Some(" \t")] {
            assert_eq!(message(user, "x").expect("the draft is valid").user, "Anonymous");
        }
    }

    #[test]
    fn empty_text_is_refused() {
        for text in ["", " ", "\n\t\u{3000}"] {
            let problem = message(None, text).unwrap_err();
            assert!(problem.contains(r#""status":400"#), "{problem}");
            assert!(problem.contains("The text is empty"), "{problem}");
        }
    }

    #[test]
    fn text_above_the_limit_is_refused() {
        let text = |chars| "é".repeat(chars);
        assert!(message(None, &text(TEXT_CHARS_MAX - 1)).is_ok());
        assert!(message(None, &text(TEXT_CHARS_MAX)).is_ok());
        let problem = message(None, &text(TEXT_CHARS_MAX + 1)).unwrap_err();
        assert!(problem.contains("The text has 2001 characters, at most 2000"), "{problem}");
    }

    #[test]
    fn name_above_the_limit_is_refused() {
        let user = |chars| "é".repeat(chars);
        assert!(message(Some(&user(USER_CHARS_MAX - 1)), "x").is_ok());
        assert!(message(Some(&user(USER_CHARS_MAX)), "x").is_ok());
        let problem = message(Some(&user(USER_CHARS_MAX + 1)), "x").unwrap_err();
        assert!(problem.contains("The name has 41 characters, at most 40"), "{problem}");
    }
}
