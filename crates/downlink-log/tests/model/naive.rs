//! The model of a log. The model keeps every published event. For each address, it has a list of
//! the kept events and a list of the evicted events. The model computes every result from scratch.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use downlink_log::{
    Address, AppendError, Appended, EndReason, Fingerprint, Floor, Gap, GapReason, Offset,
    OpenError, Read, Retention, RetentionRules, Selection, Start, Timestamp, TopicSelector, Totals,
    store::StoredEvent,
};
use smallvec::SmallVec;

use crate::{epoch, program};

/// The bytes that the log counts for each event in addition to the event's payload. The log
/// documents this number.
const ENTRY_COST_BYTES: usize = 96;

#[derive(Clone, Debug)]
struct Event {
    offset: u64,
    at: u64,
    to: BTreeSet<Address>,
    bytes: usize,
    id: Option<String>,
    answer: Option<Appended>,
}

/// The kept and the evicted events of one address.
#[derive(Clone, Debug, Default)]
struct Ring {
    kept: Vec<u64>,
    /// The offset of each evicted event, and the number of its eviction.
    evicted: Vec<(u64, u64)>,
    finished: Option<(u64, u64)>,
}

#[derive(Debug)]
pub(crate) struct Naive {
    state: RefCell<State>,
    rules: RetentionRules,
}

#[derive(Debug, Default)]
struct State {
    events: BTreeMap<u64, Event>,
    rings: BTreeMap<Address, Ring>,
    readers: BTreeMap<u64, Selection>,
    next: u64,
    next_reader: u64,
    evictions: u64,
    published: u64,
    at: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Reader {
    number: u64,
    selection: Selection,
    next: u64,
    reported_below: u64,
    /// An eviction number and an offset. Evictions are numbered in order. Until the reader has
    /// reached this offset, evictions up to this number give no gap.
    past: Option<(u64, u64)>,
    gap: Option<Gap>,
    reason: GapReason,
}

impl Reader {
    fn hole(&self, state: &State) -> Option<u64> {
        let after = self.past.filter(|(_, until)| self.next < *until).map_or(0, |past| past.0);
        state.hole(&self.selection, self.next.max(self.reported_below), after)
    }

    /// The offset from which the reader gets events. If the reader begins with a gap, this offset
    /// is after the gap.
    pub(crate) fn start(&self) -> u64 {
        self.gap.map_or(self.next, |gap| gap.next.get())
    }

    pub(crate) fn next(&self) -> u64 {
        self.gap.map_or(self.next, |gap| self.next.min(gap.next.get()))
    }
}

pub(crate) fn wants(selection: &Selection, to: &BTreeSet<Address>) -> bool {
    to.iter().any(|address| reads(selection, address))
}

fn reads(selection: &Selection, address: &Address) -> bool {
    match address {
        Address::Everyone => true,
        Address::Client(client) => selection.client.as_ref() == Some(client),
        Address::Topic(topic) => selection.selectors.iter().any(|wanted| wanted.matches(topic)),
        _ => unreachable!("there are three kinds of address"),
    }
}

fn names(selection: &Selection, address: &Address) -> bool {
    match address {
        Address::Topic(topic) => {
            selection.selectors.iter().any(|selector| selector.exact() == Some(topic))
        }
        _ => reads(selection, address),
    }
}

fn matches_pattern(selection: &Selection, address: &Address) -> bool {
    let mut patterns = selection.selectors.iter().filter(|selector| selector.exact().is_none());
    address.topic().is_some_and(|topic| patterns.any(|pattern| pattern.matches(topic)))
}

fn is_exact(selection: &Selection) -> bool {
    selection.selectors.iter().all(|selector| selector.exact().is_some())
}

fn millis(duration: std::time::Duration) -> u64 {
    duration.as_millis() as u64
}

impl State {
    fn cost(&self, offset: u64) -> usize {
        self.events[&offset].bytes + ENTRY_COST_BYTES
    }

