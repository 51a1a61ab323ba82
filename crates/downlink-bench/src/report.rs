//! The report of a run, which is printed as a table or as one JSON object.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    books::Books, load::Period, main_load::LoadResults, pace::Pace, plan::Plan,
    replay::ReplayResults, stalled::Returns,
};

/// If the load tool is busy for a larger share of the time than this, the figures may describe the
/// tool and not the server. The report then warns.
const BUSY_LIMIT: f64 = 0.9;

/// The figures of a run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LoadReport {
    pub(super) connections: u64,
    connections_asked: usize,
    connections_ended_early: u64,
    topics: usize,
    publishers: usize,
    payload_bytes: usize,
    /// The requested events per second.
    rate: Option<f64>,
    window: Option<usize>,
    /// The length of the measured period.
    seconds: f64,
    published: u64,
    /// The number of events that the server refused or did not answer.
    refused: u64,
    /// The number of events that should have been published before the end of the run, but were
    /// not.
    overdue: u64,
    expected: u64,
    received: u64,
    lost: u64,
    duplicated: u64,
    out_of_order: u64,
    wrong_topic: u64,
    foreign: u64,
    /// True if the counts are exact. The counts are not exact if a connection had more ranges of
    /// missing events than it can store.
    exact: bool,
    /// True if every connection got every event once and in order, and nothing else. With several
    /// publishers, the order is not checked. The other loads of the run must also be without a
    /// flaw.
    flawless: bool,
    quiet: Option<QuietFigures>,
    stalled: Option<Returns>,
    replay: Option<ReplayResults>,
    connects_per_s: f64,
    events_per_s: f64,
    /// Events that the server acknowledged per second of the measured period.
    acknowledged_per_s: f64,
    pub(super) deliveries_per_s: f64,
    deliveries_per_read: f64,
    pub(super) latency_us: Latency,
    /// The time to the server's answer to a publish.
    answer_us: Latency,
    window_stalls: u64,
    generator_busy_share: f64,
    generator_limited: bool,
    server: Option<ServerFigures>,
    problem: Option<String>,
}

/// Percentiles of times. Each time begins when an event should be published. The latency of an
/// event ends with the read that contained the event.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p99: f64,
    #[serde(rename = "p99.9")]
    pub(super) p99_9: f64,
    pub(super) max: f64,
}

/// The figures of the quiet topic, a separate topic with one reader.
#[derive(Clone, Copy, Debug, Serialize)]
struct QuietFigures {
    published: u64,
    received: u64,
    lost: u64,
    duplicated: u64,
    out_of_order: u64,
    flawless: bool,
    latency_us: Latency,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct ServerFigures {
    cpu_share: f64,
    /// Events acknowledged per second of the server's processor time.
    acknowledged_per_cpu_s: f64,
    cpu_us_per_delivery: f64,
    cpu_user_us_per_delivery: f64,
    /// The number of connections that got their event stream, per second of the server's processor
    /// time.
    connects_per_cpu_s: Option<f64>,
    resident_bytes: u64,
    resident_bytes_per_connection: f64,
}

impl LoadReport {
    pub(super) fn new(plan: &Plan, outcome: &LoadResults) -> Self {
        let (books, counts) = (&outcome.books, &outcome.books.counts);
        let (rate, window) = plan.pace.setting();
        let deliveries = books.measured.deliveries as f64;
        let Period { seconds, busy_share, .. } = outcome.measured;
        let quiet = outcome.quiet.as_ref().map(quiet_figures);
        let returned = outcome.returns.as_ref().is_none_or(|returns| returns.failed == 0);
        // The requests of several publishers may reach the server in any order, so the order of the
        // events is checked only with one publisher.
        let flawless = counts.is_flawless(plan.publishers == 1)
            && quiet.is_none_or(|quiet| quiet.flawless)
            && returned
            && outcome.replay.as_ref().is_none_or(|replay| replay.flawless);
        Self {
            connections: outcome.connections,
            connections_asked: plan.connections,
            connections_ended_early: outcome.ended_early,
            topics: plan.topics,
            publishers: plan.publishers,
            payload_bytes: plan.payload_bytes,
            rate,
            window,
            seconds,
            published: books.published,
            refused: books.refused.len() as u64,
            overdue: overdue(plan, books.published),
            expected: counts.expected,
            received: counts.received,
            lost: counts.lost(),
            duplicated: counts.duplicated,
            out_of_order: counts.out_of_order,
            wrong_topic: counts.wrong_topic,
            foreign: counts.foreign,
            exact: counts.holes_forgotten == 0,
            flawless,
            quiet,
            stalled: outcome.returns.clone(),
            replay: outcome.replay.clone(),
            connects_per_s: outcome.connections as f64 / outcome.connects.seconds,
            events_per_s: books.measured.published as f64 / seconds,
            acknowledged_per_s: books.measured.acknowledged as f64 / seconds,
            deliveries_per_s: deliveries / seconds,
            deliveries_per_read: deliveries / (books.measured.reads as f64).max(1.0),
            latency_us: Latency::new(&books.latency_ns),
            answer_us: Latency::new(&books.answer_ns),
            window_stalls: books.pace.stalls(),
            generator_busy_share: busy_share,
            generator_limited: busy_share > BUSY_LIMIT,
            server: server_figures(outcome),
            problem: outcome.problem.clone(),
        }
    }

