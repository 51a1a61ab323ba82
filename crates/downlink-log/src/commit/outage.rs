//! An outage: a time in which the store takes no events.
//!
//! The writer reports when an outage begins, at most once a minute while it lasts, and when it is
//! over. Every few seconds it tries whether the store takes events again: a server that says that
//! it is not ready gets no publishes that would show it.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use crate::store::StoreError;

/// The time between two tries whether the store takes events again. A person who has freed some
/// space waits no longer than this, and a failing disk is hardly used.
pub const RETRY_EVERY: Duration = Duration::from_secs(10);

/// The shortest time between two reports that the store takes no events: a reader of the log
/// sees that the outage lasts, and an outage of a night does not fill the log.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// A report of a log about its store.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StoreReport {
    /// The store takes no events.
    Refuses {
        /// Why.
        error: StoreError,
        /// The publishes that were refused since the outage began.
        refused: u64,
    },
    /// The store takes events again.
    Takes {
        /// The publishes that were refused in the outage.
        refused: u64,
    },
}

/// Called on the writer's thread, so it must be quick.
pub type OnReport = dyn FnMut(StoreReport) + Send;

/// An outage that has begun.
pub(crate) struct Outage {
    /// Why the store takes nothing: the latest error, or the first one that is final.
    pub(crate) error: StoreError,
    /// The bytes that were refused last. A try that is much smaller could succeed on a disk that
    /// still refuses most publishes.
    pub(crate) bytes: usize,
    pub(crate) tried: Instant,
    /// The number of refused publishes before it.
    refused_before: u64,
    is_reported: bool,
}

/// The outages of a log's store.
pub(crate) struct Outages {
    pub(crate) now: Option<Outage>,
    pub(crate) retry_every: Duration,
    on_report: Option<Box<OnReport>>,
    /// When it was last reported that the store takes no events, also in an earlier outage. A disk
    /// that takes small events and refuses large ones would fill the log otherwise.
    reported: Option<Instant>,
}

impl Outages {
    pub(crate) fn new(retry_every: Duration, on_report: Option<Box<OnReport>>) -> Self {
        Self { now: None, retry_every, on_report, reported: None }
    }

    /// The store has refused these bytes. `refused` is the number of all refused publishes, before
    /// and now.
    pub(crate) fn note_refusal(&mut self, error: &StoreError, bytes: usize, refused: Range<u64>) {
        let now = Instant::now();
        let outage = self.now.get_or_insert_with(|| Outage {
            error: error.clone(),
            bytes,
            tried: now,
            refused_before: refused.start,
            is_reported: false,
        });
        let is_news = error.is_final() && !outage.error.is_final();
        if !outage.error.is_final() {
            outage.error = error.clone();
        }
        (outage.bytes, outage.tried) = (bytes, now);
        let is_due = self.reported.is_none_or(|at| now.duration_since(at) >= REPORT_EVERY);
        if is_due || is_news {
            self.reported = Some(now);
            outage.is_reported = true;
            let refused = refused.end - outage.refused_before;
            let error = outage.error.clone();
            self.report(StoreReport::Refuses { error, refused });
        }
    }

    /// The store has taken something. Ends the outage, if there is one.
    pub(crate) fn note_success(&mut self, refused: u64) {
        let ended = self.now.take().filter(|outage| outage.is_reported);
        if let Some(outage) = ended {
            self.report(StoreReport::Takes { refused: refused - outage.refused_before });
        }
    }

    fn report(&mut self, report: StoreReport) {
        if let Some(on_report) = &mut self.on_report {
            on_report(report);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn an_outage_that_comes_and_goes_is_reported_once_a_minute() {
        let (sender, reports) = mpsc::channel();
        let report = move |report| sender.send(report).expect("the test listens");
        let mut outages = Outages::new(RETRY_EVERY, Some(Box::new(report)));
        for refused in 1..10 {
            outages.note_refusal(&StoreError::DiskFull, 100, refused - 1..refused);
            outages.note_success(refused);
        }
        let refuses = StoreReport::Refuses { error: StoreError::DiskFull, refused: 1 };
        let takes = StoreReport::Takes { refused: 1 };
        assert_eq!(reports.try_iter().collect::<Vec<_>>(), [refuses, takes]);
    }

    #[test]
    fn a_final_error_is_reported_at_once_and_stays() {
        let (sender, reports) = mpsc::channel();
        let report = move |report| sender.send(report).expect("the test listens");
        let mut outages = Outages::new(RETRY_EVERY, Some(Box::new(report)));
        let errors = [StoreError::DiskFull, StoreError::OutcomeUnknown, StoreError::Stopped];
        for (refused, error) in (1..).zip(&errors) {
            outages.note_refusal(error, 100, refused - 1..refused);
        }
        let reported =
            |refused, error: &StoreError| StoreReport::Refuses { error: error.clone(), refused };
        let expected = [reported(1, &errors[0]), reported(2, &errors[1])];
        assert_eq!(reports.try_iter().collect::<Vec<_>>(), expected);
        assert_eq!(outages.now.expect("it lasts").error, StoreError::OutcomeUnknown);
    }
}
