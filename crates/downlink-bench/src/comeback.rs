//! A comeback: the tool kills the server under load and starts it again, and all clients resume.
//!
//! Each client has to get every acknowledged event once and in order, over all of its connections.
//! The event that is being published during the crash gets no answer. It is correct if all clients
//! get this event, and also if no client gets it. It is a flaw if only some clients get it.

use std::{
    fmt,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use super::{
    books::Books,
    load::LoadRun,
    pace::Pace,
    plan::Plan,
    report::{mib, write_problem},
    server::ServerProcesses,
    tally::Seen,
};

/// The number of events before the crash. After these events, every client has an event id, so it
/// can resume.
const BEFORE: u64 = 10;
/// The number of events that are published between the crash and the return of the clients. Each
/// client has to get them when it resumes.
const AWAY: u64 = 100;
/// The maximum duration of each step.
const STEP_MAX: Duration = Duration::from_secs(60);
/// The interval between two attempts to reach the server.
const RETRY: Duration = Duration::from_millis(2);

/// The results of a comeback.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Comeback {
    connections: u64,
    connections_asked: usize,
    acknowledged: u64,
    /// The number of events that got no answer because of the crash.
    unanswered: u64,
    /// The number of unanswered events that at least one client got.
    unanswered_kept: u64,
    received: u64,
    lost: u64,
    duplicated: u64,
    out_of_order: u64,
    /// The number of unanswered events that some clients got, but not all.
    split: u64,
    gaps: u64,
    /// Deliveries of events that were never published.
    foreign: u64,
    /// The time from the crash until the new server accepts a connection.
    down_s: f64,
    /// The time in which all clients reconnected.
    reconnected_s: f64,
    /// The time from the first reconnection until all clients have the newest event.
    caught_up_s: f64,
    resident_before: u64,
    resident_after: u64,
    resident_per_connection: f64,
    server_cpu_s: f64,
    flawless: bool,
    problem: Option<String>,
}

/// The new server. It is killed when this value is dropped.
#[derive(Debug)]
struct NewServer(Child);

impl Drop for NewServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Kills the server, starts it again with this shell command, and lets all clients resume.
///
/// # Errors
///
/// If the server cannot be reached, killed or started again.
pub(super) fn run(plan: &Plan, server: &ServerProcesses, line: &str) -> anyhow::Result<Comeback> {
    // The load does not measure the server's process, because the process is killed during the
    // load.
    let unknown = ServerProcesses::default();
    let mut load = LoadRun::new(plan, &unknown)?;
    load.connect()?;
    let connections = load.reading.books.connections_up();
    load.reading.books.refused_may_arrive = true;
    load.begin(Instant::now(), 0..0);
    // The server is killed while an event has no answer yet.
    let is_under_way = |load: &mut LoadRun<'_>| {
        load.publish_due()?;
        Ok(has_all(load, BEFORE) && load.is_waiting())
    };
    turn_until(&mut load, is_under_way, "the first events")?;
    let resident_before = server.resident_bytes()?;
    let crashed = Instant::now();
    kill(server)?;
    let is_down = |load: &mut LoadRun<'_>| {
        Ok(load.reading.books.connections_up() == 0 && !load.is_waiting() && !load.is_idle())
    };
    turn_until(&mut load, is_down, "the end of the connections")?;
    let new = start(line)?;
    // The load tries again and again to connect its publisher. It pauses between the attempts, so
    // that the server has processor time to start.
    let is_back = |load: &mut LoadRun<'_>| {
        thread::sleep(RETRY);
        Ok(load.is_idle())
    };
    turn_until(&mut load, is_back, "the return of the server")?;
    let down_s = crashed.elapsed().as_secs_f64();
    publish(&mut load, AWAY)?;
    let server = ServerProcesses::new(&[new.0.id()])?;
    let before = server.usage()?.unwrap_or_default();
    let returning = Instant::now();
    load.connect()?;
    let reconnected_s = returning.elapsed().as_secs_f64();
    let published = load.reading.books.published;
    let has_caught_up = |load: &mut LoadRun<'_>| Ok(has_all(load, published));
    let caught_up = turn_until(&mut load, has_caught_up, "the newest event");
    let caught_up_s = returning.elapsed().as_secs_f64();
    // If the server sends the newest event twice, the second copy may arrive during this wait.
    load.wait(plan.timing.settle)?;
    let after = server.usage()?.unwrap_or_default();
    let seen: Vec<&Seen> =
        load.subscribers.iter().filter_map(|client| client.seen.as_ref()).collect();
    let stories = load.subscribers.iter().filter_map(|client| client.story.as_ref());
    let gaps = stories.map(|story| story.gaps).sum();
    let problem = load.troubles.problem.clone().or(caught_up.err().map(|error| error.to_string()));
    Ok(Comeback {
        connections: connections.min(load.reading.books.connections_up()),
        connections_asked: plan.connections,
        down_s,
        reconnected_s,
        caught_up_s,
        resident_before,
        resident_after: after.resident_bytes,
        resident_per_connection: after.resident_bytes as f64 / plan.connections as f64,
        server_cpu_s: after.since(before).cpu_s,
        ..judge(&load.reading.books, &seen, gaps, problem)
    })
}

/// True if each client has got the event with the number `next - 1` or a later event. Also true if
/// `next` is 0.
fn has_all(load: &LoadRun<'_>, next: u64) -> bool {
    load.subscribers.iter().all(|client| client.has_reached(next))
}

