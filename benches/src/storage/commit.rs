//! The commit of a block, and the merge that follows it.

use std::time::Instant;

use serde::Serialize;
use zvm_storage::{JournaledStore, LmdbStore, Store, StoreError};

use super::load::{Random, block};
use super::{StorageArgs, median};

/// Milliseconds on a block's path, medians of alternating commits of the same blocks.
#[derive(Debug, Serialize)]
pub struct Commit {
    /// Into the journal.
    pub journal_ms: f64,
    /// One durable transaction on the tables.
    pub single_environment_ms: f64,
    /// The second over the first.
    pub ratio: f64,
}

/// The merge of all these blocks, on one thread.
#[derive(Debug, Serialize)]
pub struct Merge {
    /// Updates of blocks that are moved in a second.
    pub updates_per_s: f64,
    /// Bytes written by the merge for each byte of key and value in the blocks.
    pub write_amplification: f64,
    /// The same of the single environment.
    pub single_environment_write_amplification: f64,
}

/// Bytes this process has given to write calls.
fn written() -> f64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.and_then(|count| count.parse().ok()).unwrap_or(0.0)
}

pub fn commits(
    single: &LmdbStore,
    journaled: &JournaledStore,
    args: &StorageArgs,
) -> Result<(Commit, Merge), StoreError> {
    let mut random = Random(2);
    let mut entries = args.entries;
    let (mut journal, mut tables) = (Vec::new(), Vec::new());
    let (mut payload, mut tables_written) = (0.0, 0.0);
    for _ in 0..args.blocks {
        let batch = block(&mut random, &mut entries, args.updates);
        payload += batch.bytes() as f64;
        let before = written();
        let begun = Instant::now();
        single.commit(&batch)?;
        tables.push(begun.elapsed().as_secs_f64() * 1e3);
        tables_written += written() - before;
        let begun = Instant::now();
        journaled.commit(&batch)?;
        journal.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let before = written();
    let begun = Instant::now();
    journaled.merge_all()?;
    let seconds = begun.elapsed().as_secs_f64();
    let merged = written() - before;
    let (journal_ms, single_environment_ms) = (median(journal), median(tables));
    let commit = Commit {
        journal_ms,
        single_environment_ms,
        ratio: single_environment_ms / journal_ms,
    };
    let merge = Merge {
        updates_per_s: f64::from(args.blocks) * args.updates as f64 / seconds,
        write_amplification: merged / payload,
        single_environment_write_amplification: tables_written / payload,
    };
    Ok((commit, merge))
}
