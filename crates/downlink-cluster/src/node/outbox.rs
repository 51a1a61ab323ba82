//! The outbox: publishes that wait for an entry, and entries on their way.
//!
//! To plan events is to ask the log which of them are new. An entry is on its way until the node's
//! own tail delivers it, or until it can no longer be applied. Only after that, events that were
//! not applied are planned again. So an event without a key is applied at most once, even if the
//! engine delivers a copy of the entry late.

use std::{collections::VecDeque, time::Duration};

use downlink_log::{Offset, Timestamp};

use crate::{
    entry::{EntryName, Group, Record, WriterId},
    mark::Digest,
    node::publish::{Answer, AppliedEvent, PublishId},
    position::{Base, ENTRY_EVENTS_MAX, Position},
    wire::{ENTRY_ADDRESSES_MAX, REPLACES_MAX, group_bytes},
};

/// The maximum number of entries on their way. With more entries, the newest events would wait for
/// too many older ones if the engine answers slowly.
pub(crate) const IN_FLIGHT_MAX: usize = 8;
/// The time between two attempts to append an entry.
pub(crate) const RETRY_EVERY: Duration = Duration::from_millis(500);
/// The number of own entries whose hashes are kept, to find out whether the process was cloned.
const SENT_MAX: usize = 256;
/// The maximum number of bytes of an entry without its groups: head, version and counts.
const HEAD_BYTES_MAX: usize = 128;
/// The maximum number of publishes in the outbox. Together with the maximum size of an entry, it
/// bounds the memory of the outbox.
pub(crate) const QUEUE_MAX: usize = 65_536;

/// A publish in the outbox.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) id: PublishId,
    pub(crate) records: Vec<Record>,
    pub(crate) stream: Option<u64>,
    pub(crate) deadline: Timestamp,
    /// For each event, the earlier event that it repeats.
    pub(crate) repeats: Vec<Option<Offset>>,
    /// The position at which the events were planned.
    pub(crate) planned_at: Position,
    /// The entries in which the events were appended before.
    pub(crate) attempts: Vec<Attempt>,
    /// Whether the publisher already has its answer, although the events are still on their way.
    pub(crate) is_answered: bool,
    bytes: usize,
}

impl Waiting {
    pub(crate) fn new(
        id: PublishId,
        records: Vec<Record>,
        stream: Option<u64>,
        deadline: Timestamp,
    ) -> Self {
        let group = Group { replaces: Vec::new(), records };
        let names = REPLACES_MAX * std::mem::size_of::<EntryName>() + REPLACES_MAX * 4;
        let bytes = group_bytes(&group).len() + names;
        Self {
            id,
            records: group.records,
            stream,
            deadline,
            repeats: Vec::new(),
            planned_at: Position::ORIGIN,
            attempts: Vec::new(),
            is_answered: false,
            bytes,
        }
    }

    /// Whether the publish fits into an entry of this size.
    pub(crate) fn fits(&self, bytes_max: usize) -> bool {
        Room::new(bytes_max).take(self)
    }

    /// The answer if the events are not appended again.
    pub(crate) fn unavailable(&self) -> Answer {
        Answer::Unavailable { appended: !self.attempts.is_empty() }
    }

    fn addresses(&self) -> usize {
        self.records.iter().map(|record| record.to.len()).sum()
    }

    /// The group with those events that are new.
    pub(crate) fn group(&self) -> Group {
        let new = self.records.iter().zip(&self.repeats).filter(|(_, repeat)| repeat.is_none());
        let records = new.map(|(record, _)| record.clone()).collect();
        Group { replaces: self.attempts.iter().map(|attempt| attempt.name).collect(), records }
    }
}

/// The place of a publish in an entry.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    name: EntryName,
    /// The index of its group.
    group: usize,
    /// The index of its first new event.
    first: usize,
    /// For each event, the earlier event that it repeats.
    repeats: Vec<Option<Offset>>,
}

impl Attempt {
    /// All events, if the entry is at `position`.
    pub(crate) fn events(&self, base: Base, position: Position) -> Vec<AppliedEvent> {
        let mut next = self.first;
        let event = |repeat: &Option<Offset>| match *repeat {
            Some(offset) => AppliedEvent { offset, is_repeat: true },
            None => {
                let offset = base.offset(position, next);
                next += 1;
                AppliedEvent { offset, is_repeat: false }
            }
        };
        self.repeats.iter().map(event).collect()
    }
}

/// The room that is left in an entry.
struct Room {
    bytes: usize,
    events: usize,
    addresses: usize,
}

impl Room {
    fn new(bytes_max: usize) -> Self {
        Self {
            bytes: bytes_max.saturating_sub(HEAD_BYTES_MAX),
            events: ENTRY_EVENTS_MAX,
            addresses: ENTRY_ADDRESSES_MAX,
        }
    }

