//! The node: a state machine between publishers, a journal and a log.
//!
//! The caller passes in the answers of the journal (`handle_*`) and the publishes
//! ([`Node::publish`]), each together with the time. It then takes all requests for the journal
//! ([`Node::poll_request`]) and all answers for publishers ([`Node::poll_answer`]). It calls
//! [`Node::handle_timeout`] at the time that [`Node::timeout`] returns. The times are milliseconds
//! of a clock that never goes back; only the differences matter.
//!
//! A node opens the journal, finds a position at which it can begin, and follows the journal from
//! there. If its history differs from the journal, the journal is right: the node compares both,
//! removes its own history after the last common position, and announces the fork.

use std::{collections::VecDeque, ops::Range, time::Duration};

use downlink_log::Timestamp;

use crate::{
    chain::Chain,
    entry::{Control, Entry, EntryName, FORMAT_VERSION, Fork, Heartbeat, WriterId},
    fed_log::{Applied, FedLog},
    journal::{Bounds, JournalError, JournalId, Opened, RawEntry, TailItem},
    mark::{Digest, Mark},
    node::{
        anchoring::Anchoring,
        compare::{Comparison, Outcome, SHORT_FOR},
        ends::Ends,
        history::{History, HubState},
        outbox::RETRY_EVERY,
        peers::Peers,
        phase::Phase,
        publish::{Answer, Publish, PublishId},
        publishing::{Planner, Publishing},
        request::Request,
        settings::{NodeSettings, NodeTotals},
        suspicion::{Compared, Suspicion},
    },
    position::Position,
    rules::{Mutant, millis},
    window::window::{Anchor, Verdict, Void, Window},
    wire::{DecodeError, ENTRY_BYTES_MAX, FORK_IDS_MAX},
};

