use crate::crash::changes;
use crate::{dump, open, open_journaled, small_journaled};
use alloy_primitives::{Address, U256};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use zvm_storage::{
    AccountChange, AccountInfo, Batch, Durability, JournaledOptions, JournaledStore, LmdbOptions,
    LmdbStore, MemoryStore, StateDiff, Store, StoreError, Table, apply_state, put_meta,
    rebuild_root, state_root,
};

/// A store that merges only when it is told to.
fn lazy(path: &Path) -> JournaledOptions {
    JournaledOptions {
        merge_bytes: usize::MAX,
        overlay_bytes: usize::MAX,
        merge_interval: Duration::from_secs(3600),
        ..small_journaled(path)
    }
}

fn open_lazy(path: &Path) -> JournaledStore {
    JournaledStore::open(lazy(path)).unwrap()
}

fn refused(options: JournaledOptions) -> StoreError {
    match JournaledStore::open(options) {
        Ok(_) => panic!("the store was opened"),
        Err(error) => error,
    }
}

/// A folder in memory where the system has one: for stores that are opened thousands of times.
fn quick_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// Round `round` changes, wipes and deletes accounts of a small set.
fn diff(round: u64) -> StateDiff {
    changes(round, 60)
}

/// Commits a round to each store; all must have the same state before.
fn round(round: u64, stores: &[&dyn Store]) {
    for store in stores {
        let mut batch = Batch::new();
        let snapshot = store.snapshot().unwrap();
        apply_state(snapshot.as_ref(), &diff(round), &mut batch).unwrap();
        put_meta(&mut batch, "round", &round.to_be_bytes());
        drop(snapshot);
        store.commit(&batch).unwrap();
    }
}

fn put(key: u32, value: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.put(Table::Codes, key.to_be_bytes(), value);
    batch
}

#[test]
fn replayed_commits_give_every_entry_that_was_committed_trie_nodes_too() {
    let folder = tempfile::tempdir().unwrap();
    let memory = MemoryStore::new();
    let mut replayed = 0;
    for part in 0..6 {
        let store = open_lazy(folder.path());
        assert_eq!(dump(&store), dump(&memory));
        replayed += store.recovery().replayed;
        for number in part * 10..part * 10 + 10 {
            round(number, &[&memory, &store]);
            assert_eq!(dump(&store), dump(&memory), "round {number}");
        }
        if part == 3 {
            store.merge_all().unwrap();
        }
        let snapshot = store.snapshot().unwrap();
        let root = state_root(snapshot.as_ref()).unwrap();
        assert_eq!(rebuild_root(snapshot.as_ref()).unwrap(), root);
    }
    // Every part but the merged ones again and again.
    assert_eq!(replayed, 10 + 20 + 30 + 10);
    drop(open_lazy(folder.path()));
}

#[test]
fn the_journal_does_not_hold_trie_nodes_that_follow() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_lazy(folder.path());
    let mut batch = Batch::new();
    let diff = StateDiff {
        accounts: (0..2000_u64)
            .map(|n| {
                let info = Some(AccountInfo {
                    nonce: n + 1,
                    ..AccountInfo::default()
                });
                let change = AccountChange {
                    info,
                    ..AccountChange::default()
                };
                (Address::from_word(U256::from(n).into()), change)
            })
            .collect(),
        codes: BTreeMap::new(),
    };
    apply_state(store.snapshot().unwrap().as_ref(), &diff, &mut batch).unwrap();
    store.commit(&batch).unwrap();
    let journal = store.statistics().journal_bytes;
    assert!(
        journal < batch.bytes() as u64 / 2,
        "{journal} of {}",
        batch.bytes()
    );
}

#[test]
fn merged_commits_leave_the_journal_and_the_overlay() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_lazy(folder.path());
    for key in 0..500 {
        store.commit(&put(key, &[7; 3000])).unwrap();
        if key % 10 == 9 {
            store.merge_all().unwrap();
        }
    }
    let statistics = store.statistics();
    assert_eq!((statistics.last, statistics.merged), (500, 500));
    assert_eq!(
        (statistics.overlay_runs, statistics.merged_entries),
        (0, 500)
    );
    assert!(statistics.journal_bytes < 500 * 3000 / 4, "{statistics:?}");
    assert_eq!(dump(&store).len(), 500);
}

