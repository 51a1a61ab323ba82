//! The first entry of a journal, with which an operator founds a cluster.

use crate::{
    entry::{Control, Entry, EntryName, HubId, Snapshot, WriterId},
    mark::Mark,
    position::Position,
    wire::{ENTRY_BYTES_MAX, EncodeError},
};

/// The first entry of a journal. No node begins before this entry is in the journal. Append it with
/// [`Journal::append`](crate::Journal::append) and `only_if_last` set to the origin.
///
/// # Errors
///
/// [`EncodeError`] if the snapshot is too large.
pub fn first_entry(
    hub: HubId,
    writer: WriterId,
    snapshot: Snapshot,
) -> Result<Vec<u8>, EncodeError> {
    let entry = Entry {
        hub,
        name: EntryName { writer, counter: 0 },
        seen: Position::ORIGIN,
        seen_mark: Mark::ORIGIN,
        groups: Vec::new(),
        controls: vec![Control::Snapshot(snapshot)],
    };
    entry.encode(ENTRY_BYTES_MAX)
}
