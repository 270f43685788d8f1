//! How far back a store reaches, and taking away what is older.

use super::{Item, decode_items, history_key};
use crate::meta::head_number;
use crate::rows::first_from;
use crate::{Batch, Layered, Snapshot, StoreError, Table, chain};

/// Name in the meta table: first block whose state can be read (8), first block whose body, receipts and indexes are
/// kept (8). Block 0 keeps its body always.
const RETAINED: &[u8] = b"retained";

/// How many blocks are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Blocks before the head whose states can be read; `None` keeps all.
    pub state: Option<u64>,
    /// Blocks before the head whose bodies, receipts and indexes are kept; `None` keeps all. Headers are always kept.
    pub blocks: Option<u64>,
}

impl Retention {
    /// States kept where nothing else is asked for, as geth does: 90,000 blocks.
    pub const DEFAULT_STATE: u64 = 90_000;
    /// Keeps everything.
    pub const ARCHIVE: Self = Self {
        state: None,
        blocks: None,
    };
}

impl Default for Retention {
    /// The states of 90,000 blocks; all bodies, receipts and indexes.
    fn default() -> Self {
        Self {
            state: Some(Self::DEFAULT_STATE),
            blocks: None,
        }
    }
}

/// What a store still has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retained {
    /// First block whose state can be read.
    pub state: u64,
    /// First block whose body, receipts and indexes are kept.
    pub blocks: u64,
}

impl Retained {
    /// Fails if the state after block `number` cannot be read.
    ///
    /// # Errors
    /// [`StoreError::NotRetained`]; [`StoreError::Corrupt`], [`StoreError::Lmdb`].
    pub fn check_state(&self, snapshot: &dyn Snapshot, number: u64) -> Result<(), StoreError> {
        let last = head_number(snapshot)?;
        if (self.state..=last).contains(&number) {
            return Ok(());
        }
        Err(StoreError::NotRetained {
            what: "state",
            number,
            first: self.state,
            last,
        })
    }

    /// Fails if the body of block `number` is pruned.
    ///
    /// # Errors
    /// [`StoreError::NotRetained`]; [`StoreError::Corrupt`], [`StoreError::Lmdb`].
    pub fn check_block(&self, snapshot: &dyn Snapshot, number: u64) -> Result<(), StoreError> {
        if number >= self.blocks || number == 0 {
            return Ok(());
        }
        Err(StoreError::NotRetained {
            what: "body",
            number,
            first: self.blocks,
            last: head_number(snapshot)?,
        })
    }
}

/// What the store still has. Without a record of it: the state of the head, and all blocks.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::Lmdb`].
pub fn retained(snapshot: &dyn Snapshot) -> Result<Retained, StoreError> {
    let Some(value) = snapshot.get(Table::Meta, RETAINED)? else {
        return Ok(Retained {
            state: head_number(snapshot)?,
            blocks: 0,
        });
    };
    match value.as_chunks::<8>() {
        ([state, blocks], []) => Ok(Retained {
            state: u64::from_be_bytes(*state),
            blocks: u64::from_be_bytes(*blocks),
        }),
        _ => Err(StoreError::corrupt(Table::Meta, RETAINED, "not 16 bytes")),
    }
}

pub(crate) fn put_retained(batch: &mut Batch, retained: &Retained) {
    let value = [retained.state.to_be_bytes(), retained.blocks.to_be_bytes()].concat();
    batch.put(Table::Meta, RETAINED, value);
}

/// What [`prune`] took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Entries deleted.
    pub entries: usize,
    /// More is older than the retention and stays for the next call.
    pub more: bool,
}

/// Deletes in `batch`, which is laid over `snapshot` and makes block `head` the head, what `retention` does not keep.
///
/// It ends when about `budget` entries are deleted; the rest stays for the next call. One call deletes at most the
/// budget, one part of a block's changes and one block's body with its indexes more than that.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::Lmdb`].
pub fn prune(
    snapshot: &dyn Snapshot,
    batch: &mut Batch,
    head: u64,
    retention: &Retention,
    budget: usize,
) -> Result<Pruned, StoreError> {
    let before = retained(&Layered::new(snapshot, batch))?;
    let mut now = before;
    let mut pruned = Pruned::default();
    if let Some(kept) = retention.state {
        now.state = now.state.max(head.saturating_sub(kept));
        prune_state(snapshot, batch, now.state, budget, &mut pruned)?;
    }
    if let Some(kept) = retention.blocks {
        let first = head.saturating_sub(kept);
        while now.blocks < first {
            if pruned.entries >= budget {
                pruned.more = true;
                break;
            }
            if now.blocks != 0 {
                let mut deletes = Batch::new();
                let layered = Layered::new(snapshot, batch);
                chain::remove_body(&layered, now.blocks, &mut deletes)?;
                pruned.entries += deletes.len();
                add(batch, &deletes);
            }
            now.blocks += 1;
        }
    }
    if now != before {
        put_retained(batch, &now);
    }
    Ok(pruned)
}

/// Deletes the history of blocks up to `last`: to read the state at `last` takes what changed after it.
fn prune_state(
    snapshot: &dyn Snapshot,
    batch: &mut Batch,
    last: u64,
    budget: usize,
    pruned: &mut Pruned,
) -> Result<(), StoreError> {
    let end = match last.checked_add(1) {
        Some(end) => end.to_be_bytes(),
        None => [0xff; 8],
    };
    let mut from = Vec::new();
    loop {
        let part = first_from(
            &Layered::new(snapshot, batch),
            Table::Changes,
            &from,
            |key, value| (key < &end[..]).then(|| (key.to_vec(), value.to_vec())),
        )?;
        let Some((key, value)) = part else {
            return Ok(());
        };
        if pruned.entries >= budget {
            pruned.more = true;
            return Ok(());
        }
        for item in decode_items(&key, &value)? {
            let block = key.first_chunk::<8>().map_or(0, |b| u64::from_be_bytes(*b));
            match item {
                Item::Account(address) => batch.delete(
                    Table::AccountHistory,
                    history_key(address.as_slice(), block),
                ),
                Item::Slot(slot) => {
                    batch.delete(Table::StorageHistory, history_key(&slot, block));
                }
                // Codes and deployments are of the state that is kept.
                Item::Code(_) | Item::Deployed(_) => continue,
            }
            pruned.entries += 1;
        }
        pruned.entries += 1;
        batch.delete(Table::Changes, key.clone());
        from = key;
    }
}

/// Puts the writes of `later` over those of `batch`.
pub(crate) fn add(batch: &mut Batch, later: &Batch) {
    for (table, key, value) in later.iter() {
        match value {
            Some(value) => batch.put(table, key, value),
            None => batch.delete(table, key),
        }
    }
}
