//! Tests of a server that restarts and loses its history. Each reader must get one gap for each
//! restart.
//!
//! After each restart, the server has another address. So readers connect to a forwarder, whose
//! address stays the same. The forwarder connects the readers to the current server.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use downlink::hub::Limits;
use fastrand::Rng;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::reconnect::{TOPICS, gather, part, readers, retentive, send_off};
use super::wire::Place;
use super::world::{Pace, Running, ServedBy, Stage, World, publishers};
use super::{dice, length};

const READERS: usize = 60;

/// The number of restarts in the shortest run.
const RESTARTS: usize = 3;

/// With this length, the publishers would run for a day, but the test stops them earlier.
const PACE: Pace =
    Pace { publishers: 2, topics: TOPICS, burst_max: 1, length: Duration::from_secs(86_400) };

/// Forwards bytes to the current server.
struct Forwarder {
    address: SocketAddr,
    to: Arc<Mutex<SocketAddr>>,
    accepting: JoinHandle<()>,
}

impl Forwarder {
    async fn new(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let to = Arc::new(Mutex::new(to));
        let accepting = tokio::spawn(accept(listener, Arc::clone(&to)));
        Self { address, to, accepting }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, to: Arc<Mutex<SocketAddr>>) {
    let mut connections = JoinSet::new();
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        let to = *to.lock().unwrap();
        connections.spawn(async move {
            if let Ok(mut far) = TcpStream::connect(to).await {
                // If one of the two connections breaks, this closes the other connection.
                let _ = copy_bidirectional(&mut near, &mut far).await;
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// A server and its stage. The stage has the hub that the server serves.
struct Serving {
    served_by: ServedBy,
    server: Running,
    stage: Arc<Stage>,
}

impl Serving {
    async fn new(served_by: ServedBy) -> Self {
        // With this limit, a reader gets all events of a new epoch, and not only the newest events.
        let limits = Limits { gap_replay_max: usize::MAX, ..Limits::default() };
        let stage = Stage::new(retentive().limits(limits));
        let server = Running::new(served_by, &stage.hub).await;
        Self { served_by, server, stage }
    }
}

/// The TCP address of a server.
fn address(server: &Running) -> SocketAddr {
    match server.place {
        Place::Tcp(address) => address,
        #[cfg(unix)]
        Place::Unix(_) => unreachable!("the restart tests use only TCP servers"),
    }
}

/// Starts a new server that replaces the old server. The old server crashes or shuts down
/// gracefully.
async fn restart(old: Serving, crashes: bool, world: &World, forwarder: &Forwarder) -> Serving {
    let new = Serving::new(old.served_by).await;
    world.enter(Arc::clone(&new.stage));
    *forwarder.to.lock().unwrap() = address(&new.server);
    if crashes {
        old.server.crash().await;
    } else {
        old.server.stop().await;
        assert_eq!(old.stage.hub.stats().subscribers, 0);
    }
    new
}

async fn restarts(served_by: ServedBy, mut rng: Rng) {
    let mut serving = Serving::new(served_by).await;
    let forwarder = Forwarder::new(address(&serving.server)).await;
    let world = World::new(Place::Tcp(forwarder.address), Arc::clone(&serving.stage));
    let running = send_off(readers(READERS, &mut rng, 300), &world);
    let mut publishing = publishers(&world, &mut rng, PACE);
    let mut stages = vec![Arc::clone(&serving.stage)];

    let began = Instant::now();
    while stages.len() <= RESTARTS || began.elapsed() < length() {
        world.all_arrived(READERS).await;
        world.published_more(rng.u64(0..1_000)).await;
        serving = restart(serving, rng.bool(), &world, &forwarder).await;
        stages.push(Arc::clone(&serving.stage));
    }
    world.all_arrived(READERS).await;
    publishing.shutdown().await;
    let last = world.say_last();
    let gathered = gather(running).await;
    let readers = part(serving.server, &serving.stage, gathered).await;
    for reader in &readers {
        let epochs: Vec<_> = reader.lives.iter().map(|life| &life.epoch).collect();
        let all: Vec<_> = stages.iter().map(|stage| &stage.epoch).collect();
        assert_eq!(
            epochs,
            all,
            "{}: the reader did not get one gap for each restart",
            reader.name()
        );
        assert_eq!(reader.holes(), 0);
        for (at, (life, stage)) in reader.lives.iter().zip(&stages).enumerate() {
            // An old server may end before it has sent the last events of its epoch to the reader.
            // The gap of the restart covers these events. So the ledger checks only up to the last
            // event that the reader received.
            let until = if at + 1 == stages.len() { last } else { life.seen.last() };
            stage.ledger.check(reader.name(), &reader.selection.places, &life.seen, until);
        }
    }
    eprintln!("{} restarts", stages.len() - 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_torture() {
    restarts(ServedBy::Direct, dice("restart_torture")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_torture_over_hyper() {
    restarts(ServedBy::Hyper, dice("restart_torture_over_hyper")).await;
}
