//! Which topics a read is about, and the highest of their floors.
//!
//! A pattern asks the index of names for what begins as it does. As long as these are few, they are
//! listed; otherwise a read looks at events and asks of each topic whether it is wanted.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, OptionalExtension as _, types::Value};

use crate::{
    address::Address,
    offset::{Offset, Timestamp},
    selector::TopicSelector,
    store::{
        StoreError, StoredFloor, Wanted,
        sqlite::{
            fault::{column, number},
            topics::{KIND_TOPIC, address_of, forgotten, kind_and_name, lost},
        },
    },
};

/// Names that are listed for a pattern: a few milliseconds for each page.
const LISTED_MAX: usize = 4_096;

/// The topics of a read.
pub(super) enum Target {
    /// Their numbers, each once.
    Few(Vec<i64>),
    /// Too many to list.
    Many(Many),
}

pub(super) struct Many {
    patterns: Vec<TopicSelector>,
    /// Answers so far: exact topics at first.
    wanted: HashMap<i64, bool>,
}

impl Many {
    /// Whether a topic is wanted.
    pub(super) fn wants(
        &mut self,
        connection: &Connection,
        number: i64,
    ) -> Result<bool, StoreError> {
        if let Some(&wanted) = self.wanted.get(&number) {
            return Ok(wanted);
        }
        let (address, _) = address_of(connection, number)?.ok_or_else(|| lost(number))?;
        let wanted = self.matches(&address);
        self.wanted.insert(number, wanted);
        Ok(wanted)
    }

    fn matches(&self, address: &Address) -> bool {
        let topic = address.topic();
        topic.is_some_and(|topic| self.patterns.iter().any(|pattern| pattern.matches(topic)))
    }
}

/// Finds the topics, and the highest floor above `from` among them; a floor at or below it may be
/// reported as a lower one.
pub(super) fn resolve(
    connection: &Connection,
    wanted: &Wanted,
    from: Offset,
) -> Result<(Target, StoredFloor), StoreError> {
    let mut found = Found {
        connection,
        numbers: HashSet::new(),
        floor: StoredFloor::NONE,
        forgotten: forgotten(connection)?,
    };
    wanted.addresses.iter().try_for_each(|address| found.add_address(address))?;
    let mut patterns = Vec::new();
    for pattern in &wanted.patterns {
        match pattern.exact() {
            Some(topic) => found.add_address(&Address::Topic(topic.clone()))?,
            None => patterns.push(pattern.clone()),
        }
    }
    let exact = found.numbers.clone();
    for pattern in &patterns {
        if !found.add_matching(pattern)? {
            let wanted = exact.into_iter().map(|number| (number, true)).collect();
            let many = Many { patterns, wanted };
            let floor = found.floor.max(highest(connection, &many, from)?);
            return Ok((Target::Many(many), floor));
        }
    }
    let mut numbers: Vec<i64> = found.numbers.into_iter().collect();
    numbers.sort_unstable();
    Ok((Target::Few(numbers), found.floor))
}

struct Found<'a> {
    connection: &'a Connection,
    numbers: HashSet<i64>,
    floor: StoredFloor,
    forgotten: StoredFloor,
}

impl Found<'_> {
    fn add_address(&mut self, address: &Address) -> Result<(), StoreError> {
        let row: Option<(i64, i64, i64)> = self
            .connection
            .prepare_cached(
                "SELECT number, floor, floor_at FROM topics WHERE kind = ? AND name = ?",
            )?
            .query_row(kind_and_name(address), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        match row {
            Some((number, offset, at)) => {
                self.numbers.insert(number);
                self.floor = self.floor.max(floor(offset, at));
            }
            None => self.floor = self.floor.max(self.forgotten),
        }
        Ok(())
    }

    /// Adds what a pattern matches; `false` if its prefix has too many names to list.
    fn add_matching(&mut self, pattern: &TopicSelector) -> Result<bool, StoreError> {
        // A name that it matches may have been forgotten.
        self.floor = self.floor.max(self.forgotten);
        let prefix = pattern.literal_prefix();
        let mut select = self.connection.prepare_cached(
            "SELECT number, name, floor, floor_at FROM topics
             WHERE kind = ? AND name >= ? AND name < ? LIMIT ?",
        )?;
        let limit = LISTED_MAX as i64 + 1;
        let mut rows = select.query((KIND_TOPIC, prefix, end_of(prefix), limit))?;
        let mut listed = 0;
        while let Some(row) = rows.next()? {
            listed += 1;
            if listed > LISTED_MAX {
                return Ok(false);
            }
            let number = row.get(0)?;
            let name = row.get_ref(1)?.as_str().map_err(|_| lost(number))?;
            if pattern.matches_name(name) {
                self.numbers.insert(number);
                self.floor = self.floor.max(floor(row.get(2)?, row.get(3)?));
            }
        }
        Ok(self.numbers.len() <= LISTED_MAX)
    }
}

/// Where the names that begin with a prefix end. A prefix is empty or ends with `/`, and the next
/// character after that is `0`; every text is below every blob.
fn end_of(prefix: &str) -> Value {
    match prefix.strip_suffix('/') {
        Some(stem) => format!("{stem}0").into(),
        None => Vec::<u8>::new().into(),
    }
}

/// The highest floor above `from` of a topic that a pattern matches.
fn highest(connection: &Connection, many: &Many, from: Offset) -> Result<StoredFloor, StoreError> {
    let mut select = connection.prepare_cached(
        "SELECT number, floor, floor_at FROM topics WHERE floor > max(?, 1) AND floor > 1
         ORDER BY floor DESC",
    )?;
    let mut rows = select.query([column(from.get())])?;
    while let Some(row) = rows.next()? {
        let number: i64 = row.get(0)?;
        let (address, _) = address_of(connection, number)?.ok_or_else(|| lost(number))?;
        if many.matches(&address) {
            return Ok(floor(row.get(1)?, row.get(2)?));
        }
    }
    Ok(StoredFloor::NONE)
}

fn floor(offset: i64, at: i64) -> StoredFloor {
    StoredFloor { offset: Offset::new(number(offset)), at: Timestamp::from_millis(number(at)) }
}
