//! The cells (measurements) of servers with a store: publishing, replay, a crash, and opening the
//! store. The floor is a program for comparison, which only appends events to a file in a loop.

use super::cells::Cell;
use super::round::{Load, Round};
use super::servers::DOWNLINK;
use super::table::{Figure, Row};

/// The size of an event in `durable`.
pub(super) const DURABLE_EVENT_BYTES: u64 = 256;
/// The seconds of each run in `durable` are divided by this number, because the cell has more runs
/// than other cells.
const DURABLE_SHARE: u64 = 3;
/// The body of one event in a batch. A batch has one such line for each event.
const LINE: &str = "{\"topic\":\"{topic}\",\"data\":\"{payload}\"}\\n";
/// The maximum number of events in flight in `durable`, and in the runs that prepare a history. It
/// is so large that it does not limit the rate. The rate then depends only on the time until each
/// publisher gets its answer.
const MAKING_WINDOW: u64 = 65_536;
/// The maximum time for preparing a history, in seconds.
const MAKING_SECONDS_MAX: u64 = 300;
/// The number that marks the events of the history, so that a later run recognizes them.
const PAST_RUN: &str = "7";
/// The number of events in the history of `replay` and of `open`.
const PAST_EVENTS: &str = "1000000";
/// The number of these events in a quick run.
const PAST_EVENTS_QUICK: &str = "100000";
/// Retention for `durable`. 256 publishers with batches of 100 have 25,600 events in flight. This
/// retention is larger, so the reader misses no event.
const KEEP_BUSY: [&str; 4] = ["--retain-events", "100000", "--retain-bytes", "67108864"];
/// Retention so large that no event of the prepared history is evicted.
pub(super) const KEEP_ALL: [&str; 4] =
    ["--retain-events", "2000000", "--retain-bytes", "2147483648"];
/// The maximum growth of memory in `replay`, in bytes: 8 MiB for the page caches of the store's
/// four reading connections (see `docs/LIMITS.md`), and 5 MiB for everything else. These 5 MiB are
/// for the part of the writing connection's page cache that the replay fills, for the events that
/// the store reads at a time, for the events that the response has ready to send, for the events
/// published during the replay, and for the allocator.
const REPLAY_GROWTH_MAX: f64 = 13_631_488.0;

const ACKNOWLEDGED: &str = "/acknowledged_per_s";
const PER_CPU_S: &str = "/server/acknowledged_per_cpu_s";
const FLOOR_EVENTS: &str = "/events_per_s";
const P99: &str = "/latency_us/p99";

/// The three rows of the table for one way to publish.
macro_rules! beside_floor {
    ($title:literal, $label:literal, $floor:literal) => {
        [
            Row::value(concat!($title, ": acknowledged/s"), $label, ACKNOWLEDGED),
            Row::value(concat!($title, ": acknowledged per CPU second"), $label, PER_CPU_S),
            Row::ratio(
                concat!($title, ": downlink ÷ floor"),
                Figure($label, ACKNOWLEDGED),
                Figure($floor, FLOOR_EVENTS),
            ),
        ]
    };
}

const COMMIT: [[Row; 3]; 4] = [
    beside_floor!("commit, 1", "downlink-1", "floor-1"),
    beside_floor!("commit, 16", "downlink-16", "floor-16"),
    beside_floor!("commit, 256", "downlink-256", "floor-256"),
    beside_floor!("commit, 256 with batches of 100", "downlink-batch", "floor-batch"),
];
const RELAXED: [[Row; 3]; 4] = [
    beside_floor!("relaxed, 1", "downlink-relaxed-1", "floor-1"),
    beside_floor!("relaxed, 16", "downlink-relaxed-16", "floor-16"),
    beside_floor!("relaxed, 256", "downlink-relaxed-256", "floor-256"),
    beside_floor!("relaxed, 256 with batches of 100", "downlink-relaxed-batch", "floor-batch"),
];
const FLOOR_ROWS: [Row; 4] = [
    Row::value("floor, 1 at a time: events/s", "floor-1", FLOOR_EVENTS),
    Row::value("floor, 16 at a time: events/s", "floor-16", FLOOR_EVENTS),
    Row::value("floor, 256 at a time: events/s", "floor-256", FLOOR_EVENTS),
    Row::value("floor, 4,096 at a time: events/s", "floor-batch", FLOOR_EVENTS),
];
const MEMORY: [Row; 4] = [
    Row::value("in memory, 256: acknowledged/s", "downlink-memory-256", ACKNOWLEDGED),
    Row::value("in memory, 256: acknowledged per CPU second", "downlink-memory-256", PER_CPU_S),
    Row::value("in memory, batches: acknowledged/s", "downlink-memory-batch", ACKNOWLEDGED),
    Row::value(
        "in memory, batches: acknowledged per CPU second",
        "downlink-memory-batch",
        PER_CPU_S,
    ),
];

