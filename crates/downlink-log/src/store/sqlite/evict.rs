//! Evicting events of one topic: its floor rises in the same transaction, and an event goes when the
//! last of its topics has let it go.

use rusqlite::OptionalExtension as _;

use crate::store::{
    StoreError,
    sqlite::{
        fault::{column, number},
        topics::{members_from, set_meta, topic_numbers},
        trim::Step,
    },
};

impl Step<'_> {
    /// Gives every event its rows in `memberships`, in the order of topics.
    pub(super) fn index(&mut self) -> Result<(), StoreError> {
        let from = self.topics.unindexed(self.connection)?.from;
        let mut members = members_from(self.connection, from)?;
        let Some(last) = members.iter().map(|&(_, offset, _)| offset).max() else { return Ok(()) };
        members.sort_unstable();
        let mut insert =
            self.connection.prepare_cached("INSERT INTO memberships VALUES (?, ?, ?)")?;
        for (topic, offset, bytes) in members {
            insert.execute((topic, offset, bytes as i64))?;
        }
        set_meta(self.connection, "indexed", last + 1)?;
        self.topics.set_indexed(number(last) + 1);
        Ok(())
    }

    /// Evicts the indexed events of a topic up to an offset, and raises its floor beyond them.
    pub(super) fn evict(&mut self, topic: i64, through: u64) -> Result<(), StoreError> {
        let members: Vec<(i64, i64)> = self
            .connection
            .prepare_cached(
                "SELECT offset, bytes FROM memberships
                 WHERE topic = ? AND offset <= ? ORDER BY offset",
            )?
            .query_map((topic, column(through)), |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        let Some(&(last, _)) = members.last() else { return Ok(()) };
        self.connection
            .prepare_cached("DELETE FROM memberships WHERE topic = ? AND offset <= ?")?
            .execute((topic, last))?;
        self.connection
            .prepare_cached(
                "UPDATE topics SET floor = ?2 + 1,
                 floor_at = (SELECT at FROM events WHERE offset = ?2) WHERE number = ?1",
            )?
            .execute((topic, last))?;
        for &(offset, _) in &members {
            self.delete_event(topic, offset)?;
        }
        let emptied = self.mark_emptied(topic)?;
        let bytes: i64 = members.iter().map(|(_, bytes)| bytes).sum();
        self.topics.evicted(topic, members.len(), bytes as usize, emptied);
        self.spend(members.len());
        self.evicted = true;
        Ok(())
    }

    /// Deletes an event unless another topic keeps it.
    fn delete_event(&self, topic: i64, offset: i64) -> Result<(), StoreError> {
        let alone = self
            .connection
            .prepare_cached("DELETE FROM events WHERE offset = ? AND topics = ?")?
            .execute((offset, topic))?;
        if alone == 0 && !self.is_kept(offset)? {
            self.connection
                .prepare_cached("DELETE FROM events WHERE offset = ?")?
                .execute([offset])?;
        }
        Ok(())
    }

    /// Whether any topic of an event keeps it.
    fn is_kept(&self, offset: i64) -> Result<bool, StoreError> {
        let numbers = self
            .connection
            .prepare_cached("SELECT topics FROM events WHERE offset = ?")?
            .query_row([offset], |row| Ok(topic_numbers(row.get_ref(0)?)))
            .optional()?;
        let mut select = self
            .connection
            .prepare_cached("SELECT 1 FROM memberships WHERE topic = ? AND offset = ?")?;
        for number in numbers.unwrap_or_default() {
            if select.exists((number, offset))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Notes in its row that a topic keeps nothing any more, if so.
    pub(super) fn mark_emptied(&mut self, topic: i64) -> Result<bool, StoreError> {
        if self.topics.has_unindexed(self.connection, topic)? {
            return Ok(false);
        }
        let emptied = self
            .connection
            .prepare_cached(
                "UPDATE topics SET emptied = floor - 1
                 WHERE number = ?1 AND finished IS NULL AND emptied IS NULL
                 AND NOT EXISTS (SELECT 1 FROM memberships WHERE topic = ?1)",
            )?
            .execute([topic])?;
        self.trimming.emptied = self.trimming.emptied.map(|rows| rows + emptied);
        Ok(emptied > 0)
    }
}
