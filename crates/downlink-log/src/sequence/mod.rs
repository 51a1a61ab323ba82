//! Turns drafts, which are events without an offset, into events: finds out which drafts are new,
//! gives them offsets, and pushes them into the history.

pub(crate) mod batch;
pub(crate) mod decode;
pub(crate) mod draft;
pub(crate) mod ids;
pub(crate) mod keys;
pub(crate) mod plan;
pub(crate) mod publisher_ids;
pub(crate) mod sequencer;

pub(crate) use batch::{Assigned, DraftTopics, Fresh, Plans, Repeat};
pub(crate) use decode::{Decode, OnUnreadable, PayloadDecoder, Stored};
pub(crate) use draft::{Answers, AppendError, Appended, Draft, Drafts};
pub(crate) use ids::{CUT_IDS_MAX, Epochs, LostEnd};
pub(crate) use keys::KeyWindow;
pub(crate) use plan::{Earlier, plan, stored};
pub(crate) use publisher_ids::{PublisherId, PublisherIds};
pub(crate) use sequencer::{Sequencer, Wakes, matched};
