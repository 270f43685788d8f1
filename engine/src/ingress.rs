//! From bytes to transactions with senders: decoded, hashed, checked and recovered in batches on all cores.
//!
//! Recovering a sender costs more than all else that happens to a plain transfer, so it happens once: [`Senders`] keeps
//! what was recovered, by transaction hash, and is asked wherever a sender is needed from a signature.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use alloy_primitives::map::{B256Map, B256Set};
use alloy_primitives::{Address, B256};
use parking_lot::Mutex;
use rayon::prelude::*;

use crate::transaction::{self, Tx, TxError};

/// Below this many the other cores would be called for less than calling them costs.
const LEAST_PARALLEL: usize = 4;
/// Parts with a lock of their own.
const SHARDS: usize = 16;

/// The senders of transactions, by hash. The oldest leave when there are too many.
#[derive(Debug)]
pub struct Senders {
    shards: [Mutex<Shard>; SHARDS],
    /// Of one shard.
    capacity: usize,
    recovered: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    by_hash: B256Map<Address>,
    order: VecDeque<B256>,
}

impl Default for Senders {
    fn default() -> Self {
        Self::with_capacity(Self::DEFAULT_CAPACITY)
    }
}

impl Senders {
    /// Transactions kept where nothing else is asked for: some 15 MB.
    pub const DEFAULT_CAPACITY: usize = 1 << 17;

    /// Keeps the senders of about `transactions`.
    pub fn with_capacity(transactions: usize) -> Self {
        Self {
            shards: Default::default(),
            capacity: transactions.div_ceil(SHARDS),
            recovered: AtomicU64::new(0),
        }
    }

    /// How many signatures have been recovered so far; what was known is not counted.
    pub fn recovered(&self) -> u64 {
        self.recovered.load(Ordering::Relaxed)
    }

    fn shard(&self, hash: &B256) -> &Mutex<Shard> {
        &self.shards[usize::from(hash[31]) % SHARDS]
    }

    /// The sender, if it is known.
    pub fn get(&self, hash: &B256) -> Option<Address> {
        self.shard(hash).lock().by_hash.get(hash).copied()
    }

    /// Keeps what is known from elsewhere: of a transaction that the node itself has signed, for instance.
    pub fn insert(&self, hash: B256, sender: Address) {
        if self.capacity == 0 {
            return;
        }
        let mut shard = self.shard(&hash).lock();
        if shard.by_hash.insert(hash, sender).is_some() {
            return;
        }
        shard.order.push_back(hash);
        if shard.order.len() > self.capacity
            && let Some(oldest) = shard.order.pop_front()
        {
            shard.by_hash.remove(&oldest);
        }
    }

    /// The account that signed `tx`.
    ///
    /// # Errors
    /// [`TxError::Unrecoverable`].
    pub fn sender(&self, tx: &Tx) -> Result<Address, TxError> {
        let hash = *tx.hash();
        if let Some(known) = self.get(&hash) {
            return Ok(known);
        }
        self.recovered.fetch_add(1, Ordering::Relaxed);
        let sender = transaction::recover(tx)?;
        self.insert(hash, sender);
        Ok(sender)
    }

    /// The accounts that signed `transactions`, in their order, by all cores.
    pub fn senders(&self, transactions: &[Tx]) -> Vec<Result<Address, TxError>> {
        on_all_cores(transactions, |tx| self.sender(tx))
    }
}

/// `work` on each of `items`, in their order; few are not worth waking other cores.
pub(crate) fn on_all_cores<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> R + Sync + Send,
) -> Vec<R> {
    if items.len() < LEAST_PARALLEL {
        items.iter().map(work).collect()
    } else {
        items.par_iter().map(work).collect()
    }
}

/// Which of the hashes stand earlier in the list.
pub(crate) fn repeated(hashes: &[B256]) -> Vec<bool> {
    let mut seen = B256Set::default();
    hashes.iter().map(|hash| !seen.insert(*hash)).collect()
}

#[cfg(test)]
mod tests {
    use alloy_consensus::{SignableTransaction as _, TxLegacy};
    use alloy_primitives::{Signature, U256};

    use super::*;

    fn tx(nonce: u64) -> Tx {
        let tx = TxLegacy {
            nonce,
            ..TxLegacy::default()
        };
        let signature = Signature::new(U256::from(nonce + 1), U256::from(1), false);
        tx.into_signed(signature).into()
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_leaves() {
        let senders = Senders::with_capacity(SHARDS);
        for index in 0..10_u8 {
            senders.insert(B256::repeat_byte(index * 16), Address::repeat_byte(index));
        }
        let kept: usize = senders
            .shards
            .iter()
            .map(|shard| shard.lock().by_hash.len())
            .sum();
        assert_eq!(kept, 1);
        assert_eq!(
            senders.get(&B256::repeat_byte(9 * 16)),
            Some(Address::repeat_byte(9))
        );
    }

    #[test]
    fn a_transaction_is_recovered_once_by_any_batch() {
        let senders = Senders::default();
        let transactions: Vec<_> = (0..100).map(tx).collect();
        let first = senders.senders(&transactions);
        let fit = first.iter().filter(|sender| sender.is_ok()).count();
        assert!(fit > 0, "none of the signatures fits a key");
        assert_eq!(senders.recovered(), 100);
        assert_eq!(senders.senders(&transactions), first);
        // Those that fit no key are not worth keeping.
        assert_eq!(senders.recovered(), 200 - fit as u64);
    }
}