#[test]
fn snapshots_keep_their_commit_through_merges_and_from_many_threads() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_journaled(folder.path());
    for key in 0..400 {
        store.commit(&put(key, &0_u32.to_be_bytes())).unwrap();
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    let snapshot = store.snapshot().unwrap();
                    let shared = snapshot.shared().unwrap();
                    let read = |key: u32| shared.get(Table::Codes, &key.to_be_bytes()).unwrap();
                    let first = read(0);
                    std::thread::scope(|inner| {
                        for _ in 0..2 {
                            inner.spawn(|| {
                                for key in 0..400 {
                                    assert_eq!(read(key), first);
                                }
                                let rows = crate::rows(shared, Table::Codes);
                                assert_eq!(rows.len(), 400);
                                assert!(
                                    rows.iter().all(|row| Some(&row.2[..]) == first.as_deref())
                                );
                            });
                        }
                    });
                }
            });
        }
        let _done = crate::SetOnDrop(&done);
        for value in 1..300_u32 {
            let mut batch = Batch::new();
            for key in 0..400_u32 {
                batch.put(Table::Codes, key.to_be_bytes(), value.to_be_bytes());
            }
            store.commit(&batch).unwrap();
        }
    });
    assert!(store.statistics().merges > 10);
}

#[test]
fn commits_of_many_threads_are_each_written_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_journaled(folder.path());
    std::thread::scope(|scope| {
        for thread in 0..8_u32 {
            let store = &store;
            scope.spawn(move || {
                for key in 0..50 {
                    store.commit(&put(thread * 100 + key, b"v")).unwrap();
                }
            });
        }
    });
    assert_eq!((store.statistics().last, dump(&store).len()), (400, 400));
    drop(store);
    assert_eq!(dump(&open_journaled(folder.path())).len(), 400);
}

#[test]
fn a_snapshot_past_its_limit_is_ended_though_nobody_uses_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = JournaledStore::open(JournaledOptions {
        snapshot_limit: Duration::from_millis(50),
        ..small_journaled(folder.path())
    })
    .unwrap();
    store.commit(&put(1, b"v")).unwrap();
    let idle = store.snapshot().unwrap();
    while store.statistics().expired_snapshots == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let expired = |error| matches!(error, StoreError::SnapshotExpired { limit } if limit == Duration::from_millis(50));
    assert!(expired(idle.get(Table::Codes, &[1]).unwrap_err()));
    let scanned = idle.scan(Table::Codes, &[], &mut |_, _| panic!("an entry"));
    assert!(expired(scanned.unwrap_err()));
    assert_eq!(dump(&store).len(), 1);
}

#[test]
fn a_full_overlay_makes_commits_wait_and_loses_none() {
    let folder = tempfile::tempdir().unwrap();
    let store = JournaledStore::open(JournaledOptions {
        overlay_bytes: 20_000,
        merge_interval: Duration::from_secs(3600),
        merge_bytes: usize::MAX,
        ..small_journaled(folder.path())
    })
    .unwrap();
    for key in 0..100 {
        store.commit(&put(key, &[1; 2000])).unwrap();
    }
    let statistics = store.statistics();
    assert!(
        statistics.waits > 5 && statistics.overlay_bytes < 25_000,
        "{statistics:?}"
    );
    assert_eq!(dump(&store).len(), 100);
}

#[test]
fn a_folder_without_a_journal_becomes_a_journaled_store_and_is_refused_while_commits_wait() {
    let folder = tempfile::tempdir().unwrap();
    let plain = open(folder.path());
    plain.commit(&put(1, b"old")).unwrap();
    drop(plain);
    let store = open_lazy(folder.path());
    store.commit(&put(2, b"new")).unwrap();
    let error = refused(lazy(folder.path()));
    assert!(matches!(error, StoreError::AlreadyOpen { .. }), "{error}");
    drop(store);
    let options = LmdbOptions {
        map_size: 1 << 30,
        ..LmdbOptions::new(folder.path())
    };
    let error = LmdbStore::open(options).err().unwrap();
    let waiting = matches!(
        error,
        StoreError::Unmerged {
            last: 1,
            merged: 0,
            ..
        }
    );
    assert!(waiting, "{error}");
    let store = open_lazy(folder.path());
    assert_eq!(dump(&store).len(), 2);
    store.merge_all().unwrap();
    drop(store);
    assert_eq!(dump(&open(folder.path())).len(), 2);
    fs::remove_dir_all(folder.path().join("journal")).unwrap();
    let error = refused(lazy(folder.path()));
    assert!(matches!(error, StoreError::Open { .. }), "{error}");
}

#[test]
fn a_journal_of_another_store_is_refused() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for folder in [&one, &other] {
        open_lazy(folder.path()).commit(&put(1, b"v")).unwrap();
    }
    let journal = |folder: &Path| folder.join("journal/data.mdb");
    fs::copy(journal(one.path()), journal(other.path())).unwrap();
    let error = refused(lazy(other.path()));
    assert!(error.to_string().contains("another store"), "{error}");
}

