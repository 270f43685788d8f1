//! An order of transactions by what they pay, which follows the base fee.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included};

use alloy_primitives::Address;

use super::Pooled;

/// The fees of a transaction, in wei per gas, and when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Price {
    cap: u128,
    priority: u128,
    arrival: u64,
}

impl Price {
    fn of(pooled: &Pooled) -> Self {
        use alloy_consensus::Transaction as _;
        let cap = pooled.tx.max_fee_per_gas();
        Self {
            cap,
            // Above the cap it means nothing, and such a transaction is refused before it comes here.
            priority: pooled.priority_fee().min(cap),
            arrival: pooled.arrival,
        }
    }

    /// The highest base fee at which the whole priority fee is paid.
    fn margin(&self) -> u128 {
        self.cap - self.priority
    }
}

/// What a transaction pays the producer of a block, and who comes first among equals: the greater goes into a block
/// before the other and leaves a full pool after it.
pub(super) type Rank = (Option<u128>, Reverse<u64>);

/// One transaction of each of many senders, ordered by what it pays at a base fee.
///
/// A transaction pays its priority fee, or what the base fee leaves of its fee cap if that is less. The order among those
/// that pay the one, and among those that pay the other, does not depend on the base fee: when that moves, only the
/// transactions between the old and the new one go from one order to the other.
#[derive(Debug, Default)]
pub(super) struct PriceIndex {
    base_fee: u128,
    /// Those that pay their priority fee, by it. An arrival is the number of one transaction.
    uncapped: BTreeMap<(u128, Reverse<u64>), Address>,
    /// Those that pay what is left of their fee cap, by that cap.
    capped: BTreeMap<(u128, Reverse<u64>), Address>,
    /// Priority fees of all by their margins.
    margins: BTreeMap<(u128, u64), (u128, Address)>,
}

impl PriceIndex {
    pub(super) fn insert(&mut self, pooled: &Pooled) {
        let price = Price::of(pooled);
        let sender = pooled.tx.signer();
        self.margins
            .insert((price.margin(), price.arrival), (price.priority, sender));
        let key = Self::key(&price, self.base_fee);
        self.place(&price).insert(key, sender);
    }

    pub(super) fn remove(&mut self, pooled: &Pooled) {
        let price = Price::of(pooled);
        self.margins.remove(&(price.margin(), price.arrival));
        let key = Self::key(&price, self.base_fee);
        self.place(&price).remove(&key);
    }

    fn place(&mut self, price: &Price) -> &mut BTreeMap<(u128, Reverse<u64>), Address> {
        if price.margin() >= self.base_fee {
            &mut self.uncapped
        } else {
            &mut self.capped
        }
    }

    fn key(price: &Price, base_fee: u128) -> (u128, Reverse<u64>) {
        let fee = if price.margin() >= base_fee {
            price.priority
        } else {
            price.cap
        };
        (fee, Reverse(price.arrival))
    }

    /// Orders by what is paid at this base fee, in wei per gas.
    pub(super) fn set_base_fee(&mut self, base_fee: u64) {
        let (old, new) = (self.base_fee, u128::from(base_fee));
        self.base_fee = new;
        let crossed = (Included((old.min(new), 0)), Excluded((old.max(new), 0)));
        if old == new {
            return;
        }
        let Self {
            uncapped,
            capped,
            margins,
            ..
        } = self;
        for (&(margin, arrival), &(priority, sender)) in margins.range(crossed) {
            let whole = (priority, Reverse(arrival));
            let left = (margin + priority, Reverse(arrival));
            if new > old {
                uncapped.remove(&whole);
                capped.insert(left, sender);
            } else {
                capped.remove(&left);
                uncapped.insert(whole, sender);
            }
        }
    }

    /// The sender of the transaction that pays most.
    pub(super) fn best(&self) -> Option<(Rank, Address)> {
        let uncapped = self.uncapped.last_key_value();
        let capped = self.capped.last_key_value();
        self.ranked(uncapped).max(self.ranked_capped(capped))
    }

    /// The sender of the transaction that pays least; of those that do not pay the base fee, the one with the lowest cap.
    pub(super) fn worst(&self) -> Option<(Rank, Address)> {
        let uncapped = self.ranked(self.uncapped.first_key_value());
        let capped = self.ranked_capped(self.capped.first_key_value());
        match (uncapped, capped) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    fn ranked(&self, entry: Option<(&(u128, Reverse<u64>), &Address)>) -> Option<(Rank, Address)> {
        entry.map(|(&(tip, arrival), &sender)| ((Some(tip), arrival), sender))
    }

    fn ranked_capped(
        &self,
        entry: Option<(&(u128, Reverse<u64>), &Address)>,
    ) -> Option<(Rank, Address)> {
        entry.map(|(&(cap, arrival), &sender)| ((cap.checked_sub(self.base_fee), arrival), sender))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        debug_assert_eq!(self.margins.len(), self.uncapped.len() + self.capped.len());
        self.margins.len()
    }
}
