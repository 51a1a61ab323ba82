//! The plan of a run: the checked command line, and the requests made from its templates.
//!
//! An invalid address, header or template is reported in one sentence, before the tool connects.

use std::{
    fs::File,
    hash::{BuildHasher as _, RandomState},
    io::Read as _,
    net::{SocketAddr, ToSocketAddrs as _},
    ops::RangeInclusive,
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    arguments::{Arguments, Timing},
    pace::Pace,
    record::RECORD_BYTES,
};

/// The allowed numbers of connections. Each connection takes a port, and one address has about as
/// many ports as this maximum. For more connections, run several load tools with different
/// addresses.
const CONNECTIONS: RangeInclusive<usize> = 1..=60_000;
/// The number of events in one request. The maximum is the default limit of a downlink server for a
/// batch.
const BATCH: RangeInclusive<usize> = 1..=10_000;
/// The number of connections that stop reading. When they resume, the server replays its history to
/// all of them. The maximum limits the work of this replay.
const STALLED: RangeInclusive<usize> = 0..=10_000;
/// The number of topics. The maximum is the default limit of a downlink server for topics.
const TOPICS: RangeInclusive<usize> = 1..=100_000;
/// The number of publishers, each with one connection. More publishers than the maximum would only
/// make the order of the events more random.
const PUBLISHERS: RangeInclusive<usize> = 1..=1_000;
/// The maximum rate, in events per second. At a higher rate, the tool's single thread would have no
/// time to read.
const RATE_MAX: f64 = 1_000_000.0;
/// With `--comeback`, the rate of events per second before the tool kills the server. With 10,000
/// clients, the tool can read the deliveries of about this many events per second.
const COMEBACK_RATE: f64 = 50.0;
/// The values of `--window`: the maximum number of published events that have not reached all of
/// their readers. The tool has an entry in memory for each of these events, so a larger window
/// would need more memory.
const WINDOW: RangeInclusive<usize> = 1..=65_536;
/// The size of a payload. Every payload contains a record, which identifies the event, so the
/// minimum is the size of a record. The maximum is the default limit of a downlink server for an
/// event (1 MiB).
const PAYLOAD_BYTES: RangeInclusive<usize> = RECORD_BYTES..=1 << 20;

/// The plan of a run. Its values have been checked.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) subscribe_address: SocketAddr,
    pub(super) publish_address: SocketAddr,
    pub(super) connections: usize,
    pub(super) topics: usize,
    pub(super) publishers: usize,
    pub(super) payload_bytes: usize,
    pub(super) pace: Pace,
    pub(super) timing: Timing,
    pub(super) spin: bool,
    /// The maximum number of events in one request.
    pub(super) batch: usize,
    /// The number that marks this run's events.
    pub(super) run: u32,
    /// True if the subscriptions can resume after their connection has ended.
    pub(super) is_resuming: bool,
    /// The readers that stay connected during this load but read nothing until the load is over.
    pub(super) stalled: Option<Box<Plan>>,
    /// The load of the quiet topic, which runs at the same time as this load. The quiet topic is a
    /// separate topic with one reader.
    pub(super) quiet: Option<Box<Plan>>,
    /// The earlier run whose events are replayed during this load.
    pub(super) past: Option<EarlierRun>,
    /// The number that replaces the placeholder `{n}` for the first connection of this plan.
    first: usize,
    subscribe: Endpoint,
    publish: Endpoint,
    topic_prefix: String,
    body: String,
}

/// The events of an earlier run, and the request that subscribes to all of them.
#[derive(Clone, Debug)]
pub(super) struct EarlierRun {
    pub(super) run: u32,
    pub(super) events: u64,
    pub(super) request: Vec<u8>,
}

/// The destination of requests. Its path and its headers may contain placeholders.
#[derive(Clone, Debug)]
struct Endpoint {
    method: String,
    authority: String,
    path: String,
    /// The header lines, each with its line end.
    headers: String,
    /// The values of the placeholder `{credential}`. Empty if this endpoint has no credentials.
    credentials: Arc<[String]>,
}

