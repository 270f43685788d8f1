//! History of the state, and deployments.

use super::{Verification, entries, for_each};
use crate::contract::{contract_key, decode_deployment};
use crate::history::{
    Item, add, changed_items, decode_items, history_key, reversed, split_history_key,
};
use crate::meta::head_number;
use crate::{Batch, Layered, Snapshot, StoreError, Table, apply_state, header, retained};

pub(super) fn verify(snapshot: &dyn Snapshot, found: &mut Verification) -> Result<(), StoreError> {
    let (Some(kept), Some(head)) = (
        found.note(retained(snapshot))?,
        found.note(head_number(snapshot))?,
    ) else {
        return Ok(());
    };
    let (mut accounts, mut slots) = (0, 0);
    let mut before: Option<(u64, u32)> = None;
    for_each(snapshot, Table::Changes, |key, value| {
        let parts = key.split_first_chunk::<8>();
        let Some((block, Ok(part))) =
            parts.map(|(block, part)| (u64::from_be_bytes(*block), <[u8; 4]>::try_from(part)))
        else {
            found.fault(Table::Changes, key, "key is not block number and part");
            return Ok(());
        };
        let part = u32::from_be_bytes(part);
        if let Some((before, last)) = before
            && before == block
            && part != last + 1
        {
            found.fault(Table::Changes, key, "does not follow the part before");
        }
        before = Some((block, part));
        if block > head {
            let reason = format!("of a block after the head, {head}");
            found.fault(Table::Changes, key, reason);
        }
        let Some(items) = found.note(decode_items(key, value))? else {
            return Ok(());
        };
        for item in items {
            let (table, key) = match item {
                Item::Account(address) => {
                    accounts += 1;
                    let key = history_key(address.as_slice(), block);
                    (Table::AccountHistory, key)
                }
                Item::Slot(slot) => {
                    slots += 1;
                    (Table::StorageHistory, history_key(&slot, block))
                }
                Item::Code(hash) => (Table::Codes, hash.to_vec()),
                Item::Deployed(address) => (Table::Contracts, contract_key(&address, block)),
            };
            found.count("changes", 1);
            if snapshot.get(table, &key)?.is_none() {
                found.fault(table, &key, format!("is missing, block {block} names it"));
            }
        }
        Ok(())
    })?;
    for (table, count) in [
        (Table::AccountHistory, accounts),
        (Table::StorageHistory, slots),
    ] {
        let entries = entries(snapshot, table)?;
        found.count("history entries", entries);
        if entries > count {
            extra(snapshot, table, found)?;
        } else if entries < count {
            let reason = format!("{entries} entries, {count} are named by changes");
            found.fault(table, &[], reason);
        }
    }
    for_each(snapshot, Table::Contracts, |key, value| {
        found.count("deployments", 1);
        let Some((_, deployment)) = found.note(decode_deployment(key, value))? else {
            return Ok(());
        };
        let code = deployment.code_hash;
        if deployment.block > head || snapshot.get(Table::Codes, code.as_slice())?.is_none() {
            let reason = "its block or its code is not there";
            found.fault(Table::Contracts, key, reason);
        }
        Ok(())
    })?;
    if kept.state < head {
        walk_back(snapshot, kept.state, head, found)?;
    }
    Ok(())
}

/// Takes the blocks back in memory, one by one down to the first state that can be read, and compares what comes out:
/// the state root with the header of the block before, accounts with their entries.
fn walk_back(
    snapshot: &dyn Snapshot,
    first: u64,
    head: u64,
    found: &mut Verification,
) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    for number in (first + 1..=head).rev() {
        let taken = take_back(snapshot, number, &mut batch, found);
        let taken = found.note(taken)?;
        // Whatever is wrong here is wrong in all states before.
        if taken != Some(true) {
            return Ok(());
        }
    }
    Ok(())
}

/// Whether the state before block `number`, laid over `snapshot` in `batch`, is the one that its parent's header names.
fn take_back(
    snapshot: &dyn Snapshot,
    number: u64,
    batch: &mut Batch,
    found: &mut Verification,
) -> Result<bool, StoreError> {
    let items = changed_items(snapshot, number)?;
    let after = Layered::new(snapshot, batch);
    let diff = reversed(&after, number, &items)?;
    let mut writes = Batch::new();
    let root = apply_state(&after, &diff, &mut writes)?;
    add(batch, &writes);
    let before = Layered::new(snapshot, batch);
    for item in &items {
        let Item::Account(address) = item else {
            continue;
        };
        let key = history_key(address.as_slice(), number);
        let entry = snapshot.get(Table::AccountHistory, &key)?;
        let record = before.get(Table::Accounts, address.as_slice())?;
        if entry.unwrap_or_default() != record.unwrap_or_default() {
            let reason = "not the account that the entries of its slots lead to";
            found.fault(Table::AccountHistory, &key, reason);
            return Ok(false);
        }
    }
    found.count("state roots", 1);
    let parent = header(snapshot, number - 1)?;
    let Some(parent) = parent.filter(|parent| parent.state_root != root) else {
        return Ok(true);
    };
    let reason = format!(
        "taking the block back gives the state root {root}, the header before has {}",
        parent.state_root
    );
    found.fault(Table::Changes, &number.to_be_bytes(), reason);
    Ok(false)
}

/// Names the entries that no block's changes name.
fn extra(
    snapshot: &dyn Snapshot,
    table: Table,
    found: &mut Verification,
) -> Result<(), StoreError> {
    for_each(snapshot, table, |key, _| {
        let Some((of, block)) = split_history_key(key) else {
            found.fault(table, key, "the key is too short");
            return Ok(());
        };
        let items = found.note(changed_items(snapshot, block))?;
        let named = items.unwrap_or_default().iter().any(|item| match item {
            Item::Account(address) => table == Table::AccountHistory && address.as_slice() == of,
            Item::Slot(slot) => table == Table::StorageHistory && slot[..] == *of,
            Item::Code(_) | Item::Deployed(_) => false,
        });
        if !named {
            found.fault(
                table,
                key,
                format!("block {block} does not name this entry"),
            );
        }
        Ok(())
    })
}
