//! History of the state, and deployments.

use super::{Verification, entries, for_each};
use crate::contract::{contract_key, decode_deployment};
use crate::history::{Item, changed_items, decode_items, history_key, split_history_key};
use crate::meta::head_number;
use crate::{Snapshot, StateAt, StoreError, Table, header, rebuild_root, retained};

pub(super) fn verify(snapshot: &dyn Snapshot, found: &mut Verification) -> Result<(), StoreError> {
    let (Some(kept), Some(head)) = (
        found.note(retained(snapshot))?,
        found.note(head_number(snapshot))?,
    ) else {
        return Ok(());
    };
    let (mut accounts, mut slots) = (0, 0);
    for_each(snapshot, Table::Changes, |key, value| {
        let Some(block) = key.first_chunk::<8>().map(|b| u64::from_be_bytes(*b)) else {
            found.fault(Table::Changes, key, "the key is too short");
            return Ok(());
        };
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
        past_root(snapshot, kept.state, found)?;
    }
    Ok(())
}

/// Compares the root of the first state that can be read with its header: every change since goes into it.
fn past_root(
    snapshot: &dyn Snapshot,
    number: u64,
    found: &mut Verification,
) -> Result<(), StoreError> {
    let Some(at) = found.note(StateAt::on(snapshot, number))? else {
        return Ok(());
    };
    let Some(root) = found.note(rebuild_root(&at))? else {
        return Ok(());
    };
    found.count("state roots", 1);
    if let Some(Some(header)) = found.note(header(snapshot, number))?
        && header.state_root != root
    {
        let reason = format!(
            "the history leads to the root {root} at block {number}, its header has {}",
            header.state_root
        );
        found.fault(Table::Changes, &number.to_be_bytes(), reason);
    }
    Ok(())
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