    /// Takes the room for a publish. Returns false if there is not enough room.
    fn take(&mut self, waiting: &Waiting) -> bool {
        let rest = (
            self.bytes.checked_sub(waiting.bytes),
            self.events.checked_sub(waiting.records.len()),
            self.addresses.checked_sub(waiting.addresses()),
        );
        let (Some(bytes), Some(events), Some(addresses)) = rest else { return false };
        *self = Self { bytes, events, addresses };
        true
    }
}

/// An entry on its way.
#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    pub(crate) name: EntryName,
    pub(crate) seen: Position,
    pub(crate) bytes: Vec<u8>,
    pub(crate) publishes: Vec<Waiting>,
    /// When to append it again; `None` while an attempt is in progress or has succeeded.
    pub(crate) retry_at: Option<Timestamp>,
    /// Whether an attempt had no answer. The entry may then arrive later, although the engine
    /// refuses another attempt.
    pub(crate) is_unclear: bool,
}

/// An entry that this node has sent to the engine, with events or without.
#[derive(Clone, Copy, Debug)]
struct Sent {
    name: EntryName,
    digest: Digest,
    is_delivered: bool,
    acknowledged: Option<Position>,
}

/// The origin of an entry that the tail has delivered.
#[derive(Debug)]
pub(crate) enum Origin {
    /// Another writer, or a copy of an entry that was delivered before.
    Other,
    /// An entry of this node that was on its way.
    Own(InFlight),
    /// Another process has the same writer.
    Clone,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) writer: Option<WriterId>,
    next_counter: u64,
    pub(crate) queue: VecDeque<Waiting>,
    pub(crate) in_flight: Vec<InFlight>,
    sent: VecDeque<Sent>,
}

impl Outbox {
    /// A new name for an entry; `None` while the node has no writer.
    pub(crate) fn name(&mut self) -> Option<EntryName> {
        let name = EntryName { writer: self.writer?, counter: self.next_counter };
        self.next_counter += 1;
        Some(name)
    }

    /// Notes that an entry was sent.
    pub(crate) fn note_sent(&mut self, name: EntryName, digest: Digest) {
        self.sent.push_back(Sent { name, digest, is_delivered: false, acknowledged: None });
        if self.sent.len() > SENT_MAX {
            self.sent.pop_front();
        }
    }

    /// Adds a publish to the queue. The queue has the order in which the events were published. A
    /// publish that returns to the queue gets its old place.
    pub(crate) fn push(&mut self, waiting: Waiting) {
        let at = self.queue.partition_point(|other| other.id < waiting.id);
        self.queue.insert(at, waiting);
    }

    /// Takes publishes from the queue that fit into one entry. Events of one streamed request body,
    /// a stream, keep their order.
    pub(crate) fn take_batch(&mut self, bytes_max: usize) -> Vec<Waiting> {
        let mut room = Room::new(bytes_max);
        let on_their_way = self.in_flight.iter().flat_map(|entry| &entry.publishes);
        let mut held: Vec<u64> = on_their_way.filter_map(|waiting| waiting.stream).collect();
        let (mut batch, mut kept) = (Vec::new(), VecDeque::new());
        while let Some(waiting) = self.queue.pop_front() {
            let is_held = waiting.stream.is_some_and(|stream| held.contains(&stream));
            if !is_held && room.take(&waiting) {
                // These events were in an earlier entry, so a late copy of that entry may cause
                // them to be dropped. Later events of the stream must not be in the same entry as
                // these events, because the later ones would then be applied first.
                held.extend(waiting.stream.filter(|_| !waiting.attempts.is_empty()));
                batch.push(waiting);
            } else {
                held.extend(waiting.stream);
                kept.push_back(waiting);
            }
        }
        self.queue = kept;
        batch
    }

    /// Finds out where a delivered entry comes from.
    pub(crate) fn handle_delivered(&mut self, name: EntryName, digest: Digest) -> Origin {
        let Some(sent) = self.sent.iter_mut().find(|sent| sent.name == name) else {
            let is_own = self.writer == Some(name.writer) && name.counter >= self.next_counter;
            return if is_own { Origin::Clone } else { Origin::Other };
        };
        if sent.digest != digest {
            return Origin::Clone;
        }
        sent.is_delivered = true;
        let found = self.in_flight.iter().position(|entry| entry.name == name);
        found.map_or(Origin::Other, |at| Origin::Own(self.in_flight.remove(at)))
    }

    /// Takes the publishes that a late copy of an earlier entry has applied, with their events. If
    /// such a publish is on its way again, its events in the new entry will be dropped.
    pub(crate) fn take_applied(
        &mut self,
        name: EntryName,
        kept: &[bool],
        (base, position): (Base, Position),
    ) -> Vec<(PublishId, Vec<AppliedEvent>)> {
        let events = |waiting: &Waiting| {
            let attempt = waiting.attempts.iter().find(|attempt| attempt.name == name)?;
            kept.get(attempt.group)?.then(|| attempt.events(base, position))
        };
        let mut applied = Vec::new();
        for waiting in self.in_flight.iter_mut().flat_map(|entry| &mut entry.publishes) {
            if let Some(events) = events(waiting).filter(|_| !waiting.is_answered) {
                waiting.is_answered = true;
                applied.push((waiting.id, events));
            }
        }
        self.queue.retain(|waiting| match events(waiting) {
            Some(events) => {
                applied.push((waiting.id, events));
                false
            }
            None => true,
        });
        applied
    }

