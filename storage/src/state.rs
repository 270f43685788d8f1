//! State changes: flat tables and trie nodes in one batch.

use crate::account::{AccountRecord, read_record, slot_key};
use crate::store::scan_prefix;
use crate::trie::{self, Change, Node, NodeSource, TrieUpdate};
use crate::{AccountInfo, Batch, Snapshot, StoreError, Table};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256};
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles};
use std::collections::BTreeMap;

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

/// Puts the changes to the flat tables and the trie nodes into `batch` and returns the state root after them.
///
/// The snapshot must not miss a state change that is in `batch` already: for a second diff in one batch give
/// [`crate::Layered`] of the two. Reads and writes grow with the change, not with the state, except that a wiped
/// storage is deleted entry by entry.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::Lmdb`]; `batch` may then hold a part of the diff and must be dropped.
pub fn apply_state(
    snapshot: &dyn Snapshot,
    diff: &StateDiff,
    batch: &mut Batch,
) -> Result<B256, StoreError> {
    let mut changes = Vec::with_capacity(diff.accounts.len());
    for (address, change) in &diff.accounts {
        let value = apply_account(snapshot, address, change, batch)?;
        changes.push(Change::new(&keccak256(address), value));
    }
    for (hash, code) in &diff.codes {
        if *hash != KECCAK256_EMPTY {
            batch.put(Table::Codes, hash.as_slice(), &code[..]);
        }
    }
    let update = trie::update(&StoredTrie::accounts(snapshot), changes)?;
    write_records(batch, &TrieKeys::Accounts, &update);
    Ok(update.root)
}

/// The root of the state trie as stored. One read and one hash.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::Lmdb`].
pub fn state_root(snapshot: &dyn Snapshot) -> Result<B256, StoreError> {
    let root = StoredTrie::accounts(snapshot).node(&Nibbles::new())?;
    Ok(root.map_or(EMPTY_ROOT_HASH, |root| root.root_hash(&mut Vec::new())))
}

/// Changes one account and its storage; returns its value in the state trie, `None` if it does not exist after.
fn apply_account(
    snapshot: &dyn Snapshot,
    address: &Address,
    change: &AccountChange,
    batch: &mut Batch,
) -> Result<Option<Vec<u8>>, StoreError> {
    let old = read_record(snapshot, address)?;
    let old_root = old.map_or(EMPTY_ROOT_HASH, |record| record.storage_root);
    let wipe = change.wipe_storage || change.info.is_none();
    if wipe && old_root != EMPTY_ROOT_HASH {
        wipe_storage(snapshot, address, batch)?;
    }
    let Some(info) = change.info else {
        batch.delete_state(Table::Accounts, address.as_slice());
        return Ok(None);
    };
    let kept_root = if wipe { EMPTY_ROOT_HASH } else { old_root };
    let storage_root = if change.slots.is_empty() {
        kept_root
    } else {
        apply_slots(snapshot, address, kept_root, &change.slots, batch)?
    };
    let record = AccountRecord { info, storage_root };
    if old != Some(record) {
        batch.put_state(Table::Accounts, address.as_slice(), record.encode());
    }
    Ok(Some(record.trie_value()))
}

/// Writes slots and their trie nodes; returns the storage root after. `old_root` tells whether there is a trie yet.
fn apply_slots(
    snapshot: &dyn Snapshot,
    address: &Address,
    old_root: B256,
    slots: &BTreeMap<U256, U256>,
    batch: &mut Batch,
) -> Result<B256, StoreError> {
    let mut changes = Vec::with_capacity(slots.len());
    for (slot, value) in slots {
        let key = slot_key(address, slot);
        let rlp = if value.is_zero() {
            batch.delete_state(Table::Storage, key);
            None
        } else {
            batch.put_state(Table::Storage, key, value.to_be_bytes_trimmed_vec());
            Some(alloy_rlp::encode(value))
        };
        changes.push(Change::new(&keccak256(slot.to_be_bytes::<32>()), rlp));
    }
    let update = if old_root == EMPTY_ROOT_HASH {
        trie::update(&NoTrie, changes)?
    } else {
        trie::update(&StoredTrie::storage(snapshot, *address), changes)?
    };
    write_records(batch, &TrieKeys::Storage(*address), &update);
    Ok(update.root)
}

