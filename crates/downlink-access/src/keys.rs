//! Keys that a program sends as `Authorization: Bearer`: publish keys, admin keys and relay keys.
//!
//! Only the SHA-256 hashes of the keys are kept. The hash of a key in a request is compared with
//! all of these hashes in constant time. So the duration of the comparison reveals nothing about
//! the keys.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use thiserror::Error;

use crate::grant::Grant;
use crate::secret::{KeyFileError, KeyId, Secret};

/// The maximum number of keys. A rotation needs two keys for each role, and each app may have its
/// own key.
pub const KEYS_MAX: usize = 64;

/// The purpose of a key.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum KeyRole {
    /// An app, which publishes anywhere and issues tickets ([`Grant::app`]).
    Publish,
    /// An operator with every right ([`Grant::all`]).
    Admin,
    /// A relay, which follows the whole log and passes publishes on ([`Grant::relay`]).
    Relay,
}

impl KeyRole {
    /// The text that is hashed together with a key in this role. The hash is the key's id, so the
    /// same key has a different id in each role.
    const fn purpose(self) -> &'static str {
        match self {
            Self::Publish => "publish key",
            Self::Admin => "admin key",
            Self::Relay => "relay key",
        }
    }

    /// The rights of a key in this role.
    pub fn grant(self) -> Grant {
        match self {
            Self::Publish => Grant::app(),
            Self::Admin => Grant::all(),
            Self::Relay => Grant::relay(),
        }
    }
}

/// A key cannot be added.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AddKeyError {
    /// The key cannot be sent in a header.
    #[error("the key cannot be sent as `Authorization: Bearer`")]
    Unusable(#[source] KeyFileError),
    /// The same key was added before, in this or in another role.
    #[error("the key {key} was added twice: give each role and each app a different key")]
    Repeated {
        /// The id of the key.
        key: KeyId,
    },
    /// There are too many keys.
    #[error("too many keys: the limit is {keys_max}")]
    TooMany {
        /// The limit.
        keys_max: usize,
    },
}

/// The hashes of all accepted keys.
///
/// ```
/// use downlink_access::{KeyRole, Keys, Secret};
/// let secret = Secret::generate()?;
/// let mut keys = Keys::new();
/// let id = keys.add(KeyRole::Publish, &secret)?;
/// assert_eq!(keys.find(secret.text().as_bytes()), Some((id, KeyRole::Publish)));
/// assert_eq!(keys.find(b"a guess"), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<Key>);

#[derive(Clone)]
struct Key {
    id: KeyId,
    role: KeyRole,
    hash: Digest,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {}", self.role, self.id)
    }
}

impl Keys {
    /// Makes an empty list.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a key and returns its id.
    ///
    /// # Errors
    ///
    /// [`AddKeyError`] if the key cannot be sent in a header, if it was added before, or if there
    /// are too many keys.
    ///
    /// # Limits
    ///
    /// [`KEYS_MAX`].
    pub fn add(&mut self, role: KeyRole, secret: &Secret) -> Result<KeyId, AddKeyError> {
        let hash = digest(&SHA256, secret.printable().map_err(AddKeyError::Unusable)?);
        let id = KeyId::of(role.purpose(), secret.bytes());
        if let Some(same) = self.0.iter().find(|key| key.hash.as_ref() == hash.as_ref()) {
            return Err(AddKeyError::Repeated { key: same.id });
        }
        if self.0.len() >= KEYS_MAX {
            return Err(AddKeyError::TooMany { keys_max: KEYS_MAX });
        }
        self.0.push(Key { id, role, hash });
        Ok(id)
    }

    /// Finds the key with these bytes.
    pub fn find(&self, presented: &[u8]) -> Option<(KeyId, KeyRole)> {
        let presented = digest(&SHA256, presented);
        let is_it =
            |key: &Key| verify_slices_are_equal(key.hash.as_ref(), presented.as_ref()).is_ok();
        // The loop does not stop at the right key. If it did, its duration would reveal the
        // position of this key.
        let newest = |found, key| if is_it(key) { Some(key) } else { found };
        self.0.iter().fold(None, newest).map(|key| (key.id, key.role))
    }

    /// Whether a key with this id is accepted.
    pub fn contains(&self, id: KeyId) -> bool {
        self.0.iter().any(|key| key.id == id)
    }
}
