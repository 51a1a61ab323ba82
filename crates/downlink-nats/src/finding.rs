//! Findings about a hub that an operator should know, and the checks of one description of a
//! stream.
//!
//! The texts are in `docs/findings.md`.

use std::{fmt, time::Duration};

use downlink_cluster::{Position, SNAPSHOT_EVERY};

use crate::{
    api::{Config, Description},
    stream::{self, DUPLICATE_WINDOW, ENTRY_BYTES_MAX, RETENTION_MIN, entry_bytes_max},
};

/// The table of all findings. `{}` stands for the detail.
const TABLE: &str = include_str!("docs/findings.md");
/// Below this number of bytes for an entry, most publishes are refused.
const ENTRY_BYTES_MIN: usize = 64 * 1_024;
/// From this percentage on, a storage counts as almost full. The operator still has time to react.
const ALMOST_FULL: u64 = 90;

/// A fact about a hub that an operator should know.
///
/// `Display` writes the severity, the sentence and what to do.
#[doc = "\n# Codes\n"]
#[doc = include_str!("docs/findings.md")]
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Finding {
    /// A name that does not change, for programs.
    pub code: &'static str,
    /// Whether the hub can be used.
    pub severity: Severity,
    /// The finding, a sentence without a full stop.
    pub text: String,
    /// What an operator can do.
    pub advice: &'static str,
}

/// The severity of a [`Finding`].
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// The hub does not work, or loses entries in normal operation.
    Error,
    /// The hub works, and can lose or refuse more than it has to.
    Warning,
}

impl Finding {
    /// The finding with this code, which is in the table.
    pub(crate) fn new(code: &'static str, detail: &str) -> Self {
        let row = TABLE.lines().find_map(|line| line.strip_prefix("| `")?.strip_prefix(code));
        let mut cells = row.unwrap_or_default().trim_end_matches(" |").split(" | ").skip(1);
        let mut cell = || cells.next().unwrap_or(code);
        let severity = if cell() == "warning" { Severity::Warning } else { Severity::Error };
        Self { code, severity, text: cell().replace("{}", detail), advice: cell() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = if self.severity == Severity::Error { "error" } else { "warning" };
        write!(f, "{severity}: {}: {}", self.text, self.advice)
    }
}

/// How much of a storage is used, in percent; `None` if the storage is not almost full.
pub(crate) fn almost_full(used: u64, max: i64) -> Option<u64> {
    let max = u64::try_from(max).ok().filter(|max| *max > 0)?;
    let hundredths = used.saturating_mul(100) / max;
    (hundredths >= ALMOST_FULL).then_some(hundredths)
}

/// The findings about a stream on servers that take messages of at most `payload_max` bytes.
pub(crate) fn of_stream(description: &Description, payload_max: usize) -> Vec<Finding> {
    let Description { config, state, .. } = description;
    let mut findings = of_config(config, payload_max);
    let mut find = |code, detail: &str| findings.push(Finding::new(code, detail));
    if stream::hub(config).is_none() {
        find("no-hub-id", "");
    } else if description.bounds().last == Position::ORIGIN {
        find("no-first-entry", "");
    }
    if !description.is_dense() {
        find("holes", &state.num_deleted.to_string());
    }
    if let (true, Some(used)) =
        (config.discard == "new", almost_full(state.bytes, config.max_bytes))
    {
        find("stream-full", &used.to_string());
    }
    let is_full = |used, max| almost_full(used, max).is_some();
    if let Some((first, _)) = description.times()
        && config.discard == "old"
        && description.bounds().first > Position::FIRST
        && (is_full(state.bytes, config.max_bytes) || is_full(state.messages, config.max_msgs))
    {
        let age = description.at().as_millis().saturating_sub(first.as_millis());
        let age = Duration::from_millis(age);
        if age < RETENTION_MIN {
            find("evicts-early", &format!("{} seconds", age.as_secs()));
        }
    }
    for follower in description.followers() {
        if follower.offline {
            find("replica-offline", &follower.name);
        } else if !follower.current {
            find("replica-behind", &follower.name);
        }
    }
    findings
}

fn of_config(config: &Config, payload_max: usize) -> Vec<Finding> {
    let is_unlimited = config.max_age == 0 && config.max_bytes <= 0 && config.max_msgs <= 0;
    let age_max = Duration::from_nanos(config.max_age);
    let window = Duration::from_nanos(config.duplicate_window);
    let bytes = entry_bytes_max(config, payload_max);
    let (is_tiny, is_aged) = (bytes < ENTRY_BYTES_MIN, config.max_age > 0);
    let is_short = is_aged && age_max < SNAPSHOT_EVERY;
    let checks = [
        (stream::subject(config).is_none(), "subjects"),
        (config.sealed, "sealed"),
        (config.no_ack, "no-ack"),
        (config.storage != "file", "memory"),
        (config.retention != "limits", "retention"),
        (config.max_msgs_per_subject > 0, "subject-limit"),
        (is_tiny, "tiny-entries"),
        (is_short, "tiny-retention"),
        (config.num_replicas < 2, "one-replica"),
        (config.num_replicas == 2, "two-replicas"),
        (!stream::has_sync_tag(config), "no-sync-tag"),
        (stream::is_async(config), "async-persist"),
        (config.discard != "old", "discard-new"),
        (!config.deny_delete, "deletable"),
        (!config.deny_purge, "purgeable"),
        (config.allow_rollup_hdrs, "rollup"),
        (config.allow_msg_ttl, "message-expiry"),
        (is_unlimited, "unlimited"),
        (is_aged && !is_short && age_max < RETENTION_MIN, "short-retention"),
        (window < DUPLICATE_WINDOW, "short-duplicate-window"),
        (!is_tiny && bytes < ENTRY_BYTES_MAX, "small-entries"),
    ];
    let detail = |code: &str| match code {
        "tiny-retention" | "short-retention" => format!("{age_max:?}"),
        "short-duplicate-window" => format!("{window:?}"),
        "tiny-entries" | "small-entries" => bytes.to_string(),
        _ => config.max_msgs_per_subject.to_string(),
    };
    let found = checks.into_iter().filter(|(is_wrong, _)| *is_wrong);
    found.map(|(_, code)| Finding::new(code, &detail(code))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use downlink_cluster::HubId;
    use serde_json::{Value, json};

    use super::*;
    use crate::stream::{SYNC_TAG, StreamSettings};

    const PAYLOAD_MAX: usize = 1_024 * 1_024;

    fn config() -> Config {
        let settings =
            StreamSettings { tags: vec![SYNC_TAG.to_owned()], ..StreamSettings::default() };
        settings.config("hub", "hub.a".into(), HubId([7; 16]))
    }

    /// The codes for a stream with this configuration and state, on three servers.
    fn codes(config: &Config, state: Value, replicas: Value) -> Vec<&'static str> {
        let description = json!({
            "config": config, "state": state, "created": "2026-12-01T00:00:00Z",
            "ts": "2026-12-01T12:00:00Z", "cluster": { "leader": "a", "replicas": replicas },
        });
        let description = serde_json::from_value(description).unwrap();
        let findings = of_stream(&description, PAYLOAD_MAX);
        findings.into_iter().map(|finding| finding.code).collect()
    }

    fn state() -> Value {
        json!({ "first_seq": 1, "last_seq": 9, "messages": 9, "bytes": 900,
            "first_ts": "2026-12-01T11:00:00Z", "last_ts": "2026-12-01T12:00:00Z" })
    }

    fn with(change: fn(&mut Config)) -> Vec<&'static str> {
        let mut config = config();
        change(&mut config);
        codes(&config, state(), json!([]))
    }

