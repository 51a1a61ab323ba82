//! Why a feed ends, and how long a relay waits for its upstream.

use std::time::Duration;

use reqwest::StatusCode;
use thiserror::Error;

use super::wire::WireError;

/// How long the upstream may take to accept a connection and to answer. With half this time, a
/// distant or busy upstream would look dead. With double this time, a relay would notice a dead
/// upstream later.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How long the feed may be silent, or send only a few bytes. The upstream sends something at least
/// once a second.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(5);

/// The maximum number of questions for the end of the upstream that wait for the task, and of those
/// whose answer waits until the relay has everything below this end. Further ones are refused.
pub(super) const QUESTIONS_MAX: usize = 64;

/// Why a feed has ended or could not be opened.
#[derive(Clone, Debug, Error)]
pub(super) enum FollowError {
    #[error("cannot reach the upstream: {0}")]
    Unreachable(String),
    #[error("the upstream has not answered within {} s", ANSWER_WITHIN.as_secs())]
    NoAnswer,
    #[error("the upstream has sent next to nothing for {} s", SILENCE_MAX.as_secs())]
    Silent,
    #[error("the upstream has ended the feed")]
    Ended,
    #[error("the upstream is a relay that has no events yet")]
    NotReady,
    #[error("the upstream refuses the feed with {status}: {said}")]
    Refused { status: StatusCode, said: String },
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(
        "the upstream follows this relay, directly or over others: let one of them follow none"
    )]
    Loop,
    #[error("the upstream is the last of too many relays in a row: follow an earlier one")]
    TooManyHops,
    #[error("the upstream resumes at a position that this relay does not have")]
    OtherPosition,
    #[error("the store of the relay has failed, so the relay begins again in memory")]
    CacheFailed,
    #[error("the thread that applies the feed has ended")]
    Stopped,
}
