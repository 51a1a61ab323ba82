//! The node: a state machine between publishers, a journal and a log.
//!
//! The caller passes in what has happened (`handle_*`, [`Node::publish`]) together with the time,
//! and then takes all requests for the journal ([`Node::poll_request`]) and all answers for
//! publishers ([`Node::poll_answer`]). It calls [`Node::handle_timeout`] at the time that
//! [`Node::timeout`] returns. The times are milliseconds of a clock that never goes back; only the
//! differences matter.
//!
//! A node opens the journal, finds a position at which it can begin, and follows the journal from
//! there. If its history differs from the journal, the journal is right: the node compares both,
//! removes its own history after the last common position, and announces the fork.

use std::{collections::VecDeque, ops::Range, time::Duration};

use downlink_log::{Cursor, GapReason, KEY_WINDOW, Offset, Timestamp};

use crate::{
    chain::Chain,
    entry::{Control, Entry, EntryName, FORMAT_VERSION, Fork, Heartbeat, HubId, WriterId},
    fed_log::{Applied, FedLog},
    journal::{Bounds, JournalError, Opened, RawEntry, TailItem},
    mark::{Digest, Mark},
    node::{
        compare::{Comparison, Outcome, SHORT_FOR},
        history::{Found, History, HubState},
        outbox::{IN_FLIGHT_MAX, InFlight, Origin, Outbox, QUEUE_MAX, RETRY_EVERY, Waiting},
        publish::{ANSWER_WITHIN, Answer, Publish, PublishId},
    },
    position::{ENTRY_EVENTS_MAX, Position},
    rules::{Mutant, Rules, millis},
    window::window::{Anchor, Verdict, Void, Window},
    wire::{DecodeError, ENTRY_BYTES_MAX, FORK_IDS_MAX, REPLACES_MAX},
};

/// The time between two heartbeats of a node. Heartbeats let engine time pass, and they show a node
/// that is alone whether the journal still is what it was.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(2);
/// The default time after which a node without any snapshot in its tail appends one. The engine has
/// to keep entries for longer.
pub const SNAPSHOT_EVERY: Duration = Duration::from_secs(10 * 60);
/// The maximum time for which a reader waits for an answer about an id that is ahead of the node.
pub const READER_WAITS_MAX: Duration = Duration::from_secs(10);
/// The number of positions by which a node may be behind and still takes publishes: half of the
/// positions after which its entries would be void.
pub const BEHIND_MAX: u64 = 8_192;

/// The settings of a node.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// The hub. Entries of other hubs are void.
    pub hub: HubId,
    /// The rules that all nodes share.
    pub rules: Rules,
    /// The engine time that a node has to show before it takes publishes, unless it knows
    /// everything: the time for which the log keeps idempotency keys and finished topics.
    pub mature_after: Duration,
    /// The time after which a node without any snapshot in its tail appends one.
    pub snapshot_every: Duration,
    /// A hash of the retention rules, for the heartbeats.
    pub retention: u64,
}

impl NodeSettings {
    /// Settings with the default rules.
    pub fn new(hub: HubId) -> Self {
        Self {
            hub,
            rules: Rules::default(),
            mature_after: KEY_WINDOW,
            snapshot_every: SNAPSHOT_EVERY,
            retention: 0,
        }
    }
}

/// The minimum time between two comparisons of the newest entries.
const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// The minimum time between two comparisons of the whole history. A writer that is wrong must not
/// keep all nodes busy.
const COMPARE_ALL_EVERY: Duration = Duration::from_secs(30);

/// The sign that the history of the node and the journal differ.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Suspicion {
    /// The journal has another entry at a position of the history, so the window cannot go on.
    EntryDiffers,
    /// The entry at this position may be another one.
    At(Position),
    /// Another writer has seen another history. The difference may be anywhere.
    OtherWriter,
}

/// A request to the journal. The answer goes to the method with the same name.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Request {
    /// Open the journal; [`Node::handle_opened`].
    Open,
    /// Append the entry; [`Node::handle_appended`].
    Append {
        /// The name of the entry. It is the same when an append is repeated.
        name: EntryName,
        /// The entry.
        bytes: Vec<u8>,
    },
    /// Replace the tail by one that begins here; [`Node::handle_tail`].
    Tail {
        /// The first position.
        from: Position,
    },
    /// Read entries; [`Node::handle_read`].
    Read {
        /// The positions.
        range: Range<Position>,
    },
    /// Ask for the bounds of the journal; [`Node::handle_bounds`].
    Bounds,
    /// Choose a random writer; [`Node::handle_writer`]. A random number that is copied together with
    /// the process would not help against clones.
    Writer,
}

/// Where a reader continues.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Resume {
    /// After the event with this offset.
    After(Offset),
    /// At `next`, after a gap.
    Gap {
        /// Why events are missing.
        reason: GapReason,
        /// The offset where the reader continues.
        next: Offset,
    },
    /// The answer is not known yet: ask again when the node has handled further input.
    Wait,
    /// The node cannot answer. The reader should try again, here or at another node.
    Unavailable,
}

/// Counters for metrics.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct NodeTotals {
    /// Entries that were void.
    pub void: u64,
    /// Groups of events that were dropped.
    pub dropped: u64,
    /// Lost ends of the journal that the node has found.
    pub cuts: u64,
    /// Times that the node began anew and dropped its history.
    pub restarts: u64,
    /// Clones of the process that the node has found.
    pub clones: u64,
    /// Comparisons with the journal.
    pub comparisons: u64,
}

