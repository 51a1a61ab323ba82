//! Publishing: plans the events of publishers (asks the log which of them are new), packs them into
//! entries, and answers.

use std::collections::VecDeque;

use downlink_log::Timestamp;

use crate::{
    entry::{Entry, EntryName, HubId, WriterId},
    fed_log::FedLog,
    journal::JournalError,
    mark::Digest,
    node::{
        history::History,
        outbox::{IN_FLIGHT_MAX, InFlight, Origin, Outbox, QUEUE_MAX, RETRY_EVERY, Waiting},
        publish::{ANSWER_WITHIN, Answer, AppliedEvent, Publish, PublishId},
        request::Request,
    },
    position::{ENTRY_EVENTS_MAX, Position},
    rules::{Mutant, Rules},
    window::window::Verdict,
    wire::REPLACES_MAX,
};

/// The state with which events are planned.
#[derive(Debug)]
pub(crate) struct Planner<'a, L> {
    pub(crate) log: &'a mut L,
    pub(crate) history: &'a History,
    pub(crate) rules: &'a Rules,
    pub(crate) hub: HubId,
    pub(crate) entry_bytes_max: usize,
}

/// The publishes in the outbox, and the answers that the caller has not taken yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Publishing {
    outbox: Outbox,
    answers: VecDeque<(PublishId, Answer)>,
    next_publish: u64,
    /// Whether an append has failed without a refusal, and none has succeeded since then. While
    /// this is true, no further entries are packed.
    is_engine_away: bool,
    /// The last position of the chain when the plans were checked.
    checked_at: Option<Position>,
}

impl Publishing {
    /// Takes a publish. If `planner` is `None`, the node takes no publishes now.
    pub(crate) fn publish<L: FedLog>(
        &mut self,
        now: Timestamp,
        publish: Publish,
        bytes_max: usize,
        planner: Option<&mut Planner<'_, L>>,
    ) -> PublishId {
        let id = PublishId(self.next_publish);
        self.next_publish += 1;
        let Publish { records, stream } = publish;
        let count = records.len();
        let waiting = Waiting::new(id, records, stream, now.after(ANSWER_WITHIN));
        if count == 0 || count > ENTRY_EVENTS_MAX || !waiting.fits(bytes_max) {
            self.answer(id, Answer::TooLarge);
        } else if let Some(planner) = planner.filter(|_| self.outbox.len() < QUEUE_MAX) {
            self.plan(waiting, planner);
        } else {
            self.answer(id, Answer::Unavailable { appended: false });
        }
        id
    }

    fn answer(&mut self, id: PublishId, answer: Answer) {
        self.answers.push_back((id, answer));
    }

    /// The next answer.
    pub(crate) fn poll_answer(&mut self) -> Option<(PublishId, Answer)> {
        self.answers.pop_front()
    }

    pub(crate) fn writer(&self) -> Option<WriterId> {
        self.outbox.writer
    }

    pub(crate) fn set_writer(&mut self, writer: WriterId) {
        self.outbox.writer = Some(writer);
    }

    /// Plans a publish with the state of the log, and puts it into the queue if it is new.
    fn plan<L: FedLog>(&mut self, mut waiting: Waiting, planner: &mut Planner<'_, L>) {
        if waiting.attempts.len() > REPLACES_MAX {
            return self.answer(waiting.id, Answer::OutcomeUnknown);
        }
        let plan = match planner.log.plan(&waiting.records) {
            Ok(plan) => plan,
            Err(refusal) => return self.answer(waiting.id, Answer::Refused(refusal)),
        };
        if plan.repeats.iter().all(Option::is_some) {
            let repeats = plan.repeats.into_iter().flatten();
            let events = repeats.map(|offset| AppliedEvent { offset, is_repeat: true }).collect();
            return self.answer(waiting.id, Answer::Applied { events });
        }
        waiting.repeats = plan.repeats;
        waiting.planned_at = planner.history.chain.last();
        self.outbox.push(waiting);
    }

    fn plan_all<L: FedLog>(
        &mut self,
        publishes: impl IntoIterator<Item = Waiting>,
        planner: &mut Planner<'_, L>,
    ) {
        publishes.into_iter().for_each(|waiting| self.plan(waiting, planner));
    }

