//! How a journaled store is opened, and what it says of itself.

use crate::{Durability, LmdbOptions};
use std::path::PathBuf;
use std::time::Duration;

/// How a journaled store is opened.
#[derive(Clone, Debug)]
pub struct JournaledOptions {
    /// The environment of the tables. Its durability is that of the journal: the tables are always synced.
    pub state: LmdbOptions,
    /// Address space of the journal at first, in bytes; it grows when it is full.
    pub journal_map_size: u64,
    /// Bytes of memory that commits may take before they are in the tables. A commit beyond waits for a merge.
    pub overlay_bytes: usize,
    /// Bytes of memory from which on a merge begins at once, and which it moves at most (or one commit).
    pub merge_bytes: usize,
    /// How long a commit waits at most until a merge of it begins.
    pub merge_interval: Duration,
    /// How long a snapshot can be used. Then its reads fail and what it held is freed.
    pub snapshot_limit: Duration,
    /// Whether a damaged end of the journal is dropped, with what was committed there. With
    /// [`Durability::Relaxed`], where a crash of the machine may leave one, it always is.
    pub drop_damaged_end: bool,
}

impl JournaledOptions {
    /// A store in the folder `path`: [`LmdbOptions::new`], a journal map of 16 GiB, 256 MiB of overlay, merges of
    /// 32 MiB or after one second, snapshots of 60 seconds, a damaged end of the journal is an error.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            state: LmdbOptions::new(path),
            journal_map_size: 1 << 34,
            overlay_bytes: 256 << 20,
            merge_bytes: 32 << 20,
            merge_interval: Duration::from_secs(1),
            snapshot_limit: Duration::from_secs(60),
            drop_damaged_end: false,
        }
    }

    /// What a commit promises.
    pub(super) const fn durability(&self) -> Durability {
        self.state.durability
    }

    pub(super) fn drops(&self) -> bool {
        self.drop_damaged_end || self.durability() == Durability::Relaxed
    }
}

/// What the journal gave when the store was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Commits that were in the journal and not in the tables.
    pub replayed: u64,
    /// Why the end of the journal was dropped, if it was.
    pub dropped: Option<String>,
}

/// Journal, overlay and merges as they are now; counts are since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalStatistics {
    /// Number of the last commit.
    pub last: u64,
    /// Number of the last commit in the tables.
    pub merged: u64,
    /// Bytes of the journal's file.
    pub journal_bytes: u64,
    /// Bytes of memory of the commits that are not in the tables.
    pub overlay_bytes: u64,
    /// Their entries.
    pub overlay_entries: u64,
    /// The runs they are in.
    pub overlay_runs: u64,
    /// Merges.
    pub merges: u64,
    /// Entries written to the tables by merges.
    pub merged_entries: u64,
    /// Time that merges took, in nanoseconds.
    pub merge_nanoseconds: u64,
    /// Merges that failed.
    pub failed_merges: u64,
    /// Commits that waited for a merge because the overlay was full.
    pub waits: u64,
    /// Time they waited, in nanoseconds.
    pub wait_nanoseconds: u64,
    /// Snapshots that were ended by their limit.
    pub expired_snapshots: u64,
    /// Open snapshots.
    pub snapshots: u64,
}
