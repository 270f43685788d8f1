//! Transactions that wait for a block.
//!
//! Each sender has a queue ordered by nonce. The part that follows the sender's nonce without a gap is ready; the rest is
//! held until the gap closes. A block takes ready transactions by what they pay: [`Selection`]. A full pool gives up the
//! held ones first, then those that pay least.

mod eviction;
mod inner;
mod price;
mod queue;
mod refusal;
mod selection;

pub use refusal::Refusal;
pub use selection::Selection;

use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_consensus::Transaction as _;
use alloy_consensus::transaction::Recovered;
use alloy_primitives::{Address, B256, U256};
use parking_lot::Mutex;

use crate::transaction::Tx;
use inner::Inner;
use queue::Queue;

/// How much the pool holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// Transactions.
    pub transactions: usize,
    /// Bytes of their EIP-2718 encodings.
    pub bytes: usize,
    /// Transactions of one sender.
    pub per_sender: usize,
    /// Bytes of the encodings of one sender's transactions.
    pub per_sender_bytes: usize,
    /// Bytes of one transaction.
    pub transaction_bytes: usize,
    /// The most transactions that one may displace from a full pool: with it the work that one costs is bounded.
    pub displaced: usize,
    /// Percent by which fee cap and priority fee must grow to replace a transaction of the same nonce.
    pub price_bump: u128,
    /// The least priority fee taken, in wei per gas.
    pub min_priority_fee: u128,
    /// How long transactions stay held while nothing comes from their sender and its nonce does not move.
    pub held_lifetime: Duration,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            transactions: 100_000,
            bytes: 256 << 20,
            per_sender: 16_384,
            per_sender_bytes: 16 << 20,
            transaction_bytes: 128 << 10,
            displaced: 256,
            price_bump: 10,
            min_priority_fee: 0,
            held_lifetime: Duration::from_secs(3 * 60 * 60),
        }
    }
}

/// What the pool needs to know of a sender's account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SenderState {
    /// Next nonce.
    pub nonce: u64,
    /// Wei.
    pub balance: U256,
}

/// A waiting transaction.
#[derive(Debug)]
pub struct Pooled {
    /// The transaction and its sender.
    pub tx: Recovered<Tx>,
    /// Its hash.
    pub hash: B256,
    /// Bytes of its EIP-2718 encoding.
    pub size: usize,
    /// The most it can cost its sender, in wei.
    pub cost: U256,
    /// Bytes in the body of a block: there the encoding of a typed transaction stands in an RLP string.
    block_bytes: usize,
    /// Order of arrival: among equal prices the first comes first.
    arrival: u64,
}

impl Pooled {
    /// Wei per gas that the producer of a block with this base fee gets; `None` if the fee cap is below the base fee.
    pub fn tip(&self, base_fee: u64) -> Option<u128> {
        let left = self
            .tx
            .max_fee_per_gas()
            .checked_sub(u128::from(base_fee))?;
        Some(
            self.tx
                .max_priority_fee_per_gas()
                .map_or(left, |tip| tip.min(left)),
        )
    }

    fn priority_fee(&self) -> u128 {
        self.tx
            .max_priority_fee_per_gas()
            .unwrap_or_else(|| self.tx.max_fee_per_gas())
    }
}

/// Counts of what the pool holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolStatus {
    /// Transactions that could go into the next block by their nonce.
    pub ready: usize,
    /// Transactions held behind a nonce gap.
    pub held: usize,
    /// Bytes of both.
    pub bytes: usize,
    /// Transactions that have left for others since the pool was made, because it was full.
    pub displaced: u64,
}

/// The transactions that wait for a block. All methods may be called from any thread.
#[derive(Debug, Default)]
pub struct Pool {
    limits: PoolLimits,
    inner: Mutex<Inner>,
}

/// A transaction that asks to be taken, with its sender's account.
#[derive(Debug)]
pub struct Candidate {
    tx: Recovered<Tx>,
    hash: B256,
    size: usize,
    block_bytes: usize,
    sender: SenderState,
}

impl Candidate {
    /// A transaction whose state-independent rules have been checked ([`crate::transaction::validate`]).
    ///
    /// What its sender has is told by [`Candidate::set_sender`]; until then it is nothing.
    pub fn new(tx: Recovered<Tx>) -> Self {
        use alloy_eips::eip2718::Encodable2718 as _;
        Self {
            hash: *tx.inner().hash(),
            size: tx.inner().encode_2718_len(),
            block_bytes: alloy_rlp::Encodable::length(tx.inner()),
            tx,
            sender: SenderState::default(),
        }
    }

    /// Who signed it.
    pub fn signer(&self) -> Address {
        self.tx.signer()
    }

    /// Says what the sender's account is.
    pub fn set_sender(&mut self, sender: SenderState) {
        self.sender = sender;
    }
}

/// The accounts of the candidates were read before a block that the pool has been told of: read them again.
#[derive(Debug)]
pub struct Outdated(pub Vec<Candidate>);

