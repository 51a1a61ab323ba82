//! The stream that contains a journal: the settings of a new one, and warnings about an existing one.

use std::{collections::BTreeMap, fmt, time::Duration};

use downlink_cluster::{HubId, JournalDurability, SNAPSHOT_EVERY};
use thiserror::Error;

use crate::api::{Config, Placement};

/// The tag of servers that write each entry to the disk before they acknowledge it. NATS does not
/// set it by itself: the operator gives it to servers with `sync_interval: always`.
pub const SYNC_TAG: &str = "sync:always";
/// The time for which the server recognises a repeated append. A node repeats an append for twelve
/// seconds. The server needs memory for each append of this time.
pub const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// The largest entry in bytes. The default limit of NATS is 1 MiB for a message with its headers.
/// Larger entries would not be faster, and would delay the other traffic of the connection.
pub const ENTRY_BYTES_MAX: usize = 900 * 1_024;
/// The maximum size of the headers of an entry in bytes. They contain the name of the entry and of
/// the stream, and a position.
pub(crate) const HEADER_BYTES_MAX: usize = 512;
/// The shortest retention. A node that begins in the middle of the journal looks for a snapshot, and
/// nodes append one every ten minutes.
pub const RETENTION_MIN: Duration = SNAPSHOT_EVERY.saturating_mul(3);

/// The key in the metadata of a stream for the identity of its hub, in 32 hexadecimal digits.
pub const HUB_ID_KEY: &str = "downlink-hub-id";

/// The settings of a new stream.
///
/// The stream keeps all entries in order, in files, until a limit removes the oldest. Nothing can
/// remove an entry inside, so each sequence from the first to the last has an entry. A full stream
/// removes its oldest entries (`discard: old`). With `discard: new`, it would refuse all publishes
/// until its oldest entries reach the maximum age.
#[derive(Clone, Debug)]
pub struct StreamSettings {
    /// The number of servers that keep the stream: 1, 3 or 5. An append needs a majority of them.
    pub replicas: usize,
    /// The time for which entries are kept.
    pub age_max: Duration,
    /// The maximum size of all entries in bytes; `None` for no limit. The server counts it for each
    /// replica.
    pub bytes_max: Option<u64>,
    /// The maximum number of entries; `None` for no limit.
    pub entries_max: Option<u64>,
    /// The tags that the servers of the stream must have, such as [`SYNC_TAG`]. A single server
    /// without a cluster does not support tags.
    pub tags: Vec<String>,
}

impl Default for StreamSettings {
    /// Three replicas, one day, no other limits and no tags.
    fn default() -> Self {
        let age_max = Duration::from_secs(24 * 60 * 60);
        Self { replicas: 3, age_max, bytes_max: None, entries_max: None, tags: Vec::new() }
    }
}

impl StreamSettings {
    /// The configuration of the stream `name` of a hub, with this subject.
    pub(crate) fn config(&self, name: &str, subject: String, hub: HubId) -> Config {
        let limit = |max: Option<u64>| max.map_or(-1, |max| i64::try_from(max).unwrap_or(i64::MAX));
        let age_max = nanos(self.age_max);
        let window = nanos(DUPLICATE_WINDOW);
        let tags = self.tags.clone();
        Config {
            name: name.into(),
            subjects: vec![subject],
            retention: "limits".into(),
            discard: "old".into(),
            storage: "file".into(),
            num_replicas: self.replicas,
            max_age: age_max,
            max_bytes: limit(self.bytes_max),
            max_msgs: limit(self.entries_max),
            max_msgs_per_subject: -1,
            max_msg_size: -1,
            // The server refuses a window that is longer than the retention.
            duplicate_window: if age_max == 0 { window } else { window.min(age_max) },
            deny_delete: true,
            deny_purge: true,
            placement: Some(Placement { tags }).filter(|placement| !placement.tags.is_empty()),
            metadata: BTreeMap::from([(HUB_ID_KEY.into(), hex(hub))]),
            ..Config::default()
        }
    }
}

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The stream was not created.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum CreateError {
    /// No server has answered. The stream may have been created.
    #[error("the NATS servers did not answer")]
    Unavailable,
    /// There is a stream with this name.
    #[error("the stream exists already")]
    Exists,
    /// The server refuses the stream.
    #[error("the server refuses the stream: {description} (code {code})")]
    Refused {
        /// The error code of JetStream.
        code: u32,
        /// The reason, in the words of the server.
        description: String,
    },
}

