//! Removes the newest events of a replica, because they are no longer part of the history that it
//! follows.
//!
//! The events before the cut are pushed into a new history. So the removed events leave no trace in
//! the rings (the events of each topic), in the index (the events of all topics), and in the
//! patterns.

use std::{collections::HashMap, sync::Arc};

use crate::core::Core;
use crate::feed::scan;
use crate::history::{History, IndexRow};
use crate::replica::{Content, FloorsAhead, apply_decoded};
use crate::sequence::{CUT_IDS_MAX, Sequencer};
use crate::store::{FeedChunk, Marks, StoredEvent};
use crate::types::{ClockState, Fingerprint, Floor, LogOptions, Offset, Payload};

/// The number of rows that are copied while the index is locked, which takes some ten microseconds.
const ROWS: usize = 512;

/// A new core with the events of `core` below `until`, and with their floors, finish marks, ids and
/// keys. A floor is the offset below which a topic has lost events. A finish mark says that a topic
/// gets no more events. `options` are those of the new history.
pub(crate) fn cut<P: Payload>(core: &Core<P>, options: LogOptions, until: Offset) -> Arc<Core<P>> {
    let new = empty_cut(core, options, Offset::FIRST, until);
    let mut payloads = HashMap::new();
    let mut events = Vec::new();
    for_each_row(&core.history, Offset::FIRST, |row| {
        if row.offset < until.get()
            && let Some((event, payload)) = kept(core, &row)
        {
            payloads.insert(event.offset, payload);
            events.push(event);
        }
    });
    let found = scan(&core.history, Offset::FIRST.get(), until.get());
    let mut chunk = FeedChunk {
        floors: found.floors,
        others: found.others,
        events,
        next: until,
        clock: ClockState::default(),
        marks: Marks::default(),
        node: None,
    };
    chunk.add_finish_marks(found.finished);
    // A floor above the cut was raised by a removed event. It is lowered to the cut.
    let losses = FloorsAhead::default().losses(&chunk, Floor::NONE.offset.get());
    let mut events = chunk.events;
    let content = |event: &StoredEvent| {
        payloads.remove(&event.offset).map_or(Content::Mark, Content::Payload)
    };
    let contents = events.iter().map(content).collect();
    apply_decoded(&new, &losses, &mut events, contents, until.get());
    Arc::new(new)
}

/// A new core without events, with the marks, epochs and keys below `until`. Its tail is `next`.
pub(crate) fn empty_cut<P: Payload>(
    core: &Core<P>,
    options: LogOptions,
    next: Offset,
    until: Offset,
) -> Core<P> {
    Core {
        history: History::new(options, next),
        sequencer: Sequencer::cut(&core.sequencer, until),
        ids: core.ids.cut(until),
        confirmations: core.confirmations.clone(),
    }
}

/// The ids that publishers gave to the events from an offset on, at most [`CUT_IDS_MAX`].
pub(crate) fn ids_from<P: Payload>(core: &Core<P>, from: Offset) -> Vec<Box<str>> {
    let mut ids = Vec::new();
    for_each_row(&core.history, from, |row| {
        if ids.len() < CUT_IDS_MAX {
            ids.extend(kept(core, &row).and_then(|(event, _)| event.id));
        }
    });
    ids
}

/// Calls `use_row` with each row of the index from an offset on. No lock is held meanwhile.
fn for_each_row<P: Payload>(
    history: &History<P>,
    from: Offset,
    mut use_row: impl FnMut(IndexRow<P>),
) {
    let mut next = from.get();
    loop {
        let rows = history.rows_from(next, ROWS);
        let Some(last) = rows.last() else { return };
        next = last.offset + 1;
        rows.into_iter().for_each(&mut use_row);
    }
}

/// The event of a row, with the topics that still have it. `None` if all have evicted it.
fn kept<P: Payload>(core: &Core<P>, row: &IndexRow<P>) -> Option<(StoredEvent, P)> {
    let mut event = StoredEvent {
        offset: Offset::new(row.offset),
        at: row.at,
        to: row.topics.iter().map(|topic| topic.address.clone()).collect(),
        id: None,
        key: None,
        fingerprint: Fingerprint::default(),
        finish: false,
        payload: None,
    };
    let mut payload = None;
    event.to.clear();
    for topic in &row.topics {
        if let Some(entry) = topic.ring.read().get(row.offset) {
            event.to.push(topic.address.clone());
            payload = Some(entry.payload.clone());
        }
    }
    let payload = payload?;
    event.id = payload.publisher_id().map(Box::from);
    let known = event.id.as_deref().and_then(|id| core.sequencer.publisher_ids.get(id));
    event.fingerprint = known.map_or(event.fingerprint, |known| known.fingerprint);
    Some((event, payload))
}
