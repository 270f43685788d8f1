//! A store in LMDB: one environment a folder, one named database a table.

mod address_space;
mod bulk;
mod fork;
mod gate;
mod map;
mod migrate;
mod open;
mod pages;
mod reader;

pub(crate) use map::Map;
pub(crate) use open::{DATA_FILE, Opening, environment, io};
pub(crate) use pages::Roots;
pub(crate) use reader::Reader;

use crate::batch::is_storable;
use crate::{Batch, Snapshot, Store, StoreError, Table, TableStats, Visitor};
use ::lmdb::{Cursor, Database, Error, RoTransaction, Transaction, WriteFlags};
pub use bulk::Compacted;
use gate::Pass;
use lmdb_sys::{MDB_FIRST, MDB_NEXT, MDB_SET_RANGE};
pub use migrate::Migrated;
use parking_lot::Mutex;
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What a commit promises once it has returned. A crash of the process alone loses nothing in either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The batch survives a crash of the machine.
    #[default]
    Full,
    /// A crash of the machine may lose the last commits; the store is then as it was after an earlier one.
    Relaxed,
}

/// How a store in LMDB is opened.
#[derive(Clone, Debug)]
pub struct LmdbOptions {
    /// Folder of the store; made if it is not there.
    pub path: PathBuf,
    /// Address space taken at first, in bytes; the file grows only with what it holds. If the system refuses it, less
    /// is taken. It grows when it is full.
    pub map_size: u64,
    /// How many snapshots can be open at once.
    pub max_readers: u32,
    /// What a commit promises.
    pub durability: Durability,
    /// How long a commit that finds the map full waits for open snapshots to end: the map can only grow when there
    /// is none.
    pub grow_wait: Duration,
}

impl LmdbOptions {
    /// A store in the folder `path` with a map of 1 TiB, 1024 readers, full durability and 10 seconds for growth.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            map_size: 1 << 40,
            max_readers: 1024,
            durability: Durability::Full,
            grow_wait: Duration::from_secs(10),
        }
    }
}

/// A store in LMDB. A folder is opened once at a time on a host.
pub struct LmdbStore {
    map: Arc<Map>,
    tables: [Database; Table::COUNT],
    /// Orders commits, so that two that find the map full do not both grow it.
    writer: Mutex<()>,
    /// Locked for as long as the store is open. Declared after the environment, so it is released last.
    _lock: open::FolderLock,
}

impl LmdbStore {
    /// Opens the store, or makes an empty one if the folder holds none.
    ///
    /// # Errors
    /// [`StoreError::AlreadyOpen`], [`StoreError::SchemaVersion`], [`StoreError::Foreign`],
    /// [`StoreError::Truncated`], [`StoreError::AddressSpace`], [`StoreError::Open`], [`StoreError::Io`],
    /// [`StoreError::Lmdb`]; [`StoreError::Unmerged`] if the folder has a journal with commits that are not in the
    /// tables yet: then it is a [`crate::JournaledStore`].
    pub fn open(options: LmdbOptions) -> Result<Self, StoreError> {
        let store = open::open(options)?;
        crate::journaled::refuse_unmerged(&store)?;
        Ok(store)
    }

    /// Opens the tables of a store whose journal the caller looks after.
    pub(crate) fn open_state(options: LmdbOptions) -> Result<Self, StoreError> {
        open::open(options)
    }

    /// Folder of the store, without links.
    pub fn path(&self) -> &Path {
        self.map.path()
    }

    /// Size of the map in bytes.
    ///
    /// # Errors
    /// [`StoreError::Unusable`], [`StoreError::Lmdb`].
    pub fn map_size(&self) -> Result<u64, StoreError> {
        self.map.size()
    }

    /// Reads every page in use from the file of the folder `path`, without LMDB, which would trust what it finds.
    ///
    /// # Errors
    /// [`StoreError::Truncated`], [`StoreError::Open`] with the first page that is not what it should be,
    /// [`StoreError::Io`].
    pub fn check_pages(path: &Path) -> Result<u64, StoreError> {
        pages::check_all(&path.join(open::DATA_FILE))
    }

