//! Whether everything in a store fits together.
//!
//! What is derived is derived again and compared, and every index is checked both ways: each entry that must be there
//! is there, and no other is.

mod chain;
mod history;
mod state;

use crate::rows::Rows;
use crate::{Snapshot, StoreError, StoredReceipt, Table};
use alloy_primitives::{B256, hex};
use std::collections::BTreeMap;
use std::fmt;

/// Faults that are named; more are counted.
const NAMED_FAULTS: usize = 20;

/// Computes the root of the receipts of a block as its header has it: receipts in their EIP-2718 form are not the
/// store's matter.
pub type ReceiptsRoot<'a> = &'a dyn Fn(&[StoredReceipt]) -> B256;

/// Something that does not fit, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The table.
    pub table: Table,
    /// The key.
    pub key: Vec<u8>,
    /// What does not fit.
    pub reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "table {}, key 0x{}: {}",
            self.table,
            hex::encode(&self.key),
            self.reason
        )
    }
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// How much of each kind was checked.
    pub checked: BTreeMap<&'static str, u64>,
    /// The first faults.
    pub faults: Vec<Fault>,
    /// All faults.
    pub fault_count: u64,
}

impl Verification {
    fn count(&mut self, kind: &'static str, more: u64) {
        *self.checked.entry(kind).or_default() += more;
    }

    fn fault(&mut self, table: Table, key: &[u8], reason: impl Into<String>) {
        self.fault_count += 1;
        if self.faults.len() < NAMED_FAULTS {
            self.faults.push(Fault {
                table,
                key: key.to_vec(),
                reason: reason.into(),
            });
        }
    }

    /// The value, or a fault if the store could be read and what was read is wrong.
    fn note<T>(&mut self, read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match read {
            Ok(value) => Ok(Some(value)),
            Err(StoreError::Corrupt { table, key, reason }) => {
                self.fault(table, &hex::decode(key).unwrap_or_default(), reason);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Checks a whole store. Time grows with all it holds, memory with the state.
///
/// - State: the root computed from accounts and slots alone is that of the stored trie and of the head's header; every
///   trie node is the one that its parent names, and no other is there; codes have their hashes.
/// - Chain: headers have their hashes and follow one another; bodies and receipts have the roots in their headers;
///   hashes, transactions, addresses and topics lead to their blocks and nowhere else.
/// - History: every change has its entries and every entry its change; taking the blocks back in memory gives, at each
///   block that can be read, the state root in its header.
///
/// Senders are not recovered from signatures.
///
/// # Errors
/// [`StoreError::Lmdb`] and others by which nothing could be read: what was read and does not fit is no error.
pub fn verify(
    snapshot: &dyn Snapshot,
    receipts_root: Option<ReceiptsRoot<'_>>,
) -> Result<Verification, StoreError> {
    let mut found = Verification::default();
    state::verify(snapshot, &mut found)?;
    chain::verify(snapshot, receipts_root, &mut found)?;
    history::verify(snapshot, &mut found)?;
    Ok(found)
}

/// Entries of a table.
fn entries(snapshot: &dyn Snapshot, table: Table) -> Result<u64, StoreError> {
    let mut count = 0;
    snapshot.scan(table, &[], &mut |_, _| {
        count += 1;
        std::ops::ControlFlow::Continue(())
    })?;
    Ok(count)
}

/// Visits all rows of a table.
fn for_each(
    snapshot: &dyn Snapshot,
    table: Table,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut rows = Rows::new(snapshot, table, &[]);
    while let Some((key, value)) = rows.next()? {
        visit(&key, &value)?;
    }
    Ok(())
}
