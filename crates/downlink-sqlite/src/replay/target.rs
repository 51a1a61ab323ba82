//! Finds the topics that a replay reads. The type [`Snapshot`] represents one call of a replay: a
//! read transaction that may read a limited number of rows.
//!
//! A replay reads named topics, and topics that match patterns. The start of a pattern up to its
//! first placeholder is its prefix. If few names in the file begin with these prefixes, the replay
//! makes a list of its topics. It then merges the lists of the events of these topics (the table
//! `memberships`). If there are more names, the replay walks all events, and checks for each event
//! whether one of its topics is wanted.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use downlink_log::{
    Address, PatternSet,
    store::{Step, StoreError, Wanted},
};
use rusqlite::{Connection, types::Value};

use crate::{
    fault::Result,
    file::Pool,
    sql::{
        KIND_TOPIC, Sql as _, TopicEvictions, TopicNumbers, address, indexed, keepers,
        kind_and_name, lost,
    },
};

/// The maximum number of rows that one call reads. Reading this many rows takes about ten
/// milliseconds if none of the rows is wanted.
pub(crate) const ROWS_MAX: usize = 4_096;

/// A call may always read this many rows of events, even if it has already read [`ROWS_MAX`] rows
/// of topics. So every page makes progress.
const EVENT_ROWS_MIN: usize = 1_024;

/// If more names than this begin with the prefixes of the patterns, the replay walks all events. To
/// merge the lists of more topics for one page would take longer than to read several thousand
/// events in order.
pub(crate) const LISTED_MAX: usize = 64;

/// The maximum number of names and prefixes to look up. A look-up takes about as long as reading a
/// row. By default, one reader may have at most half this number of names and patterns.
const LOOKUPS_MAX: usize = 2_000;

/// The maximum number of topics in the list of a replay. New topics are added to the list. When the
/// list has more than this many topics, the replay walks all events instead.
const FEW_MAX: usize = LOOKUPS_MAX + 8 * LISTED_MAX;

/// The maximum number of topics for which a walk remembers whether the topic is wanted. This many
/// topics take some 300 KiB. When the walk meets more topics, it forgets all answers. To find the
/// answer for a topic again, the walk reads one row.
const KNOWN_MAX: usize = 16_384;

/// The names and patterns of the topics that a replay wants.
#[derive(Debug)]
pub(crate) struct Wants {
    addresses: HashSet<Address>,
    patterns: Arc<PatternSet>,
    /// The prefixes of the patterns, without duplicates.
    prefixes: BTreeSet<Box<str>>,
}

impl Wants {
    pub(super) fn new(Wanted { addresses, patterns }: Wanted) -> Self {
        let prefixes = patterns.patterns().iter().map(|pattern| pattern.literal_prefix().into());
        let (addresses, prefixes) = (addresses.into_iter().collect(), prefixes.collect());
        Self { addresses, patterns, prefixes }
    }

    pub(super) fn matches(&self, kind: i64, name: &str) -> bool {
        let is_named = || address(kind, name, 0).is_ok_and(|name| self.addresses.contains(&name));
        (kind == KIND_TOPIC && self.patterns.matches(name))
            || (!self.addresses.is_empty() && is_named())
    }
}

/// The topics of a replay.
#[derive(Debug)]
pub(crate) enum ReplayTopics {
    Few(Few),
    /// There are too many topics to list. For the topics looked up so far, the map says whether the
    /// topic is wanted.
    Many(HashMap<i64, bool>),
}

/// A list of topics.
#[derive(Debug)]
pub(crate) struct Few {
    /// The numbers of the topics, in rising order and without duplicates. Trimming may have deleted
    /// the rows of some of these topics.
    pub(super) numbers: Vec<i64>,
    /// The highest topic number that the replay has checked.
    newest: i64,
}

impl ReplayTopics {
    /// Lists the topics. If there are too many, returns [`Self::Many`]. Reads no more rows than one
    /// call may read.
    fn choose(db: &Connection, wants: &Wants) -> Result<Self> {
        if wants.addresses.len() + wants.prefixes.len() > LOOKUPS_MAX {
            return Ok(Self::Many(HashMap::new()));
        }
        let mut numbers = BTreeSet::new();
        let mut left = LISTED_MAX;
        for prefix in &wants.prefixes {
            let names: Vec<(i64, String)> = db.all(
                "SELECT number, name FROM topics WHERE kind = ? AND name >= ? AND name < ? LIMIT ?",
                (KIND_TOPIC, prefix, end_of(prefix), left + 1),
            )?;
            let Some(rest) = left.checked_sub(names.len()) else {
                return Ok(Self::Many(HashMap::new()));
            };
            left = rest;
            let wanted = names.into_iter().filter(|(_, name)| wants.matches(KIND_TOPIC, name));
            numbers.extend(wanted.map(|(number, _)| number));
        }
        for address in &wants.addresses {
            let select = "SELECT number FROM topics WHERE kind = ? AND name = ?";
            let found = db.first(select, kind_and_name(address))?;
            numbers.extend(found.map(|(number,): (i64,)| number));
        }
        let newest = db.first("SELECT number FROM topics ORDER BY number DESC LIMIT 1", [])?;
        let newest = newest.map_or(0, |(number,)| number);
        Ok(Self::Few(Few { numbers: numbers.into_iter().collect(), newest }))
    }
}

