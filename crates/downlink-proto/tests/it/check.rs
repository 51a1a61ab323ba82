//! Checks that the decoder finds the expected items in a stream, no matter how the stream is cut
//! into chunks.

use downlink_proto::Decoder;

use crate::{
    naive::{Reading, Seen, read_whole},
    reader::read_with,
};

/// An event of type `message`.
pub(crate) fn message(data: &str) -> Seen {
    event("message", data)
}

/// An event without an id, in a stream without earlier ids.
pub(crate) fn event(event_type: &str, data: &str) -> Seen {
    Seen::Event {
        event_type: event_type.to_owned(),
        data: data.to_owned(),
        last_event_id: String::new(),
        has_own_id: false,
    }
}

pub(crate) fn comment(text: &str) -> Seen {
    Seen::Comment(text.to_owned())
}

pub(crate) fn retry(millis: u64) -> Seen {
    Seen::Retry(millis)
}

impl Seen {
    /// The same event, with an `id` field in the event's block.
    pub(crate) fn own_id(self, id: &str) -> Self {
        self.id(id, true)
    }

    /// The same event, with an id that an earlier block has set.
    pub(crate) fn kept_id(self, id: &str) -> Self {
        self.id(id, false)
    }

    fn id(self, id: &str, is_own: bool) -> Self {
        match self {
            Self::Event { event_type, data, .. } => {
                Self::Event { event_type, data, last_event_id: id.to_owned(), has_own_id: is_own }
            }
            other => panic!("only an event has an id: {other:?}"),
        }
    }
}

/// Checks that the decoder and the naive reader find exactly these items in a stream. The decoder
/// reads the stream several times: in one chunk, in two chunks cut at each position, byte by byte,
/// and byte by byte with empty chunks in between. Returns the result of the naive reader, for more
/// checks.
#[track_caller]
pub(crate) fn check(stream: impl AsRef<[u8]>, expected: &[Seen]) -> Reading {
    check_after("", stream, expected)
}

/// Like [`check`], but the decoder starts with this last event id.
#[track_caller]
pub(crate) fn check_after(
    last_event_id: &str,
    stream: impl AsRef<[u8]>,
    expected: &[Seen],
) -> Reading {
    let stream = stream.as_ref();
    let naive = read_whole(stream, last_event_id);
    assert_eq!(
        naive.seen,
        expected,
        "the naive reader finds unexpected items in {}",
        stream.escape_ascii()
    );
    let agrees = |chunks: &[&[u8]]| {
        let mut decoder = Decoder::default().with_last_event_id(last_event_id);
        let (reading, error) = read_with(&mut decoder, chunks.iter().copied());
        let cut: Vec<_> = chunks.iter().map(|chunk| chunk.escape_ascii().to_string()).collect();
        assert_eq!(error, None, "the decoder fails if the chunks are {cut:?}");
        assert_eq!(reading, naive, "the readers differ if the chunks are {cut:?}");
    };
    agrees(&[stream]);
    for at in 0..=stream.len() {
        let (first, second) = stream.split_at(at);
        agrees(&[first, second]);
    }
    agrees(&stream.chunks(1).collect::<Vec<_>>());
    agrees(&stream.chunks(1).flat_map(|byte| [byte, &[]]).collect::<Vec<_>>());
    naive
}
