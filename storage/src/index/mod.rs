//! Indexes of blocks: transactions by sender and recipient, logs by address and topic.
//!
//! What the indexes hold of a block follows from its body, senders and receipts ([`entries`]), so it is taken away again
//! and verified without being recorded elsewhere.

mod logs;
mod transactions;

pub use logs::{LogQuery, matching_blocks};
pub use transactions::{Role, transactions_of};

pub(crate) use logs::posting_block;
pub(crate) use transactions::address_transaction;

use crate::rows::Row;
use crate::{BlockTransaction, StoredReceipt, Table};
use alloy_consensus::BlockBody;
use alloy_primitives::Address;

/// What of a block is indexed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Indexed<'a> {
    pub number: u64,
    pub body: &'a BlockBody<BlockTransaction>,
    pub receipts: &'a [StoredReceipt],
    pub senders: &'a [Address],
}

/// Everything the indexes by address and topic hold of a block.
pub(crate) fn entries(
    block: &Indexed<'_>,
) -> impl Iterator<Item = (Table, Vec<u8>, Vec<u8>)> + use<> {
    let tagged = |table: Table| move |(key, value): Row| (table, key, value);
    transactions::entries(block)
        .into_iter()
        .map(tagged(Table::AddressTransactions))
        .chain(
            logs::entries(block)
                .into_iter()
                .map(tagged(Table::LogPostings)),
        )
}