    /// A short description of the load and its latency.
    pub(super) fn headline(&self) -> String {
        let (pace, Latency { p50, p99, .. }) = (self.pace(), self.latency_us.in_ms());
        format!("{} connections, {pace}: p50 {p50:.2} ms, p99 {p99:.2} ms", self.connections)
    }

    fn pace(&self) -> String {
        match (self.rate, self.window) {
            (Some(rate), _) => format!("{rate} events/s"),
            (None, window) => format!("window of {} events", window.unwrap_or_default()),
        }
    }
}

/// At a fixed rate, the number of events that should have been published but were not, because the
/// server was too slow.
fn overdue(plan: &Plan, published: u64) -> u64 {
    let Pace::Rate { per_second, .. } = plan.pace else { return 0 };
    let seconds = (plan.timing.warmup + plan.timing.duration).as_secs_f64();
    let due = (per_second * seconds).ceil() as u64;
    due.min(plan.timing.events.unwrap_or(u64::MAX)).saturating_sub(published)
}

fn quiet_figures(books: &Books) -> QuietFigures {
    let counts = &books.counts;
    QuietFigures {
        published: books.published,
        received: counts.received,
        lost: counts.lost(),
        duplicated: counts.duplicated,
        out_of_order: counts.out_of_order,
        flawless: counts.is_flawless(true),
        latency_us: Latency::new(&books.latency_ns),
    }
}

impl Latency {
    fn new(times_ns: &Histogram<u64>) -> Self {
        let us = |share| times_ns.value_at_quantile(share) as f64 / 1e3;
        let max = times_ns.max() as f64 / 1e3;
        Self { p50: us(0.5), p99: us(0.99), p99_9: us(0.999), max }
    }

    fn in_ms(self) -> Self {
        let Self { p50, p99, p99_9, max } = self;
        Self { p50: p50 / 1e3, p99: p99 / 1e3, p99_9: p99_9 / 1e3, max: max / 1e3 }
    }
}

fn server_figures(outcome: &LoadResults) -> Option<ServerFigures> {
    let (used, resident) = outcome.measured.used.zip(outcome.resident_bytes)?;
    let grown = resident.connected.saturating_sub(resident.before) as f64;
    let deliveries = (outcome.books.measured.deliveries as f64).max(1.0);
    let acknowledged = outcome.books.measured.acknowledged as f64;
    let connections = outcome.connections as f64;
    let connecting = outcome.connects.used.filter(|used| used.cpu_s > 0.0);
    Some(ServerFigures {
        cpu_share: used.cpu_s / outcome.measured.seconds,
        acknowledged_per_cpu_s: acknowledged / used.cpu_s.max(f64::EPSILON),
        cpu_us_per_delivery: used.cpu_s * 1e6 / deliveries,
        cpu_user_us_per_delivery: used.cpu_user_s * 1e6 / deliveries,
        connects_per_cpu_s: connecting.map(|used| connections / used.cpu_s),
        resident_bytes: resident.connected,
        resident_bytes_per_connection: grown / connections.max(1.0),
    })
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.load(f)?;
        self.accounts(f)?;
        self.speed(f)?;
        self.remarks(f)
    }
}

impl LoadReport {
    fn load(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pace = self.pace();
        let (publishers, bytes) = (self.publishers, self.payload_bytes);
        row(f, "connections", format_args!("{} on {} topics", self.connections, self.topics))?;
        row(f, "load", format_args!("{pace}, {bytes} bytes each, {publishers} publishers"))?;
        row(f, "measured", format_args!("{:.1} s", self.seconds))
    }

