//! One log on several nodes. An engine, such as a message broker or a database, puts the entries of
//! all nodes in one order, and each node computes the same log from them.
//!
//! - An [`Entry`] contains events of one node. The [`wire`] format bounds what it can contain.
//! - A [`Mark`] is a keyed hash of all entries up to a position. The ids of events contain it, so
//!   an id from a lost part of the journal never matches.
//! - A [`Window`] decides which events are applied. It looks only at the entries themselves.
//! - A [`Node`] is the state machine of one node. A [`Driver`] connects it with a [`Journal`].
//!
//! The crate has no sockets, no clocks and no async runtime: the caller passes in the time. It
//! contains no engine. [`FedLog`] is the interface to the log that the node feeds.
//!
//! # Features
//!
//! `mutants` adds deliberate mistakes to the rules. It exists for the tests of this crate.
#![doc = concat!("The minimum Rust version is ", env!("CARGO_PKG_RUST_VERSION"), ".")]
//!
//! The modules are declared in the order of their dependencies: a module uses only modules that are
//! declared before it.

#![forbid(unsafe_code)]

mod rules;

mod position;

mod mark;

mod engine_clock;

mod entry;

pub mod wire;

mod window;

mod chain;

mod forks;

mod journal;

mod fed_log;

mod node;

mod driver;

mod found;

pub use chain::{Chain, LINKS_MAX};
pub use driver::Driver;
pub use entry::{
    Control, Entry, EntryName, FORMAT_VERSION, Fork, Group, Heartbeat, HubId, NODE_NAME_BYTES_MAX,
    Record, Snapshot, WriterId,
};
pub use fed_log::{Applied, FedLog, HistoryStart, Plan, Refusal};
pub use found::first_entry;
pub use journal::{
    Bounds, Journal, JournalDurability, JournalError, JournalId, Opened, RawEntry, Tail, TailItem,
};
pub use mark::{HubKey, Mark};
pub use node::{
    history::History,
    node::{BEHIND_MAX, HEARTBEAT_EVERY, Node},
    peers::{NODE_AWAY_AFTER, Peer},
    publish::{ANSWER_WITHIN, Answer, AppliedEvent, Publish, PublishId},
    readers::READER_WAITS_MAX,
    request::{Request, Resume},
    settings::{NodeSettings, NodeStatus, NodeTotals, SNAPSHOT_EVERY},
    state::STATE_BYTES_MAX,
};
pub use position::{Base, ENTRY_EVENTS_MAX, Position};
#[cfg(feature = "mutants")]
#[doc(hidden)]
pub use rules::Mutant;
pub use rules::Rules;
pub use window::window::{Anchor, ENTRY_CLAIMS_MAX, Verdict, Void, Window};
pub use wire::{DecodeError, EncodeError};

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
