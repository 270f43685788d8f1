//! What the stores hold, and the blocks that change it.

use std::fs;
use std::path::Path;

use zvm_storage::{Batch, Store, StoreError, Table};

/// Entries committed at once while a store is filled.
const AT_ONCE: u64 = 100_000;

/// Numbers that look random and are the same each time (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

const fn mix(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The key of slot `number`: spread over the whole table.
pub fn key(number: u64) -> [u8; 52] {
    let mut key = [0; 52];
    let mut state = mix(number);
    for part in key.chunks_mut(8) {
        part.copy_from_slice(&state.to_be_bytes()[..part.len()]);
        state = mix(state.wrapping_add(number));
    }
    key
}

fn value(random: &mut Random) -> [u8; 32] {
    let mut value = [0; 32];
    for part in value.chunks_mut(8) {
        part.copy_from_slice(&random.next().to_be_bytes());
    }
    value[0] |= 1;
    value
}

/// Writes the slots `0..entries`.
pub fn fill(store: &dyn Store, entries: u64) -> Result<(), StoreError> {
    let mut random = Random(1);
    let mut number = 0;
    while number < entries {
        let mut batch = Batch::new();
        for slot in number..entries.min(number + AT_ONCE) {
            batch.put(Table::Storage, key(slot), value(&mut random));
        }
        store.commit(&batch)?;
        number += AT_ONCE;
    }
    Ok(())
}

/// A block of `updates` over slots `0..*entries`; one in ten is a new one.
pub fn block(random: &mut Random, entries: &mut u64, updates: u64) -> Batch {
    let mut batch = Batch::new();
    for update in 0..updates {
        let slot = if update % 10 == 0 {
            *entries += 1;
            *entries - 1
        } else {
            random.below(*entries)
        };
        batch.put(Table::Storage, key(slot), value(random));
    }
    batch
}

/// Copies the files of a closed store into a new folder.
pub fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    let io = |source| StoreError::Io {
        op: "copy",
        path: to.to_owned(),
        source,
    };
    fs::create_dir_all(to).map_err(io)?;
    for name in ["data.mdb", "zvm.lock"] {
        fs::copy(from.join(name), to.join(name)).map_err(io)?;
    }
    Ok(())
}
