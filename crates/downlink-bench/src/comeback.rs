//! A crash and a comeback: the server is killed under load and started again, and all clients resume.
//!
//! What counts is that each client has every acknowledged event once and in order, whichever connection
//! brought it; an event whose answer the crash cut off is either everybody's or nobody's.

use std::{
    fmt,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use mio::{Events, Poll, Token};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use super::{
    client::{Client, Witness},
    load::random_run,
    plan::Plan,
    server::Server,
    source::{Answer, Source},
};

/// Events of one poll.
const EVENTS: usize = 1_024;
/// Connections in the making at a time: fewer than the shortest usual backlog of a listener (128).
const CONNECTING_MAX: usize = 100;
/// Events published before the crash, so that every client has an id, and under way when it comes.
const BEFORE: u64 = 10;
/// Events published after the crash before the clients return: what each has to catch up with.
const AWAY: u64 = 100;
/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;
/// How long any of the steps may take.
const STEP_MAX: Duration = Duration::from_secs(60);
/// Between two events before the crash: 10,000 clients take about that many a second.
const INTERVAL: Duration = Duration::from_millis(20);
/// The longest wait of a poll.
const WAIT_MAX: Duration = Duration::from_millis(10);

/// What the comeback came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Comeback {
    connections: u64,
    connections_asked: usize,
    acknowledged: u64,
    /// Events that the crash left without an answer, and how many of them were kept.
    unanswered: u64,
    unanswered_kept: u64,
    received: u64,
    lost: u64,
    duplicated: u64,
    out_of_order: u64,
    /// Unanswered events that some got and others did not.
    split: u64,
    gaps: u64,
    /// Events that were never published.
    foreign: u64,
    /// From the crash to the first answer of the server that follows.
    down_s: f64,
    /// From the first connection that returns to the last that is up.
    reconnected_s: f64,
    /// From the first connection that returns until all have the newest event.
    caught_up_s: f64,
    resident_before: u64,
    resident_after: u64,
    resident_per_connection: f64,
    server_cpu_s: f64,
    flawless: bool,
    problem: Option<String>,
}

/// The clients and their poll.
#[derive(Debug)]
struct Crowd<'a> {
    plan: &'a Plan,
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    witness: Witness,
    buffer: Box<[u8]>,
}

/// The server that was started again; ended when dropped.
#[derive(Debug)]
struct Again(Child);

impl Drop for Again {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Crashes the server of this process, starts it again with this line, and lets all come back.
///
/// # Errors
///
/// If the server cannot be reached, killed or started again.
pub(super) fn run(plan: &Plan, server: &Server, line: &str) -> anyhow::Result<Comeback> {
    let run = plan.run.unwrap_or_else(random_run);
    let mut crowd = Crowd::new(plan, run)?;
    crowd.connect()?;
    let connections = crowd.up();
    let publishing = publish_until_it_breaks(Source::new(plan.clone(), run));
    crowd.read_until(|crowd| crowd.have(BEFORE - 1), "the first events")?;
    let resident_before = server.usage()?.resident_bytes;
    let crashed = Instant::now();
    crash(server)?;
    let mut source = publishing.join().ok().context("the publisher ended badly")?;
    crowd.read_until(|crowd| crowd.up() == 0, "the end of the connections")?;
    let again = start(line)?;
    source.wait_for_server(STEP_MAX)?;
    let down_s = crashed.elapsed().as_secs_f64();
    let newest = source.publish(AWAY)?;
    let now = Server::new(&[again.0.id()])?.context("it has a process")?;
    let used = now.usage()?;
    let returning = Instant::now();
    crowd.connect()?;
    let reconnected_s = returning.elapsed().as_secs_f64();
    let caught_up = crowd.read_until(|crowd| crowd.have(newest), "the newest event");
    let caught_up_s = returning.elapsed().as_secs_f64();
    // What comes now was not asked for: a repeat of the newest event shows here.
    crowd.read_for(plan.timing.settle)?;
    let after = now.usage()?;
    let mut found = judge(&source.answers, &crowd.clients, &crowd.witness);
    found.problem = found.problem.or(caught_up.err().map(|error| error.to_string()));
    Ok(Comeback {
        connections: connections.min(crowd.up()),
        connections_asked: plan.connections,
        down_s,
        reconnected_s,
        caught_up_s,
        resident_before,
        resident_after: after.resident_bytes,
        resident_per_connection: after.resident_bytes as f64 / plan.connections as f64,
        server_cpu_s: after.since(used).cpu_s,
        ..found
    })
}

/// Publishes from another thread, one request after the other, until the crash.
fn publish_until_it_breaks(mut source: Source) -> thread::JoinHandle<Source> {
    thread::spawn(move || {
        while source.publish_next() != Answer::Cut {
            thread::sleep(INTERVAL);
        }
        source
    })
}

fn crash(server: &Server) -> anyhow::Result<()> {
    for pid in server.pids() {
        let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw).context("no process")?;
        kill_process(pid, Signal::KILL).context("cannot kill the server")?;
    }
    Ok(())
}

