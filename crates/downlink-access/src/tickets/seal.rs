//! Sealing and opening tickets.
//!
//! A ticket is base64url of a version, the id of its key, a nonce, and the sealed content. The seal
//! also covers the name of the hub, so no other hub opens the ticket. The cipher is
//! AES-256-GCM-SIV. Several nodes (servers of the same hub) seal with the same key and random
//! nonces, so two tickets may get the same nonce. With this cipher, that only reveals whether their
//! contents are equal.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use downlink_log::Timestamp;
use thiserror::Error;

use crate::error::AccessError;
use crate::grant_json::GRANT_SELECTORS_MAX;
use crate::jwt::tokens::LEEWAY;
use crate::secret::{KeyId, RandomnessError, Secret, fill_random};
use crate::tickets::ticket::Ticket;

/// The maximum length of a ticket in bytes. A URL with the ticket and its other parameters must
/// stay shorter than the limits of common servers.
pub const TICKET_BYTES_MAX: usize = 2 * 1024;

/// The maximum number of ticket keys. The first key seals. The other keys open older tickets.
pub const TICKET_KEYS_MAX: usize = 16;

/// The version of the format. Another format needs another number.
const VERSION: u8 = 1;

const HEAD_BYTES: usize = 1 + KeyId::BYTES + NONCE_LEN;

/// A ticket cannot be sealed, or the keys cannot be used.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum TicketError {
    /// The ticket is longer than the limit.
    #[error("the ticket has {bytes} bytes, at most {bytes_max} are allowed: use patterns")]
    TooLong {
        /// Bytes of the ticket.
        bytes: usize,
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// A ticket has more topics than a grant may have.
    #[error("the ticket has {topics} topics, at most {topics_max} are allowed: use patterns")]
    TooManyTopics {
        /// Topics of the ticket.
        topics: usize,
        /// The limit.
        topics_max: usize,
    },
    /// There is no key, or there are too many keys.
    #[error("tickets need 1 to {keys_max} keys")]
    Keys {
        /// The limit.
        keys_max: usize,
    },
    /// The system has no random bytes for a nonce.
    #[error("the ticket cannot be sealed without random bytes")]
    Randomness(#[from] RandomnessError),
    /// The cipher refused.
    #[error("the ticket cannot be encrypted")]
    Cipher,
}

/// The id of a ticket. It is the same on every node and after a restart.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TicketId([u8; NONCE_LEN]);

impl TicketId {
    /// The number of bytes of an id.
    pub const BYTES: usize = NONCE_LEN;

    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

/// A ticket whose seal is intact.
#[derive(Debug, PartialEq)]
pub(crate) struct OpenedTicket {
    pub(crate) ticket: Ticket,
    pub(crate) id: TicketId,
    /// The ticket key that sealed it.
    pub(crate) key: KeyId,
}

/// The ticket keys of one hub.
///
/// [`Access`](crate::Access) seals and opens with them.
///
/// ```
/// use downlink_access::{Secret, TicketKeys};
/// let (newer, older) = (Secret::generate()?, Secret::generate()?);
/// let keys = TicketKeys::new("shop", &[newer, older])?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TicketKeys {
    hub: String,
    keys: Vec<SealingKey>,
}

struct SealingKey {
    id: KeyId,
    key: LessSafeKey,
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({})", self.id)
    }
}

impl TicketKeys {
    /// The keys for the tickets of the hub with this name. The first secret seals tickets, and
    /// every secret opens the tickets that it has sealed.
    ///
    /// # Errors
    ///
    /// [`TicketError::Keys`] if there is no secret, or if there are too many.
    ///
    /// # Limits
    ///
    /// [`TICKET_KEYS_MAX`].
    pub fn new(hub: impl Into<String>, secrets: &[Secret]) -> Result<Self, TicketError> {
        if !(1..=TICKET_KEYS_MAX).contains(&secrets.len()) {
            return Err(TicketError::Keys { keys_max: TICKET_KEYS_MAX });
        }
        let keys = secrets.iter().map(SealingKey::new).collect::<Result<_, _>>()?;
        Ok(Self { hub: hub.into(), keys })
    }

