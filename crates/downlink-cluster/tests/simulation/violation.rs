//! The invariants that concern all nodes.

use std::collections::{BTreeMap, HashMap};

use downlink_cluster::{Mark, Mutant, Node, Position};
use downlink_log::{GapReason, Offset};

use crate::{
    model::{ModelLog, serial_of},
    oracle::Naive,
    plan::{Fault, Plan},
    real::Difference,
};

/// One of this many ids is looked up in the real log.
const IDS_EVERY: usize = 7;

/// A broken invariant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Violation {
    /// Two nodes decided differently about the same history.
    NodesDisagree { position: u64 },
    /// One id stands for two events.
    IdTwice { id: String },
    /// A node and the naive log differ at this offset.
    WrongDecision { node: usize, offset: u64 },
    /// The real log differs from the model of a log, which the nodes of the simulation feed.
    RealLog(Difference),
    /// At the end, a node serves no readers, or has not read all entries.
    Stuck { node: usize },
    /// An event is in the log more than once.
    AppliedTwice { serial: u64 },
    /// An acknowledged event is not in the log, or has another offset.
    AcknowledgedButMissing { serial: u64 },
    /// An event was refused for good, and is in the log.
    RefusedButApplied { serial: u64 },
    /// A part of a group is missing.
    GroupTorn { serial: u64 },
    /// The events of a stream are not in order.
    StreamReordered { serial: u64 },
    /// A reader missed an event, or got a lost one, and no gap says so.
    SilentLoss { reader: usize, offset: u64 },
    /// A reader got a gap in a run without any loss.
    FalseGap { reason: GapReason },
}

/// The decisions of all nodes, and the ids that readers got.
#[derive(Debug, Default)]
pub(crate) struct Check {
    decisions: HashMap<(Position, Mark), Vec<(u64, u64)>>,
    ids: HashMap<String, u64>,
}

/// The events at the end: the number of each event by its offset.
#[derive(Debug)]
pub(crate) struct FinalHistory {
    pub(crate) events: BTreeMap<u64, u64>,
    /// Below this offset, the events are not known.
    pub(crate) from: u64,
    pub(crate) until: u64,
}

impl Check {
    /// Compares the events that a node has just applied with the decisions of the other nodes.
    pub(crate) fn note_applied(&mut self, node: &mut Node<ModelLog>) -> Result<(), Violation> {
        let applied = std::mem::take(&mut node.log_mut().applied);
        let Some(history) = node.history() else { return Ok(()) };
        for (position, mark, events) in applied {
            let is_shown = history.chain().shown_from().is_some_and(|shown| shown <= position);
            if !is_shown || history.chain().mark(position) != Some(mark) {
                continue;
            }
            let known = self.decisions.entry((position, mark)).or_insert_with(|| events.clone());
            if *known != events {
                return Err(Violation::NodesDisagree { position: position.get() });
            }
        }
        Ok(())
    }

    /// Notes that a reader got this event.
    pub(crate) fn note_id(&mut self, id: &str, serial: u64) -> Result<(), Violation> {
        let known = *self.ids.entry(id.to_owned()).or_insert(serial);
        let violation = Violation::IdTwice { id: id.to_owned() };
        if known == serial { Ok(()) } else { Err(violation) }
    }