impl Plan {
    /// Checks the command line.
    ///
    /// # Errors
    ///
    /// If an argument is invalid. The error is a sentence that names the argument.
    pub(super) fn new(arguments: &Arguments) -> anyhow::Result<Self> {
        let publish_url = arguments.publish_url.as_deref().unwrap_or(&arguments.url);
        let mut subscribe = Endpoint::parse("GET", &arguments.url, &arguments.headers)?;
        subscribe.credentials = credentials(arguments)?;
        let publish =
            Endpoint::parse(&arguments.publish_method, publish_url, &arguments.publish_headers)?;
        check(arguments)?;
        let mut plan = Self {
            subscribe_address: subscribe.resolve()?,
            publish_address: publish.resolve()?,
            connections: arguments.connections,
            topics: arguments.topics,
            publishers: arguments.publishers,
            payload_bytes: arguments.payload_bytes,
            pace: pace(arguments)?,
            timing: arguments.timing,
            spin: arguments.spin,
            batch: arguments.batch,
            run: arguments.run.unwrap_or_else(random_run),
            is_resuming: false,
            stalled: None,
            quiet: None,
            past: past(arguments)?,
            first: 0,
            subscribe,
            publish,
            topic_prefix: arguments.topic_prefix.clone(),
            body: arguments.publish_body.replace("\\n", "\n"),
        };
        if let Some(per_second) = arguments.quiet_rate {
            plan.quiet = Some(Box::new(plan.quiet(per_second)?));
        }
        if arguments.stalled > 0 {
            plan.stalled = Some(Box::new(plan.stalled(arguments.stalled)));
        }
        Ok(plan)
    }

    /// The plan for one reader and one publisher of a separate topic, on the same server.
    fn quiet(&self, per_second: f64) -> anyhow::Result<Self> {
        Ok(Self {
            pace: rate("--quiet-rate", per_second)?,
            timing: Timing { settle: Duration::ZERO, events: None, ..self.timing },
            batch: 1,
            run: random_run(),
            topic_prefix: format!("{}quiet-", self.topic_prefix),
            ..self.alone()
        })
    }

    /// The plan for this many readers that can resume, and no publisher.
    fn stalled(&self, readers: usize) -> Self {
        let first = self.connections;
        Self { connections: readers, publishers: 0, first, is_resuming: true, ..self.alone() }
    }

    /// The same plan for a single reader, without a quiet topic, stalled readers or a replay.
    pub(super) fn alone(&self) -> Self {
        Self {
            connections: 1,
            topics: 1,
            publishers: 1,
            stalled: None,
            quiet: None,
            past: None,
            ..self.clone()
        }
    }

    /// The same plan for clients that resume, and one publisher at a fixed rate.
    pub(super) fn comeback(&self) -> Self {
        Self {
            connections: self.connections,
            is_resuming: true,
            pace: Pace::rate(COMEBACK_RATE),
            timing: Timing { events: None, ..self.timing },
            batch: 1,
            ..self.alone()
        }
    }

    /// The number of descriptors for all connections.
    pub(super) fn descriptors(&self) -> usize {
        let beside = |plan: &Option<Box<Self>>| plan.as_ref().map_or(0, |plan| plan.descriptors());
        let own = self.connections + self.publishers + usize::from(self.past.is_some());
        own + beside(&self.quiet) + beside(&self.stalled)
    }

    /// The request of a subscription. If there is a last event id, the subscription resumes after
    /// it.
    pub(super) fn subscribe_request(&self, number: usize, last_event_id: Option<&str>) -> Vec<u8> {
        let head = self.subscribe.head(&self.topic(number % self.topics), self.first + number);
        let last = last_event_id.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        format!("{head}Accept: text/event-stream\r\n{last}\r\n").into_bytes()
    }

