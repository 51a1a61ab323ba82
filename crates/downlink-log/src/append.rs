//! Appending: from drafts to offsets, all of a batch or nothing.
//!
//! Under the sequence lock the drafts are checked, their rings are reserved, and only then is
//! anything changed; the tail moves once, at the end. A topic that was collected between being
//! looked up and being reserved is looked up again.

use std::{collections::HashMap, fmt, sync::Arc};

use smallvec::{SmallVec, smallvec};

use crate::{
    address::Address,
    evict::Evicted,
    given::{Fingerprint, GivenId, IdempotencyKey},
    index::Topics,
    log::{Log, Payload, Sequence, Shared},
    offset::{Offset, Timestamp},
    ring::Kept,
    sync::Ordering,
    topic::TopicLog,
    watcher::wake_all,
};

/// An event before it has an offset.
#[derive(Debug)]
pub struct Draft<F> {
    /// Whom it is for: at least one address, none twice.
    pub to: SmallVec<[Address; 1]>,
    /// The id its publisher gave, which must not resemble a cursor.
    pub id: Option<Box<str>>,
    /// The key under which it is to be appended only once.
    pub key: Option<IdempotencyKey>,
    /// What it says. Only looked at if there is an id or a key.
    pub fingerprint: Fingerprint,
    /// Whether its topics are finished with it.
    pub finish: bool,
    /// Makes the payload once the offset is known, under the sequence lock: short, and no user's
    /// code. `None` for a finish mark alone.
    pub stamp: Option<F>,
}

/// Where a draft went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Appended {
    /// Its offset.
    pub offset: Offset,
    /// Distinct subscriptions that it was for.
    pub matched: usize,
    /// Whether this is the answer to an earlier append with the same id or key.
    pub repeated: bool,
}

/// Nothing of a batch was appended.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum AppendError {
    /// The log is closed.
    Closed,
    /// The topic is finished.
    Finished {
        /// Which draft of the batch.
        draft: usize,
    },
    /// The id belongs to an event that says something else.
    IdTaken {
        /// Which draft of the batch.
        draft: usize,
    },
    /// The idempotency key was used for an event that says something else.
    KeyReused {
        /// Which draft of the batch.
        draft: usize,
    },
    /// There is no room for another topic.
    TooManyTopics {
        /// The limit.
        topics_max: usize,
    },
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the log is closed"),
            Self::Finished { .. } => f.write_str("the topic is finished"),
            Self::IdTaken { .. } => f.write_str("the id belongs to another event"),
            Self::KeyReused { .. } => f.write_str("the idempotency key was used for another event"),
            Self::TooManyTopics { topics_max } => {
                write!(f, "there are {topics_max} topics, which is the limit")
            }
        }
    }
}

impl std::error::Error for AppendError {}

/// The answers to a batch, one for each draft.
pub type Answers = SmallVec<[Appended; 1]>;

/// The topics of each draft of a batch.
type Places<P> = SmallVec<[Topics<P>; 1]>;

type Plans = SmallVec<[Plan; 1]>;

/// What becomes of one draft.
enum Plan {
    Fresh,
    Repeat(Appended),
    /// The same as an earlier draft of this batch.
    RepeatOf(usize),
}

impl<P: Payload> Log<P> {
    /// Appends a batch: all drafts, or none. Wakes the readers concerned; waits for none of them.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; then nothing was appended.
    pub fn append<F: FnOnce(Offset, Timestamp) -> P>(
        &self,
        now: Timestamp,
        mut drafts: SmallVec<[Draft<F>; 1]>,
    ) -> Result<Answers, AppendError> {
        let shared = &*self.0;
        shared.expire(now);
        let within = repeats_within(&drafts)?;
        loop {
            let places = shared.look_up(&drafts)?;
            match shared.append_at(now, &mut drafts, &within, &places) {
                Ok(Some(answers)) => {
                    places.iter().flatten().for_each(|topic| wake_all(&topic.watchers));
                    return Ok(answers);
                }
                Ok(None) => {}
                Err(error) => {
                    // Topics that were made for this batch alone go again.
                    places.iter().for_each(|topics| shared.collect(topics));
                    return Err(error);
                }
            }
        }
    }
}

impl<P: Payload> Shared<P> {
    /// The topics of each draft, made where there were none.
    fn look_up<F>(&self, drafts: &[Draft<F>]) -> Result<Places<P>, AppendError> {
        let mut places = Places::with_capacity(drafts.len());
        for draft in drafts {
            let mut topics = Topics::new();
            for address in &draft.to {
                match self.find_or_create(address) {
                    Ok(topic) => topics.push(topic),
                    Err(error) => {
                        self.collect(&topics);
                        places.iter().for_each(|topics: &Topics<P>| self.collect(topics));
                        return Err(error);
                    }
                }
            }
            places.push(topics);
        }
        Ok(places)
    }

