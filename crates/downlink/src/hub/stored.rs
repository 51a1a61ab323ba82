//! The stored body of an event: its recipients, its type, its reconnection time and its data. The
//! store keeps the offset, the time and the publisher's id in other columns.
//!
//! The store does not keep the frame (the encoded event). When a subscription reads a stored event,
//! the hub encodes the body again with the same encoder. So the frame has the same bytes as the
//! frame that live subscribers got. If a body cannot be read completely, the hub makes no event
//! from it.

use downlink_log::Address;
#[cfg(feature = "store")]
use downlink_log::StoreReport;
use downlink_proto::{Event, EventType};
#[cfg(any(feature = "store", feature = "relay"))]
pub(super) use reading::decode;

/// The number of the layout that `encode` writes. A new layout must get a new number, so that the
/// hub can tell it from this layout.
const LAYOUT: u8 = 1;

/// A finish mark finishes its topics without an event. This byte follows the body in the content
/// from which the fingerprint of a finish mark is made. For an event, this byte is 0 or 1.
pub(super) const FINISHES_ALONE: u8 = 2;

/// The niceness of the threads that read the store. With this value, their priority is lower than
/// the priority of other threads. On a busy processor, they get a tenth of the time that the other
/// threads get. On an idle processor, they get all the time that they need.
///
/// At equal priority, a replay of a million events quadrupled the latency of live events on one
/// core. With this value, a replay did not slow down the live events, and the replay itself took no
/// longer.
#[cfg(all(target_os = "linux", feature = "store"))]
const NICENESS: i32 = 10;

/// Lets the threads that publish and send run before this thread when the processor is busy. On
/// systems other than Linux, a priority belongs to the whole process, so this does nothing.
#[cfg(feature = "store")]
pub(super) fn yield_to_others() {
    // If the system refuses, all threads keep the same priority. The hub is then slower but still
    // correct.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(NICENESS);
}

/// Writes a log line when the store starts to refuse events, when it accepts them again, and when a
/// cache has failed.
#[cfg(feature = "store")]
pub(super) fn log_report(report: StoreReport) {
    match report {
        StoreReport::Refuses { error, refused } => {
            tracing::error!(
                %error,
                refused,
                "the store accepts no events; subscribers can still read"
            );
        }
        StoreReport::Takes { refused } => {
            tracing::info!(refused, "the store accepts events again");
        }
        StoreReport::CacheDropped { error } => {
            tracing::error!(
                %error,
                "the cache of this relay has failed; it goes on in memory until it starts again"
            );
        }
        _ => {}
    }
}

/// Encodes the body of an event. Each text has its length before it, and numbers are in
/// little-endian order.
pub(super) fn encode(to: &[Address], event: &Event) -> Vec<u8> {
    let mut out = vec![LAYOUT];
    put_number(&mut out, to.len());
    for address in to {
        let (kind, name) = match address {
            Address::Client(client) => (b'c', client.as_str()),
            Address::Topic(topic) => (b't', topic.as_str()),
            _ => (b'e', ""),
        };
        out.push(kind);
        put_text(&mut out, name);
    }
    let fields = event.fields();
    put_option(&mut out, fields.event_type.map(EventType::as_str));
    let retry = fields.retry.map(|retry| retry.as_millis().to_string());
    put_option(&mut out, retry.as_deref());
    put_option(&mut out, fields.data);
    out
}

/// The content from which the fingerprint of an event is made. It is the same as in a hub that is
/// no node of a cluster.
#[cfg(feature = "cluster")]
pub(crate) fn fingerprint_content(record: &downlink_cluster::Record) -> Vec<u8> {
    let mut content = match &record.payload {
        Some(body) => [body.as_slice(), &[u8::from(record.finish)]].concat(),
        None => [encode(&record.to, &Event::new("")), vec![FINISHES_ALONE]].concat(),
    };
    content.extend_from_slice(record.id.as_deref().unwrap_or_default().as_bytes());
    content
}

