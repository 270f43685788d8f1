//! Transactions that wait for a block.
//!
//! Each sender has a queue ordered by nonce. The part that follows the sender's nonce without a gap is ready; the rest is
//! held until the gap closes. A block takes ready transactions by what they pay: [`Selection`]. A full pool gives up the
//! held ones first, then those that pay least.

mod eviction;
mod queue;
mod selection;

pub use selection::Selection;

use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_consensus::Transaction as _;
use alloy_consensus::transaction::Recovered;
use alloy_primitives::{Address, B256, U256, map::HashMap};
use parking_lot::Mutex;

use crate::transaction::{self, Tx, TxError};
use eviction::Worth;
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
    /// Bytes of one transaction.
    pub transaction_bytes: usize,
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
            transaction_bytes: 128 << 10,
            price_bump: 10,
            min_priority_fee: 0,
            held_lifetime: Duration::from_secs(3 * 60 * 60),
        }
    }
}

/// Why the pool does not take a transaction. The texts begin as those of geth, which clients look for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is there already.
    #[error("already known")]
    Known,
    /// The sender's nonce is past it.
    #[error("nonce too low: next nonce {next}, tx nonce {found}")]
    NonceTooLow {
        /// Nonce of the sender's account.
        next: u64,
        /// Nonce of the transaction.
        found: u64,
    },
    /// Another transaction has the nonce and this one does not pay enough more.
    #[error(
        "replacement transaction underpriced: fee cap and priority fee must grow by {percent} %"
    )]
    ReplacementUnderpriced {
        /// The least growth in percent.
        percent: u128,
    },
    /// The sender cannot pay for it and for those before it in the pool.
    #[error(
        "insufficient funds for gas * price + value: balance {balance}, queued cost {queued}, tx cost {cost}"
    )]
    InsufficientFunds {
        /// Balance of the sender in wei.
        balance: U256,
        /// The most the sender's other waiting transactions can cost, in wei.
        queued: U256,
        /// The most this one can cost, in wei.
        cost: U256,
    },
    /// It could never fit a block.
    #[error("exceeds block gas limit: {gas_limit} above {block}")]
    BlockGasLimit {
        /// Gas limit of the transaction.
        gas_limit: u64,
        /// Gas limit of blocks.
        block: u64,
    },
    /// The gas limit does not pay for the transaction's own bytes (EIP-2, EIP-7623).
    #[error("intrinsic gas too low: have {gas_limit}, want {required}")]
    IntrinsicGas {
        /// Gas limit of the transaction.
        gas_limit: u64,
        /// Gas it needs before its first instruction.
        required: u64,
    },
    /// It offers less than the node takes.
    #[error("transaction underpriced: priority fee {found}, minimum {minimum}")]
    Underpriced {
        /// Wei per gas.
        found: u128,
        /// Wei per gas.
        minimum: u128,
    },
    /// No block is to come that it would pay.
    #[error("max fee per gas less than block base fee: maxFeePerGas: {cap}, baseFee: {base_fee}")]
    FeeCapTooLow {
        /// Wei per gas.
        cap: u128,
        /// Wei per gas of the next block.
        base_fee: u64,
    },
    /// No block is to come whose blob gas it would pay.
    #[error(
        "max fee per blob gas less than block blob gas fee: maxFeePerBlobGas: {cap}, blobBaseFee: {price}"
    )]
    BlobFeeCapTooLow {
        /// Wei per blob gas.
        cap: u128,
        /// Wei per blob gas of the next block.
        price: u128,
    },
    /// More blobs than a block (EIP-4844) or a transaction (EIP-7594) may have.
    #[error("too many blobs in transaction: have {found}, permitted {permitted}")]
    TooManyBlobs {
        /// Blobs of the transaction.
        found: u64,
        /// Blobs allowed.
        permitted: u64,
    },
    /// More bytes than a transaction may have.
    #[error("oversized data: transaction size {size}, limit {limit}")]
    Oversized {
        /// Bytes of the transaction.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The sender has as many waiting as one may have.
    #[error("txpool is full: {0} transactions of this sender wait already")]
    SenderFull(usize),
    /// The pool has no room, and what is in it is worth more.
    #[error("txpool is full: {transactions} transactions, {bytes} bytes")]
    Full {
        /// Transactions held.
        transactions: usize,
        /// Bytes held.
        bytes: usize,
    },
    /// It can never be valid.
    #[error("{0}")]
    Invalid(TxError),
}

impl From<TxError> for Refusal {
    fn from(error: TxError) -> Self {
        match error {
            TxError::IntrinsicGas {
                gas_limit,
                required,
            } => Self::IntrinsicGas {
                gas_limit,
                required,
            },
            TxError::TooManyBlobs { blobs } => Self::TooManyBlobs {
                found: blobs as u64,
                permitted: transaction::MAX_TX_BLOBS as u64,
            },
            other => Self::Invalid(other),
        }
    }
}

