//! Reading one event: what most readers do, which keep up.
//!
//! There is one event in one ring. It is taken as it is, without a buffer. Whatever else there may be,
//! such as a hole, an end, or many events, is left to `read`, which finds it by itself.

use crate::{
    log::{Payload, Shared},
    merge::{Entry, GapReason, MERGE_ALWAYS, Position},
    ring::{Kept, Ring},
    sync::Ordering,
    watcher::{Attached, Seat},
};

/// Up to this many events each is taken by itself. With as many, a batch and its buffer cost the
/// same; with twice as many, a batch is cheaper by a third.
const FEW: usize = 4;

/// What a look for one event found.
#[derive(Debug)]
#[must_use]
#[non_exhaustive]
pub enum Next<P> {
    /// The next event.
    Event(Entry<P>),
    /// Nothing to read now.
    CaughtUp,
    /// Something else: a hole, the end, many topics, or many events. [`read`](crate::Reader::read)
    /// says it, and takes many at a time.
    Other,
}

impl<P: Payload> Shared<P> {
    /// Reads the next event and moves the position, if the reader is one of few topics that keeps up.
    pub(crate) fn read_next<Q>(
        &self,
        position: &mut Position,
        attached: &Attached<P>,
        take: impl Fn(&P) -> Q,
    ) -> Next<Q> {
        let tail = self.tail();
        if position.next >= tail {
            position.reason = GapReason::Lagged;
            return Next::CaughtUp;
        }
        if attached.len() > MERGE_ALWAYS {
            return Next::Other;
        }
        let next = position.next;
        let inboxes = self.newest_of_inboxes.load(Ordering::Acquire) >= next
            || self.floor_max.load(Ordering::Acquire) > next;
        let has_news = |seat: &&Seat<P>| (inboxes || !seat.inbox) && seat.topic.newest() >= next;
        let mut news = attached.iter().filter(has_news);
        match (news.next(), news.next()) {
            (Some(seat), None) => {
                let ring = seat.topic.ring.read();
                let detached = attached.detached().offset;
                if let Some(kept) = take_only(&ring, tail, detached, position) {
                    return Next::Event(Entry::of(kept, take));
                }
                let mut heads = Heads::new(attached, tail);
                heads.add(&ring, next, seat);
                heads.take(&ring, position, take)
            }
            (Some(first), Some(second)) => {
                let mut heads = Heads::new(attached, tail);
                for seat in [first, second].into_iter().chain(news) {
                    heads.add(&seat.topic.ring.read(), next, seat);
                }
                match heads.first {
                    Some((_, seat)) => heads.take(&seat.topic.ring.read(), position, take),
                    None => Next::Other,
                }
            }
            (None, _) => Next::Other,
        }
    }
}

/// Takes the only event there is, from the only ring that has news: what nearly every look finds.
fn take_only<'a, P: Payload>(
    ring: &'a Ring<P>,
    tail: u64,
    detached: u64,
    position: &mut Position,
) -> Option<&'a Kept<P>> {
    let kept = ring.only_from(position.next).filter(|kept| kept.offset < tail)?;
    let hole = detached.max(ring.floor().offset) > position.next.max(position.ring_told());
    if hole {
        return None;
    }
    position.advance(Some(kept.offset), Some(tail));
    Some(kept)
}

/// The two next offsets of a few rings, and their floor.
struct Heads<'a, P> {
    first: Option<(u64, &'a Seat<P>)>,
    /// The tail, if there is only one below it.
    second: u64,
    floor: u64,
    tail: u64,
    events: usize,
}

impl<'a, P: Payload> Heads<'a, P> {
    fn new(attached: &Attached<P>, tail: u64) -> Self {
        Self { first: None, second: tail, floor: attached.detached().offset, tail, events: 0 }
    }

    fn add(&mut self, ring: &Ring<P>, next: u64, seat: &'a Seat<P>) {
        self.floor = self.floor.max(ring.floor().offset);
        self.events += ring.len_from(next);
        let below = ring.from(next).map(|entry| entry.offset).take_while(|&at| at < self.tail);
        for offset in below.take(2) {
            match self.first {
                // An event to several topics is in several rings.
                Some((first, _)) if first == offset => {}
                Some((first, _)) if first < offset => self.second = self.second.min(offset),
                other => {
                    self.second = other.map_or(self.second, |(first, _)| first);
                    self.first = Some((offset, seat));
                }
            }
        }
    }

    /// Takes the first from its ring, unless a batch is the better way or the only one.
    fn take<Q>(self, ring: &Ring<P>, position: &mut Position, take: impl Fn(&P) -> Q) -> Next<Q> {
        let hole = self.floor.max(ring.floor().offset) > position.next.max(position.ring_told());
        if hole || self.events > FEW {
            return Next::Other;
        }
        let first = self.first.map(|(first, _)| first);
        match first.and_then(|first| ring.from(first).next()) {
            // Else it was evicted meanwhile.
            Some(kept) if first == Some(kept.offset) => {
                let complete = self.second >= self.tail;
                position.advance(Some(kept.offset), complete.then_some(self.tail));
                Next::Event(Entry::of(kept, take))
            }
            _ => Next::Other,
        }
    }
}