/// The time between two heartbeats of a node. Engine time passes with each heartbeat, even if no
/// event is published. If no other node appends entries, a node needs its own heartbeats to find
/// out whether the journal has lost entries.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(2);
/// A node takes publishes only while it is at most this many positions behind the journal. This is
/// half of [`Rules::positions_max`](crate::Rules::positions_max). A node that is behind by more
/// than `positions_max` would append only entries that are void.
pub const BEHIND_MAX: u64 = 8_192;
/// The maximum number of new forks in an entry. With a snapshot, they fit into 900 KiB.
const ANNOUNCED_FORKS_MAX: usize = 2;
/// A node of a cluster.
///
/// The order of calls: [`new`](Self::new), then any `handle_*` and commands; after each of them,
/// [`poll_request`](Self::poll_request) and [`poll_answer`](Self::poll_answer) until both return
/// `None`.
#[derive(Clone, Debug)]
pub struct Node<L> {
    pub(super) settings: NodeSettings,
    pub(super) log: L,
    pub(super) history: Option<History>,
    phase: Phase,
    opened: Option<Opened>,
    publishing: Publishing,
    pub(super) requests: VecDeque<Request>,
    /// Whether there may be publishes that are not in an entry yet. The node packs them into
    /// entries before it returns the next request.
    needs_pack: bool,
    /// The end that the journal had when the node opened it, or when the node last found a loss.
    /// The node serves no readers until it has reached this position.
    goal: Position,
    /// Whether the node has reached the goal.
    is_caught_up: bool,
    heartbeat_at: Timestamp,
    /// When the tail has last delivered a snapshot.
    snapshot_at: Timestamp,
    /// Forks that the node has found, and that the journal does not have yet.
    forks: Vec<Fork>,
    pub(super) ends: Ends,
    pub(super) peers: Peers,
    compared: Compared,
    pub(super) totals: NodeTotals,
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
            log.restart(None);
        }
        Self {
            settings,
            log,
            history,
            phase: Phase::Opening { retry_at: None },
            opened: None,
            publishing: Publishing::default(),
            requests: [Request::Writer, Request::Open].into(),
            needs_pack: false,
            goal: Position::ORIGIN,
            is_caught_up: false,
            heartbeat_at: now,
            snapshot_at: now,
            forks: Vec::new(),
            ends: Ends::default(),
            peers: Peers::default(),
            compared: Compared::default(),
            totals: NodeTotals::default(),
        }
    }

    /// The log.
    pub fn log(&self) -> &L {
        &self.log
    }

    /// Mutable access to the log, for the caller that drives the node.
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
        if std::mem::take(&mut self.needs_pack) {
            self.pack();
        }
        self.requests.pop_front()
    }

    /// Whether [`poll_request`](Self::poll_request) may have a request.
    pub fn has_requests(&self) -> bool {
        self.needs_pack || !self.requests.is_empty()
    }

    /// The next answer for a publisher.
    pub fn poll_answer(&mut self) -> Option<(PublishId, Answer)> {
        self.publishing.poll_answer()
    }

    /// Whether the node shows events to readers. It has then reached the end that the journal had
    /// when the node opened it or last found a loss.
    pub fn serves_readers(&self) -> bool {
        self.is_caught_up && self.history.as_ref().is_some_and(|h| h.chain.shown_from().is_some())
    }

    /// Whether the node takes publishes.
    pub fn takes_publishes(&self) -> bool {
        let Some(history) = &self.history else { return false };
        self.serves_readers()
            && self.is_steady()
            && self.ends.behind(history.chain.last()) <= BEHIND_MAX
            && (self.is_mature(&history.chain) || self.settings.rules.has(Mutant::YoungPublishers))
    }

    /// Whether the node follows the journal, and its window is complete.
    fn is_steady(&self) -> bool {
        let last = self.history.as_ref().map(|history| history.chain.last());
        matches!(&self.phase, Phase::Following { window } if Some(window.last()) == last)
    }

    /// Whether the node knows every idempotency key and every finished topic that still counts. It
    /// does if it shows the whole history, or enough of it to cover the time `mature_after`.
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
        let bytes_max = self.entry_bytes_max();
        let takes = self.takes_publishes();
        let (publishing, planner) = self.planner();
        let planner = planner.filter(|_| takes);
        let id = publishing.publish(now, publish, bytes_max, { planner }.as_mut());
        self.needs_pack = true;
        id
    }

    /// The publishing side, and the state with which it plans.
    fn planner(&mut self) -> (&mut Publishing, Option<Planner<'_, L>>) {
        let entry_bytes_max = self.entry_bytes_max();
        let Self { log, history, publishing, settings, .. } = self;
        let (rules, hub) = (&settings.rules, settings.hub);
        let planner =
            history.as_ref().map(|history| Planner { log, history, rules, hub, entry_bytes_max });
        (publishing, planner)
    }

    fn entry_bytes_max(&self) -> usize {
        self.opened.map_or(ENTRY_BYTES_MAX, |opened| opened.entry_bytes_max.min(ENTRY_BYTES_MAX))
    }

    /// Puts the publishes of the queue into entries.
    fn pack(&mut self) {
        if !self.is_steady() || !self.is_caught_up {
            return;
        }
        let (publishing, planner) = self.planner();
        let requests = planner.map(|mut planner| publishing.pack(&mut planner));
        self.requests.extend(requests.into_iter().flatten());
    }

    /// The answer to [`Request::Writer`].
    pub fn handle_writer(&mut self, writer: WriterId) {
        self.publishing.set_writer(writer);
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
        let anchor = self.history.as_mut().map(|history| {
            history.set_journal(opened.id);
            history.chain.window_anchor(&self.settings.rules).position
        });
        match anchor {
            Some(position) if position.next() >= first => self.rebuild(),
            _ => self.look_for_anchor(now, first),
        }
    }

    /// Reads again the entries that the window needs.
    fn rebuild(&mut self) {
        let Some(history) = &self.history else { return };
        let anchor = history.chain.window_anchor(&self.settings.rules);
        let window = Window::new(self.settings.rules, self.settings.hub, history.hub.key, anchor);
        self.phase = Phase::Following { window };
        self.requests.push_back(Request::Tail { from: anchor.position.next() });
    }

    /// Looks for an entry at which the node can begin, from `first` on.
    fn look_for_anchor(&mut self, now: Timestamp, first: Position) {
        self.phase = Phase::Anchoring(Anchoring::new(first, now));
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
                Phase::Anchoring(_) => self.read_for_anchor(now, &raw),
                Phase::Following { .. } => self.follow(now, &raw),
                Phase::Opening { .. } | Phase::Empty | Phase::TooOld | Phase::Comparing { .. } => {}
            },
        }
        self.needs_pack = true;
    }

    /// Opens the tail again. The new tail begins at the last applied entry, to find out whether
    /// this entry is still there.
    fn reopen_tail(&mut self) {
        let from = match &self.phase {
            Phase::Anchoring(anchoring) => anchoring.next(),
            Phase::Following { window } => window.last().max(Position::FIRST),
            Phase::Opening { .. } | Phase::Empty | Phase::TooOld | Phase::Comparing { .. } => {
                return;
            }
        };
        self.requests.push_back(Request::Tail { from });
    }

    /// Opens the journal again. The answers to earlier requests may never come.
    fn reopen(&mut self, now: Timestamp) {
        if matches!(self.phase, Phase::Opening { .. } | Phase::TooOld) {
            return;
        }
        self.phase = Phase::Opening { retry_at: Some(now.after(RETRY_EVERY)) };
        self.ends.handle_reopened();
        self.publishing.handle_reopened(now);
    }

    fn handle_hole(&mut self, now: Timestamp, range: Range<Position>) {
        let next = match &self.phase {
            Phase::Anchoring(anchoring) => anchoring.next(),
            Phase::Following { window } => window.last().next(),
            Phase::Opening { .. } | Phase::Empty | Phase::TooOld | Phase::Comparing { .. } => {
                return;
            }
        };
        if range.end > next {
            self.look_for_anchor(now, range.end);
        }
    }

    /// Reads an entry while the node has no position at which it can begin.
    fn read_for_anchor(&mut self, now: Timestamp, raw: &RawEntry) {
        let Phase::Anchoring(anchoring) = &mut self.phase else { return };
        match raw.position.cmp(&anchoring.next()) {
            std::cmp::Ordering::Less => return,
            std::cmp::Ordering::Greater => return self.reopen_tail(),
            std::cmp::Ordering::Equal => {}
        }
        let known = self.history.as_ref().map(|history| &history.hub);
        let limits = (self.settings.hub, self.settings.rules.positions_max);
        if let Some((hub, anchor)) = anchoring.read(raw, limits, known) {
            self.begin(now, hub, anchor);
        }
    }

    /// Begins a history at `anchor`.
    fn begin(&mut self, now: Timestamp, hub: HubState, anchor: Anchor) {
        self.totals.restarts += u64::from(self.history.is_some());
        let journal = self.opened.map_or(JournalId(0), |opened| opened.id);
        let history = History::new(hub, anchor, journal);
        self.log.restart(Some(&history.start()));
        self.history = Some(history);
        self.is_caught_up = false;
        self.forks.clear();
        self.snapshot_at = now;
        self.publishing.give_up_all();
        self.rebuild();
    }

    /// Reads the next entry of the journal.
    fn follow(&mut self, now: Timestamp, raw: &RawEntry) {
        let rules = self.settings.rules;
        let (Phase::Following { window }, Some(history)) = (&mut self.phase, &mut self.history)
        else {
            return;
        };
        let next = window.last().next();
        if raw.position > next {
            return self.reopen_tail();
        }
        if raw.position < next {
            if history.differs(raw, &rules) {
                self.compare(now, Suspicion::EntryDiffers);
            }
            return;
        }
        let decoded = Entry::decode(&raw.bytes);
        if let Err(DecodeError::Version { version, hub: Some(hub) }) = decoded
            && hub == self.settings.hub
        {
            self.peers.note_version(version);
        }
        if self.peers.too_new().is_some() {
            return self.stop();
        }
        let verdict = window.push(&raw.bytes, decoded.as_ref(), raw.time);
        let digest = window.digest(&raw.bytes);
        if raw.position > history.chain.last() {
            history.push(verdict.mark, raw.time, &rules);
            self.apply(now, raw, decoded.as_ref().ok(), digest, &verdict);
        } else if history.chain.mark(raw.position) != Some(verdict.mark) {
            return self.compare(now, Suspicion::EntryDiffers);
        }
        self.note_progress();
    }

    /// Stops, because later entries may have a version that this node cannot decode. The readers
    /// end, and continue at other nodes.
    fn stop(&mut self) {
        self.phase = Phase::TooOld;
        self.is_caught_up = false;
        self.publishing.give_up_all();
        self.log.restart(None);
        self.history = None;
    }

    fn note_progress(&mut self) {
        let last = self.history.as_ref().map(|history| history.chain.last());
        if self.is_steady() && last >= Some(self.goal) {
            self.is_caught_up = true;
        }
    }

    /// Applies a new entry.
    fn apply(
        &mut self,
        now: Timestamp,
        raw: &RawEntry,
        entry: Option<&Entry>,
        digest: Digest,
        verdict: &Verdict,
    ) {
        let Some(history) = &mut self.history else { return };
        let RawEntry { position, time, .. } = *raw;
        let kept = verdict.groups.as_deref().unwrap_or_default();
        self.totals.void += u64::from(verdict.groups.is_err());
        self.totals.dropped += kept.iter().filter(|kept| !**kept).count() as u64;
        let is_shown = history.chain.shown_from().is_some_and(|shown| shown <= position);
        let entry_shown = entry.filter(|_| is_shown);
        let events = entry_shown.map(|entry| history.events(entry, kept, position));
        let events = events.unwrap_or_default();
        let (first, mark) = (history.first_offset(position), verdict.mark);
        // The controls are read first, so that a cache gets the forks together with the position.
        if let Some(entry) = entry.filter(|_| verdict.groups.is_ok()) {
            if history.read_controls(entry) {
                self.snapshot_at = now;
            }
            self.forks.retain(|fork| !history.hub.forks.contains(fork));
        }
        match entry {
            Some(entry) if verdict.groups.is_ok() => {
                self.peers.read(now, entry, position, self.is_caught_up)
            }
            _ => {}
        }
        let (state, lost_ends) = history.take_unsaved();
        let applied = Applied { position, first, mark, time, is_shown, events, state, lost_ends };
        self.log.apply(applied);
        let Some(entry) = entry else { return };
        let (publishing, planner) = self.planner();
        let Some(mut planner) = planner else { return };
        let delivered = (entry, digest, position);
        if publishing.handle_delivered(delivered, verdict, &mut planner) {
            self.totals.clones += 1;
            self.requests.push_back(Request::Writer);
        }
        if let Some(at) = self.publishing.take_displaced(now, position) {
            self.compare(now, Suspicion::At(at));
        }
        self.check_writer(now, entry, position, is_shown, verdict);
    }

    /// Checks whether the entry of another writer shows that one of the two histories is wrong.
    fn check_writer(
        &mut self,
        now: Timestamp,
        entry: &Entry,
        position: Position,
        is_shown: bool,
        verdict: &Verdict,
    ) {
        let is_other = self.publishing.writer() != Some(entry.name.writer);
        match verdict.groups {
            // Either the node has begun at a wrong mark, or the other writer is wrong. The node
            // looks for another mark and begins again. It repeats this until all entries have
            // agreed with its marks for a while.
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
        let Phase::Following { window } = &self.phase else { return };
        let Some(depth) = self.compared.begin(now, suspicion, &history.chain) else { return };
        let window = Some(window.clone()).filter(|_| suspicion != Suspicion::EntryDiffers);
        let comparison = Comparison::new(&history.chain, depth, self.ends.short_since());
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
                self.compared.end(now);
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
        let mut ids = self.log.cut_to(fork, history.first_offset(fork.next()));
        ids.truncate(FORK_IDS_MAX);
        history.cut_to(fork);
        self.forks.push(Fork { at: fork, until, ids });
        self.goal = bounds.last;
        self.is_caught_up = false;
        self.compared.end(now);
        self.ends.handle_cut();
        let (publishing, planner) = self.planner();
        planner.into_iter().for_each(|mut planner| publishing.handle_cut(fork, &mut planner));
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
        if result == Err(JournalError::Replaced) {
            self.reopen(now);
        }
        let last = self.history.as_ref().map(|history| history.chain.last()).unwrap_or_default();
        if let Some(at) = self.publishing.handle_appended(now, name, result, last) {
            self.compare(now, Suspicion::At(at));
        }
        self.pack();
    }

    /// The answer to [`Request::Bounds`].
    pub fn handle_bounds(&mut self, now: Timestamp, result: Result<Bounds, JournalError>) {
        let Ok(bounds) = result else {
            self.ends.handle_error(now);
            return if result == Err(JournalError::Replaced) {
                self.reopen(now)
            };
        };
        let last = self.history.as_ref().map(|history| history.chain.last()).unwrap_or_default();
        let suspicious = self.ends.handle_bounds(now, bounds, last);
        if matches!(self.phase, Phase::Empty) && bounds.last > Position::ORIGIN {
            self.phase = Phase::Opening { retry_at: Some(now) };
        } else if let Some(at) = suspicious {
            self.compare(now, Suspicion::At(at));
        }
    }

    /// Whether the node may append entries.
    fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Following { .. } | Phase::Comparing { .. })
    }

    /// The next time at which [`handle_timeout`](Self::handle_timeout) has to be called.
    pub fn timeout(&self) -> Timestamp {
        let phase = match &self.phase {
            Phase::Opening { retry_at } => *retry_at,
            Phase::Comparing { read_at, .. } => *read_at,
            Phase::Empty | Phase::TooOld | Phase::Anchoring(_) | Phase::Following { .. } => None,
        };
        let publishing = self.publishing.timeout(self.is_open());
        phase.into_iter().chain(publishing).fold(self.heartbeat_at, Timestamp::min)
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
        self.publishing.answer_overdue(now);
        if self.is_open() {
            self.requests.extend(self.publishing.retries(now));
        }
        if self.heartbeat_at <= now {
            self.heartbeat_at = now.after(HEARTBEAT_EVERY);
            self.beat(now);
        }
        self.pack();
    }

    /// The regular work: the heartbeat with everything that has to be announced, and the checks.
    fn beat(&mut self, now: Timestamp) {
        self.peers.expire(now);
        self.requests.extend(self.ends.ask(now));
        let last = self.history.as_ref().map(|history| history.chain.last()).unwrap_or_default();
        match &self.phase {
            Phase::Following { .. } => {
                if self.is_steady() && last >= self.goal {
                    self.announce(now, last);
                }
                if self.ends.is_stalled(now, self.publishing.acknowledged(), last) {
                    self.reopen_tail();
                }
            }
            Phase::Anchoring(anchoring) if now >= anchoring.since.after(SHORT_FOR) => {
                self.propose_anchor(now);
            }
            _ => {}
        }
    }

    /// Appends a control entry: a heartbeat, new forks, and a snapshot if the last one is old.
    fn announce(&mut self, now: Timestamp, last: Position) {
        let Some(history) = &self.history else { return };
        let retention = self.settings.retention;
        let node = self.settings.name.clone();
        let has_cache = self.log.has_cache();
        let heartbeat =
            Heartbeat { applied: last, version_max: FORMAT_VERSION, retention, has_cache, node };
        let mut controls = vec![Control::Heartbeat(heartbeat)];
        let forks = self.forks.iter().take(ANNOUNCED_FORKS_MAX);
        controls.extend(forks.cloned().map(Control::Fork));
        if now >= self.snapshot_at.after(self.settings.snapshot_every) {
            controls.push(Control::Snapshot(history.hub.snapshot()));
        }
        let mark = history.chain.mark(last).unwrap_or(Mark::ORIGIN);
        self.append_controls(last, mark, controls);
    }

    /// Proposes a point at which all nodes can begin. The proposal is needed if no node knows the
    /// mark of any position after a hole. The mark depends only on the newest entry, so nodes that
    /// have read the same entries make the same proposal.
    fn propose_anchor(&mut self, now: Timestamp) {
        let Phase::Anchoring(anchoring) = &mut self.phase else { return };
        let Some(history) = &self.history else { return };
        let Some((last, mark)) = anchoring.proposal(&history.hub.key, &self.settings.rules) else {
            return;
        };
        anchoring.since = now;
        let controls = vec![Control::Snapshot(history.hub.snapshot())];
        self.append_controls(last, mark, controls);
    }

    fn append_controls(&mut self, seen: Position, seen_mark: Mark, controls: Vec<Control>) {
        let Some(name) = self.publishing.name() else { return };
        let hub = self.settings.hub;
        let entry = Entry { hub, name, seen, seen_mark, groups: Vec::new(), controls };
        let (publishing, planner) = self.planner();
        let request = planner.and_then(|planner| publishing.send(&entry, &planner));
        self.requests.extend(request);
    }
}
