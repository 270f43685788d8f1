//! Which waiting transactions go into a block, and in which order.

use std::collections::VecDeque;
use std::sync::Arc;

use alloy_consensus::Transaction as _;
use alloy_consensus::transaction::Recovered;
use alloy_primitives::map::HashSet;
use alloy_primitives::{Address, B256};

use super::{Pool, Pooled};
use crate::builder::{Skipped, TransactionSource};
use crate::executor::ExecutionError;
use crate::header::MAX_BLOCK_SIZE;
use crate::transaction::Tx;
use zvm_runtimes::revm::context::result::InvalidTransaction;

/// Gas of the cheapest transaction: with less left a block is full.
const LEAST_GAS: u64 = 21_000;
/// Bytes of a block that are not transactions: header, withdrawals and the lists' own headers, with room to spare.
const BLOCK_OVERHEAD: usize = 16 << 10;

/// How many transactions are taken from the pool at a time. What comes later and pays more waits for the next time.
const CHUNK: usize = 128;

/// The ready transactions of a pool, best paid first, each sender in nonce order.
///
/// What has been offered and not skipped when the selection is dropped is in a block: it stays in the pool, is not offered
/// again, and leaves when [`Pool::advance`] tells that the block is there.
#[derive(Debug)]
pub struct Selection<'p> {
    pool: &'p Pool,
    /// Taken from the pool and still to be offered.
    chunk: VecDeque<Arc<Pooled>>,
    /// Offered last.
    offered: Option<Arc<Pooled>>,
    /// Senders that have no more to offer to this block.
    passed: HashSet<Address>,
    base_fee: u64,
    blob_gas_price: u128,
    /// Bytes the block has left.
    bytes: usize,
    /// Gas of the whole block, known from the first question on.
    block_gas: Option<u64>,
    /// Left out and of no more use.
    rejected: Vec<(B256, String)>,
}

impl<'p> Selection<'p> {
    pub(super) fn new(pool: &'p Pool, base_fee: u64, blob_gas_price: u128) -> Self {
        let mut selection = Self {
            pool,
            chunk: VecDeque::new(),
            offered: None,
            passed: HashSet::default(),
            base_fee,
            blob_gas_price,
            bytes: MAX_BLOCK_SIZE - BLOCK_OVERHEAD,
            block_gas: None,
            rejected: Vec::new(),
        };
        selection.fill();
        selection
    }

    /// Whether there is nothing more to offer.
    pub fn is_empty(&self) -> bool {
        self.chunk.is_empty()
    }

    /// What was left out and can never be included, with the reason.
    pub fn into_rejected(mut self) -> Vec<(B256, String)> {
        core::mem::take(&mut self.rejected)
    }

    fn fill(&mut self) {
        let mut inner = self.pool.inner.lock();
        inner.set_base_fee(self.base_fee);
        while self.chunk.len() < CHUNK
            && let Some(next) = inner.take_best()
        {
            let pays_blobs = next
                .tx
                .max_fee_per_blob_gas()
                .is_none_or(|cap| cap >= self.blob_gas_price);
            if pays_blobs {
                self.chunk.push_back(next);
            } else {
                inner.put_back(&next, true);
                self.passed.insert(next.tx.signer());
            }
        }
    }

    /// The sender waits, from this transaction on, for another block.
    fn pass(&mut self, pooled: &Pooled) {
        self.pool.inner.lock().put_back(pooled, true);
        self.passed.insert(pooled.tx.signer());
    }
}

impl Drop for Selection<'_> {
    fn drop(&mut self) {
        let mut inner = self.pool.inner.lock();
        for pooled in self.offered.iter().chain(&self.chunk) {
            inner.put_back(pooled, false);
        }
        for sender in &self.passed {
            inner.unpark(*sender);
        }
    }
}

impl TransactionSource for Selection<'_> {
    fn next(&mut self, gas_available: u64) -> Option<Recovered<Tx>> {
        if let Some(included) = self.offered.take() {
            self.bytes = self.bytes.saturating_sub(included.block_bytes);
        }
        let block_gas = *self.block_gas.get_or_insert(gas_available);
        if gas_available < LEAST_GAS {
            return None;
        }
        loop {
            if self.chunk.is_empty() {
                self.fill();
            }
            let first = self.chunk.pop_front()?;
            // It has been put back with the one of its sender that was passed over.
            if self.passed.contains(&first.tx.signer()) {
                continue;
            }
            let gas_limit = first.tx.gas_limit();
            // Blocks have become smaller since it was taken.
            if gas_limit > block_gas {
                let reason = format!("exceeds block gas limit: {gas_limit} above {block_gas}");
                self.rejected.push((first.hash, reason));
                self.pass(&first);
                continue;
            }
            // Too large for what is left of this block: the sender waits for the next one.
            if gas_limit > gas_available || first.block_bytes > self.bytes {
                self.pass(&first);
                continue;
            }
            let tx = first.tx.clone();
            self.offered = Some(first);
            return Some(tx);
        }
    }

    fn skipped(&mut self, _: Recovered<Tx>, why: Skipped) {
        // The sender's later transactions need this one's nonce: they wait with it or until it is replaced.
        let Some(first) = self.offered.take() else {
            return;
        };
        let unpayable = matches!(
            &why,
            Skipped::NotNow(ExecutionError::Invalid {
                source: InvalidTransaction::LackOfFundForMaxFee { .. },
                ..
            })
        );
        if unpayable || matches!(why, Skipped::Never(_)) {
            self.rejected.push((first.hash, why.to_string()));
        }
        self.pass(&first);
    }
}