#[derive(Clone, Debug)]
enum Phase {
    /// The journal is not open. If it failed, it is opened again at this time.
    Opening { retry_at: Option<Timestamp> },
    /// The journal has no entries, and somebody has to initialise it.
    Empty,
    /// The node looks for an entry at which it can begin. `times` has the engine's times from
    /// `first` on.
    Anchoring { first: Position, times: VecDeque<Timestamp>, since: Timestamp },
    /// The node follows the journal. While the window is behind the chain, the node reads entries
    /// again that it has applied before.
    Following { window: Window },
    /// The node compares its history with the journal. The window is kept if it is right as long
    /// as both are equal.
    Comparing { comparison: Comparison, window: Option<Window>, read_at: Option<Timestamp> },
}

/// A node of a cluster.
///
/// The order of calls: [`new`](Self::new), then any `handle_*` and commands; after each of them,
/// [`poll_request`](Self::poll_request) and [`poll_answer`](Self::poll_answer) until both return
/// `None`.
#[derive(Clone, Debug)]
pub struct Node<L> {
    settings: NodeSettings,
    log: L,
    history: Option<History>,
    phase: Phase,
    opened: Option<Opened>,
    outbox: Outbox,
    requests: VecDeque<Request>,
    answers: VecDeque<(PublishId, Answer)>,
    next_publish: u64,
    /// The end of the journal when the node opened it. Before, the node serves no readers.
    goal: Position,
    /// Whether the node has reached the goal since it was started.
    is_caught_up: bool,
    /// False after the engine has failed to append, until it appends again.
    engine_answers: bool,
    heartbeat_at: Timestamp,
    /// When the tail has last delivered a snapshot.
    snapshot_at: Timestamp,
    /// Forks that the node has found, and that the journal does not have yet.
    forks: Vec<Fork>,
    /// The newest answer about the bounds, and when its question was asked.
    bounds: Option<(Timestamp, Bounds)>,
    /// When the question that has no answer yet was asked.
    bounds_asked: Option<Timestamp>,
    /// Since when the journal is shorter than the history, and its lowest end since then.
    short: Option<(Timestamp, Position)>,
    /// Since when the tail is behind an acknowledged entry.
    stalled_since: Option<Timestamp>,
    compared_at: Option<Timestamp>,
    /// When the node has last compared its whole history.
    compared_all_at: Option<Timestamp>,
    totals: NodeTotals,
}

impl<L: FedLog> Node<L> {
    /// A node that begins. `history` is the state that the cache of `log` has kept, if any.
    pub fn new(
        now: Timestamp,
        settings: NodeSettings,
        mut log: L,
        history: Option<History>,
    ) -> Self {
        if history.is_none() {
            log.restart();
        }
        Self {
            settings,
            log,
            history,
            phase: Phase::Opening { retry_at: None },
            opened: None,
            outbox: Outbox::default(),
            requests: [Request::Writer, Request::Open].into(),
            answers: VecDeque::new(),
            next_publish: 0,
            goal: Position::ORIGIN,
            is_caught_up: false,
            engine_answers: true,
            heartbeat_at: now,
            snapshot_at: now,
            forks: Vec::new(),
            bounds: None,
            bounds_asked: None,
            short: None,
            stalled_since: None,
            compared_at: None,
            compared_all_at: None,
            totals: NodeTotals::default(),
        }
    }

    /// The log.
    pub fn log(&self) -> &L {
        &self.log
    }

    /// The log, for its readers.
    pub fn log_mut(&mut self) -> &mut L {
        &mut self.log
    }

    /// The state that a cache keeps together with the log.
    pub fn history(&self) -> Option<&History> {
        self.history.as_ref()
    }

    /// The counters.
    pub fn totals(&self) -> NodeTotals {
        self.totals
    }

    /// The next request for the journal.
    pub fn poll_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    /// The next answer for a publisher.
    pub fn poll_answer(&mut self) -> Option<(PublishId, Answer)> {
        self.answers.pop_front()
    }

    /// Whether the node shows events to readers. It has then reached the end that the journal had
    /// when the node started.
    pub fn serves_readers(&self) -> bool {
        self.is_caught_up && self.history.as_ref().is_some_and(|h| h.chain.shown_from().is_some())
    }

    /// Whether the node takes publishes.
    pub fn takes_publishes(&self) -> bool {
        let Some(history) = &self.history else { return false };
        let behind = self.bounds.map_or(0, |(_, bounds)| bounds.last.since(history.chain.last()));
        let is_following = matches!(&self.phase, Phase::Following { window }
            if window.last() == history.chain.last());
        self.serves_readers()
            && is_following
            && behind <= BEHIND_MAX
            && (self.is_mature(&history.chain) || self.settings.rules.has(Mutant::YoungPublishers))
    }

    /// Whether the node knows all events whose keys and finished topics still count.
    fn is_mature(&self, chain: &Chain) -> bool {
        match chain.shown_from() {
            None => false,
            Some(Position::FIRST) => true,
            Some(shown) => chain
                .elapsed(shown.max(chain.first()), chain.last())
                .is_some_and(|elapsed| elapsed >= millis(self.settings.mature_after)),
        }
    }

