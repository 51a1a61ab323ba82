//! The stream that contains a journal: the settings of a new one, and what an existing one
//! promises.

use std::{collections::BTreeMap, time::Duration};

use downlink_cluster::{HubId, JournalDurability, SNAPSHOT_EVERY};

use crate::api::{Config, Placement};

/// The tag of servers that write each entry to the disk before they acknowledge it. NATS does not
/// set it by itself: the operator gives it to servers with `sync_interval: always`.
pub const SYNC_TAG: &str = "sync:always";
/// The time for which the server recognises a repeated append. A node repeats an append for twelve
/// seconds, so two minutes are enough. The server needs memory for each append of this time, so a
/// longer time would cost more memory.
pub const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// The largest entry in bytes. The default limit of NATS is 1 MiB for a message with its headers.
/// Larger entries would not be faster, and would delay the other traffic of the connection.
pub const ENTRY_BYTES_MAX: usize = 900 * 1_024;
/// The maximum size of the headers of an entry in bytes. They contain the name of the entry and of
/// the stream, and a position.
pub(crate) const HEADER_BYTES_MAX: usize = 512;
/// The shortest retention that the check accepts without a warning. A node that begins in the
/// middle of the journal needs a snapshot, and the nodes append one every ten minutes.
pub const RETENTION_MIN: Duration = SNAPSHOT_EVERY.saturating_mul(3);

/// The key in the metadata of a stream for the identity of its hub, in 32 hexadecimal digits.
pub const HUB_ID_KEY: &str = "downlink-hub-id";

/// The settings of a new stream.
///
/// The stream keeps all entries in order, in files, until a limit removes the oldest. Nothing can
/// remove an entry between others, so there is an entry at each position from the first to the
/// last. A full stream removes its oldest entries (`discard: old`). With `discard: new`, it would
/// refuse all publishes until its oldest entries reach the maximum age.
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

/// The largest entry that a stream takes.
pub(crate) fn entry_bytes_max(config: &Config, payload_max: usize) -> usize {
    let message_max = usize::try_from(config.max_msg_size).ok().filter(|max| *max > 0);
    let payload_max = message_max.unwrap_or(payload_max).min(payload_max);
    payload_max.saturating_sub(HEADER_BYTES_MAX).min(ENTRY_BYTES_MAX)
}

/// The meaning of an acknowledgement of the stream: whether an entry survives the failure of one
/// machine, including its power.
pub(crate) fn durability(config: &Config) -> JournalDurability {
    let is_kept = config.num_replicas >= 3 && config.storage == "file";
    if is_kept && has_sync_tag(config) && !is_async(config) {
        return JournalDurability::Durable;
    }
    JournalDurability::Relaxed
}

/// Whether the stream is limited to servers with the tag [`SYNC_TAG`].
pub(crate) fn has_sync_tag(config: &Config) -> bool {
    let mut tags = config.placement.iter().flat_map(|placement| &placement.tags);
    tags.any(|tag| tag.eq_ignore_ascii_case(SYNC_TAG))
}

/// Whether the servers acknowledge entries before they have written them.
pub(crate) fn is_async(config: &Config) -> bool {
    config.persist_mode.as_deref() == Some("async")
}

/// The identity of a hub as text.
fn hex(hub: HubId) -> String {
    format!("{:032x}", u128::from_be_bytes(hub.0))
}

/// The identity of the hub of a stream.
pub(crate) fn hub(config: &Config) -> Option<HubId> {
    let text = config.metadata.get(HUB_ID_KEY)?;
    let hub = HubId(u128::from_str_radix(text, 16).ok()?.to_be_bytes());
    // The conversion also accepts a sign or fewer digits, so the text is compared.
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
    fn a_stream_is_durable_only_with_three_synced_replicas_in_files() {
        fn check(change: fn(&mut Config)) {
            let mut config = config();
            assert_eq!(durability(&config), JournalDurability::Durable);
            change(&mut config);
            assert_eq!(durability(&config), JournalDurability::Relaxed);
        }
        check(|config| config.num_replicas = 2);
        check(|config| config.storage = "memory".into());
        check(|config| config.persist_mode = Some("async".into()));
        check(|config| config.placement = None);
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
