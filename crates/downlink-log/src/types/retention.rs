//! How much history a topic keeps.
//!
//! A retention rule limits the number, the bytes and the age of a topic's events. When a topic
//! exceeds one of these limits, its oldest events are evicted. The newest event of a topic is
//! evicted only in three cases: the event is too old, all topics together exceed the log's limit of
//! bytes, or the topic was finished and the time `finished_keep` has passed.

use std::time::Duration;

use crate::types::{address::Address, selector::TopicSelector};

/// The rule that limits the history of one topic. Later versions may add fields, so end a literal
/// with `..Retention::DEFAULT`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Retention {
    /// The maximum number of events kept; at least 1.
    pub events_max: usize,
    /// The maximum number of bytes kept. Each event counts the bytes of its payload and a fixed
    /// cost. The newest event is kept even if it is larger than this.
    pub bytes_max: usize,
    /// The maximum time since publication; `None` keeps events of any age.
    pub age_max: Option<Duration>,
}

impl Retention {
    /// A thousand events, 4 MiB, and a day. A client that reloads a page, or is away for a lunch
    /// break, usually loses nothing. The history of a topic without new events is evicted after a
    /// day.
    pub const DEFAULT: Self = Self {
        events_max: 1_000,
        bytes_max: 4 << 20,
        age_max: Some(Duration::from_secs(24 * 60 * 60)),
    };

    /// The rule of a client's inbox: a hundred events, 1 MiB, and an hour. These limits are lower
    /// than the default, because there may be one inbox for each client.
    pub const INBOX: Self =
        Self { events_max: 100, bytes_max: 1 << 20, age_max: Some(Duration::from_secs(60 * 60)) };
}

impl Default for Retention {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The retention rules of a log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RetentionRules {
    /// Rules for topics that match a selector. A topic follows the first rule whose selector
    /// matches it.
    pub rules: Vec<(TopicSelector, Retention)>,
    /// The rule of all other topics.
    pub default: Retention,
    /// The rule of each client's inbox.
    pub inbox: Retention,
    /// The rule of everyone's topic, which has the events with the address [`Address::Everyone`].
    pub everyone: Retention,
    /// How long a finished topic stays finished. After that time, its history is evicted, and it
    /// accepts events again.
    pub finished_keep: Duration,
}

impl Default for RetentionRules {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            default: Retention::DEFAULT,
            inbox: Retention::INBOX,
            everyone: Retention::DEFAULT,
            finished_keep: Duration::from_secs(60 * 60),
        }
    }
}

/// The index of a rule among the rules of a log. A topic keeps this number and a reference to the
/// rules, because there are many topics and few rules.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct RuleNumber(u32);

impl RuleNumber {
    const EVERYONE: Self = Self(u32::MAX);
    const INBOX: Self = Self(u32::MAX - 1);
    /// The number of the default rule. No rule with a selector has such a high index.
    pub(crate) const DEFAULT: Self = Self(u32::MAX - 2);
}

impl RetentionRules {
    /// The rule that an address follows.
    pub fn of(&self, address: &Address) -> &Retention {
        self.rule(self.number_of(address))
    }

    /// All rules. If two of them are equal, both are returned.
    pub fn all(&self) -> impl Iterator<Item = &Retention> {
        let others = [&self.default, &self.inbox, &self.everyone];
        self.rules.iter().map(|(_, retention)| retention).chain(others)
    }

    /// The number of the rule that an address follows.
    pub(crate) fn number_of(&self, address: &Address) -> RuleNumber {
        match address {
            Address::Everyone => RuleNumber::EVERYONE,
            Address::Client(_) => RuleNumber::INBOX,
            Address::Topic(topic) => self
                .rules
                .iter()
                .position(|(selector, _)| selector.matches(topic))
                .map_or(RuleNumber::DEFAULT, |at| RuleNumber(at as u32)),
        }
    }

    /// The rule with this number.
    pub(crate) fn rule(&self, number: RuleNumber) -> &Retention {
        match number {
            RuleNumber::EVERYONE => &self.everyone,
            RuleNumber::INBOX => &self.inbox,
            RuleNumber(at) => self.rules.get(at as usize).map_or(&self.default, |(_, rule)| rule),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ClientId;
    use crate::types::address::Topic;

    #[test]
    fn a_topic_follows_the_first_rule_that_matches_it() {
        let keep = |events_max| Retention { events_max, ..Retention::DEFAULT };
        let rules = RetentionRules {
            rules: vec![
                (TopicSelector::parse("a/b").unwrap(), keep(1)),
                (TopicSelector::parse("a/*").unwrap(), keep(2)),
            ],
            ..RetentionRules::default()
        };
        let rule_of = |address: Address| *rules.rule(rules.number_of(&address));
        let of = |name| rule_of(Address::Topic(Topic::new(name).unwrap())).events_max;
        assert_eq!((of("a/b"), of("a/c"), of("b")), (1, 2, 1_000));
        let inbox = Address::Client(ClientId::new("a/b").unwrap());
        assert_eq!(rule_of(inbox), Retention::INBOX);
        assert_eq!(rule_of(Address::Everyone), Retention::DEFAULT);
    }
}
