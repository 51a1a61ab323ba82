//! A table of the newest claims, of fixed size.
//!
//! A claim is a hash, and gets a number when it is added. The same hash can be claimed several
//! times. For each hash among the last claims, the table knows the number of its newest claim. When
//! the table is full, the oldest claim makes room for a new one. The table allocates once and never
//! grows.

/// The value of an empty slot.
const EMPTY: u32 = u32::MAX;

/// The newest claims by their hashes.
///
/// Invariant: for each hash in `ring` there is exactly one slot, which contains the place of its
/// newest occurrence. At most half of the slots are used, so a search always ends.
#[derive(Clone, Debug)]
pub(crate) struct ClaimTable {
    /// The last claims. The claim with number `n` is at `n % ring.len()`.
    ring: Box<[u64]>,
    /// Places in `ring`, found by linear probing from the home slot of a hash.
    slots: Box<[u32]>,
    /// The number of claims so far, which is the number of the next claim.
    next: u64,
}

impl ClaimTable {
    pub(crate) fn new(claims_max: usize) -> Self {
        let claims_max = claims_max.max(1);
        let slots = (claims_max * 2).next_power_of_two();
        Self { ring: vec![0; claims_max].into(), slots: vec![EMPTY; slots].into(), next: 0 }
    }

    /// The number of the next claim.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Adds a claim.
    pub(crate) fn add(&mut self, hash: u64) {
        let place = self.place(self.next);
        if self.next >= self.ring.len() as u64 {
            self.remove(place);
        }
        self.ring[place] = hash;
        let slot = self.find(hash);
        self.slots[slot] = place as u32;
        self.next += 1;
    }

    /// The number of the newest claim with this hash, if it is among the last claims.
    pub(crate) fn newest(&self, hash: u64) -> Option<u64> {
        let place = self.slots[self.find(hash)];
        let ring = self.ring.len() as u64;
        (place != EMPTY).then(|| {
            let behind = (self.place(self.next) as u64 + ring - u64::from(place) - 1) % ring + 1;
            self.next - behind
        })
    }

    fn place(&self, number: u64) -> usize {
        (number % self.ring.len() as u64) as usize
    }

    fn home(&self, hash: u64) -> usize {
        (hash % self.slots.len() as u64) as usize
    }

    /// The slot of a hash, or the empty slot where it belongs.
    fn find(&self, hash: u64) -> usize {
        let mut slot = self.home(hash);
        while self.slots[slot] != EMPTY && self.ring[self.slots[slot] as usize] != hash {
            slot = (slot + 1) % self.slots.len();
        }
        slot
    }

    /// Removes the slot of the oldest claim, unless the same hash was claimed again later. The
    /// following slots move up, so that no search ends too early.
    fn remove(&mut self, place: usize) {
        let mut gap = self.find(self.ring[place]);
        if self.slots[gap] != place as u32 {
            return;
        }
        let mut slot = gap;
        loop {
            slot = (slot + 1) % self.slots.len();
            if self.slots[slot] == EMPTY {
                break;
            }
            let home = self.home(self.ring[self.slots[slot] as usize]);
            let distance = |from: usize| (slot + self.slots.len() - from) % self.slots.len();
            if distance(home) >= distance(gap) {
                self.slots[gap] = self.slots[slot];
                gap = slot;
            }
        }
        self.slots[gap] = EMPTY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_agrees_with_a_list_of_all_claims() {
        let mut random = fastrand::Rng::with_seed(3);
        for claims_max in [1, 2, 7, 64] {
            let mut table = ClaimTable::new(claims_max);
            let mut all: Vec<u64> = Vec::new();
            for _ in 0..5_000 {
                let hash = random.u64(0..claims_max as u64 * 3) * 64;
                let newest = all.iter().rposition(|claim| *claim == hash);
                let kept = newest.filter(|number| number + claims_max >= all.len());
                assert_eq!(table.newest(hash), kept.map(|number| number as u64));
                if random.bool() {
                    table.add(hash);
                    all.push(hash);
                }
            }
            assert_eq!(table.next(), all.len() as u64);
        }
    }
}
