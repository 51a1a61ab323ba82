//! Forgetting what is kept beside events: finish marks, idempotency keys, floors of emptied topics.

use rusqlite::{Connection, OptionalExtension as _};

use crate::{
    given::{KEY_WINDOW, KEYS_MAX},
    offset::{Offset, Timestamp},
    store::{
        StoreError, StoredFloor,
        sqlite::{
            fault::{column, number},
            topics::{forgotten, set_meta},
            trim::Step,
        },
    },
};

impl Step<'_> {
    /// Drops the marks of topics that have been finished for long enough.
    pub(super) fn forget_finishes(&mut self, now: Timestamp) -> Result<(), StoreError> {
        while self.rows_left > 0 && self.trimming.finishes {
            let oldest: Option<(i64, i64)> = self
                .connection
                .prepare_cached(
                    "SELECT number, finished_at FROM topics WHERE finished IS NOT NULL
                     ORDER BY finished_at LIMIT 1",
                )?
                .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((topic, at)) = oldest else {
                self.trimming.finishes = false;
                return Ok(());
            };
            let until = Timestamp::from_millis(number(at)).after(self.trimming.finished_keep);
            if until > now {
                self.due_at(until);
                return Ok(());
            }
            self.connection
                .prepare_cached(
                    "UPDATE topics SET finished = NULL, finished_at = NULL WHERE number = ?",
                )?
                .execute([topic])?;
            let emptied = self.mark_emptied(topic)?;
            self.topics.evicted(topic, 0, 0, emptied);
            self.spend(1);
        }
        Ok(())
    }

    /// Drops the keys whose window is over, and the oldest of too many.
    pub(super) fn forget_keys(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let mut keys = match self.trimming.keys {
            Some(keys) => keys,
            None => count(self.connection, "SELECT count(*) FROM keys")?,
        };
        while self.rows_left > 0 && keys > 0 {
            let oldest: Option<(i64, i64)> = self
                .connection
                .prepare_cached("SELECT offset, at FROM keys ORDER BY offset LIMIT 1")?
                .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((offset, at)) = oldest else {
                // A key used again has taken the place of its former row.
                keys = 0;
                break;
            };
            let until = Timestamp::from_millis(number(at)).after(KEY_WINDOW);
            if until > now && keys <= KEYS_MAX {
                self.due_at(until);
                break;
            }
            self.connection
                .prepare_cached("DELETE FROM keys WHERE offset = ?")?
                .execute([offset])?;
            keys -= 1;
            self.spend(1);
        }
        self.trimming.keys = Some(keys);
        Ok(())
    }

    /// Drops the rows of emptied topics beyond their bound; their floor becomes everybody's.
    pub(super) fn forget_floors(&mut self) -> Result<(), StoreError> {
        let mut rows = match self.trimming.emptied {
            Some(rows) => rows,
            None => {
                count(self.connection, "SELECT count(*) FROM topics WHERE emptied IS NOT NULL")?
            }
        };
        while self.rows_left > 0 && rows > self.trimming.floors_max {
            let oldest: Option<(i64, i64, i64)> = self
                .connection
                .prepare_cached(
                    "SELECT number, floor, floor_at FROM topics WHERE emptied IS NOT NULL
                     ORDER BY emptied LIMIT 1",
                )?
                .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()?;
            let Some((topic, floor, at)) = oldest else { break };
            let floor = StoredFloor {
                offset: Offset::new(number(floor)),
                at: Timestamp::from_millis(number(at)),
            };
            let floor = forgotten(self.connection)?.max(floor);
            set_meta(self.connection, "forgotten", column(floor.offset.get()))?;
            set_meta(self.connection, "forgotten_at", column(floor.at.as_millis()))?;
            self.connection
                .prepare_cached("DELETE FROM topics WHERE number = ?")?
                .execute([topic])?;
            self.topics.forget(topic);
            rows -= 1;
            self.spend(1);
        }
        self.trimming.emptied = Some(rows);
        Ok(())
    }
}

fn count(connection: &Connection, select: &str) -> Result<usize, StoreError> {
    let rows: i64 = connection.query_row(select, [], |row| row.get(0))?;
    Ok(rows as usize)
}
