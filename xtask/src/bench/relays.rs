//! The cells of relays: the delay that a relay adds, what a relay costs its upstream, and what
//! following costs the relay.
//!
//! The upstream and the relay run on the processor of the servers, and share it. In `relay-readers`,
//! the relay runs on the processor of the load tool instead, because its work would push the code
//! and data of the upstream out of the processor's caches.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::cells::Cell;
use super::round::{Load, Round};
use super::servers::{DOWNLINK, DOWNLINK_BESIDE, Programs, Running, Server};
use super::stores::{KEEP_ALL, making, past_events};
use super::table::{Figure, Row};

const P50: &str = "/latency_us/p50";
const P99: &str = "/latency_us/p99";
const CPU: &str = "/server/cpu_us_per_delivery";

/// The number of readers of the relay in `relay-readers`.
const READERS: u64 = 10_000;

/// The events a second for these readers. They cost the relay most of a quarter of a processor.
const READERS_RATE: f64 = 8.0;

/// The events a second that are published to the upstream in addition, for one reader of the
/// upstream. With many events, the processor time of one event is known precisely.
const UPSTREAM_RATE: f64 = 500.0;

/// The maximum wait for a relay that fills itself.
const FILL_MAX: Duration = Duration::from_secs(120);

/// The memory for a history of a million events.
const HISTORY: [&str; 2] = ["--history-bytes-max", "1GiB"];

