//! State roots of the chain's blocks: while the block executes if it is large, after it if it is small; and within a
//! block where old receipts need them.

use std::mem;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{Scope, ScopedJoinHandle};

use alloy_primitives::B256;
use zvm_runtimes::evm::{BlockState, ReadError};
use zvm_storage::{Batch, Layered, RootTask, Snapshot, StateDiff, StoreError};

use crate::executor::IntermediateRoots;
use crate::view::{new_codes, recent_diff, state_diff};

/// Gas after which a block's root is worked on beside it, and after which the next changes are handed over. An account
/// or a slot costs 5,000 gas to change, so this is some hundreds of them: less is merged after the block in less time
/// than a thread takes to be worth its start.
pub(crate) const GAS_OF_A_PIECE: u64 = 2_000_000;

/// Changed accounts and slots that are worth a merge of their own. Fewer wait for more: what lies near the root of
/// the trie is hashed again for every piece.
const ENTRIES_OF_A_PIECE: usize = 512;

/// Threads from which on the overlap is used. With two it was slower than all threads after the block, on busy cores.
const THREADS_TO_OVERLAP: usize = 3;

/// The state root of one block.
pub struct BlockRoot<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    snapshot: &'env dyn Snapshot,
    /// Gas used when the last changes were handed over.
    handed_over: u64,
    /// No beginning is tried any more: the snapshot has no forks, or someone else asks for what changed.
    stays_alone: bool,
    running: Option<Running<'scope, 'env>>,
}

struct Running<'scope, 'env> {
    pieces: Sender<StateDiff>,
    thread: ScopedJoinHandle<'scope, Result<(RootTask<'env>, StateDiff), StoreError>>,
}

impl core::fmt::Debug for BlockRoot<'_, '_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("BlockRoot")
            .field("running", &self.running.is_some())
            .finish_non_exhaustive()
    }
}

impl<'scope, 'env> BlockRoot<'scope, 'env> {
    /// The root of a block on top of `snapshot`. With `overlap` it may be worked on by a thread of `scope` while the
    /// block executes; then nobody else may call [`BlockState::take_recent`].
    pub fn new(
        scope: &'scope Scope<'scope, 'env>,
        snapshot: &'env dyn Snapshot,
        overlap: bool,
    ) -> Self {
        Self {
            scope,
            snapshot,
            handed_over: 0,
            stays_alone: !overlap || rayon::current_num_threads() < THREADS_TO_OVERLAP,
            running: None,
        }
    }

    /// Is told after each transaction how much gas the block has used; hands over what has changed now and then.
    pub fn executed(
        &mut self,
        gas_used: u64,
        state: &mut BlockState<'_>,
    ) -> Result<(), StoreError> {
        if self.stays_alone || gas_used - self.handed_over < GAS_OF_A_PIECE {
            return Ok(());
        }
        self.handed_over = gas_used;
        if self.running.is_none() {
            let Some(task) = RootTask::new(self.snapshot)? else {
                self.stays_alone = true;
                return Ok(());
            };
            let (pieces, received) = mpsc::channel();
            self.running = Some(Running {
                pieces,
                thread: self.scope.spawn(move || merge_pieces(task, &received)),
            });
        }
        if let Some(running) = &self.running {
            // The thread has only ended if it failed, which is seen at the end.
            let _ = running.pieces.send(recent_diff(state));
        }
        Ok(())
    }

    /// Puts the changes of the whole block into `batch` and gives the root after them.
    pub fn finish(self, state: &mut BlockState<'_>, batch: &mut Batch) -> Result<B256, StoreError> {
        let Some(Running { pieces, thread }) = self.running else {
            return zvm_storage::apply_state(self.snapshot, &state_diff(state), batch);
        };
        drop(pieces);
        let mut recent = recent_diff(state);
        recent.codes = new_codes(state);
        let (task, mut last) = match thread.join() {
            Ok(merged) => merged?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        last.append(recent);
        task.finish(&last, batch)
    }
}

/// Merges pieces as they come, all that have come together, until the block ends. Gives the rest too: it is merged by
/// all threads, which have nothing else to do then.
fn merge_pieces<'s>(
    mut task: RootTask<'s>,
    pieces: &Receiver<StateDiff>,
) -> Result<(RootTask<'s>, StateDiff), StoreError> {
    let mut waiting = StateDiff::default();
    while let Ok(piece) = pieces.recv() {
        waiting.append(piece);
        while let Ok(piece) = pieces.try_recv() {
            waiting.append(piece);
        }
        if waiting.entries() >= ENTRIES_OF_A_PIECE {
            task.merge(&mem::take(&mut waiting))?;
        }
    }
    Ok((task, waiting))
}

/// Roots within a block: each is computed from the one before it and what has changed since.
pub(crate) struct SnapshotRoots<'a> {
    pub(crate) snapshot: &'a dyn Snapshot,
    /// From the snapshot to the state of the last root.
    batch: Batch,
}

impl<'a> SnapshotRoots<'a> {
    /// Roots of a block on top of `snapshot`.
    pub(crate) fn new(snapshot: &'a dyn Snapshot) -> Self {
        Self {
            snapshot,
            batch: Batch::new(),
        }
    }
}

impl IntermediateRoots for SnapshotRoots<'_> {
    fn root(&mut self, state: &mut BlockState<'_>) -> Result<B256, ReadError> {
        let mut changes = Batch::new();
        let before = Layered::new(self.snapshot, &self.batch);
        let root = zvm_storage::apply_state(&before, &recent_diff(state), &mut changes)
            .map_err(ReadError::new)?;
        // One by one: `Batch::append` walks all that is there already.
        for (table, key, value) in changes.iter() {
            match value {
                Some(value) => self.batch.put(table, key, value),
                None => self.batch.delete(table, key),
            }
        }
        Ok(root)
    }
}
