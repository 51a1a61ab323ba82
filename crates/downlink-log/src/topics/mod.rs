//! Topics: their events, their readers, and how topics are created and removed from memory.

pub(crate) mod collected;
pub(crate) mod names;
pub(crate) mod ring;
pub(crate) mod topic;

pub(crate) use collected::{COLLECTED_MAX, Collected};
pub(crate) use names::{TopicSeat, TopicSeats, TopicState, Topics, start_of};
pub(crate) use ring::{Kept, Lost, Ring};
pub(crate) use topic::Topic;
