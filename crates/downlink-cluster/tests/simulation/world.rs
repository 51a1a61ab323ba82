//! Three nodes over one journal, with publishers and readers, in virtual time.

use std::{
    collections::BTreeMap,
    task::{Context, Waker},
    time::Duration,
};

use downlink_cluster::{
    Answer, Base, Driver, HubId, HubKey, JournalError, Node, NodeSettings, Position, Publish,
    PublishId, Resume, Rules, Snapshot, WriterId, first_entry,
};
use downlink_log::{Cursor, Offset, Timestamp};

use crate::{
    journal::{Happened, SimulatedJournal},
    model::ModelLog,
    oracle,
    plan::{Fault, Plan, QUIET_FROM},
    publishers::Publishers,
    readers::Readers,
    real,
    violation::{Check, Violation},
};

pub(crate) const HUB: HubId = HubId([4; 16]);
/// A step of virtual time in milliseconds.
const STEP: u64 = 50;
/// The end of a run. The nodes have time to find every loss.
const END: u64 = QUIET_FROM + 50_000;
/// The three nodes, and a place for a clone.
pub(crate) const NODES: usize = 4;
pub(crate) const CLONE: usize = 3;
/// For one of this many seeds, the real logs that repeat the calls have a cache in a file.
const CACHED_EVERY: u64 = 9;
/// How long a clone lives.
const CLONE_LIVES: u64 = 12_000;

type SimulatedDriver = Driver<SimulatedJournal, ModelLog>;

/// The state of a node that is down.
struct Down {
    until: u64,
    log: ModelLog,
}

pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) plan: Plan,
    pub(crate) rng: fastrand::Rng,
    journal: SimulatedJournal,
    pub(crate) nodes: [Option<SimulatedDriver>; NODES],
    down: BTreeMap<usize, Down>,
    clone_until: u64,
    /// The number of clones so far.
    pub(crate) clones: u64,
    init_at: Option<u64>,
    base: Base,
    pub(crate) coverage: Coverage,
    /// Whether the calls of the logs are repeated with a cache.
    has_cache: bool,
}

/// The faults in a run, and the reactions to them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage {
    pub(crate) happened: Happened,
    pub(crate) skews: u64,
    pub(crate) lost_cache_ends: u64,
    pub(crate) holes: u64,
    pub(crate) rollbacks: u64,
    pub(crate) rollbacks_all_down: u64,
    pub(crate) identities: u64,
    pub(crate) clones_found: u64,
    pub(crate) began_in_the_middle: u64,
    pub(crate) cuts: u64,
    pub(crate) dropped: u64,
    pub(crate) void: u64,
    pub(crate) applied: u64,
    pub(crate) unknown: u64,
    pub(crate) hops: u64,
    pub(crate) waits: u64,
    pub(crate) told: u64,
    pub(crate) shown: u64,
}

/// Runs the simulation with one seed.
pub(crate) fn run(seed: u64, rules: Rules) -> Result<Coverage, Violation> {
    let plan = Plan::new(seed, rules);
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x5eed);
    let journal = SimulatedJournal::new(rng.fork(), plan.rates.clone(), plan.skips_copies);
    let mut world = World {
        now: 1_000_000,
        plan,
        journal,
        nodes: [None, None, None, None],
        down: BTreeMap::new(),
        clone_until: 0,
        clones: 0,
        init_at: None,
        base: Base::above(Offset::new(rng.u64(1..1_000))),
        coverage: Coverage::default(),
        has_cache: seed.is_multiple_of(CACHED_EVERY),
        rng,
    };
    world.run()
}