    #[test]
    fn the_default_settings_with_the_tag_have_no_finding() {
        let current = json!([{ "name": "b", "current": true }, { "name": "c", "current": true }]);
        assert_eq!(codes(&config(), state(), current), [""; 0]);
        // A limit of bytes or of entries is enough.
        assert_eq!(with(|config| (config.max_age, config.max_bytes) = (0, 1_000_000)), [""; 0]);
    }

    #[test]
    fn each_wrong_setting_is_found() {
        assert_eq!(with(|config| config.num_replicas = 1), ["one-replica"]);
        assert_eq!(with(|config| config.num_replicas = 2), ["two-replicas"]);
        assert_eq!(with(|config| config.placement = None), ["no-sync-tag"]);
        assert_eq!(with(|config| config.persist_mode = Some("async".into())), ["async-persist"]);
        assert_eq!(with(|config| config.storage = "memory".into()), ["memory"]);
        assert_eq!(with(|config| config.retention = "interest".into()), ["retention"]);
        assert_eq!(with(|config| config.discard = "new".into()), ["discard-new"]);
        assert_eq!(with(|config| config.max_msgs_per_subject = 1), ["subject-limit"]);
        assert_eq!(with(|config| config.deny_delete = false), ["deletable"]);
        assert_eq!(with(|config| config.deny_purge = false), ["purgeable"]);
        assert_eq!(with(|config| config.allow_rollup_hdrs = true), ["rollup"]);
        assert_eq!(with(|config| config.allow_msg_ttl = true), ["message-expiry"]);
        assert_eq!(with(|config| config.max_age = 0), ["unlimited"]);
        assert_eq!(with(|config| config.no_ack = true), ["no-ack"]);
        assert_eq!(with(|config| config.sealed = true), ["sealed"]);
        assert_eq!(with(|config| config.subjects.push("hub.b".into())), ["subjects"]);
        assert_eq!(with(|config| config.subjects = vec!["hub.*".into()]), ["subjects"]);
        assert_eq!(with(|config| config.metadata.clear()), ["no-hub-id"]);
        let second = "short-duplicate-window";
        assert_eq!(with(|config| config.duplicate_window = 1_000_000_000), [second]);
    }

