//! The update: sorted changes are merged into the stored nodes from the root down, and written on the way back up.
//!
//! A node is read only if a change lies at or below it, or if it is the last child of a branch that ends. It is held
//! in memory until its parent knows where it stands, so that no node is written twice.
//!
//! Subtrees have no part in each other, so the children of a branch are merged side by side where there are enough
//! changes to pay for it and the source can be read by several threads. What comes out is the same.

use super::NodeSource;
use super::node::{Branch, Node};
use crate::StoreError;
use alloy_primitives::B256;
use alloy_trie::nodes::RlpNode;
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles};
use rayon::prelude::*;

/// From how many changes on the children of a branch are merged side by side. Some 100 µs of work: tens of times
/// what handing it to another thread costs.
const PARALLEL_CHANGES: usize = 64;

/// A key of 64 nibbles with its new value as RLP, or `None` to delete it.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub key: Nibbles,
    pub value: Option<Vec<u8>>,
}

impl Change {
    pub(crate) fn new(key: &B256, value: Option<Vec<u8>>) -> Self {
        Self {
            key: Nibbles::unpack_array(&key.0),
            value,
        }
    }
}

/// What an update gives.
#[derive(Debug)]
pub(crate) struct TrieUpdate {
    /// Root hash after it.
    pub root: B256,
    /// Records to write by path; `None` deletes one. No path is there twice.
    pub records: Vec<(Nibbles, Option<Vec<u8>>)>,
}

/// Merges `changes` into the trie in `source`, on this thread. The changes are sorted here; of those with one key the
/// first counts.
pub(crate) fn update(
    source: &dyn NodeSource,
    changes: Vec<Change>,
) -> Result<TrieUpdate, StoreError> {
    Merge::new(source, None).run(changes)
}

/// [`update`] on the threads of the current pool.
pub(crate) fn update_parallel(
    source: &(dyn NodeSource + Sync),
    changes: Vec<Change>,
) -> Result<TrieUpdate, StoreError> {
    let shared = (changes.len() >= PARALLEL_CHANGES).then_some(source);
    Merge::new(source, shared).run(changes)
}

/// What became of the node at a path. A changed one is not written yet: that is its parent's part.
enum Outcome {
    Same(Option<Node>),
    Changed(Option<Node>),
}

/// A child of a branch while the branch is worked on.
enum Slot {
    Absent,
    /// As stored, with its node if that was read.
    Kept(RlpNode, Option<Node>),
    /// New or changed, not written yet.
    Fresh(Node),
}

/// The children of a branch while it is worked on.
struct Slots {
    slots: [Slot; 16],
    /// Bit n: a record of the child at nibble n was in the store.
    stored: u16,
    changed: bool,
}

impl Slots {
    fn of(children: [RlpNode; 16]) -> Self {
        let mut stored = 0;
        let mut nibble = 0;
        let slots = children.map(|child| {
            let bit = 1_u16 << nibble;
            nibble += 1;
            if child.is_empty() {
                return Slot::Absent;
            }
            stored |= bit;
            Slot::Kept(child, None)
        });
        Self {
            slots,
            stored,
            changed: false,
        }
    }

    fn is_present(&self, nibble: u8) -> bool {
        !matches!(self.slots[usize::from(nibble)], Slot::Absent)
    }

    /// Puts the outcome for the child at `nibble` in its place.
    fn settle(&mut self, nibble: u8, outcome: Outcome) {
        let slot = &mut self.slots[usize::from(nibble)];
        match (outcome, slot) {
            (Outcome::Changed(node), slot) => {
                *slot = node.map_or(Slot::Absent, Slot::Fresh);
                self.changed = true;
            }
            (Outcome::Same(node), Slot::Kept(_, read)) => *read = node,
            // Only deletes of keys that are not there meet a child that is not there.
            (Outcome::Same(_), Slot::Absent | Slot::Fresh(_)) => {}
        }
    }
}

/// A key with its value while nodes are built.
struct Entry<'a> {
    key: Nibbles,
    value: &'a [u8],
}

struct Merge<'a> {
    source: &'a dyn NodeSource,
    /// The same source, if subtrees may be merged on other threads.
    shared: Option<&'a (dyn NodeSource + Sync)>,
    records: Vec<(Nibbles, Option<Vec<u8>>)>,
    buffer: Vec<u8>,
}

impl<'a> Merge<'a> {
    fn new(source: &'a dyn NodeSource, shared: Option<&'a (dyn NodeSource + Sync)>) -> Self {
        Self {
            source,
            shared,
            records: Vec::new(),
            buffer: Vec::with_capacity(600),
        }
    }

