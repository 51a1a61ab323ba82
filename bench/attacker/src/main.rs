//! Attacks the connections of a server, from 1,000 source addresses of 127.0.0.0/8 (Linux).
//!
//! `bench-attacker KIND ADDR:PORT TOPIC` attacks until its stdin ends. When the attack has its full
//! strength, the program prints `ready`. At the end, it prints its counts as one JSON object. Each
//! attack has a fixed rate, so an attack on a slow server is not weaker. If the attacker itself
//! gets too little processor time, it skips turns and counts them as `skipped`.
//!
//! - `slow-heads`: 4,000 connections send a request head, one byte a second.
//! - `half-open`: 100 peers a second subscribe, and then drop every packet. Their sockets
//!   acknowledge nothing, like the socket of a machine that has lost its power. One in five of them
//!   subscribes to TOPIC.
//! - `oversized-heads`: 500 connections a second send heads of 48 KiB.
//! - `churn`: each address keeps 8 subscriptions. Once a second, it tries to open one more, which
//!   is above the limit of the address. Then it closes its oldest subscription, and opens another
//!   one in its place.
//!
//! The program uses no epoll: it looks at each unanswered connection once a millisecond.

use std::{
    collections::{BTreeMap, VecDeque},
    env,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

const USAGE: &str =
    "usage: bench-attacker slow-heads|half-open|oversized-heads|churn ADDR:PORT TOPIC";

const SOURCES: usize = 1_000;
/// The open connections of `slow-heads`.
const SLOW_HEADS: usize = 4_000;
/// The time between two bytes of a slow head.
const SLOW_PAUSE: Duration = Duration::from_secs(1);
/// The subscriptions of each address in `churn`.
const HELD: usize = 8;
/// The size of an oversized head. The project's server accepts 32 KiB.
const OVERSIZED_BYTES: usize = 48 << 10;
/// How long a vanished peer keeps its socket. In this time the socket sends nothing, not even the
/// end of the connection. The server must have closed its side long before the end of this time.
const VANISHED_FOR: Duration = Duration::from_secs(40);
/// How long a connection may be without an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// If the attacker is behind its schedule by more than this, it skips the turns that it has missed.
const LATE: Duration = Duration::from_millis(100);
const TICK: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    SlowHeads,
    HalfOpen,
    OversizedHeads,
    Churn,
}

impl Kind {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "slow-heads" => Some(Self::SlowHeads),
            "half-open" => Some(Self::HalfOpen),
            "oversized-heads" => Some(Self::OversizedHeads),
            "churn" => Some(Self::Churn),
            _ => None,
        }
    }

    /// The turns in a second.
    fn rate(self) -> u32 {
        match self {
            Self::SlowHeads | Self::Churn => 1_000,
            Self::HalfOpen => 100,
            Self::OversizedHeads => 500,
        }
    }

    /// The time after which the attack has its full strength. The project's server closes a slow
    /// head after 10 s, and a vanished peer without events after 25 s.
    fn lead(self) -> Duration {
        match self {
            Self::SlowHeads => Duration::from_secs(12),
            Self::HalfOpen => Duration::from_secs(27),
            Self::OversizedHeads => Duration::from_secs(3),
            Self::Churn => Duration::from_secs(12),
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    opened: u64,
    not_opened: u64,
    skipped: u64,
    /// Connections that the server closed without an answer.
    closed: u64,
    /// Connections without an answer within [`ANSWER_WITHIN`].
    unanswered: u64,
    /// The most connections that were open at the same time.
    open_max: usize,
    /// The answers, by status.
    answers: BTreeMap<u16, u64>,
}

/// A connection whose answer has not arrived.
#[derive(Debug)]
struct Peer {
    stream: TcpStream,
    source: usize,
    opened: Instant,
    /// The time of the next byte of a slow head.
    due: Instant,
    sent: usize,
    answer: Vec<u8>,
}

/// The result of a look at a connection.
#[derive(Debug, Eq, PartialEq)]
enum Found {
    Nothing,
    Status(u16),
    Closed,
}

impl Peer {
    /// Sends the bytes from `sent` on, as far as the socket takes them.
    fn send(&mut self, request: &[u8]) {
        while let Some(rest) = request.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(bytes) => self.sent += bytes,
                // If the connection has failed, the next read says so.
                Err(_) => return,
            }
        }
    }

    fn look(&mut self) -> Found {
        let mut buffer = [0; 1_024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Found::Closed,
            Ok(bytes) => {
                self.answer.extend_from_slice(&buffer[..bytes]);
                status(&self.answer).map_or(Found::Nothing, Found::Status)
            }
            Err(error) if is_pending(&error) => Found::Nothing,
            Err(_) => Found::Closed,
        }
    }
}

