//! The transactions of all senders, and the orders in which they are taken and given up.

use std::sync::Arc;

use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, B256, U256, map::HashMap};

use super::eviction::Worth;
use super::price::PriceIndex;
use super::queue::Queue;
use super::{Candidate, PoolLimits, Pooled, Refusal, SenderState, log_unpayable};
use crate::transaction::{self, TxError};

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) by_hash: HashMap<B256, Arc<Pooled>>,
    pub(super) queues: HashMap<Address, Queue>,
    pub(super) bytes: usize,
    pub(super) arrivals: u64,
    /// Sum over all queues.
    pub(super) ready: usize,
    pub(super) base_fee: u64,
    /// The last block the pool has been told of.
    pub(super) block: u64,
    /// Transactions that others have displaced.
    pub(super) displaced: u64,
    /// What each sender could put into the next block first.
    pub(super) heads: PriceIndex,
    /// The last transactions of the senders: what a full pool gives up.
    pub(super) held_tails: PriceIndex,
    pub(super) ready_tails: PriceIndex,
}

impl Inner {
    pub(super) fn add(
        &mut self,
        limits: &PoolLimits,
        candidate: Candidate,
    ) -> Result<Arc<Pooled>, Refusal> {
        let Candidate {
            tx,
            hash,
            size,
            block_bytes,
            sender: state,
        } = candidate;
        if self.by_hash.contains_key(&hash) {
            return Err(Refusal::Known);
        }
        let sender = tx.signer();
        // A block may be the head already that the pool has not been told of: what it used must not count here.
        if self
            .queues
            .get(&sender)
            .is_some_and(|queue| queue.start() < state.nonce)
        {
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
        let ready_end = self.admit(limits, &pooled, &state)?;
        let worth = Worth::of_new(&pooled, ready_end, self.base_fee);
        // While its queue is out of the indexes the sender loses nothing to itself.
        let queue = self.queues.remove(&sender);
        if let Some(queue) = &queue {
            self.unindex(queue);
        }
        let mut queue = queue.unwrap_or_else(|| Queue::new(state.nonce));
        let room = self.room_for(limits, &mut queue, &pooled, worth);
        let taken = room.map(|displaced| {
            self.displaced += displaced.len() as u64;
            for other in displaced {
                tracing::debug!(hash = %other.hash, by = %hash, "transaction dropped: the pool is full");
            }
            let pooled = Arc::new(pooled);
            self.arrivals = pooled.arrival;
            self.remember(&pooled);
            if let Some(old) = queue.insert(Arc::clone(&pooled)) {
                self.forget(&old);
            }
            pooled
        });
        if queue.len() > 0 {
            self.index(&queue);
            self.queues.insert(sender, queue);
        }
        taken.ok_or(Refusal::Full {
            transactions: self.by_hash.len(),
            bytes: self.bytes,
        })
    }

    /// Checks a transaction against the others of its sender; gives the nonce after the ready ones.
    fn admit(
        &self,
        limits: &PoolLimits,
        pooled: &Pooled,
        state: &SenderState,
    ) -> Result<u64, Refusal> {
        let nonce = pooled.tx.nonce();
        let queue = self.queues.get(&pooled.tx.signer());
        let next = queue.map_or(state.nonce, |queue| queue.taken().max(state.nonce));
        if nonce < next {
            return Err(Refusal::NonceTooLow { next, found: nonce });
        }
        let replaced = queue.and_then(|queue| queue.get(nonce));
        if let Some(old) = replaced {
            let enough = |old: u128, new: u128| {
                // Rounded up: a bump of 10 % on 1 wei asks for 2.
                new >= old.saturating_add(old.saturating_mul(limits.price_bump).div_ceil(100))
                    && new > old
            };
            if !enough(old.tx.max_fee_per_gas(), pooled.tx.max_fee_per_gas())
                || !enough(old.priority_fee(), pooled.priority_fee())
            {
                return Err(Refusal::ReplacementUnderpriced {
                    percent: limits.price_bump,
                });
            }
        }
        let Some(queue) = queue else {
            return match pooled.cost > state.balance {
                true => Err(Refusal::InsufficientFunds {
                    balance: state.balance,
                    queued: U256::ZERO,
                    cost: pooled.cost,
                }),
                false => Ok(state.nonce),
            };
        };
        // A transaction that comes before the sender's last one may take its place: else a full queue could never
        // close its gap.
        let own_last = queue
            .tail()
            .filter(|last| replaced.is_none() && last.tx.nonce() > nonce);
        let freed = replaced.or(own_last);
        let over = |freed: Option<&Arc<Pooled>>| {
            queue.len() + 1 - usize::from(freed.is_some()) > limits.per_sender
                || queue.bytes() + pooled.size - freed.map_or(0, |freed| freed.size)
                    > limits.per_sender_bytes
        };
        if over(freed) {
            return Err(Refusal::SenderFull {
                transactions: queue.len(),
                bytes: queue.bytes(),
            });
        }
        let leaves = replaced.or(own_last.filter(|_| over(None)));
        let queued = queue.cost() - leaves.map_or(U256::ZERO, |old| old.cost);
        if queued.saturating_add(pooled.cost) > state.balance {
            return Err(Refusal::InsufficientFunds {
                balance: state.balance,
                queued,
                cost: pooled.cost,
            });
        }
        Ok(queue.ready_end())
    }

    /// Makes room in a queue that is out of the indexes and in the pool, and gives back what went; `None` if there is
    /// none.
    fn room_for(
        &mut self,
        limits: &PoolLimits,
        queue: &mut Queue,
        pooled: &Pooled,
        worth: Worth,
    ) -> Option<Vec<Arc<Pooled>>> {
        let replaced = queue.get(pooled.tx.nonce()).map(|old| old.size);
        let sender_full = replaced.is_none()
            && (queue.len() + 1 > limits.per_sender
                || queue.bytes() + pooled.size > limits.per_sender_bytes);
        let leaves = match sender_full {
            true => Some(queue.tail()?.size),
            false => replaced,
        };
        let grows = match leaves {
            Some(size) => (0, pooled.size.saturating_sub(size)),
            None => (1, pooled.size),
        };
        let mut displaced = self.make_room(limits, worth, grows)?;
        if sender_full && let Some(last) = queue.pop_tail() {
            self.forget(&last);
            displaced.push(last);
        }
        Some(displaced)
    }

    pub(super) fn remember(&mut self, pooled: &Arc<Pooled>) {
        self.bytes += pooled.size;
        self.by_hash.insert(pooled.hash, Arc::clone(pooled));
    }

    pub(super) fn forget(&mut self, pooled: &Pooled) {
        self.bytes -= pooled.size;
        self.by_hash.remove(&pooled.hash);
    }

    /// Changes a queue and what the indexes say of it; an emptied one goes.
    pub(super) fn change<T>(
        &mut self,
        sender: Address,
        change: impl FnOnce(&mut Queue) -> T,
    ) -> Option<T> {
        let mut queue = self.queues.remove(&sender)?;
        self.unindex(&queue);
        let result = change(&mut queue);
        if queue.len() > 0 {
            self.index(&queue);
            self.queues.insert(sender, queue);
        }
        Some(result)
    }

    pub(super) fn change_or_make<T>(
        &mut self,
        sender: Address,
        start: u64,
        change: impl FnOnce(&mut Queue) -> T,
    ) -> Option<T> {
        self.queues
            .entry(sender)
            .or_insert_with(|| Queue::new(start));
        self.change(sender, change)
    }

    fn unindex(&mut self, queue: &Queue) {
        self.ready -= queue.ready_len();
        if let Some(next) = queue.next() {
            self.heads.remove(next);
        }
        if let Some(tail) = queue.tail() {
            self.tails(queue).remove(tail);
        }
    }

    fn index(&mut self, queue: &Queue) {
        self.ready += queue.ready_len();
        if let Some(next) = queue.next() {
            self.heads.insert(next);
        }
        if let Some(tail) = queue.tail() {
            self.tails(queue).insert(tail);
        }
    }

    fn tails(&mut self, queue: &Queue) -> &mut PriceIndex {
        if queue.tail_is_held() {
            &mut self.held_tails
        } else {
            &mut self.ready_tails
        }
    }

    pub(super) fn set_base_fee(&mut self, base_fee: u64) {
        self.base_fee = base_fee;
        for index in [&mut self.heads, &mut self.held_tails, &mut self.ready_tails] {
            index.set_base_fee(base_fee);
        }
    }

    /// Puts the transaction that pays most into a block, unless none pays the base fee.
    pub(super) fn take_best(&mut self) -> Option<Arc<Pooled>> {
        let ((tip, _), sender) = self.heads.best()?;
        tip?;
        let queue = self.queues.get_mut(&sender)?;
        let pooled = Arc::clone(queue.next()?);
        let tail = queue.tail().cloned();
        self.heads.remove(&pooled);
        queue.take_next();
        if let Some(next) = queue.next() {
            self.heads.insert(next);
        }
        // What is in a block is not given up. Its tail, ready or held, stays one until it is taken itself.
        if let Some(tail) = tail.filter(|_| queue.tail().is_none()) {
            self.ready_tails.remove(&tail);
        }
        Some(pooled)
    }

    /// Takes a transaction and those after it of its sender out of the block being selected.
    pub(super) fn put_back(&mut self, pooled: &Pooled, parked: bool) {
        let nonce = pooled.tx.nonce();
        self.change(pooled.tx.signer(), |queue| queue.put_back(nonce, parked));
    }

    pub(super) fn unpark(&mut self, sender: Address) {
        self.change(sender, Queue::unpark);
    }

    pub(super) fn remove(&mut self, hash: &B256) -> Option<Arc<Pooled>> {
        let pooled = Arc::clone(self.by_hash.get(hash)?);
        self.forget(&pooled);
        self.change(pooled.tx.signer(), |queue| {
            queue.remove(pooled.tx.nonce());
        });
        Some(pooled)
    }

    pub(super) fn advance(&mut self, sender: Address, state: SenderState) -> Vec<Arc<Pooled>> {
        // Whoever submitted may have seen a later block already: what an earlier one left is out of date.
        if self
            .queues
            .get(&sender)
            .is_none_or(|queue| queue.start() > state.nonce)
        {
            return Vec::new();
        }
        // What the balance no longer covers would block the queue: the last nonces go first.
        let changed = self.change(sender, |queue| {
            let used = queue.advance(state.nonce);
            let mut unpayable = Vec::new();
            while queue.cost() > state.balance
                && let Some(last) = queue.pop_tail()
            {
                unpayable.push(last);
            }
            (used, unpayable)
        });
        let (used, unpayable) = changed.unwrap_or_default();
        for pooled in used.iter().chain(&unpayable) {
            self.forget(pooled);
        }
        unpayable
    }
}