/// The body of an event whose frame is already encoded. The event's fields come from the record and
/// from the lines of the frame.
#[cfg(feature = "relay")]
pub(super) fn body_of<T>(record: &super::record::Record<T>) -> Vec<u8> {
    let mut event = Event::default();
    if let Some(event_type) = &record.event_type {
        event = event.event(event_type.clone());
    }
    // A frame is made from text, so it is valid UTF-8.
    let frame = std::str::from_utf8(record.frame.as_bytes()).unwrap_or_default();
    let mut data: Option<String> = None;
    for line in frame.lines() {
        if let Some(text) = line.strip_prefix("data:") {
            let text = text.strip_prefix(' ').unwrap_or(text);
            match &mut data {
                Some(data) => data.extend(["\n", text]),
                None => data = Some(text.to_owned()),
            }
        } else if let Some(millis) = line.strip_prefix("retry:") {
            let millis = millis.trim_start().parse().unwrap_or_default();
            event = event.retry(std::time::Duration::from_millis(millis));
        }
    }
    if let Some(data) = data {
        event = event.data(data);
    }
    encode(&record.to, &event)
}

fn put_number(out: &mut Vec<u8>, number: usize) {
    // An event is far smaller than 4 GiB.
    out.extend_from_slice(&(number as u32).to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_number(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn put_option(out: &mut Vec<u8>, text: Option<&str>) {
    out.push(u8::from(text.is_some()));
    if let Some(text) = text {
        put_text(out, text);
    }
}

#[cfg(any(feature = "store", feature = "relay"))]
mod reading {
    //! Decoding of stored bodies.

    use std::{sync::Arc, time::Duration};

    use downlink_log::{Address, ClientId, Stored, Topic};
    use downlink_proto::{Event, EventId, EventType};

    use super::LAYOUT;
    use crate::hub::record::{Addresses, Record, RecordFields, cursor_id};
    use crate::hub::settings::{ReadEvent, ValueBytes};

    /// The function that makes a value from an event, and the function that returns the size of the
    /// value.
    pub(in crate::hub) type ReadValue<T> = (Arc<ReadEvent<T>>, Arc<ValueBytes<T>>);

    /// The record of a stored event, or `None` if the body cannot be read.
    pub(in crate::hub) fn decode<T>(
        stored: &Stored,
        values: Option<&ReadValue<T>>,
    ) -> Option<Record<T>> {
        let mut body = BodyReader(&stored.payload);
        (body.byte()? == LAYOUT).then_some(())?;
        let to = (0..body.number()?).map(|_| body.address()).collect::<Option<Addresses>>()?;
        let mut event = Event::default();
        if let Some(event_type) = body.option()? {
            event = event.event(EventType::new(event_type).ok()?);
        }
        if let Some(retry) = body.option()? {
            event = event.retry(Duration::from_millis(retry.parse().ok()?));
        }
        if let Some(data) = body.option()? {
            event = event.data(data);
        }
        body.0.is_empty().then_some(())?;
        let id = stored.publisher_id.as_deref().map(EventId::new).transpose().ok()?;
        event = event.id(id.clone().unwrap_or_else(|| cursor_id(stored.id)));
        let value = match values {
            Some((read, bytes)) => {
                let value = read(&event)?;
                let bytes = bytes(&value);
                Some((value, bytes))
            }
            None => None,
        };
        let event_type = event.fields().event_type.cloned();
        Some(Record(Arc::new(RecordFields { frame: event.encode(), to, event_type, id, value })))
    }

    /// Reads a body piece by piece. The field holds the bytes that are not read yet.
    struct BodyReader<'a>(&'a [u8]);

    impl<'a> BodyReader<'a> {
        fn byte(&mut self) -> Option<u8> {
            let (first, rest) = self.0.split_first()?;
            self.0 = rest;
            Some(*first)
        }

        fn number(&mut self) -> Option<usize> {
            let (number, rest) = self.0.split_first_chunk()?;
            self.0 = rest;
            usize::try_from(u32::from_le_bytes(*number)).ok()
        }

        fn text(&mut self) -> Option<&'a str> {
            let len = self.number()?;
            let (text, rest) = self.0.split_at_checked(len)?;
            self.0 = rest;
            std::str::from_utf8(text).ok()
        }

        fn option(&mut self) -> Option<Option<&'a str>> {
            match self.byte()? {
                0 => Some(None),
                1 => Some(Some(self.text()?)),
                _ => None,
            }
        }

        fn address(&mut self) -> Option<Address> {
            let (kind, name) = (self.byte()?, self.text()?);
            match kind {
                b'e' => Some(Address::Everyone),
                b'c' => ClientId::new(name).ok().map(Address::Client),
                b't' => Topic::new(name).ok().map(Address::Topic),
                _ => None,
            }
        }
    }
}

