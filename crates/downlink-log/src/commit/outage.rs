//! An outage is a time in which the store accepts no events.
//!
//! The writer is the thread that writes to the store. The writer reports the beginning and the end
//! of an outage. While the outage lasts, the writer repeats the report of its beginning at most
//! once a minute. Every few seconds, the writer tests whether the store accepts events again. The
//! next publish would also test the store, but it may never come: during an outage, a server may
//! report that it is not ready, and then it gets no events to publish.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use crate::store::StoreError;

/// During an outage, the time between two tests of the store. It is short, so that a person who has
/// freed some disk space does not wait long for the result. It is long enough to put little load on
/// a failing disk.
pub const RETRY_EVERY: Duration = Duration::from_secs(10);

/// The minimum time between two reports that the store accepts no events. With one report a minute,
/// the operator sees that the outage lasts, and an outage of a whole night does not fill the
/// operator's log.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// A report of a log about its store.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StoreReport {
    /// The store accepts no events.
    Refuses {
        /// Why the store accepts no events.
        error: StoreError,
        /// The number of publishes refused since the outage began.
        refused: u64,
    },
    /// The cache of a replica has failed. The replica begins again without a cache, and stays
    /// without one until the program starts again.
    CacheDropped {
        /// Why the cache has failed.
        error: StoreError,
    },
    /// The store accepts events again.
    Takes {
        /// The number of publishes refused during the outage.
        refused: u64,
    },
}

/// Called with each report, on the thread that writes to the store, so it must be quick.
pub type OnReport = dyn FnMut(StoreReport) + Send;

/// An outage that has begun.
pub(crate) struct Outage {
    /// The latest error, which says why the store accepts no events. After a final error, the store
    /// must be opened again. So a final error is kept, even if other errors follow.
    pub(crate) error: StoreError,
    /// The number of bytes in the last write that was refused. A test writes the same number of
    /// bytes. With far fewer bytes, the test could succeed on a disk that still refuses most
    /// writes.
    pub(crate) bytes: usize,
    pub(crate) tried: Instant,
    /// The number of all publishes that were refused before this outage.
    refused_before: u64,
    is_reported: bool,
}

/// The outages of a log's store.
pub(crate) struct Outages {
    pub(crate) now: Option<Outage>,
    pub(crate) retry_every: Duration,
    on_report: Option<Box<OnReport>>,
    /// The time of the last report that the store accepts no events. The report may be from an
    /// earlier outage. A disk may accept small events and refuse large events, so one outage may
    /// follow another within a second. If each outage were reported, the reports would fill the
    /// operator's log.
    reported: Option<Instant>,
}

impl Outages {
    pub(crate) fn new(retry_every: Duration, on_report: Option<Box<OnReport>>) -> Self {
        Self { now: None, retry_every, on_report, reported: None }
    }

    /// Notes that the store has refused a write of `bytes` bytes. `refused.start` is the number of
    /// all publishes that were refused before this write, and `refused.end` is this number after
    /// the write.
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

    /// Notes that the store has accepted a write, and ends the outage, if there is one. `refused`
    /// is the number of all publishes that were refused so far.
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
    fn a_recurring_outage_is_reported_once_a_minute() {
        let (sender, reports) = mpsc::channel();
        let report = move |report| sender.send(report).expect("the receiver is open");
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
    fn a_final_error_is_reported_at_once_and_is_kept() {
        let (sender, reports) = mpsc::channel();
        let report = move |report| sender.send(report).expect("the receiver is open");
        let mut outages = Outages::new(RETRY_EVERY, Some(Box::new(report)));
        let errors = [StoreError::DiskFull, StoreError::OutcomeUnknown, StoreError::Stopped];
        for (refused, error) in (1..).zip(&errors) {
            outages.note_refusal(error, 100, refused - 1..refused);
        }
        let reported =
            |refused, error: &StoreError| StoreReport::Refuses { error: error.clone(), refused };
        let expected = [reported(1, &errors[0]), reported(2, &errors[1])];
        assert_eq!(reports.try_iter().collect::<Vec<_>>(), expected);
        assert_eq!(outages.now.expect("the outage lasts").error, StoreError::OutcomeUnknown);
    }
}
