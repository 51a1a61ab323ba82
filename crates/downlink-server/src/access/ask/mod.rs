//! Asks the app which rights a subscription has: `--authorize-url`.
//!
//! For a subscription without a token or a ticket, the server POSTs a question to the app. The
//! question includes the cookies that `--authorize-cookie` names. If the server itself verifies no
//! tokens, the question also includes the `Authorization` header. The app answers with a grant,
//! which is a list of rights.
//!
//! | answer of the app | outcome |
//! |---|---|
//! | 200 and a grant as JSON, at most [`GRANT_BYTES_MAX`](downlink_access::GRANT_BYTES_MAX) | the rights to read of this grant |
//! | 401 | [`Answer::Unauthenticated`], which is final |
//! | 403 | [`Answer::Forbidden`], which is final |
//! | anything else, or no answer in [`CALL_TIMEOUT`] | [`Answer::Unavailable`]: try again |
//!
//! The server may use a grant again for the same question. The `max-age` in the `Cache-Control`
//! header of the answer says for how long. Refusals are never used again, because the user may sign
//! in at any moment. A call is one request to the app. Equal questions at the same time share one
//! call. At most [`CALLS_MAX`] calls run at once, and other calls wait in order. A call in flight
//! runs to its end even if no request waits for its answer any more. If the server dropped such a
//! call and started the next one, the app would still work on the dropped call. Clients that
//! disconnect early could then cause more than [`CALLS_MAX`] calls at once.
//!
//! | module | owns |
//! |---|---|
//! | `settings` | the flags |
//! | `question` | the text of a question, and the key under which its answer is kept |
//! | `answer` | the meaning of a response |
//! | `cache` | the grants that may be used again |

mod answer;
mod cache;
mod question;
mod settings;

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use downlink::hub::Clock;
use parking_lot::Mutex;
use reqwest::{Client, Url};
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout},
};

use self::{
    answer::Decision,
    cache::GrantCache,
    question::{Key, Message},
};
use super::outgoing::{self, FailureLog};

pub use self::settings::AskSettings;
pub(crate) use self::{
    answer::{Answer, Granted},
    question::Question,
    settings::AskOptions,
};

/// The maximum time for one call. It is short, because the stream of a browser opens only after the
/// answer.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// The maximum number of calls at once. An app that uses one process for each call seldom has more
/// processes than this. Further calls would only wait inside the app.
pub(crate) const CALLS_MAX: usize = 64;

/// The maximum time for which a call waits until fewer than [`CALLS_MAX`] calls run. This wait does
/// not count towards [`CALL_TIMEOUT`]. Otherwise, all calls to an overloaded app would begin with
/// too little time left.
pub(crate) const TURN_WAIT_MAX: Duration = Duration::from_secs(2);

/// The maximum number of bytes of all calls that run or wait. The calls of 10,000 browsers with
/// cookies of 1 KiB fit.
pub(crate) const UNANSWERED_BYTES_MAX: usize = 32 << 20;

/// Asks the app. Clones are cheap, and share the calls and the cache.
#[derive(Clone, Debug)]
pub(crate) struct AskApp {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: AskOptions,
    client: Client,
    url: Url,
    clock: Clock,
    /// Has [`CALLS_MAX`] permits. A call in flight holds one permit.
    turns: Semaphore,
    /// This lock is never held across an await.
    state: Mutex<State>,
    failures: FailureLog,
}

#[derive(Debug, Default)]
struct State {
    cache: GrantCache,
    /// The calls without an outcome, by the key of their question. A new request with the same
    /// question waits for such a call and starts no new call.
    unanswered: HashMap<Key, Arc<Outcome>>,
    /// The number of bytes of all calls that run or wait. [`AskApp::forget`] removes calls from
    /// `unanswered` before they have ended. This number includes them until they end.
    unanswered_bytes: usize,
}

/// The outcome of a call, for all requests with the same question. `None` until the call has ended.
type Outcome = watch::Sender<Option<Result<Granted, Answer>>>;

impl AskApp {
    /// Makes the client for the app.
    ///
    /// # Errors
    ///
    /// The error says how to correct the URL.
    pub(crate) fn new(options: AskOptions) -> anyhow::Result<Self> {
        Self::with_clock(options, Clock::system())
    }

