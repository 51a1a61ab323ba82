//! A naive log, with which the nodes are compared. An entry is planned at one position, and arrives
//! at a later one. To decide about it, the naive log looks at all entries between these positions,
//! one by one. It has no window, no claims and no tables.

use std::collections::BTreeMap;

use downlink_cluster::{Base, Entry, EntryName, HubId, Mark, Mutant, RawEntry, Rules};
use downlink_log::{Address, Fingerprint, IdempotencyKey, Topic};

use crate::model::serial_of_payload;

/// The key of all hubs of the simulation.
pub(crate) const KEY: [u8; 16] = [9; 16];

struct Judged {
    entry: Option<Entry>,
    mark: u64,
    /// The sum of the bounded steps of the engine's clock.
    elapsed: u64,
}

/// The log of a journal.
pub(crate) struct Naive {
    /// The number of each event by its offset.
    pub(crate) events: BTreeMap<u64, u64>,
    /// The marks of all positions from the origin on.
    pub(crate) marks: Vec<u64>,
}

/// Computes the log of a journal.
pub(crate) fn log(truth: &BTreeMap<u64, RawEntry>, hub: HubId, base: Base, rules: &Rules) -> Naive {
    let mut judged: Vec<Judged> = vec![Judged { entry: None, mark: 0, elapsed: 0 }];
    let mut events = BTreeMap::new();
    let mut time_before = None;
    for raw in truth.values() {
        let before = judged.last().unwrap();
        let mark = mark_after(before.mark, raw, rules);
        let time = raw.time.as_millis();
        let step = time_before.map_or(0, |before: u64| time.saturating_sub(before).min(10_000));
        time_before = Some(time);
        let elapsed = before.elapsed + step;
        let entry = Entry::decode(&raw.bytes).ok().filter(|entry| entry.hub == hub);
        if let Some(entry) = &entry {
            for (index, serial) in applied(entry, &judged, elapsed, rules) {
                events.insert(base.offset(raw.position, index).get(), serial);
            }
        }
        judged.push(Judged { entry, mark, elapsed });
    }
    Naive { events, marks: judged.iter().map(|judged| judged.mark).collect() }
}

/// The indexes and numbers of the applied events of an entry.
fn applied(entry: &Entry, before: &[Judged], elapsed: u64, rules: &Rules) -> Vec<(usize, u64)> {
    let seen = entry.seen.get() as usize;
    let Some(seen_at) = before.get(seen) else { return Vec::new() };
    let between: Vec<&Entry> =
        before[seen + 1..].iter().filter_map(|judged| judged.entry.as_ref()).collect();
    let is_repeated = names(&between).any(|name| name == entry.name);
    let is_expired = elapsed - seen_at.elapsed > 15_000;
    let is_old = (before.len() - 1 - seen) as u64 > rules.positions_max;
    if seen_at.mark != entry.seen_mark.get() || is_repeated || is_expired || is_old {
        return Vec::new();
    }
    let mut events = Vec::new();
    let mut index = 0;
    for (at, group) in entry.groups.iter().enumerate() {
        let own = entry.groups[..at].iter();
        let others: Vec<_> = between.iter().flat_map(|entry| &entry.groups).chain(own).collect();
        let records = || others.iter().flat_map(|group| &group.records);
        let has_key = |key: &IdempotencyKey| records().any(|other| other.key.as_ref() == Some(key));
        let has_id = |id: &str| records().any(|other| other.id.as_deref() == Some(id));
        let finishes = |topic: &Topic| {
            records()
                .filter(|other| other.finish)
                .any(|other| other.to.contains(&Address::Topic(topic.clone())))
        };
        let is_dropped = group.records.iter().any(|record| {
            record.key.as_ref().is_some_and(has_key)
                || record.id.as_deref().is_some_and(has_id)
                || record.to.iter().filter_map(Address::topic).any(finishes)
        }) || group.replaces.iter().any(|replaced| {
            let own = entry.groups[..at].iter().flat_map(|group| &group.replaces);
            names(&between).chain(own.copied()).chain([entry.name]).any(|name| name == *replaced)
        });
        for record in &group.records {
            if !is_dropped {
                events.push((index, serial_of_payload(record.payload.as_deref())));
            }
            index += 1;
        }
    }
    events
}

/// The names of entries, and the names of the entries that they replace.
fn names<'a>(entries: &'a [&Entry]) -> impl Iterator<Item = EntryName> + 'a {
    entries.iter().flat_map(|entry| {
        let replaced = entry.groups.iter().flat_map(|group| group.replaces.iter().copied());
        replaced.chain([entry.name])
    })
}

/// The mark, computed from its definition. With random marks, a mark depends on the entry alone.
fn mark_after(before: u64, raw: &RawEntry, rules: &Rules) -> u64 {
    let mut content = [0; 32];
    if rules.mutant != Some(Mutant::RandomMarks) {
        content[..8].copy_from_slice(&before.to_le_bytes());
        content[8..16].copy_from_slice(&raw.time.as_millis().to_le_bytes());
    }
    content[16..].copy_from_slice(&Fingerprint::keyed(&KEY, &raw.bytes).to_bytes());
    let hash = Fingerprint::keyed(&KEY, &content).to_bytes();
    Mark::new(u64::from_le_bytes(hash[..8].try_into().unwrap())).get()
}
