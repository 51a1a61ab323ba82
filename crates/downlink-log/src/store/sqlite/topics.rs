//! What the writer knows of topics without asking the file: number, size, rule.
//!
//! A cache only: whatever it holds can be read again, so a failed transaction simply empties it.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _};

use crate::{
    address::{Address, ClientId, Topic},
    retention::{Retention, RetentionRules},
    store::{
        StoreError, StoredFloor,
        sqlite::fault::{column, number},
    },
};

/// Topics held in memory: as many as are busy at a time, in about 15 MiB. Beyond it all are dropped
/// and read again, each for some ten microseconds.
const CACHED_MAX: usize = 65_536;

/// A topic as the writer sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct TopicState {
    pub(super) number: i64,
    pub(super) events: usize,
    pub(super) bytes: usize,
    pub(super) retention: Retention,
    /// Whether its row says that nothing is kept.
    pub(super) emptied: bool,
    /// Whether it waits to be trimmed.
    pub(super) queued: bool,
}

impl TopicState {
    /// Whether the topic has so much more than its rule allows that trimming is worth it: an eighth
    /// in events. Evicting a few events at a time costs fewer pages than one with each commit.
    pub(super) fn is_over(&self) -> bool {
        let rule = &self.retention;
        let slack = rule.events_max / 8;
        self.events > 1
            && (self.events > rule.events_max.saturating_add(slack) || self.bytes > rule.bytes_max)
    }

    fn added(&mut self, bytes: usize) -> Option<i64> {
        self.events += 1;
        self.bytes += bytes;
        let over = self.is_over() && !self.queued;
        self.queued |= over;
        over.then_some(self.number)
    }
}

#[derive(Debug)]
pub(super) struct Topics {
    rules: RetentionRules,
    numbers: HashMap<Address, i64>,
    states: HashMap<i64, TopicState>,
    unindexed: Option<Unindexed>,
}

/// Events that have no rows in `memberships` yet. There are few of them, as trimming sees to.
#[derive(Debug, Default)]
pub(super) struct Unindexed {
    /// Those at or above this offset.
    pub(super) from: u64,
    pub(super) rows: usize,
    /// Events and bytes by topic.
    topics: HashMap<i64, (usize, usize)>,
}

impl Unindexed {
    fn read(connection: &Connection) -> Result<Self, StoreError> {
        let mut unindexed = Self { from: indexed(connection)?, ..Self::default() };
        for (topic, _, bytes) in members_from(connection, unindexed.from)? {
            unindexed.add(topic, bytes);
        }
        Ok(unindexed)
    }

    fn add(&mut self, topic: i64, bytes: usize) {
        let (events, sum) = self.topics.entry(topic).or_default();
        *events += 1;
        *sum += bytes;
        self.rows += 1;
    }
}

impl Topics {
    pub(super) fn new(rules: RetentionRules) -> Self {
        Self { rules, numbers: HashMap::new(), states: HashMap::new(), unindexed: None }
    }

    /// What is not indexed yet.
    pub(super) fn unindexed(
        &mut self,
        connection: &Connection,
    ) -> Result<&mut Unindexed, StoreError> {
        match &mut self.unindexed {
            Some(unindexed) => Ok(unindexed),
            none => Ok(none.insert(Unindexed::read(connection)?)),
        }
    }

    /// Whether a topic has an event that is not indexed yet.
    pub(super) fn has_unindexed(
        &mut self,
        connection: &Connection,
        topic: i64,
    ) -> Result<bool, StoreError> {
        Ok(self.unindexed(connection)?.topics.contains_key(&topic))
    }

    /// Everything below an offset is indexed.
    pub(super) fn set_indexed(&mut self, from: u64) {
        self.unindexed = Some(Unindexed { from, ..Unindexed::default() });
    }

    /// Forgets everything: after a transaction that failed, what is here may never have happened.
    pub(super) fn clear(&mut self) {
        self.forget_all();
        self.unindexed = None;
    }

    fn forget_all(&mut self) {
        self.numbers.clear();
        self.states.clear();
    }

    /// The topic of an address; made if there is none, with the floor of forgotten topics.
    pub(super) fn find_or_create(
        &mut self,
        connection: &Connection,
        address: &Address,
        forgotten: StoredFloor,
    ) -> Result<&mut TopicState, StoreError> {
        let known = self.numbers.get(address).copied();
        let number = match known.filter(|number| self.states.contains_key(number)) {
            Some(number) => number,
            None => {
                let state = match find(connection, address)? {
                    Some((number, emptied)) => self.load(connection, number, address, emptied)?,
                    None => self.create(connection, address, forgotten)?,
                };
                self.insert(address.clone(), state);
                state.number
            }
        };
        self.states.get_mut(&number).ok_or_else(|| lost(number))
    }

