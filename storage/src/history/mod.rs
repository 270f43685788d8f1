//! The state at past blocks: what every block changed, with the values from before it.
//!
//! An entry of the history tables stands under its key and the number of the block that changed it, and holds the value
//! from before that block. The value at block n is therefore that of the first entry after n, found by one seek, and
//! the present one if there is none. The changes table lists the keys that a block changed, so that the block can be
//! taken back and its entries can be pruned.

mod at;
mod changes;
mod retention;
mod unwind;

pub use at::StateAt;
pub use changes::{BlockChanges, record_changes};
pub use retention::{Pruned, Retained, Retention, prune, retained};
pub use unwind::unwind_block;

pub(crate) use changes::{Item, changed_items, decode_items};
pub(crate) use retention::{add, put_retained};
pub(crate) use unwind::reversed;

use crate::Table;

/// The key of the history entry that `block` made for `key`.
pub(crate) fn history_key(key: &[u8], block: u64) -> Vec<u8> {
    [key, &block.to_be_bytes()].concat()
}

/// The table with the history of a flat table.
pub(crate) const fn history_of(table: Table) -> Option<Table> {
    match table {
        Table::Accounts => Some(Table::AccountHistory),
        Table::Storage => Some(Table::StorageHistory),
        _ => None,
    }
}

/// Key and block of a history entry.
pub(crate) fn split_history_key(key: &[u8]) -> Option<(&[u8], u64)> {
    let (key, block) = key.split_last_chunk::<8>()?;
    Some((key, u64::from_be_bytes(*block)))
}
