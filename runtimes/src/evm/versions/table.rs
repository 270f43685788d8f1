//! The cells, one an account, found by address and then by number.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use alloy_primitives::map::{AddressMap, Entry, HashMap};
use alloy_primitives::{Address, U256};
use parking_lot::{Mutex, RwLock};
use revm::state::TransactionId;
use smallvec::SmallVec;

use super::NONE;
use crate::evm::state::{AccountState, ReadError, Slot, StateReader};

/// What a finished transaction that is not committed did to an account, but for its slots.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pending {
    pub(super) index: u32,
    /// More than balance and nonce has changed: the transaction itself says what.
    pub(super) more: bool,
    /// The nonce after it, if that changed; it never becomes zero without more.
    pub(super) nonce: u64,
    /// Added to the balance, modulo 2^256.
    pub(super) difference: U256,
}

/// In no order.
pub(super) type PendingList = SmallVec<[Pending; 1]>;

/// Values of slots after finished transactions that are not committed.
type PendingSlots = HashMap<U256, SmallVec<[(u32, U256); 1]>>;

/// An account of the block.
#[derive(Debug)]
pub(super) struct Cell {
    /// As the committed transactions left it; `None` until it is read.
    pub(super) state: Option<Box<AccountState>>,
    /// By finished transactions that are not committed.
    pub(super) pending: PendingList,
    /// The same of its slots; there once a transaction wrote one.
    pub(super) slots: Option<Box<PendingSlots>>,
    /// The last committed transaction that changed it.
    pub(super) changed: u32,
}

impl Default for Cell {
    fn default() -> Self {
        Self {
            state: None,
            pending: PendingList::new(),
            slots: None,
            changed: NONE,
        }
    }
}

impl Cell {
    /// The account, read from below the first time.
    pub(super) fn load(
        &mut self,
        address: Address,
        base: &dyn StateReader,
    ) -> Result<&mut AccountState, ReadError> {
        let state = match self.state.take() {
            Some(state) => state,
            None => Box::new(AccountState::loaded(address, base.account(&address)?)),
        };
        Ok(self.state.insert(state))
    }

    /// A slot as the committed transactions left it, read from below the first time.
    pub(super) fn slot(
        &mut self,
        address: Address,
        key: &U256,
        base: &dyn StateReader,
    ) -> Result<U256, ReadError> {
        let account = self.load(address, base)?;
        if let Some(slot) = account.storage.get(key) {
            return Ok(slot.present());
        }
        if account.is_blank() {
            return Ok(U256::ZERO);
        }
        let value = base.storage(&address, key)?;
        let slot = Slot::read(value, TransactionId::ZERO);
        account.storage.insert(*key, slot);
        Ok(value)
    }

    /// Notes what a finished transaction did.
    pub(super) fn note(&mut self, index: u32, change: &AccountState) {
        if let Some(pending) = change.pending(index) {
            self.pending.push(pending);
        }
        for (key, slot) in change.written_slots() {
            let slots = self.slots.get_or_insert_default();
            slots.entry(*key).or_default().push((index, slot.present()));
        }
    }

    /// Forgets what a transaction did, which was noted.
    pub(super) fn forget(&mut self, index: u32, change: &AccountState) {
        self.pending.retain(|pending| pending.index != index);
        let Some(slots) = &mut self.slots else {
            return;
        };
        for (key, _) in change.written_slots() {
            if let Entry::Occupied(mut values) = slots.entry(*key) {
                values.get_mut().retain(|(writer, _)| *writer != index);
                if values.get().is_empty() {
                    values.remove();
                }
            }
        }
    }

    /// The value a slot has after the last noted transaction before this one that wrote it.
    pub(super) fn noted_slot(&self, key: &U256, index: u32) -> Option<(u32, U256)> {
        let values = self.slots.as_ref()?.get(key)?;
        let before = values.iter().filter(|(writer, _)| *writer < index);
        before.max_by_key(|(writer, _)| *writer).copied()
    }
}

/// Addresses are spread over so many locks.
const SHARDS: usize = 32;
/// Cells of the first chunk; every further one has twice as many.
const FIRST: usize = 256;
/// Chunks: together they hold four billion cells.
const CHUNKS: usize = 24;

/// All cells. They never move, so they are found without a lock.
#[derive(Debug)]
pub(super) struct Table {
    shards: [RwLock<AddressMap<u32>>; SHARDS],
    chunks: [OnceLock<Box<[Mutex<Cell>]>>; CHUNKS],
    used: AtomicU32,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            shards: Default::default(),
            chunks: Default::default(),
            used: AtomicU32::new(0),
        }
    }
}

/// The chunk of a cell, and its place there.
const fn place(id: u32) -> (usize, usize) {
    let number = id as usize + FIRST;
    let chunk = (number / FIRST).ilog2() as usize;
    (chunk, number - (FIRST << chunk))
}

impl Table {
    /// The cell of an address and its number.
    pub(super) fn find(&self, address: Address) -> (u32, &Mutex<Cell>) {
        let shard = &self.shards[self.shard(&address)];
        if let Some(id) = shard.read().get(&address) {
            return (*id, self.cell(*id));
        }
        let mut shard = shard.write();
        let id = *shard
            .entry(address)
            .or_insert_with(|| self.used.fetch_add(1, Ordering::Relaxed));
        drop(shard);
        (id, self.cell(id))
    }

    /// Any bytes of an address can be chosen by whoever makes it; a bad spread costs waiting, so a few are mixed only.
    fn shard(&self, address: &Address) -> usize {
        let [a, b, .., c, d] = address.0.0;
        let mixed = u32::from_le_bytes([a, b, c, d]).wrapping_mul(0x9e37_79b1);
        mixed as usize >> (u32::BITS - SHARDS.ilog2())
    }

    /// The cell of a number given out by [`Table::find`].
    pub(super) fn cell(&self, id: u32) -> &Mutex<Cell> {
        let (chunk, at) = place(id);
        let cells = self.chunks[chunk].get_or_init(|| {
            let cells = (0..FIRST << chunk).map(|_| Mutex::default());
            cells.collect()
        });
        &cells[at]
    }

    /// The cells in the order in which they were made.
    pub(super) fn into_cells(self) -> impl Iterator<Item = Cell> {
        let used = self.used.into_inner() as usize;
        self.chunks
            .into_iter()
            .filter_map(OnceLock::into_inner)
            .flatten()
            .map(Mutex::into_inner)
            .take(used)
    }
}
