//! Flat state, codes and tries.

use super::{Verification, entries, for_each};
use crate::account::AccountRecord;
use crate::rows::Rows;
use crate::trie::Node;
use crate::{Snapshot, StoreError, Table, header, rebuild_root, state_root};
use alloy_primitives::{B256, KECCAK256_EMPTY, keccak256};
use alloy_trie::nodes::RlpNode;
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles};
use std::collections::BTreeMap;

pub(super) fn verify(snapshot: &dyn Snapshot, found: &mut Verification) -> Result<(), StoreError> {
    let rebuilt = found.note(rebuild_root(snapshot))?;
    let stored = found.note(state_root(snapshot))?;
    if let (Some(rebuilt), Some(stored)) = (rebuilt, stored)
        && rebuilt != stored
    {
        let reason = format!("the trie has the root {stored}, accounts and slots give {rebuilt}");
        found.fault(Table::AccountTrie, &[0], reason);
    }
    if let Some(Some((number, _))) = found.note(crate::head(snapshot))?
        && let Some(Some(header)) = found.note(header(snapshot, number))?
        && let Some(rebuilt) = rebuilt
        && header.state_root != rebuilt
    {
        let reason = format!(
            "the state root in the header is {}, accounts and slots give {rebuilt}",
            header.state_root
        );
        found.fault(Table::Headers, &number.to_be_bytes(), reason);
    }
    found.count("state roots", 1);
    found.count("slots", entries(snapshot, Table::Storage)?);
    codes(snapshot, found)?;
    let roots = accounts(snapshot, found)?;
    let state = BTreeMap::from([(vec![0], stored.unwrap_or(EMPTY_ROOT_HASH))]);
    tries(snapshot, Table::AccountTrie, 1, state, found)?;
    tries(snapshot, Table::StorageTrie, 20, roots, found)
}

fn codes(snapshot: &dyn Snapshot, found: &mut Verification) -> Result<(), StoreError> {
    for_each(snapshot, Table::Codes, |key, code| {
        found.count("codes", 1);
        if keccak256(code).as_slice() != key {
            found.fault(Table::Codes, key, "the code has another hash");
        }
        Ok(())
    })
}

/// Storage roots of the accounts that have storage, by address.
fn accounts(
    snapshot: &dyn Snapshot,
    found: &mut Verification,
) -> Result<BTreeMap<Vec<u8>, B256>, StoreError> {
    let mut roots = BTreeMap::new();
    for_each(snapshot, Table::Accounts, |key, value| {
        found.count("accounts", 1);
        let record = match AccountRecord::decode(value) {
            Ok(record) => record,
            Err(reason) => {
                found.fault(Table::Accounts, key, reason);
                return Ok(());
            }
        };
        let code = record.info.code_hash;
        if code != KECCAK256_EMPTY && snapshot.get(Table::Codes, code.as_slice())?.is_none() {
            found.fault(
                Table::Accounts,
                key,
                format!("its code {code} is not there"),
            );
        }
        if record.storage_root != EMPTY_ROOT_HASH {
            roots.insert(key.to_vec(), record.storage_root);
        }
        Ok(())
    })?;
    Ok(roots)
}

/// Checks that the records of a table are exactly the nodes below `roots`, which stand under the first `lead` bytes of
/// their keys. A record stands directly before those below it, so one pass in order suffices.
fn tries(
    snapshot: &dyn Snapshot,
    table: Table,
    lead: usize,
    mut roots: BTreeMap<Vec<u8>, B256>,
    found: &mut Verification,
) -> Result<(), StoreError> {
    let mut walk = Walk::default();
    let mut of = Vec::new();
    let mut rows = Rows::new(snapshot, table, &[]);
    while let Some((key, record)) = rows.next()? {
        found.count("trie nodes", 1);
        let Some((root, path)) = key.split_at_checked(lead) else {
            found.fault(table, &key, "the key is too short");
            continue;
        };
        if root != of {
            walk.end(table, &of, found);
            of = root.to_vec();
            match roots.remove(root) {
                Some(root) => walk.begin(root),
                None => found.fault(table, &key, "there is no trie here"),
            }
        }
        if path.len() > 64 || path.iter().any(|nibble| *nibble > 15) {
            found.fault(table, &key, "the key is no path");
            continue;
        }
        let path = Nibbles::from_nibbles(path);
        match Node::from_record(&record) {
            Ok(node) => walk.node(table, &key, &path, node, found),
            Err(reason) => found.fault(table, &key, reason),
        }
    }
    walk.end(table, &of, found);
    for (root, hash) in roots {
        if hash != EMPTY_ROOT_HASH {
            found.fault(table, &root, "the trie is missing");
        }
    }
    Ok(())
}

/// The nodes that are still to come in one trie.
#[derive(Default)]
struct Walk {
    root: Option<B256>,
    /// Paths with the references that parents hold, the next one last.
    expected: Vec<(Nibbles, RlpNode)>,
    buffer: Vec<u8>,
}

impl Walk {
    fn begin(&mut self, root: B256) {
        self.root = Some(root);
    }

    fn node(
        &mut self,
        table: Table,
        key: &[u8],
        path: &Nibbles,
        node: Node,
        found: &mut Verification,
    ) {
        let fits = match (self.root.take(), self.expected.last()) {
            (Some(root), _) => {
                let fits = path.is_empty() && node.root_hash(&mut self.buffer) == root;
                if !fits {
                    found.fault(table, key, format!("not the root {root}"));
                }
                fits
            }
            (None, Some((expected, reference))) if expected == path => {
                let fits = node.reference(&mut self.buffer) == *reference;
                if !fits {
                    found.fault(table, key, "not the node that its parent names");
                }
                self.expected.pop();
                fits
            }
            (None, Some((expected, _))) if expected < path => {
                let missing: Vec<u8> = expected.iter().collect();
                let missing = alloy_primitives::hex::encode(missing);
                self.expected.pop();
                let reason = format!("before it the node at path 0x{missing} is missing");
                found.fault(table, key, reason);
                false
            }
            _ => {
                found.fault(table, key, "no parent names this node");
                false
            }
        };
        if let Node::Branch(branch) = node
            && fits
        {
            let path = path.join(&branch.prefix);
            for (nibble, child) in (0..16).zip(branch.children).rev() {
                if !child.is_empty() {
                    let mut path = path;
                    path.push(nibble);
                    self.expected.push((path, child));
                }
            }
        }
    }

    fn end(&mut self, table: Table, of: &[u8], found: &mut Verification) {
        if self.root.take().is_some() {
            found.fault(table, of, "the root is missing");
        }
        if let Some((path, _)) = self.expected.last() {
            let key: Vec<u8> = of.iter().copied().chain(path.iter()).collect();
            found.fault(table, &key, "the node is missing");
        }
        self.expected.clear();
    }
}
