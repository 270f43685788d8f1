//! The codes whose gas is counted: at most so many, however many are called.
//!
//! A table of sets of [`WAYS`] records. A code can lie in one set only, chosen by a keyed hash, so that nobody can aim at
//! the set of another. A new code takes the place of the coldest of a full set; each time that happens the set's gas is
//! halved, so that what was warm long ago makes room for what is warm now. Codes that are refused are kept longer, those
//! that wait or run natively are never replaced (queue and cache have their own bounds).

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::record::{Key, Record, Stage};

const WAYS: usize = 8;

type Set = Mutex<[Option<Arc<Record>>; WAYS]>;

#[derive(Debug)]
pub(super) struct Profiles {
    sets: Box<[Set]>,
    hasher: RandomState,
}

/// How much a record is worth keeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    Gas(u64),
    Refusal,
    Pinned,
}

fn worth(record: &Record) -> Worth {
    match record.state.lock().stage {
        Stage::Cold => Worth::Gas(record.interpreted.load(Ordering::Relaxed)),
        Stage::Refused => Worth::Refusal,
        Stage::Waiting(_) | Stage::Ready | Stage::Final => Worth::Pinned,
    }
}

impl Profiles {
    /// Holds `records`, rounded up to full sets.
    pub(super) fn new(records: usize) -> Self {
        Self {
            sets: (0..records.div_ceil(WAYS).max(1))
                .map(|_| Set::default())
                .collect(),
            hasher: RandomState::default(),
        }
    }

    fn set(&self, key: &Key) -> &Set {
        &self.sets[self.hasher.hash_one(key) as usize % self.sets.len()]
    }

    /// The record of a code, if there is one.
    pub(super) fn find(&self, key: &Key) -> Option<Arc<Record>> {
        lookup(&self.set(key).lock(), key)
    }

    /// The record of a code. `None`: all of its set are pinned, which takes more compiled codes than there are sets.
    pub(super) fn find_or_add(&self, key: &Key) -> Option<Arc<Record>> {
        let mut set = self.set(key).lock();
        if let Some(found) = lookup(&set, key) {
            return Some(found);
        }
        let record = Arc::new(Record::new(*key));
        if let Some(free) = set.iter_mut().find(|way| way.is_none()) {
            *free = Some(Arc::clone(&record));
            return Some(record);
        }
        let (coldest, at) = set
            .iter()
            .flatten()
            .enumerate()
            .map(|(at, record)| (worth(record), at))
            .min()?;
        if coldest == Worth::Pinned {
            return None;
        }
        for other in set.iter().flatten() {
            let gas = other.interpreted.load(Ordering::Relaxed);
            other.interpreted.store(gas / 2, Ordering::Relaxed);
        }
        set[at] = Some(Arc::clone(&record));
        Some(record)
    }

    /// Records held.
    pub(super) fn len(&self) -> usize {
        self.sets
            .iter()
            .map(|set| set.lock().iter().flatten().count())
            .sum()
    }
}

fn lookup(set: &[Option<Arc<Record>>; WAYS], key: &Key) -> Option<Arc<Record>> {
    let mut records = set.iter().flatten();
    records.find(|record| record.key == *key).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::{B256, U256};
    use zvm_runtimes::revm::primitives::hardfork::SpecId;

    fn key(number: u64) -> Key {
        Key {
            hash: B256::from(U256::from(number)),
            spec: SpecId::OSAKA,
        }
    }

    #[test]
    fn there_are_never_more_records_than_the_bound() {
        let profiles = Profiles::new(64);
        for number in 0..10_000 {
            assert!(profiles.find_or_add(&key(number)).is_some());
        }
        assert_eq!(profiles.len(), 64);
    }

    #[test]
    fn a_warm_code_outlives_a_crowd_of_cold_ones_and_no_record_is_kept_for_ever() {
        let profiles = Profiles::new(8);
        let warm = profiles.find_or_add(&key(0)).unwrap();
        for number in 1..10_000 {
            // It goes on being used; the others are seen once.
            Record::burn(&warm.interpreted, 1_000);
            profiles.find_or_add(&key(number)).unwrap();
        }
        assert!(Arc::ptr_eq(&warm, &profiles.find_or_add(&key(0)).unwrap()));
        for number in 10_000..10_100 {
            Record::burn(&profiles.find_or_add(&key(number)).unwrap().interpreted, 10);
        }
        assert!(!Arc::ptr_eq(&warm, &profiles.find_or_add(&key(0)).unwrap()));
    }

    #[test]
    fn what_waits_or_runs_natively_is_never_forgotten_and_a_refusal_late() {
        let profiles = Profiles::new(8);
        let refused = profiles.find_or_add(&key(0)).unwrap();
        refused.state.lock().stage = Stage::Refused;
        for number in 1..8 {
            let cold = profiles.find_or_add(&key(number)).unwrap();
            Record::burn(&cold.interpreted, u64::MAX / 2);
        }
        profiles.find_or_add(&key(8)).unwrap();
        assert!(Arc::ptr_eq(
            &refused,
            &profiles.find_or_add(&key(0)).unwrap()
        ));
        for way in profiles.sets[0].lock().iter().flatten() {
            way.state.lock().stage = Stage::Waiting(crate::compiler::Level::Quick);
        }
        assert!(profiles.find_or_add(&key(9)).is_none());
        assert!(Arc::ptr_eq(
            &refused,
            &profiles.find_or_add(&key(0)).unwrap()
        ));
    }

    #[test]
    fn the_same_code_under_another_fork_is_another_record() {
        let profiles = Profiles::new(64);
        let other = Key {
            spec: SpecId::CANCUN,
            ..key(1)
        };
        let one = profiles.find_or_add(&key(1)).unwrap();
        assert!(!Arc::ptr_eq(&one, &profiles.find_or_add(&other).unwrap()));
        assert!(Arc::ptr_eq(&one, &profiles.find_or_add(&key(1)).unwrap()));
    }
}