    fn run(mut self, mut changes: Vec<Change>) -> Result<TrieUpdate, StoreError> {
        changes.sort_by_key(|change| change.key);
        changes.dedup_by_key(|change| change.key);
        self.records.reserve(2 * changes.len());
        let path = Nibbles::new();
        let root = match self.merge(path, self.source.node(&path)?, &changes)? {
            Outcome::Same(None) => EMPTY_ROOT_HASH,
            Outcome::Same(Some(root)) => root.root_hash(&mut self.buffer),
            Outcome::Changed(None) => {
                self.records.push((path, None));
                EMPTY_ROOT_HASH
            }
            Outcome::Changed(Some(root)) => {
                self.records.push((path, Some(root.record())));
                root.root_hash(&mut self.buffer)
            }
        };
        Ok(TrieUpdate {
            root,
            records: self.records,
        })
    }

    /// Merges `changes`, whose keys all begin with `path`, into the node `old` at `path`.
    fn merge(
        &mut self,
        path: Nibbles,
        old: Option<Node>,
        changes: &[Change],
    ) -> Result<Outcome, StoreError> {
        match old {
            None => {
                let entries: Vec<_> = changes.iter().filter_map(entry).collect();
                Ok(match entries.is_empty() {
                    true => Outcome::Same(None),
                    false => Outcome::Changed(Some(self.build(path.len(), &entries))),
                })
            }
            Some(Node::Leaf { suffix, value }) => Ok(self.merge_leaf(path, suffix, value, changes)),
            Some(Node::Branch(branch)) => self.merge_branch(path, *branch, changes),
        }
    }

    fn merge_leaf(
        &mut self,
        path: Nibbles,
        suffix: Nibbles,
        value: Vec<u8>,
        changes: &[Change],
    ) -> Outcome {
        let key = path.join(&suffix);
        let mut entries: Vec<_> = changes.iter().filter_map(entry).collect();
        if changes.iter().all(|change| change.key != key) {
            if entries.is_empty() {
                return Outcome::Same(Some(Node::Leaf { suffix, value }));
            }
            let at = entries.partition_point(|entry| entry.key < key);
            entries.insert(at, Entry { key, value: &value });
        }
        match entries.as_slice() {
            [] => Outcome::Changed(None),
            [one] if one.key == key && one.value == value => {
                Outcome::Same(Some(Node::Leaf { suffix, value }))
            }
            entries => Outcome::Changed(Some(self.build(path.len(), entries))),
        }
    }

    fn merge_branch(
        &mut self,
        path: Nibbles,
        branch: Branch,
        changes: &[Change],
    ) -> Result<Outcome, StoreError> {
        let at = path.join(&branch.prefix);
        let parting = changes
            .iter()
            .filter(|change| change.value.is_some())
            .map(|change| change.key.common_prefix_length(&at))
            .min()
            .filter(|common| *common < at.len());
        match parting {
            Some(common) => self.split_branch(path, at, common, branch, changes),
            None => {
                let mut slots = Slots::of(branch.children);
                match self.shared {
                    Some(shared) if changes.len() >= PARALLEL_CHANGES => {
                        self.merge_children_parallel(shared, &at, &mut slots, changes)?;
                    }
                    _ => {
                        for (nibble, group) in groups(&at, changes) {
                            let stored = slots.is_present(nibble);
                            let outcome = self.merge_child(child(&at, nibble), stored, group)?;
                            slots.settle(nibble, outcome);
                        }
                    }
                }
                self.finish(path, at, slots)
            }
        }
    }

    /// Merges `changes` into the child at `path`, which is in the store if `stored`.
    fn merge_child(
        &mut self,
        path: Nibbles,
        stored: bool,
        changes: &[Change],
    ) -> Result<Outcome, StoreError> {
        let old = match stored {
            true => Some(self.stored(&path)?),
            false => None,
        };
        self.merge(path, old, changes)
    }

    /// Merges the changes below the branch at `at` into its children, side by side.
    fn merge_children_parallel(
        &mut self,
        shared: &'a (dyn NodeSource + Sync),
        at: &Nibbles,
        slots: &mut Slots,
        changes: &[Change],
    ) -> Result<(), StoreError> {
        let groups: Vec<_> = groups(at, changes)
            .map(|(nibble, group)| (nibble, slots.is_present(nibble), group))
            .collect();
        let merged: Vec<_> = groups
            .into_par_iter()
            .map(|(nibble, stored, group)| {
                let mut merge = Merge::new(shared, Some(shared));
                let outcome = merge.merge_child(child(at, nibble), stored, group)?;
                Ok((nibble, outcome, merge.records))
            })
            .collect::<Result<_, StoreError>>()?;
        for (nibble, outcome, records) in merged {
            slots.settle(nibble, outcome);
            self.records.extend(records);
        }
        Ok(())
    }

