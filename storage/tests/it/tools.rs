//! Migration, verification, export, import and compaction.

mod v1;

use crate::history::commit_block;
use crate::state::diffs;
use crate::{dump, open};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::path::Path;
use zvm_storage::{
    Batch, DumpError, LmdbOptions, LmdbStore, LogQuery, MemoryStore, Retention, Role, Store,
    StoreError, Table, TransactionLocation, deployment, export, matching_blocks, put_meta,
    retained, transactions_of, verify,
};

/// The data file of a store of schema version 1: what `v1::write` writes, by the library of commit 76f64bc, after which
/// the version became 2; compressed with zstd.
const V1_DATA: &[u8] = include_bytes!("../data/v1.mdb.zst");

fn options(path: &Path) -> LmdbOptions {
    LmdbOptions {
        map_size: 1 << 30,
        ..LmdbOptions::new(path)
    }
}

fn v1_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let data = zstd::decode_all(V1_DATA).unwrap();
    std::fs::write(folder.path().join("data.mdb"), data).unwrap();
    std::fs::write(folder.path().join("zvm.lock"), "zvm-storage\n").unwrap();
    folder
}

fn format(code: &[u8]) -> u8 {
    u8::from(code.starts_with(b"\0asm")) * 3
}

#[test]
fn a_store_of_version_1_is_refused_by_name_and_migrated_whole() {
    let folder = v1_folder();
    let data = || std::fs::read(folder.path().join("data.mdb")).unwrap();
    let before = data();
    let error = LmdbStore::open(options(folder.path())).err().unwrap();
    // The version that wrote it can still be used.
    assert!(data() == before);
    assert!(
        matches!(
            error,
            StoreError::SchemaVersion {
                found: 1,
                expected: 2,
                ..
            }
        ) && error.to_string().contains("zvm db migrate"),
        "{error}"
    );
    let migrated = LmdbStore::migrate(options(folder.path()), &format).unwrap();
    assert_eq!((migrated.from, migrated.to), (1, 2));
    assert_eq!(migrated.blocks, v1::BLOCKS);

    let store = open(folder.path());
    let snapshot = store.snapshot().unwrap();
    let found = verify(snapshot.as_ref(), None).unwrap();
    assert_eq!(found.faults, []);
    let head = v1::BLOCKS - 1;
    let kept = retained(snapshot.as_ref()).unwrap();
    assert_eq!((kept.state, kept.blocks), (head, 0));
    // The indexes are those that this version writes with the same blocks.
    let again = MemoryStore::new();
    v1::write(&again);
    let mut compared = 0;
    for (one, other) in Table::all().map(|table| {
        let again = again.snapshot().unwrap();
        let rows = |snapshot: &dyn zvm_storage::Snapshot| match table {
            Table::Meta | Table::Contracts => Vec::new(),
            table => crate::rows(snapshot, table),
        };
        (rows(snapshot.as_ref()), rows(again.as_ref()))
    }) {
        compared += one.len();
        assert_eq!(one, other);
    }
    assert!(compared > 500, "{compared}");
    let query = LogQuery {
        addresses: vec![v1::EMITTER],
        ..LogQuery::default()
    };
    let blocks = matching_blocks(snapshot.as_ref(), &query, 0, head).count();
    assert_eq!(blocks as u64, head);
    let start = TransactionLocation { block: 0, index: 0 };
    let sent = transactions_of(snapshot.as_ref(), Role::Sender, &v1::SENDER, start, 999).unwrap();
    assert_eq!(sent.len() as u64, head * v1::TRANSACTIONS);
    let contract = deployment(snapshot.as_ref(), &v1::CONTRACT, head).unwrap();
    let contract = contract.unwrap();
    assert_eq!((contract.block, contract.format), (1, 3));
    assert_eq!(contract.creation.unwrap().deployer, v1::SENDER);
    drop(snapshot);
    drop(store);

    let again = LmdbStore::migrate(options(folder.path()), &format).unwrap();
    assert_eq!((again.from, again.blocks), (2, 0));
}

#[test]
fn a_migration_that_was_interrupted_is_started_again() {
    let (whole, cut) = (v1_folder(), v1_folder());
    LmdbStore::migrate(options(whole.path()), &format).unwrap();
    let calls = std::cell::Cell::new(0);
    let interrupted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        LmdbStore::migrate(options(cut.path()), &|_| {
            calls.set(calls.get() + 1);
            panic!("the process ends here")
        })
    }));
    assert!(interrupted.is_err() && calls.get() == 1);
    LmdbStore::migrate(options(cut.path()), &format).unwrap();
    assert_eq!(dump(&open(whole.path())), dump(&open(cut.path())));
}

/// A store with some blocks of everything.
fn fill(store: &dyn Store, blocks: usize, retention: &Retention) {
    let mut runner = TestRunner::deterministic();
    for _ in 0..blocks {
        let diff = diffs().new_tree(&mut runner).unwrap().current();
        commit_block(store, &diff, retention);
    }
    let mut batch = Batch::new();
    put_meta(&mut batch, "name", b"value");
    store.commit(&batch).unwrap();
}

const PRUNED: Retention = Retention {
    state: Some(7),
    blocks: Some(5),
};