    /// Publishes events. The answer comes from [`poll_answer`](Self::poll_answer).
    pub fn publish(&mut self, now: Timestamp, publish: Publish) -> PublishId {
        let id = PublishId(self.next_publish);
        self.next_publish += 1;
        let Publish { records, stream } = publish;
        let count = records.len();
        let waiting = Waiting::new(id, records, stream, now.after(ANSWER_WITHIN));
        if count == 0 || count > ENTRY_EVENTS_MAX || !waiting.fits(self.entry_bytes_max()) {
            self.answers.push_back((id, Answer::TooLarge));
        } else if !self.takes_publishes() || self.outbox.len() >= QUEUE_MAX {
            self.answers.push_back((id, Answer::Unavailable { appended: false }));
        } else {
            self.plan(waiting);
            self.pack();
        }
        id
    }

    fn entry_bytes_max(&self) -> usize {
        self.opened.map_or(ENTRY_BYTES_MAX, |opened| opened.entry_bytes_max.min(ENTRY_BYTES_MAX))
    }

    /// Where the reader of an id continues. `since` is the time at which the reader asked first.
    pub fn resume(&mut self, now: Timestamp, id: &Cursor, since: Timestamp) -> Resume {
        let Some(history) = self.history.as_ref().filter(|_| self.serves_readers()) else {
            return Resume::Unavailable;
        };
        match history.resume(id, &self.settings.rules) {
            Found::Ahead(position) => {
                let lost = history.lost(position, GapReason::Lost);
                self.resume_ahead(now, lost, since)
            }
            found => Resume::from(found),
        }
    }

    /// Where the reader of a publisher's id continues.
    pub fn resume_after_publisher_id(
        &mut self,
        now: Timestamp,
        id: &str,
        since: Timestamp,
    ) -> Resume {
        let Some(history) = self.history.as_ref().filter(|_| self.serves_readers()) else {
            return Resume::Unavailable;
        };
        if let Some(fork) = history.lost_id(id) {
            return history.lost_after(fork).into();
        }
        match self.log.publisher_id(id) {
            Some(offset) => Resume::After(offset),
            None => {
                let unknown = history.unknown_id();
                self.resume_ahead(now, unknown, since)
            }
        }
    }

    /// The answer for an id that the node does not know yet. Another node may be faster. So the
    /// answer is final only when this node has read everything that the journal had after the
    /// reader asked.
    fn resume_ahead(&mut self, now: Timestamp, unknown: Found, since: Timestamp) -> Resume {
        if self.settings.rules.has(Mutant::AheadIsLost) {
            return unknown.into();
        }
        let last = self.history.as_ref().map_or(Position::ORIGIN, |history| history.chain.last());
        match self.bounds {
            Some((asked, bounds)) if asked >= since && bounds.last <= last => unknown.into(),
            Some((asked, _)) if asked >= since && now < since.after(READER_WAITS_MAX) => {
                Resume::Wait
            }
            _ if now >= since.after(READER_WAITS_MAX) => Resume::Unavailable,
            _ => {
                self.ask_bounds(now);
                Resume::Wait
            }
        }
    }

    /// The id of the event with this offset.
    pub fn id(&self, offset: Offset) -> Option<Cursor> {
        self.history.as_ref()?.id(offset, &self.settings.rules)
    }

    fn ask_bounds(&mut self, now: Timestamp) {
        if self.bounds_asked.is_none() {
            self.bounds_asked = Some(now);
            self.requests.push_back(Request::Bounds);
        }
    }

    /// The node's random writer.
    pub fn handle_writer(&mut self, writer: WriterId) {
        self.outbox.writer = Some(writer);
        self.pack();
    }

    /// The answer to [`Request::Open`].
    pub fn handle_opened(&mut self, now: Timestamp, result: Result<Opened, JournalError>) {
        let Ok(opened) = result else {
            self.phase = Phase::Opening { retry_at: Some(now.after(RETRY_EVERY)) };
            return;
        };
        self.opened = Some(opened);
        let Bounds { first, last } = opened.bounds;
        self.goal = last;
        if last == Position::ORIGIN {
            self.phase = Phase::Empty;
            return;
        }
        let anchor = match &mut self.history {
            None => None,
            Some(history) => {
                history.journal = opened.id;
                let anchor = history.chain.window_anchor(&self.settings.rules);
                Some(anchor.position).filter(|position| position.next() >= first)
            }
        };
        match anchor {
            Some(_) => self.rebuild(),
            None => self.look_for_anchor(now, first),
        }
    }

    /// Reads the entries again that the window needs.
    fn rebuild(&mut self) {
        let Some(history) = &self.history else { return };
        let anchor = history.chain.window_anchor(&self.settings.rules);
        let HubState { key, .. } = history.hub;
        let window = Window::new(self.settings.rules, self.settings.hub, key, anchor);
        self.phase = Phase::Following { window };
        self.requests.push_back(Request::Tail { from: anchor.position.next() });
    }

    /// Looks for an entry at which the node can begin, from `first` on.
    fn look_for_anchor(&mut self, now: Timestamp, first: Position) {
        self.phase = Phase::Anchoring { first, times: VecDeque::new(), since: now };
        self.requests.push_back(Request::Tail { from: first });
    }

