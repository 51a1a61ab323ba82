//! JSON Web Tokens: keys, key sets, verification, and making tokens for tests.
//!
//! The crate `jsonwebtoken` verifies and makes signatures. These modules read the header and the
//! claims themselves. So they can refuse a token with a repeated member, with an extension that the
//! token demands (`crit`), or without an end (`exp`).

pub(crate) mod key;
pub(crate) mod key_set;
pub(crate) mod mint;
pub(crate) mod parts;
pub(crate) mod signatures;
pub(crate) mod template;
pub(crate) mod tokens;
