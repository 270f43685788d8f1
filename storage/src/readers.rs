//! Reads of one state from all threads of a pool.

use crate::{Batch, Layered, Snapshot, StoreError};
use parking_lot::Mutex;

/// Forks of one snapshot, one a thread of the pool.
pub(crate) struct Readers<'a> {
    /// A thread takes the fork of its own index, so that the locks are never waited for.
    forks: Vec<Mutex<Box<dyn Snapshot + Send + 'a>>>,
}

impl<'a> Readers<'a> {
    /// A fork for each thread of the current pool; `None` where the pool has one thread or the snapshot no forks.
    pub(crate) fn of(snapshot: &'a dyn Snapshot) -> Result<Option<Self>, StoreError> {
        match rayon::current_num_threads() {
            0 | 1 => Ok(None),
            threads => Self::with_threads(snapshot, threads),
        }
    }

    /// `threads` forks; `None` where the snapshot has none.
    pub(crate) fn with_threads(
        snapshot: &'a dyn Snapshot,
        threads: usize,
    ) -> Result<Option<Self>, StoreError> {
        let mut forks = Vec::with_capacity(threads);
        for _ in 0..threads {
            let Some(fork) = snapshot.fork()? else {
                return Ok(None);
            };
            forks.push(Mutex::new(fork));
        }
        Ok(Some(Self { forks }))
    }

    /// Reads with the fork of this thread, `batch` laid over it. `read` must not wait for other work of the pool: the
    /// pool might do that work on this thread, which holds the fork.
    pub(crate) fn with<R>(
        &self,
        batch: Option<&Batch>,
        read: impl FnOnce(&dyn Snapshot) -> R,
    ) -> R {
        let index = rayon::current_thread_index().unwrap_or(0) % self.forks.len();
        let fork = self.forks[index].lock();
        match batch {
            Some(batch) => read(&Layered::new(&**fork, batch)),
            None => read(&**fork),
        }
    }
}
