//! JSON Web Tokens: keys, key sets, verification, and making tokens for tests.
//!
//! `jsonwebtoken` checks and makes signatures. Header and claims are read here, since a repeated
//! member, `crit` or a missing `exp` must be an error.

pub(crate) mod key;
pub(crate) mod key_set;
pub(crate) mod mint;
pub(crate) mod parts;
pub(crate) mod template;
pub(crate) mod tokens;
