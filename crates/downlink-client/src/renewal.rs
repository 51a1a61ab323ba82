//! New credentials for a stream whose credentials will end.
//!
//! The event source calls the app's function for credentials while it still reads the stream. If
//! the function fails, the stream stays open, and the event source calls the function again after a
//! wait.

use downlink_proto::reconnect::{Outcome, Reconnect, ReconnectPolicy};
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::{Credentials, StreamError, credentials::BoxFuture, request::StreamRequest};

/// The state of a renewal.
pub(crate) struct Renewal {
    /// Counts the failed calls of the app's function.
    pacing: Reconnect,
    phase: RenewalPhase,
}

enum RenewalPhase {
    /// Waiting for the time of the next call.
    Waiting(Pin<Box<Sleep>>),
    Fetching(BoxFuture<Result<Credentials, StreamError>>),
    /// The maximum number of calls has failed. The stream stays open until its end.
    GivenUp,
}

impl Renewal {
    /// Makes a renewal that begins at this time.
    pub(crate) fn at(begin: Instant, policy: ReconnectPolicy) -> Self {
        let phase = RenewalPhase::Waiting(Box::pin(sleep_until(begin)));
        Self { pacing: Reconnect::new(policy), phase }
    }

    /// Returns the new credentials. Do not poll the renewal again afterwards.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        request: &StreamRequest,
    ) -> Poll<Credentials> {
        loop {
            self.phase = match &mut self.phase {
                RenewalPhase::Waiting(wait) => {
                    ready!(wait.as_mut().poll(cx));
                    RenewalPhase::Fetching(request.fetch_credentials())
                }
                RenewalPhase::Fetching(fetching) => match ready!(fetching.as_mut().poll(cx)) {
                    Ok(credentials) => return Poll::Ready(credentials),
                    Err(_) => self.after_failure(),
                },
                RenewalPhase::GivenUp => return Poll::Pending,
            };
        }
    }

    fn after_failure(&mut self) -> RenewalPhase {
        match self.pacing.handle_outcome(fastrand::u64(..), Outcome::Unanswered) {
            Ok(after) => RenewalPhase::Waiting(Box::pin(sleep(after))),
            Err(_) => RenewalPhase::GivenUp,
        }
    }
}
