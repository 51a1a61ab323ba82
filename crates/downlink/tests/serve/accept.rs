//! Tests of errors that a listener returns when it accepts connections. The clock is paused, and
//! the sockets are in memory.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use downlink::serve::Listener;
use tokio::io::{DuplexStream, duplex};
use tokio::time::Instant;

use super::Client;

/// A listener that returns the given results and then waits forever. It records the time of each
/// call of `accept`.
struct Script {
    accepts: VecDeque<io::Result<DuplexStream>>,
    asked: Arc<Mutex<Vec<Instant>>>,
}

impl Listener for Script {
    type Io = DuplexStream;
    type Addr = &'static str;

    async fn accept(&mut self) -> io::Result<(DuplexStream, &'static str)> {
        self.asked.lock().expect("no task panicked").push(Instant::now());
        match self.accepts.pop_front() {
            Some(accepted) => Ok((accepted?, "memory")),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<&'static str> {
        Ok("memory")
    }
}

/// The numbers of some errors on Unix systems.
const ECONNABORTED: i32 = if cfg!(target_os = "linux") { 103 } else { 53 };
const EMFILE: i32 = 24;
const EINVAL: i32 = 22;

/// Serves one request after these errors. Returns the times of the `accept` calls, counted from the
/// first call.
async fn asked_after(errors: &[i32]) -> Vec<Duration> {
    let (theirs, ours) = duplex(1_024);
    let mut accepts: VecDeque<_> =
        errors.iter().map(|error| Err(io::Error::from_raw_os_error(*error))).collect();
    accepts.push_back(Ok(theirs));
    let asked = Arc::default();
    let script = Script { accepts, asked: Arc::clone(&asked) };
    let app = Router::new().route("/", get(|| async { "hello" }));
    tokio::spawn(downlink::serve(script, app).into_future());
    let mut client = Client::new(ours);
    client.get("/", "").await;
    client.sees("hello").await;
    let asked = asked.lock().expect("no task panicked");
    asked.iter().map(|at| *at - asked[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn the_server_pauses_before_it_accepts_again_if_no_descriptor_is_free() {
    let asked = asked_after(&[EMFILE, EMFILE]).await;
    assert_eq!(asked.len(), 4);
    assert!(asked[1] >= Duration::from_millis(100), "{asked:?}");
    assert!(asked[2] - asked[1] >= Duration::from_millis(100), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn the_server_accepts_again_at_once_after_an_aborted_connection() {
    let asked = asked_after(&[ECONNABORTED, ECONNABORTED]).await;
    assert_eq!(asked, [Duration::ZERO; 4]);
}

#[tokio::test(start_paused = true)]
async fn an_unusable_listener_ends_the_server() {
    let accepts = [Err(io::Error::from_raw_os_error(EINVAL))].into();
    let script = Script { accepts, asked: Arc::default() };
    let error = downlink::serve(script, Router::new()).await.expect_err("the listener is unusable");
    assert_eq!(error.raw_os_error(), Some(EINVAL));
}

/// Sockets in memory need no I/O of the runtime, so the server must work in a runtime without I/O.
#[test]
fn sockets_in_memory_are_served_in_a_runtime_without_io() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let asked = runtime.expect("the runtime can be built").block_on(asked_after(&[]));
    assert_eq!(asked.len(), 2);
}
