//! Compares the cost of a delivery to a subscription by pattern with the cost of a delivery to a
//! subscription by name. The measured time is from the publish to the frame that a socket would
//! get. Run the benchmark with `cargo bench -p downlink --bench patterns`.
//!
//! The benchmark prints figures, but does not check them against limits. The times are the
//! processor time of the thread.
#![allow(clippy::print_stdout, reason = "the output is the result")]

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use downlink::{http::BodyError, hub::Hub};
use futures_util::FutureExt;
use http_body::Body;

const READERS: usize = 10_000;
/// The number of rounds before the measurement. For each pattern that has subscriptions, the hub
/// keeps a list of the newest events that match the pattern. These lists have a maximum length.
/// After this number of rounds, the lists have their maximum length, so they do not grow during the
/// measurement.
const FIRST_ROUNDS: usize = 65;
const ROUNDS: usize = 60;

/// The processor time of this thread in nanoseconds.
fn cpu() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    #[allow(unsafe_code, reason = "the standard library has no such clock")]
    // SAFETY: `time` is valid for a write.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Many subscriptions. Each subscription reads the topic of one user.
struct Users {
    hub: Hub<String>,
    bodies: Vec<Pin<Box<dyn Body<Data = Bytes, Error = BodyError>>>>,
    names: Vec<String>,
}

impl Users {
    fn new(selector: impl Fn(usize) -> String) -> Self {
        let hub = Hub::<String>::text();
        let open = |number| {
            let opened = hub.subscribe().pattern(selector(number)).open();
            let opened = opened
                .now_or_never()
                .expect("a hub in memory opens at once")
                .expect("the hub has room");
            Box::pin(opened.into_http_response().into_body())
                as Pin<Box<dyn Body<Data = _, Error = _>>>
        };
        let bodies = (0..READERS).map(open).collect();
        let names = (0..READERS).map(|number| format!("user/{number}/x")).collect();
        let mut users = Self { hub, bodies, names };
        (0..READERS).for_each(|number| {
            users.frames(number);
        });
        users
    }

    fn frames(&mut self, number: usize) -> usize {
        let mut waiting = Context::from_waker(Waker::noop());
        let body = &mut self.bodies[number];
        let mut frames = 0;
        while let Poll::Ready(frame) = body.as_mut().poll_frame(&mut waiting) {
            frame
                .expect("the subscription has not ended")
                .expect("the subscription has not failed");
            frames += 1;
        }
        frames
    }

    /// Publishes one event to each subscription in turn, and polls its frame. Returns the time per
    /// delivery.
    fn round(&mut self, payload: &str) -> f64 {
        let before = cpu();
        for number in 0..READERS {
            let _ = self
                .hub
                .to(&self.names[number])
                .publish(payload.to_owned())
                .expect("the hub has room");
            assert_eq!(self.frames(number), 1);
        }
        (cpu() - before) / READERS as f64
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("the runtime can be built");
    let _entered = runtime.enter();
    let mut exact = Users::new(|number| format!("user/{number}/x"));
    let mut pattern = Users::new(|number| format!("user/{number}/*"));
    let payload = "x".repeat(100);
    let (mut times, mut ratios) = (Vec::new(), Vec::new());
    // The two variants take turns, so that a busy machine slows both equally.
    for round in 0..FIRST_ROUNDS + ROUNDS {
        let (exact, pattern) = (exact.round(&payload), pattern.round(&payload));
        if round >= FIRST_ROUNDS {
            times.push(exact);
            ratios.push(pattern / exact);
        }
    }
    let (time, ratio) = (median(times), median(ratios));
    println!("by name: median {time:.0} ns; by user/N/*: median {ratio:.3} times as long");
}
