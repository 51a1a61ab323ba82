//! Finds the hole in the wanted topics: the range in which events were evicted. For this purpose,
//! the module reads the floors of these topics. The floor of a topic is the offset after its last
//! evicted event. Each call reads a bounded number of rows.
//!
//! A complete walk over the floors has two parts, because topics may evict events during the walk.
//! The first part reads all topics in the order of their floors, from the highest floor down.
//! Evictions are numbered in order, so evictions during the walk have higher numbers than all
//! earlier evictions. The second part reads the topics with these higher numbers, in rising order.
//! Later calls continue after the highest number that was read.
//!
//! A hole usually ends right before the highest floor of the wanted topics. There is one exception.
//! Suppose that the replay wants the topics A and B, and that an event belongs to both. It is the
//! last event that A has evicted, but B still keeps it. The reader gets the event from B, so the
//! event is not missing. For this case, each topic also has a lower floor: the offset after its
//! second to last evicted event. The hole of A then ends right before the lower floor of A. When B
//! evicts the event too, the floor of B rises above the event. This eviction of B has a new number,
//! so a later call finds the new floor of B.

use downlink_log::Offset;

use crate::{
    fault::Result,
    sql::{TopicEvictions, column, meta},
};

use super::target::{ReplayTopics, Snapshot};

/// A position in an index of topics: a floor or an eviction number, and the number of a topic. The
/// walk has read all entries up to this position.
type IndexPosition = (i64, i64);

/// The topics after a position, from the highest floor down. Many topics may have the same floor,
/// so the query also compares topic numbers.
pub(super) const FLOORS_DOWN: &str = "
    SELECT floor, floor_at, lower_floor, evicted, number, kind, name FROM topics
    WHERE floor <> 1 AND floor = ?1 AND number < ?2
    UNION ALL
    SELECT floor, floor_at, lower_floor, evicted, number, kind, name FROM topics
    WHERE floor <> 1 AND floor < ?1
    ORDER BY floor DESC, number DESC";

/// The topics after a position, from the lowest eviction number up. Many topics may have the same
/// eviction number, so the query also compares topic numbers.
pub(super) const EVICTIONS_UP: &str = "
    SELECT floor, floor_at, lower_floor, evicted, number, kind, name FROM topics
    WHERE evicted <> 0 AND evicted = ?1 AND number > ?2
    UNION ALL
    SELECT floor, floor_at, lower_floor, evicted, number, kind, name FROM topics
    WHERE evicted <> 0 AND evicted > ?1
    ORDER BY evicted, number";

/// A walk over the floors and evictions, which continues from call to call.
#[derive(Debug)]
pub(crate) struct FloorWalk {
    /// The walk ignores evictions up to this number.
    after: u64,
    /// The value of [`TopicEvictions::forgotten`] at the last call; `None` before the first call.
    forgotten: Option<TopicEvictions>,
    /// Whether the walk is in its first part, which reads the floors from the highest down.
    is_down: bool,
    floors: IndexPosition,
    evictions: IndexPosition,
}

impl FloorWalk {
    pub(super) fn new(after: u64) -> Self {
        let (floors, evictions) = ((i64::MAX, i64::MAX), (column(after), i64::MAX));
        Self { after, forgotten: None, is_down: after == 0, floors, evictions }
    }

