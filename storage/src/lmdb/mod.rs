//! A store in LMDB: one environment a folder, one named database a table.

mod address_space;
mod bulk;
mod fork;
mod gate;
mod migrate;
mod open;
mod pages;

use crate::batch::is_storable;
use crate::{Batch, Snapshot, Store, StoreError, Table, TableStats, Visitor};
use ::lmdb::{Cursor, Database, Environment, Error, RoTransaction, Transaction, WriteFlags};
pub use bulk::Compacted;
use gate::{Gate, Pass};
use lmdb_sys::{MDB_FIRST, MDB_NEXT, MDB_SET_RANGE};
pub use migrate::Migrated;
use parking_lot::Mutex;
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often the map is doubled at most to make room for one batch.
const GROW_ATTEMPTS: u32 = 8;

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
    environment: Environment,
    tables: [Database; Table::COUNT],
    path: PathBuf,
    max_readers: u32,
    grow_wait: Duration,
    gate: Gate,
    /// Orders commits, so that two that find the map full do not both grow it.
    writer: Mutex<()>,
    /// A resize failed and left no map.
    unusable: AtomicBool,
    /// Locked for as long as the store is open. Declared after the environment, so it is released last.
    _lock: open::FolderLock,
}

impl LmdbStore {
    /// Opens the store, or makes an empty one if the folder holds none.
    ///
    /// # Errors
    /// [`StoreError::AlreadyOpen`], [`StoreError::SchemaVersion`], [`StoreError::Foreign`],
    /// [`StoreError::Truncated`], [`StoreError::AddressSpace`], [`StoreError::Open`], [`StoreError::Io`],
    /// [`StoreError::Lmdb`].
    pub fn open(options: LmdbOptions) -> Result<Self, StoreError> {
        open::open(options)
    }

    /// Folder of the store, without links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the map in bytes.
    ///
    /// # Errors
    /// [`StoreError::Unusable`], [`StoreError::Lmdb`].
    pub fn map_size(&self) -> Result<u64, StoreError> {
        // LMDB reads it from the map, which is not there while it is exchanged.
        let _pass = self.enter()?;
        let info = self.environment.info();
        Ok(info.map_err(failed("read the map size"))?.map_size() as u64)
    }

    fn begin(&self) -> Result<LmdbSnapshot<'_>, StoreError> {
        let pass = self.enter()?;
        let transaction = self
            .environment
            .begin_ro_txn()
            .map_err(|error| match error {
                Error::ReadersFull => StoreError::ReadersFull {
                    max: self.max_readers,
                },
                source => StoreError::Lmdb {
                    op: "begin a snapshot",
                    source,
                },
            })?;
        Ok(LmdbSnapshot {
            transaction,
            store: self,
            _pass: Some(pass),
        })
    }

    /// Keeps the map where it is.
    fn enter(&self) -> Result<Pass<'_>, StoreError> {
        let pass = self.gate.pass();
        if self.unusable.load(Ordering::Acquire) {
            return Err(StoreError::Unusable {
                path: self.path.clone(),
            });
        }
        Ok(pass)
    }

    /// Writes the batch in one transaction; `Ok(false)` if the map has no room for it.
    fn try_commit(&self, batch: &Batch) -> Result<bool, StoreError> {
        let _pass = self.enter()?;
        let written = self.environment.begin_rw_txn().and_then(|mut transaction| {
            for (table, key, value) in batch.iter() {
                let database = self.tables[table.index()];
                match value {
                    Some(value) => transaction.put(database, &key, &value, WriteFlags::empty())?,
                    None => match transaction.del(database, &key, None) {
                        Err(Error::NotFound) => {}
                        deleted => deleted?,
                    },
                }
            }
            transaction.commit()
        });
        match written {
            Ok(()) => Ok(true),
            Err(Error::MapFull) => Ok(false),
            Err(Error::Other(libc::ENOSPC | libc::EDQUOT)) => Err(StoreError::DiskFull {
                path: self.path.clone(),
            }),
            Err(source) => Err(StoreError::Lmdb {
                op: "commit a batch",
                source,
            }),
        }
    }

    /// Doubles the map when no transaction is open.
    fn grow(&self) -> Result<(), StoreError> {
        let old = self.map_size()?;
        let refused = |reason: String| StoreError::MapFull {
            map_size: old,
            reason,
        };
        let new = old
            .checked_mul(2)
            .and_then(|new| usize::try_from(new).ok())
            .ok_or_else(|| refused("there is no larger size".into()))?;
        let Some(_gate) = self.gate.close(self.grow_wait) else {
            return Err(refused(format!(
                "snapshots stayed open for {:?}",
                self.grow_wait
            )));
        };
        // LMDB unmaps first: a size the system refuses must be found out while the old map is still there.
        address_space::probe(new).map_err(|error| refused(error.to_string()))?;
        // The gate is held, so no transaction of this process is open, and the lock file keeps other ones out: the
        // two conditions under which LMDB may exchange its map.
        self.environment.set_map_size(new).map_err(|error| {
            // There is no map now, and without one a second call maps nothing and says that all is well.
            self.unusable.store(true, Ordering::Release);
            refused(error.to_string())
        })
    }
}

impl Store for LmdbStore {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        Ok(Box::new(self.begin()?))
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        batch.check_keys()?;
        let _writer = self.writer.lock();
        for _ in 0..GROW_ATTEMPTS {
            if self.try_commit(batch)? {
                return Ok(());
            }
            self.grow()?;
        }
        if self.try_commit(batch)? {
            return Ok(());
        }
        Err(StoreError::MapFull {
            map_size: self.map_size()?,
            reason: format!("a batch of {} bytes does not fit", batch.bytes()),
        })
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
    _pass: Option<Pass<'a>>,
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

fn failed(op: &'static str) -> impl Fn(Error) -> StoreError {
    move |source| StoreError::Lmdb { op, source }
}
