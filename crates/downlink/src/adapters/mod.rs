//! The traits of web frameworks, implemented for the types of this crate.
//!
//! Each framework has one module, behind a feature with the framework's name. The module only calls
//! the methods of other modules.

#[cfg(feature = "axum")]
pub mod axum;
mod frames;
mod subscription;

pub use frames::{AsPublished, SubscriptionFrames, ToFrame};
#[cfg(feature = "access")]
pub(crate) use subscription::sentence;
