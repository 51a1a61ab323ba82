//! A reader that asks for everything from the beginning, again and again, beside the load.
//!
//! Each pass is a connection of its own and is accounted for by itself: every event of the earlier run
//! once and in order. The next begins as soon as one ends, so that latency beside it is that beside a
//! replay. The server's memory is looked at on the way.

use std::{
    fmt,
    io::{self, ErrorKind, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde::Serialize;

use super::{
    plan::{Past, Plan},
    record::{Carry, Record, Scanner},
    response::Response,
    server::Server,
};

/// Bytes read at a time: the others are looked after in between.
const READ_BYTES: usize = 64 << 10;
/// Silence after which a pass has not got what it is due.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How often the server's memory is looked at: it costs some ten microseconds.
const LOOK: Duration = Duration::from_millis(20);

/// The passes so far, and the one under way.
#[derive(Debug)]
pub(super) struct Replay<'a> {
    past: &'a Past,
    plan: &'a Plan,
    server: Option<&'a Server>,
    pass: Option<Pass>,
    scanner: Scanner,
    buffer: Box<[u8]>,
    looked: Instant,
    found: Replays,
}

/// What they came to.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Replays {
    /// Passes that ended.
    passes: u64,
    /// Of them, those that got everything once and in order.
    pub(super) exact: u64,
    /// What each is due.
    events: u64,
    received: u64,
    lost: u64,
    duplicated: u64,
    foreign: u64,
    /// Of the slowest pass.
    events_per_s: f64,
    resident_before: u64,
    resident_max: u64,
    resident_growth: u64,
    pub(super) flawless: bool,
    pub(super) problem: Option<String>,
}

#[derive(Debug)]
struct Pass {
    stream: TcpStream,
    response: Response,
    carry: Carry,
    since: Instant,
    last_read: Instant,
    account: Account,
}

/// What came in one pass: events are due in their order, from 0.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Account {
    /// The number after the newest.
    next: u64,
    received: u64,
    /// Events that came after a later one, or twice.
    duplicated: u64,
    foreign: u64,
}

impl Account {
    fn record(&mut self, record: Record, past: &Past) {
        if record.run != past.run || record.number >= past.events {
            self.foreign += 1;
        } else if record.number < self.next {
            self.duplicated += 1;
        } else {
            self.received += 1;
            self.next = record.number + 1;
        }
    }
}

