//! How a hub's values become events. The app chooses the encoding when it builds the hub.

use std::error::Error;

use downlink_proto::Event;

/// The function that makes an event of a value.
pub(super) type Encode<T> = dyn Fn(&T) -> Result<Event, EncodeError> + Send + Sync;

/// A value could not be encoded as an event. The source is the error of the encoding function.
#[derive(Debug, thiserror::Error)]
#[error("the value could not be encoded")]
pub struct EncodeError(#[source] pub(super) Box<dyn Error + Send + Sync>);
