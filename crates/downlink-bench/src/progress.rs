//! One line on the terminal while a run lasts; nothing anywhere else.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use super::books::Books;

/// Twice a second: fast enough to be alive, slow enough to be read.
const INTERVAL: Duration = Duration::from_millis(500);

/// The line.
#[derive(Debug)]
pub(super) struct ProgressLine {
    is_terminal: bool,
    shown: Instant,
    received: u64,
}

impl ProgressLine {
    pub(super) fn new() -> Self {
        let is_terminal = io::stderr().is_terminal();
        Self { is_terminal, shown: Instant::now(), received: 0 }
    }

    /// Renews the line if it is time.
    pub(super) fn show(&mut self, books: &Books, settled: usize, connections: usize) {
        if !self.is_terminal || self.shown.elapsed() < INTERVAL {
            return;
        }
        let seconds = self.shown.elapsed().as_secs_f64();
        let counts = &books.counts;
        let rate = (counts.received - self.received) as f64 / seconds;
        let line = if settled < connections {
            format!("connecting: {settled} of {connections}")
        } else {
            let (published, duplicated) = (books.published, counts.duplicated);
            let awaited = counts.lost();
            format!(
                "{published} events published, {rate:.0} deliveries/s, {awaited} awaited, \
                 {duplicated} duplicated, {} out of order",
                counts.out_of_order
            )
        };
        let _ = write!(io::stderr(), "\r\x1b[2K{line}");
        (self.shown, self.received) = (Instant::now(), counts.received);
    }

    /// Clears the line.
    pub(super) fn end(&self) {
        if self.is_terminal {
            let _ = write!(io::stderr(), "\r\x1b[2K");
        }
    }
}