/// Deletes all slots and storage trie nodes of an account.
fn wipe_storage(
    snapshot: &dyn Snapshot,
    address: &Address,
    batch: &mut Batch,
) -> Result<(), StoreError> {
    for table in [Table::Storage, Table::StorageTrie] {
        scan_prefix(snapshot, table, address.as_slice(), &mut |key, _| {
            batch.delete_state(table, key);
        })?;
    }
    Ok(())
}

fn write_records(batch: &mut Batch, keys: &TrieKeys, update: &TrieUpdate) {
    for (path, record) in &update.records {
        match record {
            Some(record) => batch.put_state(keys.table(), keys.key(path), record.as_slice()),
            None => batch.delete_state(keys.table(), keys.key(path)),
        }
    }
}

/// Where the records of a trie stand.
enum TrieKeys {
    Accounts,
    Storage(Address),
}

impl TrieKeys {
    const fn table(&self) -> Table {
        match self {
            Self::Accounts => Table::AccountTrie,
            Self::Storage(_) => Table::StorageTrie,
        }
    }

    /// One byte a nibble keeps a node next to its children, the order of a walk, whatever the parity of its depth.
    /// The byte before the path makes a key of the state trie's root, whose path is empty.
    fn key(&self, path: &Nibbles) -> Vec<u8> {
        let lead = match self {
            Self::Accounts => &[0][..],
            Self::Storage(address) => address.as_slice(),
        };
        let mut key = Vec::with_capacity(lead.len() + path.len());
        key.extend_from_slice(lead);
        key.extend(path.iter());
        key
    }
}

/// The nodes of a trie in a snapshot.
struct StoredTrie<'a> {
    snapshot: &'a dyn Snapshot,
    keys: TrieKeys,
}

impl<'a> StoredTrie<'a> {
    const fn accounts(snapshot: &'a dyn Snapshot) -> Self {
        Self {
            snapshot,
            keys: TrieKeys::Accounts,
        }
    }

    const fn storage(snapshot: &'a dyn Snapshot, address: Address) -> Self {
        Self {
            snapshot,
            keys: TrieKeys::Storage(address),
        }
    }
}

impl NodeSource for StoredTrie<'_> {
    fn node(&self, path: &Nibbles) -> Result<Option<Node>, StoreError> {
        let key = self.keys.key(path);
        let Some(record) = self.snapshot.get(self.keys.table(), &key)? else {
            return Ok(None);
        };
        let corrupt = |reason| StoreError::corrupt(self.keys.table(), &key, reason);
        let node = Node::from_record(&record).map_err(corrupt)?;
        // Every key has 64 nibbles: what lies below a path that is too long would be sliced out of bounds.
        let fits = match &node {
            Node::Leaf { suffix, .. } => path.len() + suffix.len() == 64,
            Node::Branch(branch) => path.len() + branch.prefix.len() < 64,
        };
        if fits {
            Ok(Some(node))
        } else {
            Err(corrupt("does not end at 64 nibbles"))
        }
    }

    fn missing(&self, path: &Nibbles) -> StoreError {
        let key = self.keys.key(path);
        StoreError::corrupt(self.keys.table(), &key, "the node is missing")
    }
}

/// A storage trie that is empty, or whose stored nodes are deleted in the same batch.
struct NoTrie;

impl NodeSource for NoTrie {
    fn node(&self, _: &Nibbles) -> Result<Option<Node>, StoreError> {
        Ok(None)
    }

    fn missing(&self, path: &Nibbles) -> StoreError {
        let key: Vec<u8> = path.iter().collect();
        StoreError::corrupt(Table::StorageTrie, &key, "the node is missing")
    }
}
