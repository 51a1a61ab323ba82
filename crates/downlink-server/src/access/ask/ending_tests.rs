//! A test of a question that begins while the runtime ends. It needs no app.

use axum::http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use downlink::hub::{Selection, TopicSelector};
use futures_util::FutureExt as _;

use super::*;

/// While the runtime ends, it drops new tasks at once. Dropping the task of a call locks the state.
/// If the state is already locked at that moment, the thread waits for ever.
#[test]
fn a_call_that_begins_while_the_runtime_ends_gets_no_answer() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let handle = runtime.handle().clone();
    drop(runtime);
    let (sender, outcomes) = std::sync::mpsc::channel();
    // A thread of its own, because a deadlock would block the test for ever.
    std::thread::spawn(move || {
        let _entered = handle.enter();
        let url = "http://127.0.0.1:9/ask".into();
        let options = AskOptions { url, cookies: Vec::new(), passes_authorization: true };
        let ask = AskApp::with_clock(options, Clock::manual()).unwrap();
        let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("Bearer a"))]);
        let selectors = vec![TopicSelector::parse("a").unwrap()];
        let asked = Selection { selectors, client: None };
        let question =
            Question { asked: &asked, address: None, headers: &headers, may_use_cookies: true };
        let outcome = ask.grant(&question).now_or_never().map(|answer| answer.map(|_| ()));
        let _ = sender.send((outcome, ask.shared.state.lock().unanswered_bytes));
    });
    let outcome = outcomes.recv_timeout(Duration::from_secs(20));
    assert_eq!(outcome, Ok((Some(Err(Answer::Unavailable)), 0)));
}
