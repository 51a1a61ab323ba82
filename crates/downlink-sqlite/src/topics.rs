//! The writer's cache of topics. For each topic, the cache has the number, the size and the
//! retention rule.
//!
//! Everything in the cache can be read from the file again. So after a failed transaction, the
//! writer empties the cache.
//!
//! An event is indexed if the table `memberships` has a row for each of its topics. Commits do not
//! index their events. Trimming, which evicts old events, also indexes new events, many at once.

use std::collections::{HashMap, hash_map::Entry};

use downlink_log::{Address, ENTRY_COST_BYTES, Retention, RetentionRules};
use rusqlite::Connection;

use crate::{
    fault::Result,
    sql::{Sql as _, TopicEvictions, TopicNumbers, address_of, indexed, kind_and_name, lost},
};

/// The maximum number of topics in the cache. This many topics take about 15 MiB. More topics are
/// rarely busy at the same time. When the cache is full, all topics are dropped. Reading a topic
/// from the file again takes some ten microseconds.
const CACHED_MAX: usize = 65_536;

/// A topic in the writer's cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TopicState {
    pub(crate) number: i64,
    pub(crate) events: usize,
    pub(crate) bytes: usize,
    pub(crate) retention: Retention,
    /// Whether the topic's row says that the topic has no events and no finish mark (the record
    /// that the topic is finished).
    pub(crate) emptied: bool,
    /// Whether the topic is queued for trimming.
    pub(crate) queued: bool,
}

impl TopicState {
    /// Whether trimming should evict events of the topic. Trimming waits until the topic has over
    /// an eighth more events than its rule allows, or more bytes than its rule allows. Because it
    /// waits, trimming can evict several events at once, which writes fewer pages than evicting one
    /// event with each commit.
    pub(crate) fn is_over(&self) -> bool {
        let events_max = self.retention.events_max.saturating_add(self.retention.events_max / 8);
        self.events > 1 && (self.events > events_max || self.bytes > self.retention.bytes_max)
    }
}

#[derive(Debug)]
pub(crate) struct TopicCache {
    rules: RetentionRules,
    numbers: HashMap<Address, i64>,
    states: HashMap<i64, TopicState>,
    unindexed: Option<Unindexed>,
}

/// The events that are not indexed yet. Each step of trimming can index some of them.
#[derive(Debug, Default)]
pub(crate) struct Unindexed {
    /// No event from this offset on is indexed.
    pub(crate) from: u64,
    pub(crate) rows: usize,
    /// The number of events and their bytes, by topic.
    topics: HashMap<i64, (usize, usize)>,
}

impl Unindexed {
    fn add(&mut self, topic: i64, bytes: usize) {
        let (events, sum) = self.topics.entry(topic).or_default();
        *events += 1;
        *sum += bytes;
        self.rows += 1;
    }

    /// Records that all events below `from` are indexed now. `members` has the topic, the offset
    /// and the bytes of each event that was not indexed before.
    pub(crate) fn remove(&mut self, members: &[(i64, u64, usize)], from: u64) {
        (self.from, self.rows) = (from, self.rows - members.len());
        for (topic, _, bytes) in members {
            if let Entry::Occupied(mut entry) = self.topics.entry(*topic) {
                let (events, sum) = entry.get_mut();
                (*events, *sum) = (*events - 1, *sum - bytes);
                if *events == 0 {
                    entry.remove();
                }
            }
        }
    }
}

impl TopicCache {
    pub(crate) fn new(rules: RetentionRules) -> Self {
        Self { rules, numbers: HashMap::new(), states: HashMap::new(), unindexed: None }
    }

    /// Replaces the retention rules.
    pub(crate) fn set_retention(&mut self, rules: RetentionRules) {
        // The topics in the cache have their old rules.
        *self = Self::new(rules);
    }

    /// The events that are not indexed yet.
    pub(crate) fn unindexed(&mut self, db: &Connection) -> Result<&mut Unindexed> {
        if self.unindexed.is_none() {
            let mut unindexed = Unindexed { from: indexed(db)?, ..Unindexed::default() };
            for (topic, _, bytes) in members_from(db, unindexed.from, usize::MAX)? {
                unindexed.add(topic, bytes);
            }
            self.unindexed = Some(unindexed);
        }
        Ok(self.unindexed.get_or_insert_default())
    }

    /// Whether a topic has an event that is not indexed yet.
    pub(crate) fn has_unindexed(&mut self, db: &Connection, topic: i64) -> Result<bool> {
        Ok(self.unindexed(db)?.topics.contains_key(&topic))
    }