    fn ring(&mut self, address: &Address) -> &mut Ring {
        self.rings.entry(address.clone()).or_default()
    }

    fn evict(&mut self, address: &Address) {
        let offset = self.ring(address).kept.remove(0);
        self.evictions += 1;
        let number = self.evictions;
        self.ring(address).evicted.push((offset, number));
    }

    /// Evicts the oldest events of an address until its rule allows the number and the bytes of the
    /// rest.
    fn trim(&mut self, address: &Address, rules: &RetentionRules) {
        let rule = rule(rules, address);
        loop {
            let kept = self.ring(address).kept.clone();
            let bytes: usize = kept.iter().map(|&offset| self.cost(offset)).sum();
            if kept.len() <= 1 || (kept.len() <= rule.events_max && bytes <= rule.bytes_max) {
                return;
            }
            self.evict(address);
        }
    }

    fn is_kept(&self, offset: u64) -> bool {
        self.rings.values().any(|ring| ring.kept.contains(&offset))
    }

    fn bytes(&self) -> usize {
        self.rings.values().flat_map(|ring| &ring.kept).map(|&offset| self.cost(offset)).sum()
    }

    /// Whether an address has events or is finished.
    fn is_filled(&self, address: &Address) -> bool {
        let ring = self.rings.get(address);
        ring.is_some_and(|ring| !ring.kept.is_empty() || ring.finished.is_some())
    }

    /// The topics and inboxes that readers name.
    fn named(&self) -> BTreeSet<Address> {
        let named = self.readers.values().flat_map(|selection| {
            let topics = selection.selectors.iter().filter_map(|s| s.exact().cloned());
            let inbox = selection.client.iter().cloned().map(Address::Client);
            topics.map(Address::Topic).chain(inbox).collect::<Vec<_>>()
        });
        named.collect()
    }

    fn patterns(&self) -> BTreeSet<&TopicSelector> {
        let selectors = self.readers.values().flat_map(|selection| &selection.selectors);
        selectors.filter(|selector| selector.exact().is_none()).collect()
    }

    fn filled(&self) -> BTreeSet<Address> {
        let topics = self.rings.keys().filter(|address| **address != Address::Everyone);
        topics.filter(|address| self.is_filled(address)).cloned().collect()
    }

    fn expire(&mut self, now: u64, rules: &RetentionRules) {
        let addresses: Vec<Address> = self.rings.keys().cloned().collect();
        for address in addresses {
            let finished = self.ring(&address).finished;
            if finished.is_some_and(|(_, at)| at + millis(rules.finished_keep) <= now) {
                self.ring(&address).finished = None;
                while !self.ring(&address).kept.is_empty() {
                    self.evict(&address);
                }
            }
            let Some(age) = rule(rules, &address).age_max else { continue };
            while let Some(&front) = self.ring(&address).kept.first() {
                if self.events[&front].at + millis(age) > now {
                    break;
                }
                self.evict(&address);
            }
        }
    }

    fn of<'a>(&'a self, selection: &'a Selection) -> impl Iterator<Item = &'a Ring> {
        self.rings.iter().filter(|(address, _)| reads(selection, address)).map(|(_, ring)| ring)
    }

    fn kept_from(&self, selection: &Selection, from: u64) -> BTreeSet<u64> {
        self.of(selection)
            .flat_map(|ring| &ring.kept)
            .copied()
            .filter(|&offset| offset >= from)
            .collect()
    }