/// A setting of a stream with which a journal loses more, or refuses more, than it has to.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Warning {
    /// One server keeps the stream. If it fails, no entry can be appended, and if its disk fails, all
    /// entries are lost.
    OneReplica,
    /// The stream is not limited to servers with the tag [`SYNC_TAG`]. With the default settings of
    /// NATS, a power cut loses acknowledged entries of up to two minutes.
    NoSyncTag,
    /// The server acknowledges entries before it has written them (`persist_mode: async`).
    AsyncPersist,
    /// The stream is in memory.
    Memory,
    /// The stream removes entries for another reason than its limits (its retention is not
    /// `limits`).
    Retention,
    /// The stream refuses entries when it is full, and does not remove the oldest (`discard: new`).
    RefusesWhenFull,
    /// The stream limits the messages of a subject, so it can remove entries inside.
    SubjectLimit,
    /// Entries can be deleted (`deny_delete` is not set).
    Deletable,
    /// Entries can be purged (`deny_purge` is not set).
    Purgeable,
    /// A message can remove the messages before it (`allow_rollup_hdrs`).
    Rollup,
    /// Messages can expire one by one (`allow_msg_ttl`).
    MessageExpiry,
    /// The stream keeps entries for less than [`RETENTION_MIN`].
    ShortRetention {
        /// The time for which it keeps entries.
        age_max: Duration,
    },
    /// The stream has no limit of age, bytes or entries.
    Unlimited,
    /// The server recognises repeated appends for too short a time, so more copies are stored.
    ShortDuplicateWindow {
        /// The time.
        window: Duration,
    },
    /// The largest entry is smaller than [`ENTRY_BYTES_MAX`], because of the limits of the server or
    /// of the stream.
    SmallEntries {
        /// The largest entry in bytes.
        entry_bytes_max: usize,
    },
    /// The server does not acknowledge entries (`no_ack`).
    NoAcknowledgements,
    /// The stream is read-only.
    Sealed,
    /// The stream does not have exactly one subject without wildcards, or gets its messages from
    /// another stream, or changes their subjects.
    Subjects,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::OneReplica => {
                "one server keeps the stream (R1), so its failure stops all appends"
            }
            Self::NoSyncTag => {
                "no placement tag sync:always: a power cut can lose acknowledged entries"
            }
            Self::AsyncPersist => "persist_mode is async: a crash can lose acknowledged entries",
            Self::Memory => "the storage is memory: a restart can lose all entries",
            Self::Retention => "the retention is not limits: entries can be removed by consumers",
            Self::RefusesWhenFull => "discard is new: a full stream refuses entries",
            Self::SubjectLimit => "max_msgs_per_subject can remove entries inside the stream",
            Self::Deletable => "deny_delete is not set: entries can be deleted",
            Self::Purgeable => "deny_purge is not set: entries can be purged",
            Self::Rollup => "allow_rollup_hdrs is set: a message can remove earlier entries",
            Self::MessageExpiry => "allow_msg_ttl is set: entries can expire one by one",
            Self::ShortRetention { age_max } => {
                let minutes = RETENTION_MIN.as_secs() / 60;
                return write!(f, "max_age is {age_max:?}, and less than {minutes} minutes");
            }
            Self::Unlimited => "no limit of age, bytes or entries: the stream grows for ever",
            Self::ShortDuplicateWindow { window } => {
                return write!(f, "duplicate_window is {window:?}: more copies are stored");
            }
            Self::SmallEntries { entry_bytes_max } => {
                return write!(f, "an entry has at most {entry_bytes_max} bytes (max_payload)");
            }
            Self::NoAcknowledgements => "no_ack is set: no publish gets an answer",
            Self::Sealed => "the stream is sealed: no entry can be appended",
            Self::Subjects => {
                "the stream needs exactly one subject without wildcards, and no source"
            }
        };
        f.write_str(text)
    }
}