    fn begin(&self) -> Result<LmdbSnapshot<'_>, StoreError> {
        let pass = self.map.enter()?;
        let transaction = self
            .map
            .environment
            .begin_ro_txn()
            .map_err(|error| match error {
                Error::ReadersFull => StoreError::ReadersFull {
                    max: self.map.max_readers,
                },
                source => failed("begin a snapshot")(source),
            })?;
        Ok(LmdbSnapshot {
            transaction,
            store: self,
            _pass: Some(pass),
        })
    }

    /// A read transaction that may go from thread to thread.
    pub(crate) fn reader(&self) -> Result<Reader, StoreError> {
        Reader::begin(&self.map)
    }

    /// The database of a table.
    pub(crate) const fn database(&self, table: Table) -> Database {
        self.tables[table.index()]
    }

    /// Writes what `writes` gives, all of it in one durable transaction. `bytes` is their size, for the error.
    pub(crate) fn write<'w, W>(
        &self,
        bytes: usize,
        writes: impl Fn() -> W,
    ) -> Result<(), StoreError>
    where
        W: Iterator<Item = (Table, &'w [u8], Option<&'w [u8]>)>,
    {
        self.write_checked(bytes, writes, || Ok(()))
    }

    /// [`LmdbStore::write`], which `check` can still refuse when all is written and nothing committed.
    pub(crate) fn write_checked<'w, W>(
        &self,
        bytes: usize,
        writes: impl Fn() -> W,
        check: impl Fn() -> Result<(), StoreError>,
    ) -> Result<(), StoreError>
    where
        W: Iterator<Item = (Table, &'w [u8], Option<&'w [u8]>)>,
    {
        let _writer = self.writer.lock();
        self.map.write(bytes, |environment| {
            let mut refused = None;
            let written = environment.begin_rw_txn().and_then(|mut transaction| {
                for (table, key, value) in writes() {
                    let database = self.tables[table.index()];
                    match value {
                        Some(value) => {
                            transaction.put(database, &key, &value, WriteFlags::empty())?;
                        }
                        None => match transaction.del(database, &key, None) {
                            Err(Error::NotFound) => {}
                            deleted => deleted?,
                        },
                    }
                }
                refused = check().err();
                match refused {
                    Some(_) => Ok(()),
                    None => transaction.commit(),
                }
            });
            match refused {
                Some(error) => Err(error),
                None => committed(written, self.path()),
            }
        })
    }
}

/// What the outcome of a write transaction means; `Ok(false)` that the map has no room.
pub(crate) fn committed(outcome: Result<(), Error>, path: &Path) -> Result<bool, StoreError> {
    match outcome {
        Ok(()) => Ok(true),
        Err(Error::MapFull) => Ok(false),
        Err(Error::Other(libc::ENOSPC | libc::EDQUOT | libc::EFBIG)) => Err(StoreError::DiskFull {
            path: path.to_owned(),
        }),
        // LMDB says so too when only a part of its pages could be written, which is how a file system that has become
        // full in the middle of a write answers first.
        Err(source @ Error::Other(libc::EIO)) => Err(StoreError::Lmdb {
            op: "commit a batch, for want of room or by a fault of the medium",
            source,
        }),
        Err(source) => Err(StoreError::Lmdb {
            op: "commit a batch",
            source,
        }),
    }
}

impl Store for LmdbStore {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        Ok(Box::new(self.begin()?))
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        batch.check_keys()?;
        self.write(batch.bytes(), || batch.iter())
    }

    fn stats(&self) -> Result<Vec<TableStats>, StoreError> {
        let snapshot = self.begin()?;
        let of = |table: Table| {
            let stat = snapshot.transaction.stat(self.tables[table.index()]);
            let stat = stat.map_err(failed("read the size of a table"))?;
            let pages = stat.branch_pages() + stat.leaf_pages() + stat.overflow_pages();
            Ok(TableStats {
                table,
                entries: stat.entries() as u64,
                bytes: pages as u64 * u64::from(stat.page_size()),
            })
        };
        Table::all().map(of).collect()
    }
}

/// A read transaction, which also keeps the map from being exchanged.
struct LmdbSnapshot<'a> {
    transaction: RoTransaction<'a>,
    store: &'a LmdbStore,
    /// Declared after the transaction, so that it is released after the transaction has ended. A fork has none: it
    /// is borrowed from a snapshot with one.
    _pass: Option<Pass>,
}

impl Snapshot for LmdbSnapshot<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StoreError> {
        if !is_storable(key) {
            return Ok(None);
        }
        match self.transaction.get(self.store.tables[table.index()], &key) {
            Ok(value) => Ok(Some(Cow::Borrowed(value))),
            Err(Error::NotFound) => Ok(None),
            Err(source) => Err(StoreError::Lmdb {
                op: "read a value",
                source,
            }),
        }
    }

    fn scan(&self, table: Table, from: &[u8], visit: Visitor<'_>) -> Result<(), StoreError> {
        let database = self.store.tables[table.index()];
        let cursor = self.transaction.open_ro_cursor(database);
        let cursor = cursor.map_err(failed("open a cursor"))?;
        let mut entry = if from.is_empty() {
            cursor.get(None, None, MDB_FIRST)
        } else {
            // No stored key is longer, so the cut one has the same keys after it, and itself is passed over below.
            let start = &from[..from.len().min(crate::batch::MAX_KEY)];
            cursor.get(Some(start), None, MDB_SET_RANGE)
        };
        loop {
            match entry {
                Ok((Some(key), value)) => {
                    if key >= from && visit(key, value).is_break() {
                        return Ok(());
                    }
                }
                // A cursor that has moved always tells its key.
                Ok((None, _)) => {
                    return Err(StoreError::corrupt(table, from, "an entry without a key"));
                }
                Err(Error::NotFound) => return Ok(()),
                Err(source) => {
                    return Err(StoreError::Lmdb {
                        op: "move a cursor",
                        source,
                    });
                }
            }
            entry = cursor.get(None, None, MDB_NEXT);
        }
    }

    fn fork(&self) -> Result<Option<Box<dyn Snapshot + Send + '_>>, StoreError> {
        fork::fork(self)
    }
}

pub(crate) fn failed(op: &'static str) -> impl Fn(Error) -> StoreError {
    move |source| StoreError::Lmdb { op, source }
}
