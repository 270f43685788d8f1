//! The journal: an environment of its own with one record a commit, under the commit's number.

use super::Durability;
use super::record::{self, HEADER, Record, StoreId};
use super::run::Encoded;
use crate::StoreError;
use crate::faults::point;
use crate::lmdb::{DATA_FILE, Map, Opening, Roots, committed, environment, failed, io};
use ::lmdb::{Cursor, Database, EnvironmentFlags, Error, Transaction, WriteFlags};
use lmdb_sys::{MDB_FIRST, MDB_LAST, MDB_SET_RANGE};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Folder of the journal in that of the store.
const FOLDER: &str = "journal";
/// Commits in the tables whose records one commit takes out of the journal, so that none of them waits for long.
const TRIMMED_AT_ONCE: usize = 64;

/// The number of a record, and the record or what is wrong with it.
type Found = (u64, Result<Record, &'static str>);

pub(super) struct Journal {
    map: Map,
    records: Database,
    durability: Durability,
    store: StoreId,
    /// A commit failed, and it is not known which of its records are there.
    uncertain: AtomicBool,
}

impl Journal {
    /// Whether the store in `folder` has one.
    pub(super) fn exists(folder: &Path) -> bool {
        fs::metadata(folder.join(FOLDER).join(DATA_FILE)).is_ok_and(|data| data.len() > 0)
    }

    /// Opens the journal of the store in `folder`, or makes an empty one. Pages are checked before LMDB uses them. If
    /// the last transaction is damaged and `dropping`, it is taken back; the second value says so.
    pub(super) fn open(
        folder: &Path,
        map_size: u64,
        durability: Durability,
        store: StoreId,
        dropping: bool,
    ) -> Result<(Self, Option<String>), StoreError> {
        let path = folder.join(FOLDER);
        let made = Self::exists(folder);
        fs::create_dir_all(&path).map_err(io("make", &path))?;
        let data = path.join(DATA_FILE);
        let mut dropped = None;
        if made {
            dropped = check(&path, &data, dropping)?;
        }
        let length = fs::metadata(&data).map_or(0, |data| data.len());
        let opening = Opening {
            // The meta page is synced by name in `append`, so that there is a moment before it.
            flags: match durability {
                Durability::Full => EnvironmentFlags::NO_META_SYNC,
                Durability::Relaxed => EnvironmentFlags::NO_SYNC,
            } | EnvironmentFlags::NO_READAHEAD,
            map_size,
            max_readers: 8,
            databases: 0,
        };
        let environment = environment(&opening, &path, length)?;
        let records = environment
            .open_db(None)
            .map_err(failed("open the journal"))?;
        if !made {
            // The names of the new files must be as durable as what is written to them.
            for folder in [&path, folder] {
                fs::File::open(folder)
                    .and_then(|folder| folder.sync_all())
                    .map_err(io("sync", folder))?;
            }
        }
        let journal = Self {
            // Nothing reads while the journal is written, so growing never waits.
            map: Map::new(environment, path, 8, Duration::ZERO),
            records,
            durability,
            store,
            uncertain: AtomicBool::new(false),
        };
        Ok((journal, dropped))
    }

    pub(super) fn path(&self) -> &Path {
        self.map.path()
    }

    /// Bytes of the data file.
    pub(super) fn file_bytes(&self) -> u64 {
        fs::metadata(self.path().join(DATA_FILE)).map_or(0, |data| data.len())
    }

    /// Writes the commits from number `first` on in one transaction, and takes out some of those up to `merged`. When
    /// it returns they are as durable as they are to be.
    pub(super) fn append(
        &self,
        first: u64,
        commits: &[&Encoded],
        merged: u64,
    ) -> Result<(), StoreError> {
        let path = self.path();
        point("journal.begin", path)?;
        // Until it has succeeded; the next one then takes out what this one may have left.
        let uncertain = self.uncertain.swap(true, Ordering::Relaxed);
        let bytes = commits.iter().map(|commit| commit.journaled().len()).sum();
        self.map.write(bytes, |environment| {
            let mut injected = None;
            let written = environment.begin_rw_txn().and_then(|mut transaction| {
                if uncertain {
                    drop_from(&mut transaction, self.records, first)?;
                }
                injected = point("journal.trimming", path).err();
                trim(&mut transaction, self.records, merged)?;
                injected = injected.take().or(point("journal.trimmed", path).err());
                for (sequence, commit) in (first..).zip(commits) {
                    let entries = commit.journaled();
                    let header = record::header(sequence, &self.store, commit);
                    let flags = WriteFlags::empty();
                    let key = sequence.to_be_bytes();
                    let length = HEADER + entries.len();
                    let place = transaction.reserve(self.records, &key, length, flags)?;
                    let (start, rest) = place.split_at_mut(HEADER);
                    start.copy_from_slice(&header);
                    rest.copy_from_slice(entries);
                }
                match injected {
                    Some(_) => Ok(()),
                    None => transaction.commit(),
                }
            });
            match injected {
                Some(error) => Err(error),
                None => committed(written, path),
            }
        })?;
        point("journal.written", path)?;
        if self.durability == Durability::Full {
            self.map.sync()?;
        }
        point("journal.synced", path)?;
        self.uncertain.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Reads the record of commit `sequence` or the first one after it, with its number.
    pub(super) fn read(&self, sequence: u64) -> Result<Option<Found>, StoreError> {
        self.map.with(|environment| {
            let transaction = environment.begin_ro_txn();
            let transaction = transaction.map_err(failed("read the journal"))?;
            let cursor = transaction.open_ro_cursor(self.records);
            let cursor = cursor.map_err(failed("open a cursor"))?;
            match cursor.get(Some(&sequence.to_be_bytes()), None, MDB_SET_RANGE) {
                Ok((key, value)) => {
                    // The binding tells no key if it is the one that was asked for.
                    let found = match key.map(<[u8; 8]>::try_from) {
                        None => sequence,
                        Some(Ok(key)) => u64::from_be_bytes(key),
                        Some(Err(_)) => {
                            return Ok(Some((sequence, Err("a key of another length"))));
                        }
                    };
                    Ok(Some((found, record::decode(found, value))))
                }
                Err(Error::NotFound) => Ok(None),
                Err(error) => Err(failed("read the journal")(error)),
            }
        })
    }

    /// Number of the last record, zero if there is none.
    pub(super) fn last(&self) -> Result<u64, StoreError> {
        self.map.with(|environment| {
            let transaction = environment.begin_ro_txn();
            let transaction = transaction.map_err(failed("read the journal"))?;
            let cursor = transaction.open_ro_cursor(self.records);
            let cursor = cursor.map_err(failed("open a cursor"))?;
            match cursor.get(None, None, MDB_LAST) {
                Ok((key, _)) => {
                    let key = key.and_then(|key| <[u8; 8]>::try_from(key).ok());
                    Ok(key.map_or(0, u64::from_be_bytes))
                }
                Err(Error::NotFound) => Ok(0),
                Err(error) => Err(failed("read the journal")(error)),
            }
        })
    }

    /// Takes out the records from commit `sequence` on.
    pub(super) fn drop_from(&self, sequence: u64) -> Result<(), StoreError> {
        let path = self.path();
        self.map.write(0, |environment| {
            let dropped = environment.begin_rw_txn().and_then(|mut transaction| {
                drop_from(&mut transaction, self.records, sequence)?;
                transaction.commit()
            });
            committed(dropped, path)
        })?;
        self.map.sync()
    }
}

/// Takes records up to commit `merged` out.
fn trim(
    transaction: &mut ::lmdb::RwTransaction<'_>,
    records: Database,
    merged: u64,
) -> Result<(), Error> {
    for _ in 0..TRIMMED_AT_ONCE {
        match end_key(transaction, records, MDB_FIRST)? {
            Some(first) if first <= merged => {
                transaction.del(records, &first.to_be_bytes(), None)?;
            }
            _ => break,
        }
    }
    Ok(())
}

/// Takes the records from commit `sequence` on out.
fn drop_from(
    transaction: &mut ::lmdb::RwTransaction<'_>,
    records: Database,
    sequence: u64,
) -> Result<(), Error> {
    while let Some(last) = end_key(transaction, records, MDB_LAST)? {
        if last < sequence {
            break;
        }
        transaction.del(records, &last.to_be_bytes(), None)?;
    }
    Ok(())
}

/// The number at one end of the journal.
fn end_key(
    transaction: &mut ::lmdb::RwTransaction<'_>,
    records: Database,
    end: u32,
) -> Result<Option<u64>, Error> {
    let cursor = transaction.open_ro_cursor(records)?;
    match cursor.get(None, None, end) {
        Ok((key, _)) => {
            let key = key.and_then(|key| <[u8; 8]>::try_from(key).ok());
            Ok(Some(key.map(u64::from_be_bytes).ok_or(Error::Corrupted)?))
        }
        Err(Error::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Walks the pages of a journal before LMDB, which would trust them, maps them.
fn check(path: &Path, data: &Path, dropping: bool) -> Result<Option<String>, StoreError> {
    let roots = Roots::read(data)?;
    let Err(fault) = &roots.newest else {
        return Ok(None);
    };
    let reason = format!("the last transaction is not whole, {fault}");
    let damaged = |reason| StoreError::JournalDamaged {
        path: path.to_owned(),
        sound: 0,
        reason,
    };
    if !dropping {
        return Err(damaged(reason));
    }
    if roots.older.is_ok() {
        roots.drop_newest(data)?;
        return Ok(Some(reason));
    }
    // Nothing in it can be trusted: the tables alone are whole as of their last merge. It is kept under another name.
    let mut kept = PathBuf::from(data);
    for number in 1_u32.. {
        kept.set_file_name(format!("{DATA_FILE}.damaged-{number}"));
        if !kept.exists() {
            break;
        }
    }
    fs::rename(data, &kept).map_err(io("rename", data))?;
    Ok(Some(format!(
        "{reason}; all of it was put away as {}",
        kept.display()
    )))
}
