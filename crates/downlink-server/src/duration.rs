//! The text of a duration in flags, in the environment and in the file.

use std::time::Duration;

/// The longest time that a setting may have. A later time may not fit into the system's clocks.
const LONGEST: Duration = Duration::from_secs(1_000 * 365 * 24 * 60 * 60);

/// A span of time such as `15s`, `500ms` or `2h 30m`, at most 1,000 years.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text
        .parse()
        .map_err(|error| format!("{error}; write a number and a unit: 500ms, 15s, 2h 30m"))?;
    let time = Duration::try_from(span).map_err(|_| "a span of time is not negative".to_owned())?;
    Ok(time.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_longest_time_can_be_waited_for() {
        let longest = parse_time(&format!("{}s", i64::MAX)).unwrap();
        assert!(Instant::now().checked_add(longest.saturating_mul(2)).is_some());
        assert_eq!(parse_time("2h 30m"), Ok(Duration::from_secs(9_000)));
        assert!(parse_time("-1s").is_err());
    }
}
