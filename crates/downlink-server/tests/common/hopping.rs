//! The parts of the torture tests that are the same for relays and for nodes of a cluster: the size
//! of a run, its readers and publishers, and the check of everything at the end.
//!
//! An ordinary run has 40 readers and 8 topics, and takes some seconds. An environment variable
//! sets another number of readers, and a run with this variable has 20 topics.
//! `DOWNLINK_TORTURE_SECONDS` sets the duration, and `DOWNLINK_TORTURE_SEED` the seed, which each
//! test prints.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    chaos::Count,
    ledger::{Ledger, Outcome, Restarts},
    patiently,
    publisher::{Published, Publisher},
    reader::{Reader, Run},
};

/// The duration of an ordinary run.
const SECONDS: u64 = 8;

/// The size of a run.
pub(crate) struct Size {
    pub(crate) readers: usize,
    pub(crate) topics: usize,
    pub(crate) publishers: usize,
    pub(crate) length: Duration,
}

pub(crate) fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("the value is a number"))
}

impl Size {
    /// Reads the size from the environment. The variable with the name `readers` sets the number of
    /// readers.
    pub(crate) fn of_environment(readers: &str) -> Self {
        let length = Duration::from_secs(number("DOWNLINK_TORTURE_SECONDS").unwrap_or(SECONDS));
        match number(readers) {
            Some(readers) => Self { readers: readers as usize, topics: 20, publishers: 60, length },
            None => Self { readers: 40, topics: 8, publishers: 6, length },
        }
    }
}

/// Makes the random number generator of a test, and prints the seed.
pub(crate) fn dice(test: &str) -> Rng {
    let seed = number("DOWNLINK_TORTURE_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("{test}: DOWNLINK_TORTURE_SEED={seed}");
    Rng::with_seed(seed)
}

/// The names of the topics. The topics in the first half keep few events.
pub(crate) fn topics(count: usize) -> Vec<String> {
    let sort = |number| if number < count / 2 { "small" } else { "large" };
    (0..count).map(|number| format!("{}/{number}", sort(number))).collect()
}

/// A reader of some topics by name, or of the topics that match a pattern.
pub(crate) fn reader(number: usize, topics: &[String], mut rng: Rng) -> Reader {
    let matching = |prefix: &str| -> BTreeSet<String> {
        topics.iter().filter(|topic| topic.starts_with(prefix)).cloned().collect()
    };
    let (query, topics) = match number % 8 {
        0 => ("topic=small/*".to_owned(), matching("small")),
        1 => ("topic=large/*".to_owned(), matching("large")),
        2 => ("topic=*".to_owned(), matching("")),
        _ => {
            let count = rng.usize(1..=3);
            let some: BTreeSet<String> =
                (0..count).map(|_| topics[rng.usize(0..topics.len())].clone()).collect();
            let query: Vec<String> = some.iter().map(|topic| format!("topic={topic}")).collect();
            (query.join("&"), some)
        }
    };
    Reader::new(format!("reader {number}"), query, topics, rng)
}

/// Starts the readers and publishers of a run. Each reader has a last event id before the first
/// event is published.
pub(crate) async fn start(
    run: &Arc<Run>,
    size: &Size,
    key: &str,
    rng: &mut Rng,
) -> (JoinSet<Reader>, JoinSet<Published>) {
    let topics = topics(size.topics);
    let mut readers = JoinSet::new();
    for number in 0..size.readers {
        readers.spawn(reader(number, &topics, rng.fork()).read(Arc::clone(run)));
    }
    patiently(async {
        while run.arrived() < size.readers {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let mut publishers = JoinSet::new();
    for number in 0..size.publishers {
        let publisher = Publisher {
            number,
            topics: topics.clone(),
            key: key.to_owned(),
            rng: rng.fork(),
            client: reqwest::Client::builder().no_proxy().build().expect("an HTTP client"),
            pause_max: Duration::from_millis(4),
        };
        publishers.spawn(publisher.publish(Arc::clone(run)));
    }
    (readers, publishers)
}

/// Compares the records of the readers with those of the publishers.
pub(crate) fn check(
    published: &[Published],
    read: &[Reader],
    restarts: Restarts,
    last: &str,
) -> Result<(), String> {
    let mut ledger = Ledger::default();
    for (data, outcome) in published.iter().flatten() {
        if let Outcome::Published(id) = outcome {
            let (history, offset) = restarts.split(id);
            ledger.note(&history, offset, data)?;
        }
    }
    for life in read.iter().flat_map(|reader| &reader.lives) {
        for event in &life.events {
            ledger.note(&life.history, event.offset, &event.data)?;
        }
    }
    for (data, outcome) in published.iter().flatten() {
        if *outcome == Outcome::Refused {
            ledger.check_refused(data)?;
        }
    }
    let (last_history, last) = restarts.split(last);
    for reader in read {
        for life in &reader.lives {
            // If a history has ended, the reader must have the events of this history only up to
            // the last id that it got. The gap at the beginning of the next history covers the
            // later events.
            let until = if life.history == last_history { last } else { life.position };
            let checked = ledger.check(&reader.topics, life, until);
            checked.map_err(|error| format!("{error}: {}", reader.story()))?;
        }
    }
    Ok(())
}

/// Prints the numbers of a run, and asserts that the run was not trivial.
pub(crate) fn report(name: &str, published: &[Published], read: &[Reader], counts: &[Count]) {
    let outcomes = || published.iter().flatten().map(|(_, outcome)| outcome);
    let acknowledged = outcomes().filter(|it| matches!(it, Outcome::Published(_))).count();
    let unknown = outcomes().filter(|it| **it == Outcome::Unknown).count();
    let refused = outcomes().filter(|it| **it == Outcome::Refused).count();
    let sum = |of: fn(&Reader) -> usize| read.iter().map(of).sum::<usize>();
    let events = sum(|it| it.lives.iter().map(|life| life.events.len()).sum());
    let gaps = sum(|it| it.lives.iter().map(|life| life.holes.len()).sum());
    let histories = sum(|it| it.lives.len() - 1);
    let (connections, refusals) = (sum(|it| it.connections), sum(|it| it.refusals));
    let blows = |of: fn(&Count) -> usize| counts.iter().map(of).sum::<usize>();
    let (kills, restarts) = (blows(|it| it.kills), blows(|it| it.restarts));
    let (pauses, deleted) = (blows(|it| it.pauses), blows(|it| it.deleted));
    eprintln!(
        "{name}: {acknowledged} events acknowledged, {unknown} unknown, {refused} refused; {} \
         readers got {events} events, {gaps} gaps and {histories} new histories over {connections} \
         connections, {refusals} of them refused; {kills} kills, {restarts} restarts, {pauses} \
         pauses, {deleted} deleted caches",
        read.len()
    );
    assert!(acknowledged > 100 && events > read.len() && connections > 2 * read.len());
    assert!(kills + restarts > 0 && pauses > 0);
}
