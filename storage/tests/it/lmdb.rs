use crate::{dump, open};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use zvm_storage::{Batch, Durability, LmdbOptions, LmdbStore, Store, StoreError, Table, put_meta};

/// What the test binary is told when it is started as the second process.
pub const OTHER_PROCESS: &str = "ZVM_STORAGE_TEST_FOLDER";

fn small(path: &std::path::Path, map_size: u64) -> LmdbOptions {
    LmdbOptions {
        map_size,
        grow_wait: Duration::from_millis(50),
        ..LmdbOptions::new(path)
    }
}

fn refused(path: &std::path::Path) -> StoreError {
    match LmdbStore::open(LmdbOptions::new(path)) {
        Ok(_) => panic!("the store was opened"),
        Err(error) => error,
    }
}

/// Entries of 1,000 bytes.
fn filled(entries: u32) -> Batch {
    let mut batch = Batch::new();
    for entry in 0..entries {
        batch.put(Table::Codes, entry.to_be_bytes(), vec![7; 1000]);
    }
    batch
}

#[test]
fn everything_committed_is_there_after_a_reopen() {
    let folder = tempfile::tempdir().unwrap();
    for durability in [Durability::Full, Durability::Relaxed] {
        let path = folder.path().join(format!("{durability:?}/deeper"));
        let options = || LmdbOptions {
            durability,
            ..LmdbOptions::new(&path)
        };
        let store = LmdbStore::open(options()).unwrap();
        store.commit(&filled(3000)).unwrap();
        let mut last = Batch::new();
        last.delete(Table::Codes, 1_u32.to_be_bytes());
        store.commit(&last).unwrap();
        let before = dump(&store);
        drop(store);
        let store = LmdbStore::open(options()).unwrap();
        assert_eq!(before.len(), 2999);
        assert_eq!(dump(&store), before);
    }
}

#[test]
fn a_store_is_opened_once_under_whatever_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = open(&path);
    let link = folder.path().join("link");
    symlink(&path, &link).unwrap();
    for name in [path.clone(), link, folder.path().join("store/../store")] {
        let error = refused(&name);
        assert!(matches!(&error, StoreError::AlreadyOpen { path: at } if at == store.path()));
    }
    drop(store);
    open(&path);
}

#[test]
fn another_process_is_refused_while_the_store_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lmdb::is_refused_here", "--ignored"])
        .env(OTHER_PROCESS, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&other.stdout);
    assert!(
        other.status.success() && said.contains("1 passed"),
        "{said}"
    );
    drop(store);
}

#[test]
#[ignore = "started as a process of its own by another_process_is_refused_while_the_store_is_open"]
fn is_refused_here() {
    let path = std::env::var_os(OTHER_PROCESS).unwrap();
    let error = refused(path.as_ref());
    assert!(matches!(error, StoreError::AlreadyOpen { .. }), "{error}");
}

#[test]
fn a_full_map_grows_and_the_batch_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = LmdbStore::open(small(folder.path(), 1 << 18)).unwrap();
    let before = store.map_size().unwrap();
    store.commit(&filled(3000)).unwrap();
    assert!(store.map_size().unwrap() > before);
    let rows = dump(&store);
    assert_eq!(rows.len(), 3000);
    drop(store);
    // A map smaller than the file is no harm either.
    let store = LmdbStore::open(small(folder.path(), 1 << 18)).unwrap();
    assert_eq!(dump(&store), rows);
    store.commit(&filled(6000)).unwrap();
    assert_eq!(dump(&store).len(), 6000);
}

#[test]
fn a_full_map_under_an_open_snapshot_is_an_error_that_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = LmdbStore::open(small(folder.path(), 1 << 18)).unwrap();
    store.commit(&filled(10)).unwrap();
    let snapshot = store.snapshot().unwrap();
    let error = store.commit(&filled(3000)).unwrap_err();
    assert!(matches!(error, StoreError::MapFull { .. }), "{error}");
    let key = 3_u32.to_be_bytes();
    assert!(snapshot.get(Table::Codes, &key).unwrap().is_some());
    drop(snapshot);
    assert_eq!(dump(&store).len(), 10);
    store.commit(&filled(3000)).unwrap();
    assert_eq!(dump(&store).len(), 3000);
}

