//! What a store promises, whatever it is made of.

use crate::{Batch, StoreError, Table};
use std::borrow::Cow;
use std::ops::ControlFlow;

/// An ordered key-value store with tables, atomic batches and snapshots.
pub trait Store: Send + Sync {
    /// The store as it is now. Later commits do not change what a snapshot shows, and neither waits for the other.
    ///
    /// # Errors
    /// [`StoreError::ReadersFull`] when too many are open at once, [`StoreError::Lmdb`].
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError>;

    /// Applies the whole batch or nothing of it. When it returns `Ok`, every later snapshot shows the batch, and a
    /// store with a medium has it there with the durability it was opened with.
    ///
    /// # Errors
    /// [`StoreError::KeyLength`], [`StoreError::MapFull`], [`StoreError::DiskFull`], [`StoreError::Lmdb`].
    fn commit(&self, batch: &Batch) -> Result<(), StoreError>;

    /// Entries and bytes of every table, in the order of the tables' numbers.
    ///
    /// # Errors
    /// As [`Store::snapshot`].
    fn stats(&self) -> Result<Vec<TableStats>, StoreError>;
}

/// Is given the key and the value of an entry, and breaks to see no more.
pub type Visitor<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// One unchanging state of a store.
pub trait Snapshot {
    /// The value under `key`, or `None`.
    ///
    /// # Errors
    /// [`StoreError::Lmdb`].
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StoreError>;

    /// Visits the entries with keys from `from` on in ascending order until `visit` breaks.
    ///
    /// # Errors
    /// [`StoreError::Lmdb`].
    fn scan(&self, table: Table, from: &[u8], visit: Visitor<'_>) -> Result<(), StoreError>;

    /// Another view of the very same state, for another thread: what is computed from many reads can then be computed
    /// on several. `None` where none is to be had, for instance since the store has moved on; whoever asks reads on
    /// alone then.
    ///
    /// # Errors
    /// [`StoreError::Lmdb`].
    fn fork(&self) -> Result<Option<Box<dyn Snapshot + Send + '_>>, StoreError> {
        Ok(self.shared().map(|shared| Box::new(Shared(shared)) as _))
    }

    /// The snapshot as one that several threads may read at the same time, `None` if it is for one thread.
    fn shared(&self) -> Option<&(dyn Snapshot + Sync)> {
        None
    }
}

/// A snapshot that several threads read, lent to one more of them.
struct Shared<'s>(&'s (dyn Snapshot + Sync));

impl Snapshot for Shared<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StoreError> {
        self.0.get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], visit: Visitor<'_>) -> Result<(), StoreError> {
        self.0.scan(table, from, visit)
    }

    fn shared(&self) -> Option<&(dyn Snapshot + Sync)> {
        Some(self.0)
    }
}

/// Size of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableStats {
    /// The table.
    pub table: Table,
    /// Number of entries.
    pub entries: u64,
    /// Bytes: of keys and values in memory, of pages in LMDB.
    pub bytes: u64,
}

/// Visits the entries whose keys begin with `prefix`, in ascending order; the whole key is given.
pub(crate) fn scan_prefix(
    snapshot: &dyn Snapshot,
    table: Table,
    prefix: &[u8],
    visit: &mut dyn FnMut(&[u8], &[u8]),
) -> Result<(), StoreError> {
    snapshot.scan(table, prefix, &mut |key, value| {
        if !key.starts_with(prefix) {
            return ControlFlow::Break(());
        }
        visit(key, value);
        ControlFlow::Continue(())
    })
}
