//! A deterministic simulation: three nodes over one journal with faults, in virtual time.
//!
//! A run depends only on its seed. `DOWNLINK_CLUSTER_SEED` is the first seed, and
//! `DOWNLINK_CLUSTER_RUNS` the number of runs.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

#[path = "../contract/mod.rs"]
mod contract;
mod journal;
mod model;
mod oracle;
mod plan;
mod publishers;
mod readers;
mod real;
mod upgrade;
mod violation;
mod world;

use std::{
    pin::pin,
    task::{Context, Waker},
};

use downlink_cluster::{Mutant, Rules};

use crate::{
    journal::{Rates, SimulatedJournal},
    violation::Violation,
    world::{Coverage, run},
};

/// The number of runs in the normal tests.
const RUNS: u64 = 200;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// Runs the simulation, and names the seed of a violation.
fn run_or_panic(seed: u64, rules: Rules) -> Coverage {
    run(seed, rules).unwrap_or_else(|violation| {
        panic!(
            "{violation:?} with seed {seed}; repeat it with DOWNLINK_CLUSTER_SEED={seed} \
             DOWNLINK_CLUSTER_RUNS=1 cargo test -p downlink-cluster --test simulation every_run"
        )
    })
}

#[test]
fn every_run_keeps_all_invariants_and_the_runs_contain_every_fault() {
    let (first, runs) = (number("DOWNLINK_CLUSTER_SEED", 0), number("DOWNLINK_CLUSTER_RUNS", RUNS));
    let coverage: Vec<Coverage> =
        (first..first + runs).map(|seed| run_or_panic(seed, Rules::default())).collect();
    let table = Coverage::table(&coverage);
    for (name, count) in &table {
        println!("{name:24}{count:>8} of {runs} runs");
    }
    if runs >= RUNS {
        for (name, count) in table {
            assert!(count >= runs / 50, "{name}: only in {count} of {runs} runs");
        }
    }
}

/// Without faults, the simulated engine keeps the same contract as every other engine.
#[test]
fn the_simulated_journal_keeps_the_contract() {
    for seed in 0..20 {
        let rates = Rates { delay_max: 20, ..Rates::default() };
        let engine = SimulatedJournal::new(fastrand::Rng::with_seed(seed), rates, seed % 2 == 0);
        let mut checked = pin!(contract::check([engine.for_node(0), engine.for_node(1)]));
        let mut cx = Context::from_waker(Waker::noop());
        let mut now = 0;
        while checked.as_mut().poll(&mut cx).is_pending() {
            now += 1;
            assert!(now < 1_000_000, "the contract is still waiting");
            engine.engine().advance(now);
        }
    }
}

#[test]
fn a_run_depends_only_on_its_seed() {
    for seed in [1, 4, 7] {
        let runs = [(); 2].map(|()| format!("{:?}", run(seed, Rules::default())));
        assert_eq!(runs[0], runs[1]);
    }
}

/// The first seed that finds a mutant, and its violation.
fn find(mutant: Mutant) -> (u64, Violation) {
    let mut rules = Rules::default();
    rules.mutant = Some(mutant);
    let found = (0..RUNS).find_map(|seed| Some((seed, run(seed, rules).err()?)));
    let found = found.unwrap_or_else(|| panic!("no seed below {RUNS} finds {mutant:?}"));
    println!("{mutant:?}: seed {}, {:?}", found.0, found.1);
    found
}

#[test]
fn the_simulation_finds_random_marks() {
    find(Mutant::RandomMarks);
}

#[test]
fn the_simulation_finds_epoch_names_in_ids() {
    find(Mutant::EpochNames);
}

#[test]
fn the_simulation_finds_entries_with_the_position_of_their_packing() {
    let (_, violation) = find(Mutant::SeenAtPacking);
    assert!(matches!(violation, Violation::AppliedTwice { .. }), "{violation:?}");
}

#[test]
fn the_simulation_finds_decisions_that_compare_outcomes() {
    let (_, violation) = find(Mutant::CompareOutcomes);
    assert!(matches!(violation, Violation::NodesDisagree { .. }), "{violation:?}");
}

#[test]
fn the_simulation_finds_nodes_that_take_publishes_too_early() {
    let (_, violation) = find(Mutant::YoungPublishers);
    assert!(matches!(violation, Violation::AppliedTwice { .. }), "{violation:?}");
}

#[test]
fn the_simulation_finds_a_false_loss_for_an_id_ahead_of_the_node() {
    let (_, violation) = find(Mutant::AheadIsLost);
    assert!(matches!(violation, Violation::FalseGap { .. }), "{violation:?}");
}

#[test]
fn the_simulation_finds_the_creation_time_as_epoch() {
    let (_, violation) = find(Mutant::CreationTimeAsEpoch);
    let is_silent = matches!(violation, Violation::SilentLoss { .. } | Violation::IdTwice { .. });
    assert!(is_silent, "{violation:?}");
}
