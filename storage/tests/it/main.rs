//! The guarantees of the stores, of the state and of the chain tables, as a user of the crate sees them.

mod chain;
mod crash;
mod history;
mod indexes;
mod lmdb;
mod state;
mod stores;
mod tools;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use zvm_storage::{LmdbOptions, LmdbStore, Snapshot, Store, Table};

/// All entries of all tables.
fn dump(store: &dyn Store) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
    let snapshot = store.snapshot().unwrap();
    Table::all()
        .flat_map(|table| rows(snapshot.as_ref(), table))
        .collect()
}

fn rows(snapshot: &dyn Snapshot, table: Table) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    snapshot
        .scan(table, &[], &mut |key, value| {
            // The schema version is LMDB's own: memory has no file that another version could open.
            if (table, key) != (Table::Meta, b"schema") {
                rows.push((table, key.to_vec(), value.to_vec()));
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    rows
}

/// A small store in a folder of its own.
fn open(path: &std::path::Path) -> LmdbStore {
    LmdbStore::open(LmdbOptions {
        map_size: 1 << 30,
        ..LmdbOptions::new(path)
    })
    .unwrap()
}

/// Ends the other threads of a test however its owner ends.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
