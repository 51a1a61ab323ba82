//! The numbers of a hub as OpenMetrics text, for Prometheus and similar systems.
//!
//! Users depend on the names of the metrics, so the names must not change. No metric declares a
//! unit, because OpenMetrics requires a declared unit at the end of the metric's name. The name
//! `downlink_bytes_kept` has the unit in the middle. The counts begin when the hub is made.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use super::{COMMIT_SECONDS, LAG_EVENTS, Refusals, Stats};

impl Stats {
    /// The numbers as OpenMetrics text. Serve it with the content type
    /// `application/openmetrics-text; version=1.0.0; charset=utf-8`.
    ///
    /// ```
    /// let hub = downlink::Hub::<String>::text();
    /// let text = hub.stats().openmetrics();
    /// assert!(text.contains("\ndownlink_subscribers 0\n"));
    /// assert!(text.ends_with("# EOF\n"));
    /// ```
    pub fn openmetrics(&self) -> String {
        let mut registry = Registry::default();
        self.register(&mut registry);
        let mut text = String::new();
        text::encode(&mut text, &registry).expect("writing to a string does not fail");
        text
    }

    /// Adds these numbers to a registry, which may also contain other metrics of the app.
    ///
    /// The numbers in the registry do not change afterwards. So make a new registry for each
    /// request. Register the current numbers of the hub and clones of the app's own metrics in it.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.clone()));
    }
}

impl Collector for Stats {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = MetricsWriter(&mut encoder);
        out.gauge("subscribers", "Open subscriptions", self.subscribers)?;
        out.gauge("topics", "Existing topics, including clients' inboxes", self.topics)?;
        let kept = "Retained events; an event in several topics counts once in each";
        out.gauge("events_kept", kept, self.events)?;
        out.gauge("bytes_kept", "Retained bytes", self.bytes)?;
        out.counter("events_published", "Events published", self.published)?;
        let Refusals { busy, disk_full, store_failed, .. } = self.publishes_refused;
        let refused = [("busy", busy), ("disk_full", disk_full), ("store_failed", store_failed)];
        let says = "Publishes refused because of the store, by reason";
        out.by_reason("publishes_refused", says, refused.into_iter())?;
        let taken = "Events that subscriptions read from the log";
        out.counter("events_delivered", taken, self.delivered)?;
        out.counter("connects", "Subscriptions opened", self.connects)?;
        out.counter("refused", "Subscriptions refused", self.refused)?;
        let ends = self.disconnects.iter().map(|(reason, count)| (reason.as_str(), *count));
        out.by_reason("disconnects", "Subscriptions ended, by reason", ends)?;
        let gaps = self.gaps.iter().map(|(reason, count)| (reason.as_str(), *count));
        out.by_reason("gaps", "Gaps reported, by reason", gaps)?;
        if let Some(store) = self.store {
            let says = "Events that wait for their commit in the store";
            out.gauge("store_queue_events", says, store.queue_events)?;
            let says = "Time of the commits of the store, in seconds";
            let (counts, sum) = (&store.commits.counts, store.commits.sum.as_secs_f64());
            out.histogram("store_commit_seconds", says, &COMMIT_SECONDS, counts, sum)?;
        }
        let Some(lags) = self.lags else { return Ok(()) };
        let says = "Lag of the open subscription that is furthest behind, in offsets (events of all topics)";
        out.gauge("lag_events_max", says, usize::try_from(lags.max).unwrap_or(usize::MAX))?;
        let says = "Lags of the subscriptions that are open now, in offsets (events of all topics); not a \
                    count since the start, so use it without rate()";
        let bounds = LAG_EVENTS.map(|bound| bound as f64);
        out.histogram("lag_events", says, &bounds, &lags.counts, lags.sum as f64)
    }
}

/// Writes metrics whose names begin with `downlink_`.
struct MetricsWriter<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl MetricsWriter<'_, '_> {
    fn gauge(&mut self, name: &str, says: &str, value: usize) -> fmt::Result {
        let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        self.metric(name, says, &value)
    }

    fn counter(&mut self, name: &str, says: &str, value: u64) -> fmt::Result {
        self.metric(name, says, &ConstCounter::new(value))
    }

    fn metric(&mut self, name: &str, says: &str, metric: &impl EncodeMetric) -> fmt::Result {
        let (name, says) = described(name, says);
        metric.encode(self.0.encode_descriptor(&name, &says, None, metric.metric_type())?)
    }

    /// `counts` has one number for each bound, and one for the larger values.
    fn histogram(
        &mut self,
        name: &str,
        says: &str,
        bounds: &[f64],
        counts: &[u64],
        sum: f64,
    ) -> fmt::Result {
        let (name, says) = described(name, says);
        let bounds = bounds.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
        let mut out = self.0.encode_descriptor(&name, &says, None, MetricType::Histogram)?;
        out.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
    }

    fn by_reason(
        &mut self,
        name: &str,
        says: &str,
        counts: impl Iterator<Item = (&'static str, u64)>,
    ) -> fmt::Result {
        let (name, says) = described(name, says);
        let mut family = self.0.encode_descriptor(&name, &says, None, MetricType::Counter)?;
        for (reason, count) in counts {
            let labels = [("reason", reason)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// The name with its prefix, and the help text as a sentence.
fn described(name: &str, says: &str) -> (String, String) {
    (format!("downlink_{name}"), format!("{says}."))
}