impl World {
    fn run(&mut self) -> Result<Coverage, Violation> {
        let start = self.now;
        self.journal.engine().advance(start);
        self.found();
        for node in 0..3 {
            self.start(node, ModelLog::default());
        }
        let mut publishers = Publishers::new(self.rng.fork());
        let mut readers = Readers::new(self.rng.fork());
        let mut faults = self.plan.faults.clone();
        let mut check = Check::default();
        while self.now < start + END {
            self.now += STEP;
            let now = self.now;
            self.journal.engine().advance(now);
            while faults.first().is_some_and(|(at, _)| start + at <= self.now) {
                let (at, fault) = faults.remove(0);
                if let Fault::Clone { node } = fault
                    && !publishers.can_clone(node)
                {
                    faults.insert(0, (at + STEP, fault));
                    break;
                }
                if let Fault::Clone { node } = fault {
                    publishers.handle_cloned(node);
                    // The new clone takes the place of an earlier one.
                    publishers.handle_stopped(CLONE, self.now);
                }
                self.inject(fault);
                self.note_stopped(&mut publishers);
            }
            self.restart_nodes();
            if self.now < start + QUIET_FROM {
                publishers.step(self);
            } else {
                self.journal.engine().rates.tail_pause = 0;
                self.journal.engine().rates.late = 0;
            }
            self.poll(&mut publishers, &mut check)?;
            readers.step(self, &mut check)?;
        }
        self.finish(&publishers, &mut readers, &mut check)
    }

    /// The operator founds the cluster.
    fn found(&mut self) {
        let snapshot = Snapshot {
            key: HubKey::from_random(oracle::KEY),
            base: self.base,
            epochs: Vec::new(),
            forks: Vec::new(),
        };
        let writer = WriterId(self.rng.u64(..));
        let bytes = first_entry(HUB, writer, snapshot).unwrap();
        let name = downlink_cluster::EntryName { writer, counter: 0 };
        self.journal.engine().append(name, bytes);
    }

    pub(crate) fn time(&self) -> Timestamp {
        Timestamp::from_millis(self.now)
    }

    /// Starts a node with the history that its cache has kept.
    fn start(&mut self, node: usize, log: ModelLog) {
        let mut settings = NodeSettings::new(HUB);
        settings.rules = self.plan.rules;
        settings.mature_after = Duration::from_secs(40);
        settings.snapshot_every = Duration::from_secs(6);
        let history = log.history(&self.plan.rules);
        let node_ = Node::new(self.time(), settings, log, history);
        self.drive(node, node_);
    }

    fn drive(&mut self, node: usize, state: Node<ModelLog>) {
        let mut rng = self.rng.fork();
        let journal = self.journal.for_node(node);
        self.nodes[node] = Some(Driver::new(state, journal, move || rng.u64(..)));
    }

    /// Stops a node. Its cache survives, but its publishers get no answers.
    fn stop(&mut self, node: usize, millis: u64) {
        let Some(driver) = self.nodes[node].take() else { return };
        let state = driver.into_node();
        self.note_totals(&state);
        self.down.insert(node, Down { until: self.now + millis, log: state.log().clone() });
    }

    fn note_totals(&mut self, node: &Node<ModelLog>) {
        let totals = node.totals();
        self.coverage.clones_found += totals.clones;
        self.coverage.cuts += totals.cuts;
        self.coverage.dropped += totals.dropped;
        self.coverage.void += totals.void;
    }

    fn restart_nodes(&mut self) {
        let now = self.now;
        if self.nodes[CLONE].is_some() && now >= self.clone_until {
            let clone = self.nodes[CLONE].take().map(Driver::into_node);
            clone.iter().for_each(|node| self.note_totals(node));
        }
        let ready = |down: &Down| down.until <= now;
        while let Some(node) = self.down.iter().find(|(_, d)| ready(d)).map(|(node, _)| *node) {
            let Down { mut log, .. } = self.down.remove(&node).unwrap();
            log.reopen();
            self.start(node, log);
        }
        if self.init_at.is_some_and(|at| at <= now) {
            self.init_at = None;
            self.found();
        }
    }

    fn inject(&mut self, fault: Fault) {
        let down_for = self.rng.u64(200..4_000);
        match fault {
            Fault::Purge { kept } => {
                let mut engine = self.journal.engine();
                let first = engine.last.saturating_sub(kept);
                engine.entries.retain(|position, _| *position > first);
            }
            Fault::Crash { node } => self.stop(node, down_for),
            Fault::LoseCacheEnd { node } => {
                self.stop(node, down_for);
                self.lose_cache_end(node);
            }
            Fault::LoseCache { node } => {
                self.stop(node, down_for);
                if let Some(down) = self.down.get_mut(&node) {
                    down.log.forget_all();
                    let is_purged = !self.journal.engine().entries.contains_key(&1);
                    self.coverage.began_in_the_middle += u64::from(is_purged);
                }
            }
            Fault::Clone { node } => self.clone_node(node),
            Fault::Skew { millis } => {
                self.coverage.skews += u64::from(millis != 0);
                self.journal.engine().skew = millis;
            }
            Fault::CutOff { node, millis } => {
                let until = self.now + millis;
                self.journal.engine().cut_off_until[node] = until;
            }
            Fault::Outage { millis } => {
                let until = self.now + millis;
                self.journal.engine().cut_off_until = [until; NODES];
            }
            loss => self.lose(loss),
        }
    }

