//! The account of a fault run. It compares the answers to the publishers and the events of the
//! readers with the final history, which all nodes have.

use std::{
    collections::{BTreeSet, HashMap},
    time::Instant,
};

use serde_json::Value;

use super::{
    Run,
    publisher::Published,
    reader::{Reader, Step},
};

/// After a gap with the reason `new_epoch` or `unknown_id`, a client gets at least this many of the
/// newest events, if the history has so many.
const NEWEST_EVENTS: usize = 1_000;

/// The final history.
pub(super) struct Account {
    /// The id and the data of each event, in order.
    events: Vec<(String, String)>,
    /// The index of each event, by its data.
    by_data: HashMap<String, usize>,
}

/// The times that matter for a run with a rollback, in which servers of the engine get older data
/// back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rollback {
    /// At this time, saving of the older data began. An event that was acknowledged before this
    /// time is in the saved data, so it must not be lost.
    pub(super) saved: Instant,
    /// At this time, all nodes had the same history again.
    pub(super) agreed: Instant,
}

/// The numbers of a checked run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Acknowledged events that are not in the final history. Readers got a gap for them.
    pub(super) lost: usize,
    /// Readers that missed events without a gap. They resumed with an id that a publisher had
    /// chosen, before the nodes knew about the loss.
    pub(super) unprotected: usize,
}

/// Checks that each offset has only one id, at all nodes and at all times.
pub(super) fn check_ids(read: &[Reader], run: &Run) -> Result<(), String> {
    let mut known: HashMap<u64, (&str, String)> = HashMap::new();
    for reader in read {
        for (id, from) in reader.ids(run) {
            let Some(offset) = offset(id) else { continue };
            let (before, of_before) = known.entry(offset).or_insert_with(|| (id, from.clone()));
            if *before != id {
                return Err(format!(
                    "the same offset has two ids: {before} ({of_before}) and {id} ({from})"
                ));
            }
        }
    }
    Ok(())
}

/// The offset in an id that the log has made. `None` if a publisher has chosen the id. Such an id
/// has a dot, and no dash.
fn offset(id: &str) -> Option<u64> {
    let (_, offset) = id.split_once('-')?;
    offset.parse().ok()
}

