//! A second read transaction on what a snapshot shows, for another thread.

use super::{LmdbSnapshot, LmdbStore, failed};
use crate::{Snapshot, StoreError, Table, Visitor};
use ::lmdb::{Error, RoTransaction, Transaction};
use std::borrow::Cow;

/// A snapshot that may be sent to another thread. It is borrowed from the snapshot it was forked from, whose pass
/// keeps the map where it is; so it holds none of its own, which would belong to its thread.
struct LmdbFork<'a>(LmdbSnapshot<'a>);

// SAFETY: every environment of this crate is opened with `NO_TLS`, which ties a read transaction to its handle and not
// to a thread. The fork is not `Sync`, so one thread at a time uses it. The snapshot inside has no pass, its other
// field is a reference to a store, which is `Sync`.
#[allow(unsafe_code)]
unsafe impl Send for LmdbFork<'_> {}

/// Begins another transaction on the state that `snapshot` shows; `None` if the store has moved on, or has no slot
/// for one more reader.
pub(super) fn fork<'a>(
    snapshot: &'a LmdbSnapshot<'_>,
) -> Result<Option<Box<dyn Snapshot + Send + 'a>>, StoreError> {
    let store: &'a LmdbStore = snapshot.store;
    let transaction = match store.map.environment.begin_ro_txn() {
        Ok(transaction) => transaction,
        Err(Error::ReadersFull) => return Ok(None),
        Err(error) => return Err(failed("fork a snapshot")(error)),
    };
    if version(&transaction) != version(&snapshot.transaction) {
        return Ok(None);
    }
    Ok(Some(Box::new(LmdbFork(LmdbSnapshot {
        transaction,
        store,
        _pass: None,
    }))))
}

/// The number of the write transaction whose result is read: two of one number read the same pages.
#[allow(unsafe_code)]
fn version(transaction: &RoTransaction<'_>) -> usize {
    // SAFETY: the transaction is open for as long as it is borrowed, and the call only reads its number.
    unsafe { lmdb_sys::mdb_txn_id(transaction.txn()) }
}

impl Snapshot for LmdbFork<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StoreError> {
        self.0.get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], visit: Visitor<'_>) -> Result<(), StoreError> {
        self.0.scan(table, from, visit)
    }

    fn fork(&self) -> Result<Option<Box<dyn Snapshot + Send + '_>>, StoreError> {
        self.0.fork()
    }
}
