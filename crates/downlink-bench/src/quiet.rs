//! A quiet topic beside a busy one: its reader's latency shows whether the busy one is in its way.
//!
//! Its books are its own. It gets its turn between the busy topic's connections, not after all of them,
//! so that what it waits for is the server.

use std::{ops::Range, time::Instant};

use mio::Events;

use super::{books::Books, load::Load, plan::Plan};

/// Its events of one poll: one reader and one publisher have few.
const EVENTS: usize = 16;

/// The load on the quiet topic.
#[derive(Debug)]
pub(super) struct Quiet<'a> {
    load: Load<'a>,
    events: Events,
    is_publishing: bool,
}

impl<'a> Quiet<'a> {
    /// Connects.
    pub(super) fn open(plan: &'a Plan) -> anyhow::Result<Self> {
        let (mut load, mut events) = (Load::new(plan)?, Events::with_capacity(EVENTS));
        load.connect(&mut events)?;
        Ok(Self { load, events, is_publishing: false })
    }

    /// Begins to publish; the period is what is measured.
    pub(super) fn start(&mut self, at: Instant, period: Range<u64>) {
        self.load.begin(at, period);
        self.is_publishing = true;
    }

    /// Publishes no more.
    pub(super) fn stop(&mut self) {
        self.is_publishing = false;
    }

    /// Publishes what is due and reads what is there, without waiting.
    pub(super) fn step(&mut self) -> anyhow::Result<()> {
        if self.is_publishing {
            self.load.publish_due()?;
        }
        self.load.turn_at_once(&mut self.events)
    }

    /// Waits for what is still due, and closes the books.
    pub(super) fn end(mut self) -> anyhow::Result<(Books, Option<String>)> {
        self.load.drain(&mut self.events)?;
        Ok(self.load.into_books())
    }
}