    /// The next item of the tail. Items of an earlier tail must not be passed in.
    pub fn handle_tail(&mut self, now: Timestamp, item: Result<TailItem, JournalError>) {
        match item {
            Err(JournalError::Replaced) => self.reopen(now),
            Err(_) => self.reopen_tail(),
            Ok(TailItem::Hole(range)) => self.handle_hole(now, range),
            Ok(TailItem::CaughtUp(_)) => {}
            Ok(TailItem::Entry(raw)) => match &self.phase {
                Phase::Anchoring { .. } => self.read_for_anchor(now, &raw),
                Phase::Following { .. } => self.follow(now, &raw),
                Phase::Opening { .. } | Phase::Empty | Phase::Comparing { .. } => {}
            },
        }
        self.pack();
    }

    /// Opens the tail again. It begins at the last applied entry, to find out whether this entry is
    /// still there.
    fn reopen_tail(&mut self) {
        let from = match &self.phase {
            Phase::Anchoring { first, times, .. } => Position::new(first.get() + times.len() as u64),
            Phase::Following { window } => window.last().max(Position::FIRST),
            Phase::Opening { .. } | Phase::Empty | Phase::Comparing { .. } => return,
        };
        self.requests.push_back(Request::Tail { from });
    }

    /// Opens the journal again. The answers to earlier requests may never come.
    fn reopen(&mut self, now: Timestamp) {
        if matches!(self.phase, Phase::Opening { .. }) {
            return;
        }
        let retry_at = Some(now.after(RETRY_EVERY));
        self.phase = Phase::Opening { retry_at };
        self.bounds_asked = None;
        self.outbox.in_flight.iter_mut().for_each(|sent| sent.retry_at = retry_at);
    }

    fn handle_hole(&mut self, now: Timestamp, range: Range<Position>) {
        let is_new = match &self.phase {
            Phase::Anchoring { first, times, .. } => range.end.since(*first) > times.len() as u64,
            Phase::Following { window } => range.end > window.last().next(),
            Phase::Opening { .. } | Phase::Empty | Phase::Comparing { .. } => false,
        };
        if is_new {
            self.look_for_anchor(now, range.end);
        }
    }

    /// Reads an entry while the node has no history. The node begins at a position that an entry
    /// has seen, because the entry contains its mark.
    fn read_for_anchor(&mut self, now: Timestamp, raw: &RawEntry) {
        let positions_max = self.settings.rules.positions_max;
        let Phase::Anchoring { first, times, .. } = &mut self.phase else { return };
        let next = Position::new(first.get() + times.len() as u64);
        if raw.position != next {
            return if raw.position > next { self.reopen_tail() };
        }
        times.push_back(raw.time);
        if times.len() as u64 > positions_max {
            times.pop_front();
            *first = first.next();
        }
        let decoded = Entry::decode(&raw.bytes);
        let Ok(entry) = decoded.as_ref() else { return };
        let Some(anchor) = anchor_of(entry, raw.position, *first, times) else { return };
        let snapshot = entry.controls.iter().find_map(|control| match control {
            Control::Snapshot(snapshot) => Some(HubState::new(snapshot)),
            _ => None,
        });
        let known = self.history.as_ref().map(|history| history.hub.clone());
        let is_first = anchor.position == Position::ORIGIN;
        let Some(hub) = snapshot.or(known.filter(|_| !is_first)) else { return };
        if entry.hub == self.settings.hub {
            self.begin(now, hub, anchor);
        }
    }

    /// Begins a history at `anchor`.
    fn begin(&mut self, now: Timestamp, hub: HubState, anchor: Anchor) {
        if self.history.is_some() {
            self.totals.restarts += 1;
        }
        self.log.restart();
        let journal = self.opened.map_or(crate::journal::JournalId(0), |opened| opened.id);
        self.history = Some(History { hub, chain: Chain::new(anchor), journal });
        self.is_caught_up = false;
        self.forks.clear();
        self.snapshot_at = now;
        self.give_up_all();
        self.rebuild();
    }

    /// Answers all publishers. A node that begins anew cannot know what became of their events, and
    /// cannot plan them again.
    fn give_up_all(&mut self) {
        let sent = self.outbox.take_dead(|_| true).into_iter();
        self.answers.extend(sent.map(|waiting| (waiting.id, Answer::OutcomeUnknown)));
        let queued = std::mem::take(&mut self.outbox.queue).into_iter();
        self.answers.extend(queued.map(|waiting| (waiting.id, waiting.unavailable())));
    }

    /// Reads the next entry of the journal.
    fn follow(&mut self, now: Timestamp, raw: &RawEntry) {
        let (Phase::Following { window }, Some(history)) = (&mut self.phase, &mut self.history)
        else {
            return;
        };
        let next = window.last().next();
        if raw.position > next {
            return self.reopen_tail();
        }
        if raw.position < next {
            let (key, rules) = (&history.hub.key, &self.settings.rules);
            let before = history.chain.mark(raw.position.previous());
            let mark =
                before.map(|mark| mark.next(key, key.digest(&raw.bytes), raw.time, rules));
            return match mark.is_some() && mark != history.chain.mark(raw.position) {
                true => self.compare(now, Suspicion::EntryDiffers),
                false => {}
            };
        }
        let decoded = Entry::decode(&raw.bytes);
        let verdict = window.push(&raw.bytes, decoded.as_ref(), raw.time);
        let digest = window.digest(&raw.bytes);
        if raw.position > history.chain.last() {
            history.chain.push(verdict.mark, raw.time, &self.settings.rules);
            self.apply(now, raw, &decoded, digest, verdict);
        } else if history.chain.mark(raw.position) != Some(verdict.mark) {
            return self.compare(now, Suspicion::EntryDiffers);
        }
        self.note_progress();
    }

