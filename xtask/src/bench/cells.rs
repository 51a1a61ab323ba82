//! The cells. A cell is one measurement: its loads and servers, its figures, and the bars. A bar is
//! the limit for a figure. A figure without a bar is shown, but not judged.

use super::attacks::{CHURN, HALF_OPEN, OVERSIZED_HEADS, SLOW_HEADS};
use super::relays::{RELAY, RELAY_FILL, RELAY_READERS};
use super::round::{Load, Round};
use super::servers::{AXUM, DOWNLINK, FLOOR, SERVERS};
use super::stores::{COMEBACK, DURABLE, OPEN, REPLAY};
use super::table::{Figure, Row};

/// The flag for the size of the send buffer. With 0 the system chooses the size.
const SEND_BUFFER: &str = "--unsent-bytes-max";
/// The limit for stalled writes in the cell `stalled`. It is short, so that the server disconnects
/// the stalled readers even in short runs.
const WRITE_STALL_MAX: &str = "2s";
/// The minimum duration of the cell `stalled` in seconds. The buffers fill in about one second, and
/// then the sockets stall. The system probes stalled sockets at increasing intervals, so it may
/// notice some seconds late that a socket has stalled for too long.
const STALLED_SECONDS_MIN: u64 = 10;
/// The floor is a server that only writes each event to all sockets in a loop. Its capacity is its
/// highest rate. The cell `latency` publishes at this share of the capacity.
const LATENCY_LOAD: f64 = 0.6;

/// The flag that raises the size limit for events, so that the server accepts the largest event of
/// the cell `large`.
const EVENT_BYTES_MAX: [&str; 2] = ["--event-bytes-max", "2097152"];

const DELIVERIES: &str = "/deliveries_per_s";
const CPU: &str = "/server/cpu_us_per_delivery";
const CPU_USER: &str = "/server/cpu_user_us_per_delivery";
/// If this figure is above 1, the server sent several events in one write, which lowers the
/// processor time per delivery.
const PER_READ: &str = "/deliveries_per_read";
const P50: &str = "/latency_us/p50";
const P99: &str = "/latency_us/p99";
const RESIDENT: &str = "/server/resident_bytes_per_connection";

