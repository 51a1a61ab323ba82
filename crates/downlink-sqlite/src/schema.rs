//! The layout of the file, and the steps from an older layout to the current one.
//!
//! A step changes one layout into the next. A released step never changes; a new layout gets a new
//! step at the end of the table. All steps that a file needs run in one transaction, so after a
//! crash the file has either the old layout or the current layout.

use downlink_log::{Timestamp, store::StoreError};
use rusqlite::{Connection, TransactionBehavior};

use crate::{
    fault::Result,
    sql::{Sql as _, column, first_since},
};

/// The application id that marks the file as a store: "down" in ASCII. The program `file`
/// recognises a store by this id, and each opening checks it.
pub(crate) const APPLICATION_ID: i32 = 0x646f_776e;

/// The application id that marks the file as the cache of a replica: "dowc" in ASCII.
pub(crate) const CACHE_APPLICATION_ID: i32 = 0x646f_7763;

/// The layout of a cache. A cache with another layout is not changed to this layout. It is emptied,
/// because its contents can be fetched again.
pub(crate) const CACHE_LAYOUT: u32 = 2;

/// The tables of a cache: those of a store, and some more.
const CACHE: &str = include_str!("layout/cache.sql");

/// The steps. The step at index n changes layout n into layout n + 1. A new file has layout 0.
pub(crate) const STEPS: &[&str] = &[FIRST, NUMBERED_EVICTIONS];

/// The first layout. A commit adds each event as the last row of `events`. After commits, trimming
/// evicts old events, and adds one row to `memberships` for each topic of a new event. All events
/// below `meta.indexed` have these rows. `events.topics` also lists the topics of each event. So a
/// reader that walks all events in order need not look up the topics in another table. The kinds of
/// topics are 0 for everyone's topic, 1 for a client's inbox, and 2 for any other topic.
const FIRST: &str = include_str!("layout/1.sql");

/// The second layout. It numbers the evictions, and stores the second to last evicted offset of
/// each topic (plus 1, in `lower_floor`). A file of layout 1 lacks these values. So all its
/// evictions get the number 1, and `lower_floor` gets its highest possible value, which is `floor`
/// minus 1.
const NUMBERED_EVICTIONS: &str = include_str!("layout/2.sql");

/// Lowers every time stamp that is later than `now` to `now`. Such time stamps come from a wrong
/// clock.
fn lower_future_stamps(db: &Connection, now: Timestamp) -> Result<()> {
    let now = column(now.as_millis());
    if let Some(first) = first_since(db, now.saturating_add(1) as u64)? {
        db.run("UPDATE events SET at = ? WHERE offset >= ?", (now, first))?;
    }
    db.run("UPDATE topics SET floor_at = ?1 WHERE floor_at > ?1", [now])?;
    db.run("UPDATE topics SET finished_at = ?1 WHERE finished_at > ?1", [now])?;
    db.run("UPDATE keys SET at = ?1 WHERE at > ?1", [now])?;
    let clock =
        "UPDATE meta SET value = ?1 WHERE name IN ('newest_at', 'forgotten_at') AND value > ?1";
    db.run(clock, [now]).map(|_| ())
}

/// Changes a file to the current layout. A new file gets the current layout too.
///
/// # Errors
///
/// [`StoreError::NotAStore`] if the file belongs to another program; [`StoreError::NewerVersion`]
/// if the file's layout is newer than the table of steps.
pub(crate) fn migrate(connection: &mut Connection, steps: &[&str], now: Timestamp) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let known = u32::try_from(steps.len()).unwrap_or(u32::MAX);
    let found = check_layout(&transaction, known)?;
    if found == known {
        return Ok(());
    }
    for step in steps.iter().skip(found as usize) {
        transaction.execute_batch(step)?;
    }
    if (found..known).contains(&1) {
        lower_future_stamps(&transaction, now)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", known)?;
    Ok(transaction.commit()?)
}

/// The contents of a file that is opened as a cache.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CacheFile {
    New,
    Current,
    /// A cache of another version.
    Other(u32),
}

/// Checks that a file is a cache, or new.
///
/// # Errors
///
/// [`StoreError::IsStore`] if the file is an ordinary store; [`StoreError::NotAStore`] if it
/// belongs to another program.
pub(crate) fn check_cache(db: &Connection) -> Result<CacheFile> {
    let (found, owner) = header(db)?;
    match owner {
        0 if found == 0 && tables(db)? == 0 => Ok(CacheFile::New),
        CACHE_APPLICATION_ID if found == CACHE_LAYOUT => Ok(CacheFile::Current),
        CACHE_APPLICATION_ID => Ok(CacheFile::Other(found)),
        APPLICATION_ID => Err(StoreError::IsStore.into()),
        _ => Err(StoreError::NotAStore.into()),
    }
}