    /// For each limit, one value is just below it, and one is at the limit.
    #[test]
    fn limits_of_retention_and_of_entries_have_two_severities() {
        const MINUTE: u64 = 60_000_000_000;
        assert_eq!(with(|config| config.max_age = 10 * MINUTE - 1), ["tiny-retention"]);
        assert_eq!(with(|config| config.max_age = 10 * MINUTE), ["short-retention"]);
        assert_eq!(with(|config| config.max_age = 30 * MINUTE - 1), ["short-retention"]);
        assert_eq!(with(|config| config.max_age = 30 * MINUTE), [""; 0]);
        const TINY: i64 = 64 * 1_024 + 512;
        assert_eq!(with(|config| config.max_msg_size = TINY - 1), ["tiny-entries"]);
        assert_eq!(with(|config| config.max_msg_size = TINY), ["small-entries"]);
        assert_eq!(with(|config| config.max_msg_size = 900 * 1_024 + 511), ["small-entries"]);
        assert_eq!(with(|config| config.max_msg_size = 900 * 1_024 + 512), [""; 0]);
    }

    #[test]
    fn the_state_of_the_stream_is_checked() {
        let mut full = config();
        (full.max_bytes, full.discard) = (1_000, "new".into());
        assert_eq!(codes(&full, state(), json!([])), ["discard-new", "stream-full"]);
        full.max_bytes = 1_001;
        assert_eq!(codes(&full, state(), json!([])), ["discard-new"]);
        let never = "0001-01-01T00:00:00Z";
        let empty = json!({ "first_seq": 0, "last_seq": 0, "messages": 0, "bytes": 0,
            "first_ts": never, "last_ts": never });
        assert_eq!(codes(&config(), empty, json!([])), ["no-first-entry"]);
        let mut holes = state();
        holes["num_deleted"] = json!(2);
        assert_eq!(codes(&config(), holes, json!([])), ["holes"]);
        let replicas = json!([{ "name": "b", "offline": true }, { "name": "c" }]);
        let away = ["replica-offline", "replica-behind"];
        assert_eq!(codes(&config(), state(), replicas), away);
    }

    /// A full stream removes its oldest entries, which is right if they are old.
    #[test]
    fn a_full_stream_is_an_error_only_if_it_removes_young_entries() {
        let mut full = config();
        full.max_bytes = 1_000;
        let of = |first: u64, since: &str| {
            let mut state = state();
            (state["first_seq"], state["first_ts"]) = (json!(first), json!(since));
            codes(&full, state, json!([]))
        };
        assert_eq!(of(2, "2026-12-01T11:30:00Z"), [""; 0]);
        assert_eq!(of(2, "2026-12-01T11:30:01Z"), ["evicts-early"]);
        assert_eq!(of(1, "2026-12-01T11:30:01Z"), [""; 0]);
    }

    #[test]
    fn a_finding_has_the_text_of_its_row() {
        let finding = Finding::new("replica-behind", "n1");
        let text = "warning: the server n1 does not have all entries: check that the server runs and \
                    reaches the others; after a restart, wait until it has caught up";
        assert_eq!(finding.to_string(), text);
        assert_eq!(Finding::new("no-stream", "s").severity, Severity::Error);
    }

    /// Each code in the source has a row, and each row has four cells.
    #[test]
    fn the_table_has_the_codes_of_the_source() {
        let mut rows = BTreeSet::new();
        for line in TABLE.lines().skip(2) {
            let cells: Vec<&str> = line.split(" | ").collect();
            assert!(cells.len() == 4 && line.ends_with(" |"), "{line}");
            assert!(["error", "warning"].contains(&cells[1]), "{line}");
            let code = cells[0].trim_start_matches("| `").trim_end_matches('`');
            assert!(rows.insert(code), "{code}");
        }
        let source =
            [include_str!("finding.rs"), include_str!("check.rs"), include_str!("monitor.rs")];
        for code in &rows {
            let literal = format!("\"{code}\"");
            assert!(source.iter().any(|text| text.contains(&literal)), "{code}");
        }
    }
}
