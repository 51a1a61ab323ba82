//! A busy topic's readers are woken once for several events, and none is ever forgotten.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
    time::Duration,
};

use downlink::hub::{Batch, DisconnectReason, Hub, HubError, LINGER_MAX, Retention, Subscription};
use futures_util::StreamExt;
use tokio::{
    runtime::{Builder, Runtime},
    time::{Instant, advance, timeout},
};

use super::{Delivery, build, open, say, seen};

const LINGER: Duration = Duration::from_millis(10);

/// How long a test may take that runs in real time: far longer than it should.
const DEADLINE: Duration = Duration::from_secs(60);

fn lingering() -> Hub<String> {
    build(|builder| builder.linger(LINGER))
}

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A subscription that waits, and how often it was woken.
struct Waiting {
    subscription: Subscription<String>,
    woken: Arc<Count>,
}

impl Waiting {
    fn on(hub: &Hub<String>, topic: &str) -> Self {
        let mut waiting =
            Self { subscription: open(hub.subscribe().topic(topic)), woken: Arc::default() };
        assert!(waiting.read().is_empty());
        waiting
    }

    /// Reads what there is, then waits again.
    fn read(&mut self) -> Vec<String> {
        let mut data = Vec::new();
        let waker = Waker::from(Arc::clone(&self.woken));
        let mut cx = Context::from_waker(&waker);
        while let std::task::Poll::Ready(Some(Delivery::Event(event))) =
            self.subscription.poll_delivery(&mut cx)
        {
            data.push(event.data());
        }
        data
    }

    fn woken(&self) -> usize {
        self.woken.get()
    }
}

async fn next(subscription: &mut Subscription<String>) -> String {
    match timeout(DEADLINE, subscription.next()).await {
        Ok(Some(Delivery::Event(event))) => event.data(),
        other => panic!("{other:?}"),
    }
}