impl Pool {
    /// An empty pool.
    pub fn new(limits: PoolLimits) -> Self {
        Self {
            limits,
            inner: Mutex::default(),
        }
    }

    /// Its bounds.
    pub fn limits(&self) -> &PoolLimits {
        &self.limits
    }

    /// Takes transactions, in this order, or says why not.
    ///
    /// `block` is the block after which the senders' accounts were read. A block that becomes durable meanwhile either is
    /// told to the pool afterwards, by [`Pool::advance`], or has been already: then the candidates come back.
    pub fn add(
        &self,
        block: u64,
        candidates: Vec<Candidate>,
    ) -> Result<Vec<Result<Arc<Pooled>, Refusal>>, Outdated> {
        let mut inner = self.inner.lock();
        if inner.block > block {
            return Err(Outdated(candidates));
        }
        Ok(candidates
            .into_iter()
            .map(|candidate| inner.add(&self.limits, candidate))
            .collect())
    }

    /// A waiting transaction.
    pub fn get(&self, hash: &B256) -> Option<Arc<Pooled>> {
        self.inner.lock().by_hash.get(hash).cloned()
    }

    /// Which of these are waiting.
    pub fn contains(&self, hashes: &[B256]) -> Vec<bool> {
        let inner = self.inner.lock();
        hashes
            .iter()
            .map(|hash| inner.by_hash.contains_key(hash))
            .collect()
    }

    /// The nonce after the ready transactions of a sender; `None` if none of its transactions wait.
    pub fn next_nonce(&self, sender: &Address) -> Option<u64> {
        self.inner.lock().queues.get(sender).map(Queue::ready_end)
    }

    /// Counts.
    pub fn status(&self) -> PoolStatus {
        let inner = self.inner.lock();
        PoolStatus {
            ready: inner.ready,
            held: inner.by_hash.len() - inner.ready,
            bytes: inner.bytes,
            displaced: inner.displaced,
        }
    }

    /// All waiting transactions: the ready ones of each sender, then the held ones, each in nonce order.
    pub fn content(&self) -> (Vec<Arc<Pooled>>, Vec<Arc<Pooled>>) {
        let inner = self.inner.lock();
        split(inner.queues.values())
    }

    /// The waiting transactions of one sender: the ready ones, then the held ones, each in nonce order.
    pub fn content_from(&self, sender: &Address) -> (Vec<Arc<Pooled>>, Vec<Arc<Pooled>>) {
        let inner = self.inner.lock();
        split(inner.queues.get(sender).into_iter())
    }

    /// The ready transactions, best first, for a block with this base fee and blob gas price. One at a time.
    pub fn select(&self, base_fee: u64, blob_gas_price: u128) -> Selection<'_> {
        Selection::new(self, base_fee, blob_gas_price)
    }

    /// Whether there is a ready transaction that is in no block.
    pub fn has_next(&self) -> bool {
        self.inner.lock().heads.best().is_some()
    }

    /// Sets by which base fee a full pool compares what transactions pay: that of the next block.
    pub fn set_base_fee(&self, base_fee: u64) {
        self.inner.lock().set_base_fee(base_fee);
    }

    /// Tells the pool which accounts a block has changed, once it is readable: what it has used is removed.
    ///
    /// Returns what was dropped because the sender can no longer pay for it.
    pub fn advance(
        &self,
        block: u64,
        accounts: impl IntoIterator<Item = (Address, SenderState)>,
    ) -> Vec<Arc<Pooled>> {
        let mut inner = self.inner.lock();
        inner.block = block;
        accounts
            .into_iter()
            .flat_map(|(sender, state)| inner.advance(sender, state))
            .collect()
    }

    /// Removes and returns the transactions that at `now` have been held for longer than [`PoolLimits::held_lifetime`].
    pub fn expire(&self, now: Instant) -> Vec<Arc<Pooled>> {
        self.inner.lock().expire(now, self.limits.held_lifetime)
    }

    /// Removes a transaction. Those of its sender with higher nonces are held from then on.
    pub fn remove(&self, hash: &B256) -> Option<Arc<Pooled>> {
        self.inner.lock().remove(hash)
    }
}

fn split<'q>(queues: impl Iterator<Item = &'q Queue>) -> (Vec<Arc<Pooled>>, Vec<Arc<Pooled>>) {
    let mut ready = Vec::new();
    let mut held = Vec::new();
    for queue in queues {
        let end = queue.ready_end();
        for pooled in queue.iter() {
            if pooled.tx.nonce() < end {
                &mut ready
            } else {
                &mut held
            }
            .push(Arc::clone(pooled));
        }
    }
    (ready, held)
}

/// Says which transactions left because their senders can no longer pay for them.
pub(crate) fn log_unpayable(dropped: &[Arc<Pooled>]) {
    for pooled in dropped {
        tracing::warn!(hash = %pooled.hash, "transaction dropped: its sender can no longer pay for it");
    }
}

#[cfg(test)]
mod tests;
