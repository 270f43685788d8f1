//! Reads of random slots.

use std::hint::black_box;
use std::time::Instant;

use serde::Serialize;
use zvm_storage::{JournaledStore, LmdbStore, Snapshot, Store, StoreError, Table};

use super::load::{Random, block, key};
use super::{StorageArgs, median};

/// Reads in one sample.
const READS: u64 = 50_000;

/// Nanoseconds, medians of alternating samples.
#[derive(Debug, Serialize)]
pub struct ReadNs {
    /// From the tables, without anything before them.
    pub bare_lmdb: f64,
    /// From the tables, past the overlay that does not have the slot.
    pub state: f64,
    /// From the overlay.
    pub overlay: f64,
    /// Blocks in the overlay, and runs they were in.
    pub layers: (u64, u64),
}

pub fn reads(
    single: &LmdbStore,
    journaled: &JournaledStore,
    args: &StorageArgs,
) -> Result<ReadNs, StoreError> {
    // Slots that are in no table, so that nothing else changes.
    let mut random = Random(3);
    let first = u64::MAX / 2;
    let mut new = first;
    for _ in 0..args.overlay_blocks {
        let before = new;
        let mut batch = zvm_storage::Batch::new();
        let made = block(&mut random, &mut new, args.updates * 10);
        for number in before..new {
            let slot = key(number);
            let value = made.get(Table::Storage, &slot).flatten();
            batch.put(Table::Storage, slot, value.unwrap_or(&[1]));
        }
        journaled.commit(&batch)?;
    }
    let runs = journaled.statistics().overlay_runs;
    let (bare, layered) = (single.snapshot()?, journaled.snapshot()?);
    let mut samples: [Vec<f64>; 3] = Default::default();
    for round in 0..args.blocks.max(3) {
        let seed = 100 + u64::from(round);
        let of_tables = |random: &mut Random| random.below(args.entries);
        let of_overlay = |random: &mut Random| first + random.below(new - first);
        samples[0].push(sample(&*bare, seed, of_tables)?);
        samples[1].push(sample(&*layered, seed, of_tables)?);
        samples[2].push(sample(&*layered, seed, of_overlay)?);
    }
    drop((bare, layered));
    journaled.merge_all()?;
    let [bare_lmdb, state, overlay] = samples.map(median);
    Ok(ReadNs {
        bare_lmdb,
        state,
        overlay,
        layers: (args.overlay_blocks, runs),
    })
}

/// Mean nanoseconds of a read; the keys are made before.
fn sample(
    snapshot: &dyn Snapshot,
    seed: u64,
    choose: impl Fn(&mut Random) -> u64,
) -> Result<f64, StoreError> {
    let mut random = Random(seed);
    let keys: Vec<[u8; 52]> = (0..READS).map(|_| key(choose(&mut random))).collect();
    let mut found = 0_u64;
    let begun = Instant::now();
    for key in &keys {
        found += u64::from(black_box(snapshot.get(Table::Storage, key)?).is_some());
    }
    let nanoseconds = begun.elapsed().as_nanos() as f64 / READS as f64;
    if found == READS {
        Ok(nanoseconds)
    } else {
        Err(StoreError::Corrupt {
            table: Table::Storage,
            key: String::new(),
            reason: format!("{found} of {READS} slots are there"),
        })
    }
}
