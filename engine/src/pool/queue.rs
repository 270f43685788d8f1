//! The waiting transactions of one sender.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use alloy_consensus::Transaction as _;
use alloy_primitives::U256;

use super::Pooled;

/// Transactions of one sender by nonce, of which `start..ready_end` are there without a gap.
#[derive(Debug)]
pub(super) struct Queue {
    by_nonce: BTreeMap<u64, Arc<Pooled>>,
    /// Nonce of the sender's account.
    start: u64,
    /// The first nonce from `start` on that is missing.
    ready_end: u64,
    /// Sum of the costs. It cannot overflow: each sum was compared with a balance.
    cost: U256,
    /// When a transaction came or the account's nonce moved last.
    changed: Instant,
}

impl Queue {
    pub(super) fn new(start: u64) -> Self {
        Self {
            by_nonce: BTreeMap::new(),
            start,
            ready_end: start,
            cost: U256::ZERO,
            changed: Instant::now(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_nonce.len()
    }

    pub(super) fn cost(&self) -> U256 {
        self.cost
    }

    pub(super) fn ready_end(&self) -> u64 {
        self.ready_end
    }

    pub(super) fn ready_len(&self) -> usize {
        usize::try_from(self.ready_end - self.start).unwrap_or(usize::MAX)
    }

    pub(super) fn get(&self, nonce: u64) -> Option<&Arc<Pooled>> {
        self.by_nonce.get(&nonce)
    }

    /// Nonce of the sender's account.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    pub(super) fn changed(&self) -> Instant {
        self.changed
    }

    /// All transactions, in nonce order.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Pooled>> {
        self.by_nonce.values()
    }

    /// The transactions behind a gap, in nonce order.
    pub(super) fn held(&self) -> impl Iterator<Item = &Arc<Pooled>> {
        self.by_nonce.range(self.ready_end..).map(|entry| entry.1)
    }

    /// The transactions without a gap, in nonce order.
    pub(super) fn ready(&self) -> impl Iterator<Item = &Arc<Pooled>> {
        self.by_nonce
            .range(self.start..self.ready_end)
            .map(|entry| entry.1)
    }

    /// Puts a transaction in the place of its nonce, which is `start` or later.
    pub(super) fn insert(&mut self, pooled: Arc<Pooled>) {
        self.changed = Instant::now();
        self.cost = self.cost.saturating_add(pooled.cost);
        if let Some(old) = self.by_nonce.insert(pooled.tx.nonce(), pooled) {
            self.cost -= old.cost;
        }
        self.extend_ready();
    }

    pub(super) fn remove(&mut self, nonce: u64) -> Option<Arc<Pooled>> {
        let pooled = self.by_nonce.remove(&nonce)?;
        self.cost -= pooled.cost;
        self.ready_end = self.ready_end.min(nonce);
        Some(pooled)
    }

    pub(super) fn pop_last(&mut self) -> Option<Arc<Pooled>> {
        let (&nonce, _) = self.by_nonce.last_key_value()?;
        self.remove(nonce)
    }

    /// Moves the account's nonce and gives back what is below it.
    pub(super) fn advance(&mut self, nonce: u64) -> Vec<Arc<Pooled>> {
        if nonce != self.start {
            self.changed = Instant::now();
        }
        let kept = self.by_nonce.split_off(&nonce);
        let gone: Vec<_> = core::mem::replace(&mut self.by_nonce, kept)
            .into_values()
            .collect();
        for pooled in &gone {
            self.cost -= pooled.cost;
        }
        // A nonce that went back (the chain was unwound) opens a gap before everything that waits.
        self.ready_end = if nonce < self.start {
            nonce
        } else {
            self.ready_end.max(nonce)
        };
        self.start = nonce;
        self.extend_ready();
        gone
    }

    fn extend_ready(&mut self) {
        while self.by_nonce.contains_key(&self.ready_end) {
            self.ready_end += 1;
        }
    }
}
