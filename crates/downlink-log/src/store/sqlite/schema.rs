//! The layout of the file, and how an older one becomes the present one.
//!
//! A step is never changed once released; a new layout is a new step at the end of the table. The
//! steps that a file lacks are one transaction: after a crash the file has the old layout or the new.

use rusqlite::{Connection, TransactionBehavior};

use crate::store::StoreError;

/// Marks the file as ours: "down" in ASCII. `file` and our own check at open look at it.
pub(super) const APPLICATION_ID: i32 = 0x646f_776e;

/// From layout n to n + 1.
pub(super) const STEPS: &[&str] = &[FIRST];

/// An event is one row at the right edge of `events`, and later one row of `memberships` for each of
/// its topics: those below `meta.indexed` have theirs. `events.topics` says the same the other way
/// round, so that reading in offset order needs no second look. Kinds of topics: 0 everyone, 1 a
/// client's inbox, 2 a topic.
const FIRST: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
    CREATE TABLE epochs (
        number INTEGER PRIMARY KEY,
        epoch TEXT NOT NULL UNIQUE,
        first_offset INTEGER NOT NULL
    );
    CREATE TABLE topics (
        number INTEGER PRIMARY KEY AUTOINCREMENT, -- never used again
        kind INTEGER NOT NULL,
        name TEXT NOT NULL,
        floor INTEGER NOT NULL,        -- last evicted offset + 1
        floor_at INTEGER NOT NULL,     -- milliseconds; no evicted event is younger
        finished INTEGER,              -- offset of the finish mark
        finished_at INTEGER,
        emptied INTEGER                -- last offset, once nothing and no mark is kept
    );
    CREATE UNIQUE INDEX topics_by_name ON topics (kind, name);
    CREATE INDEX topics_by_floor ON topics (floor) WHERE floor > 1;
    CREATE INDEX topics_by_finish ON topics (finished_at) WHERE finished IS NOT NULL;
    CREATE INDEX topics_by_emptied ON topics (emptied) WHERE emptied IS NOT NULL;
    CREATE TABLE events (
        offset INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,           -- milliseconds; rises with the offset
        topics NOT NULL,               -- the number, or several as 8 bytes each, little-endian
        id TEXT,                       -- given by the publisher
        fingerprint BLOB,              -- of what it says, if it has an id
        finish INTEGER NOT NULL,
        payload BLOB NOT NULL
    );
    CREATE INDEX events_by_id ON events (id) WHERE id IS NOT NULL;
    CREATE TABLE memberships (
        topic INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        bytes INTEGER NOT NULL,        -- what the event counts towards its topic's bound
        PRIMARY KEY (topic, offset)
    ) WITHOUT ROWID;
    CREATE TABLE keys (
        offset INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        credential TEXT NOT NULL,
        key TEXT NOT NULL,
        fingerprint BLOB NOT NULL
    );
    CREATE UNIQUE INDEX keys_by_key ON keys (credential, key);
    INSERT INTO meta VALUES
        ('next_offset', 1), ('newest_at', 0), ('indexed', 1), ('flushes', 0), ('rules', ''),
        ('forgotten', 1), ('forgotten_at', 0), ('fingerprint_key', randomblob(16));
";

/// Brings a file to the present layout; a new file gets it.
///
/// # Errors
///
/// [`StoreError::NotAStore`] if the file is some other program's, [`StoreError::NewerVersion`] if it
/// has seen steps that are not in the table.
pub(super) fn migrate(connection: &mut Connection, steps: &[&str]) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let number = |pragma| transaction.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let found = u32::try_from(number("user_version")?).unwrap_or(u32::MAX);
    let owner = number("application_id")?;
    let tables: i64 =
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let is_new = owner == 0 && found == 0 && tables == 0;
    if !is_new && owner != APPLICATION_ID {
        return Err(StoreError::NotAStore);
    }
    let known = u32::try_from(steps.len()).unwrap_or(u32::MAX);
    if found > known {
        return Err(StoreError::NewerVersion { found, known });
    }
    if found == known {
        return Ok(());
    }
    for step in steps.iter().skip(found as usize) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", known)?;
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(connection: &Connection) -> i32 {
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_step_keeps_what_the_file_holds() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, &STEPS[..1]).unwrap();
        connection.execute("INSERT INTO epochs VALUES (1, 'aaaaaaaa', 7)", []).unwrap();
        let steps = [STEPS[0], "ALTER TABLE epochs ADD COLUMN opened_at INTEGER DEFAULT 5"];
        migrate(&mut connection, &steps).unwrap();
        assert_eq!(layout(&connection), 2);
        let row = connection
            .query_row("SELECT first_offset, opened_at FROM epochs", [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
            })
            .unwrap();
        assert_eq!(row, (7, 5));
        migrate(&mut connection, &steps).unwrap();
        assert_eq!(layout(&connection), 2);
    }

    #[test]
    fn a_step_that_fails_leaves_the_old_layout() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, &STEPS[..1]).unwrap();
        let steps = [STEPS[0], "CREATE TABLE later (a)", "CREATE TABLE later (a)"];
        assert!(migrate(&mut connection, &steps).is_err());
        assert_eq!(layout(&connection), 1);
        migrate(&mut connection, &STEPS[..1]).unwrap();
    }

    #[test]
    fn a_newer_file_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, &[STEPS[0], "CREATE TABLE later (a)"]).unwrap();
        let refused = migrate(&mut connection, &STEPS[..1]);
        assert_eq!(refused, Err(StoreError::NewerVersion { found: 2, known: 1 }));
    }

    #[test]
    fn the_database_of_another_program_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE theirs (a)").unwrap();
        assert_eq!(migrate(&mut connection, STEPS), Err(StoreError::NotAStore));
    }
}
