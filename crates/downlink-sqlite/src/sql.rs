//! Runs SQL statements, and converts the values in the file: addresses, lists of topics, checksums,
//! and the values in `meta`.
//!
//! The checksum of an event is a CRC-32C over the offset, the id and the payload. It detects every
//! flipped bit and every damaged run of up to 32 bits. It does not protect against deliberate
//! changes.

use downlink_log::{
    Address, ClientId, Fingerprint, Floor, IdempotencyKey, Offset, Timestamp, Topic,
};
use rusqlite::{
    Connection, OptionalExtension as _, Params, Row,
    types::{FromSql, FromSqlResult, ToSql, Value, ValueRef},
};

use crate::fault::{Fault, Result};

/// A tuple of the columns of a row.
pub(crate) trait Columns: for<'r> TryFrom<&'r Row<'r>, Error = rusqlite::Error> {}

impl<T: for<'r> TryFrom<&'r Row<'r>, Error = rusqlite::Error>> Columns for T {}

/// Runs statements, and keeps them compiled.
pub(crate) trait Sql {
    /// Runs a statement, and returns the number of rows that it changed.
    fn run(&self, sql: &str, params: impl Params) -> Result<usize>;

    /// The first row.
    fn first<T: Columns>(&self, sql: &str, params: impl Params) -> Result<Option<T>>;

    /// All rows. The statement must limit their number.
    fn all<T: Columns>(&self, sql: &str, params: impl Params) -> Result<Vec<T>>;
}

impl Sql for Connection {
    fn run(&self, sql: &str, params: impl Params) -> Result<usize> {
        Ok(self.prepare_cached(sql)?.execute(params)?)
    }

    fn first<T: Columns>(&self, sql: &str, params: impl Params) -> Result<Option<T>> {
        Ok(self.prepare_cached(sql)?.query_row(params, |row| T::try_from(row)).optional()?)
    }

    fn all<T: Columns>(&self, sql: &str, params: impl Params) -> Result<Vec<T>> {
        let mut select = self.prepare_cached(sql)?;
        Ok(select.query_map(params, |row| T::try_from(row))?.collect::<Result<_, _>>()?)
    }
}

/// Converts a number into the value of a column. A column can store numbers below 2^63. A larger
/// number becomes the largest of these numbers. Offsets and times never reach 2^63: with a million
/// events a second, this would take 290,000 years.
pub(crate) fn column(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// Reads a value from the table `meta`, which has the values that belong to the whole store.
pub(crate) fn meta<T: FromSql>(db: &Connection, name: &str) -> Result<T> {
    let found = db.first("SELECT value FROM meta WHERE name = ?", [name])?;
    found
        .map(|(value,)| value)
        .ok_or_else(|| Fault::corrupt(format!("the value {name} is missing")))
}

/// Sets a value in `meta`.
pub(crate) fn set_meta(db: &Connection, name: &str, value: impl ToSql) -> Result<()> {
    db.run("UPDATE meta SET value = ? WHERE name = ?", (value, name)).map(|_| ())
}

/// Says which event to take if several events have the same id of a publisher.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum OfSameId {
    Oldest,
    Newest,
}

/// The fingerprint and the offset of a kept event with this id of a publisher.
pub(crate) fn find_id(
    db: &Connection,
    id: &str,
    which: OfSameId,
) -> Result<Option<(Fingerprint, Offset)>> {
    let newest = "SELECT fingerprint, offset FROM events WHERE id = ? ORDER BY offset DESC LIMIT 1";
    let oldest = "SELECT fingerprint, offset FROM events WHERE id = ? ORDER BY offset LIMIT 1";
    let sql = if which == OfSameId::Newest { newest } else { oldest };
    Ok(db.first(sql, [id])?.map(identity))
}

/// The fingerprint and the offset of the event with this idempotency key.
pub(crate) fn find_key(
    db: &Connection,
    key: &IdempotencyKey,
) -> Result<Option<(Fingerprint, Offset)>> {
    let sql = "SELECT fingerprint, offset FROM keys WHERE credential = ? AND key = ?";
    Ok(db.first(sql, (&key.credential, &key.key))?.map(identity))
}