    /// The offset of the newest event at or above `from` that a reader of the selection can no
    /// longer get. Only evictions with a number above `after` count.
    ///
    /// A topic's last evicted event may still be in another topic that the selection names. The
    /// reader gets this event from the other topic, so the event is not missing.
    fn hole(&self, selection: &Selection, from: u64, after: u64) -> Option<u64> {
        let mut holes = Vec::new();
        for (address, ring) in self.rings.iter().filter(|(address, _)| reads(selection, address)) {
            let counts = |evicted: &&(u64, u64)| evicted.0 >= from && evicted.1 > after;
            let Some(&(last, _)) = ring.evicted.last().filter(counts) else { continue };
            let others = self.rings.iter().filter(|(other, _)| *other != address);
            let mut named = others.filter(|(other, _)| names(selection, other));
            let is_elsewhere = named.any(|(_, ring)| ring.kept.contains(&last));
            if matches_pattern(selection, address) || !is_elsewhere {
                holes.push(last);
            } else if let Some(&(lower, _)) =
                ring.evicted.iter().nth_back(1).filter(|e| e.0 >= from)
            {
                holes.push(lower);
            }
        }
        holes.into_iter().max()
    }

    /// Looks at the last evicted event of each selected topic. Returns the highest offset among
    /// those events that were published at `since` or later.
    fn evicted_since(&self, selection: &Selection, since: u64) -> Option<u64> {
        let last = self.of(selection).filter_map(|ring| ring.evicted.last());
        last.map(|(offset, _)| *offset).filter(|offset| self.events[offset].at >= since).max()
    }

    fn all_finished(&self, selection: &Selection) -> bool {
        let exact: Vec<_> = selection.selectors.iter().filter_map(|s| s.exact()).collect();
        is_exact(selection)
            && !exact.is_empty()
            && exact.iter().all(|topic| {
                let ring = self.rings.get(&Address::Topic((*topic).clone()));
                ring.is_some_and(|ring| ring.finished.is_some())
            })
    }

    fn gap(&self, selection: &Selection, reason: GapReason, next: u64) -> Gap {
        let oldest = self.kept_from(selection, next).first().copied();
        Gap {
            reason,
            after: None,
            until: None,
            oldest: oldest.map(Offset::new),
            next: Offset::new(next),
        }
    }
}

fn rule(rules: &RetentionRules, address: &Address) -> Retention {
    match address {
        Address::Everyone => rules.everyone,
        Address::Client(_) => rules.inbox,
        Address::Topic(topic) => rules
            .rules
            .iter()
            .find(|(selector, _)| selector.matches(topic))
            .map_or(rules.default, |(_, retention)| *retention),
        _ => unreachable!("there are three kinds of address"),
    }
}

impl Naive {
    pub(crate) fn new() -> Self {
        let state = State { next: 1, ..State::default() };
        Self { state: RefCell::new(state), rules: program::retention(0) }
    }

    pub(crate) fn set_retention(&mut self, now: u64, rules: RetentionRules) {
        self.rules = rules;
        let state = &mut *self.state.borrow_mut();
        let addresses: Vec<Address> = state.rings.keys().cloned().collect();
        addresses.iter().for_each(|address| state.trim(address, &self.rules));
        state.expire(now, &self.rules);
    }

    fn at(&self, now: u64) -> std::cell::RefMut<'_, State> {
        let mut state = self.state.borrow_mut();
        state.expire(now, &self.rules);
        state
    }

    pub(crate) fn append(
        &self,
        now: u64,
        to: &BTreeSet<Address>,
        bytes: usize,
        id: Option<&str>,
        finish: bool,
    ) -> Result<Appended, AppendError> {
        let mut state = self.at(now);
        if let Some(answer) = repeated(&state, to, bytes, id)? {
            return Ok(answer);
        }
        let answer = self.push(&mut state, now, to, finish)?;
        let offset = answer.offset.get();
        let at = state.at;
        let id = id.map(str::to_owned);
        let event = Event { offset, at, to: to.clone(), bytes, id, answer: Some(answer) };
        state.events.insert(offset, event);
        state.published += 1;
        for address in to {
            state.ring(address).kept.push(offset);
            state.trim(address, &self.rules);
        }
        trim_all(&mut state, to, offset);
        Ok(answer)
    }

    pub(crate) fn finish(&self, now: u64, to: &BTreeSet<Address>) -> Result<Appended, AppendError> {
        let mut state = self.at(now);
        self.push(&mut state, now, to, true)
    }