    fn note_progress(&mut self) {
        let (Phase::Following { window }, Some(history)) = (&self.phase, &self.history) else {
            return;
        };
        if window.last() == history.chain.last() && window.last() >= self.goal {
            self.is_caught_up = true;
        }
    }

    /// Applies a new entry.
    fn apply(
        &mut self,
        now: Timestamp,
        raw: &RawEntry,
        decoded: &Result<Entry, DecodeError>,
        digest: Digest,
        verdict: Verdict,
    ) {
        let Some(history) = &mut self.history else { return };
        let RawEntry { position, time, .. } = *raw;
        let is_shown = history.chain.shown_from().is_some_and(|shown| shown <= position);
        let kept = verdict.groups.as_deref().unwrap_or_default();
        self.totals.void += u64::from(verdict.groups.is_err());
        self.totals.dropped += kept.iter().filter(|kept| !**kept).count() as u64;
        let (mut events, mut index) = (Vec::new(), 0);
        for (group, kept) in decoded.iter().flat_map(|entry| &entry.groups).zip(kept) {
            for record in &group.records {
                if *kept && is_shown {
                    events.push(record.at_offset(history.hub.base.offset(position, index)));
                }
                index += 1;
            }
        }
        self.log.apply(Applied { position, mark: verdict.mark, time, events });
        let Ok(entry) = decoded else { return };
        if verdict.groups.is_ok() {
            self.read_controls(now, entry);
        }
        self.resolve(now, entry, digest, position, &verdict);
        self.check_others(now, entry, position, is_shown, &verdict);
    }

    fn read_controls(&mut self, now: Timestamp, entry: &Entry) {
        let Some(history) = &mut self.history else { return };
        for control in &entry.controls {
            match control {
                Control::Snapshot(snapshot) => {
                    self.snapshot_at = now;
                    snapshot.forks.iter().for_each(|fork| history.add_fork(fork));
                }
                Control::Fork(fork) => {
                    history.add_fork(fork);
                }
                Control::Heartbeat(_) | Control::Unknown { .. } => {}
            }
        }
        self.forks.retain(|fork| !history.hub.forks.contains(fork));
    }

    /// Finds out what became of the node's own entries.
    fn resolve(
        &mut self,
        now: Timestamp,
        entry: &Entry,
        digest: Digest,
        position: Position,
        verdict: &Verdict,
    ) {
        match self.outbox.handle_delivered(entry.name, digest) {
            Origin::Other => {}
            Origin::Own(sent) => match &verdict.groups {
                Ok(kept) => self.answer(sent, kept, position),
                Err(_) => sent.into_publishes().for_each(|waiting| self.plan(waiting)),
            },
            Origin::Clone => {
                if self.outbox.writer == Some(entry.name.writer) {
                    self.totals.clones += 1;
                    self.outbox.rename();
                    self.requests.push_back(Request::Writer);
                }
                // The other entry has the same name, so this node's entry will be void.
                self.return_to_queue(|sent| sent.name == entry.name);
            }
        }
        self.expire();
        if let Some(at) = self.outbox.take_displaced(now, position) {
            self.compare(now, Suspicion::At(at));
        }
    }

    /// Answers the publishers of a confirmed entry, and plans the dropped events again.
    fn answer(&mut self, sent: InFlight, kept: &[bool], position: Position) {
        let Some(base) = self.history.as_ref().map(|history| history.hub.base) else { return };
        let (name, mut index) = (sent.name, 0);
        for (mut waiting, kept) in sent.publishes.into_iter().zip(kept) {
            let count = waiting.repeats.iter().filter(|repeat| repeat.is_none()).count();
            let offsets = (index..index + count).map(|index| base.offset(position, index));
            index += count;
            if waiting.is_answered {
                continue;
            }
            if *kept {
                let offsets = waiting.offsets(offsets);
                self.answers.push_back((waiting.id, Answer::Applied { offsets }));
            } else {
                waiting.replaces.push(name);
                self.plan(waiting);
            }
        }
    }

    /// Returns events to the queue whose entries can no longer be applied.
    fn expire(&mut self) {
        let Some(history) = &self.history else { return };
        let (last, lifetime) = (history.chain.last(), self.settings.rules.lifetime_ms());
        let is_dead = |sent: &InFlight| {
            history.chain.elapsed(sent.seen, last).is_none_or(|elapsed| elapsed > lifetime)
        };
        let dead = self.outbox.take_dead(is_dead);
        dead.into_iter().for_each(|waiting| self.plan(waiting));
    }

    fn return_to_queue(&mut self, is_dead: impl Fn(&InFlight) -> bool) {
        let dead = self.outbox.take_dead(is_dead);
        dead.into_iter().for_each(|waiting| self.plan(waiting));
    }

    /// Plans the publishes in the queue again that satisfy `is_stale`.
    fn plan_again(&mut self, is_stale: impl Fn(&Waiting) -> bool) {
        let queue = std::mem::take(&mut self.outbox.queue);
        for waiting in queue {
            match is_stale(&waiting) {
                true => self.plan(waiting),
                false => self.outbox.push(waiting),
            }
        }
    }