    /// Whether a ticket key with this id opens tickets.
    pub(crate) fn contains(&self, id: KeyId) -> bool {
        self.keys.iter().any(|key| key.id == id)
    }

    /// Seals a ticket with the first key.
    pub(crate) fn seal(&self, ticket: &Ticket) -> Result<String, TicketError> {
        let mut nonce = [0; NONCE_LEN];
        fill_random(&mut nonce)?;
        self.seal_with(ticket, nonce)
    }

    /// Opens a ticket. The caller checks the end of its grant.
    pub(crate) fn open(&self, text: &str, now: Timestamp) -> Result<OpenedTicket, AccessError> {
        let malformed = AccessError::malformed("the text is no ticket");
        if text.len() > TICKET_BYTES_MAX {
            return Err(malformed);
        }
        let Ok(mut bytes) = BASE64_URL_SAFE_NO_PAD.decode(text) else { return Err(malformed) };
        let Some((head, sealed)) = bytes.split_first_chunk_mut::<HEAD_BYTES>() else {
            return Err(malformed);
        };
        let Some((id, nonce)) = read_head(head) else { return Err(malformed) };
        let key = self.keys.iter().find(|key| key.id == id).ok_or(AccessError::KeyUnknown)?;
        let aad = Aad::from(self.authenticated(id));
        let opened = key.key.open_in_place(Nonce::assume_unique_for_key(nonce), aad, sealed);
        let opened = opened.map_err(|_| AccessError::Signature)?;
        let ticket = Ticket::from_bytes(opened).ok_or(malformed)?;
        if ticket.issued_at > now.after(LEEWAY) {
            return Err(AccessError::TokenEarly);
        }
        Ok(OpenedTicket { ticket, id: TicketId(nonce), key: id })
    }

    fn seal_with(&self, ticket: &Ticket, nonce: [u8; NONCE_LEN]) -> Result<String, TicketError> {
        let key = self.keys.first().ok_or(TicketError::Cipher)?;
        let (topics, topics_max) = (ticket.grant.subscribe().len(), GRANT_SELECTORS_MAX);
        if topics > topics_max {
            return Err(TicketError::TooManyTopics { topics, topics_max });
        }
        let mut sealed = ticket.to_bytes();
        let aad = Aad::from(self.authenticated(key.id));
        let nonce_once = Nonce::assume_unique_for_key(nonce);
        let done = key.key.seal_in_place_append_tag(nonce_once, aad, &mut sealed);
        done.map_err(|_| TicketError::Cipher)?;
        let bytes = [&[VERSION], key.id.as_bytes().as_slice(), &nonce, &sealed].concat();
        let text = BASE64_URL_SAFE_NO_PAD.encode(bytes);
        match text.len() {
            ..=TICKET_BYTES_MAX => Ok(text),
            bytes => Err(TicketError::TooLong { bytes, bytes_max: TICKET_BYTES_MAX }),
        }
    }

    /// The data that the seal covers in addition to the content.
    fn authenticated(&self, id: KeyId) -> Vec<u8> {
        [&[VERSION], id.as_bytes().as_slice(), self.hub.as_bytes()].concat()
    }
}

impl SealingKey {
    fn new(secret: &Secret) -> Result<Self, TicketError> {
        // The cipher needs 32 bytes, and a key file may have more.
        let derived = hmac::Key::new(hmac::HMAC_SHA256, secret.bytes());
        let derived = hmac::sign(&derived, b"downlink ticket");
        let key = UnboundKey::new(&AES_256_GCM_SIV, derived.as_ref());
        let key = LessSafeKey::new(key.map_err(|_| TicketError::Cipher)?);
        Ok(Self { id: KeyId::of("ticket", secret.bytes()), key })
    }
}

fn read_head(head: &[u8; HEAD_BYTES]) -> Option<(KeyId, [u8; NONCE_LEN])> {
    let (version, rest) = head.split_first()?;
    let (id, rest) = rest.split_first_chunk()?;
    let nonce = rest.try_into().ok()?;
    (*version == VERSION).then_some((KeyId::from_bytes(*id), nonce))
}
