//! How a hub's values become events. Chosen when the hub is made; nothing is guessed.

use std::error::Error;

use downlink_proto::Event;

/// The function that makes an event of a value.
pub(super) type Encode<T> = dyn Fn(&T) -> Result<Event, EncodeError> + Send + Sync;

/// A value could not be made into an event. The encoder's own error is the source.
#[derive(Debug, thiserror::Error)]
#[error("the value could not be encoded")]
pub struct EncodeError(#[source] pub(super) Box<dyn Error + Send + Sync>);
