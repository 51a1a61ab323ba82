//! Encodes text as JSON strings. This module does not need the feature `json`.

use std::fmt::Write;

/// Returns the text as a JSON string, with its quotes.
pub(crate) fn json_text(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            control if control < ' ' => {
                let _ = write!(json, "\\u{:04x}", u32::from(control));
            }
            other => json.push(other),
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_backslashes_and_controls_are_escaped() {
        assert_eq!(json_text("a\"b\\c\nd<é"), r#""a\"b\\c\u000ad<é""#);
    }
}