    /// Some of the ids that readers got.
    pub(crate) fn ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.ids.keys().cloned().collect();
        ids.sort_unstable();
        ids.into_iter().step_by(IDS_EVERY).collect()
    }

    /// Compares the nodes with each other and with the naive log.
    pub(crate) fn final_history(
        &self,
        nodes: &[Node<ModelLog>],
        naive: Naive,
        plan: &Plan,
    ) -> Result<FinalHistory, Violation> {
        let ranges: Vec<(u64, u64)> = nodes.iter().map(shown).collect();
        let until = ranges.iter().map(|(_, until)| *until).min().unwrap_or(0);
        let lowest = ranges.iter().map(|(from, _)| *from).min().unwrap_or(0);
        let mut union: BTreeMap<u64, (u64, String)> = BTreeMap::new();
        for (node, (from, _)) in nodes.iter().zip(&ranges) {
            let own = events(node, *from, until);
            for (offset, event) in &union {
                let is_different = own.get(offset) != Some(event);
                if *offset >= *from && is_different {
                    return Err(Violation::NodesDisagree { position: *offset });
                }
            }
            let known = union.keys().copied().collect::<std::collections::HashSet<u64>>();
            let covered = ranges[..].iter().zip(nodes);
            let _ = covered;
            for (offset, event) in own {
                if !known.contains(&offset) && self.is_covered(&ranges, node, nodes, offset) {
                    return Err(Violation::NodesDisagree { position: offset });
                }
                union.insert(offset, event);
            }
        }
        // There are two cases in which the nodes are not compared with the naive log. First, no
        // node may have read the entries of a hole. The nodes then agree on a mark after it, which
        // a naive log cannot know. Second, the nodes may run with the mutant `CompareOutcomes`.
        // Such a run must fail only if two nodes disagree.
        let has_hole = plan.has(|fault| matches!(fault, Fault::Hole | Fault::Purge { .. }));
        let begins_anew = has_hole && nodes.iter().any(|node| !agrees(node, &naive));
        if begins_anew || plan.rules.mutant == Some(Mutant::CompareOutcomes) {
            let events = union.into_iter().map(|(offset, (serial, _))| (offset, serial)).collect();
            return Ok(FinalHistory { events, from: lowest, until });
        }
        for (node, (state, (from, _))) in nodes.iter().zip(&ranges).enumerate() {
            let own = events(state, *from, until);
            let naive: BTreeMap<u64, u64> = naive
                .events
                .range(*from..until)
                .map(|(offset, serial)| (*offset, *serial))
                .collect();
            let own: BTreeMap<u64, u64> = own.into_iter().map(|(at, (s, _))| (at, s)).collect();
            if own != naive {
                let offsets = own.keys().chain(naive.keys());
                let offset = offsets.filter(|at| own.get(at) != naive.get(at)).min().unwrap();
                return Err(Violation::WrongDecision { node, offset: *offset });
            }
        }
        Ok(FinalHistory { events: naive.events, from: 0, until })
    }

    /// Whether an earlier node of the list shows the events at this offset.
    fn is_covered(
        &self,
        ranges: &[(u64, u64)],
        node: &Node<ModelLog>,
        nodes: &[Node<ModelLog>],
        offset: u64,
    ) -> bool {
        let earlier = nodes.iter().zip(ranges).take_while(|(other, _)| !std::ptr::eq(*other, node));
        { earlier }.any(|(_, (from, _))| *from <= offset)
    }
}

/// Whether a node has the mark of the naive log at its last position.
fn agrees(node: &Node<ModelLog>, naive: &Naive) -> bool {
    let Some(chain) = node.history().map(|history| history.chain()) else { return false };
    let naive = naive.marks.get(chain.last().get() as usize).copied();
    chain.mark(chain.last()).map(Mark::get) == naive
}

/// The first shown offset, and the offset after the last position.
fn shown(node: &Node<ModelLog>) -> (u64, u64) {
    let Some(history) = node.history() else { return (0, 0) };
    let chain = history.chain();
    let from = chain.shown_from().unwrap_or(chain.last().next());
    (history.first_offset(from).get(), history.first_offset(chain.last().next()).get())
}

/// The events of a node with their ids.
fn events(node: &Node<ModelLog>, from: u64, until: u64) -> BTreeMap<u64, (u64, String)> {
    let range = from.min(until)..until;
    let events = node.log().events.range(range);
    events
        .map(|(offset, event)| {
            let id = node.id(Offset::new(*offset)).map(|id| id.to_string());
            (*offset, (serial_of(event), id.unwrap_or_default()))
        })
        .collect()
}