#[test]
fn a_growth_the_system_refuses_is_an_error_after_which_reads_go_on() {
    let folder = tempfile::tempdir().unwrap();
    // In a process of its own: the limit on the address space holds for all of it.
    let other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lmdb::growth_is_refused_here", "--ignored"])
        .env(OTHER_PROCESS, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&other.stdout);
    assert!(
        other.status.success() && said.contains("1 passed"),
        "{}: {said}",
        other.status
    );
}

#[test]
#[ignore = "started as a process of its own by a_growth_the_system_refuses_is_an_error_after_which_reads_go_on"]
fn growth_is_refused_here() {
    let path = std::env::var_os(OTHER_PROCESS).unwrap();
    let store = LmdbStore::open(LmdbOptions {
        durability: Durability::Relaxed,
        ..small(path.as_ref(), 64 << 20)
    })
    .unwrap();
    // Room for what the test itself allocates, not for a map of twice 64 MiB.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let used = status
        .lines()
        .find_map(|line| line.strip_prefix("VmSize:")?.strip_suffix("kB"))
        .unwrap();
    let limit = (used.trim().parse::<u64>().unwrap() << 10) + (32 << 20);
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let own = limits
        .lines()
        .find_map(|line| {
            line.strip_prefix("Max address space")?
                .split_whitespace()
                .next()
        })
        .unwrap();
    set_address_space_limit(&limit.to_string());
    let before = store.map_size().unwrap();
    let mut written = 0_u32;
    let error = loop {
        let mut batch = Batch::new();
        for entry in written..written + 2000 {
            batch.put(Table::Codes, entry.to_be_bytes(), vec![7; 1000]);
        }
        match store.commit(&batch) {
            Ok(()) => written += 2000,
            Err(error) => break error,
        }
        assert!(written < 100_000, "the map grew");
    };
    assert!(
        matches!(error, StoreError::MapFull { map_size, .. } if map_size == before),
        "{error}"
    );
    assert_eq!(store.map_size().unwrap(), before);
    let snapshot = store.snapshot().unwrap();
    let read = |entry: u32| snapshot.get(Table::Codes, &entry.to_be_bytes()).unwrap();
    assert!(read(0).is_some() && read(written - 1).is_some() && read(written).is_none());
    drop(snapshot);
    // The same commit succeeds once there is room.
    set_address_space_limit(own);
    let mut batch = Batch::new();
    for entry in written..written + 20_000 {
        batch.put(Table::Codes, entry.to_be_bytes(), vec![7; 1000]);
    }
    store.commit(&batch).unwrap();
    assert!(store.map_size().unwrap() > before);
}

/// Sets how many bytes of address space this process may have; the hard limit stays.
fn set_address_space_limit(limit: &str) {
    let pid = std::process::id().to_string();
    let set = Command::new("prlimit")
        .args(["--pid", &pid, &format!("--as={limit}:")])
        .status()
        .unwrap();
    assert!(set.success());
}

#[test]
fn growth_and_readers_of_other_threads_do_not_disturb_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let store = LmdbStore::open(LmdbOptions {
        map_size: 1 << 18,
        ..LmdbOptions::new(folder.path())
    })
    .unwrap();
    store.commit(&filled(1)).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    let snapshot = store.snapshot().unwrap();
                    // A second one on the thread must not wait for a resize that waits for the first.
                    let again = store.snapshot().unwrap();
                    for snapshot in [snapshot, again] {
                        let value = snapshot.get(Table::Codes, &[0; 4]).unwrap().unwrap();
                        assert_eq!(value[..], [7; 1000]);
                    }
                    std::thread::yield_now();
                }
            });
        }
        let _done = crate::SetOnDrop(&done);
        for entries in 1..12 {
            store.commit(&filled(entries * 400)).unwrap();
        }
    });
    assert_eq!(dump(&store).len(), 4400);
}

#[test]
fn more_snapshots_than_reader_slots_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let options = LmdbOptions {
        max_readers: 4,
        ..LmdbOptions::new(folder.path())
    };
    let store = LmdbStore::open(options).unwrap();
    let open: Vec<_> = (0..4).map(|_| store.snapshot().unwrap()).collect();
    let error = store.snapshot().err().unwrap();
    assert!(
        matches!(error, StoreError::ReadersFull { max: 4 }),
        "{error}"
    );
    drop(open);
    store.snapshot().unwrap();
}