/// What a machine that dies while a commit is written leaves: a part of its pages and not the page that names them.
#[test]
fn a_commit_cut_at_any_byte_of_its_record_is_gone_and_all_before_it_are_there() {
    let folder = quick_folder();
    let data = folder.path().join("journal/data.mdb");
    let store = open_lazy(folder.path());
    store.commit(&put(1, &[1; 5000])).unwrap();
    store.commit(&put(2, &[2; 5000])).unwrap();
    let rows = dump(&store);
    let before = fs::read(&data).unwrap();
    store.commit(&put(3, &[3; 2600])).unwrap();
    drop(store);
    let mut after = fs::read(&data).unwrap();
    // The page that names the new state is written last.
    after[..8192].copy_from_slice(&before[..8192]);
    let changed = (0..after.len()).filter(|&at| before.get(at) != Some(&after[at]));
    let changed: Vec<usize> = changed.collect();
    assert!(changed.len() > 2600, "{}", changed.len());
    let mut cut = before.clone();
    cut.resize(after.len(), 0);
    for at in changed {
        cut[at] = after[at];
        fs::write(&data, &cut).unwrap();
        let store = open_lazy(folder.path());
        assert_eq!(store.recovery().replayed, 2);
        assert_eq!(dump(&store), rows, "cut at {at}");
    }
}

#[test]
fn a_journal_cut_at_any_byte_of_its_last_record_is_an_error_or_opens_without_it_if_told() {
    let folder = quick_folder();
    let data = folder.path().join("journal/data.mdb");
    let store = open_lazy(folder.path());
    store.commit(&put(1, &[1; 5000])).unwrap();
    store.commit(&put(2, &[2; 5000])).unwrap();
    let rows = dump(&store);
    let length = fs::metadata(&data).unwrap().len() as usize;
    store.commit(&put(3, &[3; 2600])).unwrap();
    let all = dump(&store);
    drop(store);
    let whole = fs::read(&data).unwrap();
    assert!(whole.len() > length);
    let mut refusals = 0;
    for cut in length..whole.len() {
        fs::write(&data, &whole[..cut]).unwrap();
        let error = refused(lazy(folder.path()));
        assert!(
            matches!(error, StoreError::JournalDamaged { .. }),
            "{error}"
        );
        assert_eq!(fs::read(&data).unwrap(), &whole[..cut]);
        refusals += 1;
        let relaxed = JournaledOptions {
            drop_damaged_end: true,
            ..lazy(folder.path())
        };
        let store = JournaledStore::open(relaxed).unwrap();
        assert!(store.recovery().dropped.is_some());
        assert_eq!(dump(&store), rows, "cut at {cut}");
    }
    assert!(refusals >= 2600);
    fs::write(&data, &whole).unwrap();
    assert_eq!(dump(&open_lazy(folder.path())), all);
}

#[test]
fn a_changed_byte_in_the_journal_is_an_error_that_names_the_last_whole_commit() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("journal/data.mdb");
    let store = open_lazy(folder.path());
    for key in 0..3 {
        store.commit(&put(key, &[0x50 + key as u8; 3000])).unwrap();
    }
    drop(store);
    let whole = fs::read(&data).unwrap();
    for commit in 0..3_u64 {
        let mut changed = whole.clone();
        let run = [0x50 + commit as u8; 100];
        let at = changed.windows(100).position(|bytes| bytes == run).unwrap();
        changed[at + 50] ^= 1;
        fs::write(&data, &changed).unwrap();
        let error = refused(lazy(folder.path()));
        let named = matches!(error, StoreError::JournalDamaged { sound, .. } if sound == commit);
        assert!(named, "{error}");
        let relaxed = JournaledOptions {
            state: LmdbOptions {
                durability: Durability::Relaxed,
                ..lazy(folder.path()).state
            },
            ..lazy(folder.path())
        };
        let store = JournaledStore::open(relaxed).unwrap();
        assert_eq!(store.recovery().replayed, commit);
        assert_eq!(dump(&store).len() as u64, commit);
        drop(store);
    }
}

#[test]
fn damaged_pages_are_found_before_lmdb_uses_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut batch = Batch::new();
    for key in 0..5000_u32 {
        batch.put(Table::Accounts, key.to_be_bytes(), [7; 30]);
    }
    store.commit(&batch).unwrap();
    drop(store);
    let pages = LmdbStore::check_pages(folder.path()).unwrap();
    assert!(pages > 50, "{pages}");
    let data = folder.path().join("data.mdb");
    let whole = fs::read(&data).unwrap();
    let mut found = 0;
    for page in 2..whole.len() / 4096 {
        let mut damaged = whole.clone();
        damaged[page * 4096..page * 4096 + 64].fill(0xff);
        fs::write(&data, &damaged).unwrap();
        match LmdbStore::check_pages(folder.path()) {
            // A free page.
            Ok(_) => {}
            Err(StoreError::Open { reason, .. }) => {
                assert!(reason.contains(&format!("page {page} ")), "{reason}");
                found += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(found > 50, "{found}");
}
