//! Values in a line of the log: text from clients, and times.

use std::time::Duration;

use axum::http::HeaderValue;

/// Whether a character controls a terminal, or is invisible. Invisible characters are, for example,
/// tags, line separators, and characters that set the direction of text. The two joiners U+200C and
/// U+200D do not count, because Persian text and emoji need them.
pub(crate) fn is_hidden(letter: char) -> bool {
    match letter {
        '\u{200c}' | '\u{200d}' => false,
        '\u{ad}'
        | '\u{61c}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e007f}' => true,
        letter => letter.is_control(),
    }
}

/// Replaces each [hidden](is_hidden) character, and shortens the text to a maximum number of
/// characters. With hidden characters, a client could forge or hide a part of the log.
pub(super) fn cleaned(text: &str, chars_max: usize) -> String {
    let mut characters = text.chars();
    let mut cleaned: String = characters
        .by_ref()
        .take(chars_max)
        .map(|letter| if is_hidden(letter) { char::REPLACEMENT_CHARACTER } else { letter })
        .collect();
    if characters.next().is_some() {
        cleaned.push('…');
    }
    cleaned
}

/// The value of a header, cleaned. Bytes that are not UTF-8 are replaced.
pub(super) fn header(value: &HeaderValue, chars_max: usize) -> String {
    cleaned(&String::from_utf8_lossy(value.as_bytes()), chars_max)
}

/// The maximum number of names in a line, and of their characters together. A line with more would
/// be hard to read.
const NAMES_MAX: usize = 8;
const NAMES_CHARS_MAX: usize = 256;

/// Joins the first names, and says how many more there are.
pub(super) fn joined<S: AsRef<str>>(names: impl Iterator<Item = S>) -> Option<String> {
    let mut names = names.peekable();
    names.peek()?;
    let mut joined = String::new();
    for name in names.by_ref().take(NAMES_MAX) {
        if !joined.is_empty() {
            joined.push(' ');
        }
        let left = NAMES_CHARS_MAX.saturating_sub(joined.len());
        joined.push_str(&cleaned(name.as_ref(), left.min(NAME_CHARS_MAX)));
    }
    match names.count() {
        0 => {}
        more => joined.push_str(&format!(" and {more} more")),
    }
    Some(joined)
}

/// The maximum number of characters of a user agent in a line. The user agents of today's browsers
/// give the name of the browser within this length.
const USER_AGENT_CHARS_MAX: usize = 160;

/// The value of `User-Agent`.
pub(super) fn user_agent(value: &HeaderValue) -> String {
    header(value, USER_AGENT_CHARS_MAX)
}

/// The maximum number of characters of one name in a line.
pub(super) const NAME_CHARS_MAX: usize = 128;

/// A time in seconds, with a precision of a microsecond.
pub(super) fn seconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_are_replaced() {
        let text = "a\u{1b}[31m\u{9b}2J\r\n\u{202e}\u{2066}\u{feff}é";
        assert_eq!(
            cleaned(text, 99),
            "a\u{fffd}[31m\u{fffd}2J\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}é"
        );
        assert_eq!(header(&HeaderValue::from_bytes(b"\xff\t").unwrap(), 9), "\u{fffd}\u{fffd}");
    }

    #[test]
    fn long_text_is_shortened() {
        assert_eq!(cleaned("abc", 3), "abc");
        assert_eq!(cleaned("abcd", 3), "abc…");
    }

    #[test]
    fn only_the_first_names_are_shown() {
        assert_eq!(joined(["a"; 0].into_iter()), None);
        assert_eq!(joined(["a", "b"].into_iter()).as_deref(), Some("a b"));
        let many = joined(["a"; 11].into_iter()).unwrap();
        assert_eq!(many, "a a a a a a a a and 3 more");
        let long = joined(std::iter::repeat_n("é".repeat(300), 9)).unwrap();
        assert!(long.chars().count() < 300 && long.ends_with("… and 1 more"), "{long}");
    }
}
