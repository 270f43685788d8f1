//! Proofs of accounts and slots (EIP-1186), at the head and at past blocks.
//!
//! Trie nodes are kept of the head only. For a past block the accounts changed since are set back in memory, with the
//! storage roots that the history of accounts holds: of the storage tries only that of the proved account is computed.
//! The cost follows what has changed since.

use crate::account::{AccountRecord, decode_slot, slot_key};
use crate::history::{Item, StateAt, decode_items};
use crate::rows::Rows;
use crate::stored_trie::{Alone, StoredTrie, TrieKeys};
use crate::trie::{self, Change, Node, NodeSource};
use crate::{AccountInfo, Snapshot, StoreError, Table, head};
use alloy_primitives::map::HashMap;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles};
use std::collections::BTreeSet;

/// Changes that a proof takes back at most where nothing else is asked for.
pub const DEFAULT_PROOF_CHANGES: u64 = 4_000_000;

/// An account with its proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountProof {
    /// The account, `None` if it does not exist.
    pub info: Option<AccountInfo>,
    /// Root of its storage trie.
    pub storage_root: B256,
    /// Root of the state trie.
    pub state_root: B256,
    /// RLP of the nodes of the state trie from the root towards the account; they prove its absence too.
    pub nodes: Vec<Bytes>,
    /// One proof a slot asked for.
    pub slots: Vec<SlotProof>,
}

/// A slot with its proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotProof {
    /// The slot.
    pub slot: U256,
    /// Its value.
    pub value: U256,
    /// RLP of the nodes of the storage trie from its root towards the slot. Empty if the account has no storage.
    pub nodes: Vec<Bytes>,
}

/// Proves an account and some of its slots as they were after block `number`. For a block before the head at most
/// `limit` changes of accounts and slots are taken back.
///
/// # Errors
/// [`StoreError::NotRetained`], [`StoreError::ProofTooFar`]; [`StoreError::Corrupt`], [`StoreError::Lmdb`].
pub fn account_proof(
    snapshot: &dyn Snapshot,
    number: u64,
    address: &Address,
    slots: &[U256],
    limit: u64,
) -> Result<AccountProof, StoreError> {
    if head(snapshot)?.is_some_and(|(head, _)| head == number) {
        return prove(snapshot, snapshot, &Changed::default(), address, slots);
    }
    let then = StateAt::on(snapshot, number)?;
    let changed = Changed::since(snapshot, number, address, limit)?;
    prove(snapshot, &then, &changed, address, slots)
}

/// What has changed after a block.
#[derive(Default)]
struct Changed {
    accounts: BTreeSet<Address>,
    /// Of the proved account.
    slots: BTreeSet<[u8; 52]>,
}

impl Changed {
    fn since(
        snapshot: &dyn Snapshot,
        number: u64,
        address: &Address,
        limit: u64,
    ) -> Result<Self, StoreError> {
        let mut changed = Self::default();
        let mut seen = 0;
        let mut rows = Rows::new(
            snapshot,
            Table::Changes,
            &number.saturating_add(1).to_be_bytes(),
        );
        while let Some((key, value)) = rows.next()? {
            let items = decode_items(&key, &value)?;
            seen += items.len() as u64;
            if seen > limit {
                return Err(StoreError::ProofTooFar { number, limit });
            }
            for item in items {
                match item {
                    Item::Account(account) => drop(changed.accounts.insert(account)),
                    Item::Slot(key) if key.starts_with(address.as_slice()) => {
                        changed.slots.insert(key);
                    }
                    Item::Slot(_) | Item::Code(_) | Item::Deployed(_) => {}
                }
            }
        }
        Ok(changed)
    }
}