#[cfg(all(test, feature = "store"))]
mod tests {
    use std::{sync::Arc, time::Duration};

    use downlink_log::{ClientId, Cursor, Epoch, Offset, Stored, Timestamp, Topic};
    use downlink_proto::EventId;

    use super::{reading::ReadValue, *};

    fn stored(payload: Vec<u8>, given: Option<&str>) -> Stored {
        let id = Cursor { epoch: Epoch::from_random(1), next: Offset::new(8) };
        Stored { id, at: Timestamp::default(), publisher_id: given.map(Into::into), payload }
    }

    fn to() -> Vec<Address> {
        let client = Address::Client(ClientId::new("alice").expect("the client id is valid"));
        let topic = Address::Topic(Topic::new("a/b").expect("the topic is valid"));
        vec![Address::Everyone, client, topic]
    }

    /// Returns the frame that live subscribers got, and the frame that is made from the stored
    /// body.
    fn frames(event: Event, given: Option<&str>) -> (Vec<u8>, Vec<u8>) {
        let stored = stored(encode(&to(), &event), given);
        let live = match given {
            Some(given) => event.id(EventId::new(given).expect("the event id is valid")).encode(),
            None => {
                let prefix = format!("{}-", stored.id.epoch);
                event
                    .encode_unstamped(&EventId::new(&prefix).expect("the event id is valid"))
                    .stamp(7)
            }
        };
        let record = decode::<String>(&stored, None).expect("the body is readable");
        assert_eq!(record.to.as_slice(), to());
        (live.as_bytes().to_vec(), record.frame.as_bytes().to_vec())
    }

    /// Returns the frame that is made from the body of a record, as on a relay.
    #[cfg(feature = "relay")]
    fn fed(event: Event, given: Option<&str>) -> Vec<u8> {
        let record = decode::<String>(&stored(encode(&to(), &event), given), None);
        let body = body_of(&record.expect("the body is readable"));
        let again = decode::<String>(&stored(body, given), None);
        again.expect("the body is readable").frame.as_bytes().to_vec()
    }

    #[test]
    fn a_stored_event_has_the_frame_that_was_sent_live() {
        let note = EventType::from_static("note");
        let full = Event::new("a\r\nb\rc\n").event(note).retry(Duration::from_secs(2));
        for event in [Event::new(""), Event::default(), Event::new("x"), full] {
            for given in [None, Some("mine")] {
                let (live, again) = frames(event.clone(), given);
                assert_eq!(live, again);
                #[cfg(feature = "relay")]
                assert_eq!(live, fed(event.clone(), given));
            }
        }
    }

    #[test]
    fn a_body_that_is_too_short_or_too_long_or_has_another_layout_is_not_decoded() {
        let whole = encode(&to(), &Event::new("hello"));
        for len in 0..whole.len() {
            assert!(
                decode::<String>(&stored(whole[..len].to_vec(), None), None).is_none(),
                "{len}"
            );
        }
        let longer = [whole.as_slice(), b"x"].concat();
        assert!(decode::<String>(&stored(longer, None), None).is_none());
        assert!(decode::<String>(&stored(b"hello".to_vec(), None), None).is_none());
    }

    #[test]
    fn an_event_whose_value_cannot_be_decoded_gives_no_record() {
        let read: ReadValue<u8> =
            (Arc::new(|event| event.fields().data?.parse().ok()), Arc::new(|_| 1));
        let body = |data: &str| stored(encode(&to(), &Event::new(data)), None);
        let value = |data| decode(&body(data), Some(&read)).and_then(|record| record.value);
        assert_eq!((value("7"), value("x")), (Some((7, 1)), None));
    }
}