impl Few {
    pub(super) fn contains(&self, topic: i64) -> bool {
        self.numbers.binary_search(&topic).is_ok()
    }

    /// The evictions of the listed topics. If a wanted name may have no row in `topics`, the result
    /// also has the evictions that count for all such names (see [`TopicEvictions::forgotten`]).
    pub(super) fn evicted(&self, db: &Connection, wants: &Wants) -> Result<Vec<TopicEvictions>> {
        let select = "SELECT floor, floor_at, lower_floor, evicted FROM topics WHERE number = ?";
        let mut all = Vec::with_capacity(self.numbers.len() + 1);
        for number in &self.numbers {
            all.extend(db.first(select, [number])?.map(TopicEvictions::new));
        }
        if !wants.prefixes.is_empty() || all.len() < wants.addresses.len() {
            all.push(TopicEvictions::forgotten(db)?);
        }
        Ok(all)
    }
}

/// The first value after all names that begin with a prefix. A prefix ends with `/`, and `0` is the
/// next character after `/`. So the value is the prefix with `0` in place of its last character.
/// For the empty prefix, the value is a blob, because SQLite sorts every text before every blob.
fn end_of(prefix: &str) -> Value {
    match prefix.strip_suffix('/') {
        Some(stem) => format!("{stem}0").into(),
        None => Vec::<u8>::new().into(),
    }
}

/// One call of a replay: a read transaction, and the number of rows that it may still read.
pub(crate) struct Snapshot<'a> {
    pub(super) db: &'a Connection,
    pub(super) wants: &'a Wants,
    pub(super) target: &'a mut ReplayTopics,
    /// Events from this offset on are not on the lists of their topics yet.
    pub(super) indexed: u64,
    pub(super) rows_left: usize,
}

impl Snapshot<'_> {
    /// Opens a transaction and finds the topics of the replay. Then calls `read`. If there are more
    /// new topics than one call can check, this function returns [`Step::More`] and does not call
    /// `read`.
    pub(super) fn read<T>(
        pool: &Pool,
        wants: &Wants,
        target: &mut Option<ReplayTopics>,
        read: impl FnOnce(&mut Snapshot<'_>) -> Result<Step<T>>,
    ) -> Result<Step<T>, StoreError> {
        pool.read(|db| {
            let target = match target {
                Some(target) => target,
                none => none.insert(ReplayTopics::choose(db, wants)?),
            };
            let (indexed, rows_left) = (indexed(db)?, ROWS_MAX);
            let mut snapshot = Snapshot { db, wants, target, indexed, rows_left };
            if snapshot.add_new_topics()? { read(&mut snapshot) } else { Ok(Step::More) }
        })
    }

    pub(super) fn spend(&mut self, rows: usize) {
        self.rows_left = self.rows_left.saturating_sub(rows);
    }

    /// Begins to read events. Afterwards, the call may read at least [`EVENT_ROWS_MIN`] more rows.
    pub(super) fn begin_events(&mut self) {
        self.rows_left = self.rows_left.max(EVENT_ROWS_MIN);
    }

    /// Adds the topics that were created since the last call. Returns `false` if a later call must
    /// check further new topics.
    fn add_new_topics(&mut self) -> Result<bool> {
        let ReplayTopics::Few(few) = &mut *self.target else { return Ok(true) };
        let sql = "SELECT number, kind, name FROM topics WHERE number > ? ORDER BY number LIMIT ?";
        let new: Vec<(i64, i64, String)> = self.db.all(sql, (few.newest, ROWS_MAX))?;
        let looked = new.len();
        for (number, kind, name) in new {
            few.newest = number;
            if self.wants.matches(kind, &name) {
                few.numbers.push(number);
            }
        }
        if few.numbers.len() > FEW_MAX {
            let known = few.numbers.iter().map(|&topic| (topic, true)).collect();
            *self.target = ReplayTopics::Many(known);
        }
        self.spend(looked);
        Ok(looked < ROWS_MAX)
    }

    /// Whether a topic is wanted.
    fn wants_topic(&mut self, topic: i64) -> Result<bool> {
        let known = match &mut *self.target {
            ReplayTopics::Few(few) => return Ok(few.contains(topic)),
            ReplayTopics::Many(known) => known,
        };
        if let Some(&wanted) = known.get(&topic) {
            return Ok(wanted);
        }
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        let found = self.db.first("SELECT kind, name FROM topics WHERE number = ?", [topic])?;
        let (kind, name): (i64, String) = found.ok_or_else(|| lost(topic))?;
        let wanted = self.wants.matches(kind, &name);
        known.insert(topic, wanted);
        self.spend(1);
        Ok(wanted)
    }

    /// Whether one of the topics of an event is wanted and still keeps the event.
    pub(super) fn wants_event(&mut self, offset: u64, topics: TopicNumbers) -> Result<bool> {
        self.spend(topics.0.len().saturating_sub(1));
        for topic in keepers(self.db, offset, topics, self.indexed) {
            if self.wants_topic(topic?)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a wanted topic keeps the event at an offset.
    pub(super) fn keeps(&mut self, offset: u64) -> Result<bool> {
        self.spend(1);
        match self.db.first("SELECT topics FROM events WHERE offset = ?", [offset])? {
            Some((topics,)) => self.wants_event(offset, topics),
            None => Ok(false),
        }
    }
}