pub(super) const DURABLE: Cell = Cell {
    name: "durable",
    what: "events of 256 bytes go over HTTP into a file. The server acknowledges them when they are on the \
           disk (commit), or when they are written (relaxed). The publishers are 1, 16 and 256, and 256 \
           with batches of 100. The floor is a loop that appends and flushes as many events at a time",
    rows: &[
        COMMIT[0][0],
        COMMIT[0][1],
        COMMIT[0][2],
        COMMIT[1][0],
        COMMIT[1][1],
        COMMIT[1][2],
        COMMIT[2][0],
        COMMIT[2][1],
        COMMIT[2][2],
        COMMIT[3][0],
        COMMIT[3][1].at_least(50_000.0),
        COMMIT[3][2],
        RELAXED[0][0],
        RELAXED[0][1],
        RELAXED[0][2],
        RELAXED[1][0],
        RELAXED[1][1],
        RELAXED[1][2],
        RELAXED[2][0],
        RELAXED[2][1],
        RELAXED[2][2],
        RELAXED[3][0],
        RELAXED[3][1].at_least(50_000.0),
        RELAXED[3][2],
        FLOOR_ROWS[0],
        FLOOR_ROWS[1],
        FLOOR_ROWS[2],
        FLOOR_ROWS[3],
        MEMORY[0],
        MEMORY[1],
        MEMORY[2],
        MEMORY[3],
    ],
    measure: durable,
    lacks,
};

