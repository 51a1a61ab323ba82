//! Parses a retention rule: a topic or a pattern, and how much history the matching topics keep.
//!
//! An example of a rule is `chat/*=events:100,age:1h`. Flags, environment variables and the
//! settings file all use this form.

use std::{str::FromStr, time::Duration};

use downlink::hub::{Retention, TopicSelector};

use crate::{duration::parse_time, size::parse_bytes};

/// The limits of history for one topic, or for all topics that match a pattern.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RetainRule {
    selector: String,
    events: Option<usize>,
    bytes: Option<usize>,
    age: Option<Duration>,
}

impl RetainRule {
    /// The topic or pattern.
    pub(crate) fn selector(&self) -> &str {
        &self.selector
    }

    /// The retention that this rule sets. If the rule does not name a limit, that limit comes from
    /// `all`.
    pub(crate) fn over(&self, all: Retention) -> Retention {
        Retention {
            events_max: self.events.unwrap_or(all.events_max),
            bytes_max: self.bytes.unwrap_or(all.bytes_max),
            age_max: self.age.or(all.age_max),
        }
    }
}

impl FromStr for RetainRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        // The last `=` separates the topics from the limits. A topic may contain `=`; limits
        // cannot.
        let (selector, limits) =
            text.rsplit_once('=').ok_or("write TOPICS=LIMITS, such as chat/*=events:100,age:1h")?;
        TopicSelector::parse(selector)
            .map_err(|error| format!("{selector:?} is neither a topic nor a pattern: {error}"))?;
        let mut rule = Self { selector: selector.into(), events: None, bytes: None, age: None };
        for limit in limits.split(',') {
            rule.take(limit)?;
        }
        Ok(rule)
    }
}

impl RetainRule {
    fn take(&mut self, limit: &str) -> Result<(), String> {
        let (name, value) = limit.split_once(':').unwrap_or((limit, ""));
        let twice = match name {
            "events" => self.events.replace(number(limit, value)?).is_some(),
            "bytes" => self.bytes.replace(above_0(limit, parse_bytes(value)?)?).is_some(),
            "age" => self.age.replace(parse_time(value)?).is_some(),
            _ => {
                return Err(format!(
                    "{limit:?} is not a limit; use events:N, bytes:N or age:TIME, joined by commas"
                ));
            }
        };
        if twice { Err(format!("{name} is given twice")) } else { Ok(()) }
    }
}

/// Parses a number of at least 1. With a limit of 0, a topic would keep no events.
fn number(limit: &str, value: &str) -> Result<usize, String> {
    let number = value.parse().map_err(|_| format!("{limit:?} needs a whole number above 0"))?;
    above_0(limit, number)
}

fn above_0(limit: &str, number: usize) -> Result<usize, String> {
    if number > 0 { Ok(number) } else { Err(format!("{limit:?} needs a whole number above 0")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retention(text: &str) -> Result<(String, Retention), String> {
        let all = Retention { events_max: 7, bytes_max: 8, age_max: Some(Duration::from_secs(9)) };
        text.parse().map(|rule: RetainRule| (rule.selector().to_owned(), rule.over(all)))
    }

    #[test]
    fn limits_missing_from_a_rule_come_from_the_defaults() {
        let rule = |events_max, bytes_max, seconds| Retention {
            events_max,
            bytes_max,
            age_max: Some(Duration::from_secs(seconds)),
        };
        let all = "a/*=age:1h,bytes:20,events:10";
        assert_eq!(retention(all), Ok(("a/*".into(), rule(10, 20, 3_600))));
        assert_eq!(retention("a=events:1"), Ok(("a".into(), rule(1, 8, 9))));
        assert_eq!(retention("{x}/b=bytes:1"), Ok(("{x}/b".into(), rule(7, 1, 9))));
        assert_eq!(retention(" a=bytes:1MiB,age:5d"), Ok(("a".into(), rule(7, 1 << 20, 432_000))));
        assert_eq!(retention("a=b=age:2s"), Ok(("a=b".into(), rule(7, 8, 2))));
    }

    #[test]
    fn an_error_says_what_is_wrong_with_a_rule() {
        for (text, says) in [
            ("a", "write TOPICS=LIMITS"),
            ("a//b=events:1", "neither a topic nor a pattern"),
            ("=events:1", "neither a topic nor a pattern"),
            ("a=", "is not a limit"),
            ("a=10", "is not a limit"),
            ("a=events:1,size:3", "\"size:3\" is not a limit"),
            ("a=events:0", "above 0"),
            ("a=bytes:1M", "write a whole number, with or without a unit"),
            ("a=bytes:0KiB", "above 0"),
            ("a=events:-1", "above 0"),
            ("a=events", "above 0"),
            ("a=age:1", "500ms, 15s"),
            ("a=events:1,events:2", "events is given twice"),
        ] {
            let refused = retention(text).unwrap_err();
            assert!(refused.contains(says), "{text}: {refused}");
        }
    }
}