    /// Reads a delivered entry. If it contains events of this node's publishers, answers these
    /// publishers or plans the events again. Returns true if the node needs another writer, because
    /// another process has the same one.
    pub(crate) fn handle_delivered<L: FedLog>(
        &mut self,
        (entry, digest, position): (&Entry, Digest, Position),
        verdict: &Verdict,
        planner: &mut Planner<'_, L>,
    ) -> bool {
        let mut needs_writer = false;
        match self.outbox.handle_delivered(entry.name, digest) {
            Origin::Other => {
                let kept = verdict.groups.as_deref().unwrap_or_default();
                let place = (planner.history.hub.base, position);
                for (id, events) in self.outbox.take_applied(entry.name, kept, place) {
                    self.answer(id, Answer::Applied { events });
                }
            }
            Origin::Own(sent) => match &verdict.groups {
                Ok(kept) => self.answer_all(sent, kept, position, planner),
                Err(_) => self.plan_all(sent.into_publishes(), planner),
            },
            Origin::Clone => {
                needs_writer = self.outbox.writer == Some(entry.name.writer);
                if needs_writer {
                    self.outbox.rename();
                }
                // The other entry has the same name, so this node's entry will be void.
                let dead = self.outbox.take_dead(|sent| sent.name == entry.name);
                self.plan_all(dead, planner);
            }
        }
        self.plan_expired(planner);
        needs_writer
    }

    /// Answers the publishers of a confirmed entry, and plans the dropped events again.
    fn answer_all<L: FedLog>(
        &mut self,
        sent: InFlight,
        kept: &[bool],
        position: Position,
        planner: &mut Planner<'_, L>,
    ) {
        let base = planner.history.hub.base;
        for ((mut waiting, attempt), kept) in sent.into_attempts().zip(kept) {
            if waiting.is_answered {
                continue;
            }
            if *kept {
                let events = attempt.events(base, position);
                self.answer(waiting.id, Answer::Applied { events });
            } else {
                waiting.attempts.push(attempt);
                self.plan(waiting, planner);
            }
        }
    }

    /// Plans again the events whose entries can no longer be applied.
    fn plan_expired<L: FedLog>(&mut self, planner: &mut Planner<'_, L>) {
        let (chain, lifetime) = (&planner.history.chain, planner.rules.lifetime_ms());
        let dead = self.outbox.take_dead(|sent| {
            chain.elapsed(sent.seen, chain.last()).is_none_or(|elapsed| elapsed > lifetime)
        });
        self.plan_all(dead, planner);
    }

    /// Plans again the events that were planned with a part of the history that is lost.
    pub(crate) fn handle_cut<L: FedLog>(&mut self, fork: Position, planner: &mut Planner<'_, L>) {
        self.checked_at = None;
        // The entries have the mark of a lost position, so they are void.
        let dead = self.outbox.take_dead(|sent| sent.seen > fork);
        self.plan_all(dead, planner);
        let lost = self.outbox.take_queued(|waiting| waiting.planned_at > fork);
        self.plan_all(lost, planner);
    }

    /// Answers all publishers. A node that begins anew cannot know what became of their events, and
    /// cannot plan them again.
    pub(crate) fn give_up_all(&mut self) {
        for waiting in self.outbox.take_dead(|_| true) {
            self.answer(waiting.id, Answer::OutcomeUnknown);
        }
        for waiting in self.outbox.take_queued(|_| true) {
            self.answer(waiting.id, waiting.unavailable());
        }
    }

    /// Answers the publishers whose time is over.
    pub(crate) fn answer_overdue(&mut self, now: Timestamp) {
        for waiting in self.outbox.take_queued(|waiting| waiting.deadline <= now) {
            self.answer(waiting.id, waiting.unavailable());
        }
        for id in self.outbox.give_up(now) {
            self.answer(id, Answer::OutcomeUnknown);
        }
    }

    /// Appends again the entries whose next attempt is due.
    pub(crate) fn retries(&mut self, now: Timestamp) -> Vec<Request> {
        let due = |sent: &&mut InFlight| sent.retry_at.is_some_and(|at| at <= now);
        let mut requests = Vec::new();
        for sent in self.outbox.in_flight.iter_mut().filter(due) {
            sent.retry_at = None;
            requests.push(Request::Append { name: sent.name, bytes: sent.bytes.clone() });
        }
        requests
    }

    /// Schedules another append of each entry on its way. The journal was opened again, so the
    /// answers to the earlier appends may never come.
    pub(crate) fn handle_reopened(&mut self, now: Timestamp) {
        let retry_at = Some(now.after(RETRY_EVERY));
        for sent in &mut self.outbox.in_flight {
            sent.retry_at = retry_at;
            sent.is_unclear = true;
        }
    }