fn identity((fingerprint, offset): ([u8; 16], u64)) -> (Fingerprint, Offset) {
    (Fingerprint::from_bytes(fingerprint), Offset::new(offset))
}

/// The first offset whose event may have no rows in `memberships` (the lists of each topic's
/// events).
pub(crate) fn indexed(db: &Connection) -> Result<u64> {
    meta(db, "indexed")
}

/// The kind of the topics that patterns can match.
pub(crate) const KIND_TOPIC: i64 = 2;

/// The values of the columns `kind` and `name` for an address.
pub(crate) fn kind_and_name(address: &Address) -> (i64, &str) {
    match address {
        Address::Client(client) => (1, client.as_str()),
        Address::Topic(topic) => (KIND_TOPIC, topic.as_str()),
        _ => (0, ""),
    }
}

/// The address in the row of a topic.
pub(crate) fn address(kind: i64, name: &str, topic: i64) -> Result<Address> {
    let address = match kind {
        0 => Some(Address::Everyone),
        1 => ClientId::new(name).ok().map(Address::Client),
        _ => Topic::new(name).ok().map(Address::Topic),
    };
    address.ok_or_else(|| lost(topic))
}

/// The address of a topic, and whether its row says that the topic has no events and no finish
/// mark. The finish mark records that the topic is finished.
pub(crate) fn address_of(db: &Connection, topic: i64) -> Result<Option<(Address, bool)>> {
    let found: Option<(i64, String, bool)> =
        db.first("SELECT kind, name, emptied IS NOT NULL FROM topics WHERE number = ?", [topic])?;
    found.map(|(kind, name, emptied)| Ok((address(kind, &name, topic)?, emptied))).transpose()
}

/// The error for a topic without a row or without a valid name.
pub(crate) fn lost(topic: i64) -> Fault {
    Fault::corrupt(format!("topic {topic} is missing or has no name"))
}

/// The value of `events.topics` for these topics.
pub(crate) fn topics_column(topics: &[i64]) -> Value {
    match topics {
        [only] => (*only).into(),
        several => several.iter().flat_map(|topic| topic.to_le_bytes()).collect::<Vec<_>>().into(),
    }
}

/// The numbers of the topics in a value of `events.topics`.
#[derive(Debug, Default)]
pub(crate) struct TopicNumbers(pub(crate) Vec<i64>);

impl FromSql for TopicNumbers {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let ValueRef::Blob(several) = value else { return Ok(Self(vec![value.as_i64()?])) };
        let (numbers, _) = several.as_chunks::<8>();
        Ok(Self(numbers.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()))
    }
}

/// The topics that still keep an event. If an event has only one topic, this topic keeps the event
/// as long as the event has a row. If an event has several topics, some of them may have evicted
/// it, and some may no longer exist. From the offset `indexed` on, no event has been evicted.
pub(crate) fn keepers(
    db: &Connection,
    offset: u64,
    topics: TopicNumbers,
    indexed: u64,
) -> impl DoubleEndedIterator<Item = Result<i64>> {
    let TopicNumbers(topics) = topics;
    let is_sure = topics.len() <= 1 || offset >= indexed;
    topics.into_iter().filter_map(move |topic| {
        let sql = "SELECT topic FROM memberships WHERE topic = ? AND offset = ?";
        let found = if is_sure { Ok(Some((topic,))) } else { db.first(sql, (topic, offset)) };
        found.map(|found| found.map(|(topic,)| topic)).transpose()
    })
}

/// The last evictions of one topic, or of all topic names without a row in `topics`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct TopicEvictions {
    pub(crate) floor: Floor,
    /// The offset after the second to last evicted event. A replay uses this offset if another
    /// topic still keeps the last evicted event.
    pub(crate) lower_floor: u64,
    /// The number of the newest eviction.
    pub(crate) number: u64,
}

impl TopicEvictions {
    /// Makes the value from the columns `floor`, `floor_at`, `lower_floor` and `evicted`.
    pub(crate) fn new((offset, at, lower_floor, number): (u64, u64, u64, u64)) -> Self {
        let floor = Floor { offset: Offset::new(offset), at: Timestamp::from_millis(at) };
        Self { floor, lower_floor, number }
    }

