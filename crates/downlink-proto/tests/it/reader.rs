//! Functions that run a [`Decoder`] and convert its items to the type of the naive reader's items.

use downlink_proto::{DecodeError, Decoder, Item};

use crate::naive::{Reading, Seen};

/// Takes all items that the decoder has.
pub(crate) fn take_all(decoder: &mut Decoder) -> Vec<Seen> {
    std::iter::from_fn(|| decoder.poll_item()).map(seen).collect()
}

pub(crate) fn seen(item: Item) -> Seen {
    match item {
        Item::Event(event) => Seen::Event {
            event_type: event.event_type.into_owned(),
            data: event.data,
            last_event_id: event.last_event_id.as_ref().to_owned(),
            has_own_id: event.has_own_id,
        },
        Item::Comment(text) => Seen::Comment(text),
        Item::Retry(retry) => Seen::Retry(retry.as_millis()),
        other => panic!("the decoder returned an unknown item: {other:?}"),
    }
}

/// Decodes the chunks of a stream, up to the end of the stream or to an error.
pub(crate) fn read_with<'a>(
    decoder: &mut Decoder,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> (Reading, Option<DecodeError>) {
    let mut reading = Reading::default();
    let mut error = None;
    for chunk in chunks {
        error = decoder.handle_bytes(chunk).err();
        reading.seen.extend(take_all(decoder));
        if error.is_some() {
            break;
        }
    }
    decoder.handle_end();
    reading.last_event_id = decoder.last_event_id().to_owned();
    reading.reconnection_time = decoder.reconnection_time().map(|retry| retry.as_millis());
    (reading, error)
}
