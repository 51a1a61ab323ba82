//! Checks at compile time: these types can be sent between threads, and the limits agree with each
//! other.

use downlink_proto::{
    DecodeError, DecodedEvent, Decoder, EVENT_BYTES_MAX_DEFAULT, EVENT_ID_BYTES_MAX, Event,
    EventId, EventType, Frame, InvalidField, Item, LINE_BYTES_MAX_DEFAULT, Retry, UnstampedFrame,
};

const fn crosses_threads<T: Send + Sync + Unpin + std::fmt::Debug + 'static>() {}
const fn is_error<T: std::error::Error + Send + Sync + 'static>() {}

const _: () = {
    crosses_threads::<Decoder>();
    crosses_threads::<DecodedEvent>();
    crosses_threads::<Event>();
    crosses_threads::<EventId>();
    crosses_threads::<EventType>();
    crosses_threads::<Frame>();
    crosses_threads::<Item>();
    crosses_threads::<Retry>();
    crosses_threads::<UnstampedFrame>();
    is_error::<DecodeError>();
    is_error::<InvalidField>();
    // An event of the maximum size may consist of a single line.
    assert!(LINE_BYTES_MAX_DEFAULT >= EVENT_BYTES_MAX_DEFAULT);
    // The ids that the crate `downlink` makes have fewer than 40 bytes.
    assert!(EVENT_ID_BYTES_MAX >= 40);
};