impl<'a> Replay<'a> {
    /// Nothing if none is planned.
    pub(super) fn new(plan: &'a Plan, server: Option<&'a Server>) -> anyhow::Result<Option<Self>> {
        let Some(past) = &plan.past else { return Ok(None) };
        let resident = server.map(Server::usage).transpose()?.unwrap_or_default().resident_bytes;
        Ok(Some(Self {
            past,
            plan,
            server,
            pass: None,
            scanner: Scanner::new(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            looked: Instant::now(),
            found: Replays {
                events: past.events,
                events_per_s: f64::INFINITY,
                resident_before: resident,
                resident_max: resident,
                ..Replays::default()
            },
        }))
    }

    /// Begins a pass if none is under way, and reads what is there, a buffer at most. Says whether
    /// anything was.
    pub(super) fn step(&mut self) -> anyhow::Result<bool> {
        if self.pass.is_none() && self.found.problem.is_none() {
            self.pass = Some(Pass::begin(self.past, self.plan)?);
        }
        self.go_on()
    }

    /// Lets the pass under way come to its end, and closes the books.
    pub(super) fn end(mut self) -> anyhow::Result<Replays> {
        while self.pass.is_some() {
            self.go_on()?;
        }
        let found = &mut self.found;
        found.resident_growth = found.resident_max - found.resident_before;
        found.flawless = found.passes > 0 && found.exact == found.passes;
        if found.passes == 0 {
            found.events_per_s = 0.0;
        }
        Ok(self.found)
    }

    fn go_on(&mut self) -> anyhow::Result<bool> {
        self.look()?;
        let Some(pass) = &mut self.pass else { return Ok(false) };
        let read = pass.read(&mut self.buffer, &self.scanner, self.past);
        let any = read.as_ref().is_ok_and(|any| *any);
        match read {
            Ok(_) if pass.account.next == self.past.events => self.close(),
            Ok(_) if pass.last_read.elapsed() < SILENCE_MAX => {}
            Ok(_) => self.fail("a replay fell silent".to_owned()),
            Err(error) => self.fail(format!("a replay broke: {error}")),
        }
        Ok(any)
    }

    fn look(&mut self) -> anyhow::Result<()> {
        if self.looked.elapsed() < LOOK {
            return Ok(());
        }
        self.looked = Instant::now();
        let usage = self.server.map(Server::usage).transpose()?.unwrap_or_default();
        self.found.resident_max = self.found.resident_max.max(usage.resident_bytes);
        Ok(())
    }

    fn fail(&mut self, why: String) {
        self.found.problem.get_or_insert(why);
        self.close();
    }

    fn close(&mut self) {
        let Some(Pass { since, account, .. }) = self.pass.take() else { return };
        let found = &mut self.found;
        let lost = self.past.events - account.received;
        found.passes += 1;
        found.exact += u64::from(lost + account.duplicated + account.foreign == 0);
        found.received += account.received;
        found.lost += lost;
        found.duplicated += account.duplicated;
        found.foreign += account.foreign;
        let per_s = account.received as f64 / since.elapsed().as_secs_f64().max(f64::EPSILON);
        found.events_per_s = found.events_per_s.min(per_s);
    }
}

impl fmt::Display for Replays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passes, exact, events, lost, duplicated, foreign, .. } = self;
        write!(f, "{passes} passes over {events} events, {exact} exact; ")?;
        write!(f, "{lost} lost, {duplicated} again or late, {foreign} foreign, ")?;
        let (per_s, grown) = (self.events_per_s, self.resident_growth >> 10);
        write!(f, "{per_s:.0} events/s, {grown} KiB more resident")
    }
}

impl Pass {
    fn begin(past: &Past, plan: &Plan) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(plan.subscribe_address).context("cannot replay")?;
        stream.write_all(&past.request)?;
        stream.set_nonblocking(true)?;
        let (now, account) = (Instant::now(), Account::default());
        let (response, carry) = (Response::new(), Carry::default());
        Ok(Self { stream, response, carry, since: now, last_read: now, account })
    }

    fn read(&mut self, buffer: &mut [u8], scanner: &Scanner, past: &Past) -> io::Result<bool> {
        let read = match self.stream.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        self.last_read = Instant::now();
        let Self { response, carry, account, .. } = self;
        let fed = response.feed(&buffer[..read], &mut |body| {
            scanner.scan(carry, body, |record| account.record(record, past));
        });
        fed.map_err(io::Error::other)?;
        match response.head() {
            Some(head) if head.status != 200 || !head.is_event_stream => {
                Err(io::Error::other(format!("it was answered with {}", head.status)))
            }
            _ => Ok(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(numbers: &[(u32, u64)]) -> Account {
        let past = Past { run: 7, events: 3, request: Vec::new() };
        let mut account = Account::default();
        for (run, number) in numbers {
            account.record(Record { run: *run, number: *number, due_ns: 0 }, &past);
        }
        account
    }

    #[test]
    fn a_pass_counts_what_comes_once_and_in_order() {
        let whole = account(&[(7, 0), (7, 1), (7, 2)]);
        assert_eq!(whole, Account { next: 3, received: 3, duplicated: 0, foreign: 0 });
        assert_eq!(account(&[(7, 0), (7, 2)]).received, 2);
        assert_eq!(account(&[(7, 0), (7, 0), (7, 2), (7, 1)]).duplicated, 2);
        assert_eq!(account(&[(8, 0), (7, 3)]).foreign, 2);
    }
}
