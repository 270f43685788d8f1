//! Which transactions are likely to be in each other's way, learnt while the block runs.
//!
//! Transactions have a key: the contract they call. A conflict heats the keys of the two transactions; keys that
//! are in each other's way become one. The transactions of a hot key run one after the other. Everything here is a guess: it
//! decides what waits for what, never what is right.

use alloy_primitives::Address;
use alloy_primitives::map::{AddressMap, Entry};

/// No key, no transaction.
const NONE: u32 = u32::MAX;
/// Added by a conflict; a transaction that was in nobody's way takes one back.
const HEAT_OF_CONFLICT: u8 = 3;
/// From here on a key is hot.
const HOT: u8 = 3;
const HOTTEST: u8 = 24;
/// When so many of the last 32 transactions had to be executed again, all go in line.
const SATURATED: u32 = 12;

/// So many of the last 64 transactions that wait for the one before them leave nothing for another worker.
const SERIAL: u32 = 48;

#[derive(Debug)]
pub(super) struct Contention {
    /// The key of each transaction.
    keys: Vec<u32>,
    /// Of each transaction: the one before it by the same sender, where both call contracts.
    by_sender: Vec<u32>,
    /// Of each key: which it has become one with.
    merged: Vec<u32>,
    heat: Vec<u8>,
    /// Of each key: its last transaction dispatched.
    last: Vec<u32>,
    /// One bit a transaction, the latest lowest: it had to be executed again.
    recent: u32,
    /// The transactions from here to there go in line.
    in_line: u32,
    /// Nothing is learnt.
    quiet: bool,
    /// One bit a transaction dispatched, the latest lowest: it waits for the one before it.
    chained: u64,
}

/// What a transaction is known by before it runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outline {
    pub(super) sender: Address,
    pub(super) to: Option<Address>,
    /// Bytes of calldata or initcode: none is a transfer.
    pub(super) data: usize,
}

impl Contention {
    pub(super) fn new(outlines: impl ExactSizeIterator<Item = Outline>) -> Self {
        let count = outlines.len();
        let mut keys = Vec::with_capacity(count);
        let mut by_sender = Vec::with_capacity(count);
        let (mut targets, mut senders) = (AddressMap::<u32>::default(), AddressMap::default());
        for (index, outline) in outlines.enumerate() {
            let mut key = NONE;
            let mut before = NONE;
            if outline.data > 0 {
                if let Some(to) = outline.to {
                    let new = targets.len() as u32;
                    key = *targets.entry(to).or_insert(new);
                }
                match senders.entry(outline.sender) {
                    Entry::Occupied(mut last) => before = last.insert(index as u32),
                    Entry::Vacant(none) => {
                        none.insert(index as u32);
                    }
                }
            }
            keys.push(key);
            by_sender.push(before);
        }
        let targets = targets.len();
        Self {
            keys,
            by_sender,
            merged: (0..targets as u32).collect(),
            heat: vec![0; targets],
            last: vec![NONE; targets],
            recent: 0,
            in_line: 0,
            quiet: false,
            chained: 0,
        }
    }

    /// Of a block in which nothing is in the way of anything.
    pub(super) fn none(count: usize) -> Self {
        let nobody = Outline {
            sender: Address::ZERO,
            to: None,
            data: 0,
        };
        let mut contention = Self::new(core::iter::repeat_n(nobody, count));
        contention.quiet = true;
        contention
    }

    fn root(&mut self, mut key: u32) -> u32 {
        while self.merged[key as usize] != key {
            let above = self.merged[key as usize];
            self.merged[key as usize] = self.merged[above as usize];
            key = above;
        }
        key
    }

    /// The transaction to wait for before this one, which is being dispatched, and how many to take at once.
    pub(super) fn plan(&mut self, index: u32) -> (Option<u32>, u32) {
        let (before, many) = self.look(index);
        let follows = before.is_some_and(|before| before + 1 == index);
        self.chained = self.chained << 1 | u64::from(follows);
        (before, many)
    }

    /// Whether transactions have been going one after the other for so long that other workers are of no use.
    pub(super) fn is_serial(&self) -> bool {
        self.chained.count_ones() >= SERIAL
    }

    fn look(&mut self, index: u32) -> (Option<u32>, u32) {
        if self.quiet {
            return (None, 1);
        }
        if index < self.in_line {
            return (index.checked_sub(1), 1);
        }
        let at = index as usize;
        if self.keys[at] == NONE && self.by_sender[at] == NONE {
            return (None, self.transfers(at));
        }
        let mut before = self.by_sender[at];
        if self.keys[at] != NONE {
            let key = self.root(self.keys[at]) as usize;
            let last = core::mem::replace(&mut self.last[key], index);
            if self.heat[key] >= HOT && last != NONE && (before == NONE || last > before) {
                before = last;
            }
        }
        (Some(before).filter(|before| *before != NONE), 1)
    }

    /// How many transactions without calldata follow each other from here: each is shorter than dispatching it.
    fn transfers(&self, at: usize) -> u32 {
        const MOST: usize = 8;
        let keys = &self.keys[at..self.keys.len().min(at + MOST)];
        keys.iter().take_while(|key| **key == NONE).count().max(1) as u32
    }

    /// The transaction had read what it should have.
    pub(super) fn held(&mut self, index: u32) {
        self.recent <<= 1;
        let key = self.keys[index as usize];
        // While they go one after the other this says nothing, so it takes long until they try again.
        if key != NONE && index.is_multiple_of(4) {
            let key = self.root(key) as usize;
            self.heat[key] = self.heat[key].saturating_sub(1);
        }
    }

    /// The transaction had to be executed again, because of that other one.
    pub(super) fn failed(&mut self, index: u32, with: Option<u32>) {
        if self.quiet {
            return;
        }
        self.recent = self.recent << 1 | 1;
        if self.recent.count_ones() >= SATURATED {
            self.in_line = index.saturating_add(128);
            self.recent = 0;
        }
        let key = self.keys[index as usize];
        if key == NONE {
            return;
        }
        let key = self.root(key);
        self.warm(key);
        let other = with.map_or(NONE, |with| self.keys[with as usize]);
        if other == NONE {
            return;
        }
        let other = self.root(other);
        if other != key {
            self.warm(other);
            if self.heat[other as usize] >= 2 * HOT && self.heat[key as usize] >= 2 * HOT {
                let (from, to) = (key.max(other), key.min(other));
                self.merged[from as usize] = to;
                let last = [self.last[from as usize], self.last[to as usize]];
                self.last[to as usize] = last
                    .into_iter()
                    .filter(|at| *at != NONE)
                    .max()
                    .unwrap_or(NONE);
            }
        }
    }

    fn warm(&mut self, key: u32) {
        let heat = &mut self.heat[key as usize];
        *heat = heat.saturating_add(HEAT_OF_CONFLICT).min(HOTTEST);
    }
}
