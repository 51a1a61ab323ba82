//! The text of a duration in flags, in the environment and in the file.

use std::time::Duration;

/// A span of time such as `15s`, `500ms` or `2h 30m`.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text
        .parse()
        .map_err(|error| format!("{error}; write a number and a unit: 500ms, 15s, 2h 30m"))?;
    Duration::try_from(span).map_err(|_| "a span of time is not negative".to_owned())
}