fn start(line: &str) -> anyhow::Result<Again> {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("exec {line}"));
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Again(shell.spawn().with_context(|| format!("cannot start: {line}"))?))
}

impl<'a> Crowd<'a> {
    fn new(plan: &'a Plan, run: u32) -> anyhow::Result<Self> {
        Ok(Self {
            plan,
            poll: Poll::new().context("cannot poll")?,
            events: Events::with_capacity(EVENTS),
            clients: (0..plan.connections).map(Client::new).collect(),
            witness: Witness::new(run),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
        })
    }

    /// Connects all, after the last id that each has.
    fn connect(&mut self) -> anyhow::Result<()> {
        let since = Instant::now();
        let mut opened = 0;
        loop {
            let up = self.up();
            if up as usize == self.clients.len() {
                return Ok(());
            }
            if since.elapsed() > STEP_MAX {
                let why = self.witness.problem.take().unwrap_or_default();
                bail!("{up} of {} connections came up: {why}", self.clients.len());
            }
            while opened < self.clients.len() && opened - (up as usize).min(opened) < CONNECTING_MAX
            {
                self.clients[opened].connect(self.plan, self.poll.registry())?;
                opened += 1;
            }
            self.turn()?;
        }
    }

    fn up(&self) -> u64 {
        self.clients.iter().filter(|client| client.is_up()).count() as u64
    }

    /// Whether all have this event.
    fn have(&self, number: u64) -> bool {
        self.clients.iter().all(|client| client.newest() >= Some(number))
    }

    fn read_until(&mut self, done: impl Fn(&Self) -> bool, what: &str) -> anyhow::Result<()> {
        let since = Instant::now();
        while !done(self) {
            if since.elapsed() > STEP_MAX {
                bail!("{what} did not come to all within {} s", STEP_MAX.as_secs());
            }
            self.turn()?;
        }
        Ok(())
    }