/// The warnings for a stream on servers that take messages of at most `payload_max` bytes.
pub(crate) fn warnings(config: &Config, payload_max: usize) -> Vec<Warning> {
    let has_sync_tag = config
        .placement
        .iter()
        .flat_map(|placement| &placement.tags)
        .any(|tag| tag.eq_ignore_ascii_case(SYNC_TAG));
    let is_unlimited = config.max_age == 0 && config.max_bytes <= 0 && config.max_msgs <= 0;
    let age_max = Duration::from_nanos(config.max_age);
    let window = Duration::from_nanos(config.duplicate_window);
    let entry_bytes_max = entry_bytes_max(config, payload_max);
    let checks = [
        (config.num_replicas < 2, Warning::OneReplica),
        (!has_sync_tag, Warning::NoSyncTag),
        (config.persist_mode.as_deref() == Some("async"), Warning::AsyncPersist),
        (config.storage != "file", Warning::Memory),
        (config.retention != "limits", Warning::Retention),
        (config.discard != "old", Warning::RefusesWhenFull),
        (config.max_msgs_per_subject > 0, Warning::SubjectLimit),
        (!config.deny_delete, Warning::Deletable),
        (!config.deny_purge, Warning::Purgeable),
        (config.allow_rollup_hdrs, Warning::Rollup),
        (config.allow_msg_ttl, Warning::MessageExpiry),
        (config.max_age > 0 && age_max < RETENTION_MIN, Warning::ShortRetention { age_max }),
        (is_unlimited, Warning::Unlimited),
        (window < DUPLICATE_WINDOW, Warning::ShortDuplicateWindow { window }),
        (entry_bytes_max < ENTRY_BYTES_MAX, Warning::SmallEntries { entry_bytes_max }),
        (config.no_ack, Warning::NoAcknowledgements),
        (config.sealed, Warning::Sealed),
        (subject(config).is_none(), Warning::Subjects),
    ];
    checks.into_iter().filter(|(is_wrong, _)| *is_wrong).map(|(_, warning)| warning).collect()
}

/// The largest entry that a stream takes.
pub(crate) fn entry_bytes_max(config: &Config, payload_max: usize) -> usize {
    let message_max = usize::try_from(config.max_msg_size).ok().filter(|max| *max > 0);
    let payload_max = message_max.unwrap_or(payload_max).min(payload_max);
    payload_max.saturating_sub(HEADER_BYTES_MAX).min(ENTRY_BYTES_MAX)
}

/// Whether a stream keeps what it acknowledges if one machine fails with its power.
pub(crate) fn durability(config: &Config) -> JournalDurability {
    let loses = [Warning::OneReplica, Warning::NoSyncTag, Warning::AsyncPersist, Warning::Memory];
    let warnings = warnings(config, usize::MAX);
    if config.num_replicas >= 3 && !warnings.iter().any(|warning| loses.contains(warning)) {
        return JournalDurability::Durable;
    }
    JournalDurability::Relaxed
}

/// The identity of a hub as text.
fn hex(hub: HubId) -> String {
    format!("{:032x}", u128::from_be_bytes(hub.0))
}

/// The identity of the hub of a stream.
pub(crate) fn hub(config: &Config) -> Option<HubId> {
    let text = config.metadata.get(HUB_ID_KEY)?;
    let hub = HubId(u128::from_str_radix(text, 16).ok()?.to_be_bytes());
    // The number could have a sign, or fewer digits.
    (hex(hub) == text.to_ascii_lowercase()).then_some(hub)
}

