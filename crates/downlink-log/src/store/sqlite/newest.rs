//! Reading from the end: how far back the newest events of some topics reach.

use std::collections::BTreeSet;

use rusqlite::Connection;

use crate::store::{
    StoreError,
    sqlite::{
        fault::{column, number},
        page::{SCAN_ROWS, any},
        target::Target,
        topics::{indexed, keepers},
    },
};

/// A search for the nth newest event, in parts that are short.
pub(super) struct Search {
    /// How many are still to be found, below which offset; `None` when the search is over.
    pub(super) left: Option<(usize, u64)>,
    /// The oldest found so far.
    pub(super) oldest: Option<u64>,
}

impl Search {
    pub(super) fn new(count: usize, until: u64) -> Self {
        Self { left: (count > 0).then_some((count, until)), oldest: None }
    }

    /// Goes on for a bounded number of events.
    pub(super) fn go_on(
        &mut self,
        connection: &Connection,
        target: &mut Target,
    ) -> Result<(), StoreError> {
        match target {
            Target::Few(numbers) => {
                // What is on no list yet is looked at first.
                let wants = |_: &Connection, number| Ok(numbers.binary_search(&number).is_ok());
                self.scan(connection, indexed(connection)?, wants)?;
                self.ask_lists(connection, numbers)
            }
            Target::Many(many) => {
                self.scan(connection, 0, |connection, number| many.wants(connection, number))
            }
        }
    }

    /// Looks at events down to `from`.
    fn scan(
        &mut self,
        connection: &Connection,
        from: u64,
        mut wants: impl FnMut(&Connection, i64) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let Some((mut count, mut until)) = self.left.filter(|&(_, until)| until > from) else {
            return Ok(());
        };
        let indexed = indexed(connection)?;
        let mut select = connection.prepare_cached(
            "SELECT offset, topics FROM events WHERE offset >= ? AND offset < ?
             ORDER BY offset DESC LIMIT ?",
        )?;
        let mut rows = select.query((column(from), column(until), SCAN_ROWS as i64))?;
        let mut looked = 0;
        while count > 0
            && let Some(row) = rows.next()?
        {
            looked += 1;
            until = number(row.get(0)?);
            let numbers = keepers(connection, until, row.get_ref(1)?, indexed)?;
            if any(connection, &numbers, &mut wants)? {
                count -= 1;
                self.oldest = Some(until);
            }
        }
        if looked < SCAN_ROWS {
            until = from;
        }
        self.left = (count > 0 && until > 0).then_some((count, until));
        Ok(())
    }

    /// Takes the newest of several lists, if nothing newer is left to look at.
    fn ask_lists(&mut self, connection: &Connection, numbers: &[i64]) -> Result<(), StoreError> {
        let indexed = indexed(connection)?;
        let Some((count, until)) = self.left.filter(|&(_, until)| until <= indexed) else {
            return Ok(());
        };
        let mut newest = BTreeSet::new();
        let mut select = connection.prepare_cached(
            "SELECT offset FROM memberships WHERE topic = ? AND offset < ?
             ORDER BY offset DESC LIMIT ?",
        )?;
        for &topic in numbers {
            let limit = i64::try_from(count).unwrap_or(i64::MAX);
            let mut rows = select.query((topic, column(until), limit))?;
            while let Some(row) = rows.next()? {
                let offset = number(row.get(0)?);
                let oldest = newest.first().copied().filter(|_| newest.len() >= count);
                if oldest.is_some_and(|oldest| offset < oldest) {
                    break;
                }
                newest.insert(offset);
                if newest.len() > count {
                    newest.pop_first();
                }
            }
        }
        self.oldest = newest.pop_first().or(self.oldest);
        self.left = None;
        Ok(())
    }
}
