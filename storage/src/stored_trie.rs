//! Where the nodes of a trie stand in the tables, and how they are read, by one thread or by several.

use crate::readers::Readers;
use crate::trie::{self, Change, Node, NodeSource, TrieUpdate};
use crate::{Batch, Snapshot, StoreError, Table};
use alloy_primitives::Address;
use alloy_trie::Nibbles;

/// How a state is read while it is changed.
pub(crate) trait Reads: Copy {
    /// Calls `read` with a view of the state, which `read` does not keep.
    fn with<T>(self, read: impl FnOnce(&dyn Snapshot) -> T) -> T;

    /// Merges `changes` into the trie under `keys`.
    fn update(self, keys: TrieKeys, changes: Vec<Change>) -> Result<TrieUpdate, StoreError>;
}

/// By one thread.
#[derive(Clone, Copy)]
pub(crate) struct Alone<'a>(pub(crate) &'a dyn Snapshot);

impl Reads for Alone<'_> {
    fn with<T>(self, read: impl FnOnce(&dyn Snapshot) -> T) -> T {
        read(self.0)
    }

    fn update(self, keys: TrieKeys, changes: Vec<Change>) -> Result<TrieUpdate, StoreError> {
        trie::update(&StoredTrie::new(self, keys), changes)
    }
}

/// By the threads of the current pool.
#[derive(Clone, Copy)]
pub(crate) struct Together<'a, 's> {
    pub(crate) readers: &'a Readers<'s>,
    /// A batch laid over what the readers show.
    pub(crate) above: Option<&'a Batch>,
}

impl Reads for Together<'_, '_> {
    fn with<T>(self, read: impl FnOnce(&dyn Snapshot) -> T) -> T {
        self.readers.with(self.above, read)
    }

    fn update(self, keys: TrieKeys, changes: Vec<Change>) -> Result<TrieUpdate, StoreError> {
        trie::update_parallel(&StoredTrie::new(self, keys), changes)
    }
}

/// Where the records of a trie stand.
#[derive(Clone, Copy)]
pub(crate) enum TrieKeys {
    Accounts,
    Storage(Address),
}

impl TrieKeys {
    pub(crate) const fn table(&self) -> Table {
        match self {
            Self::Accounts => Table::AccountTrie,
            Self::Storage(_) => Table::StorageTrie,
        }
    }

    /// One byte a nibble keeps a node next to its children, the order of a walk, whatever the parity of its depth.
    /// The byte before the path makes a key of the state trie's root, whose path is empty.
    pub(crate) fn key(&self, path: &Nibbles) -> Vec<u8> {
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

/// The nodes of a trie in the tables.
pub(crate) struct StoredTrie<R> {
    reads: R,
    keys: TrieKeys,
}

impl<R: Reads> StoredTrie<R> {
    pub(crate) const fn new(reads: R, keys: TrieKeys) -> Self {
        Self { reads, keys }
    }
}

impl<R: Reads> NodeSource for StoredTrie<R> {
    fn node(&self, path: &Nibbles) -> Result<Option<Node>, StoreError> {
        let key = self.keys.key(path);
        let corrupt = |reason| StoreError::corrupt(self.keys.table(), &key, reason);
        // Decoded while the value is borrowed: nothing is copied but what the node keeps.
        let node = self.reads.with(|snapshot| {
            let record = snapshot.get(self.keys.table(), &key)?;
            record
                .map(|record| Node::from_record(&record).map_err(corrupt))
                .transpose()
        })?;
        let Some(node) = node else {
            return Ok(None);
        };
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
pub(crate) struct NoTrie;

impl NodeSource for NoTrie {
    fn node(&self, _: &Nibbles) -> Result<Option<Node>, StoreError> {
        Ok(None)
    }

    fn missing(&self, path: &Nibbles) -> StoreError {
        let key: Vec<u8> = path.iter().collect();
        StoreError::corrupt(Table::StorageTrie, &key, "the node is missing")
    }
}
