//! The metrics of the server that the hub does not have: publishes by their result, failures of
//! access control, connections, the files of the store, and the process.
//!
//! The names and labels are part of the API. Each label has a fixed set of values, so a client
//! cannot add a time series.

use std::{fmt, fs, path::Path, time::UNIX_EPOCH};

use downlink::{
    hub::ClusterStatus,
    relay::UpstreamStatus,
    serve::{RefusedConnection, ServeStats},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge, info::Info},
    registry::{Registry, Unit},
};

use crate::logs;

use super::{
    process::{self, ProcessStats},
    state::App,
};

/// All metrics as OpenMetrics text. The call reads the state of each subscription and the list of
/// open files, so call it outside of async tasks.
pub(super) fn text(app: &App) -> Result<String, fmt::Error> {
    let stats = app.hub.stats_with_lags();
    // A relay follows another server, its upstream, and its hub also counts the events of the
    // upstream. The hub of a node counts the events of all nodes of the cluster. But only the
    // server that took the publish may count an event here, so that the sum over all servers is
    // right.
    let cluster = app.hub.cluster();
    let published = match (&app.forwarder, &cluster) {
        (Some(_), _) => 0,
        (None, Some(_)) => app.counters.confirmed(),
        (None, None) => stats.published,
    };
    let scrape = Scrape {
        published,
        forwarded: app.forwarder.as_ref().map(|forwarder| forwarder.forwarded()),
        publishes: app.counters.publishes().collect(),
        auth_failures: app.counters.auth_failures().collect(),
        is_draining: app.hub.is_draining(),
        listeners: app.counters.listeners(),
        store_bytes: app.settings.store().map(store_bytes),
        process: process::read(),
        upstream: app.hub.upstream(),
        cluster,
    };
    let mut registry = Registry::default();
    stats.register(&mut registry);
    registry.register_collector(Box::new(scrape));
    // If the start time has changed, a program that reads the metrics knows that all counters began
    // at 0 again.
    let build = Info::new([("version", crate::VERSION)]);
    registry.register("downlink_build", "The version of the server", build);
    let started = app.counters.started.duration_since(UNIX_EPOCH).unwrap_or_default();
    let started = ConstGauge::new(started.as_secs_f64());
    let help = "The time at which the server started, since 1970";
    registry.register_with_unit("downlink_start_time", help, Unit::Seconds, started);
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

/// The sizes of the store's file and of its write-ahead log. A file that does not exist counts as
/// empty.
pub(super) fn store_bytes(store: &Path) -> (u64, u64) {
    let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
    let mut wal = store.as_os_str().to_owned();
    wal.push("-wal");
    (size(store), size(Path::new(&wal)))
}

/// The numbers of one answer.
#[derive(Debug)]
struct Scrape {
    published: u64,
    publishes: Vec<(&'static str, u64)>,
    auth_failures: Vec<(&'static str, u64)>,
    is_draining: bool,
    listeners: Vec<(&'static str, ServeStats)>,
    store_bytes: Option<(u64, u64)>,
    process: Option<ProcessStats>,
    /// The number of publishes that the relay has forwarded, if the server is a relay.
    forwarded: Option<u64>,
    /// The state of the connection to the upstream, if the server is a relay.
    upstream: Option<UpstreamStatus>,
    /// The state of the cluster, if the server is a node of one.
    cluster: Option<ClusterStatus>,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Writer(&mut encoder);
        let published = [("published", self.published)];
        let publishes = published.iter().chain(&self.publishes);
        let says = "Publishes since the start of the server, by result; published and repeated \
                    count events, a refused request counts once";
        let publishes = publishes.map(|(result, count)| ([("result", *result)], *count));
        out.counters("downlink_publishes", says, publishes)?;
        let says = "Requests that access control refused since the start of the server, by code";
        let failures = self.auth_failures.iter().map(|(code, count)| ([("code", *code)], *count));
        out.counters("downlink_auth_failures", says, failures)?;
        let says = "Lines left out of the log since the start of the server, because the program \
                    that reads stderr was too slow or a write failed";
        out.metric("downlink_log_lines_dropped", says, &ConstCounter::new(logs::left_out()))?;
        let says = "1 while the server shuts down gracefully, else 0";
        out.gauge("downlink_draining", says, self.is_draining.into())?;
        self.connections(&mut out)?;
        if let Some((file, wal)) = self.store_bytes {
            out.gauge("downlink_store_bytes", "Size of the file of the store", file)?;
            let says = "Size of the write-ahead log of the store";
            out.gauge("downlink_store_wal_bytes", says, wal)?;
        }
        if let Some(forwarded) = self.forwarded {
            let says = "Requests to publish that the upstream has accepted from this relay";
            out.metric("downlink_forwarded", says, &ConstCounter::new(forwarded))?;
        }
        if let Some(upstream) = &self.upstream {
            let says = "1 while the relay receives the feed of its upstream, else 0";
            out.gauge("downlink_upstream_connected", says, upstream.connected.into())?;
            let says = "Offsets of the upstream that the relay has not applied yet, as far as it \
                        knows";
            out.gauge("downlink_upstream_lag", says, upstream.lag)?;
            let silent =
                upstream.heard.map_or(f64::INFINITY, |heard| heard.elapsed().as_secs_f64());
            let says = "Time since the last message of the upstream, in seconds";
            let silent = ConstGauge::new(silent);
            out.metric("downlink_upstream_silent_seconds", says, &silent)?;
        }
        if let Some(cluster) = &self.cluster {
            of_cluster(cluster, &mut out)?;
        }
        self.process.map_or(Ok(()), |process| out.system(&process))
    }
}

/// The metrics of a node of a cluster.
fn of_cluster(cluster: &ClusterStatus, out: &mut Writer<'_, '_>) -> fmt::Result {
    let says = "1 while the node takes publishes, else 0";
    out.gauge("downlink_cluster_takes_publishes", says, cluster.takes_publishes.into())?;
    let says = "Number of the last journal entry that the node has applied";
    out.gauge("downlink_cluster_position", says, cluster.position)?;
    let says = "Journal entries that the node had not applied yet when it last asked the engine";
    out.gauge("downlink_cluster_lag", says, cluster.lag)?;
    let silent = cluster.heard.map_or(f64::INFINITY, |heard| heard.elapsed().as_secs_f64());
    let says = "Time since the last journal entry has arrived, in seconds";
    out.metric("downlink_cluster_silent_seconds", says, &ConstGauge::new(silent))?;
    if let Some(age) = cluster.oldest_age {
        let says = "Age of the oldest journal entry that the engine keeps, in seconds";
        let age = ConstGauge::new(age.as_secs_f64());
        out.metric("downlink_cluster_oldest_entry_age_seconds", says, &age)?;
    }
    let totals = &cluster.totals;
    let counters = [
        ("downlink_cluster_losses", "Losses of the engine that the node has found", totals.cuts),
        (
            "downlink_cluster_restarts",
            "Times that the node has discarded its history and begun anew",
            totals.restarts,
        ),
        (
            "downlink_cluster_void_entries",
            "Journal entries that were not applied, because they came too late or belong to a lost \
             history",
            totals.void,
        ),
    ];
    for (name, says, count) in counters {
        out.metric(name, says, &ConstCounter::new(count))?;
    }
    Ok(())
}

impl Scrape {
    fn connections(&self, out: &mut Writer<'_, '_>) -> fmt::Result {
        let of_each = |number: fn(&ServeStats) -> u64| {
            let listeners = self.listeners.iter();
            listeners.map(move |(name, stats)| ([("listener", *name)], number(stats)))
        };
        let open = of_each(|stats| stats.connections() as u64);
        out.gauges("downlink_connections", "Open connections, by listener", open)?;
        let max = of_each(|stats| stats.connections_max() as u64);
        let says = "Maximum number of open connections, by listener";
        out.gauges("downlink_connections_max", says, max)?;
        let reasons = RefusedConnection::ALL;
        let refused = self.listeners.iter().flat_map(|(name, stats)| {
            reasons.map(|reason| {
                let labels = [("listener", *name), ("reason", reason.as_str())];
                (labels, stats.connections_refused(reason))
            })
        });
        let says =
            "Connections beyond a limit since the start of the server, by listener and limit";
        out.counters("downlink_connections_refused", says, refused)?;
        let says = "Bytes sent to peers since the start of the server, by listener";
        out.counters("downlink_sent_bytes", says, of_each(ServeStats::sent_bytes))
    }
}

struct Writer<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Writer<'_, '_> {
    fn gauge(&mut self, name: &str, says: &str, value: u64) -> fmt::Result {
        self.metric(name, says, &gauge_of(value))
    }

    fn metric(&mut self, name: &str, says: &str, metric: &impl EncodeMetric) -> fmt::Result {
        let says = format!("{says}.");
        metric.encode(self.0.encode_descriptor(name, &says, None, metric.metric_type())?)
    }

    fn gauges<const N: usize>(
        &mut self,
        name: &str,
        says: &str,
        values: impl Iterator<Item = ([(&'static str, &'static str); N], u64)>,
    ) -> fmt::Result {
        let says = format!("{says}.");
        let mut family = self.0.encode_descriptor(name, &says, None, MetricType::Gauge)?;
        for (labels, value) in values {
            gauge_of(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn counters<const N: usize>(
        &mut self,
        name: &str,
        says: &str,
        counts: impl Iterator<Item = ([(&'static str, &'static str); N], u64)>,
    ) -> fmt::Result {
        let says = format!("{says}.");
        let mut family = self.0.encode_descriptor(name, &says, None, MetricType::Counter)?;
        for (labels, count) in counts {
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// The names are those that Prometheus' own client libraries use.
    fn system(&mut self, process: &ProcessStats) -> fmt::Result {
        let cpu = ConstCounter::new(process.cpu_seconds);
        self.metric("process_cpu_seconds", "Processor time of the process, in seconds", &cpu)?;
        let resident = process.resident_bytes;
        self.gauge("process_resident_memory_bytes", "Memory of the process in RAM", resident)?;
        self.gauge("process_open_fds", "Open file descriptors", process.open_fds)?;
        if let Some(max) = process.max_fds {
            self.gauge("process_max_fds", "Maximum number of open file descriptors", max)?;
        }
        let start = ConstGauge::new(process.start_seconds);
        let says = "The time at which the process started, since 1970, in seconds";
        self.metric("process_start_time_seconds", says, &start)
    }
}

fn gauge_of(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}
