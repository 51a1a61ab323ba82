//! Parses durations in flags, environment variables, the settings file and retention rules.

use std::time::Duration;

use jiff::{SignedDuration, Span, SpanRelativeTo};

/// The maximum duration of a setting: 1,000 years. A longer duration might overflow the system's
/// clock.
const LONGEST: Duration = Duration::from_secs(1_000 * 365 * 24 * 60 * 60);

/// Parses a duration such as `15s`, `500ms`, `1h30m` or `5d`. A day has 24 hours. A duration of
/// more than 1,000 years counts as 1,000 years.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let days = || text.parse::<Span>().ok()?.to_duration(SpanRelativeTo::days_are_24_hours()).ok();
    let Some(span) = text.parse::<SignedDuration>().ok().or_else(days) else {
        return Err(format!(
            "{text:?} is not a duration; write a number and a unit: 500ms, 15s, 1h30m, 5d"
        ));
    };
    let time = Duration::try_from(span).map_err(|_| "a duration cannot be negative".to_owned())?;
    Ok(time.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_longest_duration_fits_into_the_clock() {
        let longest = parse_time(&format!("{}s", i64::MAX)).unwrap();
        assert!(Instant::now().checked_add(longest.saturating_mul(2)).is_some());
        assert!(parse_time("-1s").is_err());
    }

    #[test]
    fn a_duration_may_have_units_up_to_weeks() {
        for (text, seconds) in [
            ("2h 30m", 9_000),
            ("1h30m", 5_400),
            ("5d", 432_000),
            ("1d 12h", 129_600),
            ("2w", 1_209_600),
            ("90 seconds", 90),
        ] {
            assert_eq!(parse_time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn an_error_about_an_invalid_duration_gives_examples() {
        for text in ["", "15", "soon", "1mo", "1y", "5 d 3"] {
            let refused = parse_time(text).unwrap_err();
            assert!(refused.contains("500ms, 15s, 1h30m, 5d"), "{text}: {refused}");
            assert!(!refused.contains("jiff"), "{refused}");
        }
    }
}
