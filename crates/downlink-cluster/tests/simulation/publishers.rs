//! Publishers: they publish at random nodes, repeat the publishes that got no clear answer, and
//! check the answers at the end. Some events belong to a stream (a streamed request body), and must
//! keep their order.

use std::collections::{BTreeMap, HashMap};

use downlink_cluster::{Answer, AppliedEvent, Publish, PublishId, Record};
use downlink_log::{Address, Fingerprint, IdempotencyKey, Topic};

use crate::{
    plan::{Kind, Plan},
    violation::{FinalHistory, Violation},
    world::{NODES, World},
};

/// How long a publisher repeats a publish. It is shorter than `mature_after`, the time for which a
/// log keeps idempotency keys.
const REPEATS_FOR: u64 = 15_000;

/// The fate of one attempt.
#[derive(Clone, Debug)]
enum Attempt {
    Open,
    /// The answer, and whether it came at once, before the events could be in an entry.
    Answered(Answer, bool),
}

struct Published {
    publish: Publish,
    serials: Vec<u64>,
    /// Whether a repeat is recognised.
    is_repeatable: bool,
    first_at: u64,
    /// When each attempt was made.
    tried_at: Vec<u64>,
    is_cloned: bool,
    repeat_at: Option<u64>,
    attempts: Vec<Attempt>,
}

pub(crate) struct Publishers {
    rng: fastrand::Rng,
    published: Vec<Published>,
    /// The publish and the attempt of each open call.
    open: HashMap<(usize, PublishId), (usize, usize)>,
    next_serial: u64,
}

impl Publishers {
    pub(crate) fn new(rng: fastrand::Rng) -> Self {
        Self { rng, published: Vec::new(), open: HashMap::new(), next_serial: 1 }
    }

    /// Publishes, and repeats the publishes that are due.
    pub(crate) fn step(&mut self, world: &mut World) {
        let is_slow = world.plan.kind == Kind::Middle;
        if self.rng.u8(0..100) < if is_slow { 24 } else { 14 } {
            self.make(world);
        }
        for at in 0..self.published.len() {
            let published = &mut self.published[at];
            if published.repeat_at.is_some_and(|due| due <= world.now) {
                published.repeat_at = None;
                let until = published.first_at + REPEATS_FOR - 3_000;
                if is_slow && world.now < until && self.rng.bool() {
                    published.repeat_at = Some(self.rng.u64(world.now..until));
                }
                self.attempt(at, world);
            }
        }
    }

    fn make(&mut self, world: &mut World) {
        let rng = &mut self.rng;
        let stream = (rng.u8(0..8) == 0).then(|| rng.u64(0..3));
        let has_key = stream.is_none() && rng.u8(0..10) < 7;
        let has_id = stream.is_none() && rng.u8(0..6) == 0;
        let count = if rng.u8(0..5) == 0 { rng.usize(2..5) } else { 1 };
        let serials: Vec<u64> = (self.next_serial..).take(count).collect();
        self.next_serial += count as u64;
        let mut record = |serial: &u64| {
            // A topic of a stream is never finished: the events that follow would be refused.
            let topic = match stream {
                Some(stream) => format!("stream/{stream}"),
                None => format!("topic/{}", rng.u8(0..6)),
            };
            let topic = Topic::new(&topic).unwrap();
            let key = IdempotencyKey { credential: "p".into(), key: serial.to_string().into() };
            Record {
                at: world.time(),
                to: vec![Address::Topic(topic)],
                id: has_id.then(|| format!("given-{serial}").into()),
                key: has_key.then_some(key),
                fingerprint: Fingerprint::keyed(&[1; 16], &serial.to_le_bytes()),
                finish: stream.is_none() && rng.u8(0..60) == 0,
                payload: Some(serial.to_le_bytes().into()),
            }
        };
        let records = serials.iter().map(&mut record).collect();
        let is_slow = world.plan.kind == Kind::Middle;
        let is_repeatable = has_key || has_id;
        // Some publishers lose the answer, or do not wait for it.
        let repeats = is_repeatable && self.rng.u8(0..100) < if is_slow { 50 } else { 20 };
        let repeat_at = repeats.then(|| world.now + self.rng.u64(0..12_000));
        self.published.push(Published {
            publish: Publish { records, stream },
            serials,
            is_repeatable,
            first_at: world.now,
            tried_at: Vec::new(),
            is_cloned: false,
            repeat_at,
            attempts: Vec::new(),
        });
        self.attempt(self.published.len() - 1, world);
    }

    fn attempt(&mut self, at: usize, world: &mut World) {
        let published = &mut self.published[at];
        // The publishes of a stream go to one node.
        let node = match published.publish.stream {
            Some(stream) => (stream % 3) as usize,
            None => self.rng.usize(0..NODES),
        };
        if let Some(id) = world.publish(node, published.publish.clone()) {
            published.attempts.push(Attempt::Open);
            published.tried_at.push(world.now);
            self.open.insert((node, id), (at, published.attempts.len() - 1));
        }
    }