/// A measurement.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) rows: &'static [Row],
    pub(super) measure: fn(&mut Round<'_>) -> anyhow::Result<()>,
    /// A flag that the cell needs and that this build of the server lacks. `None` if no flag is
    /// missing.
    pub(super) lacks: fn(&Round<'_>) -> Option<&'static str>,
}

const fn everything(_: &Round<'_>) -> Option<&'static str> {
    None
}

pub(super) const CELLS: [Cell; 19] = [
    IDLE,
    RATE,
    WINDOW,
    LATENCY,
    STALLED,
    TOPICS,
    CONNECTS,
    LARGE,
    DURABLE,
    REPLAY,
    COMEBACK,
    OPEN,
    SLOW_HEADS,
    HALF_OPEN,
    OVERSIZED_HEADS,
    CHURN,
    RELAY,
    RELAY_READERS,
    RELAY_FILL,
];

const IDLE: Cell = Cell {
    name: "idle",
    what: "10,000 idle connections: the resident bytes of each. Then 19,000 connections: the number that one \
           event reaches",
    rows: &[
        Row::value("downlink: bytes per connection", "downlink", RESIDENT).at_most(1_024.0),
        Row::value("axum: bytes per connection", "axum", RESIDENT),
        Row::ratio("downlink ÷ axum", Figure("downlink", RESIDENT), Figure("axum", RESIDENT))
            .at_most(1.0 / 15.0),
        Row::value("connections held of 19,000", "downlink-19000", "/connections")
            .at_least(19_000.0),
        Row::value("connections reached by one event", "downlink-19000", "/received")
            .at_least(19_000.0),
        Row::value("bytes per connection at 19,000", "downlink-19000", RESIDENT),
    ],
    measure: |round| {
        // All connections read the same topic, and each has a different client id.
        let idle = |connections: u64| {
            let load = Load::on(connections).query("&client=c{n}").seconds(1);
            load.rate(1.0).with(&["--settle", "3s", "--drain", "10s"])
        };
        round.run("downlink", &DOWNLINK, &[], &idle(10_000))?;
        round.run("axum", &AXUM, &[], &idle(10_000))?;
        round.run("downlink-19000", &DOWNLINK, &[], &idle(19_000).with(&["--events", "1"]))
    },
    lacks: everything,
};

const RATE: Cell = Cell {
    name: "rate",
    what: "10,000 connections, 8 events a second of 100 bytes: processor time per delivery",
    rows: &[
        Row::value("downlink: CPU µs per delivery", "downlink", CPU),
        Row::value("floor: CPU µs per delivery", "floor", CPU),
        Row::value("axum: CPU µs per delivery", "axum", CPU),
        Row::ratio("downlink ÷ floor", Figure("downlink", CPU), Figure("floor", CPU)),
        Row::ratio("downlink ÷ axum", Figure("downlink", CPU), Figure("axum", CPU)),
        Row::value("downlink: user µs per delivery", "downlink", CPU_USER),
        Row::value("axum: user µs per delivery", "axum", CPU_USER),
        Row::ratio("user: downlink ÷ axum", Figure("downlink", CPU_USER), Figure("axum", CPU_USER)),
        Row::value("downlink: deliveries/s", "downlink", DELIVERIES),
        Row::value("downlink: deliveries per read", "downlink", PER_READ),
        Row::value("floor: deliveries per read", "floor", PER_READ),
        Row::value("axum: deliveries per read", "axum", PER_READ),
        Row::value("downlink: p50 µs", "downlink", P50),
        Row::value("downlink: p99 µs", "downlink", P99),
        Row::ratio("p99: downlink ÷ axum", Figure("downlink", P99), Figure("axum", P99)),
    ],
    measure: |round| {
        for server in SERVERS {
            round.run(server.name, server, &[], &Load::on(10_000).rate(8.0))?;
        }
        Ok(())
    },
    lacks: everything,
};

const WINDOW: Cell = Cell {
    name: "window",
    what: "at most 16 events in flight, at the highest possible rate: deliveries a second",
    rows: &[
        Row::value("downlink, 1,000: deliveries/s", "downlink-1000", DELIVERIES),
        Row::value("axum, 1,000: deliveries/s", "axum-1000", DELIVERIES),
        Row::value("floor, 1,000: deliveries/s", "floor-1000", DELIVERIES),
        Row::ratio(
            "1,000: downlink ÷ axum",
            Figure("downlink-1000", DELIVERIES),
            Figure("axum-1000", DELIVERIES),
        ),
        Row::value("downlink, 10,000: deliveries/s", "downlink-10000", DELIVERIES),
        Row::value("axum, 10,000: deliveries/s", "axum-10000", DELIVERIES),
        Row::value("floor, 10,000: deliveries/s", "floor-10000", DELIVERIES),
        Row::ratio(
            "10,000: downlink ÷ axum",
            Figure("downlink-10000", DELIVERIES),
            Figure("axum-10000", DELIVERIES),
        ),
    ],
    measure: |round| {
        for connections in [1_000, 10_000] {
            for server in SERVERS {
                let label = format!("{}-{connections}", server.name);
                round.run(&label, server, &[], &Load::on(connections).window(16))?;
            }
        }
        Ok(())
    },
    lacks: everything,
};

const LATENCY: Cell = Cell {
    name: "latency",
    what: "1,000 connections at 60 % of the floor's highest rate: latency from publish to receive",
    rows: &[
        Row::value("floor's capacity, deliveries/s", "capacity", DELIVERIES),
        Row::value("downlink: deliveries/s", "downlink", DELIVERIES),
        Row::value("downlink: p50 µs", "downlink", P50),
        Row::value("axum: p50 µs", "axum", P50),
        Row::ratio("p50: downlink ÷ axum", Figure("downlink", P50), Figure("axum", P50)),
        Row::ratio("p50: downlink ÷ floor", Figure("downlink", P50), Figure("floor", P50)),
        Row::value("downlink: p99 µs", "downlink", P99),
        Row::value("axum: p99 µs", "axum", P99),
        Row::ratio("p99: downlink ÷ axum", Figure("downlink", P99), Figure("axum", P99)),
        Row::ratio("p99: downlink ÷ floor", Figure("downlink", P99), Figure("floor", P99)),
    ],
    measure: |round| {
        let connections = 1_000;
        round.run("capacity", &FLOOR, &[], &Load::on(connections).window(16))?;
        let capacity = round.figure("capacity", DELIVERIES).unwrap_or_default();
        let events_per_s = (capacity * LATENCY_LOAD / connections as f64).max(1.0);
        for server in SERVERS {
            let load = Load::on(connections).rate(events_per_s).drawn();
            round.run(server.name, server, &[], &load)?;
        }
        Ok(())
    },
    lacks: everything,
};

const RETURNED: &str = "/stalled/failed";
const SEND_MEMORY: &str = "/watch/send_bytes_max";
const STALLED_SEND_MEMORY: &str = "/watch/stalled_send_bytes_max";
const RESIDENT_MAX: &str = "/watch/resident_bytes_max";

const STALLED: Cell = Cell {
    name: "stalled",
    what: "900 connections get 50 events a second of 4 KiB, without and with 100 more connections that \
           stop reading. The server has to close these 100 after 2 s, and they resume after the load",
    rows: &[
        Row::value("lost by the 900 that read", "downlink-stalled", "/lost").at_most(0.0),
        Row::value("without stalled: p99 µs", "downlink", P99),
        Row::value("with stalled: p99 µs", "downlink-stalled", P99),
        Row::ratio("p99: with ÷ without", Figure("downlink-stalled", P99), Figure("downlink", P99)),
        Row::value("axum, with stalled: p99 µs", "axum-stalled", P99),
        Row::ratio(
            "peak resident: with ÷ without stalled",
            Figure("downlink-stalled", RESIDENT_MAX),
            Figure("downlink", RESIDENT_MAX),
        )
        .at_most(1.2),
        Row::value(
            "kernel's send memory of a stalled socket, bytes",
            "downlink-stalled",
            STALLED_SEND_MEMORY,
        )
        .at_most(65_536.0),
        Row::value("kernel's send memory of any socket, bytes", "downlink-stalled", SEND_MEMORY),
        Row::value(
            "axum: kernel's send memory of a stalled socket",
            "axum-stalled",
            STALLED_SEND_MEMORY,
        ),
        Row::value("stalled and open at the end", "downlink-stalled", "/stalled/still_open")
            .at_most(0.0),
        Row::value("axum: stalled and open at the end", "axum-stalled", "/stalled/still_open"),
        Row::value("resumed exactly", "downlink-stalled", "/stalled/exact"),
        Row::value("resumed with one gap", "downlink-stalled", "/stalled/one_gap"),
        Row::value("resumed wrongly", "downlink-stalled", RETURNED).at_most(0.0),
        Row::value("axum: resumed wrongly", "axum-stalled", RETURNED),
    ],
    measure: |round| {
        let seconds = round.seconds.max(STALLED_SECONDS_MIN);
        let load = Load::on(900).rate(50.0).with(&["--payload-bytes", "4096"]).seconds(seconds);
        let (load, flags) = (load.watched(), ["--write-stall-max", WRITE_STALL_MAX]);
        let stalled = load.clone().with(&["--stalled", "100"]);
        round.run("downlink", &DOWNLINK, &flags, &load)?;
        round.run("downlink-stalled", &DOWNLINK, &flags, &stalled)?;
        round.run("axum-stalled", &AXUM, &[], &stalled)
    },
    lacks: everything,
};

const QUIET_P99: &str = "/quiet/latency_us/p99";

const TOPICS: Cell = Cell {
    name: "topics",
    what: "a hot topic has 10,000 readers and 8 events a second. A quiet topic has one reader and 50 events a \
           second",
    rows: &[
        Row::value("hot: p50 µs", "downlink", P50),
        Row::value("hot: p99 µs", "downlink", P99),
        Row::value("quiet: p50 µs", "downlink", "/quiet/latency_us/p50"),
        Row::value("quiet: p99 µs", "downlink", QUIET_P99),
        Row::value("quiet: lost", "downlink", "/quiet/lost").at_most(0.0),
        Row::ratio("quiet p99 ÷ hot p50", Figure("downlink", QUIET_P99), Figure("downlink", P50))
            .at_most(0.25),
    ],
    measure: |round| {
        let load = Load::on(10_000).rate(8.0).with(&["--quiet-rate", "50"]);
        round.run("downlink", &DOWNLINK, &[], &load)
    },
    lacks: everything,
};

const CONNECTS_WALL: &str = "/connects_per_s";
const CONNECTS_CPU: &str = "/connects_per_cpu_s";

const CONNECTS: Cell = Cell {
    name: "connects",
    what: "10,000 connections open and close, three times. Measured are the rate at which they open, and the \
           memory afterwards",
    rows: &[
        Row::value("downlink: connects/s, slowest storm", "downlink", CONNECTS_WALL)
            .at_least(10_000.0),
        Row::value("downlink: connects per CPU second", "downlink", CONNECTS_CPU),
        Row::value("axum: connects/s, slowest storm", "axum", CONNECTS_WALL),
        Row::value("axum: connects per CPU second", "axum", CONNECTS_CPU),
        Row::value("downlink: resident before, bytes", "downlink", "/resident_before"),
        Row::value("downlink: resident after, bytes", "downlink", "/resident_after"),
        Row::value("downlink: resident after ÷ before", "downlink", "/resident_growth")
            .at_most(1.2),
        Row::value("axum: resident after ÷ before", "axum", "/resident_growth"),
    ],
    measure: |round| {
        let load = Load::on(10_000).with(&["--storms", "3", "--settle", "2s"]);
        round.run("downlink", &DOWNLINK, &[], &load)?;
        round.run("axum", &AXUM, &[], &load)
    },
    lacks: everything,
};

const LARGE: Cell = Cell {
    name: "large",
    what: "events of 64 KiB go to 200 connections, and events of 1 MiB to 50 connections, at most 4 events \
           at a time. Both are measured with the server's usual limit of unsent bytes, and with the \
           system's limit",
    rows: &[
        Row::value("64 KiB: deliveries/s", "downlink-64k", DELIVERIES),
        Row::value("64 KiB, system's buffer: deliveries/s", "downlink-64k-system", DELIVERIES),
        Row::value("64 KiB, axum: deliveries/s", "axum-64k", DELIVERIES),
        Row::ratio(
            "64 KiB: usual ÷ system's",
            Figure("downlink-64k", DELIVERIES),
            Figure("downlink-64k-system", DELIVERIES),
        ),
        Row::ratio(
            "64 KiB: downlink ÷ axum",
            Figure("downlink-64k", DELIVERIES),
            Figure("axum-64k", DELIVERIES),
        ),
        Row::value("1 MiB: deliveries/s", "downlink-1m", DELIVERIES),
        Row::value("1 MiB, system's buffer: deliveries/s", "downlink-1m-system", DELIVERIES),
        Row::value("1 MiB, axum: deliveries/s", "axum-1m", DELIVERIES),
        Row::ratio(
            "1 MiB: usual ÷ system's",
            Figure("downlink-1m", DELIVERIES),
            Figure("downlink-1m-system", DELIVERIES),
        ),
        Row::ratio(
            "1 MiB: downlink ÷ axum",
            Figure("downlink-1m", DELIVERIES),
            Figure("axum-1m", DELIVERIES),
        ),
    ],
    measure: |round| {
        for (size, bytes, connections) in [("64k", "65536", 200), ("1m", "1048576", 50)] {
            let load = Load::on(connections).window(4).with(&["--payload-bytes", bytes]);
            round.run(&format!("downlink-{size}"), &DOWNLINK, &EVENT_BYTES_MAX, &load)?;
            if round.programs.has_flag(SEND_BUFFER) {
                let label = format!("downlink-{size}-system");
                let flags = [&EVENT_BYTES_MAX[..], &[SEND_BUFFER, "0"]].concat();
                round.run(&label, &DOWNLINK, &flags, &load)?;
            }
            round.run(&format!("axum-{size}"), &AXUM, &[], &load)?;
        }
        Ok(())
    },
    lacks: everything,
};
