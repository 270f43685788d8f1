//! Which waiting transactions go into a block, and in which order.

use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use alloy_consensus::Transaction as _;
use alloy_consensus::transaction::Recovered;
use alloy_primitives::B256;

use super::Pooled;
use crate::builder::{Skipped, TransactionSource};
use crate::executor::ExecutionError;
use crate::header::MAX_BLOCK_SIZE;
use crate::transaction::Tx;
use zvm_runtimes::revm::context::result::InvalidTransaction;

/// Gas of the cheapest transaction: with less left a block is full.
const LEAST_GAS: u64 = 21_000;
/// Bytes of a block that are not transactions: header, withdrawals and the lists' own headers, with room to spare.
const BLOCK_OVERHEAD: usize = 16 << 10;

/// A view of the ready transactions of a pool as they were when it was made, best paid first, each sender in nonce order.
#[derive(Debug)]
pub struct Selection {
    best: BinaryHeap<Run>,
    /// The run whose first transaction was offered last.
    offered: Option<Run>,
    base_fee: u64,
    blob_gas_price: u128,
    /// Bytes the block has left.
    bytes: usize,
    /// Gas of the whole block, known from the first question on.
    block_gas: Option<u64>,
    /// Left out and of no more use.
    rejected: Vec<(B256, String)>,
}

/// The transactions of one sender that are still to be offered; never empty while in the heap.
#[derive(Debug)]
struct Run {
    tip: u128,
    arrival: u64,
    waiting: VecDeque<Arc<Pooled>>,
}

impl PartialEq for Run {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Run {}

impl PartialOrd for Run {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Run {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.tip
            .cmp(&other.tip)
            .then(other.arrival.cmp(&self.arrival))
    }
}

impl Selection {
    pub(super) fn new<'a, Q>(
        queues: impl Iterator<Item = Q>,
        base_fee: u64,
        blob_gas_price: u128,
    ) -> Self
    where
        Q: Iterator<Item = &'a Arc<Pooled>>,
    {
        let mut selection = Self {
            best: BinaryHeap::new(),
            offered: None,
            base_fee,
            blob_gas_price,
            bytes: MAX_BLOCK_SIZE - BLOCK_OVERHEAD,
            block_gas: None,
            rejected: Vec::new(),
        };
        for queue in queues {
            selection.push(queue.cloned().collect());
        }
        selection
    }

    /// Whether there is nothing to offer.
    pub fn is_empty(&self) -> bool {
        self.best.is_empty()
    }

    /// What was left out and can never be included, with the reason.
    pub fn into_rejected(self) -> Vec<(B256, String)> {
        self.rejected
    }

    /// Puts a run where its first transaction belongs; one that does not pay the base fee stops its sender.
    fn push(&mut self, waiting: VecDeque<Arc<Pooled>>) {
        let Some(first) = waiting.front() else {
            return;
        };
        let pays_blobs = first
            .tx
            .max_fee_per_blob_gas()
            .is_none_or(|cap| cap >= self.blob_gas_price);
        if let Some(tip) = first.tip(self.base_fee).filter(|_| pays_blobs) {
            self.best.push(Run {
                tip,
                arrival: first.arrival,
                waiting,
            });
        }
    }
}

impl TransactionSource for Selection {
    fn next(&mut self, gas_available: u64) -> Option<Recovered<Tx>> {
        if let Some(mut run) = self.offered.take()
            && let Some(included) = run.waiting.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(included.block_bytes);
            self.push(run.waiting);
        }
        let block_gas = *self.block_gas.get_or_insert(gas_available);
        if gas_available < LEAST_GAS {
            return None;
        }
        while let Some(run) = self.best.pop() {
            let Some(first) = run.waiting.front() else {
                continue;
            };
            let gas_limit = first.tx.gas_limit();
            // Blocks have become smaller since it was taken.
            if gas_limit > block_gas {
                let reason = format!("exceeds block gas limit: {gas_limit} above {block_gas}");
                self.rejected.push((first.hash, reason));
                continue;
            }
            // Too large for what is left of this block: the sender waits for the next one.
            if gas_limit > gas_available || first.block_bytes > self.bytes {
                continue;
            }
            let tx = first.tx.clone();
            self.offered = Some(run);
            return Some(tx);
        }
        None
    }

    fn skipped(&mut self, _: Recovered<Tx>, why: Skipped) {
        // The sender's later transactions need this one's nonce: the whole run waits or goes.
        let Some(first) = self
            .offered
            .take()
            .and_then(|mut run| run.waiting.pop_front())
        else {
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
    }
}
