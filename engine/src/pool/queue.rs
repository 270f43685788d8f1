//! The waiting transactions of one sender.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use alloy_consensus::Transaction as _;
use alloy_primitives::U256;

use super::Pooled;

/// Transactions of one sender by nonce, of which `start..ready_end` are there without a gap.
///
/// A sorted deque: most senders have one or a few transactions, for which a tree's node would be mostly empty, and
/// those with many send and spend them in the order of their nonces.
#[derive(Debug)]
pub(super) struct Queue {
    by_nonce: VecDeque<Arc<Pooled>>,
    /// Nonce of the sender's account.
    start: u64,
    /// The first nonce from `start` on that is missing.
    ready_end: u64,
    /// The transactions below this nonce are in blocks that are made and not durable yet.
    taken: u64,
    /// The block being selected has passed the sender over.
    parked: bool,
    /// Sum of the costs. It cannot overflow: each sum was compared with a balance.
    cost: U256,
    /// Sum of the bytes.
    bytes: usize,
    /// When a transaction came or the account's nonce moved last.
    changed: Instant,
}

impl Queue {
    pub(super) fn new(start: u64) -> Self {
        Self {
            by_nonce: VecDeque::new(),
            start,
            ready_end: start,
            taken: start,
            parked: false,
            cost: U256::ZERO,
            bytes: 0,
            changed: Instant::now(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_nonce.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
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

    fn place(&self, nonce: u64) -> Result<usize, usize> {
        match self.by_nonce.back() {
            // The usual case: the next one.
            Some(last) if last.tx.nonce() < nonce => Err(self.by_nonce.len()),
            _ => self
                .by_nonce
                .binary_search_by_key(&nonce, |pooled| pooled.tx.nonce()),
        }
    }

    pub(super) fn get(&self, nonce: u64) -> Option<&Arc<Pooled>> {
        self.place(nonce).ok().map(|at| &self.by_nonce[at])
    }

    /// Nonce of the sender's account.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// The first nonce that is in no block.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    pub(super) fn changed(&self) -> Instant {
        self.changed
    }

    /// All transactions, in nonce order.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Pooled>> {
        self.by_nonce.iter()
    }

    /// The transactions behind a gap, in nonce order.
    pub(super) fn held(&self) -> impl Iterator<Item = &Arc<Pooled>> {
        let first = self.place(self.ready_end).unwrap_or_else(|at| at);
        self.by_nonce.range(first..)
    }

    /// The transaction that a block could take next.
    pub(super) fn next(&self) -> Option<&Arc<Pooled>> {
        if self.parked || self.taken >= self.ready_end {
            return None;
        }
        self.get(self.taken)
    }

    /// The last transaction, unless it is in a block.
    pub(super) fn tail(&self) -> Option<&Arc<Pooled>> {
        self.by_nonce
            .back()
            .filter(|last| last.tx.nonce() >= self.taken)
    }

    /// Whether the tail waits behind a gap.
    pub(super) fn tail_is_held(&self) -> bool {
        self.by_nonce
            .back()
            .is_some_and(|last| last.tx.nonce() >= self.ready_end)
    }

    /// Puts what [`Queue::next`] gave into a block.
    pub(super) fn take_next(&mut self) {
        self.taken = self.taken.saturating_add(1);
    }

    /// Takes the transactions from `nonce` on out of the block being selected; while it is parked none is given to it.
    pub(super) fn put_back(&mut self, nonce: u64, parked: bool) {
        self.taken = self.taken.min(nonce).max(self.start);
        self.parked = parked;
    }

    pub(super) fn unpark(&mut self) {
        self.parked = false;
    }

    /// Puts a transaction in the place of its nonce, which is `start` or later, and gives back the one it replaces.
    pub(super) fn insert(&mut self, pooled: Arc<Pooled>) -> Option<Arc<Pooled>> {
        self.changed = Instant::now();
        self.cost = self.cost.saturating_add(pooled.cost);
        self.bytes += pooled.size;
        let replaced = match self.place(pooled.tx.nonce()) {
            Ok(at) => Some(core::mem::replace(&mut self.by_nonce[at], pooled)),
            Err(at) => {
                self.by_nonce.insert(at, pooled);
                None
            }
        };
        if let Some(old) = &replaced {
            self.cost -= old.cost;
            self.bytes -= old.size;
        }
        self.extend_ready();
        replaced
    }

    pub(super) fn remove(&mut self, nonce: u64) -> Option<Arc<Pooled>> {
        let at = self.place(nonce).ok()?;
        let pooled = self.by_nonce.remove(at)?;
        self.forget(&pooled);
        self.ready_end = self.ready_end.min(nonce.max(self.start));
        Some(pooled)
    }

    fn forget(&mut self, pooled: &Pooled) {
        self.cost -= pooled.cost;
        self.bytes -= pooled.size;
    }

    /// Takes the last transaction out, unless it is in a block.
    pub(super) fn pop_tail(&mut self) -> Option<Arc<Pooled>> {
        let nonce = self.tail()?.tx.nonce();
        self.remove(nonce)
    }

    /// Moves the account's nonce, which never goes back, and gives back what is below it.
    pub(super) fn advance(&mut self, nonce: u64) -> Vec<Arc<Pooled>> {
        if nonce != self.start {
            self.changed = Instant::now();
        }
        let kept = self.place(nonce).unwrap_or_else(|at| at);
        let gone: Vec<_> = self.by_nonce.drain(..kept).collect();
        for pooled in &gone {
            self.forget(pooled);
        }
        self.ready_end = self.ready_end.max(nonce);
        self.taken = self.taken.max(nonce);
        self.start = nonce;
        self.extend_ready();
        gone
    }

    fn extend_ready(&mut self) {
        let first = self.place(self.ready_end).unwrap_or_else(|at| at);
        for pooled in self.by_nonce.range(first..) {
            if pooled.tx.nonce() != self.ready_end {
                break;
            }
            self.ready_end += 1;
        }
    }
}
