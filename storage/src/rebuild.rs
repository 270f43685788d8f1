//! State roots from the flat state alone: for a check of the incremental trie, and for states that have no store.

use crate::account::{AccountRecord, decode_slot};
use crate::{AccountInfo, Snapshot, StoreError, Table};
use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_trie::{EMPTY_ROOT_HASH, HashBuilder, Nibbles};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// A hashed key with its value as RLP.
type Leaf = (B256, Vec<u8>);

/// Accounts read before their values are worked on.
const ACCOUNTS_TOGETHER: usize = 1 << 14;

/// Slots read before their tries are worked on. More are held only of one account.
const SLOTS_TOGETHER: usize = 1 << 17;

/// The state root of everything in the flat tables; trie nodes and stored storage roots are not looked at.
///
/// This thread reads, the threads of the current rayon pool hash. Time grows with the state. In memory are the hashed
/// leaves of the accounts, some 150 bytes each, a bounded number of slots, and all slots of the account with the most.
///
/// # Errors
/// [`StoreError::Corrupt`] for an entry that cannot be read, a slot without an account, or an account record whose
/// storage root is not that of its slots; [`StoreError::Lmdb`].
pub fn rebuild_root(snapshot: &dyn Snapshot) -> Result<B256, StoreError> {
    let mut leaves = Vec::new();
    // Keys of both tables begin with the address, so they are read side by side.
    let mut from = Vec::new();
    loop {
        let accounts = accounts_from(snapshot, &from)?;
        let end = match accounts.last() {
            Some((last, _)) if accounts.len() == ACCOUNTS_TOGETHER => Some(*last),
            _ => None,
        };
        let roots = storage_roots(snapshot, &from, end)?;
        let with_slots = accounts
            .iter()
            .filter(|(address, _)| roots.contains_key(address));
        if with_slots.count() != roots.len() {
            let known: BTreeSet<_> = accounts.iter().map(|(address, _)| address).collect();
            let stray = roots.keys().find(|address| !known.contains(address));
            let stray = stray.copied().unwrap_or_default();
            let reason = "slots without an account";
            return Err(StoreError::corrupt(
                Table::Storage,
                stray.as_slice(),
                reason,
            ));
        }
        let hashed = accounts
            .par_iter()
            .map(|(address, record)| account_leaf(address, record, roots.get(address)))
            .collect::<Result<Vec<_>, _>>()?;
        leaves.extend(hashed);
        let Some(last) = end else {
            return Ok(trie_root(leaves));
        };
        // The least key above all that begin with the last address.
        from = [last.as_slice(), &[0xff; 33]].concat();
    }
}

/// The next accounts with keys from `from` on.
fn accounts_from(
    snapshot: &dyn Snapshot,
    from: &[u8],
) -> Result<Vec<(Address, AccountRecord)>, StoreError> {
    let mut accounts = Vec::new();
    let mut outcome = Ok(());
    snapshot.scan(Table::Accounts, from, &mut |key, value| {
        let corrupt = |reason: &str| StoreError::corrupt(Table::Accounts, key, reason);
        let account = Address::try_from(key)
            .map_err(|_| corrupt("key is not an address"))
            .and_then(|address| Ok((address, AccountRecord::decode(value).map_err(corrupt)?)));
        match account {
            Ok(account) => accounts.push(account),
            Err(error) => {
                outcome = Err(error);
                return ControlFlow::Break(());
            }
        }
        match accounts.len() < ACCOUNTS_TOGETHER {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    })?;
    outcome.map(|()| accounts)
}

/// The leaf of an account, whose slots have the root `root`.
fn account_leaf(
    address: &Address,
    record: &AccountRecord,
    root: Option<&B256>,
) -> Result<Leaf, StoreError> {
    let root = *root.unwrap_or(&EMPTY_ROOT_HASH);
    if root != record.storage_root {
        let reason = format!(
            "storage root is {}, its slots give {root}",
            record.storage_root
        );
        let key = address.as_slice();
        return Err(StoreError::corrupt(Table::Accounts, key, &reason));
    }
    Ok((keccak256(address), record.trie_value()))
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

/// Slots of one account.
type Slots = (Address, Vec<(U256, U256)>);

/// Roots of the storage tries of the accounts with keys from `from` on, up to and with `end` if there is one.
fn storage_roots(
    snapshot: &dyn Snapshot,
    from: &[u8],
    end: Option<Address>,
) -> Result<BTreeMap<Address, B256>, StoreError> {
    let mut roots = BTreeMap::new();
    let mut read: Vec<Slots> = Vec::new();
    let mut slots = 0;
    let mut outcome = Ok(());
    snapshot.scan(Table::Storage, from, &mut |key, bytes| {
        let (address, slot, value) = match read_slot_entry(key, bytes) {
            Ok(entry) => entry,
            Err(error) => {
                outcome = Err(error);
                return ControlFlow::Break(());
            }
        };
        if end.is_some_and(|end| address > end) {
            return ControlFlow::Break(());
        }
        match read.last_mut() {
            Some((of, known)) if *of == address => known.push((slot, value)),
            _ => {
                if slots >= SLOTS_TOGETHER {
                    roots.par_extend(read.par_drain(..).map(root_of_slots));
                    slots = 0;
                }
                read.push((address, vec![(slot, value)]));
            }
        }
        slots += 1;
        ControlFlow::Continue(())
    })?;
    outcome?;
    roots.par_extend(read.into_par_iter().map(root_of_slots));
    Ok(roots)
}

fn read_slot_entry(key: &[u8], bytes: &[u8]) -> Result<(Address, U256, U256), StoreError> {
    let (address, slot) = key
        .split_first_chunk::<20>()
        .and_then(|(address, slot)| Some((Address::from(*address), B256::try_from(slot).ok()?)))
        .ok_or_else(|| StoreError::corrupt(Table::Storage, key, "key is not 52 bytes"))?;
    Ok((address, slot.into(), decode_slot(key, bytes)?))
}

fn root_of_slots((address, slots): Slots) -> (Address, B256) {
    let leaves = slots.iter().map(|(slot, value)| slot_leaf(slot, value));
    (address, trie_root(leaves.collect()))
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
    leaves.par_sort_by_key(|(key, _)| *key);
    leaves.dedup_by_key(|(key, _)| *key);
    let mut builder = HashBuilder::default();
    for (key, value) in &leaves {
        builder.add_leaf(Nibbles::unpack_array(&key.0), value);
    }
    builder.root()
}
