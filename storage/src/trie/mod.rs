//! The Merkle-Patricia trie, kept as one record a node under the node's path, updated by merging sorted changes.
//!
//! A record is a leaf, or a branch together with the extension above it, if it has one. A branch holds the
//! references of its children as its RLP does, so a node is hashed only if something below it changed, and siblings
//! of a change are never read. A child whose RLP is short enough to stand inside its parent has a record all the
//! same: then every node is found by its path alone.

mod merge;
mod node;

pub(crate) use merge::{Change, TrieUpdate, update, update_parallel};
pub(crate) use node::Node;

use crate::StoreError;
use alloy_trie::Nibbles;

/// Where the nodes of one trie are read.
pub(crate) trait NodeSource {
    /// The node at this path, `None` if no record is there.
    fn node(&self, path: &Nibbles) -> Result<Option<Node>, StoreError>;

    /// The error for a node that its parent names but no record holds.
    fn missing(&self, path: &Nibbles) -> StoreError;
}

#[cfg(test)]
mod tests;
