//! Compilations that wait: bounded, the most valuable first.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_primitives::Bytes;
use parking_lot::{Condvar, Mutex};

use super::record::Record;
use crate::compiler::Level;

/// Expected saving per cost, then age.
pub(super) type Rank = (u64, Reverse<u64>);

/// One code to compile.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) record: Arc<Record>,
    /// Shared with the state, not copied.
    pub(super) code: Bytes,
    pub(super) level: Level,
}

#[derive(Debug)]
pub(super) struct Queue {
    limit: usize,
    inner: Mutex<Inner>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    jobs: BTreeMap<Rank, Job>,
    sequence: u64,
    paused: bool,
    ended: bool,
}

/// What became of a job that was offered.
#[derive(Debug)]
pub(super) enum Pushed {
    /// It waits. Another that is worth less may have had to go.
    Waits(Rank, Option<Job>),
    /// All that wait are worth as much or more, or nobody will take it any more.
    Dropped,
}

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            inner: Mutex::default(),
            wake: Condvar::new(),
        }
    }

    pub(super) fn push(&self, value: u64, job: Job) -> Pushed {
        let mut inner = self.inner.lock();
        let mut displaced = None;
        if inner.ended || self.limit == 0 {
            return Pushed::Dropped;
        }
        if inner.jobs.len() >= self.limit {
            match inner.jobs.first_entry() {
                Some(least) if least.key().0 < value => displaced = Some(least.remove()),
                _ => return Pushed::Dropped,
            }
        }
        inner.sequence += 1;
        let rank = (value, Reverse(inner.sequence));
        inner.jobs.insert(rank, job);
        drop(inner);
        self.wake.notify_one();
        Pushed::Waits(rank, displaced)
    }

    /// Gives a job that waits another value. `None` if it waits no more.
    pub(super) fn move_to(&self, rank: Rank, value: u64) -> Option<Rank> {
        let mut inner = self.inner.lock();
        let job = inner.jobs.remove(&rank)?;
        let rank = (value, rank.1);
        inner.jobs.insert(rank, job);
        Some(rank)
    }

    /// Waits for the most valuable job. `None`: the end.
    pub(super) fn pop(&self) -> Option<Job> {
        let mut inner = self.inner.lock();
        loop {
            if inner.ended {
                return None;
            }
            if !inner.paused
                && let Some((_, job)) = inner.jobs.pop_last()
            {
                return Some(job);
            }
            self.wake.wait(&mut inner);
        }
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.inner.lock().paused = paused;
        self.wake.notify_all();
    }

    /// Drops what waits and sends everybody home.
    pub(super) fn end(&self) {
        let mut inner = self.inner.lock();
        inner.ended = true;
        inner.jobs.clear();
        drop(inner);
        self.wake.notify_all();
    }

    pub(super) fn len(&self) -> usize {
        self.inner.lock().jobs.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Key;
    use super::*;
    use alloy_primitives::B256;
    use zvm_runtimes::revm::primitives::hardfork::SpecId;

    fn job(number: u8) -> Job {
        let key = Key {
            hash: B256::repeat_byte(number),
            spec: SpecId::OSAKA,
        };
        Job {
            record: Arc::new(Record::new(key)),
            code: Bytes::new(),
            level: Level::Quick,
        }
    }

    fn number(job: &Job) -> u8 {
        job.record.key.hash[0]
    }

    #[test]
    fn a_full_queue_drops_the_least_valuable() {
        let queue = Queue::new(2);
        assert!(matches!(queue.push(5, job(5)), Pushed::Waits(_, None)));
        assert!(matches!(queue.push(7, job(7)), Pushed::Waits(_, None)));
        assert!(matches!(queue.push(5, job(1)), Pushed::Dropped));
        let Pushed::Waits(_, Some(displaced)) = queue.push(6, job(6)) else {
            panic!("6 is worth more than 5");
        };
        assert_eq!(number(&displaced), 5);
        assert_eq!(queue.len(), 2);
        assert_eq!(queue.pop().map(|job| number(&job)), Some(7));
        assert_eq!(queue.pop().map(|job| number(&job)), Some(6));
    }

    #[test]
    fn what_gets_hotter_while_it_waits_moves_up_and_ties_go_by_age() {
        let queue = Queue::new(4);
        let Pushed::Waits(rank, None) = queue.push(1, job(1)) else {
            panic!("there is room");
        };
        queue.push(3, job(3));
        queue.push(3, job(4));
        assert_eq!(queue.move_to(rank, 9).map(|rank| rank.0), Some(9));
        assert_eq!(queue.move_to(rank, 10), None);
        let order: Vec<_> = (0..3)
            .filter_map(|_| queue.pop())
            .map(|job| number(&job))
            .collect();
        assert_eq!(order, [1, 3, 4]);
    }

    #[test]
    fn the_end_drops_what_waits_and_takes_no_more() {
        let queue = Queue::new(4);
        queue.push(1, job(1));
        queue.end();
        assert!(queue.pop().is_none());
        assert!(matches!(queue.push(1, job(1)), Pushed::Dropped));
        assert_eq!(queue.len(), 0);
    }
}