    /// The evictions that count for every name without a row in `topics`. Trimming deletes rows of
    /// topics without events. Of the floors in all deleted rows, the store keeps only the highest.
    /// A name without a row may be the name of such a topic. So for this name, all events below the
    /// highest deleted floor count as evicted.
    pub(crate) fn forgotten(db: &Connection) -> Result<Self> {
        let sql = "SELECT f.value, a.value, max(f.value - 1, 1), e.value
             FROM meta f, meta a, meta e
             WHERE f.name = 'forgotten' AND a.name = 'forgotten_at' AND e.name = 'forgotten_evicted'";
        let found = db.first(sql, [])?.map(Self::new);
        found.ok_or_else(|| Fault::corrupt("the values of forgotten topics are missing"))
    }
}

/// The offset of the first event, in any topic, with this time stamp or a later one. Time stamps
/// rise with offsets, so a binary search finds this offset.
pub(crate) fn first_since(db: &Connection, since: u64) -> Result<Option<u64>> {
    let next = "SELECT offset, at FROM events WHERE offset >= ? ORDER BY offset LIMIT 1";
    let newest = db.first("SELECT offset FROM events ORDER BY offset DESC LIMIT 1", [])?;
    let (mut from, mut until) = (0, newest.map_or(0, |(offset,): (u64,)| offset + 1));
    // All events below `from` are too old. All events from `until` on are young enough.
    while from < until {
        let middle = from + (until - from) / 2;
        match db.first::<(u64, u64)>(next, [middle])? {
            Some((offset, at)) if at < since => from = offset + 1,
            _ => until = middle,
        }
    }
    Ok(db.first::<(u64, u64)>(next, [from])?.map(|(offset, _)| offset))
}

/// The checksum of an event.
pub(crate) fn checksum(offset: u64, id: Option<&[u8]>, payload: &[u8]) -> u32 {
    // The length of the id separates the id from the payload.
    let id_bytes = id.map_or(u64::MAX, |id| id.len() as u64);
    let sum = crc32c::crc32c([offset.to_le_bytes(), id_bytes.to_le_bytes()].as_flattened());
    let sum = crc32c::crc32c_append(sum, id.unwrap_or_default());
    crc32c::crc32c_append(sum, payload)
}

/// The id that the publisher gave to an event, and the payload of the event.
pub(crate) type IdAndPayload = (Option<Box<str>>, Vec<u8>);

/// The id and the payload of a row of `events`. The first columns of the row must be `id`,
/// `payload` and `checksum`. `None` if the checksum shows that the values are damaged. Events of
/// older files have no checksum and count as intact.
pub(crate) fn verified(offset: u64, row: &Row<'_>) -> Result<Option<IdAndPayload>> {
    let expected: Option<u32> = row.get(2)?;
    let id = match row.get_ref(0)? {
        ValueRef::Text(id) => Some(id),
        _ => None,
    };
    let ValueRef::Blob(payload) = row.get_ref(1)? else { return Ok(None) };
    if expected.is_some_and(|expected| expected != checksum(offset, id, payload)) {
        return Ok(None);
    }
    let Ok(id) = id.map(std::str::from_utf8).transpose() else { return Ok(None) };
    Ok(Some((id.map(Box::from), payload.to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files contain these checksums, so the function must never change.
    #[test]
    fn the_checksum_function_never_changes() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(checksum(7, Some(b"id"), b"payload"), 0x66ae_60da);
    }

    #[test]
    fn the_checksum_covers_offset_id_and_payload() {
        let sum = checksum(1, Some(b"ab"), b"c");
        assert_ne!(sum, checksum(2, Some(b"ab"), b"c"));
        assert_ne!(sum, checksum(1, Some(b"a"), b"bc"));
        assert_ne!(sum, checksum(1, None, b"abc"));
        assert_ne!(sum, checksum(1, Some(b"ab"), b"d"));
        assert_ne!(checksum(1, None, b""), checksum(1, Some(b""), b""));
    }
}
