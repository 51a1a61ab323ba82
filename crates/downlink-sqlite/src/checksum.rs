//! The checksum of an event: CRC-32C over offset, id and payload.
//!
//! It finds every flipped bit and every damaged run of up to 32 bits. It does not protect against
//! changes on purpose.

use rusqlite::{Row, types::ValueRef};

use crate::fault::Result;

/// The checksum of an event.
pub(crate) fn checksum(offset: u64, id: Option<&[u8]>, payload: &[u8]) -> u32 {
    // The length keeps the end of the id apart from the beginning of the payload.
    let id_bytes = id.map_or(u64::MAX, |id| id.len() as u64);
    let sum = crc32c::crc32c(&offset.to_le_bytes());
    let sum = crc32c::crc32c_append(sum, &id_bytes.to_le_bytes());
    let sum = crc32c::crc32c_append(sum, id.unwrap_or_default());
    crc32c::crc32c_append(sum, payload)
}

/// The id that its publisher gave to an event, and its payload.
pub(crate) type Content = (Option<Box<str>>, Vec<u8>);

/// The id and the payload in a row of `events`, with the columns `id`, `payload` and `checksum`;
/// `None` if they are damaged. Events of older files have no checksum and count as intact.
pub(crate) fn verified(offset: u64, row: &Row<'_>) -> Result<Option<Content>> {
    let expected: Option<u32> = row.get("checksum")?;
    let id = match row.get_ref("id")? {
        ValueRef::Text(id) => Some(id),
        _ => None,
    };
    let ValueRef::Blob(payload) = row.get_ref("payload")? else { return Ok(None) };
    if expected.is_some_and(|expected| expected != checksum(offset, id, payload)) {
        return Ok(None);
    }
    let id = match id.map(std::str::from_utf8).transpose() {
        Ok(id) => id.map(Box::from),
        Err(_) => return Ok(None),
    };
    Ok(Some((id, payload.to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files keep these numbers: the function must never change.
    #[test]
    fn checksums_stay_the_same() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(checksum(7, Some(b"id"), b"payload"), checksum(7, Some(b"id"), b"payload"));
    }

    #[test]
    fn offset_id_and_payload_count() {
        let sum = checksum(1, Some(b"ab"), b"c");
        assert_ne!(sum, checksum(2, Some(b"ab"), b"c"));
        assert_ne!(sum, checksum(1, Some(b"a"), b"bc"));
        assert_ne!(sum, checksum(1, None, b"abc"));
        assert_ne!(sum, checksum(1, Some(b"ab"), b"d"));
        assert_ne!(checksum(1, None, b""), checksum(1, Some(b""), b""));
    }
}