/// True if the socket is not ready: it is still connecting, or has nothing to read.
fn is_pending(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
}

/// The status of an answer, when its head has arrived.
fn status(answer: &[u8]) -> Option<u16> {
    answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()
}

/// Source number `n`: 127.1.x.y.
fn source(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 1, (n / 250) as u8, (n % 250 + 1) as u8)
}

/// From now on, the kernel drops every packet for this socket: not even an acknowledgement is sent.
#[cfg(target_os = "linux")]
fn vanish(stream: &TcpStream) -> io::Result<()> {
    // BPF_RET | BPF_K with 0: keep no byte of the packet.
    socket2::SockRef::from(stream).attach_filter(&[socket2::SockFilter::new(0x06, 0, 0, 0)])
}

#[cfg(not(target_os = "linux"))]
fn vanish(_: &TcpStream) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

struct Attack {
    kind: Kind,
    target: SocketAddr,
    /// A request that subscribes to a topic without events.
    aside: Vec<u8>,
    /// A request that subscribes to the topic of the ordinary subscribers.
    among: Vec<u8>,
    slow: Vec<u8>,
    oversized: Vec<u8>,
    turns: usize,
    /// Connections that wait for their answer.
    waiting: Vec<Peer>,
    /// Slow heads, in the order of their next byte.
    slowly: VecDeque<Peer>,
    /// The peers that have vanished, each with the time at which it vanished.
    vanished: VecDeque<(Instant, TcpStream)>,
    /// The subscriptions of each source, oldest first.
    held: Vec<VecDeque<TcpStream>>,
    counts: Counts,
}

impl Attack {
    fn new(kind: Kind, target: SocketAddr, topic: &str) -> Self {
        let get = |topic: &str| format!("GET /events?topic={topic} HTTP/1.1\r\nHost: {target}\r\n");
        let long = |bytes| format!("{}X-Filler: {}", get(topic), "a".repeat(bytes)).into_bytes();
        Self {
            kind,
            target,
            aside: (get(&format!("{topic}-aside")) + "\r\n").into_bytes(),
            among: (get(topic) + "\r\n").into_bytes(),
            slow: long(1 << 10),
            oversized: long(OVERSIZED_BYTES),
            turns: 0,
            waiting: Vec::new(),
            slowly: VecDeque::new(),
            vanished: VecDeque::new(),
            held: (0..SOURCES).map(|_| VecDeque::new()).collect(),
            counts: Counts::default(),
        }
    }

    fn open(&mut self, source: usize) -> Option<Peer> {
        match connect(self.target, source) {
            Ok(stream) => {
                self.counts.opened += 1;
                let now = Instant::now();
                let answer = Vec::new();
                Some(Peer { stream, source, opened: now, due: now, sent: 0, answer })
            }
            Err(_) => {
                self.counts.not_opened += 1;
                None
            }
        }
    }

    /// Opens a connection whose answer is awaited.
    fn ask(&mut self, source: usize) {
        let peer = self.open(source);
        self.waiting.extend(peer);
    }

    /// One of the attack's regular steps.
    fn turn(&mut self) {
        let source = self.turns % SOURCES;
        self.turns += 1;
        match self.kind {
            Kind::SlowHeads => {
                if self.slowly.len() < SLOW_HEADS {
                    let peer = self.open(source);
                    self.slowly.extend(peer);
                }
            }
            Kind::HalfOpen | Kind::OversizedHeads => self.ask(source),
            Kind::Churn => {
                // One connection above the limit, and one in place of the oldest subscription.
                self.ask(source);
                if self.held[source].len() >= HELD {
                    self.held[source].pop_front();
                }
                self.ask(source);
            }
        }
    }

    /// Reads the answers that have arrived, sends the next bytes, and closes old sockets.
    fn tick(&mut self) {
        let now = Instant::now();
        for peer in std::mem::take(&mut self.waiting) {
            self.wait_for(peer, now);
        }
        while self.slowly.front().is_some_and(|peer| peer.due <= now) {
            let Some(peer) = self.slowly.pop_front() else { break };
            self.send_slowly(peer);
        }
        while self.vanished.front().is_some_and(|(at, _)| *at + VANISHED_FOR <= now) {
            self.vanished.pop_front();
        }
        let held: usize = self.held.iter().map(VecDeque::len).sum();
        let open = self.waiting.len() + self.slowly.len() + self.vanished.len() + held;
        self.counts.open_max = self.counts.open_max.max(open);
    }

