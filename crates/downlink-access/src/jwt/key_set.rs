//! Key sets (JWKS, RFC 7517): reading them, and deciding when a server fetches them again.
//!
//! A key set is a document with the public keys of an issuer of tokens. This module does not fetch
//! it. The server asks [`poll_fetch`](KeySetCache::poll_fetch) whether to fetch now, fetches, and
//! reports the outcome. Only the keys of the newest document verify tokens. If the server cannot
//! fetch a newer document, it uses this document for a day, and then refuses the tokens of the
//! issuer.

use std::sync::Arc;
use std::time::Duration;

use downlink_log::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;
use thiserror::Error;

use crate::json;
use crate::jwt::key::{PublicKeyError, VerifyingKey};

/// The maximum length of a key set in bytes. 100 keys of 8,192 bits take about 150 KiB.
pub const KEY_SET_BYTES_MAX: usize = 256 * 1024;

/// The maximum number of keys in one set. Large issuers have about ten.
pub const KEY_SET_KEYS_MAX: usize = 100;

/// The time between two regular fetches. If the fetches succeed, a key that the issuer removed is
/// used for at most this time.
pub const FETCH_EVERY: Duration = Duration::from_secs(5 * 60);

/// The minimum time between two fetches. It limits the fetches that tokens with invented key names
/// can cause.
pub const FETCH_INTERVAL_MIN: Duration = Duration::from_secs(10);

/// The maximum time of a fetch. A fetch without an outcome after this time counts as failed. The
/// server should then end the fetch, because a late outcome could replace a newer key set.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Each request reads the clock when it begins. Requests overlap, so a call may get an older time
/// than the call before it. If the time is older by at most this difference, the clock counts as
/// right. If the time is older by more, the clock was set back.
const REORDERED_MAX: Duration = Duration::from_secs(10);

/// The maximum age of a set. If no newer set was fetched by then, the tokens of the issuer are
/// refused.
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
    #[error("the key set is not a JSON object with a list `keys`")]
    NoKeySet,
    /// The set has more keys than the limit.
    #[error("the key set has {keys} keys, at most {keys_max} are allowed")]
    TooManyKeys {
        /// The number of keys in the set.
        keys: usize,
        /// The limit.
        keys_max: usize,
    },
    /// No key of the set can verify tokens.
    #[error("none of the {refused} keys of the set can verify tokens")]
    NoUsableKey {
        /// The number of keys in the set.
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
    /// Reads a document. The set leaves out the keys that cannot verify tokens: shared secrets,
    /// private keys, keys for encryption, short RSA keys and keys of unknown types.
    ///
    /// # Errors
    ///
    /// [`KeySetError`] if the document is no key set, or if no key of the set can verify tokens.
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

    /// The number of usable keys.
    pub fn usable(&self) -> usize {
        self.keys.len()
    }

    /// The errors of the keys that were left out.
    pub fn refused(&self) -> &[PublicKeyError] {
        &self.refused
    }

    pub(crate) fn keys(&self) -> &[VerifyingKey] {
        &self.keys
    }
}

/// The newest key set, and the time of the next fetch.
///
/// A server calls [`poll_fetch`](Self::poll_fetch) in a loop, for example once a second. If the
/// answer is true, the server fetches, and then calls [`fetched`](Self::fetched) or
/// [`fetch_failed`](Self::fetch_failed). Instead of a fixed interval, the loop can sleep until
/// [`next_fetch_at`](Self::next_fetch_at). It then has to wake up early if a token cannot be
/// verified because a key is missing ([`KeysUnavailable`](crate::AccessError::KeysUnavailable)).
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
    /// The lock is held only to read or to replace the state. No other lock is taken meanwhile.
    Mutex<State>,
);

#[derive(Debug, Default)]
struct State {
    newest: Option<(Arc<KeySet>, Timestamp)>,
    /// The beginning of the newest fetch.
    began: Option<Timestamp>,
    in_flight: bool,
    /// Whether to fetch before [`FETCH_EVERY`] has passed. There are two reasons: the set lacks the
    /// key of a token, or the newest fetch brought no set.
    is_due: bool,
    /// The number of fetches that removed a key: the new set lacked a key of the older set.
    removals: u64,
}

impl KeySetCache {
    /// A cache without keys. The first fetch is due at once.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the caller must fetch the set now. If the answer is true, the fetch counts as begun.
    pub fn poll_fetch(&self, now: Timestamp) -> bool {
        let mut state = self.0.lock();
        let is_due = state.next_fetch_at(now) <= now;
        if is_due {
            (state.began, state.in_flight, state.is_due) = (Some(now), true, true);
            // If the clock was set back, the age of the set is unknown. The set may be used for one
            // more day at most.
            state.newest = state.newest.take().map(|(set, fetched)| (set, fetched.min(now)));
        }
        is_due
    }

    /// The time of the next fetch. A token with an unknown key name can make this time earlier.
    pub fn next_fetch_at(&self, now: Timestamp) -> Timestamp {
        self.0.lock().next_fetch_at(now)
    }

    /// Replaces the set by a fetched document. From now on, a key that is not in the document
    /// verifies nothing.
    ///
    /// # Errors
    ///
    /// After [`KeySetError::NoUsableKey`], the cache holds a set without keys. After any other
    /// error, the document is refused and the older set stays in use.
    pub fn fetched(&self, now: Timestamp, document: &[u8]) -> Result<(), KeySetError> {
        let set = KeySet::read(document);
        let mut state = self.0.lock();
        state.in_flight = false;
        let set = set?;
        let usable = set.check_usable();
        let lacks = |older: &VerifyingKey| set.keys.iter().all(|key| key.id != older.id);
        let removed = state.newest.as_ref().is_some_and(|(older, _)| older.keys.iter().any(lacks));
        state.removals += u64::from(removed);
        state.newest = Some((Arc::new(set), now));
        state.is_due = false;
        usable
    }

    /// The number of fetches that removed a key: the new set lacked a key of the older set. When
    /// this number has grown, a server [lets the open streams check their
    /// rights](crate::Access::note_change).
    pub fn removals(&self) -> u64 {
        self.0.lock().removals
    }

    /// Notes that a fetch failed. The older set stays in use until [`KEY_SET_STALE_MAX`].
    pub fn fetch_failed(&self) {
        self.0.lock().in_flight = false;
    }

    /// The set in use. `None` if no set was fetched yet, or if the set is too old.
    pub fn current(&self, now: Timestamp) -> Option<Arc<KeySet>> {
        let state = self.0.lock();
        let (set, fetched) = state.newest.as_ref()?;
        (now < fetched.after(KEY_SET_STALE_MAX)).then(|| Arc::clone(set))
    }

    /// Asks for a fetch, because the set lacks the key of a token. Returns whether a fetch is under
    /// way or due. In that case, the server may be able to verify the token later.
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
        // If the newest fetch began in the future, the clock was set back. A fetch is due then.
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