    fn push(
        &self,
        state: &mut State,
        now: u64,
        to: &BTreeSet<Address>,
        finish: bool,
    ) -> Result<Appended, AppendError> {
        if to.iter().any(|address| state.rings.get(address).is_some_and(|r| r.finished.is_some())) {
            return Err(AppendError::Finished { draft: 0 });
        }
        room(state, to)?;
        let offset = state.next;
        state.next += 1;
        state.at = state.at.max(now);
        let at = state.at;
        if finish {
            to.iter().for_each(|address| state.ring(address).finished = Some((offset, at)));
        }
        let matched = state.readers.values().filter(|selection| wants(selection, to)).count();
        Ok(Appended { offset: Offset::new(offset), epoch: epoch(), matched, repeated: false })
    }

    pub(crate) fn open(
        &self,
        now: u64,
        selection: &Selection,
        start: &Start,
    ) -> Result<Reader, OpenError> {
        let mut state = self.at(now);
        let limits = program::limits();
        if state.readers.len() >= limits.subscribers_max {
            return Err(OpenError::Full { subscribers_max: limits.subscribers_max });
        }
        let same = |other: &&Selection| other.client.is_some() && other.client == selection.client;
        if state.readers.values().filter(same).count() >= limits.subscribers_per_client_max {
            let subscribers_per_client_max = limits.subscribers_per_client_max;
            return Err(OpenError::ClientFull { subscribers_per_client_max });
        }
        let number = state.next_reader;
        let before = state.named().len();
        state.readers.insert(number, selection.clone());
        let named = state.named().len();
        let refused = if named > limits.subscribed_names_max.max(before) {
            let subscribed_names_max = limits.subscribed_names_max;
            Some(OpenError::TooManyNames { subscribed_names_max })
        } else if state.patterns().len() > limits.patterns_max {
            Some(OpenError::TooManyPatterns { patterns_max: limits.patterns_max })
        } else {
            None
        };
        if let Some(refused) = refused {
            state.readers.remove(&number);
            return Err(refused);
        }
        state.next_reader += 1;
        Ok(begin(&state, number, selection, start))
    }

    /// The events and finish marks in a range of offsets, as a feed has them, and the floors of all
    /// addresses: the offsets below which their events were evicted. An address without evictions
    /// is listed with [`Floor::NONE`]. A finish mark says that a topic gets no more events.
    pub(crate) fn feed(&self, range: Range<u64>) -> (Vec<StoredEvent>, BTreeMap<Address, Floor>) {
        let state = self.state.borrow();
        let stored = |offset: u64, at: u64| StoredEvent {
            offset: Offset::new(offset),
            at: Timestamp::from_millis(at),
            to: SmallVec::new(),
            id: None,
            key: None,
            fingerprint: Fingerprint::default(),
            finish: false,
            payload: None,
        };
        let mut feed = Vec::new();
        for offset in range {
            let rings = || state.rings.iter();
            if let Some(event) = state.events.get(&offset) {
                let keeps = |(_, ring): &(&Address, &Ring)| ring.kept.contains(&offset);
                let to: SmallVec<_> = rings().filter(keeps).map(|(to, _)| to.clone()).collect();
                if !to.is_empty() {
                    let id = event.id.as_deref().map(Into::into);
                    let payload = Some(vec![0; event.bytes]);
                    feed.push(StoredEvent { to, id, payload, ..stored(offset, event.at) });
                }
            }
            let is_mark =
                |(_, ring): &(&Address, &Ring)| ring.finished.map(|mark| mark.0) == Some(offset);
            let to: SmallVec<_> = rings().filter(is_mark).map(|(to, _)| to.clone()).collect();
            if !to.is_empty() {
                feed.push(StoredEvent { to, finish: true, ..stored(offset, state.at) });
            }
        }
        let floors = state.rings.iter().map(|(address, ring)| {
            let last = ring.evicted.iter().map(|(offset, _)| *offset).max();
            let floor = last.map_or(Floor::NONE, |last| Floor {
                offset: Offset::new(last + 1),
                at: Timestamp::from_millis(state.events[&last].at),
            });
            (address.clone(), floor)
        });
        (feed, floors.collect())
    }