    /// Plans a publish with the state of the log, and puts it into the queue if it is new.
    fn plan(&mut self, mut waiting: Waiting) {
        let Some(history) = &self.history else { return };
        if waiting.replaces.len() > REPLACES_MAX {
            return self.answers.push_back((waiting.id, Answer::OutcomeUnknown));
        }
        let plan = match self.log.plan(&waiting.records) {
            Ok(plan) => plan,
            Err(refusal) => {
                return self.answers.push_back((waiting.id, Answer::Refused(refusal)));
            }
        };
        if plan.repeats.iter().all(Option::is_some) {
            let offsets = plan.repeats.into_iter().flatten().collect();
            return self.answers.push_back((waiting.id, Answer::Applied { offsets }));
        }
        waiting.repeats = plan.repeats;
        waiting.planned_at = history.chain.last();
        self.outbox.push(waiting);
    }

    /// Checks whether the entry of another writer shows that one of the two histories is wrong.
    fn check_others(
        &mut self,
        now: Timestamp,
        entry: &Entry,
        position: Position,
        is_shown: bool,
        verdict: &Verdict,
    ) {
        let is_other = self.outbox.writer != Some(entry.name.writer);
        match verdict.groups {
            Err(Void::OtherHistory) if !is_shown => self.look_for_anchor(now, position),
            Err(Void::OtherHistory | Void::SeenAhead) if is_other && is_shown => {
                self.compare(now, Suspicion::OtherWriter);
            }
            _ => {}
        }
    }

    /// Compares the history with the journal, after a sign that they differ.
    fn compare(&mut self, now: Timestamp, suspicion: Suspicion) {
        let Some(history) = &self.history else { return };
        let is_recent = |at: Option<Timestamp>, span| at.is_some_and(|at| now < at.after(span));
        let last = history.chain.last();
        let (is_window_right, depth) = match suspicion {
            Suspicion::EntryDiffers => (false, last),
            Suspicion::At(position) => (true, position),
            Suspicion::OtherWriter => (true, history.chain.first()),
        };
        let is_too_soon = match suspicion {
            Suspicion::EntryDiffers => false,
            Suspicion::At(_) => is_recent(self.compared_at, COMPARE_EVERY),
            Suspicion::OtherWriter => is_recent(self.compared_all_at, COMPARE_ALL_EVERY),
        };
        let Phase::Following { window } = &self.phase else { return };
        if is_too_soon {
            return;
        }
        if suspicion == Suspicion::OtherWriter {
            self.compared_all_at = Some(now);
        }
        let window = Some(window.clone()).filter(|_| is_window_right);
        let short_since = self.short.map(|(since, _)| since);
        let comparison = Comparison::new(&history.chain, depth, short_since);
        self.totals.comparisons += 1;
        self.requests.push_back(Request::Read { range: comparison.range() });
        self.phase = Phase::Comparing { comparison, window, read_at: None };
    }

    /// The answer to [`Request::Read`].
    pub fn handle_read(
        &mut self,
        now: Timestamp,
        result: Result<(Vec<RawEntry>, Bounds), JournalError>,
    ) {
        let (Phase::Comparing { comparison, window, read_at }, Some(history)) =
            (&mut self.phase, &mut self.history)
        else {
            return;
        };
        let (entries, bounds) = match result {
            Ok(read) => read,
            Err(JournalError::Replaced) => return self.reopen(now),
            Err(_) => {
                *read_at = Some(now.after(RETRY_EVERY));
                return;
            }
        };
        let known = (&history.chain, &history.hub.key, &self.settings.rules);
        match comparison.check(now, known, &entries, bounds) {
            Outcome::ReadAt(at) => *read_at = Some(at),
            Outcome::Equal => {
                self.compared_at = Some(now);
                let window = window.take();
                match window.filter(|window| window.last() == history.chain.last()) {
                    Some(window) => {
                        self.phase = Phase::Following { window };
                        self.reopen_tail();
                    }
                    None => self.rebuild(),
                }
            }
            Outcome::Fork(fork) => self.cut_to(now, fork, bounds),
            Outcome::NothingInCommon if bounds.last == Position::ORIGIN => {
                self.phase = Phase::Empty;
            }
            Outcome::NothingInCommon => {
                self.goal = bounds.last;
                self.is_caught_up = false;
                self.look_for_anchor(now, bounds.first);
            }
        }
        self.handle_timeout(now);
    }

    /// Removes the history after `fork`, and goes on from there.
    fn cut_to(&mut self, now: Timestamp, fork: Position, bounds: Bounds) {
        let Some(history) = &mut self.history else { return };
        self.totals.cuts += 1;
        let until = history.chain.last();
        let removed_from = history.first_offset(fork.next());
        let mut ids = self.log.cut_to(fork, removed_from);
        ids.truncate(FORK_IDS_MAX);
        history.chain.cut_to(fork);
        self.forks.push(Fork { at: fork, until, ids });
        self.goal = bounds.last;
        self.is_caught_up = false;
        self.short = None;
        self.compared_at = Some(now);
        self.return_to_queue(|sent| sent.seen > fork);
        self.plan_again(|waiting| waiting.planned_at > fork);
        self.rebuild();
        self.note_progress();
    }

