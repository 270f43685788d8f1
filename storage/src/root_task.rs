//! A state root that is computed while its block still executes.

use crate::readers::Readers;
use crate::state::{PARALLEL_ENTRIES, merge, merge_parallel};
use crate::stored_trie::Together;
use crate::{Batch, Layered, Snapshot, StateDiff, StoreError};
use alloy_primitives::B256;
use std::mem;

/// The state after a block, merged piece by piece while the block executes, and as a whole at its end.
///
/// Each piece is what some transactions did, on top of the pieces before. Most accounts and slots change in one of
/// them only, so that at the end their nodes are read, hashed and encoded already; what is done again are the few nodes
/// near the roots. The task may be sent to another thread. The writes and the root are, once committed, those of
/// [`crate::apply_state`] with the whole diff.
///
/// Memory: the writes of the pieces, which are at most those of the block and of what it undid again.
pub struct RootTask<'s> {
    /// For the pieces, which one thread merges.
    own: Box<dyn Snapshot + Send + 's>,
    /// For the last piece.
    readers: Option<Readers<'s>>,
    batch: Batch,
}

impl<'s> RootTask<'s> {
    /// A task on top of `snapshot`; `None` if the snapshot has no forks.
    ///
    /// # Errors
    /// [`StoreError::Lmdb`].
    pub fn new(snapshot: &'s dyn Snapshot) -> Result<Option<Self>, StoreError> {
        let Some(own) = snapshot.fork()? else {
            return Ok(None);
        };
        Ok(Some(Self {
            own,
            readers: Readers::of(snapshot)?,
            batch: Batch::new(),
        }))
    }

    /// Merges what transactions did on top of all pieces so far, on this thread: the others execute the block.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::Lmdb`]; the task is then of no more use.
    pub fn merge(&mut self, piece: &StateDiff) -> Result<B256, StoreError> {
        let own = &*self.own;
        let (root, writes) = if self.batch.is_empty() {
            merge(own, piece)?
        } else {
            merge(&Layered::new(own, &self.batch), piece)?
        };
        writes.put(&mut self.batch);
        Ok(root)
    }

    /// Merges the last piece, on all threads of the current pool if it is large, and puts the writes of all pieces
    /// into `batch`. Gives the state root.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::Lmdb`]; `batch` is then as it was.
    pub fn finish(mut self, last: &StateDiff, batch: &mut Batch) -> Result<B256, StoreError> {
        let together = self.readers.as_ref().map(|readers| Together {
            readers,
            above: Some(&self.batch),
        });
        let root = match together {
            Some(reads) if last.entries() >= PARALLEL_ENTRIES => {
                let (root, writes) = merge_parallel(reads, last)?;
                writes.put(&mut self.batch);
                root
            }
            _ => self.merge(last)?,
        };
        let writes = mem::take(&mut self.batch);
        if batch.is_empty() {
            *batch = writes;
        } else {
            batch.append(writes);
        }
        Ok(root)
    }
}
