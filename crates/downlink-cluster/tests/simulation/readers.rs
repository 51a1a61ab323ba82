//! Readers: each remembers only the last event id, as a browser does, and moves between the nodes.
//!
//! From one gap to the next, a reader must get exactly the events of the final history.

use downlink_cluster::{Node, Resume};
use downlink_log::{Cursor, GapReason, Offset, Timestamp};

use crate::{
    model::{ModelLog, serial_of},
    plan::{Fault, Plan},
    violation::{Check, FinalHistory, Violation},
    world::{CLONE, Coverage, NODES, World},
};

/// The number of readers.
const READERS: usize = 5;

#[derive(Default)]
struct Reader {
    /// The last event id.
    last_id: Option<String>,
    /// The node, the life of its log, and the last offset that was read there. The life is a number
    /// that rises each time the log ends its readers.
    connected: Option<(usize, u64, u64)>,
    /// The number of clones that had been made when the reader connected. A new clone takes the
    /// place of an earlier one, and its log may have the same life.
    clones: u64,
    /// The node at which the reader waits, and since when.
    waiting: Option<(usize, u64)>,
    /// Where the events since the last gap begin.
    from: u64,
    /// The offsets and numbers of the events since the last gap.
    events: Vec<(u64, u64)>,
    /// Whether the last id is a publisher's, which carries no mark.
    is_publishers_id: bool,
}

pub(crate) struct Readers {
    rng: fastrand::Rng,
    readers: Vec<Reader>,
}

impl Readers {
    pub(crate) fn new(rng: fastrand::Rng) -> Self {
        Self { rng, readers: (0..READERS).map(|_| Reader::default()).collect() }
    }

    /// Lets each reader read or move.
    pub(crate) fn step(&mut self, world: &mut World, check: &mut Check) -> Result<(), Violation> {
        let now = world.time();
        for reader in &mut self.readers {
            if self.rng.u8(0..4) != 0 {
                continue;
            }
            if self.rng.u8(0..40) == 0 {
                reader.connected = None;
                world.coverage.hops += 1;
            }
            if reader.connected.is_none() {
                let node = reader.waiting.map_or(self.rng.usize(0..NODES), |(node, _)| node);
                let Some(driver) = &mut world.nodes[node] else {
                    reader.waiting = None;
                    continue;
                };
                reader.connect(now, node, driver.node_mut(), &mut world.coverage, &world.plan)?;
                reader.clones = world.clones;
            }
            let Some((node, life, _)) = reader.connected else { continue };
            let is_same = node != CLONE || reader.clones == world.clones;
            let is_open = |log: &ModelLog| is_same && log.life == life;
            match world.nodes[node].as_ref().filter(|driver| is_open(driver.node().log())) {
                Some(driver) => reader.read(driver.node(), check, self.rng.usize(1..20))?,
                None => reader.connected = None,
            }
        }
        Ok(())
    }

    /// All readers connect to a node once more, read to the end, and compare their events with the
    /// final history.
    pub(crate) fn finish(
        &mut self,
        nodes: &mut [Node<ModelLog>],
        history: &FinalHistory,
        check: &mut Check,
        (now, plan): (Timestamp, &Plan),
    ) -> Result<Coverage, Violation> {
        let mut coverage = Coverage::default();
        for (at, reader) in self.readers.iter_mut().enumerate() {
            reader.connected = None;
            reader.waiting = None;
            let node = &mut nodes[at % 3];
            // The nodes have read everything, so an answer about the end is up to date.
            reader.connect(now, at % 3, node, &mut coverage, plan)?;
            if reader.connected.is_some() {
                reader.read(node, check, usize::MAX)?;
            }
            reader.check(at, history)?;
        }
        Ok(coverage)
    }
}

impl Reader {
    fn connect(
        &mut self,
        now: Timestamp,
        node: usize,
        state: &mut Node<ModelLog>,
        coverage: &mut Coverage,
        plan: &Plan,
    ) -> Result<(), Violation> {
        let life = state.log().life;
        let since = self.waiting.map_or(now, |(_, since)| Timestamp::from_millis(since));
        let Some(id) = self.last_id.clone() else {
            let oldest = state.history().filter(|_| state.serves_readers()).and_then(|history| {
                Some(history.first_offset(history.chain().shown_from()?).get())
            });
            if let Some(from) = oldest {
                self.begin(node, life, from);
            }
            return Ok(());
        };
        let resume = match Cursor::parse_id(&id) {
            Some(cursor) => state.resume(now, &cursor, since),
            None => state.resume_after_publisher_id(now, &id, since),
        };
        self.waiting = None;
        match resume {
            Resume::After(offset) => {
                let is_unprotected = self.is_publishers_id && plan.may_lose();
                if is_unprotected {
                    self.begin(node, life, offset.get() + 1);
                }
                self.connected = Some((node, life, offset.get()));
            }
            Resume::Gap { reason, next } => {
                let is_false = match reason {
                    GapReason::Evicted => {
                        !plan.may_lose() && !plan.has(|f| matches!(f, Fault::Purge { .. }))
                    }
                    _ => !plan.may_lose(),
                };
                if is_false {
                    return Err(Violation::FalseGap { reason });
                }
                coverage.told += 1;
                self.begin(node, life, next.get());
            }
            Resume::Wait => {
                coverage.waits += 1;
                self.waiting = Some((node, since.as_millis()));
            }
            Resume::Unavailable => {}
        }
        Ok(())
    }

    /// Begins at an offset. The reader knows that earlier events may be missing.
    fn begin(&mut self, node: usize, life: u64, from: u64) {
        self.connected = Some((node, life, from - 1));
        self.from = from;
        self.events.clear();
    }

    fn read(
        &mut self,
        node: &Node<ModelLog>,
        check: &mut Check,
        events_max: usize,
    ) -> Result<(), Violation> {
        let Some((_, _, last)) = &mut self.connected else { return Ok(()) };
        for (offset, event) in node.log().events.range(*last + 1..).take(events_max) {
            *last = *offset;
            let serial = serial_of(event);
            let own = node.id(Offset::new(*offset)).map(|id| id.to_string());
            let id = event.id.as_deref().map(str::to_owned).or(own);
            if let Some(id) = id {
                check.note_id(&id, serial)?;
                self.is_publishers_id = event.id.is_some();
                self.last_id = Some(id);
            }
            self.events.push((*offset, serial));
        }
        Ok(())
    }

    fn check(&self, at: usize, history: &FinalHistory) -> Result<(), Violation> {
        let from = self.from.max(history.from);
        let end = self.events.last().map_or(0, |(offset, _)| offset + 1).min(history.until);
        let got = self.events.iter().copied().filter(|(offset, _)| (from..end).contains(offset));
        let got: Vec<(u64, u64)> = got.collect();
        let expected = history.events.range(from..end.max(from)).map(|(at, s)| (*at, *s));
        let expected: Vec<(u64, u64)> = expected.collect();
        let differs = |at: &usize| got.get(*at) != expected.get(*at);
        match (0..got.len().max(expected.len())).find(differs) {
            None => Ok(()),
            Some(place) => {
                let offsets = [got.get(place), expected.get(place)];
                let offset = offsets.into_iter().flatten().map(|(offset, _)| *offset).min();
                Err(Violation::SilentLoss { reader: at, offset: offset.unwrap_or(0) })
            }
        }
    }
}
