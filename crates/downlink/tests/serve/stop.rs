//! A test of the signals that end a program. A signal is sent to the whole process, so two tests
//! that wait for signals would disturb each other. For this reason, one test checks both signals.

use downlink::serve::stop_signal;
use futures_util::FutureExt;
use rustix::process::{Signal, getpid, kill_process};

use super::patiently;

#[tokio::test]
async fn stop_signal_completes_at_sigint_and_at_sigterm() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut polled_before = stop_signal().expect("the signal handlers are installed");
        let polled_after = stop_signal().expect("the signal handlers are installed");
        assert!((&mut polled_before).now_or_never().is_none());
        kill_process(getpid(), signal).expect("the process can send itself a signal");
        patiently(polled_before).await;
        patiently(polled_after).await;
    }
}