/// The subject of a stream, if it has exactly one.
pub(crate) fn subject(config: &Config) -> Option<&str> {
    let gets_others = config.mirror.is_some() || config.sources.is_some();
    match &config.subjects[..] {
        [subject] if !gets_others && config.subject_transform.is_none() => {
            let is_wildcard = |token: &str| token == "*" || token == ">";
            (!subject.split('.').any(is_wildcard)).then_some(subject)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOAD_MAX: usize = 1_024 * 1_024;
    const HUB: HubId = HubId([7; 16]);

    fn config() -> Config {
        let tags = vec![SYNC_TAG.to_owned()];
        StreamSettings { tags, ..StreamSettings::default() }.config("hub", "hub.a".into(), HUB)
    }

    #[test]
    fn the_default_settings_with_the_tag_have_no_warning() {
        assert_eq!(warnings(&config(), PAYLOAD_MAX), []);
        assert_eq!(durability(&config()), JournalDurability::Durable);
    }

    #[test]
    fn each_wrong_setting_has_its_warning() {
        fn check(change: fn(&mut Config), warning: Warning) {
            let mut config = config();
            change(&mut config);
            assert_eq!(warnings(&config, PAYLOAD_MAX), [warning]);
        }
        check(|config| config.num_replicas = 1, Warning::OneReplica);
        check(|config| config.placement = None, Warning::NoSyncTag);
        check(|config| config.persist_mode = Some("async".into()), Warning::AsyncPersist);
        check(|config| config.storage = "memory".into(), Warning::Memory);
        check(|config| config.retention = "interest".into(), Warning::Retention);
        check(|config| config.discard = "new".into(), Warning::RefusesWhenFull);
        check(|config| config.max_msgs_per_subject = 1, Warning::SubjectLimit);
        check(|config| config.deny_delete = false, Warning::Deletable);
        check(|config| config.deny_purge = false, Warning::Purgeable);
        check(|config| config.allow_rollup_hdrs = true, Warning::Rollup);
        check(|config| config.allow_msg_ttl = true, Warning::MessageExpiry);
        check(|config| config.max_age = 0, Warning::Unlimited);
        check(|config| config.no_ack = true, Warning::NoAcknowledgements);
        check(|config| config.sealed = true, Warning::Sealed);
        check(|config| config.subjects.push("hub.b".into()), Warning::Subjects);
        check(|config| config.subjects = vec!["hub.*".into()], Warning::Subjects);
        let age_max = Duration::from_secs(60);
        check(|config| config.max_age = 60_000_000_000, Warning::ShortRetention { age_max });
        let window = Duration::from_secs(1);
        check(
            |config| config.duplicate_window = 1_000_000_000,
            Warning::ShortDuplicateWindow { window },
        );
        let entry_bytes_max = 1_000;
        check(|config| config.max_msg_size = 1_512, Warning::SmallEntries { entry_bytes_max });
    }

    #[test]
    fn the_identity_of_the_hub_is_in_the_metadata() {
        assert_eq!(hub(&config()), Some(HUB));
        let with = |text: &str| {
            let metadata = BTreeMap::from([(HUB_ID_KEY.to_owned(), text.to_owned())]);
            hub(&Config { metadata, ..config() })
        };
        let digits = "000102030405060708090A0b0c0d0e0f";
        assert_eq!(with(digits), Some(HubId(std::array::from_fn(|at| at as u8))));
        for wrong in ["", "7", "+00102030405060708090a0b0c0d0e0f", &format!("{digits}0"), "x"] {
            assert_eq!(with(wrong), None, "{wrong}");
        }
        assert_eq!(hub(&Config { metadata: BTreeMap::new(), ..config() }), None);
    }

    #[test]
    fn a_limit_of_bytes_is_enough() {
        let mut config = config();
        (config.max_age, config.max_bytes) = (0, 1_000_000_000);
        assert_eq!(warnings(&config, PAYLOAD_MAX), []);
    }

    #[test]
    fn the_window_is_not_longer_than_the_retention() {
        let age_max = Duration::from_secs(60);
        let settings = StreamSettings { age_max, ..StreamSettings::default() };
        assert_eq!(settings.config("hub", "hub.a".into(), HUB).duplicate_window, nanos(age_max));
    }

    #[test]
    fn entries_fit_into_messages() {
        assert_eq!(entry_bytes_max(&config(), PAYLOAD_MAX), ENTRY_BYTES_MAX);
        assert_eq!(entry_bytes_max(&config(), 64 * 1_024), 64 * 1_024 - HEADER_BYTES_MAX);
        assert_eq!(entry_bytes_max(&config(), 100), 0);
    }
}
