//! A progress line on the terminal during a run. If standard error is not a terminal, nothing is
//! written.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use super::books::Books;

/// The time between two updates. With a quarter of a second, the line would change too fast to
/// read. With a whole second, the program would seem to have stopped.
const INTERVAL: Duration = Duration::from_millis(500);

/// The progress line.
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

    /// Writes the line again if the interval has passed.
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
