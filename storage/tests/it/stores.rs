use crate::{dump, open, open_journaled};
use proptest::collection::vec;
use proptest::prelude::*;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use zvm_storage::{Batch, Layered, MemoryStore, Snapshot, Store, StoreError, Table, TableStats};

/// Runs a check on an empty store of each kind.
fn on_all(check: impl Fn(&dyn Store)) {
    check(&MemoryStore::new());
    let folder = tempfile::tempdir().unwrap();
    check(&open(folder.path()));
    let folder = tempfile::tempdir().unwrap();
    check(&open_journaled(folder.path()));
}

fn batch(value: u8) -> Batch {
    let mut batch = Batch::new();
    for table in Table::all() {
        batch.put(table, b"key", [value]);
    }
    batch
}

#[test]
fn a_snapshot_is_not_changed_by_later_commits() {
    on_all(|store| {
        store.commit(&batch(1)).unwrap();
        let before = store.snapshot().unwrap();
        store.commit(&batch(2)).unwrap();
        let mut delete = Batch::new();
        delete.delete(Table::Codes, b"key");
        store.commit(&delete).unwrap();
        let after = store.snapshot().unwrap();
        assert_eq!(before.get(Table::Codes, b"key").unwrap().unwrap()[..], [1]);
        assert_eq!(after.get(Table::Codes, b"key").unwrap(), None);
        assert_eq!(after.get(Table::Meta, b"key").unwrap().unwrap()[..], [2]);
    });
}

#[test]
fn a_reader_never_sees_half_a_batch() {
    on_all(|store| {
        store.commit(&batch(0)).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                // Whatever ends the reader ends the writer too.
                let _done = crate::SetOnDrop(&done);
                let mut changes = 0;
                let mut last = 0;
                while changes < 50 {
                    let snapshot = store.snapshot().unwrap();
                    let value = |table| snapshot.get(table, b"key").unwrap().unwrap()[0];
                    let first = value(Table::Meta);
                    assert!(Table::all().all(|table| value(table) == first));
                    changes += u32::from(first != last);
                    last = first;
                }
            });
            for value in (1..=255).cycle() {
                if done.load(Ordering::Acquire) {
                    break;
                }
                store.commit(&batch(value)).unwrap();
            }
            reader.join().unwrap();
        });
    });
}

#[test]
fn a_refused_batch_leaves_nothing_behind() {
    on_all(|store| {
        for key in [vec![], vec![1; 512]] {
            let mut batch = batch(1);
            batch.put(Table::Transactions, key.clone(), [1]);
            let error = store.commit(&batch).unwrap_err();
            assert!(matches!(error, StoreError::KeyLength { .. }), "{error}");
            let snapshot = store.snapshot().unwrap();
            assert_eq!(snapshot.get(Table::Meta, b"key").unwrap(), None);
            assert_eq!(snapshot.get(Table::Transactions, &key).unwrap(), None);
        }
    });
}

#[test]
fn a_scan_begins_at_its_key_and_ends_when_told() {
    on_all(|store| {
        let mut batch = Batch::new();
        let longest = vec![5; 511];
        for key in [&[1][..], &[3], &[3, 0], &longest, &[7]] {
            batch.put(Table::Headers, key, key);
        }
        store.commit(&batch).unwrap();
        let snapshot = store.snapshot().unwrap();
        let from = |from: &[u8], limit: usize| {
            let mut keys = Vec::new();
            let visit = &mut |key: &[u8], value: &[u8]| {
                assert_eq!(key, value);
                keys.push(key.to_vec());
                match keys.len() == limit {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            };
            snapshot.scan(Table::Headers, from, visit).unwrap();
            keys
        };
        assert_eq!(from(&[], 2), [vec![1], vec![3]]);
        assert_eq!(from(&[2], 1), [vec![3]]);
        assert_eq!(from(&[3, 0], 9), [vec![3, 0], longest.clone(), vec![7]]);
        assert_eq!(from(&[5; 512], 9), [vec![7]]);
        assert!(from(&[8], 9).is_empty());
    });
}

#[test]
fn a_fork_and_its_origin_do_not_see_each_others_commits() {
    let origin = MemoryStore::new();
    origin.commit(&batch(1)).unwrap();
    let fork = origin.fork();
    assert_eq!(dump(&origin), dump(&fork));
    fork.commit(&batch(2)).unwrap();
    let of = |store: &MemoryStore| {
        store
            .snapshot()
            .unwrap()
            .get(Table::Meta, b"key")
            .unwrap()
            .unwrap()[0]
    };
    assert_eq!((of(&origin), of(&fork)), (1, 2));
}

#[test]
fn stats_count_what_is_there() {
    on_all(|store| {
        store.commit(&batch(1)).unwrap();
        store.commit(&batch(2)).unwrap();
        let stats = store.stats().unwrap();
        assert!(stats.iter().map(|stats| stats.table).eq(Table::all()));
        for TableStats {
            table,
            entries,
            bytes,
        } in stats
        {
            // LMDB keeps the schema version beside what was written, a journaled store also its mark.
            assert!(entries == 1 || table == Table::Meta && entries <= 3);
            assert!(bytes >= 4);
        }
    });
    let store = MemoryStore::new();
    store.commit(&batch(1)).unwrap();
    let mut delete = Batch::new();
    delete.delete(Table::Codes, b"key");
    store.commit(&delete).unwrap();
    let codes = store.stats().unwrap()[Table::Codes.index()];
    assert_eq!((codes.entries, codes.bytes), (0, 0));
}

type Writes = Vec<(usize, Vec<u8>, Option<Vec<u8>>)>;

fn writes() -> impl Strategy<Value = Vec<Writes>> {
    let key = vec(0..3_u8, 1..4);
    let value = proptest::option::of(vec(any::<u8>(), 0..4));
    vec(vec((0..Table::COUNT, key, value), 0..20), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn all_stores_and_a_layered_snapshot_hold_the_same_after_the_same_batches(batches in writes()) {
        let folder = tempfile::tempdir().unwrap();
        let lmdb = open(folder.path());
        let other_folder = tempfile::tempdir().unwrap();
        let journaled = open_journaled(other_folder.path());
        let memory = MemoryStore::new();
        for writes in batches {
            let mut batch = Batch::new();
            for (table, key, value) in writes {
                let table = Table::all().nth(table).unwrap();
                match value {
                    Some(value) => batch.put(table, key, value),
                    None => batch.delete(table, key),
                }
            }
            let before = memory.fork();
            let base = before.snapshot().unwrap();
            let layered = Layered::new(base.as_ref(), &batch);
            lmdb.commit(&batch).unwrap();
            journaled.commit(&batch).unwrap();
            memory.commit(&batch).unwrap();
            let rows = dump(&memory);
            prop_assert_eq!(&dump(&lmdb), &rows);
            prop_assert_eq!(&dump(&journaled), &rows);
            let shown: Vec<_> = Table::all().flat_map(|table| crate::rows(&layered, table)).collect();
            prop_assert_eq!(&shown, &rows);
            for (table, key, value) in &rows {
                let got = layered.get(*table, key).unwrap();
                prop_assert_eq!(got.as_deref(), Some(&value[..]));
            }
        }
    }
}
