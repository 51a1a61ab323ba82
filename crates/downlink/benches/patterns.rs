//! What a subscription by pattern costs beside one by name, from the publish to the frame that a
//! socket would get: `cargo bench -p downlink --bench patterns`.
//!
//! Prints figures and judges none. The times are processor time of the thread.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::{
    fs,
    task::{Context, Poll, Waker},
};

use downlink::hub::Hub;
use futures_util::FutureExt;
use http_body::Body;

const READERS: usize = 10_000;
const ROUNDS: usize = 10;
const REPEATS: usize = 9;

/// Nanoseconds of processor time of this thread.
fn cpu() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux has this file");
    text.split(' ').next().and_then(|first| first.parse().ok()).expect("the file has three numbers")
}

/// Publishes to each of many subscriptions in turn, and takes its frame.
fn delivery(selector: impl Fn(usize) -> String) -> f64 {
    let hub = Hub::<String>::text();
    let mut bodies: Vec<_> = (0..READERS)
        .map(|number| {
            let opened = hub.subscribe().pattern(selector(number)).open();
            let opened = opened.now_or_never().expect("memory").expect("within the limits");
            Box::pin(opened.into_response().into_body())
        })
        .collect();
    let mut waiting = Context::from_waker(Waker::noop());
    let mut frames = |number: usize| {
        let body = &mut bodies[number];
        let mut frames = 0;
        while let Poll::Ready(frame) = body.as_mut().poll_frame(&mut waiting) {
            frame.expect("it does not end").expect("it does not fail");
            frames += 1;
        }
        frames
    };
    (0..READERS).for_each(|number| {
        frames(number);
    });
    let names: Vec<String> = (0..READERS).map(|number| format!("user/{number}/x")).collect();
    let payload = "x".repeat(100);
    let mut before = cpu();
    for round in 0..=ROUNDS {
        // The first round makes the topics.
        if round == 1 {
            before = cpu();
        }
        for (number, name) in names.iter().enumerate() {
            let _ = hub.to(name).publish(payload.clone()).expect("within the limits");
            assert_eq!(frames(number), 1);
        }
    }
    (cpu() - before) / (ROUNDS * READERS) as f64
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a thread without a runtime");
    let _entered = runtime.enter();
    let mut ratios = Vec::new();
    for _ in 0..REPEATS {
        let exact = delivery(|number| format!("user/{number}/x"));
        let pattern = delivery(|number| format!("user/{number}/*"));
        println!("by name {exact:.0} ns, by user/N/* {pattern:.0} ns: {:.3}", pattern / exact);
        ratios.push((pattern / exact).ln());
    }
    let mean = (ratios.iter().sum::<f64>() / ratios.len() as f64).exp();
    println!("geometric mean: {mean:.3}");
}
