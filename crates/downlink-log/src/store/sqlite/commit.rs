//! Committing: a batch is one transaction, and memory follows when it has succeeded.

use rusqlite::{Connection, TransactionBehavior, params};

use crate::store::{
    Durability, SqliteStore, StoreError, StoredEvent,
    sqlite::{
        Written,
        fault::column,
        topics::{Topics, cost, set_meta, topics_column},
        trim::Trimming,
    },
};

impl SqliteStore {
    pub(super) fn commit_batch(
        &mut self,
        batch: &[StoredEvent],
        durability: Durability,
    ) -> Result<(), StoreError> {
        let Some(last) = batch.last() else { return Ok(()) };
        check_rising(batch, self.written.next_offset)?;
        self.set_flushing(durability)?;
        let Self { connection, topics, trimming, written, .. } = self;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        topics.unindexed(&transaction)?;
        let mut writing = Writing { connection: &transaction, topics, trimming, written };
        batch.iter().try_for_each(|event| writing.write(event))?;
        if last.to.is_empty() || last.payload.is_none() {
            // No row of an event will tell the next opening that this offset was given.
            set_meta(&transaction, "next_offset", column(last.offset.get() + 1))?;
        }
        transaction.commit()?;
        self.written.next_offset = last.offset.get() + 1;
        self.written.at = self.written.at.max(last.at);
        self.written.unflushed = durability == Durability::Relaxed;
        Ok(())
    }

    /// A durable transaction takes everything before it to the disk too.
    pub(super) fn flush_log(&mut self) -> Result<(), StoreError> {
        self.set_flushing(Durability::Commit)?;
        self.connection
            .prepare_cached("UPDATE meta SET value = value + 1 WHERE name = 'flushes'")?
            .execute([])?;
        self.written.unflushed = false;
        Ok(())
    }
}

fn check_rising(batch: &[StoredEvent], next_offset: u64) -> Result<(), StoreError> {
    let mut least = next_offset;
    for event in batch {
        let offset = event.offset.get();
        if offset < least {
            return Err(StoreError::OffsetNotRising { offset, least });
        }
        least = offset + 1;
    }
    Ok(())
}

/// A transaction that writes events.
struct Writing<'a> {
    connection: &'a Connection,
    topics: &'a mut Topics,
    trimming: &'a mut Trimming,
    written: &'a Written,
}

impl Writing<'_> {
    fn write(&mut self, event: &StoredEvent) -> Result<(), StoreError> {
        let kept = event.payload.is_some() || event.finish;
        let numbers = if kept { self.numbers(event)? } else { Vec::new() };
        if let Some(payload) = event.payload.as_deref().filter(|_| !numbers.is_empty()) {
            self.write_event(event, payload, &numbers)?;
        }
        if event.finish {
            self.finish(event, &numbers)?;
        }
        if let Some(key) = &event.key {
            self.connection
                .prepare_cached("INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?, ?)")?
                .execute(params![
                column(event.offset.get()),
                column(event.at.as_millis()),
                key.credential,
                key.key,
                event.fingerprint.to_bytes(),
            ])?;
            self.trimming.note_key();
        }
        Ok(())
    }

    /// The topics of an event, each with a row that says that something is kept.
    fn numbers(&mut self, event: &StoredEvent) -> Result<Vec<i64>, StoreError> {
        let mut numbers = Vec::with_capacity(event.to.len());
        for address in &event.to {
            let forgotten = self.written.forgotten;
            let topic = self.topics.find_or_create(self.connection, address, forgotten)?;
            if numbers.contains(&topic.number) {
                continue;
            }
            numbers.push(topic.number);
            if topic.emptied {
                topic.emptied = false;
                self.connection
                    .prepare_cached("UPDATE topics SET emptied = NULL WHERE number = ?")?
                    .execute([topic.number])?;
                self.trimming.note_filled();
            }
        }
        Ok(numbers)
    }

    fn write_event(
        &mut self,
        event: &StoredEvent,
        payload: &[u8],
        numbers: &[i64],
    ) -> Result<(), StoreError> {
        let fingerprint = event.id.is_some().then(|| event.fingerprint.to_bytes());
        let offset = column(event.offset.get());
        self.connection
            .prepare_cached("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)")?
            .execute(params![
                offset,
                column(event.at.as_millis()),
                topics_column(numbers),
                event.id,
                fingerprint,
                event.finish,
                payload,
            ])?;
        for &number in numbers {
            let over = self.topics.added(self.connection, number, cost(payload.len()))?;
            self.trimming.note_event(over);
        }
        Ok(())
    }

    fn finish(&mut self, event: &StoredEvent, numbers: &[i64]) -> Result<(), StoreError> {
        let (offset, at) = (column(event.offset.get()), column(event.at.as_millis()));
        let mut update = self
            .connection
            .prepare_cached("UPDATE topics SET finished = ?, finished_at = ? WHERE number = ?")?;
        for &number in numbers {
            update.execute((offset, at, number))?;
        }
        self.trimming.note_finish();
        Ok(())
    }
}