    /// Merges changes that part from the branch's prefix: a new branch at `common` nibbles takes the old one as a
    /// child.
    fn split_branch(
        &mut self,
        path: Nibbles,
        at: Nibbles,
        common: usize,
        branch: Branch,
        changes: &[Change],
    ) -> Result<Outcome, StoreError> {
        let base = at.slice(..common);
        let old_nibble = at.get_unchecked(common);
        let mut slots = Slots::of(Default::default());
        slots.slots[usize::from(old_nibble)] = Slot::Fresh(Node::Branch(Box::new(Branch {
            prefix: at.slice(common + 1..),
            children: branch.children,
        })));
        for (nibble, group) in groups(&base, changes) {
            let slot = &mut slots.slots[usize::from(nibble)];
            let old = match std::mem::replace(slot, Slot::Absent) {
                Slot::Fresh(node) => Some(node),
                Slot::Absent | Slot::Kept(..) => None,
            };
            // The old branch stands at a new path, so even if it is the same it is to be written.
            let outcome = match self.merge(child(&base, nibble), old, group)? {
                Outcome::Same(Some(node)) => Outcome::Changed(Some(node)),
                outcome => outcome,
            };
            slots.settle(nibble, outcome);
        }
        slots.changed = true;
        self.finish(path, base, slots)
    }

    /// Makes the node at `path` out of the children of the branch at `at`.
    fn finish(
        &mut self,
        path: Nibbles,
        at: Nibbles,
        mut slots: Slots,
    ) -> Result<Outcome, StoreError> {
        let prefix = at.slice(path.len()..);
        let mut live = (0_u8..)
            .zip(&slots.slots)
            .filter(|(_, slot)| !matches!(slot, Slot::Absent))
            .map(|(nibble, _)| nibble);
        let (first, second) = (live.next(), live.next());
        if second.is_none() {
            for nibble in (0_u8..16).filter(|nibble| slots.stored >> nibble & 1 == 1) {
                self.records.push((child(&at, nibble), None));
            }
            let Some(nibble) = first else {
                return Ok(Outcome::Changed(None));
            };
            let slot = &mut slots.slots[usize::from(nibble)];
            let node = match std::mem::replace(slot, Slot::Absent) {
                Slot::Fresh(node) | Slot::Kept(_, Some(node)) => node,
                Slot::Kept(_, None) | Slot::Absent => self.stored(&child(&at, nibble))?,
            };
            let above = child(&prefix, nibble);
            return Ok(Outcome::Changed(Some(node.lifted(&above))));
        }
        let mut children: [RlpNode; 16] = Default::default();
        for ((nibble, slot), reference) in (0_u8..).zip(slots.slots).zip(&mut children) {
            match slot {
                Slot::Kept(kept, _) => *reference = kept,
                Slot::Fresh(node) => *reference = self.write(child(&at, nibble), &node),
                Slot::Absent if slots.stored >> nibble & 1 == 1 => {
                    self.records.push((child(&at, nibble), None));
                }
                Slot::Absent => {}
            }
        }
        let node = Node::Branch(Box::new(Branch { prefix, children }));
        Ok(match slots.changed {
            true => Outcome::Changed(Some(node)),
            false => Outcome::Same(Some(node)),
        })
    }

    /// Builds the node at `depth` nibbles for sorted entries that share those; there is at least one.
    fn build(&mut self, depth: usize, entries: &[Entry<'_>]) -> Node {
        let (first, last) = (&entries[0], &entries[entries.len() - 1]);
        if entries.len() == 1 {
            return Node::Leaf {
                suffix: first.key.slice(depth..),
                value: first.value.to_vec(),
            };
        }
        let common = first.key.common_prefix_length(&last.key);
        let at = first.key.slice(..common);
        let mut children: [RlpNode; 16] = Default::default();
        for group in entries.chunk_by(|a, b| a.key.get(common) == b.key.get(common)) {
            let nibble = group[0].key.get_unchecked(common);
            let node = self.build(common + 1, group);
            children[usize::from(nibble)] = self.write(child(&at, nibble), &node);
        }
        Node::Branch(Box::new(Branch {
            prefix: at.slice(depth..),
            children,
        }))
    }

    /// Takes the node into the records and gives the reference for its parent.
    fn write(&mut self, path: Nibbles, node: &Node) -> RlpNode {
        self.records.push((path, Some(node.record())));
        node.reference(&mut self.buffer)
    }

    fn stored(&self, path: &Nibbles) -> Result<Node, StoreError> {
        self.source
            .node(path)?
            .ok_or_else(|| self.source.missing(path))
    }
}

fn entry(change: &Change) -> Option<Entry<'_>> {
    let value = change.value.as_deref()?;
    Some(Entry {
        key: change.key,
        value,
    })
}

fn child(path: &Nibbles, nibble: u8) -> Nibbles {
    let mut path = *path;
    path.push(nibble);
    path
}

/// The changes below `at`, by the nibble after it. Those beside it are deletes of keys that are not there.
fn groups<'c>(
    at: &Nibbles,
    changes: &'c [Change],
) -> impl Iterator<Item = (u8, &'c [Change])> + use<'c> {
    let at = *at;
    let depth = at.len();
    changes
        .chunk_by(move |a, b| {
            a.key.starts_with(&at) == b.key.starts_with(&at) && a.key.get(depth) == b.key.get(depth)
        })
        .filter(move |group| group[0].key.starts_with(&at))
        .map(move |group| (group[0].key.get_unchecked(depth), group))
}