    /// The answer to [`Request::Append`].
    pub fn handle_appended(
        &mut self,
        now: Timestamp,
        name: EntryName,
        result: Result<Position, JournalError>,
    ) {
        match result {
            Ok(position) => {
                self.engine_answers = true;
                self.outbox.handle_acknowledged(name, position);
                let last = self.history.as_ref().map(|history| history.chain.last());
                if let Some(at) = self.outbox.take_displaced(now, last.unwrap_or_default()) {
                    self.compare(now, Suspicion::At(at));
                }
            }
            Err(JournalError::Refused) => {
                let refused = self.outbox.take_dead(|sent| sent.name == name);
                let answer = Answer::Unavailable { appended: false };
                self.answers.extend(refused.into_iter().map(|w| (w.id, answer.clone())));
            }
            Err(error) => {
                self.engine_answers = false;
                let retry_at = Some(now.after(RETRY_EVERY));
                let sent = self.outbox.in_flight.iter_mut().find(|sent| sent.name == name);
                sent.into_iter().for_each(|sent| sent.retry_at = retry_at);
                if error == JournalError::Replaced {
                    self.reopen(now);
                }
            }
        }
        self.pack();
    }

    /// The answer to [`Request::Bounds`].
    pub fn handle_bounds(&mut self, now: Timestamp, result: Result<Bounds, JournalError>) {
        let Some(asked) = self.bounds_asked.take() else { return };
        let Ok(bounds) = result else {
            return if result == Err(JournalError::Replaced) { self.reopen(now) };
        };
        self.bounds = Some((asked, bounds));
        if matches!(self.phase, Phase::Empty) {
            if bounds.last > Position::ORIGIN {
                self.phase = Phase::Opening { retry_at: Some(now) };
            }
            return;
        }
        let Some(history) = &self.history else { return };
        if bounds.last < history.chain.last() {
            let (since, lowest) = self.short.unwrap_or((asked, bounds.last));
            self.short = Some((since, lowest.min(bounds.last)));
            if now >= since.after(SHORT_FOR) {
                self.compare(now, Suspicion::At(bounds.last));
            }
        } else if let Some((_, lowest)) = self.short.take() {
            // The journal was shorter for a moment. Other entries may have taken the places of
            // entries that it has lost.
            self.compare(now, Suspicion::At(lowest.next()));
        }
    }

    /// The next time at which [`handle_timeout`](Self::handle_timeout) has to be called.
    pub fn timeout(&self) -> Timestamp {
        let phase = match &self.phase {
            Phase::Opening { retry_at } => *retry_at,
            Phase::Comparing { read_at, .. } => *read_at,
            Phase::Empty | Phase::Anchoring { .. } | Phase::Following { .. } => None,
        };
        let is_open = matches!(self.phase, Phase::Following { .. } | Phase::Comparing { .. });
        let outbox = self.outbox.timeout(is_open);
        phase.into_iter().chain(outbox).fold(self.heartbeat_at, Timestamp::min)
    }

