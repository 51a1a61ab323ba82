//! Access control for event streams: the rights to subscribe and to publish, and their end.
//!
//! Verified credentials become a [`Grant`]: selectors to subscribe and to publish, a client id, a
//! few rights, and an end. Handlers see grants, never credentials. [`Access`] holds everything that
//! is configured and verifies requests:
//!
//! | credential | for | sent as |
//! |---|---|---|
//! | key ([`Keys`]) | an app that publishes, an operator | `Authorization: Bearer` |
//! | token ([`Tokens`]) | users of an identity provider or of an app: JWT | `Authorization: Bearer`, or a cookie |
//! | ticket ([`TicketKeys`]) | a browser: `EventSource` sends no headers | the query |
//! | none | topics that are public | |
//!
//! Guarantees:
//!
//! - Without a credential there are no rights, except to read what is declared public.
//! - Each requested selector must be contained in one granted selector: [`contains`].
//! - Every input has a limit in bytes, and no input makes this crate panic.
//! - Every error has a code and a status. It says nothing about time, audience, issuer or
//!   revocation before the signature is verified.
//! - A revocation is never forgotten while a credential that it concerns is alive.
//!
//! Deliberately not here: web frameworks, sockets, tasks and clocks. Time is a parameter of every
//! call that needs it. Key sets are fetched by the server, which [`KeySetCache`] tells when.
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

pub use access::{Access, AccessOptions, IssueError};
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
    template::{InvalidTemplate, TokenGrant},
    tokens::{
        KEYS_TRIED_MAX, LEEWAY, TOKEN_LIFETIME_MAX_DEFAULT, TokenKeys, TokenRules, Tokens,
        TokensError, VerifiedToken,
    },
};
pub use keys::{AddKeyError, KEYS_MAX, KeyRole, Keys};
pub use revocations::{
    Issued, REVOCATIONS_MAX, REVOKED_KEYS_MAX, Revocation, Revocations, Revoked, RevokedKeysFull,
};
pub use secret::{
    KEY_BYTES_MIN, KEY_FILE_BYTES_MAX, KEY_PREFIX, KeyFileError, KeyId, RandomnessError, Secret,
    fill_random,
};
pub use tickets::{
    seal::{TICKET_BYTES_MAX, TICKET_KEYS_MAX, TicketError, TicketId, TicketKeys},
    streams::{TICKET_STREAMS_MAX_DEFAULT, TicketStreams, TicketStreamsFull},
    ticket::TICKET_LIFETIME_MAX,
};
pub use verified::{Proof, StreamGrant, Verified};
