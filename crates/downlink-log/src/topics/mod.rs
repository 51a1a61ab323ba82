//! Topics by name: their history, their floors, how they come and go.

pub(crate) mod collect;
pub(crate) mod forgotten;
pub(crate) mod places;
pub(crate) mod registry;
pub(crate) mod ring;
pub(crate) mod topic;