    /// Drops the writer. The node gets another one later. Entries on their way keep their names.
    pub(crate) fn rename(&mut self) {
        self.writer = None;
        self.next_counter = 0;
    }

    /// Notes an acknowledgement.
    pub(crate) fn handle_acknowledged(&mut self, name: EntryName, position: Position) {
        if let Some(sent) = self.sent.iter_mut().find(|sent| sent.name == name) {
            sent.acknowledged = Some(position);
        }
        if let Some(entry) = self.in_flight.iter_mut().find(|entry| entry.name == name) {
            entry.retry_at = None;
        }
    }

    /// Finds the displaced entries of this node: the engine acknowledged such an entry at a
    /// position up to `last`, but the tail has delivered another entry at this position. Returns
    /// the lowest such position. Each displaced entry is reported once, and is appended again.
    pub(crate) fn take_displaced(&mut self, now: Timestamp, last: Position) -> Option<Position> {
        let mut lowest: Option<Position> = None;
        for sent in self.sent.iter_mut().filter(|sent| !sent.is_delivered) {
            let Some(at) = sent.acknowledged.take_if(|at| *at <= last) else { continue };
            lowest = Some(lowest.map_or(at, |lowest| lowest.min(at)));
            for entry in self.in_flight.iter_mut().filter(|entry| entry.name == sent.name) {
                entry.retry_at = Some(now.after(RETRY_EVERY));
            }
        }
        lowest
    }

    /// The highest acknowledged position of an entry that the tail has not delivered.
    pub(crate) fn acknowledged(&self) -> Option<Position> {
        let open = self.sent.iter().filter(|sent| !sent.is_delivered);
        open.filter_map(|sent| sent.acknowledged).max()
    }

    /// Removes the entries on their way that satisfy `is_dead`, and returns their publishes.
    pub(crate) fn take_dead(&mut self, is_dead: impl Fn(&InFlight) -> bool) -> Vec<Waiting> {
        let (dead, alive) = self.in_flight.drain(..).partition(is_dead);
        self.in_flight = alive;
        let dead: Vec<InFlight> = dead;
        dead.into_iter().flat_map(InFlight::into_publishes).collect()
    }

    /// Takes the publishes from the queue that satisfy `is_taken`.
    pub(crate) fn take_queued(&mut self, is_taken: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let (taken, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.queue).into_iter().partition(is_taken);
        self.queue = kept.into();
        taken
    }

    /// Gives up the publishes on their way whose time is over, and returns their numbers.
    pub(crate) fn give_up(&mut self, now: Timestamp) -> Vec<PublishId> {
        let mut given_up = Vec::new();
        for waiting in self.in_flight.iter_mut().flat_map(|entry| &mut entry.publishes) {
            if !waiting.is_answered && waiting.deadline <= now {
                waiting.is_answered = true;
                given_up.push(waiting.id);
            }
        }
        self.in_flight.retain(|entry| entry.publishes.iter().any(|waiting| !waiting.is_answered));
        given_up
    }

    /// The next time at which something is due. Entries are repeated only while the journal is
    /// open.
    pub(crate) fn timeout(&self, is_open: bool) -> Option<Timestamp> {
        let queued = self.queue.iter().map(|waiting| waiting.deadline);
        let sent = self.in_flight.iter().flat_map(|entry| &entry.publishes);
        let sent = sent.filter(|waiting| !waiting.is_answered);
        let retries = self.in_flight.iter().filter_map(|entry| entry.retry_at.filter(|_| is_open));
        queued.chain(sent.map(|waiting| waiting.deadline)).chain(retries).min()
    }

    /// The number of publishes in the outbox.
    pub(crate) fn len(&self) -> usize {
        self.queue.len() + self.in_flight.iter().map(|entry| entry.publishes.len()).sum::<usize>()
    }
}

impl InFlight {
    /// The publishes with their places in the entry.
    pub(crate) fn into_attempts(self) -> impl Iterator<Item = (Waiting, Attempt)> {
        let (name, mut next) = (self.name, 0);
        self.publishes.into_iter().enumerate().map(move |(group, waiting)| {
            let (first, repeats) = (next, waiting.repeats.clone());
            next += repeats.iter().filter(|repeat| repeat.is_none()).count();
            (waiting, Attempt { name, group, first, repeats })
        })
    }

    /// The publishes without an answer, to be planned again.
    pub(crate) fn into_publishes(self) -> impl Iterator<Item = Waiting> {
        let publishes = self.into_attempts().filter(|(waiting, _)| !waiting.is_answered);
        publishes.map(|(mut waiting, attempt)| {
            waiting.attempts.push(attempt);
            waiting
        })
    }
}
