//! Where a new reader begins: what it asked for, resolved to a cursor.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    address::Address,
    forgotten::Floor,
    log::{Payload, Shared},
    merge::{Gap, GapReason},
    offset::{Cursor, Offset, Timestamp},
    topic::TopicLog,
    watcher::{Attached, Watcher},
};

/// What a reader asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Start {
    /// What comes from now on; of a finished topic, all that there is.
    Live,
    /// All retained history.
    Earliest,
    /// At most this many of the newest events.
    Last(usize),
    /// What was published at this time or later.
    Since(Timestamp),
    /// What follows the event with this id, in whatever form.
    After(Box<str>),
}

/// Where a reader begins.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) next: u64,
    /// Holes below this are no news to the reader.
    pub(crate) told: u64,
    pub(crate) gap: Option<Gap>,
    /// Whether the reader gave an id, or asked for history.
    pub(crate) asked: bool,
    /// Whether its finished topics have nothing more for it, if a store has said so.
    pub(crate) at_end: Option<bool>,
}

impl Beginning {
    pub(crate) fn at(next: u64) -> Self {
        Self { next, told: 0, gap: None, asked: true, at_end: None }
    }
}

impl<P: Payload> Shared<P> {
    /// Resolves a start. The reader is attached already: nothing between is missed.
    pub(crate) fn begin(&self, start: &Start, watcher: &Watcher<P>) -> Beginning {
        let attached = &watcher.attached.lock();
        let tail = self.tail();
        match start {
            Start::Live if watcher.patterns().is_empty() && all_finished(attached) => {
                let is_topic = |address: &Address| address.topic().is_some();
                begin_retained(attached, is_topic, tail)
            }
            Start::Live => Beginning { asked: false, ..Beginning::at(tail) },
            Start::Earliest => begin_retained(attached, |_| true, tail),
            Start::Last(count) => {
                let told = told(attached, tail);
                let next = newest(attached, *count, tail).unwrap_or(tail);
                Beginning { told, ..Beginning::at(next) }
            }
            Start::Since(since) => self.begin_since(attached, *since, tail),
            Start::After(id) => self.begin_after(attached, id, tail),
        }
    }

    fn begin_since(&self, attached: &Attached<P>, since: Timestamp, tail: u64) -> Beginning {
        let told = told(attached, tail);
        let next = first(attached, |topic| topic.ring.read().next_since(since)).unwrap_or(tail);
        let is_young = |floor: Floor| floor.offset > Floor::NONE.offset && floor.at >= since;
        let missed = attached.iter().any(|seat| is_young(seat.topic.ring.read().floor()));
        let gap = (missed || is_young(attached.detached())).then(|| Gap {
            until: Some(Offset::new(told - 1)),
            ..self.gap(attached, GapReason::Evicted, None, next)
        });
        Beginning { told, gap, ..Beginning::at(next) }
    }

    fn begin_after(&self, attached: &Attached<P>, id: &str, tail: u64) -> Beginning {
        let epoch = self.options.epoch;
        let reason = match Cursor::parse_id(id) {
            Some(cursor) if cursor.epoch != epoch => GapReason::NewEpoch,
            Some(cursor) if cursor.next.get() <= tail => return Beginning::at(cursor.next.get()),
            Some(_) => {
                let gap = self.gap(attached, GapReason::Lost, None, tail);
                return Beginning { gap: Some(gap), ..Beginning::at(tail) };
            }
            None => match self.given.lock().get(id) {
                Some(given) => return Beginning::at(given.answer.offset.get() + 1),
                None => GapReason::UnknownId,
            },
        };
        let told = told(attached, tail);
        let next = newest(attached, self.options.gap_replay_max, tail).unwrap_or(tail);
        let gap = self.gap(attached, reason, None, next);
        Beginning { told, gap: Some(gap), ..Beginning::at(next) }
    }

    /// A gap before `next`, with the oldest event that follows.
    pub(crate) fn gap(
        &self,
        attached: &Attached<P>,
        reason: GapReason,
        after: Option<Offset>,
        next: u64,
    ) -> Gap {
        let oldest = first(attached, |topic| topic.ring.read().next_from(next)).map(Offset::new);
        Gap { reason, after, until: None, oldest, next: Offset::new(next) }
    }
}

/// Begins at the oldest retained event of those topics that `counts` accepts.
fn begin_retained<P: Payload>(
    attached: &Attached<P>,
    counts: impl Fn(&Address) -> bool,
    tail: u64,
) -> Beginning {
    let told = told(attached, tail);
    let oldest = |topic: &Arc<TopicLog<P>>| topic.ring.read().next_from(0);
    let next = first(attached, |topic| counts(&topic.address).then(|| oldest(topic)).flatten());
    Beginning { told, ..Beginning::at(next.unwrap_or(tail)) }
}

/// Whether a reader names topics only, and each of them is finished.
pub(crate) fn all_finished<P: Payload>(attached: &Attached<P>) -> bool {
    let mut topics = attached.iter().filter(|seat| seat.topic.address.topic().is_some()).peekable();
    topics.peek().is_some() && topics.all(|seat| seat.topic.finished().is_some())
}

fn first<P: Payload>(
    attached: &Attached<P>,
    find: impl Fn(&Arc<TopicLog<P>>) -> Option<u64>,
) -> Option<u64> {
    attached.iter().filter_map(|seat| find(&seat.topic)).min()
}

/// Holes below this are no news to a reader that begins now.
///
/// Never above its tail: what is appended and evicted while it opens is news.
fn told<P: Payload>(attached: &Attached<P>, tail: u64) -> u64 {
    floor_max(attached).min(tail)
}

/// The highest floor of a reader's topics: below it, it may have missed something.
pub(crate) fn floor_max<P: Payload>(attached: &Attached<P>) -> u64 {
    let floors = attached.iter().map(|seat| seat.topic.ring.read().floor().offset);
    floors.fold(attached.detached().offset, u64::max)
}

/// The oldest of the newest `count` offsets below `tail` in all topics together.
fn newest<P: Payload>(attached: &Attached<P>, count: usize, tail: u64) -> Option<u64> {
    let mut newest = BTreeSet::new();
    for seat in attached.iter() {
        for offset in seat.topic.ring.read().newest_first().filter(|&offset| offset < tail) {
            let full = newest.len() >= count;
            if full && newest.first().is_none_or(|&oldest| offset < oldest) {
                break;
            }
            newest.insert(offset);
            if newest.len() > count {
                newest.pop_first();
            }
        }
    }
    newest.pop_first()
}