const fn everything(_: &Round<'_>) -> Option<&'static str> {
    None
}

pub(super) const RELAY: Cell = Cell {
    name: "relay",
    what: "1,000 events a second are published to the upstream. 10 readers are at the upstream, or at a \
           relay of it: the latency from publish to receive",
    rows: &[
        Row::value("upstream: p50 µs", "upstream", P50),
        Row::value("upstream: p99 µs", "upstream", P99),
        Row::value("relay: p50 µs", "relay", P50),
        Row::value("relay: p99 µs", "relay", P99),
        Row::value("relay − upstream: p50 µs", "relay", "/added_us/p50").at_most(1_000.0),
        Row::value("relay − upstream: p99 µs", "relay", "/added_us/p99").at_most(5_000.0),
        Row::value("relay: lost", "relay", "/lost").at_most(0.0),
    ],
    measure: |round| {
        let upstream = round.programs.start(&DOWNLINK, &[])?;
        let relay = follow(round.programs, &DOWNLINK, &upstream, &[])?;
        filled(&relay)?;
        let load = Load::on(10).rate(1_000.0).in_real_time();
        let at_upstream = round.report(&mut round.tool(&load, &upstream), &load, &upstream)?;
        round.keep("upstream", at_upstream);
        let publish = format!("{}/events?topic={{topic}}", upstream.url);
        let load = load.with(&["--publish-url", &publish]);
        let mut at_relay = round.report(&mut round.tool(&load, &relay), &load, &relay)?;
        let added = |at| {
            let upstream = round.figure("upstream", at)?;
            Some(at_relay.pointer(at)?.as_f64()? - upstream)
        };
        at_relay["added_us"] = json!({ "p50": added(P50), "p99": added(P99) });
        round.keep("relay", at_relay);
        Ok(())
    },
    lacks: everything,
};

pub(super) const RELAY_READERS: Cell = Cell {
    name: "relay-readers",
    what: "500 events a second are published to the upstream. Its relay has no readers, or 10,000 readers \
           who get 8 more events a second: the upstream's processor time for each of the 500",
    rows: &[
        Row::value("relay without readers: upstream's CPU µs per event", "none", CPU),
        Row::value("relay with 10,000 readers: upstream's CPU µs per event", "many", CPU),
        Row::ratio("10,000 readers ÷ none", Figure("many", CPU), Figure("none", CPU)).at_most(1.05),
    ],
    measure: |round| {
        for (label, readers) in [("none", 0), ("many", READERS)] {
            let upstream = round.programs.start(&DOWNLINK, &[])?;
            let relay = follow(round.programs, &DOWNLINK_BESIDE, &upstream, &[])?;
            filled(&relay)?;
            let publish = format!("{}/events?topic={{topic}}", upstream.url);
            let seconds = round.seconds + 20;
            // The run without readers of the relay publishes the same events, and one reader gets
            // them from the upstream.
            let (aim, connections) = if readers > 0 { (&relay, readers) } else { (&upstream, 1) };
            let beside = Load::on(connections).rate(READERS_RATE).seconds(seconds);
            let beside = beside.with(&["--topic-prefix", "beside-", "--publish-url", &publish]);
            let mut tool = round.tool(&beside.in_real_time(), aim);
            let mut tool = tool.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
            let load = Load::on(1).rate(UPSTREAM_RATE).in_real_time();
            let connected = subscribers(aim, connections);
            let report = connected
                .and_then(|()| round.report(&mut round.tool(&load, &upstream), &load, &upstream));
            tool.kill()?;
            tool.wait()?;
            round.keep(label, report?);
        }
        Ok(())
    },
    lacks: everything,
};

pub(super) const RELAY_FILL: Cell = Cell {
    name: "relay-fill",
    what: "the upstream has 1,000,000 events of 64 bytes. A relay starts from nothing without a cache, from \
           nothing with a cache, and again with the full cache: the time until it has everything",
    rows: &[
        Row::value("without cache: s", "memory", "/seconds"),
        Row::value("without cache: relay's CPU µs per event", "memory", "/cpu_us_per_event"),
        Row::value("with a new cache: s", "cache", "/seconds").at_most(10.0),
        Row::value("with a new cache: relay's CPU µs per event", "cache", "/cpu_us_per_event"),
        Row::value("again with the cache: s", "again", "/seconds").at_most(2.0),
        Row::value("again with the cache: resident bytes", "again", "/resident_bytes"),
    ],
    measure: |round| {
        let events = past_events(round);
        let large = [&KEEP_ALL[..], &HISTORY].concat();
        let flags: Vec<String> = large.iter().map(ToString::to_string).collect();
        let upstream = round.programs.start(&DOWNLINK, &flags)?;
        let load = making(1_000, events);
        let report = round.report(&mut round.tool(&load, &upstream), &load, &upstream)?;
        round.keep("past", report);
        let cache = round.store("cache.db")?;
        let events: u64 = events.parse()?;
        for (label, cache) in [("memory", None), ("cache", Some(&*cache)), ("again", Some(&*cache))]
        {
            let report = fill(round.programs, &upstream, &large, cache, events)?;
            round.keep(label, report);
        }
        Ok(())
    },
    lacks: everything,
};

/// Starts a relay.
fn follow(
    programs: &Programs<'_>,
    relay: &Server,
    upstream: &Running,
    flags: &[&str],
) -> anyhow::Result<Running> {
    let follow = ["--follow", &upstream.url];
    let flags = follow.iter().chain(flags).map(ToString::to_string).collect::<Vec<_>>();
    programs.start(relay, &flags)
}

/// Starts a relay, waits until it has everything, and stops it.
fn fill(
    programs: &Programs<'_>,
    upstream: &Running,
    flags: &[&str],
    cache: Option<&Path>,
    events: u64,
) -> anyhow::Result<Value> {
    let cache = cache.map(|cache| cache.to_string_lossy().into_owned());
    let of_cache = cache.iter().flat_map(|cache| ["--store", cache]);
    let flags: Vec<&str> = flags.iter().copied().chain(of_cache).collect();
    let started = Instant::now();
    let relay = follow(programs, &DOWNLINK, upstream, &flags)?;
    filled(&relay)?;
    let seconds = started.elapsed().as_secs_f64();
    let read = |name: &str| {
        let path = format!("/proc/{}/{name}", relay.pid());
        fs::read_to_string(&path).with_context(|| path.clone())
    };
    let resident = super::watch::resident(&read("status")?);
    let cpu = cpu_seconds(&read("stat")?).context("the system does not report processor time")?;
    relay.stop(programs)?;
    Ok(json!({
        "seconds": seconds,
        "resident_bytes": resident,
        "cpu_us_per_event": cpu * 1e6 / events as f64,
        "connections": 0,
        "connections_asked": 0,
    }))
}

/// Waits until a relay has everything that its upstream has. Until then, a subscription that asks
/// for old events waits too, or is refused after ten seconds.
fn filled(relay: &Running) -> anyhow::Result<()> {
    let began = Instant::now();
    while !head(relay, "/events?topic=bench-none&start=earliest")?.starts_with("HTTP/1.1 200") {
        ensure!(began.elapsed() < FILL_MAX, "the relay does not get all events of its upstream");
    }
    Ok(())
}

/// The status line of the answer to a request.
fn head(server: &Running, path: &str) -> anyhow::Result<String> {
    let mut line = String::new();
    BufReader::new(request(server, path)?).read_line(&mut line)?;
    Ok(line)
}

/// Waits until a server has this many subscribers.
fn subscribers(server: &Running, wanted: u64) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let text = get(server, "/metrics")?;
        let line = text.lines().find_map(|line| line.strip_prefix("downlink_subscribers "));
        let now: f64 = line.and_then(|number| number.trim().parse().ok()).unwrap_or_default();
        if now >= wanted as f64 {
            return Ok(());
        }
        ensure!(began.elapsed() < FILL_MAX, "{now} of {wanted} subscribers have connected");
    }
}

/// The answer to a request, with its head.
fn get(server: &Running, path: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    request(server, path)?.read_to_string(&mut text)?;
    Ok(text)
}

fn request(server: &Running, path: &str) -> anyhow::Result<TcpStream> {
    let address = format!("127.0.0.1:{}", server.port());
    let mut stream = TcpStream::connect(&address).with_context(|| address.clone())?;
    stream.set_read_timeout(Some(FILL_MAX))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    Ok(stream)
}

/// The processor time of a process, from `/proc/…/stat`.
fn cpu_seconds(stat: &str) -> Option<f64> {
    // The name of the program may have spaces, and is in parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    // On Linux, a tick is always a hundredth of a second for programs.
    Some(ticks as f64 / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_time_is_found_behind_a_name_with_spaces() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 100 0 0 0 150 25 0 0 20 0 5 0 1000";
        assert_eq!(cpu_seconds(stat), Some(1.75));
        assert_eq!(cpu_seconds("7 (a"), None);
    }
}
