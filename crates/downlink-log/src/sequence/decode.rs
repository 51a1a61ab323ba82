//! Makes payloads from the bytes that a store has kept. This is needed when a log is opened, and
//! when a reader gets events from the store.

use std::{collections::BTreeSet, sync::Arc};

use crate::sequence::Epochs;
use crate::sync::Mutex;
use crate::types::{Cursor, Offset, Timestamp};

/// Makes a payload from a stored event, or returns `None` if the event cannot be decoded. It is
/// called on the threads that read the store, and on the thread that opens the log.
pub type Decode<P> = dyn Fn(Stored) -> Option<P> + Send + Sync;

/// Called once for each event that cannot be read, because it is damaged or cannot be decoded.
pub type OnUnreadable = dyn Fn(Cursor) + Send + Sync;

/// The maximum number of unreadable events to report. After about a thousand reports, further
/// reports would tell the operator nothing new.
const REPORTED_MAX: usize = 1_024;

/// An event that was read from a store.
#[derive(Debug)]
pub struct Stored {
    /// The id of the event, as a cursor. The cursor has the epoch in which the event was published.
    pub id: Cursor,
    /// When the event was published, in log time.
    pub at: Timestamp,
    /// The event id that the publisher chose, if any.
    pub publisher_id: Option<Box<str>>,
    /// The stored bytes.
    pub payload: Vec<u8>,
}

/// Decodes stored events.
pub(crate) struct PayloadDecoder<P> {
    decode: Arc<Decode<P>>,
    on_unreadable: Option<Box<OnUnreadable>>,
    /// The offsets of the reported events. No other lock is taken while this lock is held.
    reported: Mutex<BTreeSet<u64>>,
}

impl<P> PayloadDecoder<P> {
    pub(crate) fn new(decode: Arc<Decode<P>>, on_unreadable: Option<Box<OnUnreadable>>) -> Self {
        Self { decode, on_unreadable, reported: Mutex::new(BTreeSet::new()) }
    }

    /// The payload of an event. `None` if the event cannot be read. Each unreadable event is
    /// reported only once.
    pub(crate) fn decode(
        &self,
        ids: &Epochs,
        offset: Offset,
        at: Timestamp,
        publisher_id: Option<Box<str>>,
        payload: Option<Vec<u8>>,
    ) -> Option<P> {
        let id = ids.id_of(offset.get());
        let stored = payload.map(|payload| Stored { id, at, publisher_id, payload });
        let decoded = stored.and_then(|stored| (self.decode)(stored));
        if decoded.is_none() {
            self.report(id);
        }
        decoded
    }

    fn report(&self, id: Cursor) {
        let Some(on_unreadable) = &self.on_unreadable else { return };
        let is_new = {
            let mut reported = self.reported.lock();
            reported.len() < REPORTED_MAX && reported.insert(id.next.get())
        };
        if is_new {
            on_unreadable(id);
        }
    }
}
