//! The one error type of the crate.

use crate::Table;
use alloy_primitives::hex;
use std::path::PathBuf;
use std::time::Duration;

/// Why a store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store could not be opened.
    #[error("cannot open the store at {}: {reason}", path.display())]
    Open {
        /// Folder of the store.
        path: PathBuf,
        /// What stood in the way.
        reason: String,
    },
    /// The store is open already, in this process or in another one.
    #[error("the store at {} is already open, in this process or in another one", path.display())]
    AlreadyOpen {
        /// Folder of the store.
        path: PathBuf,
    },
    /// The folder holds an LMDB environment that this crate did not make.
    #[error("{} holds an LMDB environment of another program (its table {name:?} is unknown)", path.display())]
    Foreign {
        /// Folder of the store.
        path: PathBuf,
        /// The first table that is not of this crate.
        name: String,
    },
    /// The data file ends before pages that are in use.
    #[error("{} is truncated: it has {found} bytes and page {page} in use ends at byte {needed}", path.display())]
    Truncated {
        /// The data file.
        path: PathBuf,
        /// Bytes the file has.
        found: u64,
        /// Bytes the file must have at least.
        needed: u64,
        /// The page in use that lies past the end.
        page: u64,
    },
    /// The store was written by another version of the schema.
    #[error(
        "the store at {} has schema version {found}, this build reads version {expected}{}",
        path.display(),
        if found < expected { ": `zvm db migrate` brings it up" } else { "" }
    )]
    SchemaVersion {
        /// Version in the store.
        found: u32,
        /// Version of this build.
        expected: u32,
        /// Folder of the store.
        path: PathBuf,
    },
    /// The operating system refused the address space for the map.
    #[error("the system refused to map {asked} bytes for {} (see `ulimit -v`)", path.display())]
    AddressSpace {
        /// Folder of the store.
        path: PathBuf,
        /// The smallest size that was tried, in bytes.
        asked: u64,
    },
    /// The map is full and could not be grown. Nothing of the batch was written.
    #[error("the map of {map_size} bytes is full and did not grow: {reason}")]
    MapFull {
        /// Size of the map in bytes.
        map_size: u64,
        /// Why it was not grown.
        reason: String,
    },
    /// The file system has no room left. Nothing of the batch was written.
    #[error("no space left on the file system of {}", path.display())]
    DiskFull {
        /// Folder of the store.
        path: PathBuf,
    },
    /// More snapshots are open at once than the store has reader slots.
    #[error("all {max} reader slots are taken by open snapshots")]
    ReadersFull {
        /// Number of slots.
        max: u32,
    },
    /// A failed resize left the store without a map. It must be opened again.
    #[error("the store at {} lost its map in a failed resize: open it again", path.display())]
    Unusable {
        /// Folder of the store.
        path: PathBuf,
    },
    /// LMDB refused an operation.
    #[error("LMDB failed to {op}: {source}")]
    Lmdb {
        /// The operation.
        op: &'static str,
        /// The error of the binding.
        #[source]
        source: lmdb::Error,
    },
    /// A snapshot was open for longer than the store lets one be. What it read before stays right.
    #[error("the snapshot was open for longer than the limit of {limit:?}: take a new one")]
    SnapshotExpired {
        /// The limit.
        limit: Duration,
    },
    /// The journal holds commits that are not in the tables yet.
    #[error(
        "the store at {} has a journal up to commit {last}, and its tables hold commits up to {merged}: open it \
         as a journaled store",
        path.display()
    )]
    Unmerged {
        /// Folder of the store.
        path: PathBuf,
        /// Last commit in the journal.
        last: u64,
        /// Last commit in the tables.
        merged: u64,
    },
    /// A part of the journal that may hold acknowledged commits cannot be read. Nothing was changed.
    #[error(
        "the journal at {} is damaged after commit {sound}: {reason}; what is before can be had by dropping the damaged \
         end",
        path.display()
    )]
    JournalDamaged {
        /// Folder of the journal.
        path: PathBuf,
        /// The last commit that is whole, in the journal or in the tables.
        sound: u64,
        /// What is wrong.
        reason: String,
    },
    /// Commits in memory cannot be moved to the tables, and there is room for no more of them. All that was
    /// acknowledged is in the journal.
    #[error("commits wait for a merge that fails: {reason}")]
    MergeFails {
        /// The error of the merge.
        reason: String,
    },
    /// A file operation failed.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// The operation.
        op: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// A stored value does not have its table's layout, or a record that must be there is not.
    #[error("corrupt entry in table {table} at key 0x{key}: {reason}")]
    Corrupt {
        /// The table.
        table: Table,
        /// The key in hexadecimal.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// A key is empty or longer than a store takes (1 to 511 bytes).
    #[error("a key of {len} bytes in table {table} is outside 1..=511 bytes")]
    KeyLength {
        /// The table.
        table: Table,
        /// Length of the key in bytes.
        len: usize,
    },
    /// What is asked for was never kept or is pruned.
    #[error(
        "the {what} of block {number} is not kept: this store has that of blocks {first} to {last}"
    )]
    NotRetained {
        /// What is asked for.
        what: &'static str,
        /// The block.
        number: u64,
        /// First block it is kept of.
        first: u64,
        /// Last block it is kept of.
        last: u64,
    },
    /// Trie nodes are kept of the head only.
    #[error("trie nodes of past blocks are not stored; proofs at past blocks compute them")]
    PastTrie,
    /// A proof at a past block would have to look at more changes than it may.
    #[error(
        "a proof at block {number} would take back more than {limit} changes: ask for a later block or raise the limit"
    )]
    ProofTooFar {
        /// The block.
        number: u64,
        /// Changes a proof may take back.
        limit: u64,
    },
    /// The parts of a block do not fit each other.
    #[error("block {number} does not fit together: {reason}")]
    InconsistentBlock {
        /// Number of the block.
        number: u64,
        /// What does not fit.
        reason: String,
    },
}

impl StoreError {
    /// A [`StoreError::Corrupt`] for the entry of `table` at `key`.
    pub(crate) fn corrupt(table: Table, key: &[u8], reason: impl ToString) -> Self {
        Self::Corrupt {
            table,
            key: hex::encode(key),
            reason: reason.to_string(),
        }
    }
}
