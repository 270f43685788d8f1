//! A read transaction that owns its environment and may go from thread to thread.

use super::gate::Pass;
use super::{Map, failed};
use crate::{StoreError, Visitor};
use ::lmdb::{Database, Error};
use lmdb_sys::{MDB_FIRST, MDB_NEXT, MDB_RDONLY, MDB_SET_RANGE, MDB_cursor, MDB_txn, MDB_val};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;

/// A read transaction. What it reads is borrowed from it alone, so that ending it while something is read is an error
/// of the compiler. All methods that touch the transaction take `&mut self`: LMDB wants one thread at a time.
pub(crate) struct Reader {
    transaction: NonNull<MDB_txn>,
    /// Keeps the map from being exchanged. Dropped after the transaction has ended.
    _pass: Pass,
    /// Keeps the environment open. Dropped last.
    _map: Arc<Map>,
}

// SAFETY: every environment of this crate is opened with `NO_TLS`, which ties a read transaction to its handle and not
// to a thread; `&mut self` keeps two threads from using it at the same time.
#[allow(unsafe_code)]
unsafe impl Send for Reader {}

impl Reader {
    /// Begins a transaction on the newest state.
    #[allow(unsafe_code)]
    pub(crate) fn begin(map: &Arc<Map>) -> Result<Self, StoreError> {
        let pass = map.enter()?;
        let mut transaction: *mut MDB_txn = ptr::null_mut();
        // SAFETY: the environment is open and is kept so by `map`; the place for the result is valid.
        let code = unsafe {
            lmdb_sys::mdb_txn_begin(
                map.environment.env(),
                ptr::null_mut(),
                MDB_RDONLY,
                &raw mut transaction,
            )
        };
        let begun = NonNull::new(transaction).filter(|_| code == 0);
        let transaction = begun.ok_or_else(|| match Error::from_err_code(code) {
            Error::ReadersFull => StoreError::ReadersFull {
                max: map.max_readers,
            },
            error => failed("begin a snapshot")(error),
        })?;
        Ok(Self {
            transaction,
            _pass: pass,
            _map: Arc::clone(map),
        })
    }

    /// The number of the write transaction whose result is read. Two readers with one number see the same.
    #[allow(unsafe_code)]
    pub(crate) fn version(&self) -> usize {
        // SAFETY: the transaction is open until `self` is dropped.
        unsafe { lmdb_sys::mdb_txn_id(self.transaction.as_ptr()) }
    }

    /// The value under `key`, which must have a length that LMDB takes.
    #[allow(unsafe_code)]
    pub(crate) fn get(
        &mut self,
        database: Database,
        key: &[u8],
    ) -> Result<Option<&[u8]>, StoreError> {
        let mut key = value(key);
        let mut found = value(&[]);
        // SAFETY: the transaction is open and used by this thread alone, the handle is of its environment, both
        // values point to memory that outlives the call; LMDB does not write to the key.
        let code = unsafe {
            lmdb_sys::mdb_get(
                self.transaction.as_ptr(),
                database.dbi(),
                &raw mut key,
                &raw mut found,
            )
        };
        match code {
            // SAFETY: LMDB points to a value in its map, which stays and does not change until the transaction ends;
            // that needs `self`, which the result borrows.
            0 => Ok(Some(unsafe { bytes(&found) })),
            lmdb_sys::MDB_NOTFOUND => Ok(None),
            code => Err(failed("read a value")(Error::from_err_code(code))),
        }
    }

    /// Visits the entries with keys from `from` on in ascending order until `visit` breaks. `from` must be empty or
    /// have a length that LMDB takes.
    #[allow(unsafe_code)]
    pub(crate) fn scan(
        &mut self,
        database: Database,
        from: &[u8],
        visit: Visitor<'_>,
    ) -> Result<(), StoreError> {
        let cursor = Cursor::open(self, database)?;
        let mut key = value(from);
        let mut found = value(&[]);
        let mut op = if from.is_empty() {
            MDB_FIRST
        } else {
            MDB_SET_RANGE
        };
        loop {
            // SAFETY: the cursor is open, its transaction is used by this thread alone as `self` is borrowed, both
            // values are valid places.
            let code = unsafe {
                lmdb_sys::mdb_cursor_get(cursor.0.as_ptr(), &raw mut key, &raw mut found, op)
            };
            match code {
                0 => {}
                lmdb_sys::MDB_NOTFOUND => return Ok(()),
                code => return Err(failed("move a cursor")(Error::from_err_code(code))),
            }
            // SAFETY: a cursor that has moved points key and value into the map, where they stay for the
            // transaction; the visitor sees them for its call only.
            let (key, found) = unsafe { (bytes(&key), bytes(&found)) };
            if visit(key, found).is_break() {
                return Ok(());
            }
            op = MDB_NEXT;
        }
    }
}

impl Drop for Reader {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: the transaction is open, is not used after this, and nothing borrowed from it is left.
        unsafe { lmdb_sys::mdb_txn_abort(self.transaction.as_ptr()) }
    }
}

struct Cursor(NonNull<MDB_cursor>);

impl Cursor {
    #[allow(unsafe_code)]
    fn open(reader: &mut Reader, database: Database) -> Result<Self, StoreError> {
        let mut cursor: *mut MDB_cursor = ptr::null_mut();
        // SAFETY: the transaction is open and used by this thread alone, the handle is of its environment, the place
        // for the result is valid.
        let code = unsafe {
            lmdb_sys::mdb_cursor_open(reader.transaction.as_ptr(), database.dbi(), &raw mut cursor)
        };
        NonNull::new(cursor)
            .filter(|_| code == 0)
            .map(Self)
            .ok_or_else(|| failed("open a cursor")(Error::from_err_code(code)))
    }
}

impl Drop for Cursor {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: the cursor of a read transaction is closed by its owner, once, before or after the transaction.
        unsafe { lmdb_sys::mdb_cursor_close(self.0.as_ptr()) }
    }
}

const fn value(bytes: &[u8]) -> MDB_val {
    MDB_val {
        mv_size: bytes.len(),
        mv_data: bytes.as_ptr().cast_mut().cast(),
    }
}

/// The bytes LMDB points to.
///
/// # Safety
/// `value` was set by LMDB for a transaction that stays open for `'a`.
#[allow(unsafe_code)]
const unsafe fn bytes<'a>(value: &MDB_val) -> &'a [u8] {
    if value.mv_size == 0 {
        return &[];
    }
    // SAFETY: by the contract above the memory is there, is not written and has this length.
    unsafe { slice::from_raw_parts(value.mv_data.cast(), value.mv_size) }
}
