//! What leaves the pool without having been in a block: what others displace, and what was held for too long.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_consensus::Transaction as _;
use alloy_primitives::Address;

use super::{Inner, PoolLimits, Pooled};

/// What a waiting transaction is worth to the next block: a ready one more than any held one, then by what it pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Worth {
    ready: bool,
    tip: Option<u128>,
}

impl Worth {
    pub(super) fn new(pooled: &Pooled, ready_end: u64, base_fee: u64) -> Self {
        Self {
            // One at the end of the ready ones is about to join them.
            ready: pooled.tx.nonce() <= ready_end,
            tip: pooled.tip(base_fee),
        }
    }
}

/// The last transaction of a queue, with those before it. Ordered by worth; among equals the last to come goes first.
struct Tail<'a, I> {
    worth: Worth,
    last: &'a Arc<Pooled>,
    ready_end: u64,
    before: I,
}

impl<'a, I: Iterator<Item = &'a Arc<Pooled>>> Tail<'a, I> {
    fn new(mut transactions: I, ready_end: u64, base_fee: u64) -> Option<Self> {
        let last = transactions.next()?;
        Some(Self {
            worth: Worth::new(last, ready_end, base_fee),
            last,
            ready_end,
            before: transactions,
        })
    }
}

impl<I> Tail<'_, I> {
    fn rank(&self) -> (Worth, Reverse<u64>) {
        (self.worth, Reverse(self.last.arrival))
    }
}

impl<I> PartialEq for Tail<'_, I> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<I> Eq for Tail<'_, I> {}

impl<I> PartialOrd for Tail<'_, I> {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<I> Ord for Tail<'_, I> {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl Inner {
    /// What must go so that `pooled` fits, the least worth first, each time the last nonce of a sender; `None` if that is
    /// not less worth than `pooled` itself. Its own sender gives nothing: a transaction needs those before it.
    ///
    /// `grows` by how many transactions and bytes the pool would grow. Costs a look at every sender, in a full pool only.
    pub(super) fn displaced_by(
        &self,
        limits: &PoolLimits,
        pooled: &Pooled,
        worth: Worth,
        grows: (usize, usize),
        base_fee: u64,
    ) -> Option<Vec<Arc<Pooled>>> {
        let mut transactions = (self.by_hash.len() + grows.0).saturating_sub(limits.transactions);
        let mut bytes = (self.bytes + grows.1).saturating_sub(limits.bytes);
        let mut displaced = Vec::new();
        if transactions == 0 && bytes == 0 {
            return Some(displaced);
        }
        let own: Address = pooled.tx.signer();
        let mut tails: BinaryHeap<_> = self
            .queues
            .iter()
            .filter(|(sender, _)| **sender != own)
            .filter_map(|(_, queue)| {
                // Its own transactions are in place already: none of them is about to become ready.
                let last_ready = queue.ready_end().saturating_sub(1);
                Tail::new(queue.iter().rev(), last_ready, base_fee).map(Reverse)
            })
            .collect();
        while transactions > 0 || bytes > 0 {
            let Reverse(tail) = tails.pop()?;
            if tail.worth >= worth {
                return None;
            }
            transactions = transactions.saturating_sub(1);
            bytes = bytes.saturating_sub(tail.last.size);
            displaced.push(Arc::clone(tail.last));
            tails.extend(Tail::new(tail.before, tail.ready_end, base_fee).map(Reverse));
        }
        Some(displaced)
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
