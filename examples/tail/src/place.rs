//! Places in files as event ids: `tail-<file>-<offset>`.
//!
//! `<file>` is the number that the operating system gives to the file (its inode). If another file
//! takes the file's name, the new file has another number. So the server notices that an old id is
//! not a place in the new file.

use std::{fmt, fs::Metadata};

use downlink::{EventId, InvalidField};

/// A place in a file. A client that has this place as its last id gets the lines after
/// the place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// The number that the operating system gives to the file.
    pub file: u64,
    /// The number of bytes before the place.
    pub offset: u64,
}

impl Place {
    /// The beginning of a file.
    pub(crate) fn beginning(metadata: &Metadata) -> Self {
        Self { file: number_of(metadata), offset: 0 }
    }

    /// Parses an id. Returns `None` if this app did not make the id.
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

/// On systems without inodes, all files have the number 0. If another file replaces the file, a
/// stream notices this only if the new file is shorter than the part that the stream has read.
#[cfg(not(unix))]
fn number_of(_: &Metadata) -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsing_an_id_gives_the_same_place() {
        for place in [Place { file: 0, offset: 0 }, Place { file: u64::MAX, offset: u64::MAX }] {
            assert_eq!(Place::parse(&place.to_string()), Some(place));
        }
    }

    #[test]
    fn id_in_another_form_is_not_parsed() {
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
