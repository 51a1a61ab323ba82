//! The results of a run, from which the report is made.

use super::{books::Books, replay::Replays, server::Usage, stalled::Returns};

/// The results of a run.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) books: Books,
    pub(super) connections: u64,
    /// Connections that ended before the run did.
    pub(super) ended_early: u64,
    pub(super) measured: Period,
    /// From the first connection until all were up.
    pub(super) connects: Period,
    pub(super) resident_bytes: Option<Resident>,
    /// The books of the quiet topic.
    pub(super) quiet: Option<Books>,
    pub(super) replay: Option<Replays>,
    pub(super) returns: Option<Returns>,
    /// The first problem.
    pub(super) problem: Option<String>,
}

/// The server's memory before the connections and with them, idle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resident {
    pub(super) before: u64,
    pub(super) connected: u64,
}

/// A part of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Period {
    pub(super) seconds: f64,
    /// The share of it in which the load tool was busy.
    pub(super) busy_share: f64,
    /// The server's use of processor and memory.
    pub(super) used: Option<Usage>,
}