    /// The request that publishes these payloads, each to its topic. The path contains the topic of
    /// the first payload.
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

/// Checks the numbers and the template.
fn check(arguments: &Arguments) -> anyhow::Result<()> {
    within("--connections", arguments.connections, &CONNECTIONS)?;
    within("--topics", arguments.topics, &TOPICS)?;
    within("--publishers", arguments.publishers, &PUBLISHERS)?;
    within("--payload-bytes", arguments.payload_bytes, &PAYLOAD_BYTES)?;
    within("--batch", arguments.batch, &BATCH)?;
    within("--stalled", arguments.stalled, &STALLED)?;
    ensure!(
        arguments.publish_body.contains("{payload}"),
        "--publish-body needs {{payload}}; without it, all events would have the same data"
    );
    ensure!(!arguments.timing.duration.is_zero(), "--duration must be more than zero");
    ensure!(
        arguments.topics == 1 || (arguments.stalled == 0 && arguments.comeback.is_none()),
        "--stalled and --comeback need --topics 1, because their readers check one topic"
    );
    Ok(())
}

/// A random number that marks the events of one run.
fn random_run() -> u32 {
    RandomState::new().hash_one(std::process::id()) as u32
}

/// The placeholder for the token or ticket of a connection.
const CREDENTIAL: &str = "{credential}";

/// The maximum size of the file of `--credentials`. A million tickets fit into such a file.
const CREDENTIALS_BYTES_MAX: u64 = 1 << 30;

/// The lines of the file of `--credentials`.
fn credentials(arguments: &Arguments) -> anyhow::Result<Arc<[String]>> {
    let Some(file) = &arguments.credentials else { return Ok(Arc::default()) };
    let text = read_at_most(file, CREDENTIALS_BYTES_MAX)
        .with_context(|| format!("cannot read {}", file.display()))?;
    let lines: Arc<[String]> = text.lines().map(str::to_owned).collect();
    let is_word = |line: &String| !line.is_empty() && !line.contains(char::is_whitespace);
    ensure!(
        !lines.is_empty() && lines.iter().all(is_word),
        "{} must have one token or ticket in each line",
        file.display()
    );
    Ok(lines)
}

/// Reads a text file. A file with more than `bytes_max` bytes is an error: the tool must not
/// continue with only the first part of the file.
fn read_at_most(file: &Path, bytes_max: u64) -> anyhow::Result<String> {
    let mut text = String::new();
    let mut part = File::open(file)?.take(bytes_max);
    part.read_to_string(&mut text)?;
    let is_whole = part.into_inner().read(&mut [0])? == 0;
    ensure!(is_whole, "the file has more than {bytes_max} bytes");
    Ok(text)
}

/// The earlier run to replay, if the command line names one.
fn past(arguments: &Arguments) -> anyhow::Result<Option<EarlierRun>> {
    let Some(url) = &arguments.replay_url else { return Ok(None) };
    let (run, events) = (arguments.replay_run, arguments.replay_events);
    let (run, events) =
        run.zip(events).context("--replay-url needs --replay-run and --replay-events")?;
    ensure!(events > 0, "--replay-events must be more than zero");
    let target = Endpoint::parse("GET", url, &arguments.headers)?;
    let request = format!("{}Accept: text/event-stream\r\n\r\n", target.head("", 0)).into_bytes();
    Ok(Some(EarlierRun { run, events, request }))
}

fn pace(arguments: &Arguments) -> anyhow::Result<Pace> {
    if let Some(window) = arguments.window {
        within("--window", window, &WINDOW)?;
        return Ok(Pace::window(window));
    }
    rate("--rate", arguments.rate)
}

fn rate(flag: &str, per_second: f64) -> anyhow::Result<Pace> {
    let is_within = per_second > 0.0 && per_second <= RATE_MAX;
    ensure!(is_within, "{flag} must be more than 0 and at most {RATE_MAX}");
    Ok(Pace::rate(per_second))
}

fn within(flag: &str, value: usize, range: &RangeInclusive<usize>) -> anyhow::Result<()> {
    ensure!(range.contains(&value), "{flag} must be from {} to {}", range.start(), range.end());
    Ok(())
}

impl Endpoint {
    fn parse(method: &str, url: &str, headers: &[String]) -> anyhow::Result<Self> {
        let Some(rest) = url.strip_prefix("http://") else {
            bail!("{url} does not begin with http://, and the load tool supports no other scheme");
        };
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        ensure!(!authority.is_empty(), "{url} names no host");
        ensure!(!authority.contains('{'), "{url} may have placeholders only after the host");
        ensure!(!url.contains(char::is_whitespace), "{url} contains white space");
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self {
            method: method.to_owned(),
            authority: authority.to_owned(),
            path: format!("{slash}{path}"),
            headers: headers.iter().map(|line| header(line)).collect::<anyhow::Result<_>>()?,
            credentials: Arc::default(),
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

    /// The lines of the head, without the blank line at its end.
    fn head(&self, topic: &str, index: usize) -> String {
        let encoded = utf8_percent_encode(topic, NON_ALPHANUMERIC).to_string();
        let number = index.to_string();
        let path = self.path.replace("{topic}", &encoded).replace("{n}", &number);
        let headers = self.headers.replace("{topic}", topic).replace("{n}", &number);
        let (path, headers) = match self.credentials.get(index % self.credentials.len().max(1)) {
            Some(own) => (path.replace(CREDENTIAL, own), headers.replace(CREDENTIAL, own)),
            None => (path, headers),
        };
        format!("{} {path} HTTP/1.1\r\nHost: {}\r\n{headers}", self.method, self.authority)
    }
}

/// Makes a header line from `name: value`.
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
    struct CommandLine {
        #[command(flatten)]
        arguments: Arguments,
    }

    impl Plan {
        /// Makes the plan from a command line.
        pub(in super::super) fn of(line: &[&str]) -> Result<Self, String> {
            let line = CommandLine::try_parse_from([&["bench"], line].concat()).unwrap();
            Self::new(&line.arguments).map_err(|error| format!("{error:#}"))
        }
    }

    fn plan(line: &[&str]) -> Result<Plan, String> {
        Plan::of(line)
    }

    #[test]
    fn a_file_above_its_limit_is_refused_and_not_cut() {
        let name = format!("downlink-bench-credentials-{}", std::process::id());
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, "first\nsecond\n").unwrap();
        assert_eq!(read_at_most(&file, 13).unwrap(), "first\nsecond\n");
        let error = read_at_most(&file, 12).unwrap_err();
        assert_eq!(error.to_string(), "the file has more than 12 bytes");
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn the_defaults_fit_a_server_on_this_machine() {
        let plan = plan(&[]).unwrap();
        assert_eq!(plan.subscribe_address, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(plan.publish_address, plan.subscribe_address);
        assert_eq!(plan.connections, 1_000);
        let request = String::from_utf8(plan.subscribe_request(7, None)).unwrap();
        assert!(request.starts_with("GET /events?topic=bench%2D0 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("\r\nHost: 127.0.0.1:8080\r\n"), "{request}");
        let request =
            String::from_utf8(plan.publish_request(0, &[(0, "text".to_owned())])).unwrap();
        assert!(request.starts_with("POST /events?topic=bench%2D0 HTTP/1.1\r\n"), "{request}");
        assert!(request.ends_with("\r\nContent-Length: 4\r\n\r\ntext"), "{request}");
    }

    #[test]
    fn placeholders_are_replaced() {
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
        let request = String::from_utf8(plan.subscribe_request(5, None)).unwrap();
        assert!(request.starts_with("GET /s/a%2F1?c=5 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("\r\nX-Client: 5\r\n"), "{request}");
        let request = String::from_utf8(plan.publish_request(0, &[(1, "x".to_owned())])).unwrap();
        assert!(request.starts_with("PUT /p HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("\r\nContent-Type: application/json\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\n{\"t\":\"a/1\",\"d\":\"x\"}\n"), "{request}");
    }

    #[test]
    fn each_connection_sends_its_line_of_the_credentials_file() {
        let file = std::env::temp_dir().join(format!("downlink-bench-{}", std::process::id()));
        std::fs::write(&file, "one\ntwo\n").unwrap();
        let flag = format!("--credentials={}", file.display());
        let plan = plan(&[
            "--url=http://localhost/events?ticket={credential}",
            "--header=Authorization: Bearer {credential}",
            &flag,
        ]);
        let sent =
            |plan: &Plan, number| String::from_utf8(plan.subscribe_request(number, None)).unwrap();
        let plan = plan.unwrap();
        assert!(sent(&plan, 1).starts_with("GET /events?ticket=two HTTP/1.1\r\n"));
        assert!(sent(&plan, 2).contains("\r\nAuthorization: Bearer one\r\n"));
        std::fs::write(&file, "one two\n").unwrap();
        let refused = self::plan(&[&flag]).unwrap_err();
        assert!(refused.contains("one token or ticket in each line"), "{refused}");
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn an_invalid_argument_is_reported_with_its_reason() {
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
    fn numbers_outside_their_limits_are_refused() {
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
    fn the_limits_of_stalled_readers_and_of_comebacks_are_checked() {
        for good in ["0", "1", "9999", "10000"] {
            plan(&["--stalled", good]).unwrap();
        }
        assert!(plan(&["--stalled=10001"]).unwrap_err().contains("--stalled"));
        assert!(plan(&["--stalled=1", "--topics=2"]).unwrap_err().contains("--topics 1"));
        let comeback = ["--comeback=x", "--server-pid=1", "--topics=2"];
        assert!(plan(&comeback).unwrap_err().contains("--topics 1"));
    }

    #[test]
    fn rates_outside_their_limits_are_refused() {
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
    fn the_body_of_a_batch_contains_each_event_with_its_topic() {
        let plan = plan(&["--publish-body={topic} {payload}\\n", "--topics=2"]).unwrap();
        let request = plan.publish_request(0, &[(1, "x".to_owned()), (0, "y".to_owned())]);
        let request = String::from_utf8(request).unwrap();
        assert!(request.starts_with("POST /events?topic=bench%2D1 "), "{request}");
        assert!(request.ends_with("\r\n\r\nbench-1 x\nbench-0 y\n"), "{request}");
    }

    #[test]
    fn the_quiet_topic_has_its_own_name_and_one_reader() {
        let plan = plan(&["--quiet-rate=5", "--window=3", "--batch=7", "--stalled=4"]).unwrap();
        let quiet = plan.quiet.as_ref().unwrap();
        assert!(matches!(quiet.pace, Pace::Rate { per_second: 5.0, .. }));
        assert_eq!((quiet.connections, quiet.publishers, quiet.batch), (1, 1, 1));
        let request = String::from_utf8(quiet.subscribe_request(0, None)).unwrap();
        assert!(request.starts_with("GET /events?topic=bench%2Dquiet%2D0 "), "{request}");
        assert_eq!(plan.descriptors(), 1_007);
    }

    #[test]
    fn a_resumed_subscription_sends_the_last_event_id() {
        let plan = plan(&[]).unwrap();
        let request = String::from_utf8(plan.subscribe_request(0, Some("a-7"))).unwrap();
        assert!(request.contains("\r\nLast-Event-ID: a-7\r\n"), "{request}");
    }
}