#[test]
fn a_file_of_another_program_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("text", b"not a database".to_vec()),
        ("zeros", vec![0; 100_000]),
        (
            "noise",
            (0..100_000_u32)
                .map(|n| (n.wrapping_mul(n) >> 3) as u8)
                .collect(),
        ),
    ] {
        let path = folder.path().join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("data.mdb"), &bytes).unwrap();
        let error = refused(&path);
        assert!(matches!(error, StoreError::Open { .. }), "{name}: {error}");
        assert_eq!(fs::read(path.join("data.mdb")).unwrap(), bytes);
    }
    let path = folder.path().join("lock");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("zvm.lock"), b"of another program").unwrap();
    let error = refused(&path);
    assert!(matches!(error, StoreError::Open { .. }), "{error}");
}

#[test]
fn an_environment_of_another_program_is_named_as_such() {
    let folder = tempfile::tempdir().unwrap();
    {
        let environment = lmdb::Environment::new()
            .set_max_dbs(2)
            .open(folder.path())
            .unwrap();
        let flags = lmdb::DatabaseFlags::empty();
        environment.create_db(Some("theirs"), flags).unwrap();
    }
    let error = refused(folder.path());
    assert!(
        matches!(&error, StoreError::Foreign { name, .. } if name == "theirs"),
        "{error}"
    );
}

#[test]
fn a_store_of_another_schema_version_is_refused_with_both_versions() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut batch = Batch::new();
    batch.put(Table::Meta, b"schema", 9_u32.to_be_bytes());
    store.commit(&batch).unwrap();
    drop(store);
    let error = refused(folder.path());
    let StoreError::SchemaVersion {
        found, expected, ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((found, expected), (9, zvm_storage::SCHEMA_VERSION));
}

#[test]
fn a_truncated_file_is_an_error_at_every_length_and_never_ends_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut batch = filled(300);
    put_meta(&mut batch, "large", &[1; 20_000]);
    store.commit(&batch).unwrap();
    let rows = dump(&store);
    drop(store);
    let data = folder.path().join("data.mdb");
    let whole = fs::read(&data).unwrap();
    let page = 4096;
    let lengths = (0..whole.len())
        .step_by(page)
        .chain([1, 100, 5000, whole.len() - 1]);
    let mut refusals = 0;
    for length in lengths {
        fs::write(&data, &whole[..length]).unwrap();
        match LmdbStore::open(LmdbOptions::new(folder.path())) {
            // The pages cut off were free.
            Ok(store) => assert_eq!(dump(&store), rows),
            Err(StoreError::Truncated { .. } | StoreError::Open { .. }) => refusals += 1,
            Err(error) => panic!("{length}: {error}"),
        }
        assert!(fs::metadata(&data).unwrap().len() >= length as u64);
    }
    assert!(refusals > 70, "{refusals}");
    fs::write(&data, &whole).unwrap();
    assert_eq!(dump(&open(folder.path())), rows);
    fs::remove_file(&data).unwrap();
    let error = refused(folder.path());
    assert!(matches!(error, StoreError::Open { .. }), "{error}");
}

#[test]
fn a_file_short_of_free_pages_alone_opens_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.commit(&filled(1)).unwrap();
    let rows = dump(&store);
    store.commit(&filled(300)).unwrap();
    let mut delete = Batch::new();
    for entry in 1..300_u32 {
        delete.delete(Table::Codes, entry.to_be_bytes());
    }
    store.commit(&delete).unwrap();
    // Two commits later the tables stand on the first pages that became free.
    for _ in 0..4 {
        store.commit(&filled(1)).unwrap();
    }
    drop(store);
    let data = folder.path().join("data.mdb");
    let whole = fs::read(&data).unwrap();
    let mut opened = 0;
    for length in (0..whole.len()).rev().step_by(4096) {
        fs::write(&data, &whole[..length]).unwrap();
        let store = match LmdbStore::open(LmdbOptions::new(folder.path())) {
            Ok(store) => store,
            Err(StoreError::Truncated { .. } | StoreError::Open { .. }) => continue,
            Err(error) => panic!("{length}: {error}"),
        };
        opened += 1;
        assert_eq!(dump(&store), rows);
        store.commit(&filled(300)).unwrap();
        assert_eq!(dump(&store).len(), 300);
    }
    assert!(opened > 0);
}

#[test]
fn a_half_written_mark_of_a_new_folder_does_not_stop_the_opening() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    let lock = folder.path().join("zvm.lock");
    let whole = fs::read(&lock).unwrap();
    let file = OpenOptions::new().write(true).open(&lock).unwrap();
    file.set_len(3).unwrap();
    drop(open(folder.path()));
    assert_eq!(fs::read(&lock).unwrap(), whole);
}
