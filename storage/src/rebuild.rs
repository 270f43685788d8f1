//! State roots from the flat state alone: for a check of the incremental trie, and for states that have no store.

use crate::account::{AccountRecord, decode_slot};
use crate::{AccountInfo, Snapshot, StoreError, Table};
use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_trie::{EMPTY_ROOT_HASH, HashBuilder, Nibbles};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// A hashed key with its value as RLP.
type Leaf = (B256, Vec<u8>);

type CheckedVisitor<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), StoreError>;

/// The state root of everything in the flat tables; trie nodes and stored storage roots are not looked at. Time and
/// memory grow with the state.
///
/// # Errors
/// [`StoreError::Corrupt`] for an entry that cannot be read, a slot without an account, or an account record whose
/// storage root is not that of its slots; [`StoreError::Lmdb`].
pub fn rebuild_root(snapshot: &dyn Snapshot) -> Result<B256, StoreError> {
    let mut storage_roots = storage_roots(snapshot)?;
    let mut leaves = Vec::new();
    scan_checked(snapshot, Table::Accounts, &mut |key, value| {
        let corrupt = |reason: &str| StoreError::corrupt(Table::Accounts, key, reason);
        let address = Address::try_from(key).map_err(|_| corrupt("key is not an address"))?;
        let record = AccountRecord::decode(value).map_err(corrupt)?;
        let root = storage_roots.remove(&address).unwrap_or(EMPTY_ROOT_HASH);
        if root != record.storage_root {
            return Err(corrupt(&format!(
                "storage root is {}, its slots give {root}",
                record.storage_root
            )));
        }
        leaves.push((keccak256(address), record.trie_value()));
        Ok(())
    })?;
    match storage_roots.first_key_value() {
        Some((address, _)) => Err(StoreError::corrupt(
            Table::Storage,
            address.as_slice(),
            "slots without an account",
        )),
        None => Ok(trie_root(leaves)),
    }
}

/// The state root of the given accounts with their slots, without a store. Slots of value zero do not count.
pub fn state_root_of<S>(accounts: impl IntoIterator<Item = (Address, AccountInfo, S)>) -> B256
where
    S: IntoIterator<Item = (U256, U256)>,
{
    let leaf = |(address, info, slots): (Address, AccountInfo, S)| {
        let slots = slots.into_iter().filter(|(_, value)| !value.is_zero());
        let storage_root = trie_root(
            slots
                .map(|(slot, value)| slot_leaf(&slot, &value))
                .collect(),
        );
        let record = AccountRecord { info, storage_root };
        (keccak256(address), record.trie_value())
    };
    trie_root(accounts.into_iter().map(leaf).collect())
}

/// Root of the storage trie of every account that has slots.
fn storage_roots(snapshot: &dyn Snapshot) -> Result<BTreeMap<Address, B256>, StoreError> {
    let mut roots = BTreeMap::new();
    let mut open: Option<(Address, Vec<Leaf>)> = None;
    scan_checked(snapshot, Table::Storage, &mut |key, bytes| {
        let (address, slot) = key
            .split_first_chunk::<20>()
            .and_then(|(address, slot)| Some((Address::from(*address), B256::try_from(slot).ok()?)))
            .ok_or_else(|| StoreError::corrupt(Table::Storage, key, "key is not 52 bytes"))?;
        let leaf = slot_leaf(&slot.into(), &decode_slot(key, bytes)?);
        match &mut open {
            Some((of, leaves)) if *of == address => leaves.push(leaf),
            _ => {
                if let Some((of, leaves)) = open.replace((address, vec![leaf])) {
                    roots.insert(of, trie_root(leaves));
                }
            }
        }
        Ok(())
    })?;
    if let Some((of, leaves)) = open {
        roots.insert(of, trie_root(leaves));
    }
    Ok(roots)
}

/// Visits a whole table until the first error.
fn scan_checked(
    snapshot: &dyn Snapshot,
    table: Table,
    visit: CheckedVisitor<'_>,
) -> Result<(), StoreError> {
    let mut outcome = Ok(());
    snapshot.scan(table, &[], &mut |key, value| {
        outcome = visit(key, value);
        match outcome {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })?;
    outcome
}

fn slot_leaf(slot: &U256, value: &U256) -> Leaf {
    (
        keccak256(slot.to_be_bytes::<32>()),
        alloy_rlp::encode(value),
    )
}

/// Root of the trie of hashed keys and RLP values.
pub(crate) fn trie_root(mut leaves: Vec<Leaf>) -> B256 {
    // The builder takes leaves in ascending order and refuses a key that comes twice.
    leaves.sort_by_key(|(key, _)| *key);
    leaves.dedup_by_key(|(key, _)| *key);
    let mut builder = HashBuilder::default();
    for (key, value) in &leaves {
        builder.add_leaf(Nibbles::unpack_array(&key.0), value);
    }
    builder.root()
}