    /// The topic with a number; `None` if there is none any more.
    pub(super) fn get(
        &mut self,
        connection: &Connection,
        number: i64,
    ) -> Result<Option<&mut TopicState>, StoreError> {
        if !self.states.contains_key(&number) {
            let Some((address, emptied)) = address_of(connection, number)? else {
                return Ok(None);
            };
            let state = self.load(connection, number, &address, emptied)?;
            self.insert(address, state);
        }
        Ok(self.states.get_mut(&number))
    }

    /// Counts an event that went into a topic and is not indexed yet. The number of a topic that is
    /// now over its rule, once.
    pub(super) fn added(
        &mut self,
        connection: &Connection,
        number: i64,
        bytes: usize,
    ) -> Result<Option<i64>, StoreError> {
        self.unindexed(connection)?.add(number, bytes);
        // A topic that is not in memory is counted when it comes there.
        Ok(self.states.get_mut(&number).and_then(|topic| topic.added(bytes)))
    }

    /// Counts what was evicted from a topic, if the topic is in memory.
    pub(super) fn evicted(&mut self, number: i64, events: usize, bytes: usize, emptied: bool) {
        if let Some(topic) = self.states.get_mut(&number) {
            topic.events = topic.events.saturating_sub(events);
            topic.bytes = topic.bytes.saturating_sub(bytes);
            topic.emptied |= emptied;
        }
    }

    /// Forgets one topic, whose row is gone.
    pub(super) fn forget(&mut self, number: i64) {
        self.states.remove(&number);
    }

    fn insert(&mut self, address: Address, state: TopicState) {
        if self.states.len() >= CACHED_MAX || self.numbers.len() >= CACHED_MAX {
            self.forget_all();
        }
        self.numbers.insert(address, state.number);
        self.states.insert(state.number, state);
    }

