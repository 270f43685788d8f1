//! The overlay: the commits that are not in the tables yet, as a list of runs that readers share without a lock.

use super::run::Run;
use crate::Table;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::sync::Arc;

/// Runs of together at most so many entries are combined by the commit that made the last one; longer ones in the
/// background.
const COMBINED_BY_COMMIT: usize = 2048;

/// The runs of one moment, oldest first; each holds the commits after those of the one before.
#[derive(Clone, Default)]
pub(super) struct Runs {
    runs: Vec<Arc<Run>>,
    /// The last commit there is, in the runs or in the tables.
    pub(super) last: u64,
    /// The last commit that a merge, which has begun, moves to the tables: these may show it already.
    pub(super) merging: u64,
}

impl Runs {
    /// What the runs do to a key: `None` nothing, `Some(None)` deletes it.
    #[inline]
    pub(super) fn get(&self, hash: u64, table: Table, key: &[u8]) -> Option<Option<&[u8]>> {
        self.runs
            .iter()
            .rev()
            .find_map(|run| run.get(hash, table, key))
    }

    /// The runs, oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Run> {
        self.runs.iter().map(AsRef::as_ref)
    }

    /// How many runs there are.
    pub(super) const fn len(&self) -> usize {
        self.runs.len()
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> usize {
        self.iter().map(Run::memory).sum()
    }

    /// How many entries the runs have together; a key that is in two counts twice.
    pub(super) fn entries(&self) -> usize {
        self.iter().map(Run::len).sum()
    }

    /// How many of the oldest runs are being merged.
    fn frozen(&self) -> usize {
        self.runs.partition_point(|run| run.last <= self.merging)
    }

    /// Which newest runs to combine so that each run is more than twice as long as all after it: then there are few,
    /// and an entry is copied a logarithmic number of times.
    fn unbalanced(&self) -> Option<&[Arc<Run>]> {
        let free = &self.runs[self.frozen()..];
        let mut start = free.len().checked_sub(1)?;
        let mut entries = free[start].len();
        while start > 0 && free[start - 1].len() <= 2 * entries {
            start -= 1;
            entries += free[start].len();
        }
        (free.len() - start > 1).then(|| &free[start..])
    }
}

/// How the lengths of the runs are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Balance {
    /// As they should be.
    Kept,
    /// They were combined to be.
    Combined,
    /// There are longer ones to combine than was allowed.
    TooLong,
    /// Another thread is at it.
    Busy,
}

/// The published runs and who may change them.
#[derive(Default)]
pub(super) struct Overlay {
    published: ArcSwap<Runs>,
    /// Held while the list is exchanged.
    change: Mutex<()>,
    /// Held while runs are combined or chosen for a merge, so that no two do it to the same ones.
    combine: Mutex<()>,
}

impl Overlay {
    /// An overlay over tables that hold the commits up to `merged`.
    pub(super) fn new(merged: u64) -> Self {
        let overlay = Self::default();
        overlay.change(|runs| {
            runs.last = merged;
            runs.merging = merged;
        });
        overlay
    }

    /// The runs as they are now.
    pub(super) fn load(&self) -> Arc<Runs> {
        self.published.load_full()
    }

    fn change(&self, change: impl FnOnce(&mut Runs)) {
        let _change = self.change.lock();
        let mut runs = Runs::clone(&self.published.load());
        change(&mut runs);
        self.published.store(Arc::new(runs));
    }

    /// Publishes the run of the next commits and combines short ones.
    pub(super) fn push(&self, run: Run) -> Balance {
        self.change(|runs| {
            runs.last = run.last;
            runs.runs.push(Arc::new(run));
        });
        self.combine(COMBINED_BY_COMMIT)
    }

    /// Combines the newest runs if they are out of balance and have at most `limit` entries.
    pub(super) fn combine(&self, limit: usize) -> Balance {
        let Some(_combine) = self.combine.try_lock() else {
            return Balance::Busy;
        };
        let runs = self.load();
        let Some(parts) = runs.unbalanced() else {
            return Balance::Kept;
        };
        if parts.iter().map(|run| run.len()).sum::<usize>() > limit {
            return Balance::TooLong;
        }
        self.replace(parts);
        Balance::Combined
    }