    /// Continues the walk. Calls `each` for each wanted topic with a floor above `least`. The
    /// result of `each` is the new `least`. Returns `true` if the walk is complete, and `false` if
    /// this call may read no more rows.
    pub(super) fn advance<'a>(
        &mut self,
        snapshot: &mut Snapshot<'a>,
        mut least: u64,
        mut each: impl FnMut(&mut Snapshot<'a>, TopicEvictions) -> Result<u64>,
    ) -> Result<bool> {
        for evicted in self.listed(snapshot, least)? {
            if evicted.floor.offset.get() > least && evicted.number > self.after {
                least = each(snapshot, evicted)?;
            }
        }
        for is_down in [true, false] {
            let (sql, place) = match is_down {
                true if !self.is_down => continue,
                true => (FLOORS_DOWN, &mut self.floors),
                false => (EVICTIONS_UP, &mut self.evictions),
            };
            let mut select = snapshot.db.prepare_cached(sql)?;
            let mut rows = select.query(*place)?;
            while let Some(row) = rows.next()? {
                let evicted =
                    TopicEvictions::new((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
                let (floor, topic) = (evicted.floor.offset.get(), row.get(4)?);
                if is_down && floor <= least {
                    break;
                }
                if snapshot.rows_left == 0 {
                    return Ok(false);
                }
                snapshot.spend(1);
                let (kind, name): (i64, String) = (row.get(5)?, row.get(6)?);
                let is_wanted = match &*snapshot.target {
                    ReplayTopics::Few(few) => few.contains(topic),
                    ReplayTopics::Many(_) => snapshot.wants.matches(kind, &name),
                };
                if is_wanted && floor > least {
                    least = each(snapshot, evicted)?;
                }
                *place = (column(if is_down { floor } else { evicted.number }), topic);
            }
            self.is_down = false;
        }
        Ok(true)
    }

    /// Returns the floors that can be read without a walk. If the replay has a list of its topics,
    /// these are the floors of the listed topics. All topic names without a row in `topics` share
    /// one floor. If a wanted name may have no row, the result has this shared floor too. The first
    /// call returns all these floors. A later call returns them again only if the shared floor has
    /// changed and is above `least`.
    fn listed(&mut self, snapshot: &mut Snapshot<'_>, least: u64) -> Result<Vec<TopicEvictions>> {
        let forgotten = TopicEvictions::forgotten(snapshot.db)?;
        let is_first = self.forgotten.is_none();
        let changed = self.forgotten.replace(forgotten) != Some(forgotten);
        if !(is_first || changed && forgotten.floor.offset.get() > least) {
            return Ok(Vec::new());
        }
        let is_few = matches!(snapshot.target, ReplayTopics::Few(_));
        if is_first && (is_few || self.is_down) {
            self.evictions.0 = meta(snapshot.db, "evictions")?;
            self.is_down &= !is_few;
        }
        let listed = match &*snapshot.target {
            ReplayTopics::Few(few) => few.evicted(snapshot.db, snapshot.wants)?,
            ReplayTopics::Many(_) => vec![forgotten],
        };
        snapshot.spend(listed.len());
        Ok(listed)
    }
}

/// The search for the hole at or above `from`. It ignores evictions with a number up to `after`.
#[derive(Debug)]
pub(crate) struct Holes {
    from: u64,
    after: u64,
    /// The offset after the highest hole found so far.
    below: u64,
    walk: FloorWalk,
}

impl Holes {
    pub(super) fn new(from: u64, after: u64) -> Self {
        Self { from, after, below: 0, walk: FloorWalk::new(after) }
    }

    /// Whether a search with these values can continue this search.
    pub(super) fn is_continued_by(&self, from: u64, after: u64) -> bool {
        self.after == after && self.from <= from
    }

    /// Reads the floors that have changed. Returns `None` if the search is not complete after this
    /// call. If the search is complete, returns the last offset of the hole at or above `from`, or
    /// `Some(None)` if there is no hole. The hole may end higher than in the last call.
    pub(super) fn look(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        from: u64,
    ) -> Result<Option<Option<Offset>>> {
        let Self { below, walk, .. } = self;
        self.from = from;
        let complete = walk.advance(snapshot, from.max(*below), |snapshot, evicted| {
            let floor = evicted.floor.offset.get();
            let is_kept = snapshot.keeps(floor - 1)?;
            *below = (*below).max(if is_kept { evicted.lower_floor } else { floor });
            Ok(from.max(*below))
        })?;
        let hole = (*below > from).then(|| Offset::new(*below - 1));
        Ok(complete.then_some(hole))
    }
}
