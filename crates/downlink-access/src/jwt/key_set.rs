//! Key sets (JWKS, RFC 7517) as documents, and the policy by which a server fetches them again.
//!
//! Nothing here fetches. The server asks [`poll_fetch`](KeySetCache::poll_fetch) whether a fetch is
//! due, fetches, and hands the outcome back. A removed key dies with the next fetch. A lost
//! connection to the issuer costs nothing for a day; then its tokens are refused.

use std::sync::Arc;
use std::time::Duration;

use downlink_log::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;
use thiserror::Error;

use crate::json;
use crate::jwt::key::{PublicKeyError, VerifyingKey};

/// The longest key set in bytes.
pub const KEY_SET_BYTES_MAX: usize = 256 * 1024;

/// Keys of one set. Large issuers have about ten.
pub const KEY_SET_KEYS_MAX: usize = 100;

/// The time after which a set is fetched again. A removed key verifies tokens for at most as long.
pub const FETCH_EVERY: Duration = Duration::from_secs(5 * 60);

/// The least time between two fetches. It bounds what tokens with invented key names can cause.
pub const FETCH_INTERVAL_MIN: Duration = Duration::from_secs(10);

/// A fetch without an outcome counts as failed after this time.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Each request takes the time at its beginning, so a call may pass an older time than an earlier
/// call did. A time that is older by more than this means that the clock went back.
const REORDERED_MAX: Duration = Duration::from_secs(10);

/// The age at which a set that cannot be fetched again is no longer used.
pub const KEY_SET_STALE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A document is refused as a key set.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum KeySetError {
    /// The document is longer than the limit.
    #[error("the key set has {bytes} bytes, at most {bytes_max} are allowed")]
    TooLong {
        /// Bytes of the document.
        bytes: usize,
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// The document is not an object with a list `keys`, or repeats a member.
    #[error("the key set is no JSON object with a list `keys`")]
    NoKeySet,
    /// The set has more keys than the limit.
    #[error("the key set has {keys} keys, at most {keys_max} are allowed")]
    TooManyKeys {
        /// Keys of the set.
        keys: usize,
        /// The limit.
        keys_max: usize,
    },
    /// No key of the set can verify tokens.
    #[error("none of the {refused} keys of the set can verify tokens")]
    NoUsableKey {
        /// Keys of the set.
        refused: usize,
    },
}

/// The usable keys of one document.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<VerifyingKey>,
    refused: Vec<PublicKeyError>,
}

impl KeySet {
    /// Reads a document. Keys that cannot verify tokens are left out: shared secrets, private keys,
    /// keys for encryption, short RSA keys and unknown types.
    ///
    /// # Errors
    ///
    /// [`KeySetError`], also if no key is left.
    ///
    /// # Limits
    ///
    /// [`KEY_SET_BYTES_MAX`], [`KEY_SET_KEYS_MAX`].
    ///
    /// ```
    /// use downlink_access::{KeySet, KeySetError};
    /// let oct = br#"{"keys": [{"kty": "oct", "k": "AAAA"}]}"#;
    /// assert_eq!(KeySet::parse(oct).unwrap_err(), KeySetError::NoUsableKey { refused: 1 });
    /// ```
    pub fn parse(bytes: &[u8]) -> Result<Self, KeySetError> {
        let set = Self::read(bytes)?;
        set.check_usable()?;
        Ok(set)
    }

    /// Reads a document, even if none of its keys is usable.
    fn read(bytes: &[u8]) -> Result<Self, KeySetError> {
        if bytes.len() > KEY_SET_BYTES_MAX {
            let bytes_max = KEY_SET_BYTES_MAX;
            return Err(KeySetError::TooLong { bytes: bytes.len(), bytes_max });
        }
        let members = json::object(bytes).ok_or(KeySetError::NoKeySet)?;
        let list = members.get("keys").and_then(Value::as_array).ok_or(KeySetError::NoKeySet)?;
        if list.len() > KEY_SET_KEYS_MAX {
            let keys_max = KEY_SET_KEYS_MAX;
            return Err(KeySetError::TooManyKeys { keys: list.len(), keys_max });
        }
        let (mut keys, mut refused) = (Vec::new(), Vec::new());
        for jwk in list {
            match jwk.as_object().map(VerifyingKey::from_jwk) {
                Some(Ok(key)) => keys.push(key),
                Some(Err(error)) => refused.push(error),
                None => return Err(KeySetError::NoKeySet),
            }
        }
        Ok(Self { keys, refused })
    }

    fn check_usable(&self) -> Result<(), KeySetError> {
        let refused = self.refused.len();
        let is_usable = !self.keys.is_empty();
        is_usable.then_some(()).ok_or(KeySetError::NoUsableKey { refused })
    }

    /// How many keys are usable: at least one.
    pub fn usable(&self) -> usize {
        self.keys.len()
    }

    /// Why keys were left out.
    pub fn refused(&self) -> &[PublicKeyError] {
        &self.refused
    }

