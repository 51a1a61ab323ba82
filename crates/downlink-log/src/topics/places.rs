//! The topics that a batch goes to: looked up or made, and held against collection.

use std::{collections::HashSet, sync::Arc};

use smallvec::SmallVec;

use crate::{
    address::Address,
    draft::{AppendError, Draft},
    index::Topics,
    log::{Payload, Shared},
    plan::Plan,
    registry::TooManyTopics,
    topic::TopicLog,
};

/// The topics of each draft of a batch, each topic once per draft.
///
/// Those of new events are taken out when the batch gets its offsets. What is left is collected again
/// if nothing came to it: whether the batch was refused, was a repetition, or panicked.
pub(crate) struct Places<'a, P: Payload> {
    shared: &'a Shared<P>,
    pub(crate) topics: SmallVec<[Topics<P>; 1]>,
}

impl<'a, P: Payload> Places<'a, P> {
    /// Looks the topics up, and makes those that are not there.
    pub(crate) fn of<F>(shared: &'a Shared<P>, drafts: &[Draft<F>]) -> Result<Self, AppendError> {
        let mut places = Self { shared, topics: SmallVec::with_capacity(drafts.len()) };
        for (at, draft) in drafts.iter().enumerate() {
            places.topics.push(Topics::new());
            for address in &draft.to {
                let topics_max = shared.options.limits.topics_max;
                let full = |_| AppendError::TooManyTopics { draft: at, topics_max };
                let topic = shared.find_or_create(address).map_err(full)?;
                if let Some(topics) = places.topics.last_mut() {
                    topics.push(topic);
                }
            }
            if let Some(topics) = places.topics.last_mut().filter(|topics| topics.len() > 1) {
                let mut seen = HashSet::with_capacity(topics.len());
                topics.retain(|topic| seen.insert(topic.identity()));
            }
        }
        Ok(places)
    }

    /// The topics of the new drafts, once for each draft.
    fn fresh<'b>(&'b self, plans: &'b [Plan]) -> impl Iterator<Item = &'b Arc<TopicLog<P>>> {
        let fresh = self.topics.iter().zip(plans).filter(|(_, plan)| plan.is_fresh());
        fresh.flat_map(|(topics, _)| topics)
    }

    /// Reserves the rings of all new drafts; `None` if one of the topics was collected.
    pub(crate) fn reserve<'b>(&'b self, plans: &'b [Plan]) -> Option<Reserved<'b, P>> {
        let mut reserved = Reserved { topics: SmallVec::new() };
        for topic in self.fresh(plans) {
            if !topic.ring.write().reserve() {
                return None;
            }
            reserved.topics.push(topic);
        }
        Some(reserved)
    }
}

impl<P: Payload> Drop for Places<'_, P> {
    fn drop(&mut self) {
        self.topics.iter().for_each(|topics| self.shared.collect(topics));
    }
}

/// Rings that an append has chosen. Dropped before [`keep`](Self::keep), they are free again.
pub(crate) struct Reserved<'a, P: Payload> {
    topics: SmallVec<[&'a Arc<TopicLog<P>>; 1]>,
}

impl<P: Payload> Reserved<'_, P> {
    /// Leaves the rings reserved: each will be pushed to, and is not any more then.
    pub(crate) fn keep(mut self) {
        self.topics.clear();
    }
}

impl<P: Payload> Drop for Reserved<'_, P> {
    fn drop(&mut self) {
        self.topics.iter().for_each(|topic| topic.ring.write().unreserve());
    }
}

impl<P: Payload> Shared<P> {
    pub(crate) fn find_or_create(
        &self,
        address: &Address,
    ) -> Result<Arc<TopicLog<P>>, TooManyTopics> {
        if *address == Address::Everyone {
            return Ok(Arc::clone(&self.everyone));
        }
        let found = self.registry.read().find(address);
        match found {
            Some(topic) => Ok(topic),
            None => self.registry.write().find_or_create(address, &self.options),
        }
    }
}
