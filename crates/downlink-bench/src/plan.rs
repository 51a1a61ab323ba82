//! What a run is to do: the checked command line, and the requests made from its templates.
//!
//! A wrong address, header or template is refused here with a sentence, before anything is connected.

use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    ops::RangeInclusive,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Arguments, pace::Pace, record::RECORD_BYTES};

/// More connections than one address has ports for need several generators.
const CONNECTIONS: RangeInclusive<usize> = 1..=60_000;
/// Events of one request: what a server takes in a batch by default.
const BATCH: RangeInclusive<usize> = 1..=10_000;
/// Connections that stop reading: they come back one by one, and each costs its buffers until then.
const STALLED: RangeInclusive<usize> = 0..=10_000;
/// Topics beyond the connections have no reader; a server has this many at most by default.
const TOPICS: RangeInclusive<usize> = 1..=100_000;
/// Each publisher is a connection; more only add to the disorder on the way in.
const PUBLISHERS: RangeInclusive<usize> = 1..=1_000;
/// Beyond this a single thread publishes and does nothing else.
const RATE_MAX: f64 = 1_000_000.0;
/// The window's book-keeping is an entry for each event in it.
const WINDOW: RangeInclusive<usize> = 1..=65_536;
/// The largest payload: what a server takes by default (1 MiB).
const PAYLOAD_BYTES: RangeInclusive<usize> = RECORD_BYTES..=1 << 20;

/// A run, checked.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) subscribe_address: SocketAddr,
    pub(super) publish_address: SocketAddr,
    pub(super) connections: usize,
    pub(super) topics: usize,
    pub(super) publishers: usize,
    pub(super) payload_bytes: usize,
    pub(super) pacing: Pacing,
    pub(super) timing: Timing,
    pub(super) spin: bool,
    /// Events of one request.
    pub(super) batch: usize,
    /// Further connections that stop reading.
    pub(super) stalled: usize,
    /// The load of the quiet topic beside this one.
    pub(super) quiet: Option<Box<Plan>>,
    /// The number that tells this run's events from those of others; a random one without it.
    pub(super) run: Option<u32>,
    /// What a reader from the beginning is due.
    pub(super) past: Option<Past>,
    subscribe: Target,
    publish: Target,
    topic_prefix: String,
    body: String,
}

/// The phases' lengths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    pub(super) settle: Duration,
    pub(super) warmup: Duration,
    pub(super) measured: Duration,
    /// Silence after which what has not come is lost.
    pub(super) drain: Duration,
    /// How many events to publish at most.
    pub(super) events_max: Option<u64>,
}

/// The events of an earlier run, and how to ask for them from the beginning.
#[derive(Clone, Debug)]
pub(super) struct Past {
    pub(super) run: u32,
    pub(super) events: u64,
    pub(super) request: Vec<u8>,
}

/// Open or closed loop.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pacing {
    Rate(f64),
    Window(usize),
}

impl Pacing {
    pub(super) fn start(self) -> Pace {
        match self {
            Self::Rate(per_second) => Pace::rate(per_second),
            Self::Window(size) => Pace::window(size),
        }
    }
}

/// Where requests go, with placeholders still in the path.
#[derive(Clone, Debug)]
struct Target {
    method: String,
    authority: String,
    path: String,
    /// Header lines, each with its end.
    headers: String,
}

