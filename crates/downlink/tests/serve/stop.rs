//! A test of the signals that end a program. A signal is sent to the whole process, so two tests
//! that wait for signals would disturb each other. That is why one test checks both signals.

use downlink::serve::stop_signal;
use futures_util::FutureExt;
use rustix::process::{Signal, getpid, kill_process};

use super::patiently;

#[tokio::test]
async fn both_signals_stop_the_server_after_the_call() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut polled_before = stop_signal().expect("installed signal handlers");
        let polled_after = stop_signal().expect("installed signal handlers");
        assert!((&mut polled_before).now_or_never().is_none());
        kill_process(getpid(), signal).expect("a signal to this process");
        patiently(polled_before).await;
        patiently(polled_after).await;
    }
}
