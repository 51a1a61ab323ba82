//! The traits of web frameworks, implemented for the types of this crate.
//!
//! Each framework has one file, behind a feature of its name. No behaviour lives here.

#[cfg(feature = "axum")]
pub mod axum;
mod subscription;

pub use subscription::{AsPublished, SubscriptionFrames, ToFrame};
