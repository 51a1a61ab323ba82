//! The faults of a run, chosen by its seed.

use downlink_cluster::Rules;

use crate::journal::Rates;

/// A kind of run. Each kind guarantees one fault, and adds others by chance.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// Only delays, lost messages and copies.
    Network,
    /// Nodes crash, caches lose their end, clocks are wrong, processes are cloned.
    Nodes,
    /// The engine loses its newest entries once.
    Rollback,
    /// The engine loses its newest entries twice within a short time.
    TwoRollbacks,
    /// The engine loses its newest entries while all nodes are down.
    RollbackAllDown,
    /// The engine loses entries in the middle of the journal.
    Hole,
    /// The journal gets another identity. It then is empty, lacks its newest entries, or has the
    /// same entries as before.
    Identity,
    /// The engine is slow, its oldest entries are removed, and a node begins in the middle.
    Middle,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Network,
        Self::Nodes,
        Self::Rollback,
        Self::TwoRollbacks,
        Self::RollbackAllDown,
        Self::Hole,
        Self::Identity,
        Self::Middle,
    ];
}

/// Something that happens at a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    Rollback { entries: u64 },
    RollbackAllDown { entries: u64 },
    Hole,
    NewIdentity,
    Vanish,
    Purge { kept: u64 },
    Crash { node: usize },
    LoseCacheEnd { node: usize },
    LoseCache { node: usize },
    Clone { node: usize },
    Skew { millis: i64 },
    CutOff { node: usize, millis: u64 },
    Outage { millis: u64 },
}

/// The plan of a run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) rules: Rules,
    pub(crate) rates: Rates,
    pub(crate) skips_copies: bool,
    /// The faults with their times, in order.
    pub(crate) faults: Vec<(u64, Fault)>,
}

/// Publishing and faults end at this time.
pub(crate) const QUIET_FROM: u64 = 80_000;

impl Plan {
    pub(crate) fn new(seed: u64, rules: Rules) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let kind = Kind::ALL[(seed % 8) as usize];
        let slow = kind == Kind::Middle;
        let rates = Rates {
            delay_max: rng.u64(5..120),
            lost_acknowledgement: rng.u32(0..100),
            // This rate does not come from `rng`, so it does not change the rest of the plan.
            refused_repeat: (seed % 4) as u32 * 50,
            lost_append: rng.u32(0..50),
            repeated: rng.u32(0..80),
            late: if slow { 200 } else { rng.u32(0..80) },
            late_max: rng.u64(3_000..if slow { 14_500 } else { 25_000 }),
            tail_pause: rng.u32(0..20),
        };
        let mut plan = Self { kind, rules, rates, skips_copies: rng.bool(), faults: Vec::new() };
        plan.add_main(&mut rng);
        if kind != Kind::Network {
            plan.add_small(&mut rng);
        }
        if plan.may_lose() && kind != Kind::Hole {
            // All nodes may have kept entries that the engine has lost. The entries of a node that
            // begins anew show them that their histories differ from the journal.
            plan.faults.push((QUIET_FROM + 1_000, Fault::LoseCache { node: rng.usize(0..3) }));
        }
        plan.faults.sort_by_key(|(at, _)| *at);
        plan
    }

    /// Whether readers may get `lost`, `new_epoch` or `unknown_id`.
    pub(crate) fn may_lose(&self) -> bool {
        self.faults.iter().any(|(_, fault)| {
            matches!(
                fault,
                Fault::Rollback { .. }
                    | Fault::RollbackAllDown { .. }
                    | Fault::Hole
                    | Fault::NewIdentity
                    | Fault::Vanish
            )
        })
    }

    pub(crate) fn has(&self, is_wanted: impl Fn(&Fault) -> bool) -> bool {
        self.faults.iter().any(|(_, fault)| is_wanted(fault))
    }

    fn add_main(&mut self, rng: &mut fastrand::Rng) {
        let at = rng.u64(15_000..50_000);
        let entries = if rng.bool() { rng.u64(1..4) } else { rng.u64(4..40) };
        let node = rng.usize(0..3);
        match self.kind {
            Kind::Network => {}
            Kind::Nodes => {
                let first = match rng.u8(0..4) {
                    0 => Fault::Clone { node },
                    1 => Fault::LoseCacheEnd { node },
                    2 => Fault::LoseCache { node },
                    _ => Fault::Skew { millis: 3_600_000 },
                };
                self.faults.push((at, first));
                self.faults.push((at + 9_000, Fault::Clone { node: rng.usize(0..3) }));
            }
            Kind::Rollback => self.faults.push((at, Fault::Rollback { entries })),
            Kind::TwoRollbacks => {
                self.faults.push((at, Fault::Rollback { entries }));
                let again = at + rng.u64(100..6_000);
                self.faults.push((again, Fault::Rollback { entries: rng.u64(1..20) }));
            }
            Kind::RollbackAllDown => self.faults.push((at, Fault::RollbackAllDown { entries })),
            Kind::Hole => self.faults.push((at.min(30_000), Fault::Hole)),
            Kind::Identity => self.faults.push(match rng.u8(0..3) {
                0 => (at, Fault::Vanish),
                _ => (at, Fault::NewIdentity),
            }),
            Kind::Middle => {
                for at in [at / 3 + 8_000, at / 3 + 36_000] {
                    let node = rng.usize(0..3);
                    self.faults.push((at, Fault::Purge { kept: rng.u64(3..12) }));
                    self.faults.push((at + 50, Fault::LoseCache { node }));
                    // The same event is on its way from both other nodes when this node begins to
                    // decide.
                    let (first, second) = ((node + 1) % 3, (node + 2) % 3);
                    let at = at + rng.u64(0..6_000);
                    let millis = rng.u64(10_000..14_000);
                    self.faults.push((at - 2_000, Fault::CutOff { node: first, millis }));
                    let at = at + rng.u64(4_000..9_000);
                    let millis = rng.u64(7_000..13_000);
                    self.faults.push((at, Fault::CutOff { node: second, millis }));
                }
            }
        }
        if self.kind == Kind::Identity && rng.bool() {
            self.faults.push((at + 20, Fault::Rollback { entries }));
        }
    }

    fn add_small(&mut self, rng: &mut fastrand::Rng) {
        for _ in 0..rng.usize(0..5) {
            let at = rng.u64(5_000..QUIET_FROM - 15_000);
            let node = rng.usize(0..3);
            let fault = match rng.u8(0..9) {
                0 | 1 => Fault::Crash { node },
                2 => Fault::LoseCacheEnd { node },
                3 => Fault::LoseCache { node },
                4 => Fault::Clone { node },
                5 => Fault::Skew { millis: if rng.bool() { 3_600_000 } else { -3_600_000 } },
                6 => Fault::Outage { millis: rng.u64(500..12_000) },
                _ => Fault::CutOff { node, millis: rng.u64(500..16_000) },
            };
            self.faults.push((at, fault));
            if matches!(fault, Fault::Skew { .. }) {
                self.faults.push((at + rng.u64(1_000..20_000), Fault::Skew { millis: 0 }));
            }
        }
    }
}
