//! Hits the servers of a torture test: kills, pauses and restarts them at random moments.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::{Instant, sleep, sleep_until};

use crate::node::Node;

/// How a server is hit. A blow is one kill, pause or restart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blows {
    /// The maximum time between two blows.
    pub(crate) wait_max: Duration,
    /// The maximum time for which the server is paused or away.
    pub(crate) away_max: Duration,
    /// Whether the file with the history is sometimes deleted. This is allowed only if the file is
    /// a cache.
    pub(crate) deletes_store: bool,
}

/// The number of blows of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    pub(crate) kills: usize,
    pub(crate) restarts: usize,
    pub(crate) pauses: usize,
    pub(crate) deleted: usize,
}

/// Hits a server until this time. At the end, the server runs.
pub(crate) async fn hit(
    mut node: Node,
    blows: Blows,
    until: Instant,
    mut rng: Rng,
) -> (Node, Count) {
    let mut count = Count::default();
    loop {
        let wait = blows.wait_max.mul_f64(0.3 + 0.7 * rng.f64());
        if Instant::now() + wait >= until {
            sleep_until(until).await;
            return (node, count);
        }
        sleep(wait).await;
        let away = blows.away_max.mul_f64(rng.f64().powi(2));
        match rng.u8(0..10) {
            0..4 => {
                node.kill();
                count.kills += 1;
                if blows.deletes_store && rng.u8(0..4) == 0 {
                    node.delete_store();
                    count.deleted += 1;
                }
                sleep(away).await;
                node.start().await;
            }
            4..6 => {
                node.stop().await;
                count.restarts += 1;
                sleep(away).await;
                node.start().await;
            }
            _ => {
                node.pause();
                count.pauses += 1;
                sleep(away).await;
                node.resume();
            }
        }
    }
}