    fn find_or_create(&self, address: &Address) -> Result<Arc<TopicLog<P>>, AppendError> {
        if *address == Address::Everyone {
            return Ok(Arc::clone(&self.everyone));
        }
        let found = self.registry.read().find(address);
        match found {
            Some(topic) => Ok(topic),
            None => self.registry.write().find_or_create(address, &self.options).map_err(|_| {
                AppendError::TooManyTopics { topics_max: self.options.limits.topics_max }
            }),
        }
    }

    /// Appends under the sequence lock. `None`: a topic was collected meanwhile, look up again.
    fn append_at<F: FnOnce(Offset, Timestamp) -> P>(
        &self,
        now: Timestamp,
        drafts: &mut [Draft<F>],
        within: &[Option<usize>],
        places: &[Topics<P>],
    ) -> Result<Option<Answers>, AppendError> {
        let mut evicted = Evicted::new();
        let answers = {
            let mut sequence = self.sequence.lock();
            if sequence.closed {
                return Err(AppendError::Closed);
            }
            sequence.keys.expire(now);
            let plans = self.plan(&sequence, drafts, within)?;
            check_finished(drafts, &plans, places)?;
            if !reserve(&plans, places) {
                return Ok(None);
            }
            let first = sequence.next;
            let answers = self.install(&mut sequence, now, drafts, &plans, places, &mut evicted);
            self.tail.store(sequence.next, Ordering::Release);
            self.trim_all(places.iter().flatten(), first, &mut evicted);
            self.tidy_index(&mut self.index.lock());
            answers
        };
        self.dispose(evicted);
        Ok(Some(answers))
    }

    /// Decides for each draft whether it is new.
    fn plan<F>(
        &self,
        sequence: &Sequence,
        drafts: &[Draft<F>],
        within: &[Option<usize>],
    ) -> Result<Plans, AppendError> {
        let plan = |(at, draft)| match within.get(at) {
            Some(Some(of)) => Ok(Plan::RepeatOf(*of)),
            _ => self.plan_one(sequence, at, draft),
        };
        drafts.iter().enumerate().map(plan).collect()
    }

    fn plan_one<F>(
        &self,
        sequence: &Sequence,
        at: usize,
        draft: &Draft<F>,
    ) -> Result<Plan, AppendError> {
        let same = |fingerprint: Fingerprint| fingerprint == draft.fingerprint;
        let by_key = draft.key.as_ref().and_then(|key| sequence.keys.get(key));
        match by_key {
            Some((fingerprint, answer)) if same(*fingerprint) => return Ok(Plan::Repeat(*answer)),
            Some(_) => return Err(AppendError::KeyReused { draft: at }),
            None => {}
        }
        let by_id = draft.id.as_ref().and_then(|id| self.given.lock().get(id).copied());
        match by_id {
            Some(given) if same(given.fingerprint) => Ok(Plan::Repeat(given.answer)),
            Some(_) => Err(AppendError::IdTaken { draft: at }),
            None => Ok(Plan::Fresh),
        }
    }

    /// Gives each new draft its offset and puts it into its rings.
    fn install<F: FnOnce(Offset, Timestamp) -> P>(
        &self,
        sequence: &mut Sequence,
        now: Timestamp,
        drafts: &mut [Draft<F>],
        plans: &[Plan],
        places: &[Topics<P>],
        evicted: &mut Evicted<P>,
    ) -> Answers {
        sequence.at = sequence.at.max(now);
        let mut answers = Answers::new();
        for ((draft, plan), topics) in drafts.iter_mut().zip(plans).zip(places) {
            let answer = match plan {
                Plan::Repeat(answer) => Appended { repeated: true, ..*answer },
                Plan::RepeatOf(of) => Appended { repeated: true, ..answers[*of] },
                Plan::Fresh => {
                    let offset = sequence.next;
                    sequence.next += 1;
                    self.push(offset, sequence.at, draft, topics, evicted);
                    let matched = count(topics, offset);
                    Appended { offset: Offset::new(offset), matched, repeated: false }
                }
            };
            answers.push(answer);
            if !answer.repeated {
                self.remember(sequence, now, draft, topics, answer);
            }
        }
        answers
    }

