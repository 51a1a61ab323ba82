//! Places in files, as event ids: `tail-<file>-<offset>`.
//!
//! The file's part is what the system numbers files by, so that an offset of a file that was
//! rotated away is not taken for one of its successor.

use std::{fmt, fs::Metadata};

use downlink::{EventId, InvalidField};

/// A place in a file: the byte to read next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// Which file.
    pub file: u64,
    /// How many bytes are before the place.
    pub offset: u64,
}

impl Place {
    /// The beginning of a file.
    pub(crate) fn beginning(metadata: &Metadata) -> Self {
        Self { file: number_of(metadata), offset: 0 }
    }

    /// The place that an id names; what we would have written differently is not ours.
    pub fn parse(id: &str) -> Option<Self> {
        let (file, offset) = id.strip_prefix("tail-")?.split_once('-')?;
        let place =
            Self { file: u64::from_str_radix(file, 16).ok()?, offset: offset.parse().ok()? };
        (place.to_string() == id).then_some(place)
    }

    pub(crate) fn id(&self) -> Result<EventId, InvalidField> {
        EventId::new(&self.to_string())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tail-{:x}-{}", self.file, self.offset)
    }
}

#[cfg(unix)]
fn number_of(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

/// Elsewhere all files count as one: a rotation is noticed when the new file is shorter.
#[cfg(not(unix))]
fn number_of(_: &Metadata) -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written() {
        for place in [Place { file: 0, offset: 0 }, Place { file: u64::MAX, offset: u64::MAX }] {
            assert_eq!(Place::parse(&place.to_string()), Some(place));
        }
    }

    #[test]
    fn what_is_no_place_is_none() {
        for id in [
            "",
            "tail-",
            "tail-7",
            "tail-7-",
            "tail--7",
            "tail-7-+1",
            "tail-7-01",
            "tail-G-1",
            "tail-7-18446744073709551616",
            "evt-7",
            "tail-7-1 ",
        ] {
            assert_eq!(Place::parse(id), None, "{id:?}");
        }
    }
}
