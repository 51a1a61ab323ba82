//! Readers that stop reading and later resume. The tool checks that each reader gets every event,
//! or a report of the gap.
//!
//! The readers connect before the first event is published, and do not read during the load.
//! Afterwards they read everything that the server has for them. If the server has ended the
//! connection of a reader, the reader resumes with its last event id. It is no error if a reader
//! misses events and the server reports the gap. The main load records its deliveries in books.
//! There, the missing events would count as lost. So the stalled readers have separate books.

use std::time::Duration;

use anyhow::ensure;
use serde::Serialize;

use super::{books::Books, load::LoadRun, plan::Plan, server::ServerProcesses, subscriber::Story};

/// If nothing arrives for this long, all readers that have not got the newest event have failed.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// The maximum time for all readers, so that the run ends even if the server never stops sending.
const RETURN_MAX: Duration = Duration::from_secs(120);
/// The maximum number of reconnections of one reader. The server may end the first connection
/// because the reader stalls. If the second connection breaks, the reader may reconnect once more.
const RECONNECTS_MAX: usize = 2;

/// The connected readers.
#[derive(Debug)]
pub(super) struct StalledReaders<'a> {
    load: LoadRun<'a>,
    reconnects: Vec<usize>,
}

/// The results of all readers.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Returns {
    pub(super) readers: u64,
    /// The number of readers that had to reconnect, because their connection had ended.
    pub(super) cut: u64,
    /// The number of sockets for stalled readers that the server still had open at the end of the
    /// load.
    pub(super) still_open: Option<usize>,
    /// The number of readers that missed no event and got no report of a gap.
    pub(super) exact: u64,
    /// The number of readers that got one report of a gap, which explains all missing events.
    pub(super) one_gap: u64,
    /// The number of all other readers: they missed events without a report, got several reports,
    /// got events twice or out of order, or did not get the newest event.
    pub(super) failed: u64,
    /// The reason why the first failed reader failed.
    pub(super) problem: Option<String>,
}

impl<'a> StalledReaders<'a> {
    /// Connects the readers.
    ///
    /// # Errors
    ///
    /// If a reader gets no event stream.
    pub(super) fn open(plan: &'a Plan, server: &'a ServerProcesses) -> anyhow::Result<Self> {
        let mut load = LoadRun::new(plan, server)?;
        load.connect()?;
        let is_whole = load.reading.books.connections_up() == plan.connections as u64;
        let problem = load.troubles.problem.take().unwrap_or_default();
        ensure!(is_whole, "a reader for --stalled got no event stream: {problem}");
        Ok(Self { load, reconnects: vec![0; plan.connections] })
    }

    /// Lets each reader read up to the newest event, and checks what it got.
    pub(super) fn resume(
        mut self,
        books: &Books,
        still_open: Option<usize>,
    ) -> anyhow::Result<Returns> {
        let newest = (0..books.published).rev().find(|number| !books.refused.contains(number));
        self.load.reading.books.published = books.published;
        self.read_to(newest.map_or(0, |newest| newest + 1))?;
        let readers = self.load.subscribers.len() as u64;
        let mut returns = Returns { readers, still_open, ..Returns::default() };
        for (subscriber, reconnects) in self.load.subscribers.iter().zip(&self.reconnects) {
            returns.cut += u64::from(*reconnects > 0);
            let is_complete = subscriber.has_reached(newest.map_or(0, |newest| newest + 1));
            let gaps = match &subscriber.story {
                _ if *reconnects > RECONNECTS_MAX => {
                    Err("its connection ended more than twice".to_owned())
                }
                Some(story) if is_complete => judge(story, books),
                _ => Err("it did not get the newest event".to_owned()),
            };
            match gaps {
                Ok(0) => returns.exact += 1,
                Ok(_) => returns.one_gap += 1,
                Err(reason) => {
                    returns.failed += 1;
                    returns.problem.get_or_insert(reason);
                }
            }
        }
        Ok(returns)
    }

    /// Reads until each reader has got the event with the number `next - 1` or a later event. Stops
    /// earlier if nothing arrives for [`SILENCE_MAX`], or after [`RETURN_MAX`].
    fn read_to(&mut self, next: u64) -> anyhow::Result<bool> {
        let Self { load, reconnects } = self;
        load.turn_until(SILENCE_MAX, RETURN_MAX, |load| {
            let mut is_complete = true;
            for (number, reconnects) in reconnects.iter_mut().enumerate() {
                let subscriber = &load.subscribers[number];
                if subscriber.has_reached(next) || *reconnects > RECONNECTS_MAX {
                    continue;
                }
                is_complete = false;
                if subscriber.reader.is_over() {
                    *reconnects += 1;
                    load.resume(number)?;
                }
            }
            Ok((!is_complete).then_some(load.reading.books.counts.received))
        })
    }
}

/// Returns the number of reported gaps (0 or 1). If the reader failed, returns the reason.
fn judge(story: &Story, books: &Books) -> Result<u64, String> {
    let is_published = |number: &u64| !books.refused.contains(number);
    let missed = story.unreported.iter().cloned().flatten().filter(is_published).count();
    match (missed, story.disorder, story.gaps) {
        (0, 0, gaps @ 0..=1) => Ok(gaps),
        (0, 0, gaps) => Err(format!("it got {gaps} reports of gaps")),
        (0, disorder, _) => Err(format!("it got {disorder} events twice or out of order")),
        (missed, ..) => Err(format!("it missed {missed} events without a report")),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{pace::Pace, tally::Seen},
        *,
    };

    /// Judges a reader. Each letter is a delivery: a digit is the event with this number, and `g`
    /// is the report of a gap.
    fn end(letters: &str, refused: &[u64]) -> Result<u64, String> {
        let mut books = Books::new(1, 1, Pace::window(16)).unwrap();
        books.refused_may_arrive = true;
        let (mut story, mut seen) = (Story::default(), Seen::starting_at(0));
        let records: Vec<_> = (0..10)
            .map(|number| {
                let (place, record) = books.publish(0, 0);
                if refused.contains(&number) {
                    books.refuse(place);
                }
                record
            })
            .collect();
        for letter in letters.chars() {
            match letter.to_digit(10) {
                None => story.gap(),
                Some(digit) => {
                    let record = records[digit as usize];
                    let next = seen.next();
                    if let Some(arrival) = books.deliver(&mut seen, 0, record, 0) {
                        story.arrival(arrival, record.number, next);
                    }
                }
            }
        }
        judge(&story, &books)
    }

    #[test]
    fn a_reader_that_gets_every_event_has_no_gap() {
        assert_eq!(end("0123456789", &[]), Ok(0));
        assert_eq!(end("0124", &[3]), Ok(0), "a refused event is not missed");
    }

    #[test]
    fn missing_events_with_one_report_count_as_one_gap() {
        assert_eq!(end("01g789", &[]), Ok(1));
        assert_eq!(end("g789", &[]), Ok(1));
    }

    #[test]
    fn unreported_losses_second_reports_and_disorder_are_failures() {
        assert_eq!(end("01789", &[]), Err("it missed 5 events without a report".to_owned()));
        assert_eq!(end("0g13", &[]), Err("it missed 1 events without a report".to_owned()));
        assert_eq!(end("0g3g7", &[]), Err("it got 2 reports of gaps".to_owned()));
        let disorder = Err("it got 1 events twice or out of order".to_owned());
        assert_eq!(end("0112", &[]), disorder);
        assert_eq!(end("1g0", &[0]), disorder);
    }
}