    fn accounts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            ("events published", self.published, true),
            ("events refused", self.refused, false),
            ("events overdue", self.overdue, false),
            ("deliveries expected", self.expected, true),
            ("received", self.received, true),
            ("lost", self.lost, true),
            ("duplicated", self.duplicated, true),
            ("out of order", self.out_of_order, true),
            ("of another topic", self.wrong_topic, false),
            ("of another run", self.foreign, false),
            ("connections ended", self.connections_ended_early, false),
        ];
        for (name, number, always) in all {
            if always || number > 0 {
                row(f, name, format_args!("{number}"))?;
            }
        }
        Ok(())
    }

    fn speed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Latency { p50, p99, p99_9, max } = self.latency_us.in_ms();
        row(f, "deliveries/s", format_args!("{:.0}", self.deliveries_per_s))?;
        row(f, "deliveries per read", format_args!("{:.2}", self.deliveries_per_read))?;
        for (name, ms) in [("p50", p50), ("p99", p99), ("p99.9", p99_9), ("max", max)] {
            row(f, &format!("latency {name}"), format_args!("{ms:.3} ms"))?;
        }
        let Latency { p50, p99, .. } = self.answer_us.in_ms();
        row(f, "publish answered", format_args!("p50 {p50:.3} ms, p99 {p99:.3} ms"))?;
        if let Some(server) = self.server {
            let (share, each) = (server.cpu_share * 100.0, server.cpu_us_per_delivery);
            let user = server.cpu_user_us_per_delivery;
            let cpu = format_args!(
                "{share:.0} %, {each:.2} µs per delivery, of which {user:.2} µs outside the kernel"
            );
            row(f, "server CPU", cpu)?;
            let bytes = server.resident_bytes_per_connection;
            row(f, "server memory", format_args!("{bytes:.0} bytes per connection"))?;
        }
        row(f, "connects/s", format_args!("{:.0}", self.connects_per_s))?;
        self.beside(f)?;
        row(f, "generator busy", format_args!("{:.0} %", self.generator_busy_share * 100.0))
    }

    /// The rows of the loads that ran at the same time as the main load.
    fn beside(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(quiet) = self.quiet {
            let QuietFigures { received, lost, .. } = quiet;
            row(f, "quiet topic", format_args!("{received} received, {lost} lost"))?;
            let Latency { p50, p99, max, .. } = quiet.latency_us.in_ms();
            let times = format_args!("p50 {p50:.3} ms, p99 {p99:.3} ms, max {max:.3} ms");
            row(f, "quiet latency", times)?;
        }
        if let Some(replay) = &self.replay {
            row(f, "replay", format_args!("{replay}"))?;
        }
        let Some(stalled) = &self.stalled else { return Ok(()) };
        let Returns { readers, cut, exact, one_gap, failed, .. } = stalled;
        row(
            f,
            "stalled readers",
            format_args!("{readers}; the server closed {cut} of their connections"),
        )?;
        if let Some(open) = stalled.still_open {
            row(f, "still open", format_args!("{open} when the load ended"))?;
        }
        let returned =
            format_args!("{exact} without a gap, {one_gap} with one gap, {failed} with an error");
        row(f, "they resumed", returned)
    }

    fn remarks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.generator_limited {
            writeln!(f, "The load tool was too busy: it may have limited these figures.")?;
        }
        if self.window_stalls > 0 {
            let stalls = self.window_stalls;
            writeln!(f, "The window was reset {stalls} times after 250 ms without a delivery.")?;
        }
        if !self.exact {
            writeln!(f, "Too many events are missing: some late events count as duplicated.")?;
        }
        if let Some(problem) = self.stalled.as_ref().and_then(|stalled| stalled.problem.as_ref()) {
            writeln!(f, "First stalled reader that resumed with an error: {problem}.")?;
        }
        write_problem(f, self.problem.as_deref())
    }
}

/// Bytes in mebibytes.
pub(super) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

pub(super) fn write_problem(f: &mut fmt::Formatter<'_>, problem: Option<&str>) -> fmt::Result {
    problem.map_or(Ok(()), |problem| writeln!(f, "First problem: {problem}."))
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, value: fmt::Arguments<'_>) -> fmt::Result {
    writeln!(f, "{name:<20} {value}")
}