impl Plan {
    /// Checks the command line.
    ///
    /// # Errors
    ///
    /// A sentence that says what cannot be used.
    pub(super) fn new(arguments: &Arguments) -> anyhow::Result<Self> {
        let publish_url = arguments.publish_url.as_deref().unwrap_or(&arguments.url);
        let subscribe = Target::parse("GET", &arguments.url, &arguments.headers)?;
        let publish =
            Target::parse(&arguments.publish_method, publish_url, &arguments.publish_headers)?;
        within("--connections", arguments.connections, &CONNECTIONS)?;
        within("--topics", arguments.topics, &TOPICS)?;
        within("--publishers", arguments.publishers, &PUBLISHERS)?;
        within("--payload-bytes", arguments.payload_bytes, &PAYLOAD_BYTES)?;
        ensure!(
            arguments.publish_body.contains("{payload}"),
            "--publish-body needs {{payload}}: without it no event can be told from another"
        );
        ensure!(!arguments.duration.is_zero(), "--duration must be more than nothing");
        within("--batch", arguments.batch, &BATCH)?;
        within("--stalled", arguments.stalled, &STALLED)?;
        ensure!(
            arguments.stalled == 0 || arguments.topics == 1,
            "--stalled needs --topics 1: its readers account for one topic"
        );
        let mut plan = Self {
            subscribe_address: subscribe.resolve()?,
            publish_address: publish.resolve()?,
            connections: arguments.connections,
            topics: arguments.topics,
            publishers: arguments.publishers,
            payload_bytes: arguments.payload_bytes,
            pacing: pacing(arguments)?,
            timing: Timing {
                settle: arguments.settle,
                warmup: arguments.warmup,
                measured: arguments.duration,
                drain: arguments.drain,
                events_max: arguments.events,
            },
            spin: arguments.spin,
            batch: arguments.batch,
            stalled: arguments.stalled,
            quiet: None,
            run: arguments.run,
            past: past(arguments)?,
            subscribe,
            publish,
            topic_prefix: arguments.topic_prefix.clone(),
            body: arguments.publish_body.replace("\\n", "\n"),
        };
        if let Some(per_second) = arguments.quiet_rate {
            plan.quiet = Some(Box::new(plan.quiet(per_second)?));
        }
        Ok(plan)
    }

    /// One reader and one publisher of a topic of its own, on the same server.
    fn quiet(&self, per_second: f64) -> anyhow::Result<Self> {
        Ok(Self {
            pacing: rate("--quiet-rate", per_second)?,
            timing: Timing { settle: Duration::ZERO, events_max: None, ..self.timing },
            batch: 1,
            topic_prefix: format!("{}quiet-", self.topic_prefix),
            ..self.alone()
        })
    }

    /// The same for a single reader.
    pub(super) fn alone(&self) -> Self {
        Self {
            connections: 1,
            topics: 1,
            publishers: 1,
            stalled: 0,
            quiet: None,
            past: None,
            ..self.clone()
        }
    }

    /// Descriptors for all connections.
    pub(super) fn descriptors(&self) -> usize {
        let quiet = self.quiet.as_ref().map_or(0, |quiet| quiet.descriptors());
        self.connections + self.publishers + self.stalled + quiet + usize::from(self.past.is_some())
    }

    /// The request of a subscriber.
    pub(super) fn subscribe_request(&self, connection: usize) -> Vec<u8> {
        self.resume_request(connection, None)
    }

    /// The request of a subscriber that was there before.
    pub(super) fn resume_request(&self, connection: usize, last_event_id: Option<&str>) -> Vec<u8> {
        let head = self.subscribe.head(&self.topic(connection % self.topics), connection);
        let last = last_event_id.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        format!("{head}Accept: text/event-stream\r\n{last}\r\n").into_bytes()
    }

    /// The request that publishes these payloads, each to its topic; the path is the first one's.
    pub(super) fn publish_request(
        &self,
        publisher: usize,
        payloads: &[(usize, String)],
    ) -> Vec<u8> {
        let mut body = String::new();
        for (topic, payload) in payloads {
            let topic = self.topic(*topic);
            body.push_str(&self.body.replace("{topic}", &topic).replace("{payload}", payload));
        }
        let first = payloads.first().map_or(0, |(topic, _)| *topic);
        let head = self.publish.head(&self.topic(first), publisher);
        format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    fn topic(&self, number: usize) -> String {
        format!("{}{number}", self.topic_prefix)
    }
}

/// What the reader from the beginning asks for.
fn past(arguments: &Arguments) -> anyhow::Result<Option<Past>> {
    let Some(url) = &arguments.replay_url else { return Ok(None) };
    let (run, events) = (arguments.replay_run, arguments.replay_events);
    let (run, events) = run.zip(events).context("--replay-url needs run and events")?;
    ensure!(events > 0, "--replay-events must be more than none");
    let target = Target::parse("GET", url, &arguments.headers)?;
    let request = format!("{}Accept: text/event-stream\r\n\r\n", target.head("", 0)).into_bytes();
    Ok(Some(Past { run, events, request }))
}

fn pacing(arguments: &Arguments) -> anyhow::Result<Pacing> {
    if let Some(window) = arguments.window {
        within("--window", window, &WINDOW)?;
        return Ok(Pacing::Window(window));
    }
    rate("--rate", arguments.rate)
}

fn rate(flag: &str, per_second: f64) -> anyhow::Result<Pacing> {
    let is_within = per_second > 0.0 && per_second <= RATE_MAX;
    ensure!(is_within, "{flag} is from just above 0 to {RATE_MAX}");
    Ok(Pacing::Rate(per_second))
}

fn within(flag: &str, value: usize, range: &RangeInclusive<usize>) -> anyhow::Result<()> {
    ensure!(range.contains(&value), "{flag} is from {} to {}", range.start(), range.end());
    Ok(())
}

impl Target {
    fn parse(method: &str, url: &str, headers: &[String]) -> anyhow::Result<Self> {
        let Some(rest) = url.strip_prefix("http://") else {
            bail!("{url} does not begin with http://, and the load generator speaks nothing else");
        };
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        ensure!(!authority.is_empty(), "{url} names no host");
        ensure!(!authority.contains('{'), "{url} may have placeholders behind the host only");
        ensure!(!url.contains(char::is_whitespace), "{url} has white space in it");
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self {
            method: method.to_owned(),
            authority: authority.to_owned(),
            path: format!("{slash}{path}"),
            headers: headers.iter().map(|line| header(line)).collect::<anyhow::Result<_>>()?,
        })
    }

