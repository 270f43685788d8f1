//! What leaves the pool without having been in a block: what others displace, and what was held for too long.
//!
//! One rule orders it. Only the last transaction of a sender leaves, so that no gap opens before another. Of these the
//! held ones go before the ready ones; then the one that pays the producer least at the base fee of the next block; among
//! equals the last to come. A transaction displaces only what is worth less than itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_consensus::Transaction as _;
use alloy_primitives::Address;

use super::inner::Inner;
use super::price::Rank;
use super::{PoolLimits, Pooled};

/// What a waiting transaction is worth to the next block: a ready one more than any held one, then by what it pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Worth {
    ready: bool,
    tip: Option<u128>,
}

impl Worth {
    /// Of a transaction whose sender's ready ones end before `ready_end`.
    pub(super) fn of_new(pooled: &Pooled, ready_end: u64, base_fee: u64) -> Self {
        Self {
            // One at the end of the ready ones is about to join them.
            ready: pooled.tx.nonce() <= ready_end,
            tip: pooled.tip(base_fee),
        }
    }
}

impl Inner {
    /// Removes what is worth less than `worth`, the least first, until there is room for one transaction of `size` bytes,
    /// and gives back what went; `None`, with everything in its place, if there is not enough of it.
    ///
    /// The queue of the sender that asks is not in the indexes meanwhile: a transaction needs those before it.
    pub(super) fn make_room(
        &mut self,
        limits: &PoolLimits,
        worth: Worth,
        (count, size): (usize, usize),
    ) -> Option<Vec<Arc<Pooled>>> {
        let mut displaced = Vec::new();
        while self.by_hash.len() + count > limits.transactions || self.bytes + size > limits.bytes {
            let worst = self
                .worst()
                .filter(|(tail, _)| *tail < worth && displaced.len() < limits.displaced)
                .and_then(|(_, sender)| self.drop_tail(sender));
            match worst {
                Some(tail) => displaced.push(tail),
                None => {
                    for (tail, start) in displaced {
                        self.restore(tail, start);
                    }
                    return None;
                }
            }
        }
        Some(displaced.into_iter().map(|(tail, _)| tail).collect())
    }

    /// The sender whose last transaction is worth least.
    fn worst(&self) -> Option<(Worth, Address)> {
        let worth = |ready, (rank, sender): (Rank, Address)| (Worth { ready, tip: rank.0 }, sender);
        match self.held_tails.worst() {
            Some(held) => Some(worth(false, held)),
            None => self.ready_tails.worst().map(|ready| worth(true, ready)),
        }
    }

    /// Takes out the last transaction of a sender, with the nonce of its account.
    fn drop_tail(&mut self, sender: Address) -> Option<(Arc<Pooled>, u64)> {
        let (tail, start) = self.change(sender, |queue| (queue.pop_tail(), queue.start()))?;
        let tail = tail?;
        self.forget(&tail);
        Some((tail, start))
    }

    fn restore(&mut self, pooled: Arc<Pooled>, start: u64) {
        let sender = pooled.tx.signer();
        self.remember(&pooled);
        self.change_or_make(sender, start, |queue| queue.insert(pooled));
    }

    /// Removes the held transactions of senders whose queues have not changed for `lifetime`.
    pub(super) fn expire(&mut self, now: Instant, lifetime: Duration) -> Vec<Arc<Pooled>> {
        let mut expired = Vec::new();
        for queue in self.queues.values() {
            if now.saturating_duration_since(queue.changed()) >= lifetime {
                expired.extend(queue.held().cloned());
            }
        }
        for pooled in &expired {
            self.remove(&pooled.hash);
        }
        expired
    }
}