    /// Puts one run in the place of `parts`. Commits that are pushed meanwhile stay behind it.
    fn replace(&self, parts: &[Arc<Run>]) {
        let combined = Arc::new(Run::combine(parts));
        let (first, last) = (combined.first, combined.last);
        self.change(|runs| {
            let start = runs.runs.partition_point(|run| run.last < first);
            let end = runs.runs.partition_point(|run| run.last <= last);
            runs.runs.splice(start..end, [combined]);
        });
    }

    /// Takes the oldest runs of together about `bytes` (at least one) as what is merged next: they are combined into
    /// one, which stays readable and is not changed until [`Overlay::merged`]. `None` if there is none.
    pub(super) fn freeze(&self, bytes: usize) -> Option<Arc<Run>> {
        let _combine = self.combine.lock();
        let runs = self.load();
        let mut taken = 0;
        let mut memory = 0;
        for run in runs.iter() {
            memory += run.memory();
            if taken > 0 && memory > bytes {
                break;
            }
            taken += 1;
        }
        let parts = &runs.runs[..taken];
        let last = parts.last()?.last;
        if parts.len() > 1 {
            self.replace(parts);
        }
        self.change(|runs| runs.merging = last);
        self.load().runs.first().cloned()
    }

    /// Drops the runs whose commits are all in the tables now.
    pub(super) fn merged(&self, up_to: u64) {
        self.change(|runs| runs.runs.retain(|run| run.last > up_to));
    }
}

#[cfg(test)]
mod tests {
    use super::super::run::{Encoded, hash};
    use super::*;
    use crate::Batch;

    fn push(overlay: &Overlay, sequence: u64, key: u32) {
        let mut batch = Batch::new();
        batch.put(
            Table::Codes,
            key.to_be_bytes(),
            sequence.to_be_bytes().to_vec(),
        );
        overlay.push(Encoded::new(&batch).into_run(sequence));
    }

    fn read(runs: &Runs, key: u32) -> Option<u64> {
        let key = key.to_be_bytes();
        let value = runs.get(hash(Table::Codes, &key), Table::Codes, &key)??;
        Some(u64::from_be_bytes(value.try_into().unwrap()))
    }

    #[test]
    fn many_commits_make_few_runs_and_each_list_shows_its_own_moment() {
        let overlay = Overlay::new(0);
        let mut moments = Vec::new();
        for sequence in 1..=1000 {
            push(&overlay, sequence, (sequence % 300) as u32);
            moments.push(overlay.load());
            assert!(overlay.load().len() <= 12);
        }
        for (sequence, runs) in (1..).zip(&moments) {
            assert_eq!(runs.last, sequence);
            assert_eq!(read(runs, (sequence % 300) as u32), Some(sequence));
            let before = sequence.checked_sub(300).filter(|before| *before > 0);
            let next = ((sequence + 1) % 300) as u32;
            assert_eq!(
                read(runs, next),
                before
                    .map(|before| before + 1)
                    .or((sequence == 300).then_some(1))
            );
        }
    }

    #[test]
    fn what_is_frozen_stays_as_it_is_until_it_is_merged() {
        let overlay = Overlay::new(0);
        for sequence in 1..=10 {
            push(&overlay, sequence, sequence as u32);
        }
        let frozen = overlay.freeze(usize::MAX).unwrap();
        assert_eq!((frozen.first, frozen.last, frozen.len()), (1, 10, 10));
        for sequence in 11..=40 {
            push(&overlay, sequence, sequence as u32);
            while overlay.combine(usize::MAX) == Balance::Combined {}
        }
        let before = overlay.load();
        assert!(Arc::ptr_eq(&before.runs[0], &frozen));
        overlay.merged(10);
        let after = overlay.load();
        assert_eq!((read(&before, 3), read(&after, 3)), (Some(3), None));
        assert_eq!((read(&after, 11), read(&after, 40)), (Some(11), Some(40)));
        assert_eq!(after.runs.first().map(|run| run.first), Some(11));
    }
}