    fn resolve(&self) -> anyhow::Result<SocketAddr> {
        let has_port =
            self.authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let port = if has_port { "" } else { ":80" };
        let mut found = format!("{}{port}", self.authority)
            .to_socket_addrs()
            .with_context(|| format!("cannot find the host {}", self.authority))?;
        found.next().with_context(|| format!("the host {} has no address", self.authority))
    }

    /// The lines of the head, without the blank one.
    fn head(&self, topic: &str, number: usize) -> String {
        let encoded = utf8_percent_encode(topic, NON_ALPHANUMERIC).to_string();
        let number = number.to_string();
        let path = self.path.replace("{topic}", &encoded).replace("{n}", &number);
        let headers = self.headers.replace("{topic}", topic).replace("{n}", &number);
        format!("{} {path} HTTP/1.1\r\nHost: {}\r\n{headers}", self.method, self.authority)
    }
}

/// A header's line from `name: value`.
fn header(line: &str) -> anyhow::Result<String> {
    let named = line.split_once(':').filter(|(name, _)| !name.is_empty());
    ensure!(
        named.is_some() && !line.contains(['\r', '\n']),
        "the header {line:?} is not of the form `name: value`"
    );
    Ok(format!("{line}\r\n"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    impl Plan {
        /// The plan of a command line.
        pub(in super::super) fn of(line: &[&str]) -> Result<Self, String> {
            let line = Line::try_parse_from([&["bench"], line].concat()).unwrap();
            Self::new(&line.arguments).map_err(|error| format!("{error:#}"))
        }
    }

    fn plan(line: &[&str]) -> Result<Plan, String> {
        Plan::of(line)
    }

    #[test]
    fn the_defaults_fit_a_server_on_this_machine() {
        let plan = plan(&[]).unwrap();
        assert_eq!(plan.subscribe_address, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(plan.publish_address, plan.subscribe_address);
        assert_eq!(plan.connections, 1_000);
        let request = String::from_utf8(plan.subscribe_request(7)).unwrap();
        assert!(request.starts_with("GET /events?topic=bench%2D0 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("\r\nHost: 127.0.0.1:8080\r\n"), "{request}");
        let request =
            String::from_utf8(plan.publish_request(0, &[(0, "text".to_owned())])).unwrap();
        assert!(request.starts_with("POST /events?topic=bench%2D0 HTTP/1.1\r\n"), "{request}");
        assert!(request.ends_with("\r\nContent-Length: 4\r\n\r\ntext"), "{request}");
    }

    #[test]
    fn placeholders_are_filled_in() {
        let plan = plan(&[
            "--url=http://localhost/s/{topic}?c={n}",
            "--publish-url=http://127.0.0.1:9/p",
            "--publish-method=PUT",
            "--publish-body={\"t\":\"{topic}\",\"d\":\"{payload}\"}\\n",
            "--header=X-Client: {n}",
            "--publish-header=Content-Type: application/json",
            "--topics=2",
            "--topic-prefix=a/",
        ]);
        let plan = plan.unwrap();
        assert_eq!(plan.subscribe_address.port(), 80);
        let request = String::from_utf8(plan.subscribe_request(5)).unwrap();
        assert!(request.starts_with("GET /s/a%2F1?c=5 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("\r\nX-Client: 5\r\n"), "{request}");
        let request = String::from_utf8(plan.publish_request(0, &[(1, "x".to_owned())])).unwrap();
        assert!(request.starts_with("PUT /p HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("\r\nContent-Type: application/json\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\n{\"t\":\"a/1\",\"d\":\"x\"}\n"), "{request}");
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_a_sentence() {
        let refused = [
            ("--url=https://a/", "http://"),
            ("--url=http:///x", "host"),
            ("--url=http://{topic}/", "placeholders"),
            ("--url=http://127.0.0.1/a b", "white space"),
            ("--url=http://127.0.0.1:99999/", "cannot find the host"),
            ("--header=nothing", "name: value"),
            ("--header=a: b\r\nc: d", "name: value"),
            ("--publish-body=fixed", "{payload}"),
            ("--duration=0s", "--duration"),
        ];
        for (flag, word) in refused {
            let error = plan(&[flag]).unwrap_err();
            assert!(error.contains(word), "{flag}: {error}");
        }
    }

    #[test]
    fn numbers_have_limits() {
        let limits = [
            ("--connections", *CONNECTIONS.start(), *CONNECTIONS.end()),
            ("--publishers", *PUBLISHERS.start(), *PUBLISHERS.end()),
            ("--window", *WINDOW.start(), *WINDOW.end()),
            ("--payload-bytes", *PAYLOAD_BYTES.start(), *PAYLOAD_BYTES.end()),
            ("--topics", *TOPICS.start(), *TOPICS.end()),
            ("--batch", *BATCH.start(), *BATCH.end()),
        ];
        for (flag, least, most) in limits {
            for good in [least, least + 1, most - 1, most] {
                plan(&[&format!("{flag}={good}")]).unwrap();
            }
            for bad in [least - 1, most + 1] {
                let error = plan(&[&format!("{flag}={bad}")]).unwrap_err();
                assert!(error.contains(flag), "{error}");
            }
        }
    }

    #[test]
    fn readers_that_stall_have_a_limit_and_one_topic() {
        for good in ["0", "1", "9999", "10000"] {
            plan(&["--stalled", good]).unwrap();
        }
        assert!(plan(&["--stalled=10001"]).unwrap_err().contains("--stalled"));
        assert!(plan(&["--stalled=1", "--topics=2"]).unwrap_err().contains("--topics 1"));
    }

    #[test]
    fn the_rates_have_limits() {
        for flag in ["--rate", "--quiet-rate"] {
            for good in ["0.1", "999999", "1000000"] {
                plan(&[flag, good]).unwrap();
            }
            for bad in ["0", "1000001", "NaN", "inf"] {
                assert!(plan(&[flag, bad]).unwrap_err().contains(flag));
            }
        }
    }

    #[test]
    fn a_batch_is_one_body_with_each_event_and_its_topic() {
        let plan = plan(&["--publish-body={topic} {payload}\\n", "--topics=2"]).unwrap();
        let request = plan.publish_request(0, &[(1, "x".to_owned()), (0, "y".to_owned())]);
        let request = String::from_utf8(request).unwrap();
        assert!(request.starts_with("POST /events?topic=bench%2D1 "), "{request}");
        assert!(request.ends_with("\r\n\r\nbench-1 x\nbench-0 y\n"), "{request}");
    }

    #[test]
    fn the_quiet_topic_is_another_one_with_one_reader() {
        let plan = plan(&["--quiet-rate=5", "--window=3", "--batch=7"]).unwrap();
        let quiet = plan.quiet.as_ref().unwrap();
        assert!(matches!(quiet.pacing, Pacing::Rate(5.0)));
        assert_eq!((quiet.connections, quiet.publishers, quiet.batch), (1, 1, 1));
        let request = String::from_utf8(quiet.subscribe_request(0)).unwrap();
        assert!(request.starts_with("GET /events?topic=bench%2Dquiet%2D0 "), "{request}");
        assert_eq!(plan.descriptors(), 1_003);
    }

    #[test]
    fn who_comes_back_says_the_last_id() {
        let plan = plan(&[]).unwrap();
        let request = String::from_utf8(plan.resume_request(0, Some("a-7"))).unwrap();
        assert!(request.contains("\r\nLast-Event-ID: a-7\r\n"), "{request}");
    }
}