    /// The offsets at or above `from` of all published events that match a selection.
    pub(crate) fn published_from(&self, selection: &Selection, from: u64) -> BTreeSet<u64> {
        let state = self.state.borrow();
        let events = state.events.range(from..);
        let wanted = events.filter(|(_, event)| wants(selection, &event.to));
        wanted.map(|(offset, _)| *offset).collect()
    }

    /// The offsets at or above `from` of the events that the selected topics keep.
    pub(crate) fn kept_from(&self, selection: &Selection, from: u64) -> BTreeSet<u64> {
        self.state.borrow().kept_from(selection, from)
    }

    pub(crate) fn close(&self, reader: &Reader) {
        self.state.borrow_mut().readers.remove(&reader.number);
    }

    pub(crate) fn read(
        &self,
        now: u64,
        reader: &mut Reader,
        events_max: usize,
    ) -> (Read, Vec<u64>) {
        let state = self.at(now);
        if let Some(gap) = reader.gap.take() {
            return (Read::Gap(gap), Vec::new());
        }
        let kept = state.kept_from(&reader.selection, reader.next);
        if let Some(until) = reader.hole(&state) {
            let next = kept.first().copied().unwrap_or(state.next).min(until + 1);
            let gap = Gap {
                after: Some(Offset::new(reader.next - 1)),
                until: Some(Offset::new(until)),
                ..state.gap(&reader.selection, reader.reason, next)
            };
            (reader.reported_below, reader.next) = (reader.reported_below.max(until + 1), next);
            return (Read::Gap(gap), Vec::new());
        }
        reader.reason = GapReason::Lagged;
        let taken: Vec<u64> = kept.iter().copied().take(events_max).collect();
        let all = taken.len() == kept.len();
        reader.next = if all { state.next } else { taken.last().map_or(0, |last| last + 1) };
        let read = match () {
            () if !taken.is_empty() => Read::Events,
            () if state.all_finished(&reader.selection) => Read::Ended(EndReason::Finished),
            () => Read::CaughtUp,
        };
        (read, taken)
    }

    pub(crate) fn is_at_end(&self, reader: &Reader) -> bool {
        let state = self.state.borrow();
        reader.gap.is_none()
            && state.all_finished(&reader.selection)
            && state.kept_from(&reader.selection, reader.next).is_empty()
            && reader.hole(&state).is_none()
    }

    pub(crate) fn totals(&self, now: u64) -> Totals {
        let state = self.at(now);
        Totals {
            subscribers: state.readers.len(),
            topics: state.filled().union(&state.named()).count(),
            events: state.rings.values().map(|ring| ring.kept.len()).sum(),
            bytes: state.bytes(),
            published: state.published,
            refusals: Default::default(),
            store: None,
        }
    }
}

