//! Tests of requirement 8: a client that reconnects misses no event.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use downlink::KeepAlive;
use downlink::hub::Hub;
use tokio::sync::Semaphore;

use super::{Running, app, patiently};

/// The maximum number of published events that the reader has not read yet. The hub keeps more
/// events than this, so the reader must get all events.
const AHEAD: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acceptance_08_reconnecting_during_publishes_loses_and_repeats_no_event() {
    let hub = Hub::<String>::text();
    let running = Running::new(app(&hub, KeepAlive::off()), |serve| serve).await;
    let (room, done) = (Arc::new(Semaphore::new(AHEAD)), Arc::new(AtomicBool::new(false)));
    // The cursor is taken before the first event, so all events follow it.
    let mut last = hub.cursor().as_str().to_owned();
    let publisher = tokio::spawn(publish(hub.clone(), Arc::clone(&room), Arc::clone(&done)));

    let mut expected = 0;
    for round in 0..200 {
        let mut client = running.subscribe("topics=a", &last).await;
        // The client disconnects after a different number of events in each round: at once, in the
        // middle of a batch, or after several batches.
        for _ in 0..round % 37 {
            let event = client.event().await;
            assert_eq!((event.event_type.as_ref(), event.data), ("message", expected.to_string()));
            event.last_event_id.as_ref().clone_into(&mut last);
            expected += 1;
            room.add_permits(1);
        }
    }
    done.store(true, Ordering::SeqCst);
    room.close();
    let published = patiently(publisher).await.unwrap();
    assert!(
        published >= expected && expected > 3_000,
        "the client read {expected} of {published} events"
    );
    let stats = hub.stats();
    assert!(stats.gaps.iter().all(|(_, count)| *count == 0));
}

async fn publish(hub: Hub<String>, room: Arc<Semaphore>, done: Arc<AtomicBool>) -> usize {
    let mut published = 0;
    while !done.load(Ordering::SeqCst) {
        let Ok(permit) = room.acquire().await else { break };
        permit.forget();
        hub.to("a").publish(published.to_string()).unwrap();
        published += 1;
    }
    published
}