    fn load(
        &mut self,
        connection: &Connection,
        number: i64,
        address: &Address,
        emptied: bool,
    ) -> Result<TopicState, StoreError> {
        let (events, bytes): (i64, i64) = connection
            .prepare_cached(
                "SELECT count(*), coalesce(sum(bytes), 0) FROM memberships WHERE topic = ?",
            )?
            .query_row([number], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let retention = *self.rules.rule(self.rules.number_of(address));
        let unindexed =
            self.unindexed(connection)?.topics.get(&number).copied().unwrap_or_default();
        let (events, bytes) = (events as usize + unindexed.0, bytes as usize + unindexed.1);
        Ok(TopicState { number, events, bytes, retention, emptied, queued: false })
    }

    fn create(
        &self,
        connection: &Connection,
        address: &Address,
        forgotten: StoredFloor,
    ) -> Result<TopicState, StoreError> {
        let (kind, name) = kind_and_name(address);
        let floor = (column(forgotten.offset.get()), column(forgotten.at.as_millis()));
        let number = connection
            .prepare_cached("INSERT INTO topics (kind, name, floor, floor_at) VALUES (?, ?, ?, ?)")?
            .insert((kind, name, floor.0, floor.1))?;
        let retention = *self.rules.rule(self.rules.number_of(address));
        Ok(TopicState { number, events: 0, bytes: 0, retention, emptied: false, queued: false })
    }
}

/// How an address stands in the file.
pub(super) fn kind_and_name(address: &Address) -> (i64, &str) {
    match address {
        Address::Everyone => (0, ""),
        Address::Client(client) => (1, client.as_str()),
        Address::Topic(topic) => (KIND_TOPIC, topic.as_str()),
    }
}

/// The kind of those topics that patterns match.
pub(super) const KIND_TOPIC: i64 = 2;

fn find(connection: &Connection, address: &Address) -> Result<Option<(i64, bool)>, StoreError> {
    let found = connection
        .prepare_cached(
            "SELECT number, emptied IS NOT NULL FROM topics WHERE kind = ? AND name = ?",
        )?
        .query_row(kind_and_name(address), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(found)
}

/// The address of a topic, and whether its row says that nothing is kept.
pub(super) fn address_of(
    connection: &Connection,
    number: i64,
) -> Result<Option<(Address, bool)>, StoreError> {
    let found: Option<(i64, String, bool)> = connection
        .prepare_cached("SELECT kind, name, emptied IS NOT NULL FROM topics WHERE number = ?")?
        .query_row([number], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((kind, name, emptied)) = found else { return Ok(None) };
    let address = address(kind, &name).ok_or_else(|| lost(number))?;
    Ok(Some((address, emptied)))
}

/// The address that stands in the file like this; `None` if none does.
pub(super) fn address(kind: i64, name: &str) -> Option<Address> {
    match kind {
        0 => Some(Address::Everyone),
        1 => ClientId::new(name).ok().map(Address::Client),
        _ => Topic::new(name).ok().map(Address::Topic),
    }
}

/// Something points to a topic whose row is missing or makes no sense.
pub(super) fn lost(number: i64) -> StoreError {
    StoreError::Corrupt { reason: format!("topic {number} is missing or has no name").into() }
}

/// What `events.topics` holds for these topics.
pub(super) fn topics_column(numbers: &[i64]) -> rusqlite::types::Value {
    match numbers {
        [only] => (*only).into(),
        several => {
            several.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>().into()
        }
    }
}

/// The topics that an `events.topics` names.
pub(super) fn topic_numbers(value: rusqlite::types::ValueRef<'_>) -> Vec<i64> {
    match value {
        rusqlite::types::ValueRef::Integer(only) => vec![only],
        rusqlite::types::ValueRef::Blob(several) => {
            let (numbers, _) = several.as_chunks::<8>();
            numbers.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()
        }
        _ => Vec::new(),
    }
}

/// Those topics of an event that still keep it. One topic keeps its event as long as there is one;
/// of several, some may have evicted it, and may even be gone. What is not indexed is not evicted.
pub(super) fn keepers(
    connection: &Connection,
    offset: u64,
    topics: rusqlite::types::ValueRef<'_>,
    indexed: u64,
) -> Result<Vec<i64>, StoreError> {
    let numbers = topic_numbers(topics);
    if numbers.len() <= 1 || offset >= indexed {
        return Ok(numbers);
    }
    let mut select =
        connection.prepare_cached("SELECT 1 FROM memberships WHERE topic = ? AND offset = ?")?;
    let mut kept = Vec::with_capacity(numbers.len());
    for number in numbers {
        if select.exists((number, column(offset)))? {
            kept.push(number);
        }
    }
    Ok(kept)
}

/// Topic, offset and bytes of each event from an offset on.
pub(super) fn members_from(
    connection: &Connection,
    from: u64,
) -> Result<Vec<(i64, i64, usize)>, StoreError> {
    let mut select = connection.prepare_cached(
        "SELECT offset, topics, length(payload) FROM events WHERE offset >= ? ORDER BY offset",
    )?;
    let mut rows = select.query([column(from)])?;
    let mut members = Vec::new();
    while let Some(row) = rows.next()? {
        let offset: i64 = row.get(0)?;
        let bytes = cost(row.get::<_, i64>(2)? as usize);
        members.extend(topic_numbers(row.get_ref(1)?).into_iter().map(|n| (n, offset, bytes)));
    }
    Ok(members)
}

/// The first offset whose event may have no rows in `memberships`.
pub(super) fn indexed(connection: &Connection) -> Result<u64, StoreError> {
    meta(connection, "indexed")
}

/// What an event counts towards its topic's bound.
pub(super) fn cost(payload_bytes: usize) -> usize {
    payload_bytes + crate::ring::ENTRY_COST_BYTES
}

/// The floor that a name without a row begins with.
pub(super) fn forgotten(connection: &Connection) -> Result<StoredFloor, StoreError> {
    let value = |name| meta(connection, name);
    Ok(StoredFloor {
        offset: crate::Offset::new(value("forgotten")?),
        at: crate::Timestamp::from_millis(value("forgotten_at")?),
    })
}

/// A number among the facts about the whole store.
pub(super) fn meta(connection: &Connection, name: &str) -> Result<u64, StoreError> {
    let mut select = connection.prepare_cached("SELECT value FROM meta WHERE name = ?")?;
    Ok(number(select.query_row([name], |row| row.get(0))?))
}

/// Sets a fact about the whole store.
pub(super) fn set_meta(
    connection: &Connection,
    name: &str,
    value: impl rusqlite::ToSql,
) -> Result<(), StoreError> {
    let mut update = connection.prepare_cached("UPDATE meta SET value = ? WHERE name = ?")?;
    update.execute(rusqlite::params![value, name])?;
    Ok(())
}
