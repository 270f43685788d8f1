//! State changes: flat tables and trie nodes in one batch.

use crate::account::{AccountRecord, read_record, slot_key};
use crate::batch::Run;
use crate::readers::Readers;
use crate::store::scan_prefix;
use crate::stored_trie::{Alone, NoTrie, Reads, StoredTrie, Together, TrieKeys};
use crate::trie::{self, Change, NodeSource};
use crate::{AccountInfo, Batch, Snapshot, StoreError, Table};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256};
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::mem;

/// From how many changed accounts and slots on all threads work on a diff. Less is some milliseconds at most.
pub(crate) const PARALLEL_ENTRIES: usize = 256;

/// Changed accounts that are not worth parting.
const ACCOUNTS_TOGETHER: usize = 8;

/// What happens to one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountChange {
    /// The account after the change; `None` if it does not exist then, and with it none of its storage.
    pub info: Option<AccountInfo>,
    /// Whether the storage it had before is dropped, before `slots` are written.
    pub wipe_storage: bool,
    /// New values by slot; zero deletes the slot. Without effect if the account does not exist after.
    pub slots: BTreeMap<U256, U256>,
}

/// What a block, or several, did to the state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateDiff {
    /// Changed accounts. An account with `info` and no slots keeps its storage root.
    pub accounts: BTreeMap<Address, AccountChange>,
    /// New codes by their hash. Codes are never deleted.
    pub codes: BTreeMap<B256, Bytes>,
}

impl StateDiff {
    /// How many accounts and slots it names: what its cost follows.
    pub fn entries(&self) -> usize {
        let slots = self.accounts.values().map(|change| change.slots.len());
        self.accounts.len() + slots.sum::<usize>()
    }

    /// Takes over what `later` does on top of this.
    pub fn append(&mut self, later: Self) {
        for (address, change) in later.accounts {
            match self.accounts.entry(address) {
                Entry::Vacant(entry) => {
                    entry.insert(change);
                }
                Entry::Occupied(entry) => {
                    let mine = entry.into_mut();
                    // An account that ended takes its storage with it, also if another begins at its address.
                    let gone = mine.info.is_none() || change.info.is_none() || change.wipe_storage;
                    if gone {
                        mine.wipe_storage = true;
                        mine.slots.clear();
                    }
                    mine.info = change.info;
                    mine.slots.extend(change.slots);
                }
            }
        }
        self.codes.extend(later.codes);
    }
}

/// Puts the changes to the flat tables and the trie nodes into `batch` and returns the state root after them.
///
/// The snapshot must not miss a state change that is in `batch` already: for a second diff in one batch give
/// [`crate::Layered`] of the two. Reads and writes grow with the change, not with the state, except that a wiped
/// storage is deleted entry by entry. A large diff is worked on by all threads of the current rayon pool if the
/// snapshot can be forked; what comes out does not depend on it.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::Lmdb`]; `batch` is then as it was.
pub fn apply_state(
    snapshot: &dyn Snapshot,
    diff: &StateDiff,
    batch: &mut Batch,
) -> Result<B256, StoreError> {
    let readers = match diff.entries() >= PARALLEL_ENTRIES {
        true => Readers::of(snapshot)?,
        false => None,
    };
    let (root, writes) = match &readers {
        Some(readers) => {
            let reads = Together {
                readers,
                above: None,
            };
            merge_parallel(reads, diff)?
        }
        None => merge(snapshot, diff)?,
    };
    writes.put(batch);
    Ok(root)
}

/// The writes and the root of `diff` on `snapshot`, by this thread.
pub(crate) fn merge(
    snapshot: &dyn Snapshot,
    diff: &StateDiff,
) -> Result<(B256, StateWrites), StoreError> {
    let reads = Alone(snapshot);
    let mut writes = StateWrites::default();
    for (address, change) in &diff.accounts {
        apply_account(reads, address, change, &mut writes)?;
    }
    finish(reads, writes, diff)
}

/// The same by the threads of the current pool.
pub(crate) fn merge_parallel(
    reads: Together<'_, '_>,
    diff: &StateDiff,
) -> Result<(B256, StateWrites), StoreError> {
    let accounts: Vec<_> = diff.accounts.iter().collect();
    // Neighbours go together, and the writes of all come out in order.
    let writes = accounts
        .par_iter()
        .with_min_len(ACCOUNTS_TOGETHER)
        .try_fold(StateWrites::default, |mut writes, (address, change)| {
            apply_account(reads, address, change, &mut writes)?;
            Ok(writes)
        })
        .try_reduce(StateWrites::default, |mut first, second| {
            first.append(second);
            Ok::<_, StoreError>(first)
        })?;
    finish(reads, writes, diff)
}

/// Merges the changed accounts into the state trie.
fn finish(
    reads: impl Reads,
    mut writes: StateWrites,
    diff: &StateDiff,
) -> Result<(B256, StateWrites), StoreError> {
    let update = reads.update(TrieKeys::Accounts, mem::take(&mut writes.leaves))?;
    writes.account_trie = run_of(TrieKeys::Accounts, update.records);
    for (hash, code) in &diff.codes {
        if *hash != KECCAK256_EMPTY {
            writes.codes.push((hash.to_vec(), Some(code.to_vec())));
        }
    }
    Ok((update.root, writes))
}

