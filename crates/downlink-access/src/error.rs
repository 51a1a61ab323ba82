//! The reasons for refused requests, each with the code and the status of the answer.
//!
//! No error contains any part of a credential. Errors about the time, the audience, the issuer or a
//! revocation are returned only after the signature was verified. So an attacker cannot use a
//! forged token to find out which issuer is accepted or which credentials are revoked.

use downlink_log::{ClientId, InvalidName, TopicSelector};
use thiserror::Error;

/// A credential is not accepted, or its grant does not cover the request.
///
/// ```
/// use downlink_access::AccessError;
/// let error = AccessError::TokenMissing;
/// assert_eq!((error.status(), error.code()), (401, "token_missing"));
/// assert_eq!(error.www_authenticate(), Some("Bearer"));
/// ```
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum AccessError {
    /// The request has more than one `Authorization: Bearer` or ticket.
    #[error("two credentials in one request: send one token or one ticket")]
    TwoCredentials,
    /// The request needs a credential and has none.
    #[error(
        "the request has no credential: send a key or a token in `Authorization: Bearer`, or a \
         ticket in the URL"
    )]
    TokenMissing,
    /// The credential breaks its format, or a rule that holds for every token.
    #[error("the credential cannot be accepted: {reason}")]
    TokenMalformed {
        /// The broken rule.
        reason: &'static str,
    },
    /// The claim `downlink` of a signed token is not a grant.
    #[error("the claim `downlink` of the token is not a valid grant")]
    ClaimMalformed(#[source] InvalidGrant),
    /// No key accepts this algorithm.
    #[error("the server does not accept the algorithm of the token")]
    Algorithm,
    /// No key verifies this credential.
    #[error("the server does not know the key of the credential")]
    KeyUnknown,
    /// The signature of a token or the seal of a ticket is wrong.
    #[error("the signature of the token, or the seal of the ticket, is wrong")]
    Signature,
    /// The credential has ended.
    #[error("the credential has expired")]
    TokenExpired,
    /// The credential is not valid yet.
    #[error("the credential is not valid yet: check the clocks of the server and of the issuer")]
    TokenEarly,
    /// The token is for another audience.
    #[error("the token is for another audience than this server")]
    Audience,
    /// The token has another issuer.
    #[error("the token has another issuer than the server accepts")]
    Issuer,
    /// The credential was revoked.
    #[error("the credential was revoked")]
    Revoked,
    /// One of the requested selectors is not contained in any selector of the grant.
    #[error("the grant does not cover the topic `{selector}`")]
    TopicDenied {
        /// The first selector that is not covered.
        selector: TopicSelector,
    },
    /// The grant belongs to another client, or to no client.
    #[error("the grant does not cover the client `{client}`")]
    ClientDenied {
        /// The client that was asked for.
        client: ClientId,
    },
    /// The grant lacks a right that does not depend on a topic.
    #[error("the grant does not allow {}", right.meaning())]
    RightMissing {
        /// The missing right.
        right: Right,
    },
    /// The key set must be fetched first, or is too old to use. The same request may succeed later.
    #[error("the server cannot fetch the keys for this token at the moment: try again later")]
    KeysUnavailable,
}

/// A right that does not depend on a topic.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Right {
    /// Publish to everyone.
    Everyone,
    /// Publish to the inbox of a client, which has the events for this client.
    PublishClients,
    /// Issue tickets.
    Issue,
    /// Follow the whole log, as a relay does: read all events of a server, and forward events in
    /// the names of their publishers.
    Follow,
    /// Administer the server.
    Admin,
}

impl Right {
    const fn meaning(self) -> &'static str {
        match self {
            Self::Everyone => "publishing to everyone",
            Self::PublishClients => "publishing to clients",
            Self::Issue => "issuing tickets",
            Self::Follow => "following the log",
            Self::Admin => "administration",
        }
    }
}

impl AccessError {
    /// Every [`code`](Self::code), for example to count refusals by their code.
    pub const CODES: [&str; 15] = [
        "two_credentials",
        "token_missing",
        "token_malformed",
        "algorithm",
        "key_unknown",
        "signature",
        "token_expired",
        "token_early",
        "audience",
        "issuer",
        "revoked",
        "topic_denied",
        "client_denied",
        "right_missing",
        "keys_unavailable",
    ];

    /// The code for programs. It is part of the API and does not change.
    pub const fn code(&self) -> &'static str {
        self.answer().1
    }

    /// The HTTP status: 400, 401, 403 or 503.
    pub const fn status(&self) -> u16 {
        self.answer().0
    }

    const fn answer(&self) -> (u16, &'static str) {
        match self {
            Self::TwoCredentials => (400, "two_credentials"),
            Self::TokenMissing => (401, "token_missing"),
            Self::TokenMalformed { .. } | Self::ClaimMalformed(_) => (401, "token_malformed"),
            Self::Algorithm => (401, "algorithm"),
            Self::KeyUnknown => (401, "key_unknown"),
            Self::Signature => (401, "signature"),
            Self::TokenExpired => (401, "token_expired"),
            Self::TokenEarly => (401, "token_early"),
            Self::Audience => (401, "audience"),
            Self::Issuer => (401, "issuer"),
            Self::Revoked => (401, "revoked"),
            Self::TopicDenied { .. } => (403, "topic_denied"),
            Self::ClientDenied { .. } => (403, "client_denied"),
            Self::RightMissing { .. } => (403, "right_missing"),
            Self::KeysUnavailable => (503, "keys_unavailable"),
        }
    }

    /// The value of the header `WWW-Authenticate`, for every answer with the status 401.
    pub const fn www_authenticate(&self) -> Option<&'static str> {
        match self {
            Self::TokenMissing => Some("Bearer"),
            _ if self.status() == 401 => Some("Bearer error=\"invalid_token\""),
            _ => None,
        }
    }

    pub(crate) const fn malformed(reason: &'static str) -> Self {
        Self::TokenMalformed { reason }
    }
}

/// A document is not a grant.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum InvalidGrant {
    /// The document is longer than the limit.
    #[error("the grant has {bytes} bytes, at most {bytes_max} are allowed")]
    TooLong {
        /// Bytes of the document.
        bytes: usize,
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// The document is not one JSON object, or repeats a member.
    #[error("the grant is not a JSON object in which each member is given once")]
    NoObject,
    /// The document has an unknown member.
    #[error("the grant has an unknown member `{}`", member.escape_debug())]
    UnknownMember {
        /// The name of the unknown member.
        member: String,
    },
    /// The value has the wrong type.
    #[error("the member `{member}` must be {expected}")]
    WrongType {
        /// The name of the member.
        member: &'static str,
        /// The expected type.
        expected: &'static str,
    },
    /// A list is longer than the limit.
    #[error("`{member}` has {selectors} selectors, at most {selectors_max} are allowed")]
    TooManySelectors {
        /// The name of the member with the list.
        member: &'static str,
        /// The number of selectors in the list.
        selectors: usize,
        /// The limit.
        selectors_max: usize,
    },
    /// A selector or a client id breaks its grammar.
    #[error("`{}` in `{member}` is not valid", text.escape_debug())]
    InvalidName {
        /// The name of the member.
        member: &'static str,
        /// The selector or client id.
        text: String,
        /// The broken rule.
        #[source]
        reason: InvalidName,
    },
}
