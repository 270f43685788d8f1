//! Opening: the folder is locked, the file is looked at before LMDB touches its pages, the schema is checked.

use super::{Durability, LmdbOptions, LmdbStore, Map, failed, pages};
use crate::meta::SCHEMA;
use crate::{SCHEMA_VERSION, StoreError, Table};
use ::lmdb::{
    Cursor, Database, DatabaseFlags, Environment, EnvironmentFlags, Error, Transaction, WriteFlags,
};
use lmdb_sys::{MDB_FIRST, MDB_NEXT};
use parking_lot::Mutex;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) const DATA_FILE: &str = "data.mdb";
pub(super) const LOCK_FILE: &str = "zvm.lock";
/// Reader slots of LMDB.
pub(super) const READERS_FILE: &str = "lock.mdb";
/// In the lock file once the folder holds a store.
const MADE: &[u8] = b"zvm-storage\n";
/// Below this a refused map is not tried smaller any more.
const SMALLEST_FALLBACK: u64 = 1 << 30;

pub(super) fn open(options: LmdbOptions) -> Result<LmdbStore, StoreError> {
    open_from(options, SCHEMA_VERSION).map(|(store, _)| store)
}

/// Opens a store of a schema version from `oldest` to this build's, and tells which.
pub(super) fn open_from(options: LmdbOptions, oldest: u32) -> Result<(LmdbStore, u32), StoreError> {
    fs::create_dir_all(&options.path).map_err(io("make", &options.path))?;
    let path = fs::canonicalize(&options.path).map_err(io("resolve", &options.path))?;
    let mut lock = FolderLock::take(&path)?;
    let made = is_made(&mut lock.0, &path)?;
    let data = path.join(DATA_FILE);
    let data_length = match fs::metadata(&data) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(io("look at", &data)(error)),
    };
    if made && data_length == 0 {
        return Err(StoreError::Open {
            path,
            reason: format!("it held a store, but {DATA_FILE} is missing or empty"),
        });
    }
    let opening = Opening {
        // Data is synced before the meta page that names it, the meta page only with the next commit.
        flags: match options.durability {
            Durability::Full => EnvironmentFlags::empty(),
            Durability::Relaxed => EnvironmentFlags::NO_META_SYNC,
        },
        map_size: options.map_size,
        max_readers: options.max_readers,
        databases: Table::COUNT as u32,
    };
    let environment = environment(&opening, &path, data_length)?;
    if data_length > 0 {
        pages::check_length(&environment, &data)?;
    }
    sweep_readers(&environment)?;
    check_names(&environment, &path)?;
    let stored = stored_schema(&environment)?;
    if let Some(found) = stored
        && !(oldest..=SCHEMA_VERSION).contains(&found)
    {
        // Before any table is made: the version that wrote the store must still know it.
        return Err(StoreError::SchemaVersion {
            found,
            expected: SCHEMA_VERSION,
            path,
        });
    }
    let tables = tables(&environment)?;
    if stored.is_none() {
        write_schema(&environment, &tables)?;
    }
    if !made {
        // The entries of the new files in their folder must be as durable as what is committed to them.
        File::open(&path)
            .and_then(|folder| folder.sync_all())
            .map_err(io("sync", &path))?;
        lock.0
            .write_all(MADE)
            .and_then(|()| lock.0.sync_all())
            .map_err(io("write", &path.join(LOCK_FILE)))?;
    }
    let store = LmdbStore {
        map: Arc::new(Map::new(
            environment,
            path,
            options.max_readers,
            options.grow_wait,
        )),
        tables,
        writer: Mutex::new(()),
        _lock: lock,
    };
    Ok((store, stored.unwrap_or(SCHEMA_VERSION)))
}

/// The lock of a folder, held until it is dropped.
pub(super) struct FolderLock(File);

impl FolderLock {
    /// Takes the lock of the folder. The system ties it to this opening of the file, so that it shuts out a second
    /// one in this process too, and ends it with the process.
    fn take(path: &Path) -> Result<Self, StoreError> {
        let file = path.join(LOCK_FILE);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&file)
            .map_err(io("open", &file))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self(lock)),
            Err(TryLockError::WouldBlock) => Err(StoreError::AlreadyOpen {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(error)) => Err(io("lock", &file)(error)),
        }
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Closing alone would leave it locked while a process that was just forked has not yet closed its copy. If
        // unlocking fails, closing still does it.
        let _ = self.0.unlock();
    }
}

/// Whether the folder held a store before; a store that was not made to its end does not count.
fn is_made(lock: &mut File, path: &Path) -> Result<bool, StoreError> {
    let file = path.join(LOCK_FILE);
    let mut mark = Vec::new();
    lock.take(MADE.len() as u64 + 1)
        .read_to_end(&mut mark)
        .map_err(io("read", &file))?;
    if mark == MADE {
        return Ok(true);
    }
    if MADE.starts_with(&mark) {
        lock.set_len(0).map_err(io("write", &file))?;
        io::Seek::rewind(lock).map_err(io("write", &file))?;
        return Ok(false);
    }
    Err(StoreError::Open {
        path: path.to_owned(),
        reason: format!("{LOCK_FILE} was written by another program"),
    })
}

/// How an environment is opened.
pub(crate) struct Opening {
    pub flags: EnvironmentFlags,
    pub map_size: u64,
    pub max_readers: u32,
    /// How many named databases it has.
    pub databases: u32,
}

