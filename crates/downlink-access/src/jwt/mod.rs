//! JSON Web Tokens: keys, key sets, verification, and making tokens for tests.
//!
//! The crate `jsonwebtoken` verifies and makes signatures. These modules read the header and the
//! claims themselves, so that a repeated member, `crit` or a missing `exp` is an error.

pub(crate) mod key;
pub(crate) mod key_set;
pub(crate) mod mint;
pub(crate) mod parts;
pub(crate) mod signatures;
pub(crate) mod template;
pub(crate) mod tokens;
