//! Reads a single event for a reader that keeps up.
//!
//! `read_next` returns the next event without a buffer. It handles only the usual case: a few new
//! events, and no missing ones. The function `look` handles all other cases. In the usual case,
//! `read_next` saves a third of the user CPU time of a delivery, measured with `cargo xtask bench
//! --only rate`.

use crate::history::History;
use crate::read::{MERGE_ALWAYS, Position, Seats, entry};
use crate::topics::{Ring, TopicSeat};
use crate::types::{Entry, Payload};

/// If there are more new events than this, they are read as a batch into a buffer instead. For this
/// many events, single reads and a batch take the same time. For twice as many events, a batch
/// takes a third less time.
const FEW: usize = 4;

/// The result of reading a single event.
#[derive(Debug)]
#[must_use]
#[non_exhaustive]
pub enum Next<P> {
    /// The next event.
    Event(Entry<P>),
    /// There is nothing to read now.
    CaughtUp,
    /// The caller must call [`read`](crate::Reader::read) instead. For example, events are missing,
    /// many events are new, the reader reads many topics, or the reader has ended.
    Other,
}

/// Reads the next event and moves the position, if the reader reads few topics and has only a few
/// new events.
pub(crate) fn read_next<P: Payload, Q>(
    history: &History<P>,
    seats: &Seats<P>,
    position: &mut Position,
    take: impl Fn(&P) -> Q,
) -> Next<Q> {
    let tail = history.tail();
    if position.next >= tail {
        position.advance(None, Some(position.next));
        return Next::CaughtUp;
    }
    let patterns = seats.patterns();
    if seats.topics.len() + patterns.len() > MERGE_ALWAYS || position.past.is_some() {
        return Next::Other;
    }
    let next = position.next;
    let inboxes = history.newest_of_inboxes() >= next || history.floor_max() > next;
    let has_news =
        |seat: &&TopicSeat<P>| (inboxes || !seat.is_inbox) && seat.topic.newest() >= next;
    let mut topics = seats.topics.iter().filter(has_news);
    let mut matching = patterns.iter().filter(|seat| seat.pattern.newest() >= next);
    match (topics.next(), topics.next(), matching.next(), matching.next()) {
        (Some(seat), None, None, _) => {
            let ring = seat.topic.ring.read();
            match take_first(&ring, tail, position, &take) {
                Some(entry) => Next::Event(entry),
                None => Next::Other,
            }
        }
        (None, _, Some(seat), None) => {
            let Some((offset, topic)) = seat.pattern.only_from(next, tail) else {
                return Next::Other;
            };
            let ring = topic.ring.read();
            let Some(kept) = ring.get(offset) else { return Next::Other };
            let entry = entry(kept, take);
            drop(ring);
            position.advance(Some(offset), Some(tail));
            Next::Event(entry)
        }
        // There is nothing new: the reader has already read the event for which it was woken, or
        // the new events are for other readers.
        (None, _, None, _) => {
            position.advance(None, Some(tail));
            Next::CaughtUp
        }
        (Some(_), Some(_), None, _) => {
            let news = seats.topics.iter().filter(has_news);
            first_of_several(news, tail, position, take).map_or(Next::Other, Next::Event)
        }
        _ => Next::Other,
    }
}

/// Takes the oldest new event of several topics, if all these topics together have only a few new
/// events. Each topic has a ring, which holds its events.
fn first_of_several<'a, P: Payload, Q>(
    seats: impl Iterator<Item = &'a TopicSeat<P>>,
    tail: u64,
    position: &mut Position,
    take: impl Fn(&P) -> Q,
) -> Option<Entry<Q>> {
    let (mut first, mut others) = (None::<(u64, &TopicSeat<P>)>, 0);
    for seat in seats {
        let ring = seat.topic.ring.read();
        if ring.floor() > position.missing_from() {
            return None;
        }
        let mut few = ring.from(position.next).take_while(|kept| kept.offset < tail);
        let Some(offset) = few.next().map(|kept| kept.offset) else { continue };
        others += few.take(FEW + 1).count();
        others += usize::from(first.is_some_and(|(earlier, _)| earlier != offset));
        if others > FEW {
            return None;
        }
        if first.is_none_or(|(earlier, _)| offset < earlier) {
            first = Some((offset, seat));
        }
    }
    let (offset, seat) = first?;
    let ring = seat.topic.ring.read();
    let entry = entry(ring.get(offset)?, take);
    drop(ring);
    position.advance(Some(offset), (others == 0).then_some(tail));
    Some(entry)
}

/// Takes the oldest new event of a ring, if the ring has only a few new events. The caller must
/// have checked that no other ring of the reader has a new event.
fn take_first<P: Payload, Q>(
    ring: &Ring<P>,
    tail: u64,
    position: &mut Position,
    take: impl Fn(&P) -> Q,
) -> Option<Entry<Q>> {
    if ring.floor() > position.missing_from() {
        return None;
    }
    // There is nearly always exactly one new event.
    if let Some(kept) = ring.only_from(position.next).filter(|kept| kept.offset < tail) {
        position.advance(Some(kept.offset), Some(tail));
        return Some(entry(kept, take));
    }
    let mut few = ring.from(position.next).take_while(|kept| kept.offset < tail).take(FEW + 1);
    let first = few.next()?;
    let others = few.count();
    if others == FEW {
        return None;
    }
    position.advance(Some(first.offset), (others == 0).then_some(tail));
    Some(entry(first, take))
}