    /// Injects a fault in which the engine loses entries.
    fn lose(&mut self, fault: Fault) {
        match fault {
            Fault::Rollback { .. } if self.journal.engine().last == 0 => {}
            Fault::Rollback { entries } => {
                self.coverage.rollbacks += 1;
                self.journal.engine().roll_back(entries);
            }
            Fault::RollbackAllDown { entries } => {
                self.coverage.rollbacks_all_down += 1;
                for node in 0..3 {
                    let millis = self.rng.u64(500..5_000);
                    self.stop(node, millis);
                }
                self.nodes[CLONE] = None;
                self.journal.engine().roll_back(entries);
                // In half of the runs, no node remembers the lost entries.
                if self.rng.bool() {
                    self.down.values_mut().for_each(|down| down.log.forget_all());
                }
            }
            Fault::Hole => {
                let mut engine = self.journal.engine();
                let until = engine.last.saturating_sub(self.rng.u64(0..4)).max(3);
                let from = until.saturating_sub(self.rng.u64(1..6)).max(2);
                self.coverage.holes += 1;
                engine.make_hole(from..until);
            }
            Fault::NewIdentity => {
                self.coverage.identities += 1;
                self.journal.engine().replace();
            }
            Fault::Vanish => {
                self.coverage.identities += 1;
                let last = self.journal.engine().last;
                self.base = Base::above(self.base.offset(Position::new(last + 1), 0));
                self.journal.engine().vanish();
                self.init_at = Some(self.now + 3_000);
            }
            other => unreachable!("{other:?} loses nothing"),
        }
    }

    /// Removes the newest entries of a node's cache, as a power cut does.
    fn lose_cache_end(&mut self, node: usize) {
        let lost = self.rng.u64(1..30);
        let Some(Down { log, .. }) = self.down.get_mut(&node) else { return };
        let Some(history) = log.history(&self.plan.rules) else { return };
        self.coverage.lost_cache_ends += u64::from(log.lose_end(lost, &history));
    }

    /// Copies a running process, with everything that it has in memory.
    fn clone_node(&mut self, node: usize) {
        let Some(driver) = &self.nodes[node] else { return };
        let state = driver.node().clone();
        let now = self.time();
        self.clones += 1;
        self.drive(CLONE, state);
        if let Some(clone) = &mut self.nodes[CLONE] {
            // The connections of the clone are broken.
            clone.node_mut().handle_tail(now, Err(JournalError::Replaced));
        }
        self.clone_until = self.now + CLONE_LIVES;
    }

    fn poll(&mut self, publishers: &mut Publishers, check: &mut Check) -> Result<(), Violation> {
        let now = self.time();
        let mut cx = Context::from_waker(Waker::noop());
        for at in 0..NODES {
            let Some(driver) = &mut self.nodes[at] else { continue };
            driver.poll(now, &mut cx);
            let mut answers: Vec<(PublishId, Answer)> = Vec::new();
            while let Some(answer) = driver.node_mut().poll_answer() {
                answers.push(answer);
            }
            for (id, answer) in answers {
                match &answer {
                    Answer::Applied { .. } => self.coverage.applied += 1,
                    Answer::OutcomeUnknown => self.coverage.unknown += 1,
                    _ => {}
                }
                publishers.handle_answer(at, id, answer, self.now);
            }
            check.note_applied(self.nodes[at].as_mut().unwrap().node_mut())?;
        }
        Ok(())
    }

