//! Text as JSON. Without the feature `json` there is no serializer.

use std::fmt::Write;

/// Text as a JSON string, with its quotes.
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
    fn what_a_client_gave_is_escaped() {
        assert_eq!(json_text("a\"b\\c\nd<é"), r#""a\"b\\c\u000ad<é""#);
    }
}