    pub(crate) fn handle_answer(&mut self, node: usize, id: PublishId, answer: Answer, now: u64) {
        let Some((at, attempt)) = self.open.remove(&(node, id)) else { return };
        let published = &mut self.published[at];
        let is_clear = !matches!(answer, Answer::OutcomeUnknown | Answer::Unavailable { .. });
        let is_at_once = published.tried_at[attempt] + 50 >= now;
        published.attempts[attempt] = Attempt::Answered(answer, is_at_once);
        let is_young = now < published.first_at + REPEATS_FOR - 3_000;
        if !is_clear && published.is_repeatable && is_young {
            published.repeat_at = Some(now + self.rng.u64(100..3_000));
        }
    }

    /// Whether the process can be cloned. A clone has the same events on their way. Only events
    /// with a key or an id are recognised if both processes append them again.
    pub(crate) fn can_clone(&self, node: usize) -> bool {
        self.open_at(node).all(|at| self.published[at].is_repeatable)
    }

    /// A process was cloned: the clone may apply events that the process refuses.
    pub(crate) fn handle_cloned(&mut self, node: usize) {
        let open: Vec<usize> = self.open_at(node).collect();
        open.into_iter().for_each(|at| self.published[at].is_cloned = true);
    }

    fn open_at(&self, node: usize) -> impl Iterator<Item = usize> {
        self.open.iter().filter(move |((at, _), _)| *at == node).map(|(_, (at, _))| *at)
    }

    /// A node has stopped: its publishers get no answers, and repeat at another node.
    pub(crate) fn handle_stopped(&mut self, node: usize, now: u64) {
        let open = self.open.iter().filter(|((at, _), _)| *at == node);
        let mut lost: Vec<_> = open.map(|(call, place)| (*call, *place)).collect();
        lost.sort();
        for (call, (at, _)) in lost {
            self.open.remove(&call);
            let published = &mut self.published[at];
            if published.is_repeatable && now < published.first_at + REPEATS_FOR - 3_000 {
                published.repeat_at = Some(now + self.rng.u64(100..3_000));
            }
        }
    }

    /// Compares the answers with the events at the end.
    pub(crate) fn check(&self, history: &FinalHistory, plan: &Plan) -> Result<(), Violation> {
        let mut places: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (offset, serial) in &history.events {
            places.entry(*serial).or_default().push(*offset);
        }
        let of = |serial: &u64| places.get(serial).map_or(&[][..], Vec::as_slice);
        for published in &self.published {
            let counts: Vec<usize> = published.serials.iter().map(|s| of(s).len()).collect();
            let serial = published.serials[0];
            if let Some(at) = counts.iter().position(|count| *count > 1) {
                return Err(Violation::AppliedTwice { serial: published.serials[at] });
            }
            if counts.iter().any(|count| *count != counts[0]) {
                return Err(Violation::GroupTorn { serial });
            }
            published.check(&of, counts[0], plan, history.from)?;
        }
        if plan.may_lose() { Ok(()) } else { self.check_streams(of) }
    }

    fn check_streams<'a>(&self, of: impl Fn(&u64) -> &'a [u64]) -> Result<(), Violation> {
        let mut last: HashMap<u64, u64> = HashMap::new();
        for published in &self.published {
            let Some(stream) = published.publish.stream else { continue };
            // Only applied events of a stream have an order. A real publisher ends its stream at
            // the first event with an unknown outcome.
            let is_applied =
                |attempt: &Attempt| matches!(attempt, Attempt::Answered(Answer::Applied { .. }, _));
            if !published.attempts.iter().any(is_applied) {
                continue;
            }
            for serial in &published.serials {
                let Some(offset) = of(serial).first() else { continue };
                if last.insert(stream, *offset).is_some_and(|before| before > *offset) {
                    return Err(Violation::StreamReordered { serial: *serial });
                }
            }
        }
        Ok(())
    }
}

impl Published {
    fn check<'a>(
        &self,
        of: &impl Fn(&u64) -> &'a [u64],
        count: usize,
        plan: &Plan,
        known_from: u64,
    ) -> Result<(), Violation> {
        let serial = self.serials[0];
        let mut may_be_applied = self.is_cloned;
        for attempt in &self.attempts {
            match attempt {
                Attempt::Answered(Answer::Applied { events }, _) if !plan.may_lose() => {
                    may_be_applied = true;
                    let is_there = |(serial, event): (&u64, &AppliedEvent)| {
                        let offset = event.offset.get();
                        offset < known_from || of(serial).contains(&offset)
                    };
                    if !self.serials.iter().zip(events).all(is_there) {
                        return Err(Violation::AcknowledgedButMissing { serial });
                    }
                }
                // After a loss of the engine, an entry that could no longer be applied may be
                // applied after all.
                Attempt::Answered(Answer::Unavailable { appended: true }, _)
                | Attempt::Answered(Answer::Refused(_), false) => {
                    may_be_applied |= plan.may_lose();
                }
                Attempt::Answered(
                    Answer::Unavailable { .. } | Answer::Refused(_) | Answer::TooLarge,
                    _,
                ) => {}
                Attempt::Open | Attempt::Answered(..) => may_be_applied = true,
            }
        }
        if count > 0 && !may_be_applied {
            return Err(Violation::RefusedButApplied { serial });
        }
        Ok(())
    }
}