    fn read_for(&mut self, time: Duration) -> anyhow::Result<()> {
        let since = Instant::now();
        while since.elapsed() < time {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> anyhow::Result<()> {
        self.poll.poll(&mut self.events, Some(WAIT_MAX)).context("cannot poll")?;
        for event in &self.events {
            let Token(at) = event.token();
            if let Some(client) = self.clients.get_mut(at) {
                client.ready(event, self.poll.registry(), &mut self.buffer, &mut self.witness);
            }
        }
        Ok(())
    }
}

/// Compares what each client got with what was answered to the publisher.
fn judge(answers: &[Answer], clients: &[Client], witness: &Witness) -> Comeback {
    let mut found =
        Comeback { gaps: witness.gaps, foreign: witness.foreign, ..Comeback::default() };
    found.foreign +=
        clients.iter().filter(|client| client.has_beyond(answers.len())).count() as u64;
    found.out_of_order = witness.out_of_order;
    found.problem.clone_from(&witness.problem);
    for (number, answer) in answers.iter().enumerate() {
        let copies = clients.iter().map(|client| u64::from(client.copies(number)));
        let (having, all) =
            copies.fold((0, 0), |(having, all), copies| (having + copies.min(1), all + copies));
        let due = clients.len() as u64;
        found.received += having;
        found.duplicated += all - having;
        match answer {
            Answer::Kept => found.acknowledged += 1,
            Answer::Cut => found.unanswered += 1,
        }
        match (answer, having) {
            (Answer::Kept, having) => found.lost += due - having,
            (Answer::Cut, 0) => {}
            (Answer::Cut, having) => {
                found.unanswered_kept += 1;
                found.split += u64::from(having != due);
            }
        }
    }
    let odd = found.lost + found.duplicated + found.out_of_order + found.split;
    found.flawless = odd + found.gaps + found.foreign == 0 && found.problem.is_none();
    found
}

impl fmt::Display for Comeback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, acknowledged, received, unanswered, unanswered_kept, .. } = self;
        let Self { lost, duplicated, out_of_order, split, gaps, foreign, .. } = self;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(f, "{connections} clients; {acknowledged} events acknowledged")?;
        writeln!(f, "{unanswered} without an answer, {unanswered_kept} of them kept")?;
        writeln!(
            f,
            "{received} received, {lost} lost, {duplicated} duplicated, {out_of_order} out of \
             order, {split} for some only, {gaps} gaps, {foreign} foreign"
        )?;
        let Self { down_s, reconnected_s, caught_up_s, .. } = self;
        writeln!(
            f,
            "down {down_s:.2} s, all connected after {reconnected_s:.2} s, all caught up after \
             {caught_up_s:.2} s"
        )?;
        let (before, after) = (mib(self.resident_before), mib(self.resident_after));
        writeln!(f, "{before:.1} MiB resident before, {after:.1} MiB after")?;
        self.problem.as_ref().map_or(Ok(()), |problem| writeln!(f, "First problem: {problem}."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What clients come to that got these events, after these answers: `k` kept, `c` cut.
    fn judged(answers: &str, clients: &[&[u64]]) -> Comeback {
        let answer = |letter| if letter == 'k' { Answer::Kept } else { Answer::Cut };
        let answers: Vec<Answer> = answers.chars().map(answer).collect();
        let mut witness = Witness::new(1);
        let got = |(number, numbers): (usize, &&[u64])| {
            let mut client = Client::new(number);
            numbers.iter().for_each(|number| client.note(*number, &mut witness));
            client
        };
        let clients: Vec<Client> = clients.iter().enumerate().map(got).collect();
        judge(&answers, &clients, &witness)
    }

    #[test]
    fn what_was_acknowledged_is_due_to_all_once_and_in_order() {
        let good = judged("kk", &[&[0, 1], &[0, 1]]);
        assert!(good.flawless);
        assert_eq!((good.acknowledged, good.received), (2, 4));
        assert_eq!(judged("kk", &[&[0, 1], &[0]]).lost, 1);
        assert_eq!(judged("kk", &[&[0, 1, 1]]).duplicated, 1);
        assert_eq!(judged("kk", &[&[1, 0]]).out_of_order, 1);
        for bad in [&[0_u64][..], &[0, 1, 1], &[1, 0]] {
            assert!(!judged("kk", &[bad]).flawless, "{bad:?}");
        }
    }

    #[test]
    fn what_was_cut_off_is_everybodys_or_nobodys() {
        let nobodys = judged("kck", &[&[0, 2], &[0, 2]]);
        assert_eq!((nobodys.unanswered, nobodys.unanswered_kept, nobodys.flawless), (1, 0, true));
        let everybodys = judged("kck", &[&[0, 1, 2], &[0, 1, 2]]);
        assert_eq!((everybodys.unanswered_kept, everybodys.flawless), (1, true));
        let split = judged("kck", &[&[0, 1, 2], &[0, 2]]);
        assert_eq!((split.split, split.flawless), (1, false));
    }
}
