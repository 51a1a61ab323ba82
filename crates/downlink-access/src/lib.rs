//! Access control for event streams: the rights to subscribe and to publish, and the time at which
//! they end.
//!
//! Verified credentials become a [`Grant`]: selectors to subscribe and to publish, a client id, a
//! few rights, and an end. A selector is the name of a topic, or a pattern. Handlers get grants,
//! never credentials. [`Access`] holds the configuration and verifies requests.
//!
//! | credential | used by | sent in |
//! |---|---|---|
//! | key ([`Keys`]) | apps that publish, operators | `Authorization: Bearer` |
//! | token ([`Tokens`]), a JSON Web Token | users of an app or of an identity provider | `Authorization: Bearer`, or a cookie |
//! | ticket ([`TicketKeys`]) | browsers, because `EventSource` sends no headers | the query |
//! | none | readers of public topics | |
//!
//! Guarantees:
//!
//! - A request without a credential may only read public topics and the events that are published
//!   to everyone.
//! - Each requested selector must be contained in one granted selector: see [`contains`].
//! - Every input has a limit in bytes, and no input makes this crate panic.
//! - Every error has a code and a status. An error about the time, the audience, the issuer or a
//!   revocation is returned only after the signature was verified.
//! - A revoked credential stays revoked. Only [`Access::forget_key`] can make a revoked key valid
//!   again.
//!
//! Deliberately not here: web frameworks, sockets, tasks and clocks. Time is a parameter of every
//! call that needs it. The server fetches key sets, and [`KeySetCache`] says when.
//!
//! ```
//! use downlink_access::{Access, AccessOptions, Presented};
//! use downlink_log::{Selection, Timestamp, TopicSelector};
//!
//! let public = vec![TopicSelector::parse("news/*")?];
//! let access = Access::new(AccessOptions { public, ..AccessOptions::default() });
//! let now = Timestamp::from_millis(1_800_000_000_000);
//! let mut asked = Selection::default();
//! asked.selectors.push(TopicSelector::parse("news/{city}")?);
//! assert!(access.subscribe(&Presented::new(), &asked, now).is_ok());
//!
//! asked.selectors.push(TopicSelector::parse("orders/7")?);
//! let error = access.subscribe(&Presented::new(), &asked, now).unwrap_err();
//! assert_eq!((error.status(), error.code()), (401, "token_missing"));
//! # Ok::<(), downlink_log::InvalidName>(())
//! ```

#![forbid(unsafe_code)]

mod containment;

mod json;

mod error;

mod grant;

mod grant_json;

mod secret;

mod credentials;

mod keys;

mod jwt;

mod revocations;

mod tickets;

mod verified;

mod access;

pub use access::{Access, AccessOptions, IssueError, StreamGrant};
pub use containment::{contains, overlaps};
pub use credentials::{COOKIE_NAME_DEFAULT, Credential, Presented};
pub use error::{AccessError, InvalidGrant, Right};
pub use grant::Grant;
pub use grant_json::{GRANT_BYTES_MAX, GRANT_SELECTORS_MAX};
pub use jwt::{
    key::{PEM_BYTES_MAX, PEM_KEYS_MAX, PublicKeyError, RSA_BITS_MAX, RSA_BITS_MIN},
    key_set::{
        FETCH_EVERY, FETCH_INTERVAL_MIN, FETCH_TIMEOUT, KEY_SET_BYTES_MAX, KEY_SET_KEYS_MAX,
        KEY_SET_STALE_MAX, KeySet, KeySetCache, KeySetError,
    },
    mint::{Mint, MintError},
    parts::{TOKEN_BYTES_MAX, inspect},
    signatures::VERIFIED_SIGNATURES_MAX,
    template::{InvalidTemplate, TokenGrant},
    tokens::{
        KEYS_TRIED_MAX, LEEWAY, TOKEN_LIFETIME_MAX_DEFAULT, TokenKeys, TokenRules, Tokens,
        TokensError, VerifiedToken,
    },
};
pub use keys::{AddKeyError, KEYS_MAX, KeyRole, Keys};
pub use revocations::{
    Issued, REVOCATIONS_MAX, REVOKED_KEYS_MAX, REVOKED_TOPICS_PER_CLIENT_MAX, Revocation,
    Revocations, Revoked, RevokedKeysFull,
};
pub use secret::{
    KEY_BYTES_MIN, KEY_FILE_BYTES_MAX, KEY_PREFIX, KeyFileError, KeyId, RandomnessError, Secret,
    fill_random,
};
pub use tickets::{
    seal::{TICKET_BYTES_MAX, TICKET_KEYS_MAX, TicketError, TicketId, TicketKeys},
    streams::{TICKET_STREAMS_MAX, TicketStreamsFull},
    ticket::TICKET_LIFETIME_MAX,
};
pub use verified::{Proof, Verified};
