//! Removes the newest events of a cache, because the history that it follows has lost them.
//!
//! All changes are part of one transaction of the caller. After the transaction, the caller must
//! forget everything that it knows about topics.

use std::collections::BTreeSet;

use downlink_log::{CUT_IDS_MAX, POSITION_OFFSETS};
use rusqlite::Connection;

use crate::{
    fault::Result,
    sql::{Sql as _, TopicNumbers, column, meta, set_meta},
};

/// Removes all events at and above the offset `until`, and everything that belongs to them. All
/// events must have their rows in `memberships`, the table with the events of each topic. Returns
/// ids that publishers gave to the removed events, the oldest ones first.
///
/// The call keeps the number of each topic of a removed event in memory.
pub(crate) fn cut(db: &Connection, until: u64) -> Result<Vec<Box<str>>> {
    let ids: Vec<(String,)> = db.all(
        "SELECT id FROM events WHERE offset >= ? AND +id IS NOT NULL ORDER BY offset LIMIT ?",
        (column(until), column(CUT_IDS_MAX)),
    )?;
    let topics = remove_events(db, until)?;
    db.run("DELETE FROM keys WHERE offset >= ?", [column(until)])?;
    remove_finish_marks(db, until, &topics)?;
    lower_floors(db, until)?;
    let base: u64 = meta(db, "base")?;
    let position = until.saturating_sub(base) / POSITION_OFFSETS;
    db.run("DELETE FROM marks WHERE position >= ?", [column(position)])?;
    db.run(
        "UPDATE meta SET value = min(value, ?) WHERE name IN ('indexed', 'unknown_below')",
        [column(until)],
    )?;
    set_meta(db, "next_offset", column(until))?;
    db.run("UPDATE meta SET value = value + 1 WHERE name = 'life'", [])?;
    Ok(ids.into_iter().map(|(id,)| id.into_boxed_str()).collect())
}

/// Removes the events from an offset on, and returns their topics.
fn remove_events(db: &Connection, until: u64) -> Result<BTreeSet<i64>> {
    let mut removed = BTreeSet::new();
    {
        let mut select =
            db.prepare_cached("SELECT offset, topics FROM events WHERE offset >= ?")?;
        let mut rows = select.query([column(until)])?;
        while let Some(row) = rows.next()? {
            let (offset, TopicNumbers(topics)): (u64, _) = (row.get(0)?, row.get(1)?);
            for topic in topics {
                let sql = "DELETE FROM memberships WHERE topic = ? AND offset = ?";
                db.run(sql, (topic, column(offset)))?;
                removed.insert(topic);
            }
        }
    }
    db.run("DELETE FROM events WHERE offset >= ?", [column(until)])?;
    Ok(removed)
}

/// Removes the finish marks from an offset on. (A finish mark records that a topic is finished.)
/// Then looks at each topic that has lost its mark or an event. If the newest event that stays in
/// the topic has finished it, the topic gets its mark back. A mark without an event does not come
/// back if a removed event had reopened the topic.
fn remove_finish_marks(db: &Connection, until: u64, topics: &BTreeSet<i64>) -> Result<()> {
    let sql = "SELECT number FROM topics WHERE finished IS NOT NULL AND finished >= ?";
    let unfinished: Vec<(i64,)> = db.all(sql, [column(until)])?;
    db.run(
        "UPDATE topics SET finished = NULL, finished_at = NULL
         WHERE finished IS NOT NULL AND finished >= ?",
        [column(until)],
    )?;
    for topic in unfinished.iter().map(|(topic,)| topic).chain(topics) {
        db.run(
            "UPDATE topics SET (finished, finished_at) =
                (SELECT offset, at FROM events WHERE finish AND offset =
                    (SELECT max(offset) FROM memberships WHERE topic = ?1))
             WHERE number = ?1 AND finished IS NULL",
            [topic],
        )?;
        db.run(
            "UPDATE topics SET emptied = floor - 1
             WHERE number = ?1 AND finished IS NULL AND emptied IS NULL
             AND NOT EXISTS (SELECT 1 FROM memberships WHERE topic = ?1)",
            [topic],
        )?;
    }
    Ok(())
}

/// Lowers the floors above an offset to this offset.
fn lower_floors(db: &Connection, until: u64) -> Result<()> {
    db.run(
        "UPDATE topics SET floor = ?1, lower_floor = min(lower_floor, ?1),
         emptied = iif(emptied IS NULL, NULL, ?1 - 1) WHERE floor <> 1 AND floor > ?1",
        [column(until)],
    )?;
    let sql = "UPDATE meta SET value = min(value, ?) WHERE name = 'forgotten'";
    db.run(sql, [column(until)]).map(|_| ())
}
