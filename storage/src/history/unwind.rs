//! Taking back the head block.

use super::{Item, changed_items, history_key, retained};
use crate::account::{AccountRecord, read_record};
use crate::contract::contract_key;
use crate::{
    AccountChange, Batch, Snapshot, StateDiff, StoreError, Table, apply_state, head, header,
    remove_block,
};
use alloy_consensus::Header;
use alloy_primitives::{Address, U256};

/// Takes the head block back: state, trie, chain tables, indexes and history, so that the store is as it was before the
/// block, entry by entry, but for what pruning deleted since. Its parent becomes the head. Returns the header of the
/// block taken back.
///
/// What the node keeps with [`crate::put_meta`] is not touched.
///
/// # Errors
/// [`StoreError::NotRetained`] if the state before the block is not kept; [`StoreError::Corrupt`] if the state does not
/// come out with the root in the parent's header; [`StoreError::Lmdb`]. `batch` must then be dropped.
pub fn unwind_block(snapshot: &dyn Snapshot, batch: &mut Batch) -> Result<Header, StoreError> {
    let no_head = || StoreError::corrupt(Table::Meta, b"head", "there is no head");
    let (number, _) = head(snapshot)?.ok_or_else(no_head)?;
    let missing =
        |number: u64, what| StoreError::corrupt(Table::Headers, &number.to_be_bytes(), what);
    let taken = header(snapshot, number)?.ok_or_else(|| missing(number, "the head is missing"))?;
    let kept = retained(snapshot)?;
    let parent = number.checked_sub(1).filter(|parent| *parent >= kept.state);
    let Some(parent) = parent else {
        return Err(StoreError::NotRetained {
            what: "parent state",
            number,
            first: kept.state.saturating_add(1),
            last: number,
        });
    };
    let parent = header(snapshot, parent)?.ok_or_else(|| missing(parent, "a parent is missing"))?;

    let items = changed_items(snapshot, number)?;
    let diff = reversed(snapshot, number, &items)?;
    let root = apply_state(snapshot, &diff, batch)?;
    if root != parent.state_root {
        let reason = format!(
            "the history of block {number} leads to the state root {root}, its parent has {}",
            parent.state_root
        );
        return Err(StoreError::corrupt(
            Table::Changes,
            &number.to_be_bytes(),
            reason,
        ));
    }
    forget(snapshot, number, &items, batch)?;
    remove_block(snapshot, number, batch)?;
    Ok(taken)
}

/// The changes that lead from the state after block `number` to the one before it.
pub(crate) fn reversed(
    snapshot: &dyn Snapshot,
    number: u64,
    items: &[Item],
) -> Result<StateDiff, StoreError> {
    let before = |table: Table, key: &[u8]| {
        let key = history_key(key, number);
        match snapshot.get(table, &key)? {
            Some(before) => Ok(before.into_owned()),
            None => Err(StoreError::corrupt(table, &key, "the entry is missing")),
        }
    };
    let mut diff = StateDiff::default();
    for item in items {
        match item {
            Item::Account(address) => {
                let record = before(Table::AccountHistory, address.as_slice())?;
                change(snapshot, &mut diff, address)?.info = if record.is_empty() {
                    None
                } else {
                    let record = AccountRecord::decode(&record).map_err(|reason| {
                        let key = history_key(address.as_slice(), number);
                        StoreError::corrupt(Table::AccountHistory, &key, reason)
                    })?;
                    Some(record.info)
                };
            }
            Item::Slot(key) => {
                let value = before(Table::StorageHistory, key)?;
                let value = U256::try_from_be_slice(&value).ok_or_else(|| {
                    let key = history_key(key, number);
                    StoreError::corrupt(Table::StorageHistory, &key, "longer than 32 bytes")
                })?;
                let (address, slot) = (Address::from_slice(&key[..20]), &key[20..]);
                let change = change(snapshot, &mut diff, &address)?;
                change.slots.insert(U256::from_be_slice(slot), value);
            }
            Item::Code(_) | Item::Deployed(_) => {}
        }
    }
    Ok(diff)
}

/// The change of an account, which begins as none.
fn change<'d>(
    snapshot: &dyn Snapshot,
    diff: &'d mut StateDiff,
    address: &Address,
) -> Result<&'d mut AccountChange, StoreError> {
    if !diff.accounts.contains_key(address) {
        let change = AccountChange {
            info: read_record(snapshot, address)?.map(|record| record.info),
            ..AccountChange::default()
        };
        diff.accounts.insert(*address, change);
    }
    Ok(diff.accounts.entry(*address).or_default())
}

/// Deletes what only block `number` put into the store, its state apart.
fn forget(
    snapshot: &dyn Snapshot,
    number: u64,
    items: &[Item],
    batch: &mut Batch,
) -> Result<(), StoreError> {
    for item in items {
        match item {
            Item::Account(address) => batch.delete(
                Table::AccountHistory,
                history_key(address.as_slice(), number),
            ),
            Item::Slot(key) => batch.delete(Table::StorageHistory, history_key(key, number)),
            Item::Code(hash) => batch.delete(Table::Codes, hash.as_slice()),
            Item::Deployed(address) => {
                batch.delete(Table::Contracts, contract_key(address, number));
            }
        }
    }
    crate::store::scan_prefix(
        snapshot,
        Table::Changes,
        &number.to_be_bytes(),
        &mut |key, _| batch.delete(Table::Changes, key),
    )
}