fn turn_until(
    load: &mut LoadRun<'_>,
    mut is_done: impl FnMut(&mut LoadRun<'_>) -> anyhow::Result<bool>,
    what: &str,
) -> anyhow::Result<()> {
    let is_done = load.turn_until(STEP_MAX, STEP_MAX, |load| Ok((!is_done(load)?).then_some(0)))?;
    let problem = load.troubles.problem.as_deref().unwrap_or_default();
    ensure!(is_done, "{what}: not done within {} s: {problem}", STEP_MAX.as_secs());
    Ok(())
}

/// Publishes this many events, each after the answer to the previous event.
fn publish(load: &mut LoadRun<'_>, events: u64) -> anyhow::Result<()> {
    load.reading.books.pace = Pace::window(1);
    let target = load.reading.books.published + events;
    let refused = load.reading.books.refused.len();
    let is_done = |load: &mut LoadRun<'_>| {
        let is_published = load.reading.books.published == target;
        if !is_published {
            load.publish_due()?;
        }
        let problem = load.troubles.problem.as_deref().unwrap_or_default();
        ensure!(load.reading.books.refused.len() == refused, "publishing failed: {problem}");
        Ok(is_published && !load.is_waiting())
    };
    turn_until(load, is_done, "publishing to the new server")
}

fn kill(server: &ServerProcesses) -> anyhow::Result<()> {
    for pid in server.pids() {
        let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw).context("no process")?;
        kill_process(pid, Signal::KILL).context("cannot kill the server")?;
    }
    Ok(())
}

fn start(line: &str) -> anyhow::Result<NewServer> {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("exec {line}"));
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(NewServer(shell.spawn().with_context(|| format!("cannot start: {line}"))?))
}

/// Compares the events of each client with the answers to the publisher.
fn judge(books: &Books, clients: &[&Seen], gaps: u64, problem: Option<String>) -> Comeback {
    let counts = &books.counts;
    let due = clients.len() as u64;
    let mut comeback = Comeback {
        unanswered: books.refused.len() as u64,
        acknowledged: books.published - books.refused.len() as u64,
        duplicated: counts.duplicated,
        out_of_order: counts.out_of_order,
        foreign: counts.foreign,
        gaps,
        problem,
        ..Comeback::default()
    };
    for number in 0..books.published {
        let having = clients.iter().filter(|seen| seen.has(number)).count() as u64;
        comeback.received += having;
        if !books.refused.contains(&number) {
            comeback.lost += due - having;
        } else if having > 0 {
            comeback.unanswered_kept += 1;
            comeback.split += u64::from(having != due);
        }
    }
    let flaws = comeback.lost + comeback.duplicated + comeback.out_of_order + comeback.split;
    comeback.flawless = flaws + gaps + comeback.foreign == 0 && comeback.problem.is_none();
    comeback
}

impl fmt::Display for Comeback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, acknowledged, received, unanswered, unanswered_kept, .. } = self;
        let Self { lost, duplicated, out_of_order, split, gaps, foreign, .. } = self;
        let Self { down_s, reconnected_s, caught_up_s, .. } = self;
        writeln!(f, "{connections} clients; {acknowledged} events acknowledged")?;
        writeln!(f, "{unanswered} without an answer, {unanswered_kept} of them kept")?;
        writeln!(
            f,
            "{received} received, {lost} lost, {duplicated} duplicated, {out_of_order} out of \
             order, {split} for some only, {gaps} gaps, {foreign} foreign"
        )?;
        writeln!(
            f,
            "down {down_s:.2} s, all connected after {reconnected_s:.2} s, all caught up after \
             {caught_up_s:.2} s"
        )?;
        let (before, after) = (mib(self.resident_before), mib(self.resident_after));
        writeln!(f, "{before:.1} MiB resident before, {after:.1} MiB after")?;
        write_problem(f, self.problem.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Judges clients. `clients` has the numbers of the events that each client got. Each letter of
    /// `answers` is for one event: `k` for an acknowledged event, and `c` for an event without an
    /// answer.
    fn judged(answers: &str, clients: &[&[u64]]) -> Comeback {
        let mut books = Books::new(1, 1, Pace::window(1)).unwrap();
        books.refused_may_arrive = true;
        let mut records = Vec::new();
        for answer in answers.chars() {
            let (place, record) = books.publish(0, 0);
            records.push(record);
            if answer == 'c' {
                books.refuse(place);
            }
        }
        let mut read = |numbers: &&[u64]| {
            let mut seen = Seen::starting_at(0);
            for number in *numbers {
                books.deliver(&mut seen, 0, records[*number as usize], 0);
            }
            seen
        };
        let seen: Vec<Seen> = clients.iter().map(&mut read).collect();
        judge(&books, &seen.iter().collect::<Vec<_>>(), 0, None)
    }

    #[test]
    fn every_client_needs_each_acknowledged_event_once_and_in_order() {
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
    fn an_unanswered_event_is_a_flaw_if_only_some_clients_get_it() {
        let none = judged("kck", &[&[0, 2], &[0, 2]]);
        assert_eq!((none.unanswered, none.unanswered_kept, none.flawless), (1, 0, true));
        let all = judged("kck", &[&[0, 1, 2], &[0, 1, 2]]);
        assert_eq!((all.unanswered_kept, all.flawless), (1, true));
        let split = judged("kck", &[&[0, 1, 2], &[0, 2]]);
        assert_eq!((split.split, split.flawless), (1, false));
    }
}