fn begin(state: &State, number: u64, selection: &Selection, start: &Start) -> Reader {
    let tail = state.next;
    let kept = state.kept_from(selection, 0);
    let newest = |count: usize| match count {
        0 => tail,
        _ => kept.iter().nth_back(count.min(kept.len().max(1)) - 1).copied().unwrap_or(tail),
    };
    let reader = |next, gap: Option<Gap>| Reader {
        number,
        selection: selection.clone(),
        next,
        reported_below: gap.and_then(|gap| gap.until).map_or(0, |until| until.get() + 1),
        past: None,
        gap,
        reason: GapReason::Evicted,
    };
    let history = |next, gap| Reader { past: Some((state.evictions, tail)), ..reader(next, gap) };
    let unknown = |reason| {
        let next = newest(program::GAP_REPLAY_MAX);
        history(next, Some(state.gap(selection, reason, next)))
    };
    match start {
        Start::Live if !state.all_finished(selection) => {
            Reader { reason: GapReason::Lagged, ..reader(tail, None) }
        }
        Start::Live => {
            let named = state
                .rings
                .iter()
                .filter(|(address, _)| address.topic().is_some() && reads(selection, address));
            let first = named.filter_map(|(_, ring)| ring.kept.first().copied()).min();
            history(first.unwrap_or(tail), None)
        }
        Start::Earliest => history(kept.first().copied().unwrap_or(tail), None),
        Start::Last(count) => history(newest(*count), None),
        Start::Since(since) => {
            let since = since.as_millis();
            let young = kept.iter().find(|offset| state.events[offset].at >= since);
            let next = young.copied().unwrap_or(tail);
            let gap = state.evicted_since(selection, since).map(|until| Gap {
                until: Some(Offset::new(until)),
                ..state.gap(selection, GapReason::Evicted, next)
            });
            history(next, gap)
        }
        Start::After(id) => match id.strip_prefix(&format!("{}-", epoch())) {
            Some(offset) => match offset.parse::<u64>().expect("an id of the log") + 1 {
                next if next <= tail => reader(next, None),
                _ => reader(tail, Some(state.gap(selection, GapReason::Lost, tail))),
            },
            None if id.starts_with("given-") => {
                let event = state.events.values().rev().find(|event| {
                    event.id.as_deref() == Some(&**id) && state.is_kept(event.offset)
                });
                match event {
                    Some(event) => reader(event.offset + 1, None),
                    None => unknown(GapReason::UnknownId),
                }
            }
            None if id.starts_with("00000000-") => unknown(GapReason::NewEpoch),
            None => unknown(GapReason::UnknownId),
        },
        _ => unreachable!("the random operations use no other kind of start"),
    }
}

/// Returns an error if an event to these addresses would exceed the limit of topics with events.
fn room(state: &State, to: &BTreeSet<Address>) -> Result<(), AppendError> {
    let topics_max = program::limits().topics_max;
    let filled = state.filled();
    let new = to.iter().filter(|&to| *to != Address::Everyone && !filled.contains(to)).count();
    if new > 0 && filled.len() + new > topics_max {
        return Err(AppendError::TooManyTopics { draft: 0, topics_max });
    }
    Ok(())
}

fn repeated(
    state: &State,
    to: &BTreeSet<Address>,
    bytes: usize,
    id: Option<&str>,
) -> Result<Option<Appended>, AppendError> {
    let Some(id) = id else { return Ok(None) };
    let earlier = state
        .events
        .values()
        .find(|event| event.id.as_deref() == Some(id) && state.is_kept(event.offset));
    match earlier {
        Some(event) if event.to == *to && event.bytes == bytes => {
            Ok(event.answer.map(|answer| Appended { repeated: true, ..answer }))
        }
        Some(_) => Err(AppendError::IdTaken { draft: 0 }),
        None => Ok(None),
    }
}

fn trim_all(state: &mut State, to: &BTreeSet<Address>, newest: u64) {
    let bytes_max = program::limits().bytes_max;
    for address in to {
        while state.bytes() > bytes_max
            && state.ring(address).kept.first().is_some_and(|&front| front < newest)
        {
            state.evict(address);
        }
    }
    while state.bytes() > bytes_max {
        let oldest = state.rings.values().filter_map(|ring| ring.kept.first().copied()).min();
        let Some(oldest) = oldest.filter(|&oldest| oldest < newest) else { return };
        let addresses: Vec<Address> = state.rings.keys().cloned().collect();
        for address in addresses {
            if state.ring(&address).kept.first() == Some(&oldest) {
                state.evict(&address);
            }
        }
    }
}

/// The model stores times as milliseconds, so the log's timestamps must have the same unit.
#[test]
fn timestamps_are_in_milliseconds() {
    assert_eq!(Timestamp::from_millis(5).after(std::time::Duration::from_millis(2)).as_millis(), 7);
}
