//! The cells, one an account, found by address and then by number.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use alloy_primitives::map::AddressMap;
use alloy_primitives::{Address, U256};
use parking_lot::{Mutex, RwLock};
use revm::state::TransactionId;
use smallvec::SmallVec;

use super::NONE;
use crate::evm::state::{AccountState, ReadError, Slot, StateReader};

/// Numbers of transactions.
pub(super) type Writers = SmallVec<[u32; 4]>;

/// An account of the block.
#[derive(Debug)]
pub(super) struct Cell {
    /// As the committed transactions left it; `None` until it is read.
    pub(super) state: Option<Box<AccountState>>,
    /// Finished transactions that changed it and are not committed.
    pub(super) writers: Writers,
    /// The last committed transaction that changed it.
    pub(super) changed: u32,
}

impl Default for Cell {
    fn default() -> Self {
        Self {
            state: None,
            writers: Writers::new(),
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

    /// The writers before a transaction, in order.
    pub(super) fn writers_before(&self, index: u32) -> Writers {
        let mut writers: Writers = self.writers.iter().copied().collect();
        writers.retain(|writer| *writer < index);
        writers.sort_unstable();
        writers
    }

    pub(super) fn forget_writer(&mut self, index: u32) {
        self.writers.retain(|writer| *writer != index);
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