    fn with_clock(options: AskOptions, clock: Clock) -> anyhow::Result<Self> {
        let url = outgoing::parse_url(&options.url)?;
        let client = outgoing::client_builder().build()?;
        let (turns, state) = (Semaphore::new(CALLS_MAX), Mutex::default());
        let failures = FailureLog::default();
        let shared = Shared { options, client, url, clock, turns, state, failures };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Whether both are clones of one value.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    pub(super) fn options(&self) -> &AskOptions {
        &self.shared.options
    }

    /// Returns the rights of a subscription, from the cache or from the app.
    ///
    /// # Errors
    ///
    /// [`Answer`]: the app refuses, or there is no answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping this future has no effect on other requests with the same question. A call that has
    /// not been sent yet is dropped when no request waits for it any more.
    ///
    /// # Limits
    ///
    /// This future completes after [`TURN_WAIT_MAX`] plus [`CALL_TIMEOUT`] at the latest.
    pub(crate) async fn grant(&self, question: &Question<'_>) -> Result<Granted, Answer> {
        let message =
            Message::new(question, &self.shared.options).ok_or(Answer::Unauthenticated)?;
        let key = message.key();
        let (mut outcome, begun) = {
            let mut state = self.shared.state.lock();
            let (now, wall) = (Instant::now(), self.shared.clock.now());
            if let Some(granted) = state.cache.get(&key, now, wall) {
                return Ok(granted.clone());
            }
            match state.unanswered.get(&key) {
                Some(outcome) => (outcome.subscribe(), None),
                None => {
                    let Some(call) = self.begin(&mut state, key, message.bytes()) else {
                        drop(state);
                        self.shared.warn(&anyhow!("too many questions wait for an answer"));
                        return Err(Answer::Unavailable);
                    };
                    (call.outcome.subscribe(), Some(call))
                }
            }
        };
        if let Some(call) = begun {
            // If the runtime is ending, `spawn` drops the call at once. The drop locks the state.
            // So the state must not be locked here.
            tokio::spawn(call.run(message));
        }
        // This error means that the call has panicked or that the runtime is shutting down.
        let outcome = outcome.wait_for(Option::is_some).await.map_err(|_| Answer::Unavailable)?;
        outcome.clone().unwrap_or(Err(Answer::Unavailable))
    }

    /// Whether the app gets the `Authorization` header of a request.
    pub(crate) fn passes_authorization(&self) -> bool {
        self.shared.options.passes_authorization
    }

    /// Removes all grants from the cache, for example after a revocation. The grants of calls in
    /// flight will not be stored either.
    pub(crate) fn forget(&self) {
        let mut state = self.shared.state.lock();
        state.cache = GrantCache::default();
        state.unanswered.clear();
    }

    /// Makes the call for a new question. New requests with the same question join it. Returns
    /// `None` if too many calls run or wait.
    fn begin(&self, state: &mut State, key: Key, bytes: usize) -> Option<Call> {
        if bytes > UNANSWERED_BYTES_MAX.saturating_sub(state.unanswered_bytes) {
            return None;
        }
        let outcome = Arc::new(Outcome::default());
        state.unanswered.insert(key, Arc::clone(&outcome));
        state.unanswered_bytes += bytes;
        Some(Call { shared: Arc::clone(&self.shared), key, bytes, outcome })
    }
}

impl Shared {
    /// Sends a message to the app, and reads the answer.
    async fn call(&self, message: &Message) -> anyhow::Result<Decision> {
        let mut request = self.client.post(self.url.clone());
        request = request.headers(message.headers()).body(message.body());
        let response = request.send().await.map_err(reqwest::Error::without_url)?;
        Decision::read(response).await
    }

    fn warn(&self, error: &anyhow::Error) {
        if let Some(failures) = self.failures.failed(Instant::now()) {
            tracing::warn!(failures, "no answer from the app of --authorize-url: {error:#}");
        }
    }
}

/// A call that runs or waits for its turn. If this value is dropped before the call has an outcome,
/// the requests that wait get [`Answer::Unavailable`].
struct Call {
    shared: Arc<Shared>,
    key: Key,
    bytes: usize,
    outcome: Arc<Outcome>,
}

impl Call {
    async fn run(self, message: Message) {
        let outcome = tokio::select! {
            biased;
            () = self.abandoned() => return,
            turn = timeout(TURN_WAIT_MAX, self.shared.turns.acquire()) => match turn {
                Ok(Ok(_turn)) => self.decide(&message).await,
                _ => {
                    self.shared.warn(&anyhow!("{CALLS_MAX} calls are in flight"));
                    Err(Answer::Unavailable)
                }
            },
        };
        self.finish(outcome);
    }

    /// Waits until no request waits for the outcome any more. Then removes the call from the calls
    /// that new requests can join, and completes.
    async fn abandoned(&self) {
        loop {
            self.outcome.closed().await;
            let mut state = self.shared.state.lock();
            if self.outcome.receiver_count() == 0 {
                self.leave(&mut state);
                return;
            }
        }
    }

    async fn decide(&self, message: &Message) -> Result<Decided, Answer> {
        let (began, asked_at) = (Instant::now(), self.shared.clock.now());
        let decision = timeout(CALL_TIMEOUT, self.shared.call(message)).await;
        let decision = decision.context("it took too long").flatten();
        if decision.is_ok() && self.shared.failures.succeeded() {
            tracing::info!("the app of --authorize-url answers again");
        }
        match decision {
            Ok(Decision::Granted { grant, lasts }) => {
                let reusable_until = lasts.map(|lasts| began + lasts);
                Ok(Decided { granted: Granted { grant, asked_at }, reusable_until })
            }
            Ok(Decision::Refused(answer)) => Err(answer),
            Err(error) => {
                self.shared.warn(&error);
                Err(Answer::Unavailable)
            }
        }
    }

    fn finish(self, decided: Result<Decided, Answer>) {
        let outcome = Arc::clone(&self.outcome);
        if let Ok(Decided { granted, reusable_until: Some(until) }) = &decided {
            let mut state = self.shared.state.lock();
            // If `forget` was called during this call, the grant may be older than a revocation.
            // Then it is not stored.
            if self.is_joinable(&state) {
                state.cache.insert(self.key, granted.clone(), *until);
            }
        }
        drop(self);
        outcome.send_replace(Some(decided.map(|decided| decided.granted)));
    }

    fn is_joinable(&self, state: &State) -> bool {
        state.unanswered.get(&self.key).is_some_and(|other| Arc::ptr_eq(other, &self.outcome))
    }

    /// Removes this call from the calls that new requests join. The next request with the same
    /// question begins a new call.
    fn leave(&self, state: &mut State) {
        if self.is_joinable(state) {
            state.unanswered.remove(&self.key);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state.lock();
        self.leave(&mut state);
        state.unanswered_bytes -= self.bytes;
    }
}

/// The rights that the app has given, and the end of the time in which they may be used again.
struct Decided {
    granted: Granted,
    reusable_until: Option<Instant>,
}

#[cfg(test)]
mod ending_tests;
#[cfg(test)]
mod tests;