    /// Drops everything. After a failed transaction, the cache may have changes that are not in the
    /// file.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(std::mem::take(&mut self.rules));
    }

    /// The topic of an address. If the topic has no row in `topics`, creates a row. The new row
    /// needs a floor, which is the offset after the last evicted event of the topic. The topic may
    /// have had a row before, which trimming has deleted. So the new row gets the floor that all
    /// names without a row share.
    pub(crate) fn topic_of(&mut self, db: &Connection, to: &Address) -> Result<&mut TopicState> {
        let sql = "SELECT number, emptied IS NOT NULL FROM topics WHERE kind = ? AND name = ?";
        let known = self.numbers.get(to).copied();
        let number = match known.filter(|number| self.states.contains_key(number)) {
            Some(number) => number,
            None => {
                let (number, emptied) = match db.first(sql, kind_and_name(to))? {
                    Some(found) => found,
                    None => (create(db, to)?, false),
                };
                self.load(db, number, to.clone(), emptied)?;
                number
            }
        };
        self.states.get_mut(&number).ok_or_else(|| lost(number))
    }

    /// The topic with a number. `None` if it no longer exists.
    pub(crate) fn get(&mut self, db: &Connection, number: i64) -> Result<Option<&mut TopicState>> {
        if !self.states.contains_key(&number)
            && let Some((address, emptied)) = address_of(db, number)?
        {
            self.load(db, number, address, emptied)?;
        }
        Ok(self.states.get_mut(&number))
    }

    /// Counts a new event of a topic. The event is not indexed yet. If trimming should now evict
    /// events of the topic, and the topic is not queued for this yet, returns the topic's number.
    pub(crate) fn add(
        &mut self,
        db: &Connection,
        number: i64,
        bytes: usize,
    ) -> Result<Option<i64>> {
        self.unindexed(db)?.add(number, bytes);
        // If the topic is not in the cache, its events are counted when the topic is read from the
        // file.
        let Some(topic) = self.states.get_mut(&number) else { return Ok(None) };
        topic.events += 1;
        topic.bytes += bytes;
        let is_new = topic.is_over() && !topic.queued;
        topic.queued |= is_new;
        Ok(is_new.then_some(number))
    }

    /// Counts the evictions of a topic, if the topic is in the cache.
    pub(crate) fn evicted(&mut self, number: i64, events: usize, bytes: usize, emptied: bool) {
        if let Some(topic) = self.states.get_mut(&number) {
            topic.events = topic.events.saturating_sub(events);
            topic.bytes = topic.bytes.saturating_sub(bytes);
            topic.emptied |= emptied;
        }
    }

    /// Drops a topic after its row was deleted.
    pub(crate) fn forget(&mut self, number: i64) {
        self.states.remove(&number);
    }

    fn load(&mut self, db: &Connection, number: i64, to: Address, emptied: bool) -> Result<()> {
        if self.states.len() >= CACHED_MAX || self.numbers.len() >= CACHED_MAX {
            self.numbers.clear();
            self.states.clear();
        }
        let size = "SELECT count(*), coalesce(sum(bytes), 0) FROM memberships WHERE topic = ?";
        let (events, bytes): (usize, usize) = db.first(size, [number])?.unwrap_or_default();
        let unindexed = self.unindexed(db)?.topics.get(&number).copied().unwrap_or_default();
        let (events, bytes) = (events + unindexed.0, bytes + unindexed.1);
        let retention = *self.rules.of(&to);
        let state = TopicState { number, events, bytes, retention, emptied, queued: false };
        self.numbers.insert(to, number);
        self.states.insert(number, state);
        Ok(())
    }
}

fn create(db: &Connection, address: &Address) -> Result<i64> {
    let (kind, name) = kind_and_name(address);
    let TopicEvictions { floor, lower_floor, number } = TopicEvictions::forgotten(db)?;
    db.run(
        "INSERT INTO topics (kind, name, floor, floor_at, lower_floor, evicted)
         VALUES (?, ?, ?, ?, ?, ?)",
        (kind, name, floor.offset.get(), floor.at.as_millis(), lower_floor, number),
    )?;
    Ok(db.last_insert_rowid())
}

/// Lists the events from an offset on. An event has one entry for each of its topics, with the
/// topic, the offset and the bytes. Stops when there are at least `enough` entries, but always
/// includes all topics of the last event.
pub(crate) fn members_from(
    db: &Connection,
    from: u64,
    enough: usize,
) -> Result<Vec<(i64, u64, usize)>> {
    let sql =
        "SELECT offset, topics, length(payload) FROM events WHERE offset >= ? ORDER BY offset";
    let mut select = db.prepare_cached(sql)?;
    let (mut rows, mut members) = (select.query([from])?, Vec::new());
    while members.len() < enough
        && let Some(row) = rows.next()?
    {
        let (offset, TopicNumbers(topics), bytes) = (row.get(0)?, row.get(1)?, cost(row.get(2)?));
        members.extend(topics.into_iter().map(|topic| (topic, offset, bytes)));
    }
    Ok(members)
}

/// The number of bytes that an event adds to the size of each of its topics. The topic's limit
/// applies to this size.
pub(crate) fn cost(payload_bytes: usize) -> usize {
    payload_bytes + ENTRY_COST_BYTES
}