/// What is written for a diff, each run sorted by key; of a key that comes twice the last write counts.
#[derive(Default)]
pub(crate) struct StateWrites {
    accounts: Run,
    storage: Run,
    codes: Run,
    account_trie: Run,
    storage_trie: Run,
    /// Changes of the state trie that are not merged yet.
    leaves: Vec<Change>,
}

impl StateWrites {
    /// Takes over what comes after.
    fn append(&mut self, mut later: Self) {
        self.accounts.append(&mut later.accounts);
        self.storage.append(&mut later.storage);
        self.codes.append(&mut later.codes);
        self.account_trie.append(&mut later.account_trie);
        self.storage_trie.append(&mut later.storage_trie);
        self.leaves.append(&mut later.leaves);
    }

    /// Puts all of it into `batch`.
    pub(crate) fn put(self, batch: &mut Batch) {
        batch.extend(Table::Accounts, self.accounts);
        batch.extend(Table::Storage, self.storage);
        batch.extend(Table::Codes, self.codes);
        batch.extend(Table::AccountTrie, self.account_trie);
        batch.extend(Table::StorageTrie, self.storage_trie);
    }
}

/// The root of the state trie as stored. One read and one hash.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::Lmdb`].
pub fn state_root(snapshot: &dyn Snapshot) -> Result<B256, StoreError> {
    let root = StoredTrie::new(Alone(snapshot), TrieKeys::Accounts).node(&Nibbles::new())?;
    Ok(root.map_or(EMPTY_ROOT_HASH, |root| root.root_hash(&mut Vec::new())))
}

/// Changes one account and its storage.
fn apply_account(
    reads: impl Reads,
    address: &Address,
    change: &AccountChange,
    writes: &mut StateWrites,
) -> Result<(), StoreError> {
    let hashed = keccak256(address);
    let wipe = change.wipe_storage || change.info.is_none();
    let old = reads.with(|snapshot| {
        let old = read_record(snapshot, address)?;
        if wipe && old.is_some_and(|old| old.storage_root != EMPTY_ROOT_HASH) {
            wipe_storage(snapshot, address, writes)?;
        }
        Ok::<_, StoreError>(old)
    })?;
    let Some(info) = change.info else {
        // An account that was only touched leaves no trace: neither an entry to delete nor a leaf.
        if old.is_some() {
            writes.accounts.push((address.to_vec(), None));
            writes.leaves.push(Change::new(&hashed, None));
        }
        return Ok(());
    };
    let kept_root = match old {
        Some(old) if !wipe => old.storage_root,
        _ => EMPTY_ROOT_HASH,
    };
    let storage_root = if change.slots.is_empty() {
        kept_root
    } else {
        apply_slots(reads, address, kept_root, &change.slots, writes)?
    };
    let record = AccountRecord { info, storage_root };
    if old != Some(record) {
        let value = Some(record.encode());
        writes.accounts.push((address.to_vec(), value));
    }
    let value = Some(record.trie_value());
    writes.leaves.push(Change::new(&hashed, value));
    Ok(())
}

/// Writes slots and their trie nodes; returns the storage root after. `old_root` tells whether there is a trie yet.
fn apply_slots(
    reads: impl Reads,
    address: &Address,
    old_root: B256,
    slots: &BTreeMap<U256, U256>,
    writes: &mut StateWrites,
) -> Result<B256, StoreError> {
    let mut changes = Vec::with_capacity(slots.len());
    for (slot, value) in slots {
        let (flat, rlp) = match value.is_zero() {
            true => (None, None),
            false => (
                Some(value.to_be_bytes_trimmed_vec()),
                Some(alloy_rlp::encode(value)),
            ),
        };
        writes
            .storage
            .push((slot_key(address, slot).to_vec(), flat));
        changes.push(Change::new(&keccak256(slot.to_be_bytes::<32>()), rlp));
    }
    let keys = TrieKeys::Storage(*address);
    let update = if old_root == EMPTY_ROOT_HASH {
        trie::update(&NoTrie, changes)?
    } else {
        reads.update(keys, changes)?
    };
    writes.storage_trie.extend(run_of(keys, update.records));
    Ok(update.root)
}

/// Deletes all slots and storage trie nodes of an account.
fn wipe_storage(
    snapshot: &dyn Snapshot,
    address: &Address,
    writes: &mut StateWrites,
) -> Result<(), StoreError> {
    for (table, run) in [
        (Table::Storage, &mut writes.storage),
        (Table::StorageTrie, &mut writes.storage_trie),
    ] {
        scan_prefix(snapshot, table, address.as_slice(), &mut |key, _| {
            run.push((key.to_vec(), None));
        })?;
    }
    Ok(())
}

/// The records of a trie in the order of their keys.
fn run_of(keys: TrieKeys, mut records: Vec<(Nibbles, Option<Vec<u8>>)>) -> Run {
    records.sort_unstable_by_key(|(path, _)| *path);
    let written = records.into_iter();
    written
        .map(|(path, record)| (keys.key(&path), record))
        .collect()
}