/// Opens the environment with the largest map up to the asked one that the system grants.
pub(crate) fn environment(
    options: &Opening,
    path: &Path,
    data_length: u64,
) -> Result<Environment, StoreError> {
    let mut size = options.map_size.max(data_length);
    loop {
        let bytes = usize::try_from(size).map_err(|_| StoreError::AddressSpace {
            path: path.to_owned(),
            asked: size,
        })?;
        let opened = Environment::new()
            // Without it a read transaction belongs to its thread, and a thread has one at most.
            .set_flags(options.flags | EnvironmentFlags::NO_TLS)
            .set_max_readers(options.max_readers)
            .set_max_dbs(options.databases)
            .set_map_size(bytes)
            .open(path);
        match opened {
            Ok(environment) => return Ok(environment),
            Err(Error::Other(libc::ENOMEM)) => {
                let smaller = size / 2;
                if smaller < SMALLEST_FALLBACK.max(data_length) {
                    return Err(StoreError::AddressSpace {
                        path: path.to_owned(),
                        asked: size,
                    });
                }
                size = smaller;
            }
            Err(Error::Invalid) => return Err(not_ours(path, "is not an LMDB file")),
            Err(Error::VersionMismatch) => {
                return Err(not_ours(path, "was written by another version of LMDB"));
            }
            Err(error) => return Err(not_ours(path, &format!("does not open: {error}"))),
        }
    }
}

fn not_ours(path: &Path, reason: &str) -> StoreError {
    StoreError::Open {
        path: path.to_owned(),
        reason: format!("{DATA_FILE} {reason}"),
    }
}

/// Frees the reader slots of processes that ended without closing: each would keep old pages from being used again.
#[allow(unsafe_code)]
fn sweep_readers(environment: &Environment) -> Result<(), StoreError> {
    let mut dead = 0;
    // SAFETY: the pointer is that of an open environment, which outlives the call, and `dead` is a valid place for
    // the count. LMDB locks its reader table itself.
    let code = unsafe { lmdb_sys::mdb_reader_check(environment.env(), &raw mut dead) };
    if code == 0 {
        return Ok(());
    }
    Err(failed("sweep stale readers")(Error::from_err_code(code)))
}

/// Fails if the environment holds a name that is not one of our tables.
fn check_names(environment: &Environment, path: &Path) -> Result<(), StoreError> {
    let main = environment
        .open_db(None)
        .map_err(failed("open the main table"))?;
    let transaction = environment.begin_ro_txn();
    let transaction = transaction.map_err(failed("begin a snapshot"))?;
    let cursor = transaction.open_ro_cursor(main);
    let cursor = cursor.map_err(failed("open a cursor"))?;
    let mut op = MDB_FIRST;
    loop {
        match cursor.get(None, None, op) {
            Ok((name, _)) => {
                let name = name.unwrap_or_default();
                if !Table::all().any(|table| table.name().as_bytes() == name) {
                    return Err(StoreError::Foreign {
                        path: path.to_owned(),
                        name: String::from_utf8_lossy(name).into_owned(),
                    });
                }
            }
            Err(Error::NotFound) => return Ok(()),
            Err(error) => return Err(failed("read the names of the tables")(error)),
        }
        op = MDB_NEXT;
    }
}

/// Opens the databases of all tables and makes those that are not there.
fn tables(environment: &Environment) -> Result<[Database; Table::COUNT], StoreError> {
    let open = |table: Table| match environment.open_db(Some(table.name())) {
        Err(Error::NotFound) => environment.create_db(Some(table.name()), DatabaseFlags::empty()),
        opened => opened,
    };
    let first = open(Table::Meta).map_err(failed("open a table"))?;
    let mut tables = [first; Table::COUNT];
    for table in Table::all() {
        tables[table.index()] = open(table).map_err(failed("open a table"))?;
    }
    Ok(tables)
}

/// The schema version in the store, `None` if there is none.
fn stored_schema(environment: &Environment) -> Result<Option<u32>, StoreError> {
    let meta = match environment.open_db(Some(Table::Meta.name())) {
        Err(Error::NotFound) => return Ok(None),
        opened => opened.map_err(failed("open a table"))?,
    };
    let transaction = environment.begin_ro_txn();
    let transaction = transaction.map_err(failed("begin a snapshot"))?;
    match transaction.get(meta, &SCHEMA) {
        Ok(version) => <[u8; 4]>::try_from(version)
            .map(|version| Some(u32::from_be_bytes(version)))
            .map_err(|_| StoreError::corrupt(Table::Meta, SCHEMA, "not 4 bytes")),
        Err(Error::NotFound) => Ok(None),
        Err(error) => Err(failed("read the schema version")(error)),
    }
}

/// Writes the schema version into a new store.
fn write_schema(
    environment: &Environment,
    tables: &[Database; Table::COUNT],
) -> Result<(), StoreError> {
    let transaction = environment.begin_ro_txn();
    let transaction = transaction.map_err(failed("begin a snapshot"))?;
    for database in tables {
        let stat = transaction.stat(*database);
        if stat.map_err(failed("read the size of a table"))?.entries() > 0 {
            let reason = "tables hold entries, but there is no schema version";
            return Err(StoreError::corrupt(Table::Meta, SCHEMA, reason));
        }
    }
    drop(transaction);
    let written = environment.begin_rw_txn().and_then(|mut transaction| {
        let version = SCHEMA_VERSION.to_be_bytes();
        let meta = tables[Table::Meta.index()];
        transaction.put(meta, &SCHEMA, &version, WriteFlags::empty())?;
        transaction.commit()
    });
    written.map_err(failed("write the schema version"))
}

pub(crate) fn io<'p>(
    op: &'static str,
    path: &'p Path,
) -> impl Fn(io::Error) -> StoreError + use<'p> {
    let path: PathBuf = path.to_owned();
    move |source| StoreError::Io {
        op,
        path: path.clone(),
        source,
    }
}