    /// Does the work that is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        match &mut self.phase {
            Phase::Opening { retry_at } if retry_at.is_some_and(|at| at <= now) => {
                *retry_at = None;
                self.requests.push_back(Request::Open);
            }
            Phase::Comparing { comparison, read_at, .. } if read_at.is_some_and(|at| at <= now) => {
                *read_at = None;
                self.requests.push_back(Request::Read { range: comparison.range() });
            }
            _ => {}
        }
        self.answer_overdue(now);
        let is_open = matches!(self.phase, Phase::Following { .. } | Phase::Comparing { .. });
        for sent in self.outbox.in_flight.iter_mut().filter(|_| is_open) {
            if sent.retry_at.is_some_and(|at| at <= now) {
                sent.retry_at = None;
                let (name, bytes) = (sent.name, sent.bytes.clone());
                self.requests.push_back(Request::Append { name, bytes });
            }
        }
        if self.heartbeat_at <= now {
            self.heartbeat_at = now.after(HEARTBEAT_EVERY);
            self.beat(now);
        }
        self.pack();
    }

    fn answer_overdue(&mut self, now: Timestamp) {
        for waiting in self.outbox.take_overdue(now) {
            self.answers.push_back((waiting.id, waiting.unavailable()));
        }
        let given_up = self.outbox.give_up(now);
        self.answers.extend(given_up.into_iter().map(|id| (id, Answer::OutcomeUnknown)));
    }

    /// The regular work: the heartbeat with everything that has to be announced, and the checks.
    fn beat(&mut self, now: Timestamp) {
        self.ask_bounds(now);
        match &self.phase {
            Phase::Following { window } => {
                let is_steady = self.history.as_ref().is_some_and(|h| h.chain.last() == window.last());
                if is_steady && window.last() >= self.goal {
                    self.announce(now);
                }
                self.check_tail(now);
            }
            Phase::Anchoring { since, .. } if now >= since.after(SHORT_FOR) => {
                self.propose_anchor(now);
            }
            _ => {}
        }
    }

    /// Opens the tail again if it does not deliver an acknowledged entry.
    fn check_tail(&mut self, now: Timestamp) {
        let Some(history) = &self.history else { return };
        let known = self.bounds.map_or(Position::ORIGIN, |(_, bounds)| bounds.last);
        let known = self.outbox.acknowledged().map_or(known, |position| position.max(known));
        if known <= history.chain.last() {
            self.stalled_since = None;
            return;
        }
        let since = *self.stalled_since.get_or_insert(now);
        if now >= since.after(HEARTBEAT_EVERY * 2) {
            self.stalled_since = None;
            self.reopen_tail();
        }
    }

    /// Appends a control entry: a heartbeat, new forks, and a snapshot if there was none for long.
    fn announce(&mut self, now: Timestamp) {
        let Some(history) = &self.history else { return };
        let last = history.chain.last();
        let mut controls: Vec<Control> = vec![self.heartbeat(last)];
        controls.extend(self.forks.iter().cloned().map(Control::Fork));
        if now >= self.snapshot_at.after(self.settings.snapshot_every) {
            controls.push(Control::Snapshot(history.hub.snapshot()));
        }
        let mark = history.chain.mark(last).unwrap_or(Mark::ORIGIN);
        self.append_controls(last, mark, controls);
    }

    fn heartbeat(&self, applied: Position) -> Control {
        let retention = self.settings.retention;
        Control::Heartbeat(Heartbeat { applied, version_max: FORMAT_VERSION, retention })
    }

    /// Proposes a point at which all nodes can begin. It is needed if no node knows the mark of any
    /// position after a hole. All nodes begin at the first proposal in the journal.
    fn propose_anchor(&mut self, now: Timestamp) {
        let Phase::Anchoring { first, times, since } = &mut self.phase else { return };
        let (Some(history), Some(writer)) = (&self.history, self.outbox.writer) else { return };
        let Some(last) = (times.len() as u64).checked_sub(1) else { return };
        *since = now;
        let last = Position::new(first.get() + last);
        let content = [writer.0.to_le_bytes(), last.get().to_le_bytes()];
        let mark = Mark::new(history.hub.key.hash(content.as_flattened()));
        let controls = vec![Control::Snapshot(history.hub.snapshot())];
        self.append_controls(last, mark, controls);
    }

    fn append_controls(&mut self, seen: Position, seen_mark: Mark, controls: Vec<Control>) {
        let Some(name) = self.outbox.name() else { return };
        let hub = self.settings.hub;
        self.send(&Entry { hub, name, seen, seen_mark, groups: Vec::new(), controls });
    }

    /// Encodes and appends an entry. Returns its bytes.
    fn send(&mut self, entry: &Entry) -> Option<Vec<u8>> {
        let bytes = entry.encode(self.entry_bytes_max()).ok()?;
        let key = self.history.as_ref()?.hub.key;
        let name = entry.name;
        self.outbox.note_sent(name, key.digest(&bytes));
        self.requests.push_back(Request::Append { name, bytes: bytes.clone() });
        Some(bytes)
    }

    /// Puts the publishes of the queue into entries.
    fn pack(&mut self) {
        let Some(history) = &self.history else { return };
        let is_steady = matches!(&self.phase, Phase::Following { window }
            if window.last() == history.chain.last());
        if !is_steady || !self.is_caught_up || self.outbox.writer.is_none() {
            return;
        }
        self.plan_old_again();
        while self.engine_answers
            && self.outbox.in_flight.len() < IN_FLIGHT_MAX
            && self.pack_one().is_some()
        {}
    }

    /// Plans again what was planned so long ago that its entry would hardly arrive in time.
    fn plan_old_again(&mut self) {
        let Some(history) = &self.history else { return };
        let Rules { positions_max, .. } = self.settings.rules;
        let (chain, lifetime) = (&history.chain, self.settings.rules.lifetime_ms());
        let last = chain.last();
        let is_old = |waiting: &Waiting| {
            let elapsed = chain.elapsed(waiting.planned_at, last);
            elapsed.is_none_or(|elapsed| elapsed > lifetime / 2)
                || last.since(waiting.planned_at) > positions_max / 2
        };
        let (old, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.outbox.queue).into_iter().partition(is_old);
        self.outbox.queue = kept.into();
        old.into_iter().for_each(|waiting| self.plan(waiting));
    }

    fn pack_one(&mut self) -> Option<()> {
        let publishes = self.outbox.take_batch(self.entry_bytes_max());
        let history = self.history.as_ref()?;
        let mut seen = publishes.iter().map(|waiting| waiting.planned_at).min()?;
        if self.settings.rules.has(Mutant::SeenAtPacking) {
            seen = history.chain.last();
        }
        let seen_mark = history.chain.mark(seen)?;
        let name = self.outbox.name()?;
        let groups = publishes.iter().map(Waiting::group).collect();
        let hub = self.settings.hub;
        let entry = Entry { hub, name, seen, seen_mark, groups, controls: Vec::new() };
        let bytes = self.send(&entry)?;
        self.outbox.in_flight.push(InFlight { name, seen, bytes, publishes, retry_at: None });
        Some(())
    }
}

/// The anchor that an entry offers: the position that it has seen, if the node has read that
/// position, or the origin.
fn anchor_of(
    entry: &Entry,
    position: Position,
    first: Position,
    times: &VecDeque<Timestamp>,
) -> Option<Anchor> {
    let Entry { seen, seen_mark, .. } = *entry;
    if seen == Position::ORIGIN && first == Position::FIRST && seen_mark == Mark::ORIGIN {
        return Some(Anchor::ORIGIN);
    }
    let at = usize::try_from(seen.get().checked_sub(first.get())?).ok()?;
    let time = times.get(at).filter(|_| seen < position)?;
    Some(Anchor { position: seen, mark: seen_mark, time: Some(*time) })
}

impl From<Found> for Resume {
    fn from(found: Found) -> Self {
        match found {
            Found::After(offset) => Self::After(offset),
            Found::Gap { reason, next } => Self::Gap { reason, next },
            Found::Ahead(_) => Self::Wait,
        }
    }
}