    fn wait_for(&mut self, mut peer: Peer, now: Instant) {
        let request = match self.kind {
            Kind::OversizedHeads => &self.oversized,
            Kind::HalfOpen if peer.source.is_multiple_of(5) => &self.among,
            _ => &self.aside,
        };
        peer.send(request);
        match peer.look() {
            Found::Nothing if now > peer.opened + ANSWER_WITHIN => self.counts.unanswered += 1,
            Found::Nothing => self.waiting.push(peer),
            Found::Closed => self.counts.closed += 1,
            Found::Status(status) => {
                *self.counts.answers.entry(status).or_default() += 1;
                if status == 200 {
                    self.keep(peer);
                }
            }
        }
    }

    /// Keeps the connection of a subscription open, if the attack needs it.
    fn keep(&mut self, peer: Peer) {
        match self.kind {
            Kind::Churn => self.held[peer.source].push_back(peer.stream),
            Kind::HalfOpen if vanish(&peer.stream).is_ok() => {
                self.vanished.push_back((Instant::now(), peer.stream));
            }
            _ => {}
        }
    }

    fn send_slowly(&mut self, mut peer: Peer) {
        match peer.look() {
            Found::Closed => self.counts.closed += 1,
            Found::Status(status) => *self.counts.answers.entry(status).or_default() += 1,
            Found::Nothing => {
                let end = (peer.sent + 1).min(self.slow.len());
                peer.send(&self.slow[..end]);
                peer.due += SLOW_PAUSE;
                self.slowly.push_back(peer);
            }
        }
    }
}

/// Begins to connect from this source.
fn connect(target: SocketAddr, number: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::from((source(number), 0)).into())?;
    socket.set_nonblocking(true)?;
    match socket.connect(&target.into()) {
        // 115 is EINPROGRESS: the connection is not complete yet.
        Err(error) if error.raw_os_error() != Some(115) && !is_pending(&error) => Err(error),
        _ => Ok(socket.into()),
    }
}

impl Counts {
    fn json(&self) -> String {
        let Self { opened, not_opened, skipped, closed, unanswered, open_max, answers } = self;
        let answers: Vec<String> =
            answers.iter().map(|(status, count)| format!("\"{status}\": {count}")).collect();
        let answers = answers.join(", ");
        format!(
            "{{\"opened\": {opened}, \"not_opened\": {not_opened}, \"skipped\": {skipped}, \
             \"closed\": {closed}, \"unanswered\": {unanswered}, \"open_max\": {open_max}, \
             \"answers\": {{{answers}}}}}"
        )
    }
}

/// A channel that is closed at the end of stdin.
fn end_of_input() -> Receiver<()> {
    let (open, ended) = mpsc::channel();
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        drop(open);
    });
    ended
}

fn main() -> io::Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let usage = || io::Error::new(io::ErrorKind::InvalidInput, USAGE);
    let [kind, target, topic] = &words[..] else { return Err(usage()) };
    let kind = Kind::parse(kind).ok_or_else(usage)?;
    let mut attack = Attack::new(kind, target.parse().map_err(io::Error::other)?, topic);
    let ended = end_of_input();
    let interval = Duration::from_secs(1) / kind.rate();
    let began = Instant::now();
    let (mut next, mut is_ready) = (began, false);
    while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
        let now = Instant::now();
        if now > next + LATE {
            let late = (now - next).as_nanos() / interval.as_nanos();
            attack.counts.skipped += late as u64;
            next = now;
        }
        while next <= now {
            attack.turn();
            next += interval;
        }
        attack.tick();
        if !is_ready && began.elapsed() >= kind.lead() {
            is_ready = true;
            writeln!(io::stdout(), "ready")?;
        }
    }
    writeln!(io::stdout(), "{}", attack.counts.json())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_when_the_head_is_complete() {
        assert_eq!(status(b"HTTP/1.1 431 Too Large\r\nX: y\r\n"), None);
        assert_eq!(status(b"HTTP/1.1 431 Too Large\r\nX: y\r\n\r\n{"), Some(431));
    }

    #[test]
    fn sources_differ() {
        let all: std::collections::BTreeSet<_> = (0..SOURCES).map(source).collect();
        assert_eq!(all.len(), SOURCES);
    }
}