    fn push<F: FnOnce(Offset, Timestamp) -> P>(
        &self,
        offset: u64,
        at: Timestamp,
        draft: &mut Draft<F>,
        topics: &Topics<P>,
        evicted: &mut Evicted<P>,
    ) {
        let payload = draft.stamp.take().map(|stamp| stamp(Offset::new(offset), at));
        for topic in topics {
            let mut ring = topic.ring.write();
            ring.unreserve();
            if let Some(payload) = &payload {
                let cost = ring.push(Kept { offset, at, payload: payload.clone() });
                self.bytes.fetch_add(cost, Ordering::Relaxed);
                self.events.fetch_add(1, Ordering::Relaxed);
                topic.set_newest(offset);
                self.trim(topic, &mut ring, evicted);
            }
            if draft.finish {
                ring.set_finished_at(Some(at));
                topic.set_finished(Some(offset));
            }
            self.queue_expiry(topic, &mut ring);
        }
        if payload.is_some() {
            self.index.lock().push(offset, topics.clone());
        }
    }

    fn remember<F>(
        &self,
        sequence: &mut Sequence,
        now: Timestamp,
        draft: &mut Draft<F>,
        topics: &Topics<P>,
        answer: Appended,
    ) {
        let fingerprint = draft.fingerprint;
        if let Some(key) = draft.key.take() {
            sequence.keys.insert(now, key, fingerprint, answer);
        }
        if let Some(id) = draft.id.take() {
            let rings = topics.len() as u32;
            self.given.lock().insert(id, GivenId { fingerprint, answer, rings });
        }
    }
}

/// Distinct readers of the topics.
fn count<P>(topics: &[Arc<TopicLog<P>>], offset: u64) -> usize {
    let everyone = topics.iter().find(|topic| topic.address == Address::Everyone);
    match (topics, everyone) {
        ([topic], _) | (_, Some(topic)) => topic.watchers.lock().len(),
        _ => topics
            .iter()
            .map(|topic| {
                let watchers = topic.watchers.lock();
                watchers.iter().filter(|watcher| watcher.count_once(offset)).count()
            })
            .sum(),
    }
}

/// For each draft the earlier one of the same batch that it repeats.
fn repeats_within<F>(drafts: &[Draft<F>]) -> Result<SmallVec<[Option<usize>; 1]>, AppendError> {
    let mut repeats = smallvec![None; drafts.len()];
    if drafts.len() == 1 {
        return Ok(repeats);
    }
    let (mut keys, mut ids) = (HashMap::new(), HashMap::new());
    for (at, (draft, repeat)) in drafts.iter().zip(&mut repeats).enumerate() {
        let same = |of: &usize| {
            drafts.get(*of).is_some_and(|other| other.fingerprint == draft.fingerprint)
        };
        let by_key = draft.key.as_ref().and_then(|key| keys.insert(key, at));
        let by_id = draft.id.as_ref().and_then(|id| ids.insert(id, at));
        match (by_key, by_id) {
            (Some(of), _) if !same(&of) => return Err(AppendError::KeyReused { draft: at }),
            (None, Some(of)) if !same(&of) => return Err(AppendError::IdTaken { draft: at }),
            (of, other) => *repeat = of.or(other),
        }
    }
    Ok(repeats)
}

/// Refuses drafts for topics that are finished, or that an earlier draft of the batch finishes.
fn check_finished<F, P: Payload>(
    drafts: &[Draft<F>],
    plans: &[Plan],
    places: &[Topics<P>],
) -> Result<(), AppendError> {
    let mut finishing: Vec<u64> = Vec::new();
    for (at, (draft, topics)) in drafts.iter().zip(places).enumerate() {
        if !matches!(plans.get(at), Some(Plan::Fresh)) {
            continue;
        }
        let finished = |topic: &Arc<TopicLog<P>>| {
            topic.finished().is_some() || finishing.contains(&topic.number)
        };
        if topics.iter().any(finished) {
            return Err(AppendError::Finished { draft: at });
        }
        if draft.finish {
            finishing.extend(topics.iter().map(|topic| topic.number));
        }
    }
    Ok(())
}

/// Reserves the rings of all new drafts, or none.
fn reserve<P: Payload>(plans: &[Plan], places: &[Topics<P>]) -> bool {
    let fresh = || {
        plans
            .iter()
            .zip(places)
            .filter(|(plan, _)| matches!(plan, Plan::Fresh))
            .flat_map(|(_, t)| t)
    };
    for (at, topic) in fresh().enumerate() {
        if !topic.ring.write().reserve() {
            fresh().take(at).for_each(|topic| topic.ring.write().unreserve());
            return false;
        }
    }
    true
}