impl Account {
    /// Returns an error if an event is in the history twice, or if the offsets are not in order.
    pub(super) fn new(events: Vec<(String, String)>) -> Result<Self, String> {
        let mut by_data = HashMap::new();
        for (at, (id, data)) in events.iter().enumerate() {
            if let Some(before) = by_data.insert(data.clone(), at) {
                return Err(format!("{data} is in the history twice: {:?}, {id}", events[before]));
            }
        }
        let mut last = 0;
        for offset in events.iter().filter_map(|(id, _)| offset(id)) {
            if offset <= last {
                return Err(format!("the offset {offset} comes after {last}"));
            }
            last = offset;
        }
        Ok(Self { events, by_data })
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// Checks that each acknowledged event is in the history under its id, exactly once, unless a
    /// rollback may have removed it.
    pub(super) fn check_publisher(
        &self,
        published: &[Published],
        rollback: Option<Rollback>,
        tally: &mut Tally,
    ) -> Result<(), String> {
        for Published { data, id, began, answered } in published {
            let Some(id) = id else { continue };
            let is_there = self.by_data.get(data).is_some_and(|at| self.events[*at].0 == *id);
            if is_there {
                continue;
            }
            let may_be_lost = rollback
                .is_some_and(|Rollback { saved, agreed }| *answered > saved && *began < agreed);
            if !may_be_lost {
                let found = self.by_data.get(data).map(|at| &self.events[*at]);
                return Err(format!(
                    "{data} was acknowledged as {id}, and the history has {found:?}"
                ));
            }
            tally.lost += 1;
        }
        Ok(())
    }

    /// Checks a reader. The events that it has after all its gaps are applied must be the part of
    /// the final history that it has subscribed to.
    pub(super) fn check_reader(
        &self,
        reader: &Reader,
        run: &Run,
        rollback: Option<Rollback>,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let mut view = View::default();
        for (at, step) in reader.steps.iter().enumerate() {
            let failed = |error: String| format!("{error}: {}", reader.story(at, run));
            match step {
                Step::Event { id, data } => view.push(at, id, data).map_err(failed)?,
                Step::Gap { id, reason, body } => {
                    if rollback.is_none() {
                        let around = self.around(body);
                        return Err(failed(format!("a gap with the reason {reason}, {around}")));
                    }
                    match &**reason {
                        "lost" => view.rewind(self, id),
                        "new_epoch" | "unknown_id" => view.begin_again(),
                        other => return Err(failed(format!("a gap with the reason {other}"))),
                    }
                }
                Step::Visit { .. } | Step::Opened { .. } | Step::Ended(_) => {}
            }
        }
        match self.compare(&view, &reader.topics) {
            Ok(()) => Ok(()),
            Err((at, error)) if is_unprotected(reader, at, rollback) => {
                tally.unprotected += 1;
                eprintln!("unprotected: {error}: {}", reader.name);
                Ok(())
            }
            Err((at, error)) => Err(format!("{error}: {}", reader.story(at, run))),
        }
    }

    /// The events near the beginning of a gap, for the message of a failed test.
    fn around(&self, gap: &str) -> String {
        let body: Value = serde_json::from_str(gap).unwrap();
        let after = body["after"].as_str().and_then(offset).unwrap_or_default();
        let is_near = |(id, _): &&(String, String)| {
            offset(id).is_some_and(|offset| offset.abs_diff(after) < 20_000)
        };
        format!("the history has {:?}", self.events.iter().filter(is_near).collect::<Vec<_>>())
    }

    /// Compares a view with the history. An error names the step of the first difference.
    fn compare(&self, view: &View, topics: &BTreeSet<String>) -> Result<(), (usize, String)> {
        let is_due = |data: &str| topics_of(data).any(|topic| topics.contains(topic));
        let due: Vec<&(String, String)> =
            self.events.iter().filter(|(_, data)| is_due(data)).collect();
        let first = match (view.is_new, view.events.first()) {
            (true, Some(first)) => due.iter().position(|event| **event == first.event).unwrap_or(0),
            _ => 0,
        };
        let mut next = first;
        let may_skip = |at: usize, until: Option<u64>| {
            let (Some((id, _)), Some(until)) = (due.get(at), until) else { return false };
            offset(id).is_none_or(|offset| offset <= until)
        };
        for seen in &view.events {
            let is_seen = |at: usize| due.get(at).is_some_and(|event| *event == &seen.event);
            while !is_seen(next) && may_skip(next, seen.told_until) {
                next += 1;
            }
            if !is_seen(next) {
                let (has, there) = (&seen.event, due.get(next));
                return Err((seen.step, format!("the reader has {has:?}, the history {there:?}")));
            }
            next += 1;
        }
        while may_skip(next, view.told_until) {
            next += 1;
        }
        let last_step = view.events.last().map_or(0, |event| event.step);
        if let Some(missing) = due.get(next) {
            return Err((last_step, format!("{missing:?} was lost in silence")));
        }
        if view.is_new && first > 0 && view.events.len() < NEWEST_EVENTS {
            let error = format!("only {} events came after a new beginning", view.events.len());
            return Err((last_step, error));
        }
        Ok(())
    }
}

/// Whether the reader connected with an id that a publisher had chosen, before the nodes knew about
/// the loss. A node may then miss that the reader needs a gap.
fn is_unprotected(reader: &Reader, step: usize, rollback: Option<Rollback>) -> bool {
    let Some(Rollback { agreed, .. }) = rollback else { return false };
    let visits = reader.steps[..=step].iter().rev();
    let visit = visits.filter_map(|step| match step {
        Step::Visit { at, last, .. } => Some((*at, last)),
        _ => None,
    });
    visit.take(1).any(|(at, last)| at < agreed && !last.is_empty() && offset(last).is_none())
}

/// The events that a reader has after its gaps are applied.
#[derive(Debug, Default)]
struct View {
    events: Vec<Seen>,
    /// Whether the view begins with the newest events of a history that was new to the reader.
    is_new: bool,
    /// The offset up to which events may be missing, if the newest step is a gap with the reason
    /// `lost`.
    told_until: Option<u64>,
}

/// An event in a view.
#[derive(Debug)]
struct Seen {
    step: usize,
    /// The id and the data.
    event: (String, String),
    /// The offset up to which events may be missing, if the step before this event is a gap with
    /// the reason `lost`.
    told_until: Option<u64>,
}

impl View {
    fn push(&mut self, step: usize, id: &str, data: &str) -> Result<(), String> {
        let told_until = self.told_until.take();
        let before = self.events.iter().position(|seen| seen.event.1 == data);
        match before {
            // The view does not know the offset of an event whose id its publisher has chosen. So
            // after a gap, the view may have kept such events, and they come again.
            Some(before) if told_until.is_some() => self.events.truncate(before),
            Some(before) => {
                let Seen { step, event, .. } = &self.events[before];
                return Err(format!("{data} came twice, first as {event:?} in step {step}"));
            }
            None => {}
        }
        let event = (id.to_owned(), data.to_owned());
        self.events.push(Seen { step, event, told_until });
        Ok(())
    }

    /// Applies a gap with the reason `lost`: the reader discards the events that the history does
    /// not have, and continues after the id of the gap. The gap tells the reader that earlier
    /// events may be missing.
    fn rewind(&mut self, account: &Account, id: &str) {
        let until = match offset(id) {
            Some(until) => until,
            // The id of the gap was chosen by a publisher, so no earlier event is missing.
            None => self.events.iter().filter_map(|seen| offset(&seen.event.0)).max().unwrap_or(0),
        };
        let is_kept = |Seen { event: (id, data), .. }: &Seen| {
            let known = account.by_data.get(data).is_some_and(|at| account.events[*at].0 == *id);
            known && offset(id).is_none_or(|offset| offset <= until)
        };
        let kept = self.events.iter().take_while(|seen| is_kept(seen)).count();
        self.events.truncate(kept);
        self.told_until = Some(until);
    }

    /// Applies a gap after which the reader gets the newest events.
    fn begin_again(&mut self) {
        *self = Self { is_new: true, ..Self::default() };
    }
}

fn topics_of(data: &str) -> impl Iterator<Item = &str> {
    let topics = data.split_once(' ').map_or("", |(_, topics)| topics);
    topics.split(',')
}