    /// The answer to an append. `last` is the last position that the tail has delivered. If the
    /// tail has delivered another entry at the acknowledged position, returns this position.
    pub(crate) fn handle_appended(
        &mut self,
        now: Timestamp,
        name: EntryName,
        result: Result<Position, JournalError>,
        last: Position,
    ) -> Option<Position> {
        match result {
            Ok(position) => {
                self.is_engine_away = false;
                self.outbox.handle_acknowledged(name, position);
                return self.take_displaced(now, last);
            }
            Err(error) => {
                let is_full = error == JournalError::Full;
                let is_refused = is_full || error == JournalError::Refused;
                self.is_engine_away |= !is_refused;
                for sent in self.outbox.in_flight.iter_mut().filter(|sent| sent.name == name) {
                    sent.is_unclear |= !is_refused;
                    sent.retry_at = Some(now.after(RETRY_EVERY));
                }
                let is_dead = |sent: &InFlight| is_refused && sent.name == name && !sent.is_unclear;
                for waiting in self.outbox.take_dead(is_dead) {
                    // `attempts` includes the refused one.
                    let answer = match (waiting.attempts.len(), is_full) {
                        (..=1, true) => Answer::Full,
                        (..=1, false) => Answer::Unavailable { appended: false },
                        _ => waiting.unavailable(),
                    };
                    self.answer(waiting.id, answer);
                }
            }
        }
        None
    }

    /// See [`Outbox::take_displaced`].
    pub(crate) fn take_displaced(&mut self, now: Timestamp, last: Position) -> Option<Position> {
        self.outbox.take_displaced(now, last)
    }

    /// The highest acknowledged position that the tail has not delivered.
    pub(crate) fn acknowledged(&self) -> Option<Position> {
        self.outbox.acknowledged()
    }

    /// The next time at which something is due.
    pub(crate) fn timeout(&self, is_open: bool) -> Option<Timestamp> {
        self.outbox.timeout(is_open)
    }

    /// Puts the publishes of the queue into entries.
    pub(crate) fn pack<L: FedLog>(&mut self, planner: &mut Planner<'_, L>) -> Vec<Request> {
        self.plan_old_again(planner);
        let mut requests = Vec::new();
        while !self.is_engine_away && self.outbox.in_flight.len() < IN_FLIGHT_MAX {
            let Some(request) = self.pack_one(planner) else { break };
            requests.push(request);
        }
        requests
    }

    /// Plans again the publishes that were planned so long ago that their entries would hardly
    /// arrive in time.
    fn plan_old_again<L: FedLog>(&mut self, planner: &mut Planner<'_, L>) {
        let Rules { positions_max, .. } = *planner.rules;
        let (chain, lifetime) = (&planner.history.chain, planner.rules.lifetime_ms());
        let last = chain.last();
        // Only further entries make a plan old.
        if self.checked_at.replace(last) == Some(last) {
            return;
        }
        let old = self.outbox.take_queued(|waiting| {
            let elapsed = chain.elapsed(waiting.planned_at, last);
            elapsed.is_none_or(|elapsed| elapsed > lifetime / 2)
                || last.since(waiting.planned_at) > positions_max / 2
        });
        self.plan_all(old, planner);
    }

    fn pack_one<L>(&mut self, planner: &Planner<'_, L>) -> Option<Request> {
        self.outbox.writer?;
        let publishes = self.outbox.take_batch(planner.entry_bytes_max);
        let chain = &planner.history.chain;
        let mut seen = publishes.iter().map(|waiting| waiting.planned_at).min()?;
        if planner.rules.has(Mutant::SeenAtPacking) {
            seen = chain.last();
        }
        let Some((entry, request)) = chain.mark(seen).and_then(|seen_mark| {
            let entry = Entry {
                hub: planner.hub,
                name: self.outbox.name()?,
                seen,
                seen_mark,
                groups: publishes.iter().map(Waiting::group).collect(),
                controls: Vec::new(),
            };
            let request = self.send(&entry, planner)?;
            Some((entry, request))
        }) else {
            // The outbox counts bytes generously, so an entry always fits.
            debug_assert!(false, "an entry from the queue cannot be encoded");
            for waiting in publishes {
                self.answer(waiting.id, Answer::TooLarge);
            }
            return None;
        };
        let Request::Append { bytes, .. } = &request else { return None };
        let (name, bytes) = (entry.name, bytes.clone());
        let (retry_at, is_unclear) = (None, false);
        self.outbox.in_flight.push(InFlight { name, seen, bytes, publishes, retry_at, is_unclear });
        Some(request)
    }

    /// A new name for an entry; `None` while the node has no writer.
    pub(crate) fn name(&mut self) -> Option<EntryName> {
        self.outbox.name()
    }

    /// Encodes an entry, and notes that it was sent.
    pub(crate) fn send<L>(&mut self, entry: &Entry, planner: &Planner<'_, L>) -> Option<Request> {
        let bytes = entry.encode(planner.entry_bytes_max).ok()?;
        self.outbox.note_sent(entry.name, planner.history.hub.key.digest(&bytes));
        Some(Request::Append { name: entry.name, bytes })
    }
}
