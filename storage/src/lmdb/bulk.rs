//! Whole stores: loaded in order, compacted, restored from an export.

use super::open::{DATA_FILE, LOCK_FILE, READERS_FILE};
use super::{Durability, LmdbOptions, LmdbStore, failed};
use crate::dump::{Dumped, is_schema, read_export};
use crate::rows::{Row, Rows};
use crate::{DumpError, Store, StoreError, Table};
use ::lmdb::{Error, Transaction, WriteFlags};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The copy while it is made, in the folder of the store.
const COMPACTED: &str = "compact.tmp";
/// Bytes written in one transaction.
const LOAD_BYTES: usize = 32 << 20;

/// The sizes of the data file before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Bytes before.
    pub before: u64,
    /// Bytes after.
    pub after: u64,
    /// Entries of all tables.
    pub entries: u64,
}

impl LmdbStore {
    /// Copies the store in a folder into a data file without free pages, and puts that file in the place of the old one.
    ///
    /// The old file is replaced by one rename, once the new one is whole and synced: a crash at any time leaves one or
    /// the other. The file system needs room for both.
    ///
    /// # Errors
    /// As [`LmdbStore::open`] and [`Store::commit`]; the store is then as before.
    pub fn compact(options: LmdbOptions) -> Result<Compacted, StoreError> {
        let store = Self::open(options.clone())?;
        let folder = store.path().join(COMPACTED);
        remove_folder(&folder)?;
        let copied = copy(
            &store,
            LmdbOptions {
                path: folder.clone(),
                // The rename must not come before what it names.
                durability: Durability::Full,
                ..options
            },
        );
        let entries = match copied {
            Ok(entries) => entries,
            Err(error) => {
                // What is left of the copy is of no use, and the error that counts is the first.
                let _ = remove_folder(&folder);
                return Err(error);
            }
        };
        let (old, new) = (store.path().join(DATA_FILE), folder.join(DATA_FILE));
        let (before, after) = (length(&old)?, length(&new)?);
        let path = store.path().to_owned();
        let Self {
            map, _lock: lock, ..
        } = store;
        // Nobody else has it, so this closes the environment.
        drop(map);
        // Its slots are of the old file. LMDB makes another.
        remove_file(&path.join(READERS_FILE))?;
        fs::rename(&new, &old).map_err(io("replace", &old))?;
        sync_folder(&path)?;
        remove_folder(&folder)?;
        drop(lock);
        Ok(Compacted {
            before,
            after,
            entries,
        })
    }

    /// Makes the store in the folder of `options` from an exported stream. The folder must not be there or be empty.
    ///
    /// The store is made beside the folder, in one with `.partial` at the end of its name, and gets its name once the
    /// whole stream has been checked and all is synced.
    ///
    /// # Errors
    /// [`DumpError`]; the folder is then as before.
    pub fn restore(options: LmdbOptions, input: &mut dyn Read) -> Result<Dumped, DumpError> {
        let target = options.path.clone();
        if !is_free(&target)? {
            return Err(DumpError::Store(StoreError::Open {
                path: target,
                reason: "an export is only imported into a folder that is empty or not there"
                    .to_owned(),
            }));
        }
        let mut partial = target.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        if partial.exists() && !partial.join(LOCK_FILE).exists() && !is_free(&partial)? {
            return Err(DumpError::Store(StoreError::Open {
                path: partial,
                reason: "it is in the way and not left from an import".to_owned(),
            }));
        }
        if partial.join(LOCK_FILE).exists() {
            let left = Self::open(LmdbOptions {
                path: partial.clone(),
                ..options.clone()
            });
            // Another import is at it. Any other fault of what was left is no matter.
            if let Err(error @ StoreError::AlreadyOpen { .. }) = left {
                return Err(DumpError::Store(error));
            }
        }
        remove_folder(&partial)?;
        let loaded = load(
            LmdbOptions {
                path: partial.clone(),
                // The rename must not come before what it names.
                durability: Durability::Full,
                ..options
            },
            input,
        );
        match loaded {
            Ok(dumped) => {
                fs::rename(&partial, &target).map_err(io("rename", &partial))?;
                if let Some(parent) = target.parent() {
                    let parent = match parent.as_os_str().is_empty() {
                        true => Path::new("."),
                        false => parent,
                    };
                    sync_folder(parent)?;
                }
                Ok(dumped)
            }
            Err(error) => {
                // What is left is of no use, and the error that counts is the first.
                let _ = remove_folder(&partial);
                Err(error)
            }
        }
    }

