//! JSON Web Tokens: keys, key sets, verification, and making tokens for tests.
//!
//! The crate `jsonwebtoken` verifies and makes signatures. These modules read the header and the
//! claims themselves. So they can refuse a token that repeats a member, that demands an extension
//! (`crit`), or that has no end (`exp`).

pub(crate) mod key;
pub(crate) mod key_set;
pub(crate) mod mint;
pub(crate) mod parts;
pub(crate) mod signatures;
pub(crate) mod template;
pub(crate) mod tokens;