/// Makes the tables of a cache in an empty file. The number `life` distinguishes the new contents
/// of the file from its earlier contents.
pub(crate) fn create_cache(connection: &mut Connection, life: i64) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in STEPS.iter().chain(&[CACHE]) {
        transaction.execute_batch(step)?;
    }
    transaction.execute("INSERT INTO meta VALUES ('life', ?)", [life])?;
    transaction.pragma_update(None, "application_id", CACHE_APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", CACHE_LAYOUT)?;
    Ok(transaction.commit()?)
}

/// Whether a file has the current layout. Returns `false` for a new file, which has no tables yet.
///
/// # Errors
///
/// The errors of [`migrate`].
pub(crate) fn is_present(db: &Connection) -> Result<bool> {
    let known = u32::try_from(STEPS.len()).unwrap_or(u32::MAX);
    Ok(check_layout(db, known)? == known)
}

/// Whether a file has no tables yet.
///
/// # Errors
///
/// The errors of [`migrate`].
pub(crate) fn is_new(db: &Connection) -> Result<bool> {
    let known = u32::try_from(STEPS.len()).unwrap_or(u32::MAX);
    Ok(check_layout(db, known)? == 0)
}

/// The number of a file's layout, which is at most `known`. A new file has the layout 0.
fn check_layout(db: &Connection, known: u32) -> Result<u32> {
    let (found, owner) = header(db)?;
    if owner == CACHE_APPLICATION_ID {
        return Err(StoreError::IsCache.into());
    }
    let is_new = owner == 0 && found == 0 && tables(db)? == 0;
    if !is_new && owner != APPLICATION_ID {
        return Err(StoreError::NotAStore.into());
    }
    if found > known {
        return Err(StoreError::NewerVersion { found, known }.into());
    }
    Ok(found)
}

/// The number of a file's layout, and its application id. Both are in the header of the file.
fn header(db: &Connection) -> Result<(u32, i32)> {
    let number = |pragma| db.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    Ok((u32::try_from(number("user_version")?).unwrap_or(u32::MAX), number("application_id")?))
}

/// The number of tables and indexes.
fn tables(db: &Connection) -> Result<i64> {
    Ok(db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    fn run(connection: &mut Connection, steps: &[&str]) -> Result<(), StoreError> {
        Ok(migrate(connection, steps, NOW)?)
    }

    fn layout(connection: &Connection) -> i32 {
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_step_to_a_newer_layout_keeps_the_rows_of_a_file() {
        let mut connection = Connection::open_in_memory().unwrap();
        run(&mut connection, &STEPS[..1]).unwrap();
        connection.execute("INSERT INTO epochs VALUES (1, 'aaaaaaaa', 7)", []).unwrap();
        let steps =
            [STEPS[0], STEPS[1], "ALTER TABLE epochs ADD COLUMN opened_at INTEGER DEFAULT 5"];
        run(&mut connection, &steps).unwrap();
        assert_eq!(layout(&connection), 3);
        let row = connection
            .query_row("SELECT first_offset, opened_at FROM epochs", [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
            })
            .unwrap();
        assert_eq!(row, (7, 5));
        run(&mut connection, &steps).unwrap();
        assert_eq!(layout(&connection), 3);
    }

    #[test]
    fn a_failed_step_to_a_newer_layout_leaves_the_old_layout() {
        let mut connection = Connection::open_in_memory().unwrap();
        run(&mut connection, &STEPS[..1]).unwrap();
        let steps = [STEPS[0], "CREATE TABLE later (a)", "CREATE TABLE later (a)"];
        assert!(run(&mut connection, &steps).is_err());
        assert_eq!(layout(&connection), 1);
        run(&mut connection, &STEPS[..1]).unwrap();
    }

    #[test]
    fn a_file_with_a_newer_layout_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        run(&mut connection, &[STEPS[0], "CREATE TABLE later (a)"]).unwrap();
        let refused = run(&mut connection, &STEPS[..1]);
        assert_eq!(refused, Err(StoreError::NewerVersion { found: 2, known: 1 }));
    }

    #[test]
    fn the_database_of_another_program_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE theirs (a)").unwrap();
        assert_eq!(run(&mut connection, STEPS), Err(StoreError::NotAStore));
    }

    /// Released files have this layout, so the step must not change by a single byte.
    #[test]
    fn the_step_to_the_first_layout_never_changes() {
        assert_eq!((FIRST.len(), crc32c::crc32c(FIRST.as_bytes())), (2_232, 0x3fa5_3da8));
    }
}