#[test]
fn a_whole_store_verifies_and_each_single_fault_is_found_and_named() {
    for retention in [Retention::ARCHIVE, PRUNED] {
        let store = MemoryStore::new();
        fill(&store, 20, &retention);
        let found = verify(store.snapshot().unwrap().as_ref(), None).unwrap();
        assert_eq!(found.faults, []);
        for kind in [
            "accounts",
            "slots",
            "trie nodes",
            "headers",
            "transactions",
            "changes",
        ] {
            assert!(found.checked[kind] > 0, "{kind}");
        }
        let states = retention.state.unwrap_or(19);
        assert_eq!(found.checked["state roots"], 1 + states);
        let rows = dump(&store);
        let mut damaged = 0;
        let mut runner = TestRunner::deterministic();
        for (table, key, value) in &rows {
            // What no block and no state decides cannot be found out.
            let free = matches!(table, Table::Abis | Table::Contracts)
                || *table == Table::Meta && key != b"head";
            // A sample keeps the time short; every table has its share.
            let chosen = any::<u8>().new_tree(&mut runner).unwrap().current() < 40;
            if free || !chosen {
                continue;
            }
            let faulty = |batch: &mut dyn FnMut(&mut Batch)| {
                let store = store.fork();
                let mut writes = Batch::new();
                batch(&mut writes);
                store.commit(&writes).unwrap();
                let snapshot = store.snapshot().unwrap();
                match verify(snapshot.as_ref(), None) {
                    Ok(found) => found.fault_count > 0 && !found.faults.is_empty(),
                    Err(error) => panic!("{error}"),
                }
            };
            assert!(
                faulty(&mut |batch| batch.delete(*table, key.clone())),
                "{table} {key:?} deleted"
            );
            let mut more = key.clone();
            more.push(1);
            if *table != Table::Meta {
                assert!(
                    faulty(&mut |batch| batch.put(*table, more.clone(), value.clone())),
                    "{table} {more:?} added"
                );
            }
            // Receipts are compared with their header only where the header has their root.
            if !value.is_empty() && *table != Table::Receipts {
                let mut other = value.clone();
                let last = other.len() - 1;
                other[last] ^= 1;
                assert!(
                    faulty(&mut |batch| batch.put(*table, key.clone(), other.clone())),
                    "{table} {key:?} changed"
                );
            }
            damaged += 1;
        }
        assert!(damaged > 100, "{damaged}");
    }
}

#[test]
fn an_export_restores_every_entry_of_every_table() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store"));
    fill(&store, 30, &PRUNED);
    let mut stream = Vec::new();
    let written = export(store.snapshot().unwrap().as_ref(), &mut stream).unwrap();
    assert_eq!(written.bytes, stream.len() as u64);
    let target = folder.path().join("copy");
    let read = LmdbStore::restore(options(&target), &mut &stream[..]).unwrap();
    assert_eq!(read, written);
    let copy = open(&target);
    assert_eq!(dump(&copy), dump(&store));
    assert_eq!(dump(&copy).len() as u64, written.rows);
    assert!(!folder.path().join("copy.partial").exists());
    let mut again = Vec::new();
    export(copy.snapshot().unwrap().as_ref(), &mut again).unwrap();
    assert_eq!(again, stream);
    drop(copy);
    let error = LmdbStore::restore(options(&target), &mut &stream[..]).unwrap_err();
    assert!(error.to_string().contains("empty or not there"), "{error}");
}

#[test]
fn a_damaged_or_cut_export_is_refused_and_leaves_nothing() {
    let store = MemoryStore::new();
    fill(&store, 4, &Retention::ARCHIVE);
    let mut stream = Vec::new();
    export(store.snapshot().unwrap().as_ref(), &mut stream).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("store");
    let mut refused = 0;
    let mut refuse = |stream: &[u8]| {
        let error = LmdbStore::restore(options(&target), &mut &stream[..]).unwrap_err();
        assert!(matches!(error, DumpError::Malformed { .. }), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        refused += 1;
    };
    for length in (0..stream.len()).step_by(997) {
        refuse(&stream[..length]);
    }
    for at in (0..stream.len()).step_by(1009) {
        let mut other = stream.clone();
        other[at] ^= 0x10;
        refuse(&other);
    }
    let mut longer = stream.clone();
    longer.push(0);
    refuse(&longer);
    assert!(refused > 20, "{refused}");
}

#[test]
fn a_compacted_store_holds_the_same_in_a_smaller_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    fill(&store, 60, &PRUNED);
    // Pages that are given back and that no later commit uses.
    let mut batch = Batch::new();
    for key in 0..2_000_u32 {
        batch.put(Table::Codes, key.to_be_bytes(), vec![7; 500]);
    }
    store.commit(&batch).unwrap();
    let mut batch = Batch::new();
    for key in 0..2_000_u32 {
        batch.delete(Table::Codes, key.to_be_bytes());
    }
    store.commit(&batch).unwrap();
    let before = dump(&store);
    let error = LmdbStore::compact(options(folder.path())).unwrap_err();
    assert!(matches!(error, StoreError::AlreadyOpen { .. }), "{error}");
    drop(store);
    let compacted = LmdbStore::compact(options(folder.path())).unwrap();
    assert!(compacted.after < compacted.before / 2, "{compacted:?}");
    assert_eq!(compacted.entries, before.len() as u64 + 1);
    let store = open(folder.path());
    assert_eq!(dump(&store), before);
    // And it goes on.
    fill(&store, 3, &PRUNED);
    assert!(!folder.path().join("compact.tmp").exists());
}
