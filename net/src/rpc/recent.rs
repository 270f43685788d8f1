//! Blocks that were made or asked for lately, decoded.
//!
//! A client asks for the receipts of a block one by one; decoding the block for each would cost its length every time.

use std::collections::VecDeque;
use std::sync::Arc;

use alloy_consensus::{BlockBody, Header};
use alloy_primitives::{Address, B256};
use parking_lot::Mutex;
use zvm_engine::chain::Imported;
use zvm_engine::transaction::Tx;
use zvm_storage::{Snapshot, StoreError, StoredReceipt, Table};

/// Blocks kept.
const MOST_BLOCKS: usize = 64;
/// Transactions kept in all of them.
const MOST_TRANSACTIONS: usize = 50_000;

/// A block with everything stored about it.
#[derive(Debug)]
pub(super) struct StoredBlock {
    pub(super) hash: B256,
    pub(super) header: Header,
    pub(super) body: BlockBody<Tx>,
    pub(super) senders: Vec<Address>,
    pub(super) receipts: Vec<StoredReceipt>,
}

impl StoredBlock {
    pub(super) fn of(imported: &Imported) -> Self {
        Self {
            hash: imported.hash,
            header: imported.block.header.clone(),
            body: imported.block.body.clone(),
            senders: imported.senders.clone(),
            receipts: imported.receipts.clone(),
        }
    }

    pub(super) fn read(snapshot: &dyn Snapshot, number: u64) -> Result<Option<Self>, StoreError> {
        let Some((hash, header)) = zvm_storage::sealed_header(snapshot, number)? else {
            return Ok(None);
        };
        let body = zvm_storage::body(snapshot, number)?;
        let senders = zvm_storage::senders(snapshot, number)?;
        let receipts = zvm_storage::receipts(snapshot, number)?;
        let (Some(body), Some(senders), Some(receipts)) = (body, senders, receipts) else {
            return Err(incomplete(
                number,
                "the header is there without body, senders or receipts",
            ));
        };
        if senders.len() != body.transactions.len() || receipts.len() != body.transactions.len() {
            return Err(incomplete(
                number,
                "transactions, senders and receipts differ in number",
            ));
        }
        Ok(Some(Self {
            hash,
            header,
            body,
            senders,
            receipts,
        }))
    }
}

fn incomplete(number: u64, reason: &str) -> StoreError {
    StoreError::Corrupt {
        table: Table::Bodies,
        key: format!("{number:016x}"),
        reason: reason.to_owned(),
    }
}

/// The last blocks used, the latest at the back.
#[derive(Debug, Default)]
pub(super) struct RecentBlocks {
    blocks: Mutex<VecDeque<Arc<StoredBlock>>>,
}

impl RecentBlocks {
    pub(super) fn get(&self, number: u64) -> Option<Arc<StoredBlock>> {
        self.blocks
            .lock()
            .iter()
            .rev()
            .find(|block| block.header.number == number)
            .cloned()
    }

    pub(super) fn insert(&self, block: StoredBlock) -> Arc<StoredBlock> {
        let block = Arc::new(block);
        let mut blocks = self.blocks.lock();
        blocks.retain(|kept| kept.header.number != block.header.number);
        blocks.push_back(Arc::clone(&block));
        let mut transactions: usize = blocks
            .iter()
            .map(|block| block.body.transactions.len())
            .sum();
        while blocks.len() > MOST_BLOCKS || (transactions > MOST_TRANSACTIONS && blocks.len() > 1) {
            transactions -= blocks
                .pop_front()
                .map_or(0, |block| block.body.transactions.len());
        }
        block
    }
}