/// Moves the time on, and lets the timer do what is due by then.
async fn pass(time: Duration) {
    advance(time).await;
    // The timer wakes the task in one turn of the runtime, and the task runs in the next.
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test(start_paused = true)]
async fn an_event_after_a_pause_is_told_at_once() {
    let hub = lingering();
    let mut reader = Waiting::on(&hub, "a");
    for round in 1..4 {
        say(&hub, "a", "now");
        assert_eq!(reader.woken(), round);
        assert_eq!(reader.read(), ["now"]);
        pass(LINGER).await;
    }
    assert_eq!(reader.woken(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_follows_within_the_linger_is_told_in_one_wake_up() {
    let hub = lingering();
    let mut reader = Waiting::on(&hub, "a");
    say(&hub, "a", "1");
    assert_eq!(reader.read(), ["1"]);
    for data in ["2", "3", "4"] {
        pass(millis(2)).await;
        say(&hub, "a", data);
    }
    pass(millis(3)).await;
    assert_eq!(reader.woken(), 1, "it is not the end yet");
    pass(millis(1)).await;
    assert_eq!(reader.woken(), 2);
    assert_eq!(reader.read(), ["2", "3", "4"]);
    // That was a wake-up too: the next linger began with it.
    say(&hub, "a", "5");
    assert_eq!(reader.woken(), 2);
    pass(LINGER).await;
    assert_eq!((reader.woken(), reader.read()), (3, vec!["5".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn under_load_there_is_one_wake_up_in_a_linger() {
    let hub = lingering();
    let mut reader = Waiting::on(&hub, "a");
    let mut read = 0;
    for _ in 0..1_000 {
        say(&hub, "a", "x");
        pass(millis(1)).await;
        read += reader.read().len();
    }
    pass(LINGER).await;
    read += reader.read().len();
    assert_eq!(read, 1_000);
    // Reading every millisecond, it would else have been woken for each. It reads what it was not
    // woken for as well, so it may wait when the linger ends, and not find anything.
    assert!((100..=101).contains(&reader.woken()), "{}", reader.woken());
}

#[tokio::test(start_paused = true)]
async fn each_topic_has_a_linger_of_its_own() {
    let hub = lingering();
    let mut readers = ["a", "b"].map(|topic| Waiting::on(&hub, topic));
    let woken = |readers: &[Waiting; 2]| [readers[0].woken(), readers[1].woken()];
    say(&hub, "a", "1");
    pass(millis(4)).await;
    say(&hub, "b", "1");
    assert_eq!(woken(&readers), [1, 1], "another topic's linger is not its own");
    readers.iter_mut().for_each(|reader| assert_eq!(reader.read(), ["1"]));
    // The one that is due later comes first, so the timer has to be set anew.
    say(&hub, "b", "2");
    pass(millis(1)).await;
    say(&hub, "a", "2");
    pass(millis(4)).await;
    assert_eq!(woken(&readers), [1, 1]);
    pass(millis(1)).await;
    assert_eq!(woken(&readers), [2, 1]);
    pass(millis(4)).await;
    assert_eq!(woken(&readers), [2, 2]);
    readers.iter_mut().for_each(|reader| assert_eq!(reader.read(), ["2"]));
}

#[tokio::test(start_paused = true)]
async fn batches_and_events_for_several_linger_for_each_address() {
    let hub = lingering();
    let mut topics = ["a", "b", "c"].map(|topic| Waiting::on(&hub, topic));
    say(&hub, "a", "first");
    topics[0].read();
    let mut batch = Batch::new(&hub);
    batch.add(hub.to("a").and_to("b"), "both".to_owned());
    batch.add(hub.to("b"), "one".to_owned());
    batch.publish().unwrap();
    assert_eq!(topics.each_ref().map(Waiting::woken), [1, 1, 0]);
    assert_eq!(topics[1].read(), ["both", "one"]);
    hub.publish("everyone".to_owned()).unwrap();
    hub.publish("again".to_owned()).unwrap();
    assert_eq!(topics[2].read(), ["everyone", "again"], "one that looks has all there is");
    assert_eq!(topics[1].read(), ["everyone", "again"]);
    hub.publish("once more".to_owned()).unwrap();
    let before = topics.each_ref().map(Waiting::woken);
    pass(LINGER).await;
    let after = topics.each_ref().map(Waiting::woken);
    assert!(before[1] < after[1] && before[2] < after[2], "{before:?} {after:?}");
    assert_eq!(topics[0].read(), ["both", "everyone", "again", "once more"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_gathered_comes_at_the_end_of_the_linger() {
    let hub = lingering();
    let mut subscription = open(hub.subscribe().topic("a").client("alice"));
    let began = Instant::now();
    for data in ["1", "2", "3"] {
        say(&hub, "a", data);
        hub.to_client("alice").publish(format!("{data} for alice")).unwrap();
        assert_eq!(next(&mut subscription).await, data);
        assert_eq!(next(&mut subscription).await, format!("{data} for alice"));
    }
    // It looked each time and found them. Now it waits, and nothing is left but to wake it.
    say(&hub, "a", "4");
    assert_eq!(next(&mut subscription).await, "4");
    let task = tokio::spawn(async move { next(&mut subscription).await });
    tokio::task::yield_now().await;
    say(&hub, "a", "5");
    assert_eq!(task.await.unwrap(), "5");
    assert_eq!(began.elapsed(), LINGER);
}

#[tokio::test(start_paused = true)]
async fn ends_do_not_linger() {
    type End = fn(&Hub<String>);
    let ends: [(End, &str); 3] = [
        (Hub::drain, "end drained"),
        (Hub::close, "end closed"),
        (|hub| drop(hub.finish("a").unwrap()), "end finished"),
    ];
    for (end, reason) in ends {
        let hub = lingering();
        let mut reader = Waiting::on(&hub, "a");
        say(&hub, "a", "1");
        assert_eq!(reader.read(), ["1"]);
        say(&hub, "a", "2");
        assert_eq!(reader.woken(), 1);
        end(&hub);
        assert_eq!(reader.woken(), 2, "{reason}");
        assert_eq!(seen(&mut reader.subscription), ["2", reason]);
        drop((hub, reader));
        pass(LINGER).await;
    }
}

#[tokio::test(start_paused = true)]
async fn disconnecting_does_not_linger() {
    let hub = lingering();
    let subscription = open(hub.subscribe().client("alice").topic("a"));
    let mut reader = Waiting { subscription, woken: Arc::default() };
    say(&hub, "a", "1");
    reader.read();
    say(&hub, "a", "2");
    assert_eq!((reader.woken(), hub.disconnect("alice")), (0, 1));
    assert_eq!(reader.woken(), 1);
    assert!(reader.read().is_empty());
    assert_eq!(reader.subscription.ended(), Some(DisconnectReason::Disconnected));
}

#[tokio::test(start_paused = true)]
async fn the_last_event_ends_a_topic_within_the_linger() {
    let hub = lingering();
    let mut subscription = open(hub.subscribe().topic("a"));
    say(&hub, "a", "1");
    assert_eq!(next(&mut subscription).await, "1");
    hub.to("a").last().publish("2".to_owned()).unwrap();
    let began = Instant::now();
    assert_eq!(next(&mut subscription).await, "2");
    assert!(subscription.next().await.is_none());
    assert!(began.elapsed() <= LINGER);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_hub_forgets_nobody() {
    let hub = lingering();
    let mut reader = Waiting::on(&hub, "a");
    say(&hub, "a", "1");
    assert_eq!(reader.read(), ["1"]);
    say(&hub, "a", "2");
    drop(hub);
    pass(LINGER).await;
    assert_eq!(reader.woken(), 2);
    assert_eq!(reader.read(), ["2"]);
}

/// A runtime whose time stands still, so that two events are never a linger apart.
fn still() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// The timer is gone with the runtime of the publisher: its readers may be on another.
#[test]
fn a_runtime_that_ends_wakes_who_waits() {
    let hub = lingering();
    let mut reader = Waiting::on(&hub, "a");
    let runtime = still();
    runtime.block_on(async {
        say(&hub, "a", "1");
        assert_eq!(reader.read(), ["1"]);
        say(&hub, "a", "2");
    });
    let woken = reader.woken();
    drop(runtime);
    assert_eq!(reader.woken(), woken + 1);
    assert_eq!(reader.read(), ["2"]);
}

/// A runtime that nobody drives does not keep others from waking its readers.
#[test]
fn a_timer_that_does_not_come_is_not_waited_for() {
    let hub = lingering();
    let mut reader = Waiting::on(&hub, "a");
    let idle = still();
    idle.block_on(async {
        say(&hub, "a", "1");
        assert_eq!(reader.read(), ["1"]);
        say(&hub, "a", "2");
    });
    let woken = reader.woken();
    let other = Builder::new_current_thread().enable_time().build().unwrap();
    let _in_other = other.enter();
    let began = std::time::Instant::now();
    while reader.woken() == woken && began.elapsed() < DEADLINE {
        say(&hub, "a", "x");
        std::thread::yield_now();
    }
    assert_eq!(reader.woken(), woken + 1);
}

/// The thread that commits has no runtime: the timer runs where the hub was made.
#[cfg(feature = "store")]
#[test]
fn with_a_store_the_linger_begins_at_the_commit() {
    let folder = std::env::temp_dir().join(format!("downlink-linger-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let made_in = still();
    let other = Builder::new_current_thread().enable_all().build().unwrap();
    let hub = {
        let _in_it = made_in.enter();
        build(|builder| builder.linger(LINGER).store(folder.join("hub.db")))
    };
    let mut reader = Waiting::on(&hub, "a");
    let commit = |data| other.block_on(say(&hub, "a", data).durable()).unwrap();
    commit("1");
    assert_eq!((reader.woken(), reader.read()), (1, vec!["1".to_owned()]));
    commit("2");
    commit("3");
    assert_eq!(reader.woken(), 1);
    made_in.block_on(pass(LINGER));
    assert_eq!((reader.woken(), reader.read()), (2, vec!["2".to_owned(), "3".to_owned()]));
    hub.close();
    other.block_on(hub.closed());
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn without_a_runtime_everybody_is_told_at_once() {
    let hub = lingering();
    let mut reader = Waiting::on(&hub, "a");
    for round in 1..4 {
        say(&hub, "a", "x");
        assert_eq!((reader.woken(), reader.read().len()), (round, 1));
    }
}

/// Publishers on every thread, and readers that wait for nothing but to be woken.
async fn everybody_is_told(hub: Hub<String>) {
    const PUBLISHERS: usize = 4;
    const EVENTS: usize = 2_000;
    let topics = ["a", "b"];
    let readers = topics.map(|topic| {
        let mut subscription = open(hub.subscribe().topic(topic));
        tokio::spawn(async move {
            for _ in 0..PUBLISHERS * EVENTS {
                next(&mut subscription).await;
            }
        })
    });
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|_| {
            let hub = hub.clone();
            tokio::spawn(async move {
                for number in 0..EVENTS {
                    hub.to("a").and_to("b").publish(number.to_string()).unwrap();
                    // Some in a row, then a pause that is shorter or longer than a linger.
                    match number % 100 {
                        0 => tokio::time::sleep(millis(number as u64 / 100 % 4)).await,
                        by if by % 7 == 0 => tokio::task::yield_now().await,
                        _ => {}
                    }
                }
            })
        })
        .collect();
    for publisher in publishers {
        publisher.await.unwrap();
    }
    for reader in readers {
        reader.await.unwrap();
    }
}

fn busy() -> Hub<String> {
    let retention = Retention { events_max: 100_000, ..Retention::DEFAULT };
    build(|builder| builder.linger(millis(2)).retention(retention))
}

#[test]
fn nobody_is_forgotten_on_one_thread() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(everybody_is_told(busy()));
}

#[test]
fn nobody_is_forgotten_on_many_threads() {
    let runtime = Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(everybody_is_told(busy()));
}

#[test]
fn a_linger_has_a_maximum() {
    let build = |linger| super::HubBuilder::<String>::text().linger(linger).build();
    assert!(build(LINGER_MAX).is_ok());
    assert!(build(LINGER_MAX - millis(1)).is_ok());
    let linger = LINGER_MAX + Duration::from_nanos(1);
    let refused = build(linger).unwrap_err();
    assert_eq!(refused, HubError::LingerTooLong { linger, linger_max: LINGER_MAX });
    assert_eq!(refused.to_string(), "a linger of 1.000000001s is too long; it is at most 1s");
}

/// Less than a millisecond is one: nothing is rounded to none.
#[tokio::test(start_paused = true)]
async fn the_shortest_linger_is_a_millisecond() {
    let hub = build(|builder| builder.linger(Duration::from_nanos(1)));
    let mut reader = Waiting::on(&hub, "a");
    say(&hub, "a", "1");
    assert_eq!(reader.read(), ["1"]);
    say(&hub, "a", "2");
    assert_eq!(reader.woken(), 1);
    pass(millis(1)).await;
    assert_eq!((reader.woken(), reader.read()), (2, vec!["2".to_owned()]));
}
