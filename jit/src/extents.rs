//! Which parts of a range are free: best fit, neighbours joined.

use std::collections::{BTreeMap, BTreeSet};

/// Free parts of a range. Numbers are granules, whatever a granule is.
#[derive(Debug, Clone)]
pub(crate) struct Extents {
    /// Start to length; no two touch.
    by_start: BTreeMap<u32, u32>,
    /// (length, start) of the same.
    by_length: BTreeSet<(u32, u32)>,
}

impl Extents {
    /// All of `0..length` is free.
    pub(crate) fn new(length: u32) -> Self {
        let mut extents = Self {
            by_start: BTreeMap::new(),
            by_length: BTreeSet::new(),
        };
        extents.insert(0, length);
        extents
    }

    /// Takes `length` out of the smallest free part that holds it, among equals out of the first: what is large stays
    /// whole, and what was never used stays so as long as there are holes. Returns the start.
    pub(crate) fn take(&mut self, length: u32) -> Option<u32> {
        let (found, start) = *self.by_length.range((length.max(1), 0)..).next()?;
        self.remove(start, found);
        self.insert(start + length, found - length);
        Some(start)
    }

    /// Gives a part back. Returns (start, length) of the free part that it belongs to now.
    pub(crate) fn give(&mut self, start: u32, length: u32) -> (u32, u32) {
        let (mut first, mut end) = (start, start + length);
        if let Some((before, size)) = self.by_start.range(..start).next_back() {
            let (before, size) = (*before, *size);
            debug_assert!(before + size <= start, "given back twice");
            if before + size == start {
                self.remove(before, size);
                first = before;
            }
        }
        if let Some(size) = self.by_start.get(&end).copied() {
            self.remove(end, size);
            end += size;
        }
        self.insert(first, end - first);
        (first, end - first)
    }

    fn insert(&mut self, start: u32, length: u32) {
        if length > 0 {
            self.by_start.insert(start, length);
            self.by_length.insert((length, start));
        }
    }

    fn remove(&mut self, start: u32, length: u32) {
        self.by_start.remove(&start);
        self.by_length.remove(&(length, start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_never_overlap_and_all_comes_back(
            steps in prop::collection::vec((1u32..40, any::<prop::sample::Index>(), any::<bool>()), 1..200)
        ) {
            const LENGTH: u32 = 400;
            let mut extents = Extents::new(LENGTH);
            let mut taken: Vec<(u32, u32)> = Vec::new();
            for (length, index, give) in steps {
                if give && !taken.is_empty() {
                    let (start, length) = taken.swap_remove(index.index(taken.len()));
                    let (first, whole) = extents.give(start, length);
                    prop_assert!(first <= start && start + length <= first + whole);
                } else if let Some(start) = extents.take(length) {
                    prop_assert!(start + length <= LENGTH);
                    for (other, size) in &taken {
                        prop_assert!(start + length <= *other || other + size <= start);
                    }
                    taken.push((start, length));
                }
                let free: u32 = extents.by_start.values().sum();
                let used: u32 = taken.iter().map(|(_, length)| length).sum();
                prop_assert_eq!(free + used, LENGTH);
                prop_assert_eq!(extents.by_start.len(), extents.by_length.len());
            }
            for (start, length) in taken {
                extents.give(start, length);
            }
            prop_assert_eq!(extents.by_start.into_iter().collect::<Vec<_>>(), [(0, LENGTH)]);
        }
    }

    #[test]
    fn the_smallest_hole_that_fits_is_taken() {
        let mut extents = Extents::new(100);
        let parts: Vec<u32> = (0..10).map(|_| extents.take(10).unwrap()).collect();
        assert_eq!(extents.take(1), None);
        extents.give(parts[1], 10);
        extents.give(parts[4], 10);
        extents.give(parts[5], 10);
        assert_eq!(extents.take(8), Some(10));
        assert_eq!(extents.take(20), Some(40));
        assert_eq!(extents.take(2), Some(18));
        assert_eq!(extents.take(1), None);
    }
}