fn lacks(round: &Round<'_>) -> Option<&'static str> {
    (!round.programs.has_store()).then_some("--store FILE")
}

/// Measures all ways to publish. One reader checks every event, and each publisher waits for the
/// answer before it publishes again.
fn durable(round: &mut Round<'_>) -> anyhow::Result<()> {
    let seconds = (round.seconds / DURABLE_SHARE).max(1);
    let bytes = DURABLE_EVENT_BYTES.to_string();
    let load =
        Load::on(1).window(MAKING_WINDOW).with(&["--payload-bytes", &bytes]).seconds(seconds);
    let by = |publishers: u64| load.clone().with(&["--publishers", &publishers.to_string()]);
    let batches = by(256).with(&["--batch", "100", "--publish-url", "{url}/events/batch"]);
    let batches = batches.with(&["--publish-body", LINE]);
    // The second value is the number of events between two flushes of the floor. It is 4,096 for
    // batches, because the store commits at most this many events at a time.
    let ways =
        [("1", 1, by(1)), ("16", 16, by(16)), ("256", 256, by(256)), ("batch", 4_096, batches)];
    for (name, events, load) in &ways {
        for (durability, label) in [("commit", ""), ("relaxed", "relaxed-")] {
            let store = round.store("downlink.db")?;
            let store = store.to_string_lossy();
            let flags = ["--store", &*store, "--durability", durability];
            let flags = [&flags[..], &KEEP_BUSY[..]].concat();
            round.run(&format!("downlink-{label}{name}"), &DOWNLINK, &flags, load)?;
        }
        round.append(&format!("floor-{name}"), *events, seconds)?;
    }
    for (name, _, load) in ways.iter().filter(|(name, ..)| ["256", "batch"].contains(name)) {
        round.run(&format!("downlink-memory-{name}"), &DOWNLINK, &KEEP_BUSY, load)?;
    }
    Ok(())
}

pub(super) const REPLAY: Cell = Cell {
    name: "replay",
    what: "1,000 connections get 20 events a second, first alone. Then one more reader reads 1,000,000 \
           retained events of another topic from the file, again and again",
    rows: &[
        Row::value("history made: acknowledged/s", "downlink-past", ACKNOWLEDGED),
        Row::value("events of a replay", "downlink-replay", "/replay/events"),
        Row::value("replays", "downlink-replay", "/replay/passes").at_least(1.0),
        Row::value("lost", "downlink-replay", "/replay/lost").at_most(0.0),
        Row::value("repeated", "downlink-replay", "/replay/duplicated").at_most(0.0),
        Row::value("slowest replay: events/s", "downlink-replay", "/replay/events_per_s"),
        Row::value("live, without replay: p99 µs", "downlink", P99),
        Row::value("live, with replay: p99 µs", "downlink-replay", P99),
        Row::ratio("p99: with ÷ without", Figure("downlink-replay", P99), Figure("downlink", P99))
            .at_most(2.0),
        Row::value("resident before, bytes", "downlink-replay", "/replay/resident_before"),
        Row::value(
            "resident growth in replays, bytes",
            "downlink-replay",
            "/replay/resident_growth",
        )
        .at_most(REPLAY_GROWTH_MAX),
    ],
    measure: replay,
    lacks,
};

fn replay(round: &mut Round<'_>) -> anyhow::Result<()> {
    let store = round.store("replay.db")?;
    let store = store.to_string_lossy();
    let flags = [&["--store", &*store], &KEEP_ALL[..]].concat();
    let events = past_events(round);
    let past = ["--topic-prefix", "past-", "--run", PAST_RUN];
    round.run("downlink-past", &DOWNLINK, &flags, &making(1_000, events).with(&past))?;
    let live = Load::on(1_000).rate(20.0);
    round.run("downlink", &DOWNLINK, &flags, &live)?;
    let replay = [
        "--replay-url",
        "{url}/events?topic=past-0&start=earliest",
        "--replay-run",
        PAST_RUN,
        "--replay-events",
        events,
    ];
    round.run("downlink-replay", &DOWNLINK, &flags, &live.with(&replay))
}

pub(super) fn past_events(round: &Round<'_>) -> &'static str {
    if round.is_quick { PAST_EVENTS_QUICK } else { PAST_EVENTS }
}

/// Publishes this many small events. One reader checks that each event of its topic arrives once
/// and in order.
pub(super) fn making(batch: u64, events: &str) -> Load {
    let load = Load::on(1).window(MAKING_WINDOW).seconds(MAKING_SECONDS_MAX);
    let load = load.with(&["--events", events, "--payload-bytes", "64"]);
    let load = load.with(&["--batch", &batch.to_string(), "--publish-url", "{url}/events/batch"]);
    load.with(&["--publish-body", LINE])
}

pub(super) const COMEBACK: Cell = Cell {
    name: "comeback",
    what: "10,000 clients are connected when the server is killed under load. It is started again, 100 events \
           are published, and all clients come back with their last ids",
    rows: &[
        Row::value("clients that came back", "downlink", "/connections").at_least(10_000.0),
        Row::value("events acknowledged", "downlink", "/acknowledged"),
        Row::value("events the crash left without an answer", "downlink", "/unanswered"),
        Row::value("lost", "downlink", "/lost").at_most(0.0),
        Row::value("repeated", "downlink", "/duplicated").at_most(0.0),
        Row::value("out of order", "downlink", "/out_of_order").at_most(0.0),
        Row::value("unanswered, and for some only", "downlink", "/split").at_most(0.0),
        Row::value("gaps reported", "downlink", "/gaps").at_most(0.0),
        Row::value("from the crash to the first connection, s", "downlink", "/down_s"),
        Row::value("all connected after, s", "downlink", "/reconnected_s"),
        Row::value("all caught up after, s", "downlink", "/caught_up_s"),
        Row::value("server's CPU time for the return, s", "downlink", "/server_cpu_s"),
        Row::value("resident before, bytes", "downlink", "/resident_before"),
        Row::value("resident after, bytes", "downlink", "/resident_after"),
    ],
    measure: |round| {
        let store = round.store("comeback.db")?;
        let flags = ["--store", &*store.to_string_lossy()];
        let load = Load::on(10_000).query("&client=c{n}").with(&["--settle", "2s"]);
        round.run("downlink", &DOWNLINK, &flags, &load.with(&["--comeback", "{again}"]))
    },
    lacks,
};

pub(super) const OPEN: Cell = Cell {
    name: "open",
    what: "a server opens a store of 100,000 topics with ten events each, after a crash and after a stop. \
           Measured are the time until the first answer, and the share of the file that is read",
    rows: &[
        Row::value("the file, with its log, bytes", "downlink-crash", "/file_bytes"),
        Row::value("after a crash: first answer, s", "downlink-crash", "/seconds"),
        Row::value("after a crash: read ÷ file", "downlink-crash", "/read_share").at_most(0.5),
        Row::value("after a crash: resident bytes", "downlink-crash", "/resident_bytes"),
        Row::value("after a stop: first answer, s", "downlink-stop", "/seconds"),
        Row::value("after a stop: bytes read", "downlink-stop", "/read_bytes"),
        Row::value("after a stop: read ÷ file", "downlink-stop", "/read_share").at_most(0.5),
        Row::value("after a stop: resident bytes", "downlink-stop", "/resident_bytes"),
        Row::value("no store: first answer, s", "downlink-none", "/seconds"),
        Row::value("no store: resident bytes", "downlink-none", "/resident_bytes"),
    ],
    measure: |round| {
        let store = round.store("open.db")?;
        let flags = ["--store", &*store.to_string_lossy()];
        // The limit of topics also covers clients' inboxes and the reader's topic.
        let flags = [&flags[..], &["--topics-max", "200000"], &KEEP_ALL[..]].concat();
        let topics = ["--topics", "100000"];
        let load = making(1_000, PAST_EVENTS).with(&topics);
        round.run("downlink-past", &DOWNLINK, &flags, &load)?;
        round.open("downlink-crash", Some(&store), &flags)?;
        round.open("downlink-stop", Some(&store), &flags)?;
        round.open("downlink-none", None, &[])
    },
    lacks,
};
