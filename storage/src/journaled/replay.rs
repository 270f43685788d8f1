//! What a journal record leaves out: the trie nodes, from the accounts and slots it holds.

use crate::account::{AccountRecord, decode_slot};
use crate::{
    AccountChange, Batch, Snapshot, StateDiff, StoreError, Table, apply_state, head, header,
    read_account,
};
use alloy_primitives::{Address, U256};

/// The whole batch of a record whose tries follow, which was committed on `snapshot`. The storage roots that come out
/// are compared with those of the record, the state root with that of the head's header if the record has one.
pub(super) fn complete(snapshot: &dyn Snapshot, record: Batch) -> Result<Batch, StoreError> {
    let mut derived = Batch::new();
    let root = apply_state(snapshot, &diff(snapshot, &record)?, &mut derived)?;
    for (table, key, value) in derived
        .iter()
        .filter(|(table, ..)| *table == Table::Accounts)
    {
        // A record that did not change is not written again.
        let differs = record
            .get(table, key)
            .is_some_and(|written| written != value);
        if differs {
            let reason = "the journal's slots give another storage root than it has";
            return Err(StoreError::corrupt(table, key, reason));
        }
    }
    let layered = crate::Layered::new(snapshot, &record);
    if let Some((number, _)) = head(&layered)?
        && record.get(Table::Headers, &number.to_be_bytes()).is_some()
        && let Some(header) = header(&layered, number)?
        && header.state_root != root
    {
        let reason = format!(
            "the state root is {}, the journal gives {root}",
            header.state_root
        );
        return Err(StoreError::corrupt(
            Table::Headers,
            &number.to_be_bytes(),
            reason,
        ));
    }
    let mut whole = record;
    for table in Table::all().filter(|table| table.is_trie()) {
        let nodes = derived.range(table, &[]);
        let run = nodes.map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec)));
        whole.extend(table, run.collect());
    }
    Ok(whole)
}

/// The change of the state that a record's accounts and slots are.
fn diff(snapshot: &dyn Snapshot, record: &Batch) -> Result<StateDiff, StoreError> {
    let mut diff = StateDiff::default();
    for (key, value) in record.range(Table::Accounts, &[]) {
        let corrupt = |reason| StoreError::corrupt(Table::Accounts, key, reason);
        let address = Address::try_from(key).map_err(|_| corrupt("key is not an address"))?;
        let info = value.map(AccountRecord::decode).transpose();
        let change = AccountChange {
            info: info.map_err(corrupt)?.map(|record| record.info),
            ..AccountChange::default()
        };
        diff.accounts.insert(address, change);
    }
    for (key, value) in record.range(Table::Storage, &[]) {
        let (address, slot) = key
            .split_first_chunk::<20>()
            .and_then(|(address, slot)| {
                Some((Address::from(*address), <[u8; 32]>::try_from(slot).ok()?))
            })
            .ok_or_else(|| StoreError::corrupt(Table::Storage, key, "key is not 52 bytes"))?;
        let value = value.map_or(Ok(U256::ZERO), |value| decode_slot(key, value))?;
        let change = match diff.accounts.entry(address) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            // Its record stays the same if its slots do.
            std::collections::btree_map::Entry::Vacant(entry) => entry.insert(AccountChange {
                info: read_account(snapshot, &address)?,
                ..AccountChange::default()
            }),
        };
        change.slots.insert(U256::from_be_bytes(slot), value);
    }
    Ok(diff)
}
