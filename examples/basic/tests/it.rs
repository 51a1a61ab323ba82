//! Tests of the stream and of the program. The tests of the stream use a paused clock and no
//! socket.

mod support;

use std::time::Duration;

use axum::Router;
use basic::NUMBER_MAX;
use jiff::Timestamp;
use support::{open, program};
use tokio::time::{Instant, advance};

/// An app whose clock starts at 2001-09-09T01:46:40.9Z and advances with tokio's clock.
fn app() -> Router {
    let (began, began_at) = (Instant::now(), Timestamp::from_millisecond(1_000_000_000_900));
    let began_at = began_at.expect("the time is valid");
    basic::app(move || began_at + began.elapsed())
}

fn event(number: u64, time: &str) -> String {
    format!("event: time\nid: evt-{number}\ndata: {time}\n\n")
}

#[tokio::test(start_paused = true)]
async fn stream_begins_with_connected_and_sends_the_time_each_second() {
    let mut stream = open(&app(), "/events", "").await;
    let expected = [
        ": connected\n\n".to_owned(),
        event(1, "2001-09-09T01:46:40Z"),
        event(2, "2001-09-09T01:46:41Z"),
        event(3, "2001-09-09T01:46:42Z"),
    ];
    assert_eq!(stream.sees(&expected[3]).await, expected.concat());
}

#[tokio::test(start_paused = true)]
async fn numbers_continue_after_the_last_event_id() {
    let mut stream = open(&app(), "/events", "evt-7").await;
    let next = event(8, "2001-09-09T01:46:40Z");
    assert_eq!(stream.sees("evt-8\ndata: 2").await, format!(": connected\n\n{next}"));
    stream.sees(&event(9, "2001-09-09T01:46:41Z")).await;
}

#[tokio::test(start_paused = true)]
async fn numbers_start_at_1_after_an_id_that_the_app_did_not_make() {
    let above = format!("evt-{}", NUMBER_MAX + 1);
    for id in ["7", "evt-", "evt-+7", "evt-07", "evt--7", "evt-7x", "EVT-7", &above] {
        let mut stream = open(&app(), "/events", id).await;
        assert_eq!(first_number(&mut stream).await, 1, "the first number after the id {id:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn numbers_continue_after_every_id_up_to_the_highest_number() {
    for number in [0, NUMBER_MAX - 1, NUMBER_MAX] {
        let mut stream = open(&app(), "/events", &format!("evt-{number}")).await;
        assert_eq!(first_number(&mut stream).await, number + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn reader_that_paused_gets_one_event_for_all_missed_times() {
    let mut stream = open(&app(), "/events", "").await;
    stream.sees("id: evt-1\n").await;
    advance(Duration::from_millis(10_500)).await;
    stream.sees(&event(2, "2001-09-09T01:46:51Z")).await;
    stream.sees(&event(3, "2001-09-09T01:46:51Z")).await;
    stream.sees(&event(4, "2001-09-09T01:46:52Z")).await;
}

async fn first_number(stream: &mut support::Streaming) -> u64 {
    let seen = stream.sees("\ndata: ").await;
    let number = seen.split("id: evt-").nth(1).and_then(|rest| rest.lines().next());
    number.expect("the stream has an id").parse().expect("the value is a number")
}

#[cfg(unix)]
mod started {
    use rustix::process::Signal;

    use super::program;

    const PROGRAM: &str = env!("CARGO_BIN_EXE_basic");

    #[tokio::test]
    async fn program_ends_at_ctrl_c() {
        program::ends_with_an_open_stream(PROGRAM, "/events", Signal::INT).await;
    }

    #[tokio::test]
    async fn program_ends_at_sigterm() {
        program::ends_with_an_open_stream(PROGRAM, "/events", Signal::TERM).await;
    }

    #[tokio::test]
    async fn the_error_names_the_port_that_is_in_use() {
        program::names_a_port_in_use(PROGRAM).await;
    }

    #[tokio::test]
    async fn the_port_is_set_by_the_argument_or_by_the_variable() {
        program::takes_its_port_from_argument_or_variable(PROGRAM).await;
    }
}
