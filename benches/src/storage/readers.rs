//! Block times beside readers.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use zvm_storage::{JournaledOptions, JournaledStore, Store, StoreError, Table};

use super::load::{Random, block, key};
use super::{StorageArgs, median};

/// Snapshots that are read beside the blocks.
const SNAPSHOTS: usize = 100;
/// How long a snapshot can be used.
const LIMIT: Duration = Duration::from_secs(2);

/// Milliseconds of a commit, medians of alternating series, merges running.
#[derive(Debug, Serialize)]
pub struct Readers {
    /// Nobody reads.
    pub alone_ms: f64,
    /// 100 snapshots are taken and read in turn and one is held for ever.
    pub beside_readers_ms: f64,
    /// Times that a snapshot was ended by its limit: the one held for ever.
    pub expired: u64,
    /// Bytes of the file of tables after the series with and without readers, over those before them.
    pub file_growth: f64,
}

pub fn readers(path: &Path, args: &StorageArgs) -> Result<Readers, StoreError> {
    let store = JournaledStore::open(JournaledOptions {
        snapshot_limit: LIMIT,
        ..JournaledOptions::new(path)
    })?;
    let size = || std::fs::metadata(path.join("data.mdb")).map_or(0, |data| data.len());
    let before = size();
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let mut random = Random(4);
    let mut entries = args.entries;
    let endless = store.snapshot()?;
    let done = AtomicBool::new(false);
    let reading = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random(5);
            let mut snapshots = Vec::new();
            while !done.load(Ordering::Acquire) {
                if !reading.load(Ordering::Acquire) {
                    snapshots.clear();
                    thread::sleep(Duration::from_millis(1));
                    continue;
                }
                // One new snapshot a turn in place of the oldest, one read of each.
                if snapshots.len() == SNAPSHOTS {
                    snapshots.remove(0);
                }
                snapshots.extend(store.snapshot());
                for snapshot in &snapshots {
                    let slot = key(random.below(args.entries));
                    // One that has expired says so; then the next turns replace it.
                    let _ = snapshot.get(Table::Storage, &slot);
                }
                thread::sleep(Duration::from_millis(2));
            }
        });
        let outcome = (|| {
            for series in 0..6 {
                let with = series % 2 == 1;
                reading.store(with, Ordering::Release);
                for _ in 0..args.blocks {
                    let batch = block(&mut random, &mut entries, args.updates);
                    let begun = Instant::now();
                    store.commit(&batch)?;
                    let took = begun.elapsed();
                    if with { &mut beside } else { &mut alone }.push(took.as_secs_f64() * 1e3);
                    // 20,000 updates a second.
                    let pace = Duration::from_micros(args.updates * 50);
                    thread::sleep(pace.saturating_sub(took));
                }
            }
            Ok::<_, StoreError>(())
        })();
        done.store(true, Ordering::Release);
        outcome
    })?;
    while store.statistics().expired_snapshots == 0 {
        thread::sleep(Duration::from_millis(10));
    }
    drop(endless);
    store.merge_all()?;
    Ok(Readers {
        alone_ms: median(alone),
        beside_readers_ms: median(beside),
        expired: store.statistics().expired_snapshots,
        file_growth: size() as f64 / before.max(1) as f64,
    })
}