    /// Publishes at a node. The answer comes later.
    pub(crate) fn publish(&mut self, node: usize, publish: Publish) -> Option<PublishId> {
        let now = self.time();
        let driver = self.nodes[node].as_mut()?;
        Some(driver.node_mut().publish(now, publish))
    }

    /// The checks at the end.
    fn finish(
        &mut self,
        publishers: &Publishers,
        readers: &mut Readers,
        check: &mut Check,
    ) -> Result<Coverage, Violation> {
        for node in 0..3 {
            let state = self.nodes[node].as_ref().map(Driver::node);
            let engine_last = self.journal.engine().last;
            let last = state.and_then(|node| node.history()).map(|h| h.chain().last().get());
            // Entries may still be on their way to a tail.
            if !state.is_some_and(Node::serves_readers) || last.unwrap_or(0) + 8 < engine_last {
                return Err(Violation::Stuck { node });
            }
        }
        let truth = self.journal.engine().truth.clone();
        let naive = oracle::log(&truth, HUB, self.base, &self.plan.rules);
        let mut nodes: Vec<Node<ModelLog>> =
            self.nodes[..3].iter().flatten().map(|driver| driver.node().clone()).collect();
        if self.plan.rules.mutant.is_none() {
            let (now, ids) = (self.time(), check.ids());
            for node in &mut nodes {
                let resumes = ids.iter().map(|id| (id.as_str(), resume(node, now, id))).collect();
                real::repeat(node, self.has_cache, resumes).map_err(Violation::RealLog)?;
            }
        }
        let history = check.final_history(&nodes, naive, &self.plan)?;
        publishers.check(&history, &self.plan)?;
        let now = self.time();
        self.coverage.told += readers.finish(&mut nodes, &history, check, (now, &self.plan))?.told;
        nodes.iter().for_each(|node| self.note_totals(node));
        self.coverage.happened = self.journal.engine().happened.clone();
        self.coverage.shown = history.events.len() as u64;
        Ok(self.coverage.clone())
    }

    /// Publishers of nodes that are down get no answers.
    fn note_stopped(&self, publishers: &mut Publishers) {
        for node in (0..NODES).filter(|node| self.nodes[*node].is_none()) {
            publishers.handle_stopped(node, self.now);
        }
    }
}

/// Where the reader of an id continues. The node has already asked the journal for its end.
fn resume(node: &mut Node<ModelLog>, now: Timestamp, id: &str) -> Resume {
    let long_ago = Timestamp::default();
    let answer = match Cursor::parse_id(id) {
        Some(cursor) => node.resume(now, &cursor, long_ago),
        None => node.resume_after_publisher_id(now, id, long_ago),
    };
    node.poll_request();
    answer
}

impl Coverage {
    /// The number of runs that contained each fault and each reaction.
    pub(crate) fn table(runs: &[Self]) -> Vec<(&'static str, u64)> {
        type Count = fn(&Coverage) -> u64;
        let counts: [(&'static str, Count); 21] = [
            ("repeated entries", |run| run.happened.repeats),
            ("reordered answers", |run| run.happened.reordered),
            ("lost acknowledgements", |run| run.happened.lost_acknowledgements),
            ("refused repeats", |run| run.happened.refused_repeats),
            ("late entries", |run| run.happened.late),
            ("holes", |run| run.holes),
            ("rollbacks", |run| run.rollbacks),
            ("two rollbacks", |run| run.rollbacks / 2),
            ("rollbacks, all down", |run| run.rollbacks_all_down),
            ("changed identities", |run| run.identities),
            ("clocks off by an hour", |run| run.skews),
            ("lost ends of caches", |run| run.lost_cache_ends),
            ("clones found", |run| run.clones_found),
            ("began in the middle", |run| run.began_in_the_middle),
            ("lost ends found", |run| run.cuts),
            ("dropped groups", |run| run.dropped),
            ("void entries", |run| run.void),
            ("unknown outcomes", |run| run.unknown),
            ("readers moved", |run| run.hops),
            ("readers ahead of a node", |run| run.waits),
            ("gaps", |run| run.told),
        ];
        let runs_with = |count: Count| runs.iter().filter(|run| count(run) > 0).count() as u64;
        counts.into_iter().map(|(name, count)| (name, runs_with(count))).collect()
    }
}
