//! Tests of readers that each subscribe to two hundred topics over one connection.

use fastrand::Rng;

use super::reader::{Habits, Reader};
use super::reconnect::{retentive, torture};
use super::world::{Pace, Selection, ServedBy};
use super::{dice, length};

const TOPICS: usize = 200;

async fn two_hundred_topics(served_by: ServedBy, mut rng: Rng) {
    let habits = Habits { away_max: 500, pause_max: 50, window_bytes: None, odd: true };
    let reader = |number| {
        let selection = Selection::topics(0..TOPICS);
        Reader::new(format!("reader {number}"), selection, habits, rng.fork())
    };
    let readers = (0..5).map(reader).collect();
    let pace = Pace { publishers: 3, topics: TOPICS, burst_max: 3, length: length() };
    let readers = torture(retentive(), served_by, readers, &mut rng, pace).await;
    assert!(readers.iter().all(|reader| reader.holes() == 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_topics_torture() {
    two_hundred_topics(ServedBy::Direct, dice("two_hundred_topics_torture")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_topics_torture_over_hyper() {
    two_hundred_topics(ServedBy::Hyper, dice("two_hundred_topics_torture_over_hyper")).await;
}