    /// Writes rows that follow all that their tables hold, in the order of the keys, into pages that are filled to the
    /// end; those of the meta table in any order.
    fn append(&self, rows: &[(Table, Row)]) -> Result<(), StoreError> {
        let _pass = self.map.enter()?;
        let mut transaction = self
            .map
            .environment
            .begin_rw_txn()
            .map_err(failed("begin a load"))?;
        for (table, (key, value)) in rows {
            let flags = match table {
                Table::Meta => WriteFlags::empty(),
                _ => WriteFlags::APPEND,
            };
            let database = self.tables[table.index()];
            let put = transaction.put(database, key, value, flags);
            put.map_err(|error| match error {
                Error::KeyExist => StoreError::corrupt(*table, key, "not after the key before it"),
                Error::BadValSize => StoreError::KeyLength {
                    table: *table,
                    len: key.len(),
                },
                error => self.write_failed(error),
            })?;
        }
        transaction
            .commit()
            .map_err(|error| self.write_failed(error))
    }

    fn write_failed(&self, error: Error) -> StoreError {
        match error {
            Error::Other(libc::ENOSPC | libc::EDQUOT) => StoreError::DiskFull {
                path: self.path().to_owned(),
            },
            source => StoreError::Lmdb {
                op: "load rows",
                source,
            },
        }
    }
}

/// Copies every entry of `store` into a new store; returns how many there are.
fn copy(store: &LmdbStore, options: LmdbOptions) -> Result<u64, StoreError> {
    let copy = LmdbStore::open(options)?;
    let snapshot = store.snapshot()?;
    let mut load = Loader::new(&copy);
    for table in Table::all() {
        let mut rows = Rows::new(&*snapshot, table, &[]);
        while let Some(row) = rows.next()? {
            if !is_schema(table, &row.0) {
                load.push(table, row)?;
            }
        }
    }
    load.end()?;
    let mut entries = 0;
    for (mine, theirs) in store.stats()?.into_iter().zip(copy.stats()?) {
        if mine.entries != theirs.entries {
            let reason = format!("{} of {} entries copied", theirs.entries, mine.entries);
            return Err(StoreError::corrupt(mine.table, &[], reason));
        }
        entries += mine.entries;
    }
    Ok(entries)
}

fn load(options: LmdbOptions, input: &mut dyn Read) -> Result<Dumped, DumpError> {
    let store = LmdbStore::open(options)?;
    let mut load = Loader::new(&store);
    let dumped = read_export(input, &mut |rows| {
        for (table, row) in rows {
            if is_schema(table, &row.0) {
                let reason = "an export does not hold the schema version";
                return Err(StoreError::corrupt(table, &row.0, reason));
            }
            load.push(table, row)?;
        }
        Ok(())
    })?;
    load.end()?;
    Ok(dumped)
}

/// Rows gathered for a transaction.
struct Loader<'a> {
    store: &'a LmdbStore,
    rows: Vec<(Table, Row)>,
    bytes: usize,
}

impl<'a> Loader<'a> {
    const fn new(store: &'a LmdbStore) -> Self {
        Self {
            store,
            rows: Vec::new(),
            bytes: 0,
        }
    }

    fn push(&mut self, table: Table, row: Row) -> Result<(), StoreError> {
        self.bytes += row.0.len() + row.1.len();
        self.rows.push((table, row));
        if self.bytes >= LOAD_BYTES {
            self.end()?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), StoreError> {
        self.store.append(&self.rows)?;
        self.rows.clear();
        self.bytes = 0;
        Ok(())
    }
}

/// Whether nothing is at the path, or an empty folder.
fn is_free(path: &Path) -> Result<bool, StoreError> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(io("look into", path)(error)),
    }
}

fn length(path: &Path) -> Result<u64, StoreError> {
    let metadata = fs::metadata(path).map_err(io("look at", path))?;
    Ok(metadata.len())
}

fn remove_folder(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn sync_folder(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(io("sync", path))
}

fn io<'p>(op: &'static str, path: &'p Path) -> impl Fn(io::Error) -> StoreError + use<'p> {
    super::open::io(op, path)
}
