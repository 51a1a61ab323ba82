//! The blows of a fault run. A blow is a random fault: it kills, stops, pauses or cuts off a part
//! of the cluster, or puts older data back.
//!
//! The blows in this file hit the servers of the engine (three NATS servers), and the links, which
//! carry the connections between the processes. The module `chaos` hits the nodes.

use std::{sync::Mutex, time::Duration};

use fastrand::Rng;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    engine::{Engine, Server},
    link::{Flow, Link},
};

/// The number of blows of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    pub(crate) kills: usize,
    pub(crate) stops: usize,
    pub(crate) pauses: usize,
    /// The number of times that all servers were killed at once.
    pub(crate) outages: usize,
    pub(crate) cuts: usize,
    pub(crate) rollbacks: usize,
}

/// The blows of a run with their times, for the message of a failed test.
#[derive(Debug)]
pub(crate) struct Diary {
    began: Instant,
    lines: Mutex<Vec<String>>,
}

impl Diary {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), lines: Mutex::default() }
    }

    pub(crate) fn note(&self, blow: &str) {
        let line = format!("{:.3} s: {blow}\n", self.began.elapsed().as_secs_f64());
        self.lines.lock().unwrap().push(line);
    }

    pub(crate) fn text(&self) -> String {
        self.lines.lock().unwrap().concat()
    }
}

/// Waits for a random time before a blow. Returns false if there is no time left for a blow.
async fn next(until: Instant, wait_max: Duration, rng: &mut Rng) -> bool {
    let wait = wait_max.mul_f64(0.2 + 0.8 * rng.f64());
    if Instant::now() + wait >= until {
        sleep_until(until).await;
        return false;
    }
    sleep(wait).await;
    true
}

/// Hits the servers until this time, one after the other. Half of the blows hit the leader of the
/// hub's stream. At the end, all servers run.
pub(crate) async fn hit_servers(
    engine: &mut Engine,
    hub: &str,
    until: Instant,
    mut rng: Rng,
    diary: &Diary,
) -> Count {
    let mut count = Count::default();
    while next(until, Duration::from_millis(2_500), &mut rng).await {
        let random = rng.usize(0..engine.servers.len());
        let leader = if rng.bool() { engine.try_leader(hub).await } else { None };
        let number = leader.unwrap_or(random);
        let server = &mut engine.servers[number];
        let note = |what: &str| diary.note(&format!("server {number}, leader {leader:?}: {what}"));
        let away = Duration::from_millis(rng.u64(50..3_000));
        match rng.u8(0..10) {
            0..4 => {
                note("killed");
                server.kill();
                sleep(away).await;
                note("starts");
                server.run().await;
                note("runs");
                count.kills += 1;
            }
            4..7 => {
                note("paused");
                server.pause();
                sleep(away).await;
                note("goes on");
                server.resume();
                count.pauses += 1;
            }
            7..9 => {
                note("stopped");
                server.stop().await;
                sleep(away).await;
                note("starts");
                server.run().await;
                note("runs");
                count.stops += 1;
            }
            _ => {
                diary.note("all servers are killed");
                engine.kill_all();
                sleep(away).await;
                diary.note("all servers start");
                engine.spawn_all();
                count.outages += 1;
            }
        }
    }
    count
}

/// Cuts links until this time: one link of a node, all links of a node, one route, or both routes
/// of a server. A route is a link between two servers. At the end, all links are open.
pub(crate) async fn cut_links(
    nodes: &[Vec<Link>],
    routes: &[Link; 3],
    until: Instant,
    mut rng: Rng,
    diary: &Diary,
) -> Count {
    let mut count = Count::default();
    while next(until, Duration::from_millis(2_500), &mut rng).await {
        let of = rng.usize(0..nodes.len());
        let node = &nodes[of];
        let kind = rng.u8(0..4);
        let links: Vec<&Link> = match kind {
            0 => vec![&node[rng.usize(0..node.len())]],
            1 => node.iter().collect(),
            2 => vec![&routes[rng.usize(0..3)]],
            _ => {
                let spared = rng.usize(0..3);
                (0..3).filter(|route| *route != spared).map(|route| &routes[route]).collect()
            }
        };
        let flow = if rng.bool() { Flow::Silent } else { Flow::Closed };
        let kinds = ["one link of node", "all links of node", "a route", "the routes of a server"];
        let what = format!("{} ({of})", kinds[usize::from(kind)]);
        diary.note(&format!("{what}: {flow:?}"));
        links.iter().for_each(|link| link.set(flow));
        sleep(Duration::from_millis(rng.u64(50..4_000))).await;
        diary.note(&format!("{what}: open"));
        links.iter().for_each(|link| link.set(Flow::Open));
        count.cuts += 1;
    }
    count
}

/// The maximum time for which a rollback waits for further acknowledged events. The rollback can
/// lose these events.
const LOSE_WITHIN: Duration = Duration::from_secs(5);

/// Saves the data of two servers, and waits until more events are acknowledged. Then kills the
/// servers, and puts the saved data back on one or two of them. Returns the time at which saving
/// began.
pub(crate) async fn roll_back(
    engine: &mut Engine,
    hub: &str,
    until: Instant,
    mut rng: Rng,
    (acknowledged, diary): (impl Fn() -> usize, &Diary),
) -> (std::time::Instant, Count) {
    sleep(Duration::from_millis(rng.u64(300..1_500))).await;
    let spared = rng.usize(0..3);
    let older: Vec<usize> = (0..3).filter(|server| *server != spared).collect();
    let saved = std::time::Instant::now();
    for server in &older {
        engine.servers[*server].save().await;
    }
    let to_lose = acknowledged() + rng.usize(10..100);
    let late = Instant::now() + LOSE_WITHIN;
    while acknowledged() < to_lose && Instant::now() < late {
        sleep(Duration::from_millis(10)).await;
    }
    // In one of four runs, only one server gets older data back. In the other runs, two servers get
    // it.
    let older = if rng.u8(0..4) == 0 { &older[..1] } else { &older[..] };
    // If the third server keeps running or comes back early, the other two often get the lost
    // entries from it.
    let spared_dies = rng.u8(0..4) > 0;
    diary.note(&format!(
        "the servers {older:?} die and get older data, {spared} dies: {spared_dies}"
    ));
    for server in older {
        engine.servers[*server].kill();
    }
    if spared_dies {
        engine.kill_all();
    }
    for server in older {
        engine.servers[*server].restore().await;
    }
    sleep(Duration::from_millis(rng.u64(0..1_000))).await;
    let is_away = |server: &&mut Server| !server.is_running();
    let comes_late = rng.u8(0..4) > 0;
    if spared_dies && comes_late && older.len() == 2 {
        for server in older {
            engine.servers[*server].spawn();
        }
        engine.leader(hub).await;
        sleep(Duration::from_millis(rng.u64(0..1_500))).await;
    }
    diary.note("all servers start");
    engine.servers.iter_mut().filter(is_away).for_each(Server::spawn);
    sleep_until(until).await;
    (saved, Count { rollbacks: 1, ..Count::default() })
}