/// What the pool needs to know of a sender's account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
}

/// The transactions that wait for a block. All methods may be called from any thread.
#[derive(Debug, Default)]
pub struct Pool {
    limits: PoolLimits,
    inner: Mutex<Inner>,
}

/// A transaction that asks to be taken.
struct Candidate {
    tx: Recovered<Tx>,
    hash: B256,
    size: usize,
    block_bytes: usize,
}

#[derive(Debug, Default)]
struct Inner {
    by_hash: HashMap<B256, Arc<Pooled>>,
    queues: HashMap<Address, Queue>,
    bytes: usize,
    arrivals: u64,
}

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

    /// Takes a transaction whose state-independent rules have been checked ([`transaction::validate`]).
    ///
    /// `base_fee` is that of the next block; by it a full pool compares what transactions pay.
    ///
    /// `account` reads the sender's account at the head. It is called under the pool's lock, so that a block that becomes
    /// the head meanwhile is either seen by it or told to the pool afterwards by [`Pool::advance`].
    ///
    /// # Errors
    /// The inner error says why the pool refuses, the outer one is that of `account`.
    pub fn add<E>(
        &self,
        tx: Recovered<Tx>,
        base_fee: u64,
        account: impl FnOnce(Address) -> Result<SenderState, E>,
    ) -> Result<Result<Arc<Pooled>, Refusal>, E> {
        use alloy_eips::eip2718::Encodable2718 as _;
        let hash = *tx.inner().hash();
        let size = tx.inner().encode_2718_len();
        let block_bytes = alloy_rlp::Encodable::length(tx.inner());
        let mut inner = self.inner.lock();
        if inner.by_hash.contains_key(&hash) {
            return Ok(Err(Refusal::Known));
        }
        let state = account(tx.signer())?;
        Ok(inner.insert(
            &self.limits,
            Candidate {
                tx,
                hash,
                size,
                block_bytes,
            },
            base_fee,
            state,
        ))
    }

    /// A waiting transaction.
    pub fn get(&self, hash: &B256) -> Option<Arc<Pooled>> {
        self.inner.lock().by_hash.get(hash).cloned()
    }

    /// The nonce after the ready transactions of a sender; `None` if none of its transactions wait.
    pub fn next_nonce(&self, sender: &Address) -> Option<u64> {
        self.inner.lock().queues.get(sender).map(Queue::ready_end)
    }

    /// Counts.
    pub fn status(&self) -> PoolStatus {
        let inner = self.inner.lock();
        let ready = inner.queues.values().map(Queue::ready_len).sum();
        PoolStatus {
            ready,
            held: inner.by_hash.len() - ready,
            bytes: inner.bytes,
        }
    }

    /// All waiting transactions: the ready ones of each sender, then the held ones, each in nonce order.
    pub fn content(&self) -> (Vec<Arc<Pooled>>, Vec<Arc<Pooled>>) {
        let inner = self.inner.lock();
        let mut ready = Vec::new();
        let mut held = Vec::new();
        for queue in inner.queues.values() {
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

    /// The ready transactions, best first, for a block with this base fee and blob gas price.
    pub fn select(&self, base_fee: u64, blob_gas_price: u128) -> Selection {
        let inner = self.inner.lock();
        Selection::new(
            inner.queues.values().map(Queue::ready),
            base_fee,
            blob_gas_price,
        )
    }

    /// Tells the pool the accounts of senders after a block: what they have used is removed.
    ///
    /// Returns what was dropped because the sender can no longer pay for it.
    pub fn advance(
        &self,
        accounts: impl IntoIterator<Item = (Address, SenderState)>,
    ) -> Vec<Arc<Pooled>> {
        let mut inner = self.inner.lock();
        accounts
            .into_iter()
            .flat_map(|(sender, state)| inner.advance(sender, state))
            .collect()
    }

    /// Which of these senders have waiting transactions.
    pub fn known_senders(&self, senders: impl IntoIterator<Item = Address>) -> Vec<Address> {
        let inner = self.inner.lock();
        senders
            .into_iter()
            .filter(|sender| inner.queues.contains_key(sender))
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

impl Inner {
    fn insert(
        &mut self,
        limits: &PoolLimits,
        candidate: Candidate,
        base_fee: u64,
        state: SenderState,
    ) -> Result<Arc<Pooled>, Refusal> {
        let Candidate {
            tx,
            hash,
            size,
            block_bytes,
        } = candidate;
        let sender = tx.signer();
        let nonce = tx.nonce();
        // A block may be the head already that the pool has not been told of: what it used must not count here.
        let behind = |queue: &Queue| queue.start() < state.nonce;
        if self.queues.get(&sender).is_some_and(behind) {
            log_unpayable(&self.advance(sender, state));
        }
        if size > limits.transaction_bytes {
            return Err(Refusal::Oversized {
                size,
                limit: limits.transaction_bytes,
            });
        }
        let cost =
            transaction::max_cost(tx.inner()).ok_or(Refusal::Invalid(TxError::CostOverflow))?;
        let pooled = Pooled {
            tx,
            hash,
            size,
            cost,
            block_bytes,
            arrival: self.arrivals + 1,
        };
        let priority = pooled.priority_fee();
        if priority < limits.min_priority_fee {
            return Err(Refusal::Underpriced {
                found: priority,
                minimum: limits.min_priority_fee,
            });
        }
        if nonce < state.nonce {
            return Err(Refusal::NonceTooLow {
                next: state.nonce,
                found: nonce,
            });
        }
        let queue = self.queues.get(&sender);
        let replaced = queue.and_then(|queue| queue.get(nonce));
        if let Some(old) = replaced {
            let enough = |old: u128, new: u128| {
                // Rounded up: a bump of 10 % on 1 wei asks for 2.
                new >= old.saturating_add(old.saturating_mul(limits.price_bump).div_ceil(100))
                    && new > old
            };
            if !enough(old.tx.max_fee_per_gas(), pooled.tx.max_fee_per_gas())
                || !enough(old.priority_fee(), priority)
            {
                return Err(Refusal::ReplacementUnderpriced {
                    percent: limits.price_bump,
                });
            }
        } else if queue.is_some_and(|queue| queue.len() >= limits.per_sender) {
            return Err(Refusal::SenderFull(limits.per_sender));
        }
        let queued =
            queue.map_or(U256::ZERO, Queue::cost) - replaced.map_or(U256::ZERO, |old| old.cost);
        if queued.saturating_add(cost) > state.balance {
            return Err(Refusal::InsufficientFunds {
                balance: state.balance,
                queued,
                cost,
            });
        }
        let ready_end = queue.map_or(state.nonce, Queue::ready_end);
        let worth = Worth::new(&pooled, ready_end, base_fee);
        let replaced = replaced.cloned();
        let grows = match &replaced {
            Some(old) => (0, size.saturating_sub(old.size)),
            None => (1, size),
        };
        let displaced = self
            .displaced_by(limits, &pooled, worth, grows, base_fee)
            .ok_or(Refusal::Full {
                transactions: self.by_hash.len(),
                bytes: self.bytes,
            })?;

        for other in displaced {
            tracing::warn!(hash = %other.hash, by = %hash, "transaction dropped: the pool is full");
            self.remove(&other.hash);
        }
        if let Some(old) = replaced {
            self.by_hash.remove(&old.hash);
            self.bytes -= old.size;
        }
        self.bytes += size;
        self.arrivals = pooled.arrival;
        let pooled = Arc::new(pooled);
        self.by_hash.insert(hash, Arc::clone(&pooled));
        self.queues
            .entry(sender)
            .or_insert_with(|| Queue::new(state.nonce))
            .insert(Arc::clone(&pooled));
        Ok(pooled)
    }

    fn remove(&mut self, hash: &B256) -> Option<Arc<Pooled>> {
        let pooled = self.by_hash.remove(hash)?;
        self.bytes -= pooled.size;
        let sender = pooled.tx.signer();
        if let Some(queue) = self.queues.get_mut(&sender) {
            queue.remove(pooled.tx.nonce());
            if queue.len() == 0 {
                self.queues.remove(&sender);
            }
        }
        Some(pooled)
    }

    fn advance(&mut self, sender: Address, state: SenderState) -> Vec<Arc<Pooled>> {
        let Some(queue) = self.queues.get_mut(&sender) else {
            return Vec::new();
        };
        let used = queue.advance(state.nonce);
        // What the balance no longer covers would block the queue: the last nonces go first.
        let mut unpayable = Vec::new();
        while queue.cost() > state.balance
            && let Some(last) = queue.pop_last()
        {
            unpayable.push(last);
        }
        if queue.len() == 0 {
            self.queues.remove(&sender);
        }
        for pooled in used.iter().chain(&unpayable) {
            self.bytes -= pooled.size;
            self.by_hash.remove(&pooled.hash);
        }
        unpayable
    }
}

/// Says which transactions left because their senders can no longer pay for them.
pub(crate) fn log_unpayable(dropped: &[Arc<Pooled>]) {
    for pooled in dropped {
        tracing::warn!(hash = %pooled.hash, "transaction dropped: its sender can no longer pay for it");
    }
}

#[cfg(test)]
mod tests;
