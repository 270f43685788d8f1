//! Transactions by sender and by recipient.
//!
//! Key: role (1), address (20), block number (8), index in the block (4). The value is empty.

use super::Indexed;
use crate::rows::{Row, Rows};
use crate::{Snapshot, StoreError, Table, TransactionLocation};
use alloy_consensus::Transaction as _;
use alloy_primitives::Address;

/// What an address is to a transaction.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It signed it.
    Sender = 0,
    /// It was called, or created by it.
    Recipient = 1,
}

fn key(role: Role, address: &Address, at: TransactionLocation) -> Vec<u8> {
    let mut key = Vec::with_capacity(33);
    key.push(role as u8);
    key.extend_from_slice(address.as_slice());
    key.extend(at.block.to_be_bytes());
    key.extend(at.index.to_be_bytes());
    key
}

pub(super) fn entries(block: &Indexed<'_>) -> Vec<Row> {
    let mut rows = Vec::with_capacity(2 * block.senders.len());
    let transactions = block.body.transactions.iter().zip(block.receipts);
    for ((index, sender), (transaction, receipt)) in (0..).zip(block.senders).zip(transactions) {
        let at = TransactionLocation {
            block: block.number,
            index,
        };
        rows.push((key(Role::Sender, sender, at), Vec::new()));
        if let Some(recipient) = transaction.to().or(receipt.contract_address) {
            rows.push((key(Role::Recipient, &recipient, at), Vec::new()));
        }
    }
    rows
}

/// Role, address and place of an entry of the index.
pub(crate) fn address_transaction(key: &[u8]) -> Option<(u8, Address, TransactionLocation)> {
    let (&role, rest) = key.split_first()?;
    let (address, rest) = rest.split_first_chunk::<20>()?;
    let (block, index) = rest.split_first_chunk::<8>()?;
    let at = TransactionLocation {
        block: u64::from_be_bytes(*block),
        index: u32::from_be_bytes(index.try_into().ok()?),
    };
    (role <= Role::Recipient as u8).then_some((role, Address::from(*address), at))
}

/// The places of at most `most` transactions in which `address` has `role`, in the order of the chain from `from` on.
/// The cost follows what is returned.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::Lmdb`].
pub fn transactions_of(
    snapshot: &dyn Snapshot,
    role: Role,
    address: &Address,
    from: TransactionLocation,
    most: usize,
) -> Result<Vec<TransactionLocation>, StoreError> {
    let mut found = Vec::new();
    let mut rows = Rows::new(
        snapshot,
        Table::AddressTransactions,
        &key(role, address, from),
    );
    while found.len() < most
        && let Some((key, _)) = rows.next()?
    {
        match address_transaction(&key) {
            Some((of, whose, at)) if (of, whose) == (role as u8, *address) => found.push(at),
            Some(_) => break,
            None => {
                let table = Table::AddressTransactions;
                return Err(StoreError::corrupt(table, &key, "not a key of this table"));
            }
        }
    }
    Ok(found)
}