    pub(crate) fn keys(&self) -> &[VerifyingKey] {
        &self.keys
    }
}

/// The newest key set, and when to fetch it again.
///
/// The server calls [`poll_fetch`](Self::poll_fetch) at [`next_fetch_at`](Self::next_fetch_at), and
/// whenever a token could not be verified for want of keys. If the answer is true, it fetches, and
/// calls [`fetched`](Self::fetched) or [`fetch_failed`](Self::fetch_failed).
///
/// ```
/// use downlink_access::{FETCH_INTERVAL_MIN, KeySetCache};
/// use downlink_log::Timestamp;
/// let now = Timestamp::from_millis(0);
/// let cache = KeySetCache::new();
/// assert!(cache.poll_fetch(now), "there are no keys yet");
/// assert!(!cache.poll_fetch(now), "one fetch at a time");
/// cache.fetch_failed();
/// assert!(!cache.poll_fetch(now));
/// assert!(cache.poll_fetch(now.after(FETCH_INTERVAL_MIN)));
/// ```
#[derive(Debug, Default)]
pub struct KeySetCache(
    /// Held alone, and only to read or replace what it guards.
    Mutex<State>,
);

#[derive(Debug, Default)]
struct State {
    newest: Option<(Arc<KeySet>, Timestamp)>,
    /// The beginning of the newest fetch.
    began: Option<Timestamp>,
    in_flight: bool,
    /// Whether to fetch before [`FETCH_EVERY`] has passed: a token named a key that the set does
    /// not have, or the newest fetch brought no set.
    is_due: bool,
}

impl KeySetCache {
    /// A cache without keys. Its first fetch is due at once.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the caller must fetch the set now. True counts as the beginning of a fetch.
    pub fn poll_fetch(&self, now: Timestamp) -> bool {
        let mut state = self.0.lock();
        let is_due = state.next_fetch_at(now) <= now;
        if is_due {
            (state.began, state.in_flight, state.is_due) = (Some(now), true, true);
            // After a clock went back, the age of the set is unknown. Its last day begins now.
            state.newest = state.newest.take().map(|(set, fetched)| (set, fetched.min(now)));
        }
        is_due
    }

    /// The time of the next fetch, as known at this time.
    pub fn next_fetch_at(&self, now: Timestamp) -> Timestamp {
        self.0.lock().next_fetch_at(now)
    }

    /// Takes the document that a fetch brought. Keys that it lacks are dead from now on.
    ///
    /// # Errors
    ///
    /// [`KeySetError`]: the document is refused and the older set stays in use.
    pub fn fetched(&self, now: Timestamp, document: &[u8]) -> Result<(), KeySetError> {
        let set = KeySet::read(document);
        let mut state = self.0.lock();
        state.in_flight = false;
        let set = set?;
        let usable = set.check_usable();
        state.newest = Some((Arc::new(set), now));
        state.is_due = false;
        usable
    }

    /// Notes that a fetch failed. The older set stays in use until [`KEY_SET_STALE_MAX`].
    pub fn fetch_failed(&self) {
        self.0.lock().in_flight = false;
    }

    /// The set in use. `None` if there is none yet, or if it is too old.
    pub fn current(&self, now: Timestamp) -> Option<Arc<KeySet>> {
        let state = self.0.lock();
        let (set, fetched) = state.newest.as_ref()?;
        (now < fetched.after(KEY_SET_STALE_MAX)).then(|| Arc::clone(set))
    }

    /// Notes that a token names a key that the set lacks. Returns whether a fetch is under way or
    /// due, so that the same token may be verified later.
    pub(crate) fn want(&self, now: Timestamp) -> bool {
        let mut state = self.0.lock();
        if state.is_in_flight(now) {
            return true;
        }
        state.is_due |= !state.began_within(FETCH_INTERVAL_MIN, now);
        state.is_due
    }
}

impl State {
    fn next_fetch_at(&self, now: Timestamp) -> Timestamp {
        // A clock that went back makes a fetch due: a time in the future says nothing.
        let is_known = |began: &Timestamp| *began <= now.after(REORDERED_MAX);
        let Some(began) = self.began.filter(is_known) else { return now };
        if self.is_in_flight(now) {
            return began.after(FETCH_TIMEOUT);
        }
        let soonest = began.after(FETCH_INTERVAL_MIN);
        match &self.newest {
            Some((_, fetched)) if !self.is_due => fetched.after(FETCH_EVERY).max(soonest),
            _ => soonest,
        }
    }

    fn is_in_flight(&self, now: Timestamp) -> bool {
        self.in_flight && self.began_within(FETCH_TIMEOUT, now)
    }

    fn began_within(&self, span: Duration, now: Timestamp) -> bool {
        let is_recent =
            |began: Timestamp| began <= now.after(REORDERED_MAX) && now < began.after(span);
        self.began.is_some_and(is_recent)
    }
}
