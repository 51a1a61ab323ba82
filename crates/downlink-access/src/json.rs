//! Reads JSON from other parties. The document must be one object. No object in it may repeat a
//! member, at any depth.
//!
//! If a member is repeated, two programs may read different values of it. So such a document is
//! refused.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Reads an object. `None` if the bytes are no JSON object, or if a member is repeated.
pub(crate) fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice::<Unique>(bytes).ok()?;
    match serde_json::from_slice(bytes).ok()? {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

/// A document without a repeated member.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without repeated members")
    }

    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_str<E>(self, _: &str) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Unique, A::Error> {
        while elements.next_element::<Unique>()?.is_some() {}
        Ok(Unique)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Unique, A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            members.next_value::<Unique>()?;
            if !names.insert(name) {
                return Err(A::Error::custom("a repeated member"));
            }
        }
        Ok(Unique)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(text: &str) -> bool {
        object(text.as_bytes()).is_some()
    }

    #[test]
    fn an_object_with_each_member_once_is_read() {
        assert!(reads(r#"{"a":1,"b":[-1,1.5,null,true,"x",{"a":2}],"c":{"a":3,"b":4}}"#));
    }

    #[test]
    fn repeated_members_are_refused_at_every_depth() {
        assert!(!reads(r#"{"a":1,"a":1}"#));
        assert!(!reads(r#"{"a":1,"\u0061":1}"#));
        assert!(!reads(r#"{"b":{"a":1,"a":1}}"#));
        assert!(!reads(r#"{"b":[{"a":1,"a":1}]}"#));
    }

    #[test]
    fn documents_that_are_not_one_valid_object_are_refused() {
        assert!(!reads("[]"));
        assert!(!reads("{} {}"));
        assert!(!reads("{'a':1}"));
        assert!(!reads(r#"{"a":1e999}"#));
        assert!(!reads(&format!("{{\"a\":{}", "[".repeat(100_000))));
    }
}
