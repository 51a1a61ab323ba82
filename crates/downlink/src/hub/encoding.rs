//! How a hub's values become events. Chosen when the hub is made; nothing is guessed.

use std::error::Error;

use downlink_proto::Event;

type Encode<T> = dyn Fn(&T) -> Result<Event, EncodeError> + Send + Sync;

pub(super) struct Encoding<T>(Box<Encode<T>>);

impl<T> Encoding<T> {
    pub(super) fn new<E: Error + Send + Sync + 'static>(
        encode: impl Fn(&T) -> Result<Event, E> + Send + Sync + 'static,
    ) -> Self {
        Self(Box::new(move |value| encode(value).map_err(|error| EncodeError(Box::new(error)))))
    }

    pub(super) fn encode(&self, value: &T) -> Result<Event, EncodeError> {
        (self.0)(value)
    }
}

/// A value could not be made into an event. The encoder's own error is the source.
#[derive(Debug, thiserror::Error)]
#[error("the value could not be encoded")]
pub struct EncodeError(#[source] pub(super) Box<dyn Error + Send + Sync>);