/// `now` has the trie nodes of the head, `then` the state that is proved.
fn prove(
    now: &dyn Snapshot,
    then: &dyn Snapshot,
    changed: &Changed,
    address: &Address,
    slots: &[U256],
) -> Result<AccountProof, StoreError> {
    let record = crate::account::read_record(then, address)?;
    let mut changes = Vec::with_capacity(changed.accounts.len());
    for account in &changed.accounts {
        let value = crate::account::read_record(then, account)?;
        let value = value.as_ref().map(AccountRecord::trie_value);
        changes.push(Change::new(&keccak256(account), value));
    }
    let accounts = Past::new(now, TrieKeys::Accounts, changes)?;
    let nodes = accounts.path_to(&keccak256(address))?;

    let storage_root = record.map_or(EMPTY_ROOT_HASH, |record| record.storage_root);
    let mut changes = Vec::with_capacity(changed.slots.len());
    for key in &changed.slots {
        let value = then.get(Table::Storage, key)?;
        let value = value.map(|value| decode_slot(key, &value)).transpose()?;
        let value = value.as_ref().map(alloy_rlp::encode);
        changes.push(Change::new(&keccak256(&key[20..]), value));
    }
    let storage = Past::new(now, TrieKeys::Storage(*address), changes)?;
    if storage.root != storage_root {
        return Err(StoreError::corrupt(
            Table::Accounts,
            address.as_slice(),
            format!(
                "storage root is {storage_root}, its trie has {}",
                storage.root
            ),
        ));
    }
    let mut proofs = Vec::with_capacity(slots.len());
    for slot in slots {
        let key = slot_key(address, slot);
        let value = then.get(Table::Storage, &key)?;
        let value = value.map(|value| decode_slot(&key, &value)).transpose()?;
        proofs.push(SlotProof {
            slot: *slot,
            value: value.unwrap_or_default(),
            nodes: storage.path_to(&keccak256(&key[20..]))?,
        });
    }
    Ok(AccountProof {
        info: record.map(|record| record.info),
        storage_root,
        state_root: accounts.root,
        nodes,
        slots: proofs,
    })
}

/// A stored trie with changes laid over it.
struct Past<'a> {
    stored: StoredTrie<Alone<'a>>,
    changed: HashMap<Nibbles, Option<Vec<u8>>>,
    root: B256,
    keys: TrieKeys,
}

impl<'a> Past<'a> {
    fn new(
        now: &'a dyn Snapshot,
        keys: TrieKeys,
        changes: Vec<Change>,
    ) -> Result<Self, StoreError> {
        let stored = StoredTrie::new(Alone(now), keys);
        let update = trie::update(&stored, changes)?;
        Ok(Self {
            changed: update.records.into_iter().collect(),
            root: update.root,
            keys,
            stored,
        })
    }

    fn node(&self, path: &Nibbles) -> Result<Option<Node>, StoreError> {
        match self.changed.get(path) {
            Some(None) => Ok(None),
            Some(Some(record)) => Node::from_record(record).map(Some).map_err(|reason| {
                StoreError::corrupt(self.keys.table(), &self.keys.key(path), reason)
            }),
            None => self.stored.node(path),
        }
    }

    /// RLP of the nodes from the root towards a key, but for those that stand inside their parent.
    fn path_to(&self, key: &B256) -> Result<Vec<Bytes>, StoreError> {
        let key = Nibbles::unpack_array(&key.0);
        let mut path = Nibbles::new();
        let mut nodes = Vec::new();
        while let Some(node) = self.node(&path)? {
            let rest = key.slice(path.len()..);
            let mut layers = node.layers();
            let next = match &node {
                Node::Leaf { .. } => None,
                Node::Branch(branch) if rest.starts_with(&branch.prefix) => {
                    let nibble = rest.get(branch.prefix.len());
                    nibble.filter(|nibble| !branch.children[usize::from(*nibble)].is_empty())
                }
                Node::Branch(_) => {
                    // The extension leads elsewhere, and what is below it says nothing more.
                    layers.truncate(1);
                    None
                }
            };
            for layer in layers {
                if nodes.is_empty() || layer.len() >= 32 {
                    nodes.push(Bytes::from(layer));
                }
            }
            let (Some(nibble), Node::Branch(branch)) = (next, &node) else {
                break;
            };
            path = path.join(&branch.prefix);
            path.push(nibble);
        }
        Ok(nodes)
    }
}
